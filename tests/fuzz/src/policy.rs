//! Policies, as text and in their canonical form.

use casemate_policy::Policy;

use crate::Target;

/// The targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "policy_toml", run: policy_toml },
    Target { name: "policy_canonical", run: policy_canonical },
];

/// A text that loads is one policy, whose canonical form loads as the same; one that does not has
/// a reason.
pub fn policy_toml(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    match Policy::from_toml(text) {
        Ok(policy) => {
            let again = Policy::from_canonical(&policy.canonical_bytes());
            assert_eq!(again.as_ref(), Ok(&policy), "its canonical form is another");
        }
        Err(errors) => assert!(!errors.errors.is_empty(), "refused without a reason"),
    }
}

/// What loads has these bytes as its one canonical form, and can be looked over.
pub fn policy_canonical(data: &[u8]) {
    let Ok(policy) = Policy::from_canonical(data) else { return };
    assert_eq!(policy.canonical_bytes(), data, "has a second canonical form");
    let now = casemate_proto::UnixMillis(1_795_176_000_000);
    let setting = casemate_policy::bounds::Setting { now, cluster: None };
    assert!(!casemate_policy::bounds(&policy, setting).to_text().is_empty(), "no bounds");
    let _ = casemate_policy::lint(&policy, now);
    assert!(casemate_policy::diff(&policy, &policy).changes.is_empty(), "differs from itself");
}
