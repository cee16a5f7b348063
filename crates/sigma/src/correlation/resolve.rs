//! From the parser's documents to [`Correlations`]: the boundary beyond which none of its types go.

use super::condition::Names;
use super::definition::{About, BaseRule, Correlation, Input, MAX_DEPTH, Refusal, Source, Version};
use super::parts::{check_shape, measure, read_duration, timespan, value_fields, version};
use palisade_event::time::SECOND;
use rsigma_parser::{CorrelationRule, FieldAlias};
use std::collections::BTreeMap;

/// Correlations whose references are all found; each stands behind those that it reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Correlations {
    list: Vec<Correlation>,
}

/// A correlation as its parser gives it.
#[derive(Debug, Clone)]
pub(crate) struct Draft<'a> {
    /// The file that it stands in.
    pub(crate) file: &'a str,
    /// The tenant whose it is; none for the installation's.
    pub(crate) owner: Option<&'a str>,
    pub(crate) rule: CorrelationRule,
}

/// What a correlation gets that says nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// Microseconds.
    pub lateness: i64,
    /// Microseconds.
    pub patience: i64,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { lateness: 300 * SECOND, patience: 10 * SECOND }
    }
}

/// What was read: the correlations, and those that are not loaded, each with the reason.
#[derive(Debug, Clone, Default)]
pub struct Resolved {
    /// Loaded.
    pub correlations: Correlations,
    /// Not loaded.
    pub refused: Vec<Refusal>,
}

impl Correlations {
    /// Reads the correlations of files (name, YAML text) over base rules. What can't be loaded is
    /// refused by name, and whatever refers to it too; the others are loaded.
    #[must_use]
    pub fn read(files: &[(&str, &str)], rules: &[BaseRule], defaults: Defaults) -> Resolved {
        let mut drafts = Vec::new();
        let mut refused = Vec::new();
        for (file, yaml) in files {
            let unreadable = |reason: String| Refusal {
                file: (*file).to_owned(),
                rule: "?".to_owned(),
                reason,
                hint: "write the document as the Sigma specification says".to_owned(),
            };
            match rsigma_parser::parse_sigma_yaml(yaml) {
                Ok(documents) => {
                    refused.extend(documents.errors.into_iter().map(unreadable));
                    let of_file = documents.correlations.into_iter();
                    drafts.extend(of_file.map(|rule| Draft { file, owner: None, rule }));
                }
                Err(error) => refused.push(unreadable(error.to_string())),
            }
        }
        let mut resolved = Self::resolve(&drafts, rules, &|_| None, defaults);
        refused.append(&mut resolved.refused);
        resolved.refused = refused;
        resolved
    }

