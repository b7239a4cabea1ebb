//! Births: which boots echoed which genesis, and who may begin with one.
//!
//! A host may start as many enclaves for a node as it likes, and let any of them talk to any other. What
//! must hold is said of boots: each signs one genesis in its life, and begins with that one only, and
//! only once every boot that it names has signed the same.

use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::manifest::GenesisRecord;
use casemate_proto::{BootId, GenesisId, NodeName};

use super::{Checked, violated};

#[derive(Default)]
pub struct Births {
    /// What each boot signed at its birth.
    echoed: BTreeMap<BootId, Vec<u8>>,
    /// The genesis that each boot began with.
    begun: BTreeMap<BootId, GenesisId>,
}

impl Births {
    /// A boot signs something at its birth.
    pub fn echoes(&mut self, boot: BootId, node: &NodeName, message: &[u8]) -> Checked {
        let first = self.echoed.entry(boot).or_insert_with(|| message.to_vec());
        if first != message {
            violated!("boot {boot} of node `{node}` has echoed two geneses");
        }
        Ok(())
    }

    /// A boot begins with a genesis that it holds for standing.
    pub fn begins(&mut self, boot: BootId, node: &NodeName, genesis: &GenesisRecord) -> Checked {
        let id = genesis.id();
        let roster: Vec<&NodeName> = genesis.manifest.nodes.iter().map(|spec| &spec.name).collect();
        let named: Vec<&NodeName> = genesis.boots.iter().map(|boot| &boot.node).collect();
        if named != roster {
            violated!("genesis {id} names {named:?}, and the roster is {roster:?}");
        }
        if !genesis.boots.iter().any(|record| record.id() == boot && record.node == *node) {
            violated!("boot {boot} of node `{node}` begins with genesis {id}, which names another");
        }
        let echoes: Option<BTreeSet<&Vec<u8>>> =
            genesis.boots.iter().map(|record| self.echoed.get(&record.id())).collect();
        if echoes.is_none_or(|echoes| echoes.len() != 1) {
            violated!("boot {boot} begins with genesis {id}, which not all of its boots echoed");
        }
        // so that no boot serves two clusters
        for record in &genesis.boots {
            if *self.begun.entry(record.id()).or_insert(id) != id {
                violated!("boot {} is of two clusters", record.id());
            }
        }
        Ok(())
    }
}
