//! The chain: from the pinned root to the leaf that signs the document.
//!
//! Seen in every genuine document: root, regional authority (path length 2, about 20 days), zonal (1,
//! about 6 days), instance (0, 24 hours), leaf (no authority, 3 hours). Only the root is pinned; the
//! number of authorities is left to the path lengths.

use sha2::{Digest, Sha256};

use crate::{
    certificate::Certificate,
    refusal::{CertificateFault, ExtensionFault, IdentityFault, Position, Refusal},
    root::TrustRoot,
    time::UnixMillis,
    wire::{SIGNATURE_BYTES, Statement},
};

/// How the common name of an authority below the root ends: `….REGION.aws.nitro-enclaves`.
const AUTHORITY_SUFFIX: &str = ".aws.nitro-enclaves";
/// How the common name of a leaf ends: `MODULE_ID.REGION.aws`.
const LEAF_SUFFIX: &str = ".aws";

/// The certificates of a document, root first, decoded and not yet verified.
pub(crate) struct Chain<'b> {
    authorities: Vec<Certificate<'b>>,
    leaf: Certificate<'b>,
}

impl<'b> Chain<'b> {
    /// Decodes the certificates. The first must be the pinned root, byte for byte: nothing the
    /// document says about it counts.
    pub(crate) fn decode(
        statement: &Statement<'b>,
        trust_root: &TrustRoot,
    ) -> Result<Self, Refusal> {
        let root = statement.cabundle.first().copied().unwrap_or_default();
        let found: [u8; 32] = Sha256::digest(root).into();
        if found != *trust_root.fingerprint() {
            return Err(Refusal::Root { found, pinned: *trust_root.fingerprint() });
        }
        let authorities = statement
            .cabundle
            .iter()
            .enumerate()
            .map(|(index, bytes)| Certificate::decode(bytes).map_err(at(Position::Cabundle(index))))
            .collect::<Result<_, _>>()?;
        let leaf = Certificate::decode(statement.certificate).map_err(at(Position::Leaf))?;
        Ok(Self { authorities, leaf })
    }

    /// Checks everything about the certificates but the signatures, which cost more.
    pub(crate) fn check(&self, trust_root: &TrustRoot, now: UnixMillis) -> Result<(), Refusal> {
        let mut below = u64::try_from(self.authorities.len()).unwrap_or(u64::MAX);
        for (position, certificate, issuer) in self.links() {
            below = below.saturating_sub(1);
            let outcome = match position {
                Position::Cabundle(_) => check_authority(certificate, below),
                Position::Leaf => check_leaf(certificate),
            };
            outcome
                .map_err(CertificateFault::from)
                .and_then(|()| check_names(certificate, issuer))
                .and_then(|()| check_validity(certificate, now))
                .and_then(|()| check_revocation(certificate, trust_root))
                .map_err(at(position))?;
        }
        Ok(())
    }

    /// Verifies every certificate's signature below the root; the root's fingerprint was compared.
    pub(crate) fn verify_signatures(&self) -> Result<(), Refusal> {
        for (position, certificate, issuer) in self.links() {
            if issuer.is_some_and(|issuer| !certificate.is_signed_by(issuer)) {
                return Err(at(position)(CertificateFault::Signature));
            }
        }
        Ok(())
    }

    /// Whether the leaf's key made this signature.
    pub(crate) fn leaf_verifies(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        self.leaf.verifies(message, signature)
    }

