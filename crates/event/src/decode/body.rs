//! Finding the records in a body, and finding the next one after a bad one.
//!
//! Records are parsed where they begin, whatever lies between them, so JSON lines, arrays and
//! concatenated or pretty-printed documents need no telling apart while all is well. Only after a
//! bad record the question is where it ends:
//!
//! - at its closing bracket, if that stands on its first line;
//! - at the end of its line in JSON lines: when an earlier record of the body had a line of its own,
//!   or when the next line cannot go on where this one ends;
//! - else at its closing bracket on a later line; and if there is none, before the next line that
//!   begins with a brace, or at the end of the body.
//!
//! Looking for ends may read bytes more than once. A budget proportional to the body bounds it;
//! when it is spent, the rest of the body is one bad record.

use super::scan::{Refusal, Why};
use super::{DecodeLimits, FrameBuilder, Outcome, RequestContext};
use crate::id::GatewayIdentity;
use memchr::memchr;

/// How often every byte of a body may be read in search of ends of records.
const BUDGET: usize = 8;

/// Walks over a body.
struct Walk<'a> {
    body: &'a [u8],
    at: usize,
    /// Whether an array of records is open.
    in_array: bool,
    /// Whether records have lines of their own; unknown at first.
    lines: Option<bool>,
    budget: usize,
}

pub(super) fn push(builder: &mut FrameBuilder, ctx: &RequestContext<'_>, body: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    let valid = simdutf8::basic::from_utf8(body).is_ok();
    let source = builder.source(ctx);
    let mut walk = Walk {
        body,
        at: if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 },
        in_array: false,
        lines: None,
        budget: body.len().saturating_mul(BUDGET).saturating_add(1 << 16),
    };
    while let Some(byte) = walk.skip_space() {
        match byte {
            b'[' if !walk.in_array => {
                walk.in_array = true;
                walk.at += 1;
            }
            b']' if walk.in_array => {
                walk.in_array = false;
                walk.at += 1;
            }
            b',' if walk.in_array => walk.at += 1,
            _ => {
                if let Err((refusal, start)) =
                    record(builder, ctx, source, &mut walk, valid, &outcome)
                {
                    outcome.reject(|| builder.reason(refusal, start));
                } else {
                    outcome.accepted += 1;
                }
            }
        }
    }
    if walk.in_array {
        outcome
            .reject(|| "the array of records is not closed: the body may have been cut".to_owned());
    }
    outcome
}

/// Takes the record that begins here, or moves behind it.
fn record(
    builder: &mut FrameBuilder,
    ctx: &RequestContext<'_>,
    source: u32,
    walk: &mut Walk<'_>,
    valid: bool,
    outcome: &Outcome,
) -> Result<(), (Refusal, usize)> {
    let start = walk.at;
    let limits = &builder.rows.limits;
    if outcome.seen() >= limits.max_records_per_request {
        walk.recover(start);
        return Err((Refusal { at: start, why: Why::TooManyRecords }, start));
    }
    // The scan sees no more than a record may have.
    let most = start.saturating_add(limits.max_record_bytes).min(walk.body.len());
    let mut scan = builder.scan(walk.body.get(..most).unwrap_or_default(), start);
    let mut end = start;
    let index = u32::try_from(outcome.seen()).unwrap_or(u32::MAX);
    let bytes = &walk.body;
    let taken = builder.push(ctx, source, index, 0, |fields| {
        fields.json(&mut scan)?;
        end = scan.at();
        let record = bytes.get(start..end).unwrap_or_default();
        fields.rows.stats.bytes += record.len();
        if !valid && let Err(error) = std::str::from_utf8(record) {
            return Err(Refusal { at: start + error.valid_up_to(), why: Why::InvalidUtf8 });
        }
        Ok(())
    });
    match taken {
        Ok(()) => {
            if walk.lines.is_none() {
                walk.lines = walk.has_line_of_its_own(start, end);
            }
            walk.at = end;
            Ok(())
        }
        Err(mut refusal) => {
            if refusal.at >= most && most < walk.body.len() {
                refusal.why = Why::TooLarge;
            }
            if end > start {
                // The record is whole; only what stands in it is refused.
                walk.at = end;
            } else {
                walk.recover(start);
            }
            refusal.at = refusal.at.min(walk.at);
            Err((refusal, start))
        }
    }
}

