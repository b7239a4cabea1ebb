//! Birth: n boots fix one genesis by an n-of-n echo, before there is anything to replicate.
//!
//! The manifest alone does not name a cluster: a host could boot two enclaves for each node and split
//! them into two clusters with one name. So a genesis names the boots, every boot signs the one
//! genesis that it takes part in, and a genesis stands with the signatures of all n (I7):
//!
//! 1. Over each channel a boot sends its own record. What a peer's channel attested is what counts: a
//!    record of another boot or node is dropped.
//! 2. The node that is first in the roster proposes a genesis of the records, once it has all n.
//! 3. Everybody checks it wholly: the manifest byte for byte its own, its own record among the boots
//!    byte for byte, each other record one that the peer's own channel brought, all evidence. Then
//!    it signs an echo of the genesis id and sends it to all. **A boot echoes one genesis, ever.**
//! 4. With n valid echoes the genesis stands. They are sent on to all, so that nobody is left behind
//!    who has echoed.
//!
//! What was sent once is sent again on each new channel. Where a boot has echoed and a peer comes back
//! as another boot, the genesis may never become complete: then this boot had better start over too
//! ([`GenesisRun::hopeless`]), and all begin anew as other boots.
//!
//! A pure state machine: time is an argument, messages are returned, the key stays outside.

use std::collections::BTreeMap;

use casemate_ledger::State;
use casemate_proto::cbor;
use casemate_proto::hash::tagged_hash;
use casemate_proto::manifest::{
    BootRecord, GenesisRecord, MAX_EVIDENCE, MAX_GENESIS, MAX_NODES, Manifest,
};
use casemate_proto::{BootId, GenesisId, Millis, NodeName, UnixMillis};
use ed25519_dalek::{Signature, VerifyingKey};
use minicbor::{Decode, Encode};

/// Most bytes of a message of a birth.
pub const MAX_BIRTH_MESSAGE: usize = MAX_GENESIS + 16 * 1024;
/// How long ago a proposal may have been made: channels may come up late, and an old beginning of the
/// ledger's time does no harm. Ahead of the own clock it may be by δ only.
const MAX_AGE: Millis = Millis(8 * 60_000);
/// How long a boot that has echoed waits for the others.
const PATIENCE: Millis = Millis(10 * 60_000);
/// And how long where one of them is another boot now: its echo may be on its way by another node.
const REPLACED_PATIENCE: Millis = Millis(15_000);
/// How many of a boot's newest records count: evidence may be renewed while a proposal is on its way.
const KEPT_RECORDS: usize = 2;

/// A message and to whom it goes.
pub type Outgoing = (NodeName, Vec<u8>);

/// Signs with the boot's Ed25519 key, if it may: what is handed to it begins with
/// `casemate/genesis-echo/`.
pub type Sign<'a> = &'a dyn Fn(&[u8]) -> Option<[u8; 64]>;

/// What a boot signs to echo a genesis.
fn echo_message(genesis: &GenesisId) -> Vec<u8> {
    let tag = "casemate/genesis-echo/v1";
    let hash = tagged_hash(tag, &[genesis.as_bytes()]);
    [tag.as_bytes(), &[0], hash.as_bytes()].concat()
}

/// One boot's echo of a genesis.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Echo {
    /// Whose.
    #[n(0)]
    pub node: NodeName,
    /// Its boot's signature.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

