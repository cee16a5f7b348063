//! Bad input at every door of the real binary: each piece is refused with a reason or kept as a dead
//! letter, nobody else is disturbed, and memory stays where it was.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests may panic and print"
)]

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RECORDS: &str = "/api/v1/streams/events/records";
const LONGEST: Duration = Duration::from_secs(90);
/// What the process may hold at its worst, with the settings below.
const PEAK: u64 = 1 << 30;
/// By how much further rounds of the same may raise what the process holds: allocators keep some.
const ROUND: u64 = 128 << 20;
/// So long after the last work the least that is held is what is held at rest: longer than the allocator
/// keeps what is free (ten seconds, and a purge comes with the next use of the memory).
const REST: Duration = Duration::from_secs(20);
/// And so long after a further round it may take until no more is held than after the first.
const BACK: Duration = Duration::from_secs(60);

struct Server {
    child: Child,
    url: String,
    lines: u16,
    syslog: u16,
    datagrams: u16,
    agent: ureq::Agent,
    _data: tempfile::TempDir,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LONGEST;
    while !condition() {
        assert!(Instant::now() < end, "not within {LONGEST:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

impl Server {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let (lines, syslog, datagrams) = (free_port(), free_port(), free_port());
        let file = data.path().join("palisade.yaml");
        let text = format!(
            "http: {{listen: '127.0.0.1:0'}}\n\
             logging: {{level: error}}\n\
             pipeline: {{commit: 8MiB, commit_age: 500ms}}\n\
             disk: {{keep_free: 64MiB, keep_free_percent: 0}}\n\
             listeners:\n\
             - {{name: raw, protocol: tcp_lines, address: '127.0.0.1:{lines}', idle_seconds: 3}}\n\
             - {{name: log, protocol: syslog_tcp, address: '127.0.0.1:{syslog}'}}\n\
             - {{name: udp, protocol: syslog_udp, address: '127.0.0.1:{datagrams}', max_line_bytes: 2000}}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PALISADE_")) {
            command.env_remove(name);
        }
        let mut child = command
            .arg("--config")
            .arg(&file)
            .arg("--data")
            .arg(data.path().join("data"))
            .arg("run")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = output.next().expect("the server says where it listens").unwrap();
        std::thread::spawn(move || output.for_each(drop));
        let url = first.split("listens on ").nth(1).unwrap().split(',').next().unwrap().to_owned();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(LONGEST))
            .build()
            .new_agent();
        let server = Self { child, url, lines, syslog, datagrams, agent, _data: data };
        until("it is ready", || server.get("/readyz").0 == 200);
        server
    }

