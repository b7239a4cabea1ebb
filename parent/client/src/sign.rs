//! Asking for a signature until it is settled, and never for two.
//!
//! ```text
//! each try    another node, a fresh stamp, the same request id and the same body
//! settled by  a receipt that verifies; a denial that stands for the id (see denial)
//! not by      busy, 503, 504, a broken connection, `pending`, an unsigned refusal, a denial that is
//!             older than the newest stamp or whose code does not stand for the id
//! ```
//!
//! A denial that does not stand for the id but that asking again soon does not change either (an
//! unregistered credential, say) is reported once t nodes gave it. That the same id may still be signed by
//! a stamp that a host kept back is then said in the error, and until when.

use std::collections::BTreeSet;
use std::time::Duration;

use casemate_api::header::STAMP_HEADER;
use casemate_api::{MAX_ANSWER, Outcome as Said, route};
use casemate_door::{Answer, PendingRequestView, Signed, SignedDenial};
use casemate_ledger::payload;
use casemate_proto::stamp::{Method, Stamp};
use casemate_proto::{DenialCode, NodeName, RequestId, UnixMillis};
use tokio::time::Instant;

use crate::attested::AttestedBoot;
use crate::belief::Belief;
use crate::client::{Client, now, status_fault};
use crate::credential::{Scope, Sign, random, stamp};
use crate::denial::{self, AskedOf};
use crate::error::{ClientError, Unsettled};
use crate::fault::{DenialFault, NodeFault, ReceiptFault};
use crate::http::{Bounds, Response};
use crate::keys::PinnedKey;
use crate::request::{Asked, Expected, VerifiedSignature, verify};

/// How far before the cluster's time a stamp is issued: a node whose clock is a little behind takes it,
/// and its denial is not taken for an older one.
pub(crate) const STAMP_MARGIN: casemate_proto::Millis = casemate_proto::Millis(3_000);

/// How a request is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignOptions {
    /// How long it is asked for.
    pub deadline: Duration,
    /// Whether to go on asking while it waits for approval. Otherwise that it waits is returned as
    /// soon as an attested boot says so.
    pub wait_for_approval: bool,
}

impl Default for SignOptions {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(60), wait_for_approval: false }
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Signed, and shown to be in the log.
    Signed(Box<VerifiedSignature>),
    /// Waits for approval, in an attested boot's hand.
    Pending(Box<PendingRequestView>),
}

/// The tries of one request.
struct Tries<'a> {
    client: &'a Client,
    asked: &'a Asked,
    signer: &'a dyn Sign,
    /// When the newest stamp was issued, and when the last of them expires.
    newest: Option<(UnixMillis, UnixMillis)>,
    denied_by: BTreeSet<NodeName>,
    /// Who said for good that it is denied, all of one stamp.
    settled_by: BTreeSet<NodeName>,
    /// That stamp: a newer one could outlive what the first of them stands for.
    stamp: Option<Stamp>,
    asked_afresh: bool,
}

/// What came of one try.
enum Tried {
    Settled(Result<Outcome, ClientError>),
    Open(Unsettled, Again),
}

/// When to try again.
enum Again {
    /// At another node, now.
    Now,
    /// After a pause, of this length at least.
    Later(Option<Duration>),
}

/// Pauses between tries: doubling, with jitter, within bounds.
pub(crate) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(crate) fn new(client: &Client) -> Self {
        let settings = client.settings();
        Self { next: settings.first_pause, longest: settings.longest_pause }
    }

    /// Waits, at most until `deadline`.
    pub(crate) async fn wait(&mut self, least: Option<Duration>, deadline: Instant) {
        let base = self.next.min(self.longest);
        self.next = base.saturating_mul(2).min(self.longest);
        // between three and five quarters of it, so that clients do not come in step
        let [jitter] = random::<1>();
        let quarter = base.checked_div(4).unwrap_or(base);
        let spread = quarter.saturating_mul(u32::from(jitter)).checked_div(128).unwrap_or(quarter);
        let pause =
            base.saturating_sub(quarter).saturating_add(spread).max(least.unwrap_or_default());
        let until = Instant::now().checked_add(pause).unwrap_or(deadline);
        tokio::time::sleep_until(until.min(deadline)).await;
    }
}

