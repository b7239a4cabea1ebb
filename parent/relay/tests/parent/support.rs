//! A fake enclave, a parent in front of it, and a client that writes HTTP by hand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_door::frame::Phase;
use casemate_door::{
    CONTROL_PORT, Configuration, FromEnclave, MAX_FRAME, Query, Status, StoreFile, Submission,
    Ticket, ToEnclave,
};
use casemate_proto::governance::SignedChange;
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{
    BootRecord, GenesisRecord, Governance, Hardware, Independence, Limits as ManifestLimits,
    Manifest, Measurement, NodeSpec,
};
use casemate_proto::stamp::Stamp;
use casemate_proto::{Algorithm, CredentialId, Millis, NodeName, PublicKey, UnixMillis, cbor};
use casemate_relay::folder::FolderError;
use casemate_relay::{Config, Limits, Parent, Peer, StartError};
use casemate_transport::{Address, FrameReader, Listener, Stream, write_frame};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything takes that works.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("takes too long")
}

/// Waits until something holds.
pub async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    soon(async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

pub fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// An Ed25519 public key by a number.
pub fn ed25519(number: u8) -> PublicKey {
    let key = ed25519_dalek::SigningKey::from_bytes(&[number; 32]).verifying_key();
    PublicKey::new(Algorithm::Ed25519, key.as_bytes()).unwrap()
}

/// Nodes `a`, `b` and `c`, two of which sign.
pub fn manifest() -> Manifest {
    let node =
        |text: &str| NodeSpec { name: name(text), region: "local".to_owned(), pcr3: [3; 48] };
    let manifest = Manifest {
        version: 1,
        name: "test".to_owned(),
        threshold: 2,
        nodes: vec![node("a"), node("b"), node("c")],
        measurements: vec![Measurement { pcr0: [1; 48], pcr1: [2; 48], pcr2: [3; 48] }],
        governance: Governance { quorum: 1, keys: vec![ed25519(1)], loosening_delay: Millis(0) },
        freezers: Vec::new(),
        limits: ManifestLimits::default(),
        independence: Independence::None,
        hardware: Hardware::Simulated,
        trust_root: Hash32::new([9; 32]),
        relying_party: None,
        recovery: None,
    };
    manifest.check().unwrap();
    manifest
}

/// A genesis of a manifest; another number is another cluster.
pub fn genesis(manifest: &Manifest, number: u8) -> GenesisRecord {
    let boot = |(at, node): (usize, &NodeSpec)| {
        let byte = number.wrapping_add(u8::try_from(at).unwrap());
        BootRecord {
            node: node.name.clone(),
            key: [byte; 32],
            channel_key: [byte; 32],
            nonce: [byte; 32],
            apply_version: 1,
            evidence: vec![byte; 8],
        }
    };
    let boots = manifest.nodes.iter().enumerate().map(boot).collect();
    GenesisRecord { manifest: manifest.clone(), boots, at: UnixMillis(1) }
}

/// How a member says that it is.
pub fn member() -> Status {
    Status {
        phase: Phase::Member,
        boot: None,
        genesis: None,
        now: UnixMillis(1),
        size: 7,
        published: 7,
        leader: Some(name("a")),
        majority_age: Some(Millis(40)),
        linked: vec![name("b"), name("c")],
        keys: 1,
        shares: 1,
        triples: 8,
        frozen: false,
        counters: Vec::new(),
        durations: Vec::new(),
    }
}

/// A control connection as the enclave has it.
pub struct Control {
    reader: FrameReader<ReadHalf<Stream>>,
    writer: WriteHalf<Stream>,
    pub configuration: Configuration,
}

impl Control {
    pub async fn hear(&mut self) -> ToEnclave {
        let frame = soon(self.reader.next()).await.unwrap().expect("the parent closed");
        cbor::decode(&frame, MAX_FRAME).unwrap()
    }

    /// The next submission and its ticket.
    pub async fn submitted(&mut self) -> (Ticket, Submission) {
        match self.hear().await {
            ToEnclave::Submit { ticket, submission } => (ticket, submission),
            other => panic!("{other:?}"),
        }
    }

    /// The next query and its ticket.
    pub async fn asked(&mut self) -> (Ticket, Query) {
        match self.hear().await {
            ToEnclave::Ask { ticket, query } => (ticket, query),
            other => panic!("{other:?}"),
        }
    }

    /// The next acknowledgement.
    pub async fn stored(&mut self) -> u64 {
        match self.hear().await {
            ToEnclave::Stored { batch } => batch,
            other => panic!("{other:?}"),
        }
    }

    /// The next acknowledgement, `None` once the parent has closed.
    pub async fn stored_or_closed(&mut self) -> Option<u64> {
        let frame = soon(self.reader.next()).await.ok().flatten()?;
        match cbor::decode(&frame, MAX_FRAME).unwrap() {
            ToEnclave::Stored { batch } => Some(batch),
            other => panic!("{other:?}"),
        }
    }

    pub async fn say(&mut self, what: &FromEnclave) {
        let frame = cbor::encode(what);
        write_frame(&mut self.writer, &frame, MAX_FRAME).await.unwrap();
    }

    pub async fn say_bytes(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
    }

    pub async fn publish(&mut self, batch: u64, files: &[(&str, &[u8])]) {
        let file = |(path, bytes): &(&str, &[u8])| StoreFile {
            path: (*path).to_owned(),
            bytes: bytes.to_vec(),
        };
        let files = files.iter().map(file).collect();
        self.say(&FromEnclave::Publish { batch, files }).await;
    }

    /// Whether the parent closes without another word.
    pub async fn is_closed(&mut self) -> bool {
        !matches!(soon(self.reader.next()).await, Ok(Some(_)))
    }
}

/// The enclave's side of the door.
pub struct FakeEnclave {
    door: Listener,
}

impl FakeEnclave {
    pub fn bind(folder: &Path) -> Self {
        let ports = [CONTROL_PORT, casemate_door::PEER_PORT];
        Self { door: Listener::bind(&door(folder), &ports).unwrap() }
    }

    pub async fn accept(&mut self) -> (u32, Stream) {
        soon(self.door.accept()).await.unwrap()
    }

    /// The next control connection, configured.
    pub async fn control(&mut self) -> Control {
        let (port, stream) = self.accept().await;
        assert_eq!(port, CONTROL_PORT);
        control_of(stream).await
    }

    /// The next control connection, of an enclave that says that it is a member.
    pub async fn member(&mut self) -> Control {
        let mut control = self.control().await;
        control.say(&FromEnclave::Status(Box::new(member()))).await;
        control
    }
}

pub async fn control_of(stream: Stream) -> Control {
    let (read, writer) = tokio::io::split(stream);
    let mut reader = FrameReader::new(read, MAX_FRAME);
    let frame = soon(reader.next()).await.unwrap().unwrap();
    match cbor::decode(&frame, MAX_FRAME).unwrap() {
        ToEnclave::Configure(configuration) => Control { reader, writer, configuration },
        other => panic!("{other:?}"),
    }
}

pub fn door(folder: &Path) -> Address {
    Address::unix(folder.join("door")).unwrap()
}

/// A configuration of node `a` in this folder, on ports that are free.
pub fn config(folder: &Path) -> Config {
    let manifest = manifest();
    let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let nowhere = || Peer { relay: "127.0.0.1:1".to_owned(), http: None };
    Config {
        node: name("a"),
        manifest,
        folder: folder.join("data"),
        enclave: door(folder),
        http: anywhere,
        relay: anywhere,
        peers: BTreeMap::from([(name("b"), nowhere()), (name("c"), nowhere())]),
        triple_stock: Some(4),
        round_trip_ms: Some(20),
        limits: Limits::default(),
    }
}

/// A parent that runs in this process until it is stopped or dropped.
pub struct Running {
    pub http: SocketAddr,
    pub relay: SocketAddr,
    pub data: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), StartError>>,
}

