//! Building rows of the table `alerts` from what detectors found in a frame.
//!
//! An alert's id is the XXH3-128 of (rule id, rule version, tenant, domain, group key, anchor), each
//! preceded by its length (I2). For a detector that judges single records the anchor is the record's
//! id, so a replay and a hunt give the same ids.

use crate::live::LiveAlert;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float32Builder, Int32Array, ListBuilder,
    RecordBatch, StringArray, StringBuilder, StringDictionaryBuilder, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::datatypes::{Field, FieldRef, Int32Type, Schema, TimestampMicrosecondType, UInt64Type};
use arrow::error::ArrowError;
use palisade_event::column::Text;
use palisade_event::schema::{Core, alert_fields};
use palisade_event::{Offset, RecordId};
use palisade_sigma::Rule;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// What a detector says about one row of a frame.
#[derive(Debug, Clone)]
pub struct RowAlert {
    /// The row in the frame.
    pub row: usize,
    /// Which detector, for example `baseline`.
    pub detector: &'static str,
    /// The rule, for example `baseline.user`.
    pub rule_id: Cow<'static, str>,
    /// The version of the rule's definition.
    pub rule_version: Cow<'static, str>,
    /// What it is, in a few words.
    pub title: String,
    /// `informational`, `low`, `medium`, `high`, `critical`.
    pub severity: &'static str,
    /// 0 to 1.
    pub score: f32,
    /// Why, in sentences with numbers.
    pub reasons: Vec<String>,
    /// The detector's own columns (`<detector>.<what>`) and their values.
    pub details: Vec<(&'static str, f32)>,
    /// What a written rule adds.
    pub rule: Option<RuleAlert>,
}

/// What the alert of a written rule, or of a list, tells beside that of a detector.
#[derive(Debug, Clone)]
pub struct RuleAlert {
    /// Which rule; `None` for an indicator of a list.
    pub rule: Option<Arc<Rule>>,
    /// What matched, each `name=value`.
    pub fields: Vec<String>,
}

/// A row of `alerts`, see [`alert_fields`].
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "they are the columns")]
pub(crate) struct AlertRow {
    pub(crate) tenant: String,
    pub(crate) domain: Option<String>,
    pub(crate) detector: &'static str,
    pub(crate) rule_id: Cow<'static, str>,
    pub(crate) rule_version: Cow<'static, str>,
    pub(crate) title: String,
    pub(crate) severity: &'static str,
    pub(crate) score: f32,
    pub(crate) user: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) src_ip: Option<String>,
    pub(crate) time: i64,
    pub(crate) ingest_time: i64,
    pub(crate) first_time: i64,
    pub(crate) last_time: i64,
    pub(crate) position: u64,
    pub(crate) id: String,
    pub(crate) revision: i32,
    pub(crate) event_id: Option<String>,
    pub(crate) evidence: Vec<String>,
    pub(crate) evidence_from: Option<String>,
    pub(crate) reasons: Vec<String>,
    pub(crate) details: Vec<(&'static str, f32)>,
    pub(crate) state: Option<&'static str>,
    pub(crate) tags: Vec<String>,
    pub(crate) author: Option<String>,
    pub(crate) licence: Option<String>,
    pub(crate) group_key: Option<String>,
    pub(crate) fields: Vec<String>,
    pub(crate) incomplete: bool,
    pub(crate) historical: bool,
}

/// The id of an alert (I2).
#[must_use]
pub fn alert_id(
    rule_id: &str,
    rule_version: &str,
    tenant: &str,
    domain: &str,
    group_key: &str,
    anchor: &str,
) -> RecordId {
    let mut hash = Xxh3::new();
    for part in [rule_id, rule_version, tenant, domain, group_key, anchor] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    RecordId(hash.digest128().to_be_bytes())
}

/// The ids of a frame's records (I1).
#[derive(Debug)]
pub struct RecordIds<'a> {
    tenant: Option<Text<'a>>,
    source: Option<Text<'a>>,
    event_id: Option<Text<'a>>,
    record_id: Option<&'a ArrayRef>,
}

impl<'a> RecordIds<'a> {
    /// Those of a batch's rows: with the columns `tenant`, `source`, `event_id` and `record_id`, as far as there are any.
    #[must_use]
    pub fn of(batch: &'a RecordBatch) -> Self {
        let text = |core: Core| Text::in_batch(batch, core.name());
        Self {
            tenant: text(Core::Tenant),
            source: text(Core::Source),
            event_id: text(Core::EventId),
            record_id: batch.column_by_name(Core::RecordId.name()),
        }
    }

