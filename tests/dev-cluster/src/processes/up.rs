//! `casemate-dev up`: a cluster that stays until it is told to end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use casemate_proto::NodeName;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::birth::{Mother, bring_up, now, regions, runtime, spare};
use super::control::{STOPPED, stop_leftovers};
use super::home::write;
use super::{DevError, Guests, Home, Part, Plan, Program};
use crate::demo::people::People;
use crate::demo::{DemoError, Options, Tell, policy, setup};

/// How often is looked whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What `up` was told.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The folder.
    pub dir: PathBuf,
    /// How many nodes, and how many of them sign.
    pub options: Options,
    /// Whether a stopped cluster in the folder may be removed.
    pub fresh: bool,
    /// The first of the ports, or any.
    pub first_port: Option<u16>,
    /// Whether the demo's keys are generated.
    pub keys: bool,
    /// Whether to leave it running and end.
    pub detach: bool,
    /// What the enclaves are, where they are images.
    pub guests: Option<Guests>,
}

/// Brings a cluster up, and stays with it unless it was told otherwise.
///
/// # Errors
/// If it does not come up. What was started is stopped; its logs stay.
pub fn up(wanted: &Wanted, program: Program, tell: &mut dyn Tell) -> Result<(), DemoError> {
    let (home, claim) = Home::create(&wanted.dir, wanted.fresh)?;
    let Options { nodes, threshold, .. } = wanted.options;
    let plan = Plan::new(u64::from(threshold), &regions(nodes), wanted.first_port)?
        .with_guests(wanted.guests.clone());
    let runtime = runtime()?;
    let told = told_to_end(&runtime)?;
    let people = People::with_recovery()?;
    let stop = || told.load(Ordering::Relaxed);
    let mother = Mother {
        home: home.clone(),
        plan: plan.clone(),
        program,
        watched: !wanted.detach,
        people: &people,
        network: None,
        // a clone: signals are heard for as long as this function runs
        runtime: Arc::clone(&runtime),
        stop: &stop,
    };
    let mut remote = bring_up(mother, tell)?;
    people.write_recovery(&home.governors(), remote.genesis())?;
    let at = now();
    write(&home.policy(), policy::text(&people, at).as_bytes())?;
    let policy = policy::policy(&people, at)?;
    setup::confirm(&mut remote, &people, &policy, tell)?;
    if wanted.keys {
        setup::create_keys(&mut remote, &people, &policy::KEYS, &stop, tell)?;
    }
    ready(&home, &plan, wanted.keys, tell);
    let mut running = remote.into_running();
    if wanted.detach {
        tell.say("it runs on by itself; `casemate-dev down` ends it");
        running.let_go();
        return Ok(());
    }
    tell.say("Ctrl-C ends it");
    let mut gone: Vec<(NodeName, Part)> = Vec::new();
    while !stop() {
        for (node, part, how) in running.take_ended() {
            tell.say(&format!("{part} of node {node}: ended ({how})"));
            gone.push((node, part));
        }
        // somebody may have started it again by hand
        let mut back = Vec::new();
        for (node, part) in &gone {
            if let Some(pid) = home.pid(node, *part)? {
                tell.say(&format!("{part} of node {node}: runs again, process {pid}"));
                back.push((node.clone(), *part));
            }
        }
        gone.retain(|one| !back.contains(one));
        std::thread::sleep(LOOK_EVERY);
    }
    tell.say("stopping");
    running.stop();
    stop_leftovers(&home, &plan)?;
    tell.say(STOPPED);
    drop(claim);
    Ok(())
}

/// Turns true when this process is told to end.
fn told_to_end(runtime: &Runtime) -> Result<Arc<AtomicBool>, DevError> {
    let told = Arc::new(AtomicBool::new(false));
    let _inside = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind).map_err(DevError::Runtime)?;
        let told = Arc::clone(&told);
        runtime.spawn(async move {
            while signals.recv().await.is_some() {
                told.store(true, Ordering::Relaxed);
            }
        });
    }
    Ok(told)
}

fn ready(home: &Home, plan: &Plan, keys: bool, tell: &mut dyn Tell) {
    let (dir, file) = (home.path().display(), home.cluster_file());
    let file = file.display();
    let (nodes, spare) = (plan.nodes.len(), spare(plan));
    tell.say("");
    tell.say(&format!("ready: {} of {nodes} nodes sign", plan.threshold));
    for node in &plan.nodes {
        tell.say(&format!("  {:<16} {}", node.name.as_str(), node.url()));
    }
    tell.say(&format!("cluster file    {file}: with everybody's keys, for development only"));
    tell.say(&format!("policy in force {}", home.policy().display()));
    tell.say(&format!(
        "governors       {}: recovery keys and records, for development only",
        home.governors().display()
    ));
    tell.say(&format!(
        "by hand         {} has each process's command line",
        home.readme().display()
    ));
    tell.say("");
    tell.say("try next, in another terminal:");
    tell.say(&format!("  casemate status --cluster {file}"));
    if !keys {
        tell.say(&format!(
            "  casemate keys create --cluster {file} --scheme ecdsa-secp256k1 --name agent-7"
        ));
    }
    tell.say(&format!("  casemate keys list --cluster {file}"));
    if let Some(node) = plan.nodes.last() {
        let name = &node.name;
        tell.say(&format!("  casemate-dev node stop --kill --dir {dir} --node {name}"));
        tell.say(&format!("  casemate-dev node start --dir {dir} --node {name}"));
    }
    tell.say(&format!("  casemate-dev down --dir {dir}"));
    tell.say("");
    let survives = match spare {
        0 => "it survives no fault".to_owned(),
        1 => "it survives one fault at a time, restarts included: while one node is gone or on its way \
              back, no other may go"
            .to_owned(),
        more => format!(
            "it survives {more} faults at a time, restarts included: no more than {more} nodes may be gone or \
             on their way back"
        ),
    };
    tell.say(&survives);
    tell.say(
        "key shares are in the enclaves' memory, and sealed in NODE/data/sealed: when a majority is gone at \
         once, `casemate recover` brings the cluster back",
    );
}
