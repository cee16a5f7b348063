//! Lists of indicators: every line is taken, refused or says nothing; what was taken is the same when it is written as it
//! is shown, and is found in a row that has it.

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use palisade_detect::indicators::{Indicators, Kind, Level, List, ListSpec, Scanner};
use std::sync::Arc;

pub fn run(data: &[u8]) {
    let Ok(list) = List::parse(data) else { return };
    let lines = data.split(|byte| *byte == b'\n').count();
    assert!(list.len() + list.refused_total() <= lines);
    let values: Vec<(Kind, String)> = list.values().collect();
    let spec = ListSpec {
        tenant: None,
        name: "fuzz".to_owned(),
        level: Level::Low,
        version: String::new(),
    };
    let set = Indicators::build(vec![(spec.clone(), list)]).expect("one list");
    let mut scanner = Scanner::new();
    for (kind, value) in values.iter().take(64) {
        let named = match kind {
            Kind::Address => "ip",
            Kind::Network => "cidr",
            other => other.name(),
        };
        let again = List::parse(format!("{named},\"{}\"", value.replace('"', "\"\"")).as_bytes())
            .expect("one line");
        assert_eq!(again.values().collect::<Vec<_>>(), [(*kind, value.clone())]);
        let column = match kind {
            Kind::Address | Kind::Network => "dst_ip",
            Kind::Domain | Kind::Hostname => "url.domain",
            Kind::Url => "url",
            Kind::Md5 | Kind::Sha1 | Kind::Sha256 => "file.hash",
            Kind::Email => "user.email",
        };
        // Of a network its first address.
        let shown = value.split('/').next().filter(|_| *kind == Kind::Network).unwrap_or(value);
        let texts = Arc::new(StringArray::from(vec![shown])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([(column, texts)]).expect("a batch");
        let found = scanner.scan(&set, &batch).iter().any(|found| {
            let one = set.get(found.indicator).expect("one of the set");
            one.kind == *kind && one.value() == *value
        });
        assert!(found, "{kind:?} {value} is not found");
    }
    // Any text is a value.
    if let Ok(text) = std::str::from_utf8(data) {
        for column in ["dst_ip", "url", "file.hashes", "user.email", "dns.answers"] {
            let texts = Arc::new(StringArray::from(vec![text])) as ArrayRef;
            let batch = RecordBatch::try_from_iter([(column, texts)]).expect("a batch");
            scanner.scan(&set, &batch);
        }
    }
}
