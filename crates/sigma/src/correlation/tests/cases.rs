//! Random correlations and records, from a seed.

use crate::correlation::*;
use palisade_event::time::SECOND;
use palisade_event::{RecordId, slot::SLOTS};

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(super) fn between(&mut self, from: i64, to: i64) -> i64 {
        from + self.below((to - from + 1) as u64) as i64
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}

/// A cut, in the middle of what happens.
pub(super) const CUT: i64 = 20_000 * 86_400 * SECOND;

pub(super) fn base_rules() -> Vec<BaseRule> {
    (0..4)
        .map(|number| BaseRule {
            id: format!("rule-{number}"),
            name: Some(format!("r{number}")),
            version: Version([number; 32]),
        })
        .collect()
}

fn comparison(random: &mut Random, most: i64) -> String {
    let number = random.between(1, most);
    match random.below(10) {
        0..=3 => format!("gte: {number}"),
        4 => format!("gt: {}", number - 1),
        5 => format!("eq: {number}"),
        6 => format!("neq: {number}"),
        7 => format!("lt: {number}"),
        8 => format!("lte: {number}"),
        _ => format!("gt: {}\n    lte: {}", number - 1, number + 1),
    }
}

/// One correlation as YAML; `below` are those that it may read: name and group-by.
fn correlation(
    random: &mut Random,
    number: usize,
    below: &[(String, Vec<&str>)],
) -> (String, (String, Vec<&'static str>)) {
    let name = format!("c{number}");
    let mut rules: Vec<String> = (0..4).map(|number| format!("r{number}")).collect();
    while rules.len() > 1 && random.chance(45) {
        rules.remove(random.below(rules.len() as u64) as usize);
    }
    let mut group: Vec<&str> = random
        .pick(&[vec!["user"], vec!["user"], vec!["user", "host"], vec!["host"], vec![]])
        .clone();
    let mut chained = false;
    if !below.is_empty() && random.chance(50) {
        let (of, fields) = random.pick(below).clone();
        group.retain(|field| fields.contains(field));
        rules.truncate(2);
        rules.insert(random.below(rules.len() as u64 + 1) as usize, of);
        rules.truncate(1 + random.below(3) as usize);
        chained = true;
    }
    let kind = random.below(if chained { 8 } else { 12 });
    let (kind, condition) = match kind {
        0..=2 => ("event_count", format!("condition:\n    {}", comparison(random, 4))),
        3 => ("temporal", String::new()),
        4 => {
            let list: Vec<String> = rules
                .iter()
                .map(|rule| if random.chance(25) { format!("not {rule}") } else { rule.clone() })
                .collect();
            (
                "temporal",
                format!(
                    "condition: {}",
                    list.join(if random.chance(50) { " and " } else { " or " })
                ),
            )
        }
        5 => {
            let count = rules.len() as i64;
            ("temporal", format!("condition:\n    gte: {}", random.between(1, count)))
        }
        6 => ("temporal_ordered", String::new()),
        7 if rules.len() > 1 => {
            let not: Vec<String> = rules[1..].iter().map(|rule| format!("not {rule}")).collect();
            ("temporal_ordered", format!("condition: {} and {}", rules[0], not.join(" and ")))
        }
        7 => ("temporal_ordered", String::new()),
        8 => ("value_count", format!("condition:\n    field: item\n    {}", comparison(random, 4))),
        9 => {
            ("value_sum", format!("condition:\n    field: amount\n    {}", comparison(random, 30)))
        }
        10 => {
            ("value_avg", format!("condition:\n    field: amount\n    {}", comparison(random, 10)))
        }
        _ => (
            "value_percentile",
            format!(
                "condition:\n    field: amount\n    percentile: {}\n    {}",
                random.pick::<u8>(&[0, 10, 50, 90, 100]),
                comparison(random, 10)
            ),
        ),
    };
    let yaml = format!(
        "title: {name}\nname: {name}\nid: id-{name}\nlateness: {}s\npatience: {}s\ncorrelation:\n  type: {kind}\n  rules: [{}]\n  group-by: [{}]\n  timespan: {}s\n  {condition}\n",
        random.between(0, 4),
        random.between(0, 6),
        rules.join(", "),
        group.join(", "),
        random.between(1, 9),
    );
    (yaml, (name, group))
}

pub(super) fn correlations(random: &mut Random) -> (Vec<String>, Correlations) {
    let mut below = Vec::new();
    let mut yaml = Vec::new();
    for number in 0..random.between(1, 4) as usize {
        let (text, of) = correlation(random, number, &below);
        yaml.push(text);
        below.push(of);
    }
    let set = read(&yaml);
    (yaml, set)
}

pub(super) fn read(yaml: &[String]) -> Correlations {
    let files: Vec<(&str, &str)> = yaml.iter().map(|text| ("test.yml", text.as_str())).collect();
    let resolved = Correlations::read(&files, &base_rules(), Defaults::default());
    assert!(resolved.refused.is_empty(), "{:#?}\n{}", resolved.refused, yaml.join("---\n"));
    resolved.correlations
}

/// A record, and the base rules that it matches.
#[derive(Debug, Clone)]
pub(super) struct Matched {
    pub(super) id: RecordId,
    pub(super) time: i64,
    pub(super) clock: i64,
    pub(super) tenant: &'static str,
    pub(super) domain: &'static str,
    pub(super) user: Option<&'static str>,
    pub(super) host: &'static str,
    pub(super) item: &'static str,
    pub(super) amount: String,
    pub(super) rules: Vec<usize>,
}

impl Matched {
    fn field(&self, name: &str) -> Option<&[u8]> {
        match name {
            "user" => self.user.map(str::as_bytes),
            "host" => Some(self.host.as_bytes()),
            "item" => Some(self.item.as_bytes()),
            "amount" => Some(self.amount.as_bytes()),
            _ => None,
        }
    }

    /// Its hits, in order.
    pub(super) fn hits(&self, set: &Correlations) -> Vec<Owned> {
        let mut hits = Vec::new();
        for rule in &self.rules {
            for (place, input) in set.readers_of_rule(*rule) {
                let correlation = set.get(place).unwrap();
                let Input { group_fields, value_fields, .. } =
                    &correlation.inputs[usize::from(input)];
                let values = group_fields.iter().map(|field| self.field(field));
                let Some(group) = group_key(values) else { continue };
                let value = match correlation.measure {
                    Measure::Values { .. } => {
                        value_hash(value_fields.iter().map(|field| self.field(field)))
                    }
                    _ if correlation.measure.has_value() => {
                        self.field(&value_fields[0]).map_or(Value::None, number)
                    }
                    _ => Value::None,
                };
                hits.push(Owned {
                    correlation: place,
                    input,
                    tenant: self.tenant.to_owned(),
                    domain: self.domain.to_owned(),
                    group,
                    record: self.id,
                    time: self.time,
                    clock: self.clock,
                    value,
                    kind: HitKind::Record,
                });
            }
        }
        hits
    }
}

/// A hit that owns its parts.
#[derive(Debug, Clone)]
pub(super) struct Owned {
    pub(super) correlation: usize,
    pub(super) input: u16,
    pub(super) tenant: String,
    pub(super) domain: String,
    pub(super) group: Vec<u8>,
    pub(super) record: RecordId,
    pub(super) time: i64,
    pub(super) clock: i64,
    pub(super) value: Value,
    pub(super) kind: HitKind,
}

impl Owned {
    pub(super) fn of(hit: &Hit<'_>) -> Self {
        Self {
            correlation: hit.correlation,
            input: hit.input,
            tenant: hit.tenant.to_owned(),
            domain: hit.domain.to_owned(),
            group: hit.group.to_vec(),
            record: hit.record,
            time: hit.time,
            clock: hit.clock,
            value: hit.value,
            kind: hit.kind,
        }
    }

    pub(super) fn hit(&self) -> Hit<'_> {
        Hit {
            correlation: self.correlation,
            input: self.input,
            tenant: &self.tenant,
            domain: &self.domain,
            slot: group_slot(&self.tenant, &self.group, SLOTS),
            group: &self.group,
            record: self.record,
            time: self.time,
            clock: self.clock,
            value: self.value,
            kind: self.kind,
        }
    }
}

