//! What people decide: approvals, governance changes, freezers' statements.
//!
//! A node's word that it recorded one is not signed. What is believed is the cluster afterwards: that
//! t attested nodes show the change, the freeze or the approval as applied.

use std::collections::BTreeMap;
use std::time::Duration;

use casemate_api::header::STAMP_HEADER;
use casemate_api::{GovernanceBody, MAX_ANSWER, route};
use casemate_door::{Answer, PendingRequestView, SignedDenial, Submission};
use casemate_ledger::Attachment;
use casemate_proto::governance::{
    Change, ChangeEnvelope, FreezerStatement, SignedChange, SignedStatement,
};
use casemate_proto::hash::sha256;
use casemate_proto::ids::Hash32;
use casemate_proto::request::ApprovalBody;
use casemate_proto::stamp::Method;
use casemate_proto::{BootId, CredentialId, Millis, UnixMillis};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::belief::{Belief, GivenView};
use crate::client::{Client, now};
use crate::credential::{Scope, Sign, sign_statement, stamp};
use crate::denial::{self, AskedOf, VerifiedDenial};
use crate::error::ClientError;
use crate::fault::{DenialFault, NodeFailure, NodeFault};
use crate::http::Bounds;
use crate::sign::{Pauses, STAMP_MARGIN};

/// How long something that a host calls recorded may take to show.
const RECORDED_PATIENCE: Duration = Duration::from_secs(2);

/// A submission to one node.
struct Post {
    route: &'static str,
    header: Option<(&'static str, String)>,
    body: Vec<u8>,
    credential: Option<CredentialId>,
    subject: Hash32,
    newest: UnixMillis,
}

/// How one node answered a submission; only the denial is proved.
enum Posted {
    Recorded,
    Denied(Box<VerifiedDenial>),
    Failed(NodeFailure),
}

/// A host's word that a submission was recorded. It keeps the others from being asked for a while only.
#[derive(Clone, Copy, Default)]
struct Recorded(Option<Instant>);

impl Recorded {
    fn is_so(self) -> bool {
        self.0.is_some_and(|since| since.elapsed() < RECORDED_PATIENCE)
    }
}

/// Refusals of one submission, by the boots that gave them. One of them alone settles nothing: the node
/// may be behind, and not have applied yet what the submission follows.
#[derive(Default)]
struct Refusals(BTreeMap<BootId, Box<VerifiedDenial>>);

impl Refusals {
    /// Takes one, and gives its words.
    fn add(&mut self, denial: Box<VerifiedDenial>) -> String {
        let said = denial.denial().denial.to_string();
        self.0.insert(denial.denial().boot, denial);
        said
    }
    fn are(&self, need: usize) -> bool {
        self.0.len() >= need
    }
    fn into_error(self) -> ClientError {
        let newest = self.0.into_values().max_by_key(|denial| denial.denial().at);
        newest.map_or(ClientError::Disagreement { what: "the submission" }, ClientError::Refused)
    }
}

impl Client {
    async fn post(&self, at: usize, post: &Post) -> Result<Posted, ClientError> {
        let genesis = self.genesis().await?;
        let posted = async {
            let mut boot = self.attested(at, &genesis, false).await?;
            let bounds = Bounds { body: MAX_ANSWER, time: self.settings().answer };
            let url = self.url(at, post.route)?;
            let (header, body) = (post.header.clone(), post.body.clone());
            let response = self.http().post(url, header, body, bounds).await?;
            let (denial, expired): (Box<SignedDenial>, bool) = match Self::answer(&response)? {
                Answer::Denied(denial) => (denial, false),
                Answer::Expired(denial) => (denial, true),
                Answer::Busy { retry_after } => {
                    let retry_after = Some(Duration::from_millis(retry_after.0));
                    return Err(NodeFault::Busy { retry_after });
                }
                Answer::Unknown => return Err(NodeFault::OtherReply),
                Answer::Accepted { .. }
                | Answer::Pending(_)
                | Answer::Signed(_)
                | Answer::Recorded { .. } => return Ok(Posted::Recorded),
            };
            let asked = AskedOf {
                genesis: self.genesis_id(),
                credential: post.credential,
                subject: post.subject,
                newest: post.newest,
            };
            let mut verified = denial::verify((*denial).clone(), expired, &boot, &asked);
            if matches!(verified, Err(DenialFault::OtherBoot { .. })) {
                boot = self.attested(at, &genesis, true).await?;
                verified = denial::verify(*denial, expired, &boot, &asked);
            }
            Ok(Posted::Denied(Box::new(verified?)))
        };
        Ok(posted.await.unwrap_or_else(|fault| Posted::Failed(self.failure(at, fault))))
    }

