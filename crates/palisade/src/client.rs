//! Talking to a server: the one that runs on this data directory, or one that is named.

use crate::config::Config;
use crate::server::Failure;
use std::io::Read;
use std::time::Duration;

/// A server's address and what to show it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
    key: Option<String>,
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
        Self { agent, url, key: std::env::var("PALISADE_KEY").ok().filter(|key| !key.is_empty()) }
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
        let answer = request
            .send(body)
            .map_err(|error| format!("{} does not answer: {error}", self.url))?;
        let status = answer.status();
        let mut reader = answer.into_body().into_reader();
        if status.as_u16() < 300 {
            return Ok(reader);
        }
        let mut text = String::new();
        reader.by_ref().take(PROBLEM_BYTES).read_to_string(&mut text)?;
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or(&text);
        let hint = match status.as_u16() {
            401 => "; give a key in PALISADE_KEY",
            _ => "",
        };
        Err(format!("{detail}{hint}").into())
    }
}
