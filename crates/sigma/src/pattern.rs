//! Values with wildcards: how they are written, how they match.
//!
//! `*` stands for any number of characters, `?` for one, and a backslash before either or before
//! another backslash takes its meaning away. Both sides are compared folded ([`fold`]) unless the
//! rule says `cased`.

use std::borrow::Cow;
use std::fmt;

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Part {
    /// This text.
    Text(String),
    /// Any number of characters.
    Many,
    /// One character.
    One,
    /// One of [`DASHES`].
    Dash,
}

/// The characters that `windash` takes for each other.
pub(crate) const DASHES: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];

/// A value of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pattern {
    /// Without two texts in a row or two [`Part::Many`] in a row.
    parts: Vec<Part>,
    /// Compared as written.
    pub(crate) cased: bool,
}

/// What a pattern comes down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape<'a> {
    /// Any value.
    Anything,
    Exact(&'a str),
    Prefix(&'a str),
    Suffix(&'a str),
    Contains(&'a str),
    /// Anything else; the longest text in it.
    Glob(&'a str),
}

/// Lower case, character by character: the same for a character wherever it stands.
pub(crate) fn fold(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    if fold_into(text, &mut out) { Cow::Owned(out) } else { Cow::Borrowed(text) }
}

/// Writes a text in lower case over `out`; `false`, and nothing written, when it is so already.
pub(crate) fn fold_into(text: &str, out: &mut String) -> bool {
    if !text.bytes().any(|byte| byte.is_ascii_uppercase() || byte >= 0x80) {
        return false;
    }
    out.clear();
    let mut rest = text;
    // Most texts are ASCII, which is seen many bytes at a time.
    while !rest.is_ascii()
        && let Some(at) = rest.bytes().position(|byte| byte >= 0x80)
    {
        let (ascii, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(ascii);
        let mut characters = tail.chars();
        out.extend(characters.next().into_iter().flat_map(char::to_lowercase));
        rest = characters.as_str();
    }
    out.push_str(rest);
    out.make_ascii_lowercase();
    true
}

impl Pattern {
    /// A pattern of these pieces, put into normal form.
    pub(crate) fn new(pieces: impl IntoIterator<Item = Part>, cased: bool) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        for piece in pieces {
            match (parts.last_mut(), piece) {
                (_, Part::Text(text)) if text.is_empty() => {}
                (Some(Part::Text(before)), Part::Text(text)) => {
                    before.push_str(&if cased {
                        Cow::Borrowed(text.as_str())
                    } else {
                        fold(&text)
                    });
                }
                (Some(Part::Many), Part::Many) => {}
                (_, Part::Text(text)) if !cased => parts.push(Part::Text(fold(&text).into_owned())),
                (_, piece) => parts.push(piece),
            }
        }
        Self { parts, cased }
    }

    pub(crate) fn shape(&self) -> Shape<'_> {
        match self.parts.as_slice() {
            [] => Shape::Exact(""),
            [Part::Many] => Shape::Anything,
            [Part::Text(text)] => Shape::Exact(text),
            [Part::Text(text), Part::Many] => Shape::Prefix(text),
            [Part::Many, Part::Text(text)] => Shape::Suffix(text),
            [Part::Many, Part::Text(text), Part::Many] => Shape::Contains(text),
            parts => Shape::Glob(
                parts
                    .iter()
                    .filter_map(|part| {
                        if let Part::Text(text) = part { Some(text.as_str()) } else { None }
                    })
                    .max_by_key(|text| text.len())
                    .unwrap_or_default(),
            ),
        }
    }

    /// Whether a value matches, given as received and folded.
    pub(crate) fn matches(&self, raw: &str, folded: &str) -> bool {
        let text = if self.cased { raw } else { folded };
        match self.shape() {
            Shape::Anything => true,
            Shape::Exact(wanted) => text == wanted,
            Shape::Prefix(wanted) => text.starts_with(wanted),
            Shape::Suffix(wanted) => text.ends_with(wanted),
            Shape::Contains(wanted) => {
                memchr::memmem::find(text.as_bytes(), wanted.as_bytes()).is_some()
            }
            Shape::Glob(_) => glob(&self.parts, text),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Many => f.write_str("*")?,
                Part::One => f.write_str("?")?,
                Part::Dash => f.write_str("-")?,
            }
        }
        Ok(())
    }
}

/// Matches piece by piece; after a failure the last `*` takes one character more. No earlier one has
/// to: so the time is bounded by the product of both lengths.
fn glob(parts: &[Part], text: &str) -> bool {
    let (mut rest, mut next) = (text, 0);
    let mut retry: Option<(usize, &str)> = None;
    loop {
        let step = match parts.get(next) {
            Some(Part::Many) => {
                retry = Some((next + 1, rest));
                next += 1;
                continue;
            }
            // The last text behind a `*` has to stand at the end.
            Some(Part::Text(wanted)) if next + 1 == parts.len() && retry.is_some() => {
                let (after, from) = retry.unwrap_or((0, rest));
                if after == next {
                    return from.ends_with(wanted.as_str());
                }
                rest.strip_prefix(wanted.as_str())
            }
            Some(Part::Text(wanted)) => rest.strip_prefix(wanted.as_str()),
            Some(Part::One) => {
                let mut characters = rest.chars();
                characters.next().map(|_| characters.as_str())
            }
            Some(Part::Dash) => rest.strip_prefix(DASHES),
            None if rest.is_empty() => return true,
            None => match parts.last() {
                Some(Part::Many) => return true,
                _ => None,
            },
        };
        match step {
            Some(behind) => {
                rest = behind;
                next += 1;
            }
            None => {
                let Some((after, from)) = retry else { return false };
                let begin = match parts.get(after) {
                    // To the next place where the text behind the `*` can stand.
                    Some(Part::Text(wanted)) => {
                        let mut characters = from.chars();
                        if rest.len() == from.len() && after == next {
                            memchr::memmem::find(from.as_bytes(), wanted.as_bytes())
                                .and_then(|at| from.get(at..))
                        } else {
                            characters.next().and_then(|_| {
                                let tail = characters.as_str();
                                memchr::memmem::find(tail.as_bytes(), wanted.as_bytes())
                                    .and_then(|at| tail.get(at..))
                            })
                        }
                    }
                    _ => {
                        let mut characters = from.chars();
                        characters.next().map(|_| characters.as_str())
                    }
                };
                let Some(begin) = begin else { return false };
                retry = Some((after, begin));
                rest = begin;
                next = after;
            }
        }
    }
}

/// The pieces of a value as a rule writes it.
pub(crate) fn pieces(value: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.peek() {
                Some(&escaped @ ('*' | '?' | '\\')) => {
                    text.push(escaped);
                    characters.next();
                }
                _ => text.push('\\'),
            },
            '*' | '?' => {
                parts.push(Part::Text(std::mem::take(&mut text)));
                parts.push(if character == '*' { Part::Many } else { Part::One });
            }
            other => text.push(other),
        }
    }
    parts.push(Part::Text(text));
    parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, value: &str) -> bool {
        Pattern::new(pieces(pattern), false).matches(value, &fold(value))
    }

    #[test]
    fn wildcards_and_escapes_are_those_of_the_specification() {
        for (pattern, value, expected) in [
            ("prog?.exe", "progA.exe", true),
            ("prog?.exe", "prog.exe", false),
            ("antivirus_V*.exe", "ANTIVIRUS_V21.2.1.exe", true),
            ("antivirus_V*.exe", "antivirus_V.exe", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            (r"a\\*b", r"a\xb", true),
            (r"a\\\*b", r"a\*b", true),
            (r"a\\\*b", r"a\xb", false),
            (r"\\\\srv", r"\\srv", true),
            (r"\\\srv", r"\\srv", true),
            (r"\srv", r"\srv", true),
            (r"\\srv", r"\srv", true),
            ("", "", true),
            ("", "x", false),
            ("*", "", true),
            ("?", "ß", true),
            ("a*b*c", "aXbXXbc", true),
            ("a*b*c", "aXcXXb", false),
            ("*ab*ab", "abab", true),
            ("*ab*ab", "ab", false),
            ("a*", "a\nb", true),
            ("*a?c*", "xxabxabcx", true),
        ] {
            assert_eq!(matches(pattern, value), expected, "{pattern} on {value}");
        }
    }

    #[test]
    fn case_is_folded_character_by_character() {
        assert!(matches("ÄRGER*", "ärgerlich"));
        assert!(matches("*σ*", "ΟΔΟΣ"));
        assert!(matches("straße", "STRAßE"));
        assert!(!matches("strasse", "straße"));
        let cased = Pattern::new(pieces("Ab*"), true);
        assert!(cased.matches("Abc", "abc"));
        assert!(!cased.matches("abc", "abc"));
    }

    /// Matches by trying everything.
    fn naive(parts: &[Part], text: &[char]) -> bool {
        match parts.split_first() {
            None => text.is_empty(),
            Some((Part::Many, tail)) => (0..=text.len()).any(|at| naive(tail, &text[at..])),
            Some((Part::One, tail)) => !text.is_empty() && naive(tail, &text[1..]),
            Some((Part::Dash, tail)) => {
                text.first().is_some_and(|c| DASHES.contains(c)) && naive(tail, &text[1..])
            }
            Some((Part::Text(wanted), tail)) => {
                let wanted: Vec<char> = wanted.chars().collect();
                text.starts_with(&wanted) && naive(tail, &text[wanted.len()..])
            }
        }
    }

    /// Texts of these characters.
    fn text(
        of: &str,
        length: std::ops::RangeInclusive<usize>,
    ) -> impl Strategy<Value = String> + use<> {
        let of: Vec<char> = of.chars().collect();
        prop::collection::vec(prop::sample::select(of), length)
            .prop_map(|characters| characters.into_iter().collect())
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_trying_everything_finds(
            pattern in text("ab*?é-", 0..=8), value in text("abé/-", 0..=10), windash: bool,
        ) {
            let mut parts = pieces(&pattern);
            if windash {
                parts = parts.into_iter().flat_map(|part| match part {
                    Part::Text(text) => text.chars().map(|c| if DASHES.contains(&c) {
                        Part::Dash
                    } else {
                        Part::Text(c.to_string())
                    }).collect(),
                    other => vec![other],
                }).collect();
            }
            let characters: Vec<char> = value.chars().collect();
            let pattern = Pattern::new(parts.clone(), false);
            prop_assert_eq!(pattern.matches(&value, &fold(&value)), naive(&parts, &characters));
        }
    }
}
