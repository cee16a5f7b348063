//! `GET /`: the live page for people, Elasticsearch's greeting for its clients.
//!
//! The page is one file without outside resources. Its Content-Security-Policy allows the one script
//! and the one style of it, by their hashes, and requests to this server; data is shown as text only.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use palisade_ingest::elastic;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// The page.
const PAGE: &str = include_str!("page/index.html");

/// What the page may load and do. Empty only if the page had no script or style, which a test rules
/// out.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let script = hash(PAGE, "<script>", "</script>").unwrap_or_default();
    let style = hash(PAGE, "<style>", "</style>").unwrap_or_default();
    format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// The hash of what stands between two tags, as a policy names it.
fn hash(page: &str, open: &str, close: &str) -> Option<String> {
    let (_, rest) = page.split_once(open)?;
    let (inner, _) = rest.split_once(close)?;
    Some(format!("sha256-{}", STANDARD.encode(Sha256::digest(inner.as_bytes()))))
}

/// Whether a client asks for HTML by name; `*/*` alone does not.
fn wants_page(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|accept| {
        accept
            .split(',')
            .filter_map(|kind| kind.split(';').next())
            .any(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
    })
}

/// `GET /`: the page, or Elasticsearch's greeting.
#[utoipa::path(get, path = "/", tag = "live", security(()), responses(
    (status = 200, description = "The live page for `Accept: text/html`, otherwise what Elasticsearch says"),
))]
pub async fn root(headers: HeaderMap) -> Response {
    if !wants_page(&headers) {
        let mut response = elastic::info().await;
        // Elasticsearch's clients talk to nothing that does not say this.
        response.headers_mut().insert(
            HeaderName::from_static("x-elastic-product"),
            HeaderValue::from_static("Elasticsearch"),
        );
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
        return response;
    }
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept"),
    ];
    (fixed, PAGE).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, value.parse().unwrap());
        wants_page(&headers)
    }

    #[test]
    fn only_who_asks_for_html_gets_the_page() {
        assert!(accept("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(accept("application/json, TEXT/HTML;q=0.5"));
        assert!(!accept("*/*"));
        assert!(!accept("application/vnd.elasticsearch+json; compatible-with=8"));
        assert!(!wants_page(&HeaderMap::new()));
    }

    #[test]
    fn the_page_needs_nothing_from_outside() {
        for outside in ["http://", "https://", "src=", "@import", "url(", "href=\"//", "<link"] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_page_never_reads_data_as_html_or_code() {
        for risky in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            " onclick=",
            " style=\"",
            "localStorage",
        ] {
            assert!(!PAGE.contains(risky), "{risky}");
        }
    }

    #[test]
    fn the_policy_names_the_one_script_and_the_one_style() {
        assert_eq!(PAGE.matches("<script>").count(), 1);
        assert_eq!(PAGE.matches("<style>").count(), 1);
        assert_eq!(POLICY.matches("'sha256-").count(), 2);
        assert!(!POLICY.contains("unsafe"));
        // printf 'a' | sha256sum
        assert_eq!(
            hash("<b>a</b>", "<b>", "</b>").as_deref(),
            Some("sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs=")
        );
    }
}
