//! How long a node is away that ends and starts again, and whether the others sign meanwhile.
//!
//! The ledger is filled with signed requests first, two entries each. Then one node that does not lead is
//! killed, enclave and parent, and started again at once, while signatures are asked for all the time. It is
//! back when it is a member again, which takes the others' admission and the ledger's state from them,
//! and whole when it has its share of every key.

use std::time::{Duration, Instant};

use casemate_dev::demo::Tell;
use casemate_dev::processes::Part;
use casemate_proto::{NodeName, Scheme};
use tokio::task::JoinSet;

use crate::BenchError;
use crate::cluster::Cluster;
use crate::load::Failed;

/// What fills the ledger: the scheme that is made fastest.
const SCHEME: Scheme = Scheme::Ed25519;
/// How many are asked for at a time to fill it, and while the node is away.
const FILLS: u32 = 64;
const ASKS: u32 = 4;
/// Signatures between two looks at the ledger's size.
const LOT: u64 = 2_000;
/// How long a node may be away.
const BACK_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a restart took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Entries in the ledger.
    pub entries: u64,
    /// From the processes' start until the node was a member.
    pub member: Duration,
    /// Until it had its share of every key.
    pub whole: Duration,
    /// Signatures that the others made until then.
    pub signatures: usize,
}

impl Cluster {
    /// Fills the ledger, and restarts a node.
    ///
    /// # Errors
    /// If a signature is not given, or the node does not come back.
    pub fn restart(&mut self, entries: u64, tell: &mut dyn Tell) -> Result<Restart, BenchError> {
        let mut size = self.entries()?;
        while size < entries {
            let wanted = (entries.saturating_sub(size) / 2).clamp(1, LOT);
            self.sign(SCHEME, FILLS, u32::try_from(wanted).unwrap_or(1))?;
            size = self.entries()?;
            tell.progress(&format!("{size} of {entries} entries in the ledger"));
        }
        self.settle()?;
        let entries = self.entries()?;
        let name = self.follower()?;
        let asker = self.asker(SCHEME, u32::MAX)?;
        let mut asking = JoinSet::new();
        for _ in 0..ASKS {
            asking.spawn_on(asker.clone().ask_all(), self.runtime().handle());
        }
        let running = self.remote().running();
        running.kill_node(&name);
        running.start_node(&name, &Part::ALL)?;
        let since = Instant::now();
        let (mut member, mut whole) = (None, None);
        while whole.is_none() {
            if since.elapsed() > BACK_WITHIN {
                let seconds = BACK_WITHIN.as_secs();
                let what = format!("did not have node `{name}` back within {seconds} s");
                return Err(BenchError::Cluster { what });
            }
            std::thread::sleep(LOOK_EVERY);
            // its parent does not answer at first
            let Some(enclave) = self.status(&name) else { continue };
            if enclave.phase == "member" {
                member = member.or_else(|| Some(since.elapsed()));
                if enclave.shares == enclave.keys && enclave.keys > 0 {
                    whole = Some(since.elapsed());
                }
            }
        }
        asker.end();
        let signed = self.runtime().block_on(async {
            let mut count = 0_usize;
            while let Some(ended) = asking.join_next().await {
                let latencies = ended.map_err(|error| Failed::Task(error.to_string()))??;
                count = count.saturating_add(latencies.len());
            }
            Ok::<usize, Failed>(count)
        });
        let signatures = signed.map_err(|failed| failed.of(SCHEME))?;
        let none = Duration::ZERO;
        Ok(Restart {
            entries,
            member: member.unwrap_or(none),
            whole: whole.unwrap_or(none),
            signatures,
        })
    }

    /// How many entries every node has applied.
    fn entries(&self) -> Result<u64, BenchError> {
        let sizes = self.ready()?.into_iter().map(|ready| ready.enclave.map_or(0, |it| it.size));
        Ok(sizes.min().unwrap_or_default())
    }

    /// A node that does not lead.
    fn follower(&self) -> Result<NodeName, BenchError> {
        let ready = self.ready()?;
        let leads = |node: &NodeName| {
            ready
                .iter()
                .any(|of| of.enclave.as_ref().and_then(|it| it.leader.as_ref()) == Some(node))
        };
        let follower = ready.iter().map(|of| &of.node).find(|node| !leads(node));
        let none = || BenchError::Cluster { what: "has no node that does not lead".to_owned() };
        follower.cloned().ok_or_else(none)
    }
}
