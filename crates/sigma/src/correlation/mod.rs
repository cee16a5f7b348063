//! Correlations (K1 to K4): typed definitions, the reference evaluator, the live one, and hunts.
//!
//! ```text
//!                           Correlations::read          (YAML of the rules → definitions, refusals)
//!                                   │
//!  matched rows ── re-keyed ──▶  Hit  ──▶ Live ──▶ Revision ──▶ alert table, deliveries
//!                (H1, by group)     ▲               │
//!                                   └── ChainedHit ◀┘      correlations over correlations
//! ```
//!
//! - **Meaning.** [`reference`] defines it: a naive fold over sorted hits. `docs/correlations.md` tells it in words, with
//!   what Sigma leaves open.
//! - **In the stream**, whoever matches rules asks [`Correlations::readers_of_rule`] which inputs of which correlations
//!   take a rule's matches, reads the group's and the value's fields ([`Input`]), makes the keys ([`group_key`],
//!   [`value_hash`], [`number`]) and appends a hit for each to the internal log, partitioned by the hit's slot
//!   ([`group_slot`]). Each partition there has a [`Live`]; it is given every hit with its origin and position (H1, H2),
//!   the clocks of the origins ([`Live::progress`]), ticks ([`Live::tick`]) and the frontiers of correlations that are read
//!   ([`Live::progress_output`]), one at a time in the order of the log. Its revisions go to the alert table, and as hits
//!   ([`Correlations::hits_of_revision`]) back into the log, where the stage is one more than the correlation's depth.
//!   [`Cascade`] does the last part in one process with one partition.
//! - **In a checkpoint** the state is written incrementally between hits, see [`live`]; loading takes the slots wanted.
//! - **Over history**, [`hunt`] takes the sorted hits of stored rows and answers what stands, through the same code.
//!
//! Nothing here performs I/O or reads a clock.

mod alert;
mod chain;
mod condition;
mod definition;
mod hit;
mod hunt;
pub mod live;
mod parts;
pub mod reference;
mod resolve;
#[cfg(test)]
mod tests;

pub use alert::{Alert, AlertId, Anchor, Evidence, Revision, Standing};
pub use chain::ChainedHit;
pub use condition::{Comparison, Expression, Threshold};
pub use definition::{
    About, BaseRule, Correlation, EXACT_VALUES, Input, MAX_DEPTH, MAX_GROUP_BY, MAX_RULES,
    MAX_TIMESPAN, Measure, Refusal, Source, Version,
};
pub use hit::{
    BACKFILL, END_OF_TIME, Hit, HitKind, ONE, Origin, Position, Value, fixed_point, group_key,
    group_slot, group_values, normalise, number, value_hash,
};
pub use hunt::{Cascade, Hunting, Standings, hunt, lead};
pub use live::{Counters, Live, Options};
pub use reference::{Range, first_cuts};
pub(crate) use resolve::Draft;
pub use resolve::{Correlations, Defaults, Resolved};
