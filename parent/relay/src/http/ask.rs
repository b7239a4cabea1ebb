//! What is passed to the enclave: submissions and queries.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use casemate_api::header::{HeaderError, approval_proof, parse_stamp};
use casemate_api::{
    GovernanceBody, JSON, MAX_BODY, MAX_GOVERNANCE_BODY, PASSKEY_HEADER, ParentCode, Problem,
    Rendered, ReplyKind, STAMP_HEADER, reply,
};
use casemate_door::{Query, Submission};
use casemate_proto::ids::{Hash32, parse_hex};
use casemate_proto::{CredentialId, Millis, RequestId};
use tokio::time::sleep;

use super::body::{self, Parameters};
use super::respond::Refusal;
use super::server::told;
use super::{Api, respond};
use crate::enclave::AskError;

/// How long a submission waits for its answer where the client does not say.
const WAIT: Duration = Duration::from_secs(25);
/// The longest that a client may say.
const MAX_WAIT_SECONDS: u64 = 60;
/// How long a query waits for its reply.
const QUERY_WAIT: Duration = Duration::from_secs(10);
/// When to ask again where nothing better is known.
const AGAIN: Millis = Millis(1_000);

type Shared = State<Arc<Api>>;
type Id = Result<Path<String>, PathRejection>;

