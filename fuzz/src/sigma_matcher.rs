//! The matcher of rules: for rules of a small grammar and any records it finds what plain evaluation finds.

use crate::{CTX, limits};
use palisade_event::decode::FrameBuilder;
use palisade_sigma::{Hits, Loader};

/// Fields that rules and records share.
const FIELDS: [&str; 6] = ["f", "g", "user", "host.name", "message", "src_ip"];
const MODIFIERS: [&str; 16] = [
    "",
    "|contains",
    "|startswith",
    "|endswith",
    "|cased",
    "|contains|all",
    "|neq",
    "|windash",
    "|base64offset|contains",
    "|re",
    "|re|i",
    "|cidr",
    "|gt",
    "|exists",
    "|fieldref",
    "|contains|cased",
];
const CONDITIONS: [&str; 8] = [
    "s0",
    "not s0",
    "s0 and not s1",
    "s0 or s1",
    "1 of s*",
    "all of s*",
    "not (s0 and s1)",
    "s1 and (s0 or not s2)",
];

/// Numbers and texts out of bytes.
struct Draws<'a>(&'a [u8]);

impl<'a> Draws<'a> {
    fn number(&mut self, below: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % below
    }

    fn text(&mut self) -> String {
        let length = self.number(12).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8_lossy(text).replace(|c: char| c.is_control(), " ")
    }
}

fn rule(draws: &mut Draws<'_>) -> String {
    let mut text = "title: fuzz\nlogsource: {}\ndetection:\n".to_owned();
    for selection in 0..3 {
        text.push_str(&format!("    s{selection}:\n"));
        let field = FIELDS[draws.number(FIELDS.len())];
        let modifier = MODIFIERS[draws.number(MODIFIERS.len())];
        let values: Vec<String> = (0..1 + draws.number(3))
            .map(|_| serde_json::to_string(&draws.text()).expect("a text is JSON"))
            .collect();
        let value = match modifier {
            "|exists" => "true".to_owned(),
            "|gt" => draws.number(256).to_string(),
            "|fieldref" => FIELDS[draws.number(FIELDS.len())].to_owned(),
            _ => format!("[{}]", values.join(", ")),
        };
        text.push_str(&format!("        {field}{modifier}: {value}\n"));
    }
    let condition = CONDITIONS[draws.number(CONDITIONS.len())];
    text.push_str(&format!("    condition: {condition}\n"));
    text
}

pub fn run(data: &[u8]) {
    let mut draws = Draws(data);
    let mut loader = Loader::default();
    for number in 0..1 + draws.number(4) {
        loader.add(&format!("{number}.yml"), &rule(&mut draws));
    }
    let set = loader.finish();
    let mut body = Vec::new();
    for _ in 0..1 + draws.number(6) {
        let mut record = serde_json::Map::new();
        for _ in 0..1 + draws.number(4) {
            let field = FIELDS[draws.number(FIELDS.len())];
            let value = match draws.number(5) {
                0 => serde_json::json!(draws.number(256)),
                1 => serde_json::json!([draws.text(), draws.text()]),
                2 => serde_json::json!(null),
                _ => serde_json::json!(draws.text()),
            };
            record.insert(field.to_owned(), value);
        }
        body.extend(serde_json::to_vec(&record).expect("a record is JSON"));
        body.push(b'\n');
    }
    let mut frame = FrameBuilder::new(limits());
    frame.push_json_body(&CTX, &body);
    let Some(batch) = frame.finish() else { return };
    let matcher = set.matcher();
    let mut hits = Hits::new();
    matcher.matches(&batch, &mut hits);
    let found: Vec<Vec<u32>> = (0..batch.num_rows()).map(|row| hits.of(row).to_vec()).collect();
    assert_eq!(found, matcher.matches_plainly(&batch));
}