#[derive(Debug, Encode, Decode)]
enum Message {
    #[n(0)]
    Record(#[n(0)] BootRecord),
    #[n(1)]
    Proposal(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    #[n(2)]
    Echoes {
        #[n(0)]
        genesis: GenesisId,
        #[n(1)]
        echoes: Vec<Echo>,
    },
}

/// Why a boot that has echoed a genesis had better start over as another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hopeless {
    /// A node came back as another boot after this one had echoed a genesis of its former.
    #[error("node `{node}` is another boot now, and this one has echoed a genesis of its former")]
    Replaced {
        /// Which node.
        node: NodeName,
    },
    /// Not all echoes came in time.
    #[error("{have} of {need} boots have echoed the genesis in {} s", PATIENCE.0 / 1_000)]
    Stalled {
        /// How many have.
        have: usize,
        /// How many are needed.
        need: usize,
    },
}

/// Why a message of a birth is refused. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BirthRefused {
    /// Malformed.
    #[error(transparent)]
    Malformed(#[from] cbor::CborError),
    /// From a boot whose channel is not the newest to its node, or from no other node.
    #[error("a message of a boot whose channel is not the newest to node `{node}`")]
    NoChannel {
        /// The node.
        node: NodeName,
    },
    /// A record of another boot or node than its channel's.
    #[error("a record that is not of the boot that sent it")]
    ForeignRecord,
    /// A proposal by a node that does not propose.
    #[error("a proposal by a node that is not first in the roster")]
    NotTheProposer,
    /// A proposal of another cluster.
    #[error("a proposal with another manifest")]
    OtherManifest,
    /// A proposal with another record of this boot than its own.
    #[error("a proposal with another record of this boot")]
    NotOwnRecord,
    /// A proposal with a record that the node's own channel did not bring.
    #[error("a proposal with a record of node `{node}` that its own channel did not bring")]
    Unattested {
        /// Whose.
        node: NodeName,
    },
    /// A proposal of another time.
    #[error("a proposal of time {at}, and it is {now} here")]
    Untimely {
        /// Its time.
        at: u64,
        /// This boot's.
        now: u64,
    },
    /// A genesis that the ledger does not accept.
    #[error("a genesis that is refused: {reason}")]
    Genesis {
        /// Why.
        reason: String,
    },
    /// A second genesis.
    #[error("a second genesis `{offered}`; this boot has echoed `{echoed}`")]
    Second {
        /// What was offered.
        offered: GenesisId,
        /// What was echoed.
        echoed: GenesisId,
    },
    /// An echo that its node's boot did not sign.
    #[error("an echo that node `{node}` did not sign")]
    BadEcho {
        /// Whose it claims to be.
        node: NodeName,
    },
    /// The boot's key does not sign any more.
    #[error("this boot signs no echo any more")]
    Unsigned,
}

#[derive(Debug, Default)]
struct Peer {
    /// The boot that the newest channel attested.
    boot: Option<BootId>,
    /// Its newest records, newest last.
    records: Vec<BootRecord>,
    /// An echo that came before the genesis it is of.
    early: Option<(GenesisId, Echo)>,
    /// Whether it sent every boot's echo of the genesis that this boot has echoed: it has it whole.
    is_whole: bool,
}

/// The one genesis that this boot has echoed.
#[derive(Debug)]
struct Echoed {
    id: GenesisId,
    record: GenesisRecord,
    since: UnixMillis,
    echoes: BTreeMap<NodeName, Echo>,
}

/// One boot's part in its cluster's birth.
#[derive(Debug)]
pub struct GenesisRun {
    me: NodeName,
    manifest: Manifest,
    own: Vec<BootRecord>,
    peers: BTreeMap<NodeName, Peer>,
    /// A proposal that cannot be checked yet: a record is missing.
    held: Option<Vec<u8>>,
    /// One with a record that its node's newest channel did not bring: it may still bring it.
    unattested: Option<Vec<u8>>,
    echoed: Option<Echoed>,
    /// All have echoed, and everybody was told.
    stands: bool,
}

impl GenesisRun {
    /// A boot's part, with its record as it was attested under the manifest's hash.
    #[must_use]
    pub fn new(manifest: Manifest, record: BootRecord) -> Self {
        let me = record.node.clone();
        let names = manifest.nodes.iter().map(|node| node.name.clone());
        Self {
            peers: names.filter(|name| *name != me).map(|name| (name, Peer::default())).collect(),
            me,
            manifest,
            own: vec![record],
            held: None,
            unattested: None,
            echoed: None,
            stands: false,
        }
    }

    /// The genesis, once it stands. Go on handing this run what comes for it: others may still lack
    /// echoes.
    #[must_use]
    pub fn genesis(&self) -> Option<&GenesisRecord> {
        self.echoed.as_ref().filter(|_| self.stands).map(|echoed| &echoed.record)
    }

