//! One revision of an alert, as read from rows of the table `alerts`.

use arrow::array::{Array, AsArray, BooleanArray, ListArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Int32Type, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The most ids of records that are kept of an alert; `evidence_total` tells how many there are.
pub const MAX_EVIDENCE: usize = 100;
/// The most entries of every other list that are kept.
pub const MAX_ENTRIES: usize = 50;
/// The longest text that is kept, in bytes.
pub const MAX_TEXT: usize = 4096;

/// How bad it is, from harmless to worst.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For the record.
    Informational,
    /// Look when there is time.
    #[default]
    Low,
    /// Look today.
    Medium,
    /// Look now.
    High,
    /// Wake somebody.
    Critical,
}

impl Severity {
    /// All, from harmless to worst.
    pub const ALL: [Self; 5] =
        [Self::Informational, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The name in rows and configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The severity of a name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == name)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a revision says of its alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It stands.
    #[default]
    Open,
    /// It was taken back (I2).
    Retracted,
}

impl State {
    /// The name in rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Retracted => "retracted",
        }
    }
}

/// What kind of thing an entity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntityKind {
    /// A user's name.
    User,
    /// A machine's name.
    Host,
    /// A source address.
    Address,
}

impl EntityKind {
    /// The name in the interface.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Host => "host",
            Self::Address => "address",
        }
    }
}

/// Whom an alert is about. Names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entity {
    /// User, host or address.
    pub kind: EntityKind,
    /// Its name.
    pub name: String,
}

impl Entity {
    /// An entity; its name is lowered.
    #[must_use]
    pub fn new(kind: EntityKind, name: &str) -> Self {
        Self { kind, name: name.to_lowercase() }
    }
}

/// One revision of an alert. Times are microseconds since the epoch. Lists and texts are bounded
/// ([`MAX_EVIDENCE`], [`MAX_ENTRIES`], [`MAX_TEXT`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[allow(missing_docs, reason = "the table in palisade_event::schema tells what each is")]
pub struct Alert {
    pub tenant: String,
    pub position: u64,
    pub id: String,
    pub revision: u32,
    #[serde(default)]
    pub state: State,
    pub time: i64,
    pub ingest_time: i64,
    pub first_time: i64,
    pub last_time: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    pub detector: String,
    pub rule_id: String,
    pub rule_version: String,
    pub title: String,
    pub severity: Severity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// How many records are the evidence, also those that are not listed.
    #[serde(default)]
    pub evidence_total: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_key: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    #[serde(default)]
    pub historical: bool,
    #[serde(default)]
    pub incomplete: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<String>,
}

