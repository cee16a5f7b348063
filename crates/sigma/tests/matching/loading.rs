//! What is loaded, what is refused, and how refusals are named.

use crate::shapes::{matched, rule};
use crate::support;
use palisade_sigma::{Kind, Level, Loader, Pipelines};
use serde_json::json;

#[test]
fn every_sigma_hq_rule_is_loaded_or_named() {
    let Some(texts) = support::sigma_hq() else { return };
    assert_eq!(texts.len(), 3_757);
    let rules = support::sigma_hq_rules().unwrap();
    for refusal in rules.refused() {
        assert_eq!(refusal.kind, Kind::Unsupported, "{refusal}");
        assert!(refusal.line.is_some() && refusal.rule.is_some(), "{refusal}");
        assert!(refusal.reason.contains("placeholder"), "{refusal}");
    }
    assert_eq!(rules.rules().len() + rules.refused().len(), texts.len());
    assert!(rules.refused().len() <= 2, "{}", rules.refused().len());
    assert!(rules.paths().contains("Event.EventData.CommandLine"));
    assert!(rules.rules().all(|rule| rule.author.is_some() && rule.version.len() == 32));
}

#[test]
fn the_placeholders_of_sigma_hq_take_values_from_a_pipeline() {
    let Some(texts) = support::sigma_hq() else { return };
    let mut pipelines = Pipelines::shipped();
    pipelines
        .push(
            "site.yml",
            "vars: {known_cdcs: [dc1]}\ntransformations: [{type: value_placeholders}]",
        )
        .unwrap();
    let mut loader = Loader::new(pipelines);
    for (name, text) in &texts {
        loader.add(name, text);
    }
    let rules = loader.finish();
    assert_eq!(rules.refused(), &[]);
    assert_eq!(rules.rules().len(), texts.len());
}

#[test]
fn a_bad_document_is_refused_by_name_and_the_others_stay() {
    let good = rule("selection:\n    f: a\ncondition: selection");
    let long =
        format!("selection:\n    f:\n{}condition: selection", "        - x\n".repeat(10_001));
    for (detection, reason) in [
        ("selection:\n    f|unheard: a\ncondition: selection", "unknown modifier `unheard`"),
        ("selection:\n    f|not: a\ncondition: selection", "`not` is no modifier"),
        ("selection:\n    f|i: a\ncondition: selection", "modifier `i` without `re`"),
        ("selection:\n    f: {a: b}\ncondition: selection", "a value of `f` is a map"),
        ("selection:\n    f: [[a]]\ncondition: selection", "a value of `f` is a list"),
        ("selection:\n    f: []\ncondition: selection", "empty list"),
        ("selection:\ncondition: selection", "is empty"),
        ("selection:\n    f|all: a\ncondition: selection", "`all` with a single value"),
        ("selection:\n    f|re: '('\ncondition: selection", "regular expression"),
        (
            "selection:\n    f|re: '(a{1000}){1000}'\ncondition: selection",
            "over 1048576 bytes when compiled",
        ),
        ("selection:\n    f|re: 'a(?=b)'\ncondition: selection", "look-around"),
        ("selection:\n    f|cidr: 10.0.0.0/40\ncondition: selection", "is no network"),
        ("selection:\n    f|gt: many\ncondition: selection", "has a text as value"),
        ("selection:\n    f|exists: maybe\ncondition: selection", "has a text as value"),
        ("selection:\n    f|expand: '%x%'\ncondition: selection", "placeholder `%x%` has no value"),
        (
            "selection:\n    f|base64: 'a*b'\ncondition: selection",
            "`base64` of a value with wildcards",
        ),
        ("selection:\n    f|contains: null\ncondition: selection", "null as value"),
        ("selection:\n    f: a\ncondition: other", "names `other`"),
        ("selection:\n    f: a\ncondition: 1 of other*", "chooses no search identifier"),
        ("selection:\n    f: a\ncondition: selection and", "condition `selection and`"),
        ("selection:\n    f: a\ncondition: selection | count() > 5", "aggregations of Sigma 1"),
        ("selection:\n    f: a\ncondition: 5", "`condition` must be a text"),
        ("selection:\n    f: a", "no `condition`"),
        (&long, "a list of 10001 values"),
    ] {
        let bad = rule(detection).replace("title: test", "title: bad\nid: the-bad-one");
        let text = format!("{bad}\n---\n{good}");
        let mut loader = Loader::default();
        loader.add("dir/some.yml", &text);
        let rules = loader.finish();
        assert_eq!(rules.rules().len(), 1, "{detection}");
        let [refusal] = rules.refused() else { panic!("{:?}", rules.refused()) };
        assert!(refusal.reason.contains(reason), "{refusal}");
        assert_eq!(refusal.rule.as_deref(), Some("the-bad-one"));
        assert!(refusal.line.is_some_and(|line| (1..=10_020).contains(&line)), "{refusal}");
        assert!(!refusal.hint.is_empty());
        assert!(refusal.to_string().starts_with("dir/some.yml:"), "{refusal}");
    }
}

