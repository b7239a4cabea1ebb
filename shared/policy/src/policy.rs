//! A policy whose every rule was checked, with the indices that keep selection cheap.

use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::{
    AssetId, ChainId, CredentialId, GrantId, Hash32, KeyName, ListId, PrincipalId, PublicKey,
    UnixMillis, cbor, hash::tagged_hash,
};

use crate::{
    error::{PolicyError, PolicyErrors, Problem},
    model::{Asset, AssetKey, Grant, Limit, Payees, PolicyDoc},
    pattern::PrincipalPattern,
    toml_policy, validate,
};

/// Most bytes of a policy's text.
pub const MAX_TOML_BYTES: usize = 16 << 20;
/// Most bytes of a policy's canonical form.
pub const MAX_CANONICAL_BYTES: usize = 16 << 20;

/// A checked policy.
#[derive(Clone, Debug)]
pub struct Policy {
    doc: PolicyDoc,
    hash: Hash32,
    assets: BTreeMap<AssetKey, AssetId>,
    /// Who a credential speaks for.
    credentials: BTreeMap<CredentialId, PrincipalId>,
    /// What each shared limit counts.
    groups: BTreeMap<ListId, Vec<(KeyName, Option<AssetKey>)>>,
    /// Grants by key and principal named exactly, and by key where a prefix names them.
    exact: BTreeMap<KeyName, BTreeMap<PrincipalId, Vec<GrantId>>>,
    prefix: BTreeMap<KeyName, Vec<GrantId>>,
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.doc == other.doc
    }
}
impl Eq for Policy {}

