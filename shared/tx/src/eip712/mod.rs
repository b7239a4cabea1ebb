//! EIP-712 typed data: the JSON of `eth_signTypedData_v4` to intent and digest.
//!
//! ```text
//! { "types": { Name: [ { "name", "type" }, … ], … }, "primaryType", "domain", "message" }
//! ```
//!
//! EIP-712 hashes what the types declare and ignores the rest of the message. Here every object
//! has exactly its declared members, each declared type is used, and the domain's type is made of
//! the domain's fields in EIP-712's order, so that what an approver reads is what is hashed.
//!
//! Types whose meaning is known (`known.rs`) must be declared exactly as known and give the same
//! digest by a second encoder. Anything else is [`Action::OtherTypedData`].

mod domain;
mod error;
mod json;
mod known;
mod types;
mod value;

use alloy_dyn_abi::eip712::{self, PropertyDef, Resolver, TypeDef};
use casemate_proto::{Amount, ChainId};
use serde_json::Value;

use crate::{Action, EvmAddress, Intent, TxError};

use domain::ParsedDomain;
use json::Path;
use types::Types;
use value::{Rewrite, closed_object, text};

pub use error::TypedDataError;
pub use json::{JsonError, MAX_DEPTH};
pub use types::{
    MAX_DIMENSIONS, MAX_EXPANDED_NODES, MAX_FIELDS, MAX_NAME_BYTES, MAX_STRUCT_DEPTH,
    MAX_TYPE_BYTES, MAX_TYPES, TypesError,
};
pub use value::MAX_STRUCT_VALUES;

/// The most bytes typed data may have: 64 KiB, what a request's body may hold.
pub const MAX_TYPED_DATA_BYTES: usize = 64 * 1024;

/// Typed data that passed every check, with the intent derived from it.
///
/// Made by [`decode_typed_data`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedData {
    intent: Intent,
    digest: [u8; 32],
    domain_separator: [u8; 32],
    summary: TypedDataSummary,
}

/// Typed data as an approver sees it: what is hashed, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct TypedDataSummary {
    /// The message's type.
    pub primary_type: String,
    /// Its full type string (EIP-712's `encodeType`).
    pub encode_type: String,
    /// The domain's name.
    pub name: Option<String>,
    /// The domain's version.
    pub version: Option<String>,
    /// The chain's number (EIP-155), a decimal string in JSON.
    pub chain_id: Option<Amount>,
    /// The contract that will verify the signature.
    pub verifying_contract: Option<EvmAddress>,
    /// The domain's salt, `0x`-prefixed hex.
    pub salt: Option<String>,
    /// The message, with one form for each value: whole numbers as decimal strings, addresses
    /// with their checksum, bytes as lower-case `0x` hex; members in declared order.
    pub message: Value,
}

/// Decodes the JSON object of `eth_signTypedData_v4`.
///
/// # Errors
/// [`TxError::TypedData`], with a JSON pointer to the place, for anything that is not typed data
/// in the strict form that the module's head describes.
pub fn decode_typed_data(json: &[u8]) -> Result<TypedData, TxError> {
    Ok(decode(json)?)
}

impl TypedData {
    /// What signing it does.
    #[must_use]
    pub const fn intent(&self) -> &Intent {
        &self.intent
    }

    /// What is signed: keccak-256("\x19\x01" ‖ domain separator ‖ hash of the message).
    #[must_use]
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The hash of the domain, as the contract's `DOMAIN_SEPARATOR()` returns it.
    #[must_use]
    pub const fn domain_separator(&self) -> [u8; 32] {
        self.domain_separator
    }

    /// What it says, for people.
    #[must_use]
    pub const fn summary(&self) -> &TypedDataSummary {
        &self.summary
    }
}

fn decode(json: &[u8]) -> Result<TypedData, TypedDataError> {
    let size = json.len();
    if size > MAX_TYPED_DATA_BYTES {
        return Err(TypedDataError::TooLarge { size, max: MAX_TYPED_DATA_BYTES });
    }
    let document = json::parse(json)?;
    let root = Path::Root;
    let [types, primary, domain, message] =
        closed_object(&document, root, ["types", "primaryType", "domain", "message"])?;
    let types = Types::parse(types, Path::Key(&root, "types"))?;
    let primary = text(primary, Path::Key(&root, "primaryType"))?;
    types.check_message_type(primary)?;
    let domain = ParsedDomain::parse(domain, &types)?;
    let rewritten =
        Rewrite::new(&types).structure(primary, message, Path::Key(&root, "message"))?;

    let general = general_encoder(&types, primary, &domain, rewritten)?;
    let refused = |error: alloy_dyn_abi::Error| TypedDataError::NotEncodable {
        reason: json::clip(&error.to_string()),
    };
    let digest = general.eip712_signing_hash().map_err(refused)?.0;
    let domain_separator = general.domain.separator().0;
    let encode_type = general.encode_type().map_err(refused)?;

    let intent = match known::read(primary, &types, &domain, message)? {
        Some(known) if known.domain_separator != domain_separator => {
            return Err(TypedDataError::EncodersDisagree { what: "domain separator" });
        }
        Some(known) if known.digest != digest => {
            return Err(TypedDataError::EncodersDisagree { what: "digest" });
        }
        Some(known) => known.intent,
        None => other(&domain),
    };
    let summary = TypedDataSummary {
        primary_type: primary.to_owned(),
        encode_type,
        name: domain.name,
        version: domain.version,
        chain_id: domain.chain_id.map(Amount::from),
        verifying_contract: domain.verifying_contract,
        salt: domain.salt.map(|s| format!("0x{}", hex::encode(s))),
        message: general.message,
    };
    Ok(TypedData { intent, digest, domain_separator, summary })
}

/// alloy-dyn-abi's encoder, over types and values that were checked and rewritten.
fn general_encoder(
    types: &Types,
    primary: &str,
    domain: &ParsedDomain,
    message: Value,
) -> Result<eip712::TypedData, TypedDataError> {
    let refused = |error: alloy_dyn_abi::Error| TypedDataError::NotEncodable {
        reason: json::clip(&error.to_string()),
    };
    let mut resolver = Resolver::default();
    for (name, fields) in types.structs() {
        let properties: Result<Vec<_>, _> =
            fields.iter().map(|f| PropertyDef::new(&*f.type_text, &*f.name)).collect();
        let properties = properties.map_err(refused)?;
        resolver.ingest(TypeDef::new(name, properties).map_err(refused)?);
    }
    Ok(eip712::TypedData {
        domain: domain.to_alloy(),
        resolver,
        primary_type: primary.to_owned(),
        message,
    })
}

/// The intent of a type that is not known: signing it may do anything that the verifying contract
/// makes of it.
fn other(domain: &ParsedDomain) -> Intent {
    Intent {
        action: Action::OtherTypedData,
        chain: domain.chain_id.map(ChainId::eip155),
        asset: None,
        payer: None,
        to: domain.verifying_contract,
        amount: Amount::ZERO,
        native_value: Amount::ZERO,
        max_fee: None,
        domain: domain.four_fields().map(|four| four.domain),
        validity: None,
    }
}
