//! Cold recovery: a cluster goes on from where a certificate takes up the former's log.
//!
//! The log up to there is the one that it always was, and so is everything that was said about what is in
//! it. What came after it is not known any more. Nobody is asked for anything of it: what the former
//! incarnation had allowed and not signed is never signed, what was stamped for it is void, nothing is
//! signed before the quorum lifts the recovery's freeze, nor before every window lies behind the
//! certificate's end.

use std::collections::{BTreeMap, BTreeSet};

use casemate_ledger::State;
use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, KeyName, Millis, NodeName, UnixMillis};

use super::{Ask, Checked, Freeze, Leaf, Made, Meant, Reference, violated};

/// What the governors granted.
#[derive(Clone, Debug)]
pub struct Grant {
    pub certificate: Hash32,
    /// How many entries are taken up.
    pub size: u64,
    pub at: UnixMillis,
    pub expires: UnixMillis,
    pub boots: Vec<(NodeName, BootId)>,
}

/// A boot that begins a recovered cluster.
pub struct Begun<'a> {
    pub boot: BootId,
    pub node: &'a NodeName,
    pub certificate: Hash32,
    /// The entry that it began with.
    pub entry: Hash32,
    pub state: &'a State,
    /// By its own clock.
    pub now: UnixMillis,
}

impl Reference {
    /// The cluster that goes on from here, by what the governors granted.
    pub fn granted(&self, grant: Grant) -> Self {
        let size = grant.size;
        let before = |freeze: &Freeze| {
            let lifted = freeze.lifted.filter(|at| *at < size);
            (freeze.from < size).then_some(Freeze { from: freeze.from, lifted })
        };
        let void = |(ask, all): (&Ask, &Vec<Meant>)| {
            let all = all.iter().cloned().map(|meant| Meant { stamped: false, ..meant });
            (*ask, all.collect())
        };
        let log: Vec<Leaf> = self.log.iter().take(size as usize).cloned().collect();
        let known: BTreeSet<Ask> =
            log.iter().filter_map(|leaf| Some(leaf.request.as_ref()?.0)).collect();
        let made: BTreeMap<Ask, Made> = self
            .made
            .iter()
            .filter(|(_, made)| made.leaf.is_some_and(|at| at < size))
            .map(|(ask, made)| (*ask, made.clone()))
            .collect();
        Self {
            nodes: self.nodes,
            threshold: self.threshold,
            genesis: self.genesis,
            confirmed: self.confirmed,
            incarnation: self.incarnation,
            tau: self.tau,
            delta: self.delta,
            dead_man: self.dead_man,
            caps: self.caps.clone(),
            meant: self.meant.iter().map(void).collect(),
            given: BTreeSet::new(),
            freezes: self
                .freezes
                .iter()
                .filter_map(|(id, freeze)| Some((*id, before(freeze)?)))
                .collect(),
            dead: self.dead.iter().filter_map(before).collect(),
            heard: UnixMillis(0),
            admissions: self.admissions.iter().filter(|(at, ..)| *at <= size).cloned().collect(),
            retired: self
                .retired
                .iter()
                .filter(|(_, at)| **at <= size)
                .map(|(b, a)| (*b, *a))
                .collect(),
            keys: self.keys.clone(),
            heads: BTreeMap::new(),
            told: BTreeMap::new(),
            spoke: BTreeMap::new(),
            never: self.never.iter().filter(|ask| known.contains(*ask)).copied().collect(),
            expired: BTreeSet::new(),
            signed_for: self
                .signed_for
                .iter()
                .filter(|(_, index)| **index < size)
                .map(|(ask, index)| (*ask, *index))
                .collect(),
            given_out: self
                .given_out
                .iter()
                .filter(|(ask, _)| made.contains_key(*ask))
                .map(|(ask, signature)| (*ask, signature.clone()))
                .collect(),
            made,
            log,
            grant: Some(grant),
        }
    }

