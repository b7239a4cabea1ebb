//! Verification of Nitro attestation documents: (document, trust root, expectations, time) to evidence.
//!
//! A document is what the Nitro hypervisor's security module signs about a running enclave: an untagged
//! COSE_Sign1 (RFC 9052, ES384) over a CBOR map, with the X.509 chain from AWS's root to the key that
//! signed. The format is described in the NSM API's `docs/attestation_process.md`; where genuine
//! documents depart from it, the modules say so.
//!
//! [`verify`] is pure: bytes, root, expectations and time come in as arguments. Nothing in a document
//! is believed before the signature and the whole chain were verified, and only [`verify`] makes an
//! [`Evidence`]. No feature of this crate switches any check off; a simulated enclave is accepted by
//! passing a simulated [`TrustRoot`].
//!
//! What the caller still has to do: make a fresh nonce for each question and forget it afterwards, bound
//! the age with [`Freshness`], and use the attested key on the connection that the document stands for.

mod certificate;
mod chain;
mod evidence;
mod expectations;
mod pcr;
mod refusal;
mod root;
mod signature;
mod time;
mod wire;

use coset::{Header, ProtectedHeader, SignatureContext, sig_structure_data};

use crate::{
    chain::Chain,
    wire::{Envelope, Statement},
};
pub use crate::{
    evidence::Evidence,
    expectations::{Expectations, MIN_NONCE_BYTES},
    pcr::{Measurement, PCR_BYTES, PCR_COUNT, Pcr},
    refusal::{
        BoundField, CertificateFault, ExtensionFault, IdentityFault, Kind, Malformed, Part,
        Position, Refusal, Unmet,
    },
    root::{AWS_NITRO_ENCLAVES_G1_PEM, Revocation, RootError, TrustRoot},
    time::{At, Freshness, UnixMillis},
};

/// Verifies a document: format, root, chain, signature, identity, then the expectations.
///
/// # Errors
/// The first [`Refusal`] met. Cheap checks come first, so the reason given for a forgery need not be its
/// signature; [`Refusal::Unmet`] is given only for a document that is genuine.
pub fn verify(
    document: &[u8],
    trust_root: &TrustRoot,
    expectations: &Expectations,
    at: At,
) -> Result<Evidence, Refusal> {
    let envelope = Envelope::decode(document)?;
    let statement = Statement::decode(envelope.payload)?;
    let chain = Chain::decode(&statement, trust_root)?;
    chain.check(
        trust_root,
        match at {
            At::Now { now, .. } => now,
            At::Document => statement.timestamp,
        },
    )?;
    if !chain.leaf_verifies(&signed_bytes(&envelope), envelope.signature) {
        return Err(Refusal::Signature);
    }
    chain.verify_signatures()?;
    let evidence = Evidence::collect(statement, &chain)?;
    expectations.check(&evidence, at)?;
    Ok(evidence)
}

/// COSE's `Sig_structure` (RFC 9052, section 4.4) over the header and the payload as received.
fn signed_bytes(envelope: &Envelope<'_>) -> Vec<u8> {
    let protected = ProtectedHeader {
        original_data: Some(envelope.protected.to_vec()),
        header: Header::default(),
    };
    sig_structure_data(SignatureContext::CoseSign1, protected, None, &[], envelope.payload)
}