impl Policy {
    /// Checks a policy written as data.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn new(doc: PolicyDoc) -> Result<Self, PolicyErrors> {
        let problems = validate::check(&doc);
        if !problems.is_empty() {
            return Err(PolicyErrors { errors: problems });
        }
        let bytes = cbor::encode(&doc);
        if bytes.len() > MAX_CANONICAL_BYTES {
            let problem =
                Problem::TooMany { what: "bytes", found: bytes.len(), max: MAX_CANONICAL_BYTES };
            let error = PolicyError { line: None, place: String::new(), problem };
            return Err(PolicyErrors { errors: vec![error] });
        }
        let hash = tagged_hash("casemate/policy/v1", &[&bytes]);
        let assets = doc.assets.iter().map(|(id, asset)| (asset.key(), id.clone())).collect();
        let credentials = doc
            .principals
            .iter()
            .flat_map(|(id, keys)| keys.iter().map(move |k| (k.id(), id.clone())))
            .collect();
        let mut policy = Self {
            hash,
            assets,
            credentials,
            groups: BTreeMap::new(),
            exact: BTreeMap::new(),
            prefix: BTreeMap::new(),
            doc,
        };
        policy.index();
        Ok(policy)
    }

    fn index(&mut self) {
        let mut groups: BTreeMap<ListId, BTreeSet<(KeyName, Option<AssetKey>)>> = BTreeMap::new();
        for (id, grant) in &self.doc.grants {
            for name in grant.limits.iter().filter_map(|l| l.shared.as_ref()) {
                groups.entry(name.clone()).or_default().extend(self.pairs(grant));
            }
            let by_principal = self.exact.entry(grant.key.clone()).or_default();
            for pattern in &grant.principals {
                if let PrincipalPattern::Exact(principal) = pattern {
                    by_principal.entry(principal.clone()).or_default().push(id.clone());
                }
            }
            if grant.principals.iter().any(|p| matches!(p, PrincipalPattern::Prefix(_))) {
                self.prefix.entry(grant.key.clone()).or_default().push(id.clone());
            }
        }
        self.groups =
            groups.into_iter().map(|(name, pairs)| (name, pairs.into_iter().collect())).collect();
    }

    /// Every (key, asset) that a grant can charge amounts to.
    pub(crate) fn pairs(&self, grant: &Grant) -> Vec<(KeyName, Option<AssetKey>)> {
        if grant.assets.is_empty() {
            return vec![(grant.key.clone(), None)];
        }
        let assets = grant.assets.iter().filter_map(|id| self.doc.assets.get(id));
        assets.map(|asset| (grant.key.clone(), Some(asset.key()))).collect()
    }

    /// What a limit of a grant counts, asked for this asset.
    pub(crate) fn counted<'a>(
        &'a self,
        limit: &Limit,
        own: &'a [(KeyName, Option<AssetKey>)],
    ) -> &'a [(KeyName, Option<AssetKey>)] {
        match &limit.shared {
            None => own,
            // a checked policy has every group; were one missing, the grant's own pair is counted
            Some(name) => self.groups.get(name).map_or(own, Vec::as_slice),
        }
    }

    /// Parses and checks a policy's text; the format is in this crate's documentation.
    ///
    /// # Errors
    /// All that is wrong with it, each with its line and field.
    pub fn from_toml(text: &str) -> Result<Self, PolicyErrors> {
        toml_policy::read(text)
    }

    /// The policy whose canonical form these bytes are.
    ///
    /// # Errors
    /// If they are no canonical form, or break any rule that a text must keep.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, PolicyErrors> {
        let doc = cbor::decode::<PolicyDoc>(bytes, MAX_CANONICAL_BYTES).map_err(|error| {
            let problem = Problem::Encoding(error);
            PolicyErrors { errors: vec![PolicyError { line: None, place: String::new(), problem }] }
        })?;
        Self::new(doc)
    }

    /// The one form in which it is hashed, signed and stored.
    #[must_use]
    pub fn canonical_bytes(&self) -> Vec<u8> {
        cbor::encode(&self.doc)
    }

    /// The hash of the canonical form, which governance signs.
    #[must_use]
    pub const fn policy_hash(&self) -> Hash32 {
        self.hash
    }

    /// What it says.
    #[must_use]
    pub const fn doc(&self) -> &PolicyDoc {
        &self.doc
    }

    /// Whether it allows nothing any more.
    #[must_use]
    pub fn has_expired(&self, now: UnixMillis) -> bool {
        self.doc.expires.is_some_and(|expires| expires <= now)
    }

    /// Who a credential speaks for, and its key; `None` for one that is not registered.
    #[must_use]
    pub fn credential(&self, id: &CredentialId) -> Option<(&PrincipalId, &PublicKey)> {
        let principal = self.credentials.get(id)?;
        let key = self.doc.principals.get(principal)?.iter().find(|key| key.id() == *id)?;
        Some((principal, key))
    }

    /// An asset of the registry by what it is on its chain.
    #[must_use]
    pub fn asset(&self, key: &AssetKey) -> Option<(&AssetId, &Asset)> {
        self.assets.get_key_value(key).and_then(|(_, id)| self.doc.assets.get_key_value(id))
    }

    /// The native asset of a chain.
    #[must_use]
    pub fn native(&self, chain: &ChainId) -> Option<(&AssetId, &Asset)> {
        self.asset(&AssetKey { chain: chain.clone(), token: None })
    }

    /// The grants of a key that this principal may ask under, in the order of their ids.
    pub(crate) fn grants_for(
        &self,
        key: &KeyName,
        principal: &PrincipalId,
    ) -> Vec<(&GrantId, &Grant)> {
        let exact = self.exact.get(key).and_then(|by| by.get(principal)).into_iter().flatten();
        let prefix = self.prefix.get(key).into_iter().flatten();
        let ids: BTreeSet<&GrantId> = exact.chain(prefix).collect();
        let grants = ids.into_iter().filter_map(|id| self.doc.grants.get_key_value(id));
        grants.filter(|(_, grant)| grant.admits(principal)).collect()
    }

    /// Whether a set of payees has this account on this chain.
    pub(crate) fn pays(
        &self,
        payees: &Payees,
        chain: Option<&ChainId>,
        to: casemate_tx::EvmAddress,
    ) -> bool {
        let to = crate::model::Payee(to);
        match payees {
            Payees::Anybody => true,
            Payees::Only { accounts, lists } => {
                let on_list = |list| {
                    chain
                        .and_then(|chain| self.doc.payees.get(list)?.get(chain))
                        .is_some_and(|set| set.contains(&to))
                };
                accounts.contains(&to) || lists.iter().any(on_list)
            }
        }
    }
}
