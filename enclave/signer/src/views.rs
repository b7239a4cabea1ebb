//! What can be read of a node: replies in its boot's hand.
//!
//! A list of keys waits for a checkpoint that covers the records of all of them and that t boots
//! have just cosigned, so that whoever reads it can check each deposit address (I13). Where none
//! comes in time it goes out with what there is.

use casemate_door::query::{LiveKeyView, MAX_REPLY};
use casemate_door::{
    BootView, ClusterView, FreezeView, KeyView, PendingChangeView, PendingRequestView, Query,
    Reply, SignedReply, Ticket,
};
use casemate_proto::{Millis, UnixMillis};

use crate::event::Output;
use crate::node::Node;

/// Most lists of keys that wait for a checkpoint.
const MAX_ASKS: usize = 256;
/// How long one waits.
const PATIENCE: Millis = Millis(3_000);
/// Most bytes of the parts of a reply that grow; what does not fit is left out.
const ROOM: usize = MAX_REPLY / 8 * 7;

/// Somebody who waits for the keys.
struct Ask {
    ticket: Ticket,
    nonce: [u8; 32],
    since: UnixMillis,
}

/// Who waits for the keys.
#[derive(Default)]
pub(crate) struct Asks {
    keys: Vec<Ask>,
}

impl Asks {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Node {
    /// A reply in this boot's hand to whoever chose this nonce.
    #[must_use]
    pub fn sign_reply(&self, nonce: &[u8; 32], reply: &Reply) -> SignedReply {
        let (boot, reply) = (self.boot_id, casemate_proto::cbor::encode(reply));
        let genesis = self.state.genesis();
        let message = SignedReply::signing_bytes(&genesis, nonce, &boot, &reply);
        SignedReply { reply, boot, signature: self.boot.sign(&message) }
    }

    pub(crate) fn ask(&mut self, ticket: Ticket, query: &Query, now: UnixMillis) {
        let reply = match query {
            Query::Attest { .. } => None,
            Query::Cluster { nonce } => {
                Some(self.sign_reply(nonce, &Reply::Cluster(Box::new(self.cluster_view(now)))))
            }
            Query::PendingRequests { nonce } => {
                Some(self.sign_reply(nonce, &Reply::PendingRequests(self.pending_view())))
            }
            Query::Keys { nonce } if self.asks.keys.len() < MAX_ASKS => {
                self.asks.keys.push(Ask { ticket, nonce: *nonce, since: now });
                return self.drive_checkpoints(now);
            }
            Query::Keys { .. } => None,
        };
        self.out.push(Output::Reply { ticket, reply });
    }

    /// A checkpoint of `size` leaves is cosigned: if it covers every live key's record, whoever
    /// waits for the keys gets them.
    pub(crate) fn prove_keys(&mut self, note: &str, size: u64) {
        let mut live = self.state.keys().values().filter_map(|key| key.live.as_ref());
        if !self.asks.keys.is_empty() && live.all(|live| live.index < size) {
            let asks = core::mem::take(&mut self.asks.keys);
            self.reply_keys(asks, Some((note, size)));
        }
    }

    /// Whoever has waited too long for a checkpoint gets the proofs that the newest one gives.
    pub(crate) fn drive_asks(&mut self, now: UnixMillis) {
        let late: Vec<Ask> =
            self.asks.keys.extract_if(.., |ask| now.since(ask.since) >= PATIENCE).collect();
        if !late.is_empty() {
            let newest = self.newest_checkpoint();
            self.reply_keys(late, newest.as_ref().map(|(size, note)| (note.as_str(), *size)));
        }
    }

    fn reply_keys(&mut self, asks: Vec<Ask>, checkpoint: Option<(&str, u64)>) {
        if asks.is_empty() {
            return;
        }
        let view = Reply::Keys(self.keys_view(checkpoint));
        for Ask { ticket, nonce, .. } in asks {
            let reply = Some(self.sign_reply(&nonce, &view));
            self.out.push(Output::Reply { ticket, reply });
        }
    }

    fn cluster_view(&self, now: UnixMillis) -> ClusterView {
        let state = &self.state;
        let boots = self.roster.names().iter().filter_map(|node| {
            let boot = state.boot(node)?;
            Some(BootView {
                node: node.clone(),
                boot: boot.id,
                key: boot.key,
                measurement: boot.measurement.clone(),
                admitted: boot.admitted,
                reachable: self.roster.is_live(node, now),
            })
        });
        let changes = state.pending_changes().iter().map(|(id, change)| PendingChangeView {
            id: *id,
            envelope: change.envelope.clone(),
            index: change.index,
            seen_at: change.seen_at,
        });
        let freezes =
            state.freezes().iter().map(|(id, f)| FreezeView { id: *id, by: f.by, at: f.at });
        ClusterView {
            genesis: state.genesis(),
            incarnation: state.incarnation(),
            node: self.roster.me().clone(),
            now,
            ledger_time: state.time(),
            size: state.size(),
            root: state.root(),
            version: state.version(),
            confirmed: state.is_confirmed(),
            change_head: state.change_head(),
            policy: state.policy().map(|(_, hash)| hash),
            pending_changes: changes.collect(),
            freezes: freezes.collect(),
            boots: boots.collect(),
            images: state.images().iter().cloned().collect(),
        }
    }

    fn keys_view(&self, checkpoint: Option<(&str, u64)>) -> Vec<KeyView> {
        let state = &self.state;
        let mut room = ROOM;
        let mut views = Vec::new();
        for (name, key) in state.keys() {
            let live = key.live.as_ref().map(|live| {
                let without =
                    self.roster.names().iter().filter(|node| !state.is_holder(name, node));
                let receipt = checkpoint.and_then(|(note, size)| {
                    let receipt = self.key_inclusion(name, size, note)?;
                    room = room.checked_sub(receipt.to_bytes().len())?;
                    Some(receipt)
                });
                LiveKeyView {
                    public_key: live.public_key.clone(),
                    chain_code: live.chain_code,
                    epoch: live.epoch,
                    index: live.index,
                    receipt,
                    without_share: without.cloned().collect(),
                }
            });
            views.push(KeyView { name: name.clone(), scheme: key.scheme, live });
        }
        views
    }

    fn pending_view(&self) -> Vec<PendingRequestView> {
        let mut room = ROOM;
        let views =
            self.state.pending_requests().map(|(credential, id, pending)| PendingRequestView {
                credential: *credential,
                request_id: *id,
                principal: pending.principal.clone(),
                body: pending.body.clone(),
                document: pending.document,
                have: u64::try_from(pending.approvals.len()).unwrap_or(u64::MAX),
                approved_by: pending.approvals.iter().map(|a| a.principal.clone()).collect(),
                expires: pending.expires,
            });
        let fits = |view: &PendingRequestView| {
            let left = room.checked_sub(casemate_proto::cbor::encode(view).len());
            room = left.unwrap_or(0);
            left.is_some()
        };
        views.take_while(fits).collect()
    }
}
