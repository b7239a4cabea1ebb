//! Reconciliation: which of the signatures and transactions seen on a chain have no record?
//!
//! One that has none was made with the key but not by the cluster's ledger: the key leaked, or
//! enclaves were broken. Anybody can turn an ECDSA signature (r, s) into (r, n − s), which some
//! contracts accept too, so s is compared up to that.

use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::{Hash32, Scheme};
use serde::Serialize;

use crate::report::RecordedSignature;

/// Most bytes of a raw transaction.
pub const MAX_TRANSACTION: usize = 256 * 1024;

/// Why a text is not something seen on a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeenError {
    /// Not hex.
    #[error("`{input}` is not hex")]
    NotHex {
        /// The beginning of the text.
        input: String,
    },
    /// Hex, but of nothing known.
    #[error(
        "`{input}` is neither a signature (64 or 65 bytes), nor a transaction's hash (32 bytes), nor a signed EVM transaction"
    )]
    Unknown {
        /// The beginning of the text.
        input: String,
    },
}

/// Something seen on a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    label: String,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// r‖s or R‖S; r‖s with the recovery bit in s (EIP-2098) is taken too.
    Signature([u8; 64]),
    /// r‖s of a transaction.
    Ecdsa([u8; 64]),
    /// A transaction's hash, or what was signed.
    Hash(Hash32),
}

impl Seen {
    /// Parses hex, with or without `0x`: a signature as r‖s, r‖s‖v or R‖S, the hash of a
    /// transaction, or a signed EVM transaction (legacy or of types 1 to 4).
    ///
    /// # Errors
    /// If it is none of these.
    pub fn parse(text: &str) -> Result<Self, SeenError> {
        let text = text.trim();
        let clip = || text.chars().take(80).collect::<String>();
        let digits = text.strip_prefix("0x").unwrap_or(text);
        if digits.len() / 2 > MAX_TRANSACTION {
            return Err(SeenError::Unknown { input: clip() });
        }
        let bytes = hex::decode(digits).map_err(|_| SeenError::NotHex { input: clip() })?;
        let what = if let Ok(hash) = <[u8; 32]>::try_from(bytes.as_slice()) {
            What::Hash(Hash32::new(hash))
        } else if let Some((signature, [] | [_])) = bytes.split_first_chunk::<64>() {
            What::Signature(*signature)
        } else {
            let signature = transaction_signature(&bytes);
            What::Ecdsa(signature.ok_or_else(|| SeenError::Unknown { input: clip() })?)
        };
        Ok(Self { label: clip(), what })
    }

    /// The beginning of the text it was parsed from.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }
}

/// Something seen that has a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Matched {
    /// What was seen.
    pub seen: String,
    /// The record that holds it.
    pub index: u64,
}

/// What reconciliation found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reconciliation {
    /// Seen, with its record.
    pub recorded: Vec<Matched>,
    /// Seen, without a record.
    pub unrecorded: Vec<String>,
    /// How many recorded signatures were not seen (sent elsewhere, or never sent).
    pub not_seen: u64,
}

impl Reconciliation {
    /// Whether everything seen has a record.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.unrecorded.is_empty()
    }
}

/// Finds the record of everything seen.
pub fn reconcile<'a>(
    seen: impl IntoIterator<Item = Seen>,
    records: impl IntoIterator<Item = &'a RecordedSignature>,
) -> Reconciliation {
    let mut by_signature = BTreeMap::new();
    let mut by_hash = BTreeMap::new();
    let mut total = 0_u64;
    for record in records {
        // which of the recorded signatures, and the record that holds it
        let found = (total, record.index);
        by_signature.insert(key_of(record.scheme, &record.signature), found);
        by_hash.insert(record.digest, found);
        by_hash.extend(record.transaction.map(|hash| (hash, found)));
        total = total.saturating_add(1);
    }
    let mut out = Reconciliation::default();
    let mut matched = BTreeSet::new();
    for seen in seen {
        let found = match &seen.what {
            What::Hash(hash) => by_hash.get(hash),
            What::Ecdsa(signature) => by_signature.get(&ecdsa_key(signature)),
            What::Signature(signature) => by_signature
                .get(&(Scheme::Ed25519, *signature))
                .or_else(|| by_signature.get(&(Scheme::Bip340Secp256k1, *signature)))
                .or_else(|| by_signature.get(&ecdsa_key(signature)))
                .or_else(|| by_signature.get(&ecdsa_key(&without_recovery_bit(signature)))),
        };
        match found {
            Some((which, index)) => {
                matched.insert(*which);
                out.recorded.push(Matched { seen: seen.label, index: *index });
            }
            None => out.unrecorded.push(seen.label),
        }
    }
    out.not_seen = total.saturating_sub(u64::try_from(matched.len()).unwrap_or(u64::MAX));
    out
}

