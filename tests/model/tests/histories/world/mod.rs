//! The simulated world: enclaves, the links between them, time, and what the host has in hand.
//!
//! One task drives all of it. It takes what openraft's tasks want done, then whatever is due, then
//! lets simulated time go on to the next thing that is; tokio's clock is paused, so nothing waits.
//!
//! A link stands for a channel of `enclave/channel`: it delivers in order and each message once, and
//! a message that the host loses, repeats, reorders or changes ends it, since the channel's frames are
//! numbered and sealed. Both ends are told, what was under way is lost, and it is dialled anew.

mod members;
mod outputs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use casemate_ledger::EntryBody;
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::GenesisRecord;
use casemate_proto::{BootId, NodeName, UnixMillis};
use casemate_replication::join::JoinRun;
use casemate_replication::{Out, StartAt};
use casemate_signer::{Answer, BootSecret, Ticket};
use casemate_sim::SimNsm;
use casemate_threshold::RunId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::enclave::{
    EPOCH, Eid, Enclave, Input, Kind, Phase, SimClock, raft_config, start_member,
};
use crate::people::People;
use crate::reference::{Ask, Checked, Reference, Violation};
use crate::setup::Shape;
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
    Start {
        place: usize,
    },
    Resume(Eid),
}

#[derive(Debug)]
pub struct Link {
    pub number: u64,
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

pub struct World {
    pub dice: Dice,
    pub shape: Shape,
    pub start: Instant,
    pub names: Vec<NodeName>,
    nsms: Vec<SimNsm>,
    pub genesis: GenesisRecord,
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
    pub reference: Reference,
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
    /// A world with its cluster born.
    pub async fn new(shape: Shape, mut dice: Dice, trace: Trace) -> Result<Self, Violation> {
        let people = People::new();
        let born = crate::setup::born(&shape, &people, &mut dice);
        let (out_in, out) = mpsc::unbounded_channel();
        let start = Instant::now();
        let state = born.nodes[0].0.state();
        let reference = Reference::new(state, shape.caps());
        let mut world = Self {
            dice: dice.fork(),
            wrong_by: vec![0; born.names.len()],
            shape,
            start,
            names: born.names,
            nsms: born.nsms,
            genesis: born.genesis,
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
            reference,
            runs: BTreeMap::new(),
            appended: BTreeMap::new(),
            clients: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_ticket: 0,
            next_enclave: 0,
            trace,
            counts: BTreeMap::new(),
        };
        for (place, (node, record)) in born.nodes.into_iter().enumerate() {
            let id = world.next_enclave;
            world.next_enclave += 1;
            let clock = SimClock::new(start, 0);
            let raft = raft_config(world.shape.delta, world.dice.between(600, 1_200));
            let (boot, name) = (record.id(), record.node.clone());
            let member = start_member(
                node,
                StartAt::Genesis,
                &world.genesis,
                (id, boot, name.clone()),
                raft,
                Arc::clone(&clock),
                world.out_in.clone(),
            )
            .await;
            world.add(Enclave {
                id,
                place,
                name,
                boot,
                born: 0,
                clock,
                raft,
                phase: Phase::Member(Box::new(member)),
                paused: false,
                held: Default::default(),
            });
        }
        world.at(0, Due::Dial);
        Ok(world)
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
            Due::Resume(id) => self.resume(id).await?,
        }
        Ok(())
    }

    // links

    fn is_silent(&self, (a, b): (Eid, Eid)) -> bool {
        let mute = |id: &Eid| self.enclaves.get(id).is_none_or(|e| e.paused || e.is_over());
        let stalled = self.links.get(&(a, b)).is_some_and(|l| l.stalled_until > self.now());
        mute(&a) || mute(&b) || stalled || self.is_cut(a, b)
    }

    fn is_cut(&self, a: Eid, b: Eid) -> bool {
        self.side.get(&a).copied().unwrap_or(0) != self.side.get(&b).copied().unwrap_or(0)
    }

