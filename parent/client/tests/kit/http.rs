//! As much of HTTP as a client needs: one request a connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use casemate_api::reply::GenesisJson;
use casemate_api::text::Hex;
use casemate_api::{Rendered, ReplyKind};
use casemate_proto::stamp::Stamp;
use casemate_proto::{NodeName, cbor};

use super::Fake;

/// What came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub stamp: Option<String>,
    pub body: Vec<u8>,
}

pub fn serve(listener: TcpListener, fake: Fake, node: NodeName) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), fake, node) = (stream, fake.clone(), node.clone()) else { return };
            std::thread::spawn(move || {
                if let Some(asked) = read(&mut stream) {
                    answer(&asked, &mut stream, &fake, &node);
                }
            });
        }
    });
}

fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut parts = line.split(' ');
    let (method, path) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let (mut stamp, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "casemate-stamp" => stamp = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, path, stamp, body })
}

fn answer(asked: &Asked, stream: &mut TcpStream, fake: &Fake, node: &NodeName) {
    let takeover = fake.with(|world| world.nodes[node].takeover.clone());
    if takeover.is_some_and(|takeover| takeover(asked, stream)) {
        return;
    }
    let (status, body) = fake.with(|world| {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let kind = match path {
            "/v1/attestation" => ReplyKind::Attestation,
            "/v1/cluster" => ReplyKind::Cluster,
            "/v1/keys" => ReplyKind::Keys,
            "/v1/genesis" => {
                let record = Hex(cbor::encode(&world.genesis));
                let json = GenesisJson { genesis_id: world.id, record };
                return (200, serde_json::to_vec(&json).unwrap());
            }
            "/v1/requests" if asked.method == "POST" => {
                let stamp = Stamp::from_header(asked.stamp.as_ref().unwrap()).unwrap();
                let Rendered { status, body, .. } = world.answer(node, stamp, asked.body.clone());
                return (status, body);
            }
            "/v1/requests" => ReplyKind::PendingRequests,
            "/v1/governance" => {
                let Rendered { status, body, .. } = world.govern(node, &asked.body);
                return (status, body);
            }
            "/v1/approvals" => {
                let stamp = Stamp::from_header(asked.stamp.as_ref().unwrap()).unwrap();
                let Rendered { status, body, .. } = world.approve(&stamp, &asked.body);
                return (status, body);
            }
            "/readyz" => return world.ready(node),
            path if path.starts_with("/v1/store") => {
                let path = path["/v1/store".len()..].to_owned();
                return world.store_at(&path, query);
            }
            _ => return (404, Vec::new()),
        };
        let nonce: [u8; 32] =
            hex::decode(query.strip_prefix("nonce=0x").unwrap()).unwrap().try_into().unwrap();
        (200, world.reply(&world.nodes[node], kind, &nonce))
    });
    respond(stream, status, "", &body);
}

pub fn respond(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}
