//! The description of a cluster: TOML for people, in which every field says what is wrong with it.

use casemate_attestation_verify::Pcr;
use casemate_proto::manifest::{
    Governance, Hardware, Independence, Limits, Manifest, Measurement, NodeSpec, RecoveryKeys,
};
use casemate_proto::recovery::RecoveryPublicKey;
use casemate_proto::webauthn::RelyingParty;
use casemate_proto::{Algorithm, Hash32, Millis, NodeName, PublicKey};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireCluster {
    name: String,
    threshold: u64,
    #[serde(default)]
    independence: WireIndependence,
    nodes: Vec<WireNode>,
    governance: WireGovernance,
    #[serde(default)]
    freezers: Vec<WireKey>,
    #[serde(default)]
    limits: WireLimits,
    relying_party: Option<WireRelyingParty>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireIndependence {
    #[default]
    Regions,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireNode {
    name: String,
    region: String,
    role: Option<String>,
    pcr3: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireGovernance {
    quorum: u64,
    loosening_delay: String,
    keys: Vec<WireGovernor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireGovernor {
    algorithm: String,
    public_key: String,
    recovery: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireKey {
    algorithm: String,
    public_key: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireLimits {
    tau: Option<String>,
    delta: Option<String>,
    dead_man: Option<String>,
    max_requests: Option<u64>,
    max_requests_per_credential: Option<u64>,
    max_pending_per_credential: Option<u64>,
    max_denials_per_minute: Option<u64>,
    approval_life: Option<String>,
    request_memory: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRelyingParty {
    id: String,
    origin: String,
}

/// The manifest that a description means. Whether its fields fit each other is asked of the manifest.
pub(super) fn manifest(
    text: &str,
    measurements: Vec<Measurement>,
    hardware: Hardware,
    trust_root: &[u8; 32],
) -> Result<Manifest, String> {
    let wire: WireCluster = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.as_bytes().get(..at).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
        let reason: String = error.message().chars().take(200).collect();
        format!("line {line}: {reason}")
    })?;
    let mut nodes = wire.nodes.into_iter().map(node).collect::<Result<Vec<_>, _>>()?;
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let freezers = wire.freezers.iter().enumerate().map(|(number, freezer)| {
        key(&format!("freezers[{number}]"), &freezer.algorithm, &freezer.public_key)
    });
    let (governance, recovery) = governance(wire.governance)?;
    Ok(Manifest {
        version: 1,
        name: wire.name,
        threshold: wire.threshold,
        nodes,
        measurements,
        governance,
        freezers: freezers.collect::<Result<_, _>>()?,
        limits: limits(wire.limits)?,
        independence: match wire.independence {
            WireIndependence::Regions => Independence::Regions,
            WireIndependence::None => Independence::None,
        },
        hardware,
        trust_root: Hash32::new(*trust_root),
        relying_party: wire
            .relying_party
            .map(|party| RelyingParty { id: party.id, origin: party.origin }),
        recovery,
    })
}

fn node(wire: WireNode) -> Result<NodeSpec, String> {
    let name = NodeName::new(&wire.name).map_err(|error| format!("nodes: {error}"))?;
    let pcr3 = match (&wire.role, &wire.pcr3) {
        (Some(role), None) => {
            // what the instance's role is called by `aws iam get-role`
            if !(role.starts_with("arn:aws") && role.contains(":role/")) {
                return Err(format!(
                    "node `{name}`: `{role}` is not a role, such as \
                     `arn:aws:iam::111122223333:role/casemate`"
                ));
            }
            *Pcr::of_role_arn(role).as_bytes()
        }
        (None, Some(digits)) => {
            pcr(digits).ok_or_else(|| format!("node `{name}`: `pcr3` is 48 bytes of hex"))?
        }
        _ => return Err(format!("node `{name}`: give `role` or `pcr3`, and not both")),
    };
    Ok(NodeSpec { name, region: wire.region, pcr3 })
}

fn pcr(digits: &str) -> Option<[u8; 48]> {
    let mut bytes = [0; 48];
    hex::decode_to_slice(digits.strip_prefix("0x").unwrap_or(digits), &mut bytes).ok()?;
    Some(bytes)
}

fn key(what: &str, algorithm: &str, public_key: &str) -> Result<PublicKey, String> {
    let algorithm = Algorithm::from_name(algorithm)
        .ok_or_else(|| format!("{what}: `{algorithm}` is not `ed25519` or `p256`"))?;
    PublicKey::from_hex(algorithm, public_key).map_err(|error| format!("{what}: {error}"))
}

fn governance(wire: WireGovernance) -> Result<(Governance, Option<RecoveryKeys>), String> {
    let (mut keys, mut recovery) = (Vec::new(), Vec::new());
    for (number, governor) in wire.keys.iter().enumerate() {
        let what = format!("governance.keys[{number}]");
        keys.push(key(&what, &governor.algorithm, &governor.public_key)?);
        if let Some(digits) = &governor.recovery {
            let mut bytes = [0; 32];
            let digits = digits.strip_prefix("0x").unwrap_or(digits);
            let key = hex::decode_to_slice(digits, &mut bytes)
                .ok()
                .and_then(|()| RecoveryPublicKey::new(bytes));
            recovery.push(key.ok_or_else(|| {
                format!("{what}: `recovery` is no X25519 public key: 32 bytes of hex")
            })?);
        }
    }
    let recovery = match recovery.len() {
        0 => None,
        count if count == keys.len() => Some(RecoveryKeys { keys: recovery }),
        count => {
            return Err(format!(
                "governance.keys: {count} of {} have `recovery`; all have one, or none",
                keys.len()
            ));
        }
    };
    let loosening_delay = length("governance.loosening_delay", &wire.loosening_delay)?;
    Ok((Governance { quorum: wire.quorum, keys, loosening_delay }, recovery))
}

fn length(what: &str, text: &str) -> Result<Millis, String> {
    Millis::from_text(text).map_err(|error| format!("{what}: {error}"))
}

fn limits(wire: WireLimits) -> Result<Limits, String> {
    let default = Limits::default();
    let time = |what: &str, text: Option<String>, default: Millis| match text {
        Some(text) => length(&format!("limits.{what}"), &text),
        None => Ok(default),
    };
    let dead_man = wire.dead_man.map(|text| length("limits.dead_man", &text)).transpose()?;
    let count = |value: Option<u64>, default: u64| value.unwrap_or(default);
    Ok(Limits {
        tau: time("tau", wire.tau, default.tau)?,
        delta: time("delta", wire.delta, default.delta)?,
        dead_man,
        max_requests: count(wire.max_requests, default.max_requests),
        max_pending_per_credential: count(
            wire.max_pending_per_credential,
            default.max_pending_per_credential,
        ),
        max_denials_per_minute: count(wire.max_denials_per_minute, default.max_denials_per_minute),
        approval_life: time("approval_life", wire.approval_life, default.approval_life)?,
        request_memory: time("request_memory", wire.request_memory, default.request_memory)?,
        max_requests_per_credential: count(
            wire.max_requests_per_credential,
            default.max_requests_per_credential,
        ),
    })
}

/// An image by its `measurements.json`.
pub(super) fn measurement(text: &str) -> Result<Measurement, String> {
    // PCR8 says who signed the image file; what runs is said by these three
    #[derive(Deserialize)]
    struct Wire {
        #[serde(rename = "HashAlgorithm")]
        algorithm: String,
        #[serde(rename = "PCR0")]
        pcr0: String,
        #[serde(rename = "PCR1")]
        pcr1: String,
        #[serde(rename = "PCR2")]
        pcr2: String,
    }
    let wire: Wire = serde_json::from_str(text).map_err(|error| error.to_string())?;
    // `nitro-cli` writes the second
    if !matches!(wire.algorithm.as_str(), "SHA384" | "Sha384 { ... }") {
        return Err(format!("`{}` is not `SHA384`", wire.algorithm));
    }
    let of = |name: &str, digits: &str| {
        pcr(digits).ok_or_else(|| format!("`{name}` is not 48 bytes of hex"))
    };
    Ok(Measurement {
        pcr0: of("PCR0", &wire.pcr0)?,
        pcr1: of("PCR1", &wire.pcr1)?,
        pcr2: of("PCR2", &wire.pcr2)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../../../docs/examples/cluster/cluster.toml");

    fn image(byte: u8) -> Measurement {
        Measurement { pcr0: [byte; 48], pcr1: [byte; 48], pcr2: [byte; 48] }
    }

    fn built(text: &str) -> Result<Manifest, String> {
        let manifest = manifest(text, vec![image(1)], Hardware::Nitro, &[7; 32])?;
        manifest.check().map_err(|error| error.to_string())?;
        Ok(manifest)
    }

    #[test]
    fn example_is_a_manifest_with_its_nodes_in_order_and_their_roles_as_pcr3() {
        let manifest = built(GOOD).unwrap();
        let names: Vec<&str> = manifest.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["ap-southeast-1", "eu-west-1", "us-east-1"]);
        let role = "arn:aws:iam::111122223333:role/casemate-eu-west-1";
        assert_eq!(manifest.nodes[1].pcr3, *Pcr::of_role_arn(role).as_bytes());
        assert_eq!((manifest.threshold, manifest.governance.quorum), (2, 2));
        assert_eq!(manifest.governance.loosening_delay, Millis(24 * 3_600_000));
        assert_eq!(manifest.limits.tau, Limits::default().tau);
        assert_eq!(manifest.limits.dead_man, Some(Millis(72 * 3_600_000)));
        assert_eq!(manifest.recovery.unwrap().keys.len(), 3);
        assert_eq!(manifest.trust_root.as_bytes(), &[7; 32]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let replaced = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            built(&GOOD.replacen(from, to, 1)).unwrap_err()
        };
        for (from, to, said) in [
            ("threshold = 2", "threshold = 1", "`threshold`"),
            ("threshold = 2", "treshold = 2", "line 4: unknown field `treshold`"),
            ("name = \"eu-west-1\"", "name = \"EU\"", "nodes: "),
            ("arn:aws:iam::111122223333:role/casemate-eu-west-1", "casemate", "is not a role"),
            ("role/casemate-eu-west-1", "role/casemate-us-east-1", "share a region or a role"),
            ("quorum = 2", "quorum = 1", "more than half"),
            ("loosening_delay = \"24h\"", "loosening_delay = \"1 day\"", "loosening_delay: "),
            ("algorithm = \"ed25519\"", "algorithm = \"rsa\"", "governance.keys[0]: `rsa`"),
            ("recovery = \"", "#recovery = \"", "2 of 3 have `recovery`"),
            ("dead_man = \"72h\"", "dead_man = \"0h\"", "limits.dead_man: "),
        ] {
            let error = replaced(from, to);
            assert!(error.contains(said), "{from} → {to}: {error}");
        }
    }

    #[test]
    fn role_and_pcr3_are_one_or_the_other() {
        let role = "role = \"arn:aws:iam::111122223333:role/casemate-eu-west-1\"";
        let pcr3 = format!("pcr3 = \"{}\"", "ab".repeat(48));
        assert_eq!(built(&GOOD.replace(role, &pcr3)).unwrap().nodes[1].pcr3, [0xab; 48]);
        for wrong in ["", &format!("{role}\n{pcr3}"), "pcr3 = \"abab\""] {
            let error = built(&GOOD.replace(role, wrong)).unwrap_err();
            assert!(error.starts_with("node `eu-west-1`: "), "{error}");
        }
    }

    #[test]
    fn measurements_are_read_as_this_builder_and_as_nitro_cli_write_them() {
        let hex = "cd".repeat(48);
        for algorithm in ["SHA384", "Sha384 { ... }"] {
            let text = json(algorithm, &hex, &hex);
            assert_eq!(measurement(&text).unwrap(), image(0xcd));
        }
        for wrong in [json("SHA256", &hex, &hex), json("SHA384", "cd", &hex), "{}".to_owned()] {
            assert!(measurement(&wrong).is_err(), "{wrong}");
        }
    }

    fn json(algorithm: &str, pcr0: &str, others: &str) -> String {
        format!(
            "{{\"HashAlgorithm\":\"{algorithm}\",\"PCR0\":\"{pcr0}\",\"PCR1\":\"{others}\",\
             \"PCR2\":\"{others}\",\"PCR8\":\"{others}\"}}"
        )
    }
}
