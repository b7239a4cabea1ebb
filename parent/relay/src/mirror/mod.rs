//! Files of the auditors' store from other nodes' parents.
//!
//! An enclave that was admitted anew publishes from its admission on. What the log grew by while it
//! was away, its parent fetches from the parents of other nodes, up to its own enclave's newest
//! checkpoint. Nothing is believed: every tile and every record is held against that checkpoint's
//! root ([`verify`]), an attachment against the hash that it is called by, and what does not fit is not
//! written. What is there is never overwritten.

mod verify;

use std::sync::Arc;
use std::time::Duration;

use casemate_api::reply::StoreListing;
use casemate_audit::store::{GENESIS, MAX_ATTACHMENT, MAX_TILE};
use casemate_audit::tile::{Tile, TileKind, parse_tile};
use casemate_audit::{Checkpoint, StoreRead as _};
use casemate_proto::ids::Hash32;
use reqwest::{Client, Url};
use tokio::time::sleep;

use crate::enclave::Enclave;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError, StorePath};

/// How often the store is held against the newest checkpoint.
const EVERY: Duration = Duration::from_secs(5);
/// How long one file may take.
const FETCH: Duration = Duration::from_secs(60);
/// Most bytes of a listing.
const MAX_LISTING: usize = 1024 * 1024;
/// Most parts of a listing that are read from one mirror.
const MAX_LISTINGS: usize = 100;