impl Running {
    pub async fn start(config: Config) -> Self {
        let data = config.folder.clone();
        // a parent of the same folder that was just killed may not be quite gone
        let parent = soon(async {
            loop {
                match Parent::bind(config.clone()).await {
                    Err(StartError::Folder(FolderError::InUse { .. })) => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    bound => return bound.unwrap(),
                }
            }
        })
        .await;
        let (http, relay) = (parent.http_address(), parent.relay_address());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(parent.run(async {
            let _ = stopped.await;
        }));
        Self { http, relay, data, stop: Some(stop), task }
    }

    /// As a process that is told to stop.
    pub async fn stop(mut self) {
        self.stop.take();
        soon(&mut self.task).await.unwrap().unwrap();
    }

    /// As a process that is killed.
    pub async fn kill(mut self) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
    }

    pub async fn get(&self, path: &str) -> Response {
        send(self.http, "GET", path, &[], b"").await
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        send(self.http, "POST", path, headers, body).await
    }

    /// Asks for a signature, with a stamp that nobody here checks.
    pub async fn request(&self, query: &str, body: &[u8]) -> Response {
        let stamp = stamp().to_header();
        let path = format!("/v1/requests{query}");
        self.post(&path, &[JSON, ("casemate-stamp", &stamp)], body).await
    }

    pub async fn metric(&self, line: &str) -> bool {
        self.get("/metrics").await.text().lines().any(|found| found == line)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A parent in front of an enclave that is a member.
pub struct Stage {
    // the folder goes last
    pub parent: Running,
    pub control: Control,
    pub enclave: FakeEnclave,
    pub folder: tempfile::TempDir,
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        change(&mut config);
        let mut enclave = FakeEnclave::bind(folder.path());
        let parent = Running::start(config).await;
        let control = enclave.member().await;
        until(async || parent.get("/readyz").await.status == 200).await;
        Self { parent, control, enclave, folder }
    }
}

