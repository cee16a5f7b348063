//! Looking up the addresses of a batch.

use super::{Listed, Lists};
use arrow::array::{Array, Int32Array, RecordBatch};
use palisade_event::column::Text;
use palisade_event::schema::Core;
use std::net::IpAddr;

/// The column `reputation` of a batch: per row the worst level over source and destination address,
/// null where no list names either. `None` when no row has a level. Texts that are no address have
/// none. Addresses are read once per distinct value where a column has a dictionary.
#[must_use]
pub fn stamp(batch: &RecordBatch, lists: &Lists) -> Option<Int32Array> {
    if lists.is_empty() {
        return None;
    }
    let mut levels = vec![0u8; batch.num_rows()];
    let mut any = false;
    for core in [Core::SrcIp, Core::DstIp] {
        match Text::in_batch(batch, core.name()) {
            Some(Text::Plain(plain)) => {
                for (level, text) in levels.iter_mut().zip(plain.iter()) {
                    let found = text.map_or(0, |text| level_of(lists, text));
                    any |= found > 0;
                    *level = found.max(*level);
                }
            }
            Some(Text::Dictionary(keys, values)) => {
                any |= by_key(&mut levels, keys, values, lists);
            }
            None => {}
        }
    }
    any.then(|| levels.iter().map(|level| (*level > 0).then_some(i32::from(*level))).collect())
}

/// One dictionary column; whether any of its rows has a level.
fn by_key(
    levels: &mut [u8],
    keys: &arrow::array::DictionaryArray<arrow::datatypes::Int32Type>,
    values: &arrow::array::StringArray,
    lists: &Lists,
) -> bool {
    let mut any = false;
    if values.len() <= keys.len() {
        let known: Vec<u8> =
            values.iter().map(|text| text.map_or(0, |text| level_of(lists, text))).collect();
        if known.iter().all(|level| *level == 0) {
            return false;
        }
        for (level, key) in levels.iter_mut().zip(keys.keys().iter()) {
            let found = key.and_then(|key| known.get(key as usize)).copied().unwrap_or(0);
            any |= found > 0;
            *level = found.max(*level);
        }
    } else {
        // A slice whose dictionary is larger than itself: only what its rows use is read.
        for (level, key) in levels.iter_mut().zip(keys.keys().iter()) {
            let text = key
                .map(|key| key as usize)
                .filter(|key| *key < values.len() && values.is_valid(*key));
            let found = text.map_or(0, |key| level_of(lists, values.value(key)));
            any |= found > 0;
            *level = found.max(*level);
        }
    }
    any
}

fn level_of(lists: &Lists, text: &str) -> u8 {
    if let Some(v4) = dotted(text.as_bytes()) {
        return lists.level_v4(v4);
    }
    // An IPv6 address with zone and port is at most 60 bytes long.
    if text.len() > 60 {
        return 0;
    }
    address(text).map_or(0, |address| lists.level(address))
}

/// An address as senders write it: with white space around, in brackets, with a zone or a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Some(socket.ip());
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.split('%').next()?.parse().ok()
}

/// The common form of an IPv4 address, fast; `None` leaves the rest to the general parser.
fn dotted(text: &[u8]) -> Option<u32> {
    if text.len() > 15 {
        return None;
    }
    let (mut number, mut part, mut digits, mut dots) = (0u32, 0u32, 0u32, 0u32);
    for byte in text {
        match byte {
            b'0'..=b'9' => {
                // A leading zero is octal to some readers: not an address.
                if digits > 0 && part == 0 {
                    return None;
                }
                part = part * 10 + u32::from(byte - b'0');
                digits += 1;
                if part > 255 {
                    return None;
                }
            }
            b'.' if digits > 0 && dots < 3 => {
                number = number << 8 | part;
                (part, digits) = (0, 0);
                dots += 1;
            }
            _ => return None,
        }
    }
    (dots == 3 && digits > 0).then_some(number << 8 | part)
}

/// Whether a sender with this address is to be refused: on a block list, and on no allow list. Only
/// the sender's own address may be asked about; an event that mentions a blocked address is
/// evidence and is stamped instead ([`stamp`]).
#[must_use]
pub fn sender_refused(lists: &Lists, sender: IpAddr) -> Option<Listed<'_>> {
    lists.listed(lists.refused.find(sender)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_fast_reader_agrees_with_the_library(parts in prop::collection::vec(0usize..11, 0..17)) {
            let text: String = parts.iter().map(|at| char::from(b"0123456789."[*at])).collect();
            let expected = text.parse::<std::net::Ipv4Addr>().ok().map(|a| a.to_bits());
            prop_assert_eq!(dotted(text.as_bytes()), expected);
        }

        #[test]
        fn every_address_is_read(number in any::<u32>()) {
            let text = std::net::Ipv4Addr::from_bits(number).to_string();
            prop_assert_eq!(dotted(text.as_bytes()), Some(number));
        }
    }

    #[test]
    fn addresses_are_read_as_senders_write_them() {
        for text in [
            "2001:db8::1",
            "[2001:db8::1]:443",
            "[2001:db8::1]",
            "2001:db8::1%eth0",
            " 2001:db8::1 ",
        ] {
            assert_eq!(address(text), "2001:db8::1".parse().ok(), "{text}");
        }
        assert_eq!(address("192.0.2.1:80"), "192.0.2.1".parse().ok());
        assert_eq!(address("not an address"), None);
    }
}