/// What a tolerant look at brackets and strings found.
enum Brackets {
    /// They close before this position.
    Closed(usize),
    /// They do not close, or a line ends within a string.
    Broken,
    /// They are open at the end of the bytes looked at: the innermost bracket, and the last byte
    /// that is no white space.
    Open(u8, u8),
}

impl Walk<'_> {
    /// Skips white space and the separators of JSON text sequences.
    fn skip_space(&mut self) -> Option<u8> {
        loop {
            match *self.body.get(self.at)? {
                b' ' | b'\n' | b'\t' | b'\r' | 0x1e => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    /// Where the line of a position ends: at its newline or at the end of the body.
    fn line_end(&self, at: usize) -> usize {
        let rest = self.body.get(at..).unwrap_or_default();
        memchr(b'\n', rest).map_or(self.body.len(), |length| at + length)
    }

    /// Whether a good record stood on a line alone; unknown at the end of the body.
    fn has_line_of_its_own(&self, start: usize, end: usize) -> Option<bool> {
        let record = self.body.get(start..end)?;
        let rest = self.body.get(end..)?.trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
        Some(memchr(b'\n', record).is_none() && self.line_end(end) < self.body.len() - rest.len())
    }

    /// Moves behind the bad record that began at `start`.
    fn recover(&mut self, start: usize) {
        let line_end = self.line_end(start);
        let line = self.body.get(start..line_end).unwrap_or_default();
        if self.budget < line.len() {
            self.at = self.body.len();
            self.in_array = false;
            return;
        }
        self.budget -= line.len();
        self.at = match line.first() {
            Some(b'{' | b'[') => match brackets(line) {
                Brackets::Closed(length) => self.after_closed(start + length, line_end),
                Brackets::Broken => line_end,
                Brackets::Open(..) if self.lines == Some(true) => line_end,
                Brackets::Open(innermost, last) => {
                    if self.may_go_on(line_end, innermost, last) {
                        self.end_of_document(start, line_end)
                    } else {
                        line_end
                    }
                }
            },
            // No object: to the end of the array element or of the line.
            _ if self.in_array => start + scalar_length(line),
            _ => line_end,
        };
    }

    /// Where to go on when a bad record's brackets closed within its line: there, if another record
    /// or the line's end follows; what else follows belongs to the bad record.
    fn after_closed(&self, end: usize, line_end: usize) -> usize {
        let after = self.body.get(end..line_end).unwrap_or_default().trim_ascii_start();
        match after.first() {
            Some(b'{') => end,
            Some(_) if self.in_array => end,
            _ => line_end,
        }
    }

    /// Whether the next line may continue a document whose line ended with these brackets open.
    fn may_go_on(&self, line_end: usize, innermost: u8, last: u8) -> bool {
        let next = self.body.get(line_end..).unwrap_or_default().trim_ascii_start().first();
        match next {
            Some(b'{') => last == b':' || innermost == b'[' && matches!(last, b'[' | b','),
            Some(_) => true,
            None => false,
        }
    }

    /// The end of a bad document of several lines.
    fn end_of_document(&mut self, start: usize, line_end: usize) -> usize {
        let rest = self.body.get(start..).unwrap_or_default();
        let rest = rest.get(..self.budget).unwrap_or(rest);
        self.budget -= rest.len();
        let end = match brackets(rest) {
            Brackets::Closed(length) => {
                self.budget += rest.len() - length;
                return start + length;
            }
            Brackets::Broken | Brackets::Open(..) => start + rest.len(),
        };
        // The next line that begins with a brace begins a document.
        let mut at = line_end;
        while at < end {
            if self.body.get(at + 1) == Some(&b'{') {
                return at;
            }
            at = self.line_end(at + 1);
        }
        self.in_array &= end < self.body.len();
        end
    }
}

/// Looks at brackets and strings from an opening bracket on.
fn brackets(bytes: &[u8]) -> Brackets {
    // One bit a level: whether it is an object.
    let mut objects = 0u128;
    let mut depth = 0u32;
    let mut last = 0;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => {
                if depth == 128 {
                    return Brackets::Broken;
                }
                objects = objects << 1 | u128::from(*byte == b'{');
                depth += 1;
            }
            b'}' | b']' => {
                if depth == 0 || (objects & 1 == 1) != (*byte == b'}') {
                    return Brackets::Broken;
                }
                objects >>= 1;
                depth -= 1;
                if depth == 0 {
                    return Brackets::Closed(at + 1);
                }
            }
            b'"' => {
                let mut rest = bytes.get(at + 1..).unwrap_or_default();
                loop {
                    match memchr::memchr3(b'"', b'\\', b'\n', rest) {
                        Some(found) if rest.get(found) == Some(&b'\\') => {
                            rest = rest.get(found + 2..).unwrap_or_default();
                        }
                        Some(found) if rest.get(found) == Some(&b'"') => {
                            rest = rest.get(found..).unwrap_or_default();
                            break;
                        }
                        _ => return Brackets::Broken,
                    }
                }
                at = bytes.len() - rest.len();
            }
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            last = *byte;
        }
        at += 1;
    }
    Brackets::Open(if objects & 1 == 1 { b'{' } else { b'[' }, last)
}

