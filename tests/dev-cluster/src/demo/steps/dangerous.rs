//! Step 5: what no limit on amounts could bound.

use casemate_proto::DenialCode;
use casemate_proto::request::Payload;

use super::{ETH_DECIMALS, denial_line};
use crate::demo::DemoError;
use crate::demo::payloads::Transaction;
use crate::demo::people::{Who, random};
use crate::demo::policy::{AGENT_7, MERCHANTS, PAYOUT, TREASURER};
use crate::demo::session::{Ask, Outcome, Session};

pub(crate) fn run(session: &mut Session<'_>) -> Result<(), DemoError> {
    session.begin(5, "what would escape any limit: denied unless a grant names it");
    let [merchant, ..] = MERCHANTS;
    let approve = Transaction::usdt_approve(session.next_nonce(PAYOUT), merchant);
    let creation = Transaction::creation(session.next_nonce(TREASURER));
    for (what, who, key, payload, code) in [
        ("a raw hash", Who::Research, AGENT_7, Payload::Hash(random()), DenialCode::RawHash),
        (
            "an `approve` to a listed merchant",
            Who::Settlement,
            PAYOUT,
            approve.payload(),
            DenialCode::ActionNotAllowed,
        ),
        (
            "a contract creation",
            Who::Alice,
            TREASURER,
            creation.payload(),
            DenialCode::ActionNotAllowed,
        ),
    ] {
        let (_, outcome) = session.ask(Ask::new(who, key, payload))?;
        match &outcome {
            Outcome::Denied(denial) => {
                session.say(format!("{what}: {}", denial_line(denial, ETH_DECIMALS)));
            }
            other => session.say(format!("{what}: {other:?}")),
        }
        session.check(format!("denied as {code}: {what}"), outcome.code() == Some(code.name()));
    }
    Ok(())
}
