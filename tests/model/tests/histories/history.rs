//! One history: birth, keys and a policy; then the host; then, when it has left off, service again.

use std::collections::{BTreeMap, BTreeSet};

use casemate_ledger::State;
use casemate_proto::KeyName;
use casemate_proto::governance::Change;
use casemate_signer::{Answer, Submission};

use crate::births;
use crate::dice::Dice;
use crate::enclave::{Eid, Enclave};
use crate::host::Hands;
use crate::recovery;
use crate::reference::{self, Checked, STUCK, Violation, violated};
use crate::setup::Shape;
use crate::trace::Trace;
use crate::world::World;

/// How long a cluster may take to serve again when the host has left off, at most.
const WELL_AGAIN_MS: u64 = 120_000;
/// For how long a node passes over another that did not answer it, and a little longer.
const SUSPICION_MS: u64 = 32_000;
const STEP_MS: u64 = 250;

/// What came of a history.
#[derive(Debug)]
pub struct Outcome {
    pub violation: Option<Violation>,
    pub trace: u64,
    pub simulated: u64,
    pub signatures: u64,
    pub entries: u64,
    pub counts: BTreeMap<&'static str, u64>,
}

/// Runs the history of a seed.
pub fn run(seed: u64, tells: bool) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let mut dice = Dice::new(seed);
        let shape = Shape::of(&mut dice);
        if tells {
            println!("{shape:#?}");
        }
        let mut world = World::new(shape, dice.fork(), Trace::new(tells));
        let mut violation = whole(&mut world, &mut dice).await.err();
        let incarnations = world.incarnations();
        let together: Vec<_> =
            incarnations.iter().map(|at| &world.clusters[*at].reference).collect();
        violation = violation.or_else(|| reference::together(&together, world.formers).err());
        let shares = world.counts.get("shares released").copied().unwrap_or(0);
        // a recovered cluster knows what the former had made
        let all = world.clusters.iter().flat_map(|of| &of.reference.made);
        let made = all.map(|(ask, made)| (*ask, made.at)).collect::<BTreeSet<_>>().len() as u64;
        if violation.is_none() && shares < made {
            violation = Some(Violation(format!("only {shares} shares were seen to leave")));
        }
        Outcome {
            violation,
            trace: world.trace.hash(),
            simulated: world.now(),
            signatures: made,
            entries: world.clusters.iter().map(|of| of.reference.size()).sum(),
            counts: world.counts,
        }
    })
}

async fn whole(world: &mut World, dice: &mut Dice) -> Checked {
    let mut hands = Hands::default();
    match world.shape.birth.clone() {
        None => world.born_at_once().await?,
        Some(plan) => {
            if !births::attacked(world, &mut hands, &plan).await? {
                return Ok(());
            }
        }
    }
    prepare(world, &mut hands).await?;
    live(world, &mut hands, dice).await
}

async fn live(world: &mut World, hands: &mut Hands, dice: &mut Dice) -> Checked {
    let end = world.now() + world.shape.lasts;
    let total: u64 = world.shape.acts.iter().map(|(_, weight)| weight).sum();
    let mut act_at = world.now();
    let mut recoveries = world.shape.recoveries.clone().into_iter();
    let mut recovery = recoveries.next().map(|plan| (world.now() + plan.after, plan));
    while world.now() < end {
        if let Some((_, plan)) = recovery.take_if(|(at, _)| world.now() >= *at) {
            recovery::run(world, hands, &plan).await?;
            recovery = recoveries.next().map(|plan| (world.now() + plan.after, plan));
        }
        hands.routine(world);
        if dice.percent(35) {
            for _ in 0..dice.between(1, 4) {
                hands.request(world);
            }
        }
        if world.now() >= act_at && total > 0 {
            act_at = world.now() + dice.between(50, 2 * world.shape.every);
            let mut pick = dice.below(total);
            let acts = world.shape.acts.clone();
            let chosen = acts.into_iter().find(|(_, weight)| {
                let here = pick < *weight;
                pick = pick.saturating_sub(*weight);
                here
            });
            if let Some((act, _)) = chosen {
                hands.act(world, act)?;
            }
        }
        world.pass(dice.between(20, 400)).await?;
    }
    world.trace.note(world.start.elapsed().as_millis() as u64, format_args!("the host leaves off"));
    hands.repent(world);
    if world.shape.merciless {
        return aftermath(world, hands).await;
    }
    well_again(world, hands).await
}

/// Governance confirms, makes the keys, and sets the policy.
async fn prepare(world: &mut World, hands: &mut Hands) -> Checked {
    until(world, hands, "the genesis", 20_000, |world| {
        members(world).all(|state| state.size() > 0)
    })
    .await?;
    world.reference_mut().confirm();
    govern(world, hands, Change::ConfirmGenesis).await?;
    for (name, scheme) in world.shape.keys.clone() {
        let name = KeyName::new(name).unwrap();
        govern(world, hands, Change::CreateKey { name: name.clone(), scheme }).await?;
        until(world, hands, "a live key", 60_000, |world| {
            members(world).all(|state| state.key_epoch(&name).is_some())
        })
        .await?;
    }
    let id = world.speakers()[0];
    let (terms, at) = (world.shape.terms[0], world.true_time());
    let state = world.enclaves[&id].state().unwrap();
    let submission = world.people.set_policy(state, at, &terms);
    insist(world, hands, "a policy", &submission, |world| {
        members(world).all(|state| state.policy().is_some())
    })
    .await
}

fn members(world: &World) -> impl Iterator<Item = &State> {
    world.of_main().filter_map(Enclave::state)
}

