//! Regular expressions of rules, bounded.

use crate::error::{Checked, Fault};
use regex::{Regex, RegexBuilder};

/// Bytes of an expression's text.
const MAX_TEXT: usize = 8 << 10;
/// Bytes of a compiled expression.
const MAX_COMPILED: usize = 1 << 20;
/// Bounds that an expression is compiled under, the least that it fits counts: how large it is the library does not tell.
const SIZES: [usize; 3] = [64 << 10, 256 << 10, MAX_COMPILED];
/// Bytes of the compiled expressions of a document, counted so.
pub(crate) const MAX_OF_DOCUMENT: usize = 64 << 20;
/// Of a set of rules.
pub(crate) const MAX_OF_SET: usize = 1 << 30;
/// Bytes of the cache of states that an expression may keep while it runs.
const MAX_CACHE: usize = 1 << 20;

/// A compiled expression. Two are the same when their texts and flags are.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    pub(crate) regex: Regex,
    /// What it counts for, in bytes.
    pub(crate) size: usize,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str()
    }
}

/// The flags of `re`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flags {
    pub(crate) insensitive: bool,
    pub(crate) multi_line: bool,
    pub(crate) dot_all: bool,
}

impl Expression {
    pub(crate) fn compile(text: &str, flags: Flags, line: u64) -> Checked<Self> {
        if text.len() > MAX_TEXT {
            return Err(Fault::new(
                line,
                format!("regular expression of {} bytes, at most {MAX_TEXT}", text.len()),
                "split it into several values of a list",
            ));
        }
        // Flags go into the text, so that it tells expressions apart.
        let mut written = String::new();
        for (set, flag) in
            [(flags.insensitive, "(?i)"), (flags.multi_line, "(?m)"), (flags.dot_all, "(?s)")]
        {
            if set {
                written.push_str(flag);
            }
        }
        written.push_str(&tolerant(text));
        let mut size = 0;
        let mut compiled = Err(regex::Error::CompiledTooBig(0));
        for limit in SIZES {
            size = limit;
            compiled = RegexBuilder::new(&written)
                .size_limit(limit)
                .dfa_size_limit(MAX_CACHE)
                .nest_limit(64)
                .build();
            if !matches!(compiled, Err(regex::Error::CompiledTooBig(_))) {
                break;
            }
        }
        match compiled {
            Ok(regex) => Ok(Self { regex, size }),
            Err(regex::Error::CompiledTooBig(_)) => Err(Fault::new(
                line,
                format!("regular expression is over {MAX_COMPILED} bytes when compiled"),
                "make its repetitions smaller, for example {1,100} instead of {1,10000}",
            )),
            Err(error) => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                let borrowed = ["look-around", "backreferences", "unrecognized flag"]
                    .iter()
                    .any(|missing| last.contains(missing));
                let reason = format!("regular expression: {last}");
                Err(if borrowed {
                    Fault::unsupported(
                        line,
                        reason,
                        "the specification allows neither look-around nor backreferences; use a second selection with `not`",
                    )
                } else {
                    Fault::new(line, reason, "see the specification's list of metacharacters")
                })
            }
        }
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// `\w`, `\d`, `\s` and `\b` mean ASCII, as in PCRE. PCRE takes a backslash before any character that means nothing special for that character itself,
/// and a brace that opens no repetition for a brace.
fn tolerant(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut class = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(
                    escaped @ ('"' | '\'' | '`' | ' ' | ',' | ':' | ';' | '=' | '@' | '_' | '<'
                    | '>'),
                ) => {
                    if matches!(escaped, '<' | '>') {
                        out.push_str(if escaped == '<' { "\\x3C" } else { "\\x3E" });
                    } else {
                        out.push(escaped);
                    }
                }
                Some('/') => out.push('/'),
                Some('Z') => out.push_str("(?:\\n?\\z)"),
                Some('w') => out.push_str("[0-9A-Za-z_]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('d') => out.push_str("[0-9]"),
                Some('D') => out.push_str("[^0-9]"),
                Some('s') => out.push_str("[\\t\\n\\x0B\\x0C\\r ]"),
                Some('S') => out.push_str("[^\\t\\n\\x0B\\x0C\\r ]"),
                Some('b') if !class => out.push_str("(?-u:\\b)"),
                Some('B') if !class => out.push_str("(?-u:\\B)"),
                Some(escaped) => {
                    out.push('\\');
                    out.push(escaped);
                }
                None => out.push('\\'),
            },
            '[' if class && characters.peek() != Some(&':') => out.push_str("\\["),
            '[' if class => {
                // A named class: up to its own bracket.
                out.push('[');
                for member in characters.by_ref() {
                    out.push(member);
                    if member == ']' {
                        break;
                    }
                }
            }
            '[' => {
                class = true;
                out.push('[');
                // A bracket that closes at once is a member.
                if characters.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                if characters.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            ']' => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => {
                out.push('\\');
                out.push(character);
            }
            '{' if !class => {
                let rest: String = characters.clone().take_while(|c| *c != '}').collect();
                let repeats = rest.len() < characters.clone().count()
                    && rest.starts_with(|c: char| c.is_ascii_digit())
                    && rest.chars().all(|c| c.is_ascii_digit() || c == ',');
                out.push_str(
                    if repeats
                        || out.ends_with("\\p")
                        || out.ends_with("\\x")
                        || out.ends_with("\\P")
                    {
                        "{"
                    } else {
                        "\\{"
                    },
                );
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Checked<Expression> {
        Expression::compile(text, Flags::default(), 7)
    }

    #[test]
    fn what_pcre_lets_pass_is_read_as_pcre_reads_it() {
        for (text, value) in [
            (r#"\"a\""#, r#""a""#),
            (r"\${env:", "${env:"),
            (r"[[a]", "["),
            (r"[]x]+", "]x"),
            (r"[a&&b]+", "&&"),
            (r"\<a\>", "<a>"),
            (r"a{2,3}", "aaa"),
            (r"\/x", "/x"),
            (r"^[\w.-]+\s[^\d]\b$", "a-b.c x"),
            (r"[[:alpha:]]\W[\S\s]", "a.\n"),
        ] {
            assert!(compile(text).unwrap().is_match(value), "{text}");
        }
    }

    #[test]
    fn what_would_take_too_much_is_refused_with_its_line() {
        let fault = compile("(a{1000}){1000}").unwrap_err();
        assert_eq!(fault.line, Some(7));
        assert!(compile(&"a".repeat(MAX_TEXT + 1)).is_err());
        assert!(compile(&format!("{}a{}", "(".repeat(100), ")".repeat(100))).is_err());
        let fault = compile("a(?=b)").unwrap_err();
        assert_eq!(fault.kind, crate::error::Kind::Unsupported);
    }

    #[test]
    fn an_expression_that_backtracks_elsewhere_runs_in_linear_time() {
        let expression = compile("^(a+)+$").unwrap();
        assert!(!expression.is_match(&format!("{}b", "a".repeat(100_000))));
    }
}
