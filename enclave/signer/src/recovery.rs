//! Sealing, and the beginning of a recovered node.
//!
//! A member seals the shares that it holds whenever they are others than those that it sealed last, the
//! pending ones included: so that the ledger never knows an epoch of which no blob has a share.
//!
//! In a recovery a boot begins from the ledger that a certificate takes up. It believes what the
//! governance quorum signed and nothing else of what it is given: the snapshot is the one that the
//! certificate names, the certificate's entry makes of it what every other boot makes of it, the
//! tail leads to its tree, the blob is the one that it is to open, and what comes out is what the
//! ledger says of the keys.

use std::collections::BTreeMap;

use casemate_ledger::recovery::commit;
use casemate_ledger::state::LiveKey;
use casemate_ledger::{State, StateError, Verdict};
use casemate_proto::manifest::GenesisRecord;
use casemate_proto::recovery::{RecoveryError, RecoveryGranted, SignedCertificate};
use casemate_proto::{BootId, Denial, Hash32, KeyName, NodeName, UnixMillis};
use casemate_recovery::{RecoverySecretKey, Release, SealedBlob, SealedKey};
use casemate_seal::{OpenError, OpenedShare, Opening, SealableShare, Sealing, open, seal};
use casemate_threshold::{KeyEpoch, RecoverError, Recovered};
use zeroize::Zeroizing;

use crate::boot::{BootSecret, Entropy};
use crate::event::{HaltReason, JoinError, NodeConfig, Output};
use crate::node::Node;
use crate::publish::Publisher;
use crate::roster::Roster;
use crate::shares::Live;

/// What was sealed last, and how often.
#[derive(Default)]
pub(crate) struct Sealed {
    keys: Option<Vec<SealedKey>>,
    number: u64,
}

/// What a boot is given to begin a recovered cluster with. None of it is believed further than the
/// certificate goes.
#[derive(Debug)]
pub struct RecoveryParts<'a> {
    /// The certificate, signed.
    pub certificate: &'a SignedCertificate,
    /// The state that it takes up.
    pub snapshot: &'a [u8],
    /// The right edge of the auditors' store at that state's size.
    pub tail: &'a [u8],
    /// The blob that this boot opens, where the certificate names one.
    pub blob: Option<&'a SealedBlob>,
    /// What governors released of it.
    pub releases: &'a [Release],
    /// The blob's data key, as KMS decrypted it for this boot.
    pub data_key: Option<&'a Zeroizing<[u8; 32]>>,
}

