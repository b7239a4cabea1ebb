//! Step 6: the attack. Every requester's credential and every host that still runs are the
//! attacker's; it asks, at all nodes at once, for everything it can, until all of them deny.
//!
//! First a salvo: amounts at random, the same request at every node, two bodies under one id,
//! every credential with every key, payees who are not listed, approvals among the requesters.
//! Then the rest: what a denial says is left, asked for to the last base unit.

use std::collections::BTreeMap;

use casemate_proto::denial::LimitRef;
use casemate_proto::request::Payload;
use casemate_proto::{Amount, Denial, RequestId};
use casemate_tx::EvmAddress;
use rand_core::{OsRng, RngCore as _};

use super::{authorization, cents, milli_eth};
use crate::demo::DemoError;
use crate::demo::bounds::Bound;
use crate::demo::cluster::{Answer, Ticket};
use crate::demo::payloads::Transaction;
use crate::demo::people::{Who, random};
use crate::demo::policy::{
    AGENT_7, AGENT_9, MERCHANTS, NOTARY, PAYOUT, STRANGER, TREASURER, TREASURY, X402,
};
use crate::demo::report::{AttackReport, BoundReport, money};
use crate::demo::session::{Ask, Outcome, Prepared, Session};

/// How many payments of the key that is watched are asked for in the salvo.
const SALVO: u64 = 30;
/// How many requests are under way at one time: more would wait longer than a signature may be
/// released, which would only waste what the attacker can get.
const AT_ONCE: usize = 12;
/// How often what is left is asked for at most: far more than there are signatures to get.
const SQUEEZES: u32 = 200;

/// What the attacker can have from one credential and key.
struct Target {
    who: Who,
    key: &'static str,
    /// The most for one signature that nobody else must approve; `None` for messages.
    per_tx: Option<Amount>,
    to: Option<EvmAddress>,
    /// How many are asked for in the salvo.
    salvo: u64,
}

fn targets() -> [Target; 6] {
    let ([server, _], [merchant, ..], [cold]) = (X402, MERCHANTS, TREASURY);
    let target = |who, key, per_tx, to, salvo| Target { who, key, per_tx, to, salvo };
    [
        target(Who::Shopper, AGENT_9, Some(cents(2_000)), Some(server), SALVO),
        target(Who::Research, AGENT_7, Some(cents(500)), Some(server), 3),
        target(Who::Nightly, AGENT_7, Some(cents(500)), Some(server), 3),
        target(Who::Settlement, PAYOUT, Some(cents(250_000)), Some(merchant), 6),
        target(Who::Alice, TREASURER, Some(milli_eth(1_000)), Some(cold), 6),
        target(Who::Reports, NOTARY, None, None, 8),
    ]
}

/// A payload of a key's own kind.
fn payload(
    session: &mut Session<'_>,
    key: &'static str,
    to: EvmAddress,
    amount: Amount,
) -> Result<Payload, DemoError> {
    Ok(match key {
        PAYOUT => Transaction::usdt_transfer(session.next_nonce(key), to, amount).payload(),
        TREASURER => Transaction::native(session.next_nonce(key), to, amount).payload(),
        NOTARY => Payload::Message(random::<32>().to_vec()),
        _ => authorization(session, key, to, amount, random())?.payload(),
    })
}

/// Something to send, and to which nodes.
struct Shot {
    prepared: Prepared,
    nodes: Vec<usize>,
}

/// What the attack came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spoils {
    /// How often something was asked for.
    pub(crate) asked: u64,
}

pub(crate) fn run(session: &mut Session<'_>) -> Result<Spoils, DemoError> {
    session.begin(6, "the attack: all requesters and all hosts ask for everything they can");
    let mut spoils = Spoils::default();
    let colluding = collude(session, &mut spoils)?;
    session.check("requesters cannot approve for one another", !colluding);
    let shots = salvo(session)?;
    session.say(format!(
        "{} requests by {} credentials at {} nodes at once, then whatever is left",
        shots.len(),
        Who::REQUESTERS.len(),
        session.running().len()
    ));
    let two_for_one = fire(session, shots, &mut spoils)?;
    session.check("of two bodies under one request id at most one is signed", !two_for_one);
    for target in targets() {
        let dry = squeeze(session, &target, &mut spoils)?;
        let name = format!(
            "`{}` gets nothing more of `{}`, at no node",
            target.who.principal(),
            target.key
        );
        session.check(name, dry);
    }
    Ok(spoils)
}

