//! All indicators of some lists, ready to be asked.

use super::columns::Looks;
use super::parse::{LIMITS, List, ListError, Refused, about_at};
use super::value::{self, V4, V6};
use super::{Kind, Level};
use hashbrown::HashTable;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Of the hash of forms. Whoever can choose both lists and values gains nothing by knowing it: forms are compared.
const SEED: u64 = 0x70_616c_6973_6164;
const NONE: u32 = u32::MAX;

/// What is known of a list beside its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListSpec {
    /// Whose rows it is for; `None`: everybody's.
    pub tenant: Option<String>,
    /// Its name.
    pub name: String,
    /// The level of indicators that bring none.
    pub level: Level,
    /// What tells its content apart: a hash.
    pub version: String,
}

/// A list of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListInfo {
    /// What it is.
    pub spec: ListSpec,
    /// How many different indicators it has, by kind.
    pub kinds: Vec<(Kind, usize)>,
    /// The first lines that were not taken.
    pub refused: Vec<Refused>,
    /// How many lines were not taken.
    pub refused_total: usize,
}

/// An indicator of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indicator<'a> {
    /// The list that it stands on.
    pub list: &'a ListInfo,
    /// Which list of the set that is.
    pub list_number: u16,
    /// What it is.
    pub kind: Kind,
    /// How bad it is.
    pub level: Level,
    /// Where it comes from, as its line says; empty when it does not.
    pub source: &'a str,
    /// What its line says about it.
    pub note: &'a str,
    form: &'a [u8],
}

impl Indicator<'_> {
    /// The indicator as text, in the one form of its value.
    #[must_use]
    pub fn value(&self) -> String {
        Form(self.form).to_string()
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    about: u32,
    /// Another indicator of the same form, of another list.
    next: u32,
    length: u16,
    list: u16,
    kind: Kind,
    level: Level,
}

/// All indicators of some lists. Immutable: build another and swap.
#[derive(Debug, Default)]
pub struct Indicators {
    lists: Vec<ListInfo>,
    entries: Vec<Entry>,
    forms: Vec<u8>,
    abouts: Vec<u8>,
    table: HashTable<u32>,
    /// The lengths of the prefixes that occur, the longest first.
    v4_lengths: Vec<u8>,
    v6_lengths: Vec<u8>,
    kinds: u16,
}

impl Indicators {
    /// Brings lists together. Of lines of a list that mean the same the first counts.
    ///
    /// # Errors
    /// [`ListError`] when they are too many together.
    pub fn build(lists: Vec<(ListSpec, List)>) -> Result<Self, ListError> {
        if lists.len() > LIMITS.lists {
            return Err(ListError::TooManyLists { lists: lists.len(), most: LIMITS.lists });
        }
        let lines: usize = lists.iter().map(|(_, list)| list.len()).sum();
        let bytes: usize = lists.iter().map(|(_, list)| list.forms.len() + list.abouts.len()).sum();
        if lines > LIMITS.total_indicators || bytes > LIMITS.total_bytes {
            let most = LIMITS.total_indicators;
            return Err(ListError::TooManyTogether { indicators: lines, most });
        }
        let mut set = Self {
            entries: Vec::with_capacity(lines),
            forms: Vec::with_capacity(lists.iter().map(|(_, list)| list.forms.len()).sum()),
            table: HashTable::with_capacity(lines),
            ..Self::default()
        };
        for (number, (spec, list)) in lists.into_iter().enumerate() {
            set.add(u16::try_from(number).unwrap_or(u16::MAX), spec, &list);
        }
        set.entries.shrink_to_fit();
        set.forms.shrink_to_fit();
        set.v4_lengths.sort_unstable_by(|a, b| b.cmp(a));
        set.v6_lengths.sort_unstable_by(|a, b| b.cmp(a));
        Ok(set)
    }

    fn add(&mut self, number: u16, spec: ListSpec, list: &List) {
        let abouts_from = u32::try_from(self.abouts.len()).unwrap_or(NONE);
        self.abouts.extend_from_slice(&list.abouts);
        let mut counts = [0usize; Kind::ALL.len()];
        for line in &list.lines {
            let form = list.form(line);
            let hash = xxh3_64_with_seed(form, SEED);
            let known = self.first(hash, form);
            if let Some(known) = known
                && self.chain(known).any(|(_, entry)| entry.list == number)
            {
                continue;
            }
            let id = u32::try_from(self.entries.len()).unwrap_or(NONE);
            let (start, next) = match known {
                // The new one goes behind the first, so that the table need not change.
                Some(first) => {
                    let start = self.entries.get(first as usize).map_or(0, |entry| entry.start);
                    let next = self.entries.get_mut(first as usize);
                    (start, next.map_or(NONE, |entry| std::mem::replace(&mut entry.next, id)))
                }
                None => {
                    let start = u32::try_from(self.forms.len()).unwrap_or(NONE);
                    self.forms.extend_from_slice(form);
                    self.remember_length(form);
                    (start, NONE)
                }
            };
            self.entries.push(Entry {
                start,
                length: line.form.1,
                about: line.about.map_or(NONE, |about| abouts_from.saturating_add(about)),
                next,
                list: number,
                kind: line.kind,
                level: line.level.unwrap_or(spec.level),
            });
            self.kinds |= line.kind.bit();
            if let Some(count) = counts.get_mut(line.kind as usize) {
                *count += 1;
            }
            if known.is_none() {
                let (entries, forms) = (&self.entries, &self.forms);
                self.table.insert_unique(hash, id, |id| {
                    xxh3_64_with_seed(form_of(entries, forms, *id), SEED)
                });
            }
        }
        let kinds = Kind::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect();
        let (refused, refused_total) = (list.refused().to_vec(), list.refused_total());
        self.lists.push(ListInfo { spec, kinds, refused, refused_total });
    }

