//! What is known about the fields of one sender: a tree of keys, each remembering which key came
//! after it last time and where its values go.
//!
//! Records of one sender look alike, so the next key is mostly the predicted one: comparing its
//! bytes costs less than finding its end, hashing it and looking it up.

use super::text::hash;
use crate::schema::{self, Core};
use foldhash::fast::FixedState;
use hashbrown::{HashSet, HashTable};

/// No entry, node or column.
pub(super) const NONE: u32 = u32::MAX;
/// Values go to the overflow.
pub(super) const OVERFLOW: u32 = u32::MAX - 1;
/// The node of a record's own fields.
pub(super) const ROOT: u32 = 0;
/// The longest name that a column may have, in bytes.
const MAX_NAME: usize = 512;

/// A key below a node.
#[derive(Debug)]
pub(super) struct Entry {
    /// The key with its quotes and the colon, in the names of the paths.
    key: (u32, u32),
    /// The object that has the key.
    node: u32,
    /// The node of the object that is the key's value; [`NONE`] while there was none.
    pub(super) child: u32,
    /// The entry that came after this one last time.
    pub(super) next: u32,
    /// The core column that the path belongs to.
    pub(super) core: Option<Core>,
    /// Where values go that no core column takes: a column or [`OVERFLOW`]; valid in `epoch` only.
    pub(super) leaf: u32,
    pub(super) epoch: u64,
}

/// An object that records have: the root or the value of an entry.
#[derive(Debug)]
struct Node {
    /// The entry whose value it is; [`NONE`] for the root.
    entry: u32,
    /// The entry that came first last time.
    first: u32,
}

/// The tree of one sender (tenant and source).
#[derive(Debug)]
pub(super) struct Paths {
    /// The number of the tenant ([`super::rows::Rows::new_tenant`]).
    pub(super) tenant: u32,
    names: Vec<u8>,
    entries: Vec<Entry>,
    nodes: Vec<Node>,
    table: HashTable<u32>,
    /// Changes whenever the leaves of the entries must be asked for again.
    pub(super) epoch: u64,
    /// The columns that the sender uses in this frame.
    used: HashSet<u32, FixedState>,
    /// How many of them count towards the limit.
    counted: usize,
    /// In which row it began to use which column, and whether that counts.
    begun: Vec<(u32, u32, bool)>,
    /// Whether a field went to the overflow in this frame because of the limit.
    pub(super) limited: bool,
}

impl Paths {
    pub(super) fn new(tenant: u32) -> Self {
        let mut paths = Self {
            tenant,
            names: Vec::new(),
            entries: Vec::new(),
            nodes: Vec::new(),
            table: HashTable::new(),
            epoch: 1,
            used: HashSet::with_hasher(FixedState::default()),
            counted: 0,
            begun: Vec::new(),
            limited: false,
        };
        paths.forget();
        paths
    }

    /// Forgets all keys, but not which columns are in use.
    pub(super) fn forget(&mut self) {
        self.names.clear();
        self.entries.clear();
        self.nodes.clear();
        self.nodes.push(Node { entry: NONE, first: NONE });
        self.table.clear();
        self.epoch += 1;
    }

    /// How many keys are known.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Begins a new frame.
    pub(super) fn begin_frame(&mut self) {
        self.used.clear();
        self.begun.clear();
        self.counted = 0;
        self.limited = false;
        self.epoch += 1;
    }

    #[inline(always)]
    pub(super) fn entry(&self, entry: u32) -> Option<&Entry> {
        self.entries.get(entry as usize)
    }

    /// The predicted entry after another one of a node ([`NONE`]: at its beginning), and the bytes
    /// of its key with the quotes and the colon.
    #[inline(always)]
    pub(super) fn predicted(&self, node: u32, previous: u32) -> Option<(u32, &[u8])> {
        let next = match self.entries.get(previous as usize) {
            Some(entry) => entry.next,
            None => self.nodes.get(node as usize)?.first,
        };
        let entry = self.entries.get(next as usize)?;
        let (at, length) = entry.key;
        Some((next, self.names.get(at as usize..(at + length) as usize)?))
    }

