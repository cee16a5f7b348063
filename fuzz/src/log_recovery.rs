//! Recovery of the log: whatever bytes of its files are changed or cut off, opening either names the
//! damage or gives a beginning of what was written, all of it readable (L2).

use palisade_event::id::GatewayIdentity;
use palisade_event::{Entry, Offset};
use palisade_log::disk::{Disk, SimulatedDisk};
use palisade_log::{Log, LogOptions, inspect, verify};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const DIR: &str = "/log";

struct Written {
    files: Vec<(PathBuf, Vec<u8>)>,
    entries: Vec<Entry>,
}

fn options() -> LogOptions {
    LogOptions {
        log_id: 7,
        segment_bytes: 1500,
        min_free_bytes: Some(0),
        space_check_interval: Duration::from_secs(3600),
        group_commit_max_wait: Duration::ZERO,
        ..LogOptions::default()
    }
}

fn written() -> &'static Written {
    static WRITTEN: OnceLock<Written> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let simulated = SimulatedDisk::new(1);
        let disk: Arc<dyn Disk> = Arc::new(simulated);
        let (log, _) =
            Log::open(Arc::clone(&disk), Path::new(DIR), options(), None).expect("opens");
        let gateway = GatewayIdentity { region: 1, gateway: 2, epoch: 3 };
        let mut entries = Vec::new();
        let mut builder = palisade_event::decode::FrameBuilder::new(crate::limits());
        for clock in 1..25_i64 {
            let body = format!("{{\"n\":{clock},\"user\":\"u{}\"}}", clock % 3);
            builder.push_json_body(&crate::CTX, body.as_bytes());
            let batch = builder.finish().expect("a row");
            let entry = match clock % 3 {
                0 => Entry::Tick { clock, gateway },
                1 => Entry::Control { clock, kind: "note".into(), body: "x".repeat(40) },
                _ => Entry::Frame(palisade_event::Frame {
                    stream: "events".into(),
                    clock,
                    gateway,
                    requests: Vec::new(),
                    batch,
                }),
            };
            log.append_and_wait(entry.clone()).expect("appends");
            entries.push(entry);
        }
        drop(log);
        let names = disk.list(Path::new(DIR)).expect("lists");
        let files = names
            .iter()
            .filter(|name| name.ends_with(".log"))
            .map(|name| {
                let path = Path::new(DIR).join(name);
                let file = disk.open(&path, false).expect("opens");
                let mut bytes = vec![0; file.len().expect("has a length") as usize];
                file.read_at(&mut bytes, 0).expect("reads");
                (path, bytes)
            })
            .collect();
        Written { files, entries }
    })
}

pub fn run(data: &[u8]) {
    let Some((head, mut rest)) = crate::steer::<2>(data) else { return };
    let Written { files, entries } = written();
    let mut files = files.clone();
    let mut changed = false;
    // Each five bytes are an edit: file, place, how, value.
    while let Some((edit, after)) = rest.split_first_chunk::<5>() {
        rest = after;
        let count = files.len();
        let (_, bytes) = &mut files[usize::from(edit[0]) % count];
        let at = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % (bytes.len() + 1);
        match edit[3] % 4 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, edit[4]),
            2 => bytes.extend(std::iter::repeat_n(edit[4], usize::from(edit[1]))),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= edit[4];
                }
            }
        }
        changed = true;
    }
    let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new(u64::from(head[0])));
    disk.create_dir_all(Path::new(DIR)).expect("makes");
    for (path, bytes) in &files {
        let file = disk.create(path).expect("creates");
        file.write_all_at(&mut [IoSlice::new(bytes)], 0).expect("writes");
        file.sync().expect("syncs");
    }
    disk.sync_dir(Path::new(DIR)).expect("syncs");
    // Looking does not fail in another way than with an error.
    let looked = verify(&*disk, Path::new(DIR), None);
    let _ = inspect(&*disk, Path::new(DIR));
    let committed = (head[1] & 1 == 1).then_some(Offset(u64::from(head[1] / 2) % 24));
    let opened = Log::open(Arc::clone(&disk), Path::new(DIR), options(), committed);
    let (log, recovery) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            assert!(changed, "an untouched log does not open: {error}");
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(committed.is_some() || looked.is_ok(), "{looked:?}, and yet it opens");
    let mut next = log.start();
    for item in log.read(log.start()).expect("reads") {
        let (offset, entry) = item.expect("what was verified at open is readable");
        assert_eq!(offset, next);
        assert_eq!(Some(&entry), entries.get(offset.0 as usize), "entry {} changed", offset.0);
        next = offset.next();
    }
    assert_eq!(next, log.durable_end());
    assert_eq!(next, recovery.end);
    if !changed {
        assert_eq!(next.0, entries.len() as u64);
    }
}
