//! Whom a node asks for the cosignatures of a receipt.
//!
//! A receipt needs t of them. What a node beyond those t is asked for costs it a signature and two
//! messages, and nobody reads it. So everybody is asked once in a second, and in between only those who were the first to answer.
//! They are not waited for long: see [`PATIENCE`].

use std::collections::BTreeSet;

use casemate_proto::{Millis, NodeName, UnixMillis};

use crate::checkpoints::Gathering;
use crate::node::Node;
use crate::peer::PeerMessage;

/// How often everybody is asked: who answers first may be another by then.
const ASK_ALL_EVERY: Millis = Millis(1_000);
/// How long those who were asked alone may take before everybody else is asked too.
const PATIENCE: Millis = Millis(100);
/// How long everybody is asked each time once somebody who was asked alone kept silent, so that one that answers first and
/// then not at all delays no more than one receipt in so long.
const ASK_ALL_FOR: Millis = Millis(10_000);
/// How long a node waits for cosignatures that the others give unasked.
const UNASKED_PATIENCE: Millis = Millis(500);

/// Who was asked for a cosignature.
pub(crate) enum Asked {
    /// So many that can be reached.
    Everybody(usize),
    /// Only those who answered first before.
    TheFirst,
}

/// Those who were the first to answer when everybody was asked last.
#[derive(Default)]
pub(crate) struct Cosigners {
    prompt: BTreeSet<NodeName>,
    asked_all_at: UnixMillis,
    ask_all_until: UnixMillis,
}

impl Cosigners {
    /// Whom of those who have not cosigned to ask now, where so many cosignatures are missing.
    fn whom(&mut self, silent: Vec<NodeName>, missing: usize, now: UnixMillis) -> Vec<NodeName> {
        let prompt: Vec<NodeName> = silent
            .iter()
            .filter(|name| self.prompt.contains(*name))
            .take(missing)
            .cloned()
            .collect();
        let is_recent = now.since(self.asked_all_at) < ASK_ALL_EVERY;
        if prompt.len() == missing && is_recent && now >= self.ask_all_until {
            return prompt;
        }
        self.asked_all_at = now;
        silent
    }

    /// Everybody was asked, and these answered first.
    pub(crate) fn answered(&mut self, first: BTreeSet<NodeName>) {
        self.prompt = first;
    }

    /// Who is there has changed.
    pub(crate) fn forget(&mut self) {
        self.prompt.clear();
    }

    /// Those who were asked alone did not answer in time: everybody is asked.
    pub(crate) fn gave_up(&mut self, now: UnixMillis) {
        self.prompt.clear();
        self.ask_all_until = now.saturating_add(ASK_ALL_FOR);
    }
}

impl Node {
    fn silent(&self, gathering: &Gathering, now: UnixMillis) -> Vec<NodeName> {
        let mut live = self.roster.live(now);
        live.retain(|name| !gathering.lines.contains_key(name));
        live
    }

    /// Asks everybody.
    pub(crate) fn ask_for(&mut self, gathering: &mut Gathering, now: UnixMillis) {
        let (size, root) = (gathering.checkpoint.size, gathering.checkpoint.root);
        let silent = self.silent(gathering, now);
        self.send_others(&silent, &PeerMessage::Cosign { size, root });
        gathering.asked = Some(Asked::Everybody(self.roster.live(now).len()));
    }

    /// Asks as few as a receipt needs, if it is known who answers first.
    pub(crate) fn ask_the_first(&mut self, gathering: &mut Gathering, now: UnixMillis) {
        let (size, root) = (gathering.checkpoint.size, gathering.checkpoint.root);
        let silent = self.silent(gathering, now);
        let missing = usize::from(self.threshold).saturating_sub(gathering.lines.len());
        let all = silent.len();
        let whom = self.checkpoints.cosigners.whom(silent, missing, now);
        gathering.asked = Some(match whom.len() < all {
            true => Asked::TheFirst,
            false => Asked::Everybody(self.roster.live(now).len()),
        });
        self.send_others(&whom, &PeerMessage::Cosign { size, root });
    }

    /// Asks for what should have come by now and did not.
    pub(crate) fn ask_the_silent(&mut self, now: UnixMillis) {
        if let Some(mut gathering) = self.checkpoints.for_receipts.take() {
            let patience = match gathering.asked {
                None => Some(UNASKED_PATIENCE),
                Some(Asked::TheFirst) => Some(PATIENCE),
                Some(Asked::Everybody(_)) => None,
            };
            if patience.is_some_and(|patience| now.since(gathering.since) >= patience) {
                self.checkpoints.cosigners.gave_up(now);
                self.ask_for(&mut gathering, now);
            }
            self.checkpoints.for_receipts = Some(gathering);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<NodeName> {
        names.iter().map(|name| NodeName::new(name).unwrap()).collect()
    }
    fn first(of: &[&str]) -> BTreeSet<NodeName> {
        names(of).into_iter().collect()
    }

    #[test]
    fn first_to_answer_is_asked_alone_until_everybody_is_asked_again() {
        let (mut cosigners, others) = (Cosigners::default(), names(&["b", "c"]));
        let whom =
            |cosigners: &mut Cosigners, at| cosigners.whom(others.clone(), 1, UnixMillis(at));
        assert_eq!(whom(&mut cosigners, 5_000), names(&["b", "c"]));
        cosigners.answered(first(&["c"]));
        assert_eq!(whom(&mut cosigners, 5_001), names(&["c"]));
        assert_eq!(whom(&mut cosigners, 5_999), names(&["c"]));
        assert_eq!(whom(&mut cosigners, 6_000), names(&["b", "c"]));
        cosigners.answered(first(&["b"]));
        assert_eq!(whom(&mut cosigners, 6_001), names(&["b"]));
    }

    #[test]
    fn one_that_answers_first_and_then_not_at_all_is_not_asked_alone_for_a_while() {
        let (mut cosigners, others) = (Cosigners::default(), names(&["b", "c"]));
        let whom =
            |cosigners: &mut Cosigners, at| cosigners.whom(others.clone(), 1, UnixMillis(at));
        assert_eq!(whom(&mut cosigners, 5_000), names(&["b", "c"]));
        cosigners.answered(first(&["b"]));
        assert_eq!(whom(&mut cosigners, 5_001), names(&["b"]));
        cosigners.gave_up(UnixMillis(5_101));
        cosigners.answered(first(&["b"]));
        assert_eq!(whom(&mut cosigners, 5_102), names(&["b", "c"]));
        assert_eq!(whom(&mut cosigners, 15_100), names(&["b", "c"]));
        cosigners.answered(first(&["b"]));
        assert_eq!(whom(&mut cosigners, 15_101), names(&["b"]));
    }

    #[test]
    fn where_too_few_of_the_first_are_left_everybody_is_asked() {
        let mut cosigners = Cosigners::default();
        assert_eq!(cosigners.whom(names(&["b", "c", "d"]), 2, UnixMillis(5_000)).len(), 3);
        cosigners.answered(first(&["b", "d"]));
        let asked = |cosigners: &mut Cosigners, silent: &[&str]| {
            cosigners.whom(names(silent), 2, UnixMillis(5_001))
        };
        assert_eq!(asked(&mut cosigners, &["b", "c", "d"]), names(&["b", "d"]));
        // one of them is cut off
        assert_eq!(asked(&mut cosigners, &["b", "c"]), names(&["b", "c"]));
    }
}
