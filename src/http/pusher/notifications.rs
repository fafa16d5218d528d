//! `POST /notifications` (section 8.6), signed like a trigger, so that `post` of any Pusher server library creates notifications. It is
//! answered after the commit.

use std::sync::Arc;

use axum::extract::{FromRequest as _, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, http::StatusCode};
use serde_json::json;
use uuid::Uuid;

use super::auth::{Signed, within};
use super::finish::finish;
use crate::cluster::Metered;
use crate::http::fault::Fault;
use crate::metrics;
use crate::notifications::wish::Wish;
use crate::parts::Parts;
use crate::store::sending::Create;
use crate::store::time::Timestamp;

/// What stands for `transaction_id` where the body has none.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Creates a notification for each user it names.
///
/// # Errors
/// See [`Fault`]; nothing was created then.
pub async fn create(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let signed = Signed::from_request(request, &parts).await?;
    let tasks = parts.connections.clone();
    // Whoever hangs up meanwhile may have created it all the same.
    finish(tasks, async move { make(&parts, &signed).await }).await
}

async fn make(parts: &Parts, signed: &Signed) -> Result<Response, Fault> {
    let notifications = parts.notifications()?;
    within(parts, &signed.app, Metered::Events, 1).await?;
    let now = Timestamp::now();
    let wish = Wish::parse(&signed.body, now).map_err(|error| Fault::Invalid(error.to_string()))?;
    let in_header = || signed.head.headers.get(IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok()).map(str::to_owned);
    let transaction_id = wish.transaction_id.or_else(in_header).unwrap_or_else(|| Uuid::now_v7().to_string());
    if !(1..=255).contains(&transaction_id.len()) {
        return Err(Fault::Invalid("`Idempotency-Key` has 1 to 255 characters".to_owned()));
    }
    let create = Create {
        app: signed.app.id(),
        transaction_id: &transaction_id,
        request_hash: &wish.hash,
        recipients: &wish.recipients,
        draft: &wish.draft,
        deliver_at: wish.deliver_at,
        only_known: false,
        wanted: None,
        job: None,
    };
    let created = notifications.store.create(&create, now).await?;
    notifications.committed();
    metrics::NOTIFICATIONS_CREATED.increment(created.created);
    let answer = json!({
        "transaction_id": transaction_id,
        "status": "done",
        "created": created.created,
        "duplicates": created.duplicates,
        "unknown_users": created.unknown,
    });
    Ok((StatusCode::OK, Json(answer)).into_response())
}
