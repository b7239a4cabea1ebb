//! What came in: bodies within a size and a time, headers and query parameters that are there once.

use core::future::poll_fn;
use core::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequestParts as _, Query};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use casemate_api::header::HeaderError;
use casemate_api::{JSON, ParentCode};
use tokio::time::timeout;

use super::respond::Refusal;

/// Query parameters that one route knows.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Those of a request; each of them known, none of them twice.
    pub(super) async fn of(parts: &mut Parts, known: &[&str]) -> Result<Self, Refusal> {
        let wrong = |detail: String| Refusal::new(ParentCode::BadQuery, detail);
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, &())
            .await
            .map_err(|_| wrong("the query is malformed".to_owned()))?;
        for (at, (name, _)) in pairs.iter().enumerate() {
            let clipped: String = name.chars().take(40).collect();
            if !known.contains(&name.as_str()) {
                return Err(wrong(format!("there is no parameter `{clipped}` here")));
            }
            if pairs.iter().take(at).any(|(earlier, _)| earlier == name) {
                return Err(wrong(format!("parameter `{clipped}` twice")));
            }
        }
        Ok(Self(pairs))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// One that has to be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| {
            Refusal::new(ParentCode::BadQuery, format_args!("parameter `{name}` is missing"))
        })
    }
}

/// A header's value, if it is there once.
pub(super) fn header<'h>(
    headers: &'h HeaderMap,
    name: &'static str,
) -> Result<Option<&'h str>, Refusal> {
    let wrong = |error: HeaderError| Refusal::new(ParentCode::BadHeader, error);
    let mut values = headers.get_all(HeaderName::from_static(name)).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(Some).map_err(|_| wrong(HeaderError::NotText { name }))
        }
        (Some(_), Some(_)) => Err(wrong(HeaderError::NotOne)),
    }
}

/// The body of a request that is JSON by its media type.
pub(super) async fn json(
    headers: &HeaderMap,
    body: Body,
    max: usize,
    patience: Duration,
) -> Result<Vec<u8>, Refusal> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.and_then(|value| value.split(';').next()).map(str::trim);
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case(JSON)) {
        let detail = format_args!("the body's `Content-Type` has to be `{JSON}`");
        return Err(Refusal::new(ParentCode::UnsupportedMediaType, detail));
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|size: usize| size > max) {
        return Err(too_large(max));
    }
    timeout(patience, collect(body, max)).await.unwrap_or_else(|_| {
        let detail = format_args!("the body did not arrive within {patience:?}");
        Err(Refusal::new(ParentCode::RequestTimeout, detail))
    })
}

fn too_large(max: usize) -> Refusal {
    let detail = format_args!("the body has more than {max} bytes");
    Refusal::new(ParentCode::BodyTooLarge, detail)
}

/// All of a body; memory grows with what arrives.
async fn collect(mut body: Body, max: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    loop {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return Ok(bytes),
            Some(Err(_)) => {
                return Err(Refusal::new(ParentCode::BadBody, "the body ended early"));
            }
            Some(Ok(frame)) => {
                // trailers say nothing here
                let Ok(data) = frame.into_data() else { continue };
                if data.len() > max.saturating_sub(bytes.len()) {
                    return Err(too_large(max));
                }
                bytes.extend_from_slice(&data);
            }
        }
    }
}
