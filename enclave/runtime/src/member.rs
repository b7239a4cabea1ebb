//! A member: the node on its thread, replication, and who of the peers is who.
//!
//! The ledger says which boot speaks for a node. The node's messages are taken from current boots only,
//! whoever else may be attested. Replication hears everybody but retired boots, since one that lags
//! behind must be able to follow a leader whose admission it has not applied yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use casemate_door::{Query, Reply, Status, Submission, Ticket};
use casemate_ledger::EntryBody;
use casemate_nsm::Wanted;
use casemate_proto::manifest::{BootRecord, GenesisRecord};
use casemate_proto::{BootId, GenesisId, Hash32, NodeName};
use casemate_replication::genesis::GenesisRun;
use casemate_replication::join::{HandedOver, Handovers};
use casemate_replication::{CommittedAt, Config, Out, RaftStatus, Replication, Start, StartAt};
use casemate_signer::{Bytes, Event, Handover, Node, Output};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::connected::Cut;
use crate::core::{Common, Said};
use crate::envelope::{self, Kind};
use crate::links::Link;
use crate::thread::{FromNode, NodeHandle};

/// Most documents that are being made at one time for askers outside.
const MAX_ATTESTING: usize = 4;
/// Most admissions whose handover is still to come.
const MAX_ADMITTED: usize = 32;
/// How long a link under the manifest's hash stays up beside a member, unless its peer says before that
/// it has the whole genesis as well.
const BIRTH_LINK: Duration = Duration::from_secs(10);
/// Most words of replication that wait for the core.
const QUEUE: usize = 1_024;

/// What comes from a member's rooms.
pub(crate) enum FromMember {
    Replication(Out),
    Node(FromNode),
    /// Entries were applied.
    Applied,
    Evidence(Evidence),
}

/// A document for somebody outside.
pub(crate) struct Evidence {
    ticket: Ticket,
    nonce: [u8; 32],
    document: Option<Vec<u8>>,
}

/// What a member begins with.
pub(crate) struct Beginning {
    pub(crate) node: Node,
    pub(crate) start: StartAt,
    pub(crate) record: GenesisRecord,
    /// This boot, without evidence.
    pub(crate) boot: BootRecord,
    /// Of a boot that was there at the birth.
    pub(crate) birth: Option<GenesisRun>,
}

/// A member.
pub(crate) struct Member {
    boot: BootRecord,
    genesis: GenesisId,
    genesis_record: Vec<u8>,
    node: NodeHandle,
    node_out: mpsc::UnboundedReceiver<FromNode>,
    replication: Replication,
    replication_out: mpsc::Receiver<Out>,
    handovers: Handovers,
    /// Where in the log the admissions stand whose handover the node has not put out yet.
    admitted: BTreeMap<BootId, CommittedAt>,
    birth: Option<GenesisRun>,
    began: Instant,
    /// Who appended the entry that committed last.
    leader: Option<BootId>,
    /// Who leads replication, as was last known.
    elected: Option<NodeName>,
    /// Each node's current boot, as was last told to the node and replication.
    boots: Arc<BTreeMap<NodeName, BootId>>,
    evidence_in: mpsc::Sender<Evidence>,
    evidence: mpsc::Receiver<Evidence>,
    attesting: usize,
}

/// What is not refused because much else is asked: freezers' and governors' words.
pub(crate) const fn is_urgent(submission: &Submission) -> bool {
    matches!(submission, Submission::Statement(_) | Submission::Governance { .. })
}

impl Member {
    /// Starts the node's thread and replication.
    pub(crate) async fn start(beginning: Beginning, common: &Common) -> Result<Self, String> {
        let Beginning { node, start, record, boot, birth } = beginning;
        let platform = &common.platform;
        let boots = Arc::new(node.state().current_boots());
        let (out, node_out) = mpsc::unbounded_channel();
        let genesis = record.id();
        let delta = record.manifest.limits.delta;
        let node = NodeHandle::start(node, Arc::clone(&platform.clock), out)
            .map_err(|error| format!("the node's thread cannot start: {error}"))?;
        let (replication_in, replication_out) = mpsc::channel(QUEUE);
        let me = boot.id();
        let genesis_record = casemate_proto::cbor::encode(&record);
        let replication = Replication::start(Start {
            at: start,
            genesis: record,
            me,
            node: boot.node.clone(),
            config: Config { timing: common.raft, ..Config::new(delta) },
            clock: Arc::clone(&platform.clock),
            out: replication_in,
            applied: node.applied.clone(),
        })
        .await
        .map_err(|error| error.to_string())?;
        let (evidence_in, evidence) = mpsc::channel(MAX_ATTESTING);
        Ok(Self {
            boot,
            genesis,
            genesis_record,
            node,
            node_out,
            replication,
            replication_out,
            handovers: Handovers::new(),
            admitted: BTreeMap::new(),
            birth,
            began: Instant::now(),
            leader: None,
            elected: None,
            boots,
            evidence_in,
            evidence,
            attesting: 0,
        })
    }

