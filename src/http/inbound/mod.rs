//! Third parties' webhooks: verified over the raw bytes, noted and applied in one transaction, answered after it.

pub mod clerk;
pub mod cloudinary;
pub mod crisp;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::post;

use super::limits::{Policy, by_address, tell};
use crate::parts::Parts;

/// The routes; each exists where it can be verified.
pub fn routes(parts: &Arc<Parts>) -> Router<Arc<Parts>> {
    let config = &parts.config;
    let prefix = &config.server.path_prefix;
    let mut router = Router::new();
    if config.auth.webhook_secret.is_some() {
        for alias in ["", "/api"] {
            router = router.route(&format!("{prefix}{alias}/webhooks/clerk"), post(clerk::receive));
        }
    }
    if parts.cloudinary.is_some() {
        for alias in ["", "/api"] {
            router = router.route(&format!("{prefix}{alias}/webhooks/cloudinary"), post(cloudinary::receive));
        }
    }
    if parts.crisp.as_ref().is_some_and(|crisp| crisp.trusted.is_any()) {
        for alias in ["", "/api"] {
            router = router.route(&format!("{prefix}{alias}/webhooks/crisp"), post(crisp::receive));
        }
    }
    let counted = Arc::clone(parts);
    router
        .layer(from_fn(move |request, next| by_address(Policy::Webhooks, Arc::clone(&counted), request, next)))
        .layer(from_fn_with_state(Arc::clone(parts), tell))
}
