//! The custody report: the five questions that decide whether a signer is custody or theatre,
//! answered from evidence, and from no more than there is.
//!
//! Two rules keep it honest. What was not attested counts as *one* holder with everything else
//! that was not: nothing shows that the two are apart. And a bound on what can be signed is stated
//! together with whom it binds: it does not bind whoever controls enough shares.

use core::fmt;

use casemate_proto::manifest::{Hardware, Independence, Manifest};
use casemate_proto::{GenesisId, Hash32, Incarnation, Millis, NodeName, UnixMillis};
use serde::Serialize;

/// What keeps a share apart from everything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "boundary", rename_all = "snake_case")]
pub enum Boundary {
    /// An enclave whose attestation document was verified.
    Attested {
        /// PCR0 as hex: the image that runs.
        pcr0: String,
        /// When the document was made.
        at: UnixMillisText,
        /// The region that the document itself names, if it does.
        attested_region: Option<String>,
    },
    /// A simulated security module: separate processes, no hardware.
    Simulated,
    /// An enclave image under a simulated security module, whose document was verified under the simulated
    /// root: what runs is known if that root is believed, and no hardware keeps anybody out.
    SimulatedImage {
        /// PCR0 as hex: the image that the document names.
        pcr0: String,
        /// When the document was made.
        at: UnixMillisText,
    },
    /// A part of one process that holds other shares too.
    OneProcess,
    /// An enclave by the manifest's word; its attestation was not verified for this report.
    Unverified,
}

/// A time that prints as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixMillisText(pub UnixMillis);

impl Serialize for UnixMillisText {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

/// One share's holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeCustody {
    /// The node.
    pub name: NodeName,
    /// The region that the manifest gives it.
    pub region: String,
    /// What is known of its boundary.
    #[serde(flatten)]
    pub boundary: Boundary,
}

/// What can be signed at most, as `policy bounds` computes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bounds {
    /// The policy in force.
    pub policy: Hash32,
    /// One sentence for each key, asset and window.
    pub lines: Vec<String>,
}

/// How the owner leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Shares are exported, sealed to the owner's key, after the quorum and the delay.
    Export,
    /// By transfers that the policy allows; shares cannot be exported by this build.
    TransferOnly,
}

/// What the report is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustodyEvidence {
    /// The cluster.
    pub genesis: GenesisId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// How many shares sign.
    pub threshold: usize,
    /// The nodes.
    pub nodes: Vec<NodeCustody>,
    /// What the manifest claims of their independence.
    pub independence: Independence,
    /// How many governors must sign, and of how many.
    pub governance: (usize, usize),
    /// How long a loosening change waits.
    pub loosening_delay: Millis,
    /// How many keys may freeze.
    pub freezers: usize,
    /// Whether there is a policy: without one nothing is signed.
    pub policy_in_force: bool,
    /// What can be signed at most, if it was computed.
    pub bounds: Option<Bounds>,
    /// Whether the nodes seal their shares for the governors.
    pub sealed: bool,
    /// How the owner leaves.
    pub exit: Exit,
}

impl CustodyEvidence {
    /// What a manifest says, for a cluster with a policy in force. Nodes that it says run on Nitro count as unverified: set their
    /// [`NodeCustody::boundary`] from attestation documents that were verified.
    #[must_use]
    pub fn from_manifest(
        manifest: &Manifest,
        genesis: GenesisId,
        incarnation: Incarnation,
        bounds: Option<Bounds>,
        exit: Exit,
    ) -> Self {
        let boundary = match manifest.hardware {
            Hardware::Nitro => Boundary::Unverified,
            Hardware::Simulated => Boundary::Simulated,
            Hardware::OneProcess => Boundary::OneProcess,
        };
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            genesis,
            incarnation,
            threshold: count(manifest.threshold),
            nodes: manifest
                .nodes
                .iter()
                .map(|node| NodeCustody {
                    name: node.name.clone(),
                    region: node.region.clone(),
                    boundary: boundary.clone(),
                })
                .collect(),
            independence: manifest.independence,
            governance: (count(manifest.governance.quorum), manifest.governance.keys.len()),
            loosening_delay: manifest.governance.loosening_delay,
            freezers: manifest.freezers.len(),
            policy_in_force: true,
            bounds,
            sealed: manifest.recovery.is_some(),
            exit,
        }
    }
}

