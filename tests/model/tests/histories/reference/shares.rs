//! What may leave enclaves: signature shares, and signatures within their limits.

use casemate_proto::ids::Hash32;
use casemate_proto::{KeyName, UnixMillis};

use super::{Ask, Checked, Leaf, Made, Meant, Reference, Released, violated};
use crate::digest;

impl Reference {
    /// An enclave lets out a signature share.
    pub fn released(&mut self, released: &Released<'_>) -> Checked {
        let Released { node, boot, applied, now, index, entry, participants } = released;
        let who = format!("node `{node}` (boot {boot}, {applied} entries, {now})");
        let Some(leaf) = self.log.get(*index as usize).filter(|_| index < applied) else {
            violated!("{who} signs for entry {index}, which it has not applied");
        };
        if leaf.entry != *entry {
            violated!("{who} signs for another entry than it applied at index {index}");
        }
        let Some((ask, body)) = &leaf.request else {
            violated!("{who} signs for entry {index}, which asks for no signature");
        };
        let meant = self.meant.get(ask).and_then(|all| all.iter().find(|m| m.body == *body));
        if meant.is_none_or(|meant| !meant.allowed || !meant.stamped) {
            violated!("{who} signs for entry {index}, which no policy allows");
        }
        if let Some(meant) = meant {
            self.after_recovery(*index, &meant.key, leaf.time)?;
        }
        if *now > leaf.time.saturating_add(self.tau) {
            violated!("{who} releases for entry {index} of {}, later than τ", leaf.time);
        }
        if self.frozen(*applied) {
            violated!("{who} releases for entry {index} while a freeze is in force");
        }
        let unlifted = |id: &&Hash32| {
            self.freezes.get(*id).is_none_or(|freeze| freeze.lifted.is_none_or(|at| at >= *applied))
        };
        if let Some(freeze) = self.told.get(boot).and_then(|told| told.iter().find(unlifted)) {
            violated!("{who} releases for entry {index} and was told of freeze {freeze}");
        }
        if self.current(node, *applied) != Some(*boot) {
            violated!("{who} releases for entry {index} and is not its node's boot any more");
        }
        for (name, other) in *participants {
            if self.current(name, *applied) != Some(*other) {
                violated!("{who} releases for entry {index} with `{name}`'s retired boot {other}");
            }
        }
        if participants.len() != self.threshold || !participants.iter().any(|(_, b)| b == boot) {
            violated!("{who} releases for entry {index} among {participants:?}");
        }
        if let Some(made) = self.made.get(ask)
            && made.leaf.is_some_and(|at| at < *applied)
        {
            violated!("{who} releases for entry {index}, whose signature is in the log");
        }
        // a request is charged for one entry, and that one alone is signed for
        let ask = *ask;
        let first = *self.signed_for.entry(ask).or_insert(*index);
        if first != *index {
            violated!("{who} releases for entry {index}, and entry {first} is the same request");
        }
        Ok(())
    }

    /// A signature was seen: in the log (then where), in a proposal, or in an answer.
    pub fn signature(
        &mut self,
        ask: Ask,
        signature: &[u8],
        now: UnixMillis,
        leaf: Option<u64>,
    ) -> Checked {
        let (credential, id) = ask;
        let Some(all) = self.meant.get(&ask) else {
            violated!("a signature for {credential}'s request {id}, which nobody made");
        };
        let verifies = |meant: &&Meant| {
            self.keys.get(&meant.key).is_some_and(|(scheme, key)| {
                digest::verifies(*scheme, key, &meant.digest, signature)
            })
        };
        let Some(meant) = all.iter().find(verifies).cloned() else {
            violated!("a signature of request {id} verifies for none of its bodies");
        };
        if !meant.allowed || !meant.stamped {
            violated!("request {id} was signed, and nobody may have it signed");
        }
        let of_it = |leaf: &&Leaf| {
            leaf.request.as_ref().is_some_and(|(of, body)| *of == ask && *body == meant.body)
        };
        let mut entries = self.log.iter().filter(of_it);
        let ledger = match (self.signed_for.get(&ask), entries.next()) {
            (Some(index), Some(_)) => self.log[*index as usize].time,
            (None, Some(leaf)) => leaf.time,
            (_, None) => violated!("request {id} was signed, and is not in the log"),
        };
        let fresh = Made {
            digest: meant.digest,
            key: meant.key.clone(),
            amount: meant.amount,
            at: now,
            ledger,
            leaf: None,
        };
        let is_new = !self.made.contains_key(&ask);
        let made = self.made.entry(ask).or_insert(fresh);
        if made.digest != meant.digest {
            violated!("request {id} has signatures over two digests");
        }
        if let (Some(at), None) = (leaf, made.leaf) {
            made.leaf = Some(at);
            if self.never.contains(&ask) {
                violated!("a client was told that request {id} is never signed, and it was");
            }
        }
        if is_new { self.within(&meant.key) } else { Ok(()) }
    }

    /// Whether what was signed with a key is within its cap in every interval of a window's length.
    fn within(&self, key: &KeyName) -> Checked {
        let Some(cap) = self.caps.get(key) else {
            violated!("something was signed with key `{key}`, which has no limit");
        };
        let of_key: Vec<&Made> = self.made.values().filter(|made| made.key == *key).collect();
        let clocks: [fn(&Made) -> UnixMillis; 2] = [|made| made.at, |made| made.ledger];
        for clock in clocks {
            for first in &of_key {
                let from = clock(first).0;
                let inside = |made: &&&Made| (from..from + cap.window.0).contains(&clock(made).0);
                let sum: u64 = of_key.iter().filter(inside).map(|made| made.amount).sum();
                if sum > cap.amount {
                    violated!(
                        "key `{key}` signed for {sum} within {} ms from {from}, and its limit is {}",
                        cap.window.0,
                        cap.amount
                    );
                }
            }
        }
        Ok(())
    }
}
