//! Links: bytes between an enclave and another node's parent.

use std::time::Duration;

use casemate_door::{PEER_PORT, PeerHello};
use casemate_proto::cbor;
use casemate_relay::links::PREAMBLE;
use casemate_transport::{Stream, read_frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{FakeEnclave, Running, config, name, soon, until};

async fn hello(stream: &mut Stream) -> PeerHello {
    let frame = soon(read_frame(stream, 64)).await.unwrap().unwrap();
    cbor::decode(&frame, 64).unwrap()
}

/// The next link that reaches the enclave; control connections are let pass.
async fn link(enclave: &mut FakeEnclave) -> Stream {
    loop {
        let (port, stream) = enclave.accept().await;
        if port == PEER_PORT {
            return stream;
        }
    }
}

async fn exchange(one: &mut (impl AsyncBoth + ?Sized), other: &mut (impl AsyncBoth + ?Sized)) {
    one.write_all(b"ping").await.unwrap();
    let mut read = [0; 4];
    soon(other.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"ping");
    other.write_all(b"pong").await.unwrap();
    soon(one.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"pong");
}

trait AsyncBoth: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + ?Sized> AsyncBoth for T {}

#[tokio::test]
async fn lower_name_dials_and_dials_again_when_the_link_breaks() {
    let folder = tempfile::tempdir().unwrap();
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(folder.path());
    config.peers.get_mut(&name("b")).unwrap().relay = peer.local_addr().unwrap().to_string();
    let mut enclave = FakeEnclave::bind(folder.path());
    let _parent = Running::start(config).await;
    for round in 0..3 {
        let (mut far, _) = soon(peer.accept()).await.unwrap();
        let mut said = [0; PREAMBLE.len()];
        soon(far.read_exact(&mut said)).await.unwrap();
        assert_eq!(said, PREAMBLE);
        let mut near = link(&mut enclave).await;
        assert_eq!(hello(&mut near).await, PeerHello::Dial { to: name("b") });
        exchange(&mut near, &mut far).await;
        // either end ends both
        if round % 2 == 0 {
            drop(near);
            assert_eq!(soon(far.read(&mut said)).await.unwrap_or(0), 0);
        } else {
            drop(far);
            assert_eq!(soon(near.read(&mut said)).await.unwrap_or(0), 0);
        }
    }
}

#[tokio::test]
async fn higher_name_accepts_and_does_not_dial() {
    let folder = tempfile::tempdir().unwrap();
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(folder.path());
    config.node = name("c");
    let mut peers = std::mem::take(&mut config.peers);
    let b = peers.remove(&name("b")).unwrap();
    for node in ["a", "b"] {
        let mut peer_of = b.clone();
        peer_of.relay = peer.local_addr().unwrap().to_string();
        config.peers.insert(name(node), peer_of);
    }
    let mut enclave = FakeEnclave::bind(folder.path());
    let parent = Running::start(config).await;
    let mut far = TcpStream::connect(parent.relay).await.unwrap();
    far.write_all(PREAMBLE).await.unwrap();
    // what is said at once with the preamble is not lost
    far.write_all(b"early").await.unwrap();
    let mut near = link(&mut enclave).await;
    assert_eq!(hello(&mut near).await, PeerHello::Accept);
    let mut read = [0; 5];
    soon(near.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"early");
    exchange(&mut near, &mut far).await;
    until(async || parent.metric("casemate_links 1").await).await;
    let dialled = tokio::time::timeout(Duration::from_millis(300), peer.accept()).await;
    assert!(dialled.is_err());
}

#[tokio::test]
async fn what_is_no_parent_never_reaches_the_enclave() {
    let folder = tempfile::tempdir().unwrap();
    let mut enclave = FakeEnclave::bind(folder.path());
    let parent = Running::start(config(folder.path())).await;
    let _control = enclave.control().await;
    for bytes in [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".as_slice(),
        b"casemate-relay/2\n",
        b"casemate-relay/1 ",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ] {
        let mut stream = TcpStream::connect(parent.relay).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut end = Vec::new();
        let _ = soon(stream.read_to_end(&mut end)).await;
        assert!(end.is_empty());
    }
    let reached = tokio::time::timeout(Duration::from_millis(100), enclave.accept()).await;
    assert!(reached.is_err());
    let line = "casemate_links_failed_total{reason=\"preamble\"} 4";
    until(async || parent.metric(line).await).await;
}

#[tokio::test]
async fn i12_connections_over_the_limit_are_closed_and_idle_ones_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.relay_connections = 2;
    config.limits.link_idle = Duration::from_millis(500);
    let mut enclave = FakeEnclave::bind(folder.path());
    let parent = Running::start(config).await;
    let dial = async || {
        let mut far = TcpStream::connect(parent.relay).await.unwrap();
        far.write_all(PREAMBLE).await.unwrap();
        far
    };
    let (mut one, two) = (dial().await, dial().await);
    let near = (link(&mut enclave).await, link(&mut enclave).await);
    let mut over = dial().await;
    let mut end = Vec::new();
    let _ = soon(over.read_to_end(&mut end)).await;
    let line = "casemate_links_failed_total{reason=\"too_many\"} 1";
    until(async || parent.metric(line).await).await;
    // nobody says anything
    let _ = soon(one.read_to_end(&mut end)).await;
    until(async || parent.metric("casemate_links 0").await).await;
    drop((near, two));
    let mut far = dial().await;
    let mut near = link(&mut enclave).await;
    hello(&mut near).await;
    exchange(&mut near, &mut far).await;
}

#[tokio::test]
async fn link_without_an_enclave_is_closed_and_made_once_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(folder.path());
    config.peers.get_mut(&name("b")).unwrap().relay = peer.local_addr().unwrap().to_string();
    let parent = Running::start(config).await;
    let mut far = TcpStream::connect(parent.relay).await.unwrap();
    far.write_all(PREAMBLE).await.unwrap();
    let mut end = Vec::new();
    let _ = soon(far.read_to_end(&mut end)).await;
    assert!(end.is_empty());
    // the one that it dials itself ends too, behind its preamble
    let (mut dialled, _) = soon(peer.accept()).await.unwrap();
    let _ = soon(dialled.read_to_end(&mut end)).await;
    assert_eq!(end, PREAMBLE);
    let mut enclave = FakeEnclave::bind(folder.path());
    let accept = async {
        loop {
            let (mut far, _) = peer.accept().await.unwrap();
            let mut said = [0; PREAMBLE.len()];
            if far.read_exact(&mut said).await.is_ok() && far.read_u8().await.is_ok() {
                return;
            }
        }
    };
    let serve = async {
        let mut near = link(&mut enclave).await;
        hello(&mut near).await;
        near.write_all(b"x").await.unwrap();
        near
    };
    let ((), _near) = soon(async { tokio::join!(accept, serve) }).await;
}
