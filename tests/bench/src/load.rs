//! What signatures cost the whole system.
//!
//! ```text
//! settled ── N signatures asked for, k at a time ── settled again
//!    └────────── CPU time of all enclaves and parents ──────┘   − what they use idle in that time
//! ```
//!
//! Settled is a full stock of triples: every pair that a signature used up is made anew, and counted,
//! before the time ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use casemate_client::request::Asked;
use casemate_client::{Client, ClientError, Credential, Outcome, SignOptions};
use casemate_proto::{GenesisId, Scheme};
use tokio::task::JoinSet;

use crate::cluster::Memory;
use crate::cluster::{Asks, Cluster};
use crate::figures::{Hundredths, Within, each};
use crate::{BenchError, scheme};

/// How long one signature may take: on a busy machine, sixteen at a time, the last waits for the
/// triples of all.
const DEADLINE: Duration = Duration::from_secs(120);

/// What a number of signatures took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// How many.
    pub signatures: u32,
    /// How many were asked for at one time.
    pub at_once: u32,
    /// User and system time of all enclaves and parents from the first request until everything has
    /// settled.
    pub cpu: Duration,
    /// How long that was.
    pub time: Duration,
    /// How long it was until the last signature.
    pub signing: Duration,
    /// How many pairs of triples were made meanwhile.
    pub pairs: u64,
    /// How long its client waited for each.
    pub latency: Within,
    /// What enclaves and parents had when the last was signed.
    pub memory: Memory,
}

impl Load {
    /// CPU time of one signature, without what the cluster uses idle.
    #[must_use]
    pub fn each(&self, idle: Duration) -> Duration {
        each(self.cpu.saturating_sub(idle), self.signatures)
    }
    /// Signatures in a second, from the first request to the last signature.
    #[must_use]
    pub fn throughput(&self) -> Option<Hundredths> {
        Hundredths::of(Duration::from_secs(u64::from(self.signatures)), self.signing)
    }
}

impl Cluster {
    /// Has so many signatures made of each scheme, one after the other: connections, attestations and
    /// the allocators' memory are there afterwards.
    ///
    /// # Errors
    /// If one is not given.
    pub fn warm_up(&mut self, signatures: u32) -> Result<(), BenchError> {
        for scheme in scheme::SCHEMES {
            self.sign(scheme, 1, signatures)?;
        }
        self.settle()
    }

    /// Has signatures made and counts what they cost.
    ///
    /// # Errors
    /// If one is not given, or a process is gone.
    pub fn load(
        &mut self,
        scheme: Scheme,
        at_once: u32,
        signatures: u32,
    ) -> Result<Load, BenchError> {
        self.settle()?;
        let (pairs, cpu, since) = (self.pairs_made()?, self.cpu()?, Instant::now());
        let latencies = self.sign(scheme, at_once, signatures)?;
        let (signing, memory) = (since.elapsed(), self.memory()?);
        self.settle()?;
        let (cpu, time) = (self.cpu()?.saturating_sub(cpu), since.elapsed());
        let pairs = self.pairs_made()?.saturating_sub(pairs);
        let none = || BenchError::TooLittle { what: "nothing was signed".to_owned() };
        let latency = Within::of(latencies).ok_or_else(none)?;
        Ok(Load { signatures, at_once, cpu, time, signing, pairs, latency, memory })
    }

    /// Who asks for so many signatures, shared by its clones.
    pub(crate) fn asker(&self, scheme: Scheme, signatures: u32) -> Result<Asker, BenchError> {
        Ok(Asker {
            client: self.client().clone(),
            genesis: self.scope().genesis,
            credential: self.requester()?,
            asks: self.asks(scheme)?,
            left: Arc::new(AtomicU32::new(signatures)),
        })
    }

    pub(crate) fn sign(
        &self,
        scheme: Scheme,
        at_once: u32,
        signatures: u32,
    ) -> Result<Vec<Duration>, BenchError> {
        let asker = self.asker(scheme, signatures)?;
        let signed = self.runtime().block_on(async {
            let mut asking = JoinSet::new();
            for _ in 0..at_once {
                asking.spawn(asker.clone().ask_all());
            }
            let mut latencies = Vec::new();
            while let Some(ended) = asking.join_next().await {
                // the others end with the set
                latencies.extend(ended.map_err(|error| Failed::Task(error.to_string()))??);
            }
            Ok(latencies)
        });
        signed.map_err(|failed: Failed| failed.of(scheme))
    }
}

pub(crate) enum Failed {
    Client(Box<ClientError>),
    Pending,
    Task(String),
}

impl Failed {
    pub(crate) fn of(self, scheme: Scheme) -> BenchError {
        let title = scheme::title(scheme);
        match self {
            Self::Client(error) => BenchError::Sign { scheme: title, error },
            Self::Pending => {
                BenchError::Cluster { what: format!("wants {title} signatures approved") }
            }
            Self::Task(what) => BenchError::Cluster { what: format!("was not asked: {what}") },
        }
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Self::Client(Box::new(error))
    }
}

/// One who asks, one request after the other, as long as some are left.
#[derive(Clone)]
pub(crate) struct Asker {
    client: Client,
    genesis: GenesisId,
    credential: Credential,
    asks: Asks,
    left: Arc<AtomicU32>,
}

impl Asker {
    /// Asks for no more than what is under way.
    pub(crate) fn end(&self) {
        self.left.store(0, Ordering::Relaxed);
    }

    pub(crate) async fn ask_all(self) -> Result<Vec<Duration>, Failed> {
        let mut latencies = Vec::new();
        let options = SignOptions { deadline: DEADLINE, ..SignOptions::default() };
        let one_less = |left: u32| left.checked_sub(1);
        while self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            let asked = Asked::new(&self.genesis, &self.asks.another())?;
            let since = Instant::now();
            match self.client.sign(&asked, &self.credential, &options).await? {
                Outcome::Signed(_) => latencies.push(since.elapsed()),
                Outcome::Pending(_) => return Err(Failed::Pending),
            }
        }
        Ok(latencies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_signature_is_charged_no_idle_time() {
        let load = Load {
            signatures: 10,
            at_once: 1,
            cpu: Duration::from_millis(120),
            time: Duration::from_secs(2),
            signing: Duration::from_secs(1),
            pairs: 10,
            latency: Within { half: Duration::ZERO, most: Duration::ZERO },
            memory: Memory { enclave: 1, parent: 1 },
        };
        assert_eq!(load.throughput().unwrap().to_string(), "10.0");
        assert_eq!(load.each(Duration::from_millis(20)), Duration::from_millis(10));
        // a clock that ticks says so at times
        assert_eq!(load.each(Duration::from_millis(130)), Duration::ZERO);
    }
}
