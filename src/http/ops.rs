//! For those who watch over Herald: `/metrics`, `/health/live` and `/health/ready` on a listener of their own, the health pair on the
//! main one too, where a balancer can reach it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::http::error::ApiError;
use crate::metrics;
use crate::parts::Parts;

/// The health pair.
pub fn health() -> Router<Arc<Parts>> {
    Router::new().route("/health/live", get(async || answer(StatusCode::OK, "ok"))).route("/health/ready", get(ready))
}

/// The listener of its own.
pub fn routes(parts: Arc<Parts>, recorded: PrometheusHandle) -> Router {
    let page = async move |State(parts): State<Arc<Parts>>| {
        let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        (kind, render(&recorded, &parts))
    };
    Router::new()
        .route("/metrics", get(page))
        .merge(health())
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(from_fn_with_state(Arc::clone(&parts), super::watch))
        .with_state(parts)
}

async fn ready(State(parts): State<Arc<Parts>>) -> Response {
    if !parts.is_ready() {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "not_ready");
    }
    match parts.hub.cluster.trouble() {
        None => answer(StatusCode::OK, "ready"),
        Some(trouble) if !trouble.has_joined => answer(StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
        // Clients are served on: taking every node out at once because Redis is away would help nobody.
        Some(trouble) => {
            let redis = if trouble.is_partial { "partly down" } else { "down" };
            json(StatusCode::OK, &format!(r#"{{"status":"degraded","checks":{{"redis":"{redis}"}}}}"#))
        }
    }
}

fn answer(status: StatusCode, text: &str) -> Response {
    json(status, &format!("{{\"status\":\"{text}\"}}"))
}

fn json(status: StatusCode, body: &str) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{body}\n")).into_response()
}

/// The page for Prometheus: what was counted, and what is here right now.
fn render(recorded: &PrometheusHandle, parts: &Parts) -> String {
    let (mut messages, mut bytes, mut longest) = (0, 0, 0);
    for client in parts.hub.node.clients() {
        let (waiting, size) = client.queue.depth();
        messages += waiting;
        bytes += size;
        longest = longest.max(waiting);
    }
    metrics::connections(parts.hub.total_connections());
    metrics::queued_messages(messages);
    metrics::queued_bytes(bytes);
    metrics::longest_queue(longest);
    metrics::webhook_queue(parts.webhooks.waiting());
    metrics::cluster_reached(usize::from(parts.hub.cluster.trouble().is_none()));
    metrics::owned_buckets(parts.hub.cluster.owned_buckets());
    for (service, count) in parts.outgoing.not_asked() {
        metrics::outgoing_not_asked(service, count);
    }
    metrics::ready(usize::from(parts.is_ready()));
    for app in parts.apps.iter() {
        let room = parts.hub.node.room(&app);
        let census = room.census();
        let id = || app.id().to_owned();
        metrics::app_connections(id(), room.connections());
        metrics::subscriptions(id(), census.subscriptions);
        metrics::users(id(), room.users.count());
        for (kind, channels) in census.channels {
            metrics::channels(id(), kind.label(), channels);
        }
    }
    metrics::sum_up();
    recorded.render()
}