impl Alert {
    /// The idempotency key of every notification about this revision: `<alert id>-<revision>`. It
    /// has no full stop, as Standard Webhooks asks.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}-{}", self.id, self.revision)
    }

    /// Where it stands in the order in which alerts are read.
    #[must_use]
    pub fn place(&self) -> (u64, &str, u32) {
        (self.position, &self.id, self.revision)
    }

    /// The group of I2: the rule's own, else the user, else the source address.
    #[must_use]
    pub fn group(&self) -> &str {
        let named = self.group_key.as_deref().or(self.user.as_deref());
        named.or(self.src_ip.as_deref()).unwrap_or("")
    }

    /// Whom it is about.
    #[must_use]
    pub fn entities(&self) -> Vec<Entity> {
        [
            (EntityKind::User, &self.user),
            (EntityKind::Host, &self.host),
            (EntityKind::Address, &self.src_ip),
        ]
        .into_iter()
        .filter_map(|(kind, name)| {
            name.as_deref().filter(|name| !name.is_empty()).map(|name| Entity::new(kind, name))
        })
        .collect()
    }

    /// The value of a field that matched (`name=value` in `fields`).
    pub fn matched(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields.iter().filter_map(move |field| {
            field.split_once('=').filter(|(own, _)| *own == name).map(|(_, value)| value)
        })
    }

    /// Reads the rows of a batch of `alerts`, whichever of its columns there are; also those that a
    /// query gives.
    ///
    /// # Errors
    /// When a column is of a kind that cannot be read as the table's.
    pub fn read(batch: &RecordBatch) -> Result<Vec<Self>, ArrowError> {
        let columns = Columns { batch };
        let text = |name| columns.text(name);
        let (tenant, id, detector) = (text("tenant")?, text("alert_id")?, text("detector")?);
        let (rule_id, rule_version) = (text("rule_id")?, text("rule_version")?);
        let (title, severity, state) = (text("title")?, text("severity")?, text("state")?);
        let (user, host, src_ip) = (text("user")?, text("host")?, text("src_ip")?);
        let (domain, event_id) = (text("domain")?, text("event_id")?);
        let (author, licence) = (text("author")?, text("licence")?);
        let (group_key, supersedes) = (text("group_key")?, text("supersedes")?);
        let micros = |name| columns.number(name, &DataType::Int64);
        let (time, ingest_time) = (micros("time")?, micros("ingest_time")?);
        let (first_time, last_time) = (micros("first_time")?, micros("last_time")?);
        let position = columns.number("position", &DataType::UInt64)?;
        let revision = columns.number("revision", &DataType::Int32)?;
        let score = columns.number("score", &DataType::Float32)?;
        let list = |name| columns.list(name);
        let (evidence, reasons) = (list("evidence")?, list("reasons")?);
        let (tags, fields) = (list("tags")?, list("fields")?);
        let (historical, incomplete) = (columns.flag("historical")?, columns.flag("incomplete")?);

        let mut alerts = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let text = |column: &Option<StringArray>| {
                let column = column.as_ref().filter(|column| column.is_valid(row))?;
                Some(cut(column.value(row)))
            };
            let must = |column: &Option<StringArray>| text(column).unwrap_or_default();
            let micros = |column: &Option<arrow::array::ArrayRef>| {
                let column = column.as_ref().filter(|column| column.is_valid(row));
                column.map_or(0, |column| column.as_primitive::<Int64Type>().value(row))
            };
            let valid = |column: &Option<arrow::array::ArrayRef>| {
                column.clone().filter(|column| column.is_valid(row))
            };
            let is = |column: &Option<BooleanArray>| {
                column.as_ref().is_some_and(|column| column.is_valid(row) && column.value(row))
            };
            let (evidence, evidence_total) = entries(evidence.as_ref(), row, MAX_EVIDENCE)?;
            alerts.push(Self {
                tenant: must(&tenant),
                position: valid(&position)
                    .map_or(0, |column| column.as_primitive::<UInt64Type>().value(row)),
                id: must(&id),
                revision: valid(&revision).map_or(0, |column| {
                    column.as_primitive::<Int32Type>().value(row).max(0).cast_unsigned()
                }),
                state: match text(&state).as_deref() {
                    Some("retracted") => State::Retracted,
                    _ => State::Open,
                },
                time: micros(&time),
                ingest_time: micros(&ingest_time),
                first_time: micros(&first_time),
                last_time: micros(&last_time),
                domain: text(&domain),
                detector: must(&detector),
                rule_id: must(&rule_id),
                rule_version: must(&rule_version),
                title: must(&title),
                severity: Severity::by_name(&must(&severity)).unwrap_or_default(),
                score: valid(&score).map(|column| column.as_primitive::<Float32Type>().value(row)),
                user: text(&user),
                host: text(&host),
                src_ip: text(&src_ip),
                event_id: text(&event_id),
                evidence,
                evidence_total,
                reasons: entries(reasons.as_ref(), row, MAX_ENTRIES)?.0,
                tags: entries(tags.as_ref(), row, MAX_ENTRIES)?.0,
                author: text(&author),
                licence: text(&licence),
                group_key: text(&group_key),
                fields: entries(fields.as_ref(), row, MAX_ENTRIES)?.0,
                historical: is(&historical),
                incomplete: is(&incomplete),
                supersedes: text(&supersedes),
            });
        }
        Ok(alerts)
    }
}

/// At most [`MAX_TEXT`] bytes of a text, whole characters only.
fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// The first entries of a list, and how many it has.
fn entries(
    column: Option<&ListArray>,
    row: usize,
    most: usize,
) -> Result<(Vec<String>, u64), ArrowError> {
    let Some(column) = column.filter(|column| column.is_valid(row)) else {
        return Ok((Vec::new(), 0));
    };
    let items = cast(&column.value(row), &DataType::Utf8)?;
    let items = items.as_string::<i32>();
    let texts = items.iter().flatten().take(most).map(cut).collect();
    Ok((texts, (items.len() - items.null_count()) as u64))
}

struct Columns<'a> {
    batch: &'a RecordBatch,
}

