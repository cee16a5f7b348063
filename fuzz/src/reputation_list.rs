//! Reputation lists: an address that stands alone on a line of a list that was taken is found, with
//! either way of asking, and allowed addresses are not.

use palisade_detect::reputation::{List, ListKind, ListSpec, Lists};
use std::net::IpAddr;

pub fn run(data: &[u8]) {
    let spec = ListSpec::new("fuzz", ListKind::Block);
    let Ok(list) = List::parse(&spec, "fuzz.txt", data) else { return };
    let entries = list.len();
    let mut allow = ListSpec::new("allow", ListKind::Allow);
    allow.default_level = 1;
    let allowed = List::parse(&allow, "fuzz.txt", data).expect("the same bytes");
    let lists = Lists::build(std::slice::from_ref(&list)).expect("one list");
    assert_eq!(lists.entries(), entries);
    let nothing = Lists::build(&[list, allowed]).expect("two lists");
    let text = String::from_utf8_lossy(data);
    for line in text.trim_start_matches('\u{feff}').split('\n') {
        // A line may be a heading; an address never is one.
        let Ok(address) = line.trim().parse::<IpAddr>() else { continue };
        let level = lists.level(address);
        assert_eq!(level, 255, "{address} is not found");
        assert_eq!(lists.lookup(address).map(|listed| listed.level), Some(level));
        if let IpAddr::V4(v4) = address {
            assert_eq!(lists.level_v4(v4.to_bits()), level);
            assert_eq!(lists.level(IpAddr::V6(v4.to_ipv6_mapped())), level);
        }
        assert_eq!(nothing.level(address), 0, "{address} is allowed");
    }
}
