//! Headers and names that senders choose: credentials, filters, index names, networks.

use http::{HeaderMap, HeaderValue, header};
use palisade_event::network::Network;
use palisade_ingest::auth::credentials;
use palisade_ingest::elastic::answer::Filter;
use palisade_ingest::elastic::bulk::check_index;

pub fn run(data: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(data) {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value);
        // No secret is printed.
        if let Ok(found) = credentials(&headers) {
            let shown = format!("{found:?}");
            assert!(shown.contains('…'));
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Filter::parse(Some(text));
    if check_index(text).is_ok() {
        assert!((1..=255).contains(&text.len()));
    }
    if let Ok(network) = text.parse::<Network>() {
        let again: Network = network.to_string().parse().expect("what is written is read");
        assert_eq!(again, network);
    }
}
