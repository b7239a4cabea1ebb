//! Log lines: one JSON object each on standard error, which is the enclave's console.
//!
//! What is logged are names of nodes, numbers and errors; never a payload, a stamp or a secret. In
//! production a Nitro enclave has no console, and nobody reads them.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Log lines to standard error, as JSON, from the level that `CASEMATE_LOG` names (`info` if it
/// names none; in an image nothing can set it).
pub fn to_console() {
    let filter = EnvFilter::try_from_env("CASEMATE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,openraft=off"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // somebody else may have set a subscriber up already; theirs stays
    let _ = if std::io::stderr().is_terminal() {
        tracing::subscriber::set_global_default(lines.compact().finish())
    } else {
        tracing::subscriber::set_global_default(lines.json().flatten_event(true).finish())
    };
}
