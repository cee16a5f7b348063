//! Under which paths a record may hold a field of a rule.
//!
//! Rules name fields as the Sigma taxonomy does (`CommandLine`); records hold them flat, in the
//! shapes of `evtx_dump` and of agents, or under the names of ECS and OCSF. The first path under which
//! a record has a value is the field's.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A field of a rule and the paths at which it may stand, in their order.
#[derive(Debug, Clone, Eq)]
pub(crate) struct Field {
    /// As the rule writes it.
    pub(crate) name: Arc<str>,
    pub(crate) paths: Arc<[String]>,
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.paths == other.paths
    }
}

impl Hash for Field {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.paths.hash(state);
    }
}

/// Under `Event.UserData` the field stands one level further down, below a name that differs by
/// provider: this stands for that name in a path.
pub(crate) const ANY_NAME: &str = "*";

impl Field {
    /// A field with the paths that pipelines name for it beside those that every field has.
    pub(crate) fn new(name: &str, mapped: &[String]) -> Self {
        let mut paths = vec![name.to_owned()];
        let mut add = |path: String| {
            if !paths.contains(&path) {
                paths.push(path);
            }
        };
        for shape in
            ["Event.EventData.", "Event.System.", "winlog.event_data.", "winlog.user_data."]
        {
            add(format!("{shape}{name}"));
        }
        // An element with attributes keeps its text apart.
        for shape in ["Event.EventData.", "Event.System."] {
            add(format!("{shape}{name}.#text"));
        }
        // `Provider_Name` is the attribute `Name` of the element `Provider`.
        if let Some((element, attribute)) = name.split_once('_')
            && !element.is_empty()
            && !attribute.is_empty()
        {
            add(format!("Event.System.{element}.#attributes.{attribute}"));
        }
        add(format!("Event.UserData.{ANY_NAME}.{name}"));
        mapped.iter().cloned().for_each(add);
        Self { name: Arc::from(name), paths: paths.into() }
    }

    /// Its paths but those that stand for several names.
    pub(crate) fn plain_paths(&self) -> impl Iterator<Item = &String> {
        self.paths.iter().filter(|path| !path.contains(ANY_NAME))
    }
}
