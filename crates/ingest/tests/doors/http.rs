//! `POST /api/v1/streams/{stream}/records`.

use crate::recorder::{Server, call, read_answer, server, server_with};
use palisade_ingest::body::BodyLimits;
use palisade_ingest::serve::ServerLimits;
use palisade_ingest::submit::{Body, DomainTurn, SubmitError};
use serde_json::json;
use std::io::Write;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATH: &str = "/api/v1/streams/events/records";

async fn open() -> Server {
    server(true, BodyLimits::default()).await
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn json_in_all_forms_is_taken() {
    let server = open().await;
    for (body, records) in [
        ("{\"a\":1}\n{\"a\":2}\n", 2),
        ("[{\"a\":1},{\"a\":2},{\"a\":3}]", 3),
        ("{\n  \"a\": 1\n}\n{\n  \"a\": 2\n}", 2),
        ("{\"a\":1}{\"a\":2}", 2),
    ] {
        let answer = call(server.address, "POST", PATH, &[], body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            answer.json(),
            json!({"accepted": records, "rejected": [], "rejected_total": 0})
        );
        assert!(answer.header("x-request-id").is_some());
    }
    let taken = server.recorder.last();
    assert_eq!(taken.source.as_ref(), "http");
    assert_eq!(taken.tenant.as_str(), "default");
    assert_eq!(taken.peer, Some("127.0.0.1".parse().unwrap()));
    assert_eq!((taken.key, taken.domain), (None, None));
    assert_eq!(server.metrics.door("http").records.get(), 9);
}

#[tokio::test]
async fn refused_records_have_index_and_reason_and_all_refused_is_a_problem() {
    let server = open().await;
    let answer = call(server.address, "POST", PATH, &[], b"{\"a\":1}\n5\n{\"a\":2}\n").await;
    assert_eq!(
        answer.json(),
        json!({"accepted": 2, "rejected": [{"index": 1, "reason": "no object"}], "rejected_total": 1})
    );
    let answer = call(server.address, "POST", PATH, &[("X-Request-Id", "mine")], b"5 6").await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"));
    assert_eq!(answer.header("x-request-id").as_deref(), Some("mine"));
    let problem = answer.json();
    assert_eq!(problem["errors"][1], json!({"index": 1, "reason": "no object"}));
    assert_eq!(problem["request_id"], "mine");
    assert_eq!(problem["instance"], PATH);
    assert_eq!(problem["type"], "urn:palisade:problem:all-refused");
    let answer = call(server.address, "POST", PATH, &[], b" \n").await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["detail"].as_str().unwrap().contains("empty"));
}

#[tokio::test]
async fn compressed_bodies_are_decoded_and_damaged_ones_refused() {
    let server = open().await;
    let body = b"{\"a\":1}\n".repeat(200_000);
    let zlib = {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&body).unwrap();
        encoder.finish().unwrap()
    };
    let bare = {
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&body).unwrap();
        encoder.finish().unwrap()
    };
    let mut members = gzip(&body[..8]);
    members.extend(gzip(&body[8..]));
    for (coding, bytes) in [
        ("gzip", gzip(&body)),
        ("gzip", members),
        ("zstd", zstd::bulk::compress(&body, 3).unwrap()),
        ("deflate", zlib),
        ("deflate", bare),
        ("identity", body.clone()),
    ] {
        let answer =
            call(server.address, "POST", PATH, &[("Content-Encoding", coding)], &bytes).await;
        assert_eq!(answer.json()["accepted"], 200_000, "{coding}");
        if coding != "identity" {
            let cut = &bytes[..bytes.len() - 9];
            let answer =
                call(server.address, "POST", PATH, &[("Content-Encoding", coding)], cut).await;
            assert_eq!(answer.status, 400, "{coding}");
            assert_eq!(answer.json()["type"], "urn:palisade:problem:corrupt");
        }
    }
    let answer = call(server.address, "POST", PATH, &[("Content-Encoding", "br")], b"x").await;
    assert_eq!(answer.status, 415);
    assert!(answer.json()["detail"].as_str().unwrap().contains("gzip, zstd"));
    let answer = call(server.address, "POST", PATH, &[("Content-Type", "text/html")], b"x").await;
    assert_eq!(answer.status, 415);
}

