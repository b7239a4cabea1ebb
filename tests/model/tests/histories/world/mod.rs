//! The simulated world: enclaves, the links between them, time, and what the host has in hand.
//!
//! One task drives all of it. It takes what openraft's tasks want done, then whatever is due, then
//! lets simulated time go on to the next thing that is; tokio's clock is paused, so nothing waits.
//!
//! A link stands for a channel of `enclave/channel`: it delivers in order and each message once, and
//! a message that the host loses, repeats, reorders or changes ends it, since the channel's frames are
//! numbered and sealed. Both ends are told, what was under way is lost, and it is dialled anew.

mod births;
mod links;
mod members;
mod outputs;
mod recovery;

pub use recovery::{Disk, Parts, Store};

use std::collections::BTreeMap;
use std::time::Duration;

use casemate_ledger::EntryBody;
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{BootRecord, GenesisRecord, Manifest};
use casemate_proto::{BootId, NodeName, UnixMillis};
use casemate_replication::Out;
use casemate_replication::join::JoinRun;
use casemate_signer::{Answer, BootSecret, Submission, Ticket};
use casemate_sim::SimNsm;
use casemate_threshold::RunId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::enclave::{EPOCH, Eid, Enclave, Input, Kind, Phase, Scope, SimClock, raft_config};
use crate::people::People;
use crate::reference::{Ask, Births, Checked, Reference};
use crate::setup::{Ground, Shape};
use crate::trace::Trace;

/// How often an enclave is told that time passes.
const TICK_MS: u64 = 100;
/// How often parents look which links to dial.
const DIAL_MS: u64 = 250;
/// After how long a link on which nothing comes is given up.
const SILENT_MS: u64 = 5_000;
/// How long a boot that too few vouch for waits until it begins anew.
const SHORT_MS: u64 = 15_000;

/// Where the message of a signing run that makes a signature possible goes, whatever the scheme; what
/// goes before it in lane 0 is worth nothing without it.
const SHARE_LANE: u8 = 1;

/// What is due at a time.
#[derive(Debug)]
enum Due {
    Tick(Eid),
    Dial,
    Deliver {
        link: u64,
        from: Eid,
        to: Eid,
        kind: Kind,
        bytes: Vec<u8>,
    },
    /// Nothing has come over it for long: it is given up if that is still so.
    Silent {
        link: u64,
    },
    Input {
        to: Eid,
        input: Input,
    },
    /// Another enclave for a node, which asks to be admitted.
    Start {
        place: usize,
    },
    /// One that waits for its cluster's birth.
    Birth {
        place: usize,
    },
    Resume(Eid),
}

#[derive(Debug)]
pub struct Link {
    pub number: u64,
    pub scope: Scope,
    up_since: u64,
    /// Not before this time anything is delivered.
    stalled_until: u64,
    last: [u64; 2],
}

/// Who waits for an answer.
pub struct Client {
    pub ask: Option<Ask>,
    pub at: Eid,
}

/// A signing run that a leader named.
struct Run {
    index: u64,
    entry: Hash32,
    participants: Vec<(NodeName, BootId)>,
}

/// One cluster, born of the manifest.
pub struct Cluster {
    pub genesis: GenesisRecord,
    pub reference: Reference,
    /// How much was said to former incarnations of it.
    pub said_before: usize,
}

pub struct World {
    pub dice: Dice,
    pub shape: Shape,
    pub start: Instant,
    pub names: Vec<NodeName>,
    nsms: Vec<SimNsm>,
    pub manifest: Manifest,
    pub clusters: Vec<Cluster>,
    /// The one that people mean, among those.
    pub main: usize,
    pub births: Births,
    /// How many incarnations went on beside the one that took up their ledger.
    pub formers: u64,
    /// What was said to the cluster that people mean, where a host keeps it for another time.
    said: Vec<(Submission, Option<Ask>)>,
    /// What the hosts keep, for each cluster and place.
    disks: BTreeMap<(usize, usize), Disk>,
    pub people: People,
    pub enclaves: BTreeMap<Eid, Enclave>,
    by_boot: BTreeMap<BootId, Eid>,
    /// By how much each node's machine has its clock wrong.
    pub wrong_by: Vec<i64>,
    links: BTreeMap<(Eid, Eid), Link>,
    next_link: u64,
    /// Which side of a partition an enclave is on.
    pub side: BTreeMap<Eid, u8>,
    /// Of a thousand messages, how many the host mangles.
    pub mangled: u64,
    /// How long messages take.
    pub delay: (u64, u64),
    due: BTreeMap<(u64, u64), Due>,
    serial: u64,
    out_in: mpsc::UnboundedSender<(Eid, Out)>,
    out: mpsc::UnboundedReceiver<(Eid, Out)>,
    runs: BTreeMap<RunId, Run>,
    /// Entries that a leader appended, committed or not.
    appended: BTreeMap<Hash32, EntryBody>,
    pub clients: BTreeMap<Ticket, Client>,
    pub answers: BTreeMap<Ticket, Answer>,
    next_ticket: u64,
    next_enclave: Eid,
    pub trace: Trace,
    pub counts: BTreeMap<&'static str, u64>,
}

