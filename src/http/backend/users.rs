//! Users as a backend tells of them, where no identity provider does; what they follow; and their inbox, for those who help them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::caller::Backend;
use crate::http::fault::{Fault, Refused};
use crate::http::user::inbox::{Answer, Items, Which, page};
use crate::http::user::preferences::Followed;
use crate::notifications::wish;
use crate::parts::Parts;
use crate::store::Inbox;
use crate::store::notification::Filter;
use crate::store::people::User;
use crate::store::time::Timestamp;

/// The longest text about a user, and the most that everybody may know of one.
const MAX_TEXT: usize = 2_048;
const MAX_METADATA: usize = 8 * 1024;

/// What a backend says of a user; what is not named is nothing.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewUser)]
pub struct Told {
    email: Option<String>,
    name: Option<String>,
    image_url: Option<String>,
    locale: Option<String>,
    timezone: Option<String>,
    /// What everybody may know; at most 8 KiB.
    #[schema(value_type = Option<Object>)]
    public_metadata: Option<Map<String, Value>>,
    /// Whether nobody is served as this user; connections end at once.
    banned: Option<bool>,
}

/// `PUT /v1/users/{user_id}`: the user is so now.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    put, path = "/v1/users/{user_id}", tag = "users", operation_id = "put_user", summary = "Tell of a user, where no identity provider does",
    params(Which, ("user_id" = String, Path, min_length = 1, max_length = 255, description = "The user's id")), request_body = Told,
    responses((status = 204, description = "The user is so now"), (status = 410, description = "The user was deleted"), Refused),
    security(("signature" = []), ("api_key" = [])),
)]
pub async fn put(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<StatusCode, Fault> {
    let told: Told = backend.json()?;
    let metadata = Value::Object(told.public_metadata.unwrap_or_default());
    if metadata.to_string().len() > MAX_METADATA {
        return Err(Fault::Invalid(format!("`public_metadata` may have {MAX_METADATA} bytes")));
    }
    for (name, text) in [
        ("email", &told.email),
        ("name", &told.name),
        ("image_url", &told.image_url),
        ("locale", &told.locale),
        ("timezone", &told.timezone),
    ] {
        if text.as_ref().is_some_and(|text| text.len() > MAX_TEXT || text.contains('\0')) {
            return Err(Fault::Invalid(format!("`{name}` may have {MAX_TEXT} bytes, and no U+0000")));
        }
    }
    let now = Timestamp::now();
    let user = User {
        id: user_id(&backend)?.to_owned(),
        email: told.email,
        name: told.name,
        image_url: told.image_url,
        locale: told.locale,
        timezone: told.timezone,
        public_metadata: metadata,
        banned: told.banned.unwrap_or_default(),
        source_updated_at: now.as_micros() / 1_000,
    };
    let notifications = parts.notifications()?;
    if !notifications.store.put_user(&user, now).await? {
        return Err(Fault::UserDeleted);
    }
    if user.banned {
        notifications.ended();
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/users/{user_id}/inbox`: as the user would see it.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    get, path = "/v1/users/{user_id}/inbox", tag = "users", operation_id = "user_inbox", summary = "A user's inbox, for those who help",
    params(Which, ("user_id" = String, Path, min_length = 1, max_length = 255, description = "The user's id"), Filter,
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Notifications of the page; 20 if nothing is said"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")),
    responses((status = 200, body = Answer<Items>), Refused), security(("signature" = []), ("api_key" = [])),
)]
pub async fn inbox(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<Response, Fault> {
    let inbox = Inbox { app: backend.app.id(), user: user_id(&backend)? };
    page(&parts, inbox, backend.head.uri.query().unwrap_or_default(), Timestamp::now()).await
}

/// `GET /v1/users/{user_id}/topics`
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    get, path = "/v1/users/{user_id}/topics", tag = "users", operation_id = "user_topics", summary = "The topics that a user follows",
    params(Which, ("user_id" = String, Path, min_length = 1, max_length = 255, description = "The user's id")),
    responses((status = 200, body = Followed), Refused), security(("signature" = []), ("api_key" = [])),
)]
pub async fn topics(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<Json<Followed>, Fault> {
    let topics = parts.notifications()?.store.topics(backend.app.id(), user_id(&backend)?).await?;
    Ok(Json(Followed { topics }))
}

/// `PUT /v1/users/{user_id}/topics/{topic}`
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    put, path = "/v1/users/{user_id}/topics/{topic}", tag = "users", operation_id = "user_follows", summary = "A user follows a topic from now on",
    params(Which, ("user_id" = String, Path, min_length = 1, max_length = 255, description = "The user's id"),
        ("topic" = String, Path, min_length = 1, max_length = 200, description = "The topic's name")),
    responses((status = 204, description = "The user follows it"), Refused), security(("signature" = []), ("api_key" = [])),
)]
pub async fn follow(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<StatusCode, Fault> {
    follows(&parts, &backend, true).await
}

/// `DELETE /v1/users/{user_id}/topics/{topic}`
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    delete, path = "/v1/users/{user_id}/topics/{topic}", tag = "users", operation_id = "user_unfollows", summary = "A user follows a topic no more",
    params(Which, ("user_id" = String, Path, min_length = 1, max_length = 255, description = "The user's id"),
        ("topic" = String, Path, min_length = 1, max_length = 200, description = "The topic's name")),
    responses((status = 204, description = "The user does not follow it"), Refused), security(("signature" = []), ("api_key" = [])),
)]
pub async fn unfollow(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<StatusCode, Fault> {
    follows(&parts, &backend, false).await
}

async fn follows(parts: &Parts, backend: &Backend, follows: bool) -> Result<StatusCode, Fault> {
    let topic = wish::topic(backend.value("topic").to_owned()).map_err(|error| Fault::Invalid(error.to_string()))?;
    let (app, user) = (backend.app.id(), user_id(backend)?);
    parts.notifications()?.store.follow(app, user, &topic, follows, Timestamp::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn user_id(backend: &Backend) -> Result<&str, Fault> {
    let id = backend.value("user_id");
    if wish::is_id(id) {
        Ok(id)
    } else {
        Err(Fault::Invalid("an id has 1 to 255 bytes and no control characters".to_owned()))
    }
}
