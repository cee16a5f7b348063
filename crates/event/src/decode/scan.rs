//! The scanner: strict JSON (RFC 8259) over bytes, one token at a time, nothing built on the way.
//!
//! Strings are searched eight bytes at a time, long ones thirty-two. They are unescaped into a
//! scratch buffer, and only if they hold a backslash. A lone surrogate (`\ud800` without its other
//! half), which RFC 8259 permits but no UTF-8 text can hold, becomes U+FFFD and is counted: refusing
//! the record would let a sender hide it.
//!
//! The scanner does not check UTF-8; the caller does, once for the whole body.

use super::number::{Number, POWERS_OF_TEN};
use super::text::same;

/// Why a record was refused: where, and what was expected or exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Byte position in the scanned bytes.
    pub(super) at: usize,
    pub(super) why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Expected(&'static str),
    TooDeep,
    TooManyKeys,
    NotAnObject,
    InvalidUtf8,
    TooLarge,
    FrameFull,
    TooManyRecords,
}

pub(super) type Parsed<T> = Result<T, Refusal>;

/// Walks over the bytes of one record.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// How many more keys the record may have.
    pub(super) keys_left: u32,
    /// How deep objects and arrays may nest.
    pub(super) max_depth: u32,
    /// How many lone surrogates were replaced.
    pub(super) surrogates: u32,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The bytes that `\` and one more letter stand for; 0 where they stand for none.
#[expect(clippy::indexing_slicing, reason = "computed at compile time, where a panic is an error")]
const SIMPLE_ESCAPES: [u8; 128] = {
    let mut table = [0; 128];
    let escapes = *b"\"\"\\\\//b\x08f\x0cn\nr\rt\t";
    let (pairs, _) = escapes.as_chunks::<2>();
    let mut at = 0;
    while at < pairs.len() {
        let [code, byte] = pairs[at];
        table[code as usize] = byte;
        at += 1;
    }
    table
};

/// The bytes of a word that end a run within a string: `"`, `\` and control characters. The lowest
/// mark is exact; marks above it may be false, because subtraction borrows.
#[inline(always)]
fn marks(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let slash = word ^ (ONES * b'\\' as u64);
    let quotes = quote.wrapping_sub(ONES) & !quote;
    let slashes = slash.wrapping_sub(ONES) & !slash;
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    (quotes | slashes | controls) & HIGHS
}

/// How many bytes lie before the next `"`, `\` or control character, or the end.
#[inline(always)]
pub(super) fn run(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut length = 0;
    // Most strings end within the first words.
    for _ in 0..4 {
        let Some((word, tail)) = rest.split_first_chunk::<8>() else {
            return length + short_run(rest);
        };
        let found = marks(u64::from_le_bytes(*word));
        if found != 0 {
            return length + (found.trailing_zeros() >> 3) as usize;
        }
        rest = tail;
        length += 8;
    }
    length + long_run(rest)
}

fn short_run(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(bytes.len())
}

/// [`run`] for long strings, in blocks that the compiler turns into vector instructions.
fn long_run(bytes: &[u8]) -> usize {
    let (blocks, _) = bytes.as_chunks::<32>();
    let clean = blocks
        .iter()
        .position(|block| {
            block.iter().fold(false, |hit, b| hit | (*b == b'"') | (*b == b'\\') | (*b < 0x20))
        })
        .unwrap_or(blocks.len());
    let mut length = clean * 32;
    let mut rest = bytes.get(length..).unwrap_or_default();
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        let found = marks(u64::from_le_bytes(*word));
        if found != 0 {
            return length + (found.trailing_zeros() >> 3) as usize;
        }
        rest = tail;
        length += 8;
    }
    length + short_run(rest)
}

/// The number that eight ASCII digits mean, the first in the lowest byte.
#[inline(always)]
fn eight_digits(word: u64) -> Option<u64> {
    let digits = word ^ (ONES * b'0' as u64);
    if (digits.wrapping_add(ONES * (0x7f - 9)) | digits) & HIGHS != 0 {
        return None;
    }
    // Pairs of digits, then of pairs, then of fours.
    let pairs = (digits & 0x000f_000f_000f_000f) * 10 + (digits >> 8 & 0x000f_000f_000f_000f);
    let fours = (pairs & 0x0000_00ff_0000_00ff) * 100 + (pairs >> 16 & 0x0000_00ff_0000_00ff);
    Some((fours & 0xffff) * 10_000 + (fours >> 32))
}