/// Why a boot does not begin a recovered cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRecovered {
    /// The certificate grants this boot nothing.
    #[error(transparent)]
    Certificate(#[from] RecoveryError),
    /// Another recovery key than the certificate names.
    #[error("the certificate names another recovery key of this boot")]
    OtherKey,
    /// Not the state that the certificate names.
    #[error("the certificate takes up state `{named}`, and the snapshot is `{given}`")]
    OtherSnapshot {
        /// The certificate's.
        named: Hash32,
        /// What was given.
        given: Hash32,
    },
    /// The snapshot contradicts itself.
    #[error(transparent)]
    State(#[from] StateError),
    /// The snapshot or the tail do not fit the cluster.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The ledger refuses the certificate.
    #[error("the ledger refuses the recovery: {0}")]
    Refused(Box<Denial>),
    /// The entry cannot be applied.
    #[error("the recovery's entry cannot be applied: {0}")]
    Halted(HaltReason),
    /// A blob is missing, or one was given that the certificate does not name.
    #[error("the certificate {}", if *.needed { "names a blob for this boot, and none was given" } else { "names no blob for this boot" })]
    Blob {
        /// Whether it names one.
        needed: bool,
    },
    /// The blob does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A share is not what the ledger says.
    #[error(transparent)]
    Share(#[from] RecoverError),
    /// The blob lacks a share that the node held.
    #[error("the blob has no share of key `{name}`, epoch {epoch}, which the node held")]
    MissingShare {
        /// Which key.
        name: KeyName,
        /// Its current epoch.
        epoch: u64,
    },
}

impl Node {
    /// What this node seals now: a blob where its shares are others than those that it sealed last, and
    /// its cluster seals. To be asked every second or so; it goes to the parent's disk, and is
    /// public in the sense that nothing in it can be read.
    pub fn seal(&mut self) -> Option<SealedBlob> {
        if self.halted || self.state.manifest().recovery.is_none() {
            return None;
        }
        let mut keys = self.held_keys();
        keys.sort();
        if self.sealed.keys.as_ref() == Some(&keys) {
            return None;
        }
        let Some(shares) = self.sealable() else {
            tracing::error!("a share cannot be written: nothing is sealed");
            return None;
        };
        let sealing = Sealing {
            manifest: self.state.manifest(),
            genesis: self.state.genesis(),
            incarnation: self.state.incarnation(),
            node: self.roster.me(),
            boot: self.boot_id,
            number: self.sealed.number,
            size: self.state.size(),
            root: self.state.root(),
            data_key: None,
        };
        let boot = &self.boot;
        let sign = |message: &[u8]| Some(boot.sign(message));
        match seal(sealing, shares, &sign, &mut self.entropy) {
            Ok(blob) => {
                self.sealed.number = self.sealed.number.saturating_add(1);
                self.sealed.keys = Some(keys);
                Some(blob)
            }
            Err(error) => {
                tracing::error!(%error, "nothing is sealed");
                None
            }
        }
    }

    /// What is public of the shares that this boot holds.
    fn held_keys(&self) -> Vec<SealedKey> {
        let live = self.keygen.live.values().map(Live::sealed_key);
        let pending = self.keygen.jobs.values().flat_map(|job| &job.candidates);
        live.chain(pending.map(|candidate| candidate.share.sealed_key())).collect()
    }

    fn sealable(&self) -> Option<Vec<SealableShare>> {
        let live = self.keygen.live.values().map(Live::to_sealable);
        let pending = self.keygen.jobs.values().flat_map(|job| &job.candidates);
        live.chain(pending.map(|candidate| candidate.share.to_sealable())).collect()
    }

    /// A node that begins another incarnation of its cluster, by a certificate that names its boot.
    /// `now` is this node's own clock. It comes up frozen, with the shares that its blob held.
    ///
    /// The boot's keys are taken when everything fits: a boot begins one recovery, ever, and one that was
    /// handed wrong parts can be handed others.
    ///
    /// # Errors
    /// Naming what does not fit.
    pub fn recover(
        boot: &mut Option<BootSecret>,
        recovery_key: &RecoverySecretKey,
        name: &NodeName,
        genesis: &GenesisRecord,
        parts: &RecoveryParts<'_>,
        (config, entropy): (NodeConfig, Box<dyn Entropy>),
        now: UnixMillis,
    ) -> Result<Self, NotRecovered> {
        let not_this = || JoinError::NotThisBoot { node: name.clone() };
        let me = boot.as_ref().ok_or_else(not_this)?.id(name);
        let granted = parts.certificate.verify(genesis.id(), &genesis.manifest, Some(now))?;
        let named = granted.to_boot(name, me)?;
        if named.offer.recovery_key != recovery_key.public() {
            return Err(NotRecovered::OtherKey);
        }
        let (wanted, given) =
            (granted.certificate().ledger.state, State::snapshot_hash(parts.snapshot));
        if wanted != given {
            return Err(NotRecovered::OtherSnapshot { named: wanted, given });
        }
        let former = State::from_snapshot(parts.snapshot)?;
        let (expected, found) = (genesis.id(), former.genesis());
        if expected != found || genesis.manifest != *former.manifest() {
            return Err(JoinError::OtherGenesis { expected, found }.into());
        }
        let mut state = former.clone();
        let applied =
            state.apply(&commit(&granted)).map_err(|error| NotRecovered::Halted(error.into()))?;
        if let Verdict::Denied(denial) = applied.verdict {
            return Err(NotRecovered::Refused(Box::new(denial)));
        }
        if state.current_boot(name) != Some(me) {
            return Err(not_this().into());
        }
        let opened = open_blob(&granted, &former, name, recovery_key, parts)?;
        let live = keys_of(&granted, (&former, &state), name, opened)?;
        let (publisher, tree) = Publisher::from_tail(genesis, parts.tail, &former)?;

        let boot = boot.take().ok_or_else(not_this)?;
        let log = (former, tree, publisher);
        let mut node = Self::with_log(boot, name, log, config, entropy).map_err(JoinError::from)?;
        node.apply(&commit(&granted), granted.certificate().at);
        // nobody is there yet that anything could be said to
        for output in core::mem::take(&mut node.out) {
            if let Output::Halt { reason } = output {
                return Err(NotRecovered::Halted(reason));
            }
        }
        node.keygen.live = live;
        node.find_jobs(node.state.time());
        node.greet_others();
        Ok(node)
    }
}

/// Makes keys of the shares that were opened: one for each of which the ledger says that this node
/// held a share, and holds it now by this boot.
fn keys_of(
    granted: &RecoveryGranted,
    (former, state): (&State, &State),
    me: &NodeName,
    opened: Vec<OpenedShare>,
) -> Result<BTreeMap<KeyName, Live>, NotRecovered> {
    let mut shares: BTreeMap<(KeyName, u64, Hash32), OpenedShare> = opened
        .into_iter()
        .map(|share| {
            let SealedKey { name, epoch, transcript, .. } = share.key().clone();
            ((name, epoch, transcript), share)
        })
        .collect();
    let manifest = state.manifest();
    let names = manifest.nodes.iter().map(|node| node.name.clone()).collect();
    let roster = Roster::new(names, me.clone());
    let not_this = || JoinError::NotThisBoot { node: me.clone() };
    let party = roster.party(me).ok_or_else(not_this)?;
    let threshold = u16::try_from(manifest.threshold).map_err(|_| not_this())?;
    let participants = |live: &LiveKey| {
        let holders: Vec<(NodeName, BootId)> =
            live.holders.iter().map(|(node, boot)| (node.clone(), *boot)).collect();
        roster.participants(&holders)
    };
    let mut keys = BTreeMap::new();
    for (name, key) in state.keys() {
        let was = former.keys().get(name).and_then(|key| key.live.as_ref());
        let (Some(was), Some(is)) = (was, &key.live) else { continue };
        if !state.is_holder(name, me) {
            continue;
        }
        // with fewer than two there is no run that they could take part in
        let (Some(held), Some(holders)) = (participants(was), participants(is)) else { continue };
        let (epoch, transcript) = (is.epoch, is.transcript);
        let Some(share) = shares.remove(&(name.clone(), epoch, transcript)) else {
            return Err(NotRecovered::MissingShare { name: name.clone(), epoch });
        };
        let of = Recovered {
            granted,
            me: party,
            epoch: KeyEpoch(epoch),
            public_key: &is.public_key,
            chain_code: is.chain_code,
            threshold,
            former: &held,
            holders: &holders,
        };
        keys.insert(name.clone(), Live::recovered(share, &of)?);
    }
    Ok(keys)
}

/// Opens the blob that the certificate names for this boot; nothing, where it names none.
fn open_blob(
    granted: &RecoveryGranted,
    state: &State,
    name: &NodeName,
    key: &RecoverySecretKey,
    parts: &RecoveryParts<'_>,
) -> Result<Vec<OpenedShare>, NotRecovered> {
    let needed = granted.certificate().boot(name).is_some_and(|boot| boot.sealed.is_some());
    let blob = match (needed, parts.blob) {
        (false, None) => return Ok(Vec::new()),
        (true, Some(blob)) => blob,
        (needed, _) => return Err(NotRecovered::Blob { needed }),
    };
    let (Some(former), Some(former_key)) = (state.current_boot(name), state.current_boot_key(name))
    else {
        return Err(JoinError::NotThisBoot { node: name.clone() }.into());
    };
    let opening = Opening {
        granted,
        manifest: state.manifest(),
        key,
        former,
        former_key,
        data_key: parts.data_key,
    };
    Ok(open(&opening, blob, parts.releases)?)
}
