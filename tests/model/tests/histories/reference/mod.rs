//! The reference model: what must hold of a cluster, said as simply as it can be said, with code of
//! its own.
//!
//! It sees what leaves enclaves and which entries each of them applies, and knows what everybody
//! outside meant, since the simulation speaks for them all. It shares no arithmetic with the ledger:
//! it knows neither charges nor verdicts, only what was signed, when, and for which request.
//!
//! Where the product may refuse what looks right from outside (an unfreeze that came with a stale
//! predecessor), the model believes that it was done: it is never stricter than the truth.
//!
//! A [`Reference`] is one cluster's, in one incarnation. What holds of several that a host may make of one
//! manifest is [`Births`]' to say, and what holds of all incarnations of one, [`together`]'s.

mod births;
mod recovery;
mod shares;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use casemate_ledger::{Entry, EntryBody, State};
use casemate_proto::governance::{Change, FreezerStatement};
use casemate_proto::ids::Hash32;
use casemate_proto::{
    BootId, CredentialId, DerivationPath, Incarnation, KeyName, Millis, NodeName, RequestId,
    Scheme, UnixMillis,
};

pub use births::Births;
pub use recovery::{Begun, Grant, together};

/// What a violation begins with that is none of safety: something that should have happened did not.
pub const STUCK: &str = "stuck: ";

/// Something that must not happen did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

pub type Checked = Result<(), Violation>;

macro_rules! violated {
    ($($what:tt)*) => { return Err($crate::reference::Violation(format!($($what)*))) };
}
pub(crate) use violated;

/// One body that somebody sent under a request's id.
#[derive(Clone, Debug)]
pub struct Meant {
    pub body: Vec<u8>,
    pub key: KeyName,
    pub digest: [u8; 32],
    /// 1 for a message; base units of the token for a payment.
    pub amount: u64,
    /// Whether any policy of this history allows it to its sender.
    pub allowed: bool,
    /// Whether its sender really stamped it.
    pub stamped: bool,
}

/// What may be signed of a key in one window, under the widest policy of the history.
#[derive(Clone, Copy, Debug)]
pub struct Cap {
    pub window: Millis,
    pub amount: u64,
}

/// Who asked, and under which id.
pub type Ask = (CredentialId, RequestId);

#[derive(Clone)]
struct Leaf {
    entry: Hash32,
    root: Hash32,
    /// The ledger's time with it.
    time: UnixMillis,
    /// The request that it asks to have signed, and its body.
    request: Option<(Ask, Vec<u8>)>,
}

/// A signature that came to be.
#[derive(Clone, Debug)]
pub struct Made {
    pub digest: [u8; 32],
    pub key: KeyName,
    pub amount: u64,
    /// When it was first there anywhere, by true time.
    pub at: UnixMillis,
    /// The time of the entry that allowed it, by the ledger.
    pub ledger: UnixMillis,
    /// The entry of the log that holds it.
    pub leaf: Option<u64>,
}

/// What an entry asks to have signed.
pub struct What {
    pub key: KeyName,
    pub path: DerivationPath,
    pub digest: [u8; 32],
    /// The entry's own hash.
    pub entry: Hash32,
}

struct Freeze {
    from: u64,
    lifted: Option<u64>,
}

/// A signature share that an enclave let out.
pub struct Released<'a> {
    pub node: &'a NodeName,
    pub boot: BootId,
    /// How many entries that enclave has applied.
    pub applied: u64,
    /// By that enclave's clock.
    pub now: UnixMillis,
    /// The entry that the run is for.
    pub index: u64,
    pub entry: Hash32,
    pub participants: &'a [(NodeName, BootId)],
}

