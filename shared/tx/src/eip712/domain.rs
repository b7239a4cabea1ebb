//! The domain: which contract on which chain the signature is for.

use alloy_primitives::{Address, B256};
use alloy_sol_types::Eip712Domain;
use serde_json::Value;

use crate::evm::MAX_CHAIN_ID;
use crate::{Domain, EvmAddress};

use super::error::TypedDataError;
use super::json::Path;
use super::types::{DOMAIN, Types};
use super::value::{address, bytes32, object, only_members, text, uint};

const FIELDS: [&str; 5] = ["name", "version", "chainId", "verifyingContract", "salt"];

/// The domain's fields, each as far as it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ParsedDomain {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) chain_id: Option<u64>,
    pub(super) verifying_contract: Option<EvmAddress>,
    pub(super) salt: Option<[u8; 32]>,
}

/// A domain of exactly the four fields that token contracts use.
#[derive(Clone, Debug)]
pub(super) struct TokenDomain {
    pub(super) domain: Domain,
    pub(super) chain_id: u64,
    pub(super) verifying_contract: EvmAddress,
}

impl ParsedDomain {
    /// Parses `domain` and checks `types.EIP712Domain`, where it is declared, against it.
    ///
    /// Wallet libraries leave the declaration out and derive it from the fields that are there,
    /// in EIP-712's order; a declaration of anything else would mean another digest to them.
    pub(super) fn parse(value: &Value, types: &Types) -> Result<Self, TypedDataError> {
        let path = Path::Key(&Path::Root, "domain");
        let members = object(value, path)?;
        only_members(members, path, |key| FIELDS.contains(&key))?;
        let at = |name| Path::Key(&path, name);
        let string =
            |name| members.get(name).map(|v| text(v, at(name)).map(str::to_owned)).transpose();
        let chain_id = members.get("chainId").map(|v| chain_id(v, at("chainId"))).transpose()?;
        let contract = members.get("verifyingContract");
        let contract = contract.map(|v| address(v, at("verifyingContract"))).transpose()?;
        let parsed = Self {
            name: string("name")?,
            version: string("version")?,
            chain_id,
            verifying_contract: contract,
            salt: members.get("salt").map(|v| bytes32(v, at("salt"))).transpose()?,
        };
        if members.is_empty() {
            return Err(TypedDataError::EmptyDomain);
        }
        if types.fields(DOMAIN).is_some() {
            let (declared, expected) = (types.type_string(DOMAIN), parsed.to_alloy().encode_type());
            if declared != expected {
                return Err(TypedDataError::DomainType { declared, expected });
            }
        }
        Ok(parsed)
    }

    pub(super) fn to_alloy(&self) -> Eip712Domain {
        Eip712Domain {
            name: self.name.clone().map(Into::into),
            version: self.version.clone().map(Into::into),
            chain_id: self.chain_id.map(alloy_primitives::U256::from),
            verifying_contract: self.verifying_contract.map(|a| Address::from(a.0)),
            salt: self.salt.map(B256::from),
        }
    }

    /// The domain, if it is of exactly the four fields.
    pub(super) fn four_fields(&self) -> Option<TokenDomain> {
        match self {
            Self {
                name: Some(name),
                version: Some(version),
                chain_id: Some(chain_id),
                verifying_contract: Some(verifying_contract),
                salt: None,
            } => Some(TokenDomain {
                domain: Domain { name: name.clone(), version: version.clone() },
                chain_id: *chain_id,
                verifying_contract: *verifying_contract,
            }),
            _ => None,
        }
    }

    /// The four fields, for a type that must have them.
    pub(super) fn require_four_fields(&self) -> Result<TokenDomain, TypedDataError> {
        self.four_fields().ok_or_else(|| TypedDataError::DomainType {
            declared: self.to_alloy().encode_type(),
            expected: "EIP712Domain(string name,string version,uint256 chainId,address \
                       verifyingContract)"
                .to_owned(),
        })
    }
}

fn chain_id(value: &Value, path: Path<'_>) -> Result<u64, TypedDataError> {
    let number = uint(value, path, 256)?;
    u64::try_from(number).ok().filter(|id| (1..=MAX_CHAIN_ID).contains(id)).ok_or_else(|| {
        TypedDataError::BadValue {
            at: path.to_string(),
            input: number.to_string(),
            expected: format!("a chain id from 1 to {MAX_CHAIN_ID}"),
        }
    })
}
