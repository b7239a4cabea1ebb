//! What hosts keep of a cluster, and enclaves that are started for a cold recovery: as `thread.rs` and
//! `recovering.rs` of `enclave/runtime` have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use casemate_ledger::recovery::recovery_entry;
use casemate_proto::recovery::{RecoveryOffer, SignedCertificate, recovery_scope};
use casemate_proto::{Incarnation, NodeName};
use casemate_recovery::{RecoverySecretKey, Release, SealedBlob};
use casemate_replication::StartAt;
use casemate_signer::{Event, Node, RecoveryParts};

use super::World;
use crate::enclave::{Eid, Input, Member, Phase, node_config, start_member};
use crate::reference::{Begun, Violation};

/// How often a node is asked whether it has other shares to seal.
const SEAL_MS: u64 = 1_000;
/// How often a host puts a copy of a store aside, and how many it keeps.
const COPY_MS: u64 = 3_000;
const MOST_COPIES: usize = 4;

/// An auditors' store.
pub type Store = BTreeMap<String, Vec<u8>>;

/// What one node's host has on its disk.
#[derive(Default)]
pub struct Disk {
    pub store: Store,
    /// The store as it was at earlier times.
    pub copies: Vec<Store>,
    copied: u64,
    /// Everything that was ever sealed there, oldest first.
    pub blobs: Vec<SealedBlob>,
}

/// What a boot is handed to begin with.
#[derive(Clone)]
pub struct Parts {
    pub certificate: SignedCertificate,
    pub snapshot: Vec<u8>,
    pub tail: Vec<u8>,
    pub blob: Option<SealedBlob>,
    pub releases: Vec<Release>,
}

impl World {
    fn keeps(&self) -> bool {
        self.manifest.recovery.is_some()
    }

    /// The disk of a node of a cluster.
    pub fn disk(&mut self, cluster: usize, place: usize) -> &mut Disk {
        self.disks.entry((cluster, place)).or_default()
    }

    /// A node puts out files for the store.
    pub(super) fn stored(&mut self, id: Eid, files: Vec<(String, Vec<u8>)>) {
        if !self.keeps() {
            return;
        }
        let (now, enclave) = (self.now(), &self.enclaves[&id]);
        let (cluster, place) = (enclave.cluster.unwrap(), enclave.place);
        let disk = self.disk(cluster, place);
        if now >= disk.copied + COPY_MS && !disk.store.is_empty() {
            disk.copied = now;
            disk.copies.push(disk.store.clone());
            if disk.copies.len() > MOST_COPIES {
                disk.copies.remove(0);
            }
        }
        disk.store.extend(files);
    }

    /// A node seals what it holds, if that is not what it sealed last.
    pub(super) fn seals(&mut self, id: Eid, member: &mut Member) {
        let now = self.now();
        if !self.keeps() || now < member.sealed_at + SEAL_MS {
            return;
        }
        member.sealed_at = now;
        if let Some(blob) = member.node.seal() {
            let enclave = &self.enclaves[&id];
            let (cluster, place) = (enclave.cluster.unwrap(), enclave.place);
            self.count("blobs sealed");
            self.disk(cluster, place).blobs.push(blob);
        }
    }

    /// Starts an enclave for a recovery; what it offers.
    pub fn start_recovering(&mut self, place: usize, to: Incarnation) -> (Eid, RecoveryOffer) {
        let scope = recovery_scope(&self.clusters[self.main].genesis.id(), to);
        let (secret, record) = self.boot(place, &scope);
        let key = RecoverySecretKey::generate(&mut self.dice.entropy()).unwrap();
        let message = RecoveryOffer::signing_bytes(&scope, &record.id(), &key.public());
        let signature = secret.sign_recovery_offer(&message).unwrap();
        let boot = record.id();
        let offer = RecoveryOffer { record, recovery_key: key.public(), signature };
        let phase = Phase::Recovering { secret: Some(secret), key };
        (self.started(place, boot, None, phase), offer)
    }

    /// Hands a boot that waits for a recovery what it is to begin with, which may be wrong. Whether it has
    /// begun. Whoever begins, by whatever it was handed, is held to what the governors granted.
    pub async fn hand_over(
        &mut self,
        id: Eid,
        granted: usize,
        parts: &Parts,
    ) -> Result<bool, Violation> {
        let (entropy, out) = (Box::new(self.dice.entropy()), self.out_in.clone());
        let genesis = self.clusters[granted].genesis.clone();
        let at = self.now();
        let Some(enclave) = self.enclaves.get_mut(&id) else { return Ok(false) };
        let (now, name, boot) = (enclave.now(), enclave.name.clone(), enclave.boot);
        let Phase::Recovering { secret, key } = &mut enclave.phase else { return Ok(false) };
        let given = RecoveryParts {
            certificate: &parts.certificate,
            snapshot: &parts.snapshot,
            tail: &parts.tail,
            blob: parts.blob.as_ref(),
            releases: &parts.releases,
            data_key: None,
        };
        let with = (node_config(), entropy as Box<dyn casemate_signer::Entropy>);
        let node = match Node::recover(secret, key, &name, &genesis, &given, with, now) {
            Ok(node) => node,
            Err(reason) => {
                self.count("recoveries refused");
                self.trace.note(at, format_args!("{id} begins no recovery: {reason}"));
                return Ok(false);
            }
        };
        self.count("enclaves recovered");
        self.trace.note(at, format_args!("{id} begins incarnation {}", node.state().incarnation()));
        let (entry, _) = recovery_entry(&parts.certificate);
        self.clusters[granted].reference.recovered(&Begun {
            boot,
            node: &name,
            certificate: parts.certificate.certificate.id(),
            entry: entry.hash(),
            state: node.state(),
            now,
        })?;
        let enclave = self.enclaves.get_mut(&id).unwrap();
        enclave.cluster = Some(granted);
        let own = (id, boot, name.clone());
        let (raft, clock) = (enclave.raft, Arc::clone(&enclave.clock));
        let at = StartAt::Recovery;
        let mut member = start_member(node, at, &genesis, own, raft, clock, out).await;
        let others: Vec<NodeName> = self.names.iter().filter(|n| **n != name).cloned().collect();
        for node in others {
            self.feed(id, &mut member, Event::Link { node, up: false })?;
        }
        self.enclaves.get_mut(&id).unwrap().phase = Phase::Member(Box::new(member));
        Ok(true)
    }

    /// Nothing of what comes is for an enclave that waits for its recovery.
    pub(super) fn in_recovery(&mut self, input: &Input) {
        if let Input::Submit { ticket, .. } = input {
            self.clients.remove(ticket);
        }
    }
}
