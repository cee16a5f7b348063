//! Loading files of all kinds, with a recorder in the gateway's place.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

#[allow(dead_code, reason = "shared with the socket tests")]
#[path = "doors/recorder.rs"]
mod recorder;

use palisade_event::TenantId;
use palisade_ingest::files::{Format, LoadError, LoadOptions, LoadReport, load, plan};
use palisade_ingest::submit::{Body, DomainTurn, FieldValue, SubmitError};
use recorder::Recorder;
use std::io::Write;
use std::path::{Path, PathBuf};

fn options() -> LoadOptions {
    LoadOptions::new(TenantId::default_tenant(), 1_777_636_800_000_000)
}

async fn run(path: &Path, recorder: &Recorder, options: &LoadOptions) -> LoadReport {
    let plan = plan(&[path.to_owned()]).unwrap();
    let mut seen = Vec::new();
    let mut progress = |p: &palisade_ingest::files::Progress<'_>| {
        seen.push((p.bytes_done, p.bytes_total, p.accepted))
    };
    let report = load(plan, recorder, options, &mut progress).await.unwrap();
    assert!(seen.windows(2).all(|two| two[0].0 <= two[1].0 && two[0].2 <= two[1].2));
    if let Some((_, _, accepted)) = seen.last() {
        assert_eq!(*accepted, report.accepted());
    }
    report
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn mixed(directory: &Path) {
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).unwrap();
    write("a.log", b"{\"a\":1}\n{\"a\":2}\n\nnot json\n");
    write("b.json", b"[{\"a\":3},\n {\"a\":4}]");
    write("c.json", b"{\n\"a\":5\n}\n{\n\"a\":6\n}\n");
    write("d.txt", b"plain one\nplain two");
    write(
        "e",
        b"May  1 12:00:00 host sshd[1]: Accepted password for bob from 1.2.3.4 port 5 ssh2\n",
    );
    write("f.gz", &gzip(b"{\"a\":7}\n"));
    write("g.zst", &zstd::bulk::compress(&gzip(b"{\"a\":8}\n{\"a\":9}\n"), 1).unwrap());
    write("h.bin", b"\0\x01\x02");
    write("i.evtx", b"ElfFile\0");
    write("j.empty", b"");
    write("k.cut.gz", &gzip(&b"{\"a\":10}\n".repeat(1000))[..40]);
    write("l.latin1", b"caf\xe9\n");
    std::fs::create_dir(directory.join("sub")).unwrap();
    write("sub/m.json", b"\xef\xbb\xbf{\"a\":11}");
    #[cfg(unix)]
    std::os::unix::fs::symlink(directory, directory.join("sub/circle")).unwrap();
}

#[tokio::test]
async fn all_kinds_are_recognised_by_content() {
    let directory = tempfile::tempdir().unwrap();
    mixed(directory.path());
    let recorder = Recorder::default();
    let report = run(directory.path(), &recorder, &options()).await;
    let shown: Vec<_> = report
        .files
        .iter()
        .map(|file| {
            let name = file.path.strip_prefix(directory.path()).unwrap().display().to_string();
            (name, file.format, file.accepted, file.refused, file.skipped.is_some())
        })
        .collect();
    let want = [
        ("a.log", Some(Format::JsonLines), 2, 1, false),
        ("b.json", Some(Format::Json), 2, 0, false),
        ("c.json", Some(Format::Json), 2, 0, false),
        ("d.txt", Some(Format::Text), 2, 0, false),
        ("e", Some(Format::Syslog), 1, 0, false),
        ("f.gz", Some(Format::JsonLines), 1, 0, false),
        ("g.zst", Some(Format::JsonLines), 2, 0, false),
        ("h.bin", None, 0, 0, true),
        ("i.evtx", None, 0, 0, true),
        ("j.empty", Some(Format::Empty), 0, 0, false),
        ("k.cut.gz", None, 0, 0, true),
        ("l.latin1", Some(Format::Text), 1, 0, false),
        ("sub/m.json", Some(Format::JsonLines), 1, 0, false),
        ("sub/circle", None, 0, 0, true),
    ];
    let want: Vec<_> = want
        .into_iter()
        .map(|(name, format, a, r, s)| (name.to_owned(), format, a, r, s))
        .collect();
    assert_eq!(shown, want);
    assert_eq!((report.accepted(), report.refused()), (14, 1));
    assert_eq!(report.files[0].reasons.len(), 1);
    let taken = recorder.taken.lock().unwrap().clone();
    assert!(
        taken.iter().all(|submission| submission.domain.as_deref() == Some(report.domain.as_str()))
    );
    assert!(taken.iter().all(|submission| submission.key.is_some()));
    let sources: Vec<_> = taken.iter().map(|submission| submission.source.as_ref()).collect();
    assert!(sources.contains(&"file:m.json") && sources.contains(&"file:e"), "{sources:?}");
    let syslog = taken.iter().find(|submission| submission.source.as_ref() == "file:e").unwrap();
    let Body::Records(records) = &syslog.body else { panic!() };
    assert_eq!(records[0].get("user"), Some(FieldValue::Text("bob")));
}

fn keys(recorder: &Recorder) -> Vec<String> {
    recorder.taken.lock().unwrap().iter().map(|taken| taken.key.clone().unwrap()).collect()
}

