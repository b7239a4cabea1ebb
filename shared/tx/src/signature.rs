//! secp256k1 signatures and addresses as Ethereum lays them out. Public data only.

use alloy_primitives::{Signature, U256, keccak256};

use crate::EvmAddress;

/// The order of secp256k1's group (SEC 2, section 2.4.1).
const ORDER: U256 = U256::from_limbs([
    0xBFD2_5E8C_D036_4141,
    0xBAAE_DCE6_AF48_A03B,
    0xFFFF_FFFF_FFFF_FFFE,
    0xFFFF_FFFF_FFFF_FFFF,
]);
/// ⌊order / 2⌋: the largest `s` that EIP-2 accepts.
const HALF_ORDER: U256 = U256::from_limbs([
    0xDFE9_2F46_681B_20A0,
    0x5D57_6E73_57A4_501D,
    0xFFFF_FFFF_FFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
]);

/// Why bytes are not a signature that Ethereum accepts, or not a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// `r` or `s` is zero or not below the group's order.
    #[error("`{part}` is zero or not below the order of secp256k1")]
    OutOfRange {
        /// `r` or `s`.
        part: &'static str,
    },
    /// `s` is in the upper half, which EIP-2 refuses.
    #[error("`s` is in the upper half of the order, which ethereum refuses (EIP-2)")]
    HighS,
    /// Not a SEC 1 encoding: 33 bytes that begin with 2 or 3, or 65 bytes that begin with 4.
    #[error("{size} bytes beginning with `{first:#04x}` are not a SEC 1 public key")]
    NotSec1 {
        /// How many bytes came.
        size: usize,
        /// The first one, 0 if there is none.
        first: u8,
    },
    /// The coordinates are not those of a point on secp256k1.
    #[error("the public key is not a point on secp256k1")]
    NotOnCurve,
}

/// An ECDSA signature in the one form that Ethereum accepts: `r` and `s` in range, `s` in the
/// lower half, and the parity of `R`'s y coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvmSignature(Signature);

impl EvmSignature {
    /// From `r ‖ s`, 32 bytes each, big endian, and the parity of `R`'s y coordinate.
    ///
    /// # Errors
    /// If `r` or `s` is zero or not below the order, or `s` is in the upper half.
    pub fn new(r_s: &[u8; 64], y_parity: bool) -> Result<Self, SignatureError> {
        let (r, s) = r_s.split_at(32);
        Self::from_scalars(U256::from_be_slice(r), U256::from_be_slice(s), y_parity)
    }

    pub(crate) fn from_scalars(r: U256, s: U256, y_parity: bool) -> Result<Self, SignatureError> {
        for (part, value) in [("r", r), ("s", s)] {
            if value.is_zero() || value >= ORDER {
                return Err(SignatureError::OutOfRange { part });
            }
        }
        if s > HALF_ORDER {
            return Err(SignatureError::HighS);
        }
        Ok(Self(Signature::new(r, s, y_parity)))
    }

    /// `r ‖ s`.
    #[must_use]
    pub fn r_s(&self) -> [u8; 64] {
        let mut out = [0; 64];
        let (r, s) = out.split_at_mut(32);
        r.copy_from_slice(&self.0.r().to_be_bytes::<32>());
        s.copy_from_slice(&self.0.s().to_be_bytes::<32>());
        out
    }

    /// The parity of `R`'s y coordinate.
    #[must_use]
    pub fn y_parity(&self) -> bool {
        self.0.v()
    }

    /// `r ‖ s ‖ v` with v = 27 + parity: what `eth_signTypedData` returns and contracts' `ecrecover`
    /// takes.
    #[must_use]
    pub fn r_s_v(&self) -> [u8; 65] {
        let mut out = [0; 65];
        if let Some((v, r_s)) = out.split_last_mut() {
            r_s.copy_from_slice(&self.r_s());
            *v = if self.y_parity() { 28 } else { 27 };
        }
        out
    }

    pub(crate) const fn inner(&self) -> &Signature {
        &self.0
    }
}

/// The address of a public key: the last 20 bytes of keccak-256 over x ‖ y.
///
/// `key` is a SEC 1 encoding, compressed (33 bytes) or not (65 bytes).
///
/// # Errors
/// If the encoding is another or its point is not on the curve.
pub fn evm_address_from_sec1(key: &[u8]) -> Result<EvmAddress, SignatureError> {
    let first = key.first().copied().unwrap_or(0);
    if !matches!((key.len(), first), (33, 2 | 3) | (65, 4)) {
        return Err(SignatureError::NotSec1 { size: key.len(), first });
    }
    let point = k256::PublicKey::from_sec1_bytes(key).map_err(|_| SignatureError::NotOnCurve)?;
    let uncompressed = k256::elliptic_curve::sec1::ToEncodedPoint::to_encoded_point(&point, false);
    let coordinates = uncompressed.as_bytes().get(1..).unwrap_or_default();
    Ok(EvmAddress(alloy_primitives::Address::from_word(keccak256(coordinates)).into_array()))
}
