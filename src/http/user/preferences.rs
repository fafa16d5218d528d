//! What a user wants to hear of (sections 8.6 and 8.8): preferences by type and way, and topics.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::inbox::{Mine, Which, begin, begin_with, invalid};
use crate::config::is_type_pattern;
use crate::http::fault::{Fault, Refused};
use crate::notifications::hours::{self, QuietHours};
use crate::notifications::wish;
use crate::parts::Parts;
use crate::store::preferences::{Digest, Preference, Settings};
use crate::store::time::Timestamp;

/// Preferences of one request.
const MAX_PREFERENCES: usize = 100;

/// What a user has said, by type and channel.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Said {
    #[schema(max_items = 100)]
    preferences: Vec<Preference>,
}

/// `GET /v1/preferences`
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    get, path = "/v1/preferences", tag = "preferences", operation_id = "get_preferences", summary = "What the user wants to hear of", params(Which),
    responses((status = 200, body = Said), Refused), security(("session" = [])),
)]
pub async fn list(State(parts): State<Arc<Parts>>, request: Request) -> Result<Json<Said>, Fault> {
    let (mine, _) = begin(&parts, request).await?;
    answer(&parts, &mine).await
}

/// `PUT /v1/preferences`: replaces the pairs of type and channel that are given.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    put, path = "/v1/preferences", tag = "preferences", operation_id = "put_preferences", summary = "Replace the pairs of type and channel that are given", params(Which),
    request_body = Said, responses((status = 200, body = Said), Refused), security(("session" = [])),
)]
pub async fn put(State(parts): State<Arc<Parts>>, request: Request) -> Result<Json<Said>, Fault> {
    let (mine, mut body) = begin_with(&parts, request).await?;
    let given = body.remove("preferences").ok_or_else(|| invalid("`preferences` is missing: a list"))?;
    let preferences: Vec<Preference> = serde_json::from_value(given).map_err(|error| {
        invalid(format!(
            "`preferences`: {error}; each has `type`, `channel` (in_app, push, email, sms or chat) and `enabled`"
        ))
    })?;
    if preferences.len() > MAX_PREFERENCES {
        return Err(invalid(format!("`preferences` has {} entries, {MAX_PREFERENCES} are allowed", preferences.len())));
    }
    if let Some(wrong) = preferences.iter().find(|one| !is_type_pattern(&one.kind)) {
        return Err(invalid(format!(
            "`type` {:?} must be a type such as comment.mentioned, a prefix such as comment.*, or *",
            wrong.kind
        )));
    }
    let notifications = parts.notifications()?;
    notifications.store.put_preferences(mine.inbox(), &preferences, mine.now).await?;
    let answer = answer(&parts, &mine).await?;
    notifications.tell(&mine.app, &mine.user, "preferences.updated", &json!(answer.0)).await;
    Ok(answer)
}

async fn answer(parts: &Parts, mine: &Mine) -> Result<Json<Said>, Fault> {
    let preferences = parts.notifications()?.store.preferences(mine.inbox()).await?;
    Ok(Json(Said { preferences }))
}

/// `GET /v1/preferences/settings`
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    get, path = "/v1/preferences/settings", tag = "preferences", operation_id = "get_settings", summary = "When the user may be written to", params(Which),
    responses((status = 200, body = Settings), Refused), security(("session" = [])),
)]
pub async fn settings(State(parts): State<Arc<Parts>>, request: Request) -> Result<Json<Settings>, Fault> {
    let (mine, _) = begin(&parts, request).await?;
    Ok(Json(parts.notifications()?.store.settings(mine.inbox()).await?))
}

/// What is to be changed: what is not named stays.
#[derive(ToSchema)]
pub struct NewSettings {
    /// A zone of the IANA database.
    #[schema(example = "Europe/Vienna")]
    pub timezone: Option<String>,
    /// By weekday, up to ten spans of time.
    #[schema(value_type = Option<Object>, example = json!({ "mon": [["22:00", "24:00"]] }))]
    pub quiet_hours: Option<Value>,
    /// Nothing but the inbox until then.
    pub paused_until: Option<Timestamp>,
    /// How often.
    #[schema(nullable = false)]
    pub digest: Option<Digest>,
}

