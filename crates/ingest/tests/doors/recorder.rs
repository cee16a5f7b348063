//! A recorder in the gateway's place, a key store with two keys, and small clients.

use palisade_event::TenantId;
use palisade_ingest::auth::{AuthError, Authenticate, Authenticated, Principal, Scopes};
use palisade_ingest::body::BodyLimits;
use palisade_ingest::http::HttpDoors;
use palisade_ingest::metrics::DoorMetrics;
use palisade_ingest::serve::{ServerLimits, serve};
use palisade_ingest::submit::{
    Body, DomainTurn, Receipt, Submission, Submit, SubmitError, Submitted, Turned,
};
use palisade_ingest::{elastic, http};
use serde_json::Value;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Tenant, domain, what happened to it, and how many submissions were taken and answered before.
pub(crate) type Turn = (String, String, DomainTurn, usize, usize);

/// Records submissions, refuses records that are no JSON objects, and answers as scripted.
#[derive(Default)]
pub(crate) struct Recorder {
    /// What was taken.
    pub(crate) taken: Mutex<Vec<Submission>>,
    /// Turns of domains.
    pub(crate) turns: Mutex<Vec<Turn>>,
    /// How many submissions were answered.
    pub(crate) answered: Arc<Mutex<usize>>,
    /// Errors to give before taking more.
    pub(crate) script: Mutex<VecDeque<SubmitError>>,
    /// How long durability takes.
    pub(crate) delay: Mutex<Duration>,
    /// Most bytes waiting at once.
    pub(crate) most_waiting: Arc<Mutex<(usize, usize)>>,
}

impl Recorder {
    pub(crate) fn fail(&self, errors: impl IntoIterator<Item = SubmitError>) {
        self.script.lock().unwrap().extend(errors);
    }

    /// The JSON of all records, and the text of raw lines and syslog records.
    pub(crate) fn texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for submission in self.taken.lock().unwrap().iter() {
            texts.extend(records(&submission.body).0);
        }
        texts
    }

    /// Reasons and bytes of all dead letters.
    pub(crate) fn dead(&self) -> Vec<(String, Vec<u8>)> {
        let taken = self.taken.lock().unwrap();
        let letters = taken.iter().filter_map(|submission| match &submission.body {
            Body::DeadLetters(letters) => Some(letters.iter()),
            _ => None,
        });
        letters.flatten().map(|letter| (letter.reason.clone(), letter.raw.to_vec())).collect()
    }

    pub(crate) fn last(&self) -> Submission {
        self.taken.lock().unwrap().last().cloned().expect("something was taken")
    }

    pub(crate) fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    /// Waits until so many records and dead letters were taken.
    pub(crate) async fn wait_for(&self, records: usize) {
        for _ in 0..1000 {
            if self.texts().len() + self.dead().len() >= records {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} texts, {:?} after 5 s", self.texts().len(), self.dead());
    }
}

/// Texts of the good records and the refused ones of a body.
fn records(body: &Body) -> (Vec<String>, Vec<(u64, String)>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let mut take = |index: usize, text: Result<String, String>| match text {
        Ok(text) => good.push(text),
        Err(reason) => bad.push((index as u64, reason)),
    };
    let object = |value: Value| {
        if value.is_object() { Ok(value.to_string()) } else { Err("no object".to_owned()) }
    };
    match body {
        Body::Json(body) => {
            let mut index = 0;
            for value in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
                match value {
                    Ok(Value::Array(items)) => {
                        for item in items {
                            take(index, object(item));
                            index += 1;
                        }
                    }
                    Ok(value) => {
                        take(index, object(value));
                        index += 1;
                    }
                    Err(error) => {
                        take(index, Err(error.to_string()));
                        break;
                    }
                }
            }
        }
        Body::BulkItems { body, items } => {
            for (index, item) in items.iter().enumerate() {
                let parsed = serde_json::from_slice::<Value>(&body[item.range.clone()]);
                take(index, parsed.map_err(|error| error.to_string()).and_then(object));
            }
        }
        Body::Lines { body, ranges } => {
            for (index, range) in ranges.iter().enumerate() {
                let text = std::str::from_utf8(&body[range.clone()]);
                take(index, text.map(str::to_owned).map_err(|_| "invalid UTF-8".to_owned()));
            }
        }
        Body::Records(records) => {
            for (index, record) in records.iter().enumerate() {
                take(index, Ok(record.text().to_owned()));
            }
        }
        Body::DeadLetters(_) => {}
    }
    (good, bad)
}

