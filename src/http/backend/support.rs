//! `POST /v1/support/messages`: a backend writes into a user's conversation with the support (section 3.3, rule 6).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::caller::Backend;
use super::notifications::{IDEMPOTENCY_KEY, Once};
use crate::http::fault::{Fault, Refused};
use crate::http::user::inbox::Which;
use crate::integrations::crisp::send::Message;
use crate::notifications::wish::is_id;
use crate::parts::Parts;
use crate::store::tasks::{NewTask, TaskKind};
use crate::store::time::Timestamp;

/// Characters of a message.
const MAX_TEXT: usize = 10_000;

/// A message for a user.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewSupportMessage)]
pub struct Written {
    #[schema(min_length = 1, max_length = 255)]
    user_id: String,
    #[schema(min_length = 1, max_length = 10_000)]
    text: String,
    /// Makes a repetition safe: of several with the same id the first one is sent.
    #[schema(min_length = 1, max_length = 255)]
    transaction_id: Option<String>,
}

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SupportMessage)]
pub struct Made {
    /// The message's id, as it was given or made.
    transaction_id: String,
    status: Status,
}

/// See [`Made`].
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SupportMessageStatus)]
pub enum Status {
    /// It is sent as soon as Crisp takes it.
    Queued,
    /// There was one with its id before, and nothing is done.
    Duplicate,
}

/// `POST /v1/support/messages`: 202 once it is noted.
///
/// # Errors
/// [`Fault::NoConversation`] where the user has none that Crisp has verified; see [`Fault`].
#[utoipa::path(
    post, path = "/v1/support/messages", tag = "support", operation_id = "send_support_message",
    summary = "Write into a user's conversation with the support", request_body = Written, params(Which, Once),
    responses((status = 202, body = Made), Refused), security(("signature" = []), ("api_key" = [])),
)]
pub async fn send(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<Response, Fault> {
    let app = parts.config.integrations_app();
    if backend.app.id() != app {
        return Err(Fault::Forbidden(format!("the support is that of the app {app:?}")));
    }
    let Written { user_id, text, transaction_id } = backend.json()?;
    if !is_id(&user_id) {
        return Err(Fault::Invalid("`user_id` has 1 to 255 bytes and no control characters".to_owned()));
    }
    let length = text.chars().count();
    if text.trim().is_empty() || length > MAX_TEXT || text.contains('\0') {
        let message = format!(
            "`text` has {length} characters; 1 to {MAX_TEXT} are allowed, not all of them blank, and no U+0000"
        );
        return Err(Fault::Invalid(message));
    }
    let in_header = || backend.head.headers.get(IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok()).map(str::to_owned);
    let transaction_id = transaction_id.or_else(in_header).unwrap_or_else(|| Uuid::now_v7().to_string());
    if !(1..=255).contains(&transaction_id.chars().count()) || transaction_id.contains('\0') {
        return Err(Fault::Invalid("`transaction_id` has 1 to 255 characters, and no U+0000".to_owned()));
    }
    let (store, crisp) = (&parts.notifications()?.store, parts.crisp.as_deref().ok_or(Fault::NotFound)?);
    if store.support_of(&crisp.website_id, &user_id).await?.is_none() {
        return Err(Fault::NoConversation);
    }
    let now = Timestamp::now();
    let payload = serde_json::to_string(&Message { text }).map_err(|error| Fault::Internal(error.to_string()))?;
    let task = NewTask {
        kind: TaskKind::SupportMessage,
        dedupe_key: &transaction_id,
        user: Some(&user_id),
        payload: &payload,
        available_at: now,
    };
    let status = if store.add_task(&task, now).await? { Status::Queued } else { Status::Duplicate };
    Ok((StatusCode::ACCEPTED, Json(Made { transaction_id, status })).into_response())
}
