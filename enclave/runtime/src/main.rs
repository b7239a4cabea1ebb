//! `casemate-enclave`: the program in the enclave image.
//!
//! Its security module is the Nitro one, its door is vsock, and whose documents it believes stands in
//! the image; there is no switch for anything else.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use casemate_door::{CONTROL_PORT, PEER_PORT};
use casemate_nsm::NsmError;
use casemate_nsm::device::NsmDevice;
use casemate_runtime::measured::{Measured, MeasuredError};
use casemate_runtime::platform::mixed_entropy;
use casemate_runtime::{Platform, ServeError, Settings, SystemClock, serve};
use casemate_transport::{Address, BindError, Listener};
use clap::Parser;

/// Listen whatever this enclave's own number is (`VMADDR_CID_ANY`).
const ANY_CID: u32 = u32::MAX;

/// One boot of a Casemate node. It listens on vsock for its parent and has no other door; it ends only
/// when something happens that must not. Keys and state live in its memory and end with it.
#[derive(Parser)]
#[command(name = "casemate-enclave", version)]
struct Cli {}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Measured(#[from] MeasuredError),
    #[error(transparent)]
    Nsm(#[from] NsmError),
    #[error(transparent)]
    Door(#[from] BindError),
    #[error("the runtime cannot start: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

fn main() -> ExitCode {
    if let Err(error) = Cli::try_parse() {
        let code = if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        return if error.print().is_ok() { code } else { ExitCode::FAILURE };
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), StartError> {
    casemate_runtime::telemetry::to_console();
    let measured = Measured::read("/")?;
    let nsm = Arc::new(NsmDevice::open()?);
    let seed = Arc::clone(&nsm);
    let platform = Platform {
        attest: nsm,
        clock: Arc::new(SystemClock),
        entropy: Box::new(move || mixed_entropy(&|buffer: &mut [u8]| seed.random(buffer))),
        trust: measured.trust,
        settings: Settings::default(),
    };
    let tasks = casemate_runtime::tasks().map_err(StartError::Runtime)?;
    tasks.block_on(async {
        let address = Address::Vsock { cid: ANY_CID };
        let door = Listener::bind(&address, &[CONTROL_PORT, PEER_PORT])?
            .only_from(measured.parent_cid.get());
        serve(door, platform).await.map_err(StartError::Serve)
    })
}
