//! How many round trips lie between a request and its signature.
//!
//! Between the parents goes a network that delays every byte by as much, and nothing else does. One
//! request at a time, to a cluster at rest: what the delay adds to the median latency, divided by what
//! it adds to a ping through the same network, is the number of round trips that are waited for one
//! after the other.
//!
//! Nodes take turns to lead a signature, by the entry's place in the ledger, and which of them leads
//! decides who must be waited for. So latencies are taken over all of them, and their ends are told
//! beside the median.

use std::time::{Duration, Instant};

use casemate_api::header::STAMP_HEADER;
use casemate_api::{Outcome, route};
use casemate_dev::demo::Tell;
use casemate_dev::demo::people::stamp;
use casemate_dev::network::Network;
use casemate_dev::processes::birth::now;
use casemate_door::Answer;
use casemate_proto::Scheme;
use casemate_proto::stamp::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::BenchError;
use crate::cluster::{Cluster, Node};
use crate::figures::{Hundredths, Within, spread};
use crate::scheme::title;

/// Pings of which the median counts.
const PINGS: usize = 11;
/// The pause before a request where no triples are waited for: what the one before left to do is
/// done then.
const REST: Duration = Duration::from_millis(400);
/// How often a request is asked again because leadership moved or a node was busy.
const TRIES: u32 = 8;

/// Where a request was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At the node that leads replication.
    Leader,
    /// At one of the others, in turn.
    Follower,
}

impl At {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Leader, Self::Follower];

    /// As the tables call it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
        }
    }
}

/// An echo behind the same network.
#[derive(Debug)]
pub struct Ping {
    address: std::net::SocketAddr,
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> BenchError {
    move |error| BenchError::System { what, error }
}

impl Ping {
    /// Puts the echo there. It stays until the runtime ends.
    ///
    /// # Errors
    /// If there is no port for it.
    pub fn new(network: &mut Network, runtime: &Runtime) -> Result<Self, BenchError> {
        let address = runtime.block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            let address = network.route(listener.local_addr()?).await?;
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(echo(stream));
                }
            });
            Ok(address)
        });
        address.map(|address| Self { address }).map_err(system("an echo"))
    }

    async fn round_trip(&self) -> std::io::Result<Duration> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut times = Vec::new();
        for _ in 0..PINGS {
            let since = Instant::now();
            stream.write_all(b"ping").await?;
            stream.read_exact(&mut [0; 4]).await?;
            times.push(since.elapsed());
        }
        Ok(spread(times).map_or(Duration::ZERO, |(_, middle, _)| middle))
    }
}

async fn echo(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = [0; 64];
    while let Ok(size) = stream.read(&mut buffer).await {
        match buffer.get(..size) {
            Some(read) if size > 0 && stream.write_all(read).await.is_ok() => {}
            _ => return,
        }
    }
}

/// Latencies of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies {
    scheme: Scheme,
    at: At,
    all: Vec<Duration>,
}

/// What was measured at one distance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    round_trip: Duration,
    latencies: Vec<Latencies>,
}

/// Measures all schemes and places at the distance that the network has now.
///
/// # Errors
/// If a request is not signed.
pub fn measure(
    cluster: &mut Cluster,
    ping: &Ping,
    (schemes, count): (&[Scheme], impl Fn(Scheme) -> u32),
    runtime: &Runtime,
    tell: &mut dyn Tell,
) -> Result<Measured, BenchError> {
    let round_trip = runtime.block_on(ping.round_trip()).map_err(system("a ping"))?;
    let mut latencies = Vec::new();
    for scheme in schemes.iter().copied() {
        for at in At::ALL {
            let mut all = Vec::new();
            for number in 0..count(scheme) {
                all.push(latency(cluster, scheme, at, number)?);
            }
            let middle = spread(all.clone()).map_or(Duration::ZERO, |(_, middle, _)| middle);
            let (scheme_title, place) = (title(scheme), at.title());
            tell.progress(&format!("{scheme_title}, at the {place}: {} ms", middle.as_millis()));
            latencies.push(Latencies { scheme, at, all });
        }
    }
    Ok(Measured { round_trip, latencies })
}

/// The latency of one request to a cluster at rest.
fn latency(
    cluster: &mut Cluster,
    scheme: Scheme,
    at: At,
    number: u32,
) -> Result<Duration, BenchError> {
    let mut last = "no node leads".to_owned();
    for _ in 0..TRIES {
        if scheme == Scheme::EcdsaSecp256k1 {
            cluster.settle()?;
        } else {
            std::thread::sleep(REST);
        }
        let Some(leader) = leader(cluster)? else { continue };
        let node = place(cluster.nodes(), &leader, at, number)?;
        match ask(cluster, &node, scheme)? {
            Ok(took) if self::leader(cluster)?.as_ref() == Some(&leader) => return Ok(took),
            Ok(_) => last = "leadership moved".to_owned(),
            Err(why) => last = why,
        }
    }
    let title = title(scheme);
    Err(BenchError::Cluster { what: format!("did not sign with {title} at rest: {last}") })
}

/// The node that leads replication, where all say the same.
fn leader(cluster: &Cluster) -> Result<Option<String>, BenchError> {
    let ready = cluster.ready()?;
    let mut leaders = ready.iter().map(|node| node.enclave.as_ref()?.leader.as_ref());
    let first = leaders.next().flatten();
    let agreed = first.filter(|first| leaders.all(|leader| leader == Some(*first)));
    Ok(agreed.map(ToString::to_string))
}

