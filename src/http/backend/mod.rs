//! What backends ask of users and notifications (section 8.6), signed like a trigger, so that no further secret is needed, or with an API
//! key ([`caller`]).
//!
//! [`routes`] is the contents page. Below `/apps/{app_id}` stand the routes that `post` and `get` of the Pusher server libraries reach.

pub mod caller;
pub mod integrations;
pub mod notifications;
pub mod support;
pub mod users;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post, put};

use super::limits;
use crate::parts::Parts;

/// The routes.
pub fn routes(parts: &Arc<Parts>) -> Router<Arc<Parts>> {
    let prefix = &parts.config.server.path_prefix;
    let mut router = Router::new();
    if parts.crisp.as_ref().is_some_and(|crisp| crisp.rest.is_some()) {
        router = router.route(&format!("{prefix}/v1/support/messages"), post(support::send));
    }
    let request = || get(notifications::show).delete(notifications::cancel);
    router
        .route(&format!("{prefix}/apps/{{app_id}}/notifications"), post(notifications::create))
        .route(&format!("{prefix}/apps/{{app_id}}/notifications/{{transaction_id}}"), request())
        .route(&format!("{prefix}/v1/notifications"), post(notifications::create_queued))
        .route(&format!("{prefix}/v1/notifications/{{transaction_id}}"), request())
        .route(&format!("{prefix}/v1/users/{{user_id}}"), put(users::put))
        .route(&format!("{prefix}/v1/users/{{user_id}}/inbox"), get(users::inbox))
        .route(
            &format!("{prefix}/v1/users/{{user_id}}/integrations/{{service}}"),
            put(integrations::put).delete(integrations::delete),
        )
        .route(&format!("{prefix}/v1/users/{{user_id}}/integrations/{{service}}/token"), post(integrations::token))
        .route(&format!("{prefix}/v1/users/{{user_id}}/topics"), get(users::topics))
        .route(&format!("{prefix}/v1/users/{{user_id}}/topics/{{topic}}"), put(users::follow).delete(users::unfollow))
        .layer(from_fn_with_state(Arc::clone(parts), limits::tell))
}
