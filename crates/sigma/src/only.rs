//! Some rules of a set, with what their correlations refer to.

use crate::load::RuleSet;
use std::collections::BTreeSet;

impl RuleSet {
    /// The rules and correlations with these ids, and those that these correlations refer to, by id or name. They keep
    /// their versions; filters were applied before.
    #[must_use]
    pub fn only(mut self, ids: &BTreeSet<String>) -> Self {
        let mut wanted = ids.clone();
        let is = |wanted: &BTreeSet<String>, id: Option<&String>, name: Option<&String>| {
            id.into_iter().chain(name).any(|called| wanted.contains(called))
        };
        loop {
            let before = wanted.len();
            for draft in &self.correlations {
                let rule = &draft.rule;
                if is(&wanted, rule.id.as_ref(), rule.name.as_ref()) {
                    wanted.extend(rule.rules.iter().cloned());
                }
            }
            if wanted.len() == before {
                break;
            }
        }
        self.rules.retain(|(rule, _)| is(&wanted, Some(&rule.id), rule.name.as_ref()));
        self.correlations
            .retain(|draft| is(&wanted, draft.rule.id.as_ref(), draft.rule.name.as_ref()));
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::{Book, Loader};

    #[test]
    fn a_correlation_brings_what_it_counts() {
        let rule = |name: &str| {
            format!(
                "title: {name}\nid: id-{name}\nname: {name}\nlogsource: {{category: x}}\ndetection: {{s: {{type: {name}}}, condition: s}}\n---\n"
            )
        };
        let over = |name: &str, below: &str| {
            format!(
                "title: {name}\nid: id-{name}\nname: {name}\ncorrelation:\n  type: event_count\n  rules: [{below}]\n  group-by: [user]\n  timespan: 1m\n  condition: {{gte: 2}}\n---\n"
            )
        };
        let text =
            [rule("a"), rule("b"), rule("c"), over("d", "a"), over("e", "d"), over("f", "b")];
        let only = |ids: &[&str]| {
            let mut loader = Loader::default();
            loader.add("rules.yml", text.concat().trim_end_matches("---\n"));
            let ids = ids.iter().map(|id| (*id).to_owned()).collect();
            let book = Book::of(loader.finish().only(&ids));
            assert!(book.refused().is_empty(), "{:?}", book.refused());
            let rules: Vec<String> = book.rules().map(|rule| rule.title.clone()).collect();
            (rules.join(" "), book.correlations().len())
        };
        assert_eq!(only(&["id-c"]), ("c".to_owned(), 0));
        assert_eq!(only(&["id-e", "id-c"]), ("a c".to_owned(), 2));
        assert_eq!(only(&["id-f"]), ("b".to_owned(), 1));
        assert_eq!(only(&["x"]), (String::new(), 0));
    }
}
