//! The schema of a table as one tenant sees it: the union over its segments and its in-memory rows.
//!
//! Core columns come first, in their order, with the types of `palisade_event::schema`; text is
//! `Utf8View`. Dynamic columns follow, sorted by name. A dynamic column has its type when it has the
//! same type everywhere, and is text otherwise. `record_id` is hidden: in `events` the computed column
//! `id` stands in its place. A sender's own field `id` is found as `sent.id`.

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use palisade_event::schema::{
    ALERTS, Core, DEAD_LETTERS, EVENTS, alert_fields, dead_letter_fields, is_json, timestamp,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The computed column of record ids (I1).
pub(super) const ID: &str = "id";
/// The name under which a sender's own field `id` is found.
pub(super) const SENT_ID: &str = "sent.id";

/// The type of a column in a query, from its kind in the catalog
/// ([`palisade_catalog::SegmentColumn::kind`]).
pub(super) fn type_of_kind(kind: &str) -> DataType {
    match kind {
        "bool" => DataType::Boolean,
        "i32" => DataType::Int32,
        "i64" => DataType::Int64,
        "u64" => DataType::UInt64,
        "f32" => DataType::Float32,
        "f64" => DataType::Float64,
        "timestamp" => timestamp(),
        "binary" => DataType::Binary,
        "list" => DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))),
        _ => DataType::Utf8View,
    }
}

/// The type under which a query sees a column of this type in a batch or file.
pub(super) fn query_type(stored: &DataType) -> DataType {
    match stored {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8View,
        DataType::Dictionary(_, values) => query_type(values),
        other => other.clone(),
    }
}

/// Whether two occurrences of a column can be read as one type. JSON texts are decoded, which makes
/// them text.
pub(super) fn unify(seen: Option<DataType>, next: DataType) -> DataType {
    match seen {
        None => next,
        Some(seen) if seen == next => seen,
        Some(_) => DataType::Utf8View,
    }
}

/// The type of a field of a batch or file as a query sees it.
pub(super) fn field_query_type(field: &Field) -> DataType {
    if is_json(field) { DataType::Utf8View } else { query_type(field.data_type()) }
}

/// The columns that a table always has, as queries see them, in order.
fn fixed_fields(table: &str) -> Vec<FieldRef> {
    let fields: Vec<FieldRef> = match table {
        EVENTS => Core::ALL.into_iter().map(Core::field).collect(),
        ALERTS => alert_fields(),
        DEAD_LETTERS => dead_letter_fields(),
        _ => Vec::new(),
    };
    fields
        .into_iter()
        .map(|field| {
            if table == EVENTS && field.name() == Core::RecordId.name() {
                Arc::new(Field::new(ID, DataType::Utf8View, true))
            } else {
                Arc::new(Field::new(field.name(), query_type(field.data_type()), true))
            }
        })
        .collect()
}

/// Collects the columns that a tenant's rows have.
#[derive(Debug, Default)]
pub(super) struct Columns {
    dynamic: BTreeMap<String, DataType>,
}

impl Columns {
    /// A column was seen with this type.
    pub(super) fn see(&mut self, name: &str, seen: DataType) {
        if let Some(known) = self.dynamic.get_mut(name) {
            if *known != seen {
                *known = unify(Some(known.clone()), seen);
            }
        } else {
            self.dynamic.insert(name.to_owned(), seen);
        }
    }

    /// Whether seeing this column with this type again would change nothing.
    pub(super) fn knows(&self, name: &str, seen: &DataType) -> bool {
        self.dynamic.get(name).is_some_and(|known| known == seen || *known == DataType::Utf8View)
    }

    /// The table's schema, with further text columns that are looked for in `overflow`.
    pub(super) fn into_schema(mut self, table: &str, overflow: &[String]) -> SchemaRef {
        for name in overflow {
            self.dynamic.entry(name.clone()).or_insert(DataType::Utf8View);
        }
        let mut fields = fixed_fields(table);
        if table == EVENTS {
            self.dynamic.remove(Core::RecordId.name());
            if let Some(sent) = self.dynamic.remove(ID) {
                self.see(SENT_ID, sent);
            }
        }
        for field in &fields {
            self.dynamic.remove(field.name());
        }
        fields.extend(
            self.dynamic.into_iter().map(|(name, seen)| Arc::new(Field::new(name, seen, true))),
        );
        Arc::new(Schema::new(fields))
    }
}

/// The column of a file or batch that a query's column is read from.
pub(super) fn stored_name<'a>(table: &str, name: &'a str) -> &'a str {
    if table == EVENTS && name == SENT_ID { ID } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_several_types_are_text_and_core_columns_keep_their_place() {
        let mut columns = Columns::default();
        columns.see("bytes", DataType::Int64);
        columns.see("code", DataType::Int64);
        columns.see("code", DataType::Utf8View);
        columns.see("id", DataType::Int64);
        columns.see("record_id", DataType::FixedSizeBinary(16));
        columns.see("user", DataType::Utf8View);
        let schema = columns.into_schema(EVENTS, &["late".to_owned()]);
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names.len(), 28 + 4);
        assert_eq!(names.get(6..8), Some(&["event_id", "id"][..]));
        assert_eq!(names.get(28..), Some(&["bytes", "code", "late", "sent.id"][..]));
        let kind = |name| schema.field_with_name(name).unwrap().data_type().clone();
        assert_eq!(kind("bytes"), DataType::Int64);
        assert_eq!(kind("code"), DataType::Utf8View);
        assert_eq!(kind("sent.id"), DataType::Int64);
        assert_eq!(kind("user"), DataType::Utf8View);
    }
}
