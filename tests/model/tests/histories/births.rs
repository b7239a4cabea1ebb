//! A birth under attack: a host that starts several enclaves for a node, and lets any of them talk to any
//! other, when it likes.
//!
//! It can make clusters of different enclaves, each with a genesis of its own; which of them the
//! governors mean they say when they sign its id. The others live on for a while as rivals, to which
//! the host delivers whatever people say to the one that they mean.

use std::collections::BTreeMap;

use crate::enclave::{Eid, Enclave};
use crate::host::Hands;
use crate::reference::{STUCK, Violation, violated};
use crate::setup::BirthPlan;
use crate::world::World;

/// Until when a birth stands after the host has left off, at most. A boot that has echoed waits ten
/// minutes for the others.
const STANDS_MS: u64 = 15 * 60_000;
/// For how long a merciless host's cluster may need, or comes to nothing.
const MERCILESS_MS: u64 = 60_000;

/// Whether there is a cluster at last that people can use.
pub async fn attacked(
    world: &mut World,
    hands: &mut Hands,
    plan: &BirthPlan,
) -> Result<bool, Violation> {
    world.count("births under attack");
    begin(world, plan);
    let end = world.now() + plan.lasts;
    let mut act_at = 0;
    while world.now() < end {
        if world.now() >= act_at {
            act_at = world.now() + world.dice.between(10, 2 * plan.every);
            act(world, hands, plan);
        }
        let for_now = world.dice.between(10, 200);
        world.pass(for_now).await?;
    }
    if !plan.leaves_off {
        world.count("births that the host never left alone");
        return Ok(false);
    }
    let (now, has_stood) = (world.now(), world.clusters.len());
    world.trace.note(now, format_args!("the host leaves the birth alone; {has_stood} stand"));
    hands.leave_alone(world);
    let stands = settle(world, plan).await?;
    if world.clusters.len() > 1 {
        world.count("births with rivals");
    }
    hands.rivals_until = world.now() + world.dice.between(1_000, 20_000);
    Ok(stands)
}

/// The first enclaves: one for each node, or several, in parts that do not hear each other.
fn begin(world: &mut World, plan: &BirthPlan) {
    let parts = if plan.parts { plan.twins } else { 1 };
    for _ in 0..parts {
        for place in 0..world.names.len() {
            let after = world.dice.between(1, 1_500);
            world.birth_in(place, after);
        }
    }
}

fn live(world: &World) -> Vec<Eid> {
    world.enclaves.values().filter(|e| !e.is_over()).map(|e| e.id).collect()
}

fn of_place(world: &World, place: usize) -> Vec<Eid> {
    let here = |e: &&Enclave| e.place == place && !e.is_over();
    world.enclaves.values().filter(here).map(|e| e.id).collect()
}

fn act(world: &mut World, hands: &mut Hands, plan: &BirthPlan) {
    let all = live(world);
    let place = world.dice.index(world.names.len());
    match world.dice.below(12) {
        // another enclave for a node
        0 | 1 if of_place(world, place).len() < plan.twins => world.birth_in(place, 1),
        2 | 3 if !all.is_empty() => {
            let id = *world.dice.pick(&all);
            let told = world.dice.percent(50);
            world.kill(id, told);
            if world.dice.percent(70) {
                let place = world.enclaves[&id].place;
                let after = world.dice.between(1, 2_000);
                world.birth_in(place, after);
            }
        }
        4 if !all.is_empty() => {
            let id = *world.dice.pick(&all);
            let lasts = world.dice.between(50, 6_000);
            world.pause(id, lasts);
        }
        5..=7 => {
            // who hears whom: each on a side that is the dice's, or by order of birth
            let sides = world.dice.between(1, 4) as u8;
            let by_order = plan.parts && world.dice.percent(50);
            let told = world.dice.percent(50);
            let mut seen: BTreeMap<usize, u8> = BTreeMap::new();
            let mut side = BTreeMap::new();
            for id in all {
                let nth = seen.entry(world.enclaves[&id].place).or_default();
                let of = if by_order { *nth } else { world.dice.below(sides.into()) as u8 };
                *nth += 1;
                side.insert(id, of);
            }
            world.divide(side, told);
        }
        8 => {
            let links = world.linked();
            if !links.is_empty() {
                let pair = *world.dice.pick(&links);
                let lasts = world.dice.between(100, 7_000);
                world.stall(pair, lasts);
            }
        }
        9 => {
            world.mangled = if world.mangled > 0 { 0 } else { world.dice.between(1, 200) };
        }
        10 => {
            let most = world.dice.between(20, 2_000);
            world.delay = (most / 8, most);
        }
        11 => {
            let half = (world.shape.delta.0 / 2) as i64;
            let far = world.shape.merciless && world.dice.percent(30);
            hands.skew(world, place, if far { 120_000 } else { half });
        }
        _ => {}
    }
}

