//! Listening at and connecting to an [`Address`], whichever kind it is.

use core::future::poll_fn;
use core::task::Poll;
use std::io;
use std::time::Duration;

use tokio::time::timeout;
use tokio_vsock::{VsockAddr, VsockListener, VsockStream};

use crate::address::Address;
use crate::hybrid::{self, ConnectError};
use crate::{BindError, Stream};

/// How long a connection over vsock may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An enclave's door: connections to its ports.
#[derive(Debug)]
pub enum Listener {
    /// One UNIX socket for all ports.
    Hybrid(hybrid::Listener),
    /// A vsock listener for each port.
    Vsock {
        /// Port and listener.
        ports: Vec<(u32, VsockListener)>,
        /// The one machine whose connections are taken; `None`: anybody's.
        from: Option<u32>,
    },
}

impl Listener {
    /// Listens at this address on these ports.
    ///
    /// # Errors
    /// If somebody listens there already, or the address cannot be bound.
    pub fn bind(address: &Address, ports: &[u32]) -> Result<Self, BindError> {
        match address {
            Address::Unix(path) => hybrid::Listener::bind(path, ports).map(Self::Hybrid),
            Address::Vsock { cid } => {
                let bind = |&port: &u32| match VsockListener::bind(VsockAddr::new(*cid, port)) {
                    Ok(listener) => Ok((port, listener)),
                    Err(error) => {
                        Err(BindError::System { place: format!("{address}, port {port}"), error })
                    }
                };
                let ports = ports.iter().map(bind).collect::<Result<_, _>>()?;
                Ok(Self::Vsock { ports, from: None })
            }
        }
    }

    /// Takes vsock connections from this machine only; others are closed unread. The hypervisor vouches for
    /// the number. A UNIX socket has none, and its file's rights say who may connect.
    #[must_use]
    pub fn only_from(self, cid: u32) -> Self {
        match self {
            Self::Hybrid(listener) => Self::Hybrid(listener),
            Self::Vsock { ports, .. } => Self::Vsock { ports, from: Some(cid) },
        }
    }

    /// The next connection, and the port that it is to. Cancel-safe.
    ///
    /// # Errors
    /// If the system can make no more connections. It may be tried again a little later.
    pub async fn accept(&mut self) -> io::Result<(u32, Stream)> {
        match self {
            Self::Hybrid(listener) => {
                let (port, stream) = listener.accept().await?;
                Ok((port, Box::new(stream)))
            }
            Self::Vsock { ports, from } => loop {
                let (port, stream, peer) = poll_fn(|cx| {
                    let mut polled =
                        ports.iter().map(|(port, listener)| (*port, listener.poll_accept(cx)));
                    let ready = polled.find_map(|(port, polled)| match polled {
                        Poll::Ready(accepted) => {
                            Some(accepted.map(|(stream, peer)| (port, stream, peer)))
                        }
                        Poll::Pending => None,
                    });
                    ready.map_or(Poll::Pending, Poll::Ready)
                })
                .await?;
                if from.is_none_or(|from| from == peer.cid()) {
                    return Ok((port, Box::new(stream)));
                }
            },
        }
    }
}

/// Connects to a port at an address.
///
/// # Errors
/// If nobody listens there.
pub async fn connect(address: &Address, port: u32) -> Result<Stream, ConnectError> {
    match address {
        Address::Unix(path) => Ok(Box::new(hybrid::connect(path, port).await?)),
        Address::Vsock { cid } => {
            match timeout(CONNECT_TIMEOUT, VsockStream::connect(VsockAddr::new(*cid, port))).await {
                Ok(Ok(stream)) => Ok(Box::new(stream)),
                Ok(Err(error)) => Err(ConnectError::Socket(error)),
                Err(_) => Err(ConnectError::Timeout { port }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{read_frame, write_frame};

    #[tokio::test]
    async fn frames_cross_a_door_by_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::unix(folder.path().join("door")).unwrap();
        let mut door = Listener::bind(&address, &[5, 6]).unwrap();
        let (client, served) = tokio::join!(connect(&address, 5), door.accept());
        let (mut client, (port, mut server)) = (client.unwrap(), served.unwrap());
        assert_eq!(port, 5);
        write_frame(&mut client, b"question", 100).await.unwrap();
        assert_eq!(read_frame(&mut server, 100).await.unwrap().unwrap(), b"question");
        write_frame(&mut server, b"answer", 100).await.unwrap();
        assert_eq!(read_frame(&mut client, 100).await.unwrap().unwrap(), b"answer");
    }

    #[tokio::test]
    async fn second_listener_at_an_address_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::unix(folder.path().join("door")).unwrap();
        let _door = Listener::bind(&address, &[5]).unwrap();
        assert!(matches!(Listener::bind(&address, &[5]), Err(BindError::InUse { .. })));
    }
}
