//! `POST /apps/{app_id}/events`: one event to up to a hundred channels (section 4.2).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use herald_protocol::json::{self, JsonError, members, string, strings};
use herald_protocol::{ChannelName, SocketId};
use serde_json::{Value, json};

use super::auth::Signed;
use crate::apps::App;
use crate::http::error::ApiError;
use crate::hub::event_frame;
use crate::server::Parts;

/// Hands the event to every subscriber's queue, then answers.
///
/// # Errors
/// When the request is not one, or the server cannot keep up.
pub async fn trigger(State(parts): State<Arc<Parts>>, signed: Signed) -> Result<Json<Value>, ApiError> {
    let Signed { app, body } = signed;
    let body = str::from_utf8(&body).map_err(|_| ApiError::Parameter("the body is not UTF-8".to_owned()))?;
    let [name, data, channels, channel, socket_id] =
        members(body, ["name", "data", "channels", "channel", "socket_id"])?;
    let name = string("name", name.ok_or(JsonError::Missing("name"))?)?;
    check_name(&name, app.limits().event_name)?;
    let data = json::data_token(data.ok_or(JsonError::Missing("data"))?);
    let (actual, limit) = (json::decoded_len(&data), app.limits().event_data);
    if actual > limit {
        return Err(ApiError::EventTooLarge { actual, limit });
    }
    let channels = match (channels, channel) {
        (Some(channels), _) => strings("channels", channels)?,
        (None, Some(channel)) => vec![string("channel", channel)?.into_owned()],
        (None, None) => return Err(JsonError::Missing("channels").into()),
    };
    let channels = names(&app, channels)?;
    let except = match socket_id.filter(|id| id.get() != "null") {
        Some(id) => Some(socket(&string("socket_id", id)?)?),
        None => None,
    };
    for channel in &channels {
        parts.hub.publish(&app, channel, &event_frame(&name, channel, &data), &data, except).await?;
    }
    Ok(Json(json!({})))
}

fn check_name(name: &str, limit: usize) -> Result<(), ApiError> {
    let length = name.chars().count();
    let wrong = if !(1..=limit).contains(&length) {
        format!("`name` has {length} characters, 1 to {limit} are allowed")
    } else if name.chars().any(char::is_control) {
        "`name` must not hold control characters".to_owned()
    } else if name.starts_with("pusher:") || name.starts_with("pusher_internal:") {
        "`name` must not begin with pusher: or pusher_internal:".to_owned()
    } else {
        return Ok(());
    };
    Err(ApiError::Parameter(wrong))
}

/// The channels, each once.
fn names(app: &App, mut channels: Vec<String>) -> Result<Vec<ChannelName>, ApiError> {
    let limit = app.limits().channels_per_trigger;
    if !(1..=limit).contains(&channels.len()) {
        return Err(ApiError::Parameter(format!("`channels` has {} names, 1 to {limit} are allowed", channels.len())));
    }
    channels.sort_unstable();
    channels.dedup();
    Ok(channels.iter().map(|name| ChannelName::parse(name, app.limits().channel_name)).collect::<Result<_, _>>()?)
}

fn socket(text: &str) -> Result<SocketId, ApiError> {
    text.parse().map_err(|error| ApiError::Parameter(format!("`socket_id`: {error}")))
}
