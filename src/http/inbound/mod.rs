//! Third parties' webhooks: verified over the raw bytes, noted and applied in one transaction, answered after it.

pub mod clerk;
pub mod cloudinary;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;

use crate::config::Config;
use crate::integrations::cloudinary::Account;
use crate::parts::Parts;

/// The routes; each exists where its secret is configured.
pub fn routes(config: &Config) -> Router<Arc<Parts>> {
    let prefix = &config.server.path_prefix;
    let mut router = Router::new();
    if config.auth.webhook_secret.is_some() {
        for alias in ["", "/api"] {
            router = router.route(&format!("{prefix}{alias}/webhooks/clerk"), post(clerk::receive));
        }
    }
    if Account::of(&config.integrations.cloudinary).is_some() {
        for alias in ["", "/api"] {
            router = router.route(&format!("{prefix}{alias}/webhooks/cloudinary"), post(cloudinary::receive));
        }
    }
    router
}
