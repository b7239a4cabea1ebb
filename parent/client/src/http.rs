//! HTTP to a node's parent, which is untrusted: every body has a cap and every exchange a time, and no
//! redirect is followed, since who is asked is the caller's choice and not a host's.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{RequestBuilder, Url, redirect};

use crate::fault::NodeFault;

/// Longest wait that a `Retry-After` can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Asks nodes' parents.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
}

/// What came back, within its cap. Nothing in it is believed.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) retry_after: Option<Duration>,
}

/// How much is accepted of one exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Most bytes of the body.
    pub(crate) body: usize,
    /// From the start to the body's last byte.
    pub(crate) time: Duration,
}

impl Http {
    /// `tls`: whether any node has an `https` URL. A machine without root certificates can ask the others.
    pub(crate) fn new(connect: Duration, tls: bool) -> Result<Self, String> {
        // no proxy of the environment: who carries the bytes is not believed, but who is asked is
        // what the caller wrote
        let builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(connect)
            .pool_max_idle_per_host(4)
            .user_agent(concat!("casemate-client/", env!("CARGO_PKG_VERSION")));
        let builder = if tls { builder } else { builder.tls_certs_only([]) };
        builder.build().map(|client| Self { client }).map_err(|error| full_text(&error))
    }

    pub(crate) async fn get(&self, url: Url, bounds: Bounds) -> Result<Response, NodeFault> {
        exchange(self.client.get(url), bounds).await
    }

    /// Posts a body of JSON, with one header where there is one.
    pub(crate) async fn post(
        &self,
        url: Url,
        header: Option<(&'static str, String)>,
        body: Vec<u8>,
        bounds: Bounds,
    ) -> Result<Response, NodeFault> {
        let mut request = self.client.post(url).header(CONTENT_TYPE, "application/json").body(body);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        exchange(request, bounds).await
    }
}

async fn exchange(request: RequestBuilder, bounds: Bounds) -> Result<Response, NodeFault> {
    let failed = |error: reqwest::Error| {
        if error.is_timeout() {
            NodeFault::TimedOut { after: bounds.time }
        } else {
            // whose URL it was is said beside it, without a nonce
            NodeFault::Unreachable { reason: full_text(&error.without_url()) }
        }
    };
    let mut response = request.timeout(bounds.time).send().await.map_err(failed)?;
    let status = response.status().as_u16();
    if response.status().is_redirection() {
        return Err(NodeFault::Redirect { status });
    }
    let too_large = NodeFault::TooLarge { max: bounds.body };
    let most = u64::try_from(bounds.body).unwrap_or(u64::MAX);
    if response.content_length().is_some_and(|length| length > most) {
        return Err(too_large);
    }
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len().saturating_add(chunk.len()) > bounds.body {
            return Err(too_large);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Response { status, body, retry_after })
}

/// An error with what caused it, on one line; reqwest tells the cause only when it is asked.
fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
