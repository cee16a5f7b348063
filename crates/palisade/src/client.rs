//! Talking to a server: the one that runs on this data directory, or one that is named.

use crate::config::Config;
use crate::server::Failure;
use palisade_event::TenantId;
use palisade_ingest::submit::{
    Body, DomainTurn, FieldValue, Receipt, Submission, Submit, SubmitError, Submitted, Turned,
};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

/// A server's address and what to show it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
    key: Option<String>,
    /// Of which tenant the key must be, where that was said.
    tenant: Option<String>,
}

/// The longest problem text that is shown.
const PROBLEM_BYTES: u64 = 64 << 10;

impl Client {
    /// The named server, else the one of the configuration. The key comes from `PALISADE_KEY`.
    pub(crate) fn new(url: Option<&str>, config: &Config) -> Self {
        let scheme = if config.http.tls.is_some() { "https" } else { "http" };
        let url = match url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("{scheme}://{}", config.http.listen),
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .build()
            .new_agent();
        let key = std::env::var("PALISADE_KEY").ok().filter(|key| !key.is_empty());
        Self { agent, url, key, tenant: None }
    }

    /// The same with another key.
    pub(crate) fn with_key(self, key: String) -> Self {
        Self { key: Some(key), ..self }
    }

    /// The same, for changes to this tenant only: the server refuses keys of others.
    pub(crate) fn for_tenant(self, tenant: Option<String>) -> Self {
        Self { tenant, ..self }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether a Palisade server answers there.
    pub(crate) fn is_up(&self) -> bool {
        let answer = self.agent.get(format!("{}/healthz", self.url)).call();
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// Posts a body; the answer's body when the status is below 300, else what the server says.
    pub(crate) fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<impl Read + use<>, Failure> {
        let mut request = self.agent.post(format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer =
            request.send(body).map_err(|error| format!("{} does not answer: {error}", self.url))?;
        read(answer)
    }

    /// Sends a request with a JSON body, or without one; the answer as JSON when the status is below 300, else what the
    /// server says.
    pub(crate) fn json(
        &self,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<serde_json::Value, Failure> {
        let mut request = ureq::http::Request::builder().method(method);
        request = request.uri(format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("palisade-tenant", tenant);
        }
        let cant = |error: ureq::Error| format!("{} does not answer: {error}", self.url);
        let answer = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                self.agent.run(request.body(body.to_string())?).map_err(cant)?
            }
            None => self.agent.run(request.body(())?).map_err(cant)?,
        };
        let mut text = String::new();
        read(answer)?.read_to_string(&mut text)?;
        Ok(if text.is_empty() { serde_json::Value::Null } else { serde_json::from_str(&text)? })
    }

    /// Starts or ends a time domain of the key's tenant (T2).
    pub(crate) fn turn_domain(&self, domain: &str, turn: DomainTurn) -> Result<(), SubmitError> {
        let name =
            percent_encoding::utf8_percent_encode(domain, percent_encoding::NON_ALPHANUMERIC);
        let turn = match turn {
            DomainTurn::Starts => "start",
            DomainTurn::Ends => "end",
        };
        let mut request = self.agent.post(format!("{}/api/v1/domains/{name}/{turn}", self.url));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut answer =
            request.send_empty().map_err(|_| SubmitError::Busy { retry_after_ms: 500 })?;
        match answer.status().as_u16() {
            204 => Ok(()),
            429 | 503 => Err(SubmitError::Busy { retry_after_ms: 500 }),
            _ => {
                let body = answer.body_mut().with_config().limit(PROBLEM_BYTES);
                let problem: serde_json::Value = body
                    .read_to_string()
                    .ok()
                    .and_then(|text| serde_json::from_str(&text).ok())
                    .unwrap_or_default();
                let detail = problem.get("detail").and_then(serde_json::Value::as_str);
                let detail = detail.unwrap_or("the server refused the request");
                Err(SubmitError::Invalid(detail.to_owned()))
            }
        }
    }

    /// Asks for a path; as [`Client::post`].
    pub(crate) fn get(&self, path: &str) -> Result<impl Read + use<>, Failure> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let answer =
            request.call().map_err(|error| format!("{} does not answer: {error}", self.url))?;
        read(answer)
    }
}

/// The body of a good answer, or what the server says is wrong.
fn read(answer: ureq::http::Response<ureq::Body>) -> Result<impl Read + use<>, Failure> {
    let status = answer.status();
    let mut reader = answer.into_body().into_reader();
    if status.as_u16() < 300 {
        return Ok(reader);
    }
    let mut text = String::new();
    reader.by_ref().take(PROBLEM_BYTES).read_to_string(&mut text)?;
    let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let detail = problem.get("detail").and_then(serde_json::Value::as_str).unwrap_or(&text);
    let hint = match status.as_u16() {
        401 => "; give a key in PALISADE_KEY",
        _ => "",
    };
    Err(format!("{detail}{hint}").into())
}

/// The seam of the file loader, over HTTP: each submission is one request, with its idempotency key.
#[derive(Debug, Clone)]
pub(crate) struct RemoteDoor {
    client: Client,
}

/// How often a busy server is asked again, with half a second between.
const TRIES: usize = 600;

impl RemoteDoor {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn send(&self, submission: &Submission) -> Result<Receipt, SubmitError> {
        let (kind, body) = match body_of(&submission.body) {
            Ok(body) => body,
            Err(refused) => return Ok(refused),
        };
        let mut path = format!(
            "/api/v1/streams/events/records?source={}",
            percent_encoding::utf8_percent_encode(
                &submission.source,
                percent_encoding::NON_ALPHANUMERIC
            )
        );
        if let Some(domain) = &submission.domain {
            path.push_str("&domain=");
            path.extend(percent_encoding::utf8_percent_encode(
                domain,
                percent_encoding::NON_ALPHANUMERIC,
            ));
        }
        let mut request = self
            .client
            .agent
            .post(format!("{}{path}", self.client.url))
            .header("content-type", kind);
        if let Some(key) = &self.client.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if let Some(key) = &submission.key {
            request = request.header("idempotency-key", key.as_str());
        }
        let mut answer =
            request.send(body.as_slice()).map_err(|_| SubmitError::Busy { retry_after_ms: 500 })?;
        let status = answer.status().as_u16();
        let text = answer
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_to_string()
            .map_err(|_| SubmitError::Busy { retry_after_ms: 500 })?;
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let list = value.get(if status == 200 { "rejected" } else { "errors" });
        let rejected: Vec<(u64, String)> = list
            .and_then(serde_json::Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|one| {
                Some((one.get("index")?.as_u64()?, one.get("reason")?.as_str()?.to_owned()))
            })
            .collect();
        match status {
            200 => Ok(Receipt {
                accepted: value.get("accepted").and_then(serde_json::Value::as_u64).unwrap_or(0),
                rejected_total: value
                    .get("rejected_total")
                    .and_then(serde_json::Value::as_u64)
                    .unwrap_or(0),
                rejected,
                repeated: false,
                offset: None,
            }),
            // Every record was refused.
            400 if !rejected.is_empty() => Ok(Receipt {
                accepted: 0,
                rejected_total: rejected.len() as u64,
                rejected,
                repeated: false,
                offset: None,
            }),
            429 | 503 => Err(SubmitError::Busy { retry_after_ms: 500 }),
            422 => Err(SubmitError::KeyConflict),
            _ => Err(SubmitError::Invalid(
                value
                    .get("detail")
                    .and_then(serde_json::Value::as_str)
                    .unwrap_or("the server refused the request")
                    .to_owned(),
            )),
        }
    }
}

/// A body as the HTTP door takes it, or the receipt that refuses what it can't carry.
fn body_of(body: &Body) -> Result<(&'static str, Vec<u8>), Receipt> {
    match body {
        Body::Json(bytes) => Ok(("application/x-ndjson", bytes.to_vec())),
        Body::Lines { .. } => {
            let mut lines = Vec::new();
            for index in 0..body.records().unwrap_or(0) {
                if let Some((raw, _)) = body.raw(index as u64) {
                    lines.extend_from_slice(&raw);
                    lines.push(b'\n');
                }
            }
            Ok(("text/plain", lines))
        }
        Body::Records(records) => {
            let mut lines = Vec::new();
            for record in records.iter() {
                let mut object = serde_json::Map::new();
                for (name, value) in record.fields() {
                    let value = match value {
                        FieldValue::Text(text) => text.into(),
                        FieldValue::Int(number) => number.into(),
                        FieldValue::Float(number) => number.into(),
                        FieldValue::Bool(flag) => flag.into(),
                        FieldValue::Time(micros) => micros.into(),
                        FieldValue::Json(text) => serde_json::from_str(text).unwrap_or_default(),
                    };
                    object.insert(name.to_owned(), value);
                }
                lines.extend(serde_json::Value::Object(object).to_string().into_bytes());
                lines.push(b'\n');
            }
            Ok(("application/x-ndjson", lines))
        }
        Body::BulkItems { .. } | Body::DeadLetters(_) => {
            let count = body.records().unwrap_or(0) as u64;
            let reason = match body {
                Body::DeadLetters(letters) => letters.first().map(|letter| letter.reason.clone()),
                _ => None,
            };
            let reason = reason.unwrap_or_else(|| "it can't be sent over HTTP".to_owned());
            Err(Receipt {
                accepted: 0,
                rejected: (0..count.min(1000)).map(|index| (index, reason.clone())).collect(),
                rejected_total: count,
                repeated: false,
                offset: None,
            })
        }
    }
}

impl Submit for RemoteDoor {
    fn submit(&self, submission: Submission) -> Submitted {
        let door = self.clone();
        Box::pin(async move {
            let send = tokio::task::spawn_blocking(move || {
                for _ in 0..TRIES {
                    match door.send(&submission) {
                        Err(SubmitError::Busy { retry_after_ms }) => {
                            std::thread::park_timeout(Duration::from_millis(retry_after_ms));
                        }
                        done => return done,
                    }
                }
                Err(SubmitError::Busy { retry_after_ms: 0 })
            });
            send.await.unwrap_or(Err(SubmitError::Stopped))
        })
    }

    // The server takes the tenant from the key.
    fn turn_domain(&self, _: TenantId, domain: Arc<str>, turn: DomainTurn) -> Turned {
        let client = self.client.clone();
        Box::pin(async move {
            let turned = tokio::task::spawn_blocking(move || client.turn_domain(&domain, turn));
            turned.await.unwrap_or(Err(SubmitError::Stopped))
        })
    }
}
