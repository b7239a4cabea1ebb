//! The seven steps.

pub mod approval;
pub mod attack;
pub mod audit;
pub mod dangerous;
pub mod denials;
pub mod network;
pub mod payment;
pub mod restart;
pub mod settlement;

use casemate_proto::denial::LimitRef;
use casemate_proto::{Denial, UnixMillis};
use casemate_tx::EvmAddress;

use super::DemoError;
use super::payloads::Authorization;
use super::report::money;
use super::session::Session;
use casemate_proto::Amount;

/// Digits behind the point.
pub(crate) const USDC_DECIMALS: u8 = 6;
/// Digits behind the point.
pub(crate) const USDT_DECIMALS: u8 = 6;
/// Digits behind the point.
pub(crate) const ETH_DECIMALS: u8 = 18;

/// Hundredths of a USDC or USDT, in base units.
pub(crate) fn cents(cents: u64) -> Amount {
    Amount::from(cents.saturating_mul(10_000))
}

/// Thousandths of an ETH, in base units.
pub(crate) fn milli_eth(thousandths: u64) -> Amount {
    Amount::from_u128(u128::from(thousandths).saturating_mul(1_000_000_000_000_000))
}

/// An authorization as x402 clients make one: valid from ten minutes ago, for five minutes.
pub(crate) fn authorization(
    session: &mut Session<'_>,
    key: &str,
    to: EvmAddress,
    value: Amount,
    nonce: [u8; 32],
) -> Result<Authorization, DemoError> {
    let now = session.nodes().now().0 / 1_000;
    Ok(Authorization {
        from: session.address(key)?,
        to,
        value,
        valid_after: now.saturating_sub(600),
        valid_before: now.saturating_add(300),
        nonce,
    })
}

/// A denial in one line.
pub(crate) fn denial_line(denial: &Denial, decimals: u8) -> String {
    let mut line = denial.code.name().to_owned();
    if let Some(grant) = &denial.grant {
        line.push_str(&format!(" · grant {grant}"));
    }
    if let Some(limit) = &denial.limit {
        let text = match limit {
            LimitRef::PerTx { max } => format!("{} per signature", money(*max, decimals)),
            LimitRef::Sum { max, window } => {
                format!("{} in {}", money(*max, decimals), window.to_text())
            }
            LimitRef::Count { max, window } => {
                format!("{max} signatures in {}", window.to_text())
            }
            LimitRef::Fee { max } => format!("fee of {}", money(*max, ETH_DECIMALS)),
            LimitRef::FeeSum { max, window } => {
                format!("fees of {} in {}", money(*max, ETH_DECIMALS), window.to_text())
            }
        };
        line.push_str(&format!(" · limit {text}"));
        if let Some(left) = denial.remaining {
            let left = match limit {
                LimitRef::Count { .. } => left.to_string(),
                LimitRef::Fee { .. } | LimitRef::FeeSum { .. } => money(left, ETH_DECIMALS),
                LimitRef::PerTx { .. } | LimitRef::Sum { .. } => money(left, decimals),
            };
            line.push_str(&format!(" · {left} left"));
        }
    }
    if denial.limit.is_none() {
        line.push_str(&format!(" · {}", denial.detail));
    }
    if let Some(at) = denial.resets_at {
        line.push_str(&format!(" · resets {}", minute(at)));
    }
    line
}

/// A time to the minute.
fn minute(at: UnixMillis) -> String {
    let text = at.to_rfc3339();
    format!("{}Z", text.get(..16).unwrap_or(&text))
}
