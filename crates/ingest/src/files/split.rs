//! Cutting a stream of JSON values into pieces at the ends of values.
//!
//! A piece holds whole top-level values. When one array is longer than a piece, it is cut between
//! its elements: the piece is closed with `]` and the rest opened with `[`, so both are arrays. A
//! value that makes the buffer pass the bound is dropped, counted and named. This bounds memory: a value
//! that begins and ends within one block of reading passes, and the gateway's own bound on records
//! decides about it. Broken JSON is passed on as it is: the decoder refuses it with a reason.

use bytes::{Bytes, BytesMut};

/// Where the scanner stands in the buffer.
#[derive(Debug, Default, Clone)]
struct Scan {
    /// Bytes of the buffer that were looked at.
    at: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The outermost value is an array.
    in_array: bool,
    /// Behind the last complete top-level value.
    value_end: usize,
    /// Behind the last complete element of the array at the end of the buffer.
    element_end: usize,
}

/// What was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Whole values.
    Values(Bytes),
    /// A value of so many bytes that is over the bound and was dropped.
    Dropped(u64),
}

/// Cuts a stream of JSON.
#[derive(Debug)]
pub struct Splitter {
    buffer: BytesMut,
    scan: Scan,
    max_value: usize,
    /// How many bytes of the present value were dropped, and the depth that ends the dropping.
    dropping: Option<(u64, usize)>,
    /// The array at the beginning of the buffer was opened here, so a comma may come first.
    reopened: bool,
}

