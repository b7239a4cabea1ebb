//! Approvals by passkey: a WebAuthn assertion whose challenge is the approval document.
//!
//! ```text
//! challenge = SHA-256("casemate/approval/v1\0" ‖ hash of the approval document)
//! signature = ECDSA P-256, SHA-256, over authenticatorData ‖ SHA-256(clientDataJSON)
//! ```
//!
//! This is section 7.2 of Web Authentication Level 3 ("Verifying an Authentication Assertion"),
//! with every choice that the section leaves taken on the strict side: user presence and user
//! verification are both required, no frame of another origin, no extensions, DER in its one
//! form. The document binds genesis, incarnation, request, digest, policy and expiry, so an
//! assertion is worthless for anything else; that is the document's part, not this module's.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minicbor::{Decode, Encode};

use crate::credential::{Algorithm, CredentialError, PublicKey};
use crate::hash::sha256;
use crate::ids::Hash32;
use crate::{CredentialId, cbor};

/// Most bytes of an encoded [`Assertion`].
pub const MAX_ASSERTION: usize = 4 * 1024;
/// Most bytes of a clientDataJSON; browsers write some 150.
pub const MAX_CLIENT_DATA: usize = 2 * 1024;
/// Bytes of authenticator data without attested data and extensions, which are refused.
pub const AUTHENTICATOR_DATA_LEN: usize = 37;
/// Most bytes of a P-256 signature in DER.
pub const MAX_SIGNATURE: usize = 72;
/// Most bytes of a relying party's id: a host name's.
pub const MAX_RP_ID: usize = 253;
/// Most bytes of an origin: `https://`, a host name and a port.
pub const MAX_ORIGIN: usize = 8 + MAX_RP_ID + 6;

const FLAG_USER_PRESENT: u8 = 0x01;
const FLAG_USER_VERIFIED: u8 = 0x04;
const FLAG_BACKUP_ELIGIBLE: u8 = 0x08;
const FLAG_BACKED_UP: u8 = 0x10;
const FLAG_ATTESTED_DATA: u8 = 0x40;
const FLAG_EXTENSIONS: u8 = 0x80;

/// The site that approvers' passkeys are registered with.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelyingParty {
    /// Its id, a host name such as `approvals.example.com`.
    #[n(0)]
    pub id: String,
    /// The one origin that approvals come from: `https`, host, and a port unless it is 443.
    #[n(1)]
    pub origin: String,
}

impl RelyingParty {
    /// Checks that the id is a host name in its canonical form and that the origin is an `https`
    /// origin of it or of a host below it. `http://localhost` is accepted for the id `localhost`,
    /// as browsers do.
    ///
    /// # Errors
    /// Saying what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let clip = |text: &str| text.chars().take(80).collect::<String>();
        if !is_host(&self.id) {
            return Err(format!(
                "id `{}` is not a host name in lower case, or has no dot and is not `localhost`",
                clip(&self.id)
            ));
        }
        let wrong = |reason: &str| Err(format!("origin `{}` {reason}", clip(&self.origin)));
        if self.origin.len() > MAX_ORIGIN {
            return wrong("is too long");
        }
        let (default_port, authority) = if let Some(rest) = self.origin.strip_prefix("https://") {
            (443, rest)
        } else if let (Some(rest), "localhost") =
            (self.origin.strip_prefix("http://"), self.id.as_str())
        {
            (80, rest)
        } else {
            return wrong("does not begin with `https://`");
        };
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        if let Some(text) = port {
            // an origin is compared as text, and a browser never writes the default port
            let number = text.parse::<u16>().ok().filter(|n| *n != 0 && *n != default_port);
            if number.is_none_or(|n| n.to_string() != text) {
                return wrong("has a port that a browser would not write");
            }
        }
        let below = host.strip_suffix(self.id.as_str()).is_some_and(|rest| rest.ends_with('.'));
        if host != self.id && !(below && is_host(host)) {
            return wrong("is not of the id's host or of one below it");
        }
        Ok(())
    }
}

