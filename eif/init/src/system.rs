//! What process 1 asks of the kernel.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use casemate_image::{SIGNER_ID, SIGNER_PATH};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Resource, Rlimit, WaitOptions, setrlimit, wait};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::system::{RebootCommand, reboot};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set, set_no_new_privs};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::InitError;

/// Most bytes of a file under `/sys`: one page.
const MAX_SYS: u64 = 4_096;

/// How the signer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl core::fmt::Display for Ended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// One line on the console. There is nobody else to tell if that fails.
pub fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "casemate-init: {line}");
}

/// Mounts `/dev`; the kernel may have done so.
///
/// # Errors
/// If it cannot be mounted.
pub fn mount_dev() -> Result<(), InitError> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    match mount("dev", "/dev", "devtmpfs", flags, Some(c"mode=0755")) {
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(InitError::Mount { what: "mount", path: "/dev", error: error.into() }),
    }
}

/// Makes the console standard input, output and error.
///
/// # Errors
/// If there is none.
pub fn take_console() -> Result<(), InitError> {
    const PATH: &str = "/dev/console";
    let failed = |error| InitError::File { path: PATH.to_owned(), error };
    let console = OpenOptions::new().read(true).write(true).open(PATH).map_err(failed)?;
    rustix::stdio::dup2_stdin(&console)
        .and_then(|()| rustix::stdio::dup2_stdout(&console))
        .and_then(|()| rustix::stdio::dup2_stderr(&console))
        .map_err(|error| failed(error.into()))
}

/// Mounts `/proc`, where a process sees only its own, and `/sys`, to be read only.
///
/// # Errors
/// If one cannot be mounted.
pub fn mount_proc_and_sys() -> Result<(), InitError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, Some(c"hidepid=2"))
        .map_err(|error| InitError::Mount { what: "mount", path: "/proc", error: error.into() })?;
    mount("sysfs", "/sys", "sysfs", flags | MountFlags::RDONLY, None)
        .map_err(|error| InitError::Mount { what: "mount", path: "/sys", error: error.into() })
}

/// Takes `/sys` away: nothing that runs from here on needs it.
///
/// # Errors
/// If it stays.
pub fn unmount_sys() -> Result<(), InitError> {
    unmount("/sys", UnmountFlags::empty()).map_err(|error| InitError::Mount {
        what: "unmount",
        path: "/sys",
        error: error.into(),
    })
}

/// A file under `/sys`.
///
/// # Errors
/// If it is not there.
pub fn read_sys(path: &str) -> Result<Vec<u8>, InitError> {
    let failed = |error| InitError::File { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_SYS).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The kernel's pool of randomness, to be written to.
///
/// # Errors
/// If there is none.
pub fn open_pool() -> Result<File, InitError> {
    OpenOptions::new().write(true).open("/dev/random").map_err(InitError::Pool)
}

/// Waits until the kernel says that its pool is full for the first time.
///
/// # Errors
/// If it gives nothing.
pub fn wait_for_pool() -> Result<(), InitError> {
    let mut drawn = [0_u8; 16];
    loop {
        match getrandom(&mut drawn, GetRandomFlags::empty()) {
            Ok(length) if length == drawn.len() => return Ok(()),
            Ok(_) => return Err(InitError::Pool(io::ErrorKind::UnexpectedEof.into())),
            Err(Errno::INTR) => {}
            Err(error) => return Err(InitError::Pool(error.into())),
        }
    }
}

/// Sets the clock, to milliseconds since 1970.
///
/// # Errors
/// If it cannot be set.
pub fn set_clock(ms: u64) -> Result<(), InitError> {
    let time = Duration::from_millis(ms);
    let time = Timespec::try_from(time)
        .map_err(|_| InitError::SetClock(io::ErrorKind::InvalidInput.into()))?;
    clock_settime(ClockId::Realtime, time).map_err(|error| InitError::SetClock(error.into()))
}

/// Makes the security module the signer's, who is not root.
///
/// # Errors
/// If that cannot be done.
pub fn hand_over_nsm() -> Result<(), InitError> {
    let path = casemate_nsm::device::PATH;
    std::os::unix::fs::chown(path, Some(SIGNER_ID), Some(SIGNER_ID))
        .map_err(|error| InitError::File { path: path.to_owned(), error })
}

/// Gives up for this process's children what nobody needs from here on: privileges that a program could
/// bring, every capability, and core dumps, which would hold keys.
///
/// # Errors
/// If any of it stays.
pub fn drop_rights() -> Result<(), InitError> {
    let stays = |what| move |error: Errno| InitError::Drop { what, error: error.into() };
    set_no_new_privs(true).map_err(stays("the right to new privileges"))?;
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // one that this kernel does not know it cannot give either
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(stays("a capability")(error)),
        }
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(stays("core dumps"))
}

/// Runs the signer as its own user, until it ends. Whatever else ends meanwhile is taken note of, as
/// process 1 must.
///
/// # Errors
/// If it does not start, or cannot be waited for.
pub fn run_signer() -> Result<Ended, InitError> {
    let signer = command(SIGNER_PATH).spawn().map_err(InitError::Signer)?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((process, status)))
                if u32::try_from(process.as_raw_nonzero().get()) == Ok(signer.id()) =>
            {
                if let Some(status) = status.exit_status() {
                    return Ok(Ended::Status(status));
                }
                if let Some(signal) = status.terminating_signal() {
                    return Ok(Ended::Signal(signal));
                }
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(InitError::Signer(error.into())),
        }
    }
}

/// A program as the signer's user, with nothing of this process but the console.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    // by the user the standard library drops root's further groups as well
    command.env_clear().current_dir("/").stdin(Stdio::null()).uid(SIGNER_ID).gid(SIGNER_ID);
    command
}

/// Ends the enclave. It is a restart that is asked for, because an enclave has nothing that could cut its
/// power: with `reboot=k` on the command line the kernel resets the machine, and the hypervisor takes
/// the enclave away. Where that fails too, process 1 ends, the kernel panics, and resets by `panic=`.
pub fn end_enclave() {
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::Restart) {
        say(&format!("cannot end the enclave: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::geteuid;

    use super::*;

    /// On a thread of its own, which is all that loses rights.
    #[test]
    fn program_runs_without_any_right() {
        let run = || {
            drop_rights()?;
            let run = command("/bin/cat").arg("/proc/self/status").output();
            run.map_err(InitError::Signer)
        };
        let output = match std::thread::spawn(run).join().unwrap() {
            Ok(output) => output,
            Err(error) => {
                assert!(!geteuid().is_root(), "{error}");
                assert!(matches!(error, InitError::Drop { .. }), "{error}");
                return;
            }
        };
        let status = String::from_utf8(output.stdout).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(field("Uid:"), ["1000"; 4]);
        assert_eq!(field("Gid:"), ["1000"; 4]);
        assert!(field("Groups:").is_empty());
        assert_eq!(field("NoNewPrivs:"), ["1"]);
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(set), ["0000000000000000"], "{set}");
        }
    }

    #[test]
    fn end_of_the_signer_is_told_with_its_cause() {
        assert_eq!(Ended::Status(1).to_string(), "status 1");
        assert_eq!(Ended::Signal(9).to_string(), "signal 9");
    }
}
