//! What a policy says, as plain data in its canonical form: amounts in base units, sets sorted.
//!
//! A [`PolicyDoc`] is not yet a policy: [`crate::Policy`] is one whose every rule was checked.

use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::{
    Amount, AssetId, ChainId, DerivationPath, GrantId, KeyName, ListId, Millis, PrincipalId,
    PublicKey, UnixMillis,
};
use casemate_tx::{Action, EvmAddress};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::pattern::{PathPattern, PrincipalPattern};

/// The one version of the format.
pub const VERSION: u64 = 1;

/// A policy as data.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PolicyDoc {
    /// [`VERSION`].
    #[n(0)]
    pub version: u64,
    /// For people.
    #[n(1)]
    pub name: String,
    /// From when on it allows nothing.
    #[n(2)]
    pub expires: Option<UnixMillis>,
    /// Said aloud where there is no expiry, or where grants have no `sum` limit.
    #[n(3)]
    pub unlimited: bool,
    /// The registry of assets.
    #[n(4)]
    pub assets: BTreeMap<AssetId, Asset>,
    /// Who may ask or approve, each with the credentials that speak for it.
    #[n(5)]
    pub principals: BTreeMap<PrincipalId, BTreeSet<PublicKey>>,
    /// `[list.payees.…]`: accounts, for each chain.
    #[n(6)]
    pub payees: BTreeMap<ListId, BTreeMap<ChainId, BTreeSet<Payee>>>,
    /// `[list.approvers.…]`: people.
    #[n(7)]
    pub approvers: BTreeMap<ListId, BTreeSet<PrincipalId>>,
    /// Rules that deny whatever any grant says.
    #[n(8)]
    pub deny: BTreeMap<GrantId, DenyRule>,
    /// The only way to allow.
    #[n(9)]
    pub grants: BTreeMap<GrantId, Grant>,
}

/// An asset of the registry: the native asset of a chain, or a token contract on it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Asset {
    /// Its chain.
    #[n(0)]
    pub chain: ChainId,
    /// Its contract; `None` for the chain's own asset.
    #[n(1)]
    pub token: Option<Payee>,
    /// Digits behind the point of one whole unit.
    #[n(2)]
    pub decimals: u8,
    /// The EIP-712 domain that its typed data must have. Pinned here, never taken from a request.
    #[n(3)]
    pub domain: Option<PinnedDomain>,
}

impl Asset {
    /// What charges of it are kept under.
    #[must_use]
    pub fn key(&self) -> AssetKey {
        AssetKey { chain: self.chain.clone(), token: self.token.map(|t| t.0) }
    }
}

/// The name and version of an EIP-712 domain; chain and contract are the asset's.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PinnedDomain {
    /// `name`.
    #[n(0)]
    pub name: String,
    /// `version`.
    #[n(1)]
    pub version: String,
}

/// An asset by what it is on its chain. Charges are kept under this and never under the name that
/// a policy gives it, so that a renamed asset keeps its history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AssetKey {
    /// The chain.
    pub chain: ChainId,
    /// The contract; `None` for the chain's own asset.
    pub token: Option<EvmAddress>,
}

impl<C> Encode<C> for AssetKey {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(2)?;
        self.chain.encode(e, c)?;
        self.token.map(Payee).encode(e, c)
    }
}
impl<'b, C> Decode<'b, C> for AssetKey {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        if d.array()? != Some(2) {
            return Err(decode::Error::message("an asset key is an array of two").at(at));
        }
        let chain = ChainId::decode(d, c)?;
        let token = <Option<Payee>>::decode(d, c)?.map(|t| t.0);
        Ok(Self { chain, token })
    }
}
impl core::fmt::Display for AssetKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.token {
            Some(token) => write!(f, "{}/{token}", self.chain),
            None => write!(f, "{}/native", self.chain),
        }
    }
}

/// An EVM account that is paid, or a contract; CBOR: 20 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Payee(pub EvmAddress);

impl core::fmt::Debug for Payee {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl<C> Encode<C> for Payee {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0.0)?.ok()
    }
}
impl<'b, C> Decode<'b, C> for Payee {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        <[u8; 20]>::try_from(d.bytes()?)
            .map(|bytes| Self(EvmAddress(bytes)))
            .map_err(|_| decode::Error::message("not an account").at(at))
    }
}

/// A set of actions; CBOR: their names, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions(pub BTreeSet<Action>);

impl Actions {
    /// The names, sorted.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&'static str> {
        self.0.iter().map(|a| a.name()).collect()
    }
}
impl<C> Encode<C> for Actions {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        self.names().encode(e, c)
    }
}
impl<'b, C> Decode<'b, C> for Actions {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        let names = <Vec<&'b str>>::decode(d, c)?;
        names
            .into_iter()
            .map(Action::from_name)
            .collect::<Option<BTreeSet<_>>>()
            .map(Self)
            .ok_or_else(|| decode::Error::message("not an action").at(at))
    }
}

/// Whom a grant may pay, or a deny rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Payees {
    /// `to = "*"`: anybody.
    #[n(0)]
    Anybody,
    /// These accounts, on any chain of the grant's assets, and those on the lists.
    #[n(1)]
    Only {
        /// Named one by one.
        #[n(0)]
        accounts: BTreeSet<Payee>,
        /// By list: `@payees.x402`.
        #[n(1)]
        lists: BTreeSet<ListId>,
    },
}

