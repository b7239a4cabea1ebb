//! What the demo needs of a cluster, whatever its nodes are: processes, or threads of this one.

use std::collections::BTreeMap;

use casemate_audit::{InclusionReceipt, VerifierKey};
use casemate_client::Scope;
use casemate_ledger::entry::{ApprovalProof, Attachment};
use casemate_proto::governance::SignedChange;
use casemate_proto::manifest::Manifest;
use casemate_proto::stamp::Stamp;
use casemate_proto::{BootId, Denial, Hash32, KeyName, Millis, NodeName, Scheme, UnixMillis};
use casemate_tx::EvmSignature;

use super::DemoError;
use crate::network::Counts;

/// What is sent to a node.
#[derive(Clone, Debug)]
pub enum Submission {
    /// Somebody asks for a signature.
    Request {
        /// Over the body.
        stamp: Stamp,
        /// The body's bytes.
        body: Vec<u8>,
    },
    /// Somebody approves a request.
    Approval {
        /// The approval's body.
        body: Vec<u8>,
        /// Who says so.
        proof: ApprovalProof,
    },
    /// The governors change something.
    Governance {
        /// The change.
        signed: SignedChange,
        /// What travels beside it.
        attachment: Option<Attachment>,
    },
}

/// What a node answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Signed.
    Signed(Signed),
    /// Denied.
    Denied {
        /// Why.
        denial: Denial,
        /// The record of it in the log; a node refuses some things by itself.
        index: Option<u64>,
    },
    /// Waits for approvals.
    Pending {
        /// What approvers sign.
        document: Hash32,
        /// Approvals so far.
        have: u64,
        /// Approvals needed.
        need: u64,
    },
    /// Done: anything but a request for a signature.
    Accepted,
    /// Charged perhaps, and never signed.
    Expired,
    /// The node cannot serve now.
    Busy {
        /// Why.
        reason: String,
        /// When to ask again.
        retry_after: Millis,
    },
}

/// A signature with its proof.
#[derive(Clone, Debug)]
pub struct Signed {
    /// r‖s‖v with v 27 or 28, or 64 bytes Ed25519.
    pub signature: Vec<u8>,
    /// The signed transaction.
    pub raw_transaction: Option<Vec<u8>>,
    /// That it is in the log.
    pub receipt: Receipt,
}

/// Proof that a signature, and the verdict that allowed it, are in the log.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The record that allowed the request.
    pub allowed: InclusionReceipt,
    /// The record of the signature.
    pub signed: InclusionReceipt,
}

/// A live key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name.
    pub name: KeyName,
    /// Its scheme.
    pub scheme: Scheme,
    /// 33 bytes SEC 1 or 32 bytes Ed25519.
    pub public_key: Vec<u8>,
    /// How often its shares were made anew.
    pub epoch: u64,
}

/// A boot's key for checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigner {
    /// Whose.
    pub node: NodeName,
    /// The key.
    pub key: VerifierKey,
}

/// Something submitted whose answer is still to come.
#[derive(Debug)]
#[must_use = "an answer is waited for"]
pub struct Ticket(pub u64);