    pub(crate) const fn genesis(&self) -> GenesisId {
        self.genesis
    }
    pub(crate) fn genesis_record(&self) -> &[u8] {
        &self.genesis_record
    }
    pub(crate) fn raft_status(&self) -> RaftStatus {
        self.replication.status()
    }
    /// How the node is, as it said at its last tick.
    pub(crate) fn node_status(&self) -> Status {
        self.node.status.borrow().clone()
    }

    /// The next word of its rooms.
    pub(crate) async fn next(&mut self) -> FromMember {
        tokio::select! {
            Some(out) = self.replication_out.recv() => FromMember::Replication(out),
            Some(said) = self.node_out.recv() => FromMember::Node(said),
            Ok(()) = self.node.applied.changed() => FromMember::Applied,
            Some(evidence) = self.evidence.recv() => FromMember::Evidence(evidence),
            else => FromMember::Node(FromNode::Ended),
        }
    }

    /// Hands an asker's submission to the node. Whether there was room.
    pub(crate) fn submit(&self, ticket: Ticket, submission: Submission) -> bool {
        let is_urgent = is_urgent(&submission);
        let event = Event::Submit { ticket, submission };
        if is_urgent { self.node.offer_first(event) } else { self.node.offer(event) }
    }

    /// Hands a question to the node or the security module. Whether there was room.
    pub(crate) fn ask(&mut self, ticket: Ticket, query: Query, common: &Common) -> bool {
        let Query::Attest { nonce } = query else {
            return self.node.offer(Event::Ask { ticket, query });
        };
        if self.attesting >= MAX_ATTESTING {
            return false;
        }
        self.attesting = self.attesting.saturating_add(1);
        let user_data = self.boot.user_data(&Hash32::new(*self.genesis.as_bytes()));
        let (key, out) = (self.boot.key, self.evidence_in.clone());
        let platform = Arc::clone(&common.platform);
        // the device takes its time, and nobody else is to wait for it
        tokio::task::spawn_blocking(move || {
            let wanted = Wanted {
                user_data: Some(user_data.as_bytes()),
                nonce: Some(&nonce),
                public_key: Some(&key),
            };
            let document = platform
                .attest
                .attest(wanted)
                .inspect_err(|error| tracing::error!(%error, "no attestation"))
                .ok();
            let _ = out.blocking_send(Evidence { ticket, nonce, document });
        });
        true
    }

    /// A document is made: the node signs the reply that it goes out with.
    pub(crate) fn evidence(&mut self, evidence: Evidence) -> Option<Said> {
        self.attesting = self.attesting.saturating_sub(1);
        let Evidence { ticket, nonce, document } = evidence;
        let signed = document.is_some_and(|document| {
            let record = BootRecord { evidence: document, ..self.boot.clone() };
            self.node.sign(ticket, nonce, Reply::Attested(Box::new(record)))
        });
        (!signed).then_some(Said::Reply(ticket, None))
    }

    /// What the node puts out. What of it is for the parent.
    pub(crate) fn node(&mut self, said: FromNode, common: &Common) -> Result<Vec<Said>, String> {
        match said {
            FromNode::Outputs(outputs) => {
                let mut said = Vec::new();
                for output in outputs {
                    said.extend(self.output(output, common)?);
                }
                Ok(said)
            }
            FromNode::Sealed(blob) => Ok(vec![Said::Sealed(blob)]),
            FromNode::Ended => Err("the node's thread has ended".to_owned()),
        }
    }

