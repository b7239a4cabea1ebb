//! The demo's cluster as processes, with a network between them that can turn hostile.

use std::sync::Arc;

use super::people::{People, random};
use super::report::Report;
use super::temporary::Temporary;
use super::{DemoError, Options, Tell, show};
use crate::network::{Network, Temper};
use crate::processes::birth::{Mother, bring_up, regions, route_through, runtime};
use crate::processes::{Home, Plan, Program};

/// Runs the demo on processes. Their folder stays only if something is wrong: then it has the logs.
pub(super) fn run(
    options: &Options,
    program: &Program,
    tell: &mut dyn Tell,
) -> Result<Report, DemoError> {
    let folder = Temporary::new()?;
    let report = within(&folder, options, program, tell);
    let good = report.as_ref().is_ok_and(|report| report.checks.iter().all(|check| check.ok));
    if !good {
        let folder = folder.keep();
        tell.progress(&format!("the nodes' logs are in {}/NODE/*.log", folder.display()));
    }
    report
}

fn within(
    folder: &Temporary,
    options: &Options,
    program: &Program,
    tell: &mut dyn Tell,
) -> Result<Report, DemoError> {
    let (home, _claim) = Home::create(folder.path(), false)?;
    let mut plan = Plan::new(u64::from(options.threshold), &regions(options.nodes), None)?;
    let runtime = runtime()?;
    let seed = u64::from_be_bytes(random());
    let mut network = Network::new(seed, Temper::DEMO);
    route_through(&mut network, &mut plan, &runtime)?;
    let people = People::new()?;
    let mother = Mother {
        home,
        plan,
        program: program.clone(),
        watched: true,
        people: &people,
        network: Some((network, seed)),
        runtime: Arc::clone(&runtime),
        stop: &|| false,
    };
    let mut remote = bring_up(mother, tell)?;
    show(&mut remote, &people, options, tell)
}
