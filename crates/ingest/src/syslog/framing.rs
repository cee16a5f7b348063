//! Cutting a stream of syslog into messages (RFC 6587), each message by its own framing.
//!
//! A message that begins with `<digits> <` is octet-counted; any other ends at a newline. An octet
//! count is wrong when it is over the bound, or when what follows the counted bytes begins no
//! message. Then the bytes up to the next beginning of a message (`<digits> <n>`, or a newline behind
//! the counted bytes) become one dead letter, and reading goes on there.
//!
//! Accounting: every byte is in a message, in a dead letter (an overlong one keeps its first bytes),
//! or is framing (counts, newlines, NUL).

use crate::lines::KEPT_OF_OVERLONG;
use crate::submit::DeadLetter;
use bytes::{Buf, Bytes, BytesMut};

/// The most digits of an octet count.
const MAX_DIGITS: usize = 9;
/// The longest text that shows the beginning of a counted message: digits, space, `<`, three digits,
/// `>`.
const MAX_HEAD: usize = MAX_DIGITS + 6;

/// Messages and dead letters of a stretch of the stream.
#[derive(Debug, Default, PartialEq)]
pub struct Framed {
    /// Messages without their framing, none of them blank.
    pub messages: Vec<Bytes>,
    /// What was no message.
    pub dead: Vec<DeadLetter>,
}

/// Cuts a stream into messages of bounded length.
#[derive(Debug)]
pub struct Framer {
    max_message: usize,
    /// What was dropped so far of a stretch that began no message.
    lost: Option<Lost>,
}

#[derive(Debug)]
struct Lost {
    reason: String,
    kept: BytesMut,
    length: u64,
}

impl Lost {
    fn add(&mut self, bytes: &[u8]) {
        let room = KEPT_OF_OVERLONG.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
        self.length += bytes.len() as u64;
    }

    fn letter(self) -> DeadLetter {
        let Self { reason, kept, length } = self;
        let reason = if length > kept.len() as u64 {
            format!("{reason}; of {length} bytes the first {} are kept", kept.len())
        } else {
            reason
        };
        DeadLetter { reason, content_type: "line", raw: kept.freeze() }
    }
}

enum Step {
    /// Something was taken out of the buffer.
    Went,
    /// More bytes are needed.
    Wait,
}

impl Framer {
    /// Messages of at most this many bytes.
    #[must_use]
    pub fn new(max_message: usize) -> Self {
        Self { max_message: max_message.max(1), lost: None }
    }

    /// Takes what is complete out of the buffer; all of it at the `end` of the stream. Leaves at most
    /// the longest message and its count in the buffer.
    pub fn cut(&mut self, buffer: &mut BytesMut, end: bool) -> Framed {
        let mut framed = Framed::default();
        while !buffer.is_empty() {
            let step = if self.lost.is_some() {
                self.resynchronise(buffer, end, &mut framed)
            } else {
                self.step(buffer, end, &mut framed)
            };
            if matches!(step, Step::Wait) {
                break;
            }
        }
        if end && let Some(lost) = self.lost.take() {
            framed.dead.push(lost.letter());
        }
        framed
    }

    fn step(&mut self, buffer: &mut BytesMut, end: bool, framed: &mut Framed) -> Step {
        let blank = buffer.iter().take_while(|byte| matches!(byte, b'\n' | b'\r' | 0)).count();
        if blank > 0 {
            buffer.advance(blank);
            return Step::Went;
        }
        match count(buffer) {
            Count::Unclear if !end => Step::Wait,
            Count::Counted { head, length } => self.counted(head, length, buffer, end, framed),
            Count::None | Count::Unclear => self.line(buffer, end, framed),
        }
    }

    fn counted(
        &mut self,
        head: usize,
        length: usize,
        buffer: &mut BytesMut,
        end: bool,
        framed: &mut Framed,
    ) -> Step {
        if length > self.max_message {
            let reason = format!("octet count {length} is over the limit of {}", self.max_message);
            return self.lose(reason, head, buffer);
        }
        let total = head + length;
        if buffer.len() < total {
            if !end {
                return Step::Wait;
            }
            let reason = format!("octet count {length}, but the stream ended earlier");
            return self.lose(reason, head, buffer);
        }
        if !may_begin(buffer.get(total..).unwrap_or_default()) {
            return self.lose(format!("octet count {length} is wrong"), head, buffer);
        }
        buffer.advance(head);
        push(buffer.split_to(length).freeze(), framed);
        Step::Went
    }

