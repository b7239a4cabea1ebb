//! Hostile transactions, each by name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod common;

use alloy_primitives::{U256, keccak256};
use casemate_proto::{Amount, DenialCode};
use casemate_tx::evm::{
    CalldataError, MAX_CHAIN_ID, MAX_GAS_LIMIT, MAX_INITCODE_BYTES, MAX_TRANSACTION_BYTES,
    RlpProblem,
};
use casemate_tx::{
    Action, AssetRef, EvmAddress, EvmError, EvmSignature, SignatureError, decode_evm,
    decode_signed_evm, evm_address_from_sec1,
};
use common::{
    PAYEE, TOKEN, address_word, calldata, eip1559, eip1559_fields, eip1559_with, evm_error, item,
    legacy_fields, list, number_word, token_call,
};

const TRANSFER: [u8; 4] = [0xa9, 0x05, 0x9c, 0xbb];
const APPROVE: [u8; 4] = [0x09, 0x5e, 0xa7, 0xb3];
const MAX: [u8; 32] = [0xff; 32];

fn rlp_problem(bytes: &[u8], expected_field: &str) -> RlpProblem {
    match evm_error(decode_evm(bytes)) {
        EvmError::Rlp { field, problem, .. } => {
            assert_eq!(field, expected_field);
            problem
        }
        other => panic!("{other}"),
    }
}

// ---- what is accepted, as the ground for what is not

#[test]
fn native_transfer_is_read_in_each_type() {
    let eip2930: Vec<_> =
        eip1559_fields().into_iter().enumerate().filter(|(i, _)| *i != 2).map(|(_, f)| f).collect();
    for bytes in
        [eip1559(&eip1559_fields()), list(&legacy_fields()), [vec![1], list(&eip2930)].concat()]
    {
        let tx = decode_evm(&bytes).unwrap();
        let intent = tx.intent();
        assert_eq!(intent.action, Action::EthNativeTransfer);
        assert_eq!(intent.chain.as_ref().unwrap().as_eip155(), Some(8_453));
        assert_eq!(intent.asset, Some(AssetRef::Native));
        assert_eq!((intent.to, intent.payer), (Some(EvmAddress(PAYEE)), None));
        assert_eq!((intent.amount, intent.native_value), (1.into(), Amount::ZERO));
        assert_eq!(intent.max_fee, Some((2_000 * 100_000).into()));
        assert_eq!(tx.signing_hash(), keccak256(&bytes).0);
    }
}

#[test]
fn token_calls_name_recipient_amount_and_token() {
    let (owner, payee) = (address_word([0x11; 20]), address_word(PAYEE));
    let five = number_word(5);
    let selector = |signature: &str| keccak256(signature)[..4].try_into().unwrap();
    for (signature, words, action, payer) in [
        ("transfer(address,uint256)", vec![payee, five], Action::Erc20Transfer, false),
        (
            "transferFrom(address,address,uint256)",
            vec![owner, payee, five],
            Action::Erc20TransferFrom,
            true,
        ),
        ("approve(address,uint256)", vec![payee, five], Action::Erc20Approve, false),
        (
            "increaseAllowance(address,uint256)",
            vec![payee, five],
            Action::Erc20IncreaseAllowance,
            false,
        ),
        (
            "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)",
            vec![owner, payee, five, MAX, number_word(28), MAX, MAX],
            Action::Erc20Permit,
            true,
        ),
    ] {
        let tx = decode_evm(&token_call(&calldata(selector(signature), &words))).unwrap();
        let intent = tx.intent();
        assert_eq!(intent.action, action);
        assert_eq!(intent.asset, Some(AssetRef::Token(EvmAddress(TOKEN))), "{signature}");
        assert_eq!(intent.to, Some(EvmAddress(PAYEE)), "{signature}");
        assert_eq!(intent.payer, payer.then_some(EvmAddress([0x11; 20])), "{signature}");
        assert_eq!(intent.amount, 5.into(), "{signature}");
        assert_eq!(intent.native_value, Amount::ZERO, "{signature}");
    }
    for (approved, amount) in [(0, Amount::ZERO), (1, Amount::MAX)] {
        let selector = selector("setApprovalForAll(address,bool)");
        let data = calldata(selector, &[payee, number_word(approved)]);
        let tx = decode_evm(&token_call(&data)).unwrap();
        assert_eq!(tx.intent().action, Action::SetApprovalForAll);
        assert_eq!((tx.intent().to, tx.intent().amount), (Some(EvmAddress(PAYEE)), amount));
    }
}

