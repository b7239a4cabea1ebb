//! Hybrid vsock as Firecracker has it: a UNIX socket on the host, ports by a first line.
//!
//! ```text
//! host → `CONNECT <port>\n`
//! host ← `OK <number>\n`      then bytes both ways; the number means nothing to us
//! ```
//!
//! A port that nobody listens on is answered by closing. (Firecracker, `docs/vsock.md`, "Host-initiated
//! connections".)

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::socket_file::{BindError, SocketFile};

/// How long the first line may take, either way.
pub const LINE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of a first line, the newline included: `CONNECT 4294967295\n` has 19.
const MAX_LINE: usize = 32;
/// Connections that have not sent their first line. Further ones wait in the kernel's queue.
const MAX_UNNAMED: usize = 64;

/// Why a connection to a port was not made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket is not there, or refuses.
    #[error("cannot connect: {0}")]
    Socket(#[source] io::Error),
    /// Nobody listens on that port.
    #[error("nobody listens on port {port}")]
    Refused {
        /// The port.
        port: u32,
    },
    /// The answer is no hybrid vsock's.
    #[error("the answer to `CONNECT {port}` is `{answer}` and not `OK`")]
    Answer {
        /// The port.
        port: u32,
        /// The answer's beginning.
        answer: String,
    },
    /// No answer in time.
    #[error("no answer to `CONNECT {port}` within {LINE_TIMEOUT:?}")]
    Timeout {
        /// The port.
        port: u32,
    },
}

/// Connects to a port behind the socket at this path.
///
/// # Errors
/// If nobody listens there, or what listens is no hybrid vsock.
pub async fn connect(path: &Path, port: u32) -> Result<UnixStream, ConnectError> {
    let talk = async {
        let mut stream = UnixStream::connect(path).await.map_err(ConnectError::Socket)?;
        let line = format!("CONNECT {port}\n");
        stream.write_all(line.as_bytes()).await.map_err(|_| ConnectError::Refused { port })?;
        match read_line(&mut stream).await {
            Ok(Some(line)) if ok_line(&line) => Ok(stream),
            Ok(Some(answer)) => Err(ConnectError::Answer { port, answer }),
            Ok(None) | Err(_) => Err(ConnectError::Refused { port }),
        }
    };
    timeout(LINE_TIMEOUT, talk).await.unwrap_or(Err(ConnectError::Timeout { port }))
}

fn ok_line(line: &str) -> bool {
    line.strip_prefix("OK ").and_then(number).is_some()
}

