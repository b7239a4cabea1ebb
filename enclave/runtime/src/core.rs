//! The one task that knows where this boot stands.
//!
//! It waits for a configuration, takes part in its cluster's birth or asks to be admitted, and is then a
//! member until something halts it. It does no work of its own: it hands words from one room to
//! another, so it is never busy for long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use casemate_channel::Expected;
use casemate_door::frame::Phase as PhaseName;
use casemate_door::{
    Answer, Configuration, FromEnclave, Query, RecoveryPiece, Submission, Ticket, ToEnclave,
};
use casemate_proto::manifest::{Manifest, Measurement};
use casemate_proto::{Incarnation, Millis};
use casemate_replication::Timing;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::birth::Birth;
use crate::connected::{Cut, Links};
use crate::control::{ControlSender, FromControl};
use crate::envelope::{self, Kind};
use crate::joining::Joining;
use crate::links::{FromLink, Link, LinkPolicy};
use crate::member::{FromMember, Member, is_urgent};
use crate::outbox::Outbox;
use crate::platform::Platform;
use crate::recovering::Recovering;
use crate::tickets::Tickets;

/// When somebody is told to come back who cannot be served now.
pub(crate) const RETRY_AFTER: Millis = Millis(1_000);

/// Where this boot stands.
enum Phase {
    Waiting,
    Birth(Box<Birth>),
    Joining(Box<Joining>),
    Recovering(Box<Recovering>),
    Member(Box<Member>),
}

/// Why a configuration is refused; for people.
pub(crate) type Refusal = String;

/// What several phases need.
pub(crate) struct Common {
    pub(crate) platform: Arc<Platform>,
    /// Replication's times, for the distances that the parent tells of.
    pub(crate) raft: Timing,
    policy: watch::Sender<Option<Arc<LinkPolicy>>>,
    pub(crate) links: Links,
}

impl Common {
    /// From here on links go by this.
    pub(crate) fn set_policy(&self, policy: LinkPolicy) {
        self.policy.send_replace(Some(Arc::new(policy)));
    }

    /// From here on the images of members are these. Whether they were others before.
    pub(crate) fn set_images(&self, images: &BTreeSet<Measurement>) -> bool {
        self.policy.send_if_modified(|policy| match policy.as_deref() {
            Some(now) if now.expected.images != *images => {
                let expected = Expected { images: images.clone(), ..now.expected.clone() };
                *policy = Some(Arc::new(LinkPolicy { expected, ..now.clone() }));
                true
            }
            _ => false,
        })
    }

    /// Whether a link of the cluster's is with an image that is accepted now. The handshake has asked what
    /// was accepted then, which for a boot without a ledger is what the manifest names.
    pub(crate) fn is_accepted(&self, link: &Link) -> bool {
        self.policy.borrow().as_ref().is_some_and(|policy| {
            let Expected { scope, images, .. } = &policy.expected;
            link.scope != *scope || images.contains(link.peer.measurement())
        })
    }

    /// Closes the links with images that are accepted no longer. Who is cut off by that.
    pub(crate) fn close_retired(&mut self) -> BTreeSet<Cut> {
        let mut retired = BTreeSet::new();
        for link in self.links.up().filter(|link| !self.is_accepted(link)) {
            tracing::warn!(node = %link.peer.node(), "its image is accepted no longer: cut off");
            retired.insert(link.number);
        }
        self.links.retain(|link| !retired.contains(&link.number))
    }

    /// Whether a link was made as the boot that this enclave is now: one that began anew is another.
    fn is_own(&self, link: &Link) -> bool {
        self.policy.borrow().as_ref().is_some_and(|policy| policy.identity.boot() == link.own)
    }
}

/// The core.
pub(crate) struct Core {
    common: Common,
    control: Option<ControlSender>,
    configuration: Option<Configuration>,
    outbox: Outbox,
    tickets: Tickets,
    /// What was sealed last.
    sealed: Option<Vec<u8>>,
    /// The incarnation that this boot began, if it did.
    recovered: Option<Incarnation>,
    phase: Phase,
}

impl Core {
    pub(crate) fn new(
        platform: Arc<Platform>,
        policy: watch::Sender<Option<Arc<LinkPolicy>>>,
    ) -> Self {
        Self {
            common: Common {
                raft: platform.settings.raft,
                platform,
                policy,
                links: Links::default(),
            },
            control: None,
            configuration: None,
            outbox: Outbox::default(),
            tickets: Tickets::default(),
            sealed: None,
            recovered: None,
            phase: Phase::Waiting,
        }
    }

