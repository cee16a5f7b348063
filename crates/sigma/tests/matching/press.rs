//! Books that are made one after the other: each is what it would be if it were made from nothing. Rules of tenants are
//! tried on their records alone.

use crate::shapes::rule;
use crate::support;
use palisade_sigma::correlation::Correlation;
use palisade_sigma::{Book, Exclusions, Filter, Hits, Press, Sieve, Source};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Instant;

const BODY: &[u8] =
    br#"{"f": "a"} {"f": "b"} {"f": "ab", "g": "a"} {"g": "b", "h": "abc"} {"h": "x"}"#;

fn source<'t>((owner, name, text): &'t (Option<&str>, String, String)) -> Source<'t> {
    Source { owner: owner.map(Arc::from), name, text }
}

/// Rules, refusals and correlations of a book, and what it finds.
#[derive(Debug, PartialEq)]
struct Whole {
    rules: Vec<String>,
    refused: Vec<String>,
    correlations: Vec<String>,
    hits: Vec<(usize, u32)>,
}

fn whole(book: &Book) -> Whole {
    let rules = book.rules().map(|rule| format!("{rule:?}")).collect();
    let refused = book.refused().iter().map(|refusal| format!("{refusal:?}")).collect();
    let correlations = book.correlations().iter().map(|one| format!("{one:?}")).collect();
    let mut hits = Hits::new();
    let batch = support::batch(BODY);
    book.matcher().matches(&batch, &mut hits);
    let plainly = book.matcher().matches_plainly(&batch);
    for (row, plainly) in plainly.iter().enumerate() {
        assert_eq!(hits.of(row), plainly.as_slice(), "row {row}");
    }
    Whole { rules, refused, correlations, hits: hits.iter().collect() }
}

