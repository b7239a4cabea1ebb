//! Checkpoints: cosigned ones for receipts, on demand; log-signed ones for the world, at most one
//! in an interval.
//!
//! A boot cosigns only a root that is its own tree's at that size; a peer that names another gets none. The
//! lowest-named live node leads the published ones: it gathers cosignatures and the log key's
//! signature, and every node that finds the note good writes its own store by it. A note goes out
//! once; a node that did not get it, because its link was down or it was not a member yet, asks the
//! others for their newest.

use std::collections::{BTreeMap, BTreeSet};

use casemate_audit::note::UnixSeconds;
use casemate_audit::{
    Checkpoint, CheckpointPolicy, CosignerSet, InclusionReceipt, NoteSignature, Origin, SignedNote,
    VerifierKey, verify_checkpoint,
};
use casemate_ledger::apply::LOG_KEY;
use casemate_proto::ids::Hash32;
use casemate_proto::{KeyName, Millis, NodeName, UnixMillis};

use crate::bounded::PerPeer;
use crate::cosigners::{Asked, Cosigners};
use crate::event::HaltReason;
use crate::log_signature::StartLog;
use crate::node::Node;
use crate::peer::PeerMessage;

/// How long a checkpoint to publish waits for more than t cosignatures.
const GATHER_ALL: Millis = Millis(250);
/// How long a gathering lasts at most.
const GATHER_LIFE: Millis = Millis(5_000);
/// For how many intervals a node that has applied more than it has published hears of no checkpoint
/// before it asks.
const ASK_AFTER: u64 = 2;
/// Most requests of one peer that wait for their entries.
const MAX_EARLY: usize = 64;

/// The log key's part of a checkpoint.
pub(crate) enum LogPart {
    NotWanted,
    Running,
    Have([u8; 64]),
}

/// A checkpoint that collects signatures.
pub(crate) struct Gathering {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) lines: BTreeMap<NodeName, NoteSignature>,
    /// Who was asked; nobody yet, where they are about to say it unasked.
    pub(crate) asked: Option<Asked>,
    pub(crate) since: UnixMillis,
    pub(crate) log: LogPart,
}

/// A cosignature that nobody had asked for when it came. It is verified when it is used.
#[derive(Clone, Copy)]
struct Unasked {
    size: u64,
    at: UnixMillis,
    signature: [u8; 64],
}

pub(crate) enum Early {
    Cosign { size: u64, root: Hash32 },
    Log(StartLog),
}

/// Checkpoints in the making.
pub(crate) struct Checkpoints {
    pub(crate) for_receipts: Option<Gathering>,
    pub(crate) for_publishing: Option<Gathering>,
    /// The newest cosigned note that this node made or found good.
    newest: Option<(u64, String)>,
    /// A published note that covers more than this node has applied.
    ahead: Option<(u64, String)>,
    /// The newest note that this node wrote its store by, for peers that missed it.
    published: Option<(u64, String)>,
    published_at: UnixMillis,
    /// Since when this node has applied more than it has published, or when it last asked.
    behind_since: Option<UnixMillis>,
    pub(crate) early: PerPeer<Early>,
    /// The newest of each node that this node had no use for when it came.
    unasked: BTreeMap<NodeName, Unasked>,
    /// Up to which size this node has cosigned unasked.
    volunteered: u64,
    pub(crate) cosigners: Cosigners,
    /// Entries were applied since this node last looked what is to be done about checkpoints.
    pub(crate) due: bool,
}

impl Checkpoints {
    /// Boots have changed: what the former ones signed may no longer count as enough.
    pub(crate) fn forget_newest(&mut self) {
        self.newest = None;
        self.for_receipts = None;
        self.unasked.clear();
        self.cosigners.forget();
    }
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self {
            for_receipts: None,
            for_publishing: None,
            newest: None,
            ahead: None,
            published: None,
            published_at: UnixMillis(0),
            behind_since: None,
            early: PerPeer::new(MAX_EARLY),
            unasked: BTreeMap::new(),
            volunteered: 0,
            cosigners: Cosigners::default(),
            due: false,
        }
    }
}