impl World {
    /// A world in which nothing runs yet.
    pub fn new(shape: Shape, mut dice: Dice, trace: Trace) -> Self {
        let people = People::new();
        let Ground { names, nsms, manifest } = crate::setup::ground(&shape, &people);
        let (out_in, out) = mpsc::unbounded_channel();
        let mut world = Self {
            dice: dice.fork(),
            wrong_by: vec![0; names.len()],
            shape,
            start: Instant::now(),
            names,
            nsms,
            manifest,
            clusters: Vec::new(),
            main: 0,
            births: Births::default(),
            formers: 0,
            said: Vec::new(),
            disks: BTreeMap::new(),
            people,
            enclaves: BTreeMap::new(),
            by_boot: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 0,
            side: BTreeMap::new(),
            mangled: 0,
            delay: (1, 12),
            due: BTreeMap::new(),
            serial: 0,
            out_in,
            out,
            runs: BTreeMap::new(),
            appended: BTreeMap::new(),
            clients: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_ticket: 0,
            next_enclave: 0,
            trace,
            counts: BTreeMap::new(),
        };
        world.at(0, Due::Dial);
        world
    }

    /// What the reference model says of the cluster that people mean.
    pub fn reference(&self) -> &Reference {
        &self.clusters[self.main].reference
    }
    pub fn reference_mut(&mut self) -> &mut Reference {
        &mut self.clusters[self.main].reference
    }
    /// The cluster that an enclave is of.
    fn cluster_of(&self, id: Eid) -> &Cluster {
        &self.clusters[self.enclaves[&id].cluster.unwrap()]
    }
    fn reference_of(&mut self, id: Eid) -> &mut Reference {
        &mut self.clusters[self.enclaves[&id].cluster.unwrap()].reference
    }
    /// The members of clusters that people do not mean: others of the manifest, former incarnations.
    pub fn rivals(&self) -> Vec<Eid> {
        let is_rival = |e: &&Enclave| e.cluster.is_some_and(|of| of != self.main) && !e.is_over();
        self.enclaves.values().filter(is_rival).map(|e| e.id).collect()
    }
    /// The incarnations of the cluster that people mean.
    pub fn incarnations(&self) -> Vec<usize> {
        let Some(main) = self.clusters.get(self.main) else { return Vec::new() };
        let genesis = main.genesis.id();
        let of_it = |at: &usize| self.clusters[*at].genesis.id() == genesis;
        (0..self.clusters.len()).filter(of_it).collect()
    }
    /// The enclaves of the cluster that people mean, those included that ask to be admitted.
    pub fn of_main(&self) -> impl Iterator<Item = &Enclave> {
        self.enclaves.values().filter(|e| e.cluster == Some(self.main))
    }

    fn add(&mut self, enclave: Enclave) {
        self.by_boot.insert(enclave.boot, enclave.id);
        let first = self.dice.below(TICK_MS);
        self.at(first, Due::Tick(enclave.id));
        self.enclaves.insert(enclave.id, enclave);
    }

    /// Milliseconds since the history began.
    pub fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
    /// True time.
    pub fn true_time(&self) -> UnixMillis {
        UnixMillis(EPOCH.0 + self.now())
    }
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn at(&mut self, after: u64, due: Due) {
        let when = self.now() + after;
        self.serial += 1;
        self.due.insert((when, self.serial), due);
    }

