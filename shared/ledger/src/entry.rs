//! Entries: everything that can be appended to the ledger.

use casemate_proto::governance::{NamedSignature, SignedChange, SignedStatement};
use casemate_proto::hash::tagged_hash;
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::BootRecord;
use casemate_proto::recovery::SignedCertificate;
use casemate_proto::request::MAX_BODY;
use casemate_proto::stamp::Stamp;
use casemate_proto::webauthn::Assertion;
use casemate_proto::{CredentialId, KeyName, NodeName, RequestId, Scheme, UnixMillis};
use minicbor::{Decode, Encode};

/// Most bytes of an encoded entry; with its verdict it still fits a tile's entry bundle.
pub const MAX_ENTRY: usize = MAX_BODY + 4 * 1024;

/// One step of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Entry {
    /// The leader's time. Applied as the later of this and the ledger's time so far.
    #[n(0)]
    pub at: UnixMillis,
    /// What happens.
    #[n(1)]
    pub body: EntryBody,
}

/// What happens in an entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum EntryBody {
    /// Somebody asks for a signature.
    #[n(0)]
    Request {
        /// The requester's stamp over the body.
        #[n(0)]
        stamp: Stamp,
        /// The body's bytes, as they were stamped.
        #[cbor(n(1), with = "minicbor::bytes")]
        body: Vec<u8>,
    },
    /// Somebody approves a pending request.
    #[n(1)]
    Approval {
        /// The approval's body.
        #[cbor(n(0), with = "minicbor::bytes")]
        body: Vec<u8>,
        /// Who says so.
        #[n(1)]
        proof: ApprovalProof,
    },
    /// The governance quorum changes something.
    #[n(2)]
    Governance(#[n(0)] SignedChange),
    /// A freezer freezes, vetoes, or is there.
    #[n(3)]
    Statement(#[n(0)] SignedStatement),
    /// A key, or a new epoch of one, is live.
    #[n(4)]
    KeyLive(#[n(0)] KeyLive),
    /// A signature was made for an allowed request. It proves itself.
    #[n(5)]
    Signed {
        /// Whose request.
        #[n(0)]
        credential: CredentialId,
        /// Which.
        #[n(1)]
        request_id: RequestId,
        /// 65 bytes r‖s‖v (v 0 or 1) for ECDSA, 64 for Ed25519.
        #[cbor(n(2), with = "minicbor::bytes")]
        signature: Vec<u8>,
    },
    /// A node's new boot takes the place of its former one.
    #[n(6)]
    Admit(#[n(0)] BootRecord),
    /// Time passes.
    #[n(7)]
    Tick,
    /// Go to a higher version of `apply`, which every current boot has.
    #[n(8)]
    RaiseVersion {
        /// The version.
        #[n(0)]
        to: u64,
    },
    /// The birth, always and only the first entry. The genesis record travels beside it.
    #[n(9)]
    Genesis {
        /// Its id.
        #[n(0)]
        id: casemate_proto::GenesisId,
    },
    /// Another incarnation takes the ledger over. The certificate travels beside it.
    #[n(10)]
    Recover {
        /// The certificate's id.
        #[n(0)]
        certificate: Hash32,
    },
}

impl EntryBody {
    /// For people, logs and records.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Request { .. } => "request",
            Self::Approval { .. } => "approval",
            Self::Governance(_) => "governance",
            Self::Statement(_) => "statement",
            Self::KeyLive(_) => "key_live",
            Self::Signed { .. } => "signed",
            Self::Admit(_) => "admit",
            Self::Tick => "tick",
            Self::RaiseVersion { .. } => "raise_version",
            Self::Genesis { .. } => "genesis",
            Self::Recover { .. } => "recover",
        }
    }
}

impl Entry {
    /// Decodes an entry.
    ///
    /// # Errors
    /// If the bytes are too many, malformed or not canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, casemate_proto::cbor::CborError> {
        casemate_proto::cbor::decode(bytes, MAX_ENTRY)
    }

    /// Its canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        casemate_proto::cbor::encode(self)
    }

    /// The hash that names it in a protocol run.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        tagged_hash("casemate/entry/v1", &[&self.encode()])
    }
}

