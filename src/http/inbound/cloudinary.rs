//! `POST /webhooks/cloudinary` (section 2.3): users' files as Cloudinary tells of them. Their owners' pages are told right after the commit.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::clerk::Received;
use crate::http::fault::{Fault, Refused, read_body};
use crate::integrations::cloudinary::notification;
use crate::parts::Parts;
use crate::store::files::FileEvent;
use crate::store::people::Inbound;
use crate::store::time::Timestamp;

/// The largest body.
const MAX_BYTES: usize = 1024 * 1024;

/// Applies a notification. Cloudinary sends it again unless the answer is 200, so that is what it gets for all that a repetition would not
/// change.
///
/// # Errors
/// 401 for what is not Cloudinary's, without a word why; 500 when it could not be kept.
#[utoipa::path(
    post, path = "/webhooks/cloudinary", tag = "webhooks", operation_id = "cloudinary_webhook", summary = "What Cloudinary tells of users' files",
    params(("x-cld-signature" = String, Header), ("x-cld-timestamp" = String, Header)),
    request_body(content = Object, description = "As Cloudinary sends it"), responses((status = 200, body = Received), Refused),
)]
pub async fn receive(State(parts): State<Arc<Parts>>, request: Request) -> Result<Json<Received>, Fault> {
    let (head, body) = request.into_parts();
    let body = read_body(&parts, &head, body, MAX_BYTES).await?;
    let now = Timestamp::now();
    let seconds = u64::try_from(now.as_micros() / 1_000_000).unwrap_or_default();
    let cloudinary = parts.cloudinary.as_ref().ok_or(Fault::NotFound)?;
    let verified = cloudinary.trusted.verify(&head.headers, &body, seconds);
    verified.map_err(|error| Fault::SignatureRefused(error.to_string()))?;
    // There is no id, but a repetition is the same to the byte.
    let event_id = HEXLOWER.encode(&Sha256::digest(&body));
    match notification::read(&body, cloudinary.max_file_bytes) {
        Err(error) => tracing::warn!(%error, event_id, "a notification of Cloudinary's is ignored"),
        Ok(read) => {
            let inbound = Inbound { source: "cloudinary", event_id: &event_id, kind: &read.kind };
            let (store, app) = (&parts.notifications()?.store, parts.config.integrations_app());
            let events = store.apply_to_files(app, &inbound, &read.change, cloudinary.strangers, now).await?;
            tracing::debug!(
                event_id,
                kind = read.kind,
                events = events.len(),
                "a notification of Cloudinary's was received"
            );
            tell(&parts, &events).await;
        }
    }
    Ok(Json(Received::default()))
}

/// Tells the files' owners what has happened to them.
pub async fn tell(parts: &Parts, events: &[FileEvent]) {
    let app = parts.apps.by_id(parts.config.integrations_app());
    let (Some(app), Ok(notifications)) = (app, parts.notifications()) else { return };
    for event in events {
        notifications.tell(&app, &event.file.user_id, event.name.as_str(), &event.data()).await;
    }
}
