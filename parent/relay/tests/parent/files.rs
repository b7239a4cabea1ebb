//! The auditors' store over HTTP.

use crate::support::{Running, Stage, raw, send};

const IMMUTABLE: &str = "public, max-age=31536000, immutable";

async fn stage() -> Stage {
    let mut stage = Stage::new().await;
    stage
        .control
        .publish(
            0,
            &[
                ("genesis.cbor", b"genesis"),
                ("tile/0/000", b"full"),
                ("tile/0/001.p/7", b"partial"),
                ("tile/entries/x001/234", b"entries"),
                ("attachments/aa", b"policy"),
                ("checkpoints/1-aa", b"one"),
                ("checkpoints/2-bb", b"two"),
                ("checkpoint", b"note"),
            ],
        )
        .await;
    assert_eq!(stage.control.stored().await, 0);
    stage
}

#[tokio::test]
async fn tiles_checkpoint_and_files_are_served_with_what_may_be_cached() {
    let Stage { parent, control: _control, enclave: _enclave, folder: _folder } = stage().await;
    for (path, body, cache, media) in [
        ("/v1/checkpoint", "note", "no-cache", "text/plain; charset=utf-8"),
        ("/v1/tile/0/000", "full", IMMUTABLE, "application/octet-stream"),
        ("/v1/tile/entries/x001/234", "entries", IMMUTABLE, "application/octet-stream"),
        ("/v1/tile/0/001.p/7", "partial", "public, max-age=60", "application/octet-stream"),
        ("/v1/store/tile/0/000", "full", IMMUTABLE, "application/octet-stream"),
        ("/v1/store/tile/0/001.p/7", "partial", "public, max-age=60", "application/octet-stream"),
        ("/v1/store/genesis.cbor", "genesis", IMMUTABLE, "application/octet-stream"),
        ("/v1/store/attachments/aa", "policy", IMMUTABLE, "application/octet-stream"),
        ("/v1/store/checkpoint", "note", "no-cache", "application/octet-stream"),
        ("/v1/store/checkpoints/1-aa", "one", "no-cache", "application/octet-stream"),
    ] {
        let response = parent.get(path).await;
        assert_eq!((response.status, response.text().as_str()), (200, body), "{path}");
        assert_eq!(response.headers["cache-control"], cache, "{path}");
        assert_eq!(response.headers["content-type"], media, "{path}");
        assert_eq!(response.headers["x-content-type-options"], "nosniff", "{path}");
        let head = send(parent.http, "HEAD", path, &[], b"").await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.headers["content-length"], body.len().to_string(), "{path}");
    }
}

#[tokio::test]
async fn paths_that_lead_elsewhere_or_nowhere_are_not_found() {
    let Stage { parent, control: _control, enclave: _enclave, folder: _folder } = stage().await;
    std::fs::write(parent.data.join("secret"), "secret").unwrap();
    let long = "a".repeat(5_000);
    for path in [
        "/v1/store/../secret",
        "/v1/store/..%2fsecret",
        "/v1/store/%2e%2e/secret",
        "/v1/store/%2e%2e%2fsecret",
        "/v1/store/tile/../../secret",
        "/v1/store/tile%2f..%2f..%2fsecret",
        "/v1/store//etc/passwd",
        "/v1/store/%2fetc%2fpasswd",
        "/v1/store/secret%00",
        "/v1/store/%ff",
        "/v1/store/.",
        "/v1/store/tile",
        "/v1/store/tile/0",
        "/v1/store/nothing",
        "/v1/tile/../../secret",
        "/v1/tile/..%2f..%2fsecret",
        "/v1/tile/0/00",
        "/v1/tile/0/0000",
        "/v1/tile/0/001",
        "/v1/tile/0/000.p/256",
        "/v1/tile/9/000",
        "/v1/tile/entries",
        &format!("/v1/tile/{long}"),
        &format!("/v1/store/{long}"),
    ] {
        let response = parent.get(path).await;
        assert_eq!(response.status, 404, "{path}");
        assert_eq!(response.code(), "not_found", "{path}");
    }
}

#[tokio::test]
async fn folders_are_listed_in_order_and_never_outside_of_the_store() {
    let Stage { parent, control: _control, enclave: _enclave, folder: _folder } = stage().await;
    let list = async |query: &str| parent.get(&format!("/v1/store{query}")).await;
    let json = list("?folder=checkpoints").await.json();
    assert_eq!(json.to_string(), r#"{"folder":"checkpoints","names":["1-aa","2-bb"],"next":null}"#);
    let json = list("?folder=checkpoints&after=1-aa").await.json();
    assert_eq!(json["names"].to_string(), r#"["2-bb"]"#);
    let json = list("?folder=tile%2F0").await.json();
    assert_eq!(json["names"].to_string(), r#"["000"]"#);
    assert_eq!(list("?folder=nothing").await.json()["names"].to_string(), "[]");
    for query in ["", "?folder=", "?folder=..", "?folder=/", "?folder=.&folder=x", "?folder=a&x=1"]
    {
        let response = list(query).await;
        assert_eq!((response.status, response.code().as_str()), (400, "bad_query"), "{query}");
    }
}

#[tokio::test]
async fn long_folder_is_listed_a_thousand_names_at_a_time() {
    let Stage { parent, control: _control, enclave: _enclave, folder: _folder } = stage().await;
    let folder = parent.data.join("store/receipts");
    std::fs::create_dir(&folder).unwrap();
    for number in 0..1_001 {
        std::fs::write(folder.join(format!("{number:04}")), "").unwrap();
    }
    let json = parent.get("/v1/store?folder=receipts").await.json();
    assert_eq!(json["names"].as_array().unwrap().len(), 1_000);
    assert_eq!(json["next"], "0999");
    let json = parent.get("/v1/store?folder=receipts&after=0999").await.json();
    assert_eq!((json["names"].to_string().as_str(), &json["next"]), (r#"["1000"]"#, &().into()));
}

#[tokio::test]
async fn store_is_served_without_an_enclave() {
    let Stage { parent, control, enclave, folder } = stage().await;
    drop((control, enclave));
    parent.stop().await;
    let parent = Running::start(crate::support::config(folder.path())).await;
    assert_eq!(parent.get("/v1/checkpoint").await.text(), "note");
}

#[tokio::test]
async fn request_that_is_no_http_is_refused() {
    let Stage { parent, control: _control, enclave: _enclave, folder: _folder } =
        Stage::new().await;
    for bytes in [
        b"casemate-relay/1\nxxxxxxxx\r\n\r\n".as_slice(),
        b"GET /\r\n\r\n",
        b"\x16\x03\x01\x02\0\r\n\r\n",
    ] {
        assert_eq!(raw(parent.http, bytes).await.status, 400);
    }
}
