//! Starting and stopping one process.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use casemate_proto::NodeName;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::claim::holder;
use super::{DevError, Home, Part};

/// How long a process may take to end after it was told to; then it is killed.
const END_WITHIN: Duration = Duration::from_secs(5);
/// How long a process may take to take its lock, or end.
const START_WITHIN: Duration = Duration::from_secs(20);
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How much of a log's end is looked at for its last line.
const LAST_BYTES: u64 = 4_096;

/// The program that starts itself as enclave or parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// `casemate-dev` at this path.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// This very program.
    ///
    /// # Errors
    /// If the system does not tell its path.
    pub fn current() -> Result<Self, DevError> {
        let failed = |error| DevError::Spawn { program: PathBuf::from("casemate-dev"), error };
        Ok(Self { path: std::env::current_exe().map_err(failed)? })
    }

    /// The arguments that make it a node's part.
    fn arguments(home: &Home, node: &NodeName, part: Part) -> [String; 5] {
        let text = |path: &Path| path.display().to_string();
        match part {
            Part::Enclave => [
                "enclave".to_owned(),
                "--dir".to_owned(),
                text(home.path()),
                "--node".to_owned(),
                node.to_string(),
            ],
            Part::Parent => [
                "parent".to_owned(),
                "--config".to_owned(),
                text(&home.parent_config(node)),
                "--pid-file".to_owned(),
                text(&home.pid_file(node, part)),
            ],
        }
    }

    /// What to type to start a node's part by hand.
    #[must_use]
    pub fn command_line(&self, home: &Home, node: &NodeName, part: Part) -> String {
        let mut line = quoted(&self.path.display().to_string());
        for argument in Self::arguments(home, node, part) {
            line.push(' ');
            line.push_str(&quoted(&argument));
        }
        line
    }

    /// Starts a node's part: in a process group of its own, with its output behind what is in its
    /// log. With `watched` it ends when this process does, however that ends.
    ///
    /// # Errors
    /// If the log or the program cannot be opened.
    pub fn start(
        &self,
        home: &Home,
        node: &NodeName,
        part: Part,
        watched: bool,
    ) -> Result<Child, DevError> {
        let path = home.log(node, part);
        let open = OpenOptions::new().create(true).append(true).open(&path);
        let log = open.map_err(DevError::file("write", &path))?;
        let both = log.try_clone().map_err(DevError::file("write", &path))?;
        let mut command = Command::new(&self.path);
        command.args(Self::arguments(home, node, part)).stdout(log).stderr(both).process_group(0);
        if watched {
            command.arg("--while-stdin").stdin(Stdio::piped());
        } else {
            command.stdin(Stdio::null());
        }
        let child = command
            .spawn()
            .map_err(|error| DevError::Spawn { program: self.path.clone(), error })?;
        Ok(Child {
            process: child,
            node: node.clone(),
            part,
            pid_file: home.pid_file(node, part),
            log: path,
        })
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-=:+@%,".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A process that this one started. A watched one ends when this is dropped; it is waited for
/// by [`Child::stop`] and [`Child::kill`] only.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    node: NodeName,
    part: Part,
    pid_file: PathBuf,
    log: PathBuf,
}

impl Child {
    /// Its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
    /// Whose it is.
    #[must_use]
    pub const fn node(&self) -> &NodeName {
        &self.node
    }
    /// Which of the two it is.
    #[must_use]
    pub const fn part(&self) -> Part {
        self.part
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<String> {
        self.process.try_wait().ok().flatten().map(how)
    }

    /// That it runs.
    ///
    /// # Errors
    /// If it has ended, with the last line that it wrote.
    pub fn check(&mut self) -> Result<(), DevError> {
        match self.ended() {
            None => Ok(()),
            Some(how) => Err(DevError::Ended {
                node: self.node.clone(),
                part: self.part,
                how,
                last: last_line(&self.log),
                log: self.log.clone(),
            }),
        }
    }

    /// Waits until it has its lock: until then nobody else can see that it runs.
    ///
    /// # Errors
    /// If it ends before, or takes too long.
    pub fn wait_for_claim(&mut self) -> Result<(), DevError> {
        let since = Instant::now();
        while holder(&self.pid_file)? != Some(self.pid()) {
            self.check()?;
            if since.elapsed() > START_WITHIN {
                return Err(DevError::Patience {
                    what: format!("the {} of node `{}` has not begun", self.part, self.node),
                    seconds: START_WITHIN.as_secs(),
                    hint: format!("; its log is `{}`", self.log.display()),
                });
            }
            sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Tells it to end.
    pub fn tell_to_end(&self) {
        // what fails here fails because it has ended
        let _ = signal(self.pid(), Signal::SIGTERM);
    }

    /// Tells it to end, waits, and kills it if it does not.
    pub fn stop(mut self) {
        self.tell_to_end();
        drop(self.process.stdin.take());
        let since = Instant::now();
        while self.ended().is_none() && since.elapsed() < END_WITHIN {
            sleep(LOOK_EVERY);
        }
        self.kill();
    }

    /// Kills it, and waits until it is gone.
    pub fn kill(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "for no known reason".to_owned(),
    }
}

/// The last line of a log that says something, cut to what a person reads.
#[must_use]
pub fn last_line(log: &Path) -> String {
    let read = || {
        let mut file = fs::File::open(log).ok()?;
        let size = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(LAST_BYTES))).ok()?;
        let mut bytes = Vec::new();
        file.take(LAST_BYTES).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().take(300).collect())
    };
    read().unwrap_or_else(|| "it wrote nothing".to_owned())
}

