//! Step 1: an agent pays for what it reads.

use super::{USDC_DECIMALS, authorization, cents};
use crate::demo::DemoError;
use crate::demo::cluster::Answer;
use crate::demo::people::Who;
use crate::demo::policy::{AGENT_7, X402};
use crate::demo::report::{hex, money};
use crate::demo::session::{Ask, Session};

/// What the payment is for, in the agent's own words.
const ORDER: &str = "forecast for 2026-11-21";

pub(crate) fn run(session: &mut Session<'_>) -> Result<(), DemoError> {
    session.begin(1, "an x402 payment: an EIP-3009 authorization of USDC on Base");
    let value = cents(250);
    let (id, nonce) = session.idempotent(Who::Research, ORDER)?;
    let [payee, _] = X402;
    let payment = authorization(session, AGENT_7, payee, value, nonce)?;
    let ask = Ask { id: Some(id), ..Ask::new(Who::Research, AGENT_7, payment.payload()) };
    let (prepared, outcome) = session.ask(ask)?;
    let Some(signed) = outcome.signed() else {
        session.say(format!("{outcome:?}"));
        session.check("x402 payment is signed and recovers to the key's address", false);
        return Ok(());
    };
    session.say(format!("{} USDC from {} to {payee}", money(value, USDC_DECIMALS), payment.from));
    session.say(format!("signature {}", hex(&signed.signature)));
    let good = session.tally().unproven() == 0;
    if good {
        session.say(format!("recovers to {}, the address of key `{AGENT_7}`", payment.from));
    }
    session.check("x402 payment is signed and recovers to the key's address", good);
    let again = session.again(&prepared)?;
    let same = matches!(&again, Answer::Signed(second) if second.signature == signed.signature);
    session.say("the same request at another node gets the same signature: a retry pays once");
    session.check("a retry at another node gets the same signature", same);
    Ok(())
}