    /// Begins a dead letter with the count; what follows is looked through for the next message.
    fn lose(&mut self, reason: String, head: usize, buffer: &mut BytesMut) -> Step {
        let mut lost = Lost { reason, kept: BytesMut::new(), length: 0 };
        // The `<` behind the count belongs to the lost message, so it is not found again.
        lost.add(&buffer.split_to((head + 1).min(buffer.len())));
        self.lost = Some(lost);
        Step::Went
    }

    fn resynchronise(&mut self, buffer: &mut BytesMut, end: bool, framed: &mut Framed) -> Step {
        let (lost_upto, found) = match beginning(buffer) {
            Some(at) => (at, true),
            // The last bytes may be the first half of a beginning.
            None if !end => (buffer.len().saturating_sub(MAX_HEAD), false),
            None => (buffer.len(), true),
        };
        let bytes = buffer.split_to(lost_upto);
        if let Some(lost) = &mut self.lost {
            lost.add(&bytes);
        }
        if found && let Some(lost) = self.lost.take() {
            framed.dead.push(lost.letter());
        }
        if found { Step::Went } else { Step::Wait }
    }

    fn line(&mut self, buffer: &mut BytesMut, end: bool, framed: &mut Framed) -> Step {
        // One byte more than the bound is looked at, so a newline right behind a longest line counts.
        let window = buffer.get(..buffer.len().min(self.max_message + 1)).unwrap_or_default();
        if let Some(at) = memchr::memchr(b'\n', window) {
            push(buffer.split_to(at).freeze(), framed);
            buffer.advance(1);
            return Step::Went;
        }
        if buffer.len() > self.max_message {
            let mut lost = Lost {
                reason: format!(
                    "message without an end is over the limit of {} bytes",
                    self.max_message
                ),
                kept: BytesMut::new(),
                length: 0,
            };
            lost.add(&buffer.split_to(self.max_message));
            self.lost = Some(lost);
            return Step::Went;
        }
        if end {
            push(buffer.split().freeze(), framed);
            return Step::Went;
        }
        Step::Wait
    }
}

fn push(message: Bytes, framed: &mut Framed) {
    let kept = message.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0));
    let message = message.slice(..kept.map_or(0, |at| at + 1));
    if !message.iter().all(u8::is_ascii_whitespace) {
        framed.messages.push(message);
    }
}

enum Count {
    /// An octet count: the length of digits and space, and the count.
    Counted { head: usize, length: usize },
    /// No octet count.
    None,
    /// The bytes so far may begin one.
    Unclear,
}

/// Reads `digits SP <` at the beginning.
fn count(bytes: &[u8]) -> Count {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > MAX_DIGITS || bytes.first() == Some(&b'0') {
        return Count::None;
    }
    match (bytes.get(digits), bytes.get(digits + 1)) {
        (None, _) | (Some(b' '), None) => Count::Unclear,
        (Some(b' '), Some(b'<')) => {
            let number = bytes.get(..digits).and_then(|text| std::str::from_utf8(text).ok());
            match number.and_then(|text| text.parse().ok()) {
                Some(length) => Count::Counted { head: digits + 1, length },
                None => Count::None,
            }
        }
        _ => Count::None,
    }
}

/// Whether a message may begin with these bytes: a priority, a count, or the newline that some
/// senders put behind counted messages.
fn may_begin(bytes: &[u8]) -> bool {
    match bytes {
        [] | [b'\n' | b'\r' | 0, ..] | [b'<'] => true,
        [b'<', digit, ..] => digit.is_ascii_digit(),
        _ => !matches!(count(bytes), Count::None),
    }
}

