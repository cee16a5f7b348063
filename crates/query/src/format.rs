//! Writing results: JSON, JSON lines, CSV, an Arrow stream, or a table for a terminal, batch by batch.
//! Never more than one batch (for a terminal: the first [`terminal::SAMPLE`] rows) is kept.
//!
//! Times are RFC 3339 with microseconds where they have them. In JSON a null is written as `null`, and
//! a number that is not finite too; bytes are hexadecimal. In CSV a null is empty, a list is JSON.
//!
//! | format | shape |
//! |---|---|
//! | [`Format::Json`] | an array of objects |
//! | [`Format::JsonRows`] | `{"columns":[{"name","type"}],"rows":[[…]],"row_count":n,"truncated":b,"seconds":s}` |
//! | [`Format::JsonLines`] | an object a line |
//! | [`Format::Csv`] | RFC 4180 with a line of names |
//! | [`Format::Arrow`] | the Arrow IPC stream format |
//! | [`Format::Table`] | columns for the eye |

mod terminal;

use crate::{QueryError, QueryStats};
use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::StructMode;
use arrow::json::writer::{JsonArray, JsonFormat, LineDelimited, Writer, WriterBuilder};
use std::str::FromStr;
use std::sync::Arc;
use terminal::Terminal;

/// How a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An array of objects.
    Json,
    /// Columns, and rows as arrays.
    JsonRows,
    /// An object a line.
    JsonLines,
    /// Comma-separated values with a line of names.
    Csv,
    /// The Arrow IPC stream format.
    Arrow,
    /// A table of this width at most, in characters.
    Table(usize),
}

impl Format {
    /// The media type of the format.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json | Self::JsonRows => "application/json",
            Self::JsonLines => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Table(_) => "text/plain; charset=utf-8",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "json" => Self::Json,
            "json-rows" | "rows" => Self::JsonRows,
            "jsonl" | "ndjson" | "json-lines" => Self::JsonLines,
            "csv" => Self::Csv,
            "arrow" => Self::Arrow,
            "table" => Self::Table(160),
            other => {
                return Err(format!(
                    "there is no format '{other}': use json, json-rows, jsonl, csv, arrow or table"
                ));
            }
        })
    }
}

/// Writes one result.
pub struct Encoder {
    schema: SchemaRef,
    rows: u64,
    kind: Kind,
}

enum Kind {
    Objects(Writer<Vec<u8>, JsonArray>),
    Rows(Writer<Vec<u8>, JsonArray>),
    Lines(Writer<Vec<u8>, LineDelimited>),
    /// Whether the names were written.
    Csv(bool),
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Table(Box<Terminal>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("rows", &self.rows).finish_non_exhaustive()
    }
}

fn wrong(error: ArrowError) -> QueryError {
    QueryError::Failed(format!("the result cannot be written: {error}"))
}

fn json<F: JsonFormat>(mode: StructMode) -> Writer<Vec<u8>, F> {
    WriterBuilder::new().with_explicit_nulls(true).with_struct_mode(mode).build(Vec::new())
}

impl Encoder {
    /// A writer of results with these columns.
    ///
    /// # Errors
    /// [`QueryError::Failed`] when the format cannot hold a column's type.
    pub fn new(format: Format, schema: &SchemaRef) -> Result<Self, QueryError> {
        let kind = match format {
            Format::Json => Kind::Objects(json(StructMode::ObjectOnly)),
            Format::JsonRows => Kind::Rows(json(StructMode::ListOnly)),
            Format::JsonLines => Kind::Lines(json(StructMode::ObjectOnly)),
            Format::Csv => Kind::Csv(false),
            Format::Arrow => {
                let writer = StreamWriter::try_new(Vec::new(), schema).map_err(wrong)?;
                Kind::Arrow(Box::new(writer))
            }
            Format::Table(width) => Kind::Table(Box::new(Terminal::new(schema, width))),
        };
        Ok(Self { schema: Arc::clone(schema), rows: 0, kind })
    }

    /// What comes before the first batch.
    #[must_use]
    pub fn start(&mut self) -> Vec<u8> {
        match &mut self.kind {
            Kind::Rows(_) => {
                let columns: Vec<serde_json::Value> = self
                    .schema
                    .fields()
                    .iter()
                    .map(|field| {
                        serde_json::json!({
                            "name": field.name(),
                            "type": type_name(field.data_type()),
                        })
                    })
                    .collect();
                let columns = serde_json::Value::Array(columns);
                format!("{{\"columns\":{columns},\"rows\":").into_bytes()
            }
            Kind::Arrow(writer) => std::mem::take(writer.get_mut()),
            Kind::Objects(_) | Kind::Lines(_) | Kind::Csv(_) | Kind::Table(_) => Vec::new(),
        }
    }

