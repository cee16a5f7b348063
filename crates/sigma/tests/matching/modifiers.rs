//! Each modifier and each word of a condition, over every representation of the record.

use crate::shapes::matches;
use serde_json::{Value, json};

/// Lines of a selection, a record, and whether it matches.
fn check(cases: &[(&str, Value, bool)]) {
    for (lines, record, expected) in cases {
        let lines: String = lines.lines().map(|line| format!("    {}\n", line)).collect();
        let detection = format!("selection:\n{lines}condition: selection");
        assert_eq!(matches(&detection, record), *expected, "{detection}\n{record}");
    }
}

#[test]
fn values_are_compared_without_case_and_with_wildcards() {
    check(&[
        ("f: 'WhoAmI'", json!({"f": "wHOaMi"}), true),
        ("f: 'whoami'", json!({"f": "whoami "}), false),
        ("f: 'who*'", json!({"f": "WHOAMI"}), true),
        ("f: 'who?mi'", json!({"f": "whoami"}), true),
        ("f: '*'", json!({"f": ""}), true),
        ("f: '*'", json!({"g": ""}), false),
        ("f: '*'", json!({"f": []}), false),
        ("f|exists: true", json!({"f": []}), true),
        ("f: ['a', 'b']", json!({"f": "B"}), true),
        ("f: 5", json!({"f": 5}), true),
        ("f: 5", json!({"f": "5"}), true),
        ("f: '5'", json!({"f": 5}), true),
        ("f: 5", json!({"f": 5.0}), true),
        ("f: 1.5", json!({"f": 1.5}), true),
        ("f: 5", json!({"f": "05"}), false),
        ("f: true", json!({"f": true}), true),
        ("f: true", json!({"f": "True"}), true),
        ("f: false", json!({"f": true}), false),
        ("f: a", json!({"f": ["x", "a"]}), true),
        ("f: a", json!({"f": ["x", {"f": "a"}]}), false),
        ("f|contains: 42", json!({"f": 4104}), false),
        ("f|contains: 10", json!({"f": 4104}), true),
        ("'f g': a", json!({"f g": "a"}), true),
        ("f: a\ng: b", json!({"f": "a", "g": "b"}), true),
        ("f: a\ng: b", json!({"f": "a", "g": "c"}), false),
        ("- f: a\n- g: b", json!({"f": "x", "g": "b"}), true),
    ]);
}

#[test]
fn beginnings_ends_and_parts() {
    check(&[
        ("f|startswith: 'ab*d'", json!({"f": "ABcDe"}), true),
        ("f|startswith: ab", json!({"f": "xab"}), false),
        ("f|endswith: '\\cmd.exe'", json!({"f": "C:\\Windows\\CMD.EXE"}), true),
        ("f|endswith: cd", json!({"f": "cde"}), false),
        ("f|contains: bc", json!({"f": "aBCd"}), true),
        ("f|contains|all: [a, c]", json!({"f": "abc"}), true),
        ("f|contains|all: [a, d]", json!({"f": "abc"}), false),
        ("f|contains|all: [a, d]", json!({"f": ["a", "d"]}), true),
        ("f|contains|cased: bC", json!({"f": "abCd"}), true),
        ("f|contains|cased: bc", json!({"f": "abCd"}), false),
        ("f|cased: Ab", json!({"f": "Ab"}), true),
        ("f|cased: Ab", json!({"f": "ab"}), false),
        ("f|cased|startswith: 'A?c'", json!({"f": "Abcd"}), true),
        ("f|startswith|cased: A", json!({"f": "a"}), false),
    ]);
}

#[test]
fn null_missing_and_empty_differ_as_the_record_model_lets_them() {
    check(&[
        ("f: null", json!({"g": 1}), true),
        ("f: null", json!({"f": null, "g": 1}), true),
        ("f: null", json!({"f": ""}), false),
        ("f: ''", json!({"f": ""}), true),
        ("f: ''", json!({"g": 1}), false),
        ("f: ['', null]", json!({"g": 1}), true),
        ("f|exists: true", json!({"f": ""}), true),
        ("f|exists: true", json!({"g": 1}), false),
        ("f|exists: false", json!({"g": 1}), true),
        ("f|exists: 'no'", json!({"f": 1}), false),
        ("f|neq: a", json!({"f": "b"}), true),
        ("f|neq: a", json!({"f": "A"}), false),
        ("f|neq: a", json!({"g": 1}), false),
        ("f|neq: [a, b]", json!({"f": "b"}), false),
        ("f|contains|neq: a", json!({"f": "xyz"}), true),
        ("f|neq: 5", json!({"f": 6}), true),
    ]);
    let negated = "selection:\n    f: a\ncondition: not selection";
    assert!(matches(negated, &json!({"g": 1})));
    assert!(!matches(negated, &json!({"f": "a"})));
}

