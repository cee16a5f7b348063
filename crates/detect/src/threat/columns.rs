//! Which columns of `events` can hold a payload, and what kind of text stands in them.
//!
//! | columns | place |
//! |---|---|
//! | `message` | line |
//! | `url` | request |
//! | `user_agent`, and dynamic columns ending in `user_agent` or `useragent` | agent |
//! | dynamic columns whose last part, or last two parts, is one of [`REQUEST_PARTS`], and all below `url.`, `http.request.`, `http_request.`, `request.`, `headers.`, `cookies.`, `query_params.`, `params.`, `form.` | request |
//! | dynamic columns whose last part is one of [`COMMAND_PARTS`] | command |
//! | dynamic columns whose last part is `payload`, `data`, `input`, `value`, `text`, `details`, `description` or `rawdata` | line |
//! | all other dynamic columns below `metadata.` or `payload.` | value |
//!
//! A value names something: a file, a program, a host, an application. A path, a name or a command is
//! what such a field is there for, so none of them is an attack; a step out of a directory, a quote
//! that ends a string, markup and the like still are. Version 1 of the definition took it for a line.
//!
//! Parts are compared without case and without `_` and `-`. Only text columns count; a column of
//! JSON texts is text.

use super::rules::Places;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use palisade_event::schema::Core;

/// What kind of text stands in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// A URL, query, body, cookie, referer.
    Request,
    /// A command line or script of a process, where a command is no attack.
    Command,
    /// A message, a whole line of a log, or a field that holds text of any kind.
    Line,
    /// A field with a name of its own that tells nothing of requests or commands.
    Value,
    /// A user agent.
    Agent,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Request, Self::Command, Self::Line, Self::Value, Self::Agent];

    /// Which rules hold in a version of the definition.
    pub(crate) fn places(self, version: u32) -> Places {
        match self {
            Self::Value if version == 1 => Places::LINE,
            Self::Value => Places::VALUE,
            Self::Request => Places::REQUEST,
            Self::Command => Places::COMMAND,
            Self::Line => Places::LINE,
            Self::Agent => Places::AGENT,
        }
    }

    /// In which order columns are asked for the payload that stands for a row.
    fn rank(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Command => 1,
            Self::Line | Self::Value => 2,
            Self::Agent => 3,
        }
    }
}

/// Last parts of names of columns that hold something of a request.
pub const REQUEST_PARTS: &[&str] = &[
    "query",
    "querystring",
    "uriquery",
    "csuriquery",
    "csuristem",
    "uri",
    "requesturi",
    "requesturl",
    "requestpath",
    "requestbody",
    "body",
    "body.content",
    "bodytext",
    "postdata",
    "request",
    "requestline",
    "referer",
    "referrer",
    "cookie",
    "cookies",
    "csreferer",
    "cscookie",
    "args",
    "params",
    "requestparameters",
    "urlpath",
    "urlquery",
    "httpurl",
    "search",
];

/// Last parts of names of columns that hold a command line or a script.
pub const COMMAND_PARTS: &[&str] = &[
    "commandline",
    "parentcommandline",
    "processcommandline",
    "command",
    "cmd",
    "cmdline",
    "proctitle",
    "process.args",
    "scriptblocktext",
    "scripttext",
    "payloaddata1",
    "hostapplication",
];

/// Last parts of names of columns that hold a payload of unknown kind.
const LINE_PARTS: &[&str] =
    &["payload", "data", "input", "value", "text", "details", "description", "rawdata"];

/// Beginnings of names of columns that belong to a request.
const REQUEST_HEADS: &[&str] = &[
    "url.",
    "http.request.",
    "http_request.",
    "request.",
    "headers.",
    "cookies.",
    "query_params.",
    "params.",
    "form.",
];

/// The place of a dynamic column by its name; `None` when it holds no payload.
#[must_use]
pub fn place_of(name: &str) -> Option<Place> {
    // Names are bounded by the decoder; beyond this one is none of ours.
    if name.len() > 256 || Core::by_name(name).is_some() {
        return None;
    }
    let folded: String = name
        .chars()
        .filter(|c| !matches!(c, '_' | '-' | '@' | '#'))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let last = folded.rsplit('.').next().unwrap_or(&folded);
    let two = folded
        .rmatch_indices('.')
        .nth(1)
        .map_or(folded.as_str(), |(at, _)| folded.get(at + 1..).unwrap_or(&folded));
    let is = |parts: &[&str]| parts.contains(&last) || parts.contains(&two);
    let lower = name.to_ascii_lowercase();
    if last.ends_with("useragent") {
        Some(Place::Agent)
    } else if is(COMMAND_PARTS) {
        Some(Place::Command)
    } else if is(REQUEST_PARTS) || REQUEST_HEADS.iter().any(|head| lower.starts_with(head)) {
        Some(Place::Request)
    } else if is(LINE_PARTS) {
        Some(Place::Line)
    } else if lower.starts_with("metadata.") || lower.starts_with("payload.") {
        Some(Place::Value)
    } else {
        None
    }
}

/// A dynamic column that can hold a payload.
#[derive(Debug, Clone, Copy)]
pub struct PayloadColumn<'a> {
    /// Its name.
    pub name: &'a str,
    /// What kind of text stands in it.
    pub place: Place,
    /// The column.
    pub array: &'a ArrayRef,
}

/// The dynamic columns of a batch that can hold a payload: requests first, then commands, then
/// lines and values, then agents, each by name.
#[must_use]
pub fn payload_columns(batch: &RecordBatch) -> Vec<PayloadColumn<'_>> {
    let schema = batch.schema_ref();
    let mut columns: Vec<PayloadColumn<'_>> = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .filter(|(field, _)| is_text(field.data_type()))
        .filter_map(|(field, array)| {
            let name = field.name().as_str();
            place_of(name).map(|place| PayloadColumn { name, place, array })
        })
        .collect();
    columns.sort_by_key(|column| (column.place.rank(), column.name));
    columns
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 => true,
        DataType::Dictionary(key, value) => **key == DataType::Int32 && **value == DataType::Utf8,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_place() {
        for (name, place) in [
            ("url.query", Some(Place::Request)),
            ("http.request.body.content", Some(Place::Request)),
            ("cs-uri-query", Some(Place::Request)),
            ("metadata.request_body", Some(Place::Request)),
            ("winlog.event_data.CommandLine", Some(Place::Command)),
            ("process.args", Some(Place::Command)),
            ("Event.EventData.ScriptBlockText", Some(Place::Command)),
            ("metadata.device", Some(Place::Value)),
            ("metadata.resource", Some(Place::Value)),
            ("metadata.file_path", Some(Place::Value)),
            ("metadata.description", Some(Place::Line)),
            ("metadata.command_line", Some(Place::Command)),
            ("payload.data", Some(Place::Line)),
            ("metadata.http.user_agent", Some(Place::Agent)),
            ("process.name", None),
            ("file.path", None),
            ("message", None),
            ("user", None),
        ] {
            assert_eq!(place_of(name), place, "{name}");
        }
    }
}
