//! Tiers and the approvals that they need.

use std::collections::BTreeSet;

use casemate_proto::{
    Algorithm, CredentialId, Denial, DenialCode, GrantId, PrincipalId, UnixMillis, denial::LimitRef,
};

use crate::{
    decision::{Ask, Requirement},
    evaluate::{Refused, asset_key, human, refuse},
    model::{Approvals, Grant, Tier},
    policy::Policy,
};

pub(crate) enum Outcome {
    /// Nothing is missing; the tier, where the grant has tiers.
    Enough(Option<u32>),
    Missing(Requirement),
}

pub(crate) fn check(
    policy: &Policy,
    id: &GrantId,
    grant: &Grant,
    ask: &Ask<'_>,
    now: UnixMillis,
) -> Result<Outcome, Refused> {
    let Some(highest) = grant.tiers.last() else { return Ok(Outcome::Enough(None)) };
    let amount = ask.intent.amount;
    let fits = |(_, tier): &(u32, &Tier)| amount <= tier.upto;
    let Some((number, tier)) = (0_u32..).zip(&grant.tiers).find(fits) else {
        let asset = asset_key(ask.intent);
        let (asked, cap) =
            (human(policy, asset.as_ref(), amount), human(policy, asset.as_ref(), highest.upto));
        let detail = format_args!("{asked} is more than {cap}, the highest tier");
        let mut denial = refuse(DenialCode::OverTiers, detail).by(id);
        denial.limit = Some(LimitRef::PerTx { max: highest.upto });
        denial.remaining = Some(highest.upto);
        return Err(Box::new(denial));
    };
    let needed = tier.approvals.as_ref().map_or(0, |a| a.needed);
    let have = tier.approvals.as_ref().map_or(0, |approvals| count(policy, approvals, ask, now));
    // a delay that overflows never ends
    let not_before =
        tier.delay.map(|delay| ask.first_seen.checked_add(delay).unwrap_or(UnixMillis(u64::MAX)));
    if have >= needed && not_before.is_none_or(|at| at <= now) {
        return Ok(Outcome::Enough(Some(number)));
    }
    Ok(Outcome::Missing(Requirement {
        grant: id.clone(),
        tier: number,
        needed,
        of: tier.approvals.as_ref().map(|a| a.of.clone()),
        passkey: tier.approvals.as_ref().is_some_and(|a| a.passkey),
        have,
        not_before,
    }))
}

/// How many distinct people have approved.
fn count(policy: &Policy, approvals: &Approvals, ask: &Ask<'_>, now: UnixMillis) -> u32 {
    let counts = |a: &&crate::decision::Approved| {
        a.at <= now
            && may(policy, approvals, ask.principal, &a.principal, &a.credential, a.passkey).is_ok()
    };
    let people: BTreeSet<&PrincipalId> =
        ask.approvals.iter().filter(counts).map(|a| &a.principal).collect();
    u32::try_from(people.len()).unwrap_or(u32::MAX)
}

fn may(
    policy: &Policy,
    approvals: &Approvals,
    requester: &PrincipalId,
    approver: &PrincipalId,
    credential: &CredentialId,
    passkey: bool,
) -> Result<(), Refused> {
    let not = |why: &str| {
        let detail = format_args!("`{approver}` {why}");
        Err(refuse(DenialCode::ApproverNotAllowed, detail))
    };
    if approver == requester {
        return not("is the requester");
    }
    if !policy.doc().approvers.get(&approvals.of).is_some_and(|list| list.contains(approver)) {
        return not("is not on the grant's list of approvers");
    }
    // looked up at each evaluation: a credential that was revoked approves nothing any more
    let Some((speaks_for, key)) = policy.credential(credential) else {
        return not("approved with a credential that is not registered");
    };
    if speaks_for != approver {
        return not("approved with a credential of another");
    }
    let is_passkey = key.algorithm() == Algorithm::WebauthnP256;
    if is_passkey != passkey {
        return not("approved in a way that the credential cannot");
    }
    if approvals.passkey && !passkey {
        return not("approved without a passkey, which this tier needs");
    }
    Ok(())
}

/// Whether an approval by this person with this credential counts towards a requirement.
///
/// # Errors
/// The denial to answer where it does not.
pub fn check_approver(
    policy: &Policy,
    requirement: &Requirement,
    requester: &PrincipalId,
    approver: &PrincipalId,
    credential: &CredentialId,
    passkey: bool,
) -> Result<(), Box<Denial>> {
    let by = |denial: Refused| Box::new(denial.by(&requirement.grant));
    let Some(of) = requirement.of.clone() else {
        let detail = "the request waits for time, not for approvals";
        return Err(by(refuse(DenialCode::ApproverNotAllowed, detail)));
    };
    let approvals = Approvals { needed: requirement.needed, of, passkey: requirement.passkey };
    may(policy, &approvals, requester, approver, credential, passkey).map_err(by)
}
