//! A sender of the crash benchmark.

use super::pause;
use crate::server::Failure;
use palisade_testkit::load::{Answer, Connection, Target};
use palisade_testkit::streamguard::{Generator, IdStyle};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Few users, so that they are learned early and anomalies exist.
const USERS: u32 = 60;
/// A request that is not answered in so many tries, with 5 ms between, ends the run.
const TRIES: u32 = 60_000;

/// `SplitMix64`: small, and the same everywhere.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`; the bias of the remainder does not matter here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

/// Where the server is, if there is one.
#[derive(Debug, Default)]
pub(super) struct Place(Mutex<(Option<SocketAddr>, bool)>);

impl Place {
    pub(super) fn set(&self, address: Option<SocketAddr>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = address;
    }

    /// There will be no server any more.
    pub(super) fn give_up(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (None, true);
    }

    fn get(&self) -> Result<Option<SocketAddr>, Failure> {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            (_, true) => Err("there is no server any more".into()),
            (address, false) => Ok(address),
        }
    }
}

/// What a lane knows in the end.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The numbers of the acknowledged events, see [`number_of`].
    pub(super) ids: Vec<u64>,
    /// Requests answered.
    pub(super) requests: u64,
    /// Requests sent again.
    pub(super) repeats: u64,
    /// Repeated requests with another answer than the first.
    pub(super) answers_differ: u64,
}

/// A sender: its requests are a function of seed and number.
pub(super) struct Lane {
    number: u32,
    generator: Generator,
    sizes: Dice,
    pauses: Dice,
}

/// A request, and its answer once there is one.
#[derive(Debug, Default)]
struct Request {
    key: String,
    body: Vec<u8>,
    answer: Option<Answer>,
}

impl Lane {
    pub(super) fn new(seed: u64, number: u32, lanes: u32) -> Self {
        let mixed = seed.rotate_left(17) ^ u64::from(number);
        Self {
            number,
            generator: Generator::new(seed, USERS, IdStyle::StreamGuard).with_share(number, lanes),
            sizes: Dice::new(mixed),
            pauses: Dice::new(!mixed),
        }
    }

    /// The column `source` of a lane's rows.
    pub(super) fn source(number: u32) -> String {
        format!("lane{number}")
    }

    /// The next request: 20 to 300 events, their users marked with the lane's number.
    fn next(&mut self, index: u64, ids: &mut Vec<u64>) -> Result<Request, Failure> {
        let mut lines = Vec::new();
        let count = 20 + self.sizes.below(281);
        self.generator.fill(usize::try_from(count)?, &mut lines);
        let lines = String::from_utf8(lines)?;
        let mut body = String::with_capacity(lines.len() + 512);
        for line in lines.lines() {
            let id = line.split('"').nth(3).and_then(number_of);
            ids.push(id.ok_or_else(|| format!("the generator made '{line}'"))?);
            let (head, rest) =
                line.split_once("\"user\":\"").ok_or("the generator made no user")?;
            body.push_str(head);
            body.push_str(&format!("\"user\":\"l{}.{rest}\n", self.number));
        }
        let key = format!("lane{}-{index}", self.number);
        Ok(Request { key, body: body.into_bytes(), answer: None })
    }

