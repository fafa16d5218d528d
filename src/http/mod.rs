//! Routes, grouped by who calls: clients upgrading ([`upgrade`]), backends ([`pusher`]), the pages of users ([`user`]), those who watch over Herald
//! ([`ops`]); errors become HTTP in [`error`], those of Herald's own API in [`fault`]. What most ask for does not come this far ([`straight`]).

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
mod watch;
pub mod widget;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::integrations::sentry;
use crate::parts::Parts;
use error::ApiError;
use fault::Fault;
use watch::Watch;

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
        .layer(Watch::new(Arc::clone(&parts)));
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
