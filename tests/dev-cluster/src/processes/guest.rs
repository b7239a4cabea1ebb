//! The enclave as what is deployed: an enclave image, booted in QEMU's `nitro-enclave` machine.
//!
//! Simulated is what stands for AWS: the root, and the chain that its machines get at each start. QEMU
//! loads the image, measures it into PCRs and signs documents over them with the leaf's key
//! (`tests/qemu`). `vhost-device-vsock` is the vsock device: the parent reaches the enclave by a UNIX
//! socket, the enclave reaches the host at that socket's path with `_PORT` behind it.
//!
//! This process starts both for a node, gives the heartbeat of init back, as `nitro-cli` does, and ends
//! with them. The console is its standard output, which is the enclave's log.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use casemate_image::{HEARTBEAT, HEARTBEAT_PORT};
use casemate_proto::manifest::Measurement;
use serde::{Deserialize, Serialize};

use super::home::write;
use super::{DevError, Home, Part, Plan, PlannedNode, machine};

/// How long the vsock device may take to be there.
const DEVICE_WITHIN: Duration = Duration::from_secs(20);
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Most bytes on their way from a guest. A guest sends no larger packet; one of more than 32 KiB comes from
/// newer kernels in several pieces, which this device loses.
const TX_BUFFER: u32 = 16 * 1_024;
/// The first of the guests' vsock numbers: the lower ones have a meaning.
const FIRST_CID: u32 = 4;

/// What the nodes' enclaves are, where they are images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guests {
    /// The image.
    pub image: PathBuf,
    /// PCR0, PCR1 and PCR2 as its builder measured them.
    pub pcrs: [String; 3],
    /// The simulated root with its secret key, under which the image was built.
    pub root: PathBuf,
    /// QEMU, with the machine `nitro-enclave`.
    pub qemu: PathBuf,
    /// The vsock device.
    pub vsock: PathBuf,
    /// Memory of each machine in MiB.
    pub memory: u32,
    /// What the parents say of the longest round trip between nodes: how patient enclaves are with one
    /// another follows from it, and an emulated processor is slow.
    pub round_trip_ms: u64,
    /// How many times as long as processes guests are waited for.
    pub patience: u32,
    /// Whether the security modules sign. QEMU's own does not.
    pub signs: bool,
    /// Whether the manifest says that the nodes are Nitro enclaves under the root of AWS, as a host could
    /// that wants simulated ones believed.
    pub claims_nitro: bool,
}

impl Guests {
    /// What guests are made of an image's folder, as `casemate-eif build` wrote it, and the folder of
    /// tools, as `tests/qemu/tools.sh` does.
    ///
    /// # Errors
    /// If something is not there, or is not what it should be.
    pub fn new(image: &Path, root: &Path, tools: &Path) -> Result<Self, DevError> {
        let there = |path: PathBuf| path.canonicalize().map_err(DevError::file("open", &path));
        let measured = image.join("measurements.json");
        let text = fs::read(&measured).map_err(DevError::file("read", &measured))?;
        let malformed = |reason: String| DevError::Malformed { path: measured.clone(), reason };
        let found: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        let pcr = |name: &str| {
            let value = found.get(name).and_then(serde_json::Value::as_str);
            value.map(str::to_owned).ok_or_else(|| malformed(format!("it has no `{name}`")))
        };
        let guests = Self {
            pcrs: [pcr("PCR0")?, pcr("PCR1")?, pcr("PCR2")?],
            image: there(image.join("casemate.eif"))?,
            root: there(root.to_owned())?,
            qemu: there(tools.join("qemu-system-x86_64"))?,
            vsock: there(tools.join("vhost-device-vsock"))?,
            memory: 256,
            round_trip_ms: 1_000,
            patience: 8,
            signs: true,
            claims_nitro: false,
        };
        guests.measurement().map_err(malformed)?;
        Ok(guests)
    }

    /// What the image measures to.
    ///
    /// # Errors
    /// Naming the PCR that is none.
    pub fn measurement(&self) -> Result<Measurement, String> {
        let [pcr0, pcr1, pcr2] = &self.pcrs;
        let pcr = |text: &String| {
            let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
            bytes.ok_or_else(|| format!("`{text}` is no PCR"))
        };
        Ok(Measurement { pcr0: pcr(pcr0)?, pcr1: pcr(pcr1)?, pcr2: pcr(pcr2)? })
    }
}

