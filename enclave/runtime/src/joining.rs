//! Admission, from the new boot's side: see [`casemate_replication::join`].

use std::collections::BTreeSet;
use std::time::Duration;

use casemate_attestation_verify as attestation;
use casemate_channel::Expected;
use casemate_ledger::State;
use casemate_proto::manifest::{BootRecord, GenesisRecord, MAX_GENESIS, Manifest, Measurement};
use casemate_proto::{Hash32, Incarnation, NodeName, UnixMillis};
use casemate_replication::StartAt;
use casemate_replication::join::{JoinRun, Joined, Outgoing};
use casemate_signer::{BootSecret, Node, NodeConfig};
use tokio::time::Instant;

use crate::birth::{boot, identity};
use crate::core::{Common, Refusal};
use crate::envelope::{self, Kind};
use crate::links::{Link, LinkPolicy};
use crate::member::{Beginning, Member};

/// How long evidence is used before it is made anew; the ledger takes it for ten minutes.
pub(crate) const EVIDENCE_LIFE: Duration = Duration::from_secs(4 * 60);
/// How long a boot that is admitted, as some say, waits until t say so. Of those who were there at its
/// admission some may be gone with what they kept for it, and nobody hands over twice.
const SHORT_PATIENCE: Duration = Duration::from_secs(2 * 60);

/// This boot, asking to be admitted.
pub(crate) struct Joining {
    node: NodeName,
    config: NodeConfig,
    genesis: GenesisRecord,
    incarnation: Incarnation,
    secret: Option<BootSecret>,
    record: BootRecord,
    attested: Instant,
    short_since: Option<Instant>,
    run: JoinRun,
}

impl Joining {
    pub(crate) fn begin(
        node: &NodeName,
        manifest: &Manifest,
        (genesis, incarnation): (&[u8], Incarnation),
        config: NodeConfig,
        common: &Common,
    ) -> Result<Self, Refusal> {
        let genesis: GenesisRecord = casemate_proto::cbor::decode(genesis, MAX_GENESIS)
            .map_err(|error| format!("genesis: {error}"))?;
        genesis.check().map_err(|error| error.to_string())?;
        if genesis.manifest != *manifest {
            return Err("the genesis is of another manifest".to_owned());
        }
        let id = genesis.id();
        let (secret, record) = boot(node, &Hash32::new(*id.as_bytes()), common)?;
        let images = images(manifest, &record, common.platform.clock.now())?;
        common.set_policy(LinkPolicy {
            identity: identity(&secret, &record)?,
            expected: Expected::in_cluster(manifest.clone(), images, &id, incarnation),
            birth: None,
        });
        tracing::info!(%node, boot = %record.id(), "born; asking to be admitted");
        Ok(Self {
            node: node.clone(),
            config,
            run: JoinRun::new(record.clone(), manifest.threshold),
            genesis,
            incarnation,
            secret: Some(secret),
            record,
            attested: Instant::now(),
            short_since: None,
        })
    }

    pub(crate) const fn is_done(&self) -> bool {
        self.run.is_done()
    }

    pub(crate) fn link_up(&mut self, link: &Link, common: &Common) {
        self.run.connected(link.peer.node());
        self.tick(common);
    }

    pub(crate) fn link_down(&mut self, node: &NodeName) {
        self.run.disconnected(node);
    }

    pub(crate) fn said(&mut self, link: &Link, message: &[u8], common: &Common) {
        let now = common.platform.clock.now();
        match self.run.receive(link.peer.node(), message, now) {
            Ok(out) => send(out, common),
            Err(error) => tracing::warn!(node = %link.peer.node(), %error, "joining: refused"),
        }
    }

    pub(crate) fn tick(&mut self, common: &Common) {
        if self.attested.elapsed() > EVIDENCE_LIFE
            && let Some(secret) = &self.secret
        {
            self.attested = Instant::now();
            let scope = Hash32::new(*self.genesis.id().as_bytes());
            match crate::birth::evidence(secret, &self.node, &scope, common) {
                Ok(record) => self.run.renew(record),
                Err(error) => tracing::error!(%error, "no attestation"),
            }
        }
        send(self.run.tick(common.platform.clock.now()), common);
    }

