//! The HTTP API for backends (section 4): every request is signed ([`auth`]), then acts on the hub.

pub mod auth;
pub mod events;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;

use crate::server::Parts;

/// The routes; the prefix stands in the patterns, since the path is signed exactly as the client wrote it.
pub fn routes(prefix: &str) -> Router<Arc<Parts>> {
    Router::new().route(&format!("{prefix}/apps/{{app_id}}/events"), post(events::trigger))
}