    /// Every boot's echo, once the genesis stands.
    #[must_use]
    pub fn certificate(&self) -> Option<Vec<Echo>> {
        let echoed = self.echoed.as_ref().filter(|_| self.stands)?;
        Some(echoed.echoes.values().cloned().collect())
    }

    /// Whether the genesis stands here and, as a node's boot has shown, there as well: neither has
    /// anything to tell the other any more.
    #[must_use]
    pub fn is_whole(&self, node: &NodeName, boot: BootId) -> bool {
        let peer = self.peers.get(node).filter(|peer| peer.boot == Some(boot));
        self.stands && peer.is_some_and(|peer| peer.is_whole)
    }

    /// The genesis that this boot has echoed, whether or not it stands.
    #[must_use]
    pub fn echoed(&self) -> Option<GenesisId> {
        self.echoed.as_ref().map(|echoed| echoed.id)
    }

    /// Why this boot had better start over as another: it has echoed a genesis that is not becoming
    /// complete, and echoes no other.
    #[must_use]
    pub fn hopeless(&self, now: UnixMillis) -> Option<Hopeless> {
        let echoed = self.echoed.as_ref().filter(|_| !self.stands)?;
        let past = |patience: Millis| now > echoed.since.saturating_add(patience);
        let replaced = self.peers.iter().find(|(_, peer)| {
            peer.boot.is_some_and(|boot| echoed.record.boots.iter().all(|b| b.id() != boot))
        });
        match replaced {
            Some((node, _)) if past(REPLACED_PATIENCE) => {
                Some(Hopeless::Replaced { node: node.clone() })
            }
            _ if past(PATIENCE) => Some(Hopeless::Stalled {
                have: echoed.echoes.len(),
                need: self.manifest.nodes.len(),
            }),
            _ => None,
        }
    }

    /// A channel to a node came up, which attested that boot. What to send through it.
    pub fn connected(&mut self, node: &NodeName, boot: BootId) -> Vec<Vec<u8>> {
        let Some(peer) = self.peers.get_mut(node) else { return Vec::new() };
        if peer.boot != Some(boot) {
            *peer = Peer { boot: Some(boot), ..Peer::default() };
        }
        let mut messages: Vec<Message> = self.own.iter().cloned().map(Message::Record).collect();
        if let Some(echoed) = &self.echoed {
            if self.proposes() {
                messages.push(Message::Proposal(cbor::encode(&echoed.record)));
            }
            messages.push(echoed.message());
        }
        messages.iter().map(cbor::encode).collect()
    }

    /// A channel ended, and no other is up to that boot. Whether those to other boots of its node are to
    /// be closed, and dialled anew: only what the newest channel to a node brings counts, which was this
    /// one, and a boot whose channel is older would not be heard again.
    #[must_use]
    pub fn disconnected(&self, node: &NodeName, boot: BootId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.boot == Some(boot))
    }

    /// The same boot with newer evidence, for all: the ledger takes evidence for ten minutes. Nothing
    /// once this boot has echoed.
    pub fn renew(&mut self, record: BootRecord) -> Vec<Outgoing> {
        let same = self.own.last().is_some_and(|own| {
            BootRecord { evidence: Vec::new(), ..own.clone() }
                == BootRecord { evidence: Vec::new(), ..record.clone() }
        });
        if !same || self.echoed.is_some() {
            return Vec::new();
        }
        keep(&mut self.own, record.clone());
        self.to_all(&Message::Record(record))
    }

    /// Takes what a channel brought from a node's boot.
    ///
    /// # Errors
    /// If nothing comes of it, and why.
    pub fn receive(
        &mut self,
        from: &NodeName,
        boot: BootId,
        bytes: &[u8],
        now: UnixMillis,
        sign: Sign<'_>,
    ) -> Result<Vec<Outgoing>, BirthRefused> {
        let message: Message = cbor::decode(bytes, MAX_BIRTH_MESSAGE)?;
        let peer = self.peers.get_mut(from).filter(|peer| peer.boot == Some(boot));
        let peer = peer.ok_or_else(|| BirthRefused::NoChannel { node: from.clone() })?;
        match message {
            Message::Record(record) => {
                let fits = record.node == *from
                    && record.id() == boot
                    && record.evidence.len() <= MAX_EVIDENCE;
                if !fits {
                    return Err(BirthRefused::ForeignRecord);
                }
                if !peer.records.contains(&record) {
                    keep(&mut peer.records, record);
                    self.held = self.held.take().or_else(|| self.unattested.take());
                }
            }
            Message::Proposal(proposal) => {
                if self.manifest.nodes.first().map(|node| &node.name) != Some(from) {
                    return Err(BirthRefused::NotTheProposer);
                }
                return self.proposed(&proposal, now, sign);
            }
            Message::Echoes { genesis, echoes } => self.take_echoes(from, genesis, &echoes)?,
        }
        self.advance(now, sign)
    }

