//! Lists of addresses with levels: reputation, block and allow lists.
//!
//! A list is read from bytes ([`List::parse`]) and [`Lists::build`] makes of all lists one immutable
//! value, to be put behind an `ArcSwap` and replaced when files change. A lookup answers for all
//! lists at once:
//!
//! - within a list the longest prefix that holds the address says its level;
//! - over the lists the worst level counts: an address is as bad as the worst list says that names it;
//! - addresses on an allow list are on no other list.
//!
//! Levels are 1 to 255, the worst being 255. A level of 0 takes an address out of a wider prefix of
//! the same list.

mod parse;
mod ranges;
mod stamp;

pub use parse::{LIMITS, List, ListError, ListKind, ListSpec};
pub use stamp::{sender_refused, stamp};

use ranges::{Ranges, RangesBuilder};
use std::net::IpAddr;

/// The level of an address and the list that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed<'a> {
    /// 1 to 255, the worst being 255.
    pub level: u8,
    /// The list's name.
    pub list: &'a str,
}

/// All lists, ready for lookups. Immutable: build another and swap.
#[derive(Debug, Default)]
pub struct Lists {
    names: Vec<String>,
    /// Level and list of addresses on reputation and block lists, without those on allow lists.
    flagged: Ranges,
    /// Addresses whose requests are refused: on block lists and on no allow list.
    refused: Ranges,
    entries: usize,
}

impl Lists {
    /// Brings lists together. Of two lists that say the same level the first is named.
    ///
    /// # Errors
    /// [`ListError::TooManyLists`] beyond 65,535 lists, [`ListError::TooManyEntries`] when all
    /// together are too large.
    pub fn build(lists: &[List]) -> Result<Self, ListError> {
        if lists.len() > LIMITS.lists {
            return Err(ListError::TooManyLists { lists: lists.len(), most: LIMITS.lists });
        }
        let entries = lists.iter().map(|list| list.entries.len()).sum::<usize>();
        if entries > LIMITS.total_entries {
            return Err(ListError::TooManyEntries {
                file: "all lists together".to_owned(),
                line: 0,
                most: LIMITS.total_entries,
            });
        }
        let mut flagged = RangesBuilder::default();
        let mut refused = RangesBuilder::default();
        let mut allowed = RangesBuilder::default();
        for (index, list) in lists.iter().enumerate() {
            let ranges = RangesBuilder::of_list(&list.entries, index as u16);
            match list.kind {
                ListKind::Reputation => flagged.worsen(&ranges),
                ListKind::Block => {
                    flagged.worsen(&ranges);
                    refused.worsen(&ranges);
                }
                ListKind::Allow => allowed.worsen(&ranges),
            }
        }
        flagged.remove(&allowed);
        refused.remove(&allowed);
        Ok(Self {
            names: lists.iter().map(|list| list.name.clone()).collect(),
            flagged: flagged.build(),
            refused: refused.build(),
            entries,
        })
    }

    /// The worst level of an address over all reputation and block lists; `None` when no list names
    /// it or an allow list does. IPv4 addresses mapped into IPv6 are looked up as IPv4.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Option<Listed<'_>> {
        self.listed(self.flagged.find(address)?)
    }

    /// The worst level alone, 0 when there is none.
    #[must_use]
    pub fn level(&self, address: IpAddr) -> u8 {
        self.flagged.find(address).map_or(0, |value| value.level())
    }

    /// The worst level of an IPv4 address, given as a number in host order; 0 when there is none.
    #[must_use]
    pub fn level_v4(&self, address: u32) -> u8 {
        self.flagged.find_v4(address).map_or(0, |value| value.level())
    }

    /// Whether there is nothing to look up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flagged.is_empty() && self.refused.is_empty()
    }

    /// How many entries the lists have.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }

    fn listed(&self, value: ranges::Value) -> Option<Listed<'_>> {
        let list = self.names.get(usize::from(value.list()))?;
        Some(Listed { level: value.level(), list })
    }
}