/// How a process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is told to end, and killed if it does not.
    Stop,
    /// It is killed: it learns nothing of it.
    Kill,
}

/// Ends the process that holds a file, whoever started it: told to, it has so long. Whether there was
/// one.
///
/// # Errors
/// If it does not end.
pub fn end(pid_file: &Path, ending: Ending, within: Duration) -> Result<bool, DevError> {
    let Some(pid) = holder(pid_file)? else { return Ok(false) };
    if ending == Ending::Stop {
        signal(pid, Signal::SIGTERM)?;
        if gone(pid_file, within)? {
            return Ok(true);
        }
    }
    // whoever holds it by now is asked for again: an id is not killed that was looked up long ago
    let Some(pid) = holder(pid_file)? else { return Ok(true) };
    signal(pid, Signal::SIGKILL)?;
    if gone(pid_file, END_WITHIN)? {
        return Ok(true);
    }
    let error = std::io::Error::other("it was killed and is still there");
    Err(DevError::Signal { pid, error })
}

fn gone(pid_file: &Path, within: Duration) -> Result<bool, DevError> {
    let since = Instant::now();
    while holder(pid_file)?.is_some() {
        if since.elapsed() > within {
            return Ok(false);
        }
        sleep(LOOK_EVERY);
    }
    Ok(true)
}

fn signal(pid: u32, signal: Signal) -> Result<(), DevError> {
    let failed = |errno: Errno| DevError::Signal { pid, error: errno.into() };
    // 0 and what is negative are groups, and no process that holds a file
    let target = i32::try_from(pid).ok().filter(|pid| *pid > 1).ok_or(Errno::ESRCH);
    match target.and_then(|pid| kill(Pid::from_raw(pid), signal)) {
        // it has ended meanwhile
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

/// Ends this process when its standard input does: when the one that started it is gone.
pub fn end_with_stdin() {
    std::thread::spawn(|| {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0; 256];
        while matches!(stdin.read(&mut buffer), Ok(size) if size > 0) {}
        std::process::exit(0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_a_shell_needs_it() {
        assert_eq!(quoted("/tmp/a-b_c.d"), "/tmp/a-b_c.d");
        assert_eq!(quoted("my folder"), "'my folder'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn last_line_is_the_last_that_says_something() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        assert_eq!(last_line(&log), "it wrote nothing");
        fs::write(&log, format!("{}\nerror: the end\n\n", "x".repeat(10_000))).unwrap();
        assert_eq!(last_line(&log), "error: the end");
    }

    #[test]
    fn process_is_killed_by_its_lock_whoever_started_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.pid");
        // a shell that holds the lock by a descriptor of its own and ignores being told
        let script = format!(
            "trap '' TERM; exec 9>>{0}; flock 9; echo $$ > {0}; while :; do sleep 0.1 9>&-; done",
            file.display()
        );
        let mut child = Command::new("bash").arg("-c").arg(script).spawn().unwrap();
        let since = Instant::now();
        while holder(&file).ok().flatten() != Some(child.id()) {
            assert!(since.elapsed() < Duration::from_secs(10));
            sleep(LOOK_EVERY);
        }
        assert!(end(&file, Ending::Kill, END_WITHIN).unwrap());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(!end(&file, Ending::Stop, END_WITHIN).unwrap());
    }
}