    /// The id of a row.
    #[must_use]
    pub fn get(&self, row: usize) -> RecordId {
        let get = |text: &Option<Text<'a>>| text.and_then(|text| text.get(row)).unwrap_or("");
        if let Some(event_id) = self.event_id.and_then(|text| text.get(row)) {
            return RecordId::from_sender(get(&self.tenant), get(&self.source), event_id);
        }
        let bytes = self
            .record_id
            .and_then(|array| array.as_fixed_size_binary_opt())
            .filter(|array| row < array.len() && array.is_valid(row))
            .and_then(|array| <[u8; 16]>::try_from(array.value(row)).ok());
        RecordId(bytes.unwrap_or_default())
    }
}

/// The columns of a frame that alerts take values from.
struct Source<'a> {
    ids: RecordIds<'a>,
    domain: Option<Text<'a>>,
    user: Option<Text<'a>>,
    host: Option<Text<'a>>,
    src_ip: Option<Text<'a>>,
    time: Option<&'a ArrayRef>,
    ingest_time: Option<&'a ArrayRef>,
}

impl<'a> Source<'a> {
    fn of(batch: &'a RecordBatch) -> Self {
        let text = |core: Core| Text::in_batch(batch, core.name());
        Self {
            ids: RecordIds::of(batch),
            domain: text(Core::Domain),
            user: text(Core::User),
            host: text(Core::Host),
            src_ip: text(Core::SrcIp),
            time: batch.column_by_name(Core::Time.name()),
            ingest_time: batch.column_by_name(Core::IngestTime.name()),
        }
    }

    /// The row of `alerts` for an alert about one record.
    fn row(&self, position: u64, alert: RowAlert) -> AlertRow {
        let row = alert.row;
        let get = |text: &Option<Text<'_>>| text.and_then(|text| text.get(row)).map(str::to_owned);
        let tenant = get(&self.ids.tenant).unwrap_or_default();
        let domain = get(&self.domain);
        let (user, src_ip) = (get(&self.user), get(&self.src_ip));
        let record = self.ids.get(row).to_string();
        let id = alert_id(
            &alert.rule_id,
            &alert.rule_version,
            &tenant,
            domain.as_deref().unwrap_or("live"),
            user.as_deref().or(src_ip.as_deref()).unwrap_or(""),
            &record,
        );
        let time = micros(self.time, row);
        let (rule, fields) = match alert.rule {
            Some(RuleAlert { rule, fields }) => (rule, fields),
            None => (None, Vec::new()),
        };
        AlertRow {
            tenant,
            domain,
            detector: alert.detector,
            rule_id: alert.rule_id,
            rule_version: alert.rule_version,
            title: alert.title,
            severity: alert.severity,
            score: alert.score,
            user,
            host: get(&self.host),
            src_ip,
            time,
            ingest_time: micros(self.ingest_time, row),
            first_time: time,
            last_time: time,
            position,
            id: id.to_string(),
            revision: 0,
            event_id: get(&self.ids.event_id),
            evidence: vec![record],
            evidence_from: None,
            reasons: alert.reasons,
            details: alert.details,
            state: None,
            tags: rule.as_ref().map(|rule| rule.tags.clone()).unwrap_or_default(),
            author: rule.as_ref().and_then(|rule| rule.author.clone()),
            licence: rule.as_ref().and_then(|rule| rule.license.clone()),
            group_key: None,
            fields,
            incomplete: false,
            historical: false,
        }
    }
}

fn micros(array: Option<&ArrayRef>, row: usize) -> i64 {
    array
        .and_then(|array| array.as_primitive_opt::<TimestampMicrosecondType>())
        .filter(|array| row < array.len())
        .map_or(0, |array| array.value(row))
}

/// Rows of `alerts`, and the same for the live stream, by tenant.
#[derive(Debug)]
pub struct BuiltAlerts {
    /// The rows, in the order of the frame's rows.
    pub batch: RecordBatch,
    /// For the live stream.
    pub live: BTreeMap<String, Vec<LiveAlert>>,
}

/// The rows for the alerts about records of one frame. Alerts are put in the order of (row, detector), so the result
/// does not depend on which detector ran first (I3).
pub(crate) fn rows(batch: &RecordBatch, offset: Offset, alerts: Vec<RowAlert>) -> Vec<AlertRow> {
    rows_at(batch, |row| offset.position(row), alerts)
}

/// The same for rows as they are stored, which know their positions themselves.
pub(crate) fn stored_rows(batch: &RecordBatch, alerts: Vec<RowAlert>) -> Vec<AlertRow> {
    let positions = batch.column_by_name(Core::Position.name());
    let positions = positions.and_then(|column| column.as_primitive_opt::<UInt64Type>());
    let at = |row| positions.filter(|array| row < array.len()).map_or(0, |array| array.value(row));
    rows_at(batch, at, alerts)
}