    /// Sends until `done` says so of the number of answered requests, which it is asked between requests.
    /// With `pauses` up to 20 ms pass between two requests.
    pub(super) fn send(
        mut self,
        place: &Place,
        done: impl Fn(u64) -> bool,
        pauses: bool,
    ) -> Result<Sent, Failure> {
        let mut sent = Sent::default();
        let mut link = Link::default();
        let mut last: Option<Request> = None;
        while !done(sent.requests) {
            if pauses {
                pause(Duration::from_millis(self.pauses.below(21)));
            }
            let mut ids = Vec::new();
            let mut request = self.next(sent.requests, &mut ids)?;
            let mut tries = 0;
            while request.answer.is_none() {
                tries += 1;
                if tries > TRIES {
                    return Err(format!("request {} was never answered", request.key).into());
                }
                let fresh = link.connect(place, &Self::source(self.number))?;
                if let Some(last) = last.as_ref().filter(|_| fresh) {
                    // A new server must know what the old one answered.
                    sent.repeats += 1;
                    match link.send(last) {
                        Some(answer) if is_busy(&answer) => link = Link::default(),
                        Some(answer) if Some(&answer) != last.answer.as_ref() => {
                            sent.answers_differ += 1;
                        }
                        _ => {}
                    }
                }
                match link.send(&request) {
                    Some(answer) if is_busy(&answer) => {}
                    Some(answer) => {
                        check(&answer, &request.key, ids.len())?;
                        request.answer = Some(answer);
                        break;
                    }
                    None => {}
                }
                sent.repeats += 1;
                pause(Duration::from_millis(5));
            }
            sent.requests += 1;
            sent.ids.append(&mut ids);
            last = Some(request);
        }
        Ok(sent)
    }
}

fn is_busy(answer: &Answer) -> bool {
    matches!(answer.status, 429 | 503)
}

/// All of a request must have been taken.
fn check(answer: &Answer, key: &str, records: usize) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(&answer.body);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let number = |name: &str| value.get(name).and_then(serde_json::Value::as_u64);
    let records = records as u64;
    if answer.status == 200
        && number("accepted") == Some(records)
        && number("rejected_total") == Some(0)
    {
        return Ok(());
    }
    let text: String = text.chars().take(300).collect();
    Err(format!("request {key} of {records} records was answered {}: {text}", answer.status).into())
}

/// The connection to the server that is there, if any.
#[derive(Debug, Default)]
struct Link {
    address: Option<SocketAddr>,
    connection: Option<Connection>,
}

impl Link {
    /// Connects if there is a server and no connection; whether this is a server that was not spoken to before.
    fn connect(&mut self, place: &Place, source: &str) -> Result<bool, Failure> {
        let address = place.get()?;
        if self.connection.is_some() && self.address == address {
            return Ok(false);
        }
        self.connection = None;
        let Some(address) = address else { return Ok(false) };
        let target = Target {
            address,
            path: format!("/api/v1/streams/events/records?source={source}"),
            headers: String::new(),
        };
        self.connection = Connection::open(&target).ok();
        let fresh = self.connection.is_some() && self.address != Some(address);
        if self.connection.is_some() {
            self.address = Some(address);
        }
        Ok(fresh)
    }

    /// The answer, or none when the connection breaks before it is whole.
    fn send(&mut self, request: &Request) -> Option<Answer> {
        let connection = self.connection.as_mut()?;
        let header = format!("idempotency-key: {}\r\n", request.key);
        let answer = connection.send(&header, &request.body).ok();
        if answer.is_none() {
            self.connection = None;
        }
        answer
    }
}

/// The number of an id `evt_<seconds>_<n>`, n below a million: another id has another number.
pub(super) fn number_of(id: &str) -> Option<u64> {
    let (seconds, n) = id.strip_prefix("evt_")?.split_once('_')?;
    let (seconds, n): (u64, u64) = (seconds.parse().ok()?, n.parse().ok()?);
    (n < 1_000_000).then_some(())?;
    seconds.checked_mul(1_000_000)?.checked_add(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_repeats_itself_and_shares_no_event_with_another() {
        let make = |number| {
            let (mut lane, mut ids) = (Lane::new(7, number, 2), Vec::new());
            let bodies: Vec<_> =
                (0..5).map(|index| lane.next(index, &mut ids).unwrap().body).collect();
            (ids, bodies)
        };
        let (first, second) = (make(0), make(1));
        assert_eq!(first, make(0));
        assert!(first.0.iter().all(|id| !second.0.contains(id)));
        let text = String::from_utf8(first.1.concat()).unwrap();
        assert!(text.lines().all(|line| line.contains("\"user\":\"l0.")));
    }

    #[test]
    fn numbers_of_ids() {
        assert_eq!(number_of("evt_0000000002_000003"), Some(2_000_003));
        assert_eq!(number_of("evt_2_1000000"), None);
        assert_eq!(number_of("other"), None);
    }
}
