//! Raw TCP lines and syslog over TCP, TLS and UDP.

use crate::recorder::Recorder;
use palisade_ingest::listen::Listener;
use palisade_ingest::listener::{ListenerConfig, Protocol, check_listener};
use palisade_ingest::metrics::{Door, DoorMetrics};
use palisade_ingest::submit::{Body, FieldValue, SubmitError};
use palisade_ingest::tls::{Tls, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) recorder: Arc<Recorder>,
    door: Door,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), SubmitError>>,
    tls: Option<Tls>,
}

pub(crate) async fn start(protocol: Protocol, change: impl FnOnce(&mut ListenerConfig)) -> Running {
    let mut config = ListenerConfig::new("test", protocol, "127.0.0.1:0");
    change(&mut config);
    let checked = check_listener(&config).unwrap();
    let tls = checked.tls.as_ref().map(|files| Tls::load(files, false).unwrap());
    let source = checked.source.clone();
    let listener = Listener::bind(checked, tls.clone()).await.unwrap();
    let address = listener.address().unwrap();
    let recorder = Arc::new(Recorder::default());
    let metrics = DoorMetrics::default();
    let door = metrics.door(&source);
    let stop = CancellationToken::new();
    let (submit, token) = (recorder.clone(), stop.clone());
    let task = tokio::spawn(async move {
        listener.run(submit, Arc::new(|| 1_777_636_800_000_000), &metrics, token).await
    });
    Running { address, recorder, door, stop, task, tls }
}

async fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Ends the sending half and waits until the server has ended its own: all is durable.
async fn finish(mut stream: TcpStream) {
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest))
        .await
        .expect("the server ends its half")
        .unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn lines_are_json_or_text_and_broken_json_becomes_a_dead_letter() {
    let server = start(Protocol::TcpLines, |_| ()).await;
    let stream =
        send(server.address, b"plain\r\n{\"a\":1}\n{broken\n\xff\xfe\nlast without newline").await;
    finish(stream).await;
    let mut texts = server.recorder.texts();
    texts.sort();
    assert_eq!(texts, ["last without newline", "plain", "{\"a\":1}"]);
    let mut dead: Vec<_> = server.recorder.dead().into_iter().map(|(_, raw)| raw).collect();
    dead.sort();
    assert_eq!(dead, [b"{broken".to_vec(), b"\xff\xfe".to_vec()]);
    let taken = server.recorder.taken.lock().unwrap()[0].clone();
    assert_eq!((taken.source.as_ref(), taken.tenant.as_str()), ("tcp:test", "default"));
    assert_eq!(taken.peer, Some("127.0.0.1".parse().unwrap()));
    assert_eq!((server.door.records.get(), server.door.dead_letters.get()), (3, 2));
}

#[tokio::test]
async fn overlong_lines_die_and_the_connection_lives_on() {
    let server = start(Protocol::TcpLines, |config| config.max_line_bytes = 1000).await;
    let long = vec![b'x'; 10 << 20];
    let mut stream = send(server.address, b"before\n").await;
    stream.write_all(&long).await.unwrap();
    stream.write_all(b"\nafter\n").await.unwrap();
    finish(stream).await;
    assert_eq!(server.recorder.texts(), ["before", "after"]);
    let dead = server.recorder.dead();
    assert_eq!(dead.len(), 1);
    assert!(
        dead[0].0.contains("line of 10485760 bytes is over the limit of 1000"),
        "{}",
        dead[0].0
    );
    assert!(dead[0].1.len() <= 8192 && !dead[0].1.is_empty());
}

#[tokio::test]
async fn lines_come_through_at_once_without_an_end() {
    let server = start(Protocol::TcpLines, |_| ()).await;
    let mut stream = send(server.address, b"one\ntwo\nthr").await;
    server.recorder.wait_for(2).await;
    assert_eq!(server.recorder.texts(), ["one", "two"]);
    stream.write_all(b"ee\n").await.unwrap();
    server.recorder.wait_for(3).await;
    assert_eq!(server.recorder.texts()[2], "three");
}

