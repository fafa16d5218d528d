//! Routes, grouped by who calls: clients upgrading ([`upgrade`]), backends ([`pusher`]); errors become HTTP in [`error`].

pub mod error;
pub mod idempotency;
pub mod pusher;
pub mod upgrade;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use crate::server::Parts;
use error::ApiError;

/// The main listener's routes.
pub fn routes(parts: Arc<Parts>) -> Router {
    let prefix = &parts.config.server.path_prefix;
    Router::new()
        .route(&format!("{prefix}/app/{{key}}"), get(upgrade::upgrade))
        .merge(pusher::routes(prefix))
        .fallback(async |request| pusher::refuse(request, ApiError::NotFound).await)
        .method_not_allowed_fallback(async |request| pusher::refuse(request, ApiError::MethodNotAllowed).await)
        .with_state(parts)
}
