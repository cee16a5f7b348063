//! One HTTP/1.1 request on a connection of its own: no redirects, a bounded answer.

use super::connect::{self, ConnectError};
use crate::egress::Egress;
use crate::plan::Target;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// How much of an answer's body is read.
const MAX_BODY: usize = 4096;
/// How much of an answer is held at once, its headers included.
const MAX_BUFFER: usize = 64 << 10;
/// How much of it is kept for people.
const MAX_SHOWN: usize = 300;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `Retry-After` in seconds; its form as a date is not read.
    pub retry_after: Option<Duration>,
    /// The beginning of the body.
    pub body: String,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// HTTP without TLS is not allowed.
    #[error("http is not encrypted: use https, or set alerts.egress.allow_plaintext")]
    Plaintext,
    /// The request can't be written, for example because a secret has a line end in it.
    #[error("the request cannot be made: {0}")]
    Request(String),
    /// The exchange failed half way.
    #[error("the exchange failed: {0}")]
    Exchange(#[from] hyper::Error),
}

/// Posts a body.
///
/// # Errors
/// When there is no answer.
pub async fn post(
    egress: &Egress,
    tls: &Arc<ClientConfig>,
    target: &Target,
    headers: &[(&'static str, String)],
    body: Vec<u8>,
) -> Result<Answer, HttpError> {
    if !target.tls && !egress.allow_plaintext {
        return Err(HttpError::Plaintext);
    }
    let wrong = |error: &dyn std::fmt::Display| HttpError::Request(error.to_string());
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(&target.path)
        .header(hyper::header::HOST, target.authority())
        .header(hyper::header::USER_AGENT, concat!("palisade/", env!("CARGO_PKG_VERSION")))
        .header(hyper::header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| wrong(&error))?;
    for (name, value) in headers {
        let mut value = HeaderValue::from_str(value).map_err(|error| wrong(&error))?;
        value.set_sensitive(true);
        request.headers_mut().insert(HeaderName::from_static(name), value);
    }
    let stream = connect::tcp(egress, &target.host, target.port).await?;
    if target.tls {
        exchange(connect::tls(tls, &target.host, stream).await?, request).await
    } else {
        exchange(stream, request).await
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, HttpError> {
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(MAX_BUFFER);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    // The connection moves bytes while the request waits; it ends with it, also when the caller gives up.
    let exchange = async {
        let mut response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let seconds = response
            .headers()
            .get(hyper::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let mut body = Vec::new();
        while body.len() < MAX_BODY
            && let Some(Ok(frame)) = response.body_mut().frame().await
        {
            if let Some(data) = frame.data_ref() {
                body.extend_from_slice(data.get(..data.len().min(MAX_BODY)).unwrap_or_default());
            }
        }
        body.truncate(MAX_BODY);
        let retry_after = seconds.map(Duration::from_secs);
        Ok(Answer { status, retry_after, body: shown(&body) })
    };
    tokio::pin!(exchange);
    tokio::pin!(connection);
    let mut open = true;
    loop {
        tokio::select! {
            // The answer first: a server may close right behind it.
            biased;
            answer = &mut exchange => return answer,
            _ = &mut connection, if open => open = false,
        }
    }
}

/// The beginning of an answer as one line of text.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().chars().take(MAX_SHOWN).collect()
}