    /// Checks that the leaf was issued for `module_id` and that all name one region; returns it.
    pub(crate) fn region_of(&self, module_id: &str) -> Result<String, IdentityFault> {
        let common_name = &self.leaf.common_name;
        let suffix = common_name
            .strip_prefix(module_id)
            .filter(|suffix| suffix.is_empty() || suffix.starts_with('.'))
            .ok_or_else(|| IdentityFault::ModuleId {
                common_name: common_name.clone(),
                module_id: module_id.to_owned(),
            })?;

        let mut region: Option<&str> = None;
        let authorities = self.authorities.iter().enumerate().skip(1).filter_map(|(index, ca)| {
            let name = ca.common_name.strip_suffix(AUTHORITY_SUFFIX)?;
            Some((Position::Cabundle(index), name))
        });
        let leaf = suffix.strip_suffix(LEAF_SUFFIX).map(|name| (Position::Leaf, name));
        for (position, name) in authorities.chain(leaf) {
            let found = name.rsplit('.').next().unwrap_or_default();
            match region {
                // The leaf's own claim is not enough.
                None if position == Position::Leaf || !is_region(found) => {
                    return Err(IdentityFault::RegionMissing);
                }
                None => region = Some(found),
                Some(expected) if expected != found => {
                    return Err(IdentityFault::RegionsDiffer {
                        position,
                        found: found.to_owned(),
                        expected: expected.to_owned(),
                    });
                }
                Some(_) => {}
            }
        }
        region.map(str::to_owned).ok_or(IdentityFault::RegionMissing)
    }

    /// The leaf's `notAfter`.
    pub(crate) fn leaf_not_after(&self) -> UnixMillis {
        self.leaf.not_after
    }

    /// The earliest `notAfter` of all certificates.
    pub(crate) fn not_after(&self) -> UnixMillis {
        self.authorities
            .iter()
            .map(|authority| authority.not_after)
            .fold(self.leaf.not_after, UnixMillis::min)
    }

    /// Each certificate with its issuer; the root has none.
    fn links(
        &self,
    ) -> impl Iterator<Item = (Position, &Certificate<'b>, Option<&Certificate<'b>>)> {
        let authorities = self.authorities.iter().enumerate();
        let positions = authorities
            .map(|(index, authority)| (Position::Cabundle(index), authority))
            .chain([(Position::Leaf, &self.leaf)]);
        let issuers = [None].into_iter().chain(self.authorities.iter().map(Some));
        positions
            .zip(issuers)
            .map(|((position, certificate), issuer)| (position, certificate, issuer))
    }
}

fn at(position: Position) -> impl Fn(CertificateFault) -> Refusal {
    move |fault| Refusal::Certificate { position, fault }
}

/// `below` counts the authorities between this one and the leaf.
fn check_authority(authority: &Certificate<'_>, below: u64) -> Result<(), ExtensionFault> {
    if !authority.authority {
        return Err(ExtensionFault::NotAuthority);
    }
    if !authority.may_sign_certificates {
        return Err(ExtensionFault::AuthorityMayNotSignCertificates);
    }
    match authority.path_length {
        Some(allowed) if below > allowed => {
            Err(ExtensionFault::PathLengthExceeded { allowed, found: below })
        }
        _ => Ok(()),
    }
}

fn check_leaf(leaf: &Certificate<'_>) -> Result<(), ExtensionFault> {
    if leaf.authority {
        return Err(ExtensionFault::LeafIsAuthority);
    }
    if leaf.may_sign_certificates {
        return Err(ExtensionFault::LeafMaySignCertificates);
    }
    if !leaf.may_sign {
        return Err(ExtensionFault::LeafMayNotSign);
    }
    Ok(())
}

fn check_names(
    certificate: &Certificate<'_>,
    issuer: Option<&Certificate<'_>>,
) -> Result<(), CertificateFault> {
    let Some(issuer) = issuer else { return Ok(()) };
    if certificate.issuer == certificate.subject {
        return Err(CertificateFault::SelfIssued);
    }
    if certificate.issuer != issuer.subject {
        return Err(CertificateFault::Issuer);
    }
    Ok(())
}

/// Valid from `notBefore`, up to and not including `notAfter`.
fn check_validity(certificate: &Certificate<'_>, now: UnixMillis) -> Result<(), CertificateFault> {
    if now < certificate.not_before {
        return Err(CertificateFault::NotYetValid { not_before: certificate.not_before, at: now });
    }
    if now >= certificate.not_after {
        return Err(CertificateFault::Expired { not_after: certificate.not_after, at: now });
    }
    Ok(())
}

fn check_revocation(
    certificate: &Certificate<'_>,
    trust_root: &TrustRoot,
) -> Result<(), CertificateFault> {
    if trust_root.revokes(&certificate.issuer, &certificate.serial) {
        return Err(CertificateFault::Revoked { serial: certificate.serial.clone() });
    }
    Ok(())
}

fn is_region(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}
