//! Files of rules: whatever bytes they are, every document is a rule, a filter, a correlation or is refused with its
//! file, a reason and a hint; what is loaded compiles, and loading the same again gives the same.

use palisade_sigma::{Book, Loader};

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let load = || {
        let mut loader = Loader::default();
        loader.add("fuzz.yml", &text);
        loader.finish()
    };
    let set = load();
    for refusal in set.refused() {
        assert_eq!(&*refusal.file, "fuzz.yml");
        assert!(!refusal.reason.is_empty() && !refusal.hint.is_empty(), "{refusal}");
    }
    let versions = |set: &palisade_sigma::RuleSet| -> Vec<String> {
        set.rules().map(|rule| rule.version.clone()).collect()
    };
    assert_eq!(versions(&set), versions(&load()));
    let rules = set.rules().len();
    let book = Book::of(set);
    assert_eq!(book.rules().count(), rules, "a rule that is loaded compiles");
}
