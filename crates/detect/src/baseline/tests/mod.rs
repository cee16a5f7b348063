//! Tests of the baselines at their public edge.

mod calibration;
mod laws;
mod scale;
mod scores;

use super::*;
use arrow::array::{
    ArrayRef, DictionaryArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Int32Type, Schema};
use palisade_event::schema::Core;
use palisade_event::slot::partition_table;
use std::sync::Arc;

pub(super) const HOUR: i64 = 3_600_000_000;
/// 2024-03-04 00:00 UTC, a Monday.
pub(super) const MONDAY: i64 = 1_709_510_400_000_000;

/// One row of a test.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) time: i64,
    pub(super) user: Option<String>,
    pub(super) address: Option<String>,
    pub(super) location: Option<String>,
    pub(super) event_type: Option<String>,
    pub(super) outcome: Option<String>,
}

pub(super) fn row(
    time: i64,
    user: &str,
    address: &str,
    location: &str,
    kind: &str,
    ok: bool,
) -> Row {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Row {
        time,
        user: text(user),
        address: text(address),
        location: text(location),
        event_type: text(kind),
        outcome: text(if ok { "success" } else { "failed" }),
    }
}

/// A batch of the tenant `t`; columns are dictionaries, or plain text.
pub(super) fn batch(rows: &[Row], plain: bool) -> RecordBatch {
    let column = |of: &dyn Fn(&Row) -> Option<&str>| -> ArrayRef {
        if plain {
            Arc::new(rows.iter().map(of).collect::<StringArray>())
        } else {
            Arc::new(rows.iter().map(of).collect::<DictionaryArray<Int32Type>>())
        }
    };
    let times: Vec<i64> = rows.iter().map(|row| row.time).collect();
    let columns: Vec<(Core, ArrayRef)> = vec![
        (Core::Tenant, column(&|_| Some("t"))),
        (Core::Time, Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))),
        (Core::User, column(&|row| row.user.as_deref())),
        (Core::SrcIp, column(&|row| row.address.as_deref())),
        (Core::Location, column(&|row| row.location.as_deref())),
        (Core::Type, column(&|row| row.event_type.as_deref())),
        (Core::Outcome, column(&|row| row.outcome.as_deref())),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(core, array)| Field::new(core.name(), array.data_type().clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// Processes the rows as one batch on one worker.
pub(super) fn process(baselines: &mut Baselines, rows: &[Row]) -> BaselineOutput {
    let batch = batch(rows, false);
    let routing = route(&batch, |_| 4096, &partition_table(1));
    let all: Vec<u32> = (0..rows.len() as u32).collect();
    let mut out = BaselineOutput::default();
    baselines.process(&batch, &RowsOfSlots { routing: &routing, rows: &all }, &mut out);
    out
}

/// A small, even generator of test data.
#[derive(Debug, Clone)]
pub(super) struct Draws(pub(super) u64);

impl Draws {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn chance(&mut self, p: f64) -> bool {
        ((self.next() >> 11) as f64) < p * (1_u64 << 53) as f64
    }
}