/// Ask for a signature.
#[utoipa::path(
    post, path = "/v1/requests", tag = "requests",
    params(
        ("Casemate-Stamp" = String, Header, description = "`v1.<credential>.<issued>.<expires>.<nonce>.<signature>` over the body's bytes"),
        ("wait" = Option<u64>, Query, description = "seconds to wait for the answer, 0 to 60; 25 where left out"),
    ),
    request_body(content = RequestBody, description = "At most 44 KiB. The bytes themselves are what is stamped."),
    responses(
        (status = 200, description = "signed, or signed long ago", body = casemate_api::answer::AnswerJson),
        (status = 202, description = "waits for approvals or for a delay", body = casemate_api::answer::AnswerJson),
        (status = 400, description = "malformed", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "denied, in the enclave's hand", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "another body was asked for under this id", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "allowed and perhaps charged, and never to be signed; a new try needs a new id", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "not JSON by its media type", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many of this credential", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "busy or not ready: ask again, or ask another node, under the same id", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "still working: ask again under the same id", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create_request(State(api): Shared, request: Request) -> Response {
    respond::either(api.create_request(request).await)
}

/// Approve a pending request, by a stamp or by a passkey.
#[utoipa::path(
    post, path = "/v1/approvals", tag = "requests",
    params(
        ("Casemate-Stamp" = Option<String>, Header, description = "a stamp for `approvals.create` over the body's bytes; or"),
        ("Casemate-Passkey" = Option<String>, Header, description = "`v1.<credential>.<authenticatorData>.<clientDataJSON>.<signature>`: credential in hex, the rest base64url without padding"),
        ("wait" = Option<u64>, Query, description = "seconds to wait for the answer, 0 to 60; 25 where left out"),
    ),
    request_body(content = ApprovalRequestBody, description = "At most 44 KiB."),
    responses(
        (status = 200, description = "recorded; or signed, if it was the last approval needed", body = casemate_api::answer::AnswerJson),
        (status = 202, description = "recorded; the request still waits", body = casemate_api::answer::AnswerJson),
        (status = 400, description = "malformed", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "denied, in the enclave's hand", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such request is pending", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "the request has expired", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "not JSON by its media type", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "busy or not ready", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "still working: send it again", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create_approval(State(api): Shared, request: Request) -> Response {
    respond::either(api.create_approval(request).await)
}

/// Submit a change signed by the governance quorum, or a freezer's statement.
#[utoipa::path(
    post, path = "/v1/governance", tag = "governance",
    params(("wait" = Option<u64>, Query, description = "seconds to wait for the answer, 0 to 60; 25 where left out")),
    request_body = GovernanceBody,
    responses(
        (status = 200, description = "recorded", body = casemate_api::answer::AnswerJson),
        (status = 400, description = "malformed", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "refused, in the enclave's hand", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "not JSON by its media type", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "busy or not ready", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "still working: send it again", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn submit_governance(State(api): Shared, request: Request) -> Response {
    respond::either(api.submit_governance(request).await)
}

/// How a request stands.
#[utoipa::path(
    get, path = "/v1/requests/{id}", tag = "requests",
    params(
        ("id" = String, Path, description = "the request's id"),
        ("credential" = String, Query, description = "the requester's credential"),
        ("wait" = Option<u64>, Query, description = "seconds to wait for the answer, 0 to 60; 25 where left out"),
    ),
    responses(
        (status = 200, description = "signed", body = casemate_api::answer::AnswerJson),
        (status = 202, description = "waits", body = casemate_api::answer::AnswerJson),
        (status = 403, description = "denied, in the enclave's hand", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "not remembered", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "never to be signed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "busy or not ready", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "still working", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn request_state(State(api): Shared, id: Id, request: Request) -> Response {
    respond::either(api.request_state(id, request).await)
}

/// The requests that wait for approvals.
#[utoipa::path(
    get, path = "/v1/requests", tag = "requests",
    params(("nonce" = String, Query, description = "32 bytes of the asker's, fresh")),
    responses(
        (status = 200, description = "in the boot's hand", body = casemate_api::reply::PendingRequestsJson),
        (status = 400, description = "malformed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "not ready", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "no reply in time", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn pending_requests(State(api): Shared, request: Request) -> Response {
    respond::either(api.query(ReplyKind::PendingRequests, request).await)
}

/// An attestation document over the asker's nonce, with the boot that it binds.
#[utoipa::path(
    get, path = "/v1/attestation", tag = "cluster",
    params(("nonce" = String, Query, description = "32 bytes of the asker's, fresh")),
    responses(
        (status = 200, description = "in the boot's hand", body = casemate_api::reply::AttestationJson),
        (status = 400, description = "malformed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "not ready", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "no reply in time", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn attestation(State(api): Shared, request: Request) -> Response {
    respond::either(api.query(ReplyKind::Attestation, request).await)
}

/// The cluster as the node has applied it.
#[utoipa::path(
    get, path = "/v1/cluster", tag = "cluster",
    params(("nonce" = String, Query, description = "32 bytes of the asker's, fresh")),
    responses(
        (status = 200, description = "in the boot's hand", body = casemate_api::reply::ClusterReplyJson),
        (status = 400, description = "malformed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "not ready", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "no reply in time", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn cluster(State(api): Shared, request: Request) -> Response {
    respond::either(api.query(ReplyKind::Cluster, request).await)
}

/// The keys, with the proofs that they are what they were.
#[utoipa::path(
    get, path = "/v1/keys", tag = "cluster",
    params(("nonce" = String, Query, description = "32 bytes of the asker's, fresh")),
    responses(
        (status = 200, description = "in the boot's hand", body = casemate_api::reply::KeysJson),
        (status = 400, description = "malformed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "not ready", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "no reply in time", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn keys(State(api): Shared, request: Request) -> Response {
    respond::either(api.query(ReplyKind::Keys, request).await)
}

/// A request for a signature.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes what `casemate_proto::request` parses")]
pub(super) struct RequestBody {
    /// The client's own id, 16 bytes of hex, used once by its credential.
    request_id: String,
    /// Which key.
    key: String,
    /// Which child of it; left out: `m`, the key itself.
    #[schema(example = "m/0/1")]
    path: Option<String>,
    /// `tx`, `typed_data`, `message` or `hash`.
    kind: String,
    /// For `tx`: the chain, such as `eip155:8453`.
    chain: Option<String>,
    /// `tx`: an unsigned transaction in hex. `typed_data`: the object of `eth_signTypedData_v4`. `message`:
    /// hex of at most 16 KiB. `hash`: 32 bytes of hex.
    input: serde_json::Value,
}

/// An approval of a pending request.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes what `casemate_proto::request` parses")]
pub(super) struct ApprovalRequestBody {
    /// The requester's credential.
    credential: String,
    /// The request's id.
    request_id: String,
    /// The approval document's hash.
    document: String,
}

fn wait_of(parameters: &Parameters) -> Result<Duration, Refusal> {
    let Some(text) = parameters.get("wait") else { return Ok(WAIT) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse().ok().filter(|seconds| digits && *seconds <= MAX_WAIT_SECONDS);
    seconds.map(Duration::from_secs).ok_or_else(|| {
        let detail = format_args!("parameter `wait` is not 0 to {MAX_WAIT_SECONDS} seconds");
        Refusal::new(ParentCode::BadQuery, detail)
    })
}

fn bytes32(name: &'static str, text: &str) -> Result<[u8; 32], Refusal> {
    parse_hex(name, text).map_err(|error| Refusal::new(ParentCode::BadQuery, error))
}

impl Api {
    async fn create_request(&self, request: Request) -> Result<Response, Refusal> {
        let (mut parts, body) = request.into_parts();
        let wait = wait_of(&Parameters::of(&mut parts, &["wait"]).await?)?;
        let bad = |error: HeaderError| Refusal::new(ParentCode::BadHeader, error);
        let value = body::header(&parts.headers, STAMP_HEADER)?
            .ok_or_else(|| bad(HeaderError::Missing { name: "Casemate-Stamp" }))?;
        let stamp = parse_stamp(value).map_err(bad)?;
        let body = body::json(&parts.headers, body, MAX_BODY, self.limits.body_timeout).await?;
        self.submit(Submission::Request { stamp, body }, wait).await
    }

    async fn create_approval(&self, request: Request) -> Result<Response, Refusal> {
        let (mut parts, body) = request.into_parts();
        let wait = wait_of(&Parameters::of(&mut parts, &["wait"]).await?)?;
        let stamp = body::header(&parts.headers, STAMP_HEADER)?;
        let passkey = body::header(&parts.headers, PASSKEY_HEADER)?;
        let proof = approval_proof(stamp, passkey)
            .map_err(|error| Refusal::new(ParentCode::BadHeader, error))?;
        let body = body::json(&parts.headers, body, MAX_BODY, self.limits.body_timeout).await?;
        self.submit(Submission::Approval { body, proof }, wait).await
    }

    async fn submit_governance(&self, request: Request) -> Result<Response, Refusal> {
        let (mut parts, body) = request.into_parts();
        let wait = wait_of(&Parameters::of(&mut parts, &["wait"]).await?)?;
        // these can be large, so few are taken at a time, from before their bodies are read
        let _few = self.governance.try_acquire().map_err(|_| overloaded())?;
        let patience = self.limits.body_timeout;
        let body = body::json(&parts.headers, body, MAX_GOVERNANCE_BODY, patience).await?;
        let parsed = tokio::task::spawn_blocking(move || GovernanceBody::parse(&body)).await;
        let submission = parsed
            .map_err(|_| Refusal::new(ParentCode::Internal, "the body could not be read"))?
            .map_err(|error| Refusal::new(ParentCode::BadBody, error))?;
        self.submit(submission, wait).await
    }

    async fn request_state(&self, id: Id, request: Request) -> Result<Response, Refusal> {
        let (mut parts, _) = request.into_parts();
        let parameters = Parameters::of(&mut parts, &["credential", "wait"]).await?;
        let bad = |detail: String| Refusal::new(ParentCode::BadQuery, detail);
        let Path(id) = id.map_err(|_| bad("the request's id is malformed".to_owned()))?;
        let request_id = RequestId::from_hex(&id).map_err(|error| bad(error.to_string()))?;
        let credential = bytes32("credential id", parameters.required("credential")?)?;
        let credential = CredentialId(Hash32::new(credential));
        self.submit(Submission::Query { credential, request_id }, wait_of(&parameters)?).await
    }

    async fn query(&self, kind: ReplyKind, request: Request) -> Result<Response, Refusal> {
        let (mut parts, _) = request.into_parts();
        let parameters = Parameters::of(&mut parts, &["nonce"]).await?;
        let nonce = bytes32("nonce", parameters.required("nonce")?)?;
        let query = match kind {
            ReplyKind::Attestation => Query::Attest { nonce },
            ReplyKind::Cluster => Query::Cluster { nonce },
            ReplyKind::Keys => Query::Keys { nonce },
            ReplyKind::PendingRequests => Query::PendingRequests { nonce },
        };
        let reply = self.within(QUERY_WAIT, self.enclave.ask(query)).await?;
        let body =
            reply::body(kind, &reply).map_err(|error| Refusal::new(ParentCode::Internal, error))?;
        Ok(respond::of(200, JSON, respond::NO_STORE, body))
    }

    async fn submit(&self, submission: Submission, wait: Duration) -> Result<Response, Refusal> {
        let answer = self.within(wait, self.enclave.submit(submission)).await?;
        let rendered = Rendered::of(&answer).map_err(|error| {
            tracing::error!(%error, "the enclave's answer cannot be shown");
            Refusal::new(ParentCode::Internal, "the enclave's answer cannot be shown")
        })?;
        Ok(respond::rendered(rendered))
    }

    /// Waits for the enclave, but no longer than this, and not when the parent is to stop.
    async fn within<T>(
        &self,
        wait: Duration,
        asked: impl Future<Output = Result<T, AskError>>,
    ) -> Result<T, Refusal> {
        let mut stopping = self.stopping.clone();
        let working = |detail: &str| Refusal::new(ParentCode::Working, detail).retry_after(AGAIN);
        tokio::select! {
            // first, so that it is asked even where there is no time to wait
            biased;
            done = asked => done.map_err(|error| match error {
                AskError::NotConnected | AskError::NotAMember => {
                    Refusal::new(ParentCode::NotReady, error).retry_after(AGAIN)
                }
                AskError::Overloaded => overloaded(),
                AskError::WentAway => Refusal::new(ParentCode::Working, error).retry_after(AGAIN),
                AskError::TooLarge => Refusal::new(ParentCode::BodyTooLarge, error),
            }),
            () = sleep(wait) => Err(working("not done yet: ask again, under the same id")),
            () = told(&mut stopping) => {
                Err(working("the parent stops: ask another node, under the same id"))
            }
        }
    }
}

fn overloaded() -> Refusal {
    Refusal::new(ParentCode::Overloaded, "too much waits for the enclave").retry_after(AGAIN)
}
