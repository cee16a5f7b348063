//! Looking at rules before they are deployed: whether they are right, why they match an event or not, what they would
//! cost and find, and what they can't see.

use super::list::{Found, visible};
use super::{RefusalView, SentFile, failed, unread, wrong};
use crate::access::{Admin, Caller, Scope};
use crate::openapi::ProblemDetails;
use crate::state::ApiState;
use arrow::array::RecordBatch;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use palisade_event::TenantId;
use palisade_event::decode::{DecodeLimits, FrameBuilder, RequestContext};
use palisade_event::id::GatewayIdentity;
use palisade_event::schema::EVENTS;
use palisade_pipeline::rules::deploy::deployed_id;
use palisade_pipeline::rules::report::{Report, ReportOptions, report as make_report};
use palisade_pipeline::rules::{RuleFile, Rules};
use palisade_sigma::load::parts;
use palisade_sigma::{Book, Explanation, Hits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use utoipa::ToSchema;

/// The longest history that a report looks at, in days, and where nothing is said.
const MOST_DAYS: u32 = 366;
const DAYS: u32 = 30;
/// Explanations of one event.
const MOST_EXPLAINED: usize = 100;

/// Files to be checked.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LintRequest {
    /// The files.
    pub files: Vec<SentFile>,
}

/// What a check found.
#[derive(Debug, Serialize, ToSchema)]
pub struct LintAnswer {
    /// How many rules load.
    pub rules: usize,
    /// How many correlations load.
    pub correlations: usize,
    /// The documents that do not.
    pub refused: Vec<RefusalView>,
}

/// `POST /api/v1/rules/lint`: checks files of rules for themselves. Nothing is deployed.
#[utoipa::path(post, path = "/api/v1/rules/lint", tag = "rules", request_body = LintRequest, responses(
    (status = 200, description = "What loads and what does not", body = LintAnswer),
))]
pub async fn lint(
    State(_): State<ApiState>,
    caller: Caller,
    request: Result<Json<LintRequest>, JsonRejection>,
) -> Response {
    if let Err(response) = caller.may(Scope::Query) {
        return response;
    }
    let Json(LintRequest { files }) = match request {
        Ok(request) => request,
        Err(error) => return unread(&caller, &error),
    };
    let work = tokio::task::spawn_blocking(move || {
        let book = Book::read(files.iter().map(|file| (file.name.as_str(), file.text.as_str())));
        LintAnswer {
            rules: book.rules().count(),
            correlations: book.correlations().len(),
            refused: book.refused().iter().map(RefusalView::from).collect(),
        }
    });
    match work.await {
        Ok(answer) => Json(answer).into_response(),
        Err(_) => broken(&caller),
    }
}

fn broken(caller: &Caller) -> Response {
    let detail = "the rules could not be looked at: this is a defect, please report it";
    caller.problem(StatusCode::INTERNAL_SERVER_ERROR, "rules", "a defect", detail)
}

/// An event to be explained.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The event, as it would be sent.
    #[schema(value_type = Object)]
    pub event: serde_json::Value,
    /// The id of a rule that is loaded; this or `text`, or neither for all that match.
    #[serde(default)]
    pub rule: Option<String>,
    /// Rules that are not loaded, in YAML.
    #[serde(default)]
    pub text: Option<String>,
}

/// Why rules match an event, or why not.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainAnswer {
    /// For each rule that was asked for whether it matches, and every part of its condition with the value that
    /// decided.
    #[schema(value_type = Vec<Object>)]
    pub explanations: Vec<Explanation>,
    /// Documents of `text` that do not load.
    pub refused: Vec<RefusalView>,
}

/// `POST /api/v1/rules/explain`: why rules match an event, or why not.
#[utoipa::path(post, path = "/api/v1/rules/explain", tag = "rules", request_body = ExplainRequest, responses(
    (status = 200, description = "The explanations", body = ExplainAnswer),
    (status = 400, description = "The event can't be read", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 404, description = "The tenant has no such rule", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn explain(
    State(state): State<ApiState>,
    caller: Caller,
    request: Result<Json<ExplainRequest>, JsonRejection>,
) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant.clone(),
        Err(response) => return response,
    };
    let Json(ExplainRequest { event, rule, text }) = match request {
        Ok(request) => request,
        Err(error) => return unread(&caller, &error),
    };
    if rule.is_some() && text.is_some() {
        return wrong(&caller, "give either rule or text");
    }
    let batch = match decoded(&tenant, &event, state.clock.now()) {
        Ok(batch) => batch,
        Err(reason) => return wrong(&caller, format!("the event can't be read: {reason}")),
    };
    let current = state.rules.current();
    let missing = rule.clone();
    let work = tokio::task::spawn_blocking(move || {
        let answer = |book: &Book, ordinals: Vec<u32>, refused: Vec<RefusalView>| {
            let explained = ordinals.into_iter().take(MOST_EXPLAINED);
            let matcher = book.matcher();
            let explanations = explained.filter_map(|rule| matcher.explain(&batch, 0, rule));
            ExplainAnswer { explanations: explanations.collect(), refused }
        };
        if let Some(text) = text {
            let book = Book::read([("text", text.as_str())]);
            let refused = book.refused().iter().map(RefusalView::from).collect();
            let all = (0u32..).zip(book.rules()).map(|(ordinal, _)| ordinal).collect();
            return Some(answer(&book, all, refused));
        }
        let Some(rules) = &current.rules else {
            let nothing = ExplainAnswer { explanations: Vec::new(), refused: Vec::new() };
            return rule.is_none().then_some(nothing);
        };
        let ordinals = match rule {
            Some(id) => {
                let of_id = visible(rules, &tenant).into_iter().filter(|found| found.id() == id);
                let rule = |found: Found<'_>| match found {
                    Found::Rule(ordinal, _) => Some(ordinal),
                    Found::Correlation(..) => None,
                };
                vec![of_id.filter_map(rule).next()?]
            }
            None => {
                let mut hits = Hits::new();
                rules.matches(&batch, &mut hits);
                hits.of(0).to_vec()
            }
        };
        Some(answer(&rules.book, ordinals, Vec::new()))
    });
    match work.await {
        Ok(Some(answer)) => Json(answer).into_response(),
        Ok(None) => {
            let id = missing.unwrap_or_default();
            let detail = format!("no rule has the id '{id}': list them at /api/v1/rules");
            caller.problem(StatusCode::NOT_FOUND, "unknown", "there is no such thing", detail)
        }
        Err(_) => broken(&caller),
    }
}

