//! Sigma rules and correlations over columns, pure: rules and batches in, matches and alerts out. No I/O, no clock.
//!
//! [`load::Loader`] takes the texts of rule files and gives a [`RuleSet`]: the rules, and by name
//! every document that was refused. [`RuleSet::matcher`] compiles them into a [`Matcher`], which
//! tells for each row of a batch the rules that it matches. What the specification leaves open is
//! decided in `docs/sigma.md`.

mod batch;
mod book;
pub mod correlation;
mod error;
mod exclude;
mod expr;
mod field;
mod filter;
pub mod load;
mod lower;
mod matcher;
mod modifier;
mod only;
mod pattern;
mod pipeline;
mod regexes;
mod rule;
mod source;
mod survey;
mod yaml;

pub use batch::Reads;
pub use book::{Book, Counted, Press, Source};
pub use error::{Kind, Refusal};
pub use exclude::{Exclusions, Sieve};
pub use filter::Filter;
pub use load::{Loader, RuleSet};
pub use matcher::{Explanation, Groups, Hits, Matcher, Reason};
pub use pipeline::Pipelines;
pub use rule::{Level, LogSource, Rule, Status};
pub use survey::{Need, Needs, Survey, Wanted};
