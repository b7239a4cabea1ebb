//! What a fully compromised host can obtain: the number that the promise is about.
//!
//! The host has every parent, every network, every disk and every requester's plain credential. It
//! asks for everything, from every principal, at the best moments. For each key and asset, each
//! window in use and until expiry, the figure is an upper bound on what is then signed; where a
//! row says `attained`, some attacker gets exactly that. Both are held by tests that attack the
//! evaluator.
//!
//! A window is one of true time: signatures of entries of W + τ + 2δ can leave within W, which is
//! what the evaluator's windows are lengthened by. So one limit over W is one limit, and not two.

mod cover;
mod figure;
mod reach;
mod render;
mod rows;

use casemate_proto::{Amount, AssetId, GrantId, Hash32, KeyName, ListId, Millis, UnixMillis};

use crate::{charge::Slack, policy::Policy};

pub(crate) use reach::{askers, requesters};

/// What bounds are computed for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// From when on.
    pub now: UnixMillis,
    /// The cluster, where it is known.
    pub cluster: Option<Cluster>,
}

/// What a manifest says that bounds depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// How many nodes.
    pub nodes: u32,
    /// How many of them sign.
    pub threshold: u32,
    /// τ: a share is released at most so long after its entry's time.
    pub tau: Millis,
    /// δ: by which two clocks may differ.
    pub delta: Millis,
    /// Without a freezer's heartbeat for so long, the cluster freezes itself.
    pub dead_man: Option<Millis>,
    /// The outside lease, where there is one.
    pub lease: Option<Millis>,
}

impl Cluster {
    /// By how much it lengthens windows.
    #[must_use]
    pub const fn slack(&self) -> Slack {
        Slack::new(self.tau, self.delta)
    }

    /// With b enclaves themselves broken, at most so many times each limit is signed:
    /// ⌊(n − b)/(t − b)⌋, for each b from 1 to t − 1, while no other enclave restarts. A restarted
    /// boot may be told, by the broken ones together with honest ones that never saw them, a ledger
    /// that lacks what its predecessor signed: each admission within the window counts as one honest
    /// enclave more, ⌊(n − b + a)/(t − b)⌋.
    #[must_use]
    pub fn broken(&self) -> Vec<(u32, u32)> {
        (1..self.threshold)
            .filter_map(|b| {
                let honest = self.nodes.checked_sub(b)?;
                honest.checked_div(self.threshold.checked_sub(b)?).map(|times| (b, times))
            })
            .collect()
    }

    /// The longest time for which a host can hold a freeze back, from the last heartbeat that any
    /// freezer signed; `None`: for ever. A heartbeat counts from its signer's own time, so that
    /// none can be kept for later, but those of one freezer hide the silence of another.
    #[must_use]
    pub fn freeze_held_back(&self) -> Option<Millis> {
        self.dead_man.map(|dead_man| self.slack().lengthen(dead_man))
    }
}

/// The length of a row's interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// Any interval of this length.
    Window(Millis),
    /// From now on, until everything that is counted has expired; `None`: for ever.
    UntilExpiry(Option<UnixMillis>),
}

/// The most of one asset that one key, all its paths together, signs away in an interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The key.
    pub key: KeyName,
    /// The asset.
    pub asset: AssetId,
    /// Its decimals.
    pub decimals: u8,
    /// The interval.
    pub span: Span,
    /// Amounts and fees together, without any approver; `None`: **unlimited**.
    pub amount: Option<Amount>,
    /// Of these, fees.
    pub fees: Option<Amount>,
    /// The same if every approver approves.
    pub with_approvals: Option<Amount>,
    /// Whether an attacker gets exactly `amount`.
    pub attained: bool,
    /// Over how many wallets (paths) the key's figure is, where a limit is per path; `None`: more
    /// than can be counted.
    pub wallets: Option<u64>,
    /// The grants that it adds up.
    pub grants: Vec<GrantId>,
    /// The grant that makes it unlimited, where that is not for want of a limit on this asset: it
    /// signs what cannot be read.
    pub unbounded_by: Option<GrantId>,
}

/// The most that everything under one shared limit signs away, over all its keys and assets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedBound {
    /// Its name.
    pub name: ListId,
    /// Keys and assets that it counts.
    pub counts: Vec<(KeyName, AssetId)>,
    /// The decimals of all of them.
    pub decimals: u8,
    /// The interval.
    pub span: Span,
    /// Without any approver; `None`: unlimited.
    pub amount: Option<Amount>,
    /// Whether an attacker gets exactly that.
    pub attained: bool,
}

/// A grant for what no amount bounds: what is signed cannot be read, or names no amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbounded {
    /// The grant.
    pub grant: GrantId,
    /// The key.
    pub key: KeyName,
    /// The actions.
    pub actions: Vec<&'static str>,
    /// Limits on the number of signatures: how many, over which window.
    pub signatures: Vec<(u64, Millis)>,
}

/// All bounds of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Whose.
    pub policy_hash: Hash32,
    /// Its name.
    pub policy_name: String,
    /// For what.
    pub setting: Setting,
    /// By key, asset and interval.
    pub rows: Vec<Bound>,
    /// By shared limit and interval.
    pub shared: Vec<SharedBound>,
    /// What is bounded by nothing but a number of signatures, if that.
    pub unbounded: Vec<Unbounded>,
}

/// Computes the bounds of a policy.
#[must_use]
pub fn bounds(policy: &Policy, setting: Setting) -> Bounds {
    rows::all(policy, setting)
}
