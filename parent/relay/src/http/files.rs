//! The files of the auditors' store, and the genesis.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use casemate_api::reply::{GenesisJson, StoreListing};
use casemate_api::text::Hex;
use casemate_api::{JSON, ParentCode, Problem};
use casemate_audit::store::{CHECKPOINT, CHECKPOINTS, MAX_ATTACHMENT};
use casemate_audit::tile::Tile;

use super::body::Parameters;
use super::respond::Refusal;
use super::{Api, respond};
use crate::store::{MAX_FILE, MAX_PATH, StoreError, StorePath};

/// Most names in one answer.
const MAX_NAMES: usize = 1_000;
/// The media type of bytes.
const BYTES: &str = "application/octet-stream";
/// The media type of a signed note.
const TEXT: &str = "text/plain; charset=utf-8";

type Shared = State<Arc<Api>>;
type At = Result<Path<String>, PathRejection>;

/// The genesis record; its hash names the cluster.
#[utoipa::path(
    get, path = "/v1/genesis", tag = "log",
    responses(
        (status = 200, description = "the genesis", body = GenesisJson),
        (status = 503, description = "the cluster is not born yet", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn genesis(State(api): Shared) -> Response {
    match api.enclave.genesis() {
        Some(genesis) => {
            let json = GenesisJson { genesis_id: genesis.id, record: Hex(genesis.bytes) };
            let body = serde_json::to_vec(&json).unwrap_or_default();
            respond::of(200, JSON, respond::NO_CACHE, body)
        }
        None => {
            let problem = Refusal::new(ParentCode::NotReady, "the cluster is not born yet");
            respond::refusal(problem.retry_after(casemate_proto::time::SECOND))
        }
    }
}

/// The newest checkpoint that the node's enclave published: a signed note.
#[utoipa::path(
    get, path = "/v1/checkpoint", tag = "log",
    responses(
        (status = 200, description = "a C2SP checkpoint", body = String, content_type = "text/plain"),
        (status = 404, description = "none yet", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn checkpoint(State(api): Shared) -> Response {
    respond::either(api.file(CHECKPOINT, TEXT, respond::NO_CACHE).await)
}

/// A tile of the log (C2SP tlog-tiles), below `tile/`.
#[utoipa::path(
    get, path = "/v1/tile/{path}", tag = "log",
    params(("path" = String, Path, description = "such as `0/x001/234`, `entries/000` or `0/000.p/7`")),
    responses(
        (status = 200, description = "the tile; a full one never changes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "not here; a partial tile may have become a full one", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn tile(State(api): Shared, path: At) -> Response {
    let Ok(Path(path)) = path else { return respond::either(Err(not_found())) };
    // of what was asked no more than a tile's path can have is looked at
    let path: String = "tile/".chars().chain(path.chars().take(MAX_PATH)).collect();
    let Ok(tile) = Tile::parse(&path) else { return respond::either(Err(not_found())) };
    let cache = if tile.is_full() { respond::IMMUTABLE } else { respond::BRIEFLY };
    respond::either(api.file(&path, BYTES, cache).await)
}

/// A file of the auditors' store.
#[utoipa::path(
    get, path = "/v1/store/{path}", tag = "log",
    params(("path" = String, Path, description = "the file's path within the store")),
    responses(
        (status = 200, description = "the file", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "not here", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn store_file(State(api): Shared, path: At) -> Response {
    let Ok(Path(path)) = path else { return respond::either(Err(not_found())) };
    let partial = path.contains(".p/");
    let cache = if path.starts_with(CHECKPOINT) || path.starts_with(CHECKPOINTS) {
        respond::NO_CACHE
    } else if partial {
        respond::BRIEFLY
    } else {
        respond::IMMUTABLE
    };
    respond::either(api.file(&path, BYTES, cache).await)
}

/// The names of the files in a folder of the auditors' store, a thousand at a time.
#[utoipa::path(
    get, path = "/v1/store", tag = "log",
    params(
        ("folder" = String, Query, description = "such as `checkpoints`, `attachments` or `receipts`"),
        ("after" = Option<String>, Query, description = "the `next` of the listing before"),
    ),
    responses(
        (status = 200, description = "the names", body = StoreListing),
        (status = 400, description = "malformed", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn listing(State(api): Shared, request: Request) -> Response {
    respond::either(api.listing(request).await)
}

fn not_found() -> Refusal {
    Refusal::new(ParentCode::NotFound, "there is no such file")
}

fn unreadable(error: &StoreError) -> Refusal {
    tracing::error!(%error, "the store cannot be read");
    Refusal::new(ParentCode::Internal, "the store cannot be read")
}

impl Api {
    async fn file(
        &self,
        path: &str,
        content_type: &'static str,
        cache: &'static str,
    ) -> Result<Response, Refusal> {
        let path = StorePath::parse(path).map_err(|_| not_found())?;
        let max = MAX_FILE.max(MAX_ATTACHMENT);
        let found = self.reading(move |store| store.get(&path, max)).await?;
        let bytes = found.ok_or_else(not_found)?;
        Ok(respond::of(200, content_type, cache, bytes))
    }

    async fn listing(&self, request: Request) -> Result<Response, Refusal> {
        let (mut parts, _) = request.into_parts();
        let parameters = Parameters::of(&mut parts, &["folder", "after"]).await?;
        let folder = parameters.required("folder")?;
        let path =
            StorePath::parse(folder).map_err(|error| Refusal::new(ParentCode::BadQuery, error))?;
        let after = parameters.get("after").unwrap_or_default().to_owned();
        let (names, more) =
            self.reading(move |store| store.names(&path, &after, MAX_NAMES)).await?;
        let next = if more { names.last().cloned() } else { None };
        let listing = StoreListing { folder: folder.to_owned(), names, next };
        let body = serde_json::to_vec(&listing).unwrap_or_default();
        Ok(respond::of(200, JSON, respond::NO_CACHE, body))
    }

    /// Reads from the disk, off the threads that serve, a few at a time.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&crate::store::Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let internal = || Refusal::new(ParentCode::Internal, "the store cannot be read");
        let _few = self.reading.acquire().await.map_err(|_| internal())?;
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || read(&store)).await;
        done.map_err(|_| internal())?.map_err(|error| unreadable(&error))
    }
}
