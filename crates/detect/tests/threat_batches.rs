//! Scores of batches: features, what they are combined with, alerts and their reasons.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

use arrow::array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int32Array, RecordBatch, StringArray,
};
use arrow::datatypes::Int32Type;
use palisade_detect::threat::{Class, Severity, SourceNorms, ThreatScorer};
use proptest::prelude::*;
use std::cell::RefCell;
use std::sync::Arc;

fn plain(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn dictionary(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(values.iter().copied().collect::<DictionaryArray<Int32Type>>())
}

#[test]
fn an_attack_alerts_alone_and_other_signs_need_company() {
    let mut scorer = ThreatScorer::new().unwrap();
    let batch = RecordBatch::try_from_iter([
        (
            "url",
            dictionary(&[
                Some("/i?id=1' union all select 1,2,3--"),
                Some("/i?id=1"),
                Some("/i?id=1"),
                Some("/i?id=1"),
                Some("/i?id=2"),
            ]),
        ),
        (
            "outcome",
            dictionary(&[Some("success"), Some("Denied"), Some("success"), Some("failure"), None]),
        ),
        (
            "reputation",
            Arc::new(Int32Array::from(vec![None, None, Some(255), Some(255), None])) as ArrayRef,
        ),
        (
            "reported_threat_score",
            Arc::new(Float64Array::from(vec![None, None, None, Some(0.95), None])) as ArrayRef,
        ),
    ])
    .unwrap();
    let norms = SourceNorms::default();
    let features = scorer.features(&batch);
    let output = scorer.combine(&features, &batch, &norms);
    let scores: Vec<f32> = output.threat_score.iter().flatten().collect();
    assert_eq!(scores.len(), 5);
    assert!(scores[0] >= 0.8, "{scores:?}");
    assert_eq!(&scores[1..], &[0.15, 0.45, 0.755, 0.0]);
    let alerts: Vec<_> = output.alerts.iter().map(|a| (a.row, a.severity, a.class)).collect();
    assert_eq!(alerts, vec![(0, Severity::High, Some(Class::Sqli)), (3, Severity::Medium, None)]);
    assert!(output.alerts[0].reasons.iter().any(|r| r == "SQL injection: UNION SELECT (in url)"));
    let reasons = scorer.explain(&features, &batch, &norms, 3);
    assert_eq!(reasons, output.alerts[1].reasons);
    assert_eq!(
        reasons,
        vec![
            "the sender reported a threat score of 0.950",
            "an address has reputation level 255 of 255",
            "the outcome was 'failure'",
        ]
    );
    assert!(scorer.explain(&features, &batch, &norms, 4).is_empty());
    let classes = output.threat_class.unwrap();
    assert_eq!((classes.len(), classes.null_count()), (5, 4));
    assert_eq!(features.entropy().null_count(), 0);
}

/// The internet's scanners ask every web server for such paths; a tool of attackers is another matter.
#[test]
fn a_probe_is_flagged_and_makes_no_alert_alone() {
    let probes = ["/.env", "/.git/config", "/wp-login.php", "/server-status", "/actuator/health"];
    let mut urls: Vec<_> = probes.map(Some).to_vec();
    let mut agents = vec![Some("python-requests/2.31.0"); urls.len()];
    urls.push(Some("/"));
    agents.push(Some("sqlmap/1.7#stable (https://sqlmap.org)"));
    urls.push(Some("/cgi-bin/test?cmd=`id`"));
    agents.push(Some("python-requests/2.31.0"));
    let rows = urls.len();
    let batch = RecordBatch::try_from_iter([
        ("url", dictionary(&urls)),
        ("user_agent", dictionary(&agents)),
        ("outcome", dictionary(&vec![Some("403"); rows])),
    ])
    .unwrap();
    let run = |version| {
        let mut scorer = ThreatScorer::new().unwrap();
        scorer.use_version(version);
        let features = scorer.features(&batch);
        let found = features.found().filter(|(_, class, _)| class.is_some()).count();
        let output = scorer.combine(&features, &batch, &SourceNorms::default());
        (found, output.alerts.iter().map(|alert| alert.row).collect::<Vec<_>>())
    };
    assert_eq!(run(2), (rows, vec![rows - 2, rows - 1]));
    // A log that was judged by version 1 keeps its alerts (C3).
    assert_eq!(run(1), (rows, (0..rows).collect::<Vec<_>>()));
}

#[test]
fn several_columns_of_a_row_add_up() {
    let mut scorer = ThreatScorer::new().unwrap();
    let batch = RecordBatch::try_from_iter([
        ("message", plain(&[None, Some("logged in")])),
        ("user_agent", dictionary(&[Some("sqlmap/1.7"), Some("Mozilla/5.0")])),
        ("url.query", plain(&[Some("q=<script>alert(1)</script>"), None])),
        ("process.name", plain(&[Some("<script>"), Some("' or 1=1--")])),
    ])
    .unwrap();
    let features = scorer.features(&batch);
    let found: Vec<_> = features.found().collect();
    assert_eq!(found.len(), 1, "a column that names no payload is not looked at");
    assert_eq!((found[0].0, found[0].1), (0, Some(Class::Xss)));
    let output = scorer.combine(&features, &batch, &SourceNorms::default());
    let reasons = output.alerts[0].reasons.join("\n");
    assert!(reasons.contains("(in user_agent)") && reasons.contains("(in url.query)"), "{reasons}");
}

#[test]
fn entropy_above_the_norm_of_the_source_counts_from_the_tick_on() {
    let mut scorer = ThreatScorer::new().unwrap();
    let usual: Vec<String> =
        (0..400).map(|n| format!("session {} opened for user number {n}", n % 7)).collect();
    let mut texts: Vec<Option<&str>> = usual.iter().map(|t| Some(t.as_str())).collect();
    let odd: String = (33u8..127).filter(|b| b.is_ascii_alphanumeric()).map(char::from).collect();
    texts.push(Some(&odd));
    let rows = texts.len();
    let batch = RecordBatch::try_from_iter([
        ("tenant", dictionary(&vec![Some("t"); rows])),
        ("source", dictionary(&vec![Some("syslog"); rows])),
        ("message", plain(&texts)),
    ])
    .unwrap();
    let features = scorer.features(&batch);
    let mut norms = SourceNorms::default();
    norms.observe(features.quantised(), &batch);
    let before = scorer.combine(&features, &batch, &norms);
    assert!(before.threat_score.iter().flatten().all(|score| score == 0.0));
    norms.on_tick();
    let after = scorer.combine(&features, &batch, &norms);
    assert_eq!(after.threat_score.value(rows - 1), 0.3);
    assert_eq!(after.threat_score.value(0), 0.0);
    let reasons = scorer.explain(&features, &batch, &norms, rows - 1);
    assert!(
        reasons[0].contains("deviations above") && reasons[0].contains("syslog"),
        "{reasons:?}"
    );
    assert!(after.alerts.is_empty());
}

thread_local! {
    static SCORER: RefCell<ThreatScorer> = RefCell::new(ThreatScorer::new().unwrap());
}

const TEXTS: [Option<&str>; 6] = [
    None,
    Some(""),
    Some("/index.html"),
    Some("/a?x=<script>alert(1)</script>"),
    Some("/a?x=1' or '1'='1"),
    Some("../../etc/passwd"),
];

proptest! {
    /// Dictionaries, slices and batch borders are invisible.
    #[test]
    fn the_layout_is_invisible(picks in prop::collection::vec((0usize..6, 0usize..6), 1..80), cut in 0usize..80) {
        let urls: Vec<_> = picks.iter().map(|p| TEXTS[p.0]).collect();
        let notes: Vec<_> = picks.iter().map(|p| TEXTS[p.1]).collect();
        let of = |layout: fn(&[Option<&str>]) -> ArrayRef| {
            RecordBatch::try_from_iter([("url", layout(&urls)), ("metadata.note", layout(&notes))]).unwrap()
        };
        let norms = SourceNorms::default();
        let run = |batch: &RecordBatch| {
            SCORER.with_borrow_mut(|scorer| {
                let features = scorer.features(batch);
                let output = scorer.combine(&features, batch, &norms);
                (features, output)
            })
        };
        let (first, whole) = run(&of(plain));
        let (second, other) = run(&of(dictionary));
        prop_assert_eq!(&first, &second);
        prop_assert_eq!(&whole, &other);
        let cut = cut.min(picks.len());
        let (_, head) = run(&of(dictionary).slice(0, cut));
        let (_, tail) = run(&of(dictionary).slice(cut, picks.len() - cut));
        let joined: Vec<_> = head.threat_score.iter().chain(tail.threat_score.iter()).collect();
        prop_assert_eq!(joined, whole.threat_score.iter().collect::<Vec<_>>());
        prop_assert_eq!(head.alerts.len() + tail.alerts.len(), whole.alerts.len());
    }
}