/// Whether `text` is a host name that can be a relying party's id: no address, no upper case.
fn is_host(text: &str) -> bool {
    let label = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    // a last label that begins with a digit is, or is read by browsers as, an address
    let name = |last: &str| last.starts_with(|c: char| c.is_ascii_lowercase());
    text.len() <= MAX_RP_ID
        && text.split('.').all(label)
        && match text.rsplit_once('.') {
            Some((_, last)) => name(last),
            None => text == "localhost",
        }
}

/// An assertion as it arrives: within its caps, not yet believed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Assertion {
    /// Whose passkey it is said to be: Casemate's id for it, not the authenticator's.
    #[n(0)]
    pub credential: CredentialId,
    /// `authenticatorData`.
    #[cbor(
        n(1),
        encode_with = "minicbor::bytes::encode",
        decode_with = "at_most::<AUTHENTICATOR_DATA_LEN, _>"
    )]
    pub authenticator_data: Vec<u8>,
    /// `clientDataJSON`, byte for byte.
    #[cbor(
        n(2),
        encode_with = "minicbor::bytes::encode",
        decode_with = "at_most::<MAX_CLIENT_DATA, _>"
    )]
    pub client_data: Vec<u8>,
    /// The signature, in DER as authenticators give it.
    #[cbor(
        n(3),
        encode_with = "minicbor::bytes::encode",
        decode_with = "at_most::<MAX_SIGNATURE, _>"
    )]
    pub signature: Vec<u8>,
}

fn at_most<const MAX: usize, C>(
    decoder: &mut minicbor::Decoder<'_>,
    _: &mut C,
) -> Result<Vec<u8>, minicbor::decode::Error> {
    let at = decoder.position();
    let bytes = decoder.bytes()?;
    if bytes.len() > MAX {
        return Err(minicbor::decode::Error::message("more bytes than the field may have").at(at));
    }
    Ok(bytes.to_vec())
}

