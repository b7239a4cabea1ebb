//! Rust client: verifies before it believes.