    fn output(&mut self, output: Output, common: &Common) -> Result<Option<Said>, String> {
        Ok(match output {
            Output::Propose { body, attachment, until } => {
                if let Err(error) = self.replication.propose_until(body, attachment, until) {
                    tracing::debug!(%error, "not proposed");
                }
                None
            }
            Output::Send { to, bytes } => {
                let boot = self.node.applied.borrow().boots.get(&to).copied();
                if let Some(boot) = boot {
                    common.links.send(&boot, &self.scope(), Kind::Node, bytes.as_slice());
                }
                None
            }
            Output::Answer { ticket, answer } => Some(Said::Answer(ticket, answer)),
            Output::Reply { ticket, reply } => Some(Said::Reply(ticket, reply)),
            Output::Handover(handover) => {
                if let Some(at) = self.admitted.remove(&handover.boot) {
                    self.hand_over(handover, &at, common);
                }
                None
            }
            Output::Publish(files) => Some(Said::Publish(files)),
            Output::Halt { reason } => return Err(reason.to_string()),
        })
    }

    pub(crate) async fn replication(&mut self, out: Out, common: &Common) -> Result<(), String> {
        match out {
            Out::Send { to, bytes } => {
                common.links.send(&to, &self.scope(), Kind::Raft, &bytes);
            }
            Out::Committed { committed, at } => {
                if let EntryBody::Admit(record) = &committed.entry().body {
                    // one that is refused when it is applied gets no handover
                    if self.admitted.len() >= MAX_ADMITTED {
                        self.admitted.pop_first();
                    }
                    self.admitted.insert(record.id(), at.clone());
                }
                let leader = at.log().leader;
                if self.leader != Some(leader) {
                    self.leader = Some(leader);
                    self.node.must(Event::Leader(leader)).await;
                }
                self.node.must(Event::Committed(*committed)).await;
            }
            Out::Appended { index, entry } => {
                self.node.offer(Event::Appended { index, entry });
            }
            Out::RootMismatch { from: _, node, size, theirs } => {
                if let Some(from) = node {
                    self.node.must(Event::Dispute { from, size, root: theirs }).await;
                }
            }
            Out::Fatal(reason) => return Err(reason.to_string()),
        }
        Ok(())
    }

    /// What members' links go by.
    pub(crate) fn scope(&self) -> Hash32 {
        Hash32::new(*self.genesis.as_bytes())
    }

    /// Tells everybody of the links that came up before this boot was a member, and the node of those
    /// that did not: it begins nothing with a peer before it is linked with it.
    pub(crate) async fn begin(&mut self, common: &mut Common) {
        common.set_images(&self.node.applied.borrow().images);
        common.close_retired();
        for (node, boot) in self.boots.iter() {
            if *node != self.boot.node && common.links.to(boot, &self.scope()).is_none() {
                self.node.must(Event::Link { node: node.clone(), up: false }).await;
            }
        }
        let links: Vec<Link> = common.links.all().cloned().collect();
        for link in links {
            self.link_up(&link).await;
        }
        self.close_birth_links(common);
    }

    /// A link of the birth has served once both its ends have the whole genesis; closed, it is
    /// dialled again as a link between members. One whose peer never says so is given up after a
    /// while.
    fn close_birth_links(&self, common: &mut Common) {
        let genesis = self.scope();
        let has_served = |link: &Link| {
            let is_whole = |birth: &GenesisRun| birth.is_whole(link.peer.node(), link.peer.boot());
            let since = link.up_since.max(self.began);
            self.birth.as_ref().is_none_or(is_whole) || since.elapsed() >= BIRTH_LINK
        };
        common.links.retain(|link| link.scope == genesis || !has_served(link));
    }

    fn is_current(&self, node: &NodeName, boot: &BootId) -> bool {
        self.boots.get(node) == Some(boot)
    }

    pub(crate) async fn link_up(&mut self, link: &Link) {
        let (node, boot) = (link.peer.node().clone(), link.peer.boot());
        if link.scope != self.scope() {
            // a peer of the birth that has not heard every echo
            if let Some(birth) = &mut self.birth {
                for message in birth.connected(&node, boot) {
                    link.send(envelope::seal(Kind::Genesis, &message));
                }
            }
            return;
        }
        self.replication.link(boot, node.clone(), true);
        if self.is_current(&node, &boot) {
            self.node.must(Event::Link { node, up: true }).await;
        }
    }

