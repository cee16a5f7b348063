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
//! | metrics | [`metrics`] |

pub mod connect;
pub mod deliverer;
pub mod http;
pub mod metrics;
pub mod secrets;
pub mod sender;
pub mod syslog;

pub use deliverer::{AlertSource, Deliverer, DelivererOptions, SourceError};
pub use metrics::DeliveryMetrics;
pub use secrets::{SecretError, load};
pub use sender::Sender;