    /// Works until this boot halts; why it did.
    pub(crate) async fn run(
        mut self,
        mut control: mpsc::Receiver<FromControl>,
        mut links: mpsc::Receiver<FromLink>,
    ) -> String {
        let mut tick = interval(self.common.platform.settings.tick);
        let mut status = interval(self.common.platform.settings.status);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        status.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                Some(said) = control.recv() => self.control(said).await,
                Some(link) = links.recv() => self.link(link).await,
                said = next_of(&mut self.phase) => self.member(said).await,
                _ = tick.tick() => self.tick().await,
                _ = status.tick() => { self.tell_status(); Ok(()) }
            };
            if let Err(reason) = step {
                tracing::error!(%reason, "halted");
                self.tell(FromEnclave::Halted { reason: reason.clone() });
                // the last word gets a moment to go out
                tokio::time::sleep(Duration::from_millis(200)).await;
                return reason;
            }
        }
    }

    fn tell(&mut self, message: FromEnclave) {
        if let Some(control) = &self.control
            && !control.send(message)
        {
            tracing::warn!("the parent does not keep up; its connection is closed");
            self.control = None;
        }
    }

    fn tell_status(&mut self) {
        let common = &self.common;
        let status = match &self.phase {
            Phase::Waiting => crate::status::plain(PhaseName::Waiting, common),
            Phase::Birth(_) => crate::status::plain(PhaseName::Birth, common),
            Phase::Joining(_) => crate::status::plain(PhaseName::Joining, common),
            Phase::Recovering(_) => crate::status::plain(PhaseName::Recovering, common),
            Phase::Member(member) => crate::status::of_member(member, common),
        };
        self.tell(FromEnclave::Status(Box::new(status)));
    }

    async fn control(&mut self, from: FromControl) -> Result<(), String> {
        match from {
            FromControl::Up(sender) => {
                self.control = Some(sender);
                self.tickets.close_all();
                if let Some(record) = self.genesis_record() {
                    self.tell(FromEnclave::Genesis { record });
                }
                let again: Vec<FromEnclave> = self.outbox.again().collect();
                for message in again {
                    self.tell(message);
                }
                self.tell_recovery();
                self.tell_status();
            }
            FromControl::Down { connection } => {
                if self.control.as_ref().is_some_and(|c| c.connection == connection) {
                    self.control = None;
                    self.tickets.close_all();
                }
            }
            FromControl::Said { connection, message } => {
                if self.control.as_ref().is_some_and(|c| c.connection == connection) {
                    self.said(connection, *message).await?;
                }
            }
        }
        Ok(())
    }

    /// What of a recovery, past or to come, and of what is sealed the parent is to keep.
    fn tell_recovery(&mut self) {
        if let Phase::Recovering(recovering) = &self.phase
            && let Some(offer) = recovering.offer()
        {
            self.tell(FromEnclave::Offer { offer });
        }
        if let Some(incarnation) = self.recovered {
            self.tell(FromEnclave::Recovered { incarnation });
        }
        if let Some(blob) = self.sealed.clone() {
            self.tell(FromEnclave::Sealed { blob });
        }
    }

    fn genesis_record(&self) -> Option<Vec<u8>> {
        match &self.phase {
            Phase::Member(member) => Some(member.genesis_record().to_vec()),
            _ => None,
        }
    }

    async fn said(&mut self, connection: u64, message: ToEnclave) -> Result<(), String> {
        match message {
            ToEnclave::Configure(configuration) => {
                if let Err(reason) = self.configure(configuration) {
                    tracing::warn!(%reason, "configuration refused");
                    self.tell(FromEnclave::Refused { reason });
                }
                self.tell_recovery();
                self.tell_status();
            }
            ToEnclave::Recover(piece) => self.recover(piece).await?,
            ToEnclave::Stored { batch } => self.outbox.stored(batch),
            ToEnclave::Submit { ticket, submission } => self.submit(connection, ticket, submission),
            ToEnclave::Ask { ticket, query } => self.ask(connection, ticket, query),
        }
        Ok(())
    }

    /// Takes a piece of what a recovery begins with; with the last, begins.
    async fn recover(&mut self, piece: RecoveryPiece) -> Result<(), String> {
        let Phase::Recovering(recovering) = &mut self.phase else { return Ok(()) };
        let begun = match recovering.take(piece) {
            Ok(false) => return Ok(()),
            Ok(true) => recovering.node(&self.common),
            Err(reason) => Err(reason),
        };
        match begun {
            Ok(node) => {
                let incarnation = recovering.incarnation();
                // its keys are taken: what fails from here on ends this boot
                let member = recovering.member(node, &self.common).await?;
                tracing::info!(%incarnation, "the recovery has begun");
                self.recovered = Some(incarnation);
                self.become_member(member).await;
                self.tell_recovery();
            }
            Err(reason) => {
                tracing::warn!(%reason, "the recovery does not begin");
                self.tell(FromEnclave::Refused { reason });
            }
        }
        Ok(())
    }

    fn submit(&mut self, connection: u64, theirs: Ticket, submission: Submission) {
        let is_urgent = is_urgent(&submission);
        let full = self.outbox.is_full() && !is_urgent;
        if let Phase::Member(member) = &self.phase
            && !full
            && let Some(ours) = self.tickets.open(connection, theirs, is_urgent)
        {
            if member.submit(ours, submission) {
                return;
            }
            self.tickets.close(ours, connection);
        }
        let answer = Answer::Busy { retry_after: RETRY_AFTER };
        self.tell(FromEnclave::Answer { ticket: theirs, answer });
    }

    fn ask(&mut self, connection: u64, theirs: Ticket, query: Query) {
        if let Phase::Member(member) = &mut self.phase
            && let Some(ours) = self.tickets.open(connection, theirs, false)
        {
            if member.ask(ours, query, &self.common) {
                return;
            }
            self.tickets.close(ours, connection);
        }
        self.tell(FromEnclave::Reply { ticket: theirs, reply: None });
    }

    fn configure(&mut self, configuration: Configuration) -> Result<(), Refusal> {
        if let Some(known) = &self.configuration {
            let same = known.node == configuration.node && known.manifest == configuration.manifest;
            let genesis = configuration.genesis.as_deref();
            let fits = genesis.is_none_or(|given| {
                known.genesis.as_deref() == Some(given)
                    || self.genesis_record().as_deref() == Some(given)
            });
            return match same && fits {
                true => Ok(()),
                false => Err("this boot has another configuration; start the enclave anew".into()),
            };
        }
        let manifest: Manifest = casemate_proto::cbor::decode(
            &configuration.manifest,
            casemate_proto::manifest::MAX_MANIFEST,
        )
        .map_err(|error| format!("manifest: {error}"))?;
        manifest.check().map_err(|error| error.to_string())?;
        self.common.platform.trust.check(&manifest)?;
        if manifest.node(&configuration.node).is_none() {
            return Err(format!("the manifest has no node `{}`", configuration.node));
        }
        let mut node = self.common.platform.settings.node;
        if let Some(stock) = configuration.triple_stock {
            node.triple_stock = usize::try_from(stock.min(64)).unwrap_or(64);
        }
        if let Some(ms) = configuration.round_trip_ms {
            self.common.raft = Timing::for_round_trip(Millis(ms));
            node = node.for_round_trip(Millis(ms));
        }
        self.phase = match &configuration.genesis {
            None if configuration.recovers => {
                return Err(
                    "a recovery is of a cluster that was born: its genesis is missing".into()
                );
            }
            Some(record) if configuration.recovers => {
                Phase::Recovering(Box::new(Recovering::begin(
                    &configuration.node,
                    &manifest,
                    (record, configuration.incarnation),
                    node,
                    &self.common,
                )?))
            }
            None => {
                let birth = Birth::begin(&configuration.node, manifest, node, &self.common)?;
                Phase::Birth(Box::new(birth))
            }
            Some(record) => {
                let joining = Joining::begin(
                    &configuration.node,
                    &manifest,
                    (record, configuration.incarnation),
                    node,
                    &self.common,
                )?;
                Phase::Joining(Box::new(joining))
            }
        };
        tracing::info!(node = %configuration.node, "configured");
        self.configuration = Some(configuration);
        Ok(())
    }

    async fn link(&mut self, from: FromLink) -> Result<(), String> {
        match from {
            // the peer knows a former boot by it: dropped, it is dialled again
            FromLink::Up(link) if !self.common.is_own(&link) => {}
            // retired while they shook hands
            FromLink::Up(link) if !self.common.is_accepted(&link) => {}
            FromLink::Up(link) => {
                self.common.links.add(link.clone());
                match &mut self.phase {
                    // links are used once this boot has begun
                    Phase::Waiting | Phase::Recovering(_) => {}
                    Phase::Birth(birth) => birth.link_up(&link),
                    Phase::Joining(joining) => joining.link_up(&link, &self.common),
                    Phase::Member(member) => member.link_up(&link).await,
                }
            }
            FromLink::Down { link } => self.link_down(link).await,
            FromLink::Said { link, message } => {
                let Some(link) = self.common.links.heard(link) else { return Ok(()) };
                let Some((kind, message)) = envelope::open(&message) else {
                    tracing::warn!(node = %link.peer.node(), "message of no known kind dropped");
                    return Ok(());
                };
                match &mut self.phase {
                    Phase::Waiting | Phase::Recovering(_) => {}
                    Phase::Birth(birth) => {
                        if kind == Kind::Genesis {
                            birth.said(&link, message, &self.common);
                        }
                    }
                    Phase::Joining(joining) => {
                        if kind == Kind::Join {
                            joining.said(&link, message, &self.common);
                        }
                    }
                    Phase::Member(member) => member.said(&link, kind, message, &mut self.common),
                }
            }
        }
        self.advance().await
    }

    async fn link_down(&mut self, number: u64) {
        let Some(cut) = self.common.links.remove(number) else { return };
        match &mut self.phase {
            Phase::Member(member) => member.link_down(&cut).await,
            // another boot of the node may be linked still
            Phase::Joining(joining) => {
                if !self.common.links.all().any(|link| *link.peer.node() == cut.node) {
                    joining.link_down(&cut.node);
                }
            }
            Phase::Birth(birth) => birth.link_down(&cut, &mut self.common),
            Phase::Waiting | Phase::Recovering(_) => {}
        }
    }

    /// Goes on to the next phase where this one has come to its end.
    async fn advance(&mut self) -> Result<(), String> {
        let member = match &mut self.phase {
            Phase::Birth(birth) if birth.is_done() => Some(birth.member(&self.common).await?),
            Phase::Joining(joining) if joining.is_done() => {
                joining.member(&mut self.common).await?
            }
            _ => None,
        };
        if let Some(member) = member {
            self.become_member(member).await;
        }
        Ok(())
    }

    async fn become_member(&mut self, member: Member) {
        tracing::info!(genesis = %member.genesis(), "member");
        self.tell(FromEnclave::Genesis { record: member.genesis_record().to_vec() });
        self.phase = Phase::Member(Box::new(member));
        if let Phase::Member(member) = &mut self.phase {
            member.begin(&mut self.common).await;
        }
        self.tell_status();
    }

    async fn member(&mut self, said: FromMember) -> Result<(), String> {
        let Phase::Member(member) = &mut self.phase else { return Ok(()) };
        match said {
            FromMember::Replication(out) => member.replication(out, &self.common).await?,
            FromMember::Applied => member.applied(&mut self.common).await,
            FromMember::Evidence(evidence) => {
                let said = member.evidence(evidence);
                self.pass_on(said);
            }
            FromMember::Node(output) => {
                for said in member.node(output, &self.common)? {
                    self.pass_on(Some(said));
                }
            }
        }
        Ok(())
    }

    fn ticket(&mut self, ours: Ticket) -> Option<Ticket> {
        let connection = self.control.as_ref()?.connection;
        self.tickets.close(ours, connection)
    }

    /// Passes on what is for the parent.
    fn pass_on(&mut self, said: Option<Said>) {
        match said {
            None => {}
            Some(Said::Answer(ticket, answer)) => {
                if let Some(ticket) = self.ticket(ticket) {
                    self.tell(FromEnclave::Answer { ticket, answer });
                }
            }
            Some(Said::Reply(ticket, reply)) => {
                if let Some(ticket) = self.ticket(ticket) {
                    self.tell(FromEnclave::Reply { ticket, reply });
                }
            }
            Some(Said::Sealed(blob)) => {
                self.tell(FromEnclave::Sealed { blob: blob.clone() });
                self.sealed = Some(blob);
            }
            Some(Said::Publish(files)) => {
                let message = self.outbox.put(files);
                self.tell(message);
            }
        }
    }

    async fn tick(&mut self) -> Result<(), String> {
        for silent in self.common.links.keep_alive(self.common.raft) {
            tracing::info!(link = silent, "the peer says nothing");
            self.link_down(silent).await;
        }
        match &mut self.phase {
            Phase::Waiting => {}
            Phase::Recovering(recovering) => {
                if let Some(offer) = recovering.tick(&self.common) {
                    self.tell(FromEnclave::Offer { offer });
                }
            }
            Phase::Birth(birth) => birth.tick(&mut self.common)?,
            Phase::Joining(joining) => {
                joining.start_over_if_short(&mut self.common)?;
                joining.tick(&self.common);
            }
            Phase::Member(member) => member.tick(&mut self.common),
        }
        self.advance().await
    }
}

/// What a node's output is for the parent.
pub(crate) enum Said {
    Answer(Ticket, Answer),
    Reply(Ticket, Option<casemate_door::SignedReply>),
    Publish(Vec<casemate_audit::store::File>),
    Sealed(Vec<u8>),
}

/// The next word of a member's rooms; never, where this boot is none.
async fn next_of(phase: &mut Phase) -> FromMember {
    match phase {
        Phase::Member(member) => member.next().await,
        _ => std::future::pending().await,
    }
}
