//! The gate: a pass over the raw bytes that lets nearly all harmless texts go at once.
//!
//! Two tests run side by side over every position, without branches:
//!
//! - **Marks.** Bytes fall into 64 classes; a table of 64 × 64 words says which class after two
//!   others is a mark of an attack: `../`, `';`, `<s`, `` `/ ``, `$(`, a NUL, and so on.
//! - **Words.** Of each trigger of the rules that has five characters or more, the rarest five are
//!   taken, as two groups of four. At every second position the four bytes there are looked up in a
//!   Bloom filter of 2¹⁷ bits with two bits a group in one word, so one of both groups is seen
//!   wherever the word stands.
//!
//! A text in which neither is found is not looked at further. Triggers shorter than five characters
//! are covered by marks.

/// How many classes of bytes there are.
const CLASSES: usize = 64;
/// The class of the place before the first and after the last byte.
const EDGE: u8 = 63;
/// The class of bytes above 127.
const HIGH: u8 = 62;
/// The class of control bytes other than white space and NUL.
const CONTROL: u8 = 61;
/// The class of lead bytes of full-width and overlong forms.
const FORGED: u8 = 60;
/// The class of NUL.
const NUL: u8 = 59;
/// The class of digits.
const DIGIT: u8 = 26;
/// The class of space, tab and `+`.
const SPACE: u8 = 27;
/// The class of line ends.
const LINE: u8 = 28;
/// The first class of punctuation.
const PUNCTUATION: u8 = 29;

/// Words of the Bloom filter.
const WORDS: usize = 2_048;

/// Words that stand in ordinary text and that are no sign without a mark: they do not open the gate.
const ORDINARY: &[&str] = &[
    "location:", "content-type:", "content-length:", "transfer-encoding:", "http/1", "http/2",
    "http/3", "x-forwarded", "refresh:", "session", "sessid", "token=", "limit", "where", "having",
    "update", "delete", "create", "' where", "\" where", ") where ", "style=", "prompt", "confirm",
    "<title", "<input", "curl/", "java/", "is null", "char(", "chr(", "quit", "host:",
    "okhttp", "httpclient", "scanner", "rlike", "case ", "fetch ", "@import", "http/", "alert",
];

/// The tables of the gate.
#[derive(Clone)]
pub(crate) struct Gate {
    class: Box<[u8; 256]>,
    /// For two classes in a row, the set of third classes that make a mark.
    third: Box<[u64; CLASSES * CLASSES]>,
    words: Box<[u64; WORDS]>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate for these triggers.
    pub(crate) fn new<'a>(triggers: impl Iterator<Item = &'a str>) -> Self {
        let class = Box::new(std::array::from_fn(|b| class_of(b as u8)));
        let mut gate =
            Self { class, third: Box::new([0; CLASSES * CLASSES]), words: Box::new([0; WORDS]) };
        for (first, second, third) in MARKS {
            gate.mark(&set(first), &set(second), &set(third));
        }
        let any: Vec<u8> = (0..CLASSES as u8).collect();
        for odd in [NUL, FORGED] {
            gate.mark(&any, &any, &[odd]);
        }
        // The same letter three times, but for `www` and the letters that mask (`xxx`, `zzz`).
        for letter in b"abcdefghijklmnopqrstuvy".iter().map(|b| class_of(*b)) {
            gate.mark(&[letter], &[letter], &[letter]);
        }
        for trigger in triggers.filter(|t| !ORDINARY.contains(t)) {
            gate.word(trigger.as_bytes());
        }
        gate
    }

    fn mark(&mut self, first: &[u8], second: &[u8], third: &[u8]) {
        let bits = third.iter().fold(0u64, |bits, class| bits | 1 << class);
        for a in first {
            for b in second {
                if let Some(word) = self.third.get_mut(pair(*a, *b)) {
                    *word |= bits;
                }
            }
        }
    }

    /// Enters the rarest five characters of a word, if it has five in a row without white space.
    fn word(&mut self, word: &[u8]) {
        let best = word
            .windows(5)
            .filter(|five| !five.iter().any(|b| matches!(b, b' ' | b'\n' | b'+' | 0)))
            .min_by_key(|five| five.iter().map(|b| commonness(*b)).sum::<u32>());
        let Some(five) = best else { return };
        for group in five.windows(4) {
            let Some(group) = group.first_chunk::<4>() else { continue };
            let (index, bits) = slot(u32::from_le_bytes(*group));
            if let Some(word) = self.words.get_mut(index) {
                *word |= bits;
            }
        }
    }

    /// Whether a text has to be looked at.
    #[expect(clippy::indexing_slicing, reason = "tables have the size of their index's range")]
    pub(crate) fn opens(&self, text: &[u8]) -> bool {
        let (mut first, mut second) = (EDGE, EDGE);
        // Looked at in pieces, so that a long text is left at its first mark.
        for piece in text.chunks(256) {
            let mut found = 0u64;
            for &byte in piece {
                let class = self.class[usize::from(byte)];
                found |= self.third[pair(first, second)] >> class;
                (first, second) = (second, class);
            }
            if found & 1 != 0 {
                return true;
            }
        }
        if self.third[pair(first, second)] >> EDGE & 1 != 0 {
            return true;
        }
        let mut found = false;
        for piece in text.windows(4).step_by(2) {
            if let Some(group) = piece.first_chunk::<4>() {
                let (index, bits) = slot(u32::from_le_bytes(*group));
                found |= self.words[index] & bits == bits;
            }
        }
        found
    }
}

