//! What the demo asks to have signed: typed data and unsigned transactions, built as a client
//! builds them.

use alloy_consensus::{SignableTransaction as _, TxEip1559};
use alloy_primitives::{Address, Bytes, TxKind, U256};
use casemate_proto::request::Payload;
use casemate_proto::{Amount, ChainId};
use casemate_tx::EvmAddress;
use serde_json::{Value, json};

/// USDC on Base.
pub const USDC_BASE: EvmAddress = EvmAddress([
    0x83, 0x35, 0x89, 0xfc, 0xd6, 0xed, 0xb6, 0xe0, 0x8f, 0x4c, 0x7c, 0x32, 0xd4, 0xf7, 0x1b, 0x54,
    0xbd, 0xa0, 0x29, 0x13,
]);
/// USDT on Ethereum.
pub const USDT_ETHEREUM: EvmAddress = EvmAddress([
    0xda, 0xc1, 0x7f, 0x95, 0x8d, 0x2e, 0xe5, 0x23, 0xa2, 0x20, 0x62, 0x06, 0x99, 0x45, 0x97, 0xc1,
    0x3d, 0x83, 0x1e, 0xc7,
]);
/// Base.
pub const BASE: u64 = 8453;
/// Ethereum.
pub const ETHEREUM: u64 = 1;
/// The name in the EIP-712 domain of USDC on Base.
pub const USDC_NAME: &str = "USD Coin";
/// The version in that domain.
pub const USDC_VERSION: &str = "2";

/// Price per gas of the demo's transactions, in wei: 20 gwei.
const MAX_FEE_PER_GAS: u128 = 20_000_000_000;
const MAX_PRIORITY_FEE_PER_GAS: u128 = 1_000_000_000;

/// An EIP-3009 authorization of USDC on Base, as an x402 client makes it for a server's reply.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// Whose funds.
    pub from: EvmAddress,
    /// Who is paid.
    pub to: EvmAddress,
    /// How much, in base units.
    pub value: Amount,
    /// In seconds since the Unix epoch.
    pub valid_after: u64,
    /// In seconds since the Unix epoch.
    pub valid_before: u64,
    /// Used once for each payer.
    pub nonce: [u8; 32],
}

impl Authorization {
    /// The object of `eth_signTypedData_v4`. The domain's name is what the server said it is.
    #[must_use]
    pub fn typed_data(&self, domain_name: &str) -> Value {
        json!({
            "types": {
                "EIP712Domain": [
                    { "name": "name", "type": "string" },
                    { "name": "version", "type": "string" },
                    { "name": "chainId", "type": "uint256" },
                    { "name": "verifyingContract", "type": "address" },
                ],
                "TransferWithAuthorization": [
                    { "name": "from", "type": "address" },
                    { "name": "to", "type": "address" },
                    { "name": "value", "type": "uint256" },
                    { "name": "validAfter", "type": "uint256" },
                    { "name": "validBefore", "type": "uint256" },
                    { "name": "nonce", "type": "bytes32" },
                ],
            },
            "primaryType": "TransferWithAuthorization",
            "domain": {
                "name": domain_name,
                "version": USDC_VERSION,
                "chainId": BASE,
                "verifyingContract": USDC_BASE.to_string(),
            },
            "message": {
                "from": self.from.to_string(),
                "to": self.to.to_string(),
                "value": self.value.to_string(),
                "validAfter": self.valid_after.to_string(),
                "validBefore": self.valid_before.to_string(),
                "nonce": format!("0x{}", hex::encode(self.nonce)),
            },
        })
    }

    /// As a request's payload, in the domain that the contract really has.
    #[must_use]
    pub fn payload(&self) -> Payload {
        Payload::TypedData(self.typed_data(USDC_NAME).to_string())
    }
}

/// A transaction on Ethereum, EIP-1559.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// The sender's next nonce.
    pub nonce: u64,
    /// Who is called; `None` creates a contract.
    pub to: Option<EvmAddress>,
    /// Native asset that is sent, in wei.
    pub value: Amount,
    /// The most gas.
    pub gas_limit: u64,
    /// Calldata or creation code.
    pub data: Vec<u8>,
}