/// One of the five questions, answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The question.
    pub question: &'static str,
    /// The answer in a sentence.
    pub answer: String,
    /// What it rests on, and what limits it.
    pub details: Vec<String>,
}

/// The five answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CustodyReport {
    genesis: GenesisId,
    incarnation: Incarnation,
    threshold: usize,
    nodes: Vec<NodeCustody>,
    /// Shares that one holder has, at most, as far as the evidence shows.
    largest_holding: usize,
    /// Whether the evidence shows that no single holder has enough shares to sign.
    split: bool,
    /// The truth about the hardware, in a few words.
    hardware: &'static str,
    answers: Vec<Answer>,
}

impl CustodyReport {
    /// Answers the five questions.
    #[must_use]
    pub fn new(evidence: &CustodyEvidence) -> Self {
        let largest_holding = largest_holding(&evidence.nodes);
        let split = largest_holding < evidence.threshold;
        let answers = vec![
            who_holds(evidence, largest_holding, split),
            server_alone(evidence, split),
            once_compromised(evidence, split),
            where_it_sits(evidence, split),
            how_to_leave(evidence),
        ];
        Self {
            genesis: evidence.genesis,
            incarnation: evidence.incarnation,
            threshold: evidence.threshold,
            nodes: evidence.nodes.clone(),
            largest_holding,
            split,
            hardware: hardware(&evidence.nodes),
            answers,
        }
    }

    /// The answers, in the order of the questions.
    #[must_use]
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }
    /// Whether the evidence shows that no single holder has enough shares to sign.
    #[must_use]
    pub const fn is_split(&self) -> bool {
        self.split
    }
    /// The truth about the hardware, in a few words.
    #[must_use]
    pub const fn hardware(&self) -> &'static str {
        self.hardware
    }
}

impl fmt::Display for CustodyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cluster {} · incarnation {}", self.genesis, self.incarnation)?;
        writeln!(f, "{} of {} shares sign · {}", self.threshold, self.nodes.len(), self.hardware)?;
        for (number, answer) in (1..).zip(&self.answers) {
            writeln!(f, "\n{number}. {}\n   {}", answer.question, answer.answer)?;
            for detail in &answer.details {
                writeln!(f, "   · {detail}")?;
            }
        }
        Ok(())
    }
}

/// Shares that nothing shows to be apart: all that are not attested count together.
fn largest_holding(nodes: &[NodeCustody]) -> usize {
    let attested = |node: &&NodeCustody| matches!(node.boundary, Boundary::Attested { .. });
    let apart = nodes.iter().filter(attested).count();
    nodes.len().saturating_sub(apart).max(apart.min(1))
}

fn hardware(nodes: &[NodeCustody]) -> &'static str {
    let all = |test: fn(&Boundary) -> bool| nodes.iter().all(|node| test(&node.boundary));
    if nodes.is_empty() {
        "no nodes"
    } else if all(|b| matches!(b, Boundary::Attested { .. })) {
        "every share in an attested enclave"
    } else if all(|b| *b == Boundary::OneProcess) {
        "one process, no hardware"
    } else if all(|b| matches!(b, Boundary::Simulated | Boundary::SimulatedImage { .. })) {
        "simulated security modules, no hardware"
    } else if all(|b| *b == Boundary::Unverified) {
        "attestation not verified for this report"
    } else {
        "not every share in an attested enclave"
    }
}

