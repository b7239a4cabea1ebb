//! A store that is fetched from a node and compared with what the nodes' enclaves say now.
//!
//! A host can hand an auditor an old store, or one of a history that it shows to auditors only. Both
//! show when the heads that attested boots sign now are looked for in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use casemate_audit::{Frontier, leaf_hash};
use casemate_client::credential::random;
use casemate_proto::{GenesisId, Hash32};
use serde_json::{Value, json};

use super::AuditError;
use super::folder::Folder;
use super::show::each_leaf;
use crate::online::{CliError, OneNodeArgs, fetch};

/// How long records may take from a node's ledger to its host's store.
const PUBLISHING: Duration = Duration::from_secs(10);

/// A copy, and the heads that the nodes signed before it was made.
#[derive(Debug)]
pub(super) struct Live {
    node: String,
    heads: BTreeSet<(u64, Hash32)>,
    /// Where the copy is; gone with this value where nobody asked to keep it.
    folder: Kept,
    genesis: GenesisId,
}

#[derive(Debug)]
enum Kept {
    Given(PathBuf),
    Passing(PathBuf),
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Self::Passing(path) = self {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// What came of the comparison.
#[derive(Debug)]
pub(super) struct Compared {
    node: String,
    /// Heads that are roots of this log.
    found: usize,
    /// Heads that are not, by size.
    other: Vec<u64>,
    /// Heads beyond the store's end, the highest.
    beyond: Option<u64>,
}

impl Live {
    /// Copies a node's store, to `keep` or to a folder that passes.
    pub(super) fn fetch(node: &OneNodeArgs, keep: Option<&Path>) -> Result<Self, CliError> {
        let folder = match keep {
            Some(path) => Kept::Given(path.to_owned()),
            None => Kept::Passing(passing()?),
        };
        let (session, at) = node.open()?;
        let genesis = session.client.genesis_id();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(CliError::Runtime)?;
        let copying = async {
            let heads = fetch::live(&session).await?;
            let wanted = heads.iter().map(|(size, _)| *size).max().unwrap_or(0);
            let started = Instant::now();
            loop {
                let (node, fetched) = fetch::fetch(&session, at, folder.path()).await?;
                if fetched.size >= wanted || started.elapsed() >= PUBLISHING {
                    return Ok::<_, CliError>((node, heads));
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        let copied = runtime.block_on(copying);
        runtime.shutdown_background();
        let (node, heads) = copied?;
        Ok(Self { node, heads, folder, genesis })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
    pub(super) const fn genesis(&self) -> GenesisId {
        self.genesis
    }

    /// Looks for the nodes' heads in the copy, which has `size` verified records.
    pub(super) fn compare(&self, folder: &Folder, size: u64) -> Result<Compared, AuditError> {
        let mut frontier = Frontier::new();
        let (mut found, mut other) = (0_usize, Vec::new());
        let mut judge = |frontier: &Frontier| {
            for (_, root) in self.heads.iter().filter(|(at, _)| *at == frontier.size()) {
                if *root == frontier.root() {
                    found = found.saturating_add(1);
                } else {
                    other.push(frontier.size());
                }
            }
        };
        each_leaf(folder, 0, size, |_, leaf| {
            frontier.append(leaf_hash(leaf));
            judge(&frontier);
            Ok(true)
        })?;
        let beyond = self.heads.iter().map(|(at, _)| *at).filter(|at| *at > size).max();
        Ok(Compared { node: self.node.clone(), found, other, beyond })
    }
}

impl Kept {
    fn path(&self) -> &Path {
        match self {
            Self::Given(path) | Self::Passing(path) => path,
        }
    }
}

fn passing() -> Result<PathBuf, CliError> {
    let name = format!("casemate-audit-{}", hex::encode(random::<16>()));
    let path = std::env::temp_dir().join(name);
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(&path).map_err(|error| CliError::Write { path: path.clone(), error })?;
    Ok(path)
}

impl Compared {
    /// Whether the nodes and the store tell one history, as far as the store goes.
    pub(super) fn is_one_history(&self) -> bool {
        self.other.is_empty() && self.beyond.is_none()
    }

    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("fetched from", self.node.clone())];
        if self.found > 0 {
            lines.push((
                "nodes",
                format!("{} heads that they sign now are in this log", self.found),
            ));
        }
        for size in &self.other {
            lines.push((
                "OTHER LOG",
                format!("a node signs another root for {size} records: two histories"),
            ));
        }
        if let Some(size) = self.beyond {
            lines.push((
                "WITHHELD",
                format!("a node has applied {size} records, and the store ends before"),
            ));
        }
        lines
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "node": self.node,
            "heads_found": self.found,
            "other_roots_at": self.other,
            "withheld_up_to": self.beyond,
        })
    }
}

#[cfg(test)]
mod tests {
    use casemate_audit::note::UnixSeconds;
    use casemate_audit::{
        Checkpoint, NoteSignature, Origin, Record, RecordFields, SignedNote, StoreWriter,
    };
    use casemate_proto::{BootId, Incarnation, UnixMillis};

    use super::*;

    /// A store of five records, and the log's roots by size.
    fn store() -> (tempfile::TempDir, Vec<Hash32>) {
        let (mut writer, mut frontier) = (StoreWriter::new(b"genesis"), Frontier::new());
        let mut roots = vec![frontier.root()];
        for index in 0..5 {
            let record = Record::new(RecordFields {
                index,
                time: UnixMillis(index),
                kind: "tick".to_owned(),
                entry: vec![1],
                verdict: vec![2],
                policy: None,
                counters: Vec::new(),
                previous_root: frontier.root(),
            })
            .unwrap();
            frontier.append(record.leaf_hash());
            roots.push(frontier.root());
            writer.append(&record).unwrap();
        }
        let origin = Origin { genesis: GenesisId::new([1; 32]), incarnation: Incarnation(0) };
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key();
        let key = origin.boot_key(&BootId::new([2; 32]), key.as_bytes()).unwrap();
        let checkpoint = Checkpoint::new(&origin, 5, frontier.root());
        let line = NoteSignature::cosignature(&key, UnixSeconds(1), &[0; 64]);
        let note = SignedNote::assemble(&checkpoint.body(), &[line]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in writer.commit(&note).unwrap() {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        (folder, roots)
    }

    fn compare(heads: &[(u64, Hash32)], folder: &Path) -> Compared {
        let live = Live {
            node: "a".to_owned(),
            heads: heads.iter().copied().collect(),
            folder: Kept::Given(folder.to_owned()),
            genesis: GenesisId::new([1; 32]),
        };
        live.compare(&Folder::open(folder).unwrap(), 5).unwrap()
    }

    #[test]
    fn heads_of_one_history_are_found_in_its_store() {
        let (folder, roots) = store();
        let compared = compare(&[(3, roots[3]), (5, roots[5])], folder.path());
        assert!(compared.is_one_history());
        assert_eq!(compared.found, 2);
        assert_eq!(compared.json()["heads_found"], 2);
    }

    #[test]
    fn a_store_of_another_history_than_the_nodes_sign_is_found_out() {
        let (folder, roots) = store();
        let compared = compare(&[(3, roots[4]), (5, roots[5])], folder.path());
        assert!(!compared.is_one_history());
        assert!(compared.lines().iter().any(|(name, _)| *name == "OTHER LOG"));
        assert_eq!(compared.json()["other_roots_at"][0], 3);
    }

    #[test]
    fn a_store_that_ends_before_what_the_nodes_have_applied_is_found_out() {
        let (folder, roots) = store();
        let compared = compare(&[(5, roots[5]), (9, roots[1])], folder.path());
        assert!(!compared.is_one_history());
        assert!(compared.lines().iter().any(|(name, _)| *name == "WITHHELD"));
    }
}
