//! The child's share: the tweak added to the secret share, to all public shares and to the key.
//!
//! A constant added to every value of a polynomial is added to the polynomial, so to the secret.

use std::collections::BTreeMap;

use casemate_proto::DerivationPath;
use frost_core::{
    Element, Field, Group, Scalar, VerifyingKey,
    keys::{KeyPackage, PublicKeyPackage, SigningShare, VerifyingShare},
};
use zeroize::Zeroizing;

use super::{FrostShare, Suite};
use crate::error::{Abort, Misuse, RunError};

/// The share of the child at `path`, in the form that the scheme's keys have.
#[expect(clippy::arithmetic_side_effects, reason = "arithmetic in a group does not overflow")]
pub(super) fn derive_share<S: Suite>(
    parent: &FrostShare<S>,
    chain_code: &[u8; 32],
    path: &DerivationPath,
) -> Result<FrostShare<S>, RunError> {
    let failed = |e: frost_core::Error<S>| Abort::library(&e);
    let no_child = || RunError::from(Misuse::NoSuchChild(path.clone()));
    let (expected, tweak) =
        S::derive(&parent.verifying_key, chain_code, path).map_err(|_| no_child())?;
    let tweak = scalar::<S>(&tweak).ok_or_else(no_child)?;
    let offset = S::Group::generator() * *tweak;

    let secret = Zeroizing::new(parent.package.signing_share().serialize());
    let secret = Zeroizing::new(*scalar::<S>(&secret).ok_or_else(no_child)? + *tweak);
    let secret = Zeroizing::new(<S::Group as Group>::Field::serialize(&secret));
    let signing_share = SigningShare::deserialize((*secret).as_ref()).map_err(failed)?;

    let mut verifying_shares = BTreeMap::new();
    for (identifier, share) in parent.public.verifying_shares() {
        let share = element::<S>(&share.serialize().map_err(failed)?)? + offset;
        let share = VerifyingShare::deserialize(&bytes::<S>(&share)?).map_err(failed)?;
        verifying_shares.insert(*identifier, share);
    }
    let key = parent.public.verifying_key().serialize().map_err(failed)?;
    let key = bytes::<S>(&(element::<S>(&key)? + offset))?;
    let verifying_key = VerifyingKey::deserialize(&key).map_err(failed)?;

    let identifier = *parent.package.identifier();
    let verifying_share =
        *verifying_shares.get(&identifier).ok_or_else(|| Abort::library(&"no public share"))?;
    let threshold = *parent.package.min_signers();
    let (package, public) = S::normal(
        KeyPackage::new(identifier, signing_share, verifying_share, verifying_key, threshold),
        PublicKeyPackage::new(verifying_shares, verifying_key, Some(threshold)),
    );
    let share = FrostShare::new(package, public)?;
    // the ledger and auditors compute the child by the other way
    if share.verifying_key == expected { Ok(share) } else { Err(no_child()) }
}

fn scalar<S: Suite>(bytes: &[u8]) -> Option<Zeroizing<Scalar<S>>> {
    let bytes = <<S::Group as Group>::Field as Field>::Serialization::try_from(bytes).ok()?;
    let bytes = Zeroizing::new(bytes);
    <S::Group as Group>::Field::deserialize(&bytes).ok().map(Zeroizing::new)
}

fn element<S: Suite>(bytes: &[u8]) -> Result<Element<S>, RunError> {
    let bytes = <S::Group as Group>::Serialization::try_from(bytes)
        .map_err(|_| Abort::library(&"a point of another length"))?;
    S::Group::deserialize(&bytes).map_err(|e| Abort::library(&e))
}

fn bytes<S: Suite>(element: &Element<S>) -> Result<Vec<u8>, RunError> {
    S::Group::serialize(element).map(|b| b.as_ref().to_vec()).map_err(|e| Abort::library(&e))
}