fn who_holds(evidence: &CustodyEvidence, largest: usize, split: bool) -> Answer {
    let (t, n) = (evidence.threshold, evidence.nodes.len());
    let answer = if split {
        format!("{n} enclaves hold one share each; each is kept apart by its own hypervisor")
    } else if evidence.nodes.iter().all(|node| node.boundary == Boundary::OneProcess) {
        format!(
            "one process, no hardware: one memory holds all {n} shares, with no boundary between them"
        )
    } else {
        format!(
            "{largest} of {n} shares are not shown to be apart from one another, and {t} are enough to sign"
        )
    };
    let mut details: Vec<String> = evidence.nodes.iter().map(describe).collect();
    let mut seen = std::collections::BTreeMap::<&str, Vec<&str>>::new();
    for node in &evidence.nodes {
        seen.entry(&node.region).or_default().push(node.name.as_str());
    }
    for (region, names) in seen.iter().filter(|(_, names)| names.len() > 1) {
        details.push(format!("nodes {} share region {region}", names.join(", ")));
    }
    if evidence.independence == Independence::None {
        details.push("the manifest claims no independence of the nodes".to_owned());
    }
    if evidence.nodes.iter().any(|node| matches!(node.boundary, Boundary::Attested { .. })) {
        details.push("all Nitro enclaves rest on one vendor, in however many regions".to_owned());
    }
    details.push(if evidence.sealed {
        "sealed copies of the shares are files in the folder of each node's parent, and wherever those were copied to: encrypted, and for governors to open"
            .to_owned()
    } else {
        "no copy of a share is kept anywhere: with the last enclaves that hold enough, a key is gone"
            .to_owned()
    });
    Answer {
        question: "who holds each share, and what boundary lies between them?",
        answer,
        details,
    }
}

fn describe(node: &NodeCustody) -> String {
    let (name, region) = (&node.name, &node.region);
    match &node.boundary {
        Boundary::Attested { pcr0, at, attested_region } => {
            let place = match attested_region {
                Some(attested) => format!("in {attested} by its own attestation"),
                None => format!("in {region} by the manifest's word"),
            };
            format!("{name}: an enclave {place}, attested {}, PCR0 {pcr0}", at.0)
        }
        Boundary::Simulated => {
            format!("{name}: a simulated module; whoever runs its machine can read the share")
        }
        Boundary::SimulatedImage { pcr0, at } => format!(
            "{name}: an image under a simulated module, attested {}, PCR0 {pcr0}; whoever runs its machine \
             can read the share",
            at.0
        ),
        Boundary::OneProcess => {
            format!("{name}: in one process with others; whoever runs it can read the share")
        }
        Boundary::Unverified => {
            format!("{name}: an enclave in {region} by the manifest's word, not verified")
        }
    }
}

fn server_alone(evidence: &CustodyEvidence, split: bool) -> Answer {
    let t = evidence.threshold;
    let api = format!(
        "it holds a credential to ask with and no share; {t} nodes each decode and judge the request, and each contributes its share only for a recorded entry that it allows itself"
    );
    let (answer, limit) = if split {
        ("no".to_owned(), None)
    } else {
        (
            "not through the request interface; but whoever controls the machine that holds the shares can, and if the application server runs there, it can".to_owned(),
            Some("no evidence shows a boundary that would keep that machine out".to_owned()),
        )
    };
    Answer {
        question: "can the application server sign alone?",
        answer,
        details: [api].into_iter().chain(limit).collect(),
    }
}

fn once_compromised(evidence: &CustodyEvidence, split: bool) -> Answer {
    let (t, n) = (evidence.threshold, evidence.nodes.len());
    let mut details = Vec::new();
    let answer = match &evidence.bounds {
        _ if !evidence.policy_in_force => "nothing: no policy is in force".to_owned(),
        None => "not computed: no bounds were given for this report".to_owned(),
        Some(bounds) if bounds.lines.is_empty() => {
            "nothing: no grant of the policy in force allows anything".to_owned()
        }
        Some(bounds) => {
            details.extend(bounds.lines.iter().cloned());
            "with every credential and every host, at most what the policy's bounds say".to_owned()
        }
    };
    if let Some(bounds) = &evidence.bounds {
        details.push(format!("under policy {}", bounds.policy));
    }
    if split {
        for broken in 1..t {
            let honest = n.saturating_sub(broken);
            let factor = honest.checked_div(t.saturating_sub(broken)).unwrap_or(0);
            details.push(format!(
                "with {broken} of the enclaves broken too: {factor} times that in a window"
            ));
        }
    } else {
        details.push(
            "the bounds bind whoever has credentials and the network; they do not bind whoever controls the machine that holds the shares".to_owned(),
        );
    }
    Answer { question: "what can it sign once fully compromised?", answer, details }
}

