//! What is asked for, read as an enclave reads it before it is sent; and the check that what came back
//! is the signature for exactly that.
//!
//! A signature is handed out only if
//!
//! - the record of the signature and the record that allowed it are leaves of trees whose
//!   checkpoints at least t current boots cosigned (I10);
//! - they are of this credential, this request id and this body, and say `allowed` and `accepted`;
//! - the digest is the one that this client derives from the body by the same code as the enclaves (I3);
//! - the signature verifies over it under the key that the client pinned, or the child of it that the
//!   path names, derived here (I13).

use casemate_audit::{CheckpointPolicy, InclusionReceipt, Record, verify_receipt};
use casemate_door::Signed;
use casemate_ledger::keys::verify_signature;
use casemate_ledger::payload::{self, ChildKey, Decoded, Form};
use casemate_ledger::{Entry, EntryBody, Verdict};
use casemate_proto::hash::sha256;
use casemate_proto::ids::Hash32;
use casemate_proto::request::{ApprovalBody, SignRequest};
use casemate_proto::{CredentialId, GenesisId, Scheme, cbor};
use casemate_tx::{EvmAddress, EvmSignature};

use crate::error::ClientError;
use crate::fault::ReceiptFault;
use crate::keys::PinnedKey;

/// Most bytes of a verdict that is read.
const MAX_VERDICT: usize = casemate_audit::record::MAX_VERDICT;

/// A request as it is sent, read as an enclave reads it.
#[derive(Clone, Debug)]
pub struct Asked {
    body: Vec<u8>,
    request: SignRequest,
    decoded: Decoded,
}

impl Asked {
    /// From a request.
    ///
    /// # Errors
    /// If an enclave could not read it: it is not worth sending.
    pub fn new(genesis: &GenesisId, request: &SignRequest) -> Result<Self, ClientError> {
        Self::from_body(genesis, request.to_body().into_bytes())
    }

    /// From a body's bytes as they are to be stamped.
    ///
    /// # Errors
    /// If an enclave could not read it.
    pub fn from_body(genesis: &GenesisId, body: Vec<u8>) -> Result<Self, ClientError> {
        let request = SignRequest::parse(&body)?;
        let decoded = payload::decode(genesis, &request.payload)
            .map_err(|denial| ClientError::WouldBeDenied(Box::new(denial)))?;
        Ok(Self { body, request, decoded })
    }

    /// The bytes that are stamped.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }
    /// SHA-256 of them.
    #[must_use]
    pub fn body_hash(&self) -> Hash32 {
        Hash32::new(sha256(&self.body))
    }
    /// What they say.
    #[must_use]
    pub const fn request(&self) -> &SignRequest {
        &self.request
    }
    /// What an enclave makes of the payload.
    #[must_use]
    pub const fn decoded(&self) -> &Decoded {
        &self.decoded
    }
}

/// A signature that was shown to be in the log, for what was asked. Made by this crate only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSignature {
    digest: [u8; 32],
    scheme: Scheme,
    signature: Vec<u8>,
    public_key: Vec<u8>,
    address: Option<EvmAddress>,
    raw_transaction: Option<Vec<u8>>,
    receipt: casemate_door::Receipt,
    index: u64,
    signed_index: u64,
}

impl VerifiedSignature {
    /// What was signed.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
    /// The key's scheme.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }
    /// As the log has it: 65 bytes r‖s‖v with v 0 or 1 for ECDSA, otherwise 64 bytes.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }
    /// As Ethereum's wallets have it: v is 27 or 28.
    #[must_use]
    pub fn wallet_signature(&self) -> Vec<u8> {
        let mut bytes = self.signature.clone();
        if let (65, Some(v)) = (bytes.len(), bytes.last_mut()) {
            *v = v.saturating_add(27);
        }
        bytes
    }
    /// The key that it verifies under: 33 bytes SEC 1 or 32 bytes.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }
    /// That key's EVM address.
    #[must_use]
    pub const fn address(&self) -> Option<&EvmAddress> {
        self.address.as_ref()
    }
    /// For a transaction: what to send to the chain, put together here.
    #[must_use]
    pub fn raw_transaction(&self) -> Option<&[u8]> {
        self.raw_transaction.as_deref()
    }
    /// The proofs, to be kept.
    #[must_use]
    pub const fn receipt(&self) -> &casemate_door::Receipt {
        &self.receipt
    }
    /// The record that allowed it.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }
    /// The record that holds it.
    #[must_use]
    pub const fn signed_index(&self) -> u64 {
        self.signed_index
    }
}

