//! The query engine at its public edge. One binary, because linking the SQL engine takes longer than all
//! of these tests.

mod aggregates;
mod formats;
mod ids;
mod isolation;
mod limits;
mod parts;
mod reading;
mod support;
