//! Slots and partitions (invariant P1).
//!
//! `slot = hash(tenant, hash(entity) mod spread)` of 4,096. The entity is the user, else the host,
//! else the source address, normalised ([`entity_hash`]). For one tenant the hash is one-to-one in
//! `hash(entity) mod spread`: a tenant spread over all slots fills each alike, so that bounds per
//! slot are bounds per tenant too. Slots map to partitions by rendezvous hashing, so another number
//! of partitions moves as few slots as possible.

use xxhash_rust::xxh3::xxh3_64;

/// How many slots there are, on every stack and for ever.
pub const SLOTS: u16 = 4096;

/// One of the 4,096 slots that state is kept by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u16);

/// The hash of an entity's normalised name: surrounding white space removed, ASCII letters folded
/// to lower case. `DOMAIN\User` and `user@domain` stay what they are.
#[must_use]
pub fn entity_hash(name: &str) -> u64 {
    let name = name.trim();
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        xxh3_64(name.to_ascii_lowercase().as_bytes())
    } else {
        xxh3_64(name.as_bytes())
    }
}

/// The slot of an entity of a tenant whose data is spread over `spread` slots (1 keeps the tenant
/// together, [`SLOTS`] spreads it over all).
#[must_use]
pub fn slot_of(tenant: &str, entity: u64, spread: u16) -> Slot {
    slot_within(xxh3_64(tenant.as_bytes()), entity, spread)
}

/// [`slot_of`] for a tenant's name that is hashed already (XXH3-64).
#[must_use]
pub fn slot_within(tenant: u64, entity: u64, spread: u16) -> Slot {
    let within = entity % u64::from(spread.clamp(1, SLOTS));
    // An odd factor permutes the slots, so that the few slots of a tenant with a small spread are
    // not neighbours of another tenant's.
    let first = tenant % u64::from(SLOTS);
    Slot(((first + within * 1_597) % u64::from(SLOTS)) as u16)
}

/// The slot → partition table for a number of partitions, by rendezvous hashing (each slot goes to
/// the partition with the greatest hash of the pair).
#[must_use]
pub fn partition_table(partitions: u16) -> Vec<u16> {
    (0..SLOTS)
        .map(|slot| {
            (0..partitions.max(1))
                .max_by_key(|partition| {
                    let pair = (u32::from(slot) << 16) | u32::from(*partition);
                    xxh3_64(&pair.to_le_bytes())
                })
                .unwrap_or(0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_are_normalised() {
        assert_eq!(entity_hash(" Alice "), entity_hash("alice"));
        assert_ne!(entity_hash("alice"), entity_hash("bob"));
    }

    #[test]
    fn one_more_partition_moves_few_slots() {
        let (eight, nine) = (partition_table(8), partition_table(9));
        let moved = eight.iter().zip(&nine).filter(|(a, b)| a != b).count();
        assert!(moved < 4096 / 9 + 120, "{moved} slots moved");
        assert!(eight.iter().zip(&nine).all(|(a, b)| a == b || *b == 8));
    }

    #[test]
    fn a_tenant_with_spread_one_stays_together() {
        let slots: std::collections::BTreeSet<_> =
            (0..100).map(|user| slot_of("acme", entity_hash(&format!("u{user}")), 1)).collect();
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn a_tenant_fills_each_of_its_slots_alike() {
        for (tenant, spread) in
            [("acme", SLOTS), ("default", SLOTS), ("acme", 7), ("umbrella", 1000)]
        {
            let mut users = vec![0u32; usize::from(SLOTS)];
            for entity in 0..u64::from(spread) * 3 {
                users[usize::from(slot_of(tenant, entity, spread).0)] += 1;
            }
            let used: Vec<_> = users.into_iter().filter(|count| *count > 0).collect();
            assert_eq!(used, vec![3; usize::from(spread)], "{tenant} over {spread}");
        }
        assert_ne!(slot_of("acme", 1, 1), slot_of("umbrella", 1, 1));
    }
}
