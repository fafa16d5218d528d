//! What a user wants to hear of (sections 8.6 and 8.8): preferences by type and way, and topics.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::inbox::{Mine, begin, begin_with, invalid};
use crate::config::is_type_pattern;
use crate::http::fault::Fault;
use crate::notifications::hours::{self, QuietHours};
use crate::notifications::wish;
use crate::parts::Parts;
use crate::store::preferences::{Preference, Settings};

/// Preferences of one request.
const MAX_PREFERENCES: usize = 100;

/// `GET /v1/preferences`
///
/// # Errors
/// See [`Fault`].
pub async fn list(State(parts): State<Arc<Parts>>, request: Request) -> Result<Json<Value>, Fault> {
    let (mine, _) = begin(&parts, request).await?;
    answer(&parts, &mine).await
}

/// `PUT /v1/preferences`: replaces the pairs of type and channel that are given.
///
/// # Errors
/// See [`Fault`].
pub async fn put(State(parts): State<Arc<Parts>>, request: Request) -> Result<Json<Value>, Fault> {
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
    notifications.tell(&mine.app, &mine.user, "preferences.updated", &answer.0).await;
    Ok(answer)
}

async fn answer(parts: &Parts, mine: &Mine) -> Result<Json<Value>, Fault> {
    let preferences = parts.notifications()?.store.preferences(mine.inbox()).await?;
    Ok(Json(json!({ "preferences": preferences })))
}

/// `GET /v1/preferences/settings`
///
/// # Errors
/// See [`Fault`].
pub async fn settings(State(parts): State<Arc<Parts>>, request: Request) -> Result<Json<Settings>, Fault> {
    let (mine, _) = begin(&parts, request).await?;
    Ok(Json(parts.notifications()?.store.settings(mine.inbox()).await?))
}

/// `PUT /v1/preferences/settings`: replaces what is given; `null` takes it back.
///
/// # Errors
/// See [`Fault`].
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

/// `GET /v1/topics`: those that the user follows.
///
/// # Errors
/// See [`Fault`].
pub async fn topics(State(parts): State<Arc<Parts>>, request: Request) -> Result<Json<Value>, Fault> {
    let (mine, _) = begin(&parts, request).await?;
    let topics = parts.notifications()?.store.topics(mine.app.id(), &mine.user).await?;
    Ok(Json(json!({ "topics": topics })))
}

/// `PUT /v1/topics/{topic}/subscription`
///
/// # Errors
/// See [`Fault`]; among them that the configuration does not let the user follow it.
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
pub async fn unfollow(
    State(parts): State<Arc<Parts>>,
    Path(topic): Path<String>,
    request: Request,
) -> Result<StatusCode, Fault> {
    let (mine, _) = begin(&parts, request).await?;
    parts.notifications()?.store.follow(mine.app.id(), &mine.user, &topic, false, mine.now).await?;
    Ok(StatusCode::NO_CONTENT)
}