    fn remember_length(&mut self, form: &[u8]) {
        let lengths = match form.last() {
            Some(&V4) => &mut self.v4_lengths,
            Some(&V6) => &mut self.v6_lengths,
            _ => return,
        };
        if let Some(bits) = form.len().checked_sub(2).and_then(|at| form.get(at))
            && !lengths.contains(bits)
        {
            lengths.push(*bits);
        }
    }

    /// The lists.
    #[must_use]
    pub fn lists(&self) -> &[ListInfo] {
        &self.lists
    }

    /// How many indicators there are; one that stands on two lists counts twice.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// About how many bytes they take up in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.forms.capacity()
            + self.abouts.capacity()
            + self.table.allocation_size()
    }

    /// An indicator by its number, as [`super::Found`] has it.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<Indicator<'_>> {
        let entry = self.entries.get(number as usize)?;
        let about = (entry.about != NONE).then(|| about_at(&self.abouts, entry.about)).flatten();
        let (source, note) = about.unwrap_or_default();
        Some(Indicator {
            list: self.lists.get(usize::from(entry.list))?,
            list_number: entry.list,
            kind: entry.kind,
            level: entry.level,
            source,
            note,
            form: form_of(&self.entries, &self.forms, number),
        })
    }

    /// Whether an indicator is for the rows of a tenant.
    pub(super) fn is_for(&self, number: u32, tenant: &str) -> bool {
        let entry = self.entries.get(number as usize);
        let list = entry.and_then(|entry| self.lists.get(usize::from(entry.list)));
        list.is_some_and(|list| list.spec.tenant.as_deref().is_none_or(|own| own == tenant))
    }

    /// Whether a column that is looked at for this can hold one of them.
    #[must_use]
    pub fn may_be_in(&self, looks: Looks) -> bool {
        self.has(looks.kinds())
    }

    /// Whether there are indicators of one of these kinds.
    pub(super) fn has(&self, kinds: u16) -> bool {
        self.kinds & kinds != 0
    }

    /// Finds the indicators of a form.
    pub(super) fn find(&self, form: &[u8], found: &mut Vec<u32>) {
        if let Some(first) = self.first(xxh3_64_with_seed(form, SEED), form) {
            found.extend(self.chain(first).map(|(id, _)| id));
        }
    }

    /// Finds an address and the networks that hold it. `form` is room to work in.
    pub(super) fn find_address(&self, address: IpAddr, form: &mut Vec<u8>, found: &mut Vec<u32>) {
        let lengths = if address.is_ipv4() { &self.v4_lengths } else { &self.v6_lengths };
        for bits in lengths {
            form.clear();
            value::push_prefix(address, *bits, form);
            self.find(form, found);
        }
    }

    fn first(&self, hash: u64, form: &[u8]) -> Option<u32> {
        let (entries, forms) = (&self.entries, &self.forms);
        self.table.find(hash, |id| form_of(entries, forms, *id) == form).copied()
    }

    fn chain(&self, first: u32) -> impl Iterator<Item = (u32, &Entry)> {
        let at = move |id: u32| self.entries.get(id as usize).map(|entry| (id, entry));
        std::iter::successors(at(first), move |(_, entry)| at(entry.next))
    }
}

fn form_of<'f>(entries: &[Entry], forms: &'f [u8], id: u32) -> &'f [u8] {
    let Some(entry) = entries.get(id as usize) else { return &[] };
    let start = entry.start as usize;
    forms.get(start..start + usize::from(entry.length)).unwrap_or_default()
}

/// A form, to be read by people.
pub(super) struct Form<'f>(pub(super) &'f [u8]);

impl fmt::Display for Form<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((tag, bytes)) = self.0.split_last() else { return Ok(()) };
        let prefix = |f: &mut fmt::Formatter<'_>, address: IpAddr, bits: u8, whole: u8| {
            write!(f, "{address}")?;
            if bits == whole { Ok(()) } else { write!(f, "/{bits}") }
        };
        match (*tag, bytes) {
            (V4, [a, b, c, d, bits]) => prefix(f, Ipv4Addr::new(*a, *b, *c, *d).into(), *bits, 32),
            (V6, [address @ .., bits]) if address.len() == 16 => {
                let address = <[u8; 16]>::try_from(address).unwrap_or_default();
                prefix(f, Ipv6Addr::from(address).into(), *bits, 128)
            }
            (tag, bytes)
                if [Kind::Md5, Kind::Sha1, Kind::Sha256].map(value::tag).contains(&tag) =>
            {
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            (_, bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
        }
    }
}