impl Submit for Recorder {
    fn submit(&self, submission: Submission) -> Submitted {
        if let Some(error) = self.script.lock().unwrap().pop_front() {
            return Box::pin(async move { Err(error) });
        }
        let (good, bad) = records(&submission.body);
        let letters = match &submission.body {
            Body::DeadLetters(letters) => letters.len(),
            _ => 0,
        };
        let bytes = submission.body.bytes();
        self.taken.lock().unwrap().push(submission);
        let receipt = Receipt {
            accepted: (good.len() + letters) as u64,
            rejected_total: bad.len() as u64,
            rejected: bad,
            repeated: false,
        };
        let delay = *self.delay.lock().unwrap();
        let waiting = Arc::clone(&self.most_waiting);
        {
            let mut waiting = waiting.lock().unwrap();
            waiting.0 += bytes;
            waiting.1 = waiting.1.max(waiting.0);
        }
        let answered = Arc::clone(&self.answered);
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            waiting.lock().unwrap().0 -= bytes;
            *answered.lock().unwrap() += 1;
            Ok(receipt)
        })
    }

    fn turn_domain(&self, tenant: TenantId, domain: Arc<str>, turn: DomainTurn) -> Turned {
        let (taken, answered) = (self.count(), *self.answered.lock().unwrap());
        let tenant = tenant.as_str().to_owned();
        self.turns.lock().unwrap().push((tenant, domain.to_string(), turn, taken, answered));
        Box::pin(async { Ok(()) })
    }
}

/// Keys `good` (ingest) and `reader` (query only), or everything open.
pub(crate) struct Keys {
    pub(crate) open: bool,
}

impl Keys {
    fn check(&self, key: &str) -> Result<Principal, AuthError> {
        let tenant = TenantId::new("acme").unwrap();
        let key_id = Some(key.into());
        match key {
            "good" => Ok(Principal {
                tenant,
                scopes: Scopes { ingest: true, ..Scopes::default() },
                key_id,
            }),
            "reader" => Ok(Principal {
                tenant,
                scopes: Scopes { query: true, ..Scopes::default() },
                key_id,
            }),
            _ => Err(AuthError::Invalid),
        }
    }
}

impl Authenticate for Keys {
    fn bearer<'a>(&'a self, token: &'a str) -> Authenticated<'a> {
        Box::pin(async move { self.check(token) })
    }

    fn api_key<'a>(&'a self, id: &'a str, secret: &'a str) -> Authenticated<'a> {
        Box::pin(async move {
            if secret == "secret" { self.check(id) } else { Err(AuthError::Invalid) }
        })
    }

    fn basic<'a>(&'a self, user: &'a str, password: &'a str) -> Authenticated<'a> {
        self.api_key(user, password)
    }

    fn open_tenant(&self) -> Option<TenantId> {
        self.open.then(TenantId::default_tenant)
    }
}

/// A running HTTP server with both HTTP doors.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) metrics: DoorMetrics,
    pub(crate) stop: CancellationToken,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

pub(crate) async fn server(open: bool, limits: BodyLimits) -> Server {
    server_with(open, limits, ServerLimits::default()).await
}

pub(crate) async fn server_with(open: bool, limits: BodyLimits, server: ServerLimits) -> Server {
    let recorder = Arc::new(Recorder::default());
    let metrics = DoorMetrics::default();
    let doors = HttpDoors::new(recorder.clone(), Arc::new(Keys { open }), limits, &metrics);
    let router = http::router(doors.clone()).merge(elastic::router(doors));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let task =
        tokio::spawn(serve(listener, None, router, server, metrics.door("http"), stop.clone()));
    Server { address, recorder, metrics, stop, task }
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (have, value) = line.split_once(':')?;
            have.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }
}

/// Sends one request on a connection of its own and reads the answer to the end.
pub(crate) async fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    // The server may answer and close before it has read a body that it refuses.
    let _ = stream.write_all(body).await;
    read_answer(stream).await
}

pub(crate) async fn read_answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while let Ok(Ok(count @ 1..)) = tokio::time::timeout_at(deadline, stream.read(&mut piece)).await
    {
        bytes.extend_from_slice(&piece[..count]);
    }
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| {
        panic!("no answer: {:?}", String::from_utf8_lossy(&bytes));
    });
    let head = String::from_utf8(bytes[..split].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[split + 4..].to_vec() }
}