pub(crate) fn log_key_name() -> Option<KeyName> {
    KeyName::new(LOG_KEY).ok()
}

impl Node {
    pub(crate) fn origin(&self) -> Origin {
        Origin { genesis: self.state.genesis(), incarnation: self.state.incarnation() }
    }

    fn cosigning_key(&self, node: &NodeName) -> Option<VerifierKey> {
        let boot = self.state.current_boot(node)?;
        let key = self.state.current_boot_key(node)?;
        self.origin().boot_key(&boot, &key).ok()
    }

    /// The log key's public key and epoch, once it is live.
    pub(crate) fn log_key(&self) -> Option<([u8; 32], u64)> {
        let live = self.state.keys().get(&log_key_name()?)?.live.as_ref()?;
        Some((<[u8; 32]>::try_from(live.public_key.as_slice()).ok()?, live.epoch))
    }

    /// What a checkpoint must show to be relied on now.
    fn checkpoint_policy(&self) -> Option<CheckpointPolicy> {
        let names = self.roster.names();
        let keys: Option<Vec<VerifierKey>> =
            names.iter().map(|name| self.cosigning_key(name)).collect();
        let log_key = match self.log_key() {
            Some((key, _)) => Some(self.origin().log_key(&key).ok()?),
            None => None,
        };
        let cosigners = CosignerSet::new(keys?, usize::from(self.threshold)).ok()?;
        Some(CheckpointPolicy { origin: self.origin().to_string(), log_key, cosigners })
    }

    pub(crate) fn drive_checkpoints(&mut self, now: UnixMillis) {
        for (from, early) in self.checkpoints.early.take() {
            match early {
                Early::Cosign { size, root } => self.cosign(&from, size, root, now),
                Early::Log(start) => self.join_log_signature(&from, start, now),
            }
        }
        if let Some((size, note)) = self.checkpoints.ahead.take() {
            if size <= self.state.size() {
                self.checkpoint_made(&note, now);
            } else {
                self.checkpoints.ahead = Some((size, note));
            }
        }
        self.finish_gatherings(now);
        if self.wants_proof()
            && let Some((size, note)) = self.checkpoints.newest.clone()
        {
            self.prove(&note, size, now);
        }
        if self.wants_proof() && self.checkpoints.for_receipts.is_none() {
            let mut gathering = self.gather_unasked(now);
            if self.checkpoints.volunteered != self.state.size()
                && let Some(gathering) = &mut gathering
            {
                self.ask_the_first(gathering, now);
            }
            self.checkpoints.for_receipts = gathering;
            self.finish_gatherings(now);
        }
        self.ask_the_silent(now);
        self.lead_publishing(now);
        self.ask_for_checkpoint(now);
    }

    /// Where nothing is heard of what was applied here, asks: a note that got lost is not sent again
    /// by itself, and in a quiet cluster no other follows it.
    fn ask_for_checkpoint(&mut self, now: UnixMillis) {
        let published = self.publisher.published();
        if self.state.size() <= published {
            self.checkpoints.behind_since = None;
            return;
        }
        let since = *self.checkpoints.behind_since.get_or_insert(now);
        if now.since(since) < self.config.checkpoint_interval.saturating_mul(ASK_AFTER) {
            return;
        }
        self.checkpoints.behind_since = Some(now);
        let live = self.roster.live(now);
        self.send_others(&live, &PeerMessage::AskCheckpoint { published });
    }

    /// A peer asks for the newest published note, and verifies it as if it came by itself.
    pub(crate) fn checkpoint_asked(&mut self, from: &NodeName, published: u64) {
        if let Some((size, note)) = &self.checkpoints.published
            && *size > published
        {
            let note = PeerMessage::Checkpoint(note.clone());
            self.send(from, &note);
        }
    }

    /// The newest note that t of the current boots cosigned, with its size.
    pub(crate) fn newest_checkpoint(&self) -> Option<(u64, String)> {
        self.checkpoints.newest.clone()
    }

    fn wants_proof(&self) -> bool {
        self.requests.wants_proof() || !self.asks.is_empty()
    }

