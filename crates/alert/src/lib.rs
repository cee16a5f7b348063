//! Alerts that reach people: who is told of which alert, in which form, and again until it arrived.
//!
//! | part | module |
//! |---|---|
//! | an alert as this crate sees it: one revision, read from rows of the table `alerts` | [`alert`] |
//! | conditions on alerts, silences | [`matcher`], [`silence`] |
//! | who is told: routes, silences, inhibition, deduplication | [`notify`] |
//! | alerts that belong together, and risk of an entity | [`incident`], [`risk`] |
//! | what is sent: webhook, Slack, PagerDuty, Alertmanager, syslog with CEF | [`mod@format`] |
//! | where may be sent to, and when again | [`egress`], [`retry`] |
//! | configuration and its check | [`settings`], [`plan`] |
//! | sockets, secrets and the loop that delivers | [`client`] |
//!
//! Everything outside [`client`] is pure: no socket, no file, no clock. Times are microseconds since
//! the epoch and come from rows or from the caller.
//!
//! # What is promised (M5)
//! Notifications are **at-least-once**. The idempotency key is [`Alert::key`]: the alert's id and its
//! revision, the same in every attempt. A retraction (I2) is a revision and is delivered as such to
//! every receiver that was told of the alert.
//!
//! [`Alert::key`]: alert::Alert::key

pub mod alert;
pub mod client;
pub mod egress;
pub mod format;
pub mod incident;
pub mod matcher;
pub mod notify;
pub mod plan;
pub mod retry;
pub mod risk;
pub mod settings;
pub mod silence;

pub use alert::{Alert, Severity, State};
pub use plan::Plan;
pub use settings::AlertSettings;