/// The index of a pair of classes.
fn pair(first: u8, second: u8) -> usize {
    (usize::from(first & 63) << 6) | usize::from(second & 63)
}

/// The word of the Bloom filter for four bytes, letters in any case, and its two bits.
fn slot(four: u32) -> (usize, u64) {
    let hash = u64::from(four | 0x2020_2020).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let index = (hash >> 53) as usize & (WORDS - 1);
    (index, 1 << (hash >> 47 & 63) | 1 << (hash >> 41 & 63))
}

fn class_of(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => byte - b'a',
        b'A'..=b'Z' => byte - b'A',
        b'0'..=b'9' => DIGIT,
        b' ' | b'\t' | b'+' => SPACE,
        b'\n' | b'\r' => LINE,
        0 => NUL,
        0xc0 | 0xc1 | 0xef => FORGED,
        0x80.. => HIGH,
        _ => match PUNCTUATION_BYTES.iter().position(|p| *p == byte) {
            Some(at) => PUNCTUATION + at as u8,
            None => CONTROL,
        },
    }
}

/// The bytes with a class of their own; `+` is white space.
const PUNCTUATION_BYTES: &[u8] = b"!\"#$%&'()*,-./:;<=>@[\\]^`{|}~?";

/// How common a byte is in ordinary texts, roughly, to choose the rare part of a word.
fn commonness(byte: u8) -> u32 {
    match byte {
        b'e' => 12,
        b't' | b'a' | b'o' | b'i' | b'n' => 9,
        b's' | b'r' | b'h' => 8,
        b'l' | b'd' | b'c' | b'u' | b'm' => 5,
        b'.' | b'/' | b'-' | b':' | b'0'..=b'9' => 4,
        b'f' | b'p' | b'g' | b'w' | b'y' | b'b' => 3,
        _ => 1,
    }
}

/// A set of classes, written as its bytes; `\u{1}` stands for letters, `\u{2}` for the edges.
fn set(bytes: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in bytes.bytes() {
        match byte {
            1 => out.extend(0..26),
            2 => out.push(EDGE),
            3 => out.extend(0..CLASSES as u8),
            _ => out.push(class_of(byte)),
        }
    }
    out
}