/// What the attacker got, and everybody before, beside the policy's bounds.
pub(crate) fn beside_bounds(
    session: &mut Session<'_>,
    spoils: Spoils,
    bounds: &[Bound],
) -> Result<AttackReport, DemoError> {
    let mut watched = None;
    let (first, others): (Vec<_>, Vec<_>) =
        bounds.iter().partition(|bound| bound.report.key == AGENT_9);
    for bound in first.into_iter().chain(others) {
        let BoundReport { key, asset, window, decimals, .. } = &bound.report;
        let got = session.tally().of(key, &bound.asset);
        // the whole demo is shorter than any window, so all that was signed is in each
        session.check(
            format!("what `{key}` signed away of {asset} is within its bound for {window}"),
            got <= bound.amount,
        );
        let longest = bounds.iter().filter(|other| {
            other.report.key == *key && other.report.asset == *asset && other.window > bound.window
        });
        if longest.count() > 0 {
            continue;
        }
        let (most, all) = (money(bound.amount, *decimals), money(got, *decimals));
        let unit = asset.split('_').next().unwrap_or(asset).to_uppercase();
        if key == AGENT_9 {
            session.say(format!("bound {most} {unit}/{window} · attacker got {all}"));
            session.check("the attacker got exactly the bound, no more", got == bound.amount);
            watched = Some(AttackReport {
                asked: spoils.asked,
                signed_total: got.to_string(),
                bound: bound.amount.to_string(),
            });
        } else {
            session.say(format!("  `{key}`: bound {most} {unit}/{window} · signed {all} in all"));
        }
    }
    watched.ok_or(DemoError::Missing { what: "bound", name: AGENT_9.to_owned() })
}

/// A number below `bound`, which is not zero; that it is not perfectly even is no matter here.
fn below(bound: u64) -> u64 {
    OsRng.next_u64().checked_rem(bound).unwrap_or_default()
}

/// Three fifths of `most` to `most`, in base units.
fn some_of(most: Amount) -> Amount {
    let part = most.saturating_mul(below(400_001).saturating_add(600_000));
    part.checked_div(Amount::from(1_000_000)).unwrap_or(most)
}

fn salvo(session: &mut Session<'_>) -> Result<Vec<Shot>, DemoError> {
    let running = session.running().to_vec();
    let mut shots = Vec::new();
    for target in targets() {
        for number in 0..target.salvo {
            let (to, most) = (target.to.unwrap_or(STRANGER), target.per_tx.unwrap_or_default());
            let body = payload(session, target.key, to, some_of(most))?;
            let id = RequestId::new(random());
            let ask = Ask { id: Some(id), ..Ask::new(target.who, target.key, body) };
            let prepared = session.prepare(ask)?;
            // every fourth at all nodes, every fifth with another body under its id elsewhere
            let nodes = if number % 4 == 0 { running.clone() } else { vec![session.next_node()?] };
            shots.push(Shot { prepared, nodes });
            if number % 5 == 0 {
                let body = payload(session, target.key, to, some_of(most))?;
                let twin = Ask { id: Some(id), ..Ask::new(target.who, target.key, body) };
                let prepared = session.prepare(twin)?;
                shots.push(Shot { prepared, nodes: vec![session.next_node()?] });
            }
        }
    }
    for who in Who::REQUESTERS {
        for key in [AGENT_7, AGENT_9, PAYOUT, TREASURER, NOTARY] {
            for (to, amount) in [(STRANGER, Amount::from(1)), (STRANGER, Amount::from(u64::MAX))] {
                let body = payload(session, key, to, amount)?;
                // messages are no danger to money, and those who may ask have theirs above
                let own = (who, key) == (Who::Reports, NOTARY);
                let body = if own { Payload::Hash(random()) } else { body };
                let prepared = session.prepare(Ask::new(who, key, body))?;
                shots.push(Shot { prepared, nodes: vec![session.next_node()?] });
            }
        }
    }
    shuffle(&mut shots);
    Ok(shots)
}

fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let bound = u64::try_from(last).unwrap_or(0).saturating_add(1);
        items.swap(last, usize::try_from(below(bound)).unwrap_or(0));
    }
}

/// Sends everything, keeping [`AT_ONCE`] under way, and says whether two bodies were signed under
/// one id.
fn fire(
    session: &mut Session<'_>,
    shots: Vec<Shot>,
    spoils: &mut Spoils,
) -> Result<bool, DemoError> {
    let mut signed: BTreeMap<(&str, RequestId), u64> = BTreeMap::new();
    for wave in shots.chunks(AT_ONCE) {
        let mut waiting: Vec<(&Prepared, Vec<Ticket>)> = Vec::new();
        for shot in wave {
            let mut tickets = Vec::new();
            for node in &shot.nodes {
                tickets.push(session.submit(&shot.prepared, *node)?);
                spoils.asked = spoils.asked.saturating_add(1);
            }
            waiting.push((&shot.prepared, tickets));
        }
        for (prepared, tickets) in waiting {
            let mut answers = Vec::new();
            for ticket in tickets {
                answers.push(session.wait(prepared, ticket)?);
            }
            // the same body at several nodes has one outcome; if any node gave a signature, that is it
            let best = answers.iter().position(|answer| matches!(answer, Answer::Signed(_)));
            let Some(answer) = answers.into_iter().nth(best.unwrap_or(0)) else { continue };
            if session.record(prepared, answer)?.signed().is_some() {
                let whose = (prepared.who.principal(), prepared.request.request_id);
                let count = signed.entry(whose).or_insert(0);
                *count = count.saturating_add(1);
            }
        }
    }
    Ok(signed.values().any(|count| *count > 1))
}

/// A transfer above the tier, approved by every requester. Says whether it was signed.
fn collude(session: &mut Session<'_>, spoils: &mut Spoils) -> Result<bool, DemoError> {
    let [cold] = TREASURY;
    let body = payload(session, TREASURER, cold, milli_eth(1_001))?;
    let (prepared, outcome) = session.ask(Ask::new(Who::Alice, TREASURER, body))?;
    spoils.asked = spoils.asked.saturating_add(1);
    let Outcome::Pending(document) = outcome else {
        return Ok(outcome.signed().is_some());
    };
    for who in Who::REQUESTERS {
        spoils.asked = spoils.asked.saturating_add(1);
        let answer = session.approve(who, &prepared, document)?;
        if !matches!(answer, Answer::Denied { .. }) {
            return Ok(true);
        }
    }
    spoils.asked = spoils.asked.saturating_add(1);
    Ok(matches!(session.again(&prepared)?, Answer::Signed(_)))
}

/// Asks for what is left until every node denies the smallest amount there is. Says whether it
/// came to that.
fn squeeze(
    session: &mut Session<'_>,
    target: &Target,
    spoils: &mut Spoils,
) -> Result<bool, DemoError> {
    let smallest = Amount::from(1);
    let most = target.per_tx.unwrap_or(smallest);
    let mut next = most;
    let mut denied_in_a_row = 0_usize;
    for _ in 0..SQUEEZES {
        let body = payload(session, target.key, target.to.unwrap_or(STRANGER), next)?;
        spoils.asked = spoils.asked.saturating_add(1);
        let (_, outcome) = session.ask(Ask::new(target.who, target.key, body))?;
        match outcome {
            Outcome::Signed(_) => denied_in_a_row = 0,
            Outcome::Denied(denial) => {
                let left = left(&denial).unwrap_or_default().min(most);
                if left.is_zero() && next == smallest {
                    denied_in_a_row = denied_in_a_row.saturating_add(1);
                }
                next = left.max(smallest);
            }
            Outcome::Pending(_) | Outcome::Expired | Outcome::Failed(_) => {
                return Ok(false);
            }
        }
        // nodes take turns, so that as many in a row are all of them
        if denied_in_a_row >= session.running().len() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a denial says could still be had.
fn left(denial: &Denial) -> Option<Amount> {
    match denial.limit.as_ref()? {
        LimitRef::PerTx { .. } | LimitRef::Sum { .. } => denial.remaining,
        LimitRef::Count { .. } | LimitRef::Fee { .. } | LimitRef::FeeSum { .. } => None,
    }
}
