//! `POST …/notifications`, answered after the commit; what became of a request, and how it is taken back.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use super::caller::Backend;
use crate::cluster::Metered;
use crate::http::fault::Fault;
use crate::http::pusher::auth::within;
use crate::http::pusher::finish::finish;
use crate::notifications::create::Outcome;
use crate::notifications::wish::Wish;
use crate::parts::Parts;
use crate::store::jobs::JobStatus;
use crate::store::time::Timestamp;

/// What stands for `transaction_id` where the body has none.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Notifications that are taken back in one transaction.
const CANCELLED_AT_ONCE: usize = 200;

/// `POST /apps/{app_id}/notifications`: 200 in any case, since some Pusher libraries take everything else for a failure.
///
/// # Errors
/// See [`Fault`]; nothing was created then.
pub async fn create(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<Response, Fault> {
    Ok((StatusCode::OK, made(parts, backend).await?).into_response())
}

/// `POST /v1/notifications`: 202.
///
/// # Errors
/// See [`Fault`]; nothing was created then.
pub async fn create_queued(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<Response, Fault> {
    Ok((StatusCode::ACCEPTED, made(parts, backend).await?).into_response())
}

/// Whoever hangs up meanwhile may have created it all the same.
async fn made(parts: Arc<Parts>, backend: Backend) -> Result<Json<Value>, Fault> {
    let tasks = parts.connections.clone();
    finish(tasks, async move { make(&parts, &backend).await }).await
}

async fn make(parts: &Parts, backend: &Backend) -> Result<Json<Value>, Fault> {
    let notifications = parts.notifications()?;
    within(parts, &backend.app, Metered::Events, 1).await?;
    let now = Timestamp::now();
    let wish = Wish::parse(&backend.body, now).map_err(|error| Fault::Invalid(error.to_string()))?;
    let in_header = || backend.head.headers.get(IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok()).map(str::to_owned);
    let given = wish.transaction_id.clone().or_else(in_header);
    let transaction_id = given.unwrap_or_else(|| Uuid::now_v7().to_string());
    if !(1..=255).contains(&transaction_id.len()) {
        return Err(Fault::Invalid("`Idempotency-Key` has 1 to 255 characters".to_owned()));
    }
    Ok(Json(match notifications.create(backend.app.id(), &wish, &transaction_id, now).await? {
        Outcome::Queued => json!({ "transaction_id": transaction_id, "status": "queued" }),
        Outcome::Done(created) => json!({
            "transaction_id": transaction_id,
            "status": "done",
            "created": created.created,
            "duplicates": created.duplicates,
            "suppressed": created.suppressed,
            "unknown_users": created.unknown,
        }),
    }))
}

/// `GET …/notifications/{transaction_id}`: how far a request has come, and what its users have made of it.
///
/// # Errors
/// See [`Fault`].
pub async fn show(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<Json<Value>, Fault> {
    let id = backend.value("transaction_id");
    let store = &parts.notifications()?.store;
    let known = store.transaction(backend.app.id(), id).await?.ok_or(Fault::NotFound)?;
    let status = known.job.as_ref().map_or(JobStatus::Done, |job| job.status);
    Ok(Json(json!({
        "transaction_id": id,
        "status": status,
        "created": known.created,
        "suppressed": known.job.as_ref().map_or(0, |job| job.suppressed),
        "seen": known.seen,
        "read": known.read,
        "deleted": known.deleted,
        "error": known.job.and_then(|job| job.error),
    })))
}

/// `DELETE …/notifications/{transaction_id}`: what is not visible yet never will be, what is visible is deleted.
///
/// # Errors
/// See [`Fault`].
pub async fn cancel(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<StatusCode, Fault> {
    let tasks = parts.connections.clone();
    let work = async move {
        let notifications = parts.notifications()?;
        let (app, id) = (backend.app.id(), backend.value("transaction_id"));
        loop {
            let cancelled = notifications.store.cancel(app, id, CANCELLED_AT_ONCE, Timestamp::now()).await?;
            notifications.committed();
            if cancelled.ok_or(Fault::NotFound)? {
                return Ok(StatusCode::NO_CONTENT);
            }
        }
    };
    finish(tasks, work).await
}