fn file() -> impl Strategy<Value = (Option<&'static str>, String, String)> {
    let owner = prop::sample::select(vec![None, None, Some("t"), Some("other")]);
    let product = prop::sample::select(vec!["{}", "{product: zeek}", "{category: x}"]);
    let detection = prop::sample::select(vec![
        "s:\n    f: a\ncondition: s",
        "s:\n    f|contains: b\ncondition: s",
        "s:\n    g|startswith: [a, b]\ncondition: s",
        "s:\n    h|re: a.c\ncondition: not s",
        "s:\n    nonsense|b: x\ncondition: s",
    ]);
    let id = prop::sample::select(vec!["one", "two", "three", "four"]);
    (owner, product, detection, id).prop_map(|(owner, product, detection, id)| {
        let text = rule(detection).replace("logsource: {}", &format!("logsource: {product}"));
        let text = format!("id: {id}\nname: name-{id}\n{text}");
        let counts = format!(
            "title: C {id}\nid: c-{id}\ncorrelation:\n  type: event_count\n  rules: [name-{id}]\n  timespan: 1m\n  condition: {{gte: 2}}\n"
        );
        (owner, format!("{id}.yml"), format!("{text}\n---\n{counts}"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_book_is_the_same_whatever_was_made_before(
        sets in prop::collection::vec(prop::collection::vec(file(), 0..6), 1..5),
    ) {
        let mut press = Press::default();
        for set in &sets {
            let book = press.book(set.iter().map(source));
            let fresh = Press::default().book(set.iter().map(source));
            prop_assert_eq!(whole(&book), whole(&fresh));
            prop_assert_eq!(book.paths(), fresh.paths());
        }
    }
}

fn find<'b>(book: &'b Book, owner: Option<&str>, id: &str) -> Option<&'b Correlation> {
    let mut all = book.correlations().iter().map(|(_, one)| one);
    all.find(|one| one.owner.as_deref() == owner && one.id == id)
}

#[test]
fn tenants_have_names_of_their_own() {
    let rule = |id: &str| format!("id: {id}\nname: login\n{}", rule("s:\n    f: a\ncondition: s"));
    let counts = "title: C\nid: c\ncorrelation:\n  type: event_count\n  rules: [login]\n  timespan: 1m\n  condition: {gte: 2}\n";
    let files = [
        (None, "a".to_owned(), rule("base")),
        (Some("t"), "b".to_owned(), format!("{}\n---\n{counts}", rule("own"))),
        (Some("other"), "c".to_owned(), counts.to_owned()),
    ];
    let book = Press::default().book(files.iter().map(source));
    assert!(book.refused().is_empty(), "{:?}", book.refused());
    let (own, other) = (find(&book, Some("t"), "c"), find(&book, Some("other"), "c"));
    let (own, other) = (own.unwrap(), other.unwrap());
    assert_ne!(own.version, other.version, "each has its own state");
    // The first reads its own rule of the name, the other the installation's.
    assert_ne!(own.inputs, other.inputs);
    assert!(own.is_of("t") && !own.is_of("other"));
    let batch = support::batch(BODY);
    let mut hits = Hits::new();
    book.matcher().matches(&batch, &mut hits);
    let ids: Vec<&str> =
        hits.of(0).iter().map(|rule| book.rule(*rule).unwrap().id.as_str()).collect();
    assert_eq!(ids, ["base", "own"]);
    // The rows are of the tenant `t`, so the other's correlation counts none of them.
    let counted = book.counted(&batch, &hits);
    let owners: Vec<Option<&str>> = counted
        .iter()
        .map(|one| book.correlations().get(one.correlation).unwrap().owner.as_deref())
        .collect();
    assert_eq!(owners, [Some("t")]);
    // Only the own correlation keeps its rule from alerting.
    assert!(book.makes_alerts(0) && !book.makes_alerts(1));
}

#[test]
fn exclusions_leave_out_what_their_filter_does() {
    let files = [(
        None,
        "a".to_owned(),
        format!("id: one\n{}", rule("s:\n    f|contains: a\ncondition: s")),
    )];
    let book = Press::default().book(files.iter().map(source));
    let filter =
        "title: F\nfilter:\n  rules: [one]\n  selection:\n    g: a\n  condition: not selection\n";
    let filter = Filter::parse("F", filter).unwrap();
    let exclusions = Exclusions::new(&book, &[&filter], |_| true);
    let batch = support::batch(BODY);
    let mut hits = Hits::new();
    book.matcher().matches(&batch, &mut hits);
    assert_eq!(hits.iter().collect::<Vec<_>>(), [(0, 0), (2, 0)]);
    let mut sieve = Sieve::new(&batch);
    hits.retain(|row, rule| !exclusions.leaves_out(&mut sieve, (row, rule), |_| false));
    assert_eq!(hits.len(), 2, "it does not hold");
    hits.retain(|row, rule| !exclusions.leaves_out(&mut sieve, (row, rule), |_| true));
    assert_eq!((hits.iter().collect::<Vec<_>>(), hits.rows()), (vec![(0, 0)], 5));
    assert!(hits.of(2).is_empty() && hits.of(4).is_empty());
    assert!(Exclusions::new(&book, &[&filter], |_| false).is_empty());
    let wrong =
        Filter::parse("w", "title: F\nfilter:\n  selection:\n    g: a\n  condition: selection\n");
    assert!(wrong.unwrap_err().to_string().contains("without `rules`"));
}

/// What is compiled again when one rule of thousands changes; the times are printed.
#[test]
fn one_changed_rule_of_thousands_is_cheap() {
    let Some(mut texts) = support::sigma_hq() else { return };
    let mut press = Press::default();
    let mut make = |texts: &std::collections::BTreeMap<String, String>| {
        let begun = Instant::now();
        let files = texts.iter().map(|(name, text)| Source { owner: None, name, text });
        let book = press.book(files);
        (book, begun.elapsed())
    };
    let (first, whole) = make(&texts);
    let (_, same) = make(&texts);
    let text = texts.values_mut().find(|text| text.contains("process_creation")).unwrap();
    text.push_str("# changed\n");
    let (third, one) = make(&texts);
    assert_eq!(first.rules().count(), third.rules().count());
    println!("all {whole:?}, the same again {same:?}, one changed {one:?}");
    assert!(one < whole, "{one:?} of {whole:?}");
}
