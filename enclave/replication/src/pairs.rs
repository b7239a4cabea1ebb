//! What is committed by two.
//!
//! Where two boots are a majority (of three nodes, any two), an entry of a leader's own term is
//! committed as soon as one follower has accepted it: the leader holds it, since it sent it, and the
//! follower holds it too. So that follower need not wait to be told, and the leader need not tell: a
//! round trip less before a share may leave. It is Raft's own rule, only counted by the follower. With
//! more nodes the leader counts, as ever.
//!
//! It is said of a membership only that is applied here, with no other one behind it in the log:
//! then what the leader counts by, up to that entry, is the very same.

use casemate_proto::BootId;

use crate::log_store::LogStore;
use crate::types::{LogPosition, MembershipRecord};
use crate::wire::{Append, Content};

/// Whether two boots are a majority of a membership that is no transition to another.
pub(crate) fn are_majority(membership: &MembershipRecord, one: &BootId, other: &BootId) -> bool {
    let [voters] = membership.voters.as_slice() else { return false };
    one != other && voters.contains(one) && voters.contains(other) && voters.len() / 2 < 2
}

/// Up to where the log is committed once this boot has accepted `append`, by the two of them alone.
/// openraft takes no more of it than it accepts.
pub(crate) fn committed_by(log: &LogStore, me: &BootId, append: &Append) -> Option<LogPosition> {
    let vote = append.vote;
    let last = append.entries.last().map(|entry| entry.at).or(append.prev)?;
    // only its own term's entries: older ones a majority may hold and yet lose
    let is_own = vote.leads && (last.term, last.leader) == (vote.term, vote.boot);
    let has_membership =
        append.entries.iter().any(|entry| matches!(entry.content, Content::Membership(_)));
    let prev = append.prev?;
    if !is_own || has_membership || !log.holds(&prev) {
        return None;
    }
    let membership = log.settled_membership()?;
    are_majority(&membership, me, &vote.boot).then_some(last)
}