#[tokio::test]
async fn a_slow_gateway_slows_the_sender_and_bounds_memory() {
    let server = start(Protocol::TcpLines, |config| {
        config.max_line_bytes = 1000;
        config.max_in_flight_bytes = 200_000;
    })
    .await;
    *server.recorder.delay.lock().unwrap() = Duration::from_millis(20);
    let line = format!("{}\n", "y".repeat(99));
    let text = line.repeat(50_000);
    let stream = send(server.address, text.as_bytes()).await;
    finish(stream).await;
    assert_eq!(server.recorder.texts().len(), 50_000);
    let most = server.recorder.most_waiting.lock().unwrap().1;
    assert!(most <= 200_000 + 65_536, "{most} bytes waited at once");
}

#[tokio::test]
async fn a_busy_gateway_is_tried_again_and_nothing_is_lost() {
    let server = start(Protocol::TcpLines, |_| ()).await;
    server.recorder.fail(vec![SubmitError::Busy { retry_after_ms: 5 }; 7]);
    finish(send(server.address, b"a\nb\n").await).await;
    assert_eq!(server.recorder.texts(), ["a", "b"]);
    assert_eq!(server.door.refused("busy"), 7);
    // What the gateway refuses as a whole is kept as dead letters.
    server.recorder.fail([SubmitError::TooLarge { limit: 5 }]);
    finish(send(server.address, b"c\nd\n").await).await;
    assert_eq!(server.recorder.dead().len(), 2);
}

#[tokio::test]
async fn senders_outside_the_networks_and_silent_ones_are_let_go() {
    let server =
        start(Protocol::TcpLines, |config| config.networks = vec!["10.0.0.0/8".into()]).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(server.door.refused("sender_network"), 1);
    let server = start(Protocol::TcpLines, |config| config.idle_seconds = 1).await;
    let mut stream = send(server.address, b"half a line").await;
    let closed = tokio::time::timeout(Duration::from_secs(4), stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the connection stayed open");
    server.recorder.wait_for(1).await;
    assert_eq!(server.recorder.texts(), ["half a line"]);
    assert_eq!(server.door.connections.get(), 0);
}

#[tokio::test]
async fn connections_are_bounded() {
    let server = start(Protocol::TcpLines, |config| config.max_connections = 1).await;
    let first = send(server.address, b"first\n").await;
    server.recorder.wait_for(1).await;
    let second = send(server.address, b"second\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.recorder.texts(), ["first"]);
    finish(first).await;
    finish(second).await;
    assert_eq!(server.recorder.texts(), ["first", "second"]);
}

#[tokio::test]
async fn stopping_keeps_what_was_read() {
    let server = start(Protocol::TcpLines, |_| ()).await;
    *server.recorder.delay.lock().unwrap() = Duration::from_millis(200);
    let _stream = send(server.address, b"one\n").await;
    server.recorder.wait_for(1).await;
    server.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), server.task).await.unwrap().unwrap().unwrap();
    assert_eq!(server.door.records.get(), 1);
}

