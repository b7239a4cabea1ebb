//! A cold recovery: all enclaves of a cluster are lost at once, or only paused, and the governors grant a
//! ledger to others.
//!
//! The host shows them whatever store it likes, starts as many enclaves as it likes, and hands each of them
//! whatever it has. The governors sign one certificate for an incarnation, and lift the freeze
//! that the cluster comes up with when it has come up.

use std::collections::BTreeMap;

use casemate_ledger::State;
use casemate_ledger::take_up::{TakenUp, take_up};
use casemate_proto::recovery::{
    RecoveryBoot, RecoveryCertificate, RecoveryOffer, SignedCertificate,
};
use casemate_proto::{Hash32, Incarnation, Millis, NodeName};
use casemate_recovery::{Release, SealedBlob, SealedKey};

use crate::enclave::{Eid, Enclave};
use crate::host::Hands;
use crate::reference::{Checked, Grant, STUCK, violated};
use crate::setup::RecoveryPlan;
use crate::world::{Cluster, Parts, Store, World};

/// How long a host that means well waits for the cluster to be whole before it takes all of it.
const WHOLE_MS: u64 = 60_000;
/// How long enclaves take to publish and to seal what they have.
const KEPT_MS: u64 = 4_000;

/// What the governors were shown, and what is left to recover from it.
struct Found {
    taken: TakenUp,
    store: Store,
    /// The blob that each node's new boot is to open, by its place.
    blobs: BTreeMap<usize, SealedBlob>,
}

pub async fn run(world: &mut World, hands: &mut Hands, plan: &RecoveryPlan) -> Checked {
    if !world.shape.merciless {
        hands.leave_alone(world);
        let end = world.now() + WHOLE_MS;
        while !world.all_sound() && world.now() < end {
            hands.routine(world);
            world.pass(100).await?;
        }
        for _ in 0..KEPT_MS / 100 {
            hands.routine(world);
            world.pass(100).await?;
        }
        if !world.all_sound() {
            world.count("recoveries that the cluster was not well for");
            return Ok(());
        }
    }
    world.count("cold recoveries");
    let at = world.now();
    world.trace.note(at, format_args!("all are lost: {plan:?}"));
    lose_all(world, plan);
    let Some(found) = find(world, plan) else {
        if world.shape.merciless {
            world.count("recoveries that no disk sufficed for");
            return Ok(());
        }
        violated!("{STUCK}no disk suffices for a recovery");
    };
    let former = found.taken.state.incarnation();
    let to = Incarnation(former.0 + 1);
    let offers: Vec<Vec<(Eid, RecoveryOffer)>> = (0..plan.sets)
        .map(|_| (0..world.names.len()).map(|place| world.start_recovering(place, to)).collect())
        .collect();
    let certificate = draw_up(world, plan, &found, &offers[0], to);
    let signed = world.people.certify(certificate.clone(), 2);
    let granted = grant(world, &found, &signed);
    hand_out(world, hands, plan, (&found, &signed, granted), &offers).await
}

/// The originals end, or are paused for a while.
fn lose_all(world: &mut World, plan: &RecoveryPlan) {
    let told = world.dice.percent(50);
    let all: Vec<Eid> = world.of_main().filter(|e| !e.is_over()).map(|e| e.id).collect();
    for id in all {
        match plan.paused {
            Some(millis) if world.enclaves[&id].is_member() => world.pause(id, millis),
            _ => world.kill(id, told),
        }
    }
}

/// The host's copies, those first that it likes to show: the newest that all disks together make is the last
/// resort, and what a host that means well shows.
fn copies(world: &mut World, plan: &RecoveryPlan) -> Vec<Store> {
    let (main, nodes) = (world.main, world.names.len());
    let size = |store: &Store| -> u64 {
        let note = store.get("checkpoint").map(|bytes| String::from_utf8_lossy(bytes));
        note.and_then(|note| note.lines().nth(1)?.parse().ok()).unwrap_or(0)
    };
    let mut stores: Vec<Store> =
        (0..nodes).map(|place| world.disk(main, place).store.clone()).collect();
    stores.sort_by_key(|store| size(store));
    let mut union = Store::new();
    stores.iter().for_each(|store| union.extend(store.clone()));
    let mut shown = Vec::new();
    if plan.older {
        let mut old: Vec<Store> = (0..nodes)
            .flat_map(|place| world.disk(main, place).copies.clone())
            .chain(stores)
            .collect();
        while !old.is_empty() {
            let at = world.dice.index(old.len());
            shown.push(old.swap_remove(at));
        }
    }
    shown.push(union);
    shown
}

