//! Policy: (policy, charges, intent, approvals, now) to verdict; bounds.

mod actions;
mod approve;
pub mod book;
pub mod bounds;
pub mod charge;
pub mod decision;
pub mod diff;
pub mod error;
mod evaluate;
mod hours;
mod intern;
mod limits;
pub mod lint;
pub mod model;
mod overlap;
pub mod pattern;
mod policy;
mod reader;
mod snapshot;
mod toml_grant;
mod toml_policy;
pub mod validate;
mod validate_grant;

pub use approve::check_approver;
pub use book::{BookError, ChargeBook, Scope, Used};
pub use bounds::{Bounds, bounds};
pub use charge::{Charge, ChargeKind, Slack};
pub use decision::{Allowance, Approved, Ask, Counter, Decision, Requirement};
pub use diff::{Diff, diff};
pub use error::{PolicyError, PolicyErrors, Problem, Rule};
pub use evaluate::evaluate;
pub use lint::{Finding, Severity, lint};
pub use model::{AssetKey, PolicyDoc};
pub use policy::{MAX_CANONICAL_BYTES, MAX_TOML_BYTES, Policy};
