//! The front doors: everything from the socket to a call of the gateway.

pub mod auth;
pub mod body;
pub mod connection;
pub mod elastic;
pub mod files;
pub mod gateway;
pub mod http;
pub mod lines;
pub mod listen;
pub mod listener;
pub mod metrics;
mod patient;
pub mod problem;
pub mod serve;
pub mod submit;
pub mod syslog;
pub mod tcp;
pub mod tls;
pub mod unanswered;