    /// Dials every pair that has no link and can have one.
    async fn dial(&mut self) -> Checked {
        let live: Vec<Eid> =
            self.enclaves.values().filter(|e| !e.is_over() && !e.paused).map(|e| e.id).collect();
        for (at, a) in live.iter().enumerate() {
            for b in &live[at + 1..] {
                let key = pair(*a, *b);
                let (one, two) = (&self.enclaves[a], &self.enclaves[b]);
                let wanted = one.place != two.place
                    && !self.links.contains_key(&key)
                    && !self.is_cut(*a, *b)
                    && (one.is_member() || two.is_member())
                    && !one.knows_retired(&two.boot)
                    && !two.knows_retired(&one.boot);
                if wanted && self.dice.percent(60) {
                    self.next_link += 1;
                    let number = self.next_link;
                    let link = Link { number, stalled_until: 0, last: [0; 2] };
                    self.links.insert(key, link);
                    for (own, other) in [(*a, *b), (*b, *a)] {
                        let peer = &self.enclaves[&other];
                        let (node, boot) = (peer.name.clone(), peer.boot);
                        self.input(own, Input::Up { node, boot }).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends a link: both ends are told a little later.
    pub fn close(&mut self, pair: (Eid, Eid)) {
        if self.links.remove(&pair).is_none() {
            return;
        }
        for (own, other) in [(pair.0, pair.1), (pair.1, pair.0)] {
            if let Some(peer) = self.enclaves.get(&other) {
                let (node, boot) = (peer.name.clone(), peer.boot);
                self.at(0, Due::Input { to: own, input: Input::Down { node, boot } });
            }
        }
    }

    /// Looks after five seconds whether a link is still silent.
    pub fn watch_silence(&mut self, of: impl Fn(Eid, Eid) -> bool) {
        let links: Vec<u64> =
            self.links.iter().filter(|((a, b), _)| of(*a, *b)).map(|(_, l)| l.number).collect();
        for link in links {
            self.at(SILENT_MS, Due::Silent { link });
        }
    }

    pub fn linked(&self) -> Vec<(Eid, Eid)> {
        self.links.keys().copied().collect()
    }

    /// Withholds everything on a link for a while.
    pub fn stall(&mut self, pair: (Eid, Eid), millis: u64) {
        let until = self.now() + millis;
        if let Some(link) = self.links.get_mut(&pair) {
            link.stalled_until = until;
            let number = link.number;
            if millis > SILENT_MS {
                self.at(SILENT_MS, Due::Silent { link: number });
            }
        }
    }

    fn send(&mut self, from: Eid, to: BootId, kind: Kind, bytes: Vec<u8>) {
        let Some(to) = self.by_boot.get(&to).copied() else { return };
        let key = pair(from, to);
        let Some(number) = self.links.get(&key).map(|link| link.number) else { return };
        if self.is_cut(from, to) {
            return;
        }
        if self.dice.below(1_000) < self.mangled {
            // lost, doubled, out of order or changed: the receiver's channel ends all the same
            self.count("messages mangled");
            return self.close(key);
        }
        let delay = self.dice.between(self.delay.0, self.delay.1);
        let now = self.now();
        let Some(link) = self.links.get_mut(&key) else { return };
        let last = &mut link.last[usize::from(from > to)];
        let when = (now + delay).max(link.stalled_until).max(*last);
        *last = when;
        self.at(when - now, Due::Deliver { link: number, from, to, kind, bytes });
    }

    /// Tells the reference model who could speak to whom until now: to be called before that changes,
    /// and before it is asked. Retired boots and paused ones count as if they spoke: it is never
    /// stricter than the truth. The enclave that is at work just now is one that runs.
    fn note_company(&mut self, at_work: Option<Eid>) {
        let now = self.true_time();
        let mut sides: BTreeMap<u8, Vec<(NodeName, BootId)>> = BTreeMap::new();
        for enclave in self.enclaves.values().filter(|e| e.is_member() || Some(e.id) == at_work) {
            let side = self.side.get(&enclave.id).copied().unwrap_or(0);
            sides.entry(side).or_default().push((enclave.name.clone(), enclave.boot));
        }
        sides.values().for_each(|company| self.reference.together(company, now));
    }

    // who stands where

    /// The enclave whose boot is a node's, as the furthest of the others have it.
    pub fn speaker(&self, place: usize) -> Option<&Enclave> {
        let newest = self.enclaves.values().filter_map(Enclave::state).max_by_key(|s| s.size())?;
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
        let newest = self.enclaves.values().filter_map(Enclave::state).map(|s| s.size()).max();
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

    /// Another enclave for a node: a boot without any authority, which asks to be admitted.
    fn start_enclave(&mut self, place: usize) {
        let mut entropy = self.dice.entropy();
        let secret = BootSecret::generate(&mut entropy);
        let name = self.names[place].clone();
        let scope = Hash32::new(*self.genesis.id().as_bytes());
        let user_data = secret.user_data(&name, &scope);
        let at = self.true_time().0;
        let evidence = self.nsms[place].attest(Some(user_data.as_bytes()), None, None, at).unwrap();
        let record = secret.record(&name, evidence);
        let id = self.next_enclave;
        self.next_enclave += 1;
        let run = JoinRun::new(record.clone(), self.genesis.manifest.threshold);
        let boot = record.id();
        self.trace.note(self.now(), format_args!("enclave {id} starts for {name}"));
        self.count("enclaves started");
        let raft = raft_config(self.shape.delta, self.dice.between(600, 1_200));
        self.add(Enclave {
            id,
            place,
            name,
            boot,
            born: self.now(),
            clock: SimClock::new(self.start, self.wrong_by[place]),
            raft,
            phase: Phase::Joining { run, secret: Some(secret), short_since: None },
            paused: false,
            held: Default::default(),
        });
    }

    /// Whether an enclave is about to start for another node, whose former one may be there still.
    pub fn starts_elsewhere(&self, than: usize) -> bool {
        self.due.values().any(|due| matches!(due, Due::Start { place } if *place != than))
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

    /// Cuts the cluster in two: everybody on `with` is on side 1. Links across end at once or fall
    /// silent.
    pub fn partition(&mut self, with: &[Eid], told: bool) {
        self.note_company(None);
        self.side = with.iter().map(|id| (*id, 1)).collect();
        self.trace.note(self.now(), format_args!("partition {with:?} told {told}"));
        let across: Vec<(Eid, Eid)> =
            self.links.keys().filter(|(a, b)| self.is_cut(*a, *b)).copied().collect();
        for pair in across {
            match told {
                true => self.close(pair),
                false => {
                    let number = self.links[&pair].number;
                    self.at(SILENT_MS, Due::Silent { link: number });
                }
            }
        }
    }

    pub fn heal(&mut self) {
        self.note_company(None);
        self.trace.note(self.now(), format_args!("heal"));
        // frames were lost on them
        let across: Vec<(Eid, Eid)> =
            self.links.keys().filter(|(a, b)| self.is_cut(*a, *b)).copied().collect();
        across.into_iter().for_each(|pair| self.close(pair));
        self.side.clear();
    }
}

pub const fn pair(a: Eid, b: Eid) -> (Eid, Eid) {
    if a < b { (a, b) } else { (b, a) }
}
