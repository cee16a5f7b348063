//! The query engine at its public edge. One binary, because linking the SQL engine takes longer than all
//! of these tests.

mod formats;
mod isolation;
mod limits;
mod reading;
mod support;
