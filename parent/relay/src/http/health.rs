//! Whether the process is up, whether the node can serve, and the figures.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use casemate_api::JSON;
use casemate_api::ready::{EnclaveStatus, Failing, Ready};
use casemate_door::Status;
use casemate_door::frame::Phase;

use super::{Api, respond};
use crate::enclave::View;
use crate::metrics::MEDIA_TYPE;

/// How long ago the enclave may have said how it is.
const RECENT: Duration = Duration::from_secs(10);

type Shared = State<Arc<Api>>;

/// Whether the process is up. It says nothing of the enclave.
#[utoipa::path(get, path = "/healthz", tag = "operating", responses((status = 200, description = "up")))]
pub(super) async fn healthz() -> Response {
    respond::of(200, JSON, respond::NO_STORE, r#"{"status":"up"}"#)
}

/// Whether the node can serve: its enclave is a member, a majority was heard from recently, and the
/// store can be written.
#[utoipa::path(
    get, path = "/readyz", tag = "operating",
    responses(
        (status = 200, description = "ready", body = Ready),
        (status = 503, description = "not ready, and what is in the way", body = Ready),
    )
)]
pub(super) async fn readyz(State(api): Shared) -> Response {
    let ready = {
        let view = api.enclave.view();
        let view = view.borrow();
        readiness(&api, &view)
    };
    let status = if ready.ready { 200 } else { 503 };
    let body = serde_json::to_vec(&ready).unwrap_or_default();
    respond::of(status, JSON, respond::NO_STORE, body)
}

/// Figures for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "operating",
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"))
)]
pub(super) async fn metrics(State(api): Shared) -> Response {
    respond::of(200, MEDIA_TYPE, respond::NO_STORE, api.metrics.text())
}

fn readiness(api: &Api, view: &View) -> Ready {
    let mut failing = Vec::new();
    let recent = view.status.as_ref().filter(|(_, at)| at.elapsed() <= RECENT);
    let status = recent.map(|(status, _)| status);
    let halted = view.halted.is_some() || status.is_some_and(|s| s.phase == Phase::Halted);
    if !view.connected || (status.is_none() && !halted && view.refused.is_none()) {
        failing.push(Failing::Enclave);
    }
    if halted {
        failing.push(Failing::Halted);
    }
    if view.refused.is_some() {
        failing.push(Failing::Configuration);
    }
    if status.is_none_or(|status| status.phase != Phase::Member) {
        failing.push(Failing::Member);
    }
    let age = status.and_then(|status| status.majority_age);
    if age.is_none_or(|age| Duration::from_millis(age.0) > api.limits.majority_age) {
        failing.push(Failing::Majority);
    }
    if view.store_error.is_some() {
        failing.push(Failing::Store);
    }
    let details = [&view.halted, &view.refused, &view.store_error];
    let details: Vec<&str> = details.into_iter().flatten().map(String::as_str).collect();
    Ready {
        ready: failing.is_empty(),
        failing,
        detail: (!details.is_empty()).then(|| details.join("; ")),
        node: api.node.clone(),
        enclave: view.status.as_ref().map(|(status, _)| shown(status)),
    }
}

fn shown(status: &Status) -> EnclaveStatus {
    let phase = match status.phase {
        Phase::Waiting => "waiting",
        Phase::Birth => "birth",
        Phase::Joining => "joining",
        Phase::Member => "member",
        Phase::Halted => "halted",
        Phase::Recovering => "recovering",
    };
    EnclaveStatus {
        phase: phase.to_owned(),
        boot: status.boot,
        genesis_id: status.genesis,
        size: status.size,
        published: status.published,
        leader: status.leader.clone(),
        majority_age_ms: status.majority_age.map(|age| age.0),
        linked: status.linked.clone(),
        keys: status.keys,
        shares: status.shares,
        triples: status.triples,
        frozen: status.frozen,
    }
}
