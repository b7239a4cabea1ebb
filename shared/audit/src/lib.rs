//! RFC 6962 tree, checkpoints, records, proofs and their verification.
