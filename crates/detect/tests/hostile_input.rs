//! Hostile input: no bytes panic, and time is linear in the length.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

use palisade_detect::entropy;
use palisade_detect::threat::ThreatScorer;
use palisade_detect::threat::columns::{Place, place_of};
use proptest::prelude::*;
use std::cell::RefCell;
use std::time::{Duration, Instant};

const PLACES: [Place; 4] = [Place::Request, Place::Agent, Place::Line, Place::Command];

thread_local! {
    static SCORER: RefCell<ThreatScorer> = RefCell::new(ThreatScorer::new().unwrap());
}

fn inspect_everywhere(text: &str) -> f32 {
    SCORER.with_borrow_mut(|scorer| {
        let first = PLACES.map(|place| scorer.inspect(place, text));
        // Nothing is remembered from text to text.
        for (place, before) in PLACES.into_iter().zip(&first) {
            assert_eq!(&scorer.inspect(place, text), before);
        }
        let line = scorer.score_line(text);
        assert!((0.0..=1.0).contains(&line.score) && (0.0..=8.0).contains(&line.entropy));
        line.score
    })
}

/// Pieces that mean something to the decoder or the rules.
const PIECES: [&str; 40] = [
    "%",
    "%2",
    "%25",
    "%252e",
    "%u",
    "%u00",
    "&",
    "&#",
    "&#x",
    "&#x3c;",
    "&lt",
    "\\",
    "\\x",
    "\\u",
    "\\u{",
    "/*",
    "*/",
    "/*!5",
    "'",
    "\"",
    "select ",
    "union ",
    " or ",
    "1=1",
    "<",
    "script",
    ">",
    "../",
    "..",
    "\0",
    "\u{ff1c}",
    "\u{2019}",
    "é",
    "|",
    "`",
    "$(",
    "${",
    "jndi:",
    "aaaaaaaaaa",
    "\n",
];

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        inspect_everywhere(&String::from_utf8_lossy(&bytes));
        prop_assert!(entropy::quantised(&bytes) <= 2048);
    }

    #[test]
    fn no_pieces_panic(at in prop::collection::vec(0usize..PIECES.len(), 0..60)) {
        let text: String = at.into_iter().map(|at| PIECES[at]).collect();
        inspect_everywhere(&text);
        let _ = place_of(&text);
    }
}

/// Lines of 1 MB that would be slow for a decoder that goes back or an expression that backtracks.
#[test]
fn a_long_line_takes_linear_time() {
    let size = 1 << 20;
    let limit =
        if cfg!(debug_assertions) { Duration::from_secs(5) } else { Duration::from_millis(100) };
    let mut scorer = ThreatScorer::new().unwrap();
    let mut worst = (Duration::ZERO, String::new());
    for piece in PIECES.into_iter().chain([
        "%25%25%25%25",
        "%2525252525",
        "&amp;amp;",
        "&#38;#38;",
        "\\u005cu005c",
        "/*a*/",
        "/*!1",
        "union select ",
        "' or 1=1--",
        "' or '",
        "select a from ",
        "((((((((",
        "<a <a <a",
        "on on on=",
        "$a[$a[",
        "{{{{{{",
        "../../",
        ";;;;cat ",
        "||id||",
        "%00%0d%0a",
        "case when ",
        "powershell -enc ",
        "0x0x0x0x",
        "char(1),char(2)",
        "if x == y ",
    ]) {
        let text = piece.repeat(size / piece.len());
        for place in [Place::Request, Place::Line] {
            // The fastest of three: other processes share the machine.
            let time = (0..3)
                .map(|_| {
                    let start = Instant::now();
                    scorer.inspect(place, &text);
                    start.elapsed()
                })
                .min()
                .unwrap_or_default();
            if time > worst.0 {
                worst = (time, format!("{piece:?} as {place:?}"));
            }
            assert!(time < limit, "{piece:?} as {place:?} took {time:?}");
        }
    }
    println!("the slowest line of 1 MB took {:?}: {}", worst.0, worst.1);
}
