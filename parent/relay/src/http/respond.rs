//! From what there is to say to an HTTP response.

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Response as HttpResponse, StatusCode};
use axum::response::Response;
use casemate_api::{ParentCode, Problem, Rendered};
use casemate_proto::Millis;

/// What is answered differently from one moment to the next.
pub(super) const NO_STORE: &str = "no-store";
/// What never changes.
pub(super) const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// What goes away once something better is there.
pub(super) const BRIEFLY: &str = "public, max-age=60";
/// What is to be asked for again each time.
pub(super) const NO_CACHE: &str = "no-cache";

/// A response of these parts.
pub(super) fn of(
    status: u16,
    content_type: &'static str,
    cache: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = HttpResponse::new(body.into());
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut set = |name: HeaderName, value: &'static str| {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    };
    set(CONTENT_TYPE, content_type);
    set(CACHE_CONTROL, cache);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

/// What the enclave answered, or a problem.
pub(super) fn rendered(rendered: Rendered) -> Response {
    let mut response = of(rendered.status, rendered.content_type, NO_STORE, rendered.body);
    if let Some(after) = rendered.retry_after {
        // whole seconds, and never less than was asked for
        let seconds = after.0.div_ceil(1_000);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// What the parent says for itself instead of an answer.
#[derive(Debug)]
pub(super) struct Refusal {
    code: ParentCode,
    detail: String,
    retry_after: Option<Millis>,
}

impl Refusal {
    pub(super) fn new(code: ParentCode, detail: impl core::fmt::Display) -> Self {
        Self { code, detail: detail.to_string(), retry_after: None }
    }

    /// The same, with the time after which asking again can help.
    pub(super) fn retry_after(mut self, after: Millis) -> Self {
        self.retry_after = Some(after);
        self
    }
}

pub(super) fn refusal(refusal: Refusal) -> Response {
    let problem = Problem::new(refusal.code, refusal.detail);
    let problem = match refusal.retry_after {
        Some(after) => problem.retry_after(after),
        None => problem,
    };
    rendered(Rendered::of_problem(&problem))
}

/// A result as a response.
pub(super) fn either(result: Result<Response, Refusal>) -> Response {
    result.unwrap_or_else(refusal)
}