/// A cluster, seen from outside: each node by its number in the roster.
pub trait Nodes {
    /// The roster.
    fn names(&self) -> Vec<NodeName>;
    /// How many sign.
    fn threshold(&self) -> u64;
    /// What the cluster is meant to be.
    fn manifest(&self) -> Manifest;
    /// What everything that is signed for it names.
    fn scope(&self) -> Scope;
    /// How many times as long as usual it is waited for.
    fn patience(&self) -> u32 {
        1
    }
    /// The cluster's time.
    fn now(&self) -> UnixMillis;
    /// Sends something to a node.
    ///
    /// # Errors
    /// If there is no such node.
    fn submit(&mut self, node: usize, what: Submission) -> Result<Ticket, DemoError>;
    /// Waits for an answer.
    ///
    /// # Errors
    /// If it cannot come any more.
    fn wait(&mut self, ticket: Ticket) -> Result<Answer, DemoError>;
    /// Lets the cluster work for so long, while no answer is waited for.
    fn work(&mut self, time: Millis);
    /// Stops a node for good, whatever it is doing.
    ///
    /// # Errors
    /// If there is no such node.
    fn stop(&mut self, node: usize) -> Result<(), DemoError>;
    /// The newest accepted governance change; the genesis id before the first.
    ///
    /// # Errors
    /// If no node answers.
    fn change_head(&mut self) -> Result<Hash32, DemoError>;
    /// The live keys, in the order of their names; without the cluster's own.
    ///
    /// # Errors
    /// If no node answers.
    fn keys(&mut self) -> Result<Vec<Key>, DemoError>;
    /// The keys that cosign checkpoints: of each node's current boot.
    ///
    /// # Errors
    /// If no node answers.
    fn cosigners(&mut self) -> Result<Vec<Cosigner>, DemoError>;
    /// The files of the auditor's store, with a checkpoint over all that was done so far.
    ///
    /// # Errors
    /// If no node answers.
    fn store(&mut self) -> Result<BTreeMap<String, Vec<u8>>, DemoError>;
    /// What can be done to nodes that are processes; `None` where they are not.
    fn faults(&mut self) -> Option<&mut dyn Faults> {
        None
    }
}

/// What can be done to nodes that are processes of their own, and to the network between them.
pub trait Faults {
    /// Starts a node that was stopped.
    ///
    /// # Errors
    /// If it does not start.
    fn start(&mut self, node: usize) -> Result<(), DemoError>;
    /// How a node says that it is; `None` while it does not say so.
    fn health(&mut self, node: usize) -> Option<Health>;
    /// Turns the network between the nodes hostile, or quiet again.
    fn set_hostile(&mut self, hostile: bool);
    /// What the hostile network does follows from this.
    fn seed(&self) -> u64;
    /// What the network did.
    fn counts(&self) -> Counts;
    /// That every process of a node that was not stopped still runs.
    ///
    /// # Errors
    /// If one has ended, with what it said last.
    fn check_processes(&mut self) -> Result<(), DemoError>;
}

/// How a node says that it is. Nothing of it is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether its enclave is a member of the cluster, heard by a majority.
    pub ready: bool,
    /// Its boot.
    pub boot: Option<BootId>,
    /// How many keys are live.
    pub keys: u64,
    /// Of how many it holds a share.
    pub shares: u64,
    /// The nodes to which its channel is up.
    pub linked: Vec<NodeName>,
}

/// What a node answered, as the demo has it.
///
/// # Errors
/// If it signed with something that is no signature.
pub fn read_door(answer: casemate_door::Answer) -> Result<Answer, DemoError> {
    use casemate_door::Answer as Door;
    let busy = |reason: &str, retry_after| Answer::Busy { reason: reason.to_owned(), retry_after };
    Ok(match answer {
        Door::Signed(signed) => Answer::Signed(Signed {
            signature: wallet_form(signed.signature)?,
            raw_transaction: signed.raw_transaction,
            receipt: Receipt { allowed: signed.receipt.allowed, signed: signed.receipt.signed },
        }),
        Door::Denied(denied) => Answer::Denied { denial: denied.denial, index: denied.index },
        Door::Pending(pending) => {
            Answer::Pending { document: pending.document, have: pending.have, need: pending.need }
        }
        Door::Accepted { .. } => Answer::Accepted,
        Door::Expired(_) => Answer::Expired,
        Door::Recorded { .. } | Door::Unknown => busy("the node does not remember", Millis(0)),
        Door::Busy { retry_after } => busy("the node is busy", retry_after),
    })
}

/// r‖s‖v with v 27 or 28, as wallets have it; Ed25519 as it is.
fn wallet_form(signature: Vec<u8>) -> Result<Vec<u8>, DemoError> {
    let Some((r_s, [v])) = signature.split_first_chunk::<64>() else { return Ok(signature) };
    Ok(EvmSignature::new(r_s, *v == 1)?.r_s_v().to_vec())
}
