//! For those who watch over Herald: `/metrics` and the health checks on a listener of their own, the latter on the main one too, where a
//! balancer can reach them.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::user::caller::bearer;
use super::watch::Watch;
use crate::health::{self, Report};
use crate::http::error::ApiError;
use crate::metrics;
use crate::parts::Parts;
use crate::process;

/// The health checks; each under the name that supervisors look for, too.
pub fn health() -> Router<Arc<Parts>> {
    let live = || get(async || answer(StatusCode::OK, &json!({ "status": "ok" })));
    Router::new()
        .route("/health/live", live())
        .route("/healthz", live())
        .route("/health/ready", get(ready))
        .route("/readyz", get(ready))
        .route("/health/integrations", get(integrations))
        .route("/api/health/integrations", get(integrations))
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
        .layer(Watch::new(Arc::clone(&parts)))
        .with_state(parts)
}

/// Whether a balancer should send clients here. What is away later is told and takes no node out: taking all of them out at once because Redis
/// or the database is away would help nobody.
async fn ready(State(parts): State<Arc<Parts>>) -> Response {
    let draining = !parts.is_ready();
    let (redis, has_joined) = match parts.hub.cluster.trouble() {
        None => ("ok", true),
        Some(trouble) => (if trouble.is_partial { "partly down" } else { "down" }, trouble.has_joined),
    };
    let (database, was_reached) = match &parts.notifications {
        Some(notifications) if notifications.reached.now() => ("ok", true),
        Some(notifications) => ("down", notifications.reached.ever()),
        // Whoever only relays events needs none.
        None => ("down", true),
    };
    let checks = json!({ "database": database, "redis": redis, "draining": draining });
    if draining || !has_joined || !was_reached {
        return answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "not_ready", "checks": checks }));
    }
    let is_well = database == "ok" && redis == "ok";
    answer(StatusCode::OK, &json!({ "status": if is_well { "ready" } else { "degraded" }, "checks": checks }))
}

/// What Herald works with (section 7): 200 if all of it is well that has to be.
async fn integrations(State(parts): State<Arc<Parts>>, headers: HeaderMap) -> Response {
    let options = &parts.config.health;
    let with_details = options.token.as_ref().is_none_or(|token| bearer(&headers).is_some_and(|given| token.is(given)));
    let services = health::reports(&parts, with_details).await;
    let is_optional = |report: &Report| options.optional.iter().any(|service| service.as_str() == report.service);
    let healthy = services.iter().all(|report| report.healthy || is_optional(report));
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, &json!({ "healthy": healthy, "services": services }))
}

fn answer(status: StatusCode, body: &Value) -> Response {
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
    if let Ok(runtime) = Handle::try_current() {
        metrics::runtime_tasks(runtime.metrics().num_alive_tasks());
    }
    metrics::queued_messages(messages);
    metrics::queued_bytes(bytes);
    metrics::longest_queue(longest);
    metrics::webhook_queue(parts.webhooks.waiting());
    let kept = parts.notifications.as_ref().map(|notifications| &notifications.reached);
    metrics::database_reached(usize::from(kept.is_none_or(|reached| reached.now())));
    metrics::outbox_age(kept.map_or(0, |reached| reached.waiting_for().as_secs() as usize));
    metrics::cluster_reached(usize::from(parts.hub.cluster.trouble().is_none()));
    metrics::cluster_nodes(parts.hub.cluster.nodes());
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
    let mut page = recorded.render();
    process::add_to(&mut page);
    page
}
