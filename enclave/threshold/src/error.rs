//! What can go wrong in a run, and whose fault it is.

use casemate_proto::{Hash32, UnixMillis, cbor::CborError};

use crate::{context::RunId, party::PartyId};

/// Why a call into a run did not do what was asked.
///
/// [`RunError::burns`] says whether the run is over. A run that is over has dropped its one-time
/// values; a new attempt needs a new run id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The message was dropped before a library saw it; the run goes on.
    #[error("message from party {from} refused: {why}")]
    Refused {
        /// Who sent it, as the channel says.
        from: PartyId,
        /// Why it was refused.
        why: Refusal,
    },
    /// Our own call was wrong; nothing was sent and the run, if there is one, goes on.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The deadline has passed.
    #[error("run passed its deadline {} at {}", .deadline.0, .now.0)]
    Expired {
        /// The last moment at which the run could have gone on.
        deadline: UnixMillis,
        /// The time of the call.
        now: UnixMillis,
    },
    /// The run is over already.
    #[error("run was burned before")]
    Burned,
    /// These parties did what no honest party does.
    #[error("{}: {what}", party_list(.parties))]
    PeerMisbehaved {
        /// Who; never empty.
        parties: Vec<PartyId>,
        /// What they did.
        what: Misbehaviour,
    },
    /// The run failed and nothing shows by whose fault.
    #[error("run aborted, by whose fault cannot be told: {what}")]
    Aborted {
        /// How it failed.
        what: Abort,
    },
}

impl RunError {
    /// Whether the run is over, its one-time values dropped.
    #[must_use]
    pub fn burns(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::Misuse(_))
    }

    /// The parties shown to be at fault; empty where none can be named.
    #[must_use]
    pub fn culprits(&self) -> &[PartyId] {
        match self {
            Self::PeerMisbehaved { parties, .. } => parties,
            Self::Refused { from, .. } => std::slice::from_ref(from),
            Self::Misuse(_) | Self::Expired { .. } | Self::Burned | Self::Aborted { .. } => &[],
        }
    }
}

fn party_list(parties: &[PartyId]) -> String {
    let list: Vec<String> = parties.iter().map(|p| format!("party {p}")).collect();
    list.join(", ")
}

/// Why a message was dropped unread.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The sender has no part in this run.
    #[error("not a participant of this run")]
    NotAParticipant,
    /// The message claims to come from this node.
    #[error("sent in this node's own name")]
    FromSelf,
    /// The sender in the envelope is not the sender that the channel names.
    #[error("the envelope names party {named} as sender")]
    WrongSender {
        /// The sender in the envelope.
        named: PartyId,
    },
    /// The envelope is for another party.
    #[error("addressed to party {named}")]
    WrongReceiver {
        /// The receiver in the envelope.
        named: PartyId,
    },
    /// The envelope belongs to another run.
    #[error("belongs to run {named}")]
    WrongRun {
        /// The run in the envelope.
        named: RunId,
    },
    /// Another version of the envelope.
    #[error("envelope version {version}")]
    WrongVersion {
        /// The version in the envelope.
        version: u8,
    },
    /// Not an envelope, or too large to be one.
    #[error("not an envelope: {0}")]
    Malformed(CborError),
    /// A sequence number seen before from this sender.
    #[error("sequence {sequence} came before")]
    Repeated {
        /// The number.
        sequence: u32,
    },
    /// A lane that this kind of run does not have.
    #[error("unknown lane {lane}")]
    UnknownLane {
        /// The lane.
        lane: u8,
    },
    /// A chunk larger than any honest one of its lane, or no chunk at all.
    #[error("chunk of {size} bytes where 1 to {max} are allowed")]
    ChunkSize {
        /// Its size in bytes.
        size: usize,
        /// The most that the lane allows.
        max: usize,
    },
    /// More chunks of this kind than an honest party sends in a whole run.
    #[error("more than {max} chunks in lane {lane}")]
    TooMany {
        /// The lane.
        lane: u8,
        /// How many one sender may send.
        max: usize,
    },
    /// The run has ended well; what comes late has no use.
    #[error("the run has finished")]
    Finished,
}

