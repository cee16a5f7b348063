use super::*;
use proptest::prelude::*;

fn written(rows: &[Option<String>], block_rows: u32) -> (tempfile::TempDir, EntityIndex) {
    let mut builder = IndexBuilder::new(rows.len() as u64, block_rows, &["user"]);
    let column = builder.column("user").unwrap();
    for (row, value) in rows.iter().enumerate() {
        if let Some(value) = value {
            let slot = builder.slot(column, value).unwrap();
            builder.mark(column, slot, row as u64);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.idx");
    std::fs::write(&path, builder.finish(rows.len() as u64)).unwrap();
    let index = EntityIndex::open(&path).unwrap();
    (dir, index)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every row of a value lies in its ranges, and every range has the value in each of its blocks,
    /// but for values that share a fragment.
    #[test]
    fn answers_cover_a_full_scan(
        values in prop::collection::vec(prop::option::weighted(0.9, 0u32..400), 1..3000),
        block_rows in prop::sample::select(vec![1u32, 7, 64, 1000]),
    ) {
        // Squaring skews the values: some are in nearly every block, some are rare.
        let rows: Vec<Option<String>> =
            values.iter().map(|v| v.map(|v| format!("u{}", v * v / 400))).collect();
        let (_dir, index) = written(&rows, block_rows);
        index.verify().unwrap();
        let mut too_many = 0usize;
        for value in 0..400 {
            let value = format!("u{value}");
            let ranges = index.blocks("user", &value).unwrap();
            let mut blocks: Vec<usize> = rows.iter().enumerate()
                .filter(|(_, row)| row.as_deref() == Some(&value))
                .map(|(row, _)| row / block_rows as usize)
                .collect();
            blocks.dedup();
            let answered: Vec<usize> = ranges.iter()
                .flat_map(|r| r.start / u64::from(block_rows)..r.end.div_ceil(u64::from(block_rows)))
                .map(|block| block as usize)
                .collect();
            prop_assert!(blocks.iter().all(|block| answered.contains(block)));
            too_many += usize::from(answered != blocks);
            prop_assert!(ranges.iter().all(|range| range.end <= rows.len() as u64));
        }
        // About one value in 200 shares its fragment here, where all are in few buckets.
        prop_assert!(too_many <= 20, "{too_many}");
        prop_assert_eq!(index.blocks("host", "u1"), None);
    }
}

#[test]
fn a_flipped_bit_is_noticed_anywhere() {
    let rows: Vec<Option<String>> = (0..500).map(|i| Some(format!("u{}", i % 50))).collect();
    let (dir, index) = written(&rows, 16);
    drop(index);
    let path = dir.path().join("a.idx");
    let sound = std::fs::read(&path).unwrap();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let noticed = EntityIndex::open(&path).and_then(|index| index.verify()).is_err();
        assert!(noticed, "byte {at}");
    }
    std::fs::write(&path, &sound[..sound.len() - 1]).unwrap();
    assert!(EntityIndex::open(&path).is_err());
}

#[test]
fn a_column_of_nearly_unique_values_is_left_out() {
    let mut builder = IndexBuilder::new(100_000, 4096, &["user", "src_ip"]);
    let user = builder.column("user").unwrap();
    let address = builder.column("src_ip").unwrap();
    for row in 0..100_000u64 {
        let slot = builder.slot(user, &format!("u{}", row % 100)).unwrap();
        builder.mark(user, slot, row);
        if let Some(slot) = builder.slot(address, &row.to_string()) {
            builder.mark(address, slot, row);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.idx");
    std::fs::write(&path, builder.finish(100_000)).unwrap();
    let index = EntityIndex::open(&path).unwrap();
    assert_eq!(index.columns().collect::<Vec<_>>(), [("user", 100)]);
    assert_eq!(index.blocks("src_ip", "5"), None);
    assert_eq!(index.blocks("user", "nobody"), Some(vec![]));
}

/// Version 1, byte for byte: a reader of any later release must read these.
#[test]
fn format_version_1() {
    let rows: Vec<Option<String>> = ["ann", "bob", "ann", "", "cy", "ann"]
        .map(|v| (!v.is_empty()).then(|| v.to_owned()))
        .into();
    let (dir, index) = written(&rows, 2);
    assert_eq!(index.blocks("user", "ann"), Some(vec![Range { start: 0, end: 6 }]));
    assert_eq!(index.blocks("user", "cy"), Some(vec![Range { start: 4, end: 6 }]));
    let bytes = std::fs::read(dir.path().join("a.idx")).unwrap();
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, include_str!("golden-v1.hex").trim());
}
