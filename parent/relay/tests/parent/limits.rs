//! What is too large, too slow or too much.

use std::time::Duration;

use casemate_api::{MAX_BODY, MAX_GOVERNANCE_BODY};
use casemate_door::{Answer, FromEnclave};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::{JSON, Response, Stage, raw, request_bytes, soon, stamp, until};

/// Reads until the other end closes.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn i12_body_over_its_cap_is_refused_announced_or_not() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    let body = vec![b' '; MAX_BODY + 1];
    let response = parent.request("", &body).await;
    assert_eq!((response.status, response.code().as_str()), (413, "body_too_large"));

    // announced as larger than anything, and never sent
    let stamp = stamp().to_header();
    let head = |length: &str| {
        format!(
            "POST /v1/requests HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncasemate-stamp: {stamp}\r\n{length}\r\n\r\n"
        )
    };
    let response = raw(parent.http, head("content-length: 99999999999").as_bytes()).await;
    assert_eq!((response.status, response.code().as_str()), (413, "body_too_large"));

    // in chunks, without a length
    let mut bytes = head("transfer-encoding: chunked").into_bytes();
    for _ in 0..=MAX_BODY / 1024 {
        bytes.extend_from_slice(b"400\r\n");
        bytes.extend_from_slice(&[b' '; 1024]);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    let response = raw(parent.http, &bytes).await;
    assert_eq!((response.status, response.code().as_str()), (413, "body_too_large"));

    // the largest that is taken
    let answers = async {
        let (ticket, _) = control.submitted().await;
        control.say(&FromEnclave::Answer { ticket, answer: Answer::Unknown }).await;
    };
    let (response, ()) = tokio::join!(parent.request("", &body[1..]), answers);
    assert_eq!(response.status, 404);

    let announced = format!("content-length: {}", MAX_GOVERNANCE_BODY + 1);
    let text = format!(
        "POST /v1/governance HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\n{announced}\r\n\r\n"
    );
    let response = raw(parent.http, text.as_bytes()).await;
    assert_eq!((response.status, response.code().as_str()), (413, "body_too_large"));
}

#[tokio::test]
async fn i12_headers_over_their_cap_in_size_or_number_are_refused() {
    let Stage { parent, control: _control, enclave: _enclave, folder: _folder } =
        Stage::new().await;
    let long = "x".repeat(20_000);
    let response = raw(parent.http, &request_bytes("GET", "/healthz", &[("x", &long)], b"")).await;
    assert_eq!(response.status, 431);
    let many = vec![("x", "y"); 100];
    let response = raw(parent.http, &request_bytes("GET", "/healthz", &many, b"")).await;
    assert_eq!(response.status, 431);
    let path = format!("/{}", "x".repeat(20_000));
    let response = raw(parent.http, &request_bytes("GET", &path, &[], b"")).await;
    assert!(matches!(response.status, 414 | 431), "{response:?}");
}

