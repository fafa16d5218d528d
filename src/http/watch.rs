//! Every request is counted by the last part of its route and its status; who is refused gets a line in the log, and a fault of ours one
//! that is an error.
//!
//! A layer by hand, since every request passes here: `from_fn` would put each into four more boxes.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use axum::response::Response;
use tower_layer::Layer;
use tower_service::Service;

use super::error::Refusal;
use super::limits;
use crate::metrics;
use crate::parts::Parts;

/// The layer.
#[derive(Clone)]
pub(super) struct Watch(Arc<Parts>);

/// A route that is watched.
#[derive(Clone)]
pub(super) struct Watched<S> {
    parts: Arc<Parts>,
    route: S,
}

/// A request that is being answered.
pub(super) struct Watching<F> {
    answer: F,
    route: &'static str,
    address: IpAddr,
}

impl Watch {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self(parts)
    }
}

impl<S> Layer<S> for Watch {
    type Service = Watched<S>;

    fn layer(&self, route: S) -> Watched<S> {
        Watched { parts: Arc::clone(&self.0), route }
    }
}

impl<S: Service<Request, Response = Response, Future: Unpin>> Service<Request> for Watched<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = Watching<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.route.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Watching<S::Future> {
        let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let route = ROUTES.iter().find(|(end, _)| path.ends_with(end)).map_or("other", |(_, route)| route);
        let address = limits::address(&self.parts, request.extensions(), request.headers());
        Watching { answer: self.route.call(request), route, address }
    }
}

impl<F: Future<Output = Result<Response, E>> + Unpin, E> Future for Watching<F> {
    type Output = Result<Response, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Response, E>> {
        let response = ready!(Pin::new(&mut self.answer).poll(context))?;
        tell(self.route, self.address, &response);
        Poll::Ready(Ok(response))
    }
}

/// Counts an answer, and writes the line in the log if it is a refusal.
pub(super) fn tell(route: &'static str, address: IpAddr, response: &Response) {
    let status = response.status();
    let text = STATUSES.iter().find(|(code, _)| *code == status).map_or("other", |(_, text)| text);
    metrics::http_request(route, text);
    let refusal = response.extensions().get();
    if let Some(Refusal(reason)) = refusal.filter(|_| status == StatusCode::INTERNAL_SERVER_ERROR) {
        tracing::error!(status = status.as_u16(), reason, route, %address, "a request has failed");
    } else if let Some(Refusal(reason)) = refusal {
        tracing::info!(status = status.as_u16(), reason, route, %address, "request refused");
    }
}

/// Ends of routes and what they are called in metrics.
pub(super) const ROUTES: [(&str, &str); 50] = [
    ("/events", "events"), // first, since it is asked for far more often than all others
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
    (StatusCode::OK, "200"),
    (StatusCode::ACCEPTED, "202"),
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