/// `PUT /v1/preferences/settings`: replaces what is given; `null` takes it back.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    put, path = "/v1/preferences/settings", tag = "preferences", operation_id = "put_settings", summary = "Change when the user may be written to", params(Which),
    request_body = NewSettings, responses((status = 200, body = Settings), Refused), security(("session" = [])),
)]
pub async fn put_settings(State(parts): State<Arc<Parts>>, request: Request) -> Result<Json<Settings>, Fault> {
    let (mine, body) = begin_with(&parts, request).await?;
    let notifications = parts.notifications()?;
    let mut settings = notifications.store.settings(mine.inbox()).await?;
    for (name, value) in body {
        match name.as_str() {
            "timezone" => settings.timezone = read(&name, value, "a zone such as Europe/Vienna, or null")?,
            "quiet_hours" => settings.quiet_hours = Some(value).filter(|value| !value.is_null()),
            "paused_until" => {
                settings.paused_until = read(&name, value, "a time as in 2026-01-31T12:00:00Z, or null")?;
            }
            "digest" => settings.digest = read(&name, value, "one of instant, hourly, daily and weekly")?,
            _ => {} // what is not known is left out of account, as everywhere
        }
    }
    if let Some(name) = settings.timezone.as_deref().filter(|name| hours::zone(name).is_none()) {
        return Err(invalid(format!("`timezone` {name:?} is none of the IANA database, such as Europe/Vienna")));
    }
    if let Some(hours) = &settings.quiet_hours {
        QuietHours::parse(hours).map_err(|error| invalid(error.to_string()))?;
    }
    if !notifications.store.put_settings(mine.inbox(), &settings, mine.now).await? {
        return Err(Fault::UserDeleted);
    }
    let told = json!({ "settings": settings });
    notifications.tell(&mine.app, &mine.user, "preferences.updated", &told).await;
    Ok(Json(settings))
}

fn read<T: DeserializeOwned>(name: &str, value: Value, allowed: &str) -> Result<T, Fault> {
    serde_json::from_value(value).map_err(|_| invalid(format!("`{name}` must be {allowed}")))
}

/// Topics that somebody follows.
#[derive(Debug, Serialize, ToSchema)]
pub struct Followed {
    /// Sorted.
    pub topics: Vec<String>,
}

/// `GET /v1/topics`: those that the user follows.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    get, path = "/v1/topics", tag = "topics", operation_id = "followed_topics", summary = "The topics that the user follows", params(Which),
    responses((status = 200, body = Followed), Refused), security(("session" = [])),
)]
pub async fn topics(State(parts): State<Arc<Parts>>, request: Request) -> Result<Json<Followed>, Fault> {
    let (mine, _) = begin(&parts, request).await?;
    let topics = parts.notifications()?.store.topics(mine.app.id(), &mine.user).await?;
    Ok(Json(Followed { topics }))
}

/// `PUT /v1/topics/{topic}/subscription`
///
/// # Errors
/// See [`Fault`]; among them that the configuration does not let the user follow it.
#[utoipa::path(
    put, path = "/v1/topics/{topic}/subscription", tag = "topics", operation_id = "follow_topic", summary = "Follow a topic that `notifications.topics` names",
    params(Which, ("topic" = String, Path, min_length = 1, max_length = 200, description = "The topic's name")),
    responses((status = 204, description = "The user follows it"), Refused), security(("session" = [])),
)]
pub async fn follow(
    State(parts): State<Arc<Parts>>,
    Path(topic): Path<String>,
    request: Request,
) -> Result<StatusCode, Fault> {
    let (mine, _) = begin(&parts, request).await?;
    let topic = wish::topic(topic).map_err(|error| invalid(error.to_string()))?;
    if !parts.config.notifications.topics.iter().any(|pattern| pattern.allows(&topic, &mine.identity)) {
        return Err(Fault::Forbidden("this topic cannot be followed by users".to_owned()));
    }
    parts.notifications()?.store.follow(mine.app.id(), &mine.user, &topic, true, mine.now).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/topics/{topic}/subscription`: whatever is followed may be left.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    delete, path = "/v1/topics/{topic}/subscription", tag = "topics", operation_id = "unfollow_topic", summary = "Follow a topic no more",
    params(Which, ("topic" = String, Path, min_length = 1, max_length = 200, description = "The topic's name")),
    responses((status = 204, description = "The user does not follow it"), Refused), security(("session" = [])),
)]
pub async fn unfollow(
    State(parts): State<Arc<Parts>>,
    Path(topic): Path<String>,
    request: Request,
) -> Result<StatusCode, Fault> {
    let (mine, _) = begin(&parts, request).await?;
    let topic = wish::topic(topic).map_err(|error| invalid(error.to_string()))?;
    parts.notifications()?.store.follow(mine.app.id(), &mine.user, &topic, false, mine.now).await?;
    Ok(StatusCode::NO_CONTENT)
}
