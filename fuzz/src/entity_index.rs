//! Entity indexes: damage is refused by name; an answer lies within the segment; an index that is
//! built finds every row.

use palisade_table::EntityIndex;
use palisade_table::index::IndexBuilder;
use std::path::PathBuf;
use std::sync::OnceLock;
use xxhash_rust::xxh3::xxh3_64;

fn file() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let name = format!("palisade-fuzz-{}.idx", std::process::id());
        let memory = PathBuf::from("/dev/shm");
        if memory.is_dir() { memory.join(name) } else { std::env::temp_dir().join(name) }
    })
}

fn ask(bytes: &[u8]) {
    std::fs::write(file(), bytes).expect("a scratch file can be written");
    let Ok(index) = EntityIndex::open(file()) else { return };
    let _ = index.verify();
    let columns: Vec<String> = index.columns().map(|(name, _)| name.to_owned()).collect();
    for column in columns.iter().take(4) {
        for value in ["", "u1", "10.0.0.1"] {
            let Ok(Some(ranges)) = index.lookup(column, value) else { continue };
            assert!(
                ranges.iter().all(|range| range.start < range.end && range.end <= index.rows())
            );
            assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}

pub fn run(data: &[u8]) {
    ask(data);
    // The header's checksum is put right, or nothing behind it would be reached.
    if let Some(length) = data.get(20..24).and_then(|bytes| bytes.try_into().ok()) {
        let length = u32::from_le_bytes(length) as usize;
        if (32..=data.len()).contains(&length) {
            let mut sound = data.to_vec();
            let sum = xxh3_64(&sound[..length - 8]);
            sound[length - 8..length].copy_from_slice(&sum.to_le_bytes());
            // Likewise that of a bucket that reaches to the end.
            if sound.len() >= length + 4 {
                let end = sound.len();
                let sum = (xxh3_64(&sound[length..end - 4]) & 0xffff_ffff) as u32;
                sound[end - 4..].copy_from_slice(&sum.to_le_bytes());
            }
            ask(&sound);
        }
    }
    let Some((head, rest)) = crate::steer::<1>(data) else { return };
    let block_rows = 1 + u32::from(head[0] % 9);
    let mut builder = IndexBuilder::new(rest.len() as u64, block_rows, &["user"]);
    let column = builder.column("user").expect("it was asked for");
    for (row, byte) in rest.iter().enumerate() {
        if *byte != 0 {
            let slot = builder.slot(column, &format!("u{byte}")).expect("few values");
            builder.mark(column, slot, row as u64);
        }
    }
    std::fs::write(file(), builder.finish(rest.len() as u64)).expect("it can be written");
    let index = EntityIndex::open(file()).expect("what was built opens");
    index.verify().expect("what was built is sound");
    for (row, byte) in rest.iter().enumerate().take(200) {
        if *byte != 0 {
            let ranges = index.lookup("user", &format!("u{byte}")).expect("sound");
            let ranges = ranges.expect("indexed");
            assert!(ranges.iter().any(|range| range.contains(&(row as u64))), "row {row}");
        }
    }
}
