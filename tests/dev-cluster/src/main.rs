//! `casemate-dev`: a local cluster and the demo.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use casemate_dev::demo::{DemoError, Mode, Options, Tell, run, run_images, run_refusal};
use casemate_dev::processes::process::Ending;
use casemate_dev::processes::up::{Wanted, up};
use casemate_dev::processes::{Guests, Part, Program, control, enclave, machine, parent};
use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(name = "casemate-dev", version, about = "A local Casemate cluster, and what it does.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the main job: payments signed and denied, nodes lost and back, an attack, the audit.
    ///
    /// Starts a cluster of processes, an enclave and a parent for each node, with keys that the nodes
    /// generate among themselves and that are gone when it ends. Goes through seven steps. Exits with 0
    /// only if every check holds.
    Demo(DemoArgs),
    /// Start a cluster of processes in a folder, and stay with it until Ctrl-C.
    ///
    /// Security modules and vsock are simulated; everything else is what is deployed. Governance confirms
    /// the genesis and sets a policy, so that keys can be made. Writes `cluster.json`, which is what
    /// `casemate --cluster` takes.
    Up(UpArgs),
    /// Stop the cluster in a folder.
    Down(DirArgs),
    /// Stop or start one node of a cluster.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Show the main job through enclave images in emulated machines, each with a parent of its own.
    ///
    /// Exits with 0 only if every check holds. `tests/qemu/run` builds what it needs and calls it.
    Images(ImagesArgs),
    /// Boot images that must not become a cluster, and see that each refuses.
    ///
    /// Exits with 0 when the enclaves' consoles have a line with these words, and no cluster was born.
    Refusal(RefusalArgs),
    /// Make a simulated root, for images to be built under that run in emulated machines.
    Root(RootArgs),
    /// The enclave of a node: what `up` starts.
    #[command(hide = true)]
    Enclave(EnclaveArgs),
    /// The parent of a node: what `up` starts.
    #[command(hide = true)]
    Parent(ParentArgs),
    /// The operator's tool, as `casemate` is: for tests of clusters that are run by its commands.
    #[command(hide = true, disable_help_flag = true)]
    Casemate {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Args)]
struct ClusterArgs {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: u16,
    /// How many of them must sign; more than half of them if not said.
    #[arg(long, value_name = "T")]
    threshold: Option<u16>,
}

impl ClusterArgs {
    fn options(&self, store: Option<PathBuf>) -> Result<Options, DemoError> {
        let majority = (self.nodes / 2).saturating_add(1);
        Options::new(self.nodes, self.threshold.unwrap_or(majority), store)
    }
}

#[derive(Args)]
struct DemoArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Print the report as JSON, and nothing else, on standard output.
    #[arg(long)]
    json: bool,
    /// Leave the auditor's store in this folder, which must be empty or new.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Run the nodes as threads of this process: without processes, sockets and attested channels, and
    /// without the parts that need them.
    #[arg(long)]
    in_process: bool,
}

