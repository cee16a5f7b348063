//! The front doors over real sockets, with a recorder in the gateway's place.

mod elastic;
mod http;
mod listeners;
mod recorder;
