//! Bytes to intent: EVM transactions, EIP-712 and EIP-3009.