    fn get(&self, path: &str) -> (u16, String) {
        match self.agent.get(format!("{}{path}", self.url)).call() {
            Ok(mut answer) => {
                (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
            }
            Err(_) => (0, String::new()),
        }
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
        let mut request = self.agent.post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = request.send(body).unwrap();
        let body = answer.body_mut().with_config().limit(64 << 20).read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    fn records(&self, body: &[u8]) -> Value {
        let (status, answer) =
            self.post(RECORDS, &[("content-type", "application/x-ndjson")], body);
        assert!(status == 200 || status == 400, "{status} {answer}");
        answer
    }

    /// The metric of this name and these labels.
    fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.get("/metrics");
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
            .map_or(0, |value| value as u64)
    }

    fn rows(&self, sql: &str) -> Vec<Value> {
        until("everything is visible", || {
            let (_, text) = self.get("/readyz");
            let progress: Value = serde_json::from_str(&text).unwrap_or_default();
            progress["ready"] == true && progress["lag_entries"] == 0
        });
        let query = json!({"sql": sql, "format": "jsonl"}).to_string();
        let (status, answer) =
            self.post("/api/v1/query", &[("content-type", "application/json")], query.as_bytes());
        assert_eq!(status, 200, "{sql}: {answer}");
        match answer {
            Value::String(text) => {
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
            }
            one => vec![one],
        }
    }

    fn count(&self, table: &str) -> u64 {
        self.rows(&format!("SELECT count(*) AS n FROM {table}"))[0]["n"].as_u64().unwrap()
    }

    /// A number of `/proc/<pid>/status`, in bytes.
    fn memory(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Waits until everything taken is in segments and nothing is left to be merged or deleted.
    fn settle(&self) {
        let idle = || {
            let end = self.metric("palisade_log_end_offset");
            self.metric("palisade_uncommitted_bytes") == 0
                && self.metric("palisade_visible_offset") == end
                && self.metric("palisade_committed_offset") == end
        };
        until("everything is committed", idle);
        // The step that runs now may not have seen the last commit; one that ends after the next has.
        let complete = || self.metric("palisade_maintenance_complete_total");
        let before = complete();
        until("nothing is left to be merged", || complete() >= before + 2);
    }

    /// What is held, half a second apart, until so little is held or the time is over. The last is the
    /// one that was little enough, if any was.
    fn held(&self, enough: u64, time: Duration) -> Vec<u64> {
        let end = Instant::now() + time;
        let mut samples = Vec::new();
        loop {
            let held = self.memory("VmRSS");
            samples.push(held);
            if held <= enough || Instant::now() >= end {
                return samples;
            }
            std::thread::park_timeout(Duration::from_millis(500));
        }
    }

    fn connect(&self, port: u16) -> TcpStream {
        TcpStream::connect(("127.0.0.1", port)).unwrap()
    }

    fn http_port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap()
    }

    /// Sends bytes to a listener, ends, and waits until the server has made them durable.
    fn stream(&self, port: u16, bytes: &[u8]) {
        let mut stream = self.connect(port);
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }

    /// What was refused: index and reason of each.
    fn reasons(answer: &Value) -> Vec<(u64, String)> {
        let list = answer.get("rejected").or_else(|| answer.get("errors"));
        list.and_then(Value::as_array)
            .unwrap_or_else(|| panic!("{answer}"))
            .iter()
            .map(|one| (one["index"].as_u64().unwrap(), one["reason"].as_str().unwrap().to_owned()))
            .collect()
    }

    fn assert_refused(answer: &Value, expected: &[(u64, &str)]) {
        let reasons = Self::reasons(answer);
        assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
        for ((index, reason), (wanted, words)) in reasons.iter().zip(expected) {
            assert!(index == wanted && reason.contains(words), "{index} {reason}, not {words}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn bad_records_are_refused_alone_with_a_reason() {
    let server = Server::start();
    let good = |n: u32| format!("{{\"event_id\":\"g{n}\",\"n\":{n}}}\n");
    // Broken JSON and wrong types.
    let body = [&good(1), "{\"a\":\n", "[1,2]\n", "17\n", "\"text\"\n", "{\"a\":01}\n", &good(2)];
    let answer = server.records(body.concat().as_bytes());
    assert_eq!(answer["accepted"], 2, "{answer}");
    assert_eq!(answer["rejected_total"], 6, "an array counts each of its elements: {answer}");
    // Invalid UTF-8 spoils its own record only.
    let body = [good(3).as_bytes(), b"{\"a\":\"\xff\xfe\"}\n", good(4).as_bytes()].concat();
    let answer = server.records(&body);
    Server::assert_refused(&answer, &[(1, "invalid UTF-8")]);
    // A line of 10 MB, nesting of 1,000 levels, 60,000 keys.
    let long = format!("{{\"a\":\"{}\"}}\n", "x".repeat(10 << 20));
    let deep = format!("{}1{}\n", "{\"a\":".repeat(1000), "}".repeat(1000));
    let keys: Vec<String> = (0..60_000).map(|n| format!("\"{n}\":1")).collect();
    let keys = format!("{{{}}}\n", keys.join(","));
    let body = [good(5), long, deep, keys, good(6)].concat();
    let answer = server.records(body.as_bytes());
    assert_eq!(answer["accepted"], 2, "{answer}");
    let reasons = Server::reasons(&answer);
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(reasons[0].1.contains("larger than 1048576 bytes"), "{reasons:?}");
    assert!(reasons[1].1.contains("nested deeper than 64 levels"), "{reasons:?}");
    assert!(reasons[2].1.contains("more than 10000 keys"), "{reasons:?}");
    let rows = server.rows("SELECT count(*) AS n, sum(n) AS s FROM events");
    assert_eq!(rows, [json!({"n": 6, "s": 21})]);

    // Missing and absurd times: the record is kept, and so is what it said.
    let body = "{\"event_id\":\"t1\"}\n\
        {\"event_id\":\"t2\",\"timestamp\":\"yesterday\"}\n\
        {\"event_id\":\"t3\",\"timestamp\":-5}\n\
        {\"event_id\":\"t4\",\"timestamp\":\"9999-12-31T23:59:59Z\"}\n\
        {\"event_id\":\"t5\",\"timestamp\":\"2026-02-30T00:00:00Z\"}\n\
        {\"event_id\":\"t6\",\"timestamp\":{\"a\":1}}\n\
        {\"event_id\":\"t7\",\"timestamp\":1e300}\n\
        {\"event_id\":\"t8\",\"timestamp\":4102444800}\n";
    assert_eq!(server.records(body.as_bytes())["accepted"], 8);
    let rows = server.rows(
        "SELECT event_id, claimed_time IS NOT NULL AS claimed, time <= ingest_time AS sane \
         FROM events WHERE event_id LIKE 't_' ORDER BY 1",
    );
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().all(|row| row["sane"] == true), "{rows:?}");
    let claimed: Vec<_> = rows.iter().filter(|row| row["claimed"] == true).collect();
    assert_eq!(claimed.len(), 1, "only 2100 is a moment, and ahead of the clock: {rows:?}");
    let kept = server.rows("SELECT timestamp FROM events WHERE event_id = 't2'");
    assert_eq!(kept, [json!({"timestamp": "yesterday"})]);

    // `_bulk` with missing lines is refused whole, as Elasticsearch does.
    let bulk = |body: &str| {
        server.post("/_bulk", &[("content-type", "application/x-ndjson")], body.as_bytes())
    };
    for (body, words) in [
        ("{\"index\":{\"_index\":\"a\"}}\n", "no document line"),
        ("{\"index\":{\"_index\":\"a\"}}\n{\"b\":1}", "terminated by a newline"),
        ("{\"b\":1}\n{\"b\":2}\n", "found [b]"),
        ("{\"index\":\n{\"b\":2}\n", "Malformed"),
    ] {
        let (status, answer) = bulk(body);
        let reason = answer["error"]["reason"].as_str().unwrap_or_default();
        assert!(status == 400 && reason.contains(words), "{body}: {status} {answer}");
    }
    assert_eq!(server.count("events"), 14);
}

#[test]
fn what_has_no_answer_is_kept_as_a_dead_letter() {
    let server = Server::start();
    let long = [b"{\"a\":\"".as_slice(), &vec![b'x'; 10 << 20], b"\"}\n"].concat();
    let bytes = [b"good one\n{broken\n\xff\xfe\n".as_slice(), &long, b"{\"n\":2}\n"].concat();
    server.stream(server.lines, &bytes);
    assert_eq!(server.count("events"), 2);
    let one = "<34>1 2026-05-01T12:00:00Z host app 1 - - hello";
    let text = format!(
        "{} {one}9 <34>wrong-count {} {one}99999999 <34>x\n<34>last\n",
        one.len(),
        one.len()
    );
    server.stream(server.syslog, text.as_bytes());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = ("127.0.0.1", server.datagrams);
    socket.send_to(b"<34>May  1 12:00:00 h a: small", to).unwrap();
    socket.send_to(&vec![b'y'; 30_000], to).unwrap();
    socket.send_to(b"\xff\x00\xff", to).unwrap();
    until("the datagrams are stored", || server.count("dead_letters") >= 6);
    let rows = server.rows("SELECT reason FROM dead_letters ORDER BY reason");
    let reasons: Vec<&str> = rows.iter().map(|row| row["reason"].as_str().unwrap()).collect();
    for words in [
        "expected",
        "UTF-8",
        "line of 10485768 bytes is over the limit of 1048576",
        "octet count 9 is wrong",
        "octet count 99999999 is over the limit",
        "datagram of 30000 bytes is over the limit of 2000",
    ] {
        assert!(reasons.iter().any(|reason| reason.contains(words)), "{words}: {reasons:#?}");
    }
    assert_eq!(reasons.len(), 6, "{reasons:#?}");
    // Two lines, three messages (the last one after the bad count), two datagrams.
    assert_eq!(server.count("events"), 7);
}

/// Everything that could make a server grow, in rounds.
#[test]
fn floods_leave_memory_where_it_was_and_nobody_waits() {
    let server = Server::start();
    let json_lines = [("content-type", "application/x-ndjson")];
    let zeros = vec![b' '; 16 << 20];
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    (0..32).for_each(|_| gzip.write_all(&zeros).unwrap());
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::bulk::compress(&zeros.repeat(32), 3).unwrap();
    drop(zeros);
    let items = "{\"delete\":{\"_index\":\"a\"}}\n".repeat(1_100_000);
    let tiny = "a\n".repeat(2 << 20);
    let objects = "{}\n".repeat(600_000);
    let mut first = 0;
    for round in 0..3 {
        // Clients that send a little and wait, for as long as the round lasts.
        let mut idle: Vec<TcpStream> = Vec::new();
        for number in 0..150 {
            let mut stream = server.connect(server.http_port());
            let text = match number % 3 {
                0 => String::new(),
                1 => "POST / HTTP/1.1\r\nHost".to_owned(),
                _ => format!(
                    "POST {RECORDS} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{{"
                ),
            };
            stream.write_all(text.as_bytes()).unwrap();
            idle.push(stream);
        }
        for _ in 0..50 {
            let mut stream = server.connect(server.lines);
            stream.write_all(b"half a line").unwrap();
            idle.push(stream);
        }
        for (coding, bomb) in [("gzip", &gzip), ("zstd", &zstd)] {
            let headers = [json_lines[0], ("content-encoding", coding)];
            for _ in 0..3 {
                let (status, answer) = server.post(RECORDS, &headers, bomb);
                assert_eq!((status, &answer["limit"]), (413, &json!(64 << 20)), "{answer}");
            }
        }
        let (status, answer) = server.post("/_bulk", &json_lines, items.as_bytes());
        let reason = answer["error"]["reason"].as_str().unwrap_or_default();
        assert!(status == 413 && reason.contains("more than 500000 records"), "{status} {answer}");
        let (status, answer) =
            server.post(RECORDS, &[("content-type", "text/plain")], tiny.as_bytes());
        assert_eq!((status, &answer["limit"]), (413, &json!(500_000)), "{answer}");
        let answer = server.records(objects.as_bytes());
        assert_eq!(
            (&answer["accepted"], &answer["rejected_total"]),
            (&json!(500_000), &json!(100_000))
        );
        // A thousand names of sources.
        for number in 0..1000 {
            let path = format!("{RECORDS}?source=s{round}-{number}");
            assert_eq!(server.post(&path, &json_lines, b"{\"a\":1}").0, 200);
        }
        // The shortest messages there are, from many senders at once.
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| server.stream(server.syslog, &b"x\n".repeat(200_000)));
                scope.spawn(|| server.stream(server.lines, &b"y\n".repeat(200_000)));
            }
            // Meanwhile others are served.
            for _ in 0..10 {
                let start = Instant::now();
                assert_eq!(server.post(RECORDS, &json_lines, b"{\"meanwhile\":1}").0, 200);
                assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
            }
        });
        drop(idle);
        until("it is ready", || server.get("/readyz").0 == 200);
        server.settle();
        let samples = if round == 0 {
            let samples = server.held(0, REST);
            first = samples.iter().copied().min().unwrap();
            samples
        } else {
            server.held(first + ROUND, BACK)
        };
        let samples: Vec<u64> = samples.into_iter().map(|held| held >> 20).collect();
        println!("round {round}: MiB held {samples:?}");
        let last = samples.last().unwrap() << 20;
        assert!(round == 0 || last <= first + ROUND, "{} MiB at rest: {samples:?}", first >> 20);
    }
    let peak = server.memory("VmHWM");
    println!("peak {} MiB", peak >> 20);
    assert!(peak < PEAK, "{} MiB at the peak", peak >> 20);
    assert!(server.metric("palisade_further_source_records_total") > 1000);
    let expected = 3 * (500_000 + 1000 + 16 * 200_000 + 10);
    assert_eq!(server.count("events"), expected + 3 * 50);
}

