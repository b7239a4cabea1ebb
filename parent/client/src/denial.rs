//! Denials in a boot's own hand, so that a host cannot pretend that a request failed.
//!
//! What a caller may conclude is the delicate part: whoever believes that a request will never be
//! signed asks for the same under another id, and pays twice if that is wrong. So a denial settles a
//! request only if
//!
//! - the boot that gives it was attested, and signed it;
//! - it is about this very body and credential;
//! - it is not older than the newest stamp made for this request. The ledger remembers a denied id for
//!   as long as a stamp made before the denial could be replayed, and no longer; a host may keep a
//!   newer one back;
//! - t boots say so of one stamp: fewer may be broken, and deny what the others sign;
//! - its code is one that stands for the id, and it is the ledger's word (an entry holds it), or
//!   the body is one that no ledger would ever take. A node that is told of a freeze denies at
//!   once, before any entry: the same stamp could still be used when the freeze is lifted.

use casemate_door::SignedDenial;
use casemate_proto::ids::Hash32;
use casemate_proto::{CredentialId, DenialCode, GenesisId, UnixMillis};

use crate::attested::AttestedBoot;
use crate::fault::DenialFault;

/// A denial that an attested boot signed about what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedDenial {
    denial: SignedDenial,
    expired: bool,
}

impl VerifiedDenial {
    /// The denial.
    #[must_use]
    pub const fn denial(&self) -> &SignedDenial {
        &self.denial
    }
    /// Its code.
    #[must_use]
    pub const fn code(&self) -> DenialCode {
        self.denial.denial.code
    }
    /// Whether it stands for its request id, as the module's head says.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        let code = self.code();
        let by_itself =
            matches!(code, DenialCode::Malformed | DenialCode::TooLarge) || self.expired;
        code.is_final() && (self.denial.index.is_some() || by_itself)
    }
    /// Whether asking again soon can help.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self.code(), DenialCode::Busy | DenialCode::RateLimited | DenialCode::TableFull)
    }
}

/// What was asked, to be compared with what was denied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskedOf {
    pub(crate) genesis: GenesisId,
    /// Where somebody asked by credential.
    pub(crate) credential: Option<CredentialId>,
    pub(crate) subject: Hash32,
    /// When the newest stamp for it was issued; for what has none, when it was sent.
    pub(crate) newest: UnixMillis,
}

/// Checks a denial. `expired`: the answer says that the request can never be signed any more.
pub(crate) fn verify(
    denial: SignedDenial,
    expired: bool,
    boot: &AttestedBoot,
    asked: &AskedOf,
) -> Result<VerifiedDenial, DenialFault> {
    if denial.boot != boot.boot() {
        return Err(DenialFault::OtherBoot { found: denial.boot, attested: boot.boot() });
    }
    if !denial.verify(&asked.genesis, boot.key()) {
        return Err(DenialFault::BadSignature);
    }
    if denial.credential != asked.credential || denial.subject != asked.subject {
        return Err(DenialFault::OtherSubject);
    }
    if denial.at < asked.newest {
        return Err(DenialFault::Replayed);
    }
    let expired = expired && denial.denial.code == DenialCode::Expired;
    Ok(VerifiedDenial { denial, expired })
}
