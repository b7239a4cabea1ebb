//! What a payload does, in the terms a policy speaks.

use casemate_proto::{Amount, ChainId, UnixMillis};

/// An EVM account or contract.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EvmAddress(pub [u8; 20]);

impl EvmAddress {
    /// Parses `0x` and 40 hex digits, in one case or with a correct EIP-55 checksum.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("0x").filter(|d| d.len() == 40)?;
        let mut out = [0; 20];
        hex::decode_to_slice(digits, &mut out).ok()?;
        let mixed = digits.bytes().any(|b| b.is_ascii_uppercase())
            && digits.bytes().any(|b| b.is_ascii_lowercase());
        let address = Self(out);
        (!mixed || address.to_checksum() == text).then_some(address)
    }

    /// With the EIP-55 checksum.
    #[must_use]
    pub fn to_checksum(self) -> String {
        alloy_primitives::Address::from(self.0).to_checksum(None)
    }
}

impl core::fmt::Display for EvmAddress {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.to_checksum())
    }
}
/// JSON: the EIP-55 checksummed text.
impl serde::Serialize for EvmAddress {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl core::fmt::Debug for EvmAddress {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.to_checksum())
    }
}

/// What kind of thing is done. The names are what a grant's `allow` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// A transfer of the chain's own asset with no data: `eth.native_transfer`.
    EthNativeTransfer,
    /// `transfer(address,uint256)`: `erc20.transfer`.
    Erc20Transfer,
    /// `transferFrom(address,address,uint256)`: `erc20.transfer_from`.
    Erc20TransferFrom,
    /// `approve(address,uint256)`: `erc20.approve`.
    Erc20Approve,
    /// `increaseAllowance(address,uint256)`: `erc20.increase_allowance`.
    Erc20IncreaseAllowance,
    /// `permit(…)` as a call or as typed data: `erc20.permit`.
    Erc20Permit,
    /// `setApprovalForAll(address,bool)`: `nft.set_approval_for_all`.
    SetApprovalForAll,
    /// EIP-3009 typed data: `eip3009.transfer_with_authorization`.
    Eip3009Transfer,
    /// A transaction that creates a contract: `eth.create_contract`.
    ContractCreation,
    /// Any other call: `eth.contract_call`.
    ContractCall,
    /// Typed data of a type that is not known here: `eip712.other`.
    OtherTypedData,
    /// A message, signed under Casemate's own tag: `message`.
    Message,
    /// A raw hash: `raw_hash`.
    RawHash,
}

impl Action {
    /// Every action.
    pub const ALL: &[Self] = &[
        Self::EthNativeTransfer,
        Self::Erc20Transfer,
        Self::Erc20TransferFrom,
        Self::Erc20Approve,
        Self::Erc20IncreaseAllowance,
        Self::Erc20Permit,
        Self::SetApprovalForAll,
        Self::Eip3009Transfer,
        Self::ContractCreation,
        Self::ContractCall,
        Self::OtherTypedData,
        Self::Message,
        Self::RawHash,
    ];

    /// The name used in policies and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EthNativeTransfer => "eth.native_transfer",
            Self::Erc20Transfer => "erc20.transfer",
            Self::Erc20TransferFrom => "erc20.transfer_from",
            Self::Erc20Approve => "erc20.approve",
            Self::Erc20IncreaseAllowance => "erc20.increase_allowance",
            Self::Erc20Permit => "erc20.permit",
            Self::SetApprovalForAll => "nft.set_approval_for_all",
            Self::Eip3009Transfer => "eip3009.transfer_with_authorization",
            Self::ContractCreation => "eth.create_contract",
            Self::ContractCall => "eth.contract_call",
            Self::OtherTypedData => "eip712.other",
            Self::Message => "message",
            Self::RawHash => "raw_hash",
        }
    }

    /// The action of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.name() == name)
    }

    /// Whether signing it moves an amount that limits can count.
    #[must_use]
    pub const fn moves_value(self) -> bool {
        matches!(
            self,
            Self::EthNativeTransfer
                | Self::Erc20Transfer
                | Self::Erc20TransferFrom
                | Self::Eip3009Transfer
        )
    }
}

/// What is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AssetRef {
    /// The chain's own asset.
    Native,
    /// The token of this contract.
    Token(EvmAddress),
}

/// The EIP-712 domain that typed data was made for. All four fields must be present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// `name`.
    pub name: String,
    /// `version`.
    pub version: String,
}

/// When an authorization is valid, as its payload says: after `after` and before `before`,
/// both exclusive, as EIP-3009 has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// `validAfter`.
    pub after: UnixMillis,
    /// `validBefore`.
    pub before: UnixMillis,
}

/// What a payload does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// What is done.
    pub action: Action,
    /// On which chain; `None` for messages and raw hashes.
    pub chain: Option<ChainId>,
    /// What is moved; `None` where nothing is.
    pub asset: Option<AssetRef>,
    /// Whose funds are moved, where the payload names them (EIP-3009's and transferFrom's
    /// `from`). Elsewhere it is the signer.
    pub payer: Option<EvmAddress>,
    /// Who gets it: the token's recipient, not the contract called. For an approval, the spender;
    /// for any other call, the contract; for other typed data, the domain's contract if it names
    /// one; `None` for contract creation, messages, raw hashes.
    pub to: Option<EvmAddress>,
    /// How much of the asset, in base units.
    pub amount: Amount,
    /// Native asset sent along with a token or contract call (`value`), in base units; zero for
    /// native transfers, whose amount it already is.
    pub native_value: Amount,
    /// The most that the transaction can cost in gas, in the native asset; `None` for what is
    /// not a transaction of the signer's own. Rollups such as Base and Optimism charge for
    /// publishing the transaction on top of that, and no field of it bounds what they charge.
    pub max_fee: Option<Amount>,
    /// The EIP-712 domain, for typed data whose domain has exactly the four fields name, version,
    /// chain id and contract; the last two are in `chain`, and in `asset` or `to`.
    pub domain: Option<Domain>,
    /// When it is valid, for authorizations.
    pub validity: Option<Validity>,
}
