//! How this boot is, for its parent. Nothing here is signed or secret.

use casemate_door::Status;
use casemate_door::frame::Phase;

use crate::core::Common;
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
        linked: linked(common),
        keys: 0,
        shares: 0,
        triples: 0,
        frozen: false,
        counters: Vec::new(),
        durations: Vec::new(),
    }
}

fn linked(common: &Common) -> Vec<casemate_proto::NodeName> {
    let mut names: Vec<_> = common.links.all().map(|link| link.peer.node().clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// Of a member.
pub(crate) fn of_member(member: &Member, common: &Common) -> Status {
    let raft = member.raft_status();
    let view = member.view();
    let stats = &view.stats;
    Status {
        phase: Phase::Member,
        boot: Some(member.boot()),
        genesis: Some(member.genesis()),
        size: view.applied.size,
        published: stats.published,
        leader: raft.leader,
        majority_age: raft.majority_age,
        keys: stats.keys,
        shares: stats.shares,
        triples: stats.triples,
        frozen: stats.frozen,
        counters: stats.counters.clone(),
        durations: stats.durations.clone(),
        ..plain(Phase::Member, common)
    }
}
