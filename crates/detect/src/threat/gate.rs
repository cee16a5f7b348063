//! The gate: a pass over the raw bytes that lets nearly all harmless texts go at once.
//!
//! Bytes fall into 64 classes. A table of 64 × 64 words says which class after two others is worth a
//! look, so the pass is three loads a byte and has no branches. Worth a look are
//!
//! - **marks**, which open the gate: `../`, `';`, `<s`, `` `/ ``, `$(`, a NUL, and so on;
//! - the beginnings of **words**: of each trigger of the rules that has five characters or more, the
//!   five that are rarest in ordinary text. They open the gate when all five are there, which a
//!   small Bloom filter tells.
//!
//! A text in which neither is found is not looked at further. Triggers shorter than five characters
//! are covered by marks. Lines of logs are full of quotes and brackets that mean nothing there, so
//! for requests there are more marks than for lines.

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

/// How many positions are looked at together.
const PIECE: usize = 16;
/// Words of the Bloom filter.
const WORDS: usize = 2_048;

/// Words of ordinary logs and requests. Five characters that stand in one of them never open the
/// gate; a trigger that has no others is left to the marks, which its attack has as well.
const ORDINARY: &str = "\
    application applicability session connection connected disconnected error errors failure failed \
    invalid validate validation server service system systemd update updated updates windows version \
    status state started starting stopped stopping kernel password passwords authentication request \
    requested response access accepted denied user username login logout logged root admin \
    administrator localhost local host hostname address network interface internet content \
    content-type content-length: location: transfer-encoding: x-forwarded-for refresh: user-agent \
    expected unexpected global globals volume offline online program process processes processing \
    console command commands script scripts description touch input output reverse remote control \
    controller metadata compute instance instances image images storage cloud resource manager \
    management directory file: files filename folder document documents account accounts create \
    created delete deleted update select selected insert execute executed execution exception where \
    having limit order group count counter length values value default schema database table tables \
    column character string number message messages notification prompt confirm confirmed alert \
    alerts style title <title> <input http/1.1 http/2.0 https:// http:// curl/8 java/17 ruby \
    okhttp httpclient scanner scanned rlike case fetch fetched import @import char( chr( \
    quit host: token token= sessionid sessid convert converted substring procedure function \
    functions position property properties progress resume resumed pause paused start startup \
    stop reset reset load loaded loading unload download downloaded upload uploaded click clicked \
    change changed submit submitted blocked block focus mouse key keyboard copy paste drag drop \
    before after begin end finish finished repeat search seek show help move mode moved page \
    parent child children class constructor prototype object instance android mozilla chrome \
    safari applewebkit gecko firefox macintosh linux ubuntu debian centos mobile version/ build \
    .json .html .css .js .png .jpg .gif .php .log .conf /var/log /var/lib /var/www /usr/lib \
    /usr/bin/ /usr/sbin/ /bin/ /sbin/ /etc/ /tmp/ /home/ /opt/ /index.html /api/v1/ /v2/ /assets \
    /images /static /login /admin /users /user /account /search /products /orders python perl \
    powershell cmd.exe microsoft google amazon cisco sshd cron sudo pam_unix session opened closed \
    port from for with and the this that not found missing unknown unable cannot could should \
    timeout timed out retry retrying attempt attempts failed_login successful success ready \
    available unavailable enabled disabled required permission permissions policy security audit \
    domain computer device devices driver hardware memory cpu disk mount mounted partition \
    temperature power battery sleep wake thread threads queue worker workers task tasks job jobs \
    scheduler scheduled event events handler monitor monitoring collector agent agents client \
    clients peer peers proxy gateway router firewall filter rule rules packet packets protocol \
    transport socket sockets tcp_ udp_ icmp dns dhcp http ssl tls certificate certificates key \
    encryption encrypted signature signed verify verified verification backup restore restored \
    config configuration settings option options parameter parameters argument arguments query \
    queries result results record records row rows field fields type types name names code codes \
    data date time timestamp day hour minute second bytes size total average max min level info \
    debug trace warning critical fatal notice emergency extract extracted benchmark passthrough";

/// Words that open the gate and are no trigger as they stand: hexadecimal dots and slashes.
const MORE: &[&str] = &[
    "0x2e0x", "2e0x2f", "0x5c0x", "..0x2f", "..0x5c", "0x2ex2e", "/0x2e", "wget ", "curl -",
    "sleep(",
];