fn key_of(scheme: Scheme, signature: &[u8; 64]) -> (Scheme, [u8; 64]) {
    match scheme {
        Scheme::EcdsaSecp256k1 => ecdsa_key(signature),
        Scheme::Ed25519 | Scheme::Bip340Secp256k1 => (scheme, *signature),
    }
}

/// r with the smaller of s and n − s.
fn ecdsa_key(signature: &[u8; 64]) -> (Scheme, [u8; 64]) {
    let (r, s) = halves(signature);
    (Scheme::EcdsaSecp256k1, joined(r, s.min(negated(s))))
}

/// EIP-2098 puts the recovery bit where a low s has none.
fn without_recovery_bit(signature: &[u8; 64]) -> [u8; 64] {
    let (r, mut s) = halves(signature);
    if let Some(first) = s.first_mut() {
        *first &= 0x7f;
    }
    joined(r, s)
}

fn halves(signature: &[u8; 64]) -> ([u8; 32], [u8; 32]) {
    let (mut r, mut s) = ([0; 32], [0; 32]);
    let (left, right) = signature.split_at(32);
    r.copy_from_slice(left);
    s.copy_from_slice(right);
    (r, s)
}

fn joined(r: [u8; 32], s: [u8; 32]) -> [u8; 64] {
    let mut out = [0; 64];
    for (to, from) in out.iter_mut().zip(r.into_iter().chain(s)) {
        *to = from;
    }
    out
}

/// The order of secp256k1's group.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
    0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];

/// n − s; s itself where that is not positive, as then it is no s of a signature.
fn negated(s: [u8; 32]) -> [u8; 32] {
    if s >= ORDER || s == [0; 32] {
        return s;
    }
    let mut out = [0; 32];
    let mut borrow = false;
    for ((to, n), s) in out.iter_mut().zip(ORDER).zip(s).rev() {
        let (difference, first) = n.overflowing_sub(s);
        let (difference, second) = difference.overflowing_sub(u8::from(borrow));
        *to = difference;
        borrow = first || second;
    }
    out
}

/// r‖s of a signed EVM transaction: the last two items of its one RLP list.
fn transaction_signature(bytes: &[u8]) -> Option<[u8; 64]> {
    // fields with the signature: legacy, EIP-2930, EIP-1559, EIP-4844, EIP-7702
    let (fields, list) = match bytes.split_first()? {
        (0xc0.., _) => (9, bytes),
        (1, list) => (11, list),
        (2, list) => (12, list),
        (3, list) => (14, list),
        (4, list) => (13, list),
        _ => return None,
    };
    let (mut payload, true, []) = rlp_item(list)? else { return None };
    let mut items = Vec::new();
    while !payload.is_empty() {
        let (item, is_list, rest) = rlp_item(payload)?;
        items.push((item, is_list));
        payload = rest;
    }
    if items.len() != fields {
        return None;
    }
    match items.as_slice() {
        [.., (r, false), (s, false)] => Some(joined(padded(r)?, padded(s)?)),
        _ => None,
    }
}

fn padded(number: &[u8]) -> Option<[u8; 32]> {
    if number.is_empty() || number.first() == Some(&0) {
        return None;
    }
    let mut out = [0; 32];
    let start = 32_usize.checked_sub(number.len())?;
    out.get_mut(start..)?.copy_from_slice(number);
    Some(out)
}

/// The payload of the RLP item in front, whether it is a list, and what is behind it.
fn rlp_item(bytes: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let (&first, behind) = bytes.split_first()?;
    let (length, is_list, behind) = match first {
        0..0x80 => return Some((bytes.get(..1)?, false, behind)),
        0x80..=0xb7 => (usize::from(first.checked_sub(0x80)?), false, behind),
        0xb8..=0xbf => {
            let (length, behind) = rlp_length(behind, first.checked_sub(0xb7)?)?;
            (length, false, behind)
        }
        0xc0..=0xf7 => (usize::from(first.checked_sub(0xc0)?), true, behind),
        0xf8.. => {
            let (length, behind) = rlp_length(behind, first.checked_sub(0xf7)?)?;
            (length, true, behind)
        }
    };
    let (payload, rest) = behind.split_at_checked(length)?;
    Some((payload, is_list, rest))
}

