//! What the fake cluster makes of governance, approvals, and of questions about its store and itself.

use casemate_api::ready::{Failing, Ready};
use casemate_api::reply::StoreListing;
use casemate_api::{GovernanceBody, Rendered};
use casemate_audit::{Record, SignedNote, StoreWriter};
use casemate_door::{Answer, FreezeView, PendingRequestView, Submission};
use casemate_ledger::{Attachment, Verdict};
use casemate_proto::governance::{Change, FreezerStatement};
use casemate_proto::request::ApprovalBody;
use casemate_proto::stamp::Stamp;
use casemate_proto::{Denial, DenialCode, NodeName, cbor};

use super::World;

impl World {
    /// Takes a change or statement as an honest cluster would.
    pub fn govern(&mut self, node: &NodeName, body: &[u8]) -> Rendered {
        let submission = GovernanceBody::parse(body).unwrap();
        let answer = match submission {
            Submission::Governance { signed, attachment } => {
                let verified = signed.verify(&self.genesis.manifest).unwrap();
                let envelope = verified.envelope();
                if envelope.predecessor != self.change_head {
                    let subject = verified.id();
                    let denial = Denial::new(DenialCode::GovernanceRefused, "it follows another");
                    Answer::Denied(Box::new(self.denial_of(node, None, subject, denial)))
                } else {
                    match (&envelope.change, attachment) {
                        (Change::CreateKey { name, scheme }, _) => {
                            self.made_keys.push((name.clone(), *scheme));
                        }
                        (Change::SetPolicy { policy }, Some(Attachment::Policy(bytes))) => {
                            self.policy = Some((*policy, bytes));
                        }
                        (Change::Unfreeze { freeze }, _) => {
                            self.freezes.retain(|known| known.id != *freeze);
                        }
                        other => panic!("{other:?}"),
                    }
                    self.change_head = verified.id();
                    Answer::Accepted { index: 1, verdict: Verdict::accepted() }
                }
            }
            Submission::Statement(signed) => {
                let verified = signed.verify(&self.genesis.manifest).unwrap();
                let id = verified.id();
                if matches!(signed.statement, FreezerStatement::Freeze { .. })
                    && self.freezes.iter().all(|freeze| freeze.id != id)
                {
                    let (by, at) = (Some(signed.by.credential), self.now());
                    self.freezes.push(FreezeView { id, by, at });
                }
                Answer::Accepted { index: 1, verdict: Verdict::accepted() }
            }
            other => panic!("{other:?}"),
        };
        Rendered::of(&answer).unwrap()
    }

    /// Takes an approval, which makes its request signable.
    pub fn approve(&mut self, stamp: &Stamp, body: &[u8]) -> Rendered {
        let approval = ApprovalBody::parse(body).unwrap();
        let is_it = |view: &PendingRequestView| {
            view.request_id == approval.request_id && view.document == approval.document
        };
        assert!(self.pending.iter().any(is_it));
        self.pending.retain(|view| !is_it(view));
        self.approved.push(stamp.credential);
        let answer = Answer::Accepted { index: 1, verdict: Verdict::accepted() };
        Rendered::of(&answer).unwrap()
    }

    /// The files of an auditors' store with everything in it.
    pub fn store(&self) -> std::collections::BTreeMap<String, Vec<u8>> {
        let mut writer = StoreWriter::new(&cbor::encode(&self.genesis));
        for leaf in &self.leaves {
            writer.append(&Record::parse(leaf).unwrap()).unwrap();
        }
        if let Some((hash, bytes)) = &self.policy {
            writer.attach(hash, bytes);
        }
        let two: Vec<_> = self.nodes.values().take(2).collect();
        let note = SignedNote::parse(self.note(&two).as_bytes()).unwrap();
        writer.commit(&note).unwrap().into_iter().collect()
    }

    /// What is below `/v1/store`.
    pub fn store_at(&mut self, path: &str, query: &str) -> (u16, Vec<u8>) {
        let store = self.store();
        if let Some(path) = path.strip_prefix('/') {
            self.fetched.push(path.to_owned());
            return store.get(path).map_or((404, Vec::new()), |bytes| (200, bytes.clone()));
        }
        let folder = query.strip_prefix("folder=").unwrap().to_owned();
        let names = store.keys().filter_map(|path| path.strip_prefix(&format!("{folder}/")));
        let names = names.map(str::to_owned).collect();
        let listing = StoreListing { folder, names, next: None };
        (200, serde_json::to_vec(&listing).unwrap())
    }

    pub fn ready(&self, node: &NodeName) -> (u16, Vec<u8>) {
        let ready = Ready {
            ready: false,
            failing: vec![Failing::Majority],
            detail: None,
            node: node.clone(),
            enclave: None,
        };
        (503, serde_json::to_vec(&ready).unwrap())
    }
}