fn number(digits: &str) -> Option<u32> {
    // `parse` would take a sign
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Reads a line without its newline, and no byte behind it; `None`: the end came first, or the line
/// is too long or no text.
async fn read_line<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Option<String>> {
    let mut line = Vec::with_capacity(MAX_LINE);
    while line.len() < MAX_LINE {
        match stream.read_u8().await {
            Ok(b'\n') => return Ok(String::from_utf8(line).ok()),
            Ok(byte) => line.push(byte),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The listening side: one socket for all of an enclave's ports.
#[derive(Debug)]
pub struct Listener {
    // declared, and so closed, before its file
    socket: UnixListener,
    _file: SocketFile,
    ports: Vec<u32>,
    unnamed: JoinSet<Option<(u32, UnixStream)>>,
}

impl Listener {
    /// Listens at this path for connections to these ports. The file of a process that is gone is
    /// replaced; a live one's is not.
    ///
    /// # Errors
    /// If somebody listens there already, or the path cannot be bound.
    pub fn bind(path: &Path, ports: &[u32]) -> Result<Self, BindError> {
        let (socket, file) = SocketFile::bind(path)?;
        Ok(Self { socket, _file: file, ports: ports.to_vec(), unnamed: JoinSet::new() })
    }

    /// The next connection that has named one of the ports. One that is slow to name it holds up
    /// no other. Cancel-safe.
    ///
    /// # Errors
    /// If the system can make no more connections. It may be tried again a little later.
    pub async fn accept(&mut self) -> io::Result<(u32, UnixStream)> {
        loop {
            let room = self.unnamed.len() < MAX_UNNAMED;
            tokio::select! {
                Some(named) = self.unnamed.join_next() => {
                    if let Ok(Some(connection)) = named {
                        return Ok(connection);
                    }
                }
                accepted = self.socket.accept(), if room => {
                    let (stream, _) = accepted?;
                    self.unnamed.spawn(greet(stream, self.ports.clone()));
                }
            }
        }
    }
}

/// Reads the first line and answers it; `None` is answered by closing.
async fn greet(mut stream: UnixStream, ports: Vec<u32>) -> Option<(u32, UnixStream)> {
    let talk = async {
        let line = read_line(&mut stream).await.ok()??;
        let port = line.strip_prefix("CONNECT ").and_then(number)?;
        if !ports.contains(&port) {
            return None;
        }
        stream.write_all(b"OK 1073741824\n").await.ok()?;
        Some(port)
    };
    let port = timeout(LINE_TIMEOUT, talk).await.ok()??;
    Some((port, stream))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("door");
        (folder, path)
    }

    #[tokio::test]
    async fn port_is_named_and_bytes_go_both_ways() {
        let (_folder, path) = place();
        let mut listener = Listener::bind(&path, &[5, 6]).unwrap();
        let (client, server) = tokio::join!(connect(&path, 6), listener.accept());
        let (mut client, (port, mut server)) = (client.unwrap(), server.unwrap());
        assert_eq!(port, 6);
        client.write_all(b"ping").await.unwrap();
        server.write_all(b"pong").await.unwrap();
        let mut read = [0; 4];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ping");
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"pong");
    }

    #[tokio::test]
    async fn bytes_sent_together_with_the_first_line_are_not_lost() {
        let (_folder, path) = place();
        let mut listener = Listener::bind(&path, &[5]).unwrap();
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"CONNECT 5\nearly").await.unwrap();
        let (_, mut server) = listener.accept().await.unwrap();
        let mut read = [0; 5];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"early");
    }

    #[tokio::test]
    async fn port_that_nobody_listens_on_is_refused_and_the_next_connection_served() {
        let (_folder, path) = place();
        let mut listener = Listener::bind(&path, &[5]).unwrap();
        let other = async {
            let error = connect(&path, 7).await.unwrap_err();
            assert!(matches!(error, ConnectError::Refused { port: 7 }), "{error}");
            connect(&path, 5).await.unwrap()
        };
        let (_client, served) = tokio::join!(other, listener.accept());
        assert_eq!(served.unwrap().0, 5);
    }

    #[tokio::test]
    async fn malformed_first_lines_are_closed_and_never_served() {
        let (_folder, path) = place();
        let mut listener = Listener::bind(&path, &[5]).unwrap();
        for line in [
            "\n".to_owned(),
            "CONNECT\n".to_owned(),
            "CONNECT \n".to_owned(),
            "CONNECT +5\n".to_owned(),
            "CONNECT -5\n".to_owned(),
            "CONNECT 5 \n".to_owned(),
            "CONNECT 5\r\n".to_owned(),
            "connect 5\n".to_owned(),
            "CONNECT 4294967301\n".to_owned(),
            "CONNECT \u{0665}\n".to_owned(),
            format!("CONNECT {}\n", "0".repeat(10_000)),
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
        ] {
            let mut client = UnixStream::connect(&path).await.unwrap();
            // the far end may have closed before all of a long line is written
            let _ = client.write_all(line.as_bytes()).await;
            let mut answer = Vec::new();
            tokio::select! {
                accepted = listener.accept() => panic!("served {line:?}: {accepted:?}"),
                _ = client.read_to_end(&mut answer) => {}
            }
            assert!(answer.is_empty(), "{line:?}");
        }
    }

    #[tokio::test]
    async fn i12_connection_that_names_no_port_holds_up_no_other() {
        let (_folder, path) = place();
        let mut listener = Listener::bind(&path, &[5]).unwrap();
        let mut silent = Vec::new();
        for _ in 0..MAX_UNNAMED / 2 {
            silent.push(UnixStream::connect(&path).await.unwrap());
        }
        let (client, served) = tokio::join!(connect(&path, 5), listener.accept());
        assert!(client.is_ok() && served.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn i12_connection_that_names_no_port_is_closed_after_its_time() {
        let (_folder, path) = place();
        let mut listener = Listener::bind(&path, &[5]).unwrap();
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"CONN").await.unwrap();
        let mut answer = Vec::new();
        tokio::select! {
            accepted = listener.accept() => panic!("{accepted:?}"),
            read = client.read_to_end(&mut answer) => assert_eq!(read.unwrap_or(0), 0),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn socket_that_never_answers_is_given_up() {
        let (_folder, path) = place();
        let _silent = UnixListener::bind(&path).unwrap();
        let error = connect(&path, 5).await.unwrap_err();
        assert!(matches!(error, ConnectError::Timeout { port: 5 }), "{error}");
    }

    #[tokio::test]
    async fn socket_of_something_else_is_named_by_what_it_says() {
        let (_folder, path) = place();
        for (says, expected) in [
            ("HTTP/1.1 400\n", "the answer to `CONNECT 5` is `HTTP/1.1 400` and not `OK`"),
            ("OK x\n", "the answer to `CONNECT 5` is `OK x` and not `OK`"),
            ("OK\n", "the answer to `CONNECT 5` is `OK` and not `OK`"),
            (&"O".repeat(100), "nobody listens on port 5"),
        ] {
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).unwrap();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(says.as_bytes()).await.unwrap();
                stream
            };
            let (answer, _stream) = tokio::join!(connect(&path, 5), serve);
            assert_eq!(answer.unwrap_err().to_string(), expected);
        }
    }

    #[tokio::test]
    async fn socket_that_is_not_there_is_an_error() {
        let (_folder, path) = place();
        assert!(matches!(connect(&path, 5).await, Err(ConnectError::Socket(_))));
    }
}