    /// The entry of a key of a node, made if it is new, and remembered as what follows `previous`.
    pub(super) fn find(&mut self, node: u32, previous: u32, key: &[u8]) -> u32 {
        let hash = hash(key, u64::from(node));
        let (entries, names) = (&self.entries, &self.names);
        let same = |found: &u32| {
            entries.get(*found as usize).is_some_and(|entry| {
                let (at, length) = entry.key;
                entry.node == node
                    && names.get(at as usize + 1..(at + length) as usize - 2) == Some(key)
            })
        };
        let entry = match self.table.find(hash, same) {
            Some(found) => *found,
            None => self.add(node, key, hash),
        };
        match self.entries.get_mut(previous as usize) {
            Some(before) => before.next = entry,
            None => {
                if let Some(node) = self.nodes.get_mut(node as usize) {
                    node.first = entry;
                }
            }
        }
        entry
    }

    #[cold]
    fn add(&mut self, node: u32, key: &[u8], hash: u64) -> u32 {
        let index = self.entries.len() as u32;
        let at = self.names.len() as u32;
        self.names.push(b'"');
        self.names.extend_from_slice(key);
        // A key that was sent with escapes must never be taken for its own text: the byte 0xff
        // stands in no UTF-8.
        let escaped = key.iter().any(|b| matches!(b, b'"' | b'\\' | 0..0x20));
        self.names.extend_from_slice(if escaped { b"\"\xff" } else { b"\":" });
        self.entries.push(Entry {
            key: (at, key.len() as u32 + 3),
            node,
            child: NONE,
            next: NONE,
            core: None,
            leaf: NONE,
            epoch: 0,
        });
        let core = schema::alias(&self.path(index));
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.core = core;
        }
        let (entries, names) = (&self.entries, &self.names);
        self.table.insert_unique(hash, index, |other| {
            let Some(entry) = entries.get(*other as usize) else { return 0 };
            let (at, length) = entry.key;
            let key = names.get(at as usize + 1..(at + length) as usize - 2).unwrap_or_default();
            super::text::hash(key, u64::from(entry.node))
        });
        index
    }

    /// The node of the object that is an entry's value.
    #[inline]
    pub(super) fn child(&mut self, entry: u32) -> u32 {
        let index = self.nodes.len() as u32;
        let Some(found) = self.entries.get_mut(entry as usize) else {
            return ROOT;
        };
        if found.child == NONE {
            found.child = index;
            self.nodes.push(Node { entry, first: NONE });
        }
        found.child
    }

    /// The dotted path of an entry.
    pub(super) fn path(&self, entry: u32) -> String {
        let mut path = Vec::new();
        self.write_path(entry, &mut path);
        String::from_utf8_lossy(&path).into_owned()
    }

    /// Writes the dotted path of an entry.
    pub(super) fn write_path(&self, entry: u32, out: &mut Vec<u8>) {
        let Some(entry) = self.entries.get(entry as usize) else {
            return;
        };
        let above = self.nodes.get(entry.node as usize).map_or(NONE, |node| node.entry);
        if above != NONE {
            self.write_path(above, out);
            out.push(b'.');
        }
        let (at, length) = entry.key;
        out.extend_from_slice(
            self.names.get(at as usize + 1..(at + length) as usize - 2).unwrap_or_default(),
        );
    }

    /// Remembers for this frame where the values of an entry go.
    pub(super) fn set_leaf(&mut self, entry: u32, leaf: u32) {
        let epoch = self.epoch;
        if let Some(entry) = self.entries.get_mut(entry as usize) {
            entry.leaf = leaf;
            entry.epoch = epoch;
        }
    }

    /// Whether the sender uses a column already.
    pub(super) fn uses(&self, column: u32) -> bool {
        self.used.contains(&column)
    }

    /// How many columns count towards the sender's limit.
    pub(super) fn counted(&self) -> usize {
        self.counted
    }

    /// Begins to use a column in a row.
    pub(super) fn begin(&mut self, row: u32, column: u32, counts: bool) {
        self.used.insert(column);
        self.counted += usize::from(counts);
        self.begun.push((row, column, counts));
    }

    /// Undoes what the rows from `row` on began.
    pub(super) fn truncate(&mut self, row: u32) {
        while let Some((_, column, counts)) = self.begun.pop_if(|(begun, ..)| *begun >= row) {
            self.used.remove(&column);
            self.counted -= usize::from(counts);
            self.epoch += 1;
        }
    }
}

/// The name of the dynamic column of a path; `None` when its values can only go to the overflow.
pub(super) fn column_name(path: &str) -> Option<std::borrow::Cow<'_, str>> {
    if path.is_empty() || path.len() > MAX_NAME {
        return None;
    }
    match Core::by_name(path) {
        Some(core) if core.is_derived() => Some(format!("sent.{path}").into()),
        Some(_) => None,
        None => Some(path.into()),
    }
}
