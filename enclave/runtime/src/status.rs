//! How this boot is, for its parent. Nothing here is signed or secret.

use casemate_door::Status;
use casemate_door::frame::Phase;
use casemate_proto::NodeName;

use crate::core::Common;
use crate::links::Link;
use crate::member::Member;

/// Before it is a member.
pub(crate) fn plain(phase: Phase, common: &Common) -> Status {
    Status {
        phase,
        boot: None,
        genesis: None,
        now: common.platform.clock.now(),
        size: 0,
        published: 0,
        leader: None,
        majority_age: None,
        linked: linked(common, |_| true),
        keys: 0,
        shares: 0,
        triples: 0,
        frozen: false,
        counters: Vec::new(),
        durations: Vec::new(),
    }
}

fn linked(common: &Common, counts: impl Fn(&Link) -> bool) -> Vec<NodeName> {
    let links = common.links.all().filter(|link| counts(link));
    let mut names: Vec<_> = links.map(|link| link.peer.node().clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// Of a member: the node's own, with what replication and the links know.
pub(crate) fn of_member(member: &Member, common: &Common) -> Status {
    let raft = member.raft_status();
    let status = member.node_status();
    // not counted on before Raft does
    let joining = status.phase == Phase::Member && !raft.is_voter;
    Status {
        phase: if joining { Phase::Joining } else { status.phase },
        now: common.platform.clock.now(),
        leader: raft.leader,
        majority_age: raft.majority_age,
        // those of the birth carry nothing of a member's
        linked: linked(common, |link| link.scope == member.scope()),
        ..status
    }
}
