//! `GET /openapi.json`: this interface as OpenAPI 3.1, out of the handlers themselves. Ingestion's
//! doors stand in another crate and are described here.

use crate::{
    alerts, hunts, indicators, keys, letters, live, ops, page, query, rules, settings, streamguard,
};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::LazyLock;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

/// An error as RFC 9457 problem details.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemDetails {
    /// The kind, `urn:palisade:problem:<slug>`.
    pub r#type: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened here and what to do.
    pub detail: String,
    /// The path that was asked for.
    pub instance: Option<String>,
    /// The correlation id, also in `X-Request-Id`.
    pub request_id: Option<String>,
    /// Index and reason of refused records.
    #[schema(value_type = Option<Vec<Object>>)]
    pub errors: Option<Vec<()>>,
    /// The bound that was passed, in bytes.
    pub limit: Option<u64>,
    /// When to try again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// What became of a request with records.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecordsAnswer {
    /// How many records are durable now.
    pub accepted: u64,
    /// The first 1,000 refused ones, with index and reason.
    #[schema(value_type = Vec<Object>)]
    pub rejected: Vec<()>,
    /// Whether this is the answer of an earlier request with the same key.
    pub repeated: Option<bool>,
}

/// Sends records. The answer comes when they are durable. All are taken or, with an error, none;
/// single bad records are listed.
#[utoipa::path(post, path = "/api/v1/streams/{stream}/records", tag = "ingestion",
    params(
        ("stream" = String, Path, description = "The stream, for example `events`"),
        ("source" = Option<String>, Query, description = "The column `source`"),
        ("domain" = Option<String>, Query, description = "The time domain"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters; a repeat within 24 hours stores nothing twice"),
        ("Content-Encoding" = Option<String>, Header, description = "`gzip`, `zstd` or none"),
    ),
    request_body(content = String, content_type = "application/x-ndjson", description = "JSON records: an array, one a line, or concatenated; or text lines as text/plain"),
    responses(
        (status = 200, description = "The records are durable", body = RecordsAnswer),
        (status = 400, description = "The body cannot be read", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "The body is over the limit", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "The key was used with another body", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 429, description = "The server is busy: try again after Retry-After", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The disk is nearly full or the server stops", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
#[allow(dead_code, reason = "it describes the door in palisade-ingest")]
fn post_records() {}

/// Sends documents as Elasticsearch's bulk interface takes them: action lines `index` or `create`,
/// each followed by its document.
#[utoipa::path(post, path = "/_bulk", tag = "ingestion",
    request_body(content = String, content_type = "application/x-ndjson", description = "Action and document lines"),
    responses(
        (status = 200, description = "`took`, `errors` and the outcome of every item"),
        (status = 400, description = "The body cannot be read"),
        (status = 413, description = "The body is over the limit"),
        (status = 429, description = "The server is busy"),
    ),
)]
#[allow(dead_code, reason = "it describes the door in palisade-ingest")]
fn bulk() {}

/// Starts (`start`) or ends (`end`) the time domain of a historical load: in between nothing in it is late.
/// The end is sent when every request of the load is answered. Again changes nothing.
#[utoipa::path(post, path = "/api/v1/domains/{domain}/{turn}", tag = "ingestion",
    params(
        ("domain" = String, Path, description = "1 to 128 visible ASCII characters, not `live`"),
        ("turn" = String, Path, description = "`start` or `end`"),
    ),
    responses(
        (status = 204, description = "It is durable"),
        (status = 400, description = "There can be no such domain", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "Neither start nor end", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 429, description = "The server is busy: try again after Retry-After", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The disk is nearly full or the server stops", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
#[allow(dead_code, reason = "it describes the door in palisade-ingest")]
fn post_turn() {}

/// `GET /openapi.json`: this description.
#[utoipa::path(get, path = "/openapi.json", tag = "operation", security(()), responses(
    (status = 200, description = "OpenAPI 3.1"),
))]
pub async fn get_openapi() -> Response {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| Description::openapi().to_json().unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Palisade",
        description = "Security events in, durably; threats found while they stream; SQL over all of history.",
    ),
    paths(
        page::root, get_openapi, ops::healthz, ops::readyz, ops::metrics, query::post_query,
        live::get_stats, live::get_live, keys::list, keys::make, keys::revoke,
        letters::list, letters::show, letters::retry, letters::drop_letter,
        settings::get_config, settings::get_domains,
        alerts::list::list, alerts::one::show, alerts::one::change, alerts::one::note,
        alerts::silences::list, alerts::silences::make, alerts::silences::lift,
        alerts::groups::incidents, alerts::groups::entity_risk,
        alerts::deliveries::list, alerts::deliveries::retry,
        rules::list::list, rules::list::show, rules::list::refused,
        rules::change::deploy, rules::change::replace, rules::change::remove, rules::change::grade,
        rules::exceptions::list, rules::exceptions::make, rules::exceptions::end,
        rules::check::lint, rules::check::explain, rules::check::report,
        hunts::list, hunts::make, hunts::show, hunts::end, hunts::results,
        indicators::list, indicators::show, indicators::put, indicators::remove, indicators::search,
        streamguard::events::latest, streamguard::events::by_id,
        streamguard::events::number, streamguard::events::by_score, streamguard::events::threats,
        streamguard::events::by_time, streamguard::events::by_user, streamguard::events::by_type,
        streamguard::anomalies::latest, streamguard::anomalies::by_id, streamguard::anomalies::by_user,
        streamguard::anomalies::high, streamguard::anomalies::by_time,
        streamguard::anomalies::number, streamguard::stats::summary,
        streamguard::health::health, streamguard::health::status, streamguard::health::ready,
        post_records, bulk, post_turn,
    ),
    modifiers(&Keys, &Repeats, &Names),
    security(("bearer" = []), ("basic" = [])),
    tags(
        (name = "ingestion", description = "Records in"),
        (name = "query", description = "SQL"),
        (name = "live", description = "What moves right now"),
        (name = "alerts", description = "Alerts, what people decided about them, silences, incidents, notifications"),
        (name = "rules", description = "Sigma rules and correlations: deployed, changed for a tenant, looked at"),
        (name = "hunts", description = "Rules over stored history"),
        (name = "indicators", description = "Lists of addresses, domains, hashes that records are held against"),
        (name = "streamguard", description = "StreamGuard's interface"),
        (name = "administration", description = "Keys, dead letters, configuration"),
        (name = "operation", description = "Probes and metrics"),
    ),
)]
struct Description;

