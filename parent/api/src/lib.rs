//! The HTTP API: bodies, problem details, OpenAPI.