/// The first copy that gives a ledger with enough shares for every key.
fn find(world: &mut World, plan: &RecoveryPlan) -> Option<Found> {
    for store in copies(world, plan) {
        let now = world.now();
        let taken = match take_up(&store) {
            Ok(taken) => taken,
            Err(error) => {
                world.trace.note(now, format_args!("a store gives no ledger: {error}"));
                continue;
            }
        };
        // what no governor takes for their cluster's
        let has_keys = taken.state.keys().values().all(|key| key.live.is_some());
        if taken.state.policy().is_none() || !has_keys {
            continue;
        }
        let main = world.main;
        let blobs: BTreeMap<usize, SealedBlob> = (0..world.names.len())
            .filter_map(|place| {
                let name = world.names[place].clone();
                let known = &world.disk(main, place).blobs;
                Some((place, fitting(&taken.state, &name, known)?.clone()))
            })
            .collect();
        if blobs.len() as u64 >= world.manifest.threshold && suffices(world, &taken.state, &blobs) {
            return Some(Found { taken, store, blobs });
        }
        let (size, places) = (taken.state.size(), blobs.keys());
        world.trace.note(now, format_args!("blobs of {places:?} do not suffice at {size}"));
    }
    None
}

/// The newest blob of a node's last boot that has its share of every key.
fn fitting<'a>(state: &State, node: &NodeName, blobs: &'a [SealedBlob]) -> Option<&'a SealedBlob> {
    let boot = state.current_boot(node)?;
    let has_all = |blob: &&SealedBlob| {
        state.keys().iter().filter(|(name, _)| state.is_holder(name, node)).all(|(name, key)| {
            key.live.as_ref().is_none_or(|live| {
                let is_it = |of: &SealedKey| {
                    of.name == *name && of.epoch == live.epoch && of.transcript == live.transcript
                };
                blob.header.keys.iter().any(is_it)
            })
        })
    };
    blobs.iter().rev().filter(|blob| blob.header.boot == boot).find(has_all)
}

fn suffices(world: &World, state: &State, blobs: &BTreeMap<usize, SealedBlob>) -> bool {
    state.keys().iter().filter(|(_, key)| key.live.is_some()).all(|(name, _)| {
        let holders = blobs.keys().filter(|place| state.is_holder(name, &world.names[**place]));
        holders.count() as u64 >= world.manifest.threshold
    })
}

fn draw_up(
    world: &World,
    plan: &RecoveryPlan,
    found: &Found,
    offers: &[(Eid, RecoveryOffer)],
    to: Incarnation,
) -> RecoveryCertificate {
    let (state, at) = (&found.taken.state, world.true_time());
    RecoveryCertificate {
        version: 1,
        genesis: state.genesis(),
        former: state.incarnation(),
        incarnation: to,
        at,
        expires: at.saturating_add(Millis(plan.life)),
        ledger: found.taken.name(),
        policy: state.policy().map(|(_, hash)| hash),
        images: state.images().iter().cloned().collect(),
        revoked: state.revoked().iter().copied().collect(),
        boots: offers
            .iter()
            .enumerate()
            .map(|(place, (_, offer))| RecoveryBoot {
                offer: offer.clone(),
                sealed: found.blobs.get(&place).map(SealedBlob::hash),
            })
            .collect(),
    }
}

/// The reference model is told what the governors signed.
fn grant(world: &mut World, found: &Found, signed: &SignedCertificate) -> usize {
    let certificate = &signed.certificate;
    let grant = Grant {
        certificate: certificate.id(),
        size: certificate.ledger.size,
        at: certificate.at,
        expires: certificate.expires,
        boots: certificate
            .boots
            .iter()
            .map(|boot| (boot.offer.record.node.clone(), boot.offer.record.id()))
            .collect(),
    };
    let former = &world.clusters[world.main];
    let reference = former.reference.granted(grant);
    let genesis = former.genesis.clone();
    world.clusters.push(Cluster { genesis, reference, said_before: 0 });
    let granted = world.clusters.len() - 1;
    for place in 0..world.names.len() {
        world.disk(granted, place).store = found.store.clone();
    }
    granted
}

/// What a boot is handed, right or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Right,
    /// A ledger that some other copy gives.
    OtherLedger,
    /// A blob of another time or node.
    OtherBlob,
    /// The certificate with one governor's signature.
    OneGovernor,
    /// The certificate as if it lasted longer.
    Changed,
    /// Fewer parts than the quorum's.
    TooFewParts,
}

const WRONG: [Given; 5] =
    [Given::OtherLedger, Given::OtherBlob, Given::OneGovernor, Given::Changed, Given::TooFewParts];

