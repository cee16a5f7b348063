//! Record ids (invariant I1): 128 bits, given at the gateway before partitioning.
//!
//! An id comes from the sender's own id where there is one, from the idempotency key and the index
//! in the request where there is a key, and otherwise from the place at which the gateway took the
//! record: region, gateway, gateway epoch, request sequence, index. Nothing is derived from a log
//! offset, so another partition count, another stack or a promoted region gives the same ids.
//!
//! An id that derives from the sender's is not stored: rows hold `event_id`, and the id is computed
//! from it again ([`RecordId::from_sender`]). Only ids of the other kinds stand in `record_id`.

use std::fmt;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The kind of ids that come from the sender's own: the first byte that is hashed.
const SENDER: u8 = 1;
/// Bytes of a length that is hashed.
const LENGTH: usize = 8;

/// A record's id, 128 bits, written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub [u8; 16]);

/// Where a gateway stood when it took a request: the part of positional ids that is constant for
/// the life of a gateway process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayIdentity {
    /// The region's number.
    pub region: u16,
    /// The gateway's number within the region.
    pub gateway: u16,
    /// How often this gateway was started; kept in the catalog, so no two lives share ids.
    pub epoch: u32,
}

impl RecordId {
    /// The id of a record whose sender named it: XXH3-128 over tenant, source and the sender's id,
    /// each preceded by its length.
    #[must_use]
    pub fn from_sender(tenant: &str, source: &str, event_id: &str) -> Self {
        Self::hashed(SENDER, &[tenant.as_bytes(), source.as_bytes(), event_id.as_bytes()])
    }

    /// The id of a record of a request with an idempotency key: from tenant, source, key and the
    /// record's index in the request.
    #[must_use]
    pub fn from_key(tenant: &str, source: &str, key: &str, index: u64) -> Self {
        Self::hashed(
            2,
            &[tenant.as_bytes(), source.as_bytes(), key.as_bytes(), &index.to_le_bytes()],
        )
    }

    /// The id of a record without any name: from the gateway's identity, the request's sequence
    /// number at that gateway (40 bits) and the record's index in the request (24 bits). Big-endian,
    /// so that ids of one gateway ascend.
    #[must_use]
    pub fn from_place(gateway: GatewayIdentity, request: u64, index: u32) -> Self {
        let low = (request << 24) | u64::from(index & 0x00ff_ffff);
        let high = (u64::from(gateway.region) << 48)
            | (u64::from(gateway.gateway) << 32)
            | u64::from(gateway.epoch);
        Self(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
    }

    fn hashed(kind: u8, parts: &[&[u8]]) -> Self {
        let mut hash = Xxh3::new();
        hash.update(&[kind]);
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.digest128().to_be_bytes())
    }
}

/// Computes the ids of many records that their senders named: those of [`RecordId::from_sender`], at a
/// third of the cost where tenant and source stay the same from row to row.
#[derive(Debug, Default)]
pub struct SenderIds {
    /// What is hashed: kind, tenant and source, each text preceded by its length, then the sender's id.
    bytes: Vec<u8>,
    tenant: String,
    source: String,
    /// The length of what is the same for all ids of this tenant and source.
    prefix: usize,
}

impl SenderIds {
    /// The id of a record.
    #[must_use]
    pub fn id(&mut self, tenant: &str, source: &str, event_id: &str) -> RecordId {
        self.begin(tenant, source);
        self.hashed(0, event_id.as_bytes())
    }

    /// Sets whose ids come next. The first of them shares nothing with those before.
    pub fn begin(&mut self, tenant: &str, source: &str) {
        if self.prefix == 0 || self.source != source || self.tenant != tenant {
            tenant.clone_into(&mut self.tenant);
            source.clone_into(&mut self.source);
            self.bytes.clear();
            self.bytes.push(SENDER);
            for part in [tenant, source] {
                self.bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                self.bytes.extend_from_slice(part.as_bytes());
            }
            self.prefix = self.bytes.len();
        }
        self.bytes.truncate(self.prefix);
        self.bytes.extend_from_slice(&[0; LENGTH]);
    }

    /// The id of the next record, whose sender's id begins with the first `shared` bytes of the one before and goes on
    /// with `rest`. `None` when the one before was shorter, or nobody's ids have begun.
    #[must_use]
    pub fn next(&mut self, shared: usize, rest: &[u8]) -> Option<RecordId> {
        let before = self.bytes.len().checked_sub(self.prefix + LENGTH)?;
        (self.prefix > 0 && shared <= before).then(|| self.hashed(shared, rest))
    }

    fn hashed(&mut self, shared: usize, rest: &[u8]) -> RecordId {
        self.bytes.truncate(self.prefix + LENGTH + shared);
        self.bytes.extend_from_slice(rest);
        let length = ((shared + rest.len()) as u64).to_le_bytes();
        if let Some(place) = self.bytes.get_mut(self.prefix..self.prefix + LENGTH) {
            place.copy_from_slice(&length);
        }
        RecordId(xxh3_128(&self.bytes).to_be_bytes())
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids of version 1: a change here changes every id that was ever handed out.
    #[test]
    fn ids_are_stable() {
        let place = GatewayIdentity { region: 1, gateway: 2, epoch: 3 };
        assert_eq!(
            RecordId::from_place(place, 4, 5).to_string(),
            "00010002000000030000000004000005"
        );
        let a = RecordId::from_sender("t", "s", "e");
        assert_eq!(a, RecordId::from_sender("t", "s", "e"));
        assert_ne!(a, RecordId::from_sender("ts", "", "e"));
        assert_ne!(a, RecordId::from_key("t", "s", "e", 0));
    }

    #[test]
    fn many_ids_are_those_of_one_at_a_time() {
        let long = "x".repeat(300);
        let mut ids = SenderIds::default();
        for (tenant, source, event_id) in [
            ("t", "s", "e"),
            ("t", "s", ""),
            ("t", "s", long.as_str()),
            ("t", "other", "e"),
            ("", "", "e"),
            ("", "", "e"),
            ("ts", "", "e"),
            (long.as_str(), long.as_str(), long.as_str()),
            ("t", "s", "e"),
        ] {
            assert_eq!(
                ids.id(tenant, source, event_id),
                RecordId::from_sender(tenant, source, event_id)
            );
        }
    }

    #[test]
    fn ids_that_share_a_beginning_are_those_of_one_at_a_time() {
        let mut ids = SenderIds::default();
        assert_eq!(ids.next(0, b"e"), None);
        ids.begin("t", "s");
        let mut before = String::new();
        for (shared, rest) in
            [(0, "evt_17_01"), (8, "2"), (4, "18_77"), (9, ""), (2, ""), (0, ""), (0, "x")]
        {
            before.truncate(shared);
            before.push_str(rest);
            let expected = RecordId::from_sender("t", "s", &before);
            assert_eq!(ids.next(shared, rest.as_bytes()), Some(expected), "{before}");
        }
        assert_eq!(ids.next(2, b"x"), None);
        ids.begin("t", "other");
        assert_eq!(ids.next(1, b"x"), None);
        assert_eq!(ids.next(0, b"x"), Some(RecordId::from_sender("t", "other", "x")));
    }
}