    /// Submits a change to one node after another until t nodes show it as applied, or it is refused.
    ///
    /// Submitting it again does no harm: a change is accepted once.
    ///
    /// # Errors
    /// If it is not signed by a quorum, refused, or not seen in time.
    pub async fn submit_change(
        &self,
        signed: &SignedChange,
        policy: Option<Vec<u8>>,
        deadline: Duration,
    ) -> Result<std::sync::Arc<Belief>, ClientError> {
        let genesis = self.genesis().await?;
        signed
            .verify(&genesis.manifest)
            .map_err(|error| ClientError::Change { reason: error.to_string() })?;
        if signed.envelope.genesis != self.genesis_id() {
            let reason = format!("it is for cluster {}", signed.envelope.genesis);
            return Err(ClientError::Change { reason });
        }
        let id = signed.envelope.id();
        let attachment = policy.map(Attachment::Policy);
        let submission = Submission::Governance { signed: signed.clone(), attachment };
        let body = GovernanceBody::of(&submission).map(|body| body.to_body()).unwrap_or_default();
        let shows = |given: &GivenView| {
            let view = &given.view;
            view.change_head == id || view.pending_changes.iter().any(|change| change.id == id)
        };
        self.submit_until("the change", route::GOVERNANCE, body, id, deadline, shows).await
    }

    /// Submits a freezer's statement to every node at once, since each obeys a freeze on receipt, and
    /// until t nodes show it as applied.
    ///
    /// # Errors
    /// If it is refused, or not seen in time.
    pub async fn submit_statement(
        &self,
        signed: &SignedStatement,
        deadline: Duration,
    ) -> Result<std::sync::Arc<Belief>, ClientError> {
        let id = signed.id();
        let submission = Submission::Statement(signed.clone());
        let body = GovernanceBody::of(&submission).map(|body| body.to_body()).unwrap_or_default();
        let mut telling = JoinSet::new();
        for at in self.rotation() {
            let (client, body, newest) = (self.clone(), body.clone(), floor_of(now()?));
            let post = Post {
                route: route::GOVERNANCE,
                header: None,
                body,
                credential: None,
                subject: id,
                newest,
            };
            telling.spawn(async move { client.post(at, &post).await });
        }
        let shows = |given: &GivenView| match &signed.statement {
            FreezerStatement::Freeze { .. } => {
                given.view.freezes.iter().any(|freeze| freeze.id == id)
            }
            FreezerStatement::Veto { change } => {
                given.view.pending_changes.iter().all(|pending| pending.id != *change)
            }
            FreezerStatement::Heartbeat { pending, .. } => {
                let unseen = |id: &Hash32| {
                    given.view.pending_changes.iter().any(|c| c.id == *id && c.seen_at.is_none())
                };
                !pending.iter().any(unseen)
            }
        };
        let seen =
            self.submit_until("the statement", route::GOVERNANCE, body, id, deadline, shows).await;
        telling.abort_all();
        seen
    }

    async fn submit_until(
        &self,
        what: &'static str,
        route: &'static str,
        body: Vec<u8>,
        subject: Hash32,
        deadline: Duration,
        shows: impl Fn(&GivenView) -> bool,
    ) -> Result<std::sync::Arc<Belief>, ClientError> {
        let started = Instant::now();
        let until = started.checked_add(deadline).unwrap_or(started);
        let genesis = self.genesis().await?;
        let need = usize::try_from(genesis.manifest.threshold).unwrap_or(usize::MAX);
        let mut pauses = Pauses::new(self);
        let mut last = String::from("no node answered");
        let mut refused = Refusals::default();
        let (mut recorded, mut nodes) = (Recorded::default(), self.rotation());
        loop {
            if !recorded.is_so() {
                if nodes.is_empty() {
                    nodes = self.rotation();
                }
                let Some(at) = nodes.pop() else { break };
                let newest = floor_of(self.cluster_time().await.unwrap_or(now()?));
                let (header, body) = (None, body.clone());
                let post = Post { route, header, body, credential: None, subject, newest };
                match self.post(at, &post).await? {
                    Posted::Recorded => recorded = Recorded(Some(Instant::now())),
                    Posted::Denied(denial) if denial.is_passing() => {
                        last = denial.denial().denial.to_string();
                    }
                    Posted::Denied(denial) => last = refused.add(denial),
                    Posted::Failed(failure) => last = failure.to_string(),
                }
            }
            // what was accepted by an earlier try is denied now, since it cannot follow itself
            match self.belief(true).await {
                Ok(belief) => {
                    let seen = belief.views().iter().filter(|given| shows(given)).count();
                    if seen >= need {
                        return Ok(belief);
                    }
                    if recorded.is_so() {
                        last = format!("{seen} of {need} nodes show it");
                    }
                    if seen == 0 && refused.are(need) {
                        return Err(refused.into_error());
                    }
                }
                Err(error) => last = error.to_string(),
            }
            pauses.wait(None, until).await;
            if Instant::now() >= until {
                break;
            }
        }
        Err(ClientError::NotSeen { what, waited: started.elapsed(), last })
    }

