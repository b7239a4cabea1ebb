//! Connections: admitted, served, and ended in good order.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::stall::Stall;
use crate::admit::{Admission, Admitted};
use crate::config::Limits;
use crate::metrics::Metrics;

/// Most bytes of a request's line and headers.
const MAX_HEAD: usize = 16 * 1024;
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// What a connection over the limit is told, as far as it listens.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nretry-after: 1\r\ncontent-length: 128\r\n\
    connection: close\r\n\r\n\
    {\"type\":\"urn:casemate:problem:overloaded\",\"title\":\"overloaded\",\"status\":503,\
    \"code\":\"overloaded\",\"detail\":\"too many connections\"}";

/// Serves connections until it is told to stop; then lets requests under way end, for a time.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let admission = Admission::new(limits.http_connections, limits.http_connections_per_address);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = told(&mut stop) => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // of one connection, or of too many open files: both pass
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match admission.admit(from.ip()) {
            Ok(admitted) => {
                let one = Connection {
                    stream,
                    router: router.clone(),
                    limits: limits.clone(),
                    metrics: Arc::clone(&metrics),
                    stop: stop.clone(),
                    _admitted: admitted,
                };
                connections.spawn(one.serve());
            }
            Err(full) => {
                metrics.http_refused.get_or_create(&[("reason", full.name())]).inc();
                // whatever fits at once; nothing is waited for
                let _ = stream.try_write(FULL);
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.shutdown, all).await.is_err() {
        tracing::warn!("requests were still under way at the end");
    }
}

/// Returns when the parent is told to stop.
pub(super) async fn told(stop: &mut watch::Receiver<bool>) {
    // an error says that whoever tells us to stop is gone
    let _ = stop.wait_for(|stop| *stop).await;
}

struct Connection {
    stream: TcpStream,
    router: Router,
    limits: Limits,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
    _admitted: Admitted,
}

impl Connection {
    async fn serve(mut self) {
        let _ = self.stream.set_nodelay(true);
        self.metrics.http_connections.inc();
        let io = TokioIo::new(Stall::new(self.stream, self.limits.write_timeout));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .serve_connection(io, TowerToHyperService::new(self.router));
        let mut connection = core::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = told(&mut self.stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended badly");
        }
        self.metrics.http_connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_over_the_limit_is_told_is_whole() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        let problem: casemate_api::Problem = serde_json::from_str(body).unwrap();
        let expected = casemate_api::Problem::new(
            casemate_api::ParentCode::Overloaded,
            "too many connections",
        );
        assert_eq!(problem, expected);
    }
}
