//! Stamps: a credential's signature over one exact body, for one cluster, for a short time.
//!
//! ```text
//! preimage = "casemate/stamp/v1\0" ‖ genesis id (32) ‖ incarnation u64be ‖ credential id (32)
//!          ‖ u16be length ‖ method ‖ issued_at u64be ms ‖ expires_at u64be ms ‖ nonce (16)
//!          ‖ SHA-256(body)
//! header   = Casemate-Stamp: v1.<credential>.<issued>.<expires>.<nonce>.<signature>
//! ```
//!
//! In the header the credential id and the nonce are lower-case hex without `0x`, the times
//! decimal milliseconds, and the 64-byte signature (r‖s for ECDSA) base64url without padding.
//! The signature is over the preimage itself: P-256 hashes it with SHA-256, Ed25519 takes it
//! whole. The body is signed as bytes, with no canonicalisation, so nothing in it is unsigned.
//! `tests/vectors/stamp` has vectors.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minicbor::{Decode, Encode};

use crate::credential::{CredentialError, PublicKey};
use crate::hash::tagged_hash;
use crate::ids::Hash32;
use crate::time::MINUTE;
use crate::{CredentialId, GenesisId, Incarnation, Millis, UnixMillis};

/// Longest life of a stamp: from `issued_at` to `expires_at`.
pub const MAX_LIFE: Millis = Millis(MINUTE.0 * 5);
/// Most bytes of a header's value.
pub const MAX_HEADER: usize = 300;

/// What a stamp is for. The name is part of what is signed, so a stamp for one method is
/// worthless for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Method {
    /// Ask for a signature: `requests.create`.
    #[n(0)]
    CreateRequest,
    /// Approve a pending request: `approvals.create`.
    #[n(1)]
    CreateApproval,
}

impl Method {
    /// The name that is signed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateRequest => "requests.create",
            Self::CreateApproval => "approvals.create",
        }
    }
}

/// A stamp as it arrives: well formed, not yet believed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Stamp {
    /// Whose signature it is.
    #[n(0)]
    pub credential: CredentialId,
    /// From when it is valid.
    #[n(1)]
    pub issued_at: UnixMillis,
    /// Until when it is valid, exclusive.
    #[n(2)]
    pub expires_at: UnixMillis,
    /// Sixteen bytes of the client's choice.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub nonce: [u8; 16],
    /// 64 bytes: r‖s or Ed25519.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// Why a stamp is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StampError {
    /// The header is not of the form.
    #[error(
        "the stamp's {field} is malformed: `{input}`; the form is `v1.<credential>.<issued>.<expires>.<nonce>.<signature>`"
    )]
    Malformed {
        /// Which part.
        field: &'static str,
        /// Its beginning.
        input: String,
    },
    /// It lives longer than a stamp may.
    #[error("the stamp lives {life}, from {issued} to {expires}; at most {MAX_LIFE} is accepted")]
    LifeTooLong {
        /// How long.
        life: Millis,
        /// From when.
        issued: UnixMillis,
        /// Until when.
        expires: UnixMillis,
    },
    /// It ends before it begins.
    #[error("the stamp expires at {expires}, which is not after its issue at {issued}")]
    Backwards {
        /// From when.
        issued: UnixMillis,
        /// Until when.
        expires: UnixMillis,
    },
    /// Not yet valid.
    #[error("the stamp is valid from {issued}, and the cluster's time is {now}")]
    NotYet {
        /// From when.
        issued: UnixMillis,
        /// The time it was checked at.
        now: UnixMillis,
    },
    /// No longer valid.
    #[error("the stamp was valid until {expires}, and the cluster's time is {now}")]
    Expired {
        /// Until when.
        expires: UnixMillis,
        /// The time it was checked at.
        now: UnixMillis,
    },
    /// The key given is another credential's.
    #[error("the stamp names credential {named}, not {given}")]
    OtherCredential {
        /// Named in the stamp.
        named: CredentialId,
        /// The key's.
        given: CredentialId,
    },
    /// The signature does not verify.
    #[error(transparent)]
    Signature(#[from] CredentialError),
}

/// A body and the stamp that was found to be a registered credential's over exactly this body,
/// for this cluster, at that time. Made by [`Stamp::verify`] only.
#[derive(Clone, Debug)]
pub struct VerifiedStamp {
    credential: CredentialId,
    body_hash: Hash32,
    method: Method,
    /// A hash of everything that its signature was verified for, and of the signature.
    what: Hash32,
}

impl VerifiedStamp {
    /// Whose it is.
    #[must_use]
    pub const fn credential(&self) -> CredentialId {
        self.credential
    }
    /// SHA-256 of the body.
    #[must_use]
    pub const fn body_hash(&self) -> Hash32 {
        self.body_hash
    }
    /// What it is for.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }
}

/// What a stamp is made for, besides the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StampScope {
    /// The cluster.
    pub genesis: GenesisId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The method.
    pub method: Method,
}

