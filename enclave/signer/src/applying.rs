//! What a committed entry does to a node: the ledger's verdict, its leaf in the tree, and each effect of it.

use casemate_ledger::{Committed, Effect, EntryBody, Known, State};
use casemate_proto::hash::sha256;
use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, NodeName, UnixMillis};
use casemate_threshold::RunError;

use crate::event::{HaltReason, Handover, Output};
use crate::node::{FORGET_EVERY, KEPT_LEAVES, Node};
use crate::runs::Slot;
use crate::stats::Count;

impl Node {
    pub(crate) fn apply(&mut self, committed: &Committed, now: UnixMillis) {
        let known = self.known(&committed.entry().body);
        let applied = match self.state.apply_knowing(committed, known) {
            Ok(applied) => applied,
            Err(error) => return self.halt(error.into()),
        };
        self.stats.count(Count::Applied);
        let index = self.tree.append(applied.record.leaf_hash());
        self.publisher.record(&applied.record, committed);
        for effect in &applied.effects {
            if let Effect::KeyLive { name, .. } = effect {
                self.publisher.keep_key(&mut self.tree, name, &applied.record);
            }
        }
        if let EntryBody::Statement(signed) = &committed.entry().body {
            self.early_freezes.remove(&signed.id());
        }
        let mut admitted = None;
        for effect in applied.effects {
            if let Effect::BootAdmitted { node, boot } = &effect {
                admitted = Some((node.clone(), *boot));
            }
            self.effect(effect, committed, now);
        }
        if self.halted {
            return;
        }
        if let Some((node, boot)) = admitted {
            self.admitted(node, boot, now);
        }
        self.answer_entry(&committed.entry().body, index, &applied.verdict, now);
        self.settle_ahead(index, now);
        self.resume_early_starts(now);
        self.drive_job(index, now);
        self.volunteer(now);
        self.checkpoints.due = true;
        if index.checked_rem(FORGET_EVERY) == Some(0) {
            self.tree.forget_before(index.saturating_sub(KEPT_LEAVES));
        }
    }

    /// What this node has verified of an entry before it was one.
    fn known(&self, body: &EntryBody) -> Known {
        match body {
            EntryBody::Request { stamp, body } => {
                let key = (stamp.credential, Hash32::new(sha256(body)));
                let waiting = self.requests.waiting.get(&key);
                Known { stamp: waiting.and_then(|w| w.verified.clone()), ..Known::default() }
            }
            EntryBody::Signed { credential, request_id, .. } => {
                let signature = self.verified_signature(&(*credential, *request_id));
                Known { signature, ..Known::default() }
            }
            _ => Known::default(),
        }
    }

    fn effect(&mut self, effect: Effect, committed: &Committed, now: UnixMillis) {
        match effect {
            Effect::Sign(permit) => self.allowed(permit, now),
            Effect::SignatureRecorded { credential, request_id } => {
                self.signature_recorded(credential, request_id, now);
            }
            Effect::Decided { .. }
            | Effect::GenesisConfirmed
            | Effect::PolicyInForce { .. }
            | Effect::Unfrozen { .. }
            | Effect::BootAdmitted { .. }
            | Effect::VersionRaised { .. } => {}
            Effect::GenerateKey { name, .. } => {
                self.find_job(&name, now);
                self.resume_early_keygen(now);
                self.drive_keygen(now);
            }
            Effect::KeyLive { name, transcript, .. } => {
                if let EntryBody::KeyLive(live) = &committed.entry().body {
                    self.key_live(&name, &transcript, live, now);
                }
            }
            Effect::Frozen { .. } if casemate_proto::sabotaged!("freeze_ignored") => {}
            Effect::Frozen { .. } => self.burn_signing(now),
            Effect::BootRetired { boot, .. }
                if boot == self.boot_id && !casemate_proto::sabotaged!("fence_skipped") =>
            {
                self.halt(HaltReason::Retired);
            }
            Effect::BootRetired { boot, .. } => {
                let gone =
                    |slot: &Slot| slot.participants.as_slice().iter().any(|p| p.boot == boot);
                for id in self.runs.which(gone) {
                    self.end_run(id, &RunError::Burned, now);
                }
                let state = &self.state;
                self.triples.retain_boots(|boot| state.is_current(boot));
                self.asked.retain(|boot, _| state.is_current(boot));
                self.key_runs.retain(|boot, _| state.is_current(boot));
                self.heard.retain(|boot| state.is_current(boot));
                self.drop_stale_candidates();
                self.checkpoints.forget_newest();
            }
        }
    }

    /// Another boot is admitted: puts out what it needs to begin with, and what it holds no share of
    /// is to be recovered.
    fn admitted(&mut self, node: NodeName, boot: BootId, now: UnixMillis) {
        // whatever its former boot did not answer
        self.roster.proved_itself(&node);
        if let Some(tail) = self.publisher.tail(&self.tree) {
            let snapshot = self.state.to_snapshot();
            self.out.push(Output::Handover(Handover {
                node,
                boot,
                size: self.state.size(),
                root: self.state.root(),
                hash: State::snapshot_hash(&snapshot),
                snapshot: snapshot.into(),
                tail: tail.into(),
            }));
        } else {
            tracing::error!(%node, %boot, "no handover: a key's record cannot be proved here");
        }
        self.find_jobs(now);
        self.drive_keygen(now);
    }
}