    /// A change with what it is bound to now: this cluster, and the newest accepted change.
    ///
    /// # Errors
    /// If too few nodes can be heard, or they do not agree on the newest change.
    pub async fn envelope(
        &self,
        change: Change,
        life: Millis,
    ) -> Result<ChangeEnvelope, ClientError> {
        let belief = self.belief(true).await?;
        let predecessor =
            belief.change_head().ok_or(ClientError::Disagreement { what: "the newest change" })?;
        Ok(ChangeEnvelope {
            genesis: self.genesis_id(),
            incarnation: belief.incarnation(),
            predecessor,
            expires: belief.cluster_time(now()?).saturating_add(life),
            change,
        })
    }

    /// A freezer's statement, as of now.
    ///
    /// # Errors
    /// If the signer does not sign, or too few nodes can be heard to know the incarnation.
    pub async fn statement(
        &self,
        signer: &dyn Sign,
        statement: FreezerStatement,
    ) -> Result<SignedStatement, ClientError> {
        let belief = self.belief(false).await?;
        let scope = Scope { genesis: self.genesis_id(), incarnation: belief.incarnation() };
        Ok(sign_statement(signer, scope, statement, belief.cluster_time(now()?))?)
    }

    /// Approves a pending request: the document that its view names, which the caller has checked.
    ///
    /// Returns when an attested node no longer lists the request, or lists one more approval.
    ///
    /// # Errors
    /// If the approval is refused, or not seen in time.
    pub async fn approve(
        &self,
        pending: &PendingRequestView,
        signer: &dyn Sign,
        deadline: Duration,
    ) -> Result<(), ClientError> {
        let started = Instant::now();
        let until = started.checked_add(deadline).unwrap_or(started);
        let body = ApprovalBody {
            credential: pending.credential,
            request_id: pending.request_id,
            document: pending.document,
        };
        let body = body.to_body().into_bytes();
        let (mut pauses, mut nodes) = (Pauses::new(self), self.rotation());
        let (mut recorded, mut last) = (Recorded::default(), String::from("no node answered"));
        let genesis = self.genesis().await?;
        let need = usize::try_from(genesis.manifest.threshold).unwrap_or(usize::MAX);
        let mut refused = Refusals::default();
        loop {
            if !recorded.is_so() {
                if nodes.is_empty() {
                    nodes = self.rotation();
                }
                let Some(at) = nodes.pop() else { break };
                match self.post(at, &self.approval(&body, signer).await?).await? {
                    Posted::Recorded => recorded = Recorded(Some(Instant::now())),
                    Posted::Denied(denial) if denial.is_passing() => {
                        last = denial.denial().denial.to_string();
                    }
                    Posted::Denied(denial) => last = refused.add(denial),
                    Posted::Failed(failure) => last = failure.to_string(),
                }
            }
            // a second try is denied when the first was recorded
            match self.pending().await {
                Ok((_, list)) => {
                    let same = |view: &&PendingRequestView| {
                        (view.credential, view.request_id)
                            == (pending.credential, pending.request_id)
                    };
                    let now_have = list.iter().find(same).map(|view| view.approved_by.len());
                    let more =
                        now_have.map_or(recorded.is_so(), |have| have > pending.approved_by.len());
                    if more {
                        return Ok(());
                    }
                }
                Err(error) => last = error.to_string(),
            }
            if refused.are(need) {
                return Err(refused.into_error());
            }
            pauses.wait(None, until).await;
            if Instant::now() >= until {
                break;
            }
        }
        Err(ClientError::NotSeen { what: "the approval", waited: started.elapsed(), last })
    }

    async fn approval(&self, body: &[u8], signer: &dyn Sign) -> Result<Post, ClientError> {
        let belief = self.belief(false).await?;
        let scope = Scope { genesis: self.genesis_id(), incarnation: belief.incarnation() };
        let issued = belief.cluster_time(now()?).saturating_sub(STAMP_MARGIN);
        let life = self.settings().stamp_life;
        let stamp = stamp(signer, scope, Method::CreateApproval, body, issued, life)?;
        Ok(Post {
            route: route::APPROVALS,
            header: Some((STAMP_HEADER, stamp.to_header())),
            body: body.to_vec(),
            credential: Some(signer.public_key().id()),
            subject: Hash32::new(sha256(body)),
            newest: issued,
        })
    }
}

/// From when a denial of something unstamped is not taken for an older one.
const fn floor_of(now: UnixMillis) -> UnixMillis {
    now.saturating_sub(STAMP_MARGIN)
}
