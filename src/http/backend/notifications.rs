//! `POST …/notifications`, answered after the commit; what became of a request, and how it is taken back.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::caller::Backend;
use crate::apps::Metered;
use crate::http::fault::{Fault, Refused};
use crate::http::limits::within;
use crate::http::pusher::finish::finish;
use crate::http::user::inbox::Which;
use crate::notifications::create::Outcome;
use crate::notifications::wish::{Wish, Written};
use crate::parts::Parts;
use crate::store::jobs::JobStatus;
use crate::store::time::Timestamp;

/// What stands for `transaction_id` where the body has none.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Notifications that are taken back in one transaction.
const CANCELLED_AT_ONCE: usize = 200;

/// What became of a request.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Made {
    /// Everybody who is to have it has it.
    Done {
        /// The request's id, as it was given or made.
        transaction_id: String,
        /// How many users got it.
        created: u64,
        /// How many had it already.
        duplicates: u64,
        /// How many do not want such ones.
        suppressed: u64,
        /// Who is not known, or was deleted.
        unknown_users: Vec<String>,
    },
    /// It is for more than a thousand: a node works on it.
    Queued {
        /// The request's id, as it was given or made.
        transaction_id: String,
    },
}

/// `POST /apps/{app_id}/notifications`: 200 in any case, since some Pusher libraries take everything else for a failure.
///
/// # Errors
/// See [`Fault`]; nothing was created then.
#[utoipa::path(
    post, path = "/apps/{app_id}/notifications", tag = "notifications", operation_id = "create_notification_of_app",
    summary = "Create a notification, with any Pusher server library", request_body = Written,
    params(("app_id" = String, Path, description = "The app's id"), Once),
    responses((status = 200, body = Made), Refused), security(("signature" = []), ("api_key" = [])),
)]
pub async fn create(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<Response, Fault> {
    Ok((StatusCode::OK, made(parts, backend).await?).into_response())
}

/// `POST /v1/notifications`: 202.
///
/// # Errors
/// See [`Fault`]; nothing was created then.
#[utoipa::path(
    post, path = "/v1/notifications", tag = "notifications", operation_id = "create_notification", summary = "Create a notification", request_body = Written,
    params(Which, Once), responses((status = 202, body = Made), Refused), security(("signature" = []), ("api_key" = [])),
)]
pub async fn create_queued(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<Response, Fault> {
    Ok((StatusCode::ACCEPTED, made(parts, backend).await?).into_response())
}

/// Whoever hangs up meanwhile may have created it all the same.
async fn made(parts: Arc<Parts>, backend: Backend) -> Result<Json<Made>, Fault> {
    let tasks = parts.connections.clone();
    finish(tasks, async move { make(&parts, &backend).await }).await
}

async fn make(parts: &Parts, backend: &Backend) -> Result<Json<Made>, Fault> {
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
        Outcome::Queued => Made::Queued { transaction_id },
        Outcome::Done(created) => Made::Done {
            transaction_id,
            created: created.created,
            duplicates: created.duplicates,
            suppressed: created.suppressed,
            unknown_users: created.unknown,
        },
    }))
}

/// What makes a repetition safe.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct Once {
    /// What stands for `transaction_id` where the body has none.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255)]
    pub idempotency_key: Option<String>,
}

/// How far a request has come, and what its users have made of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Progress {
    transaction_id: String,
    status: JobStatus,
    /// Users who got it.
    created: u64,
    /// Users who do not want such ones, as far as a job has asked.
    suppressed: u64,
    /// Of those who got it: who has seen it.
    seen: u64,
    /// Who has read it.
    read: u64,
    /// Whose inbox it has left again.
    deleted: u64,
    /// Why a job has failed.
    error: Option<String>,
}

/// `GET …/notifications/{transaction_id}`: how far a request has come, and what its users have made of it.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    get, path = "/v1/notifications/{transaction_id}", tag = "notifications", operation_id = "request_status", summary = "What became of a request",
    params(Which, ("transaction_id" = String, Path, description = "The request's id")),
    responses((status = 200, body = Progress), Refused), security(("signature" = []), ("api_key" = [])),
)]
pub async fn show(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<Json<Progress>, Fault> {
    let id = backend.value("transaction_id");
    let store = &parts.notifications()?.store;
    let known = store.transaction(backend.app.id(), id).await?.ok_or(Fault::NotFound)?;
    let status = known.job.as_ref().map_or(JobStatus::Done, |job| job.status);
    Ok(Json(Progress {
        transaction_id: id.to_owned(),
        status,
        created: known.created,
        suppressed: known.job.as_ref().map_or(0, |job| job.suppressed),
        seen: known.seen,
        read: known.read,
        deleted: known.deleted,
        error: known.job.and_then(|job| job.error),
    }))
}

/// `DELETE …/notifications/{transaction_id}`: what is not visible yet never will be, what is visible is deleted.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    delete, path = "/v1/notifications/{transaction_id}", tag = "notifications", operation_id = "cancel_request",
    summary = "Take a request back: what is scheduled never comes, what is in an inbox is deleted there",
    params(Which, ("transaction_id" = String, Path, description = "The request's id")),
    responses((status = 204, description = "It is taken back"), Refused), security(("signature" = []), ("api_key" = [])),
)]
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
