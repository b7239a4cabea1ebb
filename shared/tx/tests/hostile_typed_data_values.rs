//! Hostile typed data, each by name: values, numbers, JSON.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod common;

use casemate_proto::{Amount, DenialCode};
use casemate_tx::eip712::{JsonError, MAX_FIELDS, MAX_STRUCT_VALUES, MAX_TYPED_DATA_BYTES};
use casemate_tx::{TxError, TypedDataError, decode_typed_data};
use common::typed_data::{TO, TOKEN, changed, custom, decode, fields, refused, transfer};
use common::typed_data_error;
use serde_json::{Value, json};

fn value_refused(ty: &str, value: Value) -> bool {
    let document = custom(&[("Mail", fields(&[("v", ty)]))], json!({ "v": value.clone() }));
    match decode(&document) {
        Ok(_) => false,
        Err(TxError::TypedData(
            TypedDataError::BadValue { at, .. }
            | TypedDataError::WrongJsonType { at, .. }
            | TypedDataError::ArrayLength { at, .. },
        )) => {
            assert!(at.starts_with("/message/v"), "{at}");
            true
        }
        Err(other) => panic!("{ty} {value}: {other}"),
    }
}

#[test]
fn number_too_large_for_its_type_is_refused() {
    let two_256 = "115792089237316195423570985008687907853269984665640564039457584007913129639936";
    for (ty, good, bad) in [
        ("uint8", "255", "256"),
        ("uint256", &Amount::MAX.to_string(), two_256),
        ("int8", "127", "128"),
        ("int8", "-128", "-129"),
        ("uint8", "0xff", "0x100"),
    ] {
        assert!(!value_refused(ty, good.into()), "{ty} {good}");
        assert!(value_refused(ty, bad.into()), "{ty} {bad}");
    }
    let document = changed(|d| d["message"]["value"] = two_256.into());
    assert!(matches!(refused(&document), TypedDataError::BadValue { .. }));
}

#[test]
fn other_spellings_of_numbers_are_refused() {
    for bad in [
        "", " 1", "1 ", "+1", "-1", "-0", "01", "1_000", "1.0", "1e3", "0b1", "0o7", "0X1", "0x",
        "0x1_0", "0xg", "١", "one",
    ] {
        assert!(value_refused("uint256", bad.into()), "{bad:?}");
    }
    let long = format!("0x{}", "0".repeat(65));
    assert!(value_refused("uint256", long.into()));
    for bad in [json!(-1), json!(true), json!([1]), json!({}), Value::Null] {
        assert!(value_refused("uint256", bad.clone()), "{bad}");
    }
    for bad in ["-0", "--1", "- 1", "0x1", "-0x1", "+1", "-01", ""] {
        assert!(value_refused("int256", bad.into()), "{bad:?}");
    }
    assert!(!value_refused("int64", json!(i64::MIN)));
}

#[test]
fn other_spellings_of_other_values_are_refused() {
    for bad in [json!("true"), json!(1), json!(0), json!("1")] {
        assert!(value_refused("bool", bad.clone()), "{bad}");
    }
    for bad in
        [json!(TO[2..]), json!(TO[..41]), json!(TO.replace('B', "b")), json!(0), json!("0x0")]
    {
        assert!(value_refused("address", bad.clone()), "{bad}");
    }
    for bad in [json!("ab"), json!("0xa"), json!("0xzz"), json!([1, 2]), json!(""), json!("0X00")] {
        assert!(value_refused("bytes", bad.clone()), "{bad}");
    }
    for bad in [json!("0x0102"), json!("0x01020304"), json!("0x"), json!(1)] {
        assert!(value_refused("bytes3", bad.clone()), "{bad}");
    }
    for bad in [json!(1), json!(["a"]), json!(true)] {
        assert!(value_refused("string", bad.clone()), "{bad}");
    }
    for bad in [json!([1]), json!([1, 2, 3]), json!({ "0": 1, "1": 2 }), json!("ab")] {
        assert!(value_refused("uint8[2]", bad.clone()), "{bad}");
    }
    assert!(!value_refused("uint8[2][]", json!([[1, 2], [3, 4]])));
    assert!(value_refused("uint8[2][]", json!([[1, 2], [3]])));
    assert!(value_refused("uint8[][2]", json!([[1, 2], [3], [4]])));
}

#[test]
fn address_with_a_wrong_checksum_is_refused() {
    let document =
        changed(|d| d["message"]["to"] = TO.replace("BC", "bC").replace("Bc", "bC").into());
    assert!(matches!(refused(&document), TypedDataError::BadValue { .. }));
}

#[test]
fn chain_id_zero_negative_or_too_large_is_refused() {
    for bad in [json!(0), json!("0x0"), json!(-1), json!(u64::MAX), json!("eip155:1"), json!("")] {
        let document = changed(|d| d["domain"]["chainId"] = bad.clone());
        assert!(matches!(refused(&document), TypedDataError::BadValue { .. }), "{bad}");
    }
}