fn rows_at(
    batch: &RecordBatch,
    position: impl Fn(usize) -> u64,
    mut alerts: Vec<RowAlert>,
) -> Vec<AlertRow> {
    if alerts.is_empty() {
        return Vec::new();
    }
    alerts.sort_by(|a, b| (a.row, a.detector, &a.rule_id).cmp(&(b.row, b.detector, &b.rule_id)));
    let source = Source::of(batch);
    alerts.into_iter().map(|alert| source.row(position(alert.row), alert)).collect()
}

/// Texts of which few are distinct.
fn words<'t>(texts: impl ExactSizeIterator<Item = Option<&'t str>>) -> ArrayRef {
    // A frame mostly has a few alerts, and the builder's own room is for a thousand.
    let rows = texts.len();
    let mut builder =
        StringDictionaryBuilder::<Int32Type>::with_capacity(rows, rows.min(8), rows * 12);
    texts.for_each(|text| builder.append_option(text));
    Arc::new(builder.finish())
}

fn lists<'r>(lists: impl ExactSizeIterator<Item = &'r Vec<String>>) -> ArrayRef {
    let mut builder = ListBuilder::with_capacity(StringBuilder::new(), lists.len());
    for list in lists {
        for text in list {
            builder.values().append_value(text);
        }
        builder.append(true);
    }
    Arc::new(builder.finish())
}

fn texts<'t>(texts: impl Iterator<Item = Option<&'t str>>) -> ArrayRef {
    Arc::new(texts.collect::<StringArray>())
}

fn times(times: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
}

