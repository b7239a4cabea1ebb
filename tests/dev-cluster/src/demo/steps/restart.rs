//! Further in step 3, where nodes are processes: the node that was killed comes back as another boot,
//! gets its shares again from its peers, and then signs with them, since the nodes that never
//! restarted are killed until nobody is left who could sign without it.

use std::time::{Duration, Instant};

use casemate_proto::request::Payload;

use super::cents;
use crate::demo::DemoError;
use crate::demo::cluster::{Faults, Health};
use crate::demo::payloads::Transaction;
use crate::demo::people::{Who, random};
use crate::demo::policy::{AGENT_7, MERCHANTS, NOTARY, PAYOUT};
use crate::demo::session::{Ask, Session};

/// How long a node may take from its start to holding all its shares again.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often somebody who waits is told.
const TELL_EVERY: Duration = Duration::from_secs(2);

pub(crate) fn run(session: &mut Session<'_>) -> Result<(), DemoError> {
    let all: Vec<usize> = (0..session.nodes().names().len()).collect();
    let Some(first) = all.iter().copied().find(|node| !session.running().contains(node)) else {
        return Err(DemoError::Missing { what: "node", name: "that was killed".to_owned() });
    };
    session.go_on("the node that was killed comes back, and its share with it");
    let (name, before) = (name_of(session, first), epochs(session)?);
    start_again(session, first)?;
    let after = epochs(session)?;
    let renewed = before
        .iter()
        .all(|(key, epoch)| after.iter().any(|(other, renewed)| other == key && renewed > epoch));
    session.say(format!(
        "node {name} is a member again, as another boot, and holds a share of every key: each has a \
         new epoch"
    ));
    session.check("a killed node comes back with a share of every key, in a new epoch", renewed);

    // so many are killed that without the one that came back nobody can sign
    let threshold = usize::try_from(session.nodes().threshold()).unwrap_or(usize::MAX);
    let majority = all.len().div_euclid(2).saturating_add(1);
    let mut killed = Vec::new();
    while session.running().len() > threshold.max(majority) {
        let Some(next) = session.running().iter().copied().find(|node| *node != first) else {
            break;
        };
        session.stop(next)?;
        let name = name_of(session, next);
        session.say(format!("node {name}, which never restarted, is killed"));
        killed.push(next);
    }
    let needed = session.running().len() == threshold && session.running().contains(&first);
    let [merchant, ..] = MERCHANTS;
    let payment = Transaction::usdt_transfer(session.next_nonce(PAYOUT), merchant, cents(1_000));
    let (_, ecdsa) = session.ask(Ask::new(Who::Settlement, PAYOUT, payment.payload()))?;
    let report = Payload::Message(random::<32>().to_vec());
    let (_, ed25519) = session.ask(Ask::new(Who::Reports, NOTARY, report))?;
    let signed = ecdsa.signed().is_some() && ed25519.signed().is_some();
    if needed && signed {
        session.say(format!(
            "{threshold} nodes are left, {name} one of them: ECDSA and Ed25519 are signed, by its shares too"
        ));
    }
    let what = if needed {
        "the node that came back co-signs, ECDSA and Ed25519, with nobody left who could without it"
    } else {
        "with as many nodes gone as may be, ECDSA and Ed25519 are signed"
    };
    session.check(what, signed && !killed.is_empty());
    for node in killed {
        start_again(session, node)?;
        let name = name_of(session, node);
        session.say(format!("node {name} is started again and comes back too"));
    }
    // what came before is remembered by those who were not there
    let ask = over_the_window(session)?;
    let (_, denied) = session.ask(ask)?;
    session.check(
        "what was spent before is counted by nodes that came later",
        denied.code().is_some(),
    );
    Ok(())
}

/// A payment that step 2 has left no room for.
fn over_the_window(session: &mut Session<'_>) -> Result<Ask, DemoError> {
    let [payee, _] = crate::demo::policy::X402;
    let payment = super::authorization(session, AGENT_7, payee, cents(250), random())?;
    Ok(Ask::new(Who::Research, AGENT_7, payment.payload()))
}

fn name_of(session: &mut Session<'_>, node: usize) -> String {
    session.nodes().names().get(node).map(ToString::to_string).unwrap_or_default()
}

fn epochs(session: &mut Session<'_>) -> Result<Vec<(String, u64)>, DemoError> {
    let keys = session.nodes().keys()?;
    Ok(keys.into_iter().map(|key| (key.name.to_string(), key.epoch)).collect())
}

/// What can be done to the nodes.
pub(super) fn faults<'a>(session: &'a mut Session<'_>) -> Result<&'a mut dyn Faults, DemoError> {
    session
        .nodes()
        .faults()
        .ok_or(DemoError::Missing { what: "process of a node", name: "of its own".to_owned() })
}

/// Starts a node and waits until it is as good as it was.
fn start_again(session: &mut Session<'_>, node: usize) -> Result<(), DemoError> {
    faults(session)?.start(node)?;
    wait_for(session, node, "is back with its shares", |health| {
        health.ready && health.keys > 0 && health.shares == health.keys
    })?;
    session.serves_again(node);
    session.learn_cosigners()
}

/// Waits until a node says that it is in some way.
pub(super) fn wait_for(
    session: &mut Session<'_>,
    node: usize,
    what: &str,
    is: impl Fn(&Health) -> bool,
) -> Result<(), DemoError> {
    let name = name_of(session, node);
    let (since, mut told) = (Instant::now(), Instant::now());
    loop {
        let health = faults(session)?.health(node);
        if health.as_ref().is_some_and(&is) {
            return Ok(());
        }
        faults(session)?.check_processes()?;
        let within = BACK_WITHIN.saturating_mul(session.nodes().patience());
        if since.elapsed() > within {
            let seconds = within.as_secs();
            let what =
                format!("has waited {seconds} s, and not seen that node {name} {what}: {health:?}");
            return Err(DemoError::Cluster { what });
        }
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            let so_far = health.map_or_else(
                || "it does not answer yet".to_owned(),
                |health| format!("{} of {} shares", health.shares, health.keys),
            );
            session.progress(format!("waits until node {name} {what}: {so_far}"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
