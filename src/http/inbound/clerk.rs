//! `POST /webhooks/clerk` (section 1.11): users, sessions and memberships as Clerk tells of them. Whoever is not to be served any more loses
//! the connections right after the commit ([`crate::sessions`]).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::fault::{Fault, Refused, read_body};
use crate::integrations::clerk::webhook;
use crate::parts::Parts;
use crate::store::people::{Applied, Inbound};
use crate::store::time::Timestamp;

/// The largest body.
const MAX_BYTES: usize = 1024 * 1024;

/// It need not be sent again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Received {
    received: bool,
}

impl Default for Received {
    fn default() -> Self {
        Self { received: true }
    }
}

/// Applies a webhook. Clerk sends it again unless the answer is 200, so that is what it gets for all that a repetition would not change.
///
/// # Errors
/// 400 for what is not Clerk's, without a word why; 500 when it could not be kept.
#[utoipa::path(
    post, path = "/webhooks/clerk", tag = "webhooks", operation_id = "clerk_webhook", summary = "What Clerk tells of users, sessions and organizations, signed by Svix",
    params(("svix-id" = String, Header), ("svix-timestamp" = String, Header), ("svix-signature" = String, Header)),
    request_body(content = Object, description = "As Clerk sends it"), responses((status = 200, body = Received), Refused),
)]
pub async fn receive(State(parts): State<Arc<Parts>>, request: Request) -> Result<Json<Received>, Fault> {
    let (head, body) = request.into_parts();
    let body = read_body(&parts, &head, body, MAX_BYTES).await?;
    let now = Timestamp::now();
    let (seconds, millis) = (now.as_micros() / 1_000_000, now.as_micros() / 1_000);
    let secrets = parts.config.auth.webhook_secret.as_ref().ok_or(Fault::NotFound)?;
    let verified = secrets.verify(&head.headers, &body, u64::try_from(seconds).unwrap_or_default());
    let event_id = verified.map_err(|error| Fault::NotVerified(error.to_string()))?;
    match webhook::read(&body, parts.config.auth.clerk_instance_id.as_deref(), millis) {
        Err(error) => tracing::warn!(%error, event_id, "a webhook of Clerk's is ignored"),
        Ok(webhook) => {
            let inbound = Inbound { source: "clerk", event_id, kind: &webhook.kind };
            let applied = parts.notifications()?.store.apply(&inbound, &webhook.change, now).await?;
            tracing::debug!(event_id, kind = webhook.kind, ?applied, "a webhook of Clerk's was received");
            if applied != Applied::Unchanged {
                parts.notifications()?.ended(); // after a repetition too: the first may not have come so far
            }
        }
    }
    Ok(Json(Received::default()))
}
