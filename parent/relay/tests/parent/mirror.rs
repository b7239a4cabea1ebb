//! Files that the enclave published before this node was admitted anew come from other parents.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use casemate_audit::{
    Checkpoint, NoteKeyName, NoteSignature, Origin, Record, RecordFields, SignatureKind,
    SignedNote, StoreWriter, Tree, VerifierKey, leaf_hash,
};
use casemate_door::{FromEnclave, MAX_FRAME, StoreFile};
use casemate_proto::hash::tagged_hash;
use casemate_proto::{Incarnation, UnixMillis, cbor};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{
    Control, FakeEnclave, Running, Stage, config, genesis, manifest, name, until,
};

/// A log that was committed at these sizes: all the files of each commit.
fn log(sizes: &[u64]) -> Vec<Vec<(String, Vec<u8>)>> {
    let record = genesis(&manifest(), 1);
    let origin = Origin { genesis: record.id(), incarnation: Incarnation(0) };
    let mut writer = StoreWriter::new(&cbor::encode(&record));
    let mut tree = Tree::new();
    let policy = b"a policy".to_vec();
    writer.attach(&tagged_hash("casemate/policy/v1", &[&policy]), &policy);
    let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key();
    let name = NoteKeyName::new(&origin.to_string()).unwrap();
    let key = VerifierKey::new(name, SignatureKind::Ed25519, key.as_bytes()).unwrap();
    let mut commits = Vec::new();
    for size in sizes {
        while tree.size() < *size {
            let record = Record::new(RecordFields {
                index: tree.size(),
                time: UnixMillis(tree.size()),
                kind: "tick".to_owned(),
                entry: vec![1],
                verdict: vec![2],
                policy: None,
                counters: Vec::new(),
                previous_root: tree.root(),
            })
            .unwrap();
            tree.append(leaf_hash(record.leaf_bytes()));
            writer.append(&record).unwrap();
        }
        let checkpoint = Checkpoint::new(&origin, tree.size(), tree.root());
        let note =
            SignedNote::assemble(&checkpoint.body(), &[NoteSignature::ed25519(&key, &[0; 64])]);
        commits.push(writer.commit(&note.unwrap()).unwrap());
    }
    commits
}

async fn publish(control: &mut Control, commits: &[Vec<(String, Vec<u8>)>]) {
    let record = cbor::encode(&genesis(&manifest(), 1));
    control.say(&FromEnclave::Genesis { record }).await;
    for (batch, files) in commits.iter().enumerate() {
        let file = |(path, bytes): &(String, Vec<u8>)| StoreFile {
            path: path.clone(),
            bytes: bytes.clone(),
        };
        let batch = u64::try_from(batch).unwrap();
        let said = FromEnclave::Publish { batch, files: files.iter().map(file).collect() };
        assert!(cbor::encode(&said).len() < MAX_FRAME);
        control.say(&said).await;
        assert_eq!(control.stored().await, batch);
    }
}

fn files_of(store: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![store.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let relative = path.strip_prefix(store).unwrap().to_str().unwrap().to_owned();
                files.insert(relative, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Whether a store has every tile, record and attachment that another has.
fn is_complete(store: &Path, whole: &Path) -> bool {
    let own = files_of(store);
    files_of(whole)
        .iter()
        .filter(|(path, _)| !path.contains(".p/") && !path.starts_with("checkpoints/"))
        .all(|(path, bytes)| own.get(path) == Some(bytes))
}

#[tokio::test]
async fn gap_of_a_restart_is_filled_and_nothing_overwritten() {
    // 300 records while the node was there, up to 1,300 while it was not, and a few since
    let commits = log(&[300, 1_300, 1_400]);
    let Stage { parent: whole, mut control, enclave: _one, folder: _other } = Stage::new().await;
    publish(&mut control, &commits).await;

    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    let url = format!("http://{}", whole.http).parse().unwrap();
    config.peers.get_mut(&name("b")).unwrap().http = Some(url);
    let mut enclave = FakeEnclave::bind(folder.path());
    let parent = Running::start(config).await;
    let mut control = enclave.member().await;
    let own = [commits[0].clone(), commits[2].clone()];
    publish(&mut control, &own).await;
    let (store, of_whole) = (parent.data.join("store"), whole.data.join("store"));
    until(async || is_complete(&store, &of_whole)).await;
    assert!(!parent.data.join("conflicts").exists());
    // and it is a log to continue from
    let read: BTreeMap<_, _> = files_of(&store);
    assert_eq!(StoreWriter::resume(&read).unwrap().size(), 1_400);
}

/// Serves files as a parent would, each of them with one bit flipped; counts what it is asked for.
async fn liar(files: BTreeMap<String, Vec<u8>>, asked_for: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            asked_for.fetch_add(1, Ordering::Relaxed);
            let mut asked = vec![0; 4096];
            let read = stream.read(&mut asked).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&asked[..read]).into_owned();
            let target = text.split(' ').nth(1).unwrap_or_default();
            let body = if target.starts_with("/v1/store?") {
                let hash = hex::encode([7; 32]);
                let name = files.keys().find_map(|path| path.strip_prefix("attachments/"));
                let names = serde_json::json!([name, hash, "..", "../x"]);
                let json =
                    serde_json::json!({"folder": "attachments", "names": names, "next": null});
                Some(json.to_string().into_bytes())
            } else {
                files.get(target.trim_start_matches("/v1/store/")).cloned().map(|mut bytes| {
                    if let Some(byte) = bytes.last_mut() {
                        *byte ^= 1;
                    }
                    bytes
                })
            };
            let head = match &body {
                Some(body) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", body.len()),
                None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n".to_owned(),
            };
            let _ = stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await;
            let _ = stream.write_all(&body.unwrap_or_default()).await;
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn files_of_a_lying_mirror_are_not_written_and_the_next_mirror_is_asked() {
    let commits = log(&[700, 1_300, 1_400]);
    let Stage { parent: whole, mut control, enclave: _one, folder: _other } = Stage::new().await;
    publish(&mut control, &commits).await;
    let of_whole = whole.data.join("store");
    let asked_for = Arc::new(AtomicUsize::new(0));
    let lies = liar(files_of(&of_whole), Arc::clone(&asked_for)).await;

    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.peers.get_mut(&name("b")).unwrap().http = Some(lies.parse().unwrap());
    let mut enclave = FakeEnclave::bind(folder.path());
    let parent = Running::start(config.clone()).await;
    let mut control = enclave.member().await;
    let own = [commits[0].clone(), commits[2].clone()];
    publish(&mut control, &own).await;
    let store = parent.data.join("store");
    let before = files_of(&store);
    // asked, and asked again
    until(async || asked_for.load(Ordering::Relaxed) >= 2).await;
    parent.stop().await;
    drop(control);
    assert_eq!(files_of(&store), before);

    // with an honest one beside it, the store becomes whole
    let url = format!("http://{}", whole.http).parse().unwrap();
    config.peers.get_mut(&name("c")).unwrap().http = Some(url);
    let _parent = Running::start(config).await;
    until(async || is_complete(&store, &of_whole)).await;
    for (path, bytes) in &before {
        assert_eq!(files_of(&store).get(path), Some(bytes), "{path}");
    }
}