/// The tables of the gate.
#[derive(Clone)]
pub(crate) struct Gate {
    class: Box<[u8; 256]>,
    /// For two classes in a row, the set of third classes that are worth a look.
    third: Box<[u64; CLASSES * CLASSES]>,
    /// Those of them that are marks.
    marks: Box<[u64; CLASSES * CLASSES]>,
    words: Box<[u64; WORDS]>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate for these triggers, for requests or for lines.
    pub(crate) fn new<'a>(triggers: impl Iterator<Item = &'a str>, request: bool) -> Self {
        let class = Box::new(std::array::from_fn(|b| class_of(b as u8)));
        let mut gate = Self {
            class,
            third: Box::new([0; CLASSES * CLASSES]),
            marks: Box::new([0; CLASSES * CLASSES]),
            words: Box::new([0; WORDS]),
        };
        let more = if request { REQUEST_MARKS } else { &[] };
        for (first, second, third) in MARKS.iter().chain(more) {
            gate.mark(&set(first), &set(second), &set(third));
        }
        let any: Vec<u8> = (0..CLASSES as u8).collect();
        for odd in [NUL, FORGED] {
            gate.mark(&any, &any, &[odd]);
        }
        gate.third.clone_from(&gate.marks);
        for trigger in triggers.chain(MORE.iter().copied()) {
            gate.word(trigger.as_bytes());
        }
        // Long runs of one letter, but not of those that mask.
        for letter in b"abcdefghijklmnopqrstuvy" {
            gate.word(&[*letter; 5]);
        }
        gate
    }

    fn mark(&mut self, first: &[u8], second: &[u8], third: &[u8]) {
        let bits = third.iter().fold(0u64, |bits, class| bits | 1 << class);
        for a in first {
            for b in second {
                if let Some(word) = self.marks.get_mut(pair(*a, *b)) {
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
            .filter(|five| memchr::memmem::find(ORDINARY.as_bytes(), five).is_none())
            .min_by_key(|five| {
                let begin = five.get(..3).unwrap_or_default();
                let known = memchr::memmem::find_iter(ORDINARY.as_bytes(), begin).count() as u32;
                known * 1_000 + five.iter().take(3).map(|b| commonness(*b)).product::<u32>()
            });
        let Some([a, b, c, d, e]) = best else { return };
        let (a, b, c) = (class_of(*a), class_of(*b), class_of(*c));
        if let Some(word) = self.third.get_mut(pair(a, b)) {
            *word |= 1 << c;
        }
        let Some([a, b, c, ..]) = best else { return };
        let (index, bits) = slot([*a, *b, *c, *d, *e]);
        if let Some(word) = self.words.get_mut(index) {
            *word |= bits;
        }
    }

    /// Whether a text has to be looked at.
    #[expect(clippy::indexing_slicing, reason = "tables have the size of their index's range")]
    pub(crate) fn opens(&self, text: &[u8]) -> bool {
        let (mut first, mut second) = (EDGE, EDGE);
        let (pieces, rest) = text.as_chunks::<PIECE>();
        let mut base = 0;
        for piece in pieces {
            let (mut a, mut b) = (first, second);
            let mut hits = 0u64;
            for (bit, &byte) in piece.iter().enumerate() {
                let class = self.class[usize::from(byte)];
                hits |= (self.third[pair(a, b)] >> (class & 63) & 1) << bit;
                (a, b) = (b, class);
            }
            (first, second) = (a, b);
            if hits != 0 && self.confirms(text, base, hits) {
                return true;
            }
            base += PIECE;
        }
        let mut hits = 0u64;
        for (bit, &byte) in rest.iter().enumerate() {
            let class = self.class[usize::from(byte)];
            hits |= (self.third[pair(first, second)] >> (class & 63) & 1) << bit;
            (first, second) = (second, class);
        }
        if hits != 0 && self.confirms(text, base, hits) {
            return true;
        }
        self.marks[pair(first, second)] >> EDGE & 1 != 0
    }

    /// Whether one of the positions that are worth a look is a mark or begins a word.
    fn confirms(&self, text: &[u8], base: usize, mut hits: u64) -> bool {
        let class = |at: Option<usize>| match at.and_then(|at| text.get(at)) {
            Some(byte) => class_of_table(&self.class, *byte),
            None => EDGE,
        };
        while hits != 0 {
            let at = base + hits.trailing_zeros() as usize;
            hits &= hits - 1;
            if let Some(around) = at.checked_sub(2).and_then(|from| text.get(from..at + 3))
                && let Some(five) = around.first_chunk()
            {
                let (index, bits) = slot(*five);
                if self.words.get(index).is_some_and(|word| word & bits == bits) {
                    return true;
                }
            }
            let before = pair(class(at.checked_sub(2)), class(at.checked_sub(1)));
            let marks = self.marks.get(before).copied().unwrap_or(0);
            if marks >> class(Some(at)) & 1 != 0 {
                return true;
            }
        }
        false
    }
}

fn class_of_table(table: &[u8; 256], byte: u8) -> u8 {
    table.get(usize::from(byte)).copied().unwrap_or(EDGE)
}

/// The index of a pair of classes.
fn pair(first: u8, second: u8) -> usize {
    (usize::from(first & 63) << 6) | usize::from(second & 63)
}

/// The word of the Bloom filter for five bytes, letters in any case, and its two bits.
fn slot([a, b, c, d, e]: [u8; 5]) -> (usize, u64) {
    let five = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]) | 0x20_2020_2020;
    let hash = five.wrapping_mul(0x9e37_79b9_7f4a_7c15);
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
        b'.' | b'/' | b'-' | b':' => 4,
        b'0'..=b'9' => 14,
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

/// Three sets of bytes in a row that make a mark anywhere. `0` stands for all digits.
const MARKS: &[(&str, &str, &str)] = &[
    // Quotes that end a value.
    ("\u{1}0)%'\"", "'\"`", "#;|"),
    ("\u{1}0%", "'`", ")-/"),
    ("\u{1}0", "'", "= "),
    ("\u{1}0%)'", "\"", ")"),
    ("0%)\u{2}", "'", " \u{2}"),
    ("\u{2}=", "'", "\u{3}"),
    ("\u{2}", "\"", ">);|'"),
    // Brackets that end a value, conditions over constants, comments.
    ("0'\"", ")", ")\u{2}a;|-#\u{1}"),
    ("%'\"", ")", " "),
    ("\u{2}", "(", "s"),
    (")", ")", ")"),
    ("0", "<>", "0(-'\""),
    ("0", "=", "0"),
    ("0'\")", "-", "-"),
    ("-", "-", " \u{2}#"),
    ("0'\") ", "#", "\u{2}"),
    ("/", "*", "*!\u{1}"),
    ("0(", "/", "*"),
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
    ("\u{3}", "`", "\u{1}/$ ("),
    ("\u{3}", "$", "({_@*['\""),
    ("$", "i", "f"),
    ("<>", "(&<", "\u{3}"),
    ("(", ")", "{;:"),
    ("()", " ", "{"),
    ("/", "?*", "\u{1}?*"),
    ("{", ",", "\u{3}"),
    ("\u{2}", "/", "bu"),
    // Paths.
    ("\u{3}", ".", "\\"),
    (".", ".", "/\\;%"),
    ("/\\", ".", "./\\"),
    ("\u{2}/", "/", "/."),
    // Escapes and templates.
    ("\\", "ux", "0cdef{"),
    ("{", "{%", "\u{3}"),
    ("#%*@$", "{", "\u{3}"),
    ("<", "%", "\u{3}"),
    // Filters and operators of document stores.
    ("*)", "(", "\u{1}|&("),
    ("(", "|&", "("),
    ("*", ")", "("),
    ("[\"'", "$", "\u{1}"),
    ("]", "[", "(!]"),
    ("!", "[", "]"),
];

/// More of them for requests and user agents.
const REQUEST_MARKS: &[(&str, &str, &str)] = &[
    ("\u{3}", "'\"`", "#;|"),
    ("\u{3}", "'`", ")-(=/"),
    ("\u{3}", "'", " \u{2}"),
    ("0)%\u{2}= ", "\"", "\u{2}"),
    ("0", "\"", ")"),
    ("'\"", " ", "oaxlhuinr|&=#-;"),
    ("'\"`", "\u{1}", "rn"),
    ("\u{2}=", "'\"", "\u{3}"),
    ("\u{1}0'\"", ")", ")\u{2}a;|-#"),
    ("0", " ", "ox"),
    ("0", "=<>", "0(-'\""),
    ("'\"0 )", "-", "-"),
    ("\u{1}0(", "/", "*"),
    ("&", " ", "\u{1}"),
    ("\u{1}", "(", ")'\"`$/~@("),
    ("\u{1}", "*", "\u{1}?*/"),
    ("?", "?*", "\u{1}?*/"),
    ("/\\", ".", "\u{1}"),
    ("@", "{", "\u{3}"),
    ("_", "_", "\u{1}"),
    ("\\", "\\", "\u{3}"),
    ("\u{1}", "(", "\u{2}\u{1}0 "),
    ("\u{1}", "'", "'"),
    ("\u{1}", "\"", "\""),
    ("\u{1}", "$", "@("),
    ("=", "=", " %\"'"),
    ("e", "q", "u "),
    // Backup files and scripts at the end of a path.
    (".", "b", "a"),
    (".", "s", "qw"),
    (".", "o", "lr"),
    (".", "k", "ed"),
    (".", "d", "b"),
    (".", "r", "d"),
    (".", "i", "n"),
    (".", "p", "h"),
    ("=", "h", "t"),
    ("=", "f", "t"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_texts_stay_out_and_marks_and_words_open() {
        let gate =
            Gate::new(["union", "information_schema", "sqlmap", "onerror"].into_iter(), false);
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
