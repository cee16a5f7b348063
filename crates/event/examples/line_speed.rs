//! Measures the readers of raw lines on one core:
//! `cargo run --release -p palisade-event --example line_speed`.
//!
//! For each kind of line the nanoseconds a line of reading alone, of a row with what was found, and of a
//! row with the line only. Addresses, users and targets vary from line to line. Prints JSON lines.

#![allow(clippy::unwrap_used, reason = "a measurement may stop")]

use palisade_event::decode::lines::read;
use palisade_event::decode::{DecodeLimits, FieldValue, FrameBuilder, RequestContext};
use palisade_event::id::GatewayIdentity;
use std::hint::black_box;
use std::time::Instant;

const CLOCK: i64 = 1_696_723_200_000_000;
const CTX: RequestContext<'_> = RequestContext {
    tenant: "default",
    source: "lines",
    clock: CLOCK,
    domain: None,
    gateway: GatewayIdentity { region: 0, gateway: 0, epoch: 1 },
    request: 1,
    key: None,
};
const LINES: usize = 65_536;
const FRAME: usize = 4_096;
const ROUNDS: usize = 9;

/// One line of a kind.
fn line(kind: &str, n: usize) -> String {
    let (a, b) = (n / 256 % 256, n % 256);
    match kind {
        "nginx access" => format!(
            "203.0.{a}.{b} - - [08/Oct/2023:00:00:{:02} +0000] \"GET /shop/item/{n}?page={b} HTTP/1.1\" 200 {} \"https://shop.example/\" \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36\"",
            n % 60,
            n % 9_973,
        ),
        "nginx error" => format!(
            "2023/10/08 00:00:{:02} [error] 17#17: *{n} user \"user{b}\" was not found in \"/etc/nginx/htpasswd\", client: 203.0.{a}.{b}, server: shop.example, request: \"GET /admin/{n} HTTP/1.1\", host: \"shop.example\"",
            n % 60,
        ),
        "apache error" => format!(
            "[Sun Oct 08 00:00:{:02}.500000 2023] [auth_basic:error] [pid 10:tid 14] [client 203.0.{a}.{b}:5022] AH01618: user user{b} not found: /admin/{n}",
            n % 60,
        ),
        "sshd" => format!(
            "Oct  8 00:00:{:02} web sshd[{n}]: Failed password for invalid user user{b} from 203.0.{a}.{b} port {} ssh2",
            n % 60,
            n % 60_000 + 1_024,
        ),
        _ => {
            format!("worker {n}: task {a} of queue {b} done in {n} ms, nothing left to do for now")
        }
    }
}

/// The fastest of some rounds, in nanoseconds a line.
fn nanoseconds(mut round: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best * 1e9 / LINES as f64
}

fn main() {
    for kind in ["nginx access", "nginx error", "apache error", "sshd", "unknown"] {
        let lines: Vec<String> = (0..LINES).map(|n| line(kind, n)).collect();
        let reading = nanoseconds(|| {
            for line in &lines {
                black_box(read(black_box(line), CLOCK));
            }
        });
        let mut builder = FrameBuilder::new(DecodeLimits::default());
        let row = nanoseconds(|| {
            for frame in lines.chunks(FRAME) {
                for (index, line) in (0..).zip(frame) {
                    builder.push_line(&CTX, index, line).unwrap();
                }
                black_box(builder.finish());
            }
        });
        let line_only = nanoseconds(|| {
            for frame in lines.chunks(FRAME) {
                for (index, line) in (0..).zip(frame) {
                    let mut fields = std::iter::once(("message", FieldValue::Text(line.as_str())));
                    builder.push_fields(&CTX, index, &mut fields).unwrap();
                }
                black_box(builder.finish());
            }
        });
        let bytes = lines.iter().map(String::len).sum::<usize>() / LINES;
        println!(
            "{{\"kind\":\"{kind}\",\"bytes_per_line\":{bytes},\"read_ns\":{reading:.0},\"row_ns\":{row:.0},\"row_of_the_line_only_ns\":{line_only:.0}}}"
        );
    }
}
