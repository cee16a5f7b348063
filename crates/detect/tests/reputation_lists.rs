//! Lists of addresses: reading them, longest prefixes, several lists together, real lists.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

use arrow::array::{ArrayRef, DictionaryArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use palisade_detect::reputation::{
    List, ListError, ListKind, ListSpec, Lists, sender_refused, stamp,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

fn list(name: &str, kind: ListKind, text: &str) -> List {
    List::parse(&ListSpec::new(name, kind), &format!("{name}.txt"), text.as_bytes()).unwrap()
}

fn level(lists: &Lists, address: &str) -> u8 {
    let address: IpAddr = address.parse().unwrap();
    let level = lists.level(address);
    assert_eq!(lists.lookup(address).map_or(0, |listed| listed.level), level);
    level
}

#[test]
fn every_format_is_read() {
    let text = "\u{feff}# comment\n; comment\n\n192.0.2.1\n192.0.2.2 17\n192.0.2.3\t18\n192.0.2.4,19,remark\r\n\
                \"192.0.2.5\",\"20\"\n198.51.100.0/24 ; SBL1\n203.0.113.1-203.0.113.6 | 21\n2001:db8::/32 22 # why\n\
                ::ffff:192.0.2.7 23\n192.0.2.8 remark\n192.0.2.9|sky.example.org|9\n192.0.2.16/28,999\n";
    let lists = Lists::build(&[list("all", ListKind::Reputation, text)]).unwrap();
    for (address, expected) in [
        ("192.0.2.1", 200),
        ("192.0.2.2", 17),
        ("192.0.2.3", 18),
        ("192.0.2.4", 19),
        ("192.0.2.5", 20),
        ("198.51.100.255", 200),
        ("203.0.113.0", 0),
        ("203.0.113.1", 21),
        ("203.0.113.6", 21),
        ("203.0.113.7", 0),
        ("2001:db8:ffff::1", 22),
        ("2001:db9::1", 0),
        ("192.0.2.7", 23),
        ("::ffff:192.0.2.2", 17),
        ("192.0.2.8", 200),
        ("192.0.2.9", 200),
        ("192.0.2.31", 255),
        ("192.0.2.32", 0),
    ] {
        assert_eq!(level(&lists, address), expected, "{address}");
    }
}

/// Found by fuzzing: a range that ends with the last IPv4 address hid all ranges, itself included.
#[test]
fn ranges_up_to_the_last_address_are_found() {
    for text in
        ["240.0.0.0/4\n192.0.2.1\n", "0.0.0.0/0 7\n192.0.2.1\n", "255.255.255.255\n192.0.2.1\n"]
    {
        let lists = Lists::build(&[list("bogons", ListKind::Block, text)]).unwrap();
        assert_eq!(level(&lists, "192.0.2.1"), 255, "{text}");
        assert!(level(&lists, "255.255.255.255") > 0, "{text}");
    }
    let lists = Lists::build(&[list("bogons", ListKind::Block, "240.0.0.0/4\n")]).unwrap();
    assert_eq!(level(&lists, "250.1.2.3"), 255);
    assert_eq!(level(&lists, "239.255.255.255"), 0);
    let all = "::/0\nffff::/16 9\n";
    let lists = Lists::build(&[list("all", ListKind::Reputation, all)]).unwrap();
    assert_eq!(level(&lists, "2001:db8::1"), 200);
    assert_eq!(level(&lists, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), 9);
}

#[test]
fn named_columns_and_factors() {
    let mut spec = ListSpec::new("counts", ListKind::Reputation);
    spec.factor = 25;
    let text = "country,ip,count\nXX,192.0.2.1,3\nXX,192.0.2.2,40\nXX,192.0.2.3,\n";
    let lists =
        Lists::build(&[List::parse(&spec, "counts.csv", text.as_bytes()).unwrap()]).unwrap();
    assert_eq!(level(&lists, "192.0.2.1"), 75);
    assert_eq!(level(&lists, "192.0.2.2"), 255);
    assert_eq!(level(&lists, "192.0.2.3"), 200);
}

#[test]
fn errors_name_file_and_line() {
    let spec = ListSpec::new("bad", ListKind::Reputation);
    let parse = |text: &str| List::parse(&spec, "bad.txt", text.as_bytes()).unwrap_err();
    let message = parse("192.0.2.1\n\nhttp://x\n").to_string();
    assert!(message.contains("bad.txt, line 3") && message.contains("http://x"), "{message}");
    assert!(matches!(parse("192.0.2.1 -5"), ListError::Level { line: 1, .. }));
    assert!(matches!(parse("192.0.2.1 5000000"), ListError::Level { line: 1, .. }));
    assert!(matches!(parse("192.0.2.0/33"), ListError::Address { .. }));
    assert!(matches!(parse("192.0.2.9-192.0.2.1"), ListError::Address { .. }));
    assert!(matches!(parse(&"1".repeat(5000)), ListError::LongLine { line: 1, .. }));
}

#[test]
fn allow_beats_block_and_block_is_flagged() {
    let lists = Lists::build(&[
        list("bad", ListKind::Reputation, "10.0.0.0/8 100\n10.1.0.0/16 50\n10.1.1.0/24 0\n"),
        list("block", ListKind::Block, "10.2.0.0/16\n2001:db8::/32\n"),
        list("allow", ListKind::Allow, "10.2.2.2\n2001:db8::1\n10.3.0.0/16\n"),
    ])
    .unwrap();
    assert_eq!(level(&lists, "10.9.9.9"), 100);
    assert_eq!(level(&lists, "10.1.9.9"), 50, "the longest prefix of a list");
    assert_eq!(level(&lists, "10.1.1.9"), 0, "level 0 takes out");
    assert_eq!(level(&lists, "10.2.0.1"), 255, "the worst of all lists");
    assert_eq!(level(&lists, "10.2.2.2"), 0);
    assert_eq!(level(&lists, "10.3.2.2"), 0);
    let refused = |address: &str| sender_refused(&lists, address.parse().unwrap()).map(|l| l.list);
    assert_eq!(refused("10.2.0.1"), Some("block"));
    assert_eq!(refused("10.2.2.2"), None);
    assert_eq!(refused("10.9.9.9"), None, "a bad reputation alone refuses nobody");
    assert_eq!(refused("2001:db8::2"), Some("block"));
    assert_eq!(refused("2001:db8::1"), None);
    assert!(Lists::default().is_empty() && Lists::build(&[]).unwrap().is_empty());
}

#[test]
fn a_batch_is_stamped_with_the_worst_of_both_addresses() {
    let lists =
        Lists::build(&[list("l", ListKind::Reputation, "192.0.2.1 10\n192.0.2.2 20\n")]).unwrap();
    let source: DictionaryArray<Int32Type> =
        vec![Some("192.0.2.1"), Some("192.0.2.2"), None, Some("junk"), Some("192.0.2.1")]
            .into_iter()
            .collect();
    let destination = StringArray::from(vec![
        Some("192.0.2.2"),
        Some("192.0.2.1"),
        Some("192.0.2.1"),
        Some("192.0.2.3"),
        None,
    ]);
    let batch = RecordBatch::try_from_iter([
        ("src_ip", Arc::new(source) as ArrayRef),
        ("dst_ip", Arc::new(destination) as ArrayRef),
    ])
    .unwrap();
    let stamped = stamp(&batch, &lists).unwrap();
    assert_eq!(
        stamped.iter().collect::<Vec<_>>(),
        vec![Some(20), Some(20), Some(10), None, Some(10)]
    );
    // A slice with a dictionary larger than itself.
    let slice = stamp(&batch.slice(4, 1), &lists).unwrap();
    assert_eq!((slice.len(), slice.value(0)), (1, 10));
    assert!(stamp(&batch.slice(3, 1), &lists).is_none());
    assert!(stamp(&batch, &Lists::default()).is_none());
}

proptest! {
    /// Against the definition: within a list the longest prefix, over lists the worst level.
    #[test]
    fn agrees_with_the_definition(
        lists in prop::collection::vec(
            prop::collection::vec((0u32..1024, 18u32..33, 0u8..6), 0..30), 0..4),
        asked in prop::collection::vec(0u32..4096, 1..60),
    ) {
        let base = 0x0a00_0000u32;
        let mut parsed = Vec::new();
        for (index, entries) in lists.iter().enumerate() {
            let text: String = entries
                .iter()
                .map(|(low, bits, level)| format!("{}/{bits} {level}\n", Ipv4Addr::from_bits(base + low)))
                .collect();
            parsed.push(list(&index.to_string(), ListKind::Reputation, &text));
        }
        let built = Lists::build(&parsed).unwrap();
        for low in asked {
            let address = base + low;
            let of_list = |entries: &Vec<(u32, u32, u8)>| {
                let holds = |low: u32, bits: u32| (address ^ (base + low)) >> (32 - bits).min(31) == 0
                    && (bits > 0);
                let longest = entries.iter().filter(|e| holds(e.0, e.1)).map(|e| e.1).max()?;
                entries.iter().filter(|e| e.1 == longest && holds(e.0, e.1)).map(|e| e.2).max()
            };
            let expected = lists.iter().filter_map(of_list).max().unwrap_or(0);
            prop_assert_eq!(built.level_v4(address), expected, "{}", Ipv4Addr::from_bits(address));
        }
    }

    #[test]
    fn ipv6_prefixes_hold_what_they_should(number in any::<u128>(), bits in 1u32..129, other in any::<u128>()) {
        prop_assume!(number >> 32 != 0xffff && other >> 32 != 0xffff);
        let text = format!("{}/{bits} 9", Ipv6Addr::from_bits(number));
        let built = Lists::build(&[list("v6", ListKind::Block, &text)]).unwrap();
        let near = number ^ (other >> bits.min(127));
        for address in [number, other, near] {
            let holds = (address ^ number).leading_zeros() >= bits;
            let found = built.level(Ipv6Addr::from_bits(address).into());
            prop_assert_eq!(found == 9, holds);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = List::parse(&ListSpec::new("x", ListKind::Reputation), "x", &bytes);
    }
}

/// The real lists: files of addresses that stand on at least 3, 4, … 8 lists, each with its level.
#[test]
fn real_lists() {
    let folder = "../../../shared/data/ip-reputation";
    let mut lists = Vec::new();
    let mut expected: BTreeMap<Ipv4Addr, u8> = BTreeMap::new();
    for number in 3..=8u8 {
        let Ok(bytes) = std::fs::read(format!("{folder}/ipsum_level{number}.txt")) else {
            println!("skipped: ip-reputation is not beside the project");
            return;
        };
        let mut spec = ListSpec::new(&format!("level{number}"), ListKind::Reputation);
        spec.default_level = number * 25;
        lists.push(List::parse(&spec, "ipsum", &bytes).unwrap());
        for line in std::str::from_utf8(&bytes).unwrap().lines() {
            expected.insert(line.trim().parse().unwrap(), number * 25);
        }
    }
    let built = Lists::build(&lists).unwrap();
    assert!(expected.len() > 10_000);
    for (address, level) in &expected {
        assert_eq!(built.level((*address).into()), *level, "{address}");
        for near in [u32::from(*address) ^ 1, u32::from(*address).wrapping_add(256)] {
            let near = Ipv4Addr::from_bits(near);
            assert_eq!(built.level(near.into()), expected.get(&near).copied().unwrap_or(0));
        }
    }
    println!("ip-reputation: {} addresses in {} entries", expected.len(), built.entries());
}
