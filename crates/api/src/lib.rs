//! What people and programs ask over HTTP: queries, StreamGuard's REST, live counters, alerts, hunts, keys, dead
//! letters, the configuration in force, probes, metrics, OpenAPI and the page. Ingestion's doors are in `ingest`; [`router`] brings
//! both together on one listener.
//!
//! Every handler but the probes first finds out who asks ([`access`]) and from then on speaks of that
//! tenant only. Errors are RFC 9457 problem details, except where StreamGuard documents another shape.

pub mod access;
pub mod alerts;
mod host;
pub mod hunts;
pub mod indicators;
pub mod keys;
pub mod letters;
pub mod live;
pub mod openapi;
pub mod ops;
pub mod page;
pub mod query;
pub mod rules;
pub mod settings;
mod sql;
pub mod state;
pub mod store;
pub mod streamguard;

pub use host::HostNames;
pub use settings::{ConfigStatus, ReloadError};
pub use state::ApiState;
pub use store::KeyStore;

use alerts::silences;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, post};
use palisade_ingest::http::HttpDoors;
use palisade_ingest::{elastic, http};
use rules::{change, check, exceptions, list as rule_list};
use streamguard::{anomalies, events, health, stats};

/// Path, methods and handler of every route of this crate; a test holds the OpenAPI description
/// against it.
fn routes() -> Vec<(&'static str, &'static str, MethodRouter<ApiState>)> {
    // Sets of rules are larger than what is asked for elsewhere.
    let large =
        |route: MethodRouter<ApiState>| route.layer(DefaultBodyLimit::max(rules::MOST_BODY));
    vec![
        ("/", "GET", get(page::root)),
        ("/openapi.json", "GET", get(openapi::get_openapi)),
        ("/healthz", "GET", get(ops::healthz)),
        ("/readyz", "GET", get(ops::readyz)),
        ("/metrics", "GET", get(ops::metrics)),
        ("/api/v1/query", "POST", post(query::post_query)),
        ("/api/v1/stats", "GET", get(live::get_stats)),
        ("/api/v1/live", "GET", get(live::get_live)),
        ("/api/v1/keys", "GET POST", get(keys::list).post(keys::make)),
        ("/api/v1/keys/{id}", "DELETE", delete(keys::revoke)),
        ("/api/v1/config", "GET", get(settings::get_config)),
        ("/api/v1/domains", "GET", get(settings::get_domains)),
        ("/api/v1/dead-letters", "GET", get(letters::list)),
        ("/api/v1/dead-letters/{id}", "GET", get(letters::show)),
        ("/api/v1/dead-letters/{id}/retry", "POST", post(letters::retry)),
        ("/api/v1/dead-letters/{id}/drop", "POST", post(letters::drop_letter)),
        ("/api/v1/alerts", "GET", get(alerts::list::list)),
        ("/api/v1/alerts/{id}", "GET PATCH", get(alerts::one::show).patch(alerts::one::change)),
        ("/api/v1/alerts/{id}/notes", "POST", post(alerts::one::note)),
        ("/api/v1/indicators", "GET", get(indicators::list)),
        (
            "/api/v1/indicators/match",
            "POST",
            post(indicators::search).layer(DefaultBodyLimit::max(indicators::MAX_BODY)),
        ),
        (
            "/api/v1/indicators/{list}",
            "GET PUT DELETE",
            get(indicators::show)
                .put(indicators::put)
                .delete(indicators::remove)
                .layer(DefaultBodyLimit::max(indicators::MAX_BODY)),
        ),
        ("/api/v1/silences", "GET POST", get(silences::list).post(silences::make)),
        ("/api/v1/silences/{id}", "DELETE", delete(silences::lift)),
        ("/api/v1/incidents", "GET", get(alerts::groups::incidents)),
        ("/api/v1/entities/risk", "GET", get(alerts::groups::entity_risk)),
        ("/api/v1/deliveries", "GET", get(alerts::deliveries::list)),
        ("/api/v1/deliveries/{id}/retry", "POST", post(alerts::deliveries::retry)),
        ("/api/v1/rules", "GET POST", large(get(rule_list::list).post(change::deploy))),
        ("/api/v1/rules/refused", "GET", get(rule_list::refused)),
        ("/api/v1/rules/exceptions", "GET POST", get(exceptions::list).post(exceptions::make)),
        ("/api/v1/rules/exceptions/{name}", "DELETE", delete(exceptions::end)),
        ("/api/v1/rules/lint", "POST", post(check::lint)),
        ("/api/v1/rules/explain", "POST", post(check::explain)),
        ("/api/v1/rules/report", "POST", large(post(check::report))),
        (
            "/api/v1/rules/{id}",
            "GET PUT PATCH DELETE",
            large(
                get(rule_list::show)
                    .put(change::replace)
                    .patch(change::grade)
                    .delete(change::remove),
            ),
        ),
        (
            "/api/v1/hunts",
            "GET POST",
            get(hunts::list).post(hunts::make).layer(DefaultBodyLimit::max(hunts::MAX_BODY)),
        ),
        ("/api/v1/hunts/{id}", "GET DELETE", get(hunts::show).delete(hunts::end)),
        ("/api/v1/hunts/{id}/results", "GET", get(hunts::results)),
        ("/api/events", "GET", get(events::latest)),
        ("/api/events/recent", "GET", get(events::latest)),
        ("/api/events/count", "GET", get(events::number)),
        ("/api/events/threat-score", "GET", get(events::by_score)),
        ("/api/events/threats", "GET", get(events::threats)),
        ("/api/events/time-range", "GET", get(events::by_time)),
        ("/api/events/counts-by-type", "GET", get(events::by_type)),
        ("/api/events/user/{user}", "GET", get(events::by_user)),
        ("/api/events/{eventId}", "GET", get(events::by_id)),
        ("/api/anomalies", "GET", get(anomalies::latest)),
        ("/api/anomalies/recent", "GET", get(anomalies::latest)),
        ("/api/anomalies/count", "GET", get(anomalies::number)),
        ("/api/anomalies/high-score", "GET", get(anomalies::high)),
        ("/api/anomalies/time-range", "GET", get(anomalies::by_time)),
        ("/api/anomalies/user/{user}", "GET", get(anomalies::by_user)),
        ("/api/anomalies/{eventId}", "GET", get(anomalies::by_id)),
        ("/api/stats/summary", "GET", get(stats::summary)),
        ("/api/health", "GET", get(health::health)),
        ("/api/health/status", "GET", get(health::status)),
        ("/api/health/ready", "GET", get(health::ready)),
    ]
}

/// All routes of one listener.
pub fn router(state: ApiState, doors: HttpDoors) -> Router {
    let own = routes()
        .into_iter()
        .fold(Router::new(), |router, (path, _, handler)| router.route(path, handler))
        .with_state(state.clone());
    own.merge(http::router(doors.clone()))
        .merge(elastic::routes(doors))
        .layer(from_fn_with_state(state, host::check))
}
