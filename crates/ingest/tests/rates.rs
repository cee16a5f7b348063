//! How fast the doors' own parsing is, without gateway and sockets. Prints figures:
//! `cargo test --release -p palisade-ingest --test rates -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may panic and print")]

use bytes::{Bytes, BytesMut};
use palisade_ingest::connection::Protocol;
use palisade_ingest::elastic::bulk;
use palisade_ingest::lines;
use palisade_ingest::syslog::stream::Messages;
use std::time::Instant;

fn rate(what: &str, bytes: usize, mut run: impl FnMut() -> usize) {
    run();
    let start = Instant::now();
    let (mut records, mut rounds) = (0, 0);
    while start.elapsed().as_secs() < 2 {
        records += run();
        rounds += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    assert!(records > 0);
    println!(
        "{what}: {:.3} us a record, {:.0} MB/s",
        seconds * 1e6 / records as f64,
        (bytes * rounds) as f64 / seconds / 1e6
    );
}

#[test]
#[ignore = "a measurement, not a check"]
fn parsing_rates() {
    let rfc5424 = "<86>1 2026-05-01T12:00:00.123456Z web-17.example.com nginx 4711 ID47 [meta@1 seq=\"17\" trace=\"abc\"] GET /index.html 200 1234 from 10.1.2.3 in 17 ms\n".repeat(10_000);
    let sshd = "<86>May  1 12:00:00 web-17 sshd[4711]: Failed password for invalid user admin from 10.1.2.3 port 51234 ssh2\n".repeat(10_000);
    let bulk_ids: String = (0..10_000)
        .map(|n| {
            format!(
                "{{\"create\":{{\"_index\":\"logs\",\"_id\":\"{n}\"}}}}\n{{\"message\":\"{}\"}}\n",
                "x".repeat(270)
            )
        })
        .collect();
    let bulk_same = format!(
        "{{\"create\":{{\"_index\":\"logs\"}}}}\n{{\"message\":\"{}\"}}\n",
        "x".repeat(270)
    )
    .repeat(10_000);
    let text = format!("{}\n", "y".repeat(299)).repeat(10_000);
    for (name, text) in [("syslog rfc5424", &rfc5424), ("syslog sshd", &sshd)] {
        rate(name, text.len(), || {
            let mut messages = Messages::new(1 << 20, 0);
            let mut buffer = BytesMut::from(text.as_bytes());
            messages.feed(&mut buffer, true, 1_777_636_800_000_000);
            messages.drain().iter().map(|body| body.records().unwrap_or(0)).sum()
        });
    }
    for (name, text) in [("_bulk with ids", bulk_ids), ("_bulk without ids", bulk_same)] {
        let body = Bytes::from(text);
        rate(name, body.len(), || bulk::parse(&body, None).unwrap().operations.len());
    }
    rate("lines", text.len(), || lines::ranges(text.as_bytes()).len());
}
