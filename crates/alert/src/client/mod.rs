//! Where this crate talks to the world: names, sockets, secrets, and the loop that delivers.
//!
//! | part | module |
//! |---|---|
//! | name resolution and connections under the egress policy | [`connect`] |
//! | one HTTP request | [`http`] |
//! | syslog by UDP, TCP and TLS | [`syslog`] |
//! | secrets from environment and files | [`secrets`] |
//! | one attempt to deliver | [`sender`] |
//! | the loop of a receiver | [`deliverer`] |
//! | all receivers, started and stopped | [`running`] |
//! | metrics | [`metrics`] |

pub mod connect;
pub mod deliverer;
pub mod http;
pub mod metrics;
pub mod running;
pub mod secrets;
pub mod sender;
pub mod syslog;

pub use deliverer::{AlertSource, Deliverer, DelivererOptions, Foundations, Rows, SourceError};
pub use metrics::DeliveryMetrics;
pub use running::{Deliverers, Prepared, StartError};
pub use sender::Sender;
