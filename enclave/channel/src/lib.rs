//! Attested, encrypted channels between enclaves.
