//! Who runs: a file with a process's id that the process keeps locked while it lives.
//!
//! The lock is the fact and the id a help: it goes with the process, however that ends, so that an
//! id which the system has given to somebody else is never taken for ours.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::DevError;

/// Somebody who looks holds the lock for a moment, as does one who has it and writes its id.
const TRIES: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(10);

/// This process's lock on its file.
#[derive(Debug)]
pub struct Claim {
    _file: File,
}

impl Claim {
    /// Takes the file for this process, or tells whose it is.
    ///
    /// # Errors
    /// If it cannot be opened or written.
    pub fn take(path: &Path) -> Result<Result<Self, u32>, DevError> {
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(DevError::file("open", path))?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => {
                    let write = file.set_len(0).and_then(|()| {
                        file.write_all(format!("{}\n", std::process::id()).as_bytes())
                    });
                    write.map_err(DevError::file("write", path))?;
                    return Ok(Ok(Self { _file: file }));
                }
                Err(TryLockError::WouldBlock) => sleep(BETWEEN),
                Err(TryLockError::Error(error)) => return Err(DevError::file("lock", path)(error)),
            }
        }
        Ok(Err(holder(path)?.unwrap_or_default()))
    }
}

/// The process that holds a file; `None` if nobody does.
///
/// # Errors
/// If the file is there and cannot be read.
pub fn holder(path: &Path) -> Result<Option<u32>, DevError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DevError::file("open", path)(error)),
    };
    for _ in 0..TRIES {
        match file.try_lock_shared() {
            Ok(()) => return Ok(None),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(DevError::file("lock", path)(error)),
        }
        let mut text = String::new();
        let read = file.rewind().and_then(|()| (&mut file).take(32).read_to_string(&mut text));
        read.map_err(DevError::file("read", path))?;
        if let Some(pid) = text.strip_suffix('\n').and_then(|pid| pid.parse().ok()) {
            return Ok(Some(pid));
        }
        // it has the lock and has not written its id yet
        sleep(BETWEEN);
    }
    Err(DevError::Malformed { path: path.to_owned(), reason: "it holds no process id".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_is_seen_while_it_lasts_and_not_after() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pid");
        assert_eq!(holder(&path).unwrap(), None);
        let claim = Claim::take(&path).unwrap().unwrap();
        assert_eq!(holder(&path).unwrap(), Some(std::process::id()));
        assert_eq!(Claim::take(&path).unwrap().unwrap_err(), std::process::id());
        drop(claim);
        assert_eq!(holder(&path).unwrap(), None);
        assert!(Claim::take(&path).unwrap().is_ok());
    }

    #[test]
    fn file_of_a_process_that_is_gone_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pid");
        // some process that is alive, and does not hold the file
        std::fs::write(&path, "1\n").unwrap();
        assert_eq!(holder(&path).unwrap(), None);
    }
}
