//! Reading from other parents.

use std::collections::BTreeSet;
use std::time::Duration;

use casemate_api::reply::StoreListing;
use casemate_audit::store::{MAX_ATTACHMENT, MAX_TILE, attachment_path};
use casemate_audit::tile::Tile;
use casemate_proto::ids::Hash32;
use reqwest::{Client, StatusCode, Url};

use super::verify::{self, Expected};

/// How long one file may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of a listing.
const MAX_LISTING: usize = 1024 * 1024;
/// Most parts of a listing that are read from one mirror.
const MAX_LISTINGS: usize = 100;

/// Other parents, in the order in which they are asked.
#[derive(Debug)]
pub(super) struct Mirrors {
    client: Client,
    all: Vec<Url>,
}

impl Mirrors {
    pub(super) fn new(all: Vec<Url>) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, all })
    }

    pub(super) fn all(&self) -> &[Url] {
        &self.all
    }

    /// A tile, from the first mirror that has it as it has to be.
    pub(super) async fn tile_of(&self, tile: Tile, expected: &Expected) -> Option<Vec<u8>> {
        for mirror in &self.all {
            match self.tile(mirror, tile).await {
                Some(bytes) if expected.fits(tile, &bytes) => return Some(bytes),
                Some(_) => tracing::warn!(%mirror, %tile, "a mirror's file is not the log's"),
                None => {}
            }
        }
        None
    }

    /// A tile as a mirror has it, or the beginning of the full one that it became.
    pub(super) async fn tile(&self, mirror: &Url, tile: Tile) -> Option<Vec<u8>> {
        if let Some(bytes) = self.file(mirror, &tile.to_string(), MAX_TILE).await {
            return Some(bytes);
        }
        if tile.is_full() {
            return None;
        }
        let full = self.file(mirror, &tile.full().to_string(), MAX_TILE).await?;
        verify::beginning(tile, &full)
    }

    /// The names of the attachments that a mirror has.
    pub(super) async fn attachments(&self, mirror: &Url) -> BTreeSet<Hash32> {
        let (mut names, mut after) = (BTreeSet::new(), String::new());
        for _ in 0..MAX_LISTINGS {
            let Some(listing) = self.listing(mirror, &after).await else { break };
            let hash = |name: &String| Hash32::from_hex(&format!("0x{name}")).ok();
            names.extend(listing.names.iter().filter_map(hash));
            match listing.next {
                Some(next) if next > after => after = next,
                _ => break,
            }
        }
        names
    }

    async fn listing(&self, mirror: &Url, after: &str) -> Option<StoreListing> {
        let mut url = mirror.join("/v1/store").ok()?;
        url.query_pairs_mut().append_pair("folder", "attachments").append_pair("after", after);
        serde_json::from_slice(&self.get(url, MAX_LISTING).await?).ok()
    }

    /// An attachment, if it is what its name says.
    pub(super) async fn attachment(&self, mirror: &Url, hash: &Hash32) -> Option<Vec<u8>> {
        let bytes = self.file(mirror, &attachment_path(hash), MAX_ATTACHMENT).await?;
        let fits = verify::is_attachment(hash, &bytes);
        if !fits {
            tracing::warn!(%mirror, %hash, "a mirror's file is not what its name says");
        }
        fits.then_some(bytes)
    }

    async fn file(&self, mirror: &Url, path: &str, max: usize) -> Option<Vec<u8>> {
        self.get(mirror.join(&format!("/v1/store/{path}")).ok()?, max).await
    }

    /// What is at a URL; `None` where nothing is, or more than there may be.
    async fn get(&self, url: Url, max: usize) -> Option<Vec<u8>> {
        let mut response = self.client.get(url).send().await.ok()?;
        if response.status() != StatusCode::OK {
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
