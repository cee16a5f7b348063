//! The ledger of idempotency keys: what is read and written again reads the same; its bound holds.

use palisade_pipeline::ledger::{Ledger, LedgerLimits};

pub fn run(data: &[u8]) {
    let limits = LedgerLimits { per_tenant: 3, per_tenant_bytes: 4096 };
    let ledger = Ledger::new(limits);
    let read = ledger.restore(data);
    let written = ledger.save().expect("it can be written");
    let tenants = written
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .map(|entry| entry["tenant"].to_string())
        .collect::<std::collections::BTreeSet<_>>();
    assert!(ledger.len() <= 3 * tenants.len());
    let again = Ledger::new(limits);
    again.restore(&written).expect("what was written is read");
    assert_eq!(again.save().expect("it can be written"), written);
    assert!(read.is_ok() || ledger.len() <= data.len());
}
