//! The front doors: everything from the socket to a call of the gateway.

pub mod auth;
pub mod body;
pub mod elastic;
pub mod gateway;
pub mod http;
pub mod lines;
pub mod listener;
pub mod metrics;
pub mod network;
pub mod problem;
pub mod serve;
pub mod submit;
pub mod tls;