    fn lead_publishing(&mut self, now: UnixMillis) {
        let due = now.since(self.checkpoints.published_at) >= self.config.checkpoint_interval;
        let grown = self.state.size() > self.publisher.published();
        if !due || !grown || self.checkpoints.for_publishing.is_some() {
            return;
        }
        let epoch = self.log_key().map_or(0, |(_, epoch)| epoch);
        let log_key = self.log_key().and(log_key_name());
        let able = |name: &NodeName| log_key.as_ref().is_none_or(|key| self.holds(key, name));
        let leads = self.roster.leader(0, now, able).as_ref() == Some(self.roster.me());
        let t = usize::from(self.threshold);
        let Some(participants) = self.roster.own_set(t, &BTreeSet::new(), now, able) else {
            return;
        };
        if !leads {
            return;
        }
        let Some(mut gathering) = self.gather(now) else { return };
        self.checkpoints.published_at = now;
        let (size, root) = (gathering.checkpoint.size, gathering.checkpoint.root);
        if log_key.is_none() {
            self.checkpoints.for_publishing = Some(gathering);
            return self.finish_gatherings(now);
        }
        gathering.log = LogPart::Running;
        self.checkpoints.for_publishing = Some(gathering);
        let (me, number) = (self.roster.me().clone(), self.fresh_number());
        let start = StartLog { size, root, participants, number, epoch };
        match self.begin_log_signature(&me, &start, now) {
            Ok(()) => {
                let StartLog { participants, .. } = start;
                let to = participants.clone();
                self.send_first(
                    &to,
                    &PeerMessage::StartLogSignature { size, root, participants, number, epoch },
                );
            }
            Err(error) => {
                tracing::debug!(%error, "log signature not begun");
                self.checkpoints.for_publishing = None;
            }
        }
    }

    /// Begins to gather cosignatures of this node's tree as it is.
    fn gather(&mut self, now: UnixMillis) -> Option<Gathering> {
        let mut gathering = self.gather_unasked(now)?;
        self.ask_for(&mut gathering, now);
        Some(gathering)
    }

    /// The same, without asking for any.
    fn gather_unasked(&self, now: UnixMillis) -> Option<Gathering> {
        let (size, root) = (self.state.size(), self.state.root());
        let checkpoint = Checkpoint::new(&self.origin(), size, root);
        let me = self.roster.me().clone();
        let key = self.cosigning_key(&me)?;
        let seconds = UnixSeconds::from(now);
        let signature = self.boot.sign(&checkpoint.cosignature_message(seconds));
        let line = NoteSignature::cosignature(&key, seconds, &signature);
        let mut lines = BTreeMap::from([(me, line)]);
        for (node, unasked) in &self.checkpoints.unasked {
            if unasked.size == size
                && let Some(line) = self.cosignature_of(node, &checkpoint, unasked)
            {
                lines.insert(node.clone(), line);
            }
        }
        Some(Gathering { checkpoint, lines, asked: None, since: now, log: LogPart::NotWanted })
    }

    /// A signature is recorded and no other is under way: whoever waits for its proof needs this
    /// node's cosignature, and gets it without having to ask. Under load one asking serves many, and
    /// nobody says anything unasked.
    pub(crate) fn volunteer(&mut self, now: UnixMillis) {
        let is_at_rest = std::mem::take(&mut self.signing.recorded) && self.signing.is_empty();
        if !is_at_rest {
            return;
        }
        let (size, root) = (self.state.size(), self.state.root());
        let message =
            Checkpoint::new(&self.origin(), size, root).cosignature_message(UnixSeconds::from(now));
        let signature = self.boot.sign(&message);
        self.checkpoints.volunteered = size;
        let others = self.roster.live(now);
        self.send_others(&others, &PeerMessage::Cosigned { size, at: now, signature });
    }