/// What would cost much more than its text is refused by a bound, quickly, and what stands beside it stays.
#[test]
fn what_would_blow_up_is_refused_and_the_others_stay() {
    let good = rule("selection:\n    f: a\ncondition: selection");
    let head = "title: bad\nid: the-bad-one\nlogsource: {}\n";
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let refs = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
    }
    let detection = |selection: &str| {
        format!("detection:\n  selection:\n    {selection}\n  condition: selection\n")
    };
    let many: String = (0..1_100).map(|n| format!("\n      - 'x{n}.*y'")).collect();
    let deep = format!("f: {}a{}", "[".repeat(60), "]".repeat(60));
    let wide = format!("f|re: '{}'", "(a|b)".repeat(2_000));
    let brackets = format!("selection and {}selection{}", "(".repeat(40), ")".repeat(40));
    for (body, reason) in [
        (bomb + &detection("f: a"), "not readable as YAML"),
        (detection(&deep), "not readable as YAML"),
        (detection("f: &x [*x]"), "not readable as YAML"),
        (detection(&format!("f|re: {many}")), "expressions have over 67108864 bytes"),
        (detection("f|re: '(((a{100}){100}){100}){100}'"), "over 1048576 bytes when compiled"),
        (detection("f|re: '(\\w+\\s*){5000}'"), "over 1048576 bytes when compiled"),
        (detection(&wide), "a value of 10000 bytes"),
        (detection(&format!("f: '{}'", "x".repeat(9_000))), "a value of 9000 bytes"),
        (
            detection("f: a").replace("condition: selection", &format!("condition: {brackets}")),
            "brackets",
        ),
    ] {
        let text = format!("{head}{body}---\n{good}");
        let begun = std::time::Instant::now();
        let mut loader = Loader::default();
        loader.add("dir/some.yml", &text);
        let rules = loader.finish();
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{reason}");
        assert_eq!(rules.rules().len(), 1, "{reason}");
        let [refusal] = rules.refused() else { panic!("{:?}", rules.refused()) };
        assert!(refusal.reason.contains(reason), "{refusal}");
        assert!(refusal.line.is_some() && !refusal.hint.is_empty(), "{refusal}");
        assert!(refusal.to_string().starts_with("dir/some.yml:"), "{refusal}");
    }
    // Nested quantifiers alone are no catastrophe: matching takes time in proportion to the text.
    let nested = rule("selection:\n    f|re: '^(a+)+$'\ncondition: selection");
    let rules = support::rules(&[&nested]);
    assert_eq!(rules.refused(), &[]);
    let record = json!({"f": format!("{}b", "a".repeat(100_000))});
    assert_eq!(matched(&rules, &[record]), [Vec::<u32>::new()]);
}

#[test]
fn a_refusal_names_the_line_of_what_is_wrong() {
    let bad = "title: a\nlogsource: {product: x}\n---\ntitle: b\nlogsource:\n    product: x\ndetection:\n    selection:\n        f: ok\n        g|wrong: x\n    condition: selection\n";
    let rules = support::rules(&[bad]);
    let lines: Vec<_> = rules.refused().iter().map(|refusal| refusal.line).collect();
    assert_eq!(lines, [Some(1), Some(10)]);
}