impl Stamp {
    /// The bytes that are signed.
    #[must_use]
    pub fn preimage(
        scope: &StampScope,
        credential: &CredentialId,
        issued_at: UnixMillis,
        expires_at: UnixMillis,
        nonce: &[u8; 16],
        body: &[u8],
    ) -> Vec<u8> {
        let method = scope.method.name().as_bytes();
        let length = u16::try_from(method.len()).unwrap_or(u16::MAX);
        [
            b"casemate/stamp/v1\0".as_slice(),
            scope.genesis.as_bytes(),
            &scope.incarnation.0.to_be_bytes(),
            credential.0.as_bytes(),
            &length.to_be_bytes(),
            method,
            &issued_at.0.to_be_bytes(),
            &expires_at.0.to_be_bytes(),
            nonce,
            &crate::hash::sha256(body),
        ]
        .concat()
    }

    /// The header's value.
    #[must_use]
    pub fn to_header(&self) -> String {
        format!(
            "v1.{}.{}.{}.{}.{}",
            hex::encode(self.credential.0.as_bytes()),
            self.issued_at.0,
            self.expires_at.0,
            hex::encode(self.nonce),
            URL_SAFE_NO_PAD.encode(self.signature)
        )
    }

    /// Parses a header's value; there is one accepted text for each stamp.
    ///
    /// # Errors
    /// If a part is missing, malformed or not canonical.
    pub fn from_header(text: &str) -> Result<Self, StampError> {
        let wrong = |field, input: &str| StampError::Malformed {
            field,
            input: input.chars().take(100).collect(),
        };
        if text.len() > MAX_HEADER {
            return Err(wrong("length", text));
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [version, credential, issued, expires, nonce, signature] = parts.as_slice() else {
            return Err(wrong("number of parts", text));
        };
        if *version != "v1" {
            return Err(wrong("version", version));
        }
        let bytes32 = crate::ids::parse_hex::<32>("credential id", &format!("0x{credential}"))
            .map_err(|_| wrong("credential id", credential))?;
        let nonce_bytes = crate::ids::parse_hex::<16>("nonce", &format!("0x{nonce}"))
            .map_err(|_| wrong("nonce", nonce))?;
        let time =
            |field, input: &str| input.parse().map(UnixMillis).map_err(|_| wrong(field, input));
        let stamp = Self {
            credential: CredentialId(Hash32::new(bytes32)),
            issued_at: time("time of issue", issued)?,
            expires_at: time("time of expiry", expires)?,
            nonce: nonce_bytes,
            signature: URL_SAFE_NO_PAD
                .decode(signature)
                .ok()
                .and_then(|s| <[u8; 64]>::try_from(s).ok())
                .ok_or_else(|| wrong("signature", signature))?,
        };
        if stamp.to_header() == text { Ok(stamp) } else { Err(wrong("form", text)) }
    }

    /// Checks the times alone: `issued_at <= now < expires_at`, with `tolerance` for a client's
    /// clock that is ahead, and a life above zero and at most [`MAX_LIFE`].
    ///
    /// # Errors
    /// If one does not hold.
    pub fn check_times(&self, now: UnixMillis, tolerance: Millis) -> Result<(), StampError> {
        let life = self.expires_at.since(self.issued_at);
        let (issued, expires) = (self.issued_at, self.expires_at);
        if expires <= issued {
            return Err(StampError::Backwards { issued, expires });
        }
        if life > MAX_LIFE {
            return Err(StampError::LifeTooLong { life, issued, expires });
        }
        if issued > now.saturating_add(tolerance) {
            return Err(StampError::NotYet { issued, now });
        }
        if expires <= now {
            return Err(StampError::Expired { expires, now });
        }
        Ok(())
    }

    /// Checks everything: times, that `key` is the credential named, and the signature over
    /// exactly `body` in this scope.
    ///
    /// # Errors
    /// If one does not hold.
    pub fn verify(
        &self,
        scope: &StampScope,
        key: &PublicKey,
        body: &[u8],
        now: UnixMillis,
        tolerance: Millis,
    ) -> Result<VerifiedStamp, StampError> {
        self.verify_knowing(None, scope, key, body, (now, tolerance))
    }

    /// The same by whoever may have verified it before: the times are checked anew, and the signature
    /// unless it is `known` that this very one was verified, by this key, for this body and scope.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_knowing(
        &self,
        known: Option<&VerifiedStamp>,
        scope: &StampScope,
        key: &PublicKey,
        body: &[u8],
        (now, tolerance): (UnixMillis, Millis),
    ) -> Result<VerifiedStamp, StampError> {
        self.check_times(now, tolerance)?;
        let given = key.id();
        if given != self.credential {
            return Err(StampError::OtherCredential { named: self.credential, given });
        }
        let preimage = Self::preimage(
            scope,
            &self.credential,
            self.issued_at,
            self.expires_at,
            &self.nonce,
            body,
        );
        // the credential's id, which is in the preimage, is a hash of the key and its algorithm
        let what = tagged_hash("casemate/verified-stamp/v1", &[&preimage, &self.signature]);
        let is_known = known.is_some_and(|known| known.what == what);
        if !is_known && !crate::sabotaged!("stamps_not_checked") {
            key.verify(&preimage, &self.signature)?;
        }
        Ok(VerifiedStamp {
            credential: given,
            body_hash: Hash32::new(crate::hash::sha256(body)),
            method: scope.method,
            what,
        })
    }
}