#[test]
fn i3_value_sent_along_with_a_token_call_is_surfaced() {
    let mut fields = eip1559_fields();
    fields[7] = item(calldata(TRANSFER, &[address_word(PAYEE), number_word(5)]).as_slice());
    let tx = decode_evm(&eip1559(&fields)).unwrap();
    assert_eq!(tx.intent().action, Action::Erc20Transfer);
    assert_eq!((tx.intent().amount, tx.intent().native_value), (5.into(), 1.into()));
}

#[test]
fn a_transfer_to_the_zero_address_is_surfaced_as_it_is() {
    let tx = decode_evm(&eip1559_with(5, item([0_u8; 20].as_slice()))).unwrap();
    assert_eq!(tx.intent().to, Some(EvmAddress([0; 20])));
}

#[test]
fn any_other_call_names_the_contract() {
    for data in [&[1_u8][..], &[0xa9, 0x05, 0x9c], &[0; 4], &[0xff; 100]] {
        let tx = decode_evm(&token_call(data)).unwrap();
        assert_eq!(tx.intent().action, Action::ContractCall);
        assert_eq!(tx.intent().to, Some(EvmAddress(TOKEN)));
        assert_eq!(tx.intent().asset, None);
    }
}

#[test]
fn contract_creation_names_no_recipient() {
    let mut fields = eip1559_fields();
    fields[5] = item([].as_slice());
    let tx = decode_evm(&eip1559(&fields)).unwrap();
    assert_eq!(tx.intent().action, Action::ContractCreation);
    assert_eq!((tx.intent().to, tx.intent().asset), (None, None));
    assert_eq!((tx.intent().amount, tx.intent().native_value), (Amount::ZERO, 1.into()));
}

#[test]
fn i3_another_chain_id_is_another_intent_and_another_digest() {
    let base = decode_evm(&eip1559(&eip1559_fields())).unwrap();
    let mainnet = decode_evm(&eip1559_with(0, item(1_u64))).unwrap();
    assert_eq!(mainnet.intent().chain.as_ref().unwrap().as_eip155(), Some(1));
    assert_ne!(base.intent().chain, mainnet.intent().chain);
    assert_ne!(base.signing_hash(), mainnet.signing_hash());
}

// ---- encoding

#[test]
fn no_bytes_are_refused() {
    assert_eq!(evm_error(decode_evm(&[])), EvmError::Empty);
}

#[test]
fn i3_trailing_bytes_are_refused() {
    for bytes in [eip1559(&eip1559_fields()), list(&legacy_fields())] {
        let at = bytes.len();
        let refused = evm_error(decode_evm(&[bytes, vec![0, 0]].concat()));
        assert_eq!(refused, EvmError::Trailing { at, extra: 2 });
    }
}

#[test]
fn truncation_at_every_byte_is_refused() {
    let bytes = eip1559(&eip1559_fields());
    for end in 0..bytes.len() {
        assert!(decode_evm(&bytes[..end]).is_err(), "{end}");
    }
}

#[test]
fn non_minimal_rlp_integer_is_refused() {
    let leading_zero = vec![0x82, 0x00, 0x07];
    assert_eq!(rlp_problem(&eip1559_with(1, leading_zero), "nonce"), RlpProblem::LeadingZero);
    let zero_as_byte = vec![0x00];
    assert_eq!(rlp_problem(&eip1559_with(6, zero_as_byte), "value"), RlpProblem::LeadingZero);
    let small_with_header = vec![0x81, 0x07];
    assert_eq!(rlp_problem(&eip1559_with(1, small_with_header), "nonce"), RlpProblem::NotCanonical);
}

#[test]
fn non_minimal_rlp_length_is_refused() {
    let long_form_of_short_string = [vec![0xb8, 20], PAYEE.to_vec()].concat();
    assert_eq!(
        rlp_problem(&eip1559_with(5, long_form_of_short_string), "to"),
        RlpProblem::NotCanonical
    );
    let payload = eip1559_fields().concat();
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 56);
    let long_form_of_short_list = [vec![2, 0xf8, length], payload].concat();
    assert_eq!(rlp_problem(&long_form_of_short_list, "transaction"), RlpProblem::NotCanonical);
}

