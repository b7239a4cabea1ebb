//! A parent of a few lines, and the link between two of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casemate_door::{
    CONTROL_PORT, FromEnclave, MAX_FRAME, PEER_PORT, PeerHello, SignedReply, Status, Ticket,
    ToEnclave,
};
use casemate_proto::{Incarnation, NodeName};
use casemate_transport::frame::{read_frame, write_frame};
use tokio::net::UnixStream;
use tokio::time::sleep;

/// What a node's parent knows.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) genesis: Option<Vec<u8>>,
    pub(crate) status: Option<Status>,
    pub(crate) refused: Option<String>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) sealed: Option<Vec<u8>>,
    pub(crate) offer: Option<Vec<u8>>,
    pub(crate) recovered: Option<Incarnation>,
    pub(crate) replies: Vec<(Ticket, Option<SignedReply>)>,
}

/// What a parent does with one enclave's control connection: says what it is asked to, and remembers.
pub(crate) async fn parent(
    socket: PathBuf,
    mut asked: tokio::sync::mpsc::UnboundedReceiver<ToEnclave>,
    known: Arc<Mutex<Known>>,
) {
    let stream = casemate_transport::hybrid::connect(&socket, CONTROL_PORT).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        while let Some(message) = asked.recv().await {
            let bytes = casemate_proto::cbor::encode(&message);
            write_frame(&mut writer, &bytes, MAX_FRAME).await.unwrap();
        }
    };
    let read = async {
        while let Ok(Some(bytes)) = read_frame(&mut reader, MAX_FRAME).await {
            let mut known = known.lock().unwrap();
            match casemate_proto::cbor::decode::<FromEnclave>(&bytes, MAX_FRAME).unwrap() {
                FromEnclave::Refused { reason } => known.refused = Some(reason),
                FromEnclave::Genesis { record } => known.genesis = Some(record),
                FromEnclave::Status(status) => known.status = Some(*status),
                FromEnclave::Reply { ticket, reply } => known.replies.push((ticket, reply)),
                FromEnclave::Halted { reason } => known.refused = Some(reason),
                FromEnclave::Publish { files, .. } => {
                    known.files.extend(files.into_iter().map(|file| (file.path, file.bytes)));
                }
                FromEnclave::Sealed { blob } => known.sealed = Some(blob),
                FromEnclave::Offer { offer } => known.offer = Some(offer),
                FromEnclave::Recovered { incarnation } => known.recovered = Some(incarnation),
                FromEnclave::Answer { .. } => {}
            }
        }
    };
    tokio::join!(write, read);
}

async fn connect(socket: &Path, hello: &PeerHello) -> Option<UnixStream> {
    let mut stream = casemate_transport::hybrid::connect(socket, PEER_PORT).await.ok()?;
    let hello = casemate_proto::cbor::encode(hello);
    write_frame(&mut stream, &hello, MAX_FRAME).await.ok()?;
    Some(stream)
}

/// Links two enclaves as their parents would, again and again; not while `hold` is true.
pub(crate) async fn pipe(
    from: PathBuf,
    to: PathBuf,
    name: NodeName,
    mut hold: Option<tokio::sync::watch::Receiver<bool>>,
) {
    loop {
        if let Some(hold) = &mut hold {
            let _ = hold.wait_for(|hold| !hold).await;
        }
        let dial = connect(&from, &PeerHello::Dial { to: name.clone() }).await;
        let accept = connect(&to, &PeerHello::Accept).await;
        if let (Some(mut dial), Some(mut accept)) = (dial, accept) {
            let _ = tokio::io::copy_bidirectional(&mut dial, &mut accept).await;
        }
        sleep(Duration::from_millis(100)).await;
    }
}
