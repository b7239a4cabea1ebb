//! A software NSM that signs genuine-format attestation documents under a simulated root.
