//! The demo's policy: the text in `policy.toml` with this run's credentials and times.

use casemate_client::Sign as _;
use casemate_policy::Policy;
use casemate_proto::time::{DAY, HOUR, MINUTE};
use casemate_proto::{Millis, Scheme, UnixMillis};
use casemate_tx::EvmAddress;

use super::DemoError;
use super::people::People;

const TEMPLATE: &str = include_str!("policy.toml");

/// How long the policy is good for.
const LIFE: Millis = Millis(30 * DAY.0);
/// Servers that may be paid by x402.
pub const X402: [EvmAddress; 2] = [EvmAddress([0xa4; 20]), EvmAddress([0xa5; 20])];
/// Merchants.
pub const MERCHANTS: [EvmAddress; 4] = [
    EvmAddress([0xb0; 20]),
    EvmAddress([0xb1; 20]),
    EvmAddress([0xb2; 20]),
    EvmAddress([0xb3; 20]),
];
/// Where the treasury's ETH may go.
pub const TREASURY: [EvmAddress; 1] = [EvmAddress([0xc1; 20])];
/// On no list.
pub const STRANGER: EvmAddress = EvmAddress([0xd9; 20]);

/// The keys that governance has made, with what each is for.
pub const KEYS: [(&str, Scheme); 5] = [
    (AGENT_7, Scheme::EcdsaSecp256k1),
    (AGENT_9, Scheme::EcdsaSecp256k1),
    (PAYOUT, Scheme::EcdsaSecp256k1),
    (TREASURER, Scheme::EcdsaSecp256k1),
    (NOTARY, Scheme::Ed25519),
];
/// Pays for what a research agent reads.
pub const AGENT_7: &str = "agent-7";
/// Pays for what a shopping agent buys: the one that is attacked.
pub const AGENT_9: &str = "agent-9";
/// Settles with merchants.
pub const PAYOUT: &str = "payout";
/// Holds ETH.
pub const TREASURER: &str = "treasury";
/// Signs reports.
pub const NOTARY: &str = "notary";

/// An hour of the day, in UTC, that begins eleven hours from `now`: it excludes the present, and
/// everything within some minutes of it.
#[must_use]
pub fn other_hours(now: UnixMillis) -> String {
    let minute = |at: UnixMillis| {
        let minute = at.0 % DAY.0 / MINUTE.0;
        format!("{:02}:{:02}", minute / 60, minute % 60)
    };
    let begin = now.saturating_add(Millis(HOUR.0.saturating_mul(11)));
    format!("{}-{}", minute(begin), minute(begin.saturating_add(HOUR))).replace("-00:00", "-24:00")
}

/// The text.
#[must_use]
pub fn text(people: &People, now: UnixMillis) -> String {
    let list = |payees: &[EvmAddress]| {
        payees.iter().map(|payee| format!("\"{payee}\"")).collect::<Vec<_>>().join(", ")
    };
    let principals: String = people
        .persons()
        .map(|person| {
            let key = person.credential.public_key();
            let (id, alg) = (person.principal, key.algorithm().name());
            let key = hex::encode(key.as_bytes());
            format!(
                "[[principal]]\nid = \"{id}\"\ncredentials = [{{ alg = \"{alg}\", public_key = \"{key}\" }}]\n\n"
            )
        })
        .collect();
    [
        ("{{expires}}", now.saturating_add(LIFE).to_rfc3339()),
        ("{{principals}}\n", principals),
        ("{{x402}}", list(&X402)),
        ("{{merchants}}", list(&MERCHANTS)),
        ("{{treasury}}", list(&TREASURY)),
        ("{{other_hours}}", other_hours(now)),
    ]
    .into_iter()
    .fold(TEMPLATE.to_owned(), |text, (name, value)| text.replace(name, &value))
}

/// The policy.
///
/// # Errors
/// If the text is no policy, which a test excludes.
pub fn policy(people: &People, now: UnixMillis) -> Result<Policy, DemoError> {
    Ok(Policy::from_toml(&text(people, now))?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn other_hours_exclude_the_present_at_every_minute_of_the_day() {
        let people = People::new().unwrap();
        for minute in 0..1440 {
            let now = UnixMillis(DAY.0 * 20_000 + minute * MINUTE.0);
            let policy = policy(&people, now).unwrap_or_else(|error| panic!("{now}: {error}"));
            let grants = &policy.doc().grants;
            let hours: Vec<_> = grants.values().filter_map(|grant| grant.hours).collect();
            assert_eq!(hours.len(), 1);
            for later in [0, 10, 60] {
                assert!(!hours[0].contains(now.saturating_add(Millis(later * MINUTE.0))), "{now}");
            }
        }
    }

    #[test]
    fn policy_has_the_grants_that_the_steps_ask_under() {
        let people = People::new().unwrap();
        let policy = policy(&people, UnixMillis(1_795_165_200_000)).unwrap();
        let names: Vec<_> = policy.doc().grants.keys().map(|id| id.as_str().to_owned()).collect();
        assert_eq!(
            names,
            [
                "report-signing",
                "settlement-usdt",
                "treasury-eth",
                "x402-nightly",
                "x402-research",
                "x402-shopper"
            ]
        );
        assert_eq!(policy.doc().principals.len(), 8);
    }
}
