//! Which rules there are for a tenant, what they say, and which documents were refused.

use super::{RefusalView, sees, wrong};
use crate::access::{Caller, Scope};
use crate::openapi::ProblemDetails;
use crate::state::ApiState;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use palisade_event::TenantId;
use palisade_pipeline::rules::deploy::{Current, deployed_id};
use palisade_pipeline::rules::{INSTALLATION, Rules};
use palisade_sigma::correlation::Correlation;
use palisade_sigma::load::parts;
use palisade_sigma::{Level, LogSource, Rule, Survey};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Rules of a page, where no number is asked for, and at most.
const PAGE: usize = 100;
const MOST_PAGE: usize = 1_000;

/// A rule or correlation as a tenant has it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RuleView {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// The severity of its alerts for the tenant.
    pub severity: &'static str,
    /// The level that its text says.
    pub level: &'static str,
    /// Whether it is enabled for the tenant.
    pub enabled: bool,
    /// `rule` or `correlation`.
    pub kind: &'static str,
    /// `installation` or `tenant`.
    pub owner: &'static str,
    /// Whether it was deployed, and is in no file of the configuration.
    pub deployed: bool,
    /// The logs that it is for: product, category and service.
    #[schema(value_type = Option<Object>)]
    pub source: Option<LogSource>,
    /// ATT&CK techniques and others.
    pub tags: Vec<String>,
    /// Who wrote it.
    pub author: Option<String>,
    /// The hash of what it says.
    pub version: String,
}

/// The rules of a page.
#[derive(Debug, Serialize, ToSchema)]
pub struct RuleList {
    /// The hash of the set that they are of.
    pub set: String,
    /// By id.
    pub rules: Vec<RuleView>,
    /// Ask with `after` of this for the next page; null on the last.
    pub next: Option<String>,
}

/// Which rules.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RuleParams {
    /// Only of this severity for the tenant.
    severity: Option<String>,
    /// Only with this tag.
    tag: Option<String>,
    /// Only for logs of this product.
    product: Option<String>,
    /// Only for logs of this category.
    category: Option<String>,
    /// Only for logs of this service.
    service: Option<String>,
    /// Only those that are enabled for the tenant, or only those that are not.
    enabled: Option<bool>,
    /// Only those whose id or title has this text in it, in any case.
    q: Option<String>,
    /// Only those behind this id.
    after: Option<String>,
    /// How many; 100 where it is not said, at most 1,000.
    limit: Option<usize>,
}

/// A field that a rule reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldView {
    /// As the rule writes it.
    pub name: String,
    /// Under which names records may have it; the first with a value is taken.
    pub paths: Vec<String>,
}

/// A rule with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct RuleDetail {
    /// As in the list; null for a document that was refused.
    pub rule: Option<RuleView>,
    /// Its text.
    pub text: Option<String>,
    /// What it is about.
    pub description: Option<String>,
    /// Where it comes from.
    pub references: Vec<String>,
    /// Known false positives.
    pub falsepositives: Vec<String>,
    /// The titles of the installation's filters that are applied to it.
    pub filters: Vec<String>,
    /// The fields that it reads.
    pub fields: Vec<FieldView>,
    /// The ids of the correlations that count it, or that it reads.
    pub correlations: Vec<String>,
    /// The names of the tenant's exceptions from it.
    pub exceptions: Vec<String>,
    /// Why documents of this id were not loaded.
    pub refused: Vec<RefusalView>,
}

/// The documents that were not loaded.
#[derive(Debug, Serialize, ToSchema)]
pub struct RefusedList {
    /// In the order in which they were met.
    pub refused: Vec<RefusalView>,
}

