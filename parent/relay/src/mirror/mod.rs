//! Files of the auditors' store from other nodes' parents.
//!
//! An enclave that was admitted anew publishes from its admission on. What the log grew by while it
//! was away, its parent fetches from the parents of other nodes, up to its own enclave's newest
//! checkpoint. Nothing is believed: every tile and every record is held against that checkpoint's
//! root, an attachment against the hash that it is called by, and what does not fit is not
//! written. What is there is never overwritten.

mod fetch;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use casemate_audit::store::{GENESIS, MAX_TILE, attachment_path};
use casemate_audit::tile::{Tile, TileKind, parse_tile};
use casemate_audit::{Checkpoint, StoreRead as _};
use reqwest::Url;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::fetch::Mirrors;
use self::verify::Expected;
use crate::enclave::Enclave;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError, StorePath};

/// How often the store is held against the newest checkpoint.
const EVERY: Duration = Duration::from_secs(1);
/// Files that are fetched at one time.
const AT_ONCE: usize = 8;

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
    mirrors: Arc<Mirrors>,
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
        let mirrors = Arc::new(Mirrors::new(mirrors)?);
        Ok(Self { store, enclave, metrics, mirrors })
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
                    // the same line once, not at every try
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
            self.fill_tiles(TileKind::Hashes(level), from, &checkpoint).await?;
        }
        self.fill_tiles(TileKind::Entries, from, &checkpoint).await?;
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
        let tiles = verify::edge(checkpoint.size);
        let wanted = tiles.clone();
        let own: Vec<Option<Vec<u8>>> = self
            .with_store(move |store| wanted.iter().map(|tile| read(store, *tile)).collect())
            .await?;
        let Some((first, _)) = tiles.iter().zip(&own).find(|(_, own)| own.is_none()) else {
            return Ok(());
        };
        for mirror in self.mirrors.all() {
            let mut parts = Vec::with_capacity(tiles.len());
            let mut new = Vec::new();
            for (tile, own) in tiles.iter().zip(&own) {
                let bytes = match own {
                    Some(bytes) => bytes.clone(),
                    None => match self.mirrors.tile(mirror, *tile).await {
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
        Err(Incomplete::Nowhere { path: first.to_string(), size: checkpoint.size })
    }

    /// Fetches the tiles of a kind that are not here, a few at a time.
    async fn fill_tiles(
        &self,
        kind: TileKind,
        from: u64,
        checkpoint: &Checkpoint,
    ) -> Result<(), Incomplete> {
        let size = checkpoint.size;
        for some in self.missing(kind, from, size).await?.chunks(AT_ONCE) {
            let mut fetching = JoinSet::new();
            for tile in some.iter().copied() {
                let expected = match kind {
                    TileKind::Hashes(level) => self.parent_hash(level, tile, size).await?,
                    TileKind::Entries => self.hashes_under(tile).await?,
                };
                let mirrors = Arc::clone(&self.mirrors);
                fetching.spawn(async move { (tile, mirrors.tile_of(tile, &expected).await) });
            }
            while let Some(fetched) = fetching.join_next().await {
                let (tile, bytes) = fetched.map_err(|_| Incomplete::Interrupted)?;
                let path = tile.to_string();
                match bytes {
                    Some(bytes) => self.keep(&path, bytes).await?,
                    None => return Err(Incomplete::Nowhere { path, size }),
                }
            }
        }
        Ok(())
    }

    /// The tiles of a kind that are not here: full ones, and of entries the last one too.
    async fn missing(&self, kind: TileKind, from: u64, size: u64) -> Result<Vec<Tile>, Incomplete> {
        self.with_store(move |store| {
            let wanted =
                |tile: &Tile| tile.kind() == kind && (tile.is_full() || kind == TileKind::Entries);
            let mut missing = Vec::new();
            for tile in casemate_audit::tile::tiles_for(from, size).filter(wanted) {
                if !store.has(&StorePath::parse(&tile.to_string())?) {
                    missing.push(tile);
                }
            }
            Ok(missing)
        })
        .await
    }

    /// The hash that the level above has for a full tile.
    async fn parent_hash(&self, level: u8, tile: Tile, size: u64) -> Result<Expected, Incomplete> {
        let nowhere = || Incomplete::Nowhere { path: tile.to_string(), size };
        let (parent, at) = verify::parent_of(level, tile.index(), size).ok_or_else(nowhere)?;
        let bytes = self.with_store(move |store| read(store, parent)).await?;
        let hashes = parse_tile(parent, &bytes.ok_or_else(nowhere)?)?;
        hashes.get(at).copied().map(Expected::Tile).ok_or_else(nowhere)
    }

    /// The hashes of the records in a bundle.
    async fn hashes_under(&self, bundle: Tile) -> Result<Expected, Incomplete> {
        let tile = Tile::new(TileKind::Hashes(0), bundle.index(), bundle.width())?;
        let bytes = self.with_store(move |store| read(store, tile)).await?;
        Ok(Expected::Records(parse_tile(tile, &bytes.unwrap_or_default())?))
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
        for mirror in self.mirrors.all() {
            for hash in self.mirrors.attachments(mirror).await {
                let path = attachment_path(&hash);
                let own = StorePath::parse(&path).map_err(StoreError::from)?;
                if self.with_store(move |store| Ok(store.has(&own))).await? {
                    continue;
                }
                if let Some(bytes) = self.mirrors.attachment(mirror, &hash).await {
                    self.keep(&path, bytes).await?;
                }
            }
        }
        Ok(())
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
    Ok(full.and_then(|full| verify::beginning(tile, &full)))
}
