//! What other boots answer, and how far openraft gets to believe it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, NodeName};
use openraft::error::RPCError;
use openraft::network::{RPCOption, RaftNetwork as _, RaftNetworkFactory as _};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::storage::RaftLogStorage as _;
use openraft::{EntryPayload, LeaderId};
use tokio::sync::{mpsc, watch};

use crate::Out;
use crate::fatal::Halt;
use crate::log_store::LogStore;
use crate::network::{Client, Factory, Peers, Reply};
use crate::pieces::Outbox;
use crate::types::{LogId, LogPosition, Member, NodeId, RaftEntry, TypeConfig, Vote};
use crate::view::AppliedView;
use crate::wire::{Answer, Message, VoteRecord};

const ME: BootId = BootId::new([1; 32]);
const PEER: BootId = BootId::new([2; 32]);
const OTHER: BootId = BootId::new([3; 32]);
const TERM: u64 = 7;

fn id(index: u64) -> LogId {
    LogId::new(LeaderId::new(TERM, NodeId(ME)), index)
}

fn append(prev: Option<u64>, count: u64) -> AppendEntriesRequest<TypeConfig> {
    let first = prev.map_or(0, |prev| prev + 1);
    let entries = (first..first + count)
        .map(|index| RaftEntry { log_id: id(index), payload: EntryPayload::Blank })
        .collect();
    AppendEntriesRequest {
        vote: Vote::new_committed(TERM, NodeId(ME)),
        prev_log_id: prev.map(id),
        leader_commit: None,
        entries,
    }
}

struct Desk {
    peers: Arc<Peers>,
    client: Client,
    out: mpsc::Receiver<Out>,
    view: watch::Sender<AppliedView>,
}

async fn desk() -> Desk {
    let view = AppliedView {
        size: 0,
        root: Hash32::new([0; 32]),
        recent: Vec::new(),
        boots: Arc::default(),
        retired: Arc::default(),
        admits_from: Arc::default(),
        time: casemate_proto::UnixMillis(0),
        images: Arc::default(),
        version: 1,
    };
    let (sender, out) = mpsc::channel(64);
    let (view, applied) = watch::channel(view);
    let mut log = LogStore::new(None, Halt::new());
    log.save_vote(&Vote::new_committed(TERM, NodeId(ME))).await.unwrap();
    let backoff = Duration::from_millis(100);
    let peers = Arc::new(Peers::new(ME, Outbox::new(sender), log, applied, backoff));
    peers.set_link(PEER, NodeName::new("peer").unwrap(), true);
    let client = Factory(Arc::clone(&peers)).new_client(NodeId(PEER), &Member(None)).await;
    Desk { peers, client, out, view }
}

impl Desk {
    /// The number of the request that was sent last.
    fn sent(&mut self) -> u64 {
        let Ok(Out::Send { to, bytes }) = self.out.try_recv() else { panic!("nothing sent") };
        assert_eq!(to, PEER);
        match Message::decode(&bytes).unwrap() {
            Message::Append { id, .. } | Message::Vote { id, .. } => id,
            other => panic!("{other:?}"),
        }
    }

    async fn append(
        mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        answer: Answer,
    ) -> (Self, Option<AppendEntriesResponse<NodeId>>) {
        let option = RPCOption::new(Duration::from_secs(1));
        let mut client = self.client;
        let asked = tokio::spawn(async move {
            let answer = client.append_entries(rpc, option).await;
            (client, answer)
        });
        tokio::task::yield_now().await;
        let Ok(Out::Send { bytes, .. }) = self.out.try_recv() else { panic!("nothing sent") };
        let Message::Append { id, .. } = Message::decode(&bytes).unwrap() else { panic!() };
        self.peers.answered(PEER, id, Reply::Appended(answer));
        let (client, answer) = asked.await.unwrap();
        self.client = client;
        (self, answer.ok())
    }

