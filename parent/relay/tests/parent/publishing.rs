//! What the enclave publishes gets to the disk, whole and once.

use std::os::unix::fs::MetadataExt as _;

use casemate_door::FromEnclave;
use casemate_proto::cbor;

use crate::support::{Stage, genesis, manifest, member, until};

#[tokio::test]
async fn batch_is_acknowledged_when_its_files_are_on_the_disk() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    control.publish(0, &[("tile/0/000.p/1", b"one"), ("checkpoint", b"first")]).await;
    assert_eq!(control.stored().await, 0);
    let store = parent.data.join("store");
    assert_eq!(std::fs::read(store.join("tile/0/000.p/1")).unwrap(), b"one");
    assert_eq!(std::fs::read(store.join("checkpoint")).unwrap(), b"first");
    control.publish(1, &[("checkpoint", b"second")]).await;
    control.publish(2, &[("checkpoint", b"third")]).await;
    assert_eq!((control.stored().await, control.stored().await), (1, 2));
    assert_eq!(std::fs::read(store.join("checkpoint")).unwrap(), b"third");
}

#[tokio::test]
async fn batch_that_comes_again_is_acknowledged_and_written_once() {
    let Stage { parent, mut control, mut enclave, folder: _folder } = Stage::new().await;
    control.publish(0, &[("tile/0/000", b"one")]).await;
    assert_eq!(control.stored().await, 0);
    let file = parent.data.join("store/tile/0/000");
    let inode = std::fs::metadata(&file).unwrap().ino();
    // the acknowledgement was lost with the connection
    drop(control);
    let mut control = enclave.member().await;
    control.publish(0, &[("tile/0/000", b"one")]).await;
    assert_eq!(control.stored().await, 0);
    assert_eq!(std::fs::metadata(&file).unwrap().ino(), inode);
    until(async || parent.metric("casemate_store_files_total{result=\"same\"} 1").await).await;
}

#[tokio::test]
async fn disk_that_refuses_is_told_and_the_batch_is_stored_once_it_does_not() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    // a file where a folder should be
    let blocked = parent.data.join("store/tile");
    std::fs::write(&blocked, "").unwrap();
    control.publish(0, &[("tile/0/000", b"one"), ("checkpoint", b"first")]).await;
    control.publish(1, &[("tile/0/001", b"two")]).await;
    until(async || parent.get("/readyz").await.status == 503).await;
    let ready = parent.get("/readyz").await.json();
    assert_eq!(ready["failing"].to_string(), r#"["store"]"#);
    let detail = ready["detail"].as_str().unwrap();
    assert!(detail.starts_with("cannot write `tile/0/000` in the store: "), "{detail}");
    // nothing behind it was written, so that what is there is whole
    assert!(!parent.data.join("store/checkpoint").exists());
    std::fs::remove_file(&blocked).unwrap();
    assert_eq!((control.stored().await, control.stored().await), (0, 1));
    control.say(&FromEnclave::Status(Box::new(member()))).await;
    until(async || parent.get("/readyz").await.status == 200).await;
    assert_eq!(std::fs::read(parent.data.join("store/tile/0/000")).unwrap(), b"one");
}

#[tokio::test]
async fn genesis_is_kept_once_the_disk_does_not_refuse() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    let file = parent.data.join("genesis.cbor");
    std::fs::create_dir_all(file.join("in the way")).unwrap();
    let record = cbor::encode(&genesis(&manifest(), 1));
    control.say(&FromEnclave::Genesis { record: record.clone() }).await;
    until(async || parent.get("/readyz").await.status == 503).await;
    let detail = parent.get("/readyz").await.json()["detail"].to_string();
    assert!(detail.contains("cannot write `genesis.cbor`"), "{detail}");
    std::fs::remove_dir_all(&file).unwrap();
    until(async || std::fs::read(&file).is_ok_and(|found| found == record)).await;
}

#[tokio::test]
async fn i12_more_than_may_wait_for_a_refusing_disk_is_asked_for_again() {
    let Stage { parent, mut control, mut enclave, folder: _folder } = Stage::new().await;
    let blocked = parent.data.join("store/tile");
    std::fs::write(&blocked, "").unwrap();
    let large = vec![7; 17 * 1024 * 1024];
    let path = |batch: u64| format!("tile/{batch}");
    for batch in 0..5 {
        control.publish(batch, &[(&path(batch), &large)]).await;
    }
    until(async || parent.get("/readyz").await.status == 503).await;
    std::fs::remove_file(&blocked).unwrap();
    // three fit; what was passed over, and everything behind it, is not acknowledged, and an
    // acknowledgement may be lost with the connection
    let mut stored = Vec::new();
    while let Some(batch) = control.stored_or_closed().await {
        stored.push(batch);
    }
    assert!([0, 1, 2].starts_with(&stored), "{stored:?}");
    let mut control = enclave.member().await;
    let next = u64::try_from(stored.len()).unwrap();
    for batch in next..5 {
        control.publish(batch, &[(&path(batch), &large)]).await;
        assert_eq!(control.stored().await, batch);
    }
    let names: Vec<_> = std::fs::read_dir(parent.data.join("store/tile")).unwrap().collect();
    assert_eq!(names.len(), 5);
}

#[tokio::test]
async fn batch_with_a_path_out_of_the_store_is_refused_whole() {
    let Stage { parent, control, mut enclave, folder } = Stage::new().await;
    let mut control = control;
    // one of each kind; the path's own tests have the rest
    for path in ["../genesis.cbor", "/etc/x", "a/%2e%2e/b"] {
        control.publish(0, &[("good", b"x"), (path, b"x")]).await;
        assert!(control.is_closed().await, "{path}");
        control = enclave.member().await;
    }
    assert!(!parent.data.join("store/good").exists());
    let mut names: Vec<_> = std::fs::read_dir(&parent.data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["lock", "store", "tmp"]);
    assert!(!folder.path().join("genesis.cbor").exists());
}