/// Runs the machine of a node until it ends.
///
/// # Errors
/// If it cannot be started, or ended with a status.
pub fn run(home: &Home, plan: &Plan, guests: &Guests, node: &PlannedNode) -> Result<(), DevError> {
    let folder = home.node(&node.name);
    let door = home.socket(&node.name);
    let device = folder.join("vhost.socket");
    let heartbeat = path_of_port(&door, HEARTBEAT_PORT);
    for left in [&door, &device, &heartbeat] {
        match fs::remove_file(left) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DevError::file("remove", left)(error));
            }
            _ => {}
        }
    }
    let listener = UnixListener::bind(&heartbeat).map_err(DevError::file("bind", &heartbeat))?;
    std::thread::spawn(move || give_back(&listener));

    let cid = FIRST_CID.saturating_add(node.number);
    let vm = [
        format!("guest-cid={cid},tx-buffer-size={TX_BUFFER},uds-path=").into(),
        door.clone().into_os_string(),
        ",socket=".into(),
        device.clone().into_os_string(),
    ];
    let mut vsock = start(&guests.vsock, &["--vm".into(), vm.join(OsStr::new(""))])?;
    let since = Instant::now();
    while !device.exists() {
        if since.elapsed() > DEVICE_WITHIN || !matches!(vsock.try_wait(), Ok(None)) {
            return Err(failed(node, "its vsock device does not begin".to_owned()));
        }
        sleep(LOOK_EVERY);
    }
    let mut qemu = start(&guests.qemu, &arguments(home, plan, guests, node, &device)?)?;
    let status = qemu.wait().map_err(DevError::Runtime);
    let _ = vsock.kill();
    let _ = vsock.wait();
    let status = status?;
    if status.success() {
        return Err(failed(node, "its machine ended; the console says why".to_owned()));
    }
    Err(failed(node, format!("its machine ended: {status}")))
}

fn failed(node: &PlannedNode, error: String) -> DevError {
    DevError::Serve { node: node.name.clone(), part: Part::Enclave, error }
}

/// Where a guest's connections to a port of the host arrive.
fn path_of_port(door: &Path, port: u32) -> PathBuf {
    let mut path = door.as_os_str().to_owned();
    path.push(format!("_{port}"));
    path.into()
}

/// QEMU's arguments. Names, roles and paths of ours have no comma in them.
fn arguments(
    home: &Home,
    plan: &Plan,
    guests: &Guests,
    node: &PlannedNode,
    device: &Path,
) -> Result<Vec<std::ffi::OsString>, DevError> {
    let spec = machine::enclave(plan, node)?;
    let machine = format!(
        "nitro-enclave,vsock=c,id={},parent-id={},parent-role={}",
        spec.module_id(),
        spec.instance_id,
        spec.role_arn.clone().unwrap_or_default()
    );
    let mut chardev = std::ffi::OsString::from("socket,id=c,path=");
    chardev.push(device);
    let mut arguments: Vec<std::ffi::OsString> = Vec::new();
    // where Debian's packages have the firmware
    for folder in ["/usr/share/qemu", "/usr/share/seabios"] {
        arguments.extend(["-L".into(), folder.into()]);
    }
    arguments.extend(["-M".into(), machine.into(), "-kernel".into()]);
    arguments.push(guests.image.clone().into_os_string());
    let memory = format!("{}M", guests.memory);
    for word in ["-nographic", "-no-reboot", "-accel", "tcg", "-cpu", "max", "-m", &memory] {
        arguments.push(word.into());
    }
    arguments.extend(["-chardev".into(), chardev]);
    if guests.signs {
        let folder = home.node(&node.name);
        let (key, certificates) = (folder.join("nsm-key.pem"), folder.join("nsm-chain.pem"));
        let host = machine::read_root(home)?;
        let chain = host.chain(&spec, super::birth::now().0)?;
        let issued = host.issue(&chain)?;
        write(&key, issued.leaf_key.to_secret_pem()?.as_bytes())?;
        write(&certificates, issued.to_pem()?.as_bytes())?;
        for (property, file) in [("signing-key", key), ("certificates", certificates)] {
            let mut value = std::ffi::OsString::from(format!("virtio-nsm-device.{property}="));
            value.push(file);
            arguments.extend(["-global".into(), value]);
        }
    }
    Ok(arguments)
}

/// Starts a program that ends when this process does, however that ends.
fn start(program: &Path, arguments: &[std::ffi::OsString]) -> Result<Child, DevError> {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| DevError::Spawn { program: program.to_owned(), error })
}

/// Answers init's heartbeat, for as long as this process runs.
fn give_back(listener: &UnixListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut byte = [0];
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        if stream.read_exact(&mut byte).is_ok() && byte == [HEARTBEAT] {
            let _ = stream.write_all(&byte);
        }
    }
}
