//! Request bodies: what was compressed comes out whole, what was cut is refused, and nothing passes
//! the bound or keeps memory.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use palisade_ingest::body::{BodyError, BodyLimits, Budget, Received, read};
use std::io::Write;
use std::sync::OnceLock;

const MOST: u64 = 64 << 10;

fn limits() -> BodyLimits {
    BodyLimits {
        compressed_bytes: 32 << 10,
        decoded_bytes: MOST,
        memory_bytes: 4 << 20,
        ..BodyLimits::default()
    }
}

fn receive(wire: &[u8], coding: &'static str, seed: u8) -> Result<Received, BodyError> {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    });
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    let pieces: Vec<_> = crate::pieces(wire, seed | 3)
        .into_iter()
        .map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)))
        .collect();
    let limits = limits();
    let budget = Budget::new(limits.memory_bytes);
    let body = Body::from_stream(futures::stream::iter(pieces));
    let received = runtime.block_on(read(body, &headers, &limits, &budget));
    if let Ok(received) = &received {
        assert!(received.bytes.len() as u64 <= MOST);
        assert_eq!(received.wire_bytes, wire.len());
    }
    received
}

fn compress(data: &[u8], coding: &str) -> Vec<u8> {
    let fast = flate2::Compression::fast();
    match coding {
        "gzip" => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), fast);
            out.write_all(data).expect("memory");
            out.finish().expect("memory")
        }
        "deflate" => {
            let mut out = flate2::write::ZlibEncoder::new(Vec::new(), fast);
            out.write_all(data).expect("memory");
            out.finish().expect("memory")
        }
        _ => zstd::bulk::compress(data, 1).expect("memory"),
    }
}

pub fn run(data: &[u8]) {
    let Some((head, rest)) = crate::steer::<3>(data) else { return };
    let coding = ["gzip", "zstd", "deflate", "identity"][usize::from(head[0]) % 4];
    // Any bytes.
    let _ = receive(rest, coding, head[1]);
    if coding == "identity" {
        return;
    }
    // Sound ones, small and as a bomb; then cut.
    let plain = rest.repeat(1 + usize::from(head[2]) * 16);
    let wire = compress(&plain, coding);
    match receive(&wire, coding, head[1]) {
        Ok(received) => assert_eq!(received.bytes, plain),
        Err(BodyError::TooLarge { limit, on_the_wire }) => {
            let length = if on_the_wire { wire.len() } else { plain.len() };
            assert!(length as u64 > limit, "{length} bytes are not over {limit}");
        }
        Err(error) => panic!("{error}"),
    }
    let cut = &wire[..usize::from(head[1]) % wire.len()];
    if let Ok(received) = receive(cut, coding, head[1]) {
        assert!(cut.is_empty() && received.bytes.is_empty(), "{coding}: a cut body was taken");
    }
}
