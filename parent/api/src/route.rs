//! Where things are.

/// Ask for a signature (POST), or list the pending requests (GET, `?nonce=`).
pub const REQUESTS: &str = "/v1/requests";
/// How a request stands: `?credential=`.
pub const REQUEST: &str = "/v1/requests/{id}";
/// Approve a pending request.
pub const APPROVALS: &str = "/v1/approvals";
/// Submit a governance change or a freezer's statement.
pub const GOVERNANCE: &str = "/v1/governance";
/// An attestation document over the asker's nonce: `?nonce=`.
pub const ATTESTATION: &str = "/v1/attestation";
/// The cluster as the node has applied it: `?nonce=`.
pub const CLUSTER: &str = "/v1/cluster";
/// The keys with their proofs: `?nonce=`.
pub const KEYS: &str = "/v1/keys";
/// The genesis record.
pub const GENESIS: &str = "/v1/genesis";
/// The newest signed checkpoint.
pub const CHECKPOINT: &str = "/v1/checkpoint";
/// A tile of the log, by its C2SP path below `tile/`.
pub const TILE: &str = "/v1/tile/{*path}";
/// A file of the auditors' store.
pub const STORE_FILE: &str = "/v1/store/{*path}";
/// The names in a folder of the auditors' store: `?folder=`, `?after=`.
pub const STORE: &str = "/v1/store";
/// Whether the process is up.
pub const HEALTHZ: &str = "/healthz";
/// Whether the node can serve.
pub const READYZ: &str = "/readyz";
/// Prometheus.
pub const METRICS: &str = "/metrics";
/// This API's own description.
pub const OPENAPI: &str = "/openapi.json";

/// The path of a request's state.
#[must_use]
pub fn request(
    id: &casemate_proto::RequestId,
    credential: &casemate_proto::CredentialId,
) -> String {
    format!("{REQUESTS}/{id}?credential={credential}")
}

/// The path of something that is asked under a nonce.
#[must_use]
pub fn with_nonce(route: &str, nonce: &[u8; 32]) -> String {
    format!("{route}?nonce=0x{}", hex::encode(nonce))
}