/// Denies whatever matches all that it states.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DenyRule {
    /// Empty: any key.
    #[n(0)]
    pub keys: BTreeSet<KeyName>,
    /// Empty: any principal.
    #[n(1)]
    pub principals: BTreeSet<PrincipalPattern>,
    /// Empty: any action.
    #[n(2)]
    pub actions: Actions,
    /// Empty: any asset, and what has none.
    #[n(3)]
    pub assets: BTreeSet<AssetId>,
    /// `None`: any payee, and what has none.
    #[n(4)]
    pub to: Option<Payees>,
}

/// A grant: the only way to allow.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Grant {
    /// The key that signs.
    #[n(0)]
    pub key: KeyName,
    /// The paths below it.
    #[n(1)]
    pub path: PathPattern,
    /// Who may ask.
    #[n(2)]
    pub principals: BTreeSet<PrincipalPattern>,
    /// What may be done.
    #[n(3)]
    pub allow: Actions,
    /// Of what; empty for messages and raw hashes. For actions that move nothing that is counted
    /// (a contract's creation, any other call), the native assets of the chains where they may be
    /// done.
    #[n(4)]
    pub assets: BTreeSet<AssetId>,
    /// To whom; `None` for what has no payee.
    #[n(5)]
    pub to: Option<Payees>,
    /// Most that one signature may move, in base units.
    #[n(6)]
    pub max_per_tx: Option<Amount>,
    /// Over windows of time.
    #[n(7)]
    pub limits: BTreeSet<Limit>,
    /// Most that one transaction may cost, by native asset.
    #[n(8)]
    pub max_fee_per_tx: BTreeMap<AssetId, Amount>,
    /// Sums of fees over windows of time, by native asset.
    #[n(9)]
    pub fee_limits: BTreeMap<AssetId, BTreeSet<FeeLimit>>,
    /// When in the day.
    #[n(10)]
    pub hours: Option<Hours>,
    /// How long from now an authorization may still be valid.
    #[n(11)]
    pub valid_for_max: Option<Millis>,
    /// From when on it allows anything.
    #[n(12)]
    pub not_before: Option<UnixMillis>,
    /// From when on it allows nothing.
    #[n(13)]
    pub expires: Option<UnixMillis>,
    /// By amount, ascending; empty: no approvals are needed.
    #[n(14)]
    pub tiers: Vec<Tier>,
    /// Said aloud where there is no `sum` limit.
    #[n(15)]
    pub unlimited: bool,
}

impl Grant {
    /// Whether a principal of this id may ask.
    #[must_use]
    pub fn admits(&self, principal: &PrincipalId) -> bool {
        self.principals.iter().any(|p| p.matches(principal))
    }
    /// Whether it covers this key's path.
    #[must_use]
    pub fn covers_path(&self, path: &DerivationPath) -> bool {
        self.path.matches(path)
    }
}

/// A limit over any interval of a window's length. It counts *every* charge of its scope,
/// whichever grant allowed it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct Limit {
    /// How much.
    #[n(0)]
    pub cap: Cap,
    /// The window's length.
    #[n(1)]
    pub window: Millis,
    /// Its scope.
    #[n(2)]
    pub per: Per,
    /// The name under which several grants share it.
    #[n(3)]
    pub shared: Option<ListId>,
}

/// What a limit caps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Cap {
    /// The sum of amounts, in base units.
    #[n(0)]
    Sum(#[n(0)] Amount),
    /// The number of signatures.
    #[n(1)]
    Count(#[n(0)] u64),
}

/// Which charges a limit counts. Without `shared`: those of the grant's key in the one asset that
/// is asked for. With `shared`: those of every (key, asset) of the grants that share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Per {
    /// Of these, all together; the default of shared limits, and only theirs.
    #[n(0)]
    Group,
    /// Of these, those of the same key; the default of limits that are not shared.
    #[n(1)]
    Key,
    /// Of these, those of the same key and path: one wallet.
    #[n(2)]
    Path,
    /// Of these, those that the same principal asked for.
    #[n(3)]
    Principal,
}

impl Per {
    /// The name used in policies; [`Self::Group`] is what a shared limit is when it says nothing.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Key => "key",
            Self::Path => "path",
            Self::Principal => "principal",
        }
    }
}

/// A limit on the sum of fees over any interval of a window's length: fees in one native asset,
/// of the same key, path or principal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct FeeLimit {
    /// Base units of the native asset.
    #[n(0)]
    pub sum: Amount,
    /// The window's length.
    #[n(1)]
    pub window: Millis,
    /// Its scope; never [`Per::Group`].
    #[n(2)]
    pub per: Per,
}

/// Hours of the day in UTC, from a minute to before another; they wrap midnight where the first
/// is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hours {
    /// Minute of the day, 0 to 1439, included.
    #[n(0)]
    pub from: u16,
    /// Minute of the day, 1 to 1440, excluded.
    #[n(1)]
    pub to: u16,
}

/// What a signature up to an amount needs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Tier {
    /// Largest amount of this tier, in base units.
    #[n(0)]
    pub upto: Amount,
    /// Approvals by people.
    #[n(1)]
    pub approvals: Option<Approvals>,
    /// How long after the request was first seen it may be signed.
    #[n(2)]
    pub delay: Option<Millis>,
}

/// Approvals by distinct people of a list, none of them the requester: `"3 of @treasurers"`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Approvals {
    /// How many.
    #[n(0)]
    pub needed: u32,
    /// Of which list.
    #[n(1)]
    pub of: ListId,
    /// Whether each must be given with a passkey.
    #[n(2)]
    pub passkey: bool,
}