#[test]
fn regular_expressions() {
    check(&[
        ("f|re: 'a.c'", json!({"f": "xabcx"}), true),
        ("f|re: 'a.c'", json!({"f": "ABC"}), false),
        ("f|re|i: 'a.c'", json!({"f": "ABC"}), true),
        ("f|re: '^b'", json!({"f": "a\nb"}), false),
        ("f|re|m: '^b'", json!({"f": "a\nb"}), true),
        ("f|re: 'a.b'", json!({"f": "a\nb"}), false),
        ("f|re|s: 'a.b'", json!({"f": "a\nb"}), true),
        ("f|re|i|s|m: '^A.b$'", json!({"f": "x\na\nB"}), true),
        ("f|re: ['^x', '^a']", json!({"f": "abc"}), true),
        ("f|re|all: ['a', 'd']", json!({"f": "abc"}), false),
        ("f|re: '^4\\d+$'", json!({"f": 4104}), true),
        ("f|re: 'a'", json!({"g": "a"}), false),
        ("f|re|neq: 'a'", json!({"f": "b"}), true),
    ]);
}

#[test]
fn networks_and_numbers() {
    check(&[
        ("f|cidr: 10.0.0.0/8", json!({"f": "10.2.3.4"}), true),
        ("f|cidr: [10.0.0.0/8, 'fe80::/10']", json!({"f": "fe80::1"}), true),
        ("f|cidr: 10.0.0.0/8", json!({"f": "11.2.3.4"}), false),
        ("f|cidr: 10.0.0.0/8", json!({"f": "host"}), false),
        ("f|gt: 5", json!({"f": 6}), true),
        ("f|gt: 5", json!({"f": "6.5"}), true),
        ("f|gt: 5", json!({"f": 5}), false),
        ("f|gte: 5", json!({"f": 5}), true),
        ("f|lt: 5", json!({"f": -1}), true),
        ("f|lte: 5", json!({"f": 5.5}), false),
        ("f|lt: 5", json!({"f": "abc"}), false),
        ("f|lt: 5", json!({"g": 1}), false),
        ("f|gte: 1\nf|lt: 3", json!({"f": [0, 2]}), true),
    ]);
}

#[test]
fn encodings() {
    let encode = |text: &str| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let wide: String = "echo whoami".chars().flat_map(|c| [c, '\0']).collect();
    check(&[
        ("f|base64: foobar", json!({"f": "Zm9vYmFy"}), true),
        ("f|base64|contains: foobar", json!({"f": "x Zm9vYmFy y"}), true),
        ("f|base64offset|contains: whoami", json!({"f": encode("xwhoami1")}), true),
        ("f|base64offset|contains: whoami", json!({"f": encode("xxwhoami1")}), true),
        ("f|base64offset|contains: whoami", json!({"f": encode("xwhoam1")}), false),
        ("f|wide|base64offset|contains: whoami", json!({"f": encode(&wide)}), true),
        ("f|utf16le|base64offset|contains: whoami", json!({"f": encode(&wide)}), true),
        ("f|utf16be|base64|contains: cmd", json!({"f": encode("\0c\0m\0d")}), true),
        ("f|wide: ab", json!({"f": "a\0b\0"}), true),
        ("f|contains|windash: ' -n '", json!({"f": "ping /N 5"}), true),
        ("f|contains|windash: ' -n '", json!({"f": "ping \u{2013}n 5"}), true),
        ("f|contains|windash: ' -n '", json!({"f": "ping \u{2212}n 5"}), false),
        ("f|windash|contains: ' -a -b -c -d'", json!({"f": "x /a -b \u{2014}c \u{2015}d"}), true),
        ("f|windash: '-a'", json!({"f": "/A"}), true),
    ]);
}