    /// A node's line under a checkpoint, if its signature is good.
    fn cosignature_of(
        &self,
        node: &NodeName,
        checkpoint: &Checkpoint,
        unasked: &Unasked,
    ) -> Option<NoteSignature> {
        let key = self.cosigning_key(node)?;
        let seconds = UnixSeconds::from(unasked.at);
        let verifying = ed25519_dalek::VerifyingKey::from_bytes(key.public_key()).ok()?;
        let signature = ed25519_dalek::Signature::from_bytes(&unasked.signature);
        let message = checkpoint.cosignature_message(seconds);
        verifying.verify_strict(&message, &signature).ok()?;
        Some(NoteSignature::cosignature(&key, seconds, &unasked.signature))
    }

    /// A peer asks for this boot's cosignature.
    pub(crate) fn cosign(&mut self, from: &NodeName, size: u64, root: Hash32, now: UnixMillis) {
        match self.own_checkpoint(from, size, root) {
            Own::Ahead => {
                self.checkpoints.early.push(from, Early::Cosign { size, root });
            }
            Own::Is(checkpoint) => {
                let message = checkpoint.cosignature_message(UnixSeconds::from(now));
                let signature = self.boot.sign(&message);
                self.send(from, &PeerMessage::Cosigned { size, at: now, signature });
            }
            Own::No => {}
        }
    }

    /// This node's checkpoint of a size, if a peer's root is the same; a dispute if it is another.
    pub(crate) fn own_checkpoint(&mut self, peer: &NodeName, size: u64, root: Hash32) -> Own {
        if size > self.state.size() {
            return Own::Ahead;
        }
        match self.tree.root_at(size) {
            Ok(ours) if ours == root => Own::Is(Checkpoint::new(&self.origin(), size, root)),
            Ok(ours) => {
                let peer = peer.clone();
                self.dispute(peer, size, root, ours);
                Own::No
            }
            Err(_) => Own::No,
        }
    }

    /// A peer's cosignature.
    pub(crate) fn cosigned(
        &mut self,
        from: &NodeName,
        size: u64,
        at: UnixMillis,
        signature: [u8; 64],
        now: UnixMillis,
    ) {
        let said = Unasked { size, at, signature };
        let mut lines = Vec::new();
        for slot in [&self.checkpoints.for_receipts, &self.checkpoints.for_publishing] {
            let gathering = slot.as_ref().filter(|gathering| gathering.checkpoint.size == size);
            lines.push(gathering.and_then(|gathering| {
                let is_new = !gathering.lines.contains_key(from);
                is_new.then(|| self.cosignature_of(from, &gathering.checkpoint, &said)).flatten()
            }));
        }
        let is_used = lines.iter().any(Option::is_some);
        let slots = [&mut self.checkpoints.for_receipts, &mut self.checkpoints.for_publishing];
        for (slot, line) in slots.into_iter().zip(lines) {
            if let (Some(gathering), Some(line)) = (slot, line) {
                gathering.lines.insert(from.clone(), line);
            }
        }
        if is_used {
            return self.finish_gatherings(now);
        }
        // perhaps of an entry that is not applied here yet; one for each node of the roster
        let known = self.checkpoints.unasked.get(from).map_or(0, |unasked| unasked.size);
        if size >= known && self.roster.party(from).is_some() {
            self.checkpoints.unasked.insert(from.clone(), said);
        }
    }

    pub(crate) fn finish_gatherings(&mut self, now: UnixMillis) {
        let t = usize::from(self.threshold);
        let has_enough = |gathering: &Gathering| gathering.lines.len() >= t;
        let is_done = |gathering: &Gathering| {
            let all = match gathering.asked {
                Some(Asked::Everybody(live)) => gathering.lines.len() >= live,
                Some(Asked::TheFirst) | None => true,
            };
            let waited = now.since(gathering.since) >= GATHER_ALL;
            has_enough(gathering) && (all || waited) && !matches!(gathering.log, LogPart::Running)
        };
        let is_old = |gathering: &Gathering| now.since(gathering.since) >= GATHER_LIFE;
        if let Some(gathering) = self.checkpoints.for_receipts.take() {
            if has_enough(&gathering) {
                self.cosigned_enough(&gathering, now);
            } else if !is_old(&gathering) {
                self.checkpoints.for_receipts = Some(gathering);
            }
        }
        if let Some(gathering) = self.checkpoints.for_publishing.take() {
            if is_done(&gathering) {
                if let Some(note) = self.assemble(&gathering) {
                    let others = self.roster.others();
                    self.send_others(&others, &PeerMessage::Checkpoint(note.clone()));
                    self.checkpoint_made(&note, now);
                }
            } else if !is_old(&gathering) {
                self.checkpoints.for_publishing = Some(gathering);
            }
        }
    }