pub struct Reference {
    nodes: usize,
    threshold: usize,
    genesis: [u8; 32],
    /// Whether the governors said that this is the cluster.
    confirmed: bool,
    incarnation: Incarnation,
    tau: Millis,
    delta: Millis,
    dead_man: Option<Millis>,
    pub caps: BTreeMap<KeyName, Cap>,
    meant: BTreeMap<Ask, Vec<Meant>>,
    /// Ids of freezes that a freezer really gave.
    given: BTreeSet<Hash32>,
    log: Vec<Leaf>,
    freezes: BTreeMap<Hash32, Freeze>,
    dead: Vec<Freeze>,
    heard: UnixMillis,
    /// In order: from which size on that boot is its node's.
    admissions: Vec<(u64, NodeName, BootId)>,
    retired: BTreeMap<BootId, u64>,
    keys: BTreeMap<KeyName, (Scheme, Vec<u8>)>,
    pub made: BTreeMap<Ask, Made>,
    /// Where each enclave stands: entries applied, ledger time.
    heads: BTreeMap<BootId, (u64, UnixMillis)>,
    /// Freezes that each enclave was told of, valid ones only.
    told: BTreeMap<BootId, BTreeSet<Hash32>>,
    /// For each enclave, until when each node can have said something that came to it, directly or
    /// through others, by true time.
    spoke: BTreeMap<BootId, BTreeMap<NodeName, UnixMillis>>,
    /// Requests of which a client was told that they will never be signed.
    never: BTreeSet<Ask>,
    /// Those of them that were allowed, and of which a client was told that their time is over.
    expired: BTreeSet<Ask>,
    /// The entry that each request was first signed for.
    signed_for: BTreeMap<Ask, u64>,
    /// The signature that clients were given.
    given_out: BTreeMap<Ask, Vec<u8>>,
    /// What this incarnation began with, if it is not the first.
    grant: Option<Grant>,
}

impl Reference {
    pub fn new(state: &State, caps: BTreeMap<KeyName, Cap>) -> Self {
        let manifest = state.manifest();
        Self {
            nodes: manifest.nodes.len(),
            threshold: usize::try_from(manifest.threshold).unwrap(),
            genesis: *state.genesis().as_bytes(),
            confirmed: false,
            incarnation: state.incarnation(),
            tau: manifest.limits.tau,
            delta: manifest.limits.delta,
            dead_man: manifest.limits.dead_man,
            caps,
            meant: BTreeMap::new(),
            given: BTreeSet::new(),
            log: Vec::new(),
            freezes: BTreeMap::new(),
            dead: Vec::new(),
            heard: UnixMillis(0),
            admissions: state.current_boots().into_iter().map(|(n, b)| (0, n, b)).collect(),
            retired: BTreeMap::new(),
            keys: BTreeMap::new(),
            made: BTreeMap::new(),
            heads: BTreeMap::new(),
            told: BTreeMap::new(),
            spoke: BTreeMap::new(),
            never: BTreeSet::new(),
            expired: BTreeSet::new(),
            signed_for: BTreeMap::new(),
            given_out: BTreeMap::new(),
            grant: None,
        }
    }

    pub const fn genesis(&self) -> &[u8; 32] {
        &self.genesis
    }
    /// The governors sign that this genesis is the cluster's.
    pub fn confirm(&mut self) {
        self.confirmed = true;
    }
    pub fn size(&self) -> u64 {
        self.log.len() as u64
    }
    /// How many entries ask for a signature.
    pub fn requests(&self) -> usize {
        self.log.iter().filter(|leaf| leaf.request.is_some()).count()
    }
    pub fn key(&self, name: &KeyName) -> Option<&(Scheme, Vec<u8>)> {
        self.keys.get(name)
    }

    /// Somebody sent this under that id.
    pub fn meant(&mut self, ask: Ask, meant: Meant) {
        let all = self.meant.entry(ask).or_default();
        if !all.iter().any(|known| known.body == meant.body) {
            all.push(meant);
        }
    }
    /// Its sender stamped it.
    pub fn stamped(&mut self, ask: &Ask, body: &[u8]) {
        let all = self.meant.get_mut(ask).into_iter().flatten();
        all.filter(|meant| meant.body == body).for_each(|meant| meant.stamped = true);
    }
    /// What an entry of the log asks to have signed.
    pub fn what_is_signed(&self, index: u64) -> Option<What> {
        let leaf = self.log.get(index as usize)?;
        let (ask, body) = leaf.request.as_ref()?;
        self.what_is_asked(ask.0, body, leaf.entry)
    }
    /// What a request asks to have signed, in that entry.
    pub fn what_is_asked(
        &self,
        credential: CredentialId,
        body: &[u8],
        entry: Hash32,
    ) -> Option<What> {
        let ask = self.request_of(credential, body)?;
        let meant = self.meant.get(&ask)?.iter().find(|meant| meant.body == body)?;
        let (key, path) = (meant.key.clone(), DerivationPath::root());
        Some(What { key, path, digest: meant.digest, entry })
    }
    /// A freezer gave this freeze.
    pub fn given(&mut self, id: Hash32) {
        self.given.insert(id);
    }
    /// An enclave was handed a freeze, from outside or by a peer.
    pub fn told(&mut self, boot: BootId, id: Hash32) {
        if self.given.contains(&id) {
            self.told.entry(boot).or_default().insert(id);
        }
    }
    /// These enclaves, and nobody else, could speak to each other up to now, by true time: what one of
    /// them had heard the others can have heard too.
    pub fn together(&mut self, company: &[(NodeName, BootId)], now: UnixMillis) {
        let mut all: BTreeMap<NodeName, UnixMillis> = BTreeMap::new();
        for (node, at) in company.iter().filter_map(|(_, boot)| self.spoke.get(boot)).flatten() {
            let known = all.entry(node.clone()).or_insert(*at);
            *known = (*known).max(*at);
        }
        all.extend(company.iter().map(|(node, _)| (node.clone(), now)));
        for (_, boot) in company {
            self.spoke.insert(*boot, all.clone());
        }
    }

