//! Who is told of alerts, from the configuration.

use crate::server::Failure;
use palisade_alert::client::Prepared;
use palisade_alert::{AlertSettings, Plan};

/// The receivers of a configuration with their secrets; `None` when there are none.
pub(crate) fn prepare(settings: &AlertSettings) -> Result<Option<Prepared>, Failure> {
    let plan = Plan::check(settings)?;
    if plan.receivers.is_empty() {
        return Ok(None);
    }
    Ok(Some(Prepared::new(plan)?))
}