fn where_it_sits(evidence: &CustodyEvidence, split: bool) -> Answer {
    let (t, n) = (evidence.threshold, evidence.nodes.len());
    let (k, m) = evidence.governance;
    let answer = if split {
        format!(
            "in {t} of {n} enclaves, and with the {k} of {m} governors who may change what they allow"
        )
    } else {
        format!(
            "with whoever controls the machine that holds the shares, and with the {k} of {m} governors who may change what is allowed"
        )
    };
    let mut details = vec![
        format!("a change that loosens the policy waits {}", evidence.loosening_delay),
        "no role signs past the policy".to_owned(),
    ];
    details.push(match evidence.freezers {
        0 => "nobody is listed who may freeze".to_owned(),
        1 => "one key may freeze".to_owned(),
        freezers => format!("each of {freezers} keys may freeze alone"),
    });
    if evidence.sealed {
        details.push(format!(
            "{k} of the {m} governors' recovery keys and the sealed files of {t} nodes together are every key, past every policy: no key of KMS stands between"
        ));
        details.push(
            "the tools open sealed files in a cold recovery only, in enclaves that a certificate of the governors names"
                .to_owned(),
        );
    }
    if split {
        details.push("whoever runs the instances can stop the service, not sign".to_owned());
    }
    Answer { question: "where does custody sit?", answer, details }
}

