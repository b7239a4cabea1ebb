//! The main job through enclave images: what is deployed, in emulated machines.
//!
//! Shorter than the demo, because such machines are slow: a payment, what the policy does not allow, a node
//! killed and back with its shares, the audit. What the demo cannot show is first: that each enclave
//! attests the image that was built.

use std::path::Path;
use std::time::{Duration, Instant};

use casemate_proto::Scheme;
use casemate_proto::request::Payload;

use super::cluster::Nodes as _;
use super::people::{People, Who, random};
use super::policy::{AGENT_7, NOTARY, PAYOUT};
use super::report::Check;
use super::session::{Ask, Session};
use super::{DemoError, Tell, bounds, policy, setup, steps};
use crate::processes::birth::{Mother, bring_up, manifest, regions, runtime};
use crate::processes::home::write;
use crate::processes::running::write_configurations;
use crate::processes::{
    DevError, Guests, Home, Part, Plan, PlannedNode, Program, Running, machine,
};

const NODES: u16 = 3;
const THRESHOLD: u64 = 2;
/// How long an enclave may take to refuse, were it a process.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);
/// How often machines may be started again before it is given up.
const MOST_STARTS: u32 = 60;
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The keys that the main job needs.
const KEYS: [(&str, Scheme); 3] = [
    (AGENT_7, Scheme::EcdsaSecp256k1),
    (PAYOUT, Scheme::EcdsaSecp256k1),
    (NOTARY, Scheme::Ed25519),
];

/// Runs the main job on three images. The folder stays: it has the consoles, and for each node the
/// document that it was judged by.
///
/// # Errors
/// If it cannot go on; what it finds wrong is a check that failed.
pub fn run_images(
    guests: Guests,
    program: Program,
    dir: &Path,
    store: Option<&Path>,
    tell: &mut dyn Tell,
) -> Result<Vec<Check>, DemoError> {
    if let Some(folder) = store {
        crate::store::check_empty(folder)?;
    }
    let (home, _claim) = Home::create(dir, true)?;
    let plan = Plan::new(THRESHOLD, &regions(NODES), None)?.with_guests(Some(guests.clone()));
    let people = People::new()?;
    let mother = Mother {
        home: home.clone(),
        plan: plan.clone(),
        program,
        watched: true,
        people: &people,
        network: None,
        runtime: runtime()?,
        stop: &|| false,
    };
    let mut remote = bring_up(mother, tell)?;
    let built = guests
        .measurement()
        .map_err(|reason| DevError::Malformed { path: guests.image.clone(), reason })?;
    let mut attested = Vec::new();
    for (at, node) in plan.nodes.iter().enumerate() {
        let (image, document) = remote.attested(at)?;
        write(&home.node(&node.name).join("attestation.bin"), &document)?;
        attested.push((node.name.clone(), image == built));
    }

    let policy = policy::policy(&people, remote.now())?;
    let bounds = bounds::of(&policy, &remote.manifest(), remote.now());
    setup::confirm(&mut remote, &people, &policy, tell)?;
    setup::create_keys(&mut remote, &people, &KEYS, &|| false, tell)?;
    let mut session = Session::new(&mut remote, &people, tell)?;
    session.say(format!("three enclaves booted the image with PCR0 {}", hex::encode(built.pcr0)));
    for (name, same) in attested {
        session.check(format!("node {name} attests the PCRs of measurements.json"), same);
    }
    steps::payment::run(&mut session)?;
    steps::denials::run(&mut session)?;
    killed(&mut session)?;
    steps::restart::run(&mut session)?;
    steps::audit::run(&mut session, &bounds, store)?;
    let (_, checks) = session.into_parts();
    Ok(checks)
}

/// Boots three images that must not become a cluster, and waits until so many enclaves' consoles have a line
/// with these words.
///
/// # Errors
/// If a cluster is born, or too few say so in time.
pub fn run_refusal(
    guests: Guests,
    program: Program,
    dir: &Path,
    (words, consoles): (&str, usize),
    tell: &mut dyn Tell,
) -> Result<(), DemoError> {
    let (home, _claim) = Home::create(dir, true)?;
    let plan = Plan::new(THRESHOLD, &regions(NODES), None)?.with_guests(Some(guests));
    let people = People::new()?;
    let host = machine::root_at(&plan.guests.as_ref().map(|g| g.root.clone()).unwrap_or_default())?;
    let manifest = manifest(&plan, &host, &people)?;
    home.write_plan(&plan)?;
    machine::write_root(&home, &host)?;
    write_configurations(&home, &plan, &manifest)?;
    tell.progress("boots images that must refuse");
    let mut running = Running::start(home.clone(), plan.clone(), program, true)?;
    let within = REFUSED_WITHIN.saturating_mul(plan.patience());
    let (since, mut starts) = (Instant::now(), 0_u32);
    loop {
        // the clock of an emulated machine may be late at boot, and an image for AWS does not go on then
        for (node, part, how) in running.take_ended() {
            starts = starts.saturating_add(1);
            if part != Part::Enclave || starts > MOST_STARTS {
                return Err(DemoError::Cluster {
                    what: format!("lost the {part} of {node} ({how})"),
                });
            }
            tell.progress(&format!("node {node}: started again"));
            running.start_node(&node, &[part])?;
        }
        let lines = plan.nodes.iter().filter_map(|node| {
            line_with(&home, node, words).map(|line| format!("node {}: {line}", node.name))
        });
        let said: Vec<String> = lines.collect();
        for node in &plan.nodes {
            if home.node(&node.name).join("data").join("genesis.cbor").exists() {
                return Err(DemoError::Cluster { what: "was born, and must not be".to_owned() });
            }
        }
        if said.len() >= consoles {
            said.iter().for_each(|line| tell.say(line));
            return Ok(());
        }
        if since.elapsed() > within {
            let (said, within) = (said.len(), within.as_secs());
            let what = format!("says `{words}` on {said} of {consoles} consoles after {within} s");
            return Err(DemoError::Cluster { what });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The first line of a console that has these words.
fn line_with(home: &Home, node: &PlannedNode, words: &str) -> Option<String> {
    let text = std::fs::read(home.log(&node.name, Part::Enclave)).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.contains(words))?;
    Some(line.chars().filter(|c| !c.is_control()).take(300).collect())
}

/// An enclave's machine is gone from one moment to the next; the others sign on.
fn killed(session: &mut Session<'_>) -> Result<(), DemoError> {
    session.begin(3, "an enclave is killed");
    let leaving = session.running().last().copied().ok_or(DemoError::NoNode)?;
    let name = session.nodes().names().get(leaving).map(ToString::to_string).unwrap_or_default();
    session.stop(leaving)?;
    session.say(format!("the machine of node {name} is killed"));
    let report = Payload::Message(random::<32>().to_vec());
    let (_, outcome) = session.ask(Ask::new(Who::Reports, NOTARY, report))?;
    session.check("the others sign while it is gone", outcome.signed().is_some());
    Ok(())
}