/// Where the next message begins: at `digits SP <n>`, or behind a newline.
fn beginning(bytes: &[u8]) -> Option<usize> {
    let newline = memchr::memchr(b'\n', bytes).map(|at| at + 1);
    let before = bytes.get(..newline.unwrap_or(bytes.len())).unwrap_or_default();
    let counted = memchr::memchr_iter(b'<', before).find_map(|at| {
        let rest = before.get(at + 1..)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=3).contains(&digits) || rest.get(digits) != Some(&b'>') {
            return None;
        }
        let space = at.checked_sub(1).filter(|space| before.get(*space) == Some(&b' '))?;
        let count = before.get(..space)?;
        let digits = count.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let start = space - digits.min(MAX_DIGITS);
        (digits > 0 && before.get(start) != Some(&b'0')).then_some(start)
    });
    counted.or(newline)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(text: &str, max: usize) -> (Vec<String>, Vec<(String, String)>) {
        let mut buffer = BytesMut::from(text.as_bytes());
        let framed = Framer::new(max).cut(&mut buffer, true);
        assert!(buffer.is_empty());
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        (
            framed.messages.iter().map(text).collect(),
            framed.dead.iter().map(|letter| (letter.reason.clone(), text(&letter.raw))).collect(),
        )
    }

    #[test]
    fn both_framings_may_be_mixed() {
        let (messages, dead) =
            cut("7 <1>one\n6 <1>two<1>three\r\n<1>four\n9 <1>a\nb\nc \n2026 is no count\n", 100);
        assert_eq!(
            messages,
            ["<1>one", "<1>two", "<1>three", "<1>four", "<1>a\nb\nc ", "2026 is no count"]
        );
        assert!(dead.is_empty(), "{dead:?}");
    }

    #[test]
    fn wrong_counts_die_and_the_next_message_lives() {
        // Too short, too long, far too long, and cut off by the end.
        let (messages, dead) = cut("4 <1>one6 <1>two", 100);
        assert_eq!(messages, ["<1>two"]);
        assert_eq!(dead, [("octet count 4 is wrong".into(), "4 <1>one".into())]);
        let (messages, dead) = cut("9 <1>one6 <1>two6 <1>thr", 100);
        assert_eq!(messages, ["<1>two", "<1>thr"]);
        assert_eq!(dead[0].1, "9 <1>one");
        let (messages, dead) = cut("99999 <1>one\n6 <1>two", 100);
        assert_eq!(messages, ["<1>two"]);
        assert_eq!(
            dead[0],
            ("octet count 99999 is over the limit of 100".into(), "99999 <1>one\n".into())
        );
        let (messages, dead) = cut("50 <1>one", 100);
        assert!(messages.is_empty());
        assert_eq!(dead[0].1, "50 <1>one");
    }

    #[test]
    fn endless_messages_die() {
        let long = "x".repeat(20_000);
        let (messages, dead) = cut(&format!("<1>{long}\n<1>next\n"), 1000);
        assert_eq!(messages, ["<1>next"]);
        assert!(dead[0].0.contains("of 20004 bytes the first 8192 are kept"), "{}", dead[0].0);
    }

    proptest! {
        /// However the bytes arrive, the buffer stays bounded and every byte is accounted for:
        /// messages and dead letters together hold all that is not framing.
        #[test]
        fn every_byte_is_accounted_for(
            parts in proptest::collection::vec(prop_oneof![
                (0..300u32).prop_map(|count| format!("{count} ")),
                (0..200u32).prop_map(|priority| format!("<{priority}>")),
                (1..20usize).prop_map(|length| "ab c".chars().cycle().take(length).collect()),
                Just("\n".to_owned()),
                Just("6 <1>abc".to_owned()),
                Just("<1>x\n".to_owned()),
            ], 0..40),
            cuts in proptest::collection::vec(1..30usize, 1..20),
        ) {
            let text = parts.concat();
            let mut framer = Framer::new(40);
            let mut buffer = BytesMut::new();
            let mut held = 0;
            let mut rest = text.as_bytes();
            let mut framing = 0;
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                buffer.extend_from_slice(now);
                rest = later;
                let framed = framer.cut(&mut buffer, rest.is_empty());
                held += framed.messages.iter().map(Bytes::len).sum::<usize>();
                held += framed.dead.iter().map(|letter| letter.raw.len()).sum::<usize>();
                framing += framed.messages.len() * (MAX_DIGITS + 1);
                prop_assert!(buffer.len() <= 40 + MAX_HEAD, "{}", buffer.len());
                if rest.is_empty() { break; }
            }
            let letters = text.bytes().filter(|byte| byte.is_ascii_alphabetic()).count();
            prop_assert!(held <= text.len());
            prop_assert!(held >= letters, "{held} of {letters} letters");
            prop_assert!(text.trim().len() <= held + framing + text.matches(['\n', ' ']).count());
        }

        #[test]
        fn any_bytes_are_cut(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = BytesMut::from(bytes.as_slice());
            let framed = Framer::new(64).cut(&mut buffer, true);
            prop_assert!(buffer.is_empty());
            prop_assert!(framed.messages.iter().all(|message| message.len() <= 64 && !message.is_empty()));
        }
    }
}
