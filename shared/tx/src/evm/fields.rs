//! The fields of a transaction's outer RLP list, read one by one so that an error can name the
//! field and the byte. All rules of RLP are alloy-rlp's; this only keeps count.

use alloy_primitives::TxKind;
use alloy_rlp::{Decodable, Header};

use super::error::{EvmError, RlpProblem};

/// Reads the items of one list.
pub(super) struct Fields<'a> {
    /// What is left of the list.
    rest: &'a [u8],
    /// Offset of the list's end in the input.
    end: usize,
}

impl<'a> Fields<'a> {
    /// Opens the list that fills `bytes` from `start` to the end.
    pub(super) fn open(bytes: &'a [u8], start: usize) -> Result<Self, EvmError> {
        let list = bytes.get(start..).unwrap_or_default();
        let wrong = |problem| EvmError::Rlp { field: "transaction", at: start, problem };
        let mut after_header = list;
        let header = Header::decode(&mut after_header).map_err(|e| wrong(e.into()))?;
        if !header.list {
            return Err(wrong(RlpProblem::NotAList));
        }
        let Some((payload, behind)) = after_header.split_at_checked(header.payload_length) else {
            return Err(wrong(RlpProblem::TooShort));
        };
        let end = bytes.len().saturating_sub(behind.len());
        if !behind.is_empty() {
            return Err(EvmError::Trailing { at: end, extra: behind.len() });
        }
        Ok(Self { rest: payload, end })
    }

    fn at(&self) -> usize {
        self.end.saturating_sub(self.rest.len())
    }

    /// How many items are left; `names` are theirs, for the error of one that is malformed.
    pub(super) fn count(&self, names: &[&'static str]) -> Result<usize, EvmError> {
        let mut rest = self.rest;
        let mut names = names.iter();
        let mut count = 0_usize;
        while !rest.is_empty() {
            let at = self.end.saturating_sub(rest.len());
            let field = names.next().copied().unwrap_or("field past the last");
            let header = Header::decode(&mut rest).map_err(|e| EvmError::Rlp {
                field,
                at,
                problem: e.into(),
            })?;
            rest = rest.get(header.payload_length..).unwrap_or_default();
            count = count.saturating_add(1);
        }
        Ok(count)
    }

    /// Reads the next item.
    pub(super) fn next<T: Decodable>(&mut self, field: &'static str) -> Result<T, EvmError> {
        let at = self.at();
        T::decode(&mut self.rest).map_err(|e| EvmError::Rlp { field, at, problem: e.into() })
    }

    /// Reads an address, or nothing for contract creation.
    pub(super) fn next_to(&mut self) -> Result<TxKind, EvmError> {
        self.next("to")
    }
}