    pub(crate) async fn link_down(&mut self, cut: &Cut) {
        let Cut { node, boot, scope } = cut;
        if *scope != self.scope() {
            return;
        }
        self.replication.link(*boot, node.clone(), false);
        if self.is_current(node, boot) {
            self.node.must(Event::Link { node: node.clone(), up: false }).await;
        }
    }

    pub(crate) fn said(&mut self, link: &Link, kind: Kind, message: &[u8], common: &mut Common) {
        let (node, boot) = (link.peer.node(), link.peer.boot());
        let member_scope = link.scope == self.scope();
        match kind {
            Kind::Genesis => {
                if let Some(birth) = &mut self.birth {
                    let now = common.platform.clock.now();
                    // this boot has echoed: it signs no other, whatever comes
                    match birth.receive(node, boot, message, now, &|_| None) {
                        Ok(out) => crate::birth::send(out, common),
                        Err(error) => tracing::debug!(%node, %error, "after the birth: refused"),
                    }
                    self.close_birth_links(common);
                }
            }
            _ if !member_scope => {}
            Kind::Alive => {}
            Kind::Raft => self.replication.receive(boot, message),
            Kind::Node => {
                let current = self.node.applied.borrow().boots.get(node) == Some(&boot);
                if current {
                    let bytes = Bytes::new(message.to_vec());
                    self.node.offer(Event::Peer { from: node.clone(), bytes });
                }
            }
            Kind::Join => self.join(link, message, common),
        }
    }

    fn join(&mut self, link: &Link, message: &[u8], common: &Common) {
        let (node, boot) = (link.peer.node(), link.peer.boot());
        let now = common.platform.clock.now();
        let current = self.node.applied.borrow().boots.get(node).copied();
        // a link on which nothing comes is given up after a while
        let reached = current.is_some_and(|current| {
            current != boot && common.links.to(&current, &self.scope()).is_some()
        });
        match self.handovers.receive((node, boot), (current, reached), message, now) {
            Ok(action) => {
                for reply in action.send {
                    link.send(envelope::seal(Kind::Join, &reply));
                }
                if let Some(body) = action.propose {
                    tracing::info!(%node, %boot, "its new boot asks to be admitted");
                    if let Err(error) = self.replication.propose(body, None) {
                        tracing::warn!(%error, "not proposed");
                    }
                }
            }
            Err(error) => tracing::warn!(%node, %boot, %error, "not admitted"),
        }
    }

    /// The node has what an admitted boot begins with, and replication knows where.
    fn hand_over(&mut self, handover: Handover, at: &CommittedAt, common: &Common) {
        let Handover { node, boot, size, hash, snapshot, tail, .. } = handover;
        tracing::info!(%node, %boot, size, "admitted");
        let position = at.position();
        let handed = HandedOver { boot, node, size, hash, snapshot, tail, position };
        let word = self.handovers.put(handed, common.platform.clock.now());
        common.links.send(&boot, &self.scope(), Kind::Join, &word);
    }

    /// Entries were applied: who was admitted is linked, who was retired is cut off.
    pub(crate) async fn applied(&mut self, common: &mut Common) {
        let view = self.node.applied.borrow_and_update().clone();
        // an image is retired only when no current boot runs it any more; others may
        if common.set_images(&view.images) {
            for cut in common.close_retired() {
                self.link_down(&cut).await;
            }
        }
        if view.boots == self.boots {
            return;
        }
        let changed: Vec<(NodeName, BootId)> = view
            .boots
            .iter()
            .filter(|(node, boot)| self.boots.get(*node) != Some(boot))
            .map(|(node, boot)| (node.clone(), *boot))
            .collect();
        self.boots = Arc::clone(&view.boots);
        for (node, boot) in changed {
            let up = common.links.to(&boot, &self.scope()).is_some();
            self.node.must(Event::Link { node, up }).await;
        }
        for cut in common.links.retain(|link| !view.retired.contains(&link.peer.boot())) {
            self.replication.link(cut.boot, cut.node, false);
        }
    }

    pub(crate) fn tick(&mut self, common: &mut Common) {
        let elected = self.replication.status().leader;
        if elected.is_some() && elected != self.elected && self.node.offer(Event::Elected) {
            self.elected = elected;
        }
        self.node.offer(Event::Tick);
        self.close_birth_links(common);
    }
}
