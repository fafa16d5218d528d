//! What a report says of the request that it is about: a hub for each, its route, app and part of Herald, and for some a trace.
//!
//! Only where reports are made at all; without them no request passes here.

use std::sync::Arc;

use ::sentry::integrations::tower::{NewSentryLayer, SentryHttpLayer};
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

use super::peer::Peer;
use crate::apps::App;
use crate::integrations::sentry;
use crate::parts::Parts;

/// The layer that was added last is the outermost: first the hub, then what is about the request, then what Herald knows of it. In another
/// order the SDK would add to one and the same hub with every request.
pub(super) fn layers(routes: Router<Arc<Parts>>, parts: &Arc<Parts>) -> Router<Arc<Parts>> {
    routes
        .layer(from_fn_with_state(Arc::clone(parts), describe))
        .layer(SentryHttpLayer::new().enable_transaction())
        .layer(NewSentryLayer::<Request>::new_from_top())
}

async fn describe(State(parts): State<Arc<Parts>>, request: Request, next: Next) -> Response {
    match request.extensions().get::<MatchedPath>() {
        Some(path) => {
            let (component, integration) = part(path.as_str());
            sentry::tag("component", component);
            if let Some(name) = integration {
                sentry::tag("integration", name);
            }
        }
        // The SDK would take the address, which a stranger has chosen.
        None => sentry::is_called("an unknown address"),
    }
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer::LOCAL);
    sentry::is_from(peer.behind_proxies(request.headers(), &parts.config.server.trusted_proxies).address);
    if let Some(app) = app(&parts, request.uri().path()) {
        sentry::tag("app_id", app.id());
    }
    next.run(request).await
}

/// Which part of Herald a route belongs to, and whose it is, if it is a third party's.
fn part(route: &str) -> (&'static str, Option<&str>) {
    let first = |beginning| route.split_once(beginning).map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    match (first("/webhooks/"), first("/v1/")) {
        (Some(name), _) => ("webhook", Some(name)),
        (None, Some("inbox" | "preferences" | "topics" | "users" | "notifications")) => ("inbox", None),
        _ if route.contains("/notifications") => ("inbox", None),
        _ if route.ends_with("/app/{key}") => ("ws", None),
        _ => ("http", None),
    }
}

/// The app that an address names, or the only one there is.
fn app(parts: &Parts, path: &str) -> Option<Arc<App>> {
    let path = path.strip_prefix(&*parts.config.server.path_prefix)?;
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.next()) {
        (Some("apps"), Some(id)) => parts.apps.by_id(id),
        (Some("app"), Some(key)) => parts.apps.by_key(key),
        _ => parts.apps.only(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_says_which_part_it_belongs_to() {
        for (route, expected) in [
            ("/webhooks/clerk", ("webhook", Some("clerk"))),
            ("/prefix/api/webhooks/crisp", ("webhook", Some("crisp"))),
            ("/v1/inbox/{id}", ("inbox", None)),
            ("/v1/users/{user_id}/topics", ("inbox", None)),
            ("/apps/{app_id}/notifications", ("inbox", None)),
            ("/apps/{app_id}/events", ("http", None)),
            ("/pusher/auth", ("http", None)),
            ("/app/{key}", ("ws", None)),
        ] {
            assert_eq!(part(route), expected, "{route}");
        }
    }
}