    /// Resolves correlations that are parsed already. Those of a tenant find its own rules (`owner_of` says whose a base
    /// rule is) and then the installation's, the installation's only their like.
    pub(crate) fn resolve<'a>(
        drafts: &'a [Draft<'a>],
        rules: &'a [BaseRule],
        owner_of: &dyn Fn(usize) -> Option<&'a str>,
        defaults: Defaults,
    ) -> Resolved {
        let mut resolver = Resolver::new(drafts, rules, owner_of, defaults);
        for draft in 0..drafts.len() {
            // A refusal is noted in the resolver.
            let _ = resolver.place(draft);
        }
        let mut list = resolver.done;
        let read: Vec<usize> = list
            .iter()
            .flat_map(|correlation| &correlation.inputs)
            .filter_map(|input| match &input.source {
                Source::Correlation { place, .. } => Some(*place),
                Source::Rule(_) => None,
            })
            .collect();
        for place in read {
            if let Some(correlation) = list.get_mut(place) {
                correlation.is_read = true;
            }
        }
        Resolved { correlations: Self { list }, refused: resolver.refused }
    }

    /// The correlation at a place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&Correlation> {
        self.list.get(place)
    }

    /// All of them with their places, each behind those that it reads.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Correlation)> {
        self.list.iter().enumerate()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Which inputs of which correlations take the hits of a base rule: (place, input).
    pub fn readers_of_rule(&self, rule: usize) -> impl Iterator<Item = (usize, u16)> {
        self.readers(move |source| matches!(source, Source::Rule(of) if *of == rule))
    }

    /// Which inputs of which correlations take the alerts of a correlation: (place, input).
    pub fn readers_of_correlation(&self, place: usize) -> impl Iterator<Item = (usize, u16)> {
        self.readers(
            move |source| matches!(source, Source::Correlation { place: of, .. } if *of == place),
        )
    }

    fn readers(&self, reads: impl Fn(&Source) -> bool) -> impl Iterator<Item = (usize, u16)> {
        self.iter().flat_map(move |(place, correlation)| {
            let found: Vec<(usize, u16)> = correlation
                .inputs
                .iter()
                .zip(0..)
                .filter(|(input, _)| reads(&input.source))
                .map(|(_, input)| (place, input))
                .collect();
            found
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Rule(usize),
    Draft(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Refused,
    Done(usize),
}

struct Resolver<'a> {
    drafts: &'a [Draft<'a>],
    rules: &'a [BaseRule],
    defaults: Defaults,
    /// What ids and names mean, by owner; `None` for a name that several things have.
    names: BTreeMap<(Option<&'a str>, &'a str), Option<Target>>,
    states: Vec<State>,
    path: Vec<usize>,
    done: Vec<Correlation>,
    refused: Vec<Refusal>,
}

/// What a correlation is called in messages and, lacking an id, in alerts.
fn called(rule: &CorrelationRule) -> &str {
    rule.id.as_deref().or(rule.name.as_deref()).unwrap_or(&rule.title)
}

impl<'a> Resolver<'a> {
    fn new(
        drafts: &'a [Draft<'a>],
        rules: &'a [BaseRule],
        owner_of: &dyn Fn(usize) -> Option<&'a str>,
        defaults: Defaults,
    ) -> Self {
        let mut resolver = Self {
            drafts,
            rules,
            defaults,
            names: BTreeMap::new(),
            states: vec![State::New; drafts.len()],
            path: Vec::new(),
            done: Vec::new(),
            refused: Vec::new(),
        };
        for (place, rule) in rules.iter().enumerate() {
            for name in [Some(rule.id.as_str()), rule.name.as_deref()].into_iter().flatten() {
                resolver.name((owner_of(place), name), Target::Rule(place));
            }
        }
        let mut seen: BTreeMap<(Option<&str>, &str), usize> = BTreeMap::new();
        for (place, Draft { file, owner, rule }) in drafts.iter().enumerate() {
            if let Some(first) = seen.insert((*owner, called(rule)), place) {
                let before = drafts.get(first).map_or("", |draft| draft.file);
                resolver.refuse(
                    place,
                    Refusal {
                        file: (*file).to_owned(),
                        ..Refusal::new(
                            format!("another correlation, in {before}, is called the same"),
                            "give every correlation an id of its own",
                        )
                    },
                );
                seen.insert((*owner, called(rule)), first);
                continue;
            }
            for name in [rule.id.as_deref(), rule.name.as_deref()].into_iter().flatten() {
                resolver.name((*owner, name), Target::Draft(place));
            }
        }
        resolver
    }

    fn name(&mut self, name: (Option<&'a str>, &'a str), target: Target) {
        let same = |one: &Target| match (*one, target) {
            (Target::Rule(a), Target::Rule(b)) | (Target::Draft(a), Target::Draft(b)) => a == b,
            _ => false,
        };
        self.names
            .entry(name)
            .and_modify(|known| *known = known.filter(same))
            .or_insert(Some(target));
    }

    fn refuse(&mut self, place: usize, refusal: Refusal) {
        if let (Some(state), Some(Draft { file, rule, .. })) =
            (self.states.get_mut(place), self.drafts.get(place))
        {
            *state = State::Refused;
            self.refused.push(Refusal {
                file: (*file).to_owned(),
                rule: called(rule).to_owned(),
                ..refusal
            });
        }
    }

    /// The place of a draft among those that are done; `None` when it is refused.
    fn place(&mut self, draft: usize) -> Option<usize> {
        match self.states.get(draft).copied()? {
            State::Done(place) => return Some(place),
            State::Refused => return None,
            // The one that is open higher up the path notices the cycle.
            State::Open => return None,
            State::New => {}
        }
        *self.states.get_mut(draft)? = State::Open;
        self.path.push(draft);
        let built = self.build(draft);
        self.path.pop();
        match built {
            Ok(correlation) => {
                self.done.push(correlation);
                let place = self.done.len() - 1;
                *self.states.get_mut(draft)? = State::Done(place);
                Some(place)
            }
            Err(refusal) => {
                self.refuse(draft, refusal);
                None
            }
        }
    }

    fn cycle(&self, from: usize) -> String {
        let names: Vec<&str> = self
            .path
            .iter()
            .skip_while(|draft| **draft != from)
            .chain([&from])
            .filter_map(|draft| self.drafts.get(*draft).map(|draft| called(&draft.rule)))
            .collect();
        names.join(" → ")
    }

    fn find(&mut self, owner: Option<&str>, reference: &str) -> Result<Target, Refusal> {
        let own = owner.and_then(|_| self.names.get(&(owner, reference)));
        let target = match own.or_else(|| self.names.get(&(None, reference))) {
            Some(Some(target)) => *target,
            Some(None) => {
                return Err(Refusal::new(
                    format!("'{reference}' is the name of several rules"),
                    "refer to the rule by its id",
                ));
            }
            None => {
                return Err(Refusal::new(
                    format!("it refers to '{reference}', which no rule has as id or name"),
                    "load the file of that rule too, or correct the reference",
                ));
            }
        };
        let Target::Draft(draft) = target else { return Ok(target) };
        if self.states.get(draft) == Some(&State::Open) {
            return Err(Refusal::new(
                format!("it refers to itself: {}", self.cycle(draft)),
                "break the cycle",
            ));
        }
        self.place(draft).map(Target::Draft).ok_or_else(|| {
            Refusal::new(
                format!("it refers to '{reference}', which is refused"),
                "correct that one first",
            )
        })
    }

    fn build(&mut self, draft: usize) -> Result<Correlation, Refusal> {
        let drafts = self.drafts;
        let Some(Draft { owner, rule, .. }) = drafts.get(draft) else {
            return Err(Refusal::new("it is missing", "load it"));
        };
        check_shape(rule)?;
        let value_fields = value_fields(rule)?;
        let timespan = timespan(rule)?;
        let (mut inputs, mut names, mut versions) = (Vec::new(), Vec::new(), Vec::new());
        let (mut depth, mut stages) = (0, 0_u16);
        for (at, reference) in rule.rules.iter().enumerate() {
            let target = self.find(*owner, reference)?;
            let (input, also, version) = match target {
                Target::Rule(place) => {
                    stages |= 1;
                    self.of_rule(rule, reference, place, &value_fields)?
                }
                Target::Draft(place) => {
                    let below = self.done.get(place).map_or(0, |below| below.depth);
                    stages |= 2 << below;
                    depth = depth.max(below + 1);
                    self.of_correlation(rule, reference, place, &value_fields)?
                }
            };
            if inputs.iter().any(|other: &Input| other.source == input.source) {
                return Err(Refusal::new(
                    format!("it lists '{reference}' twice"),
                    "list each rule once; for repetitions of one rule use event_count and refer to that",
                ));
            }
            let mut called = vec![rule.rules.get(at).map_or("", String::as_str)];
            called.extend(also);
            names.push(called);
            inputs.push(input);
            versions.push(version);
        }
        if depth >= MAX_DEPTH {
            return Err(Refusal::new(
                format!("correlations stand upon each other more than {MAX_DEPTH} deep"),
                "refer to the rules below directly",
            ));
        }
        let measure = measure(rule, &Names(names))?;
        let duration = |key: &str, default: i64| match rule.custom_attributes.get(key) {
            None => Ok(default),
            Some(value) => value.as_str().and_then(read_duration).ok_or_else(|| {
                Refusal::new(
                    format!("its '{key}' is no duration"),
                    format!("write '{key}: 30s', with s, m, h or d"),
                )
            }),
        };
        let lateness = duration("lateness", self.defaults.lateness)?;
        let patience = duration("patience", self.defaults.patience)?;
        let mut correlation = Correlation {
            id: called(rule).to_owned(),
            name: rule.name.clone(),
            owner: owner.map(str::to_owned),
            version: Version([0; 32]),
            about: About {
                title: rule.title.clone(),
                description: rule.description.clone(),
                level: rule.level.map(|level| level.as_str().to_owned()),
                author: rule.author.clone(),
                license: rule.license.clone(),
                tags: rule.tags.clone(),
                references: rule.references.clone(),
                falsepositives: rule.falsepositives.clone(),
            },
            inputs,
            group_by: rule.group_by.clone(),
            timespan,
            measure,
            lateness,
            patience,
            generate: rule.generate,
            depth,
            stages,
            is_read: false,
        };
        correlation.version = version(&correlation, &versions);
        Ok(correlation)
    }

    fn of_rule(
        &self,
        rule: &CorrelationRule,
        reference: &str,
        place: usize,
        value_fields: &[String],
    ) -> Result<(Input, Vec<&'a str>, Version), Refusal> {
        let Some(base) = self.rules.get(place) else {
            return Err(Refusal::new(format!("'{reference}' is missing"), "load it"));
        };
        let also: Vec<&str> =
            [Some(base.id.as_str()), base.name.as_deref()].into_iter().flatten().collect();
        let field = |name: &String| match alias(rule, name) {
            None => Ok(name.clone()),
            Some(alias) => aliased(alias, reference, &also).cloned().ok_or_else(|| {
                Refusal::new(
                    format!("its alias '{name}' has no field for the rule '{reference}'"),
                    "give the alias a field for every rule of the list",
                )
            }),
        };
        let input = Input {
            source: Source::Rule(place),
            group_fields: rule.group_by.iter().map(field).collect::<Result<_, _>>()?,
            value_fields: value_fields.iter().map(field).collect::<Result<_, _>>()?,
        };
        Ok((input, also, base.version))
    }

    fn of_correlation(
        &self,
        rule: &CorrelationRule,
        reference: &str,
        place: usize,
        value_fields: &[String],
    ) -> Result<(Input, Vec<&'a str>, Version), Refusal> {
        let Some(below) = self.done.get(place) else {
            return Err(Refusal::new(format!("'{reference}' is missing"), "load it"));
        };
        let drafts = self.drafts;
        let same = |draft: &&Draft<'_>| {
            called(&draft.rule) == below.id && draft.owner == below.owner.as_deref()
        };
        let also: Vec<&str> =
            drafts.iter().find(same).map_or_else(Vec::new, |Draft { rule, .. }| {
                [rule.id.as_deref(), rule.name.as_deref()].into_iter().flatten().collect()
            });
        let field = |name: &String| {
            alias(rule, name)
                .and_then(|alias| aliased(alias, reference, &also))
                .unwrap_or(name)
                .clone()
        };
        let at = |field: &String| {
            below.group_by.iter().position(|of| of == field).ok_or_else(|| {
                Refusal::new(
                    format!("it needs the field '{field}' of the correlation '{reference}', whose alerts have only the fields of its group-by"),
                    format!("add '{field}' to the group-by of '{reference}', or an alias to one of its fields here"),
                )
            })
        };
        let group_fields: Vec<String> = rule.group_by.iter().map(field).collect();
        let value_fields: Vec<String> = value_fields.iter().map(field).collect();
        let group = group_fields.iter().map(at).collect::<Result<_, _>>()?;
        let value = value_fields.iter().map(at).collect::<Result<_, _>>()?;
        let source = Source::Correlation { place, group, value };
        Ok((Input { source, group_fields, value_fields }, also, below.version))
    }
}

fn alias<'r>(rule: &'r CorrelationRule, name: &str) -> Option<&'r FieldAlias> {
    rule.aliases.iter().find(|alias| alias.alias == name)
}

/// The field of an alias for a rule, by whatever it is called.
fn aliased<'r>(alias: &'r FieldAlias, reference: &str, also: &[&str]) -> Option<&'r String> {
    [reference].iter().chain(also).find_map(|name| alias.mapping.get(*name))
}