fn rlp_length(bytes: &[u8], digits: u8) -> Option<(usize, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(usize::from(digits))?;
    let length = digits.iter().try_fold(0_usize, |length, digit| {
        length.checked_mul(256)?.checked_add(usize::from(*digit))
    })?;
    Some((length, rest))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn recorded(index: u64, scheme: Scheme, signature: [u8; 64]) -> RecordedSignature {
        let hash = |tag: u8| Hash32::new([tag; 32]);
        let tag = u8::try_from(index).unwrap();
        RecordedSignature {
            index,
            scheme,
            signature,
            digest: hash(tag),
            transaction: Some(hash(tag + 100)),
        }
    }

    fn records() -> Vec<RecordedSignature> {
        vec![
            recorded(1, Scheme::EcdsaSecp256k1, [0x11; 64]),
            recorded(2, Scheme::Ed25519, [0x22; 64]),
        ]
    }

    fn one(text: &str) -> Reconciliation {
        reconcile([Seen::parse(text).unwrap()], &records())
    }

    #[test]
    fn signature_seen_in_any_form_is_matched() {
        let (r, s) = ([0x11; 32], [0x11; 32]);
        let high = hex::encode(joined(r, negated(s)));
        let mut compact = joined(r, s);
        compact[32] |= 0x80;
        for (text, index) in [
            (hex::encode([0x11; 64]), 1),
            (format!("0x{}1b", hex::encode([0x11; 64])), 1),
            (format!("  0x{}\n", hex::encode([0x11; 64])), 1),
            (high.clone(), 1),
            (format!("{high}1c"), 1),
            (hex::encode(compact), 1),
            (hex::encode([0x22; 64]), 2),
            (hex::encode([101; 32]), 1),
            (hex::encode([2; 32]), 2),
        ] {
            let found = one(&text);
            assert!(found.is_clean(), "{text}");
            assert_eq!((found.recorded[0].index, found.not_seen), (index, 1), "{text}");
        }
    }

    #[test]
    fn i10_signature_without_a_record_is_named() {
        let mut changed = [0x22; 64];
        changed[63] ^= 1;
        for text in [
            hex::encode([0x33; 64]),
            hex::encode(changed),
            // the negation of s is no freedom of Ed25519
            hex::encode(joined([0x22; 32], negated([0x22; 32]))),
            hex::encode([0x77; 32]),
        ] {
            let found = one(&text);
            assert_eq!(found.unrecorded, [text.chars().take(80).collect::<String>()]);
            assert_eq!((found.recorded.len(), found.not_seen), (0, 2));
        }
    }

    #[test]
    fn bip340_signature_is_matched_as_it_is_and_in_no_other_form() {
        let records = [recorded(3, Scheme::Bip340Secp256k1, [0x11; 64])];
        let found = |text: &str| reconcile([Seen::parse(text).unwrap()], &records);
        assert_eq!(found(&hex::encode([0x11; 64])).recorded[0].index, 3);
        // s cannot be negated, and has no room for a recovery bit
        let mut compact = [0x11; 64];
        compact[32] |= 0x80;
        for other in [joined([0x11; 32], negated([0x11; 32])), compact] {
            assert!(!found(&hex::encode(other)).is_clean());
        }
    }

    /// The example of EIP-155.
    const EIP155: &str = "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a028ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83";

    #[test]
    fn signed_transaction_is_matched_by_its_signature() {
        let signature: [u8; 64] = hex::decode(
            "28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa63627667cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83",
        )
        .unwrap()
        .try_into()
        .unwrap();
        let records = [recorded(7, Scheme::EcdsaSecp256k1, signature)];
        let seen = Seen::parse(EIP155).unwrap();
        assert_eq!(reconcile([seen.clone()], &records).recorded[0].index, 7);
        assert_eq!(reconcile([seen], &[]).unrecorded.len(), 1);
        // a type byte needs the type's own number of fields
        assert!(Seen::parse(&format!("02{EIP155}")).is_err());
        let fields = format!("{}{}", "01".repeat(10), "a0".to_owned() + &"11".repeat(32));
        let typed = format!("02f8{:02x}{fields}a0{}", 10 + 66, "11".repeat(32));
        let found = reconcile([Seen::parse(&typed).unwrap()], &[records[0].clone()]);
        assert_eq!(found.unrecorded.len(), 1);
        assert!(one(&typed).is_clean());
    }

    #[test]
    fn what_is_nothing_known_is_refused() {
        for text in ["", "0x", "zz", "0x1", "c0", "0x00", &"00".repeat(63), &"00".repeat(66)] {
            assert!(Seen::parse(text).is_err(), "{text}");
        }
        for cut in 1..EIP155.len() / 2 {
            assert!(
                Seen::parse(&EIP155[..cut * 2]).is_err() || [32, 64, 65].contains(&cut),
                "cut at {cut}"
            );
        }
        assert!(Seen::parse(&format!("{EIP155}00")).is_err());
    }

    #[test]
    fn negation_is_an_involution_and_keeps_what_is_no_s() {
        let mut s = [0; 32];
        s[31] = 5;
        assert_eq!(negated(negated(s)), s);
        assert_ne!(negated(s), s);
        assert_eq!(negated([0; 32]), [0; 32]);
        assert_eq!(negated([0xff; 32]), [0xff; 32]);
    }
}