    async fn vote(self, answer: Reply) -> Option<VoteResponse<NodeId>> {
        let Self { peers, mut client, mut out, view: _view } = self;
        let rpc = VoteRequest::new(Vote::new(TERM + 1, NodeId(ME)), None);
        let option = RPCOption::new(Duration::from_secs(1));
        let asked = tokio::spawn(async move { client.vote(rpc, option).await });
        tokio::task::yield_now().await;
        let Ok(Out::Send { bytes, .. }) = out.try_recv() else { panic!("nothing sent") };
        let Message::Vote { id, .. } = Message::decode(&bytes).unwrap() else { panic!() };
        peers.answered(PEER, id, answer);
        asked.await.unwrap().ok()
    }
}

fn record(term: u64, boot: BootId, leads: bool) -> VoteRecord {
    VoteRecord { term, boot, leads }
}

#[tokio::test]
async fn an_append_that_is_done_is_believed() {
    let (_, answer) = desk().await.append(append(None, 3), Answer::Done).await;
    assert_eq!(answer, Some(AppendEntriesResponse::Success));
}

#[tokio::test]
async fn a_conflict_is_believed_where_nothing_was_acknowledged() {
    let (_, answer) = desk().await.append(append(Some(4), 1), Answer::Conflict).await;
    assert_eq!(answer, Some(AppendEntriesResponse::Conflict));
}

#[tokio::test(start_paused = true)]
async fn a_follower_cannot_take_back_what_it_acknowledged() {
    let (desk, _) = desk().await.append(append(Some(4), 3), Answer::Done).await;
    let (desk, answer) = desk.append(append(Some(7), 1), Answer::Conflict).await;
    assert_eq!(answer, None);
    // a heartbeat, too, of one that was not heard for a while
    tokio::time::advance(Duration::from_millis(201)).await;
    let (desk, answer) = desk.append(append(Some(3), 0), Answer::Conflict).await;
    assert_eq!(answer, None);
    // above what it acknowledged it may conflict
    let (_, answer) = desk.append(append(Some(9), 1), Answer::Conflict).await;
    assert_eq!(answer, Some(AppendEntriesResponse::Conflict));
}