async fn hand_out(
    world: &mut World,
    hands: &mut Hands,
    plan: &RecoveryPlan,
    (found, signed, granted): (&Found, &SignedCertificate, usize),
    offers: &[Vec<(Eid, RecoveryOffer)>],
) -> Checked {
    let begun_at = world.now();
    let named: Vec<Eid> = offers[0].iter().map(|(id, _)| *id).collect();
    // when, to whom, what
    let mut due: BTreeMap<(u64, Eid, u8), Given> = BTreeMap::new();
    let withheld = plan.withheld.then(|| *world.dice.pick(&named));
    for set in offers {
        for (id, _) in set {
            for nth in 0..world.dice.below(3) as u8 {
                let when = begun_at + world.dice.between(1, plan.life);
                due.insert((when, *id, nth), *world.dice.pick(&WRONG));
            }
            let latest = if withheld == Some(*id) { 2 * plan.life } else { plan.life * 3 / 4 };
            let earliest = if withheld == Some(*id) { plan.life } else { 1 };
            let when = begun_at + world.dice.between(earliest, latest);
            due.insert((when, *id, 9), Given::Right);
            // and once more
            let again = begun_at + world.dice.between(1, 2 * plan.life);
            due.insert((again, *id, 10), Given::Right);
        }
    }
    let last = due.last_key_value().map_or(0, |((when, ..), _)| *when);
    while world.now() <= last {
        while let Some(((when, id, _), given)) = due.first_key_value().map(|(k, v)| (*k, *v)) {
            if when > world.now() {
                break;
            }
            due.pop_first();
            let parts = parts(world, (found, signed), id, given);
            if world.hand_over(id, granted, &parts).await? && world.main != granted {
                taken_over(world, hands, plan, (granted, signed.certificate.id()));
            }
        }
        hands.routine(world);
        if world.main == granted && world.dice.percent(30) {
            hands.request(world);
        }
        let for_now = world.dice.between(10, 200);
        world.pass(for_now).await?;
    }
    // whoever has not begun by now never does
    let late: Vec<Eid> =
        world.enclaves.values().filter(|e| e.is_recovering()).map(|e| e.id).collect();
    late.into_iter().for_each(|id| world.kill(id, true));
    if !world.shape.merciless && world.of_main().filter(|e| e.is_member()).count() < named.len() {
        violated!("{STUCK}not everybody has begun the recovery that was granted");
    }
    Ok(())
}

/// The first boot of the recovered cluster has begun: people speak to it from now on.
fn taken_over(
    world: &mut World,
    hands: &mut Hands,
    plan: &RecoveryPlan,
    (granted, certificate): (usize, Hash32),
) {
    world.main = granted;
    hands.recovered(world, certificate);
    if let Some(paused) = plan.paused {
        world.formers += 1;
        let on = world.dice.between(2_000, 20_000);
        hands.rivals_until = world.now() + paused + on;
    }
}

fn parts(
    world: &mut World,
    (found, signed): (&Found, &SignedCertificate),
    id: Eid,
    given: Given,
) -> Parts {
    let enclave: &Enclave = &world.enclaves[&id];
    let (place, node) = (enclave.place, enclave.name.clone());
    let blob = found.blobs.get(&place).cloned();
    let manifest = world.manifest.clone();
    let mut dice = world.dice.fork();
    let releases: Vec<Release> = blob
        .as_ref()
        .map_or_else(Vec::new, |blob| world.people.release(signed, &manifest, blob, &mut dice));
    let mut parts = Parts {
        certificate: signed.clone(),
        snapshot: found.taken.snapshot.clone(),
        tail: found.taken.tail.clone(),
        blob,
        releases,
    };
    let formers: Vec<usize> = (0..world.clusters.len()).collect();
    match given {
        Given::Right => {}
        Given::OtherLedger => {
            let others: Vec<Store> = formers
                .iter()
                .flat_map(|cluster| world.disk(*cluster, place).copies.clone())
                .collect();
            if !others.is_empty()
                && let Ok(other) = take_up(world.dice.pick(&others))
            {
                (parts.snapshot, parts.tail) = (other.snapshot, other.tail);
            }
        }
        Given::OtherBlob => {
            let any = world.dice.index(world.names.len());
            let others: Vec<SealedBlob> = formers
                .iter()
                .flat_map(|cluster| world.disk(*cluster, any).blobs.clone())
                .collect();
            if !others.is_empty() {
                parts.blob = Some(world.dice.pick(&others).clone());
            }
        }
        Given::OneGovernor => parts.certificate.signatures.truncate(1),
        Given::Changed => parts.certificate.certificate.expires.0 += 60_000,
        Given::TooFewParts => parts.releases.truncate(1),
    }
    let now = world.now();
    world.trace.note(now, format_args!("{node} ({id}) is handed {given:?}"));
    parts
}