    /// Does whatever can be done now: proposes, checks a proposal that was held, finds that the
    /// genesis stands. Wanted every second or so.
    ///
    /// # Errors
    /// If a genesis is refused that could be checked now.
    pub fn advance(
        &mut self,
        now: UnixMillis,
        sign: Sign<'_>,
    ) -> Result<Vec<Outgoing>, BirthRefused> {
        if self.echoed.is_some() {
            return Ok(self.complete());
        }
        if self.peers.values().any(|peer| peer.records.is_empty()) {
            return Ok(Vec::new());
        }
        if let Some(held) = self.held.take() {
            return self.proposed(&held, now, sign);
        }
        let Some(own) = self.own.last().filter(|_| self.proposes()).cloned() else {
            return Ok(Vec::new());
        };
        let boots =
            self.manifest.nodes.iter().filter_map(|node| match self.peers.get(&node.name) {
                None => Some(own.clone()),
                Some(peer) => peer.records.last().cloned(),
            });
        let boots = boots.collect();
        let record = GenesisRecord { manifest: self.manifest.clone(), boots, at: now };
        let mut out = self.to_all(&Message::Proposal(cbor::encode(&record)));
        // behind the proposal, so that the echo finds what it is of
        out.extend(self.echo(record, now, sign)?);
        Ok(out)
    }

    fn proposes(&self) -> bool {
        self.manifest.nodes.first().map(|node| &node.name) == Some(&self.me)
    }

    fn proposed(
        &mut self,
        proposal: &[u8],
        now: UnixMillis,
        sign: Sign<'_>,
    ) -> Result<Vec<Outgoing>, BirthRefused> {
        let record: GenesisRecord = cbor::decode(proposal, MAX_GENESIS)?;
        let offered = record.id();
        if let Some(echoed) = &self.echoed
            && !casemate_proto::sabotaged!("genesis_echoed_twice")
        {
            if echoed.id != offered {
                return Err(BirthRefused::Second { offered, echoed: echoed.id });
            }
            return Ok(self.complete());
        }
        if self.peers.values().any(|peer| peer.records.is_empty()) {
            self.held = Some(proposal.to_vec());
            return Ok(Vec::new());
        }
        let out = self.echo(record, now, sign);
        if matches!(out, Err(BirthRefused::Unattested { .. })) {
            self.unattested = Some(proposal.to_vec());
        }
        out
    }

    /// Checks a genesis wholly and echoes it. The only place where an echo is made.
    fn echo(
        &mut self,
        record: GenesisRecord,
        now: UnixMillis,
        sign: Sign<'_>,
    ) -> Result<Vec<Outgoing>, BirthRefused> {
        if record.manifest != self.manifest {
            return Err(BirthRefused::OtherManifest);
        }
        let (at, here) = (record.at.0, now.0);
        let latest = now.saturating_add(self.manifest.limits.delta);
        if record.at > latest || record.at.saturating_add(MAX_AGE) < now {
            return Err(BirthRefused::Untimely { at, now: here });
        }
        for boot in &record.boots {
            match self.peers.get(&boot.node) {
                None if self.own.contains(boot) => {}
                None => return Err(BirthRefused::NotOwnRecord),
                Some(peer) if peer.records.contains(boot) => {}
                Some(_) => return Err(BirthRefused::Unattested { node: boot.node.clone() }),
            }
        }
        let state = State::birth(&record)
            .map_err(|error| BirthRefused::Genesis { reason: error.to_string() })?;
        let id = state.genesis();
        let signature = sign(&echo_message(&id)).ok_or(BirthRefused::Unsigned)?;
        let echo = Echo { node: self.me.clone(), signature };
        let echoes = BTreeMap::from([(self.me.clone(), echo)]);
        self.echoed = Some(Echoed { id, record, since: now, echoes });
        self.held = None;
        self.unattested = None;
        let early: Vec<(NodeName, GenesisId, Echo)> = self
            .peers
            .iter_mut()
            .filter_map(|(from, peer)| {
                let (genesis, echo) = peer.early.take()?;
                Some((from.clone(), genesis, echo))
            })
            .collect();
        for (from, genesis, echo) in early {
            if let Err(error) = self.take_echoes(&from, genesis, &[echo]) {
                tracing::warn!(%from, %error, "an early echo is refused");
            }
        }
        let mut out = self.echoes_to_all();
        out.extend(self.complete());
        Ok(out)
    }