fn place(nodes: &[Node], leader: &str, at: At, number: u32) -> Result<Node, BenchError> {
    let fits = |node: &&Node| (node.name == leader) == (at == At::Leader);
    let of_place: Vec<&Node> = nodes.iter().filter(fits).collect();
    let turn = usize::try_from(number).unwrap_or_default().checked_rem(of_place.len());
    let found = turn.and_then(|turn| of_place.get(turn)).map(|node| Node::clone(node));
    found.ok_or_else(|| BenchError::Cluster { what: format!("has no {} to ask", at.title()) })
}

/// Asks one node once, over a connection that is there. How long it took, or why it was not signed.
fn ask(
    cluster: &Cluster,
    node: &Node,
    scheme: Scheme,
) -> Result<Result<Duration, String>, BenchError> {
    let failed = |error| BenchError::Api { node: node.name.clone(), error };
    let body = cluster.asks(scheme)?.another().to_body().into_bytes();
    let scope = cluster.scope();
    let stamp = stamp(&cluster.requester()?, scope, Method::CreateRequest, &body, now())?;
    let header = (STAMP_HEADER, stamp.to_header());
    cluster.runtime().block_on(async {
        node.api.ready().await.map_err(failed)?;
        let since = Instant::now();
        let outcome = node.api.post(route::REQUESTS, header, body).await.map_err(failed)?;
        let took = since.elapsed();
        Ok(match outcome {
            Outcome::Answer(Answer::Signed(_)) => Ok(took),
            Outcome::Answer(other) => Err(format!("{other:?}").chars().take(200).collect()),
            Outcome::Problem(problem) => Err(problem.to_string()),
        })
    })
}

/// Round trips of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trips {
    /// Of which scheme.
    pub scheme: Scheme,
    /// Asked where.
    pub at: At,
    /// The median.
    pub middle: Hundredths,
    /// The fastest request's.
    pub least: Hundredths,
    /// The slowest request's.
    pub most: Hundredths,
    /// The latencies without any delay.
    pub near: Within,
    /// The median latency with the delay.
    pub far: Duration,
}

/// What distance adds, in round trips.
///
/// # Errors
/// If there are not two distances.
pub fn between(measured: &[Measured]) -> Result<Vec<Trips>, BenchError> {
    let too_little = |what: &str| BenchError::TooLittle { what: what.to_owned() };
    let [near, far] = measured else { return Err(too_little("two distances are compared")) };
    let round_trip = far.round_trip.saturating_sub(near.round_trip);
    let mut trips = Vec::new();
    for (near, far) in near.latencies.iter().zip(&far.latencies) {
        let none = || too_little("no latency was taken");
        let (scheme, at) = (far.scheme, far.at);
        let near = Within::of(near.all.clone()).ok_or_else(none)?;
        let (least, far, most) = spread(far.all.clone()).ok_or_else(none)?;
        let of = |latency: Duration| {
            Hundredths::of(latency.saturating_sub(near.half), round_trip)
                .ok_or_else(|| too_little("the network does not delay"))
        };
        let (least, middle, most) = (of(least)?, of(far)?, of(most)?);
        trips.push(Trips { scheme, at, middle, least, most, near, far });
    }
    Ok(trips)
}

#[cfg(test)]
mod tests {
    use casemate_dev::network::Temper;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn measured(round_trip: u64, latencies: &[u64]) -> Measured {
        let all = latencies.iter().copied().map(ms).collect();
        let latencies = vec![Latencies { scheme: Scheme::Ed25519, at: At::Follower, all }];
        Measured { round_trip: ms(round_trip), latencies }
    }

    #[test]
    fn round_trips_are_what_the_distance_adds_over_what_it_adds_to_a_ping() {
        let both = [measured(1, &[30, 20, 25]), measured(81, &[185, 305, 225])];
        let trips = between(&both).unwrap();
        assert_eq!(trips.len(), 1);
        let Trips { least, middle, most, near, far, .. } = trips[0];
        assert_eq!([least, middle, most].map(|trips| trips.0), [200, 250, 350]);
        assert_eq!((near, far), (Within { half: ms(25), most: ms(30) }, ms(225)));
        assert!(between(&[measured(1, &[2]), measured(1, &[2])]).is_err());
        assert!(between(&both[..1]).is_err());
    }

    #[test]
    fn followers_are_asked_in_turn_and_the_leader_only_as_leader() {
        let api = casemate_dev::processes::api::Api::new("http://127.0.0.1:1".to_owned()).unwrap();
        let node = |name: &str| Node { name: name.to_owned(), api: api.clone() };
        let nodes = ["a", "b", "c"].map(node);
        let asked = |at, number| place(&nodes, "b", at, number).unwrap().name;
        assert_eq!([0, 1, 2].map(|number| asked(At::Leader, number)), ["b", "b", "b"]);
        assert_eq!([0, 1, 2].map(|number| asked(At::Follower, number)), ["a", "c", "a"]);
        assert!(place(&nodes[1..2], "b", At::Follower, 0).is_err());
    }

    #[test]
    fn ping_sees_the_distance_both_ways() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut network = Network::new(0, Temper::DEMO);
        let ping = Ping::new(&mut network, &runtime).unwrap();
        network.set_distance(ms(20));
        let round_trip = runtime.block_on(ping.round_trip()).unwrap();
        assert!(round_trip >= ms(40), "{round_trip:?}");
    }
}
