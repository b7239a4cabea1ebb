//! The demo's cluster as threads of this process.

use std::collections::BTreeMap;
use std::time::Duration;

use casemate_client::Scope;
use casemate_ledger::state::RESERVED_PREFIX;
use casemate_proto::manifest::{Governance, Limits, Manifest};
use casemate_proto::time::HOUR;
use casemate_proto::{Hash32, Incarnation, Millis, NodeName, UnixMillis};
use casemate_signer::{self as signer, NodeConfig};

use super::cluster::{Answer, Cosigner, Key, Nodes, Submission, Ticket, read_door};
use super::people::{People, QUORUM};
use super::{DemoError, Options, TAU};
use crate::in_process::{Cluster, ClusterConfig, ClusterError, SystemClock};

/// A cluster in this process, seen from outside.
pub(super) struct InProcess {
    cluster: Cluster,
}

impl InProcess {
    /// Brings one up.
    ///
    /// # Errors
    /// If it does not come up.
    pub(super) fn up(options: &Options, people: &People) -> Result<Self, DemoError> {
        let governance =
            Governance { quorum: QUORUM, keys: people.governors(), loosening_delay: HOUR };
        let config = ClusterConfig {
            nodes: usize::from(options.nodes),
            threshold: u64::from(options.threshold),
            freezers: people.freezers(),
            // a slow machine signs late rather than never
            limits: Limits { tau: TAU, ..Limits::default() },
            node: NodeConfig {
                // what is left of a stock when the demo ends was made for nothing
                triple_stock: 2,
                triple_runs: 2,
                // all nodes share this machine's processors: runs wait for one another, which
                // must not look as if somebody did not answer
                attempt_timeout: Millis(20_000),
                triple_timeout: Millis(120_000),
                keygen_timeout: Millis(120_000),
                ..NodeConfig::default()
            },
            parallel: true,
            ..ClusterConfig::new("demo", governance)
        };
        Ok(Self { cluster: Cluster::up(config, Box::new(SystemClock))? })
    }

    fn name(&self, node: usize) -> Result<NodeName, DemoError> {
        self.cluster
            .names()
            .into_iter()
            .nth(node)
            .ok_or(DemoError::Missing { what: "node", name: node.to_string() })
    }
}

impl Nodes for InProcess {
    fn names(&self) -> Vec<NodeName> {
        self.cluster.names()
    }
    fn threshold(&self) -> u64 {
        self.cluster.genesis().manifest.threshold
    }
    fn manifest(&self) -> Manifest {
        self.cluster.genesis().manifest.clone()
    }
    fn scope(&self) -> Scope {
        Scope { genesis: self.cluster.genesis_id(), incarnation: Incarnation(0) }
    }
    fn now(&self) -> UnixMillis {
        self.cluster.now()
    }

    fn submit(&mut self, node: usize, what: Submission) -> Result<Ticket, DemoError> {
        let node = self.name(node)?;
        let submission = match what {
            Submission::Request { stamp, body } => signer::Submission::Request { stamp, body },
            Submission::Approval { body, proof } => signer::Submission::Approval { body, proof },
            Submission::Governance { signed, attachment } => {
                signer::Submission::Governance { signed, attachment }
            }
        };
        Ok(Ticket(self.cluster.submit(&node, submission)?.0))
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Answer, DemoError> {
        match self.cluster.wait(signer::Ticket(ticket.0)) {
            Ok(answer) => read_door(answer),
            Err(ClusterError::Lost { .. }) => {
                let reason = "the node was stopped".to_owned();
                Ok(Answer::Busy { reason, retry_after: Millis(0) })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn stop(&mut self, node: usize) -> Result<(), DemoError> {
        let node = self.name(node)?;
        Ok(self.cluster.stop_node(&node)?)
    }

    fn work(&mut self, time: Millis) {
        let until = self.now().saturating_add(time);
        while self.now() < until {
            if !self.cluster.pump() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn change_head(&mut self) -> Result<Hash32, DemoError> {
        Ok(self.cluster.any_state().ok_or(DemoError::NoNode)?.change_head())
    }

    fn keys(&mut self) -> Result<Vec<Key>, DemoError> {
        let state = self.cluster.any_state().ok_or(DemoError::NoNode)?;
        let keys = state.keys().iter().filter_map(|(name, key)| {
            let own = name.as_str().starts_with(RESERVED_PREFIX);
            let live = key.live.as_ref().filter(|_| !own)?;
            Some(Key {
                name: name.clone(),
                scheme: key.scheme,
                public_key: live.public_key.clone(),
                epoch: live.epoch,
            })
        });
        Ok(keys.collect())
    }

    fn cosigners(&mut self) -> Result<Vec<Cosigner>, DemoError> {
        let keys = self.cluster.names().into_iter().zip(self.cluster.cosigners());
        Ok(keys.map(|(node, key)| Cosigner { node, key }).collect())
    }

    fn store(&mut self) -> Result<BTreeMap<String, Vec<u8>>, DemoError> {
        Ok(self.cluster.store()?.clone())
    }
}
