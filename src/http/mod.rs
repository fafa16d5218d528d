//! Routes, grouped by who calls: clients upgrading ([`upgrade`]), backends ([`pusher`]), those who watch over Herald ([`ops`]); errors
//! become HTTP in [`error`].

pub mod error;
pub mod idempotency;
pub mod ops;
pub mod peer;
pub mod pusher;
pub mod upgrade;

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;

use crate::metrics;
use crate::parts::Parts;
use error::ApiError;

/// The main listener's routes.
pub fn routes(parts: Arc<Parts>) -> Router {
    let prefix = &parts.config.server.path_prefix;
    Router::new()
        .route(&format!("{prefix}/app/{{key}}"), get(upgrade::upgrade))
        .merge(pusher::routes(prefix))
        .merge(ops::health())
        .fallback(async |request| pusher::refuse(request, ApiError::NotFound).await)
        .method_not_allowed_fallback(async |request| pusher::refuse(request, ApiError::MethodNotAllowed).await)
        .layer(from_fn(count))
        .with_state(parts)
}

/// Counts requests by the last part of their route, and status.
async fn count(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let route = ROUTES.into_iter().find(|(end, _)| path.ends_with(end)).map_or("other", |(_, route)| route);
    let response = next.run(request).await;
    metrics::http_request(route, response.status().as_str().to_owned());
    response
}

/// Ends of routes and what they are called in metrics.
const ROUTES: [(&str, &str); 10] = [
    ("/events", "events"),
    ("/batch_events", "batch_events"),
    ("/channels", "channels"),
    ("/channels/{channel}", "channel"),
    ("/channels/{channel}/users", "users"),
    ("/terminate_connections", "terminate_connections"),
    ("/connections", "connections"),
    ("/app/{key}", "app"),
    ("/health/live", "live"),
    ("/health/ready", "ready"),
];