#[test]
fn types_that_yaml_gets_wrong_and_repeated_ids_are_refused() {
    let body = "logsource: {product: x}\ndetection: {selection: {f: a}, condition: selection}\n";
    for (head, reason) in [
        ("title: [a]\n", "`title` must be a text"),
        ("id: a\n", "without `title`"),
        ("title: a\nlevel: dangerous\n", "unknown `level`"),
        ("title: a\nstatus: fine\n", "unknown `status`"),
        ("title: a\ntags: {a: b}\n", "`tags` must be a list of texts"),
        ("title: a\naction: global\n", "collections of Sigma 1"),
        ("title: a\ntitle: b\n", "not readable as YAML"),
        ("title: a\n  b: [\n", "not readable as YAML"),
    ] {
        let rules = support::rules(&[&format!("{head}{body}")]);
        let [refusal] = rules.refused() else { panic!("{head} {:?}", rules.refused()) };
        assert!(refusal.reason.contains(reason), "{refusal}");
    }
    for (texts, reason) in [
        (["- a\n- b\n", ""], "a document must be a map"),
        (
            ["title: a\nlogsource: x\ndetection: {s: {f: a}, condition: s}\n", ""],
            "`logsource` must be a map",
        ),
        (["# nothing\n", ""], "no document"),
    ] {
        let rules = support::rules(&texts[..1]);
        assert!(rules.refused()[0].reason.contains(reason), "{:?}", rules.refused());
    }
    let one = format!("title: a\nid: same\nlevel: high\n{body}");
    let rules = support::rules(&[&one, &one]);
    assert_eq!(rules.rules().len(), 1);
    assert_eq!(rules.rules().next().unwrap().level, Level::High);
    assert!(rules.refused()[0].reason.contains("its id stands already in rule-0.yml"));
}

#[test]
fn filters_are_applied_to_the_rules_that_they_name() {
    let one = "title: one\nid: one\nlogsource: {product: x, category: c}\ndetection:\n    selection:\n        f: a\n    condition: selection\n";
    let two = one.replace("one", "two");
    let filter = "title: not adm\nlogsource: {product: x}\nfilter:\n    rules: [one]\n    selection:\n        user|startswith: adm_\n    condition: not selection\n";
    let rules = support::rules(&[one, &two, filter]);
    assert_eq!(rules.refused(), &[]);
    let label = json!({"product": "x", "category": "c"});
    let records = [
        json!({"f": "a", "user": "adm_1", "logsource": label}),
        json!({"f": "a", "user": "x", "logsource": label}),
    ];
    assert_eq!(matched(&rules, &records), [vec![1], vec![0, 1]]);
    let filtered: Vec<_> = rules.rules().map(|rule| rule.filters.clone()).collect();
    assert_eq!(filtered, [vec!["not adm".to_owned()], vec![]]);
    let plain = support::rules(&[one]);
    let version = |rules: &palisade_sigma::RuleSet| rules.rules().next().unwrap().version.clone();
    assert_ne!(version(&rules), version(&plain));

    let lost = filter.replace("[one]", "[three]");
    let rules = support::rules(&[one, &lost]);
    assert!(rules.refused()[0].reason.contains("for no loaded rule"));
}

#[test]
fn a_pipeline_adds_names_and_conditions_and_moves_log_sources() {
    let pipeline = "
transformations:
  - type: field_name_mapping
    mapping: {f: [my.f, other.f]}
    rule_conditions: [{type: logsource, product: x}]
  - type: add_condition
    conditions: {tier: 1}
    rule_conditions: [{type: logsource, product: x}]
  - type: change_logsource
    product: y
    rule_conditions: [{type: logsource, product: x}]
  - type: rule_failure
    message: not here
    rule_conditions: [{type: logsource, product: z}]
";
    let mut pipelines = Pipelines::none();
    pipelines.push("p.yml", pipeline).unwrap();
    let mut loader = Loader::new(pipelines);
    let text =
        "title: a\nlogsource: {product: x}\ndetection: {selection: {f: a}, condition: selection}\n";
    loader.add("a.yml", text);
    loader.add("b.yml", &text.replace("product: x", "product: z"));
    let rules = loader.finish();
    assert!(rules.refused()[0].reason.contains("not here"), "{:?}", rules.refused());
    let records = [
        json!({"logsource": {"product": "y"}, "my": {"f": "a"}, "tier": 1}),
        json!({"logsource": {"product": "y"}, "other.f": "a", "tier": 1}),
        json!({"logsource": {"product": "y"}, "f": "a", "tier": 2}),
        json!({"logsource": {"product": "x"}, "f": "a", "tier": 1}),
    ];
    assert_eq!(matched(&rules, &records), [vec![0], vec![0], vec![], vec![]]);
}
