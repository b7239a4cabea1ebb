//! Links between enclaves, which stand for channels: dialled, cut, withheld and broken by the host.

use std::collections::BTreeMap;

use casemate_proto::BootId;

use super::{Due, Link, SILENT_MS, World, pair};
use crate::enclave::{Eid, Enclave, Input, Kind, Scope};
use crate::reference::Checked;

impl World {
    pub(super) fn is_silent(&self, (a, b): (Eid, Eid)) -> bool {
        let mute = |id: &Eid| self.enclaves.get(id).is_none_or(|e| e.paused || e.is_over());
        let stalled = self.links.get(&(a, b)).is_some_and(|l| l.stalled_until > self.now());
        mute(&a) || mute(&b) || stalled || self.is_cut(a, b)
    }

    pub(super) fn is_cut(&self, a: Eid, b: Eid) -> bool {
        self.side.get(&a).copied().unwrap_or(0) != self.side.get(&b).copied().unwrap_or(0)
    }

    /// Dials every pair that has no link and can have one.
    pub(super) async fn dial(&mut self) -> Checked {
        let live: Vec<Eid> =
            self.enclaves.values().filter(|e| !e.is_over() && !e.paused).map(|e| e.id).collect();
        for (at, a) in live.iter().enumerate() {
            for b in &live[at + 1..] {
                let key = pair(*a, *b);
                let (one, two) = (&self.enclaves[a], &self.enclaves[b]);
                let wanted = one.place != two.place
                    && !self.links.contains_key(&key)
                    && !self.is_cut(*a, *b);
                let Some(scope) = scope_between(one, two).filter(|_| wanted) else { continue };
                if self.dice.percent(60) {
                    self.next_link += 1;
                    let (number, up_since) = (self.next_link, self.now());
                    let link = Link { number, scope, up_since, stalled_until: 0, last: [0; 2] };
                    self.links.insert(key, link);
                    for (own, other) in [(*a, *b), (*b, *a)] {
                        let peer = &self.enclaves[&other];
                        let (node, boot) = (peer.name.clone(), peer.boot);
                        self.input(own, Input::Up { node, boot, scope }).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends a link: both ends are told a little later.
    pub fn close(&mut self, pair: (Eid, Eid)) {
        let Some(Link { scope, .. }) = self.links.remove(&pair) else { return };
        for (own, other) in [(pair.0, pair.1), (pair.1, pair.0)] {
            if let Some(peer) = self.enclaves.get(&other) {
                let (node, boot) = (peer.name.clone(), peer.boot);
                self.at(0, Due::Input { to: own, input: Input::Down { node, boot, scope } });
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

    pub(super) fn send(&mut self, from: Eid, to: BootId, kind: Kind, bytes: Vec<u8>) {
        let Some(to) = self.by_boot.get(&to).copied() else { return };
        let key = pair(from, to);
        let of_kind = self.links.get(&key).filter(|link| link.scope == kind.scope());
        let Some(number) = of_kind.map(|link| link.number) else { return };
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

    /// Cuts the cluster in two: everybody on `with` is on side 1. Links across end at once or fall
    /// silent.
    pub fn partition(&mut self, with: &[Eid], told: bool) {
        self.divide(with.iter().map(|id| (*id, 1)).collect(), told);
    }

    /// Cuts it into as many parts as there are sides.
    pub fn divide(&mut self, side: BTreeMap<Eid, u8>, told: bool) {
        self.note_company(None);
        self.trace.note(self.now(), format_args!("partition {side:?} told {told}"));
        self.side = side;
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

/// What a link between two enclaves would be for, if each has something to say to the other: a member
/// that finds no member at the other end asks for a link of the birth.
fn scope_between(one: &Enclave, two: &Enclave) -> Option<Scope> {
    let is_born =
        |e: &Enclave| e.is_in_birth() || e.member().is_some_and(|member| member.birth.is_some());
    if one.is_in_birth() || two.is_in_birth() {
        return (is_born(one) && is_born(two)).then_some(Scope::Birth);
    }
    let of_one_cluster = one.cluster == two.cluster
        && (one.is_member() || two.is_member())
        && !one.knows_retired(&two.boot)
        && !two.knows_retired(&one.boot);
    of_one_cluster.then_some(Scope::Cluster)
}
