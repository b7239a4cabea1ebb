//! A node's HTTP API as somebody uses it who keeps to no rules: any bytes, to one node, once.
//!
//! The client ([`casemate_client`]) would not send half of what the demo sends, and would try
//! again elsewhere. What comes back is checked by who asked.

use std::time::Duration;

use casemate_api::reply::{GenesisJson, StoreListing};
use casemate_api::{MAX_ANSWER, MAX_REPLY_BODY, Outcome, Ready, route};
use casemate_audit::note::MAX_NOTE;
use casemate_audit::store::{
    CHECKPOINT, CHECKPOINTS, GENESIS, MAX_ATTACHMENT, MAX_TILE, RECEIPTS, read_tile,
};
use casemate_audit::tile::tiles_for;
use casemate_audit::{Checkpoint, SignedNote, StoreRead};
use casemate_proto::manifest::{GenesisRecord, MAX_GENESIS};
use reqwest::{Client, RequestBuilder};

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How long an answer to a submission may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long anything else may take.
const REPLY_WITHIN: Duration = Duration::from_secs(5);
/// The folder of what entries name by hash.
const ATTACHMENTS: &str = "attachments";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No connection, or it broke.
    #[error("no answer: {0}")]
    Http(#[from] reqwest::Error),
    /// An answer that is none.
    #[error("a malformed answer: {0}")]
    Malformed(String),
    /// Another status than was expected.
    #[error("status {status}: {body}")]
    Status {
        /// The status.
        status: u16,
        /// The body's beginning.
        body: String,
    },
    /// More bytes than were asked for.
    #[error("`{path}` has more than {max} bytes")]
    TooLarge {
        /// What.
        path: String,
        /// The most.
        max: usize,
    },
}

/// A node's API.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    url: String,
}

impl Api {
    /// At this URL.
    ///
    /// # Errors
    /// If no HTTP client can be made here.
    pub fn new(url: String) -> Result<Self, ApiError> {
        let http = Client::builder().no_proxy().connect_timeout(CONNECT_WITHIN).build()?;
        Ok(Self { http, url })
    }

    async fn exchange(
        request: RequestBuilder,
        path: &str,
        max: usize,
    ) -> Result<(u16, Vec<u8>), ApiError> {
        let mut response = request.send().await?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len().saturating_add(chunk.len()) > max {
                return Err(ApiError::TooLarge { path: path.to_owned(), max });
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }

    /// Posts a body, with what proves who says it.
    ///
    /// # Errors
    /// If there is no answer, or it is none.
    pub async fn post(
        &self,
        path: &str,
        header: (&'static str, String),
        body: Vec<u8>,
    ) -> Result<Outcome, ApiError> {
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .timeout(ANSWER_WITHIN)
            .header("content-type", casemate_api::JSON)
            .header(header.0, header.1)
            .body(body);
        let (status, body) = Self::exchange(request, path, MAX_ANSWER).await?;
        Outcome::read(status, &body).map_err(|error| ApiError::Malformed(error.to_string()))
    }

    /// What is at a path.
    ///
    /// # Errors
    /// If there is no answer, or more than `max` bytes.
    pub async fn get(&self, path: &str, max: usize) -> Result<(u16, Vec<u8>), ApiError> {
        let request = self.http.get(format!("{}{path}", self.url)).timeout(REPLY_WITHIN);
        Self::exchange(request, path, max).await
    }

    async fn json<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        statuses: &[u16],
    ) -> Result<T, ApiError> {
        let (status, body) = self.get(path, MAX_REPLY_BODY).await?;
        if !statuses.contains(&status) {
            let body = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err(ApiError::Status { status, body });
        }
        serde_json::from_slice(&body).map_err(|error| ApiError::Malformed(error.to_string()))
    }

    /// How the node says that it is.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ready(&self) -> Result<Ready, ApiError> {
        self.json(route::READYZ, &[200, 503]).await
    }