/// How an approver proves an approval.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ApprovalProof {
    /// A stamp over the approval's body.
    #[n(0)]
    Stamp(#[n(0)] Stamp),
    /// A passkey's assertion over the approval document.
    #[n(1)]
    Passkey {
        /// The passkey.
        #[n(0)]
        credential: CredentialId,
        /// What it signed.
        #[n(1)]
        assertion: Assertion,
    },
}

impl ApprovalProof {
    /// Whose it claims to be.
    #[must_use]
    pub const fn credential(&self) -> CredentialId {
        match self {
            Self::Stamp(stamp) => stamp.credential,
            Self::Passkey { credential, .. } => *credential,
        }
    }
}

/// What is too large for a log entry and travels beside it, bound by a hash inside the entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Attachment {
    /// The genesis record's encoding, beside [`EntryBody::Genesis`].
    #[n(0)]
    Genesis(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// A policy's canonical form, beside a change that sets it.
    #[n(1)]
    Policy(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// A signed recovery certificate's encoding, beside [`EntryBody::Recover`].
    #[n(2)]
    Recovery(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

/// Why what travels beside an entry does not belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachmentError {
    /// The entry needs one, or one of another kind.
    #[error("what must travel beside a `{kind}` entry is missing")]
    Missing {
        /// The entry's kind.
        kind: &'static str,
    },
    /// The entry has none.
    #[error("nothing travels beside a `{kind}` entry")]
    Unwanted {
        /// The entry's kind.
        kind: &'static str,
    },
    /// More bytes than may travel beside an entry.
    #[error("{size} bytes travel beside a `{kind}` entry; at most {max} may")]
    TooLarge {
        /// The entry's kind.
        kind: &'static str,
        /// How many came.
        size: usize,
        /// How many may.
        max: usize,
    },
    /// It is not what the entry names by its hash.
    #[error("what travels beside a `{kind}` entry is not what the entry names")]
    Mismatch {
        /// The entry's kind.
        kind: &'static str,
    },
}

impl EntryBody {
    /// Checks that what belongs beside this entry is there, of the right kind and within its cap, and
    /// nothing else. What it says is not looked at.
    ///
    /// # Errors
    /// Saying what is wrong.
    pub fn expects(&self, attachment: Option<&Attachment>) -> Result<(), AttachmentError> {
        let kind = self.kind();
        let (size, max) = match (self, self.policy(), attachment) {
            (Self::Genesis { .. }, _, Some(Attachment::Genesis(bytes))) => {
                (bytes.len(), casemate_proto::manifest::MAX_GENESIS)
            }
            (_, Some(_), Some(Attachment::Policy(bytes))) => {
                (bytes.len(), casemate_proto::governance::MAX_POLICY)
            }
            (Self::Recover { .. }, _, Some(Attachment::Recovery(bytes))) => {
                (bytes.len(), casemate_proto::recovery::MAX_SIGNED_CERTIFICATE)
            }
            (Self::Genesis { .. } | Self::Recover { .. }, ..) | (_, Some(_), _) => {
                return Err(AttachmentError::Missing { kind });
            }
            (_, None, Some(_)) => return Err(AttachmentError::Unwanted { kind }),
            (_, None, None) => return Ok(()),
        };
        if size > max { Err(AttachmentError::TooLarge { kind, size, max }) } else { Ok(()) }
    }

    /// Checks that exactly what belongs beside this entry is there, and is what the entry names by
    /// its hash. An entry without it would only be denied; replication asks before it lets one in.
    ///
    /// # Errors
    /// Saying what is wrong.
    pub fn check_attachment(&self, attachment: Option<&Attachment>) -> Result<(), AttachmentError> {
        self.expects(attachment)?;
        let same = match (self, self.policy(), attachment) {
            (Self::Genesis { id }, _, Some(Attachment::Genesis(bytes))) => {
                let max = casemate_proto::manifest::MAX_GENESIS;
                casemate_proto::cbor::decode::<casemate_proto::manifest::GenesisRecord>(bytes, max)
                    .is_ok_and(|record| record.id() == *id)
            }
            (Self::Recover { certificate }, _, Some(Attachment::Recovery(bytes))) => {
                let max = casemate_proto::recovery::MAX_SIGNED_CERTIFICATE;
                casemate_proto::cbor::decode::<SignedCertificate>(bytes, max)
                    .is_ok_and(|signed| signed.certificate.id() == *certificate)
            }
            (_, Some(policy), Some(Attachment::Policy(bytes))) => {
                casemate_policy::Policy::from_canonical(bytes)
                    .is_ok_and(|named| named.policy_hash() == policy)
            }
            _ => true,
        };
        if same { Ok(()) } else { Err(AttachmentError::Mismatch { kind: self.kind() }) }
    }

    /// The policy that must travel beside this entry.
    fn policy(&self) -> Option<Hash32> {
        match self {
            Self::Governance(signed) => match signed.envelope.change {
                casemate_proto::governance::Change::SetPolicy { policy } => Some(policy),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A test signature that shows that one set of shares works.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TestSignature {
    /// Which nodes made it, in order.
    #[n(0)]
    pub participants: Vec<NodeName>,
    /// 64 bytes r‖s or Ed25519, over [`KeyLive::test_digest`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// One node's word that its share belongs to this key, after it saw every echo and test.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Confirmation {
    /// Which node.
    #[n(0)]
    pub node: NodeName,
    /// Its current boot's signature over [`KeyLive::confirm_message`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// A key generation, refresh or recovery that ended well.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeyLive {
    /// The key's name.
    #[n(0)]
    pub name: KeyName,
    /// Its scheme.
    #[n(1)]
    pub scheme: Scheme,
    /// 0 when it is made, higher for each new set of shares.
    #[n(2)]
    pub epoch: u64,
    /// 33 bytes SEC1 or 32 bytes Ed25519.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
    /// For derivation.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub chain_code: [u8; 32],
    /// The hash of everything that was broadcast, which all participants echoed.
    #[n(5)]
    pub transcript: Hash32,
    /// Test signatures over sets that together hold every node.
    #[n(6)]
    pub tests: Vec<TestSignature>,
    /// Every node's word.
    #[n(7)]
    pub confirmations: Vec<Confirmation>,
    /// The epoch whose shares these take the place of; left out when the key is made. Of two
    /// sets of shares made from one epoch only one can go live, and the other is dropped.
    #[n(8)]
    pub replaces: Option<u64>,
}

impl KeyLive {
    /// What a test signature of these signers is over: places in the roster, ascending, with their
    /// current boots. See [`State::test_digest`](crate::State::test_digest).
    #[must_use]
    pub fn test_digest(
        &self,
        genesis: casemate_proto::GenesisId,
        incarnation: casemate_proto::Incarnation,
        signers: &[(u16, casemate_proto::BootId)],
    ) -> [u8; 32] {
        casemate_proto::key_test::KeyTest {
            genesis,
            incarnation,
            scheme: self.scheme,
            name: &self.name,
            epoch: self.epoch,
            public_key: &self.public_key,
            chain_code: &self.chain_code,
            transcript: &self.transcript,
            signers,
        }
        .digest()
    }

    /// What each node's boot signs: everything but the confirmations.
    #[must_use]
    pub fn confirm_message(&self, genesis: &casemate_proto::GenesisId) -> Vec<u8> {
        let bare = Self { confirmations: Vec::new(), ..self.clone() };
        let hash = tagged_hash(
            "casemate/key-confirm/v1",
            &[genesis.as_bytes(), &casemate_proto::cbor::encode(&bare)],
        );
        [b"casemate/key-confirm/v1\0".as_slice(), hash.as_bytes()].concat()
    }
}

/// Most signatures under a change; the manifest's governors are fewer.
pub const MAX_SIGNATURES: usize = 32;

/// Whether a list of signatures is within its cap.
#[must_use]
pub fn within_cap(signatures: &[NamedSignature]) -> bool {
    signatures.len() <= MAX_SIGNATURES
}