#[tokio::test]
async fn i12_slow_headers_slow_bodies_and_idle_connections_are_ended() {
    let stage = Stage::with(|config| {
        config.limits.header_timeout = Duration::from_millis(200);
        config.limits.body_timeout = Duration::from_millis(200);
    })
    .await;
    let parent = &stage.parent;
    let began = Instant::now();
    let connect = async |bytes: Vec<u8>| {
        let mut stream = TcpStream::connect(parent.http).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream
    };
    let mut nothing = connect(Vec::new()).await;
    let mut half = connect(b"GET /healthz HTTP/1.1\r\nhost".to_vec()).await;
    let mut idle = connect(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()).await;
    let stamp = stamp().to_header();
    let headers = [JSON, ("casemate-stamp", stamp.as_str())];
    let whole = request_bytes("POST", "/v1/requests", &headers, b"{}");
    let mut body = connect(whole[..whole.len() - 1].to_vec()).await;

    assert_eq!(rest(&mut nothing).await, b"");
    rest(&mut half).await;
    assert_eq!(Response::parse(&rest(&mut idle).await).unwrap().status, 200);
    let response = Response::parse(&rest(&mut body).await).unwrap();
    assert_eq!((response.status, response.code().as_str()), (408, "request_timeout"));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn drip_of_a_byte_at_a_time_does_not_keep_a_connection() {
    let stage =
        Stage::with(|config| config.limits.header_timeout = Duration::from_millis(300)).await;
    let mut stream = TcpStream::connect(stage.parent.http).await.unwrap();
    let drip = async {
        loop {
            if stream.write_all(b"x").await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon(drip).await;
}

#[tokio::test]
async fn i12_connections_over_the_limit_are_told_so_and_room_is_made_again() {
    let stage = Stage::with(|config| config.limits.http_connections = 3).await;
    let parent = &stage.parent;
    // those that asked whether it is ready are gone
    until(async || parent.metric("casemate_http_connections 1").await).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(parent.http).await.unwrap());
    }
    let mut over = TcpStream::connect(parent.http).await.unwrap();
    let response = Response::parse(&rest(&mut over).await).unwrap();
    assert_eq!((response.status, response.code().as_str()), (503, "overloaded"));
    assert_eq!(response.headers["retry-after"], "1");
    held.pop();
    until(async || {
        let mut stream = TcpStream::connect(parent.http).await.unwrap();
        let _ = stream.write_all(&request_bytes("GET", "/healthz", &[], b"")).await;
        Response::parse(&rest(&mut stream).await).is_some_and(|response| response.status == 200)
    })
    .await;
    drop(held);
    let line = "casemate_http_refused_total{reason=\"too_many\"}";
    until(async || {
        let mut stream = TcpStream::connect(parent.http).await.unwrap();
        let _ = stream.write_all(&request_bytes("GET", "/metrics", &[], b"")).await;
        String::from_utf8_lossy(&rest(&mut stream).await).contains(line)
    })
    .await;
}

#[tokio::test]
async fn connections_from_one_address_are_limited_by_themselves() {
    let stage = Stage::with(|config| config.limits.http_connections_per_address = 2).await;
    let parent = &stage.parent;
    until(async || parent.metric("casemate_http_connections 1").await).await;
    let _held = (
        TcpStream::connect(parent.http).await.unwrap(),
        TcpStream::connect(parent.http).await.unwrap(),
    );
    let mut over = TcpStream::connect(parent.http).await.unwrap();
    let response = Response::parse(&rest(&mut over).await).unwrap();
    assert_eq!((response.status, response.code().as_str()), (503, "overloaded"));
}

#[tokio::test]
async fn i12_more_than_may_wait_for_the_enclave_is_refused() {
    let stage = Stage::with(|config| config.limits.in_flight = 2).await;
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = stage;
    let third = async {
        let first = control.submitted().await;
        let second = control.submitted().await;
        let response = parent.request("", b"3").await;
        assert_eq!((response.status, response.code().as_str()), (503, "overloaded"));
        assert_eq!(response.headers["retry-after"], "1");
        for (ticket, _) in [first, second] {
            control.say(&FromEnclave::Answer { ticket, answer: Answer::Unknown }).await;
        }
    };
    let (one, two, ()) = tokio::join!(parent.request("", b"1"), parent.request("", b"2"), third);
    assert_eq!((one.status, two.status), (404, 404));
}

#[tokio::test]
async fn client_that_goes_away_makes_room_for_others() {
    let stage = Stage::with(|config| config.limits.in_flight = 1).await;
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = stage;
    let stamp = stamp().to_header();
    let headers = [JSON, ("casemate-stamp", stamp.as_str())];
    let mut stream = TcpStream::connect(parent.http).await.unwrap();
    stream.write_all(&request_bytes("POST", "/v1/requests", &headers, b"1")).await.unwrap();
    control.submitted().await;
    drop(stream);
    until(async || parent.metric("casemate_waiting 0").await).await;
    let answers = async {
        let (ticket, _) = control.submitted().await;
        control.say(&FromEnclave::Answer { ticket, answer: Answer::Unknown }).await;
    };
    let (response, ()) = tokio::join!(parent.request("", b"2"), answers);
    assert_eq!(response.status, 404);
}

#[tokio::test]
async fn governance_submissions_are_few_at_a_time() {
    let stage = Stage::with(|config| config.limits.governance_in_flight = 1).await;
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = stage;
    let submission = casemate_door::Submission::Governance {
        signed: crate::support::change(),
        attachment: None,
    };
    let body = casemate_api::GovernanceBody::of(&submission).unwrap().to_body();
    let second = async {
        let (ticket, _) = control.submitted().await;
        let response = parent.post("/v1/governance", &[JSON], &body).await;
        assert_eq!((response.status, response.code().as_str()), (503, "overloaded"));
        control.say(&FromEnclave::Answer { ticket, answer: Answer::Unknown }).await;
    };
    let (first, ()) = tokio::join!(parent.post("/v1/governance", &[JSON], &body), second);
    assert_eq!(first.status, 404);
}

#[tokio::test]
async fn i12_response_that_is_not_read_does_not_keep_a_connection() {
    let stage = Stage::with(|config| {
        config.limits.write_timeout = Duration::from_millis(300);
        config.limits.header_timeout = Duration::from_secs(60);
    })
    .await;
    let mut control = stage.control;
    // larger than what sockets hold
    control.publish(0, &[("large", &vec![7; 12 * 1024 * 1024])]).await;
    assert_eq!(control.stored().await, 0);
    let mut stream = TcpStream::connect(stage.parent.http).await.unwrap();
    let bytes = b"GET /v1/store/large HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(bytes).await.unwrap();
    until(async || stage.parent.metric("casemate_http_connections 1").await).await;
    let mut whole = Vec::new();
    let _ = soon(stream.read_to_end(&mut whole)).await;
    assert!(whole.len() < 12 * 1024 * 1024);
}

#[tokio::test]
async fn requests_under_way_are_told_that_the_parent_stops() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    let stamp = stamp().to_header();
    let headers = [JSON, ("casemate-stamp", stamp.as_str())];
    let mut stream = TcpStream::connect(parent.http).await.unwrap();
    stream.write_all(&request_bytes("POST", "/v1/requests", &headers, b"1")).await.unwrap();
    let _idle = TcpStream::connect(parent.http).await.unwrap();
    control.submitted().await;
    let address = parent.http;
    let began = Instant::now();
    let (answer, ()) = tokio::join!(rest(&mut stream), parent.stop());
    let response = Response::parse(&answer).unwrap();
    assert_eq!((response.status, response.code().as_str()), (504, "working"));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(TcpStream::connect(address).await.is_err());
}