impl Transaction {
    /// A transfer of ETH.
    #[must_use]
    pub const fn native(nonce: u64, to: EvmAddress, value: Amount) -> Self {
        Self { nonce, to: Some(to), value, gas_limit: 21_000, data: Vec::new() }
    }
    /// A transfer of USDT.
    #[must_use]
    pub fn usdt_transfer(nonce: u64, to: EvmAddress, amount: Amount) -> Self {
        Self::usdt_call(nonce, [0xa9, 0x05, 0x9c, 0xbb], to, amount)
    }
    /// Leave for somebody to take any amount of USDT.
    #[must_use]
    pub fn usdt_approve(nonce: u64, spender: EvmAddress) -> Self {
        Self::usdt_call(nonce, [0x09, 0x5e, 0xa7, 0xb3], spender, Amount::MAX)
    }
    /// A contract's creation.
    #[must_use]
    pub fn creation(nonce: u64) -> Self {
        // PUSH1 0, PUSH1 0, RETURN: a contract of no code
        let data = vec![0x60, 0x00, 0x60, 0x00, 0xf3];
        Self { nonce, to: None, value: Amount::ZERO, gas_limit: 100_000, data }
    }

    /// A call of a method that takes an address and an amount (the contract ABI's encoding).
    fn usdt_call(nonce: u64, selector: [u8; 4], who: EvmAddress, amount: Amount) -> Self {
        let data =
            [&selector[..], &[0; 12], &who.0, &amount.to_u256().to_be_bytes::<32>()].concat();
        Self { nonce, to: Some(USDT_ETHEREUM), value: Amount::ZERO, gas_limit: 65_000, data }
    }

    /// The bytes to sign: `0x02 ‖ rlp([…])`.
    #[must_use]
    pub fn unsigned(&self) -> Vec<u8> {
        let transaction = TxEip1559 {
            chain_id: ETHEREUM,
            nonce: self.nonce,
            gas_limit: self.gas_limit,
            max_fee_per_gas: MAX_FEE_PER_GAS,
            max_priority_fee_per_gas: MAX_PRIORITY_FEE_PER_GAS,
            to: self.to.map_or(TxKind::Create, |to| TxKind::Call(Address::from(to.0))),
            value: U256::from_be_bytes(self.value.to_u256().to_be_bytes::<32>()),
            access_list: Default::default(),
            input: Bytes::from(self.data.clone()),
        };
        transaction.encoded_for_signing()
    }

    /// As a request's payload.
    #[must_use]
    pub fn payload(&self) -> Payload {
        Payload::Tx { chain: ChainId::eip155(ETHEREUM), unsigned: self.unsigned() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use casemate_tx::{Action, decode_evm, decode_typed_data};

    use super::*;

    const PAYEE: EvmAddress = EvmAddress([0x11; 20]);

    #[test]
    fn transactions_say_what_they_are_built_for() {
        for (transaction, action, amount) in [
            (
                Transaction::native(1, PAYEE, Amount::from(5)),
                Action::EthNativeTransfer,
                Amount::from(5),
            ),
            (
                Transaction::usdt_transfer(1, PAYEE, Amount::from(7)),
                Action::Erc20Transfer,
                Amount::from(7),
            ),
            (Transaction::usdt_approve(1, PAYEE), Action::Erc20Approve, Amount::MAX),
            (Transaction::creation(1), Action::ContractCreation, Amount::ZERO),
        ] {
            let decoded = decode_evm(&transaction.unsigned()).unwrap();
            let intent = decoded.intent();
            assert_eq!((intent.action, intent.amount), (action, amount));
            assert_eq!(intent.to, (action != Action::ContractCreation).then_some(PAYEE));
        }
    }

    #[test]
    fn authorization_is_read_as_a_transfer_of_usdc_in_its_own_domain() {
        let authorization = Authorization {
            from: EvmAddress([0x22; 20]),
            to: PAYEE,
            value: Amount::from(2_500_000),
            valid_after: 1_795_160_000,
            valid_before: 1_795_160_600,
            nonce: [3; 32],
        };
        let Payload::TypedData(json) = authorization.payload() else { panic!("typed data") };
        let decoded = decode_typed_data(json.as_bytes()).unwrap();
        let intent = decoded.intent();
        assert_eq!(intent.action, Action::Eip3009Transfer);
        assert_eq!(intent.amount, authorization.value);
        assert_eq!((intent.payer, intent.to), (Some(authorization.from), Some(PAYEE)));
        assert_eq!(intent.domain.as_ref().unwrap().name, USDC_NAME);
        assert_eq!(USDC_BASE.to_string(), "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913");
        assert_eq!(USDT_ETHEREUM.to_string(), "0xdAC17F958D2ee523a2206206994597C13D831ec7");
    }
}