#[test]
fn time_past_64_bits_of_milliseconds_is_refused() {
    for field in ["validAfter", "validBefore"] {
        let last = u64::MAX / 1_000;
        assert!(decode(&changed(|d| d["message"][field] = last.into())).is_ok());
        for bad in [(last + 1).to_string(), Amount::MAX.to_string()] {
            let document = changed(|d| d["message"][field] = bad.clone().into());
            let refused = refused(&document);
            assert!(
                matches!(&refused, TypedDataError::TimeOverflow { at, .. } if at.ends_with(field)),
                "{refused}"
            );
        }
    }
}

// ---- JSON

#[test]
fn i3_duplicated_json_key_is_refused_everywhere() {
    let text = transfer().to_string();
    for (once, at) in [
        (r#""to":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C""#, "/message"),
        (r#""chainId":84532"#, "/domain"),
        (r#""primaryType":"TransferWithAuthorization""#, ""),
        (r#""name":"nonce""#, "/types/TransferWithAuthorization/5"),
    ] {
        assert!(text.contains(once), "{once}");
        let twice = text.replacen(once, &format!("{once},{once}"), 1);
        let refused = typed_data_error(decode_typed_data(twice.as_bytes()));
        assert!(
            matches!(
                &refused,
                TypedDataError::Json(JsonError::DuplicateKey { at: place, .. }) if place == at
            ),
            "{refused}"
        );
    }
}

#[test]
fn trailing_bytes_are_refused() {
    for behind in ["{}", "x", ",", "\0"] {
        let text = format!("{}{behind}", transfer());
        let refused = typed_data_error(decode_typed_data(text.as_bytes()));
        assert!(matches!(refused, TypedDataError::Json(JsonError::Malformed { .. })), "{refused}");
    }
}

#[test]
fn json_within_a_string_is_refused() {
    let text = Value::from(transfer().to_string()).to_string();
    let refused = typed_data_error(decode_typed_data(text.as_bytes()));
    assert!(matches!(refused, TypedDataError::WrongJsonType { .. }), "{refused}");
}

#[test]
fn number_that_a_double_would_round_is_refused() {
    for number in ["10000.0", "1e4", "115792089237316195423570985008687907853269984665640564039457"]
    {
        let text = transfer().to_string().replace(r#""10000""#, number);
        let refused = typed_data_error(decode_typed_data(text.as_bytes()));
        assert_eq!(
            refused,
            TypedDataError::Json(JsonError::NotExact { at: "/message/value".to_owned() })
        );
    }
}

#[test]
fn nesting_past_the_cap_is_refused() {
    let deep = ["[".repeat(30_000), "]".repeat(30_000)].concat();
    let text = transfer().to_string().replace(r#""10000""#, &deep);
    let refused = typed_data_error(decode_typed_data(text.as_bytes()));
    assert!(matches!(refused, TypedDataError::Json(JsonError::TooDeep { .. })), "{refused}");
}

#[test]
fn more_than_the_cap_is_refused_before_it_is_read() {
    let text = vec![b' '; MAX_TYPED_DATA_BYTES + 1];
    let refused = decode_typed_data(&text).unwrap_err();
    assert_eq!(refused.denial_code(), DenialCode::TooLarge);
    assert_eq!(decode_typed_data(&text[1..]).unwrap_err().denial_code(), DenialCode::Malformed);
}

#[test]
fn the_summary_shows_what_is_hashed_and_nothing_else() {
    let typed = decode(&changed(|d| d["message"]["value"] = "0x2710".into())).unwrap();
    let shown = serde_json::to_value(typed.summary()).unwrap();
    assert_eq!(
        shown,
        json!({
            "primary_type": "TransferWithAuthorization",
            "encode_type": "TransferWithAuthorization(address from,address to,uint256 value,\
                            uint256 validAfter,uint256 validBefore,bytes32 nonce)",
            "name": "USDC", "version": "2", "chain_id": "84532", "verifying_contract": TOKEN,
            "salt": null,
            "message": transfer()["message"],
        })
    );
}

/// Each struct of a message is hashed with its whole type string: as many as may be, of the
/// longest type there may be, in as few bytes as they take.
#[test]
fn worst_case_within_the_caps_is_decoded_in_time() {
    let many: Value = (0..MAX_FIELDS)
        .map(|i| json!({ "name": format!("{}{i:03}", "f".repeat(44)), "type": "bytes32[1][2]" }))
        .collect();
    let types =
        [("Mail", fields(&[("to", "E[]")])), ("E", fields(&[("a", "Long[]")])), ("Long", many)];
    let message = json!({ "to": vec![json!({ "a": [] }); MAX_STRUCT_VALUES - 1] });
    let document = custom(&types, message).to_string();
    let start = std::time::Instant::now();
    let typed = decode_typed_data(document.as_bytes()).unwrap();
    let elapsed = start.elapsed();
    assert!(typed.summary().encode_type.len() > 7_000);
    assert!(elapsed.as_secs() < 5, "{elapsed:?}");
}
