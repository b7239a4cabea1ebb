//! The API's description: served, checked in, and complete.

use std::path::Path;

use crate::support::Stage;

fn checked_in() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("docs/openapi.json")
}

#[test]
fn description_is_checked_in_as_it_is() {
    let text = casemate_relay::http::openapi::text();
    if std::env::var_os("CASEMATE_BLESS").is_some() {
        std::fs::write(checked_in(), &text).unwrap();
    }
    let found = std::fs::read_to_string(checked_in()).unwrap();
    assert!(found == text, "docs/openapi.json is not the API's: set CASEMATE_BLESS=1 to write it");
}

#[tokio::test]
async fn description_is_served_and_names_every_route_and_code() {
    let Stage { parent, control: _control, enclave: _enclave, folder: _folder } =
        Stage::new().await;
    let response = parent.get("/openapi.json").await;
    assert_eq!(response.text(), casemate_relay::http::openapi::text());
    let json = response.json();
    let paths: Vec<&String> = json["paths"].as_object().unwrap().keys().collect();
    use casemate_api::route;
    for path in [
        route::REQUESTS,
        route::REQUEST,
        route::APPROVALS,
        route::GOVERNANCE,
        route::ATTESTATION,
        route::CLUSTER,
        route::KEYS,
        route::GENESIS,
        route::CHECKPOINT,
        route::TILE,
        route::STORE,
        route::STORE_FILE,
        route::HEALTHZ,
        route::READYZ,
        route::METRICS,
        route::OPENAPI,
    ] {
        let path = path.replace("{*path}", "{path}");
        assert!(paths.contains(&&path), "{path}");
    }
    assert_eq!(paths.len(), 16);
    // every schema that is named is there
    let text = response.text();
    let schemas = json["components"]["schemas"].as_object().unwrap();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
}
