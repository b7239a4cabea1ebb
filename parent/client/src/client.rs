//! The client: asks nodes, and believes what was verified.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use casemate_api::reply::GenesisJson;
use casemate_api::{MAX_REPLY_BODY, ReplyKind, reply, route};
use casemate_door::{ClusterView, KeyView, PendingRequestView, Reply};
use casemate_proto::manifest::{GenesisRecord, MAX_GENESIS, Manifest, Measurement};
use casemate_proto::{GenesisId, KeyName, Millis, NodeName, UnixMillis, cbor};
use reqwest::Url;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use crate::attested::{self, AttestedBoot, Judge};
use crate::belief::{Belief, GivenView};
use crate::cluster::{Cluster, Endpoint};
use crate::credential::{Scope, random};
use crate::error::ClientError;
use crate::fault::{KeyFault, NodeFailure, NodeFault};
use crate::http::{Bounds, Http, Response};
use crate::keys::{self, KeyState, PinnedKey, Shown};

/// Most bytes of the body that holds a genesis record in hex.
pub(crate) const MAX_GENESIS_BODY: usize = 2 * MAX_GENESIS + 1024;

/// How long the client waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// For a connection.
    pub connect: Duration,
    /// For a whole reply to a question.
    pub reply: Duration,
    /// For a whole answer to something submitted: a signature takes its time.
    pub answer: Duration,
    /// For the nodes that have not replied, once enough have that agree.
    pub stragglers: Duration,
    /// How long an attestation is good before the next one; a restart is noticed at once.
    pub attestation_life: Duration,
    /// How long the client's picture of the cluster is good.
    pub belief_life: Duration,
    /// How long a stamp lives, at most five minutes.
    pub stamp_life: Millis,
    /// The first pause between tries; it doubles up to `longest_pause`.
    pub first_pause: Duration,
    /// The longest pause between tries.
    pub longest_pause: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            reply: Duration::from_secs(10),
            answer: Duration::from_secs(35),
            stragglers: Duration::from_millis(250),
            attestation_life: Duration::from_secs(600),
            belief_life: Duration::from_secs(120),
            stamp_life: Millis(120_000),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(2),
        }
    }
}

/// Asks a cluster, and believes what was verified. Clones share what was learnt.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Cluster,
    settings: Settings,
    http: Http,
    genesis: OnceCell<Arc<GenesisRecord>>,
    attested: Mutex<BTreeMap<usize, (Arc<AttestedBoot>, UnixMillis)>>,
    belief: Mutex<Option<Arc<Belief>>>,
    keys: Mutex<BTreeMap<KeyName, PinnedKey>>,
    next: AtomicUsize,
}

impl core::fmt::Debug for Client {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Client").field("cluster", &self.inner.cluster).finish_non_exhaustive()
    }
}

/// A lock that a panic elsewhere leaves usable: what it guards is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This machine's clock.
///
/// # Errors
/// If it is before 1970.
pub fn now() -> Result<UnixMillis, ClientError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| ClientError::Clock)?;
    u64::try_from(since.as_millis()).map(UnixMillis).map_err(|_| ClientError::Clock)
}

pub(crate) fn older_than(since: UnixMillis, now: UnixMillis, life: Duration) -> bool {
    u128::from(now.since(since).0) >= life.as_millis()
}

impl Client {
    /// A client of this cluster. Asks nothing yet.
    ///
    /// # Errors
    /// If no HTTP client can be made here.
    pub fn new(cluster: Cluster, settings: Settings) -> Result<Self, ClientError> {
        let tls = cluster.endpoints().iter().any(|endpoint| endpoint.url().scheme() == "https");
        let http =
            Http::new(settings.connect, tls).map_err(|reason| ClientError::Http { reason })?;
        let genesis = match cluster.record() {
            Some(record) => OnceCell::new_with(Some(Arc::new(record.clone()))),
            None => OnceCell::new(),
        };
        let [a, b] = random::<2>();
        let inner = Inner {
            cluster,
            settings,
            http,
            genesis,
            attested: Mutex::default(),
            belief: Mutex::default(),
            keys: Mutex::default(),
            // clients spread over the nodes
            next: AtomicUsize::new(usize::from(u16::from_be_bytes([a, b]))),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What it was given.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }
    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }
    /// Which cluster.
    #[must_use]
    pub fn genesis_id(&self) -> GenesisId {
        self.inner.cluster.genesis_id()
    }
    pub(crate) fn http(&self) -> &Http {
        &self.inner.http
    }

