//! The front doors: everything from the socket to a call of the gateway.

pub mod submit;