impl<'a> Scan<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize, max_keys: u32, max_depth: u32) -> Self {
        Self { bytes, at, keys_left: max_keys, max_depth, surrogates: 0 }
    }

    #[inline(always)]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    #[inline(always)]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline(always)]
    pub(super) fn step(&mut self) {
        self.at += 1;
    }

    #[inline(always)]
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The bytes from a position up to here.
    #[inline(always)]
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// Skips white space and looks at what follows.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<u8> {
        match self.peek() {
            Some(byte) if byte > b' ' => Some(byte),
            _ => self.skip_space(),
        }
    }

    fn skip_space(&mut self) -> Option<u8> {
        loop {
            match self.peek()? {
                b' ' | b'\n' | b'\t' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    #[cold]
    pub(super) fn refuse<T>(&self, why: Why) -> Parsed<T> {
        Err(Refusal { at: self.at, why })
    }

    #[inline(always)]
    pub(super) fn expect(&mut self, byte: u8, name: &'static str) -> Parsed<()> {
        if self.next() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        self.refuse(Why::Expected(name))
    }

    /// Takes these bytes if they come next: a predicted key with its quotes and colon.
    #[inline(always)]
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        let hit = self.rest().get(..bytes.len()).is_some_and(|next| same(next, bytes));
        if hit {
            self.at += bytes.len();
        }
        hit
    }

    #[inline(always)]
    pub(super) fn count_key(&mut self) -> Parsed<()> {
        if self.keys_left == 0 {
            return self.refuse(Why::TooManyKeys);
        }
        self.keys_left -= 1;
        Ok(())
    }

    /// The string after its opening quote, if it needs no unescaping. Ends after the closing quote,
    /// or where it was.
    #[inline(always)]
    pub(super) fn plain_string(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest();
        let length = run(rest);
        if rest.get(length) != Some(&b'"') {
            return None;
        }
        self.at += length + 1;
        rest.get(..length)
    }

    /// The string after its opening quote; one with escapes stands in `scratch`. Ends after the
    /// closing quote.
    pub(super) fn string<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Parsed<&'s [u8]>
    where
        'a: 's,
    {
        if let Some(plain) = self.plain_string() {
            return Ok(plain);
        }
        self.unescape(scratch)?;
        Ok(scratch)
    }

    /// Unescapes the string after its opening quote into `scratch`.
    pub(super) fn unescape(&mut self, scratch: &mut Vec<u8>) -> Parsed<()> {
        scratch.clear();
        loop {
            // Runs between escapes are short: each word is copied while it is searched.
            let mut rest = self.rest();
            while let Some((word, tail)) = rest.split_first_chunk::<8>() {
                let found = marks(u64::from_le_bytes(*word));
                scratch.extend_from_slice(word);
                if found != 0 {
                    let length = (found.trailing_zeros() >> 3) as usize;
                    scratch.truncate(scratch.len() - 8 + length);
                    rest = rest.get(length..).unwrap_or_default();
                    break;
                }
                rest = tail;
            }
            if rest.len() < 8 {
                let (plain, tail) = rest.split_at_checked(short_run(rest)).unwrap_or_default();
                scratch.extend_from_slice(plain);
                rest = tail;
            }
            // Escapes often come in rows, as in "\r\n\t".
            while let [b'\\', code, tail @ ..] = rest {
                let byte = SIMPLE_ESCAPES.get(usize::from(*code)).copied().unwrap_or_default();
                if byte == 0 {
                    break;
                }
                scratch.push(byte);
                rest = tail;
            }
            self.at = self.bytes.len() - rest.len();
            match rest.first() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(scratch)?;
                }
                Some(0..0x20) | None => return self.unfinished_string(),
                Some(_) => {}
            }
        }
    }

    #[cold]
    fn unfinished_string<T>(&self) -> Parsed<T> {
        self.refuse(Why::Expected("a string's closing quote (control characters must be escaped)"))
    }

    /// The character of an escape, after its backslash.
    #[inline]
    fn escape(&mut self, out: &mut Vec<u8>) -> Parsed<()> {
        let byte = match self.peek() {
            Some(code) if SIMPLE_ESCAPES.get(usize::from(code)).is_some_and(|byte| *byte != 0) => {
                SIMPLE_ESCAPES.get(usize::from(code)).copied().unwrap_or_default()
            }
            Some(b'u') => {
                self.at += 1;
                let character = self.escaped_character()?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return self.refuse(Why::Expected("an escape of \" \\ / b f n r t u")),
        };
        self.at += 1;
        out.push(byte);
        Ok(())
    }

    /// The character of `\uXXXX`, after the `u`, with the second half of a surrogate pair.
    fn escaped_character(&mut self) -> Parsed<char> {
        let first = self.four_digits()?;
        if let Some(character) = char::from_u32(first) {
            return Ok(character);
        }
        if first < 0xdc00 && self.rest().starts_with(b"\\u") {
            let before = self.at;
            self.at += 2;
            let second = self.four_digits()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        self.surrogates += 1;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn four_digits(&mut self) -> Parsed<u32> {
        let Some(digits) = self.rest().first_chunk::<4>() else {
            return self.refuse(Why::Expected("four hexadecimal digits"));
        };
        let mut code = 0;
        for digit in digits {
            let Some(value) = char::from(*digit).to_digit(16) else {
                return self.refuse(Why::Expected("four hexadecimal digits"));
            };
            code = code << 4 | value;
        }
        self.at += 4;
        Ok(code)
    }

    /// A number; [`Scan::since`] its start gives its text.
    #[inline]
    pub(super) fn number(&mut self) -> Parsed<Number> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        if negative {
            self.at += 1;
        }
        let whole = self.at;
        let mut mantissa = 0u64;
        // Epoch times begin with eight digits and more.
        match self.rest().first_chunk::<8>().map(|word| eight_digits(u64::from_le_bytes(*word))) {
            Some(Some(eight)) => {
                mantissa = eight;
                self.at += 8;
                if matches!(self.peek(), Some(b'0'..=b'9')) {
                    self.digits(&mut mantissa)?;
                }
            }
            _ => self.digits(&mut mantissa)?,
        }
        if self.bytes.get(whole) == Some(&b'0') && self.at > whole + 1 {
            self.at = whole + 1;
            return self.refuse(Why::Expected("no digit after a leading zero"));
        }
        let mut digits = self.at - whole;
        if !matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            // 18 digits cannot overflow.
            if digits <= 18 && (mantissa != 0 || !negative) {
                let value = mantissa as i64;
                return Ok(Number::Int(if negative { -value } else { value }));
            }
            return Ok(Number::of_text(self.since(start)));
        }
        let mut exponent = 0i32;
        if self.peek() == Some(b'.') {
            self.at += 1;
            let from = self.at;
            self.digits(&mut mantissa)?;
            digits += self.at - from;
            exponent = -((self.at - from).min(1 << 20) as i32);
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits(&mut 0)?;
            return Ok(Number::of_text(self.since(start)));
        }
        // Up to 15 digits are exact in a double, and so is a power of ten up to 22: one division
        // rounds once, which gives the nearest double, which prints as the same digits.
        if digits <= 15
            && let Some(power) = POWERS_OF_TEN.get(exponent.unsigned_abs() as usize)
        {
            let value = mantissa as f64 / power;
            return Ok(Number::Float(if negative { -value } else { value }));
        }
        Ok(Number::of_text(self.since(start)))
    }

    /// One or more digits, added to a number that may wrap around.
    #[inline(always)]
    fn digits(&mut self, value: &mut u64) -> Parsed<()> {
        let start = self.at;
        while let Some(byte) = self.peek() {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            *value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
        if self.at == start {
            return self.refuse(Why::Expected("a digit"));
        }
        Ok(())
    }

    /// `true`, `false` or `null`.
    #[inline]
    pub(super) fn literal(&mut self) -> Parsed<Option<bool>> {
        for (word, value) in [(&b"true"[..], Some(true)), (b"false", Some(false)), (b"null", None)]
        {
            if self.take(word) {
                return Ok(value);
            }
        }
        self.refuse(Why::Expected("a value"))
    }

    /// Checks and skips any value, at a depth that counts its ancestors.
    pub(super) fn skip(&mut self, depth: u32) -> Parsed<()> {
        match self.next() {
            Some(b'"') => {
                self.at += 1;
                self.skip_string()
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(|_| ()),
            Some(b'[') => self.skip_array(depth + 1),
            Some(b'{') => self.skip_object(depth + 1),
            _ => self.literal().map(|_| ()),
        }
    }

    fn skip_string(&mut self) -> Parsed<()> {
        let mut ignored = Vec::new();
        loop {
            self.at += run(self.rest());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    ignored.clear();
                    self.escape(&mut ignored)?;
                }
                _ => return self.unfinished_string(),
            }
        }
    }

    fn skip_array(&mut self, depth: u32) -> Parsed<()> {
        self.descend(depth)?;
        if self.next() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.skip(depth)?;
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.refuse(Why::Expected("',' or ']' in an array")),
            }
        }
    }

    fn skip_object(&mut self, depth: u32) -> Parsed<()> {
        self.descend(depth)?;
        if self.next() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.expect(b'"', "a key in quotes")?;
            self.count_key()?;
            self.skip_string()?;
            self.expect(b':', "':' after a key")?;
            self.skip(depth)?;
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.refuse(Why::Expected("',' or '}' in an object")),
            }
        }
    }

    /// Enters an object or array of this depth, at its opening bracket.
    #[inline(always)]
    pub(super) fn descend(&mut self, depth: u32) -> Parsed<()> {
        if depth > self.max_depth {
            return self.refuse(Why::TooDeep);
        }
        self.at += 1;
        Ok(())
    }
}