/// What an answer is compared with.
pub(crate) struct Expected<'a> {
    pub(crate) credential: CredentialId,
    pub(crate) asked: &'a Asked,
    pub(crate) key: &'a PinnedKey,
    pub(crate) checkpoint: &'a CheckpointPolicy,
}

/// Checks an answer that says that the request was signed.
pub(crate) fn verify(
    signed: Signed,
    expected: &Expected<'_>,
) -> Result<VerifiedSignature, ReceiptFault> {
    let asked = expected.asked;
    let child = expected.key.child(&asked.request.path).map_err(|_| ReceiptFault::OtherKey)?;
    let allowed = proven(&signed.receipt.allowed, expected.checkpoint)
        .map_err(|fault| fault.map(ReceiptFault::Allowed))?;
    let recorded = proven(&signed.receipt.signed, expected.checkpoint)
        .map_err(|fault| fault.map(ReceiptFault::Signed))?;
    check_allowed(&allowed, expected)?;
    check_signed(&recorded, &signed.signature, expected)?;
    if allowed.index >= recorded.index {
        return Err(ReceiptFault::Order);
    }
    let digest = asked.decoded.digest;
    if signed.digest != digest {
        return Err(ReceiptFault::OtherDigest);
    }
    if signed.public_key != child.public_key {
        return Err(ReceiptFault::OtherPublicKey);
    }
    check_signature(expected.key.scheme(), &child, &digest, &signed.signature)?;
    let raw_transaction = raw_transaction(asked, &signed.signature)?;
    Ok(VerifiedSignature {
        digest,
        scheme: expected.key.scheme(),
        signature: signed.signature,
        public_key: child.public_key,
        address: child.address,
        raw_transaction,
        index: allowed.index,
        signed_index: recorded.index,
        receipt: signed.receipt,
    })
}

/// A record that is shown to be in the log, with its entry and verdict.
pub(crate) struct Proven {
    pub(crate) index: u64,
    pub(crate) kind: String,
    pub(crate) body: EntryBody,
    pub(crate) verdict: Verdict,
}

pub(crate) enum ProofFault {
    Receipt(casemate_audit::ReceiptError),
    Other(ReceiptFault),
}

impl ProofFault {
    fn map(self, of: impl FnOnce(casemate_audit::ReceiptError) -> ReceiptFault) -> ReceiptFault {
        match self {
            Self::Receipt(error) => of(error),
            Self::Other(fault) => fault,
        }
    }
}

pub(crate) fn proven(
    receipt: &InclusionReceipt,
    policy: &CheckpointPolicy,
) -> Result<Proven, ProofFault> {
    let verified = verify_receipt(receipt, policy).map_err(ProofFault::Receipt)?;
    read(verified.record()).map_err(ProofFault::Other)
}

fn read(record: &Record) -> Result<Proven, ReceiptFault> {
    let malformed = |part| move |error| ReceiptFault::Malformed { part, error };
    let fields = record.fields();
    let entry = Entry::decode(&fields.entry).map_err(malformed("entry"))?;
    let verdict: Verdict =
        cbor::decode(&fields.verdict, MAX_VERDICT).map_err(malformed("verdict"))?;
    let (index, kind) = (fields.index, entry.body.kind().to_owned());
    Ok(Proven { index, kind, body: entry.body, verdict })
}

