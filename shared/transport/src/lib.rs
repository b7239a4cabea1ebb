//! Framing over vsock, hybrid vsock and TCP.