#[tokio::test]
async fn syslog_over_tcp_in_both_framings() {
    let server = start(Protocol::SyslogTcp, |_| ()).await;
    let one = "<34>1 2026-05-01T12:00:00Z host app 1 - - counted\nwith a newline";
    let two =
        "<34>May  1 12:00:00 host sshd[5]: Failed password for bob from 10.0.0.9 port 22 ssh2";
    let text = format!("{} {one}{two}\n7 <34>bad-count {} {one}", one.len(), one.len());
    finish(send(server.address, text.as_bytes()).await).await;
    let taken = server.recorder.taken.lock().unwrap().clone();
    let records: Vec<_> = taken
        .iter()
        .filter_map(|submission| match &submission.body {
            Body::Records(records) => Some(records.iter().cloned()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(records.len(), 3);
    assert_eq!(records[0].get("message"), Some(FieldValue::Text("counted\nwith a newline")));
    assert_eq!(records[1].get("user"), Some(FieldValue::Text("bob")));
    assert_eq!(records[1].get("src_ip"), Some(FieldValue::Text("10.0.0.9")));
    assert_eq!(records[1].get("time"), Some(FieldValue::Time(1_777_636_800_000_000)));
    let dead = server.recorder.dead();
    assert_eq!(dead, [("octet count 7 is wrong".to_owned(), b"7 <34>bad-count ".to_vec())]);
    assert_eq!(taken[0].source.as_ref(), "syslog:test");
}

#[tokio::test]
async fn syslog_over_udp() {
    let server = start(Protocol::SyslogUdp, |_| ()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for number in 0..100 {
        let message = format!("<34>May  1 12:00:00 host app: number {number}\n\0");
        socket.send_to(message.as_bytes(), server.address).await.unwrap();
    }
    socket.send_to(b"", server.address).await.unwrap();
    server.recorder.wait_for(100).await;
    assert!(server.recorder.texts()[99].ends_with("number 99"));
    assert_eq!(server.door.refused("empty"), 1);
    assert_eq!(server.door.records.get(), 100);
    server.stop.cancel();
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_shortest_messages_hold_no_more_memory_than_long_ones() {
    for protocol in [Protocol::SyslogTcp, Protocol::TcpLines] {
        let server = start(protocol, |config| {
            config.max_line_bytes = 1000;
            config.max_in_flight_bytes = 100_000;
        })
        .await;
        *server.recorder.delay.lock().unwrap() = Duration::from_millis(5);
        finish(send(server.address, "x\n".repeat(50_000).as_bytes()).await).await;
        assert_eq!(server.recorder.texts().len(), 50_000);
        // A read of 64 KiB may bring 32,768 messages at once; what they hold waits before more is read.
        let most = server.recorder.most_held.lock().unwrap().1;
        assert!(most <= 100_000 + 32_768 * 200, "{protocol:?}: {most} bytes held at once");
    }
}

#[tokio::test]
async fn datagrams_over_the_limit_are_kept_as_dead_letters() {
    let server = start(Protocol::SyslogUdp, |config| config.max_line_bytes = 300).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&[b'y'; 9000], server.address).await.unwrap();
    socket.send_to(b"<34>May  1 12:00:00 host app: fine", server.address).await.unwrap();
    server.recorder.wait_for(2).await;
    let dead = server.recorder.dead();
    assert!(dead[0].0.starts_with("datagram of 9000 bytes is over the limit of 300"), "{dead:?}");
    assert_eq!(dead[0].1.len(), 8192);
    assert_eq!(server.recorder.texts(), ["<34>May  1 12:00:00 host app: fine"]);
    assert_eq!(server.door.refused("too_large"), 1);
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["authority".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { issuer: Issuer::new(params, key), pem }
}

impl Authority {
    /// Writes `<name>.pem` and `<name>.key`.
    fn issue(&self, directory: &Path, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned(), "localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// Connects with TLS; `client` shows a certificate. Gives the server's certificate, or the error that
/// the connection ended with.
async fn tls_send(
    address: SocketAddr,
    directory: &Path,
    client: Option<&str>,
    bytes: &[u8],
) -> std::io::Result<Vec<u8>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let certificate =
                CertificateDer::from_pem_file(directory.join(format!("{name}.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(directory.join(format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await?;
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    Ok(shown)
}

#[tokio::test]
async fn syslog_over_tls_with_client_certificates_and_a_new_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (ours, foreign) = (authority(), authority());
    std::fs::write(path.join("ca.pem"), &ours.pem).unwrap();
    for name in ["server", "client"] {
        ours.issue(path, name);
    }
    foreign.issue(path, "stranger");
    let files = TlsFiles {
        client_ca: Some(path.join("ca.pem")),
        ..TlsFiles::new(path.join("server.pem"), path.join("server.key"))
    };
    let server = start(Protocol::SyslogTcp, |config| config.tls = Some(files)).await;
    let message = b"30 <34>May  1 12:00:00 h a: hello";
    assert!(tls_send(server.address, path, None, message).await.is_err());
    assert!(tls_send(server.address, path, Some("stranger"), message).await.is_err());
    let first = tls_send(server.address, path, Some("client"), message).await.unwrap();
    assert_eq!(server.recorder.texts(), ["<34>May  1 12:00:00 h a: hello"]);
    // A plain connection is no TLS, and is counted.
    let mut plain = send(server.address, b"<34>plain text\n<34>more\n").await;
    let _ = plain.read_to_end(&mut Vec::new()).await;
    assert_eq!(server.door.refused("tls"), 3);
    // A bad file changes nothing; a good one is what new connections see.
    let tls = server.tls.clone().unwrap();
    std::fs::write(path.join("server.pem"), "nonsense").unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("server.pem"));
    assert_eq!(tls_send(server.address, path, Some("client"), message).await.unwrap(), first);
    ours.issue(path, "server");
    tls.reload().unwrap();
    assert_ne!(tls_send(server.address, path, Some("client"), message).await.unwrap(), first);
    assert_eq!(server.recorder.texts().len(), 3);
}
