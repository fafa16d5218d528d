//! For those who watch over Herald: `/metrics`, `/health/live` and `/health/ready` on a listener of their own, the health pair on the
//! main one too, where a balancer can reach it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::http::error::ApiError;
use crate::metrics;
use crate::server::Parts;

/// The health pair.
pub fn health() -> Router<Arc<Parts>> {
    Router::new().route("/health/live", get(async || answer(StatusCode::OK, "ok"))).route("/health/ready", get(ready))
}

/// The listener of its own.
pub fn routes(parts: Arc<Parts>, recorded: PrometheusHandle) -> Router {
    let page = async move |State(parts): State<Arc<Parts>>| {
        let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        (kind, metrics::render(&recorded, &parts))
    };
    Router::new()
        .route("/metrics", get(page))
        .merge(health())
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .with_state(parts)
}

async fn ready(State(parts): State<Arc<Parts>>) -> Response {
    if parts.is_ready() { answer(StatusCode::OK, "ok") } else { answer(StatusCode::SERVICE_UNAVAILABLE, "not ready") }
}

fn answer(status: StatusCode, text: &str) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, format!("{{\"status\":\"{text}\"}}\n")).into_response()
}
