//! What Casemate costs beside the cryptography that it must do anyway, and how far apart in round
//! trips a request and its signature are.
//!
//! `cargo bench -p casemate-bench` starts clusters of real processes (`casemate-dev`'s), asks them for
//! signatures over HTTP, and prints ratios: they hold on other machines, where milliseconds do not.
//!
//! ```text
//! cpu      user and system time of all enclaves and parents for one signature
//!          ÷ user and system time of the bare library for the same protocol, in one process
//! trips    what a delay between the parents adds to a request's latency ÷ the round trip
//! restart  how long a node is away that is killed and started again
//! load     signatures a second, latency and memory with so many requests at a time
//! ```
//!
//! Rooms: [`library`] the bare protocols; [`cluster`] a cluster to ask; [`load`] what it costs;
//! [`trips`] how long it takes; [`restart`] a node that comes back; [`cpu`] the one instrument for both sides of a ratio; [`report`] the
//! tables; [`chart`] the drawing.

pub mod chart;
pub mod cluster;
pub mod cpu;
pub mod error;
pub mod figures;
pub mod library;
pub mod load;
pub mod options;
pub mod program;
pub mod report;
pub mod restart;
pub mod scheme;
pub mod trips;

use std::sync::Arc;
use std::time::Duration;

use casemate_dev::demo::Tell;
use casemate_dev::network::{Network, Temper};
use casemate_dev::processes::Program;
use casemate_dev::processes::birth::runtime;
use casemate_proto::Scheme;
use tokio::runtime::Runtime;

use cluster::Cluster;
pub use error::BenchError;
pub use options::{Options, Part};
use report::{Cost, Machine, Report};
use trips::Trips;

/// Does all of it.
///
/// # Errors
/// If a cluster cannot be started or does not sign.
pub fn run(options: &Options, tell: &mut dyn Tell) -> Result<Report, BenchError> {
    let (sizes, machine) = (options.sizes(), Machine::here());
    tell.progress("has `casemate-dev` built, which enclaves and parents are");
    let program = program::built()?;
    let runtime = runtime()?;

    let (mut idle, mut costs) = (None, Vec::new());
    if options.parts.contains(&Part::Load) {
        let mut cluster = Cluster::up(&program, &runtime, None, tell)?;
        tell.progress("warms up");
        cluster.warm_up(sizes.warm_up)?;
        idle = Some(cluster.idle(sizes.idle)?);
        for scheme in &options.schemes {
            costs.push(cost(&mut cluster, *scheme, options, tell)?);
        }
    }
    let (mut trips, mut bare) = (Vec::new(), Vec::new());
    if options.parts.contains(&Part::Latency) {
        for scheme in &options.schemes {
            bare.push((*scheme, library::latency(*scheme)?));
        }
        trips = latencies(&program, &runtime, options, tell)?;
    }
    let mut restart = None;
    if options.parts.contains(&Part::Restart) {
        let mut cluster = Cluster::up(&program, &runtime, None, tell)?;
        let entries = if options.quick { options.entries.min(1_000) } else { options.entries };
        restart = Some(cluster.restart(entries, tell)?);
    }
    let (quick, delay) = (options.quick, options.delay());
    Ok(Report { machine, quick, idle, costs, delay, trips, bare, restart })
}

fn cost(
    cluster: &mut Cluster,
    scheme: Scheme,
    options: &Options,
    tell: &mut dyn Tell,
) -> Result<Cost, BenchError> {
    let (sizes, title) = (options.sizes(), scheme::title(scheme));
    tell.progress(&format!("{title}: the bare library, then the whole system"));
    let mut library = library::measure(scheme, sizes.library)?;
    let mut loads = Vec::new();
    for at_once in &options.concurrency {
        let count = sizes.signatures(scheme, *at_once);
        let load = cluster.load(scheme, *at_once, count)?;
        tell.progress(&format!("{title}: {count} signatures, {at_once} at a time"));
        loads.push(load);
    }
    // before and after: a machine is not as fast at all times
    library = library.and(library::measure(scheme, sizes.library)?);
    Ok(Cost { scheme, library, loads })
}

fn latencies(
    program: &Program,
    runtime: &Arc<Runtime>,
    options: &Options,
    tell: &mut dyn Tell,
) -> Result<Vec<Trips>, BenchError> {
    let sizes = options.sizes();
    let mut network = Network::new(0, Temper::DEMO);
    let ping = trips::Ping::new(&mut network, runtime)?;
    let mut cluster = Cluster::up(program, runtime, Some(&mut network), tell)?;
    tell.progress("warms up");
    cluster.warm_up(sizes.warm_up)?;
    let mut measured = Vec::new();
    for distance in [Duration::ZERO, options.delay()] {
        network.set_distance(distance);
        let millis = distance.as_millis();
        tell.progress(&format!("latency with {millis} ms one way between the parents"));
        let count =
            |scheme| if distance.is_zero() { sizes.near(scheme) } else { sizes.far(scheme) };
        let what = (options.schemes.as_slice(), count);
        measured.push(trips::measure(&mut cluster, &ping, what, runtime, tell)?);
    }
    trips::between(&measured)
}
