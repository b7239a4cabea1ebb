//! Hostile typed data, each by name: members and types. Values and JSON are in
//! `hostile_typed_data_values.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod common;

use casemate_proto::{Amount, UnixMillis};
use casemate_tx::eip712::{
    MAX_EXPANDED_NODES, MAX_FIELDS, MAX_STRUCT_DEPTH, MAX_STRUCT_VALUES, MAX_TYPES, TypesError,
};
use casemate_tx::{Action, AssetRef, EvmAddress, TypedDataError, decode_typed_data};
use common::typed_data::{
    FROM, NONCE, TO, TOKEN, changed, custom, decode, fields, refused, transfer, types_error,
};
use serde_json::{Value, json};

// ---- what is accepted, as the ground for what is not

#[test]
fn every_spelling_of_a_number_gives_one_digest() {
    let expected = decode(&transfer()).unwrap();
    for value in [json!(10_000), json!("10000"), json!("0x2710"), json!("0x0000002710")] {
        let typed = decode(&changed(|d| d["message"]["value"] = value.clone())).unwrap();
        assert_eq!(typed, expected, "{value}");
    }
    for chain_id in [json!(84_532), json!("84532"), json!("0x14a34"), json!("0x14A34")] {
        let typed = decode(&changed(|d| d["domain"]["chainId"] = chain_id.clone())).unwrap();
        assert_eq!(typed, expected, "{chain_id}");
    }
    let lower = changed(|d| d["message"]["to"] = TO.to_lowercase().into());
    assert_eq!(decode(&lower).unwrap(), expected);
}

#[test]
fn domain_type_may_be_left_out_as_wallet_libraries_do() {
    let document = changed(|d| {
        d["types"].as_object_mut().unwrap().shift_remove("EIP712Domain");
    });
    assert_eq!(decode(&document).unwrap(), decode(&transfer()).unwrap());
}

