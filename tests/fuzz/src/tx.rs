//! Transactions and typed data.

use casemate_tx::{decode_evm, decode_signed_evm, decode_typed_data};

use crate::Target;

/// The targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "evm_transaction", run: evm_transaction },
    Target { name: "typed_data", run: typed_data },
];

/// A decoded transaction is its bytes, and its digest is theirs; a signed one is not an unsigned
/// one.
pub fn evm_transaction(data: &[u8]) {
    if let Ok(tx) = decode_evm(data) {
        assert_eq!(tx.unsigned(), data, "encodes to other bytes");
        assert!(tx.intent().chain.is_some(), "every transaction names its chain");
        assert!(decode_signed_evm(data).is_err(), "both unsigned and signed");
    }
    if let Ok(signed) = decode_signed_evm(data) {
        let raw = signed.transaction.raw_signed(&signed.signature);
        assert_eq!(raw, data, "encodes to other bytes");
        let again = decode_evm(&signed.transaction.unsigned());
        assert_eq!(again.ok(), Some(signed.transaction), "its unsigned form is refused");
    }
}

/// Decoded typed data has the same digest however its JSON is laid out.
pub fn typed_data(data: &[u8]) {
    let Ok(typed) = decode_typed_data(data) else { return };
    let spaced = serde_json::from_slice::<serde_json::Value>(data)
        .and_then(|document| serde_json::to_vec_pretty(&document));
    assert!(spaced.is_ok(), "is not even json");
    // white space may push it past the cap
    if let Ok(spaced) = spaced
        && spaced.len() <= casemate_tx::eip712::MAX_TYPED_DATA_BYTES
    {
        assert_eq!(decode_typed_data(&spaced).ok(), Some(typed), "depends on its layout");
    }
}
