//! What comes to an enclave, and what it makes of it: as `joining.rs` and `member.rs` of
//! `enclave/runtime` have it.

use std::sync::Arc;

use casemate_ledger::{EntryBody, State};
use casemate_proto::governance::{FreezerStatement, SignedStatement};
use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, NodeName};
use casemate_replication::join::Joined;
use casemate_replication::{Out, StartAt};
use casemate_signer::{BootSecret, Bytes, Event, Node, Output, PeerMessage, Submission, Ticket};

use super::{Client, Due, SHORT_MS, World, pair};
use crate::enclave::{EPOCH, Eid, Input, Kind, Member, Phase, Scope, node_config, start_member};
use crate::reference::{Ask, Checked, Violation, violated};

/// Most of what was said that a host keeps.
const MOST_SAID: usize = 2_000;

impl World {
    pub fn submit(&mut self, at: Eid, submission: Submission, ask: Option<Ask>) -> Ticket {
        // what is said to one cluster the host delivers to another as well
        let rivals = self.rivals();
        if !rivals.is_empty() && self.dice.percent(50) {
            let rival = *self.dice.pick(&rivals);
            self.count("delivered to a rival as well");
            self.deliver(rival, submission.clone(), None);
        }
        if !self.shape.recoveries.is_empty() && self.said.len() < MOST_SAID {
            self.said.push((submission.clone(), ask));
        }
        self.deliver(at, submission, ask)
    }

    /// Delivers again what was said to a former incarnation.
    pub fn say_again(&mut self, at: Eid) {
        if self.clusters[self.main].said_before > 0 {
            let which = self.dice.index(self.clusters[self.main].said_before);
            let (submission, ask) = self.said[which].clone();
            self.count("said to a former incarnation");
            self.deliver(at, submission, ask);
        }
    }

    /// From here on nothing that was said before is said to the cluster that people mean.
    pub fn forget_said(&mut self) {
        self.clusters[self.main].said_before = self.said.len();
    }

