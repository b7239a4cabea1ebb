//! The birth, from this boot's side: see [`casemate_replication::genesis`].

use std::sync::Arc;

use casemate_channel::{Expected, LocalIdentity};
use casemate_nsm::Wanted;
use casemate_proto::NodeName;
use casemate_proto::manifest::{BootRecord, GenesisRecord, Manifest};
use casemate_replication::StartAt;
use casemate_replication::genesis::{GenesisRun, Outgoing};
use casemate_signer::{BootSecret, Node, NodeConfig};
use tokio::time::Instant;

use crate::connected::Cut;
use crate::core::{Common, Refusal};
use crate::envelope::{self, Kind};
use crate::joining::EVIDENCE_LIFE;
use crate::links::{Link, LinkPolicy};
use crate::member::{Beginning, Member};

/// This boot at its cluster's birth.
pub(crate) struct Birth {
    node: NodeName,
    config: NodeConfig,
    manifest: Manifest,
    record: BootRecord,
    attested: Instant,
    parts: Option<(BootSecret, GenesisRun)>,
}

/// A boot's keys are made and attested under a scope: the record with its evidence.
pub(crate) fn boot(
    node: &NodeName,
    scope: &casemate_proto::Hash32,
    common: &Common,
) -> Result<(BootSecret, BootRecord), Refusal> {
    let mut entropy = (common.platform.entropy)().map_err(|error| error.to_string())?;
    let secret = BootSecret::generate(entropy.as_mut());
    let record = evidence(&secret, node, scope, common)?;
    Ok((secret, record))
}

/// A boot's record with evidence that is made now.
pub(crate) fn evidence(
    secret: &BootSecret,
    node: &NodeName,
    scope: &casemate_proto::Hash32,
    common: &Common,
) -> Result<BootRecord, Refusal> {
    let user_data = secret.user_data(node, scope);
    let wanted = Wanted { user_data: Some(user_data.as_bytes()), ..Wanted::default() };
    let evidence = common.platform.attest.attest(wanted).map_err(|error| error.to_string())?;
    Ok(secret.record(node, evidence))
}

/// Who this boot is to its peers.
pub(crate) fn identity(
    secret: &BootSecret,
    record: &BootRecord,
) -> Result<Arc<LocalIdentity>, Refusal> {
    let bare = BootRecord { evidence: Vec::new(), ..record.clone() };
    let identity = LocalIdentity::new(bare, secret.channel_secret().clone());
    identity.map(Arc::new).map_err(|error| error.to_string())
}

impl Birth {
    pub(crate) fn begin(
        node: &NodeName,
        manifest: Manifest,
        config: NodeConfig,
        common: &Common,
    ) -> Result<Self, Refusal> {
        let scope = GenesisRecord::manifest_hash(&manifest);
        let (secret, record) = boot(node, &scope, common)?;
        common.set_policy(LinkPolicy {
            identity: identity(&secret, &record)?,
            expected: Expected::at_birth(manifest.clone()),
            birth: None,
        });
        tracing::info!(%node, boot = %record.id(), "born; waiting for the others");
        let run = GenesisRun::new(manifest.clone(), record.clone());
        Ok(Self {
            node: node.clone(),
            config,
            manifest,
            record,
            attested: Instant::now(),
            parts: Some((secret, run)),
        })
    }

    pub(crate) fn is_done(&self) -> bool {
        self.parts.as_ref().is_some_and(|(_, run)| run.genesis().is_some())
    }

    pub(crate) fn link_up(&mut self, link: &Link) {
        let Some((_, run)) = &mut self.parts else { return };
        for message in run.connected(link.peer.node(), link.peer.boot()) {
            link.send(envelope::seal(Kind::Genesis, &message));
        }
    }

    /// The last link to a boot is gone.
    pub(crate) fn link_down(&self, cut: &Cut, common: &mut Common) {
        let Some((_, run)) = &self.parts else { return };
        if run.disconnected(&cut.node, cut.boot) {
            common.links.retain(|link| *link.peer.node() != cut.node);
        }
    }

    pub(crate) fn said(&mut self, link: &Link, message: &[u8], common: &Common) {
        let now = common.platform.clock.now();
        let Some((secret, run)) = &mut self.parts else { return };
        let sign = |message: &[u8]| secret.sign_genesis_echo(message).ok();
        match run.receive(link.peer.node(), link.peer.boot(), message, now, &sign) {
            Ok(out) => send(out, common),
            Err(error) => {
                tracing::warn!(node = %link.peer.node(), %error, "at the birth: refused");
            }
        }
    }

    pub(crate) fn tick(&mut self, common: &mut Common) -> Result<(), Refusal> {
        let now = common.platform.clock.now();
        let Some((secret, run)) = &mut self.parts else { return Ok(()) };
        if let Some(reason) = run.hopeless(now) {
            tracing::warn!(%reason, "the birth begins anew");
            *self = Self::begin(&self.node.clone(), self.manifest.clone(), self.config, common)?;
            common.links.retain(|_| false);
            return Ok(());
        }
        if self.attested.elapsed() > EVIDENCE_LIFE {
            self.attested = Instant::now();
            let scope = GenesisRecord::manifest_hash(&self.manifest);
            match evidence(secret, &self.node, &scope, common) {
                Ok(record) => send(run.renew(record), common),
                Err(error) => tracing::error!(%error, "no attestation"),
            }
        }
        let sign = |message: &[u8]| secret.sign_genesis_echo(message).ok();
        match run.advance(now, &sign) {
            Ok(out) => send(out, common),
            Err(error) => tracing::warn!(%error, "at the birth: refused"),
        }
        Ok(())
    }

    /// The genesis stands: this boot is a member.
    pub(crate) async fn member(&mut self, common: &Common) -> Result<Member, String> {
        let (secret, run) = self.parts.take().ok_or("the birth has ended before")?;
        let genesis = run.genesis().cloned().ok_or("not everybody has echoed the genesis")?;
        let at_birth = Expected::at_birth(self.manifest.clone());
        let expected = Expected::in_cluster(
            self.manifest.clone(),
            at_birth.images.clone(),
            &genesis.id(),
            at_birth.incarnation,
        );
        common.set_policy(LinkPolicy {
            identity: identity(&secret, &self.record)?,
            expected,
            birth: Some(at_birth),
        });
        let entropy = (common.platform.entropy)().map_err(|error| error.to_string())?;
        let node = Node::birth(secret, &self.node, &genesis, self.config, entropy)
            .map_err(|error| error.to_string())?;
        let beginning = Beginning {
            node,
            start: StartAt::Genesis,
            record: genesis,
            boot: BootRecord { evidence: Vec::new(), ..self.record.clone() },
            birth: Some(run),
        };
        Member::start(beginning, common).await
    }
}

pub(crate) fn send(out: Vec<Outgoing>, common: &Common) {
    for (to, message) in out {
        // a former boot's link may be up still
        for link in common.links.all().filter(|link| *link.peer.node() == to) {
            link.send(envelope::seal(Kind::Genesis, &message));
        }
    }
}