/// The ways to send a key.
struct Keys;

impl Modify for Keys {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let components = description.components.get_or_insert_default();
        for (name, scheme) in [("bearer", HttpAuthScheme::Bearer), ("basic", HttpAuthScheme::Basic)]
        {
            components.add_security_scheme(name, SecurityScheme::Http(Http::new(scheme)));
        }
    }
}

/// Paths that answer as another path does.
struct Repeats;

impl Modify for Repeats {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let paths = &mut description.paths.paths;
        for path in ["/api/events", "/api/anomalies"] {
            if let Some(item) = paths.get(path).cloned() {
                paths.insert(format!("{path}/recent"), item);
            }
        }
    }
}

/// Names every operation by method and path: the handlers' own names are not unique.
struct Names;

impl Modify for Names {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut description.paths.paths {
            let methods = [
                ("get", &mut item.get),
                ("post", &mut item.post),
                ("put", &mut item.put),
                ("patch", &mut item.patch),
                ("delete", &mut item.delete),
            ];
            for (method, operation) in methods {
                if let Some(operation) = operation {
                    operation.operation_id = Some(operation_id(method, path));
                }
            }
        }
    }
}

fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let text = Description::openapi().to_json().unwrap();
        let described: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(described["openapi"].as_str().unwrap().starts_with("3.1."));
        let mut found = BTreeSet::new();
        let mut names = BTreeSet::new();
        for (path, item) in described["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                assert!(
                    names.insert(operation["operationId"].as_str().unwrap().to_owned()),
                    "{path}"
                );
                found.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
        let mut expected: BTreeSet<String> = crate::routes()
            .iter()
            .flat_map(|(path, methods, _)| {
                methods.split(' ').map(move |method| format!("{method} {path}"))
            })
            .collect();
        expected.insert("POST /api/v1/streams/{stream}/records".into());
        expected.insert("POST /_bulk".into());
        expected.insert("POST /api/v1/domains/{domain}/{turn}".into());
        assert_eq!(found, expected);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let text = Description::openapi().to_json().unwrap();
        let described: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut parts = text.split("\"#/");
        parts.next();
        let mut seen = 0;
        for part in parts {
            let path = part.split('"').next().unwrap();
            assert!(described.pointer(&format!("/{path}")).is_some(), "{path}");
            seen += 1;
        }
        assert!(seen > 20, "{seen}");
    }

    #[test]
    fn models_are_described_in_their_own_spelling() {
        let text = Description::openapi().to_json().unwrap();
        let described: serde_json::Value = serde_json::from_str(&text).unwrap();
        let event = &described["components"]["schemas"]["SecurityEvent"]["properties"];
        for name in [
            "eventId",
            "user",
            "timestamp",
            "type",
            "sourceIp",
            "geoLocation",
            "threatScore",
            "metadata",
        ] {
            assert!(event.get(name).is_some(), "{name}");
        }
    }
}
