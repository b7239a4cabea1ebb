//! A signature that nodes no longer have at hand, out of the auditors' store.
//!
//! The ledger remembers that a request was signed for longer than a node keeps its records. Asked for the
//! same id it then says in which records the signature is; those, and the hashes that prove them, are in
//! the tiles that every node's host serves. The host is not believed there either: what is put together
//! here goes through the same checks as any receipt.

use std::collections::BTreeMap;

use casemate_audit::merkle::node_hash;
use casemate_audit::note::MAX_NOTE;
use casemate_audit::store::{CHECKPOINT, MAX_TILE};
use casemate_audit::tile::{Tile, TileKind, parse_bundle, parse_tile};
use casemate_audit::tree::inclusion_proof;
use casemate_audit::{Checkpoint, HashStore, InclusionReceipt, Record, SignedNote};
use casemate_door::{Receipt, Signed};
use casemate_ledger::{Entry, EntryBody};
use casemate_proto::Hash32;

use crate::client::Client;
use crate::error::ClientError;
use crate::fault::NodeFault;
use crate::keys::PinnedKey;
use crate::request::Asked;

/// Levels of tiles above which no log of ours reaches: 256⁷ records.
const LEVELS: u8 = 7;

/// Tiles of hashes, by level and index.
#[derive(Default)]
struct Tiles(BTreeMap<(u8, u64), Vec<Hash32>>);

impl HashStore for Tiles {
    fn hash(&self, level: u8, index: u64) -> Option<Hash32> {
        // of the levels between, the hashes are made of those below
        let (tile_level, above) = (level / 8, u32::from(level % 8));
        let first = index.checked_shl(above)?;
        let tile = self.0.get(&(tile_level, first / 256))?;
        let at = usize::try_from(first % 256).ok()?;
        let count = 1_usize.checked_shl(above)?;
        let mut hashes = tile.get(at..at.checked_add(count)?)?.to_vec();
        while hashes.len() > 1 {
            hashes = hashes
                .chunks_exact(2)
                .filter_map(|pair| match pair {
                    [left, right] => Some(node_hash(left, right)),
                    _ => None,
                })
                .collect();
        }
        hashes.first().copied()
    }
}

impl Client {
    /// What an answer would have held, out of a node's store. Not checked.
    pub(crate) async fn out_of_store(
        &self,
        at: usize,
        asked: &Asked,
        key: &PinnedKey,
        (index, signed_index): (u64, u64),
    ) -> Result<Signed, ClientError> {
        let wrong = |reason: String| {
            ClientError::Node(
                self.failure(at, NodeFault::Body { reason: format!("store: {reason}") }),
            )
        };
        let note = self
            .store_file(at, CHECKPOINT, MAX_NOTE)
            .await?
            .ok_or_else(|| wrong("no checkpoint".to_owned()))?;
        let note = SignedNote::parse(&note).map_err(|error| wrong(error.to_string()))?;
        let size = Checkpoint::parse(note.text()).map_err(|error| wrong(error.to_string()))?.size;
        if signed_index >= size || index >= size {
            return Err(wrong(format!("its {size} records do not reach to record {signed_index}")));
        }
        let mut tiles = Tiles::default();
        for leaf in [index, signed_index] {
            self.path_tiles(at, leaf, size, &mut tiles).await?;
        }
        let receipt = |leaf: Vec<u8>, index| {
            let proof = inclusion_proof(&tiles, index, size).map_err(|e| wrong(e.to_string()))?;
            Ok::<_, ClientError>(InclusionReceipt { leaf, proof, checkpoint: note.to_string() })
        };
        let allowed = receipt(self.leaf(at, index, size).await?, index)?;
        let signed = receipt(self.leaf(at, signed_index, size).await?, signed_index)?;
        let record = Record::parse(&signed.leaf).map_err(|error| wrong(error.to_string()))?;
        let entry = Entry::decode(&record.fields().entry).map_err(|e| wrong(e.to_string()))?;
        let EntryBody::Signed { signature, .. } = entry.body else {
            return Err(wrong(format!("record {signed_index} is no signature's")));
        };
        let child = key
            .child(&asked.request().path)
            .map_err(|denial| ClientError::WouldBeDenied(Box::new(denial)))?;
        Ok(Signed {
            digest: asked.decoded().digest,
            signature,
            public_key: child.public_key,
            raw_transaction: None,
            receipt: Receipt { allowed, signed },
        })
    }

    /// The tiles that a leaf's proof is made of: at each level the one on its path, and the last one.
    async fn path_tiles(
        &self,
        at: usize,
        leaf: u64,
        size: u64,
        tiles: &mut Tiles,
    ) -> Result<(), ClientError> {
        for level in 0..LEVELS {
            let hashes = size >> (u32::from(level).saturating_mul(8));
            if hashes == 0 {
                break;
            }
            let on_path = (leaf >> (u32::from(level).saturating_mul(8))) / 256;
            for index in [on_path, hashes.saturating_sub(1) / 256] {
                if tiles.0.contains_key(&(level, index)) {
                    continue;
                }
                let kind = TileKind::Hashes(level);
                if let Some((tile, bytes)) = self.tile(at, kind, index, hashes).await? {
                    let parsed = parse_tile(tile, &bytes).map_err(|error| {
                        let reason = format!("store: {error}");
                        ClientError::Node(self.failure(at, NodeFault::Body { reason }))
                    })?;
                    tiles.0.insert((level, index), parsed);
                }
            }
        }
        Ok(())
    }

    async fn leaf(&self, at: usize, index: u64, size: u64) -> Result<Vec<u8>, ClientError> {
        let missing = |reason: String| {
            ClientError::Node(
                self.failure(at, NodeFault::Body { reason: format!("store: {reason}") }),
            )
        };
        let found = self.tile(at, TileKind::Entries, index / 256, size).await?;
        let (tile, bytes) = found.ok_or_else(|| missing(format!("no record {index}")))?;
        let leaves = parse_bundle(tile, &bytes).map_err(|error| missing(error.to_string()))?;
        let at = usize::try_from(index % 256).unwrap_or(usize::MAX);
        leaves
            .get(at)
            .map(|leaf| leaf.to_vec())
            .ok_or_else(|| missing(format!("no record {index}")))
    }

    /// A tile of a tree whose level has so many items: as wide as it is there, or full by now.
    async fn tile(
        &self,
        at: usize,
        kind: TileKind,
        index: u64,
        items: u64,
    ) -> Result<Option<(Tile, Vec<u8>)>, ClientError> {
        let width = items.saturating_sub(index.saturating_mul(256)).min(256);
        let Ok(tile) = Tile::new(kind, index, u16::try_from(width).unwrap_or(256)) else {
            return Ok(None);
        };
        for tile in [tile, tile.full()] {
            if let Some(bytes) = self.store_file(at, &tile.to_string(), MAX_TILE).await? {
                return Ok(Some((tile, bytes)));
            }
        }
        Ok(None)
    }
}