/// A rule or correlation of a set.
#[derive(Clone, Copy)]
pub(super) enum Found<'r> {
    Rule(u32, &'r Rule),
    Correlation(usize, &'r Correlation),
}

impl<'r> Found<'r> {
    pub(super) fn id(self) -> &'r str {
        match self {
            Self::Rule(_, rule) => &rule.id,
            Self::Correlation(_, correlation) => &correlation.id,
        }
    }

    fn owner(self) -> Option<&'r str> {
        match self {
            Self::Rule(_, rule) => rule.owner.as_deref(),
            Self::Correlation(_, correlation) => correlation.owner.as_deref(),
        }
    }

    fn view(self, rules: &Rules, tenant: &TenantId) -> RuleView {
        let owner = if self.owner().is_some() { "tenant" } else { "installation" };
        let of = tenant.as_str();
        match self {
            Self::Rule(ordinal, rule) => RuleView {
                id: rule.id.clone(),
                title: rule.title.clone(),
                severity: rules.severity(of, &rule.id, rule.level).name(),
                level: rule.level.name(),
                enabled: !rules.is_off(of, ordinal),
                kind: "rule",
                owner,
                deployed: deployed_id(&rule.file).is_some(),
                source: Some(rule.source.clone()),
                tags: rule.tags.clone(),
                author: rule.author.clone(),
                version: rule.version.clone(),
            },
            Self::Correlation(place, correlation) => {
                let about = &correlation.about;
                let level = about.level.as_deref().and_then(Level::by_name);
                let level = level.unwrap_or(Level::Medium);
                RuleView {
                    id: correlation.id.clone(),
                    title: about.title.clone(),
                    severity: rules.severity(of, &correlation.id, level).name(),
                    level: level.name(),
                    enabled: !rules.is_silent(of, place),
                    kind: "correlation",
                    owner,
                    deployed: false,
                    source: None,
                    tags: about.tags.clone(),
                    author: about.author.clone(),
                    version: correlation.version.to_string(),
                }
            }
        }
    }
}

/// What a tenant sees of a set, by id; its own before the installation's of the same id.
pub(super) fn visible<'r>(rules: &'r Rules, tenant: &TenantId) -> Vec<Found<'r>> {
    let of_rules = (0u32..).zip(rules.book.rules()).map(|(at, rule)| Found::Rule(at, rule));
    let correlations = rules.book.correlations().iter();
    let all = of_rules.chain(correlations.map(|(place, of)| Found::Correlation(place, of)));
    let mut found: Vec<Found<'_>> = all.filter(|found| sees(tenant, found.owner())).collect();
    found.sort_by_key(|found| (found.id(), found.owner().is_none()));
    found
}

impl RuleParams {
    fn fits(&self, view: &RuleView) -> bool {
        let source = |wanted: &Option<String>, of: fn(&LogSource) -> &Option<String>| {
            wanted.is_none() || view.source.as_ref().is_some_and(|source| of(source) == wanted)
        };
        let has = |text: &String| {
            let text = text.to_lowercase();
            view.id.to_lowercase().contains(&text) || view.title.to_lowercase().contains(&text)
        };
        self.severity.as_deref().is_none_or(|wanted| wanted == view.severity)
            && self.tag.as_ref().is_none_or(|wanted| view.tags.contains(wanted))
            && self.enabled.is_none_or(|wanted| wanted == view.enabled)
            && source(&self.product, |source| &source.product)
            && source(&self.category, |source| &source.category)
            && source(&self.service, |source| &source.service)
            && self.q.as_ref().is_none_or(has)
    }
}

/// `GET /api/v1/rules`: the rules that the tenant's records are tried with, and those that it has disabled.
#[utoipa::path(get, path = "/api/v1/rules", tag = "rules", params(RuleParams), responses(
    (status = 200, description = "A page of rules", body = RuleList),
))]
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    params: Result<Query<RuleParams>, QueryRejection>,
) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant,
        Err(response) => return response,
    };
    let params = match params {
        Ok(Query(params)) => params,
        Err(error) => return wrong(&caller, error.body_text()),
    };
    let limit = params.limit.unwrap_or(PAGE).clamp(1, MOST_PAGE);
    let current = state.rules.current();
    let mut listed = Vec::new();
    let mut next = None;
    if let Some(rules) = &current.rules {
        let all = visible(rules, tenant).into_iter();
        let behind = all.filter(|of| params.after.as_deref().is_none_or(|after| of.id() > after));
        for found in behind {
            let view = found.view(rules, tenant);
            if !params.fits(&view) {
                continue;
            }
            // Two of one id are on one page: the cursor is the id.
            let last: Option<&RuleView> = listed.last();
            if listed.len() >= limit && last.is_some_and(|last| last.id != view.id) {
                next = last.map(|last| last.id.clone());
                break;
            }
            listed.push(view);
        }
    }
    Json(RuleList { set: current.set.clone(), rules: listed, next }).into_response()
}

/// The text of the document that begins at a line of a file of the set.
fn text(current: &Current, owner: Option<&str>, file: &str, line: u64) -> Option<String> {
    let owner = owner.unwrap_or(INSTALLATION);
    let files = current.texts.parts().filter(|(of, _)| *of == owner);
    let mut files = files.flat_map(|(_, part)| part.files());
    let file = files.find(|of| of.name == file)?;
    let found = parts(&file.text).into_iter().rfind(|part| part.before < line)?;
    Some(found.text.trim().to_owned() + "\n")
}