impl Columns<'_> {
    fn text(&self, name: &str) -> Result<Option<StringArray>, ArrowError> {
        let column = self.batch.column_by_name(name);
        column
            .map(|column| Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().clone()))
            .transpose()
    }

    fn number(
        &self,
        name: &str,
        kind: &DataType,
    ) -> Result<Option<arrow::array::ArrayRef>, ArrowError> {
        self.batch.column_by_name(name).map(|column| cast(column, kind)).transpose()
    }

    fn flag(&self, name: &str) -> Result<Option<BooleanArray>, ArrowError> {
        let column = self.batch.column_by_name(name);
        column.map(|column| Ok(cast(column, &DataType::Boolean)?.as_boolean().clone())).transpose()
    }

    fn list(&self, name: &str) -> Result<Option<ListArray>, ArrowError> {
        let Some(column) = self.batch.column_by_name(name) else { return Ok(None) };
        match column.as_list_opt::<i32>() {
            Some(list) => Ok(Some(list.clone())),
            None if column.null_count() == column.len() => Ok(None),
            None => Err(ArrowError::CastError(format!("'{name}' of alerts is no list"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, ListBuilder, StringBuilder, TimestampMicrosecondArray};
    use arrow::array::{DictionaryArray, Int32Array, UInt64Array, new_null_array};
    use arrow::datatypes::{Int32Type, Schema};
    use palisade_event::schema::alert_fields;
    use std::sync::Arc;

    #[test]
    fn rows_are_read_whichever_columns_there_are() {
        let mut evidence = ListBuilder::new(StringBuilder::new());
        for n in 0..150 {
            evidence.values().append_value(format!("{n:032x}"));
        }
        evidence.append(true);
        evidence.append(false);
        let times = || {
            Arc::new(TimestampMicrosecondArray::from(vec![5, 6]).with_timezone("UTC")) as ArrayRef
        };
        let words: DictionaryArray<Int32Type> =
            vec!["critical", "unheard-of"].into_iter().collect();
        let states: DictionaryArray<Int32Type> =
            vec![None, Some("retracted")].into_iter().collect();
        let batch = RecordBatch::try_from_iter_with_nullable(vec![
            ("tenant", Arc::new(StringArray::from(vec!["acme", "acme"])) as ArrayRef, false),
            ("time", times(), false),
            ("position", Arc::new(UInt64Array::from(vec![7, 8])) as ArrayRef, false),
            ("alert_id", Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef, false),
            ("revision", Arc::new(Int32Array::from(vec![0, 3])) as ArrayRef, false),
            ("severity", Arc::new(words) as ArrayRef, false),
            ("user", Arc::new(StringArray::from(vec![Some("Alice"), None])) as ArrayRef, true),
            ("src_ip", Arc::new(StringArray::from(vec!["10.0.0.1", "10.0.0.2"])) as ArrayRef, true),
            ("evidence", Arc::new(evidence.finish()) as ArrayRef, true),
            ("state", Arc::new(states) as ArrayRef, true),
        ])
        .unwrap();
        let alerts = Alert::read(&batch).unwrap();
        let [first, second] = alerts.as_slice() else { panic!("two rows") };
        assert_eq!((first.evidence.len(), first.evidence_total), (MAX_EVIDENCE, 150));
        assert_eq!((first.severity, second.severity), (Severity::Critical, Severity::Low));
        assert_eq!((first.state, second.state), (State::Open, State::Retracted));
        assert_eq!((second.key().as_str(), second.group()), ("b-3", "10.0.0.2"));
        assert_eq!(first.entities()[0], Entity { kind: EntityKind::User, name: "alice".into() });
        assert_eq!(first.place(), (7, "a", 0));
        assert_eq!((first.time, first.first_time), (5, 0));
        let text = serde_json::to_string(first).unwrap();
        assert_eq!(&serde_json::from_str::<Alert>(&text).unwrap(), first);
    }

    #[test]
    fn a_batch_of_the_tables_own_schema_is_read() {
        let fields = alert_fields();
        let columns = fields.iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        let open: Vec<_> = fields
            .iter()
            .map(|field| Arc::new(field.as_ref().clone().with_nullable(true)))
            .collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(open)), columns).unwrap();
        let alert = Alert::read(&batch).unwrap().remove(0);
        assert_eq!(alert, Alert::default());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "ä".repeat(MAX_TEXT);
        assert_eq!(cut(&text).len(), MAX_TEXT);
        assert_eq!(cut(&format!("x{text}")).len(), MAX_TEXT - 1);
    }
}