    fn deliver(&mut self, at: Eid, submission: Submission, ask: Option<Ask>) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.clients.insert(ticket, Client { ask, at });
        let after = self.dice.between(1, 6);
        self.at(after, Due::Input { to: at, input: Input::Submit { ticket, submission } });
        ticket
    }

    pub(super) async fn input(&mut self, id: Eid, input: Input) -> Checked {
        if let Input::Down { boot, .. } = &input
            && self.by_boot.get(boot).is_some_and(|peer| self.links.contains_key(&pair(id, *peer)))
        {
            // another link to the same boot is up already
            return Ok(());
        }
        let Some(enclave) = self.enclaves.get_mut(&id) else { return Ok(()) };
        if enclave.is_over() {
            return Ok(());
        }
        if enclave.paused {
            if !matches!(input, Input::Tick) {
                enclave.held.push_back(input);
            }
            return Ok(());
        }
        let mut phase = std::mem::replace(&mut enclave.phase, Phase::Over);
        let next = match &mut phase {
            Phase::Over => None,
            Phase::Birth { .. } => self.in_birth(id, &mut phase, input).await?,
            Phase::Recovering { .. } => {
                self.in_recovery(&input);
                None
            }
            Phase::Joining { .. } => self.joining(id, &mut phase, input).await?,
            Phase::Member(member) => self.member(id, member, input)?,
        };
        let ended = matches!(next, Some(Phase::Over));
        if ended {
            self.note_company(Some(id));
        }
        if let Some(enclave) = self.enclaves.get_mut(&id) {
            enclave.phase = next.unwrap_or(phase);
        }
        if ended {
            self.over(id, true);
        }
        Ok(())
    }

    // a new boot

    async fn joining(
        &mut self,
        id: Eid,
        phase: &mut Phase,
        input: Input,
    ) -> Result<Option<Phase>, Violation> {
        let Phase::Joining { run, secret, short_since } = phase else { return Ok(None) };
        let now = self.enclaves[&id].now();
        let mut out = Vec::new();
        match input {
            Input::Tick => out = run.tick(now),
            Input::Up { node, .. } => {
                run.connected(&node);
                out = run.tick(now);
            }
            Input::Down { node, .. } => run.disconnected(&node),
            Input::Message { node, kind: Kind::Join, bytes, .. } => {
                out = run.receive(&node, &bytes, now).unwrap_or_default();
            }
            Input::Message { .. } | Input::Raft(_) => {}
            Input::Submit { ticket, .. } => {
                self.clients.remove(&ticket);
            }
        }
        for (node, message) in out {
            // a former boot's link may be up still
            for boot in self.linked_boots(id, &node) {
                self.send(id, boot, Kind::Join, message.clone());
            }
        }
        if run.is_short() {
            let since = *short_since.get_or_insert(now);
            if now.since(since).0 > SHORT_MS {
                // it begins anew, as another boot
                let place = self.enclaves[&id].place;
                self.start_in(place, 10);
                return Ok(Some(Phase::Over));
            }
        } else {
            *short_since = None;
        }
        let Some(joined) = run.take() else { return Ok(None) };
        let Some(secret) = secret.take() else { return Ok(Some(Phase::Over)) };
        self.become_member(id, secret, joined).await.map(Some)
    }

    async fn become_member(
        &mut self,
        id: Eid,
        secret: BootSecret,
        joined: Joined,
    ) -> Result<Phase, Violation> {
        let Joined { size, snapshot, tail, position, .. } = joined;
        let state = match State::from_snapshot(&snapshot) {
            Ok(state) if state.size() == size => state,
            other => violated!("t nodes vouched for a snapshot that is none: {other:?}"),
        };
        let entropy = Box::new(self.dice.entropy());
        let enclave = &self.enclaves[&id];
        let (name, boot, place) = (enclave.name.clone(), enclave.boot, enclave.place);
        let genesis = self.cluster_of(id).genesis.clone();
        let (root, time) = (state.root(), state.time());
        let node = Node::join(secret, &name, &genesis, state, &tail, node_config(), entropy);
        self.reference_of(id).began(boot, size, root, time)?;
        let enclave = &self.enclaves[&id];
        let Ok(node) = node else {
            // its keys are used once: it starts over as another boot
            self.start_in(place, 10);
            return Ok(Phase::Over);
        };
        let (raft, clock) = (enclave.raft, Arc::clone(&enclave.clock));
        let at = StartAt::Snapshot(position);
        let own = (id, boot, name.clone());
        let mut member =
            start_member(node, at, &genesis, own, raft, clock, self.out_in.clone()).await;
        self.trace.note(self.now(), format_args!("enclave {id} is a member at {size}"));
        self.count("enclaves admitted");
        let linked = self.peers(id);
        for (node, boot) in Arc::clone(&member.boots).iter() {
            if *node != name && !linked.contains(&(node.clone(), *boot)) {
                self.feed(id, &mut member, Event::Link { node: node.clone(), up: false })?;
            }
        }
        for (node, boot) in linked {
            member.replication.link(boot, node.clone(), true);
            if member.boots.get(&node) == Some(&boot) {
                self.feed(id, &mut member, Event::Link { node, up: true })?;
            }
        }
        Ok(Phase::Member(Box::new(member)))
    }

    fn peers(&self, id: Eid) -> Vec<(NodeName, BootId)> {
        let between_members = self.links.iter().filter(|(_, link)| link.scope == Scope::Cluster);
        between_members
            .map(|(pair, _)| pair)
            .filter_map(|(a, b)| match (*a == id, *b == id) {
                (true, _) => Some(b),
                (_, true) => Some(a),
                _ => None,
            })
            .filter_map(|other| self.enclaves.get(other))
            .map(|other| (other.name.clone(), other.boot))
            .collect()
    }

    // a member

    fn member(
        &mut self,
        id: Eid,
        member: &mut Member,
        input: Input,
    ) -> Result<Option<Phase>, Violation> {
        match input {
            Input::Tick => {
                self.feed(id, member, Event::Tick)?;
                self.seals(id, member);
                self.close_birth_links(id, member);
            }
            Input::Up { node, boot, scope: Scope::Birth } => {
                self.birth_link_up(id, member, (&node, boot));
            }
            Input::Down { scope: Scope::Birth, .. } => {}
            Input::Up { node, boot, scope: Scope::Cluster } => {
                member.replication.link(boot, node.clone(), true);
                if member.boots.get(&node) == Some(&boot) {
                    self.feed(id, member, Event::Link { node, up: true })?;
                }
            }
            Input::Down { node, boot, scope: Scope::Cluster } => {
                member.replication.link(boot, node.clone(), false);
                if member.boots.get(&node) == Some(&boot) {
                    self.feed(id, member, Event::Link { node, up: false })?;
                }
            }
            Input::Message { node, boot, kind, bytes } => match kind {
                Kind::Genesis => self.after_birth(id, member, (&node, boot), &bytes),
                Kind::Raft => member.replication.receive(boot, &bytes),
                Kind::Node => {
                    if member.node.state().current_boot(&node) == Some(boot) {
                        self.told_by_peer(id, &bytes);
                        let bytes = Bytes::new(bytes);
                        self.feed(id, member, Event::Peer { from: node, bytes })?;
                    }
                }
                Kind::Join => self.asked_to_admit(id, member, (&node, boot), &bytes),
            },
            Input::Submit { ticket, submission } => {
                let freeze = freeze_of(&submission);
                if let Some(freeze) = freeze {
                    self.told(id, freeze);
                }
                self.feed(id, member, Event::Submit { ticket, submission })?;
            }
            Input::Raft(out) => return self.replication(id, member, out),
        }
        Ok(member.node.is_halted().then_some(Phase::Over))
    }

    fn told(&mut self, id: Eid, freeze: Hash32) {
        let boot = self.enclaves[&id].boot;
        self.reference_of(id).told(boot, freeze);
    }

    fn told_by_peer(&mut self, id: Eid, bytes: &[u8]) {
        if let Ok(PeerMessage::Freeze(signed)) = PeerMessage::decode(bytes) {
            self.told(id, signed.id());
        }
    }

    fn asked_to_admit(
        &mut self,
        id: Eid,
        member: &mut Member,
        (node, boot): (&NodeName, BootId),
        bytes: &[u8],
    ) {
        let now = self.enclaves[&id].now();
        let current = member.node.state().current_boot(node);
        let reached = current.is_some_and(|current| {
            current != boot
                && self
                    .by_boot
                    .get(&current)
                    .is_some_and(|c| self.links.contains_key(&pair(id, *c)))
        });
        if let Ok(action) = member.handovers.receive((node, boot), (current, reached), bytes, now) {
            for reply in action.send {
                self.send(id, boot, Kind::Join, reply);
            }
            if let Some(body) = action.propose {
                let _ = member.replication.propose(body, None);
            }
        }
    }

    fn replication(
        &mut self,
        id: Eid,
        member: &mut Member,
        out: Out,
    ) -> Result<Option<Phase>, Violation> {
        match out {
            Out::Send { to, bytes } => self.send(id, to, Kind::Raft, bytes),
            Out::Committed { committed, at } => {
                let leader = at.log().leader;
                if let EntryBody::Admit(record) = &committed.entry().body {
                    member.admitted.insert(record.id(), at);
                }
                if member.leader != Some(leader) {
                    member.leader = Some(leader);
                    self.feed(id, member, Event::Leader(leader))?;
                }
                let entry = committed.entry().clone();
                let kind = entry.body.kind();
                let before = member.node.state().size();
                let outputs = self.handle(id, member, Event::Committed(*committed));
                let state = member.node.state();
                if state.size() > before {
                    let (size, now) = (state.size(), self.true_time());
                    self.trace.step(self.now(), "applied", id, size);
                    self.note_company(Some(id));
                    let stands = (state, member.node.is_halted());
                    let boot = self.enclaves[&id].boot;
                    self.reference_of(id).applied(boot, &entry, stands, now)?;
                    let at = entry.at.0.saturating_sub(EPOCH.0);
                    let what = format_args!("{id} applied {size} {kind} of {at} ms");
                    self.trace.note(self.now(), what);
                }
                self.outputs(id, member, outputs)?;
                let state = member.node.state();
                member.applied.send_modify(|view| *view = view.next(state));
                self.boots_changed(id, member)?;
            }
            Out::Appended { index, entry } => {
                // for whoever must know what a run is for before its entry is committed
                self.appended.insert(entry.hash(), entry.body.clone());
                self.feed(id, member, Event::Appended { index, entry })?;
            }
            Out::RootMismatch { node, size, .. } => {
                violated!("enclave {id} was told another root of size {size} by {node:?}");
            }
            Out::Fatal(reason) => {
                self.trace.note(self.now(), format_args!("{id} ends: {reason}"));
                self.count("enclaves ended by replication");
                return match crate::setup::is_expected(&reason) {
                    true => Ok(Some(Phase::Over)),
                    false => violated!("enclave {id} ended: {reason}"),
                };
            }
        }
        Ok(member.node.is_halted().then_some(Phase::Over))
    }

    /// Entries were applied: who was admitted is linked, who was retired is cut off.
    fn boots_changed(&mut self, id: Eid, member: &mut Member) -> Checked {
        let boots = Arc::clone(&member.applied.borrow().boots);
        if boots == member.boots {
            return Ok(());
        }
        let changed: Vec<(NodeName, BootId)> = boots
            .iter()
            .filter(|(node, boot)| member.boots.get(*node) != Some(boot))
            .map(|(node, boot)| (node.clone(), *boot))
            .collect();
        member.boots = boots;
        for (node, boot) in changed {
            let up =
                self.by_boot.get(&boot).is_some_and(|c| self.links.contains_key(&pair(id, *c)));
            self.feed(id, member, Event::Link { node, up })?;
        }
        for (node, boot) in self.peers(id) {
            if member.node.state().retired_boots().contains(&boot) {
                member.replication.link(boot, node, false);
                if let Some(other) = self.by_boot.get(&boot) {
                    self.close(pair(id, *other));
                }
            }
        }
        Ok(())
    }

    fn handle(&mut self, id: Eid, member: &mut Member, event: Event) -> Vec<Output> {
        let now = self.enclaves[&id].now();
        member.node.handle(event, now)
    }

    pub(super) fn feed(&mut self, id: Eid, member: &mut Member, event: Event) -> Checked {
        let outputs = self.handle(id, member, event);
        self.outputs(id, member, outputs)
    }
}

fn freeze_of(submission: &Submission) -> Option<Hash32> {
    match submission {
        Submission::Statement(
            signed @ SignedStatement { statement: FreezerStatement::Freeze { .. }, .. },
        ) => Some(signed.id()),
        _ => None,
    }
}
