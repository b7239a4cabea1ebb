//! From a born cluster to one that signs: the governors confirm the genesis, set the policy and
//! have the keys made.

use std::time::{Duration, Instant};

use casemate_ledger::Attachment;
use casemate_ledger::apply::LOG_KEY;
use casemate_policy::Policy;
use casemate_proto::governance::Change;
use casemate_proto::{KeyName, Millis, Scheme};

use super::cluster::{Answer, Nodes, Submission};
use super::people::People;
use super::{DemoError, Tell};
use crate::processes::DevError;

/// How long key generation may take.
const KEYS_WITHIN: Duration = Duration::from_secs(180);
/// How often somebody who waits is told.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Has the governors confirm the genesis and set the policy.
pub(crate) fn confirm(
    nodes: &mut dyn Nodes,
    people: &People,
    policy: &Policy,
    tell: &mut dyn Tell,
) -> Result<(), DemoError> {
    tell.progress("governance: confirms the genesis and sets the policy");
    change(nodes, people, Change::ConfirmGenesis, None)?;
    let attachment = Attachment::Policy(policy.canonical_bytes());
    change(nodes, people, Change::SetPolicy { policy: policy.policy_hash() }, Some(attachment))
}

/// Has the governors have keys generated, and the log's own; `stop` says when to give up.
pub(crate) fn create_keys(
    nodes: &mut dyn Nodes,
    people: &People,
    keys: &[(&str, Scheme)],
    stop: &dyn Fn() -> bool,
    tell: &mut dyn Tell,
) -> Result<(), DemoError> {
    let all = keys.len();
    tell.progress(&format!(
        "governance: has {all} keys generated among the nodes, and the log's own"
    ));
    let log = (LOG_KEY, Scheme::Ed25519);
    for (name, scheme) in [log].into_iter().chain(keys.iter().copied()) {
        change(nodes, people, Change::CreateKey { name: KeyName::new(name)?, scheme }, None)?;
    }
    let (since, mut told) = (Instant::now(), Instant::now());
    loop {
        let live = nodes.keys()?.len();
        if live >= all {
            return Ok(());
        }
        if stop() {
            return Err(DevError::Interrupted.into());
        }
        if since.elapsed() > KEYS_WITHIN.saturating_mul(nodes.patience()) {
            return Err(DemoError::Cluster {
                what: "did not generate its keys in time".to_owned(),
            });
        }
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            tell.progress(&format!("{live} of {all} keys are generated"));
        }
        nodes.work(Millis(20));
    }
}

fn change(
    nodes: &mut dyn Nodes,
    people: &People,
    change: Change,
    attachment: Option<Attachment>,
) -> Result<(), DemoError> {
    let name = change.name();
    let (scope, head, now) = (nodes.scope(), nodes.change_head()?, nodes.now());
    let signed = people.sign_change(scope, head, change, now)?;
    let ticket = nodes.submit(0, Submission::Governance { signed, attachment })?;
    match nodes.wait(ticket)? {
        Answer::Accepted => Ok(()),
        Answer::Denied { denial, .. } => {
            Err(DemoError::Cluster { what: format!("refused the change `{name}`: {denial}") })
        }
        other => Err(DemoError::Cluster { what: format!("answered `{name}` with {other:?}") }),
    }
}
