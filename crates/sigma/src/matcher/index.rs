//! Which items of a field a value fulfils, found without trying them one by one: exact values by a
//! table, beginnings and ends by walking a tree of bytes from either side, parts by one automaton.

use super::grams::Grams;
use crate::batch::Cell;
use crate::pattern::{Pattern, Shape, fold_into};
use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Shorter texts in a pattern with wildcards are not worth being looked for.
const SHORTEST: usize = 2;
/// Up to so many bytes of needles an automaton fits the fastest cache.
const FEW: usize = 1 << 10;

/// Whether a pattern can be found by [`Index`].
pub(crate) fn indexable(pattern: &Pattern) -> bool {
    match pattern.shape() {
        Shape::Glob(text) => text.len() >= SHORTEST,
        _ => true,
    }
}

/// What is done once a needle is found.
#[derive(Debug, Default)]
struct Found {
    /// Items that are fulfilled.
    items: Vec<u32>,
    /// Items that are when this pattern matches as well.
    checked: Vec<(Pattern, u32)>,
}

/// The items of one field.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Items fulfilled by any value, even an array without members.
    present: Vec<u32>,
    /// Items fulfilled by any text.
    any: Vec<u32>,
    exact: HashMap<String, Found, FixedState>,
    beginnings: Tree,
    ends: Tree,
    finder: Finder,
    parts: Vec<Found>,
}

/// Finds the needles of parts.
#[derive(Debug, Default)]
enum Finder {
    #[default]
    None,
    Automaton(AhoCorasick),
    Grams(Grams),
}

/// Collects patterns for an [`Index`].
#[derive(Debug, Default)]
pub(crate) struct Builder {
    index: Index,
    needles: Vec<String>,
    by_needle: HashMap<String, usize, FixedState>,
}

impl Builder {
    /// An item is fulfilled by any value.
    pub(crate) fn present(&mut self, item: u32) {
        self.index.present.push(item);
    }

    /// An item is fulfilled by what matches this pattern, which must be [`indexable`].
    pub(crate) fn add(&mut self, pattern: &Pattern, item: u32) {
        let folded = |text: &str| crate::pattern::fold(text).into_owned();
        let shape = pattern.shape();
        let found = match shape {
            Shape::Anything => {
                self.index.any.push(item);
                return;
            }
            Shape::Exact(text) => self.index.exact.entry(folded(text)).or_default(),
            Shape::Prefix(text) => self.index.beginnings.place(folded(text).bytes()),
            Shape::Suffix(text) => self.index.ends.place(folded(text).bytes().rev()),
            Shape::Contains(text) | Shape::Glob(text) => {
                let text = folded(text);
                let place = match self.by_needle.get(&text) {
                    Some(place) => *place,
                    None => {
                        let place = self.needles.len();
                        self.by_needle.insert(text.clone(), place);
                        self.needles.push(text);
                        self.index.parts.push(Found::default());
                        place
                    }
                };
                match self.index.parts.get_mut(place) {
                    Some(found) => found,
                    None => return,
                }
            }
        };
        if pattern.cased || matches!(shape, Shape::Glob(_)) {
            found.checked.push((pattern.clone(), item));
        } else {
            found.items.push(item);
        }
    }

    pub(crate) fn build(mut self) -> Index {
        let bytes: usize = self.needles.iter().map(String::len).sum();
        let few = (bytes <= FEW).then(|| {
            AhoCorasickBuilder::new()
                .match_kind(MatchKind::Standard)
                .kind(Some(AhoCorasickKind::DFA))
                .build(&self.needles)
        });
        self.index.finder = match few {
            _ if self.needles.is_empty() => Finder::None,
            Some(Ok(automaton)) => Finder::Automaton(automaton),
            _ => Finder::Grams(Grams::new(&self.needles)),
        };
        self.index
    }
}

/// Buffers of a scan.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    folded: String,
    /// Needles that were found, each once: the mark of the scan in which it was found last.
    seen: Vec<u32>,
    mark: u32,
}

impl Index {
    /// Appends the items that a value fulfils, each at most once.
    pub(crate) fn scan(&self, cell: &Cell<'_>, scratch: &mut Scratch, items: &mut Vec<u32>) {
        let start = items.len();
        items.extend_from_slice(&self.present);
        let mut texts = 0;
        for raw in cell.texts() {
            if texts == 0 {
                items.extend_from_slice(&self.any);
            }
            texts += 1;
            let mut buffer = std::mem::take(&mut scratch.folded);
            let folded = if fold_into(raw, &mut buffer) { buffer.as_str() } else { raw };
            self.text(raw, folded, scratch, items);
            scratch.folded = buffer;
        }
        // A needle stands once in the automaton, but an item may have several of them.
        if texts > 0
            && let Some(found) = items.get_mut(start..)
            && found.len() > 1
        {
            found.sort_unstable();
            let mut kept = start;
            let mut last = None;
            for at in start..items.len() {
                let item = items.get(at).copied();
                if item != last
                    && let (Some(item), Some(slot)) = (item, items.get_mut(kept))
                {
                    *slot = item;
                    kept += 1;
                }
                last = item;
            }
            items.truncate(kept);
        }
    }