    fn assemble(&self, gathering: &Gathering) -> Option<String> {
        let mut lines = Vec::new();
        if let LogPart::Have(signature) = &gathering.log {
            let (key, _) = self.log_key()?;
            lines.push(NoteSignature::ed25519(&self.origin().log_key(&key).ok()?, signature));
        }
        lines.extend(gathering.lines.values().cloned());
        let note = SignedNote::assemble(&gathering.checkpoint.body(), &lines).ok()?;
        Some(note.to_string())
    }

    fn cosigned_enough(&mut self, gathering: &Gathering, now: UnixMillis) {
        let size = gathering.checkpoint.size;
        let Some(note) = self.assemble(gathering) else { return };
        if matches!(gathering.asked, Some(Asked::Everybody(_))) {
            let others = gathering.lines.keys().filter(|name| *name != self.roster.me());
            self.checkpoints.cosigners.answered(others.cloned().collect());
        }
        self.checkpoints.newest = Some((size, note.clone()));
        self.prove(&note, size, now);
    }

    /// A checkpoint for the store, made here or by a peer.
    pub(crate) fn checkpoint_made(&mut self, text: &str, now: UnixMillis) {
        let Ok(note) = SignedNote::parse(text.as_bytes()) else { return };
        let Some(policy) = self.checkpoint_policy() else { return };
        let Ok(checkpoint) = Checkpoint::parse(note.text()) else { return };
        let (size, root) = (checkpoint.size, checkpoint.root);
        if size > self.state.size() {
            self.checkpoints.ahead = Some((size, text.to_owned()));
            return;
        }
        if size <= self.publisher.published() {
            return;
        }
        if let Err(error) = verify_checkpoint(&note, &policy) {
            tracing::debug!(%error, "checkpoint not published");
            return;
        }
        match self.tree.root_at(size) {
            Ok(ours) if ours != root => {
                // t boots signed what this node does not have
                let peer = self.roster.me().clone();
                return self.halt(HaltReason::RootMismatch { peer, size, theirs: root, ours });
            }
            Ok(_) => {}
            Err(_) => return,
        }
        self.checkpoints.published_at = now;
        self.checkpoints.behind_since = None;
        self.publish(&note, size);
        self.checkpoints.published = Some((size, text.to_owned()));
        if self.checkpoints.newest.as_ref().is_none_or(|(newest, _)| *newest < size) {
            self.checkpoints.newest = Some((size, text.to_owned()));
        }
    }

    /// The proof that the record which made a key's current epoch live is in the tree of a
    /// checkpoint.
    pub(crate) fn key_inclusion(
        &self,
        key: &KeyName,
        size: u64,
        note: &str,
    ) -> Option<InclusionReceipt> {
        let (index, leaf) = self.publisher.key_leaf(key)?;
        Some(InclusionReceipt {
            leaf: leaf.to_vec(),
            proof: self.tree.inclusion_proof(index, size).ok()?,
            checkpoint: note.to_owned(),
        })
    }

    /// The proof that a record is in the tree of a checkpoint.
    pub(crate) fn inclusion(&self, index: u64, size: u64, note: &str) -> Option<InclusionReceipt> {
        Some(InclusionReceipt {
            leaf: self.publisher.leaf(index)?.to_vec(),
            proof: self.tree.inclusion_proof(index, size).ok()?,
            checkpoint: note.to_owned(),
        })
    }
}

/// What this node makes of a peer's size and root.
pub(crate) enum Own {
    /// It is this node's own.
    Is(Checkpoint),
    /// This node is not that far.
    Ahead,
    /// It is not, or cannot be told.
    No,
}
