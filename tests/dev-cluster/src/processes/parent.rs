//! The parent process: what `casemate-parent` is, from the same library.

use std::path::Path;

use casemate_proto::NodeName;
use casemate_relay::{Config, Parent, StartError, told_to_stop};

use super::claim::Claim;
use super::process::end_with_stdin;
use super::{DevError, Part};

/// Runs the parent of a configuration until it is told to end.
///
/// # Errors
/// If the configuration is wrong, its ports or folder cannot be had, or it runs already.
pub fn run(config: &Path, pid_file: Option<&Path>, while_stdin: bool) -> Result<(), DevError> {
    let config =
        Config::read(config).map_err(|error| DevError::Configuration(error.to_string()))?;
    let node = config.node.clone();
    let _claim = pid_file.map(|path| claim(path, &node)).transpose()?;
    if while_stdin {
        end_with_stdin();
    }
    casemate_runtime::telemetry::to_console();
    let tasks = casemate_relay::tasks().map_err(DevError::Runtime)?;
    let served = tasks.block_on(serve(config));
    let error = match served {
        Ok(()) => return Ok(()),
        Err(error) => error.to_string(),
    };
    Err(DevError::Serve { node, part: Part::Parent, error })
}

fn claim(path: &Path, node: &NodeName) -> Result<Claim, DevError> {
    let runs = |pid| DevError::PartRuns { node: node.clone(), part: Part::Parent, pid };
    Claim::take(path)?.map_err(runs)
}

async fn serve(config: Config) -> Result<(), StartError> {
    let told = told_to_stop().map_err(StartError::Signals)?;
    let parent = Parent::bind(config).await?;
    parent.run(told).await
}
