//! The word with the parent that the enclave is up.
//!
//! `nitro-cli` waits for it on vsock port 9000: the enclave connects, sends one byte, and gets the same
//! back. Source: `init.c` of AWS's `aws-nitro-enclaves-sdk-bootstrap`. It is sent when all checks are
//! done, so that an enclave that refuses to go on is one that did not start. The parent learns
//! nothing else by it and is believed nothing.

use std::io::{self, Read, Write};
use std::time::Duration;

use casemate_image::{HEARTBEAT, HEARTBEAT_PORT, ParentCid};
use vsock::VsockStream;

/// How long the parent may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there was no heartbeat.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another byte came back.
    #[error("the parent answered {found:#04x}, and {HEARTBEAT:#04x} was expected")]
    Other {
        /// The byte.
        found: u8,
    },
}

/// Exchanges the byte with the parent.
///
/// # Errors
/// If the parent is not there or answers something else.
pub fn with_parent(cid: ParentCid) -> Result<(), HeartbeatError> {
    let stream = VsockStream::connect_with_cid_port(cid.get(), HEARTBEAT_PORT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    exchange(stream)
}

/// Sends the byte and takes its answer.
///
/// # Errors
/// If another byte comes, or none.
pub fn exchange(mut stream: impl Read + Write) -> Result<(), HeartbeatError> {
    stream.write_all(&[HEARTBEAT])?;
    stream.flush()?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    match answer {
        [HEARTBEAT] => Ok(()),
        [found] => Err(HeartbeatError::Other { found }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn against(parent: impl FnOnce(UnixStream, u8) + Send + 'static) -> Result<(), HeartbeatError> {
        let (enclave, mut other) = UnixStream::pair().unwrap();
        let parent = std::thread::spawn(move || {
            let mut byte = [0];
            other.read_exact(&mut byte).unwrap();
            parent(other, byte[0]);
        });
        let heard = exchange(enclave);
        parent.join().unwrap();
        heard
    }

    #[test]
    fn parent_that_gives_the_byte_back_is_heard() {
        against(|mut stream, byte| {
            assert_eq!(byte, 0xb7);
            stream.write_all(&[byte]).unwrap();
        })
        .unwrap();
    }

    #[test]
    fn parent_that_answers_another_byte_ends_the_boot() {
        let error = against(|mut stream, _| stream.write_all(&[0xb8]).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "the parent answered 0xb8, and 0xb7 was expected");
    }

    #[test]
    fn parent_that_hangs_up_ends_the_boot() {
        let error = against(|stream, _| drop(stream)).unwrap_err();
        assert!(matches!(error, HeartbeatError::Io(_)), "{error}");
    }
}
