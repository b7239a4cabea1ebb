//! openraft over the ledger: genesis, admission, snapshots.