/// A million different keys in each round, in a hundred records.
fn send_a_million_keys(server: &Server) {
    for chunk in 0..5 {
        let mut body = String::new();
        for record in chunk * 20..chunk * 20 + 20 {
            let keys: Vec<String> = (0..9_990).map(|n| format!("\"k{record}_{n}\":1")).collect();
            body.push_str(&format!("{{{}}}\n", keys.join(",")));
        }
        let answer = server.records(body.as_bytes());
        assert_eq!(answer["accepted"], 20, "{answer}");
    }
}

#[test]
fn a_million_keys_are_kept_within_bounded_memory() {
    let server = Server::start();
    let mut resident = Vec::new();
    for round in 0..3 {
        send_a_million_keys(&server);
        assert_eq!(server.count("events"), 100 * (round + 1));
        resident.push(server.memory("VmRSS"));
    }
    // What has no column is found in the overflow, by its name.
    let rows = server.rows("SELECT count(k99_9000) AS n FROM events");
    assert_eq!(rows, [json!({"n": 3})]);
    let peak = server.memory("VmHWM");
    println!("{resident:?}, peak {} MiB", peak >> 20);
    assert!(peak < PEAK, "{} MiB at the peak", peak >> 20);
}

/// Few records of thousands of fields among millions of short ones: merging them has no row of all
/// columns in memory.
#[test]
fn many_keys_among_many_rows_leave_memory_where_it_was() {
    let server = Server::start();
    for _ in 0..3 {
        send_a_million_keys(&server);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| server.stream(server.syslog, &b"x\n".repeat(200_000)));
            }
        });
    }
    server.settle();
    assert!(server.metric("palisade_merged_rows_total") > 0);
    let peak = server.memory("VmHWM");
    println!("peak {} MiB", peak >> 20);
    assert!(peak < PEAK, "{} MiB at the peak", peak >> 20);
    let held = server.held(PEAK / 2, BACK);
    assert!(*held.last().unwrap() <= PEAK / 2, "at rest: {held:?}");
    assert_eq!(server.count("events"), 3 * (100 + 8 * 200_000));
    let rows = server.rows("SELECT count(k99_9000) AS n, count(k0_5) AS m FROM events");
    assert_eq!(rows, [json!({"n": 3, "m": 3})]);
}

#[test]
fn clients_that_do_not_read_disturb_nobody() {
    let server = Server::start();
    let mut body = String::new();
    for number in 0..200_000 {
        body.push_str(&format!("{{\"n\":{number},\"text\":\"{}\"}}\n", "z".repeat(60)));
    }
    server.records(body.as_bytes());
    assert_eq!(server.count("events"), 200_000);
    let sql = json!({"sql": "SELECT n, text FROM events", "format": "jsonl", "max_rows": 200_000});
    let sql = sql.to_string();
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut stream = server.connect(server.http_port());
        let head = format!(
            "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{sql}",
            sql.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        silent.push(stream);
    }
    // Others are served, and what nobody reads is not piled up.
    for _ in 0..20 {
        assert_eq!(server.records(b"{\"a\":1}")["accepted"], 1);
    }
    let peak = server.memory("VmHWM");
    assert!(peak < PEAK, "{} MiB at the peak", peak >> 20);
}
