//! What people and programs ask over HTTP: queries, StreamGuard's REST, live counters, keys, dead
//! letters, probes, metrics, OpenAPI and the page. Ingestion's doors are in `ingest`; [`router`] brings
//! both together on one listener.
//!
//! Every handler but the probes first finds out who asks ([`access`]) and from then on speaks of that
//! tenant only. Errors are RFC 9457 problem details, except where StreamGuard documents another shape.

pub mod access;
pub mod ops;
pub mod query;
pub mod state;
pub mod store;

pub use state::ApiState;
pub use store::KeyStore;

use axum::Router;
use axum::routing::{get, post};
use palisade_ingest::http::HttpDoors;
use palisade_ingest::{elastic, http};

/// All routes of one listener.
pub fn router(state: ApiState, doors: HttpDoors) -> Router {
    let own = Router::new()
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .route("/api/v1/query", post(query::post_query))
        .with_state(state);
    own.merge(http::router(doors.clone())).merge(elastic::routes(doors))
}