/// The same content gives the same keys, domains and bodies, wherever it lies; what grew keeps the keys
/// of its whole parts.
#[tokio::test]
async fn loading_again_repeats_the_keys() {
    let directory = tempfile::tempdir().unwrap();
    let line = "{\"a\":\"some text of a record\"}\n";
    let path = directory.path().join("x.json");
    std::fs::write(&path, line.repeat(40_000)).unwrap();
    let options = LoadOptions { chunk_bytes: 300_000, ..options() };
    let first = Recorder::default();
    let report = run(&path, &first, &options).await;
    assert_eq!(report.accepted(), 40_000);
    let other = directory.path().join("moved.json");
    std::fs::rename(&path, &other).unwrap();
    let second = Recorder::default();
    let again = run(&other, &second, &options).await;
    assert_eq!(again.domain, report.domain);
    assert_eq!(keys(&second), keys(&first));
    let hashes = |recorder: &Recorder| -> Vec<u128> {
        recorder.taken.lock().unwrap().iter().map(|taken| taken.body.content_hash()).collect()
    };
    assert_eq!(hashes(&second), hashes(&first));
    let mut unique = keys(&first);
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), first.count());
    assert!(first.count() >= 3, "{}", first.count());
    // Grown: all but the last part keep their keys.
    let mut file = std::fs::OpenOptions::new().append(true).open(&other).unwrap();
    file.write_all(line.repeat(10).as_bytes()).unwrap();
    let third = Recorder::default();
    run(&other, &third, &options).await;
    let (old, new) = (keys(&first), keys(&third));
    assert_eq!(old[..old.len() - 1], new[..old.len() - 1]);
    assert_ne!(old[old.len() - 1], new[old.len() - 1]);
}

#[tokio::test]
async fn long_records_are_refused_and_busy_gateways_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    // Longer than a block of reading, so the bound on memory is met.
    let long = "y".repeat(1_000_000);
    std::fs::write(
        directory.path().join("a"),
        format!("{{\"a\":1}}\n{{\"b\":\"{long}\"}}\n{{\"a\":2}}\n"),
    )
    .unwrap();
    std::fs::write(
        directory.path().join("b"),
        format!("[{{\"a\":1}},{{\"b\":\"{long}\"}},{{\"a\":2}}]"),
    )
    .unwrap();
    std::fs::write(directory.path().join("c"), format!("one\n{long}\ntwo\n")).unwrap();
    let options = LoadOptions { record_bytes: 1000, chunk_bytes: 1000, ..options() };
    let recorder = Recorder::default();
    recorder
        .fail([SubmitError::Busy { retry_after_ms: 3 }, SubmitError::Busy { retry_after_ms: 3 }]);
    let report = run(directory.path(), &recorder, &options).await;
    for file in &report.files {
        assert_eq!((file.accepted, file.refused), (2, 1), "{file:?}");
        assert!(file.reasons.keys().next().unwrap().contains("over the limit of 1000"));
    }
}

#[tokio::test]
async fn errors_name_what_to_do() {
    let error = plan(&[PathBuf::from("/there/is/no/such/path")]).unwrap_err();
    assert!(matches!(error, LoadError::NoSuchPath { .. }));
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a"), "{}\n").unwrap();
    let recorder = Recorder::default();
    recorder.fail([SubmitError::DiskLow]);
    let plan = plan(&[directory.path().to_owned()]).unwrap();
    let error = load(plan, &recorder, &options(), &mut |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("load the same paths again"), "{error}");
}

/// Real Windows events: as many records as the data's README says.
#[tokio::test]
async fn real_events_are_all_found() {
    let path: PathBuf = PathBuf::from("../../../shared/data/events-otrf");
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return;
    }
    let recorder = Recorder::default();
    let start = std::time::Instant::now();
    let report = run(&path, &recorder, &options()).await;
    println!(
        "{} accepted, {} refused, {} files, {:?}",
        report.accepted(),
        report.refused(),
        report.files.len(),
        start.elapsed()
    );
    for file in &report.files {
        println!(
            "{} {:?} {} {} {:?}",
            file.path.display(),
            file.format,
            file.accepted,
            file.refused,
            file.skipped
        );
    }
    assert!(report.accepted() >= 12_707, "{}", report.accepted());
}

/// T2: the start of the domain stands before the first record, its end behind the last answer; a load that
/// breaks off does not end it.
#[tokio::test]
async fn a_load_starts_its_domain_and_ends_it_when_all_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    mixed(directory.path());
    let recorder = Recorder::default();
    *recorder.delay.lock().unwrap() = std::time::Duration::from_millis(30);
    let report = run(directory.path(), &recorder, &options()).await;
    let all = recorder.count();
    assert!(all > 3);
    let turn = |turn, taken, answered| {
        ("default".to_owned(), report.domain.clone(), turn, taken, answered)
    };
    assert_eq!(
        *recorder.turns.lock().unwrap(),
        [turn(DomainTurn::Starts, 0, 0), turn(DomainTurn::Ends, all, all)]
    );

    let recorder = Recorder::default();
    recorder.fail([SubmitError::Stopped]);
    let plan = plan(&[directory.path().to_owned()]).unwrap();
    let broken = load(plan, &recorder, &options(), &mut |_| {}).await;
    assert!(matches!(broken, Err(LoadError::Submit { error: SubmitError::Stopped, .. })));
    let turns = recorder.turns.lock().unwrap();
    assert_eq!(turns.len(), 1, "{turns:?}");
}
