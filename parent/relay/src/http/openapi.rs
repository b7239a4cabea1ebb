//! The API's own description, OpenAPI 3.1; the same is checked in as `docs/openapi.json`.

use axum::response::Response;
use casemate_api::JSON;
use utoipa::OpenApi;

use super::respond;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Casemate",
        description = "A node of a threshold signer. Nothing that a node's parent says is to be believed because it says it: signatures and denials prove themselves, replies are signed by an attested boot. See docs/FORMATS.md.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(),
    ),
    paths(
        super::ask::create_request,
        super::ask::pending_requests,
        super::ask::request_state,
        super::ask::create_approval,
        super::ask::submit_governance,
        super::ask::attestation,
        super::ask::cluster,
        super::ask::keys,
        super::files::genesis,
        super::files::checkpoint,
        super::files::tile,
        super::files::listing,
        super::files::store_file,
        super::health::healthz,
        super::health::readyz,
        super::health::metrics,
        serve,
    ),
    tags(
        (name = "requests", description = "Ask for signatures, approve"),
        (name = "governance", description = "Change the policy, keys and images; freeze"),
        (name = "cluster", description = "What a node says of itself, in its boot's hand"),
        (name = "log", description = "The audit log's files"),
        (name = "operating", description = "For whoever operates the node"),
    )
)]
struct Document;

/// The description, as it is checked in.
#[must_use]
pub fn text() -> String {
    let mut text = Document::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operating",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value))
)]
pub(super) async fn serve() -> Response {
    respond::of(200, JSON, respond::NO_CACHE, text())
}
