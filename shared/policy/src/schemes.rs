//! Grants for what a key's scheme cannot sign.
//!
//! A policy names keys and says nothing of their schemes, which the ledger knows. Requests that a
//! scheme cannot sign are denied there (`wrong_scheme`), whatever a grant says; this tells whoever
//! writes the grant before they wonder.

use std::collections::BTreeMap;

use casemate_proto::{KeyName, Scheme};
use casemate_tx::Action;

use crate::{
    lint::{Finding, Severity},
    policy::Policy,
};

/// Looks for grants that allow what their key's scheme never signs. Keys whose scheme is not given
/// are passed over.
#[must_use]
pub fn lint_schemes(policy: &Policy, schemes: &BTreeMap<KeyName, Scheme>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (id, grant) in &policy.doc().grants {
        let Some(scheme) = schemes.get(&grant.key).filter(|s| s.signs_messages_only()) else {
            continue;
        };
        let denied: Vec<String> = grant
            .allow
            .0
            .iter()
            .filter(|action| **action != Action::Message)
            .map(|action| format!("`{}`", action.name()))
            .collect();
        if denied.is_empty() {
            continue;
        }
        let message = format!(
            "key `{}` is {}, which signs messages only: {} is always denied",
            grant.key,
            scheme.name(),
            denied.join(", ")
        );
        found.push(Finding {
            severity: Severity::Error,
            code: "wrong_scheme",
            place: format!("grant[{id}].allow"),
            message,
        });
    }
    found
}