    /// A batch.
    ///
    /// # Errors
    /// [`QueryError::Failed`] when a value cannot be written.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, QueryError> {
        self.rows += batch.num_rows() as u64;
        match &mut self.kind {
            Kind::Objects(writer) | Kind::Rows(writer) => {
                writer.write(batch).map_err(wrong)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Kind::Lines(writer) => {
                writer.write(batch).map_err(wrong)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Kind::Csv(named) => {
                let header = !std::mem::replace(named, true);
                csv_lines(batch, header).map_err(wrong)
            }
            Kind::Arrow(writer) => {
                writer.write(batch).map_err(wrong)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Kind::Table(terminal) => terminal.batch(batch).map_err(wrong),
        }
    }

    /// What comes after the last batch.
    ///
    /// # Errors
    /// [`QueryError::Failed`] when the end cannot be written.
    pub fn finish(&mut self, stats: &QueryStats) -> Result<Vec<u8>, QueryError> {
        match &mut self.kind {
            Kind::Objects(writer) => {
                writer.finish().map_err(wrong)?;
                let mut end = std::mem::take(writer.get_mut());
                end.push(b'\n');
                Ok(end)
            }
            Kind::Rows(writer) => {
                writer.finish().map_err(wrong)?;
                let mut end = std::mem::take(writer.get_mut());
                let rest = format!(
                    ",\"row_count\":{},\"truncated\":{},\"seconds\":{:.6}}}\n",
                    self.rows,
                    stats.truncated(),
                    stats.elapsed().as_secs_f64()
                );
                end.extend_from_slice(rest.as_bytes());
                Ok(end)
            }
            Kind::Lines(writer) => {
                writer.finish().map_err(wrong)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            // Names are written even when there was no row.
            Kind::Csv(true) => Ok(Vec::new()),
            Kind::Csv(false) => {
                csv_lines(&RecordBatch::new_empty(Arc::clone(&self.schema)), true).map_err(wrong)
            }
            Kind::Arrow(writer) => {
                writer.finish().map_err(wrong)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Kind::Table(terminal) => terminal.finish(stats).map_err(wrong),
        }
    }
}

fn csv_lines(batch: &RecordBatch, header: bool) -> Result<Vec<u8>, ArrowError> {
    let mut out = Vec::new();
    csv::WriterBuilder::new().with_header(header).build(&mut out).write(&flat(batch)?)?;
    Ok(out)
}

/// The batch with nested columns as JSON texts, which is all that CSV can hold of them.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    if !batch.schema().fields().iter().any(|field| field.data_type().is_nested()) {
        return Ok(batch.clone());
    }
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() {
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(Arc::new(json_texts(field, column)?));
        } else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Each value of a column as a JSON text.
fn json_texts(field: &Field, column: &ArrayRef) -> Result<StringArray, ArrowError> {
    let schema = Arc::new(Schema::new(vec![field.clone()]));
    let one = RecordBatch::try_new(schema, vec![Arc::clone(column)])?;
    let mut writer: Writer<Vec<u8>, LineDelimited> = json(StructMode::ListOnly);
    writer.write(&one)?;
    writer.finish()?;
    let lines = String::from_utf8(writer.into_inner())
        .map_err(|error| ArrowError::JsonError(error.to_string()))?;
    // Every line is an array of the one column.
    let values = lines.lines().map(|line| line.strip_prefix('[')?.strip_suffix(']'));
    let texts: StringArray = values
        .enumerate()
        .map(|(row, value)| if column.is_null(row) { None } else { value })
        .collect();
    Ok(texts)
}

/// What a column holds, in the words of the documentation.
#[must_use]
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Dictionary(_, values) => type_name(values),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => "timestamp_ns".to_owned(),
        DataType::Timestamp(_, _) => "timestamp".to_owned(),
        DataType::Binary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "bytes".to_owned()
        }
        DataType::List(item) | DataType::LargeList(item) => {
            format!("list<{}>", type_name(item.data_type()))
        }
        other => other.to_string().to_lowercase(),
    }
}
