//! Verification of Nitro attestation documents: (document, trust root, expectations, now) to evidence.