fn how_to_leave(evidence: &CustodyEvidence) -> Answer {
    let (k, m) = evidence.governance;
    let delay = evidence.loosening_delay;
    let (answer, details) = match evidence.exit {
        Exit::Export => (
            format!(
                "by export: after {k} of {m} governors and {delay}, each node seals its share to the owner's key"
            ),
            vec!["the whole key then exists on the owner's machine, and only there".to_owned()],
        ),
        Exit::TransferOnly => (
            "by transfers that the policy allows; shares cannot be exported by this build"
                .to_owned(),
            vec![format!("{k} of {m} governors can allow a transfer of everything, after {delay}")],
        ),
    };
    Answer { question: "how does the owner leave?", answer, details }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attested(region: Option<&str>) -> Boundary {
        Boundary::Attested {
            pcr0: "0xaa".to_owned(),
            at: UnixMillisText(UnixMillis(1_795_165_200_000)),
            attested_region: region.map(str::to_owned),
        }
    }

    fn evidence(boundaries: [Boundary; 3]) -> CustodyEvidence {
        let names = ["a", "b", "c"];
        CustodyEvidence {
            genesis: GenesisId::new([1; 32]),
            incarnation: Incarnation(0),
            threshold: 2,
            nodes: names
                .into_iter()
                .zip(boundaries)
                .map(|(name, boundary)| NodeCustody {
                    name: NodeName::new(name).unwrap(),
                    region: format!("region-{name}"),
                    boundary,
                })
                .collect(),
            independence: Independence::Regions,
            governance: (2, 3),
            loosening_delay: Millis(3_600_000),
            freezers: 2,
            policy_in_force: true,
            bounds: Some(Bounds {
                policy: Hash32::new([2; 32]),
                lines: vec!["agent-7: at most 200.00 USDC in any 24h".to_owned()],
            }),
            sealed: false,
            exit: Exit::TransferOnly,
        }
    }

    #[test]
    fn one_process_is_called_one_process() {
        let report = CustodyReport::new(&evidence([const { Boundary::OneProcess }; 3]));
        assert!(!report.is_split());
        assert_eq!(report.hardware(), "one process, no hardware");
        let text = report.to_string();
        assert!(text.contains("one process, no hardware: one memory holds all 3 shares"), "{text}");
        assert!(text.contains("they do not bind whoever controls the machine"), "{text}");
        assert!(!text.contains("hypervisor"), "{text}");
        assert!(!text.contains("attested 2"), "{text}");
        assert_eq!(report.answers().len(), 5);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["nodes"][0]["boundary"], "one_process");
        assert_eq!(json["largest_holding"], 3);
    }

    #[test]
    fn three_attested_enclaves_are_split() {
        let boundaries = ["region-a", "region-b", "region-c"].map(|r| attested(Some(r)));
        let report = CustodyReport::new(&evidence(boundaries));
        assert!(report.is_split());
        assert_eq!(report.answers()[1].answer, "no");
        let text = report.to_string();
        assert!(text.contains("with 1 of the enclaves broken too: 2 times that"), "{text}");
        assert!(text.contains("one vendor"), "{text}");
    }

    #[test]
    fn images_under_a_simulated_module_are_named_and_never_apart() {
        let image = Boundary::SimulatedImage {
            pcr0: "ab".repeat(48),
            at: UnixMillisText(UnixMillis(1_795_165_200_000)),
        };
        let report = CustodyReport::new(&evidence([image.clone(), image, Boundary::Simulated]));
        assert!(!report.is_split());
        assert_eq!(report.hardware(), "simulated security modules, no hardware");
        let text = report.to_string();
        assert!(text.contains("3 of 3 shares are not shown to be apart"), "{text}");
        assert_eq!(text.matches(&"ab".repeat(48)).count(), 2, "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["nodes"][0]["boundary"], "simulated_image");
    }

    #[test]
    fn what_is_not_attested_counts_as_one_holder() {
        for (boundaries, split) in [
            ([attested(None), attested(None), Boundary::Unverified], true),
            ([attested(None), Boundary::Simulated, Boundary::Unverified], false),
            ([Boundary::Simulated, Boundary::Simulated, Boundary::Simulated], false),
            ([Boundary::Unverified, Boundary::Unverified, Boundary::Unverified], false),
        ] {
            let report = CustodyReport::new(&evidence(boundaries.clone()));
            assert_eq!(report.is_split(), split, "{boundaries:?}");
            assert_ne!(report.hardware(), "every share in an attested enclave");
        }
    }

    #[test]
    fn where_sealed_shares_are_and_who_could_open_them_is_said() {
        let mut evidence = evidence([attested(None), attested(None), attested(None)]);
        let text = CustodyReport::new(&evidence).to_string();
        assert!(text.contains("no copy of a share is kept anywhere"), "{text}");
        assert!(!text.contains("recovery keys"), "{text}");
        evidence.sealed = true;
        let text = CustodyReport::new(&evidence).to_string();
        assert!(text.contains("in the folder of each node's parent"), "{text}");
        let who = "2 of the 3 governors' recovery keys and the sealed files of 2 nodes together are every key";
        assert!(text.contains(who), "{text}");
        assert!(!text.contains("no copy of a share"), "{text}");
    }

    #[test]
    fn shared_region_and_missing_bounds_are_said() {
        let mut evidence = evidence([attested(None), attested(None), attested(None)]);
        evidence.nodes[1].region = "region-a".to_owned();
        evidence.bounds = None;
        evidence.independence = Independence::None;
        let text = CustodyReport::new(&evidence).to_string();
        assert!(text.contains("nodes a, b share region region-a"), "{text}");
        assert!(text.contains("claims no independence"), "{text}");
        assert!(text.contains("not computed"), "{text}");
        evidence.policy_in_force = false;
        let text = CustodyReport::new(&evidence).to_string();
        assert!(text.contains("nothing: no policy is in force"), "{text}");
    }
}
