//! Entries of the log: what is appended is read back the same, whatever columns the body gave; and a
//! frame with a right checksum around any bytes is an entry or an error, never more.

use crate::{CLOCK, CTX, limits};
use palisade_event::decode::FrameBuilder;
use palisade_event::{Entry, Frame, Offset, RequestEntry};
use palisade_log::disk::{Disk, SimulatedDisk};
use palisade_log::{Encoder, Log, LogOptions};
use std::cell::Cell;
use std::io::IoSlice;
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::Duration;

const DIR: &str = "/log";
const LOG_ID: u128 = 7;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// The decoder catches panics of the Arrow library on bytes that passed the checksum; the fuzzer
/// must not take those for crashes.
fn quiet_while_catching() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                before(info);
            }
        }));
    });
}

fn open(disk: &Arc<dyn Disk>) -> Log {
    let options = LogOptions {
        log_id: LOG_ID,
        min_free_bytes: Some(0),
        space_check_interval: Duration::from_secs(3600),
        group_commit_max_wait: Duration::ZERO,
        ..LogOptions::default()
    };
    Log::open(Arc::clone(disk), Path::new(DIR), options, None).expect("opens").0
}

/// A segment file with these frames, written after the description of the format alone.
fn segment(frames: &[(u8, u8, u64, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(b"palislog");
    out.extend_from_slice(&1_u32.to_le_bytes());
    out.extend_from_slice(&0_u32.to_le_bytes());
    out.extend_from_slice(&0_u64.to_le_bytes());
    out.extend_from_slice(&LOG_ID.to_le_bytes());
    out.extend_from_slice(&i64::MIN.to_le_bytes());
    out.extend_from_slice(&[0; 12]);
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    let mut previous = 0_u32;
    for (kind, codec, offset, payload) in frames {
        let mut padded = payload.to_vec();
        padded.resize(payload.len().next_multiple_of(8), 0);
        let mut header = Vec::new();
        header.extend_from_slice(b"plf1");
        header.extend_from_slice(&[*kind, *codec, 0, 0]);
        header.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        header.extend_from_slice(&crc32c::crc32c(&padded).to_le_bytes());
        header.extend_from_slice(&offset.to_le_bytes());
        header.extend_from_slice(&0_u64.to_le_bytes());
        header.extend_from_slice(&CLOCK.to_le_bytes());
        header.extend_from_slice(&previous.to_le_bytes());
        previous = crc32c::crc32c_append(crc32c::crc32c(&LOG_ID.to_le_bytes()), &header);
        header.extend_from_slice(&previous.to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(&padded);
    }
    out
}

/// Any bytes where an entry and its schema should be.
fn any_payload(kind: u8, codec: u8, cut: u8, payload: &[u8]) {
    let schema = &payload[..usize::from(cut).min(payload.len())];
    let kind = [1, 2, 3, 1][usize::from(kind & 3)];
    let codec = codec & 1;
    let bytes = segment(&[(16, codec, 0, schema), (kind, codec, 0, payload), (2, 0, 1, &[0; 8])]);
    let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new(1));
    disk.create_dir_all(Path::new(DIR)).expect("makes");
    let path = Path::new(DIR).join("00000000000000000000.log");
    let file = disk.create(&path).expect("creates");
    file.write_all_at(&mut [IoSlice::new(&bytes)], 0).expect("writes");
    file.sync().and_then(|()| disk.sync_dir(Path::new(DIR))).expect("syncs");
    let log = open(&disk);
    assert_eq!(log.durable_end(), Offset(2), "the frames are sound");
    quiet_while_catching();
    CATCHING.set(true);
    let entries: Vec<_> = log.read(Offset(0)).expect("reads").take(3).collect();
    CATCHING.set(false);
    for (at, entry) in entries.into_iter().enumerate() {
        match entry {
            Ok((offset, _)) => assert_eq!(offset, Offset(at as u64)),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break;
            }
        }
    }
}

pub fn run(data: &[u8]) {
    let Some((head, rest)) = crate::steer::<3>(data) else { return };
    any_payload(head[0], head[1], head[2], rest);
    let mut builder = FrameBuilder::new(limits());
    let outcome = builder.push_json_body(&CTX, rest);
    let Some(batch) = builder.finish() else { return };
    let request = RequestEntry {
        tenant: CTX.tenant.to_owned(),
        key: format!("key-{}", head[0]),
        body_hash: "0".repeat(32),
        clock: CLOCK,
        accepted: outcome.accepted,
        rejected: outcome.rejected,
        rejected_total: outcome.rejected_total,
    };
    let entry = Arc::new(Entry::Frame(Frame {
        stream: "events".to_owned(),
        clock: CLOCK,
        gateway: CTX.gateway,
        requests: if head[1] & 2 == 2 { vec![request] } else { Vec::new() },
        batch,
    }));
    let encoded =
        Encoder::new().and_then(|mut encoder| encoder.encode(&entry)).expect("it encodes");
    let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new(1));
    let log = open(&disk);
    let (told, done) = std::sync::mpsc::channel();
    log.append(Arc::clone(&entry), encoded, Box::new(move |result| drop(told.send(result))))
        .expect("it is taken");
    assert_eq!(done.recv().expect("told").expect("durable"), Offset(0));
    drop(log);
    let log = open(&disk);
    let (offset, read) =
        log.read(Offset(0)).expect("reads").next().expect("an entry").expect("readable");
    assert_eq!((offset, &read), (Offset(0), entry.as_ref()));
}