impl Client {
    /// Asks for a signature until it is settled or the deadline has passed.
    ///
    /// To ask again after an error that is not settled ([`ClientError::is_settled`]), ask with the same
    /// request: the cluster gives one outcome for one request id.
    ///
    /// # Errors
    /// If the request is denied, is not one that an enclave would sign, or is not settled in time.
    pub async fn sign(
        &self,
        asked: &Asked,
        signer: &dyn Sign,
        options: &SignOptions,
    ) -> Result<Outcome, ClientError> {
        let started = Instant::now();
        let deadline = started.checked_add(options.deadline).unwrap_or(started);
        let mut pauses = Pauses::new(self);
        let mut tries = Tries {
            client: self,
            asked,
            signer,
            newest: None,
            denied_by: BTreeSet::new(),
            settled_by: BTreeSet::new(),
            stamp: None,
            asked_afresh: false,
        };
        let mut last = Unsettled::Nothing;
        let mut nodes = Vec::new();
        loop {
            if nodes.is_empty() {
                nodes = self.rotation();
                nodes.reverse();
            }
            let Some(at) = nodes.pop() else { break };
            let once = tries.once(at, options.wait_for_approval);
            let tried = match tokio::time::timeout_at(deadline, once).await {
                Ok(tried) => tried,
                Err(_) => break,
            };
            let again = match tried {
                Tried::Settled(outcome) => return outcome,
                Tried::Open(why, again) => {
                    last = why;
                    again
                }
            };
            match again {
                Again::Now if !nodes.is_empty() => {}
                Again::Now => pauses.wait(None, deadline).await,
                Again::Later(least) => pauses.wait(least, deadline).await,
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        let (request_id, waited) = (asked.request().request_id, started.elapsed());
        Err(ClientError::NotSettled { request_id, waited, last })
    }

    /// Reads what answers a submission; a problem of the parent's own is a fault or a wish to wait.
    pub(crate) fn answer(response: &Response) -> Result<Answer, NodeFault> {
        let status = response.status;
        match Said::read(status, &response.body) {
            Ok(Said::Answer(answer)) => Ok(answer),
            Ok(Said::Problem(_)) if matches!(status, 503 | 504 | 408 | 429) => {
                Err(NodeFault::Busy { retry_after: response.retry_after })
            }
            // a proxy between says the same in its own words
            Err(_) if matches!(status, 502..=504 | 408 | 429) => {
                Err(NodeFault::Busy { retry_after: response.retry_after })
            }
            Ok(Said::Problem(problem)) => {
                Err(NodeFault::Status { status, detail: problem.to_string() })
            }
            Err(_) if status >= 400 => Err(status_fault(status, &response.body)),
            Err(error) => Err(NodeFault::Body { reason: error.to_string() }),
        }
    }
}

impl Tries<'_> {
    fn request_id(&self) -> RequestId {
        self.asked.request().request_id
    }

    /// What everything needs first: the cluster, the key, and that the key signs such a payload.
    async fn prepare(&self) -> Result<(std::sync::Arc<Belief>, PinnedKey), ClientError> {
        let belief = self.client.belief(false).await?;
        let request = self.asked.request();
        let key = self.client.key(&request.key).await?;
        payload::check_scheme(&request.key, key.scheme(), &request.payload)
            .map_err(|denial| ClientError::WouldBeDenied(Box::new(denial)))?;
        Ok((belief, key))
    }

    async fn once(&mut self, at: usize, wait_for_approval: bool) -> Tried {
        let (belief, key) = match self.prepare().await {
            Ok(prepared) => prepared,
            Err(
                error @ (ClientError::TooFewNodes { .. }
                | ClientError::Disagreement { .. }
                | ClientError::NoGenesis { .. }
                | ClientError::Node(_)),
            ) => {
                return Tried::Open(Unsettled::Cluster(Box::new(error)), Again::Later(None));
            }
            Err(error) => return Tried::Settled(Err(error)),
        };
        match self.submit(at, &belief, &key, wait_for_approval).await {
            Ok(tried) => tried,
            Err(Stop::Client(error)) => Tried::Settled(Err(error)),
            Err(Stop::Node(fault)) => {
                tracing::debug!(node = self.client.label(at), %fault, "try failed");
                let again = match &fault {
                    NodeFault::Busy { retry_after } => Again::Later(*retry_after),
                    _ => Again::Now,
                };
                Tried::Open(Unsettled::Node(self.client.failure(at, fault)), again)
            }
        }
    }

    async fn submit(
        &mut self,
        at: usize,
        belief: &Belief,
        key: &PinnedKey,
        wait_for_approval: bool,
    ) -> Result<Tried, Stop> {
        let client = self.client;
        let genesis = client.genesis().await?;
        // nothing is sent to a node that was not attested
        let boot = client.attested(at, &genesis, false).await?;
        let scope = Scope { genesis: client.genesis_id(), incarnation: belief.incarnation() };
        let issued = belief.cluster_time(now()?).saturating_sub(STAMP_MARGIN);
        let (method, life) = (Method::CreateRequest, client.settings().stamp_life);
        let body = self.asked.body();
        let denied = self.stamp.take().filter(|_| !self.settled_by.is_empty());
        let least = issued.saturating_add(STAMP_MARGIN.saturating_mul(2));
        let stamp = match denied.filter(|stamp| stamp.expires_at > least) {
            Some(stamp) => stamp,
            None => {
                self.settled_by.clear();
                stamp(self.signer, scope, method, body, issued, life).map_err(ClientError::from)?
            }
        };
        self.stamp = Some(stamp.clone());
        let issued = stamp.issued_at;
        let former = self.newest.unwrap_or((issued, stamp.expires_at));
        self.newest = Some((former.0.max(issued), former.1.max(stamp.expires_at)));
        let bounds = Bounds { body: MAX_ANSWER, time: client.settings().answer };
        let url = client.url(at, route::REQUESTS)?;
        let header = Some((STAMP_HEADER, stamp.to_header()));
        let response = client.http().post(url, header, body.to_vec(), bounds).await?;
        match Client::answer(&response)? {
            Answer::Signed(signed) => {
                let verified = self.verified(*signed, key, belief).await?;
                Ok(Tried::Settled(Ok(Outcome::Signed(Box::new(verified)))))
            }
            Answer::Denied(denial) => self.denied(at, *denial, false, boot, &genesis).await,
            Answer::Expired(denial) => self.denied(at, *denial, true, boot, &genesis).await,
            Answer::Pending(_) if wait_for_approval => {
                Ok(Tried::Open(Unsettled::Pending, Again::Later(None)))
            }
            Answer::Pending(_) => self.pending(at).await,
            Answer::Busy { retry_after } => {
                let least =
                    Duration::from_millis(retry_after.0).min(client.settings().longest_pause);
                Err(Stop::Node(NodeFault::Busy { retry_after: Some(least) }))
            }
            Answer::Recorded { index, signed_index } => {
                self.recorded(at, key, belief, (index, signed_index)).await
            }
            Answer::Accepted { .. } | Answer::Unknown => Err(Stop::Node(NodeFault::OtherReply)),
        }
    }

    /// A node no longer has the records at hand: its store has them.
    async fn recorded(
        &self,
        at: usize,
        key: &PinnedKey,
        belief: &Belief,
        records: (u64, u64),
    ) -> Result<Tried, Stop> {
        let recovered = async {
            let signed = self.client.out_of_store(at, self.asked, key, records).await?;
            self.verified(signed, key, belief).await
        };
        match recovered.await {
            Ok(verified) => Ok(Tried::Settled(Ok(Outcome::Signed(Box::new(verified))))),
            Err(Stop::Node(fault)) => {
                tracing::debug!(node = self.client.label(at), %fault, "not to be had of the store");
                let why = Unsettled::InStoreOnly { signed_index: records.1 };
                Ok(Tried::Open(why, Again::Now))
            }
            Err(other) => Err(other),
        }
    }

    /// A receipt whose cosigners are not known may be newer than the client's picture of the cluster.
    async fn verified(
        &self,
        signed: Signed,
        key: &PinnedKey,
        belief: &Belief,
    ) -> Result<VerifiedSignature, Stop> {
        let check = |signed: Signed, belief: &Belief| -> Result<_, Stop> {
            let checkpoint = belief.checkpoint_policy()?;
            let credential = self.signer.public_key().id();
            let expected = Expected { credential, asked: self.asked, key, checkpoint: &checkpoint };
            Ok(verify(signed, &expected))
        };
        match check(signed.clone(), belief)? {
            Ok(verified) => Ok(verified),
            Err(ReceiptFault::Signed(_) | ReceiptFault::Allowed(_)) => {
                let newer = self.client.belief(true).await?;
                Ok(check(signed, &newer)?.map_err(NodeFault::from)?)
            }
            Err(fault) => Err(Stop::Node(fault.into())),
        }
    }

    async fn denied(
        &mut self,
        at: usize,
        denial: SignedDenial,
        expired: bool,
        mut boot: std::sync::Arc<AttestedBoot>,
        genesis: &casemate_proto::manifest::GenesisRecord,
    ) -> Result<Tried, Stop> {
        let (newest, until) = self.newest.unwrap_or_default();
        let asked = AskedOf {
            genesis: self.client.genesis_id(),
            credential: Some(self.signer.public_key().id()),
            subject: self.asked.body_hash(),
            newest,
        };
        let mut verified = denial::verify(denial.clone(), expired, &boot, &asked);
        if matches!(verified, Err(DenialFault::OtherBoot { .. })) {
            boot = self.client.attested(at, genesis, true).await?;
            verified = denial::verify(denial, expired, &boot, &asked);
        }
        let denial = verified.map_err(NodeFault::from)?;
        let need = usize::try_from(genesis.manifest.threshold).unwrap_or(usize::MAX);
        if denial.is_final() {
            // t - 1 boots may be broken, and deny what the others sign
            self.settled_by.insert(boot.node().clone());
            return Ok(match self.settled_by.len() < need {
                true => Tried::Open(Unsettled::Denied(Box::new(denial)), Again::Now),
                false => Tried::Settled(Err(ClientError::Denied(Box::new(denial)))),
            });
        }
        if denial.is_passing() {
            return Ok(Tried::Open(Unsettled::Denied(Box::new(denial)), Again::Later(None)));
        }
        self.denied_by.insert(boot.node().clone());
        if self.denied_by.len() < need {
            return Ok(Tried::Open(Unsettled::Denied(Box::new(denial)), Again::Now));
        }
        // a stamp that does not fit may be of an old picture: of another time or incarnation
        if denial.code() == DenialCode::BadStamp && !self.asked_afresh {
            self.asked_afresh = true;
            self.denied_by.clear();
            self.client.belief(true).await?;
            return Ok(Tried::Open(Unsettled::Denied(Box::new(denial)), Again::Now));
        }
        let (denial, request_id) = (Box::new(denial), self.request_id());
        Ok(Tried::Settled(Err(ClientError::DeniedForNow { denial, request_id, until })))
    }

    /// A parent says that the request waits: only an attested boot is believed that.
    async fn pending(&self, at: usize) -> Result<Tried, Stop> {
        let (_, list) = self.client.pending_at(at).await?;
        let credential = self.signer.public_key().id();
        let found = list.into_iter().find(|view| {
            view.credential == credential
                && view.request_id == self.request_id()
                && view.body == self.asked.body()
        });
        Ok(match found {
            Some(view) => Tried::Settled(Ok(Outcome::Pending(Box::new(view)))),
            None => Tried::Open(Unsettled::Pending, Again::Later(None)),
        })
    }
}

/// Why a try ended.
enum Stop {
    Node(NodeFault),
    Client(ClientError),
}

impl From<NodeFault> for Stop {
    fn from(fault: NodeFault) -> Self {
        Self::Node(fault)
    }
}
impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Node(failure) => Self::Node(failure.fault),
            // the picture of the cluster could not be made: another try may
            ClientError::TooFewNodes { .. } | ClientError::Disagreement { .. } => {
                Self::Node(NodeFault::Body { reason: error.to_string() })
            }
            other => Self::Client(other),
        }
    }
}
