//! Under which names the open tenant answers.
//!
//! While no key exists, whoever can send a request may do everything. A browser on the same machine can: a page
//! of another site points its own host name at this address (DNS rebinding) and is then "same origin". Its
//! requests carry that name in `Host`, so as long as the tenant is open, only loopback names and the
//! configured ones are answered (421 otherwise), and nothing that a page of another site sends by a simple
//! form is taken (403). With keys such a page has nothing to send.

use crate::access::is_foreign;
use crate::state::ApiState;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use palisade_ingest::problem::Problem;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Names of this server besides those of loopback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostNames(BTreeSet<String>);

impl HostNames {
    /// These names, without ports. Capitals and a final dot do not matter.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().map(normal).collect())
    }

    /// Whether a text is a host name or an address without a port.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        let name = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        name.parse::<IpAddr>().is_ok()
            || (1..=253).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    }

    /// Whether requests for this host, with or without a port, are for this server.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        let name = normal(without_port(host));
        if let Ok(address) = name.parse::<IpAddr>() {
            return address.is_loopback() || self.0.contains(&name);
        }
        name == "localhost" || name.ends_with(".localhost") || self.0.contains(&name)
    }
}

/// The name as it is compared: an address without brackets, small letters, no final dot.
fn normal(name: &str) -> String {
    let name = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn without_port(host: &str) -> &str {
    if let Some((address, port)) = host.split_once(']')
        && host.starts_with('[')
    {
        // What stands behind an address in brackets is a port or makes it another name.
        let is_port = port.is_empty() || port.starts_with(':');
        return if is_port { address.trim_start_matches('[') } else { host };
    }
    match host.rsplit_once(':') {
        // An address of version 6 without brackets has more colons.
        Some((name, _)) if !name.contains(':') => name,
        _ => host,
    }
}

/// The hosts that a request names: that of an absolute URI and every `Host` header. A request without any
/// is from no browser.
fn hosts<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> impl Iterator<Item = Option<&'a str>> {
    let sent = headers.get_all(header::HOST).into_iter().map(|value| value.to_str().ok());
    uri.host().map(Some).into_iter().chain(sent)
}

/// Refuses what only a page of another site would send, as long as the tenant is open.
pub(crate) async fn check(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if state.auth.open_tenant().is_none() {
        return next.run(request).await;
    }
    let names = state.hosts.load();
    let foreign = hosts(request.uri(), request.headers())
        .find(|host| !host.is_some_and(|host| names.allows(host)));
    if let Some(host) = foreign {
        let host: String = host.unwrap_or("(not ASCII)").chars().take(100).collect();
        let detail = format!(
            "no key exists, so only loopback names are answered and '{host}' is none: add it to http.names, or make a key with 'palisade key create'"
        );
        return refuse(
            &request,
            StatusCode::MISDIRECTED_REQUEST,
            "foreign-host",
            "other host",
            detail,
        );
    }
    if !request.method().is_safe() && is_foreign(request.headers()) {
        let detail = "a page of another site sent this: use the server's own page or a program";
        return refuse(
            &request,
            StatusCode::FORBIDDEN,
            "cross-site",
            "other site",
            detail.to_owned(),
        );
    }
    next.run(request).await
}

fn refuse(
    request: &Request,
    status: StatusCode,
    slug: &str,
    title: &'static str,
    detail: String,
) -> Response {
    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or("");
    let id: String = id.chars().filter(char::is_ascii_graphic).take(128).collect();
    Problem::new(status, slug, title, detail).at(request.uri().path(), &id).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_configured_names_are_this_server() {
        let names = HostNames::new(["Siem.Example.org.", "192.0.2.7", "[2001:db8::7]"]);
        for host in [
            "localhost",
            "LOCALHOST:7300",
            "localhost.",
            "app.localhost:1",
            "127.0.0.1",
            "127.9.9.9:7300",
            "[::1]",
            "[::1]:7300",
            "::1",
            "siem.example.org:7300",
            "192.0.2.7:1",
            "[2001:db8::7]:7300",
        ] {
            assert!(names.allows(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7300",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example:127.0.0.1",
            "192.0.2.8",
            "[2001:db8::8]",
            "[::1].evil.example",
            "0.0.0.0",
            "xlocalhost",
        ] {
            assert!(!names.allows(host), "{host}");
        }
        assert!(!HostNames::default().allows("siem.example.org"));
    }

    #[test]
    fn names_have_no_ports() {
        for good in ["a.example", "192.0.2.7", "::1", "[::1]", "my_host"] {
            assert!(HostNames::is_name(good), "{good}");
        }
        for bad in ["", "a:80", "http://a", "a b", "ä", &"x".repeat(254)] {
            assert!(!HostNames::is_name(bad), "{bad}");
        }
    }

    #[test]
    fn every_host_of_a_request_is_looked_at() {
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, "localhost".parse().unwrap());
        headers.append(header::HOST, "evil.example".parse().unwrap());
        let uri: Uri = "http://other.example/x".parse().unwrap();
        let found: Vec<_> = hosts(&uri, &headers).collect();
        assert_eq!(found, [Some("other.example"), Some("localhost"), Some("evil.example")]);
        assert_eq!(hosts(&Uri::from_static("/x"), &HeaderMap::new()).count(), 0);
    }
}