async fn govern(world: &mut World, hands: &mut Hands, change: Change) -> Checked {
    let id = world.speakers()[0];
    let state = world.enclaves[&id].state().unwrap();
    let (head, at) = (state.change_head(), world.true_time());
    let signed = world.people.change(state, at, change, 2);
    let submission = Submission::Governance { signed, attachment: None };
    insist(world, hands, "a change", &submission, |world| {
        world.enclaves[&id].state().is_some_and(|state| state.change_head() != head)
    })
    .await
}

/// Says it again where it is not done in a while: a proposal may be lost with the leader that had it.
async fn insist(
    world: &mut World,
    hands: &mut Hands,
    what: &str,
    submission: &Submission,
    done: impl Fn(&World) -> bool,
) -> Checked {
    let end = world.now() + 45_000;
    while world.now() < end {
        // whoever has proposed it waits for 20 s until it proposes it again
        let speakers = world.speakers();
        let at = *world.dice.pick(&speakers);
        world.submit(at, submission.clone(), None);
        let again = world.now() + 5_000;
        while world.now() < again {
            if done(world) {
                return Ok(());
            }
            hands.routine(world);
            world.pass(50).await?;
        }
    }
    violated!("{STUCK}not within 45 s: {what}");
}

async fn until(
    world: &mut World,
    hands: &mut Hands,
    what: &str,
    patience: u64,
    done: impl Fn(&World) -> bool,
) -> Checked {
    let end = world.now() + patience;
    while !done(world) {
        if world.now() > end {
            violated!("{STUCK}not within {patience} ms: {what}");
        }
        hands.routine(world);
        world.pass(50).await?;
    }
    Ok(())
}

fn is_well(world: &World) -> bool {
    let frozen = |id: &Eid| world.enclaves[id].state().is_none_or(State::is_frozen);
    world.all_sound() && !world.speakers().iter().any(frozen)
}

/// The host has left off: every node has an enclave again, all agree, and new requests are signed.
async fn well_again(world: &mut World, hands: &mut Hands) -> Checked {
    let begun = world.now();
    let mut lifted_at = 0;
    let mut started_at = 0;
    // what somebody was told of and could not pass on comes out first, freezes above all
    while world.now() < begun + 8_000 || !is_well(world) {
        if world.now() > begun + WELL_AGAIN_MS {
            return Err(Violation(format!(
                "{STUCK}not well within {WELL_AGAIN_MS} ms: {}",
                describe(world)
            )));
        }
        hands.routine(world);
        if world.now() >= lifted_at + 2_000 {
            lifted_at = world.now();
            hands.lift_all(world);
        }
        if world.now() >= started_at + 8_000 {
            started_at = world.now();
            for place in 0..world.names.len() {
                let joining = |e: &Enclave| e.place == place && !e.is_member() && !e.is_over();
                if world.speaker(place).is_none() && !world.of_main().any(joining) {
                    world.start_in(place, 1);
                }
            }
        }
        world.pass(STEP_MS).await?;
    }
    // what was charged is out of the window, and whom a node did not hear is asked again
    let window = world.shape.terms[0].window.0 + world.shape.tau.0 + 2 * world.shape.delta.0;
    let lasts = (window + 1_000).max(SUSPICION_MS);
    let (mut requests, mut quiet) = (world.reference().requests(), world.now() + lasts);
    while world.now() < quiet {
        hands.routine(world);
        world.pass(STEP_MS).await?;
        // some were on their way still
        if world.reference().requests() > requests {
            (requests, quiet) = (world.reference().requests(), world.now() + lasts);
        }
    }
    let speakers = world.speakers();
    let at = *world.dice.pick(&speakers);
    let ticket = hands.good_request(world, at);
    let end = world.now() + 20_000;
    while !world.answers.contains_key(&ticket) {
        if world.now() > end {
            return Err(Violation(format!("{STUCK}no answer in 20 s: {}", describe(world))));
        }
        hands.routine(world);
        world.pass(STEP_MS).await?;
    }
    match &world.answers[&ticket] {
        Answer::Signed(_) => {}
        other => violated!("{STUCK}a good request was not signed when all was well: {other:?}"),
    }
    agree(world).await
}

/// All speakers end with the same log.
async fn agree(world: &mut World) -> Checked {
    for _ in 0..40 {
        let sizes: Vec<u64> = world
            .speakers()
            .iter()
            .filter_map(|id| world.enclaves[id].state())
            .map(State::size)
            .collect();
        if sizes.windows(2).all(|pair| pair[0] == pair[1]) {
            return Ok(());
        }
        world.pass(50).await?;
    }
    Err(Violation(format!("the nodes do not agree at last: {}", describe(world))))
}

/// More enclaves may have ended than a cluster survives: whatever is left signs only if it can.
async fn aftermath(world: &mut World, hands: &mut Hands) -> Checked {
    for _ in 0..80 {
        hands.routine(world);
        if world.dice.percent(30) {
            hands.request(world);
        }
        world.pass(STEP_MS).await?;
    }
    Ok(())
}

fn describe(world: &World) -> String {
    let speakers = world.speakers();
    world
        .of_main()
        .filter(|e| !e.is_over())
        .map(|e| {
            let speaks = if speakers.contains(&e.id) { "speaks" } else { "-" };
            let member = e.member().map(|m| {
                let status = m.replication.status();
                format!(
                    "size {} keys {:?} frozen {} leader {:?} voter {} term {} members {:?}",
                    m.node.state().size(),
                    m.node.keys(),
                    m.node.state().is_frozen(),
                    status.leader,
                    status.is_voter,
                    status.term,
                    m.replication.members().len(),
                )
            });
            format!("\n    {} {} {speaks} {}", e.id, e.name, member.unwrap_or("joining".to_owned()))
        })
        .collect()
}