/// Builds the batch of some rows; `None` when there are none. Columns that are null in all of them are left out.
///
/// # Errors
/// When Arrow refuses the columns, which would be a defect here.
pub(crate) fn build(alerts: &[AlertRow]) -> Result<Option<BuiltAlerts>, ArrowError> {
    if alerts.is_empty() {
        return Ok(None);
    }
    let rows = || alerts.iter();
    let mut columns: BTreeMap<&str, ArrayRef> = BTreeMap::from([
        ("tenant", words(rows().map(|row| Some(row.tenant.as_str())))),
        ("time", times(rows().map(|row| row.time))),
        ("ingest_time", times(rows().map(|row| row.ingest_time))),
        (
            "position",
            Arc::new(UInt64Array::from_iter_values(rows().map(|row| row.position))) as ArrayRef,
        ),
        ("domain", words(rows().map(|row| row.domain.as_deref()))),
        ("alert_id", texts(rows().map(|row| Some(row.id.as_str())))),
        ("revision", Arc::new(Int32Array::from_iter_values(rows().map(|row| row.revision)))),
        ("detector", words(rows().map(|row| Some(row.detector)))),
        ("rule_id", words(rows().map(|row| Some(&*row.rule_id)))),
        ("rule_version", words(rows().map(|row| Some(&*row.rule_version)))),
        ("title", words(rows().map(|row| Some(row.title.as_str())))),
        ("severity", words(rows().map(|row| Some(row.severity)))),
        ("score", Arc::new(Float32Array::from_iter_values(rows().map(|row| row.score)))),
        ("user", words(rows().map(|row| row.user.as_deref()))),
        ("host", words(rows().map(|row| row.host.as_deref()))),
        ("src_ip", words(rows().map(|row| row.src_ip.as_deref()))),
        ("event_id", texts(rows().map(|row| row.event_id.as_deref()))),
        ("first_time", times(rows().map(|row| row.first_time))),
        ("last_time", times(rows().map(|row| row.last_time))),
        ("evidence", lists(rows().map(|row| &row.evidence))),
        ("reasons", lists(rows().map(|row| &row.reasons))),
    ]);
    if rows().any(|row| row.state.is_some()) {
        columns.insert("state", words(rows().map(|row| row.state)));
    }
    if rows().any(|row| !row.tags.is_empty()) {
        columns.insert("tags", lists(rows().map(|row| &row.tags)));
    }
    if rows().any(|row| row.evidence_from.is_some()) {
        let from = texts(rows().map(|row| row.evidence_from.as_deref()));
        columns.insert("evidence_from", from);
    }
    if rows().any(|row| row.author.is_some()) {
        columns.insert("author", words(rows().map(|row| row.author.as_deref())));
    }
    if rows().any(|row| row.licence.is_some()) {
        columns.insert("licence", words(rows().map(|row| row.licence.as_deref())));
    }
    if rows().any(|row| row.group_key.is_some()) {
        columns.insert("group_key", texts(rows().map(|row| row.group_key.as_deref())));
    }
    if rows().any(|row| !row.fields.is_empty()) {
        columns.insert("fields", lists(rows().map(|row| &row.fields)));
    }
    if rows().any(|row| row.incomplete) {
        let flags: BooleanArray = rows().map(|row| Some(row.incomplete)).collect();
        columns.insert("incomplete", Arc::new(flags));
    }
    if rows().any(|row| row.historical) {
        let flags: BooleanArray = rows().map(|row| Some(row.historical)).collect();
        columns.insert("historical", Arc::new(flags));
    }
    let mut details: BTreeMap<&'static str, Float32Builder> = BTreeMap::new();
    for name in rows().flat_map(|row| &row.details).map(|(name, _)| *name) {
        details.entry(name).or_insert_with(|| Float32Builder::with_capacity(alerts.len()));
    }
    for (name, builder) in &mut details {
        for row in alerts {
            let value = row.details.iter().find(|(detail, _)| detail == name);
            builder.append_option(value.map(|(_, value)| *value));
        }
    }

    let (mut fields, mut arrays): (Vec<FieldRef>, Vec<ArrayRef>) = alert_fields()
        .into_iter()
        .filter_map(|field| columns.remove(field.name().as_str()).map(|array| (field, array)))
        .unzip();
    for (name, mut builder) in details {
        fields.push(Arc::new(Field::new(name, arrow::datatypes::DataType::Float32, true)));
        arrays.push(Arc::new(builder.finish()));
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;

    let mut live: BTreeMap<String, Vec<LiveAlert>> = BTreeMap::new();
    let is_news = |row: &&AlertRow| row.state.is_none() && row.revision == 0 && !row.historical;
    for row in rows().filter(is_news) {
        live.entry(row.tenant.clone()).or_default().push(LiveAlert {
            alert_id: row.id.clone(),
            time: row.time / 1000,
            detector: row.detector.to_owned(),
            severity: row.severity.to_owned(),
            score: row.score,
            title: row.title.clone(),
            user: row.user.clone(),
            src_ip: row.src_ip.clone(),
            event_id: row.event_id.clone(),
            reasons: row.reasons.clone(),
        });
    }
    Ok(Some(BuiltAlerts { batch, live }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> RecordBatch {
        let text = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
        let times = || {
            Arc::new(
                TimestampMicrosecondArray::from(vec![1_000_000, 2_000_000]).with_timezone("UTC"),
            ) as ArrayRef
        };
        RecordBatch::try_from_iter(vec![
            ("tenant", text(vec![Some("acme"), Some("acme")])),
            ("time", times()),
            ("ingest_time", times()),
            ("source", text(vec![Some("http"), Some("http")])),
            ("event_id", text(vec![Some("e1"), Some("e2")])),
            ("user", text(vec![Some("alice"), None])),
            ("src_ip", text(vec![None, Some("10.0.0.1")])),
        ])
        .expect("a batch")
    }

    fn alert(row: usize, detector: &'static str) -> RowAlert {
        RowAlert {
            row,
            detector,
            rule_id: "rule".into(),
            rule_version: "1".into(),
            title: "title".into(),
            severity: "high",
            score: 0.8,
            reasons: vec!["because".into(), "of this".into()],
            details: if detector == "baseline" { vec![("baseline.time", 0.5)] } else { vec![] },
            rule: None,
        }
    }

    #[test]
    fn rows_do_not_depend_on_the_order_of_detectors() {
        let one = build(&rows(&frame(), Offset(3), vec![alert(1, "threat"), alert(0, "baseline")]));
        let other =
            build(&rows(&frame(), Offset(3), vec![alert(0, "baseline"), alert(1, "threat")]));
        let (one, other) = (one.unwrap().unwrap(), other.unwrap().unwrap());
        assert_eq!(one.batch, other.batch);
        assert_eq!(one.batch.num_rows(), 2);
        assert_eq!(one.live["acme"].len(), 2);
        assert_eq!(one.live["acme"][1].src_ip.as_deref(), Some("10.0.0.1"));
        let score = one.batch.column_by_name("baseline.time").unwrap();
        assert!(score.is_valid(0) && score.is_null(1));
        let evidence = one.batch.column_by_name("evidence").unwrap().as_list::<i32>().value(0);
        assert_eq!(
            evidence.as_string::<i32>().value(0),
            RecordId::from_sender("acme", "http", "e1").to_string()
        );
    }

    #[test]
    fn the_id_is_that_of_rule_tenant_group_and_record() {
        let id = alert_id("r", "1", "t", "live", "g", "a");
        assert_eq!(id, alert_id("r", "1", "t", "live", "g", "a"));
        for other in [
            alert_id("r2", "1", "t", "live", "g", "a"),
            alert_id("r", "2", "t", "live", "g", "a"),
            alert_id("r", "1", "u", "live", "g", "a"),
            alert_id("r", "1", "t", "load", "g", "a"),
            alert_id("r", "1", "t", "live", "h", "a"),
            alert_id("r", "1", "t", "live", "g", "b"),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn no_alerts_no_rows() {
        assert!(build(&rows(&frame(), Offset(0), vec![])).unwrap().is_none());
    }
}