    /// Whether an enclave can have heard from more than half of the nodes, its own included, since an
    /// entry was stamped: not from all at once, and not from each itself. Whoever has its clock right
    /// accepts no stamp that is further than this ahead of true time.
    fn majority_spoke(&self, boot: &BootId, stamped: UnixMillis) -> bool {
        let since = UnixMillis(stamped.0.saturating_sub(2 * self.delta.0));
        let spoke = self.spoke.get(boot).into_iter().flatten();
        spoke.filter(|(_, until)| **until >= since).count() * 2 > self.nodes
    }

    /// Whether, `size` entries in, a freeze was in force for sure.
    fn frozen(&self, size: u64) -> bool {
        let holds = |freeze: &Freeze| {
            freeze.from < size && freeze.lifted.is_none_or(|lifted| lifted >= size)
        };
        self.freezes.values().any(holds) || self.dead.iter().any(holds)
    }

    fn current(&self, node: &NodeName, size: u64) -> Option<BootId> {
        let mut of_node = self.admissions.iter().rev().filter(|(_, name, _)| name == node);
        of_node.find(|(from, _, _)| *from <= size).map(|(_, _, boot)| *boot)
    }

    /// A boot began from a snapshot of this size.
    pub fn began(&mut self, boot: BootId, size: u64, root: Hash32, time: UnixMillis) -> Checked {
        let Some(leaf) = size.checked_sub(1).and_then(|at| self.log.get(at as usize)) else {
            violated!("boot {boot} began with {size} entries, and {} are known", self.size());
        };
        if leaf.root != root || leaf.time != time {
            violated!("boot {boot} began with another history of {size} entries");
        }
        self.heads.insert(boot, (size, time));
        Ok(())
    }

    /// An enclave applied an entry and stands at this state; the true time.
    pub fn applied(
        &mut self,
        boot: BootId,
        entry: &Entry,
        (state, is_halted): (&State, bool),
        now: UnixMillis,
    ) -> Checked {
        let size = state.size();
        let (before, time) = self.heads.get(&boot).copied().unwrap_or((0, UnixMillis(0)));
        if size != before + 1 {
            violated!("boot {boot} went from {before} entries to {size}");
        }
        if state.time() < time {
            violated!("the ledger's time went back from {time} to {} at {boot}", state.time());
        }
        self.heads.insert(boot, (size, state.time()));
        if !self.majority_spoke(&boot, entry.at) {
            violated!(
                "boot {boot} applied an entry of {} that no majority can have accepted; now {now}",
                entry.at
            );
        }
        if size > self.size() {
            self.first_applied(entry, state, now)?;
        }
        let leaf = &self.log[before as usize];
        if leaf.entry != entry.hash() {
            violated!("boot {boot} has another entry at index {before}: {}", entry.body.kind());
        }
        if leaf.root != state.root() {
            violated!("boot {boot} has another root at size {size}");
        }
        if leaf.time != state.time() {
            violated!("boot {boot} has ledger time {}, others {}", state.time(), leaf.time);
        }
        // what governors say of one genesis is for no other
        if !self.confirmed && (state.policy().is_some() || !state.keys().is_empty()) {
            violated!("boot {boot} has a policy or a key, and nobody confirmed its genesis");
        }
        let own = self.admissions.iter().find(|(_, _, admitted)| *admitted == boot);
        let retired = own.is_some_and(|(_, node, _)| self.current(node, size) != Some(boot));
        if retired && !is_halted {
            violated!("boot {boot} has applied that another took its place, and goes on");
        }
        // the ledger may know of more freezes, never of fewer
        if self.frozen(size) && !state.is_frozen() {
            violated!("boot {boot} is not frozen at size {size}, and a freeze is in force");
        }
        Ok(())
    }