pub(super) fn records(random: &mut Random) -> Vec<Matched> {
    // Sometimes one large group, whose window is kept.
    let large = random.chance(8);
    let count = if large { random.between(80, 250) } else { random.between(1, 60) };
    let reach = random.between(2, 40) * 2;
    (0..count)
        .map(|_| {
            let time = CUT + random.between(-reach, reach) * SECOND / 2;
            let delay = random.between(-2, 9) * SECOND / 2;
            let mut rules: Vec<usize> = vec![random.below(4) as usize];
            if random.chance(25) {
                rules.push(random.below(4) as usize);
            }
            rules.sort_unstable();
            rules.dedup();
            Matched {
                id: RecordId(u128::from(random.next() % 1_000).to_be_bytes()),
                time,
                clock: time + delay,
                tenant: if random.chance(85) { "acme" } else { "umbrella" },
                domain: if random.chance(85) { "live" } else { "load:1" },
                user: *random.pick::<Option<&str>>(&[
                    Some("alice"),
                    Some("Alice "),
                    Some("bob"),
                    None,
                ]),
                host: if large || random.chance(50) { "web" } else { "db" },
                item: random.pick::<&str>(&["a", "b", "c", "d", "e"]),
                amount: match random.below(10) {
                    0 => "none".to_owned(),
                    1 => format!("{}.5", random.between(0, 12)),
                    2 => format!("-{}", random.between(0, 9)),
                    _ => random.between(0, 20).to_string(),
                },
                rules,
            }
        })
        .collect()
}
