//! Calldata of the token calls that policies name, decoded strictly.
//!
//! A contract's decoder forgives what ours refuses: Solidity ignores bytes behind the arguments,
//! and older compilers ignored an address's upper bytes. An argument block that is not exactly
//! `4 + 32n` bytes with zero padding is therefore an error under a known selector, and not some
//! "other call": it would otherwise reach the token by a side entrance.

use alloy_primitives::U256;
use casemate_proto::Amount;

use crate::{Action, EvmAddress};

const WORD: usize = 32;

/// Why arguments under a known selector are refused. `at` is an offset into the calldata.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalldataError {
    /// Not 4 bytes of selector and 32 for each argument.
    #[error("`{signature}` takes {expected} bytes, {got} came")]
    Length {
        /// The function.
        signature: &'static str,
        /// What it takes.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// The upper 12 bytes of an address are not zero.
    #[error(
        "`{argument}` of `{signature}` at byte {at}: the 12 bytes before the address are not zero"
    )]
    AddressPadding {
        /// The function.
        signature: &'static str,
        /// The argument.
        argument: &'static str,
        /// Where it starts.
        at: usize,
    },
    /// A boolean other than 0 and 1.
    #[error("`{argument}` of `{signature}` at byte {at}: a boolean other than 0 and 1")]
    NotABool {
        /// The function.
        signature: &'static str,
        /// The argument.
        argument: &'static str,
        /// Where it starts.
        at: usize,
    },
    /// An 8-bit integer above 255.
    #[error("`{argument}` of `{signature}` at byte {at}: does not fit 8 bits")]
    NotAByte {
        /// The function.
        signature: &'static str,
        /// The argument.
        argument: &'static str,
        /// Where it starts.
        at: usize,
    },
}

/// A call that policies name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownCall {
    pub(crate) action: Action,
    /// Whose funds move, where the call names them.
    pub(crate) payer: Option<EvmAddress>,
    /// The recipient, or the spender or operator of an approval.
    pub(crate) to: EvmAddress,
    pub(crate) amount: Amount,
}

const TRANSFER: [u8; 4] = [0xa9, 0x05, 0x9c, 0xbb];
const TRANSFER_FROM: [u8; 4] = [0x23, 0xb8, 0x72, 0xdd];
const APPROVE: [u8; 4] = [0x09, 0x5e, 0xa7, 0xb3];
const INCREASE_ALLOWANCE: [u8; 4] = [0x39, 0x50, 0x93, 0x51];
const PERMIT: [u8; 4] = [0xd5, 0x05, 0xac, 0xcf];
const SET_APPROVAL_FOR_ALL: [u8; 4] = [0xa2, 0x2c, 0xb4, 0x65];

/// Reads the calldata of a call to a contract. `None` is a call that is not known here.
///
/// `setApprovalForAll(operator, true)` approves everything there is, so its amount is
/// [`Amount::MAX`]; with `false` it is zero. Under `transfer`'s and `transferFrom`'s selectors an
/// NFT contract reads a token's id in the amount's place: which contracts are fungible tokens is
/// for the policy's asset registry to say.
pub(crate) fn read(data: &[u8]) -> Result<Option<KnownCall>, CalldataError> {
    let Some((selector, arguments)) = data.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let call = match *selector {
        TRANSFER => {
            let args = Arguments::new("transfer(address,uint256)", arguments, 2)?;
            KnownCall {
                action: Action::Erc20Transfer,
                payer: None,
                to: args.address(0, "to")?,
                amount: args.amount(1),
            }
        }
        TRANSFER_FROM => {
            let args = Arguments::new("transferFrom(address,address,uint256)", arguments, 3)?;
            KnownCall {
                action: Action::Erc20TransferFrom,
                payer: Some(args.address(0, "from")?),
                to: args.address(1, "to")?,
                amount: args.amount(2),
            }
        }
        APPROVE => {
            let args = Arguments::new("approve(address,uint256)", arguments, 2)?;
            KnownCall {
                action: Action::Erc20Approve,
                payer: None,
                to: args.address(0, "spender")?,
                amount: args.amount(1),
            }
        }
        INCREASE_ALLOWANCE => {
            let args = Arguments::new("increaseAllowance(address,uint256)", arguments, 2)?;
            KnownCall {
                action: Action::Erc20IncreaseAllowance,
                payer: None,
                to: args.address(0, "spender")?,
                amount: args.amount(1),
            }
        }
        PERMIT => {
            let args = Arguments::new(
                "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)",
                arguments,
                7,
            )?;
            args.byte(4, "v")?;
            KnownCall {
                action: Action::Erc20Permit,
                payer: Some(args.address(0, "owner")?),
                to: args.address(1, "spender")?,
                amount: args.amount(2),
            }
        }
        SET_APPROVAL_FOR_ALL => {
            let args = Arguments::new("setApprovalForAll(address,bool)", arguments, 2)?;
            let approved = args.boolean(1, "approved")?;
            KnownCall {
                action: Action::SetApprovalForAll,
                payer: None,
                to: args.address(0, "operator")?,
                amount: if approved { Amount::MAX } else { Amount::ZERO },
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(call))
}

/// Arguments of static types: one word each, and nothing else.
struct Arguments<'a> {
    signature: &'static str,
    words: &'a [[u8; WORD]],
}

impl<'a> Arguments<'a> {
    fn new(
        signature: &'static str,
        arguments: &'a [u8],
        count: usize,
    ) -> Result<Self, CalldataError> {
        let (words, rest) = arguments.as_chunks::<WORD>();
        if words.len() != count || !rest.is_empty() {
            return Err(CalldataError::Length {
                signature,
                expected: offset(count),
                got: arguments.len().saturating_add(4),
            });
        }
        Ok(Self { signature, words })
    }

    fn word(&self, index: usize) -> &'a [u8; WORD] {
        // `new` has counted them, and every index is a literal below that count
        self.words.get(index).unwrap_or(&[0xff; WORD])
    }

    fn amount(&self, index: usize) -> Amount {
        Amount::from_u256(U256::from_be_bytes(*self.word(index)))
    }

    fn address(&self, index: usize, argument: &'static str) -> Result<EvmAddress, CalldataError> {
        match self.word(index).split_last_chunk::<20>() {
            Some((padding, address)) if padding.iter().all(|&b| b == 0) => Ok(EvmAddress(*address)),
            _ => Err(CalldataError::AddressPadding {
                signature: self.signature,
                argument,
                at: offset(index),
            }),
        }
    }

    fn boolean(&self, index: usize, argument: &'static str) -> Result<bool, CalldataError> {
        match U256::from_be_bytes(*self.word(index)) {
            U256::ZERO => Ok(false),
            U256::ONE => Ok(true),
            _ => Err(CalldataError::NotABool {
                signature: self.signature,
                argument,
                at: offset(index),
            }),
        }
    }

    fn byte(&self, index: usize, argument: &'static str) -> Result<u8, CalldataError> {
        u8::try_from(U256::from_be_bytes(*self.word(index))).map_err(|_| CalldataError::NotAByte {
            signature: self.signature,
            argument,
            at: offset(index),
        })
    }
}

const fn offset(index: usize) -> usize {
    index.saturating_mul(WORD).saturating_add(4)
}