    /// A boot begins with the granted recovery, or with something else.
    pub fn recovered(&mut self, begun: &Begun<'_>) -> Checked {
        let Begun { boot, node, certificate, entry, state, now } = begun;
        let who = format!("boot {boot} of node `{node}`");
        let Some(grant) = self.grant.clone() else {
            violated!("{who} begins a recovery that nobody granted");
        };
        if grant.certificate != *certificate {
            violated!("{who} begins a recovery by a certificate that no quorum signed");
        }
        if !grant.boots.contains(&((*node).clone(), *boot)) {
            violated!("{who} begins a recovery whose certificate names another");
        }
        if *now >= grant.expires {
            violated!(
                "{who} begins a recovery at {now}, whose certificate ended {}",
                grant.expires
            );
        }
        let size = grant.size + 1;
        let taken_up = &self.log[grant.size as usize - 1];
        let (root, before) = (taken_up.root, taken_up.time);
        let has = |(at, known): (u64, Hash32)| at == grant.size && known == root;
        if state.size() != size || !state.recent_roots(8).any(has) {
            violated!("{who} begins with another ledger than the certificate takes up");
        }
        let time = grant.at.max(before);
        if state.time() != time {
            violated!("{who} begins at ledger time {}, and it is {time}", state.time());
        }
        if !state.is_frozen() {
            violated!("{who} begins a recovered cluster that is not frozen");
        }
        if self.size() < size {
            let leaf = Leaf { entry: *entry, root: state.root(), time, request: None };
            self.log.push(leaf);
            let freeze = Freeze { from: grant.size, lifted: None };
            self.freezes.insert(grant.certificate, freeze);
            self.heard = time;
            self.incarnation = state.incarnation();
            for (node, entered) in &grant.boots {
                if let Some(former) = self.current(node, size) {
                    self.retired.insert(former, size);
                }
                self.admissions.push((size, node.clone(), *entered));
            }
        }
        let leaf = &self.log[grant.size as usize];
        if leaf.entry != *entry || leaf.root != state.root() {
            violated!("{who} begins with another entry or root than others of its recovery");
        }
        self.heads.insert(*boot, (size, time));
        Ok(())
    }

    /// Whether what an entry of the log asks for may be signed, as far as the recovery goes.
    pub(super) fn after_recovery(&self, index: u64, key: &KeyName, at: UnixMillis) -> Checked {
        let Some(grant) = &self.grant else { return Ok(()) };
        if index <= grant.size {
            violated!("entry {index} is signed for, which the former incarnation allowed");
        }
        let window = self.caps.get(key).map_or(Millis(0), |cap| cap.window);
        if at < grant.expires.saturating_add(window) {
            violated!(
                "entry {index} of {at} is signed for, and what was spent until {} is not known",
                grant.expires
            );
        }
        Ok(())
    }
}

/// What holds of all incarnations of a cluster together, in the end: `formers` is how many of them went on
/// beside the one that took up their ledger.
pub fn together(incarnations: &[&Reference], formers: u64) -> Checked {
    let Some(first) = incarnations.first() else { return Ok(()) };
    for (key, cap) in &first.caps {
        // what one had made, its successor knows of: by when it was made it is the same
        let made: BTreeMap<(Ask, UnixMillis), u64> = incarnations
            .iter()
            .flat_map(|one| &one.made)
            .filter(|(_, made)| made.key == *key)
            .map(|(ask, made)| ((*ask, made.at), made.amount))
            .collect();
        for (_, from) in made.keys() {
            let until = from.saturating_add(cap.window);
            let inside = made.iter().filter(|((_, at), _)| at >= from && *at < until);
            let sum: u64 = inside.map(|(_, amount)| amount).sum();
            // one more limit for each recovery whose former incarnation was not dead
            if sum > cap.amount * (1 + formers) {
                violated!("all incarnations signed for {sum} with `{key}` in a window from {from}");
            }
        }
    }
    // who was told that a request is over, by whichever incarnation, was told the truth
    for one in incarnations {
        for other in incarnations {
            let known = |ask: &&Ask| other.made.get(*ask).is_some_and(|made| made.leaf.is_some());
            // one that each was asked by itself has a stamp for each
            let both = |ask: &&Ask| one.asked(ask).is_some() && one.asked(ask) == other.asked(ask);
            if let Some(ask) = one.expired.iter().filter(known).find(both) {
                violated!("a client was told that request {} expired, and it was signed", ask.1);
            }
        }
    }
    Ok(())
}
