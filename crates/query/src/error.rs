//! Why a query was not answered, in the words of whoever asked.

use crate::names::nearest;
use datafusion::common::{DataFusionError, SchemaError};
use palisade_event::ErrorClass;
use palisade_table::provider::ReadError;
use std::time::Duration;

/// Why a query was not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueryError {
    /// The text is longer than allowed.
    #[error("the query has {bytes} bytes and at most {limit} are allowed: shorten it")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The plan has more parts, or the text is nested deeper, than allowed.
    #[error(
        "the query has {nodes} or more steps or levels and at most {limit} are allowed: split it, or write chains of OR as IN"
    )]
    TooComplex {
        /// How many steps or levels it has, as far as they were counted.
        nodes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// The text is no SQL.
    #[error("this is not SQL that can be read: {0}")]
    Syntax(String),
    /// The statement does something else than read.
    #[error(
        "{0} is refused: queries only read (SELECT, EXPLAIN, SHOW TABLES, SHOW COLUMNS, DESCRIBE)"
    )]
    Refused(String),
    /// There is no such column.
    #[error("there is no column '{name}'{}", hint_text(.hint))]
    UnknownColumn {
        /// The name as it was looked for.
        name: String,
        /// Columns with a name like it.
        hint: Option<String>,
    },
    /// There is no such table.
    #[error("there is no table '{name}'{}", hint_text(.hint))]
    UnknownTable {
        /// The name as it was looked for.
        name: String,
        /// Tables with a name like it.
        hint: Option<String>,
    },
    /// The query is SQL and makes no sense: wrong types, wrong arguments, unknown functions.
    #[error("{0}")]
    Invalid(String),
    /// A value could not be computed: a cast or a division that fails.
    #[error("the query failed: {0}")]
    Failed(String),
    /// The query took longer than its limit.
    #[error("the query was stopped after {} s: narrow the time range or raise the limit", .0.as_secs_f64())]
    Time(Duration),
    /// The query needs more memory than its limit.
    #[error("the query needs more than {} MiB of memory: narrow it, group by fewer values, or raise the limit", .0 >> 20)]
    Memory(usize),
    /// The result has more rows than its limit.
    #[error("the result has more than {0} rows: add a LIMIT or raise the limit")]
    Rows(usize),
    /// Too many queries run and wait, or they together need all memory.
    #[error("{0}: try again in a moment")]
    Busy(String),
    /// A segment could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The engine is at fault.
    #[error("internal error: {0}; please report it with the query")]
    Internal(String),
}

fn hint_text(hint: &Option<String>) -> String {
    hint.as_ref().map_or_else(String::new, |hint| format!(": did you mean {hint}?"))
}

impl QueryError {
    /// What the asker does about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Busy(_) | Self::Time(_) => ErrorClass::Transient,
            Self::Read(error) => error.class(),
            _ => ErrorClass::Permanent,
        }
    }

    /// A stable name of the kind of error, for interfaces.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "query_too_long",
            Self::TooComplex { .. } => "query_too_complex",
            Self::Syntax(_) => "syntax",
            Self::Refused(_) => "refused",
            Self::UnknownColumn { .. } => "unknown_column",
            Self::UnknownTable { .. } => "unknown_table",
            Self::Invalid(_) => "invalid",
            Self::Failed(_) => "failed",
            Self::Time(_) => "time_limit",
            Self::Memory(_) => "memory_limit",
            Self::Rows(_) => "row_limit",
            Self::Busy(_) => "busy",
            Self::Read(_) => "storage",
            Self::Internal(_) => "internal",
        }
    }

    /// Names like the unknown one, where there are any.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::UnknownColumn { hint, .. } | Self::UnknownTable { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }

    /// The error of a query out of DataFusion's; `tables` are the names that exist.
    pub(crate) fn of(error: &DataFusionError, tables: &[String]) -> Self {
        if let Some(read) = ReadError::of(error) {
            return Self::Read(read.clone());
        }
        match error.find_root() {
            DataFusionError::SQL(parser, _) => Self::Syntax(clean(&parser.to_string())),
            DataFusionError::SchemaError(schema, _) => Self::of_schema(schema),
            DataFusionError::Plan(message) => Self::of_plan(message, tables),
            DataFusionError::NotImplemented(message) | DataFusionError::Configuration(message) => {
                Self::Invalid(clean(message))
            }
            DataFusionError::Internal(message) => Self::Internal(clean(message)),
            DataFusionError::ArrowError(arrow, _) => Self::Failed(clean(&arrow.to_string())),
            DataFusionError::Execution(message) => Self::Failed(clean(message)),
            other => Self::Failed(clean(&other.to_string())),
        }
    }

    fn of_schema(error: &SchemaError) -> Self {
        match error {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let known: Vec<&str> = valid_fields.iter().map(|field| field.name()).collect();
                let name = field.flat_name();
                let hint = nearest(field.name(), known.iter().copied());
                Self::UnknownColumn { name, hint }
            }
            other => Self::Invalid(clean(&other.to_string())),
        }
    }

    fn of_plan(message: &str, tables: &[String]) -> Self {
        // "table 'palisade.main.x' not found"
        if let Some(rest) = message.strip_prefix("table '")
            && let Some((name, _)) = rest.split_once("' not found")
        {
            let name = name.trim_start_matches("palisade.").trim_start_matches("main.");
            let hint = nearest(name, tables.iter().map(String::as_str));
            return Self::UnknownTable { name: name.to_owned(), hint };
        }
        Self::Invalid(clean(message))
    }
}

/// The first line of a message, bounded, without the engine's own prefixes.
fn clean(message: &str) -> String {
    let mut line = message.lines().next().unwrap_or_default();
    for prefix in ["sql parser error: ", "Error during planning: ", "Arrow error: "] {
        line = line.strip_prefix(prefix).unwrap_or(line);
    }
    line.chars().take(600).collect()
}