/// A heartbeat that must not be waited for. Its number.
async fn beat(desk: &mut Desk, prev: u64) -> u64 {
    let option = RPCOption::new(Duration::from_secs(1));
    let answer = desk.client.append_entries(append(Some(prev), 0), option).await;
    assert_eq!(answer.unwrap(), AppendEntriesResponse::Success);
    desk.sent()
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_is_waited_for_unless_its_follower_said_yes_a_moment_ago() {
    let (mut desk, _) = desk().await.append(append(Some(4), 3), Answer::Done).await;
    for _ in 0..3 {
        let number = beat(&mut desk, 7).await;
        tokio::time::advance(Duration::from_millis(150)).await;
        desk.peers.answered(PEER, number, Reply::Appended(Answer::Done));
    }
    beat(&mut desk, 7).await;
    // no answer for longer than two heartbeats: this one is waited for, and believed
    tokio::time::advance(Duration::from_millis(201)).await;
    let option = RPCOption::new(Duration::from_secs(1));
    let asked = desk.client.append_entries(append(Some(7), 0), option);
    assert!(tokio::time::timeout(Duration::from_millis(100), asked).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_late_no_to_a_heartbeat_has_the_next_one_waited_for() {
    for no in [Answer::Conflict, Answer::HigherVote(record(TERM + 1, OTHER, false))] {
        let (mut desk, _) = desk().await.append(append(Some(4), 3), Answer::Done).await;
        let number = beat(&mut desk, 7).await;
        // another boot's word about it counts for nothing
        desk.peers.answered(OTHER, number, Reply::Appended(no.clone()));
        let number = beat(&mut desk, 7).await;
        desk.peers.answered(PEER, number, Reply::Appended(no.clone()));
        let option = RPCOption::new(Duration::from_secs(1));
        let asked = desk.client.append_entries(append(Some(7), 0), option);
        assert!(tokio::time::timeout(Duration::from_millis(10), asked).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_heartbeat_names_that_was_never_acknowledged_is_waited_for() {
    let (mut desk, _) = desk().await.append(append(Some(4), 3), Answer::Done).await;
    let option = RPCOption::new(Duration::from_secs(1));
    let asked = desk.client.append_entries(append(Some(8), 0), option);
    assert!(tokio::time::timeout(Duration::from_millis(10), asked).await.is_err());
}

#[tokio::test]
async fn a_conflict_with_the_empty_log_is_not_believed() {
    let (_, answer) = desk().await.append(append(None, 1), Answer::Conflict).await;
    assert_eq!(answer, None);
}

#[tokio::test]
async fn a_higher_vote_is_believed_as_a_promise_and_never_as_leadership() {
    let higher = Answer::HigherVote(record(TERM + 1, OTHER, true));
    let (_, answer) = desk().await.append(append(None, 1), higher).await;
    let promised = Vote::new(TERM + 1, NodeId(OTHER));
    assert_eq!(answer, Some(AppendEntriesResponse::HigherVote(promised)));
}

#[tokio::test]
async fn i7_nobody_makes_this_boot_a_leader_by_naming_it_in_a_higher_vote() {
    for leads in [true, false] {
        let higher = Answer::HigherVote(record(TERM + 1, ME, leads));
        let (_, answer) = desk().await.append(append(None, 1), higher).await;
        assert_eq!(answer, None);
        let answer = Reply::Voted { vote: record(TERM + 2, ME, leads), granted: true, last: None };
        assert_eq!(desk().await.vote(answer).await, None);
    }
}

#[tokio::test]
async fn a_vote_that_is_not_higher_or_leaps_beyond_belief_is_not_believed() {
    for term in [TERM - 1, TERM + (1 << 33)] {
        let higher = Answer::HigherVote(record(term, OTHER, false));
        let (_, answer) = desk().await.append(append(None, 1), higher).await;
        assert_eq!(answer, None);
    }
}

#[tokio::test]
async fn a_granted_vote_counts_only_for_what_was_asked() {
    let asked = record(TERM + 1, ME, false);
    let granted = desk().await.vote(Reply::Voted { vote: asked, granted: true, last: None }).await;
    assert!(granted.unwrap().vote_granted);
    let other = record(TERM + 1, OTHER, true);
    let granted = desk().await.vote(Reply::Voted { vote: other, granted: true, last: None }).await;
    let granted = granted.unwrap();
    assert!(!granted.vote_granted);
    assert!(!granted.vote.committed);
}

#[tokio::test]
async fn a_leader_goes_past_a_promise_to_a_retired_boot_so_that_who_gave_it_is_led_again() {
    let desk = desk().await;
    desk.view.send_modify(|view| view.retired = Arc::new(BTreeSet::from([OTHER])));
    let higher = Answer::HigherVote(record(TERM + 1, OTHER, false));
    let (_, answer) = desk.append(append(None, 1), higher).await;
    let promised = Vote::new(TERM + 1, NodeId(OTHER));
    assert_eq!(answer, Some(AppendEntriesResponse::HigherVote(promised)));
}

#[tokio::test]
async fn a_boot_that_lags_behind_learns_it_from_who_voted_for_it_before() {
    let earlier = record(TERM - 1, ME, false);
    let further = Some(LogPosition::of(&id(90)));
    let answer = Reply::Voted { vote: earlier, granted: false, last: further };
    let refused = desk().await.vote(answer).await.unwrap();
    assert!(!refused.vote_granted);
    assert_eq!(refused.last_log_id, Some(id(90)));
    assert_eq!(refused.vote, Vote::new(TERM - 1, NodeId(ME)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_another_boot_or_to_another_request_does_not_count() {
    let mut desk = desk().await;
    let option = RPCOption::new(Duration::from_secs(1));
    let asked = desk.client.append_entries(append(None, 1), option);
    let outcome = {
        let peers = Arc::clone(&desk.peers);
        tokio::pin!(asked);
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut asked).await.is_err());
        for id in 0..4 {
            peers.answered(OTHER, id, Reply::Appended(Answer::Done));
        }
        for id in 1..4 {
            peers.answered(PEER, id, Reply::Appended(Answer::Done));
        }
        tokio::time::timeout(Duration::from_millis(50), asked).await
    };
    assert!(outcome.is_err());
    assert_eq!(desk.sent(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_is_asked_for_again_waits_for_the_first() {
    let mut desk = desk().await;
    for _ in 0..5 {
        let option = RPCOption::new(Duration::from_secs(1));
        let once = desk.client.append_entries(append(None, 2), option);
        assert!(tokio::time::timeout(Duration::from_millis(150), once).await.is_err());
    }
    let id = desk.sent();
    assert!(desk.out.try_recv().is_err(), "it was sent again");
    desk.peers.answered(PEER, id, Reply::Appended(Answer::Done));
    let option = RPCOption::new(Duration::from_secs(1));
    let answer = desk.client.append_entries(append(None, 2), option).await;
    assert_eq!(answer.unwrap(), AppendEntriesResponse::Success);
}

#[tokio::test(start_paused = true)]
async fn another_append_and_a_heartbeat_are_sent_at_once() {
    let mut desk = desk().await;
    for (request, rpc) in [append(None, 2), append(None, 3), append(Some(2), 0), append(Some(2), 0)]
        .into_iter()
        .enumerate()
    {
        let option = RPCOption::new(Duration::from_secs(1));
        let once = desk.client.append_entries(rpc, option);
        assert!(tokio::time::timeout(Duration::from_millis(1), once).await.is_err());
        assert_eq!(desk.sent(), request as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn a_boot_without_a_channel_or_retired_is_asked_nothing() {
    let mut desk = desk().await;
    desk.view.send_modify(|view| view.retired = Arc::new(BTreeSet::from([PEER])));
    let option = || RPCOption::new(Duration::from_secs(1));
    let answer = desk.client.append_entries(append(None, 1), option()).await;
    assert!(matches!(answer, Err(RPCError::Unreachable(_))));
    desk.view.send_modify(|view| view.retired = Arc::default());
    desk.peers.set_link(PEER, NodeName::new("peer").unwrap(), false);
    let answer = desk.client.append_entries(append(None, 1), option()).await;
    assert!(matches!(answer, Err(RPCError::Unreachable(_))));
    assert!(desk.out.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_fails_when_its_channel_goes_down() {
    let mut desk = desk().await;
    let peers = Arc::clone(&desk.peers);
    let option = RPCOption::new(Duration::from_secs(1));
    let asked = desk.client.append_entries(append(None, 1), option);
    let down = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        peers.set_link(PEER, NodeName::new("peer").unwrap(), false);
    };
    let (answer, ()) = tokio::join!(asked, down);
    assert!(matches!(answer, Err(RPCError::Network(_))));
}

#[tokio::test(start_paused = true)]
async fn requests_to_one_boot_are_bounded() {
    let desk = desk().await;
    let mut waiting = Vec::new();
    for _ in 0..40 {
        let mut client =
            Factory(Arc::clone(&desk.peers)).new_client(NodeId(PEER), &Member(None)).await;
        waiting.push(tokio::spawn(async move {
            let option = RPCOption::new(Duration::from_secs(1));
            client.append_entries(append(None, 1), option).await
        }));
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(waiting.iter().filter(|task| task.is_finished()).count(), 8);
    // what is given up makes room again
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut client = Factory(Arc::clone(&desk.peers)).new_client(NodeId(PEER), &Member(None)).await;
    let option = RPCOption::new(Duration::from_secs(1));
    let once = client.append_entries(append(None, 1), option);
    assert!(tokio::time::timeout(Duration::from_millis(5), once).await.is_err());
}

#[test]
fn positions_and_votes_come_back_as_they_went() {
    let position = LogPosition::of(&id(5));
    assert_eq!(position.id(), id(5));
    for vote in [Vote::new(3, NodeId(PEER)), Vote::new_committed(3, NodeId(PEER))] {
        assert_eq!(VoteRecord::of(&vote).vote(), vote);
    }
}
