//! Rules and batches in, matches out: what the specification says, the same whatever the columns, and
//! the same as the oracles say.

#[path = "../support/mod.rs"]
mod support;

mod differential;
mod loading;
mod modifiers;
mod oracle;
mod properties;
mod shapes;