#[test]
fn list_that_claims_more_than_there_is_is_refused() {
    let mut bytes = eip1559(&eip1559_fields());
    bytes[1] += 1;
    assert_eq!(rlp_problem(&bytes, "transaction"), RlpProblem::TooShort);
    let huge = vec![0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(rlp_problem(&huge, "transaction"), RlpProblem::TooShort);
}

#[test]
fn string_in_place_of_the_transaction_is_refused() {
    let bytes = [vec![2], item(eip1559_fields().concat().as_slice())].concat();
    assert_eq!(rlp_problem(&bytes, "transaction"), RlpProblem::NotAList);
}

#[test]
fn list_that_claims_less_than_there_is_is_refused() {
    let mut bytes = eip1559(&eip1559_fields());
    bytes[1] -= 1;
    assert!(matches!(evm_error(decode_evm(&bytes)), EvmError::Trailing { extra: 1, .. }));
}

#[test]
fn access_list_that_claims_more_than_there_is_is_refused() {
    assert_eq!(rlp_problem(&eip1559_with(8, vec![0xc5]), "accessList"), RlpProblem::TooShort);
    // within the list, but past the entry's end
    let entry = [vec![0xd6, 0x94], TOKEN.to_vec(), vec![0xc1]].concat();
    let refused = rlp_problem(&eip1559_with(8, list(&[entry])), "accessList");
    assert_eq!(refused, RlpProblem::TooShort);
}

#[test]
fn access_list_entries_of_another_shape_are_refused() {
    let key = item([9_u8; 32].as_slice());
    let address = item(TOKEN.as_slice());
    let good = list(&[list(&[address.clone(), list(std::slice::from_ref(&key))])]);
    assert_eq!(decode_evm(&eip1559_with(8, good)).unwrap().summary().access_list_slots, 1);
    for bad in [
        item([].as_slice()),                                      // a string
        list(std::slice::from_ref(&address)),                     // no entry
        list(&[list(std::slice::from_ref(&address))]),            // no keys
        list(&[list(&[address.clone(), key.clone()])]),           // keys not a list
        list(&[list(&[address.clone(), list(&[]), list(&[])])]),  // one more
        list(&[list(&[item([1_u8; 19].as_slice()), list(&[])])]), // short address
        list(&[list(&[address.clone(), list(&[item([9_u8; 31].as_slice())])])]), // short key
        list(&[list(&[address, list(&[item([9_u8; 33].as_slice())])])]), // long key
    ] {
        assert!(decode_evm(&eip1559_with(8, bad.clone())).is_err(), "{bad:02x?}");
    }
}

#[test]
fn list_where_a_number_belongs_is_refused() {
    assert_eq!(rlp_problem(&eip1559_with(1, list(&[])), "nonce"), RlpProblem::NotAString);
}

#[test]
fn missing_to_is_refused() {
    let mut fields = eip1559_fields();
    fields.remove(5);
    assert!(matches!(
        evm_error(decode_evm(&eip1559(&fields))),
        EvmError::FieldCount { expected: 9, got: 8, .. }
    ));
    let mut fields = legacy_fields();
    fields.remove(3);
    assert!(matches!(
        evm_error(decode_evm(&list(&fields))),
        EvmError::FieldCount { expected: 9, got: 8, .. }
    ));
}

#[test]
fn to_of_another_length_is_refused() {
    for length in [1, 19, 21, 32] {
        let to = item(vec![0x22_u8; length].as_slice());
        assert_eq!(rlp_problem(&eip1559_with(5, to), "to"), RlpProblem::WrongLength, "{length}");
    }
}

#[test]
fn a_field_too_many_is_refused() {
    let mut fields = eip1559_fields();
    fields.push(item(1_u64));
    assert!(matches!(
        evm_error(decode_evm(&eip1559(&fields))),
        EvmError::FieldCount { expected: 9, got: 10, .. }
    ));
}

#[test]
fn more_than_the_cap_is_refused_before_it_is_read() {
    let bytes = vec![0xff; MAX_TRANSACTION_BYTES + 1];
    let refused = decode_evm(&bytes).unwrap_err();
    assert_eq!(refused.denial_code(), DenialCode::TooLarge);
    assert_eq!(decode_signed_evm(&bytes).unwrap_err(), refused);
    assert_eq!(decode_evm(&bytes[1..]).unwrap_err().denial_code(), DenialCode::Malformed);
}

#[test]
fn number_too_large_for_its_field_is_refused() {
    for (index, field, length) in [
        (0, "chainId", 9),
        (1, "nonce", 9),
        (2, "maxPriorityFeePerGas", 17),
        (3, "maxFeePerGas", 17),
        (4, "gasLimit", 9),
        (6, "value", 33),
    ] {
        let number = item(vec![0xff_u8; length].as_slice());
        assert_eq!(rlp_problem(&eip1559_with(index, number), field), RlpProblem::TooLarge);
    }
}

// ---- types

#[test]
fn other_types_of_transaction_are_refused_by_name() {
    for (ty, name) in [(3, "EIP-4844"), (4, "EIP-7702"), (5, "EIP-7702"), (0x19, "EIP-712")] {
        let refused = evm_error(decode_evm(&[vec![ty], list(&eip1559_fields())].concat()));
        assert!(matches!(refused, EvmError::UnsupportedType { .. }), "{refused}");
        assert!(refused.to_string().contains(name), "{refused}");
    }
    for first in [0x00, 0x06, 0x71, 0x7e, 0x7f, 0x80, 0xb8, 0xbf] {
        let refused = evm_error(decode_evm(&[vec![first], list(&eip1559_fields())].concat()));
        assert_eq!(refused, EvmError::UnknownType { first });
    }
}

#[test]
fn legacy_without_a_chain_id_is_refused() {
    assert_eq!(evm_error(decode_evm(&list(&legacy_fields()[..6]))), EvmError::NotReplayProtected);
}

#[test]
fn what_is_signed_already_is_refused() {
    let key = [item(1_u64), item(U256::MAX >> 2), item(U256::MAX >> 2)];
    let typed = [eip1559_fields(), key.to_vec()].concat();
    assert!(matches!(evm_error(decode_evm(&eip1559(&typed))), EvmError::AlreadySigned { .. }));
    let legacy = [legacy_fields()[..6].to_vec(), key.to_vec()].concat();
    assert!(matches!(evm_error(decode_evm(&list(&legacy))), EvmError::AlreadySigned { .. }));
    // one half of a signature is one too
    for half in [7, 8] {
        let mut fields = legacy_fields();
        fields[half] = item(1_u64);
        assert!(matches!(evm_error(decode_evm(&list(&fields))), EvmError::AlreadySigned { .. }));
    }
}

// ---- fields

#[test]
fn chain_id_zero_and_past_eip2294_are_refused() {
    for chain_id in [0, MAX_CHAIN_ID + 1, u64::MAX] {
        let refused = EvmError::ChainId { chain_id, max: MAX_CHAIN_ID };
        assert_eq!(evm_error(decode_evm(&eip1559_with(0, item(chain_id)))), refused);
        let mut fields = legacy_fields();
        fields[6] = item(chain_id);
        assert_eq!(evm_error(decode_evm(&list(&fields))), refused);
    }
    assert!(decode_evm(&eip1559_with(0, item(MAX_CHAIN_ID))).is_ok());
}

#[test]
fn largest_chain_id_round_trips_through_a_legacy_signature() {
    let mut fields = legacy_fields();
    fields[6] = item(MAX_CHAIN_ID);
    let tx = decode_evm(&list(&fields)).unwrap();
    for parity in [false, true] {
        let signature = EvmSignature::new(&[0x11; 64], parity).unwrap();
        let apart = decode_signed_evm(&tx.raw_signed(&signature)).unwrap();
        assert_eq!((&apart.transaction, apart.signature), (&tx, signature));
    }
}

#[test]
fn nonce_past_eip2681_is_refused() {
    let refused = EvmError::NonceTooLarge { nonce: u64::MAX };
    assert_eq!(evm_error(decode_evm(&eip1559_with(1, item(u64::MAX)))), refused);
    assert!(decode_evm(&eip1559_with(1, item(u64::MAX - 1))).is_ok());
}

#[test]
fn gas_limit_zero_low_and_past_any_block_is_refused() {
    assert_eq!(evm_error(decode_evm(&eip1559_with(4, item(0_u64)))), EvmError::GasLimitZero);
    let refused = EvmError::GasLimitBelowIntrinsic { gas_limit: 20_999, intrinsic: 21_000 };
    assert_eq!(evm_error(decode_evm(&eip1559_with(4, item(20_999_u64)))), refused);
    assert!(decode_evm(&eip1559_with(4, item(21_000_u64))).is_ok());
    assert!(decode_evm(&eip1559_with(4, item(MAX_GAS_LIMIT))).is_ok());
    let gas_limit = MAX_GAS_LIMIT + 1;
    let refused = EvmError::GasLimitTooLarge { gas_limit, max: MAX_GAS_LIMIT };
    assert_eq!(evm_error(decode_evm(&eip1559_with(4, item(gas_limit)))), refused);
}

#[test]
fn highest_fee_there_is_does_not_overflow() {
    let mut fields = eip1559_fields();
    fields[3] = item(u128::MAX);
    fields[4] = item(MAX_GAS_LIMIT);
    let tx = decode_evm(&eip1559(&fields)).unwrap();
    let expected = U256::from(u128::MAX) * U256::from(MAX_GAS_LIMIT);
    assert_eq!(tx.intent().max_fee, Some(Amount::from_u256(expected)));
}

#[test]
fn value_and_fee_past_256_bits_are_refused() {
    assert_eq!(evm_error(decode_evm(&eip1559_with(6, item(U256::MAX)))), EvmError::CostOverflow);
}

#[test]
fn tip_above_the_highest_price_is_refused() {
    let refused = EvmError::PriorityFeeAboveMaxFee { priority: 2_001, max_fee: 2_000 };
    assert_eq!(evm_error(decode_evm(&eip1559_with(2, item(2_001_u64)))), refused);
    assert!(decode_evm(&eip1559_with(2, item(2_000_u64))).is_ok());
}

#[test]
fn creation_code_past_eip3860_is_refused() {
    let creation = |size: usize| {
        let mut fields = eip1559_fields();
        fields[4] = item(10_000_000_u64);
        fields[5] = item([].as_slice());
        fields[7] = item(vec![0_u8; size].as_slice());
        decode_evm(&eip1559(&fields))
    };
    assert!(creation(MAX_INITCODE_BYTES).is_ok());
    let size = MAX_INITCODE_BYTES + 1;
    let refused = EvmError::InitcodeTooLarge { size, max: MAX_INITCODE_BYTES };
    assert_eq!(evm_error(creation(size)), refused);
}

#[test]
fn calldata_may_be_longer_than_creation_code() {
    let mut fields = eip1559_fields();
    fields[4] = item(10_000_000_u64);
    fields[7] = item(vec![0_u8; MAX_INITCODE_BYTES + 1].as_slice());
    let tx = decode_evm(&eip1559(&fields)).unwrap();
    assert_eq!(tx.summary().data_bytes, MAX_INITCODE_BYTES + 1);
}

// ---- calldata

fn calldata_error(data: &[u8]) -> CalldataError {
    match evm_error(decode_evm(&token_call(data))) {
        EvmError::Calldata(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn i3_upper_bits_of_an_address_are_refused() {
    for byte in [0, 11] {
        let mut to = address_word(PAYEE);
        to[byte] = 1;
        for selector in [TRANSFER, APPROVE] {
            let refused = calldata_error(&calldata(selector, &[to, number_word(5)]));
            assert!(matches!(refused, CalldataError::AddressPadding { at: 4, .. }), "{refused}");
        }
    }
}

#[test]
fn i3_bytes_behind_the_arguments_are_refused() {
    let words = [address_word(PAYEE), number_word(5), number_word(6)];
    let whole = calldata(TRANSFER, &words);
    for length in [4, 5, 36, 67, 69, 99, 100] {
        let refused = calldata_error(&whole[..length]);
        assert!(
            matches!(refused, CalldataError::Length { expected: 68, got, .. } if got == length),
            "{refused}"
        );
    }
    assert!(decode_evm(&token_call(&whole[..68])).is_ok());
}

#[test]
fn boolean_other_than_0_and_1_is_refused() {
    let selector = [0xa2, 0x2c, 0xb4, 0x65];
    for approved in [number_word(2), number_word(256), MAX] {
        let refused = calldata_error(&calldata(selector, &[address_word(PAYEE), approved]));
        assert!(matches!(refused, CalldataError::NotABool { at: 36, .. }), "{refused}");
    }
}

#[test]
fn permit_with_a_v_past_8_bits_is_refused() {
    let (owner, spender) = (address_word(TOKEN), address_word(PAYEE));
    let words = [owner, spender, MAX, MAX, number_word(256), MAX, MAX];
    let refused = calldata_error(&calldata([0xd5, 0x05, 0xac, 0xcf], &words));
    assert!(matches!(refused, CalldataError::NotAByte { at: 132, .. }), "{refused}");
}

// ---- signatures and keys

/// The order of secp256k1, big endian.
fn order() -> U256 {
    "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141".parse().unwrap()
}

fn r_s(r: U256, s: U256) -> [u8; 64] {
    [r.to_be_bytes::<32>(), s.to_be_bytes::<32>()].concat().try_into().unwrap()
}

#[test]
fn signature_scalars_out_of_range_are_refused() {
    let one = U256::ONE;
    for (r, s, refused) in [
        (U256::ZERO, one, SignatureError::OutOfRange { part: "r" }),
        (one, U256::ZERO, SignatureError::OutOfRange { part: "s" }),
        (order(), one, SignatureError::OutOfRange { part: "r" }),
        (one, order(), SignatureError::OutOfRange { part: "s" }),
        (U256::MAX, U256::MAX, SignatureError::OutOfRange { part: "r" }),
        (one, order() - one, SignatureError::HighS),
        (one, (order() + one) >> 1, SignatureError::HighS),
    ] {
        assert_eq!(EvmSignature::new(&r_s(r, s), false), Err(refused));
    }
    let edge = r_s(order() - one, order() >> 1);
    for (parity, v) in [(false, 27), (true, 28)] {
        let signature = EvmSignature::new(&edge, parity).unwrap();
        assert_eq!((signature.r_s(), signature.y_parity()), (edge, parity));
        assert_eq!(signature.r_s_v().to_vec(), [edge.as_slice(), &[v]].concat());
    }
}

#[test]
fn signed_with_a_malleable_signature_is_refused() {
    let signed = |y_parity: Vec<u8>, s: U256| {
        let signature = vec![y_parity, item(U256::ONE), item(s)];
        decode_signed_evm(&eip1559(&[eip1559_fields(), signature].concat()))
    };
    assert!(signed(item(1_u64), order() >> 1).is_ok());
    let refused = evm_error(signed(item(1_u64), order() - U256::ONE));
    assert_eq!(refused, EvmError::Signature(SignatureError::HighS));
    let refused = evm_error(signed(item(2_u64), U256::ONE));
    assert!(matches!(refused, EvmError::BadV { v: 2, .. }), "{refused}");
}

#[test]
fn keys_of_another_form_have_no_address() {
    let secret = k256::SecretKey::from_slice(&[0x46; 32]).unwrap();
    let compressed = secret.public_key().to_sec1_bytes();
    let point =
        k256::elliptic_curve::sec1::ToEncodedPoint::to_encoded_point(&secret.public_key(), false);
    // EIP-155's example key
    let expected = EvmAddress::parse("0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F");
    for key in [&compressed[..], point.as_bytes()] {
        assert_eq!(evm_address_from_sec1(key).ok(), expected);
    }
    let hybrid = [&[6], &point.as_bytes()[1..]].concat();
    for bad in [&[][..], &[0], &compressed[..32], &point.as_bytes()[1..], &hybrid] {
        let refused = evm_address_from_sec1(bad);
        assert!(matches!(refused, Err(SignatureError::NotSec1 { .. })), "{bad:02x?}");
    }
    let off_curve = [&[4][..], &[1; 64]].concat();
    assert_eq!(evm_address_from_sec1(&off_curve), Err(SignatureError::NotOnCurve));
}

/// The worked example of EIP-155.
#[test]
fn eip155_example_hash_and_raw_transaction() {
    let unsigned = common::hex(
        "ec098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000080018080",
    );
    let tx = decode_evm(&unsigned).unwrap();
    assert_eq!(
        tx.signing_hash().to_vec(),
        common::hex("daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53")
    );
    let r_s = common::hex(
        "28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276\
         67cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83",
    );
    let signature = EvmSignature::new(r_s.as_slice().try_into().unwrap(), false).unwrap();
    assert_eq!(
        tx.raw_signed(&signature),
        common::hex(
            "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a7640000\
             8025a028ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f\
             761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"
        )
    );
}
