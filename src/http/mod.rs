//! Routes, grouped by who calls: clients upgrading ([`upgrade`]), backends ([`pusher`]), the pages of users ([`user`]), those who watch over Herald
//! ([`ops`]); errors become HTTP in [`error`], those of Herald's own API in [`fault`].

pub mod backend;
pub mod description;
pub mod error;
pub mod fault;
pub mod idempotency;
pub mod inbound;
pub mod limits;
pub mod ops;
pub mod peer;
pub mod pusher;
mod report;
pub mod straight;
pub mod upgrade;
pub mod user;
pub mod vitals;
pub mod widget;

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::integrations::sentry;
use crate::metrics;
use crate::parts::Parts;
use error::{ApiError, Refusal};
use fault::Fault;

/// The main listener's routes.
pub fn routes(parts: Arc<Parts>) -> Router {
    let prefix = &parts.config.server.path_prefix;
    let users = parts.identity.as_ref().map(|_| user::routes(&parts)).unwrap_or_default();
    let routes = Router::new()
        .route(&format!("{prefix}/app/{{key}}"), get(upgrade::upgrade))
        .merge(users)
        .merge(inbound::routes(&parts))
        .merge(vitals::routes(&parts))
        .merge(widget::routes(prefix))
        .merge(description::routes(prefix))
        .merge(pusher::routes(prefix))
        .merge(backend::routes(&parts))
        .merge(ops::health())
        .fallback(async |state, request| refuse(state, request, ApiError::NotFound).await)
        .method_not_allowed_fallback(async |state, request| refuse(state, request, ApiError::MethodNotAllowed).await)
        .layer(from_fn_with_state(Arc::clone(&parts), watch));
    let routes = if sentry::is_on() { report::layers(routes, &parts) } else { routes };
    routes.with_state(parts)
}

/// Refuses what there is not, in the form of the API that it would belong to.
async fn refuse(State(parts): State<Arc<Parts>>, request: Request, error: ApiError) -> Response {
    let path = request.uri().path().strip_prefix(&*parts.config.server.path_prefix).unwrap_or_default();
    let is_own = path.starts_with("/v1/");
    let error = pusher::refuse(request, error).await;
    match error {
        ApiError::NotFound if is_own => Fault::NotFound.into_response(),
        other if is_own => Fault::from(other).into_response(),
        other => other.into_response(),
    }
}

/// Counts requests by the last part of their route, and status; who is refused gets a line in the log, and a fault of ours one that is an
/// error.
async fn watch(State(parts): State<Arc<Parts>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let route = ROUTES.into_iter().find(|(end, _)| path.ends_with(end)).map_or("other", |(_, route)| route);
    let address = limits::address(&parts, request.extensions(), request.headers());
    let response = next.run(request).await;
    let status = response.status();
    metrics::http_request(
        route,
        STATUSES.into_iter().find(|(code, _)| *code == status).map_or("other", |(_, text)| text),
    );
    let refusal = response.extensions().get();
    if let Some(Refusal(reason)) = refusal.filter(|_| status == StatusCode::INTERNAL_SERVER_ERROR) {
        tracing::error!(status = status.as_u16(), reason, route, %address, "a request has failed");
    } else if let Some(Refusal(reason)) = refusal {
        tracing::info!(status = status.as_u16(), reason, route, %address, "request refused");
    }
    response
}

/// Whether an origin is one of those that are configured: exactly, or by its domain.
pub(crate) fn origin_matches(patterns: &[String], origin: &str) -> bool {
    let origin = origin.to_ascii_lowercase();
    let host = origin.split_once("://").map_or(&*origin, |(_, host)| host);
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    patterns.iter().any(|pattern| match pattern.strip_prefix("*.") {
        Some(domain) => host.strip_suffix(domain).is_some_and(|sub| sub.len() > 1 && sub.ends_with('.')),
        None => *pattern == origin,
    })
}

/// Ends of routes and what they are called in metrics.
const ROUTES: [(&str, &str); 50] = [
    ("/openapi.json", "openapi"),
    ("/docs", "docs"),
    ("/inbox.js", "inbox_js"),
    ("/inbox.d.ts", "inbox_js"),
    ("/notifications", "notifications"),
    ("/notifications/{transaction_id}", "notification"),
    ("/v1/vitals", "vitals"),
    ("/v1/preferences", "preferences"),
    ("/v1/preferences/settings", "settings"),
    ("/v1/topics", "topics"),
    ("/v1/topics/{topic}/subscription", "topic"),
    ("/v1/users/{user_id}", "user"),
    ("/v1/users/{user_id}/inbox", "user_inbox"),
    ("/v1/users/{user_id}/topics", "user_topics"),
    ("/v1/users/{user_id}/topics/{topic}", "user_topic"),
    ("/v1/users/{user_id}/integrations/{service}", "user_integration"),
    ("/v1/users/{user_id}/integrations/{service}/token", "user_token"),
    ("/v1/integrations", "integrations"),
    ("/v1/integrations/{service}", "integration"),
    ("/webhooks/clerk", "clerk_webhook"),
    ("/webhooks/cloudinary", "cloudinary_webhook"),
    ("/webhooks/crisp", "crisp_webhook"),
    ("/v1/support/identity", "support_identity"),
    ("/v1/support/messages", "support_messages"),
    ("/v1/files", "files"),
    ("/v1/files/signature", "file_signature"),
    ("/cloudinary/signature", "file_signature"),
    ("/v1/files/{id}", "file"),
    ("/v1/inbox", "inbox"),
    ("/v1/inbox/counts", "inbox_counts"),
    ("/v1/inbox/changes", "inbox_changes"),
    ("/v1/inbox/bulk", "inbox_bulk"),
    ("/v1/inbox/mark-all", "inbox_mark_all"),
    ("/v1/inbox/{id}", "inbox_item"),
    ("/pusher/auth", "pusher_auth"),
    ("/pusher/user-auth", "pusher_user_auth"),
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
    ("/healthz", "live"),
    ("/readyz", "ready"),
    ("/health/integrations", "health_integrations"),
    ("/metrics", "metrics"),
];

/// Statuses that are answered, as text for metrics.
const STATUSES: [(StatusCode, &str); 20] = [
    (StatusCode::ACCEPTED, "202"),
    (StatusCode::OK, "200"),
    (StatusCode::SWITCHING_PROTOCOLS, "101"),
    (StatusCode::NO_CONTENT, "204"),
    (StatusCode::NOT_MODIFIED, "304"),
    (StatusCode::BAD_REQUEST, "400"),
    (StatusCode::UNAUTHORIZED, "401"),
    (StatusCode::FORBIDDEN, "403"),
    (StatusCode::NOT_FOUND, "404"),
    (StatusCode::METHOD_NOT_ALLOWED, "405"),
    (StatusCode::REQUEST_TIMEOUT, "408"),
    (StatusCode::CONFLICT, "409"),
    (StatusCode::GONE, "410"),
    (StatusCode::PAYLOAD_TOO_LARGE, "413"),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "415"),
    (StatusCode::UPGRADE_REQUIRED, "426"),
    (StatusCode::TOO_MANY_REQUESTS, "429"),
    (StatusCode::INTERNAL_SERVER_ERROR, "500"),
    (StatusCode::SERVICE_UNAVAILABLE, "503"),
    (StatusCode::INSUFFICIENT_STORAGE, "507"),
];
