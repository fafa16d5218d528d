//! Routes for browsers: who somebody is comes from the request's token ([`caller`]), and from nothing else.
//!
//! [`routes`] is the contents page. They exist only where an identity provider is configured.

pub mod auth;
pub mod caller;
pub mod cookies;
mod cursor;
pub mod files;
pub mod form;
pub mod inbox;
pub mod integrations;
pub mod preferences;
pub mod support;

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, Method, header, request};
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post, put};
use axum::{Extension, Router};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

use super::fault::Fault;
use super::limits::{self, Policy};
use crate::config::Config;
use crate::parts::Parts;

/// How long a browser need not ask again which requests are allowed.
const PREFLIGHT_MAX_AGE: std::time::Duration = std::time::Duration::from_secs(600);

/// The routes; those that begin with `/api` are where the apps had their own before.
pub fn routes(parts: &Arc<Parts>) -> Router<Arc<Parts>> {
    let config = &parts.config;
    let prefix = &config.server.path_prefix;
    // Each route answers a wrong method itself: only so does the answer to a browser's question, which is an OPTIONS, pass `cross_origin`.
    let only = |methods: &'static str| move || async move { Fault::Method(methods) };
    let mut router = Router::new();
    for alias in ["", "/api"] {
        router = router
            .route(&format!("{prefix}{alias}/pusher/auth"), post(auth::channel).fallback(only("POST, OPTIONS")))
            .route(&format!("{prefix}{alias}/pusher/user-auth"), post(auth::user).fallback(only("POST, OPTIONS")));
    }
    if parts.cloudinary.is_some() {
        let sign = post(files::sign).layer(Extension(Policy::FileSignatures));
        for path in ["/v1/files/signature", "/api/cloudinary/signature"] {
            router = router.route(&format!("{prefix}{path}"), sign.clone().fallback(only("POST, OPTIONS")));
        }
        let all = post(files::report).layer(Extension(Policy::Default)).get(files::list);
        let one = delete(files::delete).layer(Extension(Policy::Default));
        router = router
            .route(&format!("{prefix}/v1/files"), all.fallback(only("GET, POST, OPTIONS")))
            .route(&format!("{prefix}/v1/files/{{id}}"), one.fallback(only("DELETE, OPTIONS")));
    }
    let one = delete(integrations::delete).layer(Extension(Policy::Default));
    router = router
        .route(&format!("{prefix}/v1/integrations"), get(integrations::list).fallback(only("GET, OPTIONS")))
        .route(&format!("{prefix}/v1/integrations/{{service}}"), one.fallback(only("DELETE, OPTIONS")));
    if parts.crisp.is_some() {
        let identity = get(support::identity);
        router = router.route(&format!("{prefix}/v1/support/identity"), identity.fallback(only("GET, OPTIONS")));
    }
    let item = get(inbox::show).patch(inbox::change).delete(inbox::delete);
    router
        .route(&format!("{prefix}/v1/inbox"), get(inbox::list).fallback(only("GET, OPTIONS")))
        .route(&format!("{prefix}/v1/inbox/counts"), get(inbox::counts).fallback(only("GET, OPTIONS")))
        .route(&format!("{prefix}/v1/inbox/changes"), get(inbox::changes).fallback(only("GET, OPTIONS")))
        .route(&format!("{prefix}/v1/inbox/bulk"), post(inbox::bulk).fallback(only("POST, OPTIONS")))
        .route(&format!("{prefix}/v1/inbox/mark-all"), post(inbox::mark_all).fallback(only("POST, OPTIONS")))
        .route(&format!("{prefix}/v1/inbox/{{id}}"), item.fallback(only("GET, PATCH, DELETE, OPTIONS")))
        .route(
            &format!("{prefix}/v1/preferences"),
            get(preferences::list).put(preferences::put).fallback(only("GET, PUT, OPTIONS")),
        )
        .route(
            &format!("{prefix}/v1/preferences/settings"),
            get(preferences::settings).put(preferences::put_settings).fallback(only("GET, PUT, OPTIONS")),
        )
        .route(&format!("{prefix}/v1/topics"), get(preferences::topics).fallback(only("GET, OPTIONS")))
        .route(
            &format!("{prefix}/v1/topics/{{topic}}/subscription"),
            put(preferences::follow).delete(preferences::unfollow).fallback(only("PUT, DELETE, OPTIONS")),
        )
        .layer(from_fn_with_state(Arc::clone(parts), limits::tell))
        .layer(cross_origin(config))
}

/// Which pages of other origins may ask: without that, their browsers hide the answers from them, refusals too.
pub(super) fn cross_origin(config: &Config) -> CorsLayer {
    let origins = Origins::of(config);
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin: &HeaderValue, _: &request::Parts| origins.allow(origin)))
        .allow_methods(AllowMethods::list([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
        ]))
        .allow_headers(AllowHeaders::list([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_NONE_MATCH,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("x-herald-app"),
        ]))
        .expose_headers(ExposeHeaders::list([header::ETAG, header::RETRY_AFTER].into_iter().chain(limits::HEADERS)))
        .vary([header::ORIGIN])
        .max_age(PREFLIGHT_MAX_AGE)
}

/// Origins that may ask.
#[derive(Clone, Debug)]
struct Origins {
    patterns: Vec<String>,
    /// Whether every page of this machine may: where nothing is configured and only this machine is listened to.
    local: bool,
}

impl Origins {
    fn of(config: &Config) -> Self {
        let configured = [&config.auth.allowed_origins, &config.auth.authorized_parties];
        let patterns = configured.into_iter().find(|origins| !origins.is_empty()).cloned().unwrap_or_default();
        Self { local: patterns.is_empty() && config.server.listen.is_local(), patterns }
    }

    fn allow(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let is_local = || {
            let host = origin.strip_prefix("http://").map(|host| host.rsplit_once(':').map_or(host, |(host, _)| host));
            matches!(host, Some("localhost" | "127.0.0.1"))
        };
        (self.local && is_local()) || super::origin_matches(&self.patterns, origin)
    }
}
