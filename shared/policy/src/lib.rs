//! Policy: (policy, charges, intent, approvals, now) to verdict; bounds.
//!
//! Everything here is pure and deterministic: no clock, no randomness, no floats, no order of a
//! hash map. The same policy, book of charges, request and time give the same verdict on every
//! node, and an auditor who replays the ledger comes to it again.
//!
//! - [`Policy`]: parsed from text, or from its canonical form, and checked either way.
//! - [`ChargeBook`]: what was charged, and exact sliding windows over it.
//! - [`evaluate`]: the verdict. [`within_limits`]: its limits alone, against another book.
//! - [`bounds`](bounds()): the most that a fully compromised host can obtain.
//! - [`lint`](lint()), [`diff`](diff()): what is suspicious, and what changes; [`lint_schemes`]: what
//!   a key's scheme never signs.
//!
//! # The format
//!
//! TOML. Unknown fields, repeated entries and bare numbers in place of amounts are refused, each
//! mistake with its line and field. `docs/examples` has whole policies, which the tests use.
//!
//! ```toml
//! version = 1
//! name = "agents"
//! expires = "2027-06-01T00:00:00Z"     # required, unless `unlimited = true` is said
//!
//! [asset.usdc_base]                    # the registry: nothing else can be moved
//! chain = "eip155:8453"                # CAIP-2
//! token = "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913"   # or `native = true`
//! decimals = 6
//! domain = { name = "USD Coin", version = "2" }          # pinned, for typed data of the token
//!
//! [[principal]]
//! id = "agent:research"
//! credentials = [{ alg = "p256", public_key = "02…" }]   # p256, ed25519, webauthn-p256
//!
//! [list.payees.x402]                   # written "@payees.x402" in `to`
//! "eip155:8453" = ["0x…", "0x…"]
//!
//! [list.approvers.treasurers]          # written "@treasurers" in `approvals`
//! members = ["treasurer:carol", "treasurer:dan"]
//!
//! [[deny]]                             # whatever a grant says; all that is stated must match
//! id = "sanctioned"
//! to = ["0x…"]                         # also key, principal, action, asset; each one or several
//!
//! [[grant]]                            # the only way to allow
//! id = "x402-research-agent"
//! key = "agent-7"
//! path = "m/0/*"                       # default "m": the key itself; * is any one step
//! principals = ["agent:research"]      # or a prefix: "agent:*"
//! allow = ["eip3009.transfer_with_authorization"]
//! asset = "usdc_base"                  # or several, with the same decimals
//! to = "@payees.x402"                  # accounts, lists, or "*" alone for anybody
//! max_per_tx = "5"                     # whole units, as a decimal string
//! limits = [
//!     { sum = "200", window = "24h" }, # 1s to 31d
//!     { count = 120, window = "1h", per = "path" },        # key (default), path, principal
//!     { sum = "900", window = "7d", shared = "all-agents" },
//! ]
//! hours = { utc = "22:00-06:00" }      # may wrap midnight; the last minute is excluded
//! valid_for_max = "10m"                # validBefore − now
//! not_before = "2026-12-01T00:00:00Z"
//! expires = "2027-03-01T00:00:00Z"
//!
//! [[grant]]
//! id = "treasury-eth"
//! # …
//! max_fee_per_tx = "0.05"              # in the chain's native asset; { eth = "…", pol = "…" } for several
//! fee_limits = [{ sum = "0.5", window = "24h" }]           # `asset = "eth"` where there are several
//! tiers = [
//!     { upto = "1" },                  # no approvals
//!     { upto = "10", approvals = "1 of @treasurers" },
//!     { upto = "250", approvals = "2 of @treasurers", passkey = true, delay = "1h" },
//! ]
//! ```
//!
//! # What limits count
//!
//! Charges are facts: time, key, path, principal, asset (by chain and contract, not by name), kind
//! and amount. A limit counts **every** charge of its scope, whichever grant allowed it, also from
//! before the limit was written.
//!
//! - Without `shared`, the scope is the grant's key in the one asset asked for: all of it
//!   (`per = "key"`), that of the same path (`"path"`), or that of the same principal
//!   (`"principal"`). A grant of several assets gives each a budget of its own.
//! - With `shared = "name"`, it is every (key, asset) of all grants that name it: all together
//!   (`per = "group"`, the default), or of these the same key's, path's or principal's. All of them
//!   state the same limit, over assets with the same decimals.
//! - Fees are charges of their own kind in the chain's native asset: the most that a transaction
//!   can cost. `sum` limits do not count them; `fee_limits` do.
//! - Approvals (`approve`, `permit`, `setApprovalForAll`) count what they let be spent, though it
//!   may never be.
//!
//! # What is never allowed
//!
//! Native value along with a token or contract call; a payer other than the signing key, but for
//! `transferFrom`; typed data in a domain that is not pinned; what two grants match both. Approvals,
//! messages, raw hashes, contract calls and creations, and unknown typed data need a grant that
//! names them. The last four move what cannot be read: no sum bounds them, and
//! [`bounds`](bounds()) says so.

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
mod schemes;
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
pub use limits::within_limits;
pub use lint::{Finding, Severity, lint};
pub use model::{AssetKey, PolicyDoc};
pub use policy::{MAX_CANONICAL_BYTES, MAX_TOML_BYTES, Policy};
pub use schemes::lint_schemes;