#[tokio::test]
async fn bombs_stop_at_the_bound() {
    let limits = BodyLimits {
        compressed_bytes: 1 << 20,
        decoded_bytes: 2 << 20,
        memory_bytes: 8 << 20,
        ..BodyLimits::default()
    };
    let server = server(true, limits).await;
    let zeros = vec![b' '; 32 << 20];
    let bomb_gzip = gzip(&zeros);
    let bomb_zstd = zstd::bulk::compress(&zeros, 3).unwrap();
    drop(zeros);
    for (coding, bomb) in [("gzip", bomb_gzip), ("zstd", bomb_zstd)] {
        assert!(bomb.len() < 1 << 20, "{}", bomb.len());
        let start = std::time::Instant::now();
        let answer =
            call(server.address, "POST", PATH, &[("Content-Encoding", coding)], &bomb).await;
        assert_eq!(answer.status, 413, "{coding}");
        assert_eq!(answer.json()["limit"], 2 << 20);
        assert!(start.elapsed() < Duration::from_secs(2));
    }
    // Too long without compression: announced, and by surprise.
    let long = vec![b' '; (2 << 20) + 1];
    let answer = call(server.address, "POST", PATH, &[], &long).await;
    assert_eq!((answer.status, answer.json()["limit"].as_u64()), (413, Some(2 << 20)));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(
            format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
                .as_bytes(),
        )
        .await
        .unwrap();
    for _ in 0..40 {
        let chunk = vec![b' '; 64 << 10];
        if stream.write_all(b"10000\r\n").await.is_err()
            || stream.write_all(&chunk).await.is_err()
            || stream.write_all(b"\r\n").await.is_err()
        {
            break;
        }
    }
    assert_eq!(read_answer(stream).await.status, 413);
    assert_eq!(server.metrics.door("http").refused("too_large"), 4);
    // Nothing was taken, and the memory for bodies is free again.
    assert_eq!(server.recorder.count(), 0);
    let answer = call(server.address, "POST", PATH, &[], b"{}").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn errors_of_the_gateway_have_their_status() {
    let server = open().await;
    for (error, status, kind, retry) in [
        (SubmitError::Busy { retry_after_ms: 1500 }, 429, "busy", Some("2")),
        (SubmitError::KeyConflict, 422, "key-conflict", None),
        (SubmitError::TooLarge { limit: 7 }, 413, "too-large", None),
        (SubmitError::DiskLow, 503, "disk-low", Some("30")),
        (SubmitError::Stopped, 503, "stopping", Some("5")),
        (SubmitError::Refused("blocked".into()), 403, "sender-refused", None),
        (SubmitError::Invalid("nonsense".into()), 400, "invalid", None),
    ] {
        server.recorder.fail([error]);
        let answer = call(server.address, "POST", PATH, &[], b"{}").await;
        assert_eq!(answer.status, status, "{kind}");
        assert_eq!(answer.header("retry-after").as_deref(), retry, "{kind}");
        assert_eq!(answer.json()["type"], format!("urn:palisade:problem:{kind}"));
        assert_eq!(answer.json()["status"], status);
    }
}

#[tokio::test]
async fn keys_and_names_are_passed_on_or_refused() {
    let server = open().await;
    let path = format!("{PATH}?source=fw-1&domain=load:x");
    let answer = call(server.address, "POST", &path, &[("Idempotency-Key", "k-1")], b"{}").await;
    assert_eq!(answer.status, 200);
    let taken = server.recorder.last();
    assert_eq!(taken.key.as_deref(), Some("k-1"));
    assert_eq!((taken.source.as_ref(), taken.domain.as_deref()), ("fw-1", Some("load:x")));
    for bad in ["", "a b", &"x".repeat(256)] {
        let answer = call(server.address, "POST", PATH, &[("Idempotency-Key", bad)], b"{}").await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    let answer = call(server.address, "POST", &format!("{PATH}?source=a%20b"), &[], b"{}").await;
    assert_eq!(answer.status, 400);
    let answer = call(server.address, "POST", "/api/v1/streams/nonsense/records", &[], b"{}").await;
    assert_eq!(answer.status, 404);
    // The path exists for POST only.
    assert_eq!(call(server.address, "PUT", PATH, &[], b"{}").await.status, 405);
}

#[tokio::test]
async fn text_becomes_lines() {
    let server = open().await;
    let headers = [("Content-Type", "text/plain; charset=utf-8")];
    let answer = call(server.address, "POST", PATH, &headers, b"one\r\n\ntwo {\nthree").await;
    assert_eq!(answer.json()["accepted"], 3);
    assert!(matches!(server.recorder.last().body, Body::Lines { .. }));
    assert_eq!(server.recorder.texts(), ["one", "two {", "three"]);
}

#[tokio::test]
async fn without_credentials_nobody_gets_in() {
    let server = server(false, BodyLimits::default()).await;
    let good = "Basic Z29vZDpzZWNyZXQ=";
    for (header, status) in [
        (None, 401),
        (Some("Bearer bad"), 401),
        (Some("Basic !"), 401),
        (Some("Bearer reader"), 403),
        (Some("Bearer good"), 200),
        (Some(good), 200),
        (Some("ApiKey Z29vZDpzZWNyZXQ="), 200),
    ] {
        let headers: Vec<_> = header.map(|value| ("Authorization", value)).into_iter().collect();
        let answer = call(server.address, "POST", PATH, &headers, b"{}").await;
        assert_eq!(answer.status, status, "{header:?}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
    }
    assert_eq!(server.recorder.count(), 3);
    assert_eq!(server.recorder.last().tenant.as_str(), "acme");
}

#[tokio::test]
async fn slow_and_half_open_clients_are_let_go_and_disturb_nobody() {
    let limits =
        BodyLimits { grace_seconds: 1, min_bytes_per_second: 1 << 20, ..BodyLimits::default() };
    let server_limits = ServerLimits { header_seconds: 1, ..ServerLimits::default() };
    let server = server_with(true, limits, server_limits).await;
    // A head that never ends, a connection that says nothing, a body that stalls.
    let mut head = TcpStream::connect(server.address).await.unwrap();
    head.write_all(b"POST / HTTP/1.1\r\nHost").await.unwrap();
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut stalled = TcpStream::connect(server.address).await.unwrap();
    stalled
        .write_all(
            format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{").as_bytes(),
        )
        .await
        .unwrap();
    let answer = call(server.address, "POST", PATH, &[], b"{}").await;
    assert_eq!(answer.status, 200);
    let slow = read_answer(stalled).await;
    assert_eq!(slow.status, 408);
    assert_eq!(slow.header("connection").as_deref(), Some("close"));
    for stream in [&mut head, &mut silent] {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
        assert!(closed.await.is_ok(), "the server let the connection stay");
    }
    assert_eq!(server.metrics.door("http").refused("slow"), 1);
    assert_eq!(server.recorder.count(), 1);
}

#[tokio::test]
async fn full_memory_and_places_answer_busy() {
    let limits =
        BodyLimits { memory_bytes: 1 << 20, decoded_bytes: 2 << 20, ..BodyLimits::default() };
    let server = server(true, limits).await;
    let body = vec![b' '; 1_500_000];
    let answer = call(server.address, "POST", PATH, &[], &body).await;
    assert_eq!((answer.status, answer.header("retry-after").as_deref()), (429, Some("1")));
    let limits = BodyLimits { requests: 1, ..BodyLimits::default() };
    let server = crate::recorder::server(true, limits).await;
    *server.recorder.delay.lock().unwrap() = Duration::from_millis(400);
    let (one, two) = tokio::join!(
        call(server.address, "POST", PATH, &[], b"{}"),
        call(server.address, "POST", PATH, &[], b"{}"),
    );
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 429]);
}

#[tokio::test]
async fn stopping_lets_open_requests_finish() {
    let server = open().await;
    *server.recorder.delay.lock().unwrap() = Duration::from_millis(300);
    let request = tokio::spawn(async move { call(server.address, "POST", PATH, &[], b"{}").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.cancel();
    assert_eq!(request.await.unwrap().status, 200);
    tokio::time::timeout(Duration::from_secs(5), server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let server = open().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}");
    let last = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    stream.write_all((request.repeat(20) + &last).as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("200 OK").count(), 21);
    assert_eq!(server.recorder.count(), 21);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_let_go() {
    let limits = ServerLimits { write_seconds: 1, ..ServerLimits::default() };
    let server = server_with(true, BodyLimits::default(), limits).await;
    // An answer far larger than what the kernel takes for a client that reads nothing.
    let items = "{\"create\":{\"_index\":\"a\"}}\n{\"a\":1}\n".repeat(200_000);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head =
        format!("POST /_bulk HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", items.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(items.as_bytes()).await.unwrap();
    let door = server.metrics.door("http");
    for _ in 0..1000 {
        if door.refused("write_stalled") == 1 && door.connections.get() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((door.refused("write_stalled"), door.connections.get()), (1, 0));
    // A slow reader is no silent one.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(items.as_bytes()).await.unwrap();
    let (mut total, mut piece) = (0, vec![0; 4 << 20]);
    while total < 10_000_000 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        total += stream.read(&mut piece).await.unwrap();
    }
    assert_eq!(door.refused("write_stalled"), 1);
}

#[tokio::test]
async fn too_many_records_are_refused_before_they_are_listed() {
    let limits = BodyLimits { records: 1000, ..BodyLimits::default() };
    let server = server(true, limits).await;
    let text = [("Content-Type", "text/plain")];
    let lines = |count: usize| "a\n".repeat(count);
    let answer = call(server.address, "POST", PATH, &text, lines(1000).as_bytes()).await;
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (200, Some(1000)));
    let answer = call(server.address, "POST", PATH, &text, lines(1002).as_bytes()).await;
    assert_eq!((answer.status, answer.json()["limit"].as_u64()), (413, Some(1000)));
    assert_eq!(answer.json()["type"], "urn:palisade:problem:too-many-records");
    let item = "{\"create\":{\"_index\":\"a\"}}\n{}\n";
    let answer = call(server.address, "POST", "/_bulk", &[], item.repeat(1000).as_bytes()).await;
    assert_eq!(answer.status, 200);
    let answer = call(server.address, "POST", "/_bulk", &[], item.repeat(1001).as_bytes()).await;
    assert_eq!(answer.status, 413);
    assert!(answer.json()["error"]["reason"].as_str().unwrap().contains("1000 records"));
    assert_eq!(server.metrics.door("http").refused("too_many_records"), 1);
    assert_eq!(server.metrics.door("bulk").refused("too_many_records"), 1);
    // What lists of short lines take counts as memory of bodies.
    let limits = BodyLimits { memory_bytes: 2 << 20, ..BodyLimits::default() };
    let server = crate::recorder::server(true, limits).await;
    let answer = call(server.address, "POST", PATH, &text, lines(400_000).as_bytes()).await;
    assert_eq!((answer.status, answer.header("retry-after").as_deref()), (429, Some("1")));
}

/// T2 over HTTP: a domain's start and end become control records of the key's tenant.
#[tokio::test]
async fn domains_start_and_end() {
    let server = server(false, BodyLimits::default()).await;
    let key = [("authorization", "Bearer good")];
    let post = |path: &'static str, headers: &'static [(&str, &str)]| {
        call(server.address, "POST", path, headers, b"")
    };
    assert_eq!(post("/api/v1/domains/load%3A1/start", &[]).await.status, 401);
    assert_eq!(
        post("/api/v1/domains/load%3A1/start", &[("authorization", "Bearer reader")]).await.status,
        403
    );
    for (path, status) in [
        ("/api/v1/domains/load%3A1/start", 204),
        ("/api/v1/domains/load%3A1/end", 204),
        ("/api/v1/domains/load%3A1/pause", 404),
        ("/api/v1/domains/live/end", 400),
        ("/api/v1/domains/a%20b/end", 400),
    ] {
        let answer = call(server.address, "POST", path, &key, b"").await;
        assert_eq!(answer.status, status, "{path} {answer:?}");
    }
    let turn = |turn| ("acme".to_owned(), "load:1".to_owned(), turn, 0, 0);
    assert_eq!(
        *server.recorder.turns.lock().unwrap(),
        [turn(DomainTurn::Starts), turn(DomainTurn::Ends)]
    );
}
