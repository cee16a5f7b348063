//! Scoring any text: scores within bounds, and nothing is remembered from text to text.

use palisade_detect::entropy;
use palisade_detect::threat::ThreatScorer;
use palisade_detect::threat::columns::{Place, place_of};
use std::cell::RefCell;

thread_local! {
    static SCORER: RefCell<ThreatScorer> =
        RefCell::new(ThreatScorer::new().expect("the rules compile"));
}

pub fn run(data: &[u8]) {
    assert!(entropy::quantised(data) <= 2048);
    let text = String::from_utf8_lossy(data);
    let _ = place_of(&text);
    SCORER.with_borrow_mut(|scorer| {
        let first = scorer.score_line(&text);
        assert!((0.0..=1.0).contains(&first.score) && (0.0..=8.0).contains(&first.entropy));
        for place in [Place::Request, Place::Agent, Place::Line, Place::Command] {
            let before = scorer.inspect(place, &text);
            assert_eq!(scorer.inspect(place, &text), before);
        }
        assert_eq!(scorer.score_line(&text), first);
    });
}
