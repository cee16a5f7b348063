//! The auth reader against real log lines with known answers. Skipped with a line that says so when
//! the data is not there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

use bytes::Bytes;
use palisade_ingest::submit::{FieldValue, ParsedRecord};
use palisade_ingest::syslog::{Context, Format, parse};
use std::net::IpAddr;
use std::path::PathBuf;

fn data(path: &str) -> Option<String> {
    let path: PathBuf = ["../../../shared/data", path].iter().collect();
    match std::fs::read(&path) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(_) => {
            println!("skipped: {} is not there", path.display());
            None
        }
    }
}

fn read(line: &str) -> (ParsedRecord, Format) {
    let context = Context { now: 1_777_636_800_000_000, utc_offset_minutes: 0 };
    parse(&Bytes::copy_from_slice(line.as_bytes()), &context)
}

fn text<'a>(record: &'a ParsedRecord, name: &str) -> &'a str {
    match record.get(name) {
        Some(FieldValue::Text(text)) => text,
        _ => "",
    }
}

fn same_host(found: &str, wanted: &str) -> bool {
    let canonical = |text: &str| text.parse::<IpAddr>().map(|address| address.to_canonical());
    found == wanted || matches!((canonical(found), canonical(wanted)), (Ok(a), Ok(b)) if a == b)
}

/// Lines that fail2ban says must match, whose host stands in the line: the reader must find this very
/// host, also where the line was made to mislead.
#[test]
fn fail2ban_hosts_are_found() {
    for (file, least) in [("sshd.log", 90), ("pam-generic.log", 8)] {
        let Some(text_of_file) = data(&format!("auth-fail2ban/{file}")) else { return };
        let (mut cases, mut missed, mut wrong, mut users) = (0, Vec::new(), Vec::new(), 0);
        let mut expected: Option<serde_json::Value> = None;
        for line in text_of_file.lines() {
            if let Some(json) = line.trim_start().strip_prefix("# failJSON:") {
                expected = serde_json::from_str(json).ok();
                continue;
            }
            let Some(case) = expected.take() else { continue };
            let host = case["host"].as_str().unwrap_or_default();
            let (record, _) = read(line);
            let found = text(&record, "src_ip");
            let found = if found.is_empty() { text(&record, "src_host") } else { found };
            if case["match"] != true || host.is_empty() || !line.contains(host) {
                continue;
            }
            cases += 1;
            if found.is_empty() {
                missed.push(line);
            } else if !same_host(found, host) {
                wrong.push((found.to_owned(), line));
            }
            if case["user"].as_str().is_some_and(|user| user == text(&record, "user")) {
                users += 1;
            }
        }
        println!(
            "{file}: {cases} cases, {} missed, {} wrong, {users} users as given",
            missed.len(),
            wrong.len()
        );
        println!("missed: {missed:#?}");
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(missed.is_empty(), "{missed:#?}");
        assert!(cases >= least, "{cases}");
    }
}

/// Every line of the real brute force is syslog, and all that name a user or an address give them.
#[test]
fn openssh_lines_give_user_and_address() {
    let Some(text_of_file) = data("logs-loghub/OpenSSH/OpenSSH_2k.log") else { return };
    let (mut lines, mut typed, mut failures, mut with_address) = (0, 0, 0, 0);
    for line in text_of_file.lines() {
        let (record, format) = read(line);
        assert_eq!(format, Format::Rfc3164, "{line}");
        assert_eq!(text(&record, "host"), "LabSZ");
        lines += 1;
        let message = text(&record, "message");
        typed += usize::from(!text(&record, "type").is_empty());
        let address = text(&record, "src_ip");
        let names_one = message
            .split(|c: char| !(c.is_ascii_digit() || c == '.'))
            .any(|word| word.parse::<IpAddr>().is_ok());
        if names_one {
            assert!(!address.is_empty(), "{line}");
            assert!(message.contains(address));
        }
        with_address += usize::from(!address.is_empty());
        if message.starts_with("Failed password for ") {
            failures += 1;
            assert_eq!(text(&record, "outcome"), "failure");
            assert_eq!(text(&record, "auth.method"), "password");
            assert!(!text(&record, "user").is_empty(), "{line}");
        }
    }
    println!(
        "OpenSSH: {lines} lines, {typed} with a type, {with_address} with an address, {failures} failed passwords"
    );
    assert!(lines == 2000 && failures > 500 && typed * 100 >= lines * 98, "{typed} of {lines}");
}

/// Other real logs: every line keeps its text, and syslog is recognised as such.
#[test]
fn linux_and_mac_logs_are_syslog() {
    for (file, least) in
        [("logs-loghub/Linux/Linux_2k.log", 2000), ("logs-loghub/Mac/Mac_2k.log", 1990)]
    {
        let Some(text_of_file) = data(file) else { return };
        let mut syslog = 0;
        for line in text_of_file.lines() {
            let (record, format) = read(line);
            syslog += usize::from(format == Format::Rfc3164);
            assert!(record.text().ends_with(text(&record, "message")), "{line}");
            assert!(format == Format::Plain || record.get("time").is_some(), "{line}");
        }
        println!("{file}: {syslog} syslog lines of {}", text_of_file.lines().count());
        assert!(syslog >= least, "{syslog}");
    }
}
