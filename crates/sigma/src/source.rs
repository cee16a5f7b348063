//! From a log source to a condition on records, by the table in `definitions/logsources.yml`.

use crate::error::Checked;
use crate::expr::Expr;
use crate::lower;
use crate::pipeline::{self, Pipelines};
use crate::rule::LogSource;
use crate::yaml::{self, Document, Node, Value};

const TABLE: &str = include_str!("../definitions/logsources.yml");

/// Which records belong to which log source.
#[derive(Debug)]
pub(crate) struct Sources {
    entries: Vec<(LogSource, Node)>,
}

impl Sources {
    /// The shipped table.
    pub(crate) fn shipped() -> Checked<Self> {
        let table = yaml::read(Document { text: TABLE, before: 0 })?;
        let Value::List(rows) = table.value else { return Ok(Self { entries: Vec::new() }) };
        let mut entries = Vec::new();
        for row in rows {
            let source = pipeline::log_source(&row)?;
            if let Some(when) = row.get("when") {
                entries.push((source, when.clone()));
            }
        }
        Ok(Self { entries })
    }

    /// The condition on records of a log source; `None` when every record is meant.
    pub(crate) fn condition(
        &self,
        source: &LogSource,
        pipelines: &Pipelines,
    ) -> Checked<Option<Expr>> {
        let named = [
            ("logsource.product", &source.product),
            ("logsource.category", &source.category),
            ("logsource.service", &source.service),
        ];
        let labels: Vec<(&str, &str)> = named
            .into_iter()
            .filter_map(|(field, value)| value.as_deref().map(|value| (field, value)))
            .collect();
        if labels.is_empty() {
            return Ok(None);
        }
        let context = pipelines.context(&LogSource::default())?;
        let map = |members: &[(&str, &str)]| Node {
            line: 0,
            value: Value::Map(
                members
                    .iter()
                    .map(|(field, value)| {
                        let value = value.replace(['*', '?'], "");
                        ((*field).to_owned(), Node { line: 0, value: Value::Text(value) })
                    })
                    .collect(),
            ),
        };
        let mut any = vec![lower::selection(&map(&labels), &context, "logsource")?];
        let mut known = false;
        for (_, when) in self.entries.iter().filter(|(entry, _)| source.covers(entry)) {
            known = true;
            let condition = lower::selection(when, &context, "when")?;
            if !any.contains(&condition) {
                any.push(condition);
            }
        }
        if !known {
            // Where the table knows nothing, the names that shippers give decide.
            let product = source.product.as_deref().unwrap_or_default();
            let last = source.service.as_deref().or(source.category.as_deref());
            let whole = match last {
                Some(last) if !product.is_empty() => format!("{product}.{last}"),
                _ => last.unwrap_or(product).to_owned(),
            };
            for field in ["event.dataset", "palisade.source"] {
                any.push(lower::selection(&map(&[(field, &whole)]), &context, "logsource")?);
            }
            if last.is_none() {
                any.push(lower::selection(
                    &map(&[("event.module", product)]),
                    &context,
                    "logsource",
                )?);
            }
        }
        Ok(Some(Expr::any(any)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_the_table_reads() {
        let sources = Sources::shipped().unwrap();
        assert!(sources.entries.len() > 100);
        for (source, _) in &sources.entries {
            sources.condition(source, &Pipelines::shipped()).unwrap();
        }
    }
}
