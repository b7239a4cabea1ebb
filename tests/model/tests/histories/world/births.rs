//! An enclave at its cluster's birth: as `birth.rs` and `member.rs` of `enclave/runtime` have it.

use std::cell::RefCell;
use std::sync::Arc;

use casemate_proto::manifest::{BootRecord, GenesisRecord};
use casemate_proto::{BootId, NodeName};
use casemate_replication::StartAt;
use casemate_replication::genesis::{GenesisRun, Outgoing};
use casemate_signer::{BootSecret, Event, Node};

use super::{Cluster, Due, World, pair};
use crate::enclave::{Eid, Input, Kind, Member, Phase, Scope, SimClock, node_config, start_member};
use crate::reference::{Checked, Reference, Violation};

/// Evidence is renewed as often.
const EVIDENCE_LIFE_MS: u64 = 4 * 60_000;
/// How long a link of the birth stays up beside a member whose peer does not say that it has the whole
/// genesis.
const BIRTH_LINK_MS: u64 = 10_000;

impl World {
    /// A cluster whose birth nobody disturbs, without its echo.
    pub async fn born_at_once(&mut self) -> Checked {
        let scope = GenesisRecord::manifest_hash(&self.manifest);
        let born: Vec<(BootSecret, BootRecord)> =
            (0..self.names.len()).map(|place| self.boot(place, &scope)).collect();
        let boots = born.iter().map(|(_, record)| record.clone()).collect();
        let genesis =
            GenesisRecord { manifest: self.manifest.clone(), boots, at: self.true_time() };
        for (place, (secret, record)) in born.into_iter().enumerate() {
            let id = self.started(place, record.id(), None, Phase::Over);
            let member = self.begins(id, secret, &genesis).await?;
            self.enclaves.get_mut(&id).unwrap().phase = Phase::Member(Box::new(member));
        }
        Ok(())
    }

    /// Another enclave for a node, which waits for its cluster's birth.
    pub(super) fn start_birth(&mut self, place: usize) {
        let scope = GenesisRecord::manifest_hash(&self.manifest);
        let (secret, record) = self.boot(place, &scope);
        let run = GenesisRun::new(self.manifest.clone(), record.clone());
        let attested = self.now();
        let boot = record.id();
        self.count("enclaves at a birth");
        let phase = Phase::Birth { run, secret: Some(secret), record, attested };
        self.started(place, boot, None, phase);
    }

    pub fn birth_in(&mut self, place: usize, after: u64) {
        self.at(after, Due::Birth { place });
    }

    /// Whether an enclave is about to start for a birth in this place.
    pub fn birth_is_due(&self, place: usize) -> bool {
        self.due.values().any(|due| matches!(due, Due::Birth { place: at } if *at == place))
    }

    pub(super) async fn in_birth(
        &mut self,
        id: Eid,
        phase: &mut Phase,
        input: Input,
    ) -> Result<Option<Phase>, Violation> {
        let Phase::Birth { run, secret, record, attested } = phase else { return Ok(None) };
        let Some(own) = secret else { return Ok(Some(Phase::Over)) };
        let (now, true_now) = (self.enclaves[&id].now(), self.now());
        let place = self.enclaves[&id].place;
        let signed = RefCell::new(Vec::new());
        let sign = |message: &[u8]| {
            signed.borrow_mut().push(message.to_vec());
            own.sign_genesis_echo(message).ok()
        };
        let mut out: Vec<Outgoing> = Vec::new();
        match input {
            Input::Tick => {
                if let Some(reason) = run.hopeless(now) {
                    self.trace.note(true_now, format_args!("{id} begins anew: {reason}"));
                    self.count("births begun anew");
                    self.birth_in(place, 10);
                    return Ok(Some(Phase::Over));
                }
                if true_now > *attested + EVIDENCE_LIFE_MS {
                    *attested = true_now;
                    let scope = GenesisRecord::manifest_hash(&self.manifest);
                    *record = self.attested(own, place, &scope);
                    out.extend(run.renew(record.clone()));
                }
                match run.advance(now, &sign) {
                    Ok(more) => out.extend(more),
                    Err(refused) => self.refuses(id, &refused),
                }
            }
            Input::Up { node, boot, .. } => {
                for message in run.connected(&node, boot) {
                    self.send(id, boot, Kind::Genesis, message);
                }
            }
            Input::Message { node, boot, kind: Kind::Genesis, bytes } => {
                match run.receive(&node, boot, &bytes, now, &sign) {
                    Ok(more) => out = more,
                    Err(refused) => self.refuses(id, &refused),
                }
            }
            Input::Submit { ticket, .. } => {
                self.clients.remove(&ticket);
            }
            Input::Down { node, boot, .. } => {
                if run.disconnected(&node, boot) {
                    for boot in self.linked_boots(id, &node) {
                        let peer = self.by_boot[&boot];
                        self.close(pair(id, peer));
                    }
                }
            }
            Input::Message { .. } | Input::Raft(_) => {}
        }
        let enclave = &self.enclaves[&id];
        for message in signed.take() {
            self.births.echoes(enclave.boot, &enclave.name, &message)?;
        }
        self.send_birth(id, out);
        let Some(genesis) = run.genesis().cloned() else { return Ok(None) };
        let Some(secret) = secret.take() else { return Ok(Some(Phase::Over)) };
        self.trace.note(self.now(), format_args!("{id} is born into {}", genesis.id()));
        self.count("enclaves born");
        let enclave = &self.enclaves[&id];
        self.births.begins(enclave.boot, &enclave.name, &genesis)?;
        let mut member = self.begins(id, secret, &genesis).await?;
        let Phase::Birth { run, .. } = std::mem::replace(phase, Phase::Over) else {
            return Ok(Some(Phase::Over));
        };
        member.birth = Some(run);
        for node in self.names.clone() {
            if node != self.enclaves[&id].name {
                self.feed(id, &mut member, Event::Link { node, up: false })?;
            }
        }
        self.close_birth_links(id, &member);
        Ok(Some(Phase::Member(Box::new(member))))
    }