/// The cluster whose members could go on together, if any: the one with most.
fn standing(world: &World) -> Option<usize> {
    let most = (0..world.clusters.len()).map(|cluster| {
        let of_it = |e: &&Enclave| {
            let record = &world.clusters[cluster].genesis;
            !e.is_over() && record.boots.iter().any(|boot| boot.id() == e.boot)
        };
        (world.enclaves.values().filter(of_it).count(), cluster)
    });
    most.filter(|(alive, _)| alive * 2 > world.names.len()).max().map(|(_, cluster)| cluster)
}

/// One enclave for each node, until a cluster stands and all are members of it.
async fn settle(world: &mut World, plan: &BirthPlan) -> Result<bool, Violation> {
    let patience = if world.shape.merciless { MERCILESS_MS } else { STANDS_MS };
    let end = world.now() + patience;
    let mut look_at = 0;
    loop {
        if world.now() >= look_at {
            look_at = world.now() + 2_000;
            match standing(world) {
                Some(cluster) => complete(world, cluster),
                None => one_each(world),
            }
        }
        if let Some(cluster) = standing(world) {
            world.main = cluster;
            let begun = world.of_main().filter_map(Enclave::state).all(|state| state.size() > 0);
            if begun && world.all_sound() {
                return Ok(true);
            }
        }
        if world.now() > end {
            world.count("births that came to nothing");
            if world.shape.merciless {
                return Ok(false);
            }
            violated!("{STUCK}no birth within {patience} ms: {plan:?}");
        }
        world.pass(100).await?;
    }
}

/// No cluster stands: whatever is left of others is of no use to anybody.
fn one_each(world: &mut World) {
    for place in 0..world.names.len() {
        let here = of_place(world, place);
        let waiting: Vec<Eid> =
            here.iter().copied().filter(|id| world.enclaves[id].is_in_birth()).collect();
        let kept = (!waiting.is_empty()).then(|| *world.dice.pick(&waiting));
        here.into_iter().filter(|id| Some(*id) != kept).for_each(|id| world.kill(id, true));
        if kept.is_none() && !world.birth_is_due(place) {
            world.birth_in(place, 10);
        }
    }
}

/// A cluster stands: who is of it goes on, who lacks an echo gets it, and every other node asks to be
/// admitted. Another cluster's members may stay for a while.
fn complete(world: &mut World, cluster: usize) {
    world.main = cluster;
    for place in 0..world.names.len() {
        let mut has_one = false;
        for id in of_place(world, place) {
            let enclave = &world.enclaves[&id];
            let named = world.clusters[cluster].genesis.boots.iter();
            let of_it = enclave.cluster == Some(cluster)
                || named.clone().any(|boot| boot.id() == enclave.boot);
            let is_rival = enclave.cluster.is_some() && !of_it;
            has_one |= of_it;
            if !of_it && !is_rival {
                world.kill(id, true);
            }
        }
        if !has_one && !world.birth_is_due(place) && !world.starts_here(place) {
            world.start_in(place, 10);
        }
    }
}
