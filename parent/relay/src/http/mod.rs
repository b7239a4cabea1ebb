//! The HTTP API.
//!
//! HTTP/1.1 only, without TLS: a load balancer or a mesh in front does that, and nothing here relies on it,
//! since whatever matters is signed end to end. Everything has a bound: connections in all and from one
//! address, the size and the time of headers and body, what waits for the enclave, and how long a
//! client may leave a response unread.

mod ask;
mod body;
mod files;
mod health;
pub mod openapi;
mod respond;
mod server;
mod stall;

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use casemate_api::{ParentCode, route};
use casemate_proto::NodeName;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use self::respond::Refusal;
use crate::config::Limits;
use crate::enclave::Enclave;
use crate::metrics::Metrics;
use crate::store::Store;

pub(crate) use server::serve;

/// Files that are read at one time.
const MAX_READING: usize = 8;

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) node: NodeName,
    pub(crate) enclave: Enclave,
    pub(crate) store: Store,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    governance: Semaphore,
    reading: Semaphore,
    stopping: watch::Receiver<bool>,
}

impl Api {
    pub(crate) fn new(
        node: NodeName,
        enclave: Enclave,
        store: Store,
        metrics: Arc<Metrics>,
        limits: Limits,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let governance = Semaphore::new(limits.governance_in_flight);
        let reading = Semaphore::new(MAX_READING);
        Self { node, enclave, store, metrics, limits, governance, reading, stopping }
    }
}

/// All routes.
pub(crate) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route(route::REQUESTS, post(ask::create_request).get(ask::pending_requests))
        .route(route::REQUEST, get(ask::request_state))
        .route(route::APPROVALS, post(ask::create_approval))
        .route(route::GOVERNANCE, post(ask::submit_governance))
        .route(route::ATTESTATION, get(ask::attestation))
        .route(route::CLUSTER, get(ask::cluster))
        .route(route::KEYS, get(ask::keys))
        .route(route::GENESIS, get(files::genesis))
        .route(route::CHECKPOINT, get(files::checkpoint))
        .route(route::TILE, get(files::tile))
        .route(route::STORE, get(files::listing))
        .route(route::STORE_FILE, get(files::store_file))
        .route(route::HEALTHZ, get(health::healthz))
        .route(route::READYZ, get(health::readyz))
        .route(route::METRICS, get(health::metrics))
        .route(route::OPENAPI, get(openapi::serve))
        .fallback(nothing_here)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&api), observe))
        .with_state(api)
}

async fn nothing_here() -> Response {
    respond::refusal(Refusal::new(ParentCode::NotFound, "nothing is at this path"))
}

async fn no_such_method() -> Response {
    let detail = "what is at this path does not have this method";
    respond::refusal(Refusal::new(ParentCode::MethodNotAllowed, detail))
}

/// Counts and logs a request by its route, never by what is in it.
async fn observe(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let route = ROUTES.iter().find(|route| matched == Some(**route)).copied().unwrap_or("other");
    let began = Instant::now();
    let response = next.run(request).await;
    let (status, took) = (response.status().as_u16(), began.elapsed());
    api.metrics.answered(route, status, took);
    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(route, status, milliseconds, "request");
    response
}

/// The closed list of routes that figures are told of.
const ROUTES: [&str; 16] = [
    route::REQUESTS,
    route::REQUEST,
    route::APPROVALS,
    route::GOVERNANCE,
    route::ATTESTATION,
    route::CLUSTER,
    route::KEYS,
    route::GENESIS,
    route::CHECKPOINT,
    route::TILE,
    route::STORE,
    route::STORE_FILE,
    route::HEALTHZ,
    route::READYZ,
    route::METRICS,
    route::OPENAPI,
];
