//! The rules: what an attack of each class looks like in normalised text.
//!
//! A rule says in which places it counts, which literals must be there before anything else is
//! tried (its triggers), which expression then has to match, and how strongly it speaks for its
//! class. Text is normalised before (see [`super::normalise`]): lower case, decoded, `+` and white
//! space as one space, comments removed. Rules describe how an attack works (a quote that ends a
//! string followed by a condition, a separator followed by a command); none is a known payload.

mod agents;
mod code;
mod command;
mod encoded;
mod files;
mod protocol;
mod script;
mod sql;

use super::Class;

/// Where a text was found; rules name the places that they hold for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Places(u8);

impl Places {
    /// URLs, queries, bodies, cookies, referers.
    pub(crate) const REQUEST: Self = Self(1);
    /// User agents.
    pub(crate) const AGENT: Self = Self(2);
    /// Messages and whole lines of logs, and fields about which nothing is known.
    pub(crate) const LINE: Self = Self(4);
    /// Command lines and scripts of processes, where a command is no attack.
    pub(crate) const COMMAND: Self = Self(8);
    /// Values of named fields, where neither a path nor a name nor a command is an attack.
    pub(crate) const VALUE: Self = Self(16);
    /// Messages about processes, which say what programs and commands there were.
    pub(crate) const PROCESS: Self = Self(32);
    /// All of them.
    pub(crate) const ANY: Self = Self(63);
    /// All but command lines and messages about processes.
    pub(crate) const WEB: Self = Self(23);
    /// What was sent, and lines: where a path or a command alone can be the payload.
    pub(crate) const TEXT: Self = Self(7);
    /// Requests and user agents.
    pub(crate) const SENT: Self = Self(3);

    /// Whether both have a place in common.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The places of both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// The class that it speaks for.
    pub(crate) class: Class,
    /// How strongly, in hundredths.
    pub(crate) weight: u8,
    /// Where it holds.
    pub(crate) places: Places,
    /// One of these literals must be in the text; none means that the rule is always tried.
    pub(crate) triggers: &'static [&'static str],
    /// This expression must match; empty means that a trigger is enough.
    pub(crate) pattern: &'static str,
    /// What was found, in words.
    pub(crate) reason: &'static str,
    /// The version of the definition that alone has it (C3); none means that all have it.
    pub(crate) only: Option<u32>,
}

/// Shorter to write.
const fn rule(
    class: Class,
    weight: u8,
    places: Places,
    triggers: &'static [&'static str],
    pattern: &'static str,
    reason: &'static str,
) -> Rule {
    Rule { class, weight, places, triggers, pattern, reason, only: None }
}

impl Rule {
    /// The rule in one version of the definition only.
    const fn only(mut self, version: u32) -> Self {
        self.only = Some(version);
        self
    }

    /// Whether a version of the definition has it.
    pub(crate) fn is_in(&self, version: u32) -> bool {
        self.only.is_none_or(|only| only == version)
    }
}

/// All rules, in a fixed order.
pub(crate) fn all() -> impl Iterator<Item = &'static Rule> {
    [
        sql::RULES,
        script::RULES,
        command::RULES,
        files::RULES,
        code::RULES,
        agents::RULES,
        encoded::RULES,
        protocol::RULES,
    ]
    .into_iter()
    .flatten()
}