/// An event as the gateway decodes it.
fn decoded(tenant: &TenantId, event: &serde_json::Value, now: i64) -> Result<RecordBatch, String> {
    let mut builder = FrameBuilder::new(DecodeLimits::default());
    let context = RequestContext {
        tenant: tenant.as_str(),
        source: "explain",
        clock: now,
        domain: None,
        gateway: GatewayIdentity { region: 0, gateway: 0, epoch: 0 },
        request: 0,
        key: None,
    };
    let outcome = builder.push_json_body(&context, event.to_string().as_bytes());
    if let Some((_, reason)) = outcome.rejected.into_iter().next() {
        return Err(reason);
    }
    builder.finish().ok_or_else(|| "there is none: send a JSON object".to_owned())
}

/// What is to be reported on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportRequest {
    /// Files of rules that may be deployed.
    #[serde(default)]
    pub files: Vec<SentFile>,
    /// Ids of rules and correlations that are loaded.
    #[serde(default)]
    pub ids: Vec<String>,
    /// How many days of history, 1 to 366; 30 where it is not said.
    #[serde(default)]
    pub days: Option<u32>,
}

/// A report.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReportAnswer {
    /// Rates, times, and fields that nobody has sent; see `docs/rules.md`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub report: Report,
    /// Documents that do not load.
    pub refused: Vec<RefusalView>,
}

/// `POST /api/v1/rules/report`: what rules would cost and how often they would alert, by the tenant's history, and what
/// they can't see because nobody sends it. Nothing is deployed.
#[utoipa::path(post, path = "/api/v1/rules/report", tag = "rules", request_body = ReportRequest, responses(
    (status = 200, description = "The report", body = ReportAnswer),
    (status = 400, description = "Neither files nor ids", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 429, description = "Another report is being made", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn report(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    request: Result<Json<ReportRequest>, JsonRejection>,
) -> Response {
    let Json(ReportRequest { files, ids, days }) = match request {
        Ok(request) => request,
        Err(error) => return unread(&caller, &error),
    };
    if files.is_empty() && ids.is_empty() {
        return wrong(&caller, "name files or ids");
    }
    let Ok(held) = Arc::clone(&state.reporting).try_lock_owned() else {
        let detail = "another report is being made: try again when it is done";
        return caller.problem(StatusCode::TOO_MANY_REQUESTS, "busy", "one at a time", detail);
    };
    let files: Vec<RuleFile> = files.into_iter().map(RuleFile::from).collect();
    let documents = files.iter().flat_map(|file| parts(&file.text));
    let mut wanted: BTreeSet<String> = documents.filter_map(|part| part.id).collect();
    let sent = wanted.clone();
    wanted.extend(ids);
    let rules = match state.rules.look(tenant.as_str(), &files).await {
        Ok(rules) => rules,
        Err(error) => return failed(&caller, &error),
    };
    let options =
        ReportOptions::of_days(days.unwrap_or(DAYS).clamp(1, MOST_DAYS), state.clock.now());
    let snapshot = state.tables.snapshot(EVENTS);
    let work = tokio::task::spawn_blocking(move || {
        let _held = held;
        let empty = Rules::compile(palisade_pipeline::rules::RuleTexts::default());
        let rules = rules.as_deref().unwrap_or(&empty);
        let (mut ordinals, mut places) = (Vec::new(), Vec::new());
        let mut last = "";
        for found in visible(rules, &tenant) {
            // Of two with an id the tenant's own is in force.
            if wanted.contains(found.id()) && found.id() != last {
                last = found.id();
                match found {
                    Found::Rule(ordinal, _) => ordinals.push(ordinal),
                    Found::Correlation(place, _) => places.push(place),
                }
            }
        }
        let refused = rules.book.refused().iter().filter(|refusal| {
            refusal.owner.as_deref() == Some(tenant.as_str())
                && deployed_id(&refusal.file).is_some_and(|id| sent.contains(id))
        });
        let refused: Vec<RefusalView> = refused.map(RefusalView::from).collect();
        let made = make_report(rules, (&ordinals, &places), &snapshot, &tenant, &options);
        made.map(|report| ReportAnswer { report, refused })
    });
    match work.await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(error)) => caller.problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "storage",
            "history can't be read",
            error.to_string(),
        ),
        Err(_) => broken(&caller),
    }
}