    fn refuses(&mut self, id: Eid, reason: &dyn core::fmt::Display) {
        self.count("messages of a birth refused");
        self.trace.note(self.now(), format_args!("{id} at the birth: {reason}"));
    }

    /// A boot begins with its cluster's genesis.
    async fn begins(
        &mut self,
        id: Eid,
        secret: BootSecret,
        genesis: &GenesisRecord,
    ) -> Result<Member, Violation> {
        let (entropy, out) = (Box::new(self.dice.entropy()), self.out_in.clone());
        let enclave = &self.enclaves[&id];
        let name = enclave.name.clone();
        let node = Node::birth(secret, &name, genesis, node_config(), entropy);
        let node = node.map_err(|error| Violation(format!("{id} cannot begin: {error}")))?;
        let known = self.clusters.iter().position(|known| known.genesis.id() == genesis.id());
        let cluster = known.unwrap_or(self.clusters.len());
        if known.is_none() {
            let reference = Reference::new(node.state(), self.shape.caps());
            self.clusters.push(Cluster { genesis: genesis.clone(), reference, said_before: 0 });
        }
        let enclave = self.enclaves.get_mut(&id).unwrap();
        enclave.cluster = Some(cluster);
        let own = (id, enclave.boot, name);
        let (raft, clock): (_, Arc<SimClock>) = (enclave.raft, Arc::clone(&enclave.clock));
        Ok(start_member(node, StartAt::Genesis, genesis, own, raft, clock, out).await)
    }

    pub(super) fn send_birth(&mut self, id: Eid, out: Vec<Outgoing>) {
        for (node, message) in out {
            // a former boot's link may be up still
            for boot in self.linked_boots(id, &node) {
                self.send(id, boot, Kind::Genesis, message.clone());
            }
        }
    }

    /// The boots of a node that an enclave is linked with.
    pub(super) fn linked_boots(&self, id: Eid, node: &NodeName) -> Vec<BootId> {
        let other = |(a, b): &(Eid, Eid)| match (*a == id, *b == id) {
            (true, _) => Some(*b),
            (_, true) => Some(*a),
            _ => None,
        };
        let peers = self.links.keys().filter_map(other).filter_map(|id| self.enclaves.get(&id));
        peers.filter(|peer| peer.name == *node).map(|peer| peer.boot).collect()
    }

    /// What comes for a member's birth: others may lack echoes still.
    pub(super) fn after_birth(
        &mut self,
        id: Eid,
        member: &mut Member,
        (node, boot): (&NodeName, BootId),
        bytes: &[u8],
    ) {
        let now = self.enclaves[&id].now();
        let Some(birth) = &mut member.birth else { return };
        // this boot has echoed: it signs no other, whatever comes
        match birth.receive(node, boot, bytes, now, &|_| None) {
            Ok(out) => self.send_birth(id, out),
            Err(refused) => self.refuses(id, &refused),
        }
        self.close_birth_links(id, member);
    }

    pub(super) fn birth_link_up(
        &mut self,
        id: Eid,
        member: &mut Member,
        (node, boot): (&NodeName, BootId),
    ) {
        let Some(birth) = &mut member.birth else { return };
        for message in birth.connected(node, boot) {
            self.send(id, boot, Kind::Genesis, message);
        }
    }

    /// A link of the birth has served once both its ends have the whole genesis; one whose peer never
    /// says so is given up after a while.
    pub(super) fn close_birth_links(&mut self, id: Eid, member: &Member) {
        let now = self.now();
        let has_served = |peer: &crate::enclave::Enclave, up_since: u64| {
            let whole = member.birth.as_ref().is_none_or(|b| b.is_whole(&peer.name, peer.boot));
            whole || now >= up_since.max(member.since) + BIRTH_LINK_MS
        };
        let of_birth = self.links.iter().filter(|(_, link)| link.scope == Scope::Birth);
        let served: Vec<Eid> = of_birth
            .filter_map(|((a, b), link)| match (*a == id, *b == id) {
                (true, _) => Some((*b, link.up_since)),
                (_, true) => Some((*a, link.up_since)),
                _ => None,
            })
            .filter(|(peer, up_since)| {
                self.enclaves.get(peer).is_some_and(|peer| has_served(peer, *up_since))
            })
            .map(|(peer, _)| peer)
            .collect();
        served.into_iter().for_each(|peer| self.close(pair(id, peer)));
    }
}
