//! Segments and states for the catalog's tests.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses a part; tests may panic")]

use palisade_catalog::{Catalog, Manifest, OpenOptions, SegmentColumn, SegmentMeta, segment_path};
use palisade_event::Offset;
use std::path::Path;

/// A segment of `events` with a row for each offset.
pub(crate) fn segment(id: u64, from: u64, to: u64, level: u32) -> SegmentMeta {
    SegmentMeta {
        id,
        table: "events".to_owned(),
        path: segment_path("events", id),
        rows: to - from,
        bytes: 100 * (to - from),
        min_time: -5,
        max_time: 1_700_000_000_000_000 + to as i64,
        tenants: vec!["acme".to_owned(), "default".to_owned()],
        from: Offset(from),
        to: Offset(to),
        level,
        columns: columns(3),
        checksum: u64::MAX - id,
    }
}

/// The first `count` columns of a wide table.
pub(crate) fn columns(count: usize) -> Vec<SegmentColumn> {
    (0..count)
        .map(|n| SegmentColumn { name: format!("winlog.event_data.Field{n}"), kind: "text".into() })
        .collect()
}

/// A catalog in a directory.
pub(crate) async fn open(directory: &Path) -> Catalog {
    Catalog::open(&directory.join("catalog.db"), OpenOptions::default()).await.unwrap()
}

/// Version, position and live segments as a line of text.
pub(crate) fn state(manifest: &Manifest) -> String {
    let segments: Vec<String> = manifest
        .segments
        .iter()
        .map(|s| format!("{}:{}-{}@{}", s.id, s.from.0, s.to.0, s.level))
        .collect();
    format!("{} {} {}", manifest.version, manifest.position.0, segments.join(","))
}