/// Why an assertion is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebauthnError {
    /// A part is larger than its cap.
    #[error("the assertion's {part} has {size} bytes; at most {max} are accepted")]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// Its size.
        size: usize,
        /// The cap.
        max: usize,
    },
    /// The key is not a passkey's.
    #[error("credential {credential} is not a passkey")]
    NotAPasskey {
        /// Whose key it is.
        credential: CredentialId,
    },
    /// The key given is another credential's.
    #[error("the assertion names credential {named}, not {given}")]
    OtherCredential {
        /// Named in the assertion.
        named: CredentialId,
        /// The key's.
        given: CredentialId,
    },
    /// The signature is not DER in its one form.
    #[error("the assertion's signature is not a DER-encoded P-256 signature")]
    SignatureEncoding,
    /// The signature does not verify.
    #[error(transparent)]
    Signature(#[from] CredentialError),
    /// clientDataJSON is not the JSON object it should be.
    #[error("the assertion's client data is malformed: {reason}")]
    ClientData {
        /// What is wrong, with the place.
        reason: String,
    },
    /// Made for something else than an authentication.
    #[error("the assertion's type is `{found}`, not `webauthn.get`")]
    Type {
        /// The beginning of what it says.
        found: String,
    },
    /// For another document.
    #[error("the assertion's challenge is `{found}`, not `{expected}`")]
    Challenge {
        /// The beginning of what it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// From another site.
    #[error("the assertion comes from origin `{found}`, not `{expected}`")]
    Origin {
        /// The beginning of what it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// Made in a frame of another site.
    #[error("the assertion was made in a frame that another origin embeds")]
    CrossOrigin,
    /// authenticatorData is too short or too long, or its flags contradict each other.
    #[error("the assertion's authenticator data is malformed: {reason}")]
    AuthenticatorData {
        /// What is wrong.
        reason: String,
    },
    /// Made for another relying party.
    #[error("the assertion is for another relying party than `{expected}`")]
    RelyingParty {
        /// The id that was expected.
        expected: String,
    },
    /// Nobody touched the authenticator.
    #[error("the authenticator did not see a user")]
    UserNotPresent,
    /// The user did not unlock the authenticator.
    #[error("the authenticator did not verify its user (PIN or biometrics)")]
    UserNotVerified,
}

/// An approval document that a passkey's owner approved. Made by [`Assertion::verify`] only.
#[derive(Clone, Debug)]
pub struct VerifiedAssertion {
    credential: CredentialId,
    document: Hash32,
    sign_count: u32,
}

impl VerifiedAssertion {
    /// Whose passkey signed.
    #[must_use]
    pub const fn credential(&self) -> CredentialId {
        self.credential
    }
    /// The hash of the document that was approved.
    #[must_use]
    pub const fn document(&self) -> Hash32 {
        self.document
    }
    /// The authenticator's counter. It decides nothing: passkeys that are synchronised between
    /// devices keep it at zero.
    #[must_use]
    pub const fn sign_count(&self) -> u32 {
        self.sign_count
    }
    /// What to tell an operator when the counter did not grow since `previous`: the passkey may
    /// have been copied.
    #[must_use]
    pub const fn sign_count_warning(&self, previous: u32) -> Option<SignCountWarning> {
        if (self.sign_count != 0 || previous != 0) && self.sign_count <= previous {
            Some(SignCountWarning { previous, found: self.sign_count })
        } else {
            None
        }
    }
}

/// A counter that did not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignCountWarning {
    /// The highest seen before.
    pub previous: u32,
    /// What the assertion says.
    pub found: u32,
}

/// The challenge that approves the document of this hash.
#[must_use]
pub fn approval_challenge(document: &Hash32) -> [u8; 32] {
    sha256(&[b"casemate/approval/v1\0".as_slice(), document.as_bytes()].concat())
}

impl Assertion {
    /// Decodes an assertion.
    ///
    /// # Errors
    /// If it is too large, malformed or not canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, cbor::CborError> {
        cbor::decode(bytes, MAX_ASSERTION)
    }

    /// Checks that the owner of `key` approved the document of this hash, at the relying party
    /// `rp`, present and verified.
    ///
    /// # Errors
    /// Naming the first thing that does not hold.
    pub fn verify(
        &self,
        key: &PublicKey,
        rp: &RelyingParty,
        document: &Hash32,
    ) -> Result<VerifiedAssertion, WebauthnError> {
        let sign_count = self.verify_challenge(key, rp, &approval_challenge(document))?;
        Ok(VerifiedAssertion { credential: self.credential, document: *document, sign_count })
    }

    /// The same for any challenge; returns the counter. The signature comes first: what only the
    /// authenticator can make is checked before what it says is read.
    fn verify_challenge(
        &self,
        key: &PublicKey,
        rp: &RelyingParty,
        challenge: &[u8],
    ) -> Result<u32, WebauthnError> {
        self.check_sizes()?;
        let given = key.id();
        if key.algorithm() != Algorithm::WebauthnP256 {
            return Err(WebauthnError::NotAPasskey { credential: given });
        }
        if given != self.credential {
            return Err(WebauthnError::OtherCredential { named: self.credential, given });
        }
        let signature = p256::ecdsa::Signature::from_der(&self.signature)
            .map_err(|_| WebauthnError::SignatureEncoding)?;
        let message = [self.authenticator_data.as_slice(), &sha256(&self.client_data)].concat();
        key.verify_as_any(&message, &signature.to_bytes().into())?;
        ClientData::parse(&self.client_data)?.check(rp, challenge)?;
        check_authenticator_data(&self.authenticator_data, rp)
    }

    /// A value made in place of decoded may exceed the caps.
    fn check_sizes(&self) -> Result<(), WebauthnError> {
        for (part, size, max) in [
            ("authenticator data", self.authenticator_data.len(), AUTHENTICATOR_DATA_LEN),
            ("client data", self.client_data.len(), MAX_CLIENT_DATA),
            ("signature", self.signature.len(), MAX_SIGNATURE),
        ] {
            if size > max {
                return Err(WebauthnError::TooLarge { part, size, max });
            }
        }
        Ok(())
    }
}

