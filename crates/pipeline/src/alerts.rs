//! Building rows of the table `alerts` from what detectors found in a frame.
//!
//! An alert's id is the XXH3-128 of (rule id, rule version, tenant, domain, group key, anchor), each
//! preceded by its length (I2). For a detector that judges single records the anchor is the record's
//! id, so a replay and a hunt give the same ids.

use crate::live::LiveAlert;
use arrow::array::{
    Array, ArrayRef, AsArray, Float32Builder, Int32Builder, ListBuilder, RecordBatch,
    StringBuilder, StringDictionaryBuilder, TimestampMicrosecondBuilder, UInt64Builder,
};
use arrow::datatypes::{Field, FieldRef, Int32Type, Schema, TimestampMicrosecondType};
use arrow::error::ArrowError;
use palisade_event::column::Text;
use palisade_event::schema::{Core, alert_fields};
use palisade_event::{Offset, RecordId};
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// What a detector says about one row of a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct RowAlert {
    /// The row in the frame.
    pub row: usize,
    /// Which detector, for example `baseline`.
    pub detector: &'static str,
    /// The rule, for example `baseline.user`.
    pub rule_id: &'static str,
    /// The version of the rule's definition.
    pub rule_version: &'static str,
    /// What it is, in a few words.
    pub title: String,
    /// `low`, `medium`, `high`, `critical`.
    pub severity: &'static str,
    /// 0 to 1.
    pub score: f32,
    /// Why, in sentences with numbers.
    pub reasons: Vec<String>,
    /// The detector's own columns (`<detector>.<what>`) and their values.
    pub details: Vec<(&'static str, f32)>,
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

/// The columns of a frame that alerts take values from.
struct Source<'a> {
    tenant: Option<Text<'a>>,
    domain: Option<Text<'a>>,
    source: Option<Text<'a>>,
    user: Option<Text<'a>>,
    host: Option<Text<'a>>,
    src_ip: Option<Text<'a>>,
    event_id: Option<Text<'a>>,
    record_id: Option<&'a ArrayRef>,
    time: Option<&'a ArrayRef>,
    ingest_time: Option<&'a ArrayRef>,
}

impl<'a> Source<'a> {
    fn of(batch: &'a RecordBatch) -> Self {
        let text = |core: Core| Text::in_batch(batch, core.name());
        Self {
            tenant: text(Core::Tenant),
            domain: text(Core::Domain),
            source: text(Core::Source),
            user: text(Core::User),
            host: text(Core::Host),
            src_ip: text(Core::SrcIp),
            event_id: text(Core::EventId),
            record_id: batch.column_by_name(Core::RecordId.name()),
            time: batch.column_by_name(Core::Time.name()),
            ingest_time: batch.column_by_name(Core::IngestTime.name()),
        }
    }