#[test]
fn other_fields_and_parts_of_moments() {
    check(&[
        ("f|fieldref: g", json!({"f": "A", "g": "a"}), true),
        ("f|fieldref: g", json!({"f": "a", "g": "b"}), false),
        ("f|fieldref: g", json!({"f": 1, "g": "1"}), true),
        ("f|fieldref|cased: g", json!({"f": "A", "g": "a"}), false),
        ("f|fieldref: g", json!({"f": "a"}), false),
        ("f|fieldref|startswith: g", json!({"f": "abc", "g": "AB"}), true),
        ("f|fieldref|endswith: g", json!({"f": "abc", "g": "bc"}), true),
        ("f|fieldref|contains: g", json!({"f": "abc", "g": "b"}), true),
        ("f|fieldref|contains: g", json!({"f": "abc", "g": "d"}), false),
        ("f|fieldref|neq: g", json!({"f": "a", "g": "b"}), true),
        ("f|fieldref|neq: g", json!({"f": "a", "g": "a"}), false),
        ("f|minute: 40", json!({"f": "2026-11-21T22:40:39Z"}), true),
        ("f|hour|gte: 22", json!({"f": "2026-11-21T22:40:39Z"}), true),
        ("f|hour: [1, 2]", json!({"f": "2026-11-21T22:40:39Z"}), false),
        ("f|day|lt: 22", json!({"f": "2026-11-21T22:40:39Z"}), true),
        ("f|week: 47", json!({"f": "2026-11-21T22:40:39Z"}), true),
        ("f|month|lte: 11", json!({"f": 1_795_300_000}), true),
        ("f|year|gt: 2025", json!({"f": "2026-11-21 22:40:39"}), true),
        ("f|year: 2026", json!({"f": "never"}), false),
    ]);
}

#[test]
fn keywords_stand_anywhere_in_a_record() {
    let keywords = |list: &str| format!("keywords:\n{list}\ncondition: keywords");
    for (list, record, expected) in [
        (
            "    - 'Event::Clear'\n    - 'x'",
            json!({"a": 1, "b": {"c": "do event::clear now"}}),
            true,
        ),
        ("    - 'event::clear'", json!({"event::clear": "a"}), false),
        ("    - 'a*c'", json!({"f": "xabcx"}), true),
        ("    - 'deep'", json!({"f": [{"g": ["the Deep end"]}]}), true),
        ("    - 4104", json!({"f": 4104}), true),
        ("    '|all':\n        - foo\n        - bar", json!({"f": "a foo", "g": "a bar"}), true),
        ("    '|all':\n        - foo\n        - bar", json!({"f": "a foo"}), false),
        ("    '|re': 'b.r'", json!({"f": "a bar"}), true),
        ("    - 'test'", json!({"f": "a"}), false),
        ("    - f: a\n    - word", json!({"g": "some words"}), true),
        ("    - message text", json!({"message": "A message text."}), true),
    ] {
        assert_eq!(matches(&keywords(list), &record), expected, "{list} {record}");
    }
}

#[test]
fn conditions_bind_and_choose_as_the_specification_says() {
    let detection = |condition: &str| {
        format!(
            "sel_a:\n    a: 1\nsel_b:\n    b: 1\n_hidden:\n    h: 1\nother:\n    o: 1\ncondition: {condition}"
        )
    };
    let record = |fields: &str| {
        Value::Object(fields.chars().map(|name| (name.to_string(), json!(1))).collect())
    };
    for (condition, fields, expected) in [
        ("sel_a or sel_b and other", "a", true),
        ("sel_a or sel_b and other", "b", false),
        ("(sel_a or sel_b) and other", "a", false),
        ("not sel_a and sel_b", "b", true),
        ("not (sel_a and sel_b)", "ab", false),
        ("not not sel_a", "a", true),
        ("1 of them", "h", false),
        ("1 of them", "o", true),
        ("any of them", "o", true),
        ("all of them", "abo", true),
        ("all of them", "ab", false),
        ("1 of sel_*", "o", false),
        ("1 of sel_*", "b", true),
        ("all of sel_*", "ab", true),
        ("all of sel_*", "a", false),
        ("2 of them", "ao", true),
        ("2 of them", "a", false),
        ("1 of _*", "h", true),
        ("1 of *_a and not 1 of *_b", "a", true),
        ("1 of *_a and not 1 of *_b", "ab", false),
        ("sel_a and not sel_b", "a", true),
        ("[sel_a, sel_b and other]", "bo", true),
        ("['sel_a', 'sel_b and other']", "b", false),
    ] {
        assert_eq!(
            matches(&detection(condition), &record(fields)),
            expected,
            "{condition} {fields}"
        );
    }
}
