//! What kinds of action there are, for the rules that differ between them.

use casemate_tx::Action;

/// How a policy can limit an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Moves an amount of an asset, or lets somebody move it: sums count it.
    Valued,
    /// Acts on a chain, and what it moves cannot be read: only the number of signatures counts.
    Opaque,
    /// A message or a raw hash, which names no chain.
    OffChain,
}

/// Whether a payload of this action is a transaction of the signer's own, which costs a fee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Transaction,
    Signature,
    /// A permit is either.
    Either,
}

pub(crate) const fn class(action: Action) -> Class {
    match action {
        Action::EthNativeTransfer
        | Action::Erc20Transfer
        | Action::Erc20TransferFrom
        | Action::Erc20Approve
        | Action::Erc20IncreaseAllowance
        | Action::Erc20Permit
        // approves everything there is, and is read as the largest amount
        | Action::SetApprovalForAll
        | Action::Eip3009Transfer => Class::Valued,
        Action::ContractCreation | Action::ContractCall | Action::OtherTypedData => Class::Opaque,
        Action::Message | Action::RawHash => Class::OffChain,
    }
}

pub(crate) const fn form(action: Action) -> Form {
    match action {
        Action::EthNativeTransfer
        | Action::Erc20Transfer
        | Action::Erc20TransferFrom
        | Action::Erc20Approve
        | Action::Erc20IncreaseAllowance
        | Action::SetApprovalForAll
        | Action::ContractCreation
        | Action::ContractCall => Form::Transaction,
        Action::Eip3009Transfer | Action::OtherTypedData | Action::Message | Action::RawHash => {
            Form::Signature
        }
        Action::Erc20Permit => Form::Either,
    }
}

/// Whether it pays, or lets spend, somebody whom a grant must name.
pub(crate) const fn has_payee(action: Action) -> bool {
    !matches!(action, Action::ContractCreation | Action::Message | Action::RawHash)
}

/// Whether its payload says until when it is valid.
pub(crate) const fn has_validity(action: Action) -> bool {
    matches!(action, Action::Eip3009Transfer | Action::Erc20Permit)
}

/// Whether it can be typed data in a token's own domain.
pub(crate) const fn needs_domain(action: Action) -> bool {
    matches!(action, Action::Eip3009Transfer | Action::Erc20Permit)
}

/// Whether it is refused by name unless a grant names it.
pub(crate) const fn is_dangerous(action: Action) -> bool {
    matches!(
        action,
        Action::Erc20Approve
            | Action::Erc20IncreaseAllowance
            | Action::Erc20Permit
            | Action::SetApprovalForAll
            | Action::ContractCreation
            | Action::ContractCall
            | Action::OtherTypedData
            | Action::Message
    )
}
