//! Laws of the matcher, for rules and records that nobody thought of.

use crate::shapes::{matched, rule};
use crate::support;
use palisade_sigma::Hits;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Texts of these characters.
fn text(
    of: &str,
    length: std::ops::RangeInclusive<usize>,
) -> impl Strategy<Value = String> + use<> {
    let of: Vec<char> = of.chars().collect();
    prop::collection::vec(prop::sample::select(of), length)
        .prop_map(|characters| characters.into_iter().collect())
}

/// Values that rules and records are likely to share.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "a", "b", "ab", "aB", "ba", "", "Ä", "4104", "1.5", "true", "10.1.2.3", "/a", "-a b"
        ])
        .prop_map(str::to_owned),
        text("abAB/\\. -", 0..=5),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => word().prop_map(Value::from),
        1 => (0..3i64).prop_map(|number| if number == 0 { json!(4104) } else { json!(number) }),
        1 => prop::sample::select(vec![json!(1.5), json!(true), json!(false), json!(null)]),
        1 => prop::collection::vec(word(), 0..3).prop_map(Value::from),
    ]
}

fn record() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(
        prop::sample::select(vec!["f", "g", "h", "user", "host.name", "message"])
            .prop_map(str::to_owned),
        value(),
        1..5,
    )
    .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>()))
}

fn line() -> impl Strategy<Value = String> {
    let field = prop::sample::select(vec!["f", "g", "h", "user", "host.name", "message"]);
    let modifiers = prop::sample::select(vec![
        "",
        "|contains",
        "|startswith",
        "|endswith",
        "|cased",
        "|contains|cased",
        "|contains|all",
        "|neq",
        "|windash",
        "|base64",
        "|base64offset|contains",
        "|contains|windash",
    ]);
    let pattern = prop_oneof![word(), text("ab*?", 1..=4)]
        .prop_map(|text| json!(text.replace('\\', "\\\\")).to_string());
    let texts = (field.clone(), modifiers, prop::collection::vec(pattern, 2..4)).prop_map(
        |(field, modifiers, values)| {
            let values: Vec<String> = values
                .into_iter()
                .map(|value| {
                    if modifiers.contains("base64") {
                        value.replace(['*', '?'], "x").replace("\"\"", "\"xy\"")
                    } else {
                        value
                    }
                })
                .collect();
            let values: Vec<String> = values
                .into_iter()
                .map(|value| {
                    if modifiers.contains("offset") {
                        format!("\"xy{}", &value[1..])
                    } else {
                        value
                    }
                })
                .collect();
            format!("{field}{modifiers}: [{}]", values.join(", "))
        },
    );
    let others = (
        field,
        prop::sample::select(vec![
            ": null",
            "|exists: true",
            "|exists: false",
            "|re: '[aA]b?$'",
            "|re|i: '^AB'",
            "|cidr: 10.0.0.0/8",
            "|gt: 1",
            "|lte: 4104",
            "|fieldref: g",
            "|fieldref|contains: f",
            ": 4104",
        ]),
    )
        .prop_map(|(field, rest)| format!("{field}{rest}"));
    prop_oneof![3 => texts, 2 => others]
}

fn detection() -> impl Strategy<Value = String> {
    let condition = prop::sample::select(vec![
        "s1",
        "not s1",
        "s1 and not s2",
        "s1 or s2",
        "not (s1 or s2)",
        "not (s1 and s2)",
        "1 of s*",
        "all of s*",
        "s1 and (s2 or k)",
        "k",
        "2 of them",
        "not 1 of s*",
    ]);
    let keywords = prop::collection::vec(text("ab", 1..=3), 1..3);
    (line(), line(), line(), keywords, condition).prop_map(
        |(one, two, three, keywords, condition)| {
            let two = if one.split(':').next() == two.split(':').next() {
                "unheard: 1".to_owned()
            } else {
                two
            };
            let keywords: String =
                keywords.iter().map(|word| format!("    - '{word}'\n")).collect();
            format!(
                "s1:\n    {one}\n    {two}\ns2:\n    {three}\nk:\n{keywords}condition: {condition}"
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn representations_and_plain_evaluation_agree(
        detections in prop::collection::vec(detection(), 1..6),
        records in prop::collection::vec(record(), 1..6),
    ) {
        let texts: Vec<String> = detections.iter().map(|detection| rule(detection)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let rules = support::rules(&texts);
        // Rules without an id that are the same text have the same id.
        prop_assert!(rules.refused().iter().all(|refusal| refusal.reason.contains("stands already")), "{:?}", rules.refused());
        matched(&rules, &records);
    }

    #[test]
    fn where_a_batch_is_split_changes_nothing(
        detections in prop::collection::vec(detection(), 1..6),
        records in prop::collection::vec(record(), 2..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let texts: Vec<String> = detections.iter().map(|detection| rule(detection)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let matcher = support::rules(&texts).matcher();
        let body = |records: &[Value]| {
            records.iter().map(|record| format!("{record}\n")).collect::<String>().into_bytes()
        };
        let mut hits = Hits::new();
        let mut of = |records: &[Value]| -> Vec<Vec<u32>> {
            matcher.matches(&support::batch(&body(records)), &mut hits);
            (0..records.len()).map(|row| hits.of(row).to_vec()).collect()
        };
        let whole = of(&records);
        let (one, two) = records.split_at(cut.index(records.len()));
        let mut parts = of(one);
        parts.extend(of(two));
        prop_assert_eq!(whole, parts);
        // A slice of a batch as it stands.
        let batch = support::batch(&body(&records));
        let from = cut.index(records.len());
        let mut hits = Hits::new();
        matcher.matches(&batch.slice(from, records.len() - from), &mut hits);
        for (row, expected) in of(&records)[from..].iter().enumerate() {
            prop_assert_eq!(hits.of(row), expected.as_slice());
        }
    }
}
