//! What a hunt found, as a file: written once, read in pages.
//!
//! ```text
//! 8 bytes  PLSDHNT1
//! u64      how many alerts, n
//! u64 × n  where each text ends, from the first one's beginning
//! texts    JSON objects, by time and id
//! ```
//! Numbers are little endian. The file is made under another name and renamed when it is whole and durable.

use super::gather::FoundAlert;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: &[u8; 8] = b"PLSDHNT1";
const HEAD: u64 = 16;
/// Bytes of a page, unless a single text has more.
const PAGE: u64 = 8 << 20;

/// Writes the results of a hunt.
///
/// # Errors
/// What the disk says.
pub(super) fn write(path: &Path, alerts: &[FoundAlert]) -> io::Result<()> {
    let whole = path.with_extension("part");
    let mut out = BufWriter::new(File::create(&whole)?);
    out.write_all(MAGIC)?;
    out.write_all(&(alerts.len() as u64).to_le_bytes())?;
    let mut end = 0u64;
    for alert in alerts {
        end += alert.text.len() as u64;
        out.write_all(&end.to_le_bytes())?;
    }
    for alert in alerts {
        out.write_all(alert.text.as_bytes())?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(&whole, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// The texts from number `from` on, at most `limit` and about 8 MiB, and the number of the next one if there is one.
///
/// # Errors
/// What the disk says; [`io::ErrorKind::InvalidData`] for a file that is none of these.
pub(super) fn read(path: &Path, from: u64, limit: u64) -> io::Result<(Vec<String>, Option<u64>)> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut head = [0; HEAD as usize];
    file.read_exact_at(&mut head, 0)?;
    let (magic, count) = head.split_at(8);
    if magic != MAGIC {
        return Err(damaged("no results of a hunt"));
    }
    let count = number(count);
    let texts = count.checked_mul(8).and_then(|ends| ends.checked_add(HEAD));
    let texts = texts.filter(|texts| *texts <= length).ok_or_else(|| damaged("it is cut"))?;
    if from >= count {
        return Ok((Vec::new(), None));
    }
    // Where the one before ends is where the first begins.
    let first = from.saturating_sub(1);
    let wanted = limit.min(count - from) + (from - first);
    let bytes = usize::try_from(wanted * 8).map_err(|_| damaged("too many at once"))?;
    let mut ends = vec![0; bytes];
    file.read_exact_at(&mut ends, HEAD + first * 8)?;
    let mut ends = ends.chunks_exact(8).map(number);
    let start = if from > 0 { ends.next().unwrap_or(0) } else { 0 };
    let (mut at, mut lengths) = (start, Vec::new());
    for end in ends {
        if end < at || texts.checked_add(end).is_none_or(|end| end > length) {
            return Err(damaged("its texts overlap or are cut"));
        }
        if end - start > PAGE && !lengths.is_empty() {
            break;
        }
        lengths.push(end - at);
        at = end;
    }
    let bytes = usize::try_from(at - start).map_err(|_| damaged("too large"))?;
    let mut page = vec![0; bytes];
    file.read_exact_at(&mut page, texts + start)?;
    let mut rest = page.as_slice();
    let mut found = Vec::with_capacity(lengths.len());
    for length in lengths {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((text, behind)) = rest.split_at_checked(length) else { break };
        let text = std::str::from_utf8(text).map_err(|_| damaged("a text is no UTF-8"))?;
        found.push(text.to_owned());
        rest = behind;
    }
    let next = from + found.len() as u64;
    Ok((found, (next < count).then_some(next)))
}

fn number(bytes: &[u8]) -> u64 {
    <[u8; 8]>::try_from(bytes).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alert(text: &str) -> FoundAlert {
        FoundAlert { time: 0, id: String::new(), text: text.to_owned() }
    }

    #[test]
    fn pages_are_the_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results");
        let texts: Vec<String> = (0..25).map(|n| "x".repeat(n * 7 % 11)).collect();
        write(&path, &texts.iter().map(|text| alert(text)).collect::<Vec<_>>()).unwrap();
        for limit in [1, 2, 7, 25, 100] {
            let (mut at, mut all) = (Some(0), Vec::new());
            while let Some(from) = at {
                let (page, next) = read(&path, from, limit).unwrap();
                assert!(page.len() as u64 <= limit);
                all.extend(page);
                at = next;
            }
            assert_eq!(all, texts);
        }
        assert_eq!(read(&path, 25, 5).unwrap(), (Vec::new(), None));
        assert_eq!(read(&path, u64::MAX, 5).unwrap(), (Vec::new(), None));
        write(&path, &[]).unwrap();
        assert_eq!(read(&path, 0, 5).unwrap(), (Vec::new(), None));
        // A page has a bound; a text above it is a page of its own.
        let long = "y".repeat(5 << 20);
        write(&path, &[alert(&long), alert(&long), alert("z")]).unwrap();
        assert_eq!(read(&path, 0, 9).unwrap().1, Some(1));
        assert_eq!(read(&path, 1, 9).unwrap().0.len(), 2);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            magic in any::<bool>(),
            from in 0u64..4,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("results");
            let head: &[u8] = if magic { MAGIC } else { &[] };
            let small = [head, &[3, 0, 0, 0, 0, 0, 0, 0], &bytes].concat();
            for bytes in [[head, &bytes].concat(), small] {
                std::fs::write(&path, bytes).unwrap();
                let _ = read(&path, from, 3);
            }
        }
    }
}
