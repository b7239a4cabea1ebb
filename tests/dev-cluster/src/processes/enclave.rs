//! The enclave process: the runtime of `casemate-enclave` with a simulated security module and a UNIX
//! socket in place of vsock, and nothing but that.

use std::path::Path;
use std::sync::Arc;

use casemate_door::{CONTROL_PORT, PEER_PORT};
use casemate_proto::hash::sha256;
use casemate_proto::manifest::Hardware;
use casemate_proto::{Hash32, Millis};
use casemate_runtime::{Platform, Settings, SystemClock, Trust, serve};
use casemate_signer::NodeConfig;
use casemate_transport::{Address, Listener};
use rand_core::OsRng;

use super::claim::Claim;
use super::process::end_with_stdin;
use super::{DevError, Home, Part, guest, machine};

/// How the nodes of one machine work: they share its processors, so runs wait for one another, which
/// must not look as if somebody did not answer.
fn node_config() -> NodeConfig {
    NodeConfig {
        triple_runs: 2,
        attempt_timeout: Millis(10_000),
        triple_timeout: Millis(15_000),
        // a run that a lost link holds up begins anew the sooner
        keygen_timeout: Millis(10_000),
        ..NodeConfig::default()
    }
}

/// Runs the enclave of a node until it halts or is ended.
///
/// # Errors
/// Always, in the end: with what ended it.
pub fn run(dir: &Path, node: &str, while_stdin: bool) -> Result<(), DevError> {
    let (home, plan) = Home::open(dir)?;
    let node = plan.node(node)?;
    let pid_file = home.pid_file(&node.name, Part::Enclave);
    let _claim = Claim::take(&pid_file)?.map_err(|pid| DevError::PartRuns {
        node: node.name.clone(),
        part: Part::Enclave,
        pid,
    })?;
    if while_stdin {
        end_with_stdin();
    }
    if let Some(guests) = &plan.guests {
        return guest::run(&home, &plan, guests, node);
    }
    casemate_runtime::telemetry::to_console();
    let host = machine::read_root(&home)?;
    let nsm = host.start(machine::enclave(&plan, node)?).with_clock(|| super::birth::now().0);
    let platform = Platform {
        attest: Arc::new(nsm),
        clock: Arc::new(SystemClock),
        entropy: Box::new(|| Ok(Box::new(OsRng))),
        trust: Trust { root: Hash32::new(sha256(host.root_der())), hardware: Hardware::Simulated },
        settings: Settings { node: node_config(), ..Settings::default() },
    };
    let failed =
        |error: String| DevError::Serve { node: node.name.clone(), part: Part::Enclave, error };
    let address =
        Address::unix(home.socket(&node.name)).map_err(|error| failed(error.to_string()))?;
    casemate_runtime::tasks().map_err(DevError::Runtime)?.block_on(async {
        let door = Listener::bind(&address, &[CONTROL_PORT, PEER_PORT])
            .map_err(|error| failed(error.to_string()))?;
        serve(door, platform).await.map_err(|error| failed(error.to_string()))
    })
}