    fn take_echoes(
        &mut self,
        from: &NodeName,
        genesis: GenesisId,
        echoes: &[Echo],
    ) -> Result<(), BirthRefused> {
        let Some(echoed) = &mut self.echoed else {
            // the peer's own is kept until the proposal comes
            if let Some(echo) = echoes.iter().find(|echo| echo.node == *from)
                && let Some(peer) = self.peers.get_mut(from)
            {
                peer.early = Some((genesis, echo.clone()));
            }
            return Ok(());
        };
        if echoed.id != genesis {
            return Err(BirthRefused::Second { offered: genesis, echoed: echoed.id });
        }
        let message = echo_message(&genesis);
        for echo in echoes.iter().take(MAX_NODES) {
            if echoed.echoes.contains_key(&echo.node) {
                continue;
            }
            let signed = echoed
                .record
                .boots
                .iter()
                .find(|boot| boot.node == echo.node)
                .is_some_and(|boot| verifies(&boot.key, &message, &echo.signature));
            if !signed {
                return Err(BirthRefused::BadEcho { node: echo.node.clone() });
            }
            echoed.echoes.insert(echo.node.clone(), echo.clone());
        }
        let told = |boot: &BootRecord| echoes.iter().any(|echo| echo.node == boot.node);
        if echoed.record.boots.iter().all(told)
            && let Some(peer) = self.peers.get_mut(from)
        {
            peer.is_whole = true;
        }
        Ok(())
    }

    fn complete(&mut self) -> Vec<Outgoing> {
        let have = self.echoed.as_ref().map_or(0, |echoed| echoed.echoes.len());
        let need = match casemate_proto::sabotaged!("echo_dropped") {
            true => 1,
            false => self.manifest.nodes.len(),
        };
        if self.stands || have < need {
            return Vec::new();
        }
        self.stands = true;
        // all echoes, to whoever may lack one
        self.echoes_to_all()
    }

    fn echoes_to_all(&self) -> Vec<Outgoing> {
        self.echoed.as_ref().map_or_else(Vec::new, |echoed| self.to_all(&echoed.message()))
    }

    fn to_all(&self, message: &Message) -> Vec<Outgoing> {
        let bytes = cbor::encode(message);
        let reached = self.peers.iter().filter(|(_, peer)| peer.boot.is_some());
        reached.map(|(node, _)| (node.clone(), bytes.clone())).collect()
    }
}

impl Echoed {
    /// All echoes that this boot has.
    fn message(&self) -> Message {
        Message::Echoes { genesis: self.id, echoes: self.echoes.values().cloned().collect() }
    }
}

fn keep(records: &mut Vec<BootRecord>, record: BootRecord) {
    if records.len() >= KEPT_RECORDS {
        records.remove(0);
    }
    records.push(record);
}

fn verifies(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(key)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

/// Whether these are every boot's echoes of this genesis.
#[must_use]
pub fn verify_echoes(record: &GenesisRecord, echoes: &[Echo]) -> bool {
    let message = echo_message(&record.id());
    record.boots.iter().all(|boot| {
        echoes
            .iter()
            .any(|echo| echo.node == boot.node && verifies(&boot.key, &message, &echo.signature))
    })
}
