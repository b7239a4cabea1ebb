//! Framing over vsock, hybrid vsock and TCP: how bytes get to and from an enclave's one door.
//!
//! An enclave has no network. Its parent reaches it over vsock, a socket between a virtual machine
//! and its host, by a number for a port. On AWS that is the real device ([`tokio_vsock`]); everywhere
//! else it is Firecracker's *hybrid* vsock, in which the host's side is a UNIX socket and the port is
//! named in a first line ([`hybrid`]). Both are reached through an [`Address`] and give the same
//! boxed [`Stream`], so that nothing behind this crate knows which one it talks over.
//!
//! What travels on such a stream is cut into frames ([`frame`]): a length, then that many bytes.
//!
//! Whoever is at the other end is not trusted. Every length is checked before memory is set aside for
//! it, memory grows with what has arrived and not with what was announced, and every wait for
//! a first line has an end.

pub mod address;
pub mod frame;
pub mod hybrid;
pub mod listener;
mod socket_file;

pub use address::{Address, AddressError};
pub use frame::{FrameError, FrameReader, read_frame, write_frame, write_frames};
pub use listener::{Listener, connect};
pub use socket_file::BindError;

use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes both ways: what a connection is, whatever it runs over.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A connection.
pub type Stream = Box<dyn Duplex>;