/// What is read of clientDataJSON. Other members are allowed, as browsers may add some, but none
/// may appear twice: which of the two counts would be a matter of the parser.
#[derive(Debug, Default)]
struct ClientData {
    kind: Option<String>,
    challenge: Option<String>,
    origin: Option<String>,
    cross_origin: Option<bool>,
    has_top_origin: bool,
}

impl ClientData {
    fn parse(json: &[u8]) -> Result<Self, WebauthnError> {
        serde_json::from_slice(json).map_err(|error| WebauthnError::ClientData {
            reason: error.to_string().chars().take(200).collect(),
        })
    }

    fn check(&self, rp: &RelyingParty, challenge: &[u8]) -> Result<(), WebauthnError> {
        let clip = |text: &str| text.chars().take(100).collect::<String>();
        let member = |value: &Option<String>, name| {
            value.clone().ok_or_else(|| WebauthnError::ClientData {
                reason: format!("member `{name}` is missing"),
            })
        };
        let kind = member(&self.kind, "type")?;
        if kind != "webauthn.get" {
            return Err(WebauthnError::Type { found: clip(&kind) });
        }
        let found = member(&self.challenge, "challenge")?;
        let expected = URL_SAFE_NO_PAD.encode(challenge);
        if found != expected {
            return Err(WebauthnError::Challenge { found: clip(&found), expected });
        }
        let found = member(&self.origin, "origin")?;
        if found != rp.origin {
            let expected = rp.origin.clone();
            return Err(WebauthnError::Origin { found: clip(&found), expected });
        }
        // a browser names the top origin only where it is another one
        if self.cross_origin == Some(true) || self.has_top_origin {
            return Err(WebauthnError::CrossOrigin);
        }
        Ok(())
    }
}

impl<'de> serde::Deserialize<'de> for ClientData {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = ClientData;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<ClientData, A::Error> {
                let mut data = ClientData::default();
                let mut seen = BTreeSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "type" => data.kind = Some(map.next_value()?),
                        "challenge" => data.challenge = Some(map.next_value()?),
                        "origin" => data.origin = Some(map.next_value()?),
                        "crossOrigin" => data.cross_origin = Some(map.next_value()?),
                        "topOrigin" => {
                            map.next_value::<String>()?;
                            data.has_top_origin = true;
                        }
                        _ => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                    }
                    if let Some(name) = seen.replace(name) {
                        return Err(serde::de::Error::custom(format!("member `{name}` twice")));
                    }
                }
                Ok(data)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Checks authenticator data and returns its counter.
fn check_authenticator_data(data: &[u8], rp: &RelyingParty) -> Result<u32, WebauthnError> {
    let malformed = |reason: String| Err(WebauthnError::AuthenticatorData { reason });
    let Some((rp_id_hash, [flags, count @ ..])) = data.split_first_chunk::<32>() else {
        return malformed(format!("{} bytes where {AUTHENTICATOR_DATA_LEN} are", data.len()));
    };
    if *rp_id_hash != sha256(rp.id.as_bytes()) {
        return Err(WebauthnError::RelyingParty { expected: rp.id.clone() });
    }
    let has = |flag: u8| flags & flag != 0;
    if has(FLAG_ATTESTED_DATA) {
        return malformed("attested credential data, which an assertion does not have".to_owned());
    }
    if has(FLAG_EXTENSIONS) {
        return malformed("extensions, of which none was asked for".to_owned());
    }
    if has(FLAG_BACKED_UP) && !has(FLAG_BACKUP_ELIGIBLE) {
        return malformed("backed up, and not eligible for it".to_owned());
    }
    if !has(FLAG_USER_PRESENT) {
        return Err(WebauthnError::UserNotPresent);
    }
    if !has(FLAG_USER_VERIFIED) {
        return Err(WebauthnError::UserNotVerified);
    }
    match <[u8; 4]>::try_from(count) {
        Ok(count) => Ok(u32::from_be_bytes(count)),
        Err(_) => malformed(format!("{} bytes where {AUTHENTICATOR_DATA_LEN} are", data.len())),
    }
}

#[cfg(test)]
mod tests;