/// The length of an array element that is no object or array, up to the comma or bracket after it.
fn scalar_length(line: &[u8]) -> usize {
    let mut in_string = false;
    let mut escaped = false;
    for (at, byte) in line.iter().enumerate() {
        match byte {
            b'"' if !escaped => in_string = !in_string,
            // The first byte is part of the element, so that every step moves on.
            b',' | b']' | b'}' if !in_string && at > 0 => return at,
            _ => {}
        }
        escaped = *byte == b'\\' && !escaped;
    }
    line.len()
}

/// The entry for fuzzing: decodes any bytes as a body, twice into one frame and once more after a
/// rollback, and finishes the frame. Returns what became of the records.
///
/// # Panics
/// When the accounting does not add up: that is what a fuzzer looks for.
#[doc(hidden)]
#[expect(clippy::panic, reason = "a fuzzer finds broken laws by panics")]
pub fn fuzz_json(data: &[u8]) -> Outcome {
    let limits = DecodeLimits {
        max_record_bytes: 4_096,
        max_keys: 64,
        max_depth: 8,
        max_dynamic_columns: 16,
        max_frame_columns: 24,
        ..DecodeLimits::default()
    };
    let ctx = RequestContext {
        tenant: "fuzz",
        source: "fuzz",
        clock: 1_696_723_200_000_000,
        domain: None,
        gateway: GatewayIdentity { region: 0, gateway: 0, epoch: 1 },
        request: 1,
        key: None,
    };
    let mut builder = FrameBuilder::new(limits);
    let first = builder.push_json_body(&ctx, data);
    let mark = builder.mark();
    let second = builder.push_json_body(&ctx, data);
    let rows = builder.rows() as u64;
    if first.seen() != second.seen() || rows != first.accepted + second.accepted {
        panic!("the same body gave {first:?} and {second:?}, and {rows} rows");
    }
    builder.rollback(mark);
    let batch = builder.finish();
    if batch.map_or(0, |batch| batch.num_rows() as u64) != first.accepted {
        panic!("the frame does not have the {} rows that were accepted", first.accepted);
    }
    first
}
