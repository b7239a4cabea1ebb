//! Step 2: what the policy does not allow, with the reason.

use casemate_proto::DenialCode;
use casemate_proto::request::Payload;
use casemate_tx::EvmAddress;
use serde_json::{Value, json};

use super::{USDC_DECIMALS, authorization, cents, denial_line};
use crate::demo::DemoError;
use crate::demo::payloads::USDC_NAME;
use crate::demo::people::{Who, random};
use crate::demo::policy::{AGENT_7, STRANGER, X402};
use crate::demo::session::{Ask, Outcome, Session};

/// One thing to try.
struct Try {
    what: &'static str,
    who: Who,
    cents: u64,
    to: EvmAddress,
    domain: &'static str,
    extra: Option<(&'static str, Value)>,
    code: DenialCode,
}

pub(crate) fn run(session: &mut Session<'_>) -> Result<(), DemoError> {
    session.begin(2, "the same payment, but not as the policy has it");
    let [payee, _] = X402;
    let base = |what, code| Try {
        what,
        who: Who::Research,
        cents: 250,
        to: payee,
        domain: USDC_NAME,
        extra: None,
        code,
    };
    let tries = [
        Try { cents: 501, ..base("5.01 where 5.00 is the most", DenialCode::OverPerTxCap) },
        Try { to: STRANGER, ..base("to a payee who is not listed", DenialCode::PayeeNotListed) },
        Try { who: Who::Nightly, ..base("outside the hours", DenialCode::OutsideHours) },
        Try {
            domain: "USDC",
            ..base(
                "with the server's domain name in place of the pinned one",
                DenialCode::DomainMismatch,
            )
        },
        Try {
            extra: Some(("memo", json!("thanks"))),
            ..base("with a field that its type does not declare", DenialCode::Malformed)
        },
    ];
    for attempt in tries {
        denied(session, attempt)?;
    }
    // what is left under the window is used up to half a dollar, and then asked for again
    let fill = authorization(session, AGENT_7, payee, cents(500), random())?;
    let (_, outcome) = session.ask(Ask::new(Who::Research, AGENT_7, fill.payload()))?;
    session.check("a payment within the window's limit is signed", outcome.signed().is_some());
    denied(session, base("2.50 more, over the 24 h window", DenialCode::LimitExceeded))
}

fn denied(session: &mut Session<'_>, attempt: Try) -> Result<(), DemoError> {
    let payment = authorization(session, AGENT_7, attempt.to, cents(attempt.cents), random())?;
    let mut typed = payment.typed_data(attempt.domain);
    if let Some((name, value)) = attempt.extra
        && let Some(message) = typed.get_mut("message").and_then(Value::as_object_mut)
    {
        message.insert(name.to_owned(), value);
    }
    let ask = Ask::new(attempt.who, AGENT_7, Payload::TypedData(typed.to_string()));
    let (_, outcome) = session.ask(ask)?;
    let what = attempt.what;
    let Outcome::Denied(denial) = &outcome else {
        session.check(format!("denied: {what}"), false);
        return Ok(());
    };
    session.say(format!("{what}:"));
    session.say(format!("  {}", denial_line(denial, USDC_DECIMALS)));
    // what the reader is promised beside the code, where the denial is about a limit or a time
    let told = match attempt.code {
        DenialCode::OverPerTxCap => denial.limit.is_some() && denial.remaining.is_some(),
        DenialCode::LimitExceeded => {
            denial.limit.is_some() && denial.remaining.is_some() && denial.resets_at.is_some()
        }
        DenialCode::OutsideHours => denial.resets_at.is_some(),
        _ => true,
    };
    let granted = attempt.code == DenialCode::Malformed || denial.grant.is_some();
    let ok = denial.code == attempt.code && told && granted;
    session.check(format!("denied as {}: {what}", attempt.code), ok);
    Ok(())
}