    /// The genesis record that the node gives, if it is one.
    ///
    /// # Errors
    /// If it gives none.
    pub async fn genesis(&self) -> Result<GenesisRecord, ApiError> {
        let json: GenesisJson = self.json(route::GENESIS, &[200]).await?;
        let record: GenesisRecord = casemate_proto::cbor::decode(&json.record.0, MAX_GENESIS)
            .map_err(|error| ApiError::Malformed(error.to_string()))?;
        record.check().map_err(|error| ApiError::Malformed(error.to_string()))?;
        Ok(record)
    }
}

/// A node's store, read over HTTP. It blocks, so it is not for a task of the runtime.
#[derive(Debug)]
pub struct RemoteStore<'a> {
    api: &'a Api,
    runtime: &'a tokio::runtime::Runtime,
}

impl<'a> RemoteStore<'a> {
    /// The store of this node.
    #[must_use]
    pub const fn new(api: &'a Api, runtime: &'a tokio::runtime::Runtime) -> Self {
        Self { api, runtime }
    }

    /// How many records its newest checkpoint covers; 0 if it has none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn size(&self) -> Result<u64, ApiError> {
        let Some(note) = self.read(CHECKPOINT, MAX_NOTE)? else { return Ok(0) };
        size_of(&note)
    }

    /// Copies the store, by its newest checkpoint.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn copy(&self) -> Result<std::collections::BTreeMap<String, Vec<u8>>, ApiError> {
        let mut files = std::collections::BTreeMap::new();
        let mut take = |path: &str, max| {
            if let Some(bytes) = self.read(path, max)? {
                files.insert(path.to_owned(), bytes);
            }
            Ok::<_, ApiError>(())
        };
        take(GENESIS, MAX_GENESIS)?;
        // first: what it covers was written before it
        take(CHECKPOINT, MAX_NOTE)?;
        for (folder, max) in
            [(CHECKPOINTS, MAX_NOTE), (RECEIPTS, MAX_TILE), (ATTACHMENTS, MAX_ATTACHMENT)]
        {
            for name in self.list(folder)? {
                take(&format!("{folder}/{name}"), max)?;
            }
        }
        if let Some(note) = files.get(CHECKPOINT) {
            for tile in tiles_for(0, size_of(note)?) {
                if let Some((found, bytes)) = read_tile(self, tile)? {
                    files.insert(found.to_string(), bytes);
                }
            }
        }
        Ok(files)
    }
}

/// The size of the tree that a signed checkpoint fixes.
fn size_of(note: &[u8]) -> Result<u64, ApiError> {
    let note = SignedNote::parse(note).map_err(|error| ApiError::Malformed(error.to_string()))?;
    let checkpoint = Checkpoint::parse(note.text());
    checkpoint
        .map(|checkpoint| checkpoint.size)
        .map_err(|error| ApiError::Malformed(error.to_string()))
}

impl StoreRead for RemoteStore<'_> {
    type Error = ApiError;

    fn read(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>, ApiError> {
        let path = format!("{}/{path}", route::STORE);
        match self.runtime.block_on(self.api.get(&path, max))? {
            (200, bytes) => Ok(Some(bytes)),
            (404, _) => Ok(None),
            (status, body) => {
                let body = String::from_utf8_lossy(&body).chars().take(200).collect();
                Err(ApiError::Status { status, body })
            }
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, ApiError> {
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("{}?folder={folder}&after={after}", route::STORE);
            let path =
                if after.is_empty() { format!("{}?folder={folder}", route::STORE) } else { path };
            let page: StoreListing = match self.runtime.block_on(self.api.json(&path, &[200])) {
                Ok(page) => page,
                Err(ApiError::Status { status: 404, .. }) => return Ok(names),
                Err(error) => return Err(error),
            };
            names.extend(page.names);
            match page.next {
                // it goes on, or this would not end
                Some(next) if next > after => after = next,
                _ => return Ok(names),
            }
        }
    }
}