fn check_allowed(record: &Proven, expected: &Expected<'_>) -> Result<(), ReceiptFault> {
    let asked = expected.asked;
    match &record.body {
        EntryBody::Request { stamp, body } => {
            if stamp.credential != expected.credential || *body != asked.body {
                return Err(ReceiptFault::OtherRequest);
            }
        }
        // the last approval that was needed; which body it is about shows in the digest below
        EntryBody::Approval { body, .. } => {
            let fits = ApprovalBody::parse(body).is_ok_and(|approval| {
                approval.credential == expected.credential
                    && approval.request_id == asked.request.request_id
            });
            if !fits {
                return Err(ReceiptFault::OtherRequest);
            }
        }
        _ => {
            let found = record.kind.clone();
            return Err(ReceiptFault::Kind { expected: "request", found });
        }
    }
    let Verdict::Allowed(allowed) = &record.verdict else {
        return Err(ReceiptFault::Verdict { found: record.verdict.name() });
    };
    if allowed.key != asked.request.key || allowed.path != asked.request.path {
        return Err(ReceiptFault::OtherKey);
    }
    if allowed.digest != asked.decoded.digest {
        return Err(ReceiptFault::OtherDigest);
    }
    Ok(())
}

fn check_signed(
    record: &Proven,
    answered: &[u8],
    expected: &Expected<'_>,
) -> Result<(), ReceiptFault> {
    let EntryBody::Signed { credential, request_id, signature } = &record.body else {
        let found = record.kind.clone();
        return Err(ReceiptFault::Kind { expected: "signed", found });
    };
    if *credential != expected.credential || *request_id != expected.asked.request.request_id {
        return Err(ReceiptFault::OtherRequest);
    }
    if !matches!(record.verdict, Verdict::Accepted { .. }) {
        return Err(ReceiptFault::Verdict { found: record.verdict.name() });
    }
    if signature != answered {
        return Err(ReceiptFault::OtherSignature);
    }
    Ok(())
}

fn check_signature(
    scheme: Scheme,
    child: &ChildKey,
    digest: &[u8; 32],
    signature: &[u8],
) -> Result<(), ReceiptFault> {
    let (plain, rest) = signature.split_first_chunk::<64>().ok_or(ReceiptFault::BadSignature)?;
    let recovers = match (scheme, rest) {
        (Scheme::EcdsaSecp256k1, [v @ (0 | 1)]) => recovers(&child.public_key, digest, plain, *v),
        (Scheme::EcdsaSecp256k1, _) => false,
        (_, rest) => rest.is_empty(),
    };
    if recovers && verify_signature(scheme, &child.public_key, digest, plain) {
        Ok(())
    } else {
        Err(ReceiptFault::BadSignature)
    }
}

/// Whether the recovery id `v` gives exactly this public key: a wallet or a contract that recovers the
/// signer must find the one that was asked for.
fn recovers(public_key: &[u8], digest: &[u8; 32], plain: &[u8; 64], v: u8) -> bool {
    let (Ok(signature), Some(id)) =
        (k256::ecdsa::Signature::from_slice(plain), k256::ecdsa::RecoveryId::from_byte(v))
    else {
        return false;
    };
    k256::ecdsa::VerifyingKey::recover_from_prehash(digest, &signature, id)
        .is_ok_and(|key| key.to_encoded_point(true).as_bytes() == public_key)
}

/// The signed transaction, from what was asked and the signature that was checked; what the answer
/// has in its place is not looked at.
fn raw_transaction(asked: &Asked, signature: &[u8]) -> Result<Option<Vec<u8>>, ReceiptFault> {
    let Form::Evm(transaction) = &asked.decoded.form else { return Ok(None) };
    let (plain, v) = signature.split_first_chunk::<64>().ok_or(ReceiptFault::BadSignature)?;
    let signature =
        EvmSignature::new(plain, v.first() == Some(&1)).map_err(|_| ReceiptFault::BadSignature)?;
    Ok(Some(transaction.raw_signed(&signature)))
}