#[derive(Args)]
struct ImagesArgs {
    #[command(flatten)]
    guests: GuestArgs,
    /// Where the cluster's folder goes, with consoles and logs: new or empty. It stays.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Leave the auditor's store in this folder, which must be empty or new.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

#[derive(Args)]
struct GuestArgs {
    /// Enclaves are this image, as `casemate-eif build` made it, in emulated machines.
    #[arg(long, value_name = "DIR", requires_all = ["root", "tools"])]
    image: Option<PathBuf>,
    /// The root that the image was built under, with its secret key: `root.der` of `casemate-dev root`.
    #[arg(long, value_name = "FILE", requires = "image")]
    root: Option<PathBuf>,
    /// QEMU and its vsock device, as `tests/qemu/tools.sh` leaves them.
    #[arg(long, value_name = "DIR", requires = "image")]
    tools: Option<PathBuf>,
    /// Memory of each machine in MiB.
    #[arg(long, value_name = "MIB", requires = "image")]
    memory: Option<u32>,
    /// How many times as long as processes such machines are waited for.
    #[arg(long, value_name = "TIMES", requires = "image")]
    patience: Option<u32>,
    /// How long a round trip between two such nodes may be said to take.
    #[arg(long, value_name = "MS", requires = "image")]
    round_trip_ms: Option<u64>,
    /// Leave QEMU's security module as it is: it signs no documents, and no cluster comes about.
    #[arg(long, requires = "image")]
    unsigned: bool,
}

impl GuestArgs {
    fn guests(&self) -> Result<Option<Guests>, DemoError> {
        let (Some(image), Some(root), Some(tools)) = (&self.image, &self.root, &self.tools) else {
            return Ok(None);
        };
        let usual = Guests::new(image, root, tools)?;
        Ok(Some(Guests {
            memory: self.memory.unwrap_or(usual.memory),
            patience: self.patience.unwrap_or(usual.patience).max(1),
            round_trip_ms: self.round_trip_ms.unwrap_or(usual.round_trip_ms),
            signs: !self.unsigned,
            ..usual
        }))
    }
}

#[derive(Args)]
struct RefusalArgs {
    #[command(flatten)]
    guests: GuestArgs,
    /// Where the cluster's folder goes, with consoles and logs: new or empty. It stays.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Have the manifest say that the nodes are Nitro enclaves under the root of AWS.
    #[arg(long)]
    claims_nitro: bool,
    /// What the enclaves are to say.
    #[arg(long, value_name = "WORDS")]
    says: String,
    /// On how many consoles of three. A node that dials no other sees nobody's document: those that dial it
    /// refuse its own first.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    consoles: u8,
}

#[derive(Args)]
struct RootArgs {
    /// Where `root.der` and `root.pem` go.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Args)]
struct DirArgs {
    /// The cluster's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Args)]
struct UpArgs {
    /// The cluster's folder, which must be empty or new.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Remove a stopped cluster that is in the folder, and with it what its nodes sealed.
    #[arg(long)]
    fresh: bool,
    /// Have the demo's keys generated as well: agent-7, agent-9, payout, treasury and notary.
    #[arg(long)]
    keys: bool,
    /// Use the ports from this one on, two for each node, instead of any that are free.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    first_port: Option<u16>,
    /// Leave the cluster running and end when it is ready.
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    guests: GuestArgs,
}

#[derive(Subcommand)]
enum NodeCommand {
    /// Stop a node. Its key shares are gone with its enclave's memory, until it is started again.
    Stop {
        #[command(flatten)]
        node: NodeArgs,
        /// Kill it, so that it learns nothing of it.
        #[arg(long)]
        kill: bool,
    },
    /// Start a node, and wait until it serves: until the others have admitted it and it has its shares.
    Start {
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Args)]
struct NodeArgs {
    /// The cluster's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The node.
    #[arg(long, value_name = "NAME")]
    node: String,
    /// Only one of its two processes.
    #[arg(long, value_name = "PART")]
    only: Option<OnlyPart>,
}

impl NodeArgs {
    fn part(&self) -> Option<Part> {
        self.only.map(|only| match only {
            OnlyPart::Enclave => Part::Enclave,
            OnlyPart::Parent => Part::Parent,
        })
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum OnlyPart {
    Enclave,
    Parent,
}

#[derive(Args)]
struct EnclaveArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    node: String,
    /// End when standard input does.
    #[arg(long)]
    while_stdin: bool,
}

#[derive(Args)]
struct ParentArgs {
    #[arg(long)]
    config: PathBuf,
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// End when standard input does.
    #[arg(long)]
    while_stdin: bool,
}

/// Progress goes to standard error, the story to standard output unless that is for JSON.
struct Terminal {
    json: bool,
    since: Instant,
}

impl Terminal {
    fn new(json: bool) -> Self {
        Self { json, since: Instant::now() }
    }
}

impl Tell for Terminal {
    fn progress(&mut self, line: &str) {
        // where both streams are one terminal, the story itself shows at which step it is
        if line.starts_with("step ") && !self.json && std::io::stdout().is_terminal() {
            return;
        }
        err(&format!("{} {line}", seconds(self.since.elapsed())));
    }
    fn say(&mut self, line: &str) {
        if !self.json {
            out(line);
        }
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // help and version come as errors too, and are none
            let code = if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            return if error.print().is_ok() { code } else { ExitCode::FAILURE };
        }
    };
    if let Command::Casemate { arguments } = cli.command {
        return casemate_cli::run([OsString::from("casemate")].into_iter().chain(arguments));
    }
    match command(cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            err(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether everything that was to hold does.
fn command(command: Command) -> Result<bool, DemoError> {
    let mut terminal = Terminal::new(false);
    match command {
        Command::Demo(args) => return demo(args),
        Command::Up(args) => {
            let wanted = Wanted {
                options: args.cluster.options(None)?,
                dir: args.dir,
                fresh: args.fresh,
                first_port: args.first_port,
                keys: args.keys,
                detach: args.detach,
                guests: args.guests.guests()?,
            };
            up(&wanted, Program::current()?, &mut terminal)?;
        }
        Command::Down(args) => control::down(&args.dir, &mut terminal)?,
        Command::Node(NodeCommand::Stop { node, kill }) => {
            let ending = if kill { Ending::Kill } else { Ending::Stop };
            control::stop_node(&node.dir, &node.node, node.part(), ending, &mut terminal)?;
        }
        Command::Node(NodeCommand::Start { node }) => {
            let program = Program::current()?;
            control::start_node(&node.dir, &node.node, node.part(), &program, &mut terminal)?;
        }
        Command::Images(args) => return images(&args),
        Command::Refusal(args) => {
            let guests = Guests { claims_nitro: args.claims_nitro, ..given(&args.guests)? };
            let wanted = (args.says.as_str(), usize::from(args.consoles));
            run_refusal(guests, Program::current()?, &args.dir, wanted, &mut terminal)?;
        }
        Command::Root(args) => machine::make_root(&args.out)?,
        // a program of its own, which ran already
        Command::Casemate { .. } => return Ok(false),
        Command::Enclave(args) => enclave::run(&args.dir, &args.node, args.while_stdin)?,
        Command::Parent(args) => {
            parent::run(&args.config, args.pid_file.as_deref(), args.while_stdin)?;
        }
    }
    Ok(true)
}

fn demo(args: DemoArgs) -> Result<bool, DemoError> {
    let options = args.cluster.options(args.store)?;
    let mode = if args.in_process { Mode::InProcess } else { Mode::Processes(Program::current()?) };
    let mut terminal = Terminal::new(args.json);
    let report = run(&options, &mode, &mut terminal)?;
    let failed: Vec<_> = report.checks.iter().filter(|check| !check.ok).collect();
    if args.json {
        out(&serde_json::to_string_pretty(&report)?);
    } else {
        let (checks, took) = (report.checks.len(), terminal.since.elapsed());
        out(&format!(
            "\n{checks} checks, {} failed, {} s",
            failed.len(),
            seconds(took).trim_start()
        ));
    }
    for check in &failed {
        err(&format!("failed: {}", check.name));
    }
    Ok(failed.is_empty())
}

fn given(args: &GuestArgs) -> Result<Guests, DemoError> {
    args.guests()?.ok_or(DemoError::Missing { what: "option", name: "--image".to_owned() })
}

fn images(args: &ImagesArgs) -> Result<bool, DemoError> {
    let mut terminal = Terminal::new(false);
    let guests = given(&args.guests)?;
    let store = args.store.as_deref();
    let checks = run_images(guests, Program::current()?, &args.dir, store, &mut terminal)?;
    let failed: Vec<_> = checks.iter().filter(|check| !check.ok).collect();
    let took = terminal.since.elapsed();
    out(&format!(
        "\n{} checks, {} failed, {} s",
        checks.len(),
        failed.len(),
        seconds(took).trim_start()
    ));
    for check in &failed {
        err(&format!("failed: {}", check.name));
    }
    Ok(failed.is_empty())
}

fn seconds(time: Duration) -> String {
    format!("{:>4}.{}", time.as_secs(), time.subsec_millis() / 100)
}

// a reader that has gone away (`| head`) wants no more of it, and that is no reason to stop

fn out(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn err(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
