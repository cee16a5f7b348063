//! The verbs of the command line, one module each.

pub(crate) mod bench;
pub(crate) mod demo;
pub(crate) mod dlq;
pub(crate) mod hunt;
pub(crate) mod ingest;
pub(crate) mod intel;
pub(crate) mod key;
pub(crate) mod log;
pub(crate) mod query;
pub(crate) mod rule;
pub(crate) mod run;
pub(crate) mod score;
pub(crate) mod table;
pub(crate) mod validate;