/// What only our own code can get wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// A party number that a library could not tell from another.
    #[error("party number `{0}` is over {max}", max = PartyId::MAX)]
    PartyNumber(u16),
    /// Too few or too many participants.
    #[error("`{count}` participants, where 2 to 16 are allowed")]
    ParticipantCount {
        /// How many were named.
        count: usize,
    },
    /// A party named twice.
    #[error("party `{0}` named twice")]
    DuplicateParty(PartyId),
    /// A boot named twice.
    #[error("the boot of party `{0}` is also another party's")]
    DuplicateBoot(PartyId),
    /// A threshold below 2 or above the number of participants.
    #[error(
        "threshold `{threshold}` for {participants} participants, where 2 to {participants} are allowed"
    )]
    Threshold {
        /// The threshold asked for.
        threshold: u16,
        /// How many participants there are.
        participants: usize,
    },
    /// A triple or a signature made by another number of parties than t.
    #[error("{participants} participants where exactly `{threshold}` are allowed")]
    NotExactlyThreshold {
        /// The threshold.
        threshold: u16,
        /// How many participants there are.
        participants: usize,
    },
    /// This node's party and boot are not among the participants.
    #[error("this node is not among the participants")]
    NotParticipating,
    /// A run id claimed before, or older than what is remembered.
    #[error("run {0} was claimed before, or is too old to tell")]
    RunRepeated(RunId),
    /// A run of one kind built with the context of another.
    #[error("run of purpose `{purpose}` where `{expected}` is needed")]
    WrongPurpose {
        /// The purpose in the context.
        purpose: &'static str,
        /// What this kind of run is for.
        expected: &'static str,
    },
    /// The key, its epoch, its cluster or its threshold is not the one in the run's context.
    #[error("the key share is not of the key, epoch, cluster and threshold that the run names")]
    WrongKey,
    /// A participant has no share of this key in this epoch.
    #[error("party `{0}` holds no share of this key in this epoch")]
    NotAHolder(PartyId),
    /// The triples are not those that the run names, or were made by another set of boots.
    #[error("the triples are not those that the run names")]
    WrongTriples,
    /// The message is not the one that the run names.
    #[error("the message is not the one that the run names")]
    WrongMessage,
    /// The permit is for another run or for something else to sign.
    #[error("the permit is for run {permit}, this is run {run}, or what they sign differs")]
    WrongPermit {
        /// The run in the permit.
        permit: RunId,
        /// This run.
        run: RunId,
    },
    /// The permit came after the last moment at which a share may be released.
    #[error("the permit ended at {}, now is {}", .release_by.0, .now.0)]
    PermitExpired {
        /// The last moment.
        release_by: UnixMillis,
        /// The time of the call.
        now: UnixMillis,
    },
    /// A second permit for one run.
    #[error("run {0} has its permit already")]
    PermitRepeated(RunId),
    /// A path below which the curve has no key: one in 2¹²⁷.
    #[error("no key exists at path `{0}`")]
    NoSuchChild(casemate_proto::DerivationPath),
    /// The parameters were refused by the library.
    #[error("the library refused the parameters: {0}")]
    Library(String),
}

/// What no honest party does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// A chunk that its lane's decoder does not read.
    #[error("sent what its lane cannot be decoded from")]
    Undecodable,
    /// The revealed contribution is not the committed one.
    #[error("revealed another chain code contribution than it committed to")]
    ChainCodeMismatch,
    /// A proof of knowledge did not verify.
    #[error("gave a wrong proof of knowledge")]
    WrongProof,
    /// A secret share did not match its commitment.
    #[error("sent a share that its commitment does not match")]
    WrongShare,
    /// A signature share did not verify.
    #[error("sent a wrong signature share")]
    WrongSignatureShare,
}

/// How a run failed where nobody can be named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Abort {
    /// The library stopped.
    #[error("the library says `{said}`")]
    Library {
        /// Its words, cut to 200 characters.
        said: String,
    },
    /// The library panicked.
    #[error("the library panicked")]
    Panicked,
    /// The library never came to rest.
    #[error("the library did not come to rest")]
    Restless,
    /// A party saw another transcript: whoever broadcast different things to different parties need
    /// not be that party.
    #[error("party {party} saw another transcript: theirs {theirs}, ours {ours}")]
    EchoMismatch {
        /// Who saw another one.
        party: PartyId,
        /// Theirs.
        theirs: Hash32,
        /// Ours.
        ours: Hash32,
    },
    /// Somebody sent different nonce commitments to different parties.
    #[error("the signers saw different commitments")]
    CommitmentsDiffer,
    /// The finished signature did not verify under the derived public key.
    #[error("the finished signature does not verify")]
    WrongSignature,
    /// The new shares do not belong to the key that is being kept.
    #[error("the new shares are not of the same public key")]
    PublicKeyChanged,
}

impl Abort {
    pub(crate) fn library(error: &impl std::fmt::Display) -> RunError {
        let said = error.to_string().chars().take(200).collect();
        RunError::Aborted { what: Self::Library { said } }
    }
}

/// Why a pending key did not go live.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmError {
    /// No transcript hash of this party, or one of a party that holds no share.
    #[error("the transcript hashes are not exactly those of the {expected} holders")]
    EchoMissing {
        /// How many holders there are.
        expected: usize,
    },
    /// A party's transcript hash differs.
    #[error("party {party} saw another transcript: theirs {theirs}, ours {ours}")]
    EchoMismatch {
        /// Who.
        party: PartyId,
        /// Theirs.
        theirs: Hash32,
        /// Ours.
        ours: Hash32,
    },
    /// A test signature by parties that are not t holders.
    #[error("a test signature names a set that is not {threshold} holders of the key")]
    WrongSubset {
        /// The threshold.
        threshold: u16,
    },
    /// A test signature that does not verify.
    #[error("the test signature of parties {subset:?} does not verify")]
    WrongSignature {
        /// Who made it.
        subset: Vec<PartyId>,
    },
    /// A holder that took part in no test signature.
    #[error("party {0} took part in no test signature")]
    NotCovered(PartyId),
}