    /// Starts over as another boot where too few are left that could vouch for this one's state.
    pub(crate) fn start_over_if_short(&mut self, common: &mut Common) -> Result<(), Refusal> {
        if !self.run.is_short() {
            self.short_since = None;
            return Ok(());
        }
        if self.short_since.get_or_insert_with(Instant::now).elapsed() <= SHORT_PATIENCE {
            return Ok(());
        }
        tracing::warn!(confirmed = self.run.confirmed(), "admitted, and too few say so");
        self.start_over(common)
    }

    fn start_over(&mut self, common: &mut Common) -> Result<(), Refusal> {
        let genesis = casemate_proto::cbor::encode(&self.genesis);
        let manifest = self.genesis.manifest.clone();
        let of = (genesis.as_slice(), self.incarnation);
        *self = Self::begin(&self.node.clone(), &manifest, of, self.config, common)?;
        common.links.retain(|_| false);
        Ok(())
    }

    /// A snapshot that t nodes vouch for is there. The node from it; `None` where it does not fit and
    /// another node is asked.
    pub(crate) async fn member(&mut self, common: &mut Common) -> Result<Option<Member>, String> {
        let Some(joined) = self.run.take() else { return Ok(None) };
        let Joined { size, snapshot, tail, position, from } = joined;
        // t nodes vouch for the snapshot: one that cannot be read is no node's fault
        let state = State::from_snapshot(&snapshot).map_err(|error| error.to_string())?;
        if state.size() != size {
            return Err(format!("the snapshot has {} entries, not {size}", state.size()));
        }
        let Some(secret) = self.secret.take() else { return Ok(None) };
        let entropy = (common.platform.entropy)().map_err(|error| error.to_string())?;
        let node =
            Node::join(secret, &self.node, &self.genesis, state, &tail, self.config, entropy);
        let node = match node {
            Ok(node) => node,
            Err(error) => {
                // a boot's keys are used once: it starts over as another, and asks another node first
                tracing::warn!(%from, %error, "what it handed over does not fit");
                self.start_over(common)?;
                self.run.refuse(&from);
                return Ok(None);
            }
        };
        let beginning = Beginning {
            node,
            start: StartAt::Snapshot(position),
            record: self.genesis.clone(),
            boot: BootRecord { evidence: Vec::new(), ..self.record.clone() },
            birth: None,
        };
        Member::start(beginning, common).await.map(Some)
    }
}

/// The images that peers may run as far as a boot can know that has no ledger yet: those of the
/// manifest, and its own, which governance may have accepted since. What peers of them say is believed
/// only where t say the same, and a share comes only from those that the ledger names.
pub(crate) fn images(
    manifest: &Manifest,
    record: &BootRecord,
    now: UnixMillis,
) -> Result<BTreeSet<Measurement>, Refusal> {
    let root = attestation::TrustRoot::from_fingerprint(*manifest.trust_root.as_bytes());
    let at = attestation::At::Now {
        now: attestation::UnixMillis::new(now.0),
        freshness: attestation::Freshness {
            max_age_ms: None,
            future_tolerance_ms: manifest.limits.delta.0,
        },
    };
    let any = attestation::Expectations::dangerous_any_measurement();
    let own = attestation::verify(&record.evidence, &root, &any, at)
        .map_err(|error| format!("this enclave's own attestation: {error}"))?
        .measurement();
    let own = Measurement {
        pcr0: *own.pcr0.as_bytes(),
        pcr1: *own.pcr1.as_bytes(),
        pcr2: *own.pcr2.as_bytes(),
    };
    Ok(manifest.measurements.iter().cloned().chain([own]).collect())
}

fn send(out: Vec<Outgoing>, common: &Common) {
    for (to, message) in out {
        // a former boot's link may be up still
        for link in common.links.all().filter(|link| *link.peer.node() == to) {
            link.send(envelope::seal(Kind::Join, &message));
        }
    }
}
