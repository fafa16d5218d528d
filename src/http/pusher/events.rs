//! `POST /events`, one event to up to a hundred channels, and `POST /batch_events`, several events (section 4.2).

use std::borrow::Cow;
use std::sync::Arc;

use herald_protocol::json::{self, JsonError, members, quoted, string, strings};
use herald_protocol::{ChannelName, SocketId};
use indexmap::IndexSet;
use serde_json::value::RawValue;

use super::Answer;
use super::auth::Signed;
use super::channels::{counts, keyed};
use super::parameters::{Info, Parameters, given};
use crate::answers::Digest;
use crate::apps::{App, Metered};
use crate::cluster::{self, Unpublished, Unreachable};
use crate::http::error::ApiError;
use crate::http::idempotency;
use crate::http::limits::within;
use crate::hub::Hub;
use crate::parts::Parts;

/// Hands the event to every subscriber's queue, then answers.
///
/// # Errors
/// When the request is not one, or the server cannot keep up.
pub async fn trigger(parts: Arc<Parts>, signed: Arc<Signed>) -> Result<Answer, ApiError> {
    let (app, query) = (&signed.app, &signed.parameters);
    within(&parts, app, Metered::Events, 1).await?;
    let [name, data, socket_id, info, channels, channel] =
        members(signed.json()?, ["name", "data", "socket_id", "info", "channels", "channel"])?;
    let event = Event::read(app, [name, data, socket_id, info], query)?;
    let channels = channels_of(app, channels, channel, query)?;
    let once = idempotency::scope(&signed)?;
    for (position, channel) in channels.iter().enumerate() {
        let published = event.publish(&parts.hub, app, channel, once.map(|scope| (scope, position))).await;
        published.map_err(|error| after(position, error))?;
    }
    if event.info.is_empty() {
        return Ok(Answer::EMPTY);
    }
    let occupancies = parts.hub.cluster.occupancy(app, &channels.iter().collect::<Vec<_>>()).await?;
    let counted = channels.iter().zip(occupancies).map(|(name, occupancy)| (name, counts(occupancy, &event.info)));
    Ok(format!(r#"{{"channels":{}}}"#, keyed(counted)).into())
}

/// Hands each event to its subscribers' queues, in their order; if one of them is wrong, none.
///
/// # Errors
/// When the request is not one, or the server cannot keep up.
pub async fn trigger_batch(parts: Arc<Parts>, signed: Arc<Signed>) -> Result<Answer, ApiError> {
    let app = &signed.app;
    let [batch] = members(signed.json()?, ["batch"])?;
    let batch: Vec<&RawValue> = serde_json::from_str(batch.ok_or(JsonError::Missing("batch"))?.get())
        .map_err(|_| JsonError::Type { member: "batch", expected: "an array of events" })?;
    let limit = app.limits().batch_events;
    if !(1..=limit).contains(&batch.len()) {
        return Err(ApiError::Parameter(format!("`batch` has {} events, 1 to {limit} are allowed", batch.len())));
    }
    within(&parts, app, Metered::Events, batch.len()).await?;
    let no_query = Parameters::default();
    let mut events = Vec::with_capacity(batch.len());
    for (index, event) in batch.into_iter().enumerate() {
        let event = event_of_batch(app, event, &no_query);
        events.push(event.map_err(|error| ApiError::InBatch { index, error: Box::new(error) })?);
    }
    let once = idempotency::scope(&signed)?;
    for (position, (event, channel)) in events.iter().enumerate() {
        let published = event.publish(&parts.hub, app, channel, once.map(|scope| (scope, position))).await;
        published.map_err(|error| after(position, error))?;
    }
    if events.iter().all(|(event, _)| event.info.is_empty()) {
        return Ok(Answer::EMPTY);
    }
    let channels: Vec<&ChannelName> = events.iter().map(|(_, channel)| channel).collect();
    let occupancies = parts.hub.cluster.occupancy(app, &channels).await?;
    let counted = events.iter().zip(occupancies).map(|((event, _), occupancy)| counts(occupancy, &event.info));
    Ok(format!(r#"{{"batch":[{}]}}"#, counted.collect::<Vec<_>>().join(",")).into())
}

/// An event as a backend wrote it, checked.
struct Event<'a> {
    name: Cow<'a, str>,
    /// The JSON string token that subscribers get.
    data: Cow<'a, str>,
    except: Option<SocketId>,
    info: Info,
}

impl<'a> Event<'a> {
    fn read(
        app: &App,
        [name, data, socket_id, info]: [Option<&'a RawValue>; 4],
        query: &'a Parameters,
    ) -> Result<Self, ApiError> {
        let limits = app.limits();
        let name = query.text("name", name)?.ok_or(JsonError::Missing("name"))?;
        check_name(&name, limits.event_name)?;
        let data = match data {
            Some(data) => json::data_token(data),
            None => Cow::Owned(quoted(query.get("data").ok_or(JsonError::Missing("data"))?)),
        };
        let (actual, limit) = (json::decoded_len(&data), limits.event_data);
        if actual > limit {
            return Err(ApiError::EventTooLarge { actual, limit });
        }
        let except = query.text("socket_id", socket_id)?.map(|id| socket(&id)).transpose()?;
        let info = query.text("info", info)?.map(|names| Info::parse(&names, &Info::OF_EVENT)).transpose()?;
        Ok(Self { name, data, except, info: info.unwrap_or_default() })
    }

    async fn publish(
        &self,
        hub: &Hub,
        app: &App,
        channel: &ChannelName,
        once: Option<(Digest, usize)>,
    ) -> Result<(), Unpublished> {
        let Self { name, data, except, .. } = self;
        hub.publish(app, &cluster::Event { channel, name, data, except: *except, once, rev: None }).await
    }
}

/// What went wrong once so many were published: it is not true any more that nothing was sent.
fn after(published: usize, error: Unpublished) -> ApiError {
    match error {
        Unpublished::Unreachable(Unreachable::Away) if published > 0 => Unreachable::Unknown.into(),
        error => error.into(),
    }
}

fn event_of_batch<'a>(
    app: &App,
    event: &'a RawValue,
    no_query: &'a Parameters,
) -> Result<(Event<'a>, ChannelName), ApiError> {
    let [name, data, socket_id, info, channel] =
        members(event.get(), ["name", "data", "socket_id", "info", "channel"])?;
    let event = Event::read(app, [name, data, socket_id, info], no_query)?;
    let channel = string("channel", channel.ok_or(JsonError::Missing("channel"))?)?;
    Ok((event, ApiError::channel(&channel, app.limits().channel_name)?))
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

/// The channels of a trigger, each once, in the order in which they stand there.
fn channels_of(
    app: &App,
    channels: Option<&RawValue>,
    channel: Option<&RawValue>,
    query: &Parameters,
) -> Result<Vec<ChannelName>, ApiError> {
    let limits = app.limits();
    let parse = |name: &str| ApiError::channel(name, limits.channel_name);
    let names = match (given(channels), given(channel)) {
        (Some(channels), _) => strings("channels", channels)?,
        (None, Some(channel)) => return Ok(vec![parse(&string("channel", channel)?)?]),
        (None, None) => match (query.all("channels"), query.get("channel")) {
            (names, _) if !names.is_empty() => names.into_iter().map(Cow::Owned).collect(),
            (_, Some(channel)) => return Ok(vec![parse(channel)?]),
            _ => return Err(JsonError::Missing("channels").into()),
        },
    };
    let mut channels = names.iter().map(|name| parse(name)).collect::<Result<Vec<_>, _>>()?;
    if channels.len() > 1 {
        channels = channels.into_iter().collect::<IndexSet<_>>().into_iter().collect();
    }
    let limit = limits.channels_per_trigger;
    if !(1..=limit).contains(&channels.len()) {
        return Err(ApiError::Parameter(format!("`channels` has {} names, 1 to {limit} are allowed", channels.len())));
    }
    Ok(channels)
}

fn socket(text: &str) -> Result<SocketId, ApiError> {
    text.parse().map_err(|error| ApiError::Parameter(format!("`socket_id`: {error}")))
}