pub const JSON: (&str, &str) = ("content-type", "application/json");

pub fn credential() -> CredentialId {
    CredentialId(Hash32::new([5; 32]))
}

pub fn stamp() -> Stamp {
    Stamp {
        credential: credential(),
        issued_at: UnixMillis(1),
        expires_at: UnixMillis(2),
        nonce: [3; 16],
        signature: [4; 64],
    }
}

pub fn change() -> SignedChange {
    use casemate_proto::governance::{Change, ChangeEnvelope};
    SignedChange {
        envelope: ChangeEnvelope {
            genesis: casemate_proto::GenesisId::new([3; 32]),
            incarnation: casemate_proto::Incarnation(0),
            predecessor: Hash32::new([4; 32]),
            expires: UnixMillis(5),
            change: Change::ConfirmGenesis,
        },
        signatures: Vec::new(),
    }
}

/// What came back.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Its problem's code, if it is a problem of its own status.
    pub fn code(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status, "{json}");
        assert_eq!(
            json["type"],
            format!("urn:casemate:problem:{}", json["code"].as_str().unwrap())
        );
        json["code"].as_str().unwrap().to_owned()
    }

    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Some(Self { status, headers, body: bytes[end + 4..].to_vec() })
    }
}

/// A request's bytes, on a connection of its own.
pub fn request_bytes(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

pub async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    raw(address, &request_bytes(method, path, headers, body)).await
}

/// Writes bytes, reads until the end, and takes that for a response.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Response {
    let mut stream = soon(TcpStream::connect(address)).await.unwrap();
    // a server that has refused already reads no more
    let _ = soon(stream.write_all(bytes)).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    let shown = String::from_utf8_lossy(&answer).into_owned();
    Response::parse(&answer).unwrap_or_else(|| panic!("no response: `{shown}`"))
}