    fn first_applied(&mut self, entry: &Entry, state: &State, now: UnixMillis) -> Checked {
        let index = self.size();
        let last = self.log.last().map_or(UnixMillis(0), |leaf| leaf.time);
        let time = entry.at.max(last);
        // a majority accepted it, and no majority has its clocks wrong by more than half of δ
        if entry.at > now.saturating_add(self.delta.saturating_mul(2)) {
            violated!("an entry of {} was committed at {now}", entry.at);
        }
        let mut request = None;
        self.dead_man(index, time);
        match &entry.body {
            EntryBody::Request { stamp, body } => {
                request = self.request_of(stamp.credential, body).map(|ask| (ask, body.clone()));
            }
            EntryBody::Statement(signed) => match &signed.statement {
                FreezerStatement::Freeze { .. } if self.given.contains(&signed.id()) => {
                    // at most four of one freezer are in force: a fifth is refused, and stops no
                    // more than the four do
                    let freeze = Freeze { from: index, lifted: None };
                    self.freezes.entry(signed.id()).or_insert(freeze);
                }
                FreezerStatement::Heartbeat { .. } if signed.incarnation == self.incarnation => {
                    self.heard = self.heard.max(time);
                }
                _ => {}
            },
            EntryBody::Governance(signed) => {
                // one governor alone lifts nothing
                if let Change::Unfreeze { freeze } = signed.envelope.change
                    && signed.signatures.len() >= 2
                    && signed.envelope.incarnation == self.incarnation
                {
                    for known in self.freezes.iter_mut().filter(|(id, _)| **id == freeze) {
                        known.1.lifted.get_or_insert(index);
                    }
                    self.dead.iter_mut().for_each(|dead| {
                        dead.lifted.get_or_insert(index);
                    });
                    self.heard = self.heard.max(time);
                }
            }
            EntryBody::Admit(record) => self.admitted(record.id(), &record.node, state)?,
            EntryBody::KeyLive(live) => {
                if let Some(key) = state.keys().get(&live.name).and_then(|key| key.live.as_ref()) {
                    let found = (live.scheme, key.public_key.clone());
                    let known = self.keys.entry(live.name.clone()).or_insert(found.clone());
                    if *known != found {
                        violated!("key `{}` is another since index {index}", live.name);
                    }
                }
            }
            _ => {}
        }
        let (entry_hash, root) = (entry.hash(), state.root());
        self.log.push(Leaf { entry: entry_hash, root, time, request });
        if let EntryBody::Signed { credential, request_id, signature } = &entry.body {
            self.signature((*credential, *request_id), signature, now, Some(index))?;
        }
        Ok(())
    }

    fn dead_man(&mut self, index: u64, time: UnixMillis) {
        let Some(patience) = self.dead_man else { return };
        if index == 0 {
            self.heard = time;
        }
        let in_force = self.dead.iter().any(|dead| dead.lifted.is_none());
        if time.since(self.heard) > patience && !in_force {
            self.dead.push(Freeze { from: index, lifted: None });
        }
    }

    /// The entry that first asked for a request.
    fn asked(&self, ask: &Ask) -> Option<(usize, Hash32)> {
        let of_it = |leaf: &Leaf| leaf.request.as_ref().is_some_and(|(of, _)| of == ask);
        let index = self.log.iter().position(of_it)?;
        Some((index, self.log[index].entry))
    }

    /// The request that a body is.
    fn request_of(&self, credential: CredentialId, body: &[u8]) -> Option<Ask> {
        let mut known = self.meant.iter().filter(|((by, _), _)| *by == credential);
        known.find(|(_, meant)| meant.iter().any(|one| one.body == body)).map(|(ask, _)| *ask)
    }

    fn admitted(&mut self, boot: BootId, node: &NodeName, state: &State) -> Checked {
        let size = state.size();
        let former = self.current(node, size);
        if state.current_boot(node) != Some(boot) {
            return match state.current_boot(node) == former {
                true => Ok(()),
                false => violated!("node `{node}` has a boot at size {size} that nobody admitted"),
            };
        }
        if self.retired.contains_key(&boot) {
            violated!("boot {boot} of node `{node}` was retired and is current again");
        }
        if former != Some(boot) {
            if let Some(former) = former {
                self.retired.insert(former, size);
            }
            self.admissions.push((size, node.clone(), boot));
        }
        Ok(())
    }
}
