//! Step 4: a transfer that other people must approve.

use casemate_proto::DenialCode;

use super::{ETH_DECIMALS, milli_eth};
use crate::demo::DemoError;
use crate::demo::cluster::Answer;
use crate::demo::payloads::Transaction;
use crate::demo::people::Who;
use crate::demo::policy::{TREASURER, TREASURY};
use crate::demo::report::{hex, money};
use crate::demo::session::{Ask, Outcome, Session};

pub(crate) fn run(session: &mut Session<'_>) -> Result<(), DemoError> {
    session.begin(4, "a transfer above a tier: two others approve it");
    let (amount, [cold]) = (milli_eth(5_000), TREASURY);
    let transfer = Transaction::native(session.next_nonce(TREASURER), cold, amount);
    let ask = Ask::new(Who::Alice, TREASURER, transfer.payload());
    let (prepared, outcome) = session.ask(ask)?;
    let Outcome::Pending(document) = outcome else {
        session.say(format!("{outcome:?}"));
        session.check("a transfer above a tier is pending", false);
        return Ok(());
    };
    session.check("a transfer above a tier is pending", true);
    session.say(format!("alice asks for {} ETH to {cold}: pending", money(amount, ETH_DECIMALS)));
    session.say(format!("approvers sign document {document}"));

    let own = session.approve(Who::Alice, &prepared, document)?;
    let refused = matches!(&own, Answer::Denied { denial, .. } if denial.code == DenialCode::ApproverNotAllowed);
    session.say("alice, a treasurer herself, approves: refused, since she asked");
    session.check("the requester's own approval is refused", refused);

    let first = session.approve(Who::Bob, &prepared, document)?;
    let waits = !matches!(session.again(&prepared)?, Answer::Signed(_));
    session.say("bob approves: one of two");
    session.check("one approval of two does not sign", waits && !is_refusal(&first));

    let second = session.approve(Who::Carol, &prepared, document)?;
    let answer = session.again_when_approved(&prepared)?;
    let outcome = session.record(&prepared, answer)?;
    session.say("carol approves: two of two");
    let raw = outcome.signed().and_then(|signed| signed.raw_transaction.as_ref());
    match raw {
        Some(raw) => session.say(format!("signed: {}", hex(raw))),
        None => session.say(format!("{outcome:?}")),
    }
    session
        .check("two approvals by others sign the transfer", raw.is_some() && !is_refusal(&second));
    Ok(())
}

const fn is_refusal(answer: &Answer) -> bool {
    matches!(answer, Answer::Denied { .. } | Answer::Expired | Answer::Busy { .. })
}