    fn text(&self, raw: &str, folded: &str, scratch: &mut Scratch, items: &mut Vec<u32>) {
        let mut take = |found: &Found| {
            items.extend_from_slice(&found.items);
            for (pattern, item) in &found.checked {
                if pattern.matches(raw, folded) {
                    items.push(*item);
                }
            }
        };
        if let Some(found) = self.exact.get(folded) {
            take(found);
        }
        self.beginnings.walk(folded.bytes(), &mut take);
        self.ends.walk(folded.bytes().rev(), &mut take);
        if matches!(self.finder, Finder::None) {
            return;
        }
        if scratch.seen.len() < self.parts.len() {
            scratch.seen.resize(self.parts.len(), 0);
        }
        scratch.mark = scratch.mark.wrapping_add(1);
        if scratch.mark == 0 {
            scratch.seen.fill(0);
            scratch.mark = 1;
        }
        let mut hit = |place: usize| {
            if let Some(seen) = scratch.seen.get_mut(place)
                && *seen != scratch.mark
            {
                *seen = scratch.mark;
                if let Some(found) = self.parts.get(place) {
                    take(found);
                }
            }
        };
        match &self.finder {
            Finder::None => {}
            Finder::Automaton(automaton) => automaton
                .find_overlapping_iter(folded)
                .for_each(|found| hit(found.pattern().as_usize())),
            Finder::Grams(grams) => grams.find(folded.as_bytes(), hit),
        }
    }
}

/// A tree of byte strings that is walked from its root for as long as the bytes lead on.
#[derive(Debug, Default)]
struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Sorted by byte.
    next: Vec<(u8, u32)>,
    found: Found,
}

impl Tree {
    /// What is found at the end of these bytes.
    fn place(&mut self, bytes: impl Iterator<Item = u8>) -> &mut Found {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        for byte in bytes {
            let new = self.nodes.len() as u32;
            let Some(node) = self.nodes.get_mut(at as usize) else { break };
            at = match node.next.binary_search_by_key(&byte, |(byte, _)| *byte) {
                Ok(place) => node.next.get(place).map_or(0, |(_, next)| *next),
                Err(place) => {
                    node.next.insert(place, (byte, new));
                    self.nodes.push(Node::default());
                    new
                }
            };
        }
        let last = (at as usize).min(self.nodes.len() - 1);
        // The tree has a root, so this is a node.
        #[allow(clippy::indexing_slicing, reason = "bounded on the line above")]
        &mut self.nodes[last].found
    }

    fn walk(&self, bytes: impl Iterator<Item = u8>, take: &mut impl FnMut(&Found)) {
        let Some(mut node) = self.nodes.first() else { return };
        take(&node.found);
        for byte in bytes {
            let next = match node.next.as_slice() {
                [(only, next)] if *only == byte => *next,
                [] | [_] => return,
                all => match all.binary_search_by_key(&byte, |(byte, _)| *byte) {
                    Ok(place) => all.get(place).map_or(0, |(_, next)| *next),
                    Err(_) => return,
                },
            };
            match self.nodes.get(next as usize) {
                Some(next) => node = next,
                None => return,
            }
            take(&node.found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::{fold, pieces};
    use proptest::prelude::*;
    use std::borrow::Cow;

    /// Texts of these characters.
    fn text(
        of: &str,
        length: std::ops::RangeInclusive<usize>,
    ) -> impl Strategy<Value = String> + use<> {
        let of: Vec<char> = of.chars().collect();
        prop::collection::vec(prop::sample::select(of), length)
            .prop_map(|characters| characters.into_iter().collect())
    }

    proptest! {
        #[test]
        fn the_index_finds_what_trying_each_pattern_finds(
            patterns in prop::collection::vec((text("abÄä*?", 0..=5), any::<bool>()), 0..40),
            values in prop::collection::vec(text("aAbBäÄ", 0..=6), 1..4),
        ) {
            let mut builder = Builder::default();
            let mut expected = Vec::new();
            for (item, (pattern, cased)) in patterns.iter().enumerate() {
                let pattern = Pattern::new(pieces(pattern), *cased);
                if !indexable(&pattern) {
                    continue;
                }
                builder.add(&pattern, item as u32);
                if values.iter().any(|value| pattern.matches(value, &fold(value))) {
                    expected.push(item as u32);
                }
            }
            let index = builder.build();
            let cell = match values.as_slice() {
                [one] => Cell::One(Cow::Borrowed(one.as_str())),
                many => Cell::Many(many.to_vec()),
            };
            let mut found = Vec::new();
            index.scan(&cell, &mut Scratch::default(), &mut found);
            prop_assert_eq!(found, expected);
        }
    }
}
