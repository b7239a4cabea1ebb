//! Further in step 3, where nodes are processes: the network between the nodes turns hostile while
//! requests are asked for, and then quiet again.
//!
//! What the network does to a request that the policy allows is at most that it is not signed in time: a
//! run that a lost link ends burns one of its three attempts. Then it answers `expired`, stays charged
//! and is never signed.

use std::time::{Duration, Instant};

use casemate_proto::{BootId, Millis};

use super::cents;
use super::restart::{faults, wait_for};
use crate::demo::cluster::{Answer, Ticket};
use crate::demo::payloads::Transaction;
use crate::demo::people::Who;
use crate::demo::policy::{MERCHANTS, PAYOUT, STRANGER};
use crate::demo::report::NetworkReport;
use crate::demo::session::{Ask, Outcome, Prepared, Session};
use crate::demo::{DemoError, TAU_OF_PROCESSES};

/// How long the network is hostile.
const HOSTILE: Duration = Duration::from_secs(6);
/// How much longer at most, until it has done everything that a hostile network does.
const LONGER: Duration = Duration::from_secs(10);
/// How many payments are asked for meanwhile that are allowed, and as many that are not.
const ROUNDS: u32 = 4;

/// After this a request that could not be signed in time has long expired.
const SETTLED_WITHIN: Duration =
    Duration::from_millis(TAU_OF_PROCESSES.0).saturating_add(Duration::from_secs(15));

/// A request that is under way, and whether the policy allows it.
struct Shot {
    prepared: Prepared,
    ticket: Ticket,
    allowed: bool,
}

pub(crate) fn run(session: &mut Session<'_>) -> Result<NetworkReport, DemoError> {
    session.go_on("the network between the nodes turns hostile");
    let boots = boots(session)?;
    let before = faults(session)?.counts();
    faults(session)?.set_hostile(true);
    let since = Instant::now();
    let shots = shoot(session);
    while !faults(session)?.counts().every_kind()
        && since.elapsed() < HOSTILE.saturating_add(LONGER)
    {
        session.nodes().work(Millis(200));
    }
    let hostile = since.elapsed().as_secs();
    // quiet again whatever came of it
    faults(session)?.set_hostile(false);
    let quiet = Instant::now();
    let shots = shots?;
    let (counts, seed) = (faults(session)?.counts(), faults(session)?.seed());
    session.say(format!(
        "for {hostile} s it flipped bits in {} chunks of bytes, lost {}, repeated or replayed {}, swapped {} with \
         the next, delayed {} and cut {} connections off (seed {seed})",
        counts.flipped,
        counts.dropped,
        counts.repeated.saturating_add(counts.replayed),
        counts.swapped,
        counts.delayed,
        counts.cut
    ));
    session.check(
        "the hostile network flipped, lost, repeated and reordered bytes",
        counts.every_kind() && counts.harm() > before.harm(),
    );
    resume(session, quiet)?;
    let same = boots == self::boots(session)?;
    session.check("no process died and no node lost its place under a hostile network", same);
    let (mut signed, mut expired, mut denied, mut wrong) = (0_u32, 0_u32, 0_u32, 0_u32);
    for Shot { prepared, ticket, allowed } in shots {
        let answer = settle(session, &prepared, ticket)?;
        match (allowed, session.record(&prepared, answer)?) {
            (true, Outcome::Signed(_)) => signed = signed.saturating_add(1),
            (true, Outcome::Expired) => expired = expired.saturating_add(1),
            (false, Outcome::Denied(_)) => denied = denied.saturating_add(1),
            (allowed, outcome) => {
                wrong = wrong.saturating_add(u32::from(!allowed && outcome.signed().is_some()));
                session.say(format!("request {}: {outcome:?}", prepared.request.request_id));
            }
        }
    }
    session.say(format!(
        "asked for meanwhile: {signed} of {ROUNDS} allowed payments signed in the end, once each, \
         {expired} expired unsigned; {denied} of {ROUNDS} others denied"
    ));
    session.check("under a hostile network nothing is signed that is not allowed", wrong == 0);
    session.check("what was asked for under a hostile network is answered in the end", {
        signed.saturating_add(expired) == ROUNDS && denied == ROUNDS
    });
    Ok(NetworkReport { seed: seed.to_string(), counts, expired })
}

/// Waits for what came of a request, as long as it can still be signed and a little longer.
fn settle(
    session: &mut Session<'_>,
    prepared: &Prepared,
    ticket: Ticket,
) -> Result<Answer, DemoError> {
    let since = Instant::now();
    let mut answer = session.wait(prepared, ticket)?;
    while matches!(answer, Answer::Busy { .. }) && since.elapsed() < SETTLED_WITHIN {
        session.progress("waits for what was asked for meanwhile");
        answer = session.again(prepared)?;
    }
    Ok(answer)
}

/// Waits until all nodes hear one another, and has a payment signed, which must work at once.
fn resume(session: &mut Session<'_>, quiet: Instant) -> Result<(), DemoError> {
    for node in session.running().to_vec() {
        let others = session.running().len().saturating_sub(1);
        wait_for(session, node, "hears every other node again", |health| {
            health.ready && health.linked.len() >= others
        })?;
    }
    faults(session)?.check_processes()?;
    let [merchant, ..] = MERCHANTS;
    let payment = Transaction::usdt_transfer(session.next_nonce(PAYOUT), merchant, cents(1_000));
    let (_, outcome) = session.ask(Ask::new(Who::Settlement, PAYOUT, payment.payload()))?;
    let resumed = quiet.elapsed();
    session.check("service resumes when the network is quiet", outcome.signed().is_some());
    session.say(format!(
        "all nodes hear one another again, and sign, {}.{} s after it stopped",
        resumed.as_secs(),
        resumed.subsec_millis() / 100
    ));
    Ok(())
}

/// Asks for what is allowed and for what is not, at all nodes in turn, spread over the time.
fn shoot(session: &mut Session<'_>) -> Result<Vec<Shot>, DemoError> {
    let pause = HOSTILE.checked_div(ROUNDS).unwrap_or_default();
    let mut shots = Vec::new();
    for round in 0..ROUNDS {
        session
            .progress(format!("the network is hostile: {} of {ROUNDS}", round.saturating_add(1)));
        let [merchant, ..] = MERCHANTS;
        for (to, allowed) in [(merchant, true), (STRANGER, false)] {
            let nonce = session.next_nonce(PAYOUT);
            let payment = Transaction::usdt_transfer(nonce, to, cents(2_000)).payload();
            let prepared = session.prepare(Ask::new(Who::Settlement, PAYOUT, payment))?;
            let node = session.next_node()?;
            let ticket = session.submit(&prepared, node)?;
            shots.push(Shot { prepared, ticket, allowed });
        }
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        session.nodes().work(Millis(pause));
    }
    Ok(shots)
}

fn boots(session: &mut Session<'_>) -> Result<Vec<Option<BootId>>, DemoError> {
    let running = session.running().to_vec();
    let faults = faults(session)?;
    Ok(running.into_iter().map(|node| faults.health(node).and_then(|health| health.boot)).collect())
}