/// Why the store is not complete yet.
#[derive(Debug, thiserror::Error)]
enum Incomplete {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a file of this store is wrong: {0}")]
    Own(#[from] casemate_audit::tile::TileError),
    #[error("no mirror has `{path}` as the checkpoint of {size} records has it")]
    Nowhere { path: String, size: u64 },
    #[error("interrupted")]
    Interrupted,
}

/// Keeps the store complete.
#[derive(Debug)]
pub struct Mirror {
    store: Store,
    enclave: Enclave,
    metrics: Arc<Metrics>,
    mirrors: Vec<Url>,
    client: Client,
}

impl Mirror {
    /// Fetches from these parents.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(
        store: Store,
        enclave: Enclave,
        metrics: Arc<Metrics>,
        mirrors: Vec<Url>,
    ) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(FETCH)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { store, enclave, metrics, mirrors, client })
    }

    /// Keeps the store complete, for ever.
    pub async fn run(self) {
        let (mut complete, mut told) = (0, String::new());
        loop {
            match self.fill_once(complete).await {
                Ok(size) => {
                    if size > complete {
                        tracing::debug!(size, "the store is complete");
                    }
                    complete = size.max(complete);
                    told.clear();
                }
                Err(error) => {
                    let line = error.to_string();
                    if line != told {
                        tracing::warn!(error = %line, "the store has gaps");
                        told = line;
                    }
                }
            }
            sleep(EVERY).await;
        }
    }

    /// Fills the gaps between `from` records and the newest checkpoint; gives its size.
    async fn fill_once(&self, from: u64) -> Result<u64, Incomplete> {
        let Some(genesis) = self.enclave.genesis() else { return Ok(0) };
        let bytes = genesis.bytes;
        self.with_store(move |store| store.fill(&StorePath::parse(GENESIS)?, &bytes)).await?;
        let Some(checkpoint) = self.with_store(Store::checkpoint).await? else { return Ok(0) };
        if checkpoint.size <= from {
            return Ok(checkpoint.size);
        }
        self.fill_edge(&checkpoint).await?;
        // from the top down: each tile is held against the one above it
        for level in (0..verify::LEVELS).rev() {
            let kind = TileKind::Hashes(level);
            for tile in self.missing(kind, from, &checkpoint).await? {
                let expected = self.parent_hash(level, tile, checkpoint.size).await?;
                self.fetch_tile(tile, &checkpoint, |bytes| {
                    verify::is_tile_of(tile, bytes, &expected)
                })
                .await?;
            }
        }
        for tile in self.missing(TileKind::Entries, from, &checkpoint).await? {
            let hashes = self.hashes_under(tile).await?;
            self.fetch_tile(tile, &checkpoint, |bytes| verify::is_bundle_of(tile, bytes, &hashes))
                .await?;
        }
        self.fill_attachments().await?;
        Ok(checkpoint.size)
    }

    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Incomplete> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        Ok(done.map_err(|_| Incomplete::Interrupted)??)
    }

    /// The tiles of the log's right edge: they are not full, and have no tile above that holds their
    /// hash. Together they have to give the checkpoint's root.
    async fn fill_edge(&self, checkpoint: &Checkpoint) -> Result<(), Incomplete> {
        let edge = verify::edge(checkpoint.size);
        let (tiles, own) = {
            let tiles = edge.clone();
            let own = self
                .with_store(move |store| tiles.iter().map(|tile| read(store, *tile)).collect())
                .await;
            let own: Vec<Option<Vec<u8>>> = own?;
            (edge, own)
        };
        if own.iter().all(Option::is_some) {
            return Ok(());
        }
        for mirror in &self.mirrors {
            let mut parts = Vec::with_capacity(tiles.len());
            let mut new = Vec::new();
            for (tile, own) in tiles.iter().zip(&own) {
                let bytes = match own {
                    Some(bytes) => bytes.clone(),
                    None => match self.get_tile(mirror, *tile).await {
                        Some(bytes) => {
                            new.push((*tile, bytes.clone()));
                            bytes
                        }
                        None => break,
                    },
                };
                parts.push(bytes);
            }
            if verify::is_edge_of(&tiles, &parts, checkpoint) {
                for (tile, bytes) in new {
                    self.keep(&tile.to_string(), bytes).await?;
                }
                return Ok(());
            }
        }
        let missing = tiles.iter().zip(&own).find(|(_, own)| own.is_none());
        let path = missing.map_or_else(String::new, |(tile, _)| tile.to_string());
        Err(Incomplete::Nowhere { path, size: checkpoint.size })
    }

    /// The tiles of a kind that are not here: full ones, and of entries the last one too.
    async fn missing(
        &self,
        kind: TileKind,
        from: u64,
        checkpoint: &Checkpoint,
    ) -> Result<Vec<Tile>, Incomplete> {
        let size = checkpoint.size;
        self.with_store(move |store| {
            let all = casemate_audit::tile::tiles_for(from, size);
            let wanted =
                |tile: &Tile| tile.kind() == kind && (tile.is_full() || kind == TileKind::Entries);
            let mut missing = Vec::new();
            for tile in all.filter(wanted) {
                let path = StorePath::parse(&tile.to_string())?;
                if !store.has(&path) {
                    missing.push(tile);
                }
            }
            Ok(missing)
        })
        .await
    }

    /// The hash that the level above has for a full tile.
    async fn parent_hash(&self, level: u8, tile: Tile, size: u64) -> Result<Hash32, Incomplete> {
        let path = tile.to_string();
        let Some((parent, at)) = verify::parent_of(level, tile.index(), size) else {
            return Err(Incomplete::Nowhere { path, size });
        };
        let bytes = self.with_store(move |store| read(store, parent)).await?;
        let hashes = match bytes {
            Some(bytes) => parse_tile(parent, &bytes)?,
            None => Vec::new(),
        };
        hashes.get(at).copied().ok_or(Incomplete::Nowhere { path, size })
    }

    /// The hashes of the records in a bundle.
    async fn hashes_under(&self, bundle: Tile) -> Result<Vec<Hash32>, Incomplete> {
        let tile = Tile::new(TileKind::Hashes(0), bundle.index(), bundle.width())?;
        let bytes = self.with_store(move |store| read(store, tile)).await?;
        Ok(parse_tile(tile, &bytes.unwrap_or_default())?)
    }

    async fn fetch_tile(
        &self,
        tile: Tile,
        checkpoint: &Checkpoint,
        fits: impl Fn(&[u8]) -> bool,
    ) -> Result<(), Incomplete> {
        for mirror in &self.mirrors {
            match self.get_tile(mirror, tile).await {
                Some(bytes) if fits(&bytes) => return self.keep(&tile.to_string(), bytes).await,
                Some(_) => tracing::warn!(%mirror, %tile, "a mirror's file is not the log's"),
                None => {}
            }
        }
        Err(Incomplete::Nowhere { path: tile.to_string(), size: checkpoint.size })
    }

    async fn keep(&self, path: &str, bytes: Vec<u8>) -> Result<(), Incomplete> {
        let path = StorePath::parse(path).map_err(StoreError::from)?;
        if self.with_store(move |store| store.fill(&path, &bytes)).await? {
            self.metrics.store_files.get_or_create(&[("result", "mirrored")]).inc();
        }
        Ok(())
    }

    /// What entries name by a hash, so that it needs no other proof.
    async fn fill_attachments(&self) -> Result<(), Incomplete> {
        for mirror in &self.mirrors {
            let mut after = String::new();
            for _ in 0..MAX_LISTINGS {
                let Some(listing) = self.list_attachments(mirror, &after).await else { break };
                for name in listing.names {
                    self.fill_attachment(mirror, &name).await?;
                }
                match listing.next {
                    Some(next) if next > after => after = next,
                    _ => break,
                }
            }
        }
        Ok(())
    }

    async fn fill_attachment(&self, mirror: &Url, name: &str) -> Result<(), Incomplete> {
        let Some(hash) = Hash32::from_hex(&format!("0x{name}")).ok() else { return Ok(()) };
        let path = casemate_audit::store::attachment_path(&hash);
        let own = StorePath::parse(&path).map_err(StoreError::from)?;
        if self.with_store(move |store| Ok(store.has(&own))).await? {
            return Ok(());
        }
        match self.get(mirror, &path, MAX_ATTACHMENT).await {
            Some(bytes) if verify::is_attachment(&hash, &bytes) => self.keep(&path, bytes).await,
            Some(_) => {
                tracing::warn!(%mirror, path, "a mirror's file is not what its name says");
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn list_attachments(&self, mirror: &Url, after: &str) -> Option<StoreListing> {
        let mut url = mirror.join("/v1/store").ok()?;
        url.query_pairs_mut().append_pair("folder", "attachments").append_pair("after", after);
        serde_json::from_slice(&self.get_url(url, MAX_LISTING).await?).ok()
    }

    /// A tile, or the beginning of the full one that it became.
    async fn get_tile(&self, mirror: &Url, tile: Tile) -> Option<Vec<u8>> {
        if let Some(bytes) = self.get(mirror, &tile.to_string(), MAX_TILE).await {
            return Some(bytes);
        }
        if tile.is_full() {
            return None;
        }
        let full = self.get(mirror, &tile.full().to_string(), MAX_TILE).await?;
        verify::beginning(tile, full)
    }

    async fn get(&self, mirror: &Url, path: &str, max: usize) -> Option<Vec<u8>> {
        self.get_url(mirror.join(&format!("/v1/store/{path}")).ok()?, max).await
    }

    /// A file of a mirror; `None` where there is none, or it is larger than it may be.
    async fn get_url(&self, url: Url, max: usize) -> Option<Vec<u8>> {
        let mut response = self.client.get(url).send().await.ok()?;
        if response.status() != reqwest::StatusCode::OK {
            return None;
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            if chunk.len() > max.saturating_sub(bytes.len()) {
                return None;
            }
            bytes.extend_from_slice(&chunk);
        }
        Some(bytes)
    }
}

/// A tile of the own store, or the beginning of the full one that it became.
fn read(store: &Store, tile: Tile) -> Result<Option<Vec<u8>>, StoreError> {
    if let Some(bytes) = store.read(&tile.to_string(), MAX_TILE)? {
        return Ok(Some(bytes));
    }
    if tile.is_full() {
        return Ok(None);
    }
    let full = store.read(&tile.full().to_string(), MAX_TILE)?;
    Ok(full.and_then(|full| verify::beginning(tile, full)))
}
