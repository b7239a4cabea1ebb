//! Records as JSON Lines for a SIEM, in the Open Cybersecurity Schema Framework.
//!
//! Class *API Activity*: `category_uid` 6 (Application Activity), `class_uid` 6003, activities
//! 1 create, 2 read, 3 update, 4 delete, 99 other; `type_uid` is `class_uid` · 100 + activity;
//! `severity_id` 1 informational, 2 low; `status_id` 1 success, 2 failure, 99 other. Source:
//! github.com/ocsf/ocsf-schema, `events/application/api_activity.json`, version 1.3.0.
//!
//! A line is a copy for people and alarms. It proves nothing: the record that it names does.

use serde_json::{Value, json};

use crate::record::Record;

const VERSION: &str = "1.3.0";
const CLASS: u32 = 6003;

/// What an entry did, in OCSF's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Something new: a signature, a key, an admission.
    Create,
    /// An answer without effect.
    Read,
    /// A change: policy, roster, images.
    Update,
    /// A removal: a credential, a boot.
    Delete,
    /// Anything else.
    Other,
}

impl Activity {
    const fn id(self) -> u32 {
        match self {
            Self::Create => 1,
            Self::Read => 2,
            Self::Update => 3,
            Self::Delete => 4,
            Self::Other => 99,
        }
    }
}

/// How an entry ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Allowed and done.
    Success,
    /// Denied, with the denial's code.
    Denied(String),
    /// Waiting, for approvals or for a delay.
    Pending,
}

/// What the ledger knows of an entry and this crate does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcsfDetail {
    /// What it did.
    pub activity: Activity,
    /// How it ended.
    pub outcome: Outcome,
    /// Who asked.
    pub principal: Option<String>,
    /// The credential that they asked with.
    pub credential: Option<String>,
    /// The client's id of the request.
    pub request: Option<String>,
    /// What it was about: the key's name, mostly.
    pub resource: Option<String>,
}

/// A record as one line of JSON, without the newline.
#[must_use]
pub fn ocsf_line(origin: &str, record: &Record, detail: &OcsfDetail) -> String {
    let fields = record.fields();
    let activity = detail.activity.id();
    let (status, severity, code) = match &detail.outcome {
        Outcome::Success => (1, 1, None),
        Outcome::Denied(code) => (2, 2, Some(code)),
        Outcome::Pending => (99, 1, None),
    };
    let counters: Vec<Value> = fields
        .counters
        .iter()
        .map(|c| json!({ "scope": c.scope, "before": c.before, "after": c.after }))
        .collect();
    let mut line = json!({
        "category_uid": 6,
        "class_uid": CLASS,
        "activity_id": activity,
        "type_uid": CLASS.saturating_mul(100).saturating_add(activity),
        "severity_id": severity,
        "status_id": status,
        "time": fields.time.0,
        "metadata": {
            "version": VERSION,
            "product": { "name": "Casemate", "vendor_name": "Casemate" },
            "uid": format!("{origin}#{}", fields.index),
            "sequence": fields.index,
            "log_name": origin,
        },
        "actor": { "user": {
            "name": detail.principal.as_deref().unwrap_or("none"),
            "credential_uid": detail.credential,
        }},
        "api": { "operation": fields.kind, "request": { "uid": detail.request } },
        // where a request came from is the untrusted host's word, so it is in no record
        "src_endpoint": { "type_id": 0, "name": "not recorded" },
        "unmapped": {
            "leaf_hash": record.leaf_hash(),
            "policy": fields.policy,
            "counters": counters,
        },
    });
    if let Some(object) = line.as_object_mut() {
        if let Some(code) = code {
            object.insert("status_code".to_owned(), json!(code));
        }
        if let Some(resource) = &detail.resource {
            object.insert("resources".to_owned(), json!([{ "name": resource, "type": "key" }]));
        }
    }
    line.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Counter, RecordFields};
    use casemate_proto::{Amount, Hash32, UnixMillis};

    #[test]
    fn denial_is_one_line_with_its_code() {
        let record = Record::new(RecordFields {
            index: 7,
            time: UnixMillis(1_795_165_200_000),
            kind: "request".to_owned(),
            entry: vec![1],
            verdict: vec![2],
            policy: None,
            counters: vec![Counter {
                scope: "a\nb".to_owned(),
                before: Amount::from(1),
                after: Amount::MAX,
            }],
            previous_root: Hash32::new([0; 32]),
        })
        .unwrap();
        let detail = OcsfDetail {
            activity: Activity::Create,
            outcome: Outcome::Denied("limit_exceeded".to_owned()),
            principal: Some("agent:research".to_owned()),
            credential: None,
            request: None,
            resource: Some("agent-7".to_owned()),
        };
        let line = ocsf_line("casemate/ab/0", &record, &detail);
        assert!(!line.contains('\n'));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["type_uid"], 600_301);
        assert_eq!(value["status_id"], 2);
        assert_eq!(value["status_code"], "limit_exceeded");
        assert_eq!(value["actor"]["user"]["name"], "agent:research");
        assert_eq!(value["metadata"]["sequence"], 7);
        assert_eq!(value["unmapped"]["counters"][0]["after"], Amount::MAX.to_string());
        assert_eq!(value["resources"][0]["name"], "agent-7");
    }
}