/// Three sets of bytes in a row that make a mark. `0` stands for all digits.
const MARKS: &[(&str, &str, &str)] = &[
    // Quotes that end a value.
    ("\u{3}", "'\"`", "#;|"),
    ("\u{3}", "'`", ")-(=/"),
    ("\u{1}0%)'", "\"", ")"),
    ("\u{3}", "'", " \u{2}"),
    ("0)%\u{2}= ", "\"", " \u{2}"),
    ("'\"", " ", "oaxlhuinr|&=#-;"),
    ("'\"`", "\u{1}", "rn"),
    ("\u{2}=", "'\"", "\u{3}"),
    // Brackets that end a value, conditions over constants, comments.
    ("\u{1}0'\"", ")", ")\u{2}a;|-#\u{1}"),
    ("%'\"", ")", " "),
    ("0", " ", "ox"),
    ("0", "=<>", "0(-'\""),
    ("'\"0 )", "-", "-"),
    ("-", "-", " \u{2}#"),
    ("0'\") ", "#", "\u{2}"),
    ("/", "*", "*!\u{1}"),
    ("\u{1}0(", "/", "*"),
    ("*", "/", "\u{1}0"),
    // Markup.
    ("\u{3}", "<", "\u{1}/!?%< ;"),
    ("&", "#", "0x"),
    ("l g", "t", ";"),
    ("\"'", ">", "<\"'"),
    ("-", "-", ">"),
    ("&", "{", "\u{3}"),
    // Separators of commands, substitutions, redirections.
    ("\u{3}", "|", "\u{1}/ |`$(-;"),
    ("\u{1}0) \u{2}", "|", "\u{2}"),
    ("\u{3}", ";", "|`$('\"/\\{"),
    ("\u{2}\u{1}0)='\"", ";", "\u{1}"),
    (";", " ", "/$`|\\'\"("),
    (" ", "l", "s"),
    ("i", "d", "\u{2};|&`"),
    ("\u{2} ", "&", " &"),
    ("&", "&", "\u{3}"),
    ("&", " ", "\u{1}"),
    ("\u{3}", "`", "\u{1}/$ ("),
    ("\u{3}", "$", "({_@*['\""),
    ("$", "iI", "fF"),
    ("<>", "(&<", "\u{3}"),
    ("\u{1}", "(", ")"),
    ("(", ")", "{; "),
    ("/", "?*", "\u{1}?*"),
    ("\u{1}", "?*", "\u{1}?*/"),
    ("{", ",", "\u{3}"),
    ("\u{2}", "/", "bu"),
    // Paths.
    ("\u{3}", ".", "\\"),
    (".", ".", "/\\;%"),
    ("/\\", ".", "./\\\u{1}"),
    ("\u{2}/", "/", "/."),
    ("0", "x", "0c"),
    // Escapes and templates.
    ("\\", "ux", "0cdef{"),
    ("{", "{%", "\u{3}"),
    ("#%*@$", "{", "\u{3}"),
    ("<", "%", "\u{3}"),
    ("@", "{", "\u{3}"),
    ("_", "_", "\u{1}"),
    // Calls with odd arguments, filters, operators of document stores.
    ("\u{1}", "(", "'\"`$/~@("),
    ("*)", "(", "\u{1}|&("),
    ("(", "|&", "("),
    ("*", ")", "("),
    ("[\"'", "$", "\u{1}"),
    ("]", "[", "(!]"),
    ("]", " ", "["),
    ("!", "[", "]"),
    // Backup files and scripts at the end of a path.
    (".", "b", "a"),
    (".", "s", "qw"),
    (".", "o", "lr"),
    (".", "k", "ed"),
    (".", "d", "b"),
    (".", "r", "d"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_texts_stay_out_and_marks_and_words_open() {
        let gate = Gate::new(["union", "information_schema", "sqlmap", "onerror"].into_iter());
        for harmless in [
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
            "https://shop.example.com/products/shoes?size=42&color=blue&page=3",
            "GET /index.html HTTP/1.1",
            "user logged in from the office",
            "device-7f3a9c21",
        ] {
            assert!(!gate.opens(harmless.as_bytes()), "{harmless}");
        }
        for offset in 0..4 {
            for word in ["UNION", "Information_Schema", "sqlmap", "onerror"] {
                let text = format!("{}{word} and more", &"zzzz"[..offset]);
                assert!(gate.opens(text.as_bytes()), "{text}");
            }
        }
        for mark in ["../x", "x'; y", "<svg", "a`/bin", "$(x)", "a\0b", "1=1", "admin'--"] {
            assert!(gate.opens(mark.as_bytes()), "{mark}");
        }
    }
}
