//! The program: its exit status, and the one line it says.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use casemate_proto::cbor;
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;

use crate::support::{PATIENCE, manifest};

const PROGRAM: &str = env!("CARGO_BIN_EXE_casemate-parent");

/// Writes a configuration with these lines for those of the same field, or none of it.
fn configure(folder: &Path, changes: &[(&str, &str)]) {
    std::fs::write(folder.join("manifest.cbor"), cbor::encode(&manifest())).unwrap();
    let mut lines = vec![
        ("node", r#"node = "a""#),
        ("manifest", r#"manifest = "manifest.cbor""#),
        ("folder", r#"folder = "data""#),
        ("enclave", r#"enclave = "unix:door""#),
        ("http", r#"http = "127.0.0.1:0""#),
        ("relay", r#"relay = "127.0.0.1:0""#),
        ("b", "[peers.b]\nrelay = \"127.0.0.1:1\""),
        ("c", "[peers.c]\nrelay = \"127.0.0.1:1\""),
        ("limits", ""),
    ];
    for (field, line) in changes {
        lines.iter_mut().find(|(name, _)| name == field).unwrap().1 = line;
    }
    let text: Vec<&str> = lines.iter().map(|(_, line)| *line).collect();
    std::fs::write(folder.join("parent.toml"), text.join("\n")).unwrap();
}

fn program(folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--config").arg(folder.join("parent.toml")).stdin(Stdio::null());
    command
}

/// Runs it to its end, which comes by itself.
fn run(command: &mut Command) -> (i32, String) {
    let Output { status, stderr, stdout } = command.output().unwrap();
    assert!(stdout.is_empty());
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn wrong_usage_and_configuration_are_told_in_one_line_with_status_2() {
    let (status, _) = run(Command::new(PROGRAM).arg("--nonsense"));
    assert_eq!(status, 2);
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let check = |expected: &str| {
        let (status, told) = run(&mut program(folder));
        let path = folder.display().to_string();
        let line = told.replace(&path, "");
        assert_eq!((status, line.trim_end()), (2, expected));
    };
    check("casemate-parent: cannot read `/parent.toml`: No such file or directory (os error 2)");
    for (changes, expected) in [
        (
            vec![("node", "node = 7")],
            "`/parent.toml`, line 1: invalid type: integer `7`, expected a string",
        ),
        (
            vec![("node", "nod = \"a\"")],
            "`/parent.toml`, line 1: unknown field `nod`, expected one of `node`, `manifest`, `folder`, `enclave`, `http`, `relay`, `peers`, `triple_stock`, `round_trip_ms`, `limits`",
        ),
        (vec![("node", "")], "`/parent.toml`, line 1: missing field `node`"),
        (
            vec![("node", r#"node = "d""#)],
            "`/parent.toml`: field `node`: `d` is not a node of the manifest, which has `a`, `b`, `c`",
        ),
        (
            vec![("node", r#"node = "A""#)],
            "`/parent.toml`: field `node`: `A` is not a node name: 1 to 32 characters of `a-z 0-9 -`",
        ),
        (
            vec![("manifest", r#"manifest = "none.cbor""#)],
            "cannot read `/none.cbor`: No such file or directory (os error 2)",
        ),
        (
            vec![("manifest", r#"manifest = "parent.toml""#)],
            "the manifest `/parent.toml`: malformed at byte 0: unexpected type string at position 0: expected map",
        ),
        (
            vec![("enclave", r#"enclave = "door""#)],
            "`/parent.toml`: field `enclave`: `door` is not an address; the forms are `unix:PATH` and `vsock:CID`",
        ),
        (
            vec![("http", r#"http = "localhost""#)],
            "`/parent.toml`: field `http`: `localhost` is not an address to listen on, such as `0.0.0.0:8080`",
        ),
        (vec![("b", "")], "`/parent.toml`: field `peers.b`: missing"),
        (
            vec![("b", "[peers.a]\nrelay = \"127.0.0.1:1\"")],
            "`/parent.toml`: field `peers.a`: not another node of the manifest",
        ),
        (
            vec![("b", "[peers.b]\nrelay = \"127.0.0.1\"")],
            "`/parent.toml`: field `peers.b.relay`: `127.0.0.1` is not of the form `host:port`",
        ),
        (
            vec![("b", "[peers.b]\nrelay = \"x:1\"\nhttp = \"ftp://x\"")],
            "`/parent.toml`: field `peers.b.http`: `ftp://x` is not of the form `http://host:port`",
        ),
        (
            vec![("limits", "[limits]\nin_flight = 0")],
            "`/parent.toml`: field `limits.in_flight`: 0 is not 1 to 100000",
        ),
        (
            vec![("limits", "[limits]\nbody_timeout_ms = 0")],
            "`/parent.toml`: field `limits.body_timeout_ms`: 0 is not 1 to 600000",
        ),
    ] {
        configure(folder, &changes);
        check(&format!("casemate-parent: {expected}"));
    }
    let long = format!("enclave = \"unix:{}\"", "x".repeat(200));
    configure(folder, &[("enclave", &long)]);
    let (status, told) = run(&mut program(folder));
    assert!(status == 2 && told.contains("the kernel allows 107"), "{told}");
}

/// A parent that runs until it is told to stop.
struct Process {
    child: std::process::Child,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let mut command = program(folder);
        command.args(["--log", "json"]).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // it says so once it serves
        let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
        let said: serde_json::Value = serde_json::from_str(&line).expect(&line);
        assert_eq!(said["fields"]["message"], "serving", "{line}");
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
        });
        Self { child }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn ended(&mut self) -> i32 {
        let began = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn second_start_in_a_folder_is_one_line_with_status_1_and_signals_end_the_first_well() {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &[]);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut first = Process::start(dir.path());
        let (status, told) = run(program(dir.path()).args(["--log-level", "error"]));
        let data = dir.path().join("data");
        let line = format!(
            "casemate-parent: folder `{}` is in use by another `casemate-parent`\n",
            data.display()
        );
        assert_eq!((status, told), (1, line));
        first.signal(signal);
        assert_eq!(first.ended(), 0);
    }
}

/// A supervisor may take a parent back the moment it says that it serves, or before.
#[tokio::test]
async fn signal_is_not_lost_before_the_future_is_looked_at() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let told = casemate_relay::told_to_stop().unwrap();
        // by default it would end this very process
        raise(signal).unwrap();
        tokio::time::timeout(PATIENCE, told).await.unwrap();
    }
}

#[test]
fn port_in_use_is_one_line_with_status_1() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for field in ["http", "relay"] {
        let line = format!("{field} = \"{address}\"");
        configure(dir.path(), &[(field, &line)]);
        let (status, told) = run(program(dir.path()).args(["--log-level", "error"]));
        let expected = format!(
            "casemate-parent: cannot listen on `{address}`, which is `{field}` in the \
             configuration: Address already in use (os error 98)\n"
        );
        assert_eq!((status, told), (1, expected));
    }
}
