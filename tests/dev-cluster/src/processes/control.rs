//! `casemate-dev down` and `casemate-dev node`: what is done to a cluster from another terminal.

use std::path::Path;
use std::time::{Duration, Instant};

use super::api::Api;
use super::birth::runtime;
use super::process::{Ending, end};
use super::running::start;
use super::{Child, DevError, Home, Part, Plan, Program};
use crate::demo::Tell;

/// What is said when every process has stopped.
pub(super) const STOPPED: &str =
    "stopped: no enclave holds a share any more; what they sealed is in NODE/data/sealed";
/// How long `up` may take to stop all of its processes.
const UP_ENDS_WITHIN: Duration = Duration::from_secs(20);
/// How long a process may take.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// How long it is waited for a node that was started to serve.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// How long a process must run to be said to have started, where nothing else shows it.
const HOLDS_FOR: Duration = Duration::from_millis(500);
/// The phase of an enclave that was told to begin another incarnation.
const RECOVERING: &str = "recovering";
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often somebody who waits is told.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Stops a cluster: its `up`, if that is there, and every process.
///
/// # Errors
/// If there is no cluster, or something does not stop.
pub fn down(dir: &Path, tell: &mut dyn Tell) -> Result<(), DevError> {
    let (home, plan) = Home::open(dir)?;
    let was_up = end(&home.up_pid(), Ending::Stop, UP_ENDS_WITHIN)?;
    let stopped = stop_leftovers(&home, &plan)?;
    tell.say(match (was_up, stopped) {
        (false, 0) => "nothing of it runs",
        _ => STOPPED,
    });
    Ok(())
}

/// Stops every process of a cluster that still runs, whoever started it. How many there were.
///
/// # Errors
/// If one does not stop.
pub fn stop_leftovers(home: &Home, plan: &Plan) -> Result<usize, DevError> {
    let mut stopped = 0_usize;
    // parents first: they end by themselves, and an enclave that is gone is nothing they must report
    for part in [Part::Parent, Part::Enclave] {
        for node in &plan.nodes {
            let there = end(&home.pid_file(&node.name, part), Ending::Stop, ENDS_WITHIN)?;
            stopped = stopped.saturating_add(usize::from(there));
        }
    }
    Ok(stopped)
}

/// Stops a node, or one part of it.
///
/// # Errors
/// If nothing of it runs, or it does not stop.
pub fn stop_node(
    dir: &Path,
    node: &str,
    only: Option<Part>,
    ending: Ending,
    tell: &mut dyn Tell,
) -> Result<(), DevError> {
    let (home, plan) = Home::open(dir)?;
    let node = &plan.node(node)?.name;
    let mut stopped = Vec::new();
    for part in Part::ALL.into_iter().rev().filter(|part| only.is_none_or(|only| only == *part)) {
        if end(&home.pid_file(node, part), ending, ENDS_WITHIN)? {
            stopped.push(part.to_string());
        }
    }
    if stopped.is_empty() {
        let part = only.unwrap_or(Part::Enclave);
        return Err(DevError::PartStopped { node: node.clone(), part });
    }
    let how = if ending == Ending::Kill { "killed" } else { "stopped" };
    tell.say(&format!("node {node}: {} {how}", stopped.join(" and ")));
    Ok(())
}

/// Starts a node, or one part of it, and waits until it serves.
///
/// # Errors
/// If it runs already, or does not start.
pub fn start_node(
    dir: &Path,
    node: &str,
    only: Option<Part>,
    program: &Program,
    tell: &mut dyn Tell,
) -> Result<(), DevError> {
    let (home, plan) = Home::open(dir)?;
    let node = plan.node(node)?;
    if !home.cluster_file().exists() {
        return Err(DevError::NoCluster { path: dir.to_owned(), missing: "cluster.json" });
    }
    let mut started = Vec::new();
    for part in Part::ALL.into_iter().filter(|part| only.is_none_or(|only| only == *part)) {
        // with both asked for, the one that is left is not in the way of the other
        if only.is_none() && home.pid(&node.name, part)?.is_some() && part == Part::Enclave {
            continue;
        }
        let mut child = start(program, &home, &node.name, part, false)?;
        child.wait_for_claim()?;
        tell.say(&format!("node {}: {part} started, process {}", node.name, child.pid()));
        started.push(child);
    }
    let mut whole = true;
    for part in Part::ALL {
        let there = started.iter().any(|child: &Child| child.part() == part);
        whole &= there || home.pid(&node.name, part)?.is_some();
    }
    if !whole {
        // it cannot serve without the other one; that it does not end at once is all there is to see
        std::thread::sleep(HOLDS_FOR);
        return started.iter_mut().try_for_each(Child::check);
    }
    let runtime = runtime()?;
    let failed = |error: super::api::ApiError| DevError::Runtime(std::io::Error::other(error));
    let api = Api::new(node.url()).map_err(failed)?;
    let (since, mut told) = (Instant::now(), Instant::now());
    loop {
        started.iter_mut().try_for_each(Child::check)?;
        let ready = runtime.block_on(api.ready());
        let so_far = match &ready {
            Ok(ready) => match &ready.enclave {
                Some(enclave) if ready.ready && enclave.shares == enclave.keys => {
                    let shares = enclave.shares;
                    tell.say(&format!("node {}: serves, with {shares} key shares", node.name));
                    return Ok(());
                }
                Some(enclave) if enclave.phase == RECOVERING => {
                    tell.say(&format!("node {}: offers itself for a recovery", node.name));
                    return Ok(());
                }
                Some(enclave) => {
                    format!("{}, {} of {} key shares", enclave.phase, enclave.shares, enclave.keys)
                }
                None => "its parent is there".to_owned(),
            },
            Err(_) => "it does not answer yet".to_owned(),
        };
        let within = SERVES_WITHIN.saturating_mul(plan.patience());
        if since.elapsed() > within {
            return Err(DevError::Patience {
                what: format!("node {} runs, and does not serve: {so_far}", node.name),
                seconds: within.as_secs(),
                hint: format!("; {}/readyz says what is in the way", node.url()),
            });
        }
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            tell.progress(&format!("node {}: {so_far}", node.name));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
