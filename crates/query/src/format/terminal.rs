//! A result as a table for the eye.
//!
//! The widths of columns come from the first [`SAMPLE`] rows; later values that are wider are cut. Control
//! characters in values are shown as escapes: a log line must not be able to speak to the terminal.

use crate::QueryStats;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// How many rows the widths come from.
pub(super) const SAMPLE: usize = 200;
/// The narrowest that a column is cut to.
const NARROW: usize = 8;

/// Writes a table.
pub(super) struct Terminal {
    names: Vec<String>,
    right: Vec<bool>,
    width: usize,
    /// Rows kept until the widths are known.
    sample: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
    rows: u64,
}

impl Terminal {
    pub(super) fn new(schema: &SchemaRef, width: usize) -> Self {
        let fields = schema.fields();
        Self {
            names: fields.iter().map(|field| shown(field.name())).collect(),
            right: fields.iter().map(|field| field.data_type().is_numeric()).collect(),
            width: width.max(20),
            sample: Vec::new(),
            widths: None,
            rows: 0,
        }
    }

    pub(super) fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        self.rows += batch.num_rows() as u64;
        let options = FormatOptions::new()
            .with_null("")
            .with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.fZ"));
        let columns = batch
            .columns()
            .iter()
            .map(|column| Ok((column, ArrayFormatter::try_new(column.as_ref(), &options)?)))
            .collect::<Result<Vec<(&ArrayRef, ArrayFormatter<'_>)>, ArrowError>>()?;
        let mut out = String::new();
        for row in 0..batch.num_rows() {
            let mut values = Vec::with_capacity(columns.len());
            for (column, formatter) in &columns {
                let value = formatter.value(row).try_to_string()?;
                // A column without a zone would be shown as if it had one.
                let text = match column.data_type() {
                    DataType::Timestamp(_, None) => value.trim_end_matches('Z').to_owned(),
                    _ => value,
                };
                values.push(shown(&text));
            }
            if self.widths.is_some() {
                self.line(&mut out, &values);
            } else {
                self.sample.push(values);
                if self.sample.len() >= SAMPLE {
                    self.settle(&mut out);
                }
            }
        }
        Ok(out.into_bytes())
    }

    pub(super) fn finish(&mut self, stats: &QueryStats) -> Result<Vec<u8>, ArrowError> {
        let mut out = String::new();
        if self.widths.is_none() {
            self.settle(&mut out);
        }
        let rows = if self.rows == 1 { "row" } else { "rows" };
        let cut = if stats.truncated() { ", more were left out at the limit" } else { "" };
        let seconds = stats.elapsed().as_secs_f64();
        out.push_str(&format!("({} {rows} in {seconds:.3} s{cut})\n", self.rows));
        Ok(out.into_bytes())
    }

    /// Fixes the widths, and writes the names and the rows kept so far.
    fn settle(&mut self, out: &mut String) {
        let mut widths: Vec<usize> = self.names.iter().map(|name| length(name)).collect();
        for row in &self.sample {
            for (width, value) in widths.iter_mut().zip(row) {
                *width = (*width).max(length(value));
            }
        }
        // The widest columns give first until the line fits.
        let between = 3 * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + between > self.width {
            let Some(widest) = widths.iter_mut().max() else { break };
            if *widest <= NARROW {
                break;
            }
            *widest -= 1;
        }
        let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
        self.widths = Some(widths);
        let names = std::mem::take(&mut self.names);
        self.line(out, &names);
        out.push_str(&rule.join("─┼─"));
        out.push('\n');
        for row in std::mem::take(&mut self.sample) {
            self.line(out, &row);
        }
    }

    fn line(&self, out: &mut String, values: &[String]) {
        let Some(widths) = &self.widths else { return };
        let last = values.len().saturating_sub(1);
        for (index, ((value, width), right)) in
            values.iter().zip(widths).zip(&self.right).enumerate()
        {
            let value = cut(value, *width);
            let blank = " ".repeat(width.saturating_sub(length(&value)));
            if *right {
                out.push_str(&blank);
            }
            out.push_str(&value);
            if index < last {
                if !*right {
                    out.push_str(&blank);
                }
                out.push_str(" │ ");
            }
        }
        out.push('\n');
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A text without control characters and without those that turn the direction of writing.
fn shown(text: &str) -> String {
    let dangerous =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(dangerous) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if dangerous(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_speak_to_the_terminal() {
        assert_eq!(shown("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(shown("plain ä"), "plain ä");
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("äbcd", 4), "äbcd");
    }
}