/// `GET /api/v1/rules/{id}`: a rule with its text, the fields that it needs, and the tenant's changes.
#[utoipa::path(get, path = "/api/v1/rules/{id}", tag = "rules",
    params(("id" = String, Path, description = "The rule's id")), responses(
    (status = 200, description = "The rule", body = RuleDetail),
    (status = 404, description = "The tenant has no such rule", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn show(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant,
        Err(response) => return response,
    };
    let current = state.rules.current();
    let detail = current.rules.as_ref().and_then(|rules| detail(&current, rules, tenant, &id));
    match detail {
        Some(detail) => Json(detail).into_response(),
        None => {
            let detail = format!("no rule has the id '{id}': list them at /api/v1/rules");
            caller.problem(StatusCode::NOT_FOUND, "unknown", "there is no such thing", detail)
        }
    }
}

fn detail(current: &Current, rules: &Rules, tenant: &TenantId, id: &str) -> Option<RuleDetail> {
    let book = &rules.book;
    let found = visible(rules, tenant).into_iter().find(|found| found.id() == id);
    let refused = book.refused().iter().filter(|refusal| {
        refusal.rule.as_deref() == Some(id) && sees(tenant, refusal.owner.as_deref())
    });
    let mut detail = RuleDetail {
        rule: found.map(|found| found.view(rules, tenant)),
        text: None,
        description: None,
        references: Vec::new(),
        falsepositives: Vec::new(),
        filters: Vec::new(),
        fields: Vec::new(),
        correlations: Vec::new(),
        exceptions: Vec::new(),
        refused: refused.map(RefusalView::from).collect(),
    };
    match found {
        Some(Found::Rule(ordinal, rule)) => {
            detail.text = text(current, rule.owner.as_deref(), &rule.file, rule.line);
            detail.description.clone_from(&rule.description);
            detail.references.clone_from(&rule.references);
            detail.falsepositives.clone_from(&rule.falsepositives);
            detail.filters.clone_from(&rule.filters);
            let needs = Survey::new(book, &[ordinal]).needs(ordinal);
            let fields = needs.into_iter().flat_map(|needs| needs.fields);
            detail.fields =
                fields.map(|need| FieldView { name: need.name, paths: need.paths }).collect();
            let readers = book.correlations().readers_of_rule(ordinal as usize);
            let readers = readers.filter_map(|(place, _)| book.correlations().get(place));
            let readers = readers.filter(|reader| reader.is_of(tenant.as_str()));
            detail.correlations = readers.map(|reader| reader.id.clone()).collect();
            detail.correlations.dedup();
            let exceptions = rules.tenants.get(tenant.as_str()).into_iter();
            let exceptions = exceptions.flat_map(|changed| &changed.exceptions);
            let of_rule = exceptions.filter(|(name, exception)| {
                palisade_sigma::Filter::parse(name, &exception.filter)
                    .is_ok_and(|filter| filter.is_for(rule))
            });
            detail.exceptions = of_rule.map(|(name, _)| name.clone()).collect();
        }
        Some(Found::Correlation(_, correlation)) => {
            let about = &correlation.about;
            detail.description.clone_from(&about.description);
            detail.references.clone_from(&about.references);
            detail.falsepositives.clone_from(&about.falsepositives);
            let read = correlation.reads().filter_map(|place| book.correlations().get(place));
            detail.correlations = read.map(|read| read.id.clone()).collect();
        }
        None if detail.refused.is_empty() => return None,
        None => {}
    }
    Some(detail)
}

/// `GET /api/v1/rules/refused`: the documents that were not loaded, each with the reason and a hint.
#[utoipa::path(get, path = "/api/v1/rules/refused", tag = "rules", responses(
    (status = 200, description = "The documents", body = RefusedList),
))]
pub async fn refused(State(state): State<ApiState>, caller: Caller) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant,
        Err(response) => return response,
    };
    let current = state.rules.current();
    let all = current.rules.iter().flat_map(|rules| rules.book.refused());
    let seen = all.filter(|refusal| sees(tenant, refusal.owner.as_deref()));
    Json(RefusedList { refused: seen.map(RefusalView::from).collect() }).into_response()
}