impl Splitter {
    /// Values of at most about this many bytes; a longer one is dropped.
    #[must_use]
    pub fn new(max_value: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scan: Scan::default(),
            max_value,
            dropping: None,
            reopened: false,
        }
    }

    /// Adds bytes; gives pieces once at least `piece` bytes are there, and the rest at the `end`.
    pub fn feed(&mut self, bytes: &[u8], piece: usize, end: bool) -> Vec<Piece> {
        let mut pieces = Vec::new();
        self.buffer.extend_from_slice(bytes);
        self.scan(&mut pieces);
        if self.dropping.is_none() && (self.buffer.len() >= piece || end) {
            self.cut(end, &mut pieces);
        }
        if end {
            if let Some((dropped, _)) = self.dropping.take() {
                pieces.push(Piece::Dropped(dropped + self.buffer.len() as u64));
            }
            self.buffer.clear();
            self.scan = Scan::default();
        }
        pieces
    }

    fn scan(&mut self, pieces: &mut Vec<Piece>) {
        while let Some(byte) = self.buffer.get(self.scan.at).copied() {
            if self.scan.in_string {
                self.string(byte);
                continue;
            }
            if self.reopened && !byte.is_ascii_whitespace() {
                self.reopened = false;
                if let Some(comma) = self.buffer.get_mut(self.scan.at).filter(|it| **it == b',') {
                    *comma = b' ';
                }
            }
            self.scan.at += 1;
            match byte {
                b'"' => self.scan.in_string = true,
                b'{' | b'[' => {
                    if self.scan.depth == 0 {
                        self.scan.in_array = byte == b'[';
                        self.scan.element_end = 0;
                    }
                    self.scan.depth += 1;
                }
                b'}' | b']' => {
                    self.scan.depth = self.scan.depth.saturating_sub(1);
                    if self.scan.depth == 0 {
                        self.scan.value_end = self.scan.at;
                        self.scan.in_array = false;
                    } else if self.scan.depth == 1 && self.scan.in_array {
                        self.scan.element_end = self.scan.at;
                    }
                    self.undrop(pieces);
                }
                _ => {}
            }
        }
        if let Some((dropped, _)) = &mut self.dropping {
            *dropped += self.buffer.len() as u64;
            self.buffer.clear();
            self.rebase(0);
            self.scan.at = 0;
        }
    }

    fn string(&mut self, byte: u8) {
        if self.scan.escaped {
            self.scan.escaped = false;
            self.scan.at += 1;
        } else if byte == b'\\' {
            self.scan.escaped = true;
            self.scan.at += 1;
        } else if byte == b'"' {
            self.scan.in_string = false;
            self.scan.at += 1;
        } else {
            let rest = self.buffer.get(self.scan.at..).unwrap_or_default();
            self.scan.at += memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        }
    }

    /// Ends the dropping when the dropped value has ended.
    fn undrop(&mut self, pieces: &mut Vec<Piece>) {
        let Some((dropped, depth)) = self.dropping else { return };
        if self.scan.depth > depth {
            return;
        }
        pieces.push(Piece::Dropped(dropped + self.scan.at as u64));
        self.dropping = None;
        let at = self.scan.at;
        let rest = self.buffer.split_off(at);
        if self.scan.depth == 1 && self.scan.in_array {
            self.reopen(&rest);
        } else {
            self.buffer = rest;
            self.scan =
                Scan { depth: self.scan.depth, in_array: self.scan.in_array, ..Scan::default() };
        }
    }

    /// Makes the rest of an array an array: `,{…}]` becomes `[ {…}]`.
    fn reopen(&mut self, rest: &[u8]) {
        let mut array = BytesMut::with_capacity(rest.len() + 1);
        array.extend_from_slice(b"[");
        array.extend_from_slice(rest);
        self.buffer = array;
        self.scan = Scan { at: 1, depth: 1, in_array: true, ..Scan::default() };
        self.reopened = true;
    }

    fn rebase(&mut self, by: usize) {
        self.scan.value_end = self.scan.value_end.saturating_sub(by);
        self.scan.element_end = self.scan.element_end.saturating_sub(by);
        self.scan.at = self.scan.at.saturating_sub(by);
    }

    fn cut(&mut self, end: bool, pieces: &mut Vec<Piece>) {
        let push = |pieces: &mut Vec<Piece>, bytes: Bytes| {
            if !bytes.trim_ascii().is_empty() {
                pieces.push(Piece::Values(bytes));
            }
        };
        if end {
            push(pieces, self.buffer.split().freeze());
            return;
        }
        if self.scan.value_end > 0 {
            let at = self.scan.value_end;
            push(pieces, self.buffer.split_to(at).freeze());
            self.rebase(at);
        } else if self.scan.in_array && self.scan.element_end > 0 {
            let at = self.scan.element_end;
            let rest = self.buffer.split_off(at);
            let mut array = self.buffer.split();
            array.extend_from_slice(b"]");
            push(pieces, array.freeze());
            self.reopen(&rest);
            self.scan(pieces);
        }
        if self.buffer.len() > self.max_value && self.dropping.is_none() {
            let depth = usize::from(self.scan.in_array && self.scan.depth > 0);
            if self.scan.depth <= depth && !self.scan.in_string {
                // No value at all, only what stands between values: the decoder names it.
                push(pieces, self.buffer.split().freeze());
                self.scan = Scan {
                    depth: self.scan.depth,
                    in_array: self.scan.in_array,
                    ..Scan::default()
                };
                return;
            }
            self.dropping = Some((self.buffer.len() as u64, depth));
            self.buffer.clear();
            self.scan.at = 0;
            self.scan.value_end = 0;
            self.scan.element_end = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// All records of the pieces, arrays opened.
    fn records(pieces: &[Piece]) -> (Vec<Value>, usize) {
        let (mut records, mut dropped) = (Vec::new(), 0);
        for piece in pieces {
            match piece {
                Piece::Dropped(_) => dropped += 1,
                Piece::Values(bytes) => {
                    for value in serde_json::Deserializer::from_slice(bytes).into_iter::<Value>() {
                        match value.unwrap_or_else(|error| panic!("{error}: {bytes:?}")) {
                            Value::Array(items) => records.extend(items),
                            value => records.push(value),
                        }
                    }
                }
            }
        }
        (records, dropped)
    }

    fn split(text: &str, step: usize, piece: usize, max: usize) -> Vec<Piece> {
        let mut splitter = Splitter::new(max);
        let mut pieces = Vec::new();
        for part in text.as_bytes().chunks(step) {
            pieces.extend(splitter.feed(part, piece, false));
            assert!(splitter.buffer.len() <= max.max(piece) + step + 1);
        }
        pieces.extend(splitter.feed(b"", piece, true));
        pieces
    }

    #[test]
    fn a_long_array_becomes_several() {
        let text = "[ {\"a\":\"],[\"} , {\"a\":2},\n{\"a\":[3,[4]]} ,{\"b\":\"\\\"\"}]";
        let pieces = split(text, 1, 10, 1000);
        assert!(pieces.len() >= 3, "{pieces:?}");
        let (found, dropped) = records(&pieces);
        assert_eq!((found.len(), dropped), (4, 0));
        assert_eq!(found[0]["a"], "],[");
    }

    #[test]
    fn values_over_the_bound_are_dropped_and_the_next_live() {
        let long = "x".repeat(500);
        let text = format!(
            "{{\"a\":1}} {{\"big\":\"{long}\"}} {{\"a\":2}} [{{\"a\":3}},{{\"big\":[\"{long}\"]}}, {{\"a\":4}}]{{\"a\":5}}"
        );
        for step in [1, 7, 64] {
            let (found, dropped) = records(&split(&text, step, 20, 100));
            let numbers: Vec<_> = found.iter().map(|value| value["a"].as_i64().unwrap()).collect();
            assert_eq!((numbers, dropped), (vec![1, 2, 3, 4, 5], 2), "step {step}");
        }
        // Never closed: dropped whole, memory flat.
        let pieces = split(&format!("{{\"a\":\"{long}"), 50, 20, 100);
        assert_eq!(pieces, [Piece::Dropped(506)]);
    }

    proptest! {
        /// However the bytes come and wherever pieces end, the same records come out.
        #[test]
        fn pieces_lose_nothing(
            groups in proptest::collection::vec((any::<bool>(), proptest::collection::vec(0..8usize, 1..6)), 1..8),
            step in 1..50usize,
            piece in 1..80usize,
        ) {
            let values = [
                "{}", "{\"a\":1}", "{ \"b\" : [ 1 , {\"c\":\"}\"} ] }", "{\"q\":\"\\\\\\\"[{\"}", "{\"a\":\"a,b\"}", "{\"é\":\"ü\"}", "{\n}", "{\"n\":{\"n\":{}}}",
            ];
            let mut text = String::new();
            let mut want = Vec::new();
            for (array, group) in &groups {
                let list: Vec<&str> = group.iter().map(|at| values[*at]).collect();
                want.extend(list.iter().map(|value| serde_json::from_str::<Value>(value).unwrap()));
                if *array {
                    text += &format!("[{}]\n", list.join(" ,\n"));
                } else {
                    text += &list.join("\n");
                }
            }
            let (found, dropped) = records(&split(&text, step, piece, 10_000));
            prop_assert_eq!(found, want);
            prop_assert_eq!(dropped, 0);
        }

        /// Any bytes: no panic, and every byte is in a piece or counted as dropped.
        #[test]
        fn any_bytes_are_split(
            parts in proptest::collection::vec(proptest::sample::select(vec!["{", "}", "[", "]", "\"", "\\", ",", "a", " ", "\n", "é"]), 0..200),
            step in 1..20usize,
        ) {
            let text = parts.concat();
            let mut held = 0;
            for piece in split(&text, step, 10, 40) {
                held += match piece {
                    Piece::Values(bytes) => bytes.len(),
                    Piece::Dropped(count) => usize::try_from(count).unwrap(),
                };
            }
            let blank = text.bytes().filter(u8::is_ascii_whitespace).count();
            prop_assert!(held + blank >= text.len(), "{held} of {}", text.len());
        }
    }
}
