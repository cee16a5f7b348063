//! `palisade bench query` on few rows, and what `palisade query` says about the same data.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn palisade(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PALISADE_")) {
        command.env_remove(name);
    }
    command.env("PALISADE_LOGGING__LEVEL", "warn").env("PALISADE_HTTP__LISTEN", "127.0.0.1:1");
    command.args(arguments).arg("--data").arg(data).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_questions_are_answered_and_the_rows_are_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let bench = |rows: &str, more: &[&str]| {
        let fixed = ["bench", "query", "--runs", "1", "--json", "--rows", rows];
        palisade(&data, &[&fixed, more].concat())
    };
    // Python without chdb is told apart before anything is made.
    let without = bench("30000", &["--python", "false"]);
    assert!(!without.status.success() && !data.exists(), "{without:?}");

    let first = bench("30000", &["--alone"]);
    assert!(first.status.success(), "{first:?}");
    let lines = text(&first.stdout);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 13);
    assert!(lines.iter().all(|line| line["seconds"].as_f64().unwrap() > 0.0), "{lines:?}");

    let mark = std::fs::metadata(data.join("bench-query.json")).unwrap().modified().unwrap();
    let again = bench("30000", &["--alone", "--only", "entropy"]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(text(&again.stdout).lines().count(), 1);
    let same = std::fs::metadata(data.join("bench-query.json")).unwrap().modified().unwrap();
    assert_eq!(mark, same);
    let other = bench("20000", &["--alone"]);
    assert!(!other.status.success(), "{other:?}");
    assert!(text(&other.stderr).contains("holds 30000 rows"), "{other:?}");

    let rest = bench("30000", &["--rest"]);
    assert!(rest.status.success(), "{rest:?}");
    assert!(text(&rest.stdout).lines().count() > 15, "{rest:?}");

    let count = |table: &str| {
        let sql = format!("SELECT count(*) AS n FROM {table}");
        let asked = palisade(&data, &["query", &sql]);
        assert!(asked.status.success(), "{asked:?}");
        serde_json::from_str::<Value>(&text(&asked.stdout)).unwrap()["n"].as_u64().unwrap()
    };
    assert_eq!(count("events"), 30_000);
    // It never had a row, and is there.
    assert_eq!(count("dead_letters"), 0);
    let wrong = palisade(&data, &["query", "SELECT evnt_id FROM events"]);
    assert_eq!(text(&wrong.stderr).matches("did you mean event_id").count(), 1, "{wrong:?}");
}
