//! Step 3: transactions, and a run of them during which a node goes away.

use casemate_proto::request::Payload;

use super::{ETH_DECIMALS, USDT_DECIMALS, cents, milli_eth};
use crate::demo::DemoError;
use crate::demo::payloads::Transaction;
use crate::demo::people::Who;
use crate::demo::policy::{MERCHANTS, NOTARY, PAYOUT, TREASURER, TREASURY};
use crate::demo::report::{hex, money};
use crate::demo::session::{Ask, Prepared, Session};

/// How many settlements.
const RUN: u64 = 20;
/// How many of them are under way at one time.
const AT_ONCE: usize = 5;

pub(crate) fn run(session: &mut Session<'_>) -> Result<(), DemoError> {
    session.begin(3, "settlements: USDT and ETH on Ethereum, and a node that goes away");
    let (amount, [merchant, ..]) = (cents(100_000), MERCHANTS);
    let usdt = Transaction::usdt_transfer(session.next_nonce(PAYOUT), merchant, amount);
    let what = format!("{} USDT to {merchant}", money(amount, USDT_DECIMALS));
    transaction(session, Who::Settlement, PAYOUT, &usdt, &what)?;

    let (amount, [cold]) = (milli_eth(400), TREASURY);
    let eth = Transaction::native(session.next_nonce(TREASURER), cold, amount);
    let what = format!("{} ETH to {cold}", money(amount, ETH_DECIMALS));
    transaction(session, Who::Alice, TREASURER, &eth, &what)?;

    let report = format!("settled: {what}").into_bytes();
    let (_, outcome) = session.ask(Ask::new(Who::Reports, NOTARY, Payload::Message(report)))?;
    session.check("a report is signed with Ed25519", outcome.signed().is_some());
    if let Some(signed) = outcome.signed() {
        session.say(format!("a report of it, Ed25519: {}", hex(&signed.signature)));
    }
    many(session)
}

fn transaction(
    session: &mut Session<'_>,
    who: Who,
    key: &'static str,
    transaction: &Transaction,
    what: &str,
) -> Result<(), DemoError> {
    let (_, outcome) = session.ask(Ask::new(who, key, transaction.payload()))?;
    let raw = outcome.signed().and_then(|signed| signed.raw_transaction.as_ref());
    session.say(format!("{what}:"));
    match raw {
        Some(raw) => session.say(format!("  {}", hex(raw))),
        None => session.say(format!("  {outcome:?}")),
    }
    session.check(format!("signed as a raw transaction: {what}"), raw.is_some());
    Ok(())
}

/// A processor's run. The node that goes away does so while settlements are under way at it.
fn many(session: &mut Session<'_>) -> Result<(), DemoError> {
    let payments = (0..RUN)
        .map(|number| {
            let merchant =
                usize::try_from(number).ok().and_then(|n| n.checked_rem(MERCHANTS.len()));
            let merchant = merchant
                .and_then(|at| MERCHANTS.get(at))
                .ok_or(DemoError::Missing { what: "merchant", name: number.to_string() })?;
            // 450.00 to 545.00 USDT
            let amount = cents(number.saturating_mul(500).saturating_add(45_000));
            let nonce = session.next_nonce(PAYOUT);
            let payment = Transaction::usdt_transfer(nonce, *merchant, amount).payload();
            session.prepare(Ask::new(Who::Settlement, PAYOUT, payment))
        })
        .collect::<Result<Vec<Prepared>, DemoError>>()?;
    let leaving = session.running().last().copied().ok_or(DemoError::NoNode)?;
    let name = session.nodes().names().get(leaving).map(ToString::to_string).unwrap_or_default();
    let middle = payments.len() / 2;
    let (mut asked, mut signed, mut after) = (0_usize, 0_usize, 0_usize);
    for wave in payments.chunks(AT_ONCE) {
        let mut waiting = Vec::new();
        for payment in wave {
            let node = session.next_node()?;
            waiting.push((payment, session.submit(payment, node)?));
        }
        let goes = asked < middle && asked.saturating_add(wave.len()) >= middle;
        if goes {
            session.stop(leaving)?;
            session.say(format!("node {name} stops, with settlements under way"));
        }
        for (payment, ticket) in waiting {
            let answer = session.wait(payment, ticket)?;
            let outcome = session.record(payment, answer)?;
            let done = usize::from(outcome.signed().is_some());
            if done == 0 {
                session.say(format!("request {}: {outcome:?}", payment.request.request_id));
            }
            signed = signed.saturating_add(done);
            if !session.running().contains(&leaving) {
                after = after.saturating_add(done);
            }
        }
        asked = asked.saturating_add(wave.len());
    }
    session.say(format!(
        "{signed} of {RUN} settlements signed, {after} of them after node {name} had stopped"
    ));
    let all = u64::try_from(signed).ok() == Some(RUN);
    session.check(
        "a run of settlements is signed although a node stops in the middle",
        all && after > 0,
    );
    Ok(())
}
