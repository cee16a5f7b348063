//! Elasticsearch's native answers to `_bulk`, with `filter_path` as its shippers use it.

use super::bulk::{Action, Parsed};
use crate::submit::{Receipt, SubmitError};
use http::StatusCode;
use std::io::Write;

/// Elasticsearch's name, status and words for a submission that was not taken.
#[must_use]
pub fn error_of(error: &SubmitError) -> (&'static str, StatusCode, String) {
    let (kind, status) = match error {
        SubmitError::Busy { .. } => {
            ("es_rejected_execution_exception", StatusCode::TOO_MANY_REQUESTS)
        }
        // Elasticsearch answers a full disk so too, and its clients try again.
        SubmitError::DiskLow => ("cluster_block_exception", StatusCode::TOO_MANY_REQUESTS),
        SubmitError::Stopped => ("unavailable_shards_exception", StatusCode::SERVICE_UNAVAILABLE),
        SubmitError::TooLarge { .. } => {
            ("content_too_long_exception", StatusCode::PAYLOAD_TOO_LARGE)
        }
        SubmitError::Refused(_) => ("security_exception", StatusCode::FORBIDDEN),
        SubmitError::KeyConflict => ("version_conflict_engine_exception", StatusCode::CONFLICT),
        SubmitError::Invalid(_) => ("illegal_argument_exception", StatusCode::BAD_REQUEST),
    };
    (kind, status, error.to_string())
}

/// The native body of an error that refuses a whole request.
#[must_use]
pub fn whole(kind: &str, reason: &str, status: StatusCode) -> Vec<u8> {
    let cause = serde_json::json!({ "type": kind, "reason": reason });
    let body = serde_json::json!({
        "error": { "root_cause": [cause], "type": kind, "reason": reason },
        "status": status.as_u16(),
    });
    body.to_string().into_bytes()
}

/// Which members of the answer `filter_path` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    took: bool,
    errors: bool,
    names: bool,
    status: bool,
    error: bool,
}

impl Filter {
    /// Everything.
    pub const ALL: Self = Self { took: true, errors: true, names: true, status: true, error: true };

    /// Reads `filter_path`. Paths to other members than these widen the answer to everything: more
    /// than was asked for is no error to a client, less would be.
    #[must_use]
    pub fn parse(paths: Option<&str>) -> Self {
        let Some(paths) = paths.filter(|paths| !paths.is_empty()) else { return Self::ALL };
        let mut filter =
            Self { took: false, errors: false, names: false, status: false, error: false };
        for path in paths.split(',') {
            match path.trim() {
                "took" => filter.took = true,
                "errors" => filter.errors = true,
                "items.*.status" | "items.*.*.status" => filter.status = true,
                "items.*.error"
                | "items.*.error.*"
                | "items.*.error.type"
                | "items.*.error.reason" => filter.error = true,
                _ => return Self::ALL,
            }
        }
        filter
    }

    fn items(self) -> bool {
        self.names || self.status || self.error
    }
}

/// What became of the documents of one index.
pub type Outcome = Result<Receipt, SubmitError>;

/// The answer to a request: `outcomes` belong to [`Parsed::indexes`]; `request` makes the ids of
/// documents without one.
#[must_use]
pub fn items(
    parsed: &Parsed,
    outcomes: &[Outcome],
    took_ms: u64,
    request: &str,
    filter: Filter,
) -> Vec<u8> {
    let failures: Vec<_> =
        outcomes.iter().map(|outcome| outcome.as_ref().err().map(error_of)).collect();
    let errors = parsed.operations.iter().any(|operation| operation.document.is_err())
        || outcomes.iter().any(|o| o.as_ref().map_or(true, |receipt| receipt.rejected_total > 0));
    let mut out = Writer { bytes: Vec::with_capacity(64 + parsed.operations.len() * 160) };
    out.raw("{");
    let mut first = true;
    if filter.errors {
        out.member(&mut first, "errors").raw(if errors { "true" } else { "false" });
    }
    if filter.took {
        out.member(&mut first, "took").number(took_ms);
    }
    if filter.items() && (filter.names || filter.status || errors) {
        out.member(&mut first, "items").raw("[");
        for (at, operation) in parsed.operations.iter().enumerate() {
            let failure = match (&operation.document, failures.get(operation.index)) {
                (Err(error), _) => {
                    Some((error.kind, StatusCode::BAD_REQUEST, error.reason.as_str()))
                }
                (Ok(_), Some(Some((kind, status, reason)))) => {
                    Some((*kind, *status, reason.as_str()))
                }
                (Ok(place), _) => outcomes
                    .get(operation.index)
                    .and_then(|outcome| outcome.as_ref().ok())
                    .and_then(|receipt| refusal(receipt, *place as u64))
                    .map(|reason| ("document_parsing_exception", StatusCode::BAD_REQUEST, reason)),
            };
            if at > 0 {
                out.raw(",");
            }
            out.raw("{\"").raw(operation.action.as_str()).raw("\":{");
            let mut first = true;
            if filter.names {
                let index = parsed.indexes.get(operation.index).map_or("", |i| i.name.as_ref());
                out.member(&mut first, "_index").text(index);
                out.member(&mut first, "_id");
                match &operation.id {
                    Some(id) => out.text(id),
                    None => out.text(&format!("{request}:{at}")),
                };
                if failure.is_none() {
                    created(&mut out, operation.action);
                }
            }
            let status = failure.as_ref().map_or(StatusCode::CREATED, |failure| failure.1);
            if filter.status {
                out.member(&mut first, "status").number(u64::from(status.as_u16()));
            }
            if let Some((kind, _, reason)) = failure.filter(|_| filter.error) {
                out.member(&mut first, "error").raw("{\"type\":").text(kind);
                out.raw(",\"reason\":").text(reason).raw("}");
            }
            out.raw("}}");
        }
        out.raw("]");
    }
    out.raw("}");
    out.bytes
}