#[test]
fn order_of_members_in_json_does_not_matter() {
    let text = transfer().to_string();
    let turned = text
        .replace(r#""value":"10000","#, "")
        .replace(r#","nonce":"#, r#","value":"10000","nonce":"#);
    assert_ne!(text, turned);
    let typed = decode_typed_data(turned.as_bytes()).unwrap();
    assert_eq!(typed, decode(&transfer()).unwrap());
}

#[test]
fn permit_is_an_approval_of_its_spender() {
    let permit = |deadline: Value| {
        decode(&changed(|d| {
            d["primaryType"] = "Permit".into();
            d["types"] = json!({ "Permit": fields(&[
                ("owner", "address"), ("spender", "address"), ("value", "uint256"),
                ("nonce", "uint256"), ("deadline", "uint256"),
            ]) });
            d["message"] = json!({
                "owner": FROM, "spender": TO, "value": "5", "nonce": 0, "deadline": deadline,
            });
        }))
        .unwrap()
    };
    let typed = permit(json!(1_740_672_154));
    let intent = typed.intent();
    assert_eq!(intent.action, Action::Erc20Permit);
    assert_eq!((intent.payer, intent.to), (EvmAddress::parse(FROM), EvmAddress::parse(TO)));
    assert_eq!(intent.asset, EvmAddress::parse(TOKEN).map(AssetRef::Token));
    assert_eq!(intent.amount, 5.into());
    // the deadline itself is still in time
    assert_eq!(intent.validity.unwrap().before, UnixMillis(1_740_672_155_000));
    let for_ever = permit(Amount::MAX.to_string().into());
    assert_eq!(for_ever.intent().validity.unwrap().before, UnixMillis(u64::MAX));
}

#[test]
fn other_types_of_eip3009_and_permit2_are_other_typed_data() {
    let receive = changed(|d| {
        let fields = d["types"]["TransferWithAuthorization"].clone();
        d["types"] = json!({ "ReceiveWithAuthorization": fields });
        d["primaryType"] = "ReceiveWithAuthorization".into();
    });
    let cancel = changed(|d| {
        d["types"] = json!({
            "CancelAuthorization": fields(&[("authorizer", "address"), ("nonce", "bytes32")]),
        });
        d["primaryType"] = "CancelAuthorization".into();
        d["message"] = json!({ "authorizer": FROM, "nonce": NONCE });
    });
    let permit2 = changed(|d| {
        d["types"] = json!({
            "PermitTransferFrom": fields(&[
                ("permitted", "TokenPermissions"), ("spender", "address"),
                ("nonce", "uint256"), ("deadline", "uint256"),
            ]),
            "TokenPermissions": fields(&[("token", "address"), ("amount", "uint256")]),
        });
        d["primaryType"] = "PermitTransferFrom".into();
        d["domain"] = json!({ "name": "Permit2", "chainId": 1, "verifyingContract": TOKEN });
        d["message"] = json!({
            "permitted": { "token": TOKEN, "amount": "1" }, "spender": TO,
            "nonce": 0, "deadline": 1,
        });
    });
    for (document, four_fields) in [(receive, true), (cancel, true), (permit2, false)] {
        let typed = decode(&document).unwrap();
        let intent = typed.intent();
        assert_eq!(intent.action, Action::OtherTypedData);
        assert_eq!(intent.to, EvmAddress::parse(TOKEN));
        assert_eq!((intent.asset, intent.payer, intent.amount), (None, None, Amount::ZERO));
        assert_eq!(intent.domain.is_some(), four_fields);
    }
}

#[test]
fn i3_another_chain_id_is_another_intent_and_another_digest() {
    let (base, mainnet) = (
        decode(&transfer()).unwrap(),
        decode(&changed(|d| d["domain"]["chainId"] = 1.into())).unwrap(),
    );
    assert_eq!(mainnet.intent().chain.as_ref().unwrap().as_eip155(), Some(1));
    assert_ne!(base.domain_separator(), mainnet.domain_separator());
    assert_ne!(base.digest(), mainnet.digest());
}

// ---- members

#[test]
fn i3_extra_field_in_the_message_is_refused() {
    let document = changed(|d| d["message"]["memo"] = "x".into());
    let (at, member) = ("/message".to_owned(), "memo".to_owned());
    assert_eq!(refused(&document), TypedDataError::Undeclared { at, member });
}

#[test]
fn i3_extra_field_in_a_nested_struct_is_refused() {
    let types =
        [("Mail", fields(&[("to", "Person[]")])), ("Person", fields(&[("name", "string")]))];
    assert!(decode(&custom(&types, json!({ "to": [{ "name": "Bob" }] }))).is_ok());
    let extra = json!({ "to": [{ "name": "Bob" }, { "name": "Eve", "also": 1 }] });
    let (at, member) = ("/message/to/1".to_owned(), "also".to_owned());
    assert_eq!(refused(&custom(&types, extra)), TypedDataError::Undeclared { at, member });
}

#[test]
fn i3_extra_field_in_the_domain_is_refused() {
    let document = changed(|d| d["domain"]["memo"] = "x".into());
    let (at, member) = ("/domain".to_owned(), "memo".to_owned());
    assert_eq!(refused(&document), TypedDataError::Undeclared { at, member });
    // a known field, but not one that the declared domain has
    let document = changed(|d| d["domain"]["salt"] = NONCE.into());
    assert!(matches!(refused(&document), TypedDataError::DomainType { .. }));
    // nor one that the token's domain has
    let document = changed(|d| {
        d["domain"]["salt"] = NONCE.into();
        d["types"].as_object_mut().unwrap().shift_remove("EIP712Domain");
    });
    assert!(matches!(refused(&document), TypedDataError::DomainType { .. }));
}

#[test]
fn extra_field_at_the_top_is_refused() {
    let document = changed(|d| d["account"] = FROM.into());
    let (at, member) = (String::new(), "account".to_owned());
    assert_eq!(refused(&document), TypedDataError::Undeclared { at, member });
}

#[test]
fn extra_field_in_a_declaration_is_refused() {
    let document =
        changed(|d| d["types"]["TransferWithAuthorization"][0]["internalType"] = "x".into());
    assert!(matches!(refused(&document), TypedDataError::Undeclared { .. }));
}

#[test]
fn any_missing_member_is_refused() {
    for pointer in ["", "/domain", "/message", "/types/TransferWithAuthorization/0"] {
        let members = transfer().pointer(pointer).unwrap().as_object().unwrap().clone();
        assert!(!members.is_empty());
        for member in members.keys() {
            let document = changed(|d| {
                d.pointer_mut(pointer).unwrap().as_object_mut().unwrap().shift_remove(member);
            });
            let refused = refused(&document);
            assert!(
                matches!(
                    refused,
                    TypedDataError::Missing { .. } | TypedDataError::DomainType { .. }
                ),
                "{pointer} {member}: {refused}"
            );
        }
    }
}

#[test]
fn any_missing_field_of_a_token_domain_is_refused_without_its_declaration() {
    for member in ["name", "version", "chainId", "verifyingContract"] {
        let document = changed(|d| {
            d["types"].as_object_mut().unwrap().shift_remove("EIP712Domain");
            d["domain"].as_object_mut().unwrap().shift_remove(member);
        });
        assert!(matches!(refused(&document), TypedDataError::DomainType { .. }), "{member}");
    }
}

#[test]
fn null_is_no_value() {
    for pointer in
        ["/message", "/message/to", "/message/value", "/domain", "/domain/name", "/types"]
    {
        let document = changed(|d| *d.pointer_mut(pointer).unwrap() = Value::Null);
        assert!(decode(&document).is_err(), "{pointer}");
    }
}

// ---- types

#[test]
fn i3_another_type_string_under_a_known_name_is_refused() {
    let type_of = "/types/TransferWithAuthorization";
    let mut documents = vec![
        // another type for a field
        changed(|d| d.pointer_mut(type_of).unwrap()[2]["type"] = "uint128".into()),
        // one field more, given in the message too
        changed(|d| {
            let more = json!({ "name": "memo", "type": "string" });
            d.pointer_mut(type_of).unwrap().as_array_mut().unwrap().push(more);
            d["message"]["memo"] = "x".into();
        }),
        // one field less
        changed(|d| {
            d.pointer_mut(type_of).unwrap().as_array_mut().unwrap().pop();
            d["message"].as_object_mut().unwrap().shift_remove("nonce");
        }),
        // DAI's permit, which shares a name with EIP-2612's
        changed(|d| {
            d["primaryType"] = "Permit".into();
            d["types"] = json!({ "Permit": fields(&[
                ("holder", "address"), ("spender", "address"), ("nonce", "uint256"),
                ("expiry", "uint256"), ("allowed", "bool"),
            ]) });
            d["message"] = json!({
                "holder": FROM, "spender": TO, "nonce": 0, "expiry": 0, "allowed": true,
            });
        }),
    ];
    // reordered members: from and to change places
    documents.push(changed(|d| {
        d.pointer_mut(type_of).unwrap().as_array_mut().unwrap().swap(0, 1);
    }));
    for document in documents {
        let refused = refused(&document);
        assert!(matches!(refused, TypedDataError::KnownTypeDiffers { .. }), "{refused}");
    }
}

#[test]
fn i3_reordered_domain_type_is_refused() {
    let document = changed(|d| d["types"]["EIP712Domain"].as_array_mut().unwrap().swap(0, 1));
    assert!(matches!(refused(&document), TypedDataError::DomainType { .. }));
}

#[test]
fn domain_type_with_another_type_for_a_field_is_refused() {
    let document = changed(|d| d["types"]["EIP712Domain"][2]["type"] = "uint64".into());
    assert!(matches!(refused(&document), TypedDataError::DomainType { .. }));
}

#[test]
fn domain_without_fields_is_refused() {
    let mut document = custom(&[("Mail", fields(&[("x", "bool")]))], json!({ "x": true }));
    assert!(decode(&document).is_ok());
    document["domain"] = json!({});
    assert_eq!(refused(&document), TypedDataError::EmptyDomain);
}

#[test]
fn domain_as_the_message_or_within_it_is_refused() {
    let mut document = transfer();
    document["primaryType"] = "EIP712Domain".into();
    assert_eq!(types_error(&document), TypesError::DomainAsMessage);
    let types = [
        ("Mail", fields(&[("d", "EIP712Domain")])),
        ("EIP712Domain", fields(&[("name", "string")])),
    ];
    let document = custom(&types, json!({ "d": { "name": "Test" } }));
    assert_eq!(types_error(&document), TypesError::DomainAsMessage);
}

#[test]
fn type_that_is_not_declared_is_refused() {
    let document = changed(|d| d["primaryType"] = "Transfer".into());
    assert!(matches!(types_error(&document), TypesError::NotDeclared { .. }));
    let document = custom(&[("Mail", fields(&[("to", "Person")]))], json!({ "to": {} }));
    assert!(matches!(types_error(&document), TypesError::NotDeclared { .. }));
}

#[test]
fn type_that_is_not_used_is_refused() {
    let document = changed(|d| d["types"]["Other"] = fields(&[("a", "bool")]));
    assert!(matches!(types_error(&document), TypesError::Unused { .. }));
}

#[test]
fn type_that_contains_itself_is_refused() {
    let types = [("Mail", fields(&[("replies", "Mail[]")]))];
    let document = custom(&types, json!({ "replies": [] }));
    assert_eq!(types_error(&document), TypesError::Recursive { name: "Mail".to_owned() });
    let types = [("Mail", fields(&[("a", "A")])), ("A", fields(&[("m", "Mail")]))];
    let document = custom(&types, json!({ "a": {} }));
    assert!(matches!(types_error(&document), TypesError::Recursive { .. }));
}

#[test]
fn field_declared_twice_is_refused() {
    let types = [("Mail", fields(&[("a", "bool"), ("a", "bool")]))];
    let document = custom(&types, json!({ "a": true }));
    assert!(matches!(types_error(&document), TypesError::DuplicateField { .. }));
}

#[test]
fn names_that_would_forge_a_type_string_are_refused() {
    for name in ["a,uint256 b", "a)", "a b", "", " a", "a ", "1a", "a\u{301}", "é", "a.b", "a:b"] {
        let types = [("Mail", fields(&[(name, "bool")]))];
        let document = custom(&types, json!({ name: true }));
        assert!(matches!(types_error(&document), TypesError::BadName { .. }), "{name}");
    }
    for name in ["Mail(bool a)B", "Ma il", "", "9Mail", "Mail[]", "Hyper:Mail"] {
        let mut document = custom(&[(name, fields(&[("a", "bool")]))], json!({ "a": true }));
        document["primaryType"] = name.into();
        assert!(matches!(types_error(&document), TypesError::BadName { .. }), "{name}");
    }
    let long = "a".repeat(65);
    let document = custom(&[("Mail", fields(&[(&long, "bool")]))], json!({}));
    assert!(matches!(types_error(&document), TypesError::BadName { .. }));
}

#[test]
fn struct_named_like_a_basic_type_is_refused() {
    for name in ["uint256", "address", "bool", "bytes32", "string", "uint", "byte", "function"] {
        let types = [("Mail", fields(&[("a", name)])), (name, fields(&[("b", "bool")]))];
        let document = custom(&types, json!({ "a": { "b": true } }));
        assert!(
            matches!(
                types_error(&document),
                TypesError::ReservedName { .. } | TypesError::BadType { .. }
            ),
            "{name}"
        );
        let mut document = custom(&[(name, fields(&[("b", "bool")]))], json!({ "b": true }));
        document["primaryType"] = name.into();
        assert!(matches!(types_error(&document), TypesError::ReservedName { .. }), "{name}");
    }
}

#[test]
fn types_that_expand_without_bound_are_refused_before_they_expand() {
    // each struct holds the next one eight times: 8^15 nodes
    let fields_of = |next: String| -> Value {
        (0..8).map(|i| json!({ "name": format!("f{i}"), "type": next })).collect()
    };
    let mut types = vec![("Mail".to_owned(), fields_of("S1".to_owned()))];
    for i in 1..MAX_STRUCT_DEPTH - 1 {
        types.push((format!("S{i}"), fields_of(format!("S{}", i + 1))));
    }
    types.push((format!("S{}", MAX_STRUCT_DEPTH - 1), fields(&[("x", "bool")])));
    let types: Vec<_> = types.iter().map(|(n, f)| (n.as_str(), f.clone())).collect();
    let document = custom(&types, json!({}));
    let max = MAX_EXPANDED_NODES;
    let what = "nodes when expanded";
    assert_eq!(types_error(&document), TypesError::TooMany { what, max });
}

#[test]
fn structs_nested_past_the_cap_are_refused() {
    let nested = |depth: usize| {
        let mut types = vec![("Mail".to_owned(), fields(&[("s", "S1")]))];
        let mut message = json!({ "x": true });
        for i in 1..depth - 1 {
            types.push((format!("S{i}"), fields(&[("s", &format!("S{}", i + 1))])));
            message = json!({ "s": message });
        }
        types.push((format!("S{}", depth - 1), fields(&[("x", "bool")])));
        let types: Vec<_> = types.iter().map(|(n, f)| (n.as_str(), f.clone())).collect();
        custom(&types, json!({ "s": message }))
    };
    assert!(decode(&nested(MAX_STRUCT_DEPTH)).is_ok());
    let too_deep = nested(MAX_STRUCT_DEPTH + 1);
    assert!(matches!(types_error(&too_deep), TypesError::TooMany { .. }));
}

#[test]
fn too_many_types_fields_and_bytes_are_refused() {
    let document = changed(|d| {
        for i in 0..MAX_TYPES {
            d["types"][format!("T{i}")] = json!([]);
        }
    });
    assert!(matches!(types_error(&document), TypesError::TooMany { what: "types", .. }));
    let many: Value =
        (0..=MAX_FIELDS).map(|i| json!({ "name": format!("f{i}"), "type": "bool" })).collect();
    let document = custom(&[("Mail", many)], json!({}));
    assert!(matches!(types_error(&document), TypesError::TooMany { what: "fields in a type", .. }));
    let long: Value = (0..MAX_FIELDS)
        .map(|i| json!({ "name": format!("{}{i}", "f".repeat(60)), "type": "bytes32[1][2][3]" }))
        .collect();
    let document = custom(&[("Mail", long)], json!({}));
    assert!(matches!(types_error(&document), TypesError::TooMany { what: "bytes", .. }));
}

#[test]
fn too_many_structs_in_a_message_are_refused() {
    let types = [("Mail", fields(&[("to", "Empty[]")])), ("Empty", json!([]))];
    let message = |n: usize| json!({ "to": vec![json!({}); n] });
    assert!(decode(&custom(&types, message(MAX_STRUCT_VALUES - 1))).is_ok());
    assert_eq!(
        refused(&custom(&types, message(MAX_STRUCT_VALUES))),
        TypedDataError::TooManyStructs { max: MAX_STRUCT_VALUES }
    );
}