    /// Lets this much time pass, and everything happen that is due in it.
    pub async fn pass(&mut self, millis: u64) -> Checked {
        let end = self.now() + millis;
        loop {
            while let Ok((id, out)) = self.out.try_recv() {
                self.input(id, Input::Raft(out)).await?;
            }
            let now = self.now();
            let next = self.due.first_key_value().map_or(end, |((when, _), _)| *when);
            if next <= now {
                if let Some((_, due)) = self.due.pop_first() {
                    self.fire(due).await?;
                }
                continue;
            }
            if now >= end {
                return Ok(());
            }
            let wake = self.start + Duration::from_millis(next.min(end));
            tokio::select! {
                biased;
                Some((id, out)) = self.out.recv() => self.input(id, Input::Raft(out)).await?,
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn fire(&mut self, due: Due) -> Checked {
        match due {
            Due::Tick(id) => {
                if !self.enclaves.get(&id).is_none_or(Enclave::is_over) {
                    self.at(TICK_MS, Due::Tick(id));
                    self.input(id, Input::Tick).await?;
                }
            }
            Due::Dial => {
                self.at(DIAL_MS, Due::Dial);
                self.dial().await?;
            }
            Due::Deliver { link, from, to, kind, bytes } => {
                let pair = pair(from, to);
                if self.links.get(&pair).is_some_and(|known| known.number == link)
                    && let Some(sender) = self.enclaves.get(&from)
                {
                    let (node, boot) = (sender.name.clone(), sender.boot);
                    let input = Input::Message { node, boot, kind, bytes };
                    self.input(to, input).await?;
                }
            }
            Due::Silent { link } => {
                let found = self.links.iter().find(|(_, known)| known.number == link);
                if let Some((pair, _)) = found
                    && self.is_silent(*pair)
                {
                    let pair = *pair;
                    self.close(pair);
                }
            }
            Due::Input { to, input } => self.input(to, input).await?,
            Due::Start { place } => self.start_enclave(place),
            Due::Birth { place } => self.start_birth(place),
            Due::Resume(id) => self.resume(id).await?,
        }
        Ok(())
    }

    /// Tells the reference model who could speak to whom until now: to be called before that changes,
    /// and before it is asked. Retired boots and paused ones count as if they spoke: it is never
    /// stricter than the truth. The enclave that is at work just now is one that runs.
    fn note_company(&mut self, at_work: Option<Eid>) {
        let now = self.true_time();
        let mut sides: BTreeMap<(usize, u8), Vec<(NodeName, BootId)>> = BTreeMap::new();
        for enclave in self.enclaves.values().filter(|e| e.is_member() || Some(e.id) == at_work) {
            let Some(cluster) = enclave.cluster else { continue };
            let side = self.side.get(&enclave.id).copied().unwrap_or(0);
            let company = sides.entry((cluster, side)).or_default();
            company.push((enclave.name.clone(), enclave.boot));
        }
        for ((cluster, _), company) in sides {
            self.clusters[cluster].reference.together(&company, now);
        }
    }

    // who stands where

    /// The enclave whose boot is a node's, as the furthest of the others have it.
    pub fn speaker(&self, place: usize) -> Option<&Enclave> {
        let newest = self.of_main().filter_map(Enclave::state).max_by_key(|s| s.size())?;
        let boot = newest.current_boot(&self.names[place])?;
        self.enclaves.get(self.by_boot.get(&boot)?).filter(|e| e.is_member())
    }

    /// The enclaves that speak for the nodes.
    pub fn speakers(&self) -> Vec<Eid> {
        (0..self.names.len()).filter_map(|at| self.speaker(at)).map(|e| e.id).collect()
    }

    /// Whether every node has an enclave that runs, votes, keeps up, holds its share of every key, and
    /// has the time within δ.
    pub fn all_sound(&self) -> bool {
        let speakers = self.speakers();
        let newest = self.of_main().filter_map(Enclave::state).map(|s| s.size()).max();
        let sound = |id: &Eid| {
            let enclave = &self.enclaves[id];
            let Some(member) = enclave.member() else { return false };
            let (live, held) = member.node.keys();
            let keeps_up = Some(member.node.state().size() + 8) >= newest;
            let wrong = self.wrong_by[enclave.place].unsigned_abs();
            !enclave.paused
                && live == held
                && keeps_up
                && wrong <= self.shape.delta.0
                && member.replication.status().is_voter
        };
        speakers.len() == self.names.len() && speakers.iter().all(sound)
    }

    // what the host does to enclaves

    /// A boot's keys, attested under a scope.
    fn boot(&mut self, place: usize, scope: &Hash32) -> (BootSecret, BootRecord) {
        let mut entropy = self.dice.entropy();
        let secret = BootSecret::generate(&mut entropy);
        let record = self.attested(&secret, place, scope);
        (secret, record)
    }

    /// The record of a boot, with evidence that is made now.
    fn attested(&self, secret: &BootSecret, place: usize, scope: &Hash32) -> BootRecord {
        let name = &self.names[place];
        let user_data = secret.user_data(name, scope);
        let at = self.true_time().0;
        let evidence = self.nsms[place].attest(Some(user_data.as_bytes()), None, None, at).unwrap();
        secret.record(name, evidence)
    }

    /// An enclave as it begins.
    fn started(&mut self, place: usize, boot: BootId, cluster: Option<usize>, phase: Phase) -> Eid {
        let id = self.next_enclave;
        self.next_enclave += 1;
        let name = self.names[place].clone();
        self.trace.note(self.now(), format_args!("enclave {id} starts for {name}"));
        self.count("enclaves started");
        let raft = raft_config(self.shape.delta, self.dice.between(600, 1_200));
        self.add(Enclave {
            id,
            place,
            name,
            boot,
            cluster,
            born: self.now(),
            clock: SimClock::new(self.start, self.wrong_by[place]),
            raft,
            phase,
            paused: false,
            held: Default::default(),
        });
        id
    }

    /// Another enclave for a node: a boot without any authority, which asks to be admitted.
    fn start_enclave(&mut self, place: usize) {
        let genesis = self.clusters[self.main].genesis.id();
        let (secret, record) = self.boot(place, &Hash32::new(*genesis.as_bytes()));
        let run = JoinRun::new(record.clone(), self.manifest.threshold);
        let phase = Phase::Joining { run, secret: Some(secret), short_since: None };
        self.started(place, record.id(), Some(self.main), phase);
    }

    /// Whether an enclave is about to start for another node, whose former one may be there still.
    pub fn starts_elsewhere(&self, than: usize) -> bool {
        self.due.values().any(|due| matches!(due, Due::Start { place } if *place != than))
    }

    pub fn starts_here(&self, place: usize) -> bool {
        self.due.values().any(|due| matches!(due, Due::Start { place: at } if *at == place))
    }

    pub fn start_in(&mut self, place: usize, after: u64) {
        self.at(after, Due::Start { place });
    }

    /// Ends an enclave: its memory is gone. With `told`, its peers' connections end at once.
    pub fn kill(&mut self, id: Eid, told: bool) {
        self.note_company(None);
        let Some(enclave) = self.enclaves.get_mut(&id) else { return };
        enclave.phase = Phase::Over;
        enclave.held.clear();
        self.trace.note(self.start.elapsed().as_millis() as u64, format_args!("kill {id}"));
        self.over(id, told);
    }

    fn over(&mut self, id: Eid, told: bool) {
        let gone: Vec<Ticket> =
            self.clients.iter().filter(|(_, c)| c.at == id).map(|(t, _)| *t).collect();
        for ticket in gone {
            self.clients.remove(&ticket);
        }
        let its: Vec<(Eid, Eid)> =
            self.links.keys().filter(|(a, b)| *a == id || *b == id).copied().collect();
        if told {
            its.into_iter().for_each(|pair| self.close(pair));
        } else {
            self.watch_silence(|a, b| a == id || b == id);
        }
    }

    pub fn pause(&mut self, id: Eid, millis: u64) {
        let Some(enclave) = self.enclaves.get_mut(&id) else { return };
        if enclave.paused || enclave.is_over() {
            return;
        }
        enclave.paused = true;
        self.trace.note(self.now(), format_args!("pause {id} for {millis}"));
        self.watch_silence(|a, b| a == id || b == id);
        self.at(millis, Due::Resume(id));
    }

    async fn resume(&mut self, id: Eid) -> Checked {
        self.trace.note(self.now(), format_args!("resume {id}"));
        let Some(enclave) = self.enclaves.get_mut(&id) else { return Ok(()) };
        enclave.paused = false;
        let held = std::mem::take(&mut enclave.held);
        for input in held {
            self.input(id, input).await?;
        }
        Ok(())
    }
}

pub const fn pair(a: Eid, b: Eid) -> (Eid, Eid) {
    if a < b { (a, b) } else { (b, a) }
}