    /// The place of a node that is named by its name or URL.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(&self, name: &str) -> Result<usize, ClientError> {
        let endpoints = self.cluster().endpoints();
        let same_url = |endpoint: &Endpoint| {
            Endpoint::new(None, name).is_ok_and(|given| given.url() == endpoint.url())
        };
        let at = endpoints.iter().position(|endpoint| {
            endpoint.name().is_some_and(|own| own.as_str() == name) || same_url(endpoint)
        });
        at.ok_or_else(|| {
            let known: Vec<String> =
                endpoints.iter().map(|endpoint| format!("`{}`", endpoint.label())).collect();
            let name = name.chars().take(200).collect();
            ClientError::UnknownNode { name, known: known.join(", ") }
        })
    }

    /// The places of all nodes, beginning with another one each time.
    pub(crate) fn rotation(&self) -> Vec<usize> {
        let count = self.cluster().endpoints().len();
        let first = self.inner.next.fetch_add(1, Ordering::Relaxed).checked_rem(count).unwrap_or(0);
        (first..count).chain(0..first).collect()
    }

    fn endpoint(&self, at: usize) -> Result<&Endpoint, NodeFault> {
        let missing = || NodeFault::Unreachable { reason: "it is not among the nodes".to_owned() };
        self.cluster().endpoints().get(at).ok_or_else(missing)
    }

    /// How a node is called in errors.
    pub(crate) fn label(&self, at: usize) -> String {
        self.endpoint(at).map_or_else(|_| format!("{at}"), Endpoint::label)
    }

    pub(crate) fn failure(&self, at: usize, fault: NodeFault) -> NodeFailure {
        NodeFailure { node: self.label(at), fault }
    }

    pub(crate) fn url(&self, at: usize, path: &str) -> Result<Url, NodeFault> {
        let base = self.endpoint(at)?.url();
        base.join(path.trim_start_matches('/'))
            .map_err(|error| NodeFault::Unreachable { reason: error.to_string() })
    }

    /// What is at a path of a node, with status 200.
    pub(crate) async fn fetch(
        &self,
        at: usize,
        path: &str,
        body: usize,
    ) -> Result<Response, NodeFault> {
        let bounds = Bounds { body, time: self.settings().reply };
        let response = self.http().get(self.url(at, path)?, bounds).await?;
        match response.status {
            200 => Ok(response),
            503 => Err(NodeFault::Busy { retry_after: response.retry_after }),
            status => Err(status_fault(status, &response.body)),
        }
    }

    /// The genesis record: the one given, or one that a node gives and whose hash is the pinned id.
    ///
    /// # Errors
    /// If no node gives it.
    pub async fn genesis(&self) -> Result<Arc<GenesisRecord>, ClientError> {
        let fetched = self.inner.genesis.get_or_try_init(|| async {
            let mut failures = Vec::new();
            for at in self.rotation() {
                match self.fetch_genesis(at).await {
                    Ok(record) => {
                        // it is the pinned one: if it does not fit, no other node's will
                        self.cluster().check_genesis(&record)?;
                        return Ok(Arc::new(record));
                    }
                    Err(fault) => failures.push(self.failure(at, fault)),
                }
            }
            Err(ClientError::NoGenesis { expected: self.genesis_id(), failures })
        });
        fetched.await.cloned()
    }

    async fn fetch_genesis(&self, at: usize) -> Result<GenesisRecord, NodeFault> {
        let body = self.fetch(at, route::GENESIS, MAX_GENESIS_BODY).await?.body;
        let json: GenesisJson = serde_json::from_slice(&body)
            .map_err(|error| NodeFault::Body { reason: error.to_string() })?;
        let record: GenesisRecord = cbor::decode(&json.record.0, MAX_GENESIS)
            .map_err(|error| NodeFault::Cbor { what: "genesis record", error })?;
        let (expected, found) = (self.genesis_id(), record.id());
        if found == expected {
            Ok(record)
        } else {
            Err(NodeFault::OtherCluster { expected, found })
        }
    }

    /// The images that are accepted: what t nodes say, before that the manifest's and those given.
    fn images(&self, manifest: &Manifest) -> Vec<Measurement> {
        match lock(&self.inner.belief).as_ref() {
            Some(belief) if !belief.images().is_empty() => belief.images().to_vec(),
            _ => manifest.measurements.iter().chain(self.cluster().images()).cloned().collect(),
        }
    }

    /// The boot that answers at a node, attested over a fresh nonce, or lately.
    ///
    /// # Errors
    /// If the node cannot be heard or its attestation is refused.
    pub async fn attest(&self, at: usize, fresh: bool) -> Result<Arc<AttestedBoot>, ClientError> {
        let genesis = self.genesis().await?;
        self.attested(at, &genesis, fresh)
            .await
            .map_err(|fault| ClientError::Node(self.failure(at, fault)))
    }

    pub(crate) async fn attested(
        &self,
        at: usize,
        genesis: &GenesisRecord,
        fresh: bool,
    ) -> Result<Arc<AttestedBoot>, NodeFault> {
        let now = now().map_err(|_| NodeFault::Unreachable { reason: "no clock".to_owned() })?;
        if let (false, Some((boot, since))) = (fresh, lock(&self.inner.attested).get(&at))
            && !older_than(*since, now, self.settings().attestation_life)
        {
            return Ok(Arc::clone(boot));
        }
        let nonce = random();
        let path = route::with_nonce(ReplyKind::Attestation.route(), &nonce);
        let response = self.fetch(at, &path, MAX_REPLY_BODY).await?;
        let signed = reply::read(&response.body)
            .map_err(|error| NodeFault::Body { reason: error.to_string() })?;
        let judge = Judge {
            genesis: self.genesis_id(),
            manifest: &genesis.manifest,
            root: self.cluster().root(),
            images: &self.images(&genesis.manifest),
            expected: self.endpoint(at)?.name(),
            now,
        };
        let verified = attested::verify(&signed, &nonce, &judge);
        // whoever does not attest now is not taken for who did before
        lock(&self.inner.attested).remove(&at);
        let boot = Arc::new(verified?);
        lock(&self.inner.attested).insert(at, (Arc::clone(&boot), now));
        Ok(boot)
    }

    /// Asks a node under a fresh nonce, and opens its reply with its attested boot's key. A reply that
    /// does not fit has the node attested anew: it may have restarted.
    async fn ask(
        &self,
        at: usize,
        kind: ReplyKind,
        genesis: &GenesisRecord,
    ) -> Result<(Reply, Arc<AttestedBoot>), NodeFault> {
        for fresh in [false, true] {
            let boot = self.attested(at, genesis, fresh).await?;
            let nonce = random();
            let path = route::with_nonce(kind.route(), &nonce);
            let response = self.fetch(at, &path, MAX_REPLY_BODY).await?;
            let signed = reply::read(&response.body)
                .map_err(|error| NodeFault::Body { reason: error.to_string() })?;
            if signed.boot == boot.boot()
                && let Some(reply) = signed.open(&self.genesis_id(), &nonce, boot.key())
            {
                return Ok((reply, boot));
            }
        }
        Err(NodeFault::NotTheBoot)
    }

    async fn view(&self, at: usize, genesis: &GenesisRecord) -> Result<GivenView, NodeFault> {
        let clock = || now().map_err(|_| NodeFault::Unreachable { reason: "no clock".to_owned() });
        // before the clock is looked at: a first attestation takes long
        self.attested(at, genesis, false).await?;
        let asked_at = clock()?;
        let (reply, boot) = self.ask(at, ReplyKind::Cluster, genesis).await?;
        let Reply::Cluster(view) = reply else { return Err(NodeFault::OtherReply) };
        let view: ClusterView = *view;
        if view.genesis != self.genesis_id() || view.node != *boot.node() {
            return Err(NodeFault::OtherReply);
        }
        Ok(GivenView { node: boot.node().clone(), view, asked_at, came_at: clock()? })
    }

    /// What at least t attested nodes say of the cluster alike: asked now if `fresh`, otherwise as it
    /// was lately.
    ///
    /// # Errors
    /// If too few nodes can be heard and verified, or they do not agree.
    pub async fn belief(&self, fresh: bool) -> Result<Arc<Belief>, ClientError> {
        let known = lock(&self.inner.belief).clone();
        if let (false, Some(known)) = (fresh, known)
            && !older_than(known.made_at(), now()?, self.settings().belief_life)
        {
            return Ok(known);
        }
        let (belief, _) = self.survey(self.settings().stragglers).await?;
        Ok(belief)
    }

    /// The same, waiting up to `stragglers` for the nodes that are not needed, and what was wrong with
    /// those that did not say anything.
    ///
    /// # Errors
    /// If too few nodes can be heard and verified, or they do not agree.
    pub async fn survey(
        &self,
        stragglers: Duration,
    ) -> Result<(Arc<Belief>, Vec<NodeFailure>), ClientError> {
        let genesis = self.genesis().await?;
        let need = usize::try_from(genesis.manifest.threshold).unwrap_or(usize::MAX);
        let mut asking = JoinSet::new();
        for at in self.rotation() {
            let (client, genesis) = (self.clone(), Arc::clone(&genesis));
            asking.spawn(async move { (at, client.view(at, &genesis).await) });
        }
        let (mut views, mut failures): (Vec<GivenView>, Vec<NodeFailure>) = Default::default();
        let mut found: Option<(Result<Belief, ClientError>, tokio::time::Instant)> = None;
        loop {
            let next = match &found {
                Some((Ok(_), until)) => {
                    tokio::time::timeout_at(*until, asking.join_next()).await.unwrap_or_default()
                }
                _ => asking.join_next().await,
            };
            match next {
                None => break,
                Some(Ok((_, Ok(view)))) => {
                    if views.iter().all(|known| known.node != view.node) {
                        views.push(view);
                    }
                }
                Some(Ok((at, Err(fault)))) => {
                    failures.push(self.failure(at, fault));
                    continue;
                }
                // a task that was lost is a node that did not answer
                Some(Err(_)) => continue,
            }
            if views.len() >= need {
                let until = match &found {
                    Some((Ok(_), until)) => *until,
                    _ => tokio::time::Instant::now()
                        .checked_add(stragglers)
                        .unwrap_or_else(tokio::time::Instant::now),
                };
                let of = Belief::of(self.genesis_id(), &genesis.manifest, views.clone(), now()?);
                found = Some((of, until));
            }
        }
        match found {
            Some((Ok(belief), _)) => {
                let belief = Arc::new(belief);
                *lock(&self.inner.belief) = Some(Arc::clone(&belief));
                Ok((belief, failures))
            }
            Some((Err(error), _)) => Err(error),
            None => Err(ClientError::TooFewNodes { have: views.len(), need, failures }),
        }
    }

    /// What everything that is signed names.
    ///
    /// # Errors
    /// As [`Self::belief`].
    pub async fn scope(&self) -> Result<Scope, ClientError> {
        let incarnation = self.belief(false).await?.incarnation();
        Ok(Scope { genesis: self.genesis_id(), incarnation })
    }

    /// The cluster's time as this machine's clock and the nodes' say.
    ///
    /// # Errors
    /// As [`Self::belief`].
    pub async fn cluster_time(&self) -> Result<UnixMillis, ClientError> {
        Ok(self.belief(false).await?.cluster_time(now()?))
    }

    /// The live keys, and those in the making. Keys that are believed are pinned from then on.
    ///
    /// # Errors
    /// If too few nodes can be heard, or one shows another key than the one pinned.
    pub async fn keys(&self) -> Result<Vec<KeyState>, ClientError> {
        let genesis = self.genesis().await?;
        let need = usize::try_from(genesis.manifest.threshold).unwrap_or(usize::MAX);
        let (mut shown, mut failures) = self.shown_by(&genesis, need, false).await?;
        // cosigners that are not known may be newer than the client's picture of the cluster
        let unproved = |failure: &NodeFailure| {
            matches!(failure.fault, NodeFault::Key { fault: KeyFault::Proof(_), .. })
        };
        if shown.len() < need && failures.iter().any(unproved) {
            (shown, failures) = self.shown_by(&genesis, need, true).await?;
        }
        if shown.len() < need {
            return Err(ClientError::TooFewNodes { have: shown.len(), need, failures });
        }
        let mut pinned = lock(&self.inner.keys);
        let states = keys::conclude(&shown, need, &pinned)?;
        for state in &states {
            if let KeyState::Live(key) = state {
                pinned.insert(key.name().clone(), key.clone());
            }
        }
        Ok(states)
    }

    /// What the nodes show, each once: all of them, or enough that agree that every key is live.
    async fn shown_by(
        &self,
        genesis: &Arc<GenesisRecord>,
        need: usize,
        fresh: bool,
    ) -> Result<(Vec<Shown>, Vec<NodeFailure>), ClientError> {
        let belief = self.belief(fresh).await?;
        let mut asking = JoinSet::new();
        for at in self.rotation() {
            let (client, genesis) = (self.clone(), Arc::clone(genesis));
            let belief = Arc::clone(&belief);
            asking.spawn(async move { (at, client.shown(at, &genesis, &belief).await) });
        }
        let (mut shown, mut failures): (Vec<Shown>, Vec<NodeFailure>) = Default::default();
        while let Some(next) = asking.join_next().await {
            match next {
                Ok((_, Ok(list))) => {
                    if shown.iter().all(|known: &Shown| known.node != list.node) {
                        shown.push(list);
                    }
                }
                Ok((at, Err(fault))) => failures.push(self.failure(at, fault)),
                Err(_) => {}
            }
            if shown.len() >= need
                && let Ok(states) = keys::conclude(&shown, need, &lock(&self.inner.keys))
                && states.iter().all(|state| matches!(state, KeyState::Live(_)))
            {
                break;
            }
        }
        Ok((shown, failures))
    }

    async fn shown(
        &self,
        at: usize,
        genesis: &GenesisRecord,
        belief: &Belief,
    ) -> Result<Shown, NodeFault> {
        let (reply, boot) = self.ask(at, ReplyKind::Keys, genesis).await?;
        let Reply::Keys(list) = reply else { return Err(NodeFault::OtherReply) };
        let list: Vec<KeyView> = list;
        let policy = belief
            .checkpoint_policy()
            .map_err(|error| NodeFault::Body { reason: error.to_string() })?;
        keys::check(boot.node(), list, &policy)
    }

    /// The key of this name, as it was pinned or as the cluster shows it.
    ///
    /// # Errors
    /// If there is no live one, or it cannot be believed.
    pub async fn key(&self, name: &KeyName) -> Result<PinnedKey, ClientError> {
        let known = lock(&self.inner.keys).get(name).cloned();
        if let Some(key) = known {
            return Ok(key);
        }
        let unknown = || ClientError::UnknownKey { name: name.clone() };
        match self.keys().await?.into_iter().find(|state| state.name() == name) {
            Some(KeyState::Live(key)) => Ok(key),
            Some(KeyState::Unproven { .. }) => {
                Err(ClientError::Disagreement { what: "the key's public key" })
            }
            Some(KeyState::Generating { .. }) | None => Err(unknown()),
        }
    }

    /// The requests that wait for approvals at one node, in its boot's hand.
    ///
    /// # Errors
    /// If the node cannot be heard or is not to be believed.
    pub async fn pending_at(
        &self,
        at: usize,
    ) -> Result<(NodeName, Vec<PendingRequestView>), ClientError> {
        let genesis = self.genesis().await?;
        let failed = |fault| ClientError::Node(self.failure(at, fault));
        let (reply, boot) =
            self.ask(at, ReplyKind::PendingRequests, &genesis).await.map_err(failed)?;
        match reply {
            Reply::PendingRequests(list) => Ok((boot.node().clone(), list)),
            _ => Err(failed(NodeFault::OtherReply)),
        }
    }

    /// The same, of the first node that can be heard.
    ///
    /// # Errors
    /// If none can.
    pub async fn pending(&self) -> Result<(NodeName, Vec<PendingRequestView>), ClientError> {
        let mut failures = Vec::new();
        for at in self.rotation() {
            match self.pending_at(at).await {
                Ok(found) => return Ok(found),
                Err(ClientError::Node(failure)) => failures.push(failure),
                Err(other) => return Err(other),
            }
        }
        Err(ClientError::TooFewNodes { have: 0, need: 1, failures })
    }
}

/// A status that means nothing here, with the beginning of what it says.
pub(crate) fn status_fault(status: u16, body: &[u8]) -> NodeFault {
    let text = String::from_utf8_lossy(body.get(..400).unwrap_or(body)).into_owned();
    let detail = serde_json::from_slice::<casemate_api::Problem>(body)
        .map_or(text, |problem| problem.to_string());
    let detail = detail.chars().filter(|c| !c.is_control()).take(200).collect();
    NodeFault::Status { status, detail }
}