fn created(out: &mut Writer, action: Action) {
    debug_assert!(matches!(action, Action::Index | Action::Create));
    out.raw(",\"_version\":1,\"result\":\"created\",\"_shards\":{\"total\":1,\"successful\":1,\"failed\":0},\"_seq_no\":0,\"_primary_term\":1");
}

fn refusal(receipt: &Receipt, place: u64) -> Option<&str> {
    let at = receipt.rejected.binary_search_by_key(&place, |(index, _)| *index).ok()?;
    receipt.rejected.get(at).map(|(_, reason)| reason.as_str())
}

struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn raw(&mut self, text: &str) -> &mut Self {
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    fn member(&mut self, first: &mut bool, name: &str) -> &mut Self {
        if !std::mem::take(first) {
            self.raw(",");
        }
        self.raw("\"").raw(name).raw("\":")
    }

    fn number(&mut self, number: u64) -> &mut Self {
        // Writing to a vector cannot fail.
        let _ = write!(self.bytes, "{number}");
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        let _ = serde_json::to_writer(&mut self.bytes, text);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use serde_json::{Value, json};

    fn request() -> Parsed {
        let body = "{\"create\":{\"_index\":\"a\"}}\n{}\n{\"index\":{\"_index\":\"b\",\"_id\":\"i\\\"d\"}}\n{}\n{\"delete\":{\"_index\":\"a\",\"_id\":\"1\"}}\n{\"create\":{\"_index\":\"a\"}}\n5\n";
        super::super::bulk::parse(&Bytes::from_static(body.as_bytes()), None).unwrap()
    }

    fn answer(outcomes: &[Outcome], filter: &str) -> Value {
        let filter = Filter::parse((!filter.is_empty()).then_some(filter));
        serde_json::from_slice(&items(&request(), outcomes, 7, "req", filter)).unwrap()
    }

    #[test]
    fn every_item_has_its_own_answer() {
        let receipt = Receipt {
            accepted: 1,
            rejected: vec![(1, "no object".into())],
            rejected_total: 1,
            repeated: false,
            offset: None,
        };
        let answer = answer(&[Ok(receipt), Err(SubmitError::Busy { retry_after_ms: 9 })], "");
        assert_eq!(answer["errors"], true);
        assert_eq!(answer["took"], 7);
        let items = answer["items"].as_array().unwrap();
        assert_eq!(items[0]["create"]["status"], 201);
        assert_eq!(items[0]["create"]["_id"], "req:0");
        assert_eq!(items[0]["create"]["result"], "created");
        assert_eq!(items[1]["index"]["status"], 429);
        assert_eq!(items[1]["index"]["_id"], "i\"d");
        assert_eq!(items[1]["index"]["error"]["type"], "es_rejected_execution_exception");
        assert_eq!(items[2]["delete"]["status"], 400);
        assert_eq!(items[3]["create"]["status"], 400);
        assert_eq!(items[3]["create"]["error"]["reason"], "no object");
    }

    #[test]
    fn shippers_get_only_what_their_filter_names() {
        let fine = || [Ok(Receipt::default()), Ok(Receipt::default())];
        let got = answer(&fine(), "errors,items.*.error,items.*.status");
        assert_eq!(got["items"][0], json!({"create": {"status": 201}}));
        assert_eq!(got["items"][2]["delete"]["error"]["type"], "illegal_argument_exception");
        assert!(got.get("took").is_none());
        assert_eq!(answer(&fine(), "errors"), json!({"errors": true}));
        assert!(answer(&fine(), "items.*._seq_no")["took"].is_number());
    }
}