    fn record_id(&self, row: usize) -> RecordId {
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

/// Builds the rows for the alerts of one frame; `None` when there are none. Alerts are put in the
/// order of (row, detector), so the result does not depend on which detector ran first (I3).
///
/// # Errors
/// When Arrow refuses the columns, which would be a defect here.
pub fn build(
    batch: &RecordBatch,
    offset: Offset,
    mut alerts: Vec<RowAlert>,
) -> Result<Option<BuiltAlerts>, ArrowError> {
    if alerts.is_empty() {
        return Ok(None);
    }
    alerts.sort_by(|a, b| (a.row, a.detector, a.rule_id).cmp(&(b.row, b.detector, b.rule_id)));
    let source = Source::of(batch);
    let mut live: BTreeMap<String, Vec<LiveAlert>> = BTreeMap::new();

    // A frame mostly has a few alerts, and the builders' own room is for a thousand.
    let rows = alerts.len();
    let texts = |count: usize| StringBuilder::with_capacity(count, count * 40);
    let mut words: [StringDictionaryBuilder<Int32Type>; 10] =
        [(); 10].map(|()| StringDictionaryBuilder::with_capacity(rows, rows.min(8), rows * 12));
    let mut times =
        [(); 4].map(|()| TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC"));
    let mut position = UInt64Builder::with_capacity(rows);
    let mut id = texts(rows);
    let mut revision = Int32Builder::with_capacity(rows);
    let mut score = Float32Builder::with_capacity(rows);
    let mut event_id = texts(rows);
    let mut evidence = ListBuilder::with_capacity(texts(rows), rows);
    let sentences = alerts.iter().map(|alert| alert.reasons.len()).sum();
    let mut reasons = ListBuilder::with_capacity(texts(sentences), rows);
    let mut details: BTreeMap<&'static str, Float32Builder> = BTreeMap::new();
    for name in alerts.iter().flat_map(|alert| &alert.details).map(|(name, _)| *name) {
        details.entry(name).or_insert_with(|| Float32Builder::with_capacity(rows));
    }

    for alert in &alerts {
        let row = alert.row;
        let get = |text: &Option<Text<'_>>| text.and_then(|text| text.get(row)).map(str::to_owned);
        let tenant = get(&source.tenant).unwrap_or_default();
        let domain = get(&source.domain);
        let (user, src_ip) = (get(&source.user), get(&source.src_ip));
        let record = source.record_id(row).to_string();
        let group = user.as_deref().or(src_ip.as_deref()).unwrap_or("");
        let alert_id = alert_id(
            alert.rule_id,
            alert.rule_version,
            &tenant,
            domain.as_deref().unwrap_or("live"),
            group,
            &record,
        )
        .to_string();
        let time = micros(source.time, row);

        let texts = [
            Some(tenant.as_str()),
            domain.as_deref(),
            Some(alert.detector),
            Some(alert.rule_id),
            Some(alert.rule_version),
            Some(alert.title.as_str()),
            Some(alert.severity),
            user.as_deref(),
            None,
            src_ip.as_deref(),
        ];
        for (index, (builder, text)) in words.iter_mut().zip(texts).enumerate() {
            let host = if index == 8 { source.host.and_then(|host| host.get(row)) } else { text };
            builder.append_option(host);
        }
        let ingest = micros(source.ingest_time, row);
        for (builder, value) in times.iter_mut().zip([time, ingest, time, time]) {
            builder.append_value(value);
        }
        position.append_value(offset.position(row));
        id.append_value(&alert_id);
        revision.append_value(0);
        score.append_value(alert.score);
        let sent_id = get(&source.event_id);
        event_id.append_option(sent_id.as_deref());
        evidence.values().append_value(&record);
        evidence.append(true);
        for reason in &alert.reasons {
            reasons.values().append_value(reason);
        }
        reasons.append(true);
        for (name, builder) in &mut details {
            builder.append_option(
                alert.details.iter().find(|(detail, _)| detail == name).map(|(_, value)| *value),
            );
        }
        live.entry(tenant).or_default().push(LiveAlert {
            alert_id,
            time: time / 1000,
            detector: alert.detector.to_owned(),
            severity: alert.severity.to_owned(),
            score: alert.score,
            title: alert.title.clone(),
            user,
            src_ip,
            event_id: sent_id,
            reasons: alert.reasons.clone(),
        });
    }

    let mut columns: BTreeMap<&str, ArrayRef> = BTreeMap::new();
    let word_names = [
        "tenant",
        "domain",
        "detector",
        "rule_id",
        "rule_version",
        "title",
        "severity",
        "user",
        "host",
        "src_ip",
    ];
    for (name, mut builder) in word_names.into_iter().zip(words) {
        columns.insert(name, Arc::new(builder.finish()));
    }
    for (name, mut builder) in
        ["time", "ingest_time", "first_time", "last_time"].into_iter().zip(times)
    {
        columns.insert(name, Arc::new(builder.finish()));
    }
    columns.insert("position", Arc::new(position.finish()));
    columns.insert("alert_id", Arc::new(id.finish()));
    columns.insert("revision", Arc::new(revision.finish()));
    columns.insert("score", Arc::new(score.finish()));
    columns.insert("event_id", Arc::new(event_id.finish()));
    columns.insert("evidence", Arc::new(evidence.finish()));
    columns.insert("reasons", Arc::new(reasons.finish()));

    // What no detector of single records has to say is left out, which reads as null.
    let has =
        |field: &FieldRef| !field.is_nullable() || columns.contains_key(field.name().as_str());
    let mut fields: Vec<FieldRef> = alert_fields().into_iter().filter(has).collect();
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(fields.len() + details.len());
    for field in &fields {
        let array = columns.remove(field.name().as_str()).ok_or_else(|| {
            ArrowError::SchemaError(format!("alerts have no column '{}'", field.name()))
        })?;
        arrays.push(array);
    }
    for (name, mut builder) in details {
        fields.push(Arc::new(Field::new(name, arrow::datatypes::DataType::Float32, true)));
        arrays.push(Arc::new(builder.finish()));
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
    Ok(Some(BuiltAlerts { batch, live }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{StringArray, TimestampMicrosecondArray};

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
            rule_id: "rule",
            rule_version: "1",
            title: "title".into(),
            severity: "high",
            score: 0.8,
            reasons: vec!["because".into(), "of this".into()],
            details: if detector == "baseline" { vec![("baseline.time", 0.5)] } else { vec![] },
        }
    }

    #[test]
    fn rows_do_not_depend_on_the_order_of_detectors() {
        let one = build(&frame(), Offset(3), vec![alert(1, "threat"), alert(0, "baseline")]);
        let other = build(&frame(), Offset(3), vec![alert(0, "baseline"), alert(1, "threat")]);
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
        assert!(build(&frame(), Offset(0), vec![]).unwrap().is_none());
    }
}
