//! Real clients against the doors: `cargo test … -- --ignored clients`. `tests/clients.sh` sends with
//! curl, `logger`, the Elasticsearch Python client and rsyslog, whichever are installed, and prints a
//! line for each; this test checks what arrived.

use crate::listeners::start;
use crate::recorder::server;
use palisade_ingest::body::BodyLimits;
use palisade_ingest::listener::Protocol;
use std::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs curl, logger, the Elasticsearch Python client and rsyslog; missing ones are named"]
async fn clients_get_their_records_in() {
    let http = server(true, BodyLimits::default()).await;
    let lines = start(Protocol::TcpLines, |_| ()).await;
    let stream = start(Protocol::SyslogTcp, |_| ()).await;
    let datagrams = start(Protocol::SyslogUdp, |_| ()).await;
    let script = "tests/clients.sh";
    let arguments = [http.address, lines.address, stream.address, datagrams.address]
        .map(|address| address.port().to_string());
    let run = move || Command::new("bash").arg(script).args(arguments).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{report}");
    // Each line says how many records a client sent through which door.
    let sent = |door: &str| -> usize {
        report
            .lines()
            .filter_map(|line| line.strip_prefix(&format!("sent {door} ")))
            .map(|count| count.split(' ').next().unwrap().parse::<usize>().unwrap())
            .sum()
    };
    assert!(sent("http") > 0, "curl is needed at least: {report}");
    for (door, recorder) in [
        ("http", &http.recorder),
        ("tcp", &lines.recorder),
        ("syslog-tcp", &stream.recorder),
        ("syslog-udp", &datagrams.recorder),
    ] {
        recorder.wait_for(sent(door)).await;
        assert_eq!(recorder.texts().len(), sent(door), "{door}: {:#?}", recorder.texts());
        assert!(recorder.dead().is_empty(), "{door}: {:?}", recorder.dead());
    }
}
