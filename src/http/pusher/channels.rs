//! What a backend may ask about channels (section 4.2): which are occupied, how one of them is, who its members are.

use std::sync::Arc;

use axum::extract::State;
use herald_protocol::ChannelName;
use herald_protocol::json::quoted;

use super::Answer;
use super::auth::Signed;
use super::parameters::{Attribute, Info};
use crate::http::error::ApiError;
use crate::hub::Occupancy;
use crate::parts::Parts;

/// `GET /channels`: the occupied channels, with what is asked about them.
///
/// # Errors
/// When `info` asks for what these channels do not have.
pub async fn list(State(parts): State<Arc<Parts>>, signed: Signed) -> Result<Answer, ApiError> {
    let prefix = signed.parameters.get("filter_by_prefix").unwrap_or_default();
    let info = Info::parse(signed.parameters.get("info").unwrap_or_default(), &Info::OF_EVENT)?;
    if info.has(Attribute::UserCount) && !prefix.starts_with("presence-") {
        let message = "`info` may ask for user_count only if `filter_by_prefix` begins with presence-";
        return Err(ApiError::Parameter(message.to_owned()));
    }
    let channels = parts.hub.cluster.channels(&signed.app, prefix).await?;
    let counted = channels.iter().map(|(name, occupancy)| (name, counts(*occupancy, &info)));
    Ok(format!(r#"{{"channels":{}}}"#, keyed(counted)).into())
}

/// `GET /channels/{channel}`: whether it is occupied, and what else is asked about it.
///
/// # Errors
/// When the name is none, or `info` asks for what this channel does not have.
pub async fn show(State(parts): State<Arc<Parts>>, signed: Signed) -> Result<Answer, ApiError> {
    let name = channel(&signed)?;
    let info = Info::parse(signed.parameters.get("info").unwrap_or_default(), &Info::OF_CHANNEL)?;
    if info.has(Attribute::UserCount) && !name.kind().is_presence() {
        return Err(ApiError::Parameter("`info` may ask for user_count of presence channels only".to_owned()));
    }
    if info.has(Attribute::Cache) && !name.kind().keeps_last_event() {
        return Err(ApiError::Parameter("`info` may ask for cache of cache channels only".to_owned()));
    }
    let cluster = &parts.hub.cluster;
    let occupancy = cluster.occupancy(&signed.app, &[&name]).await?.pop().unwrap_or_default();
    let mut members = vec![format!(r#""occupied":{}"#, occupancy.subscription_count > 0)];
    members.extend(count_members(occupancy, &info));
    if info.has(Attribute::Cache) {
        let kept = cluster.kept(&signed.app, &name).await?.map(|kept| {
            let seconds = kept.ttl.as_secs() + u64::from(kept.ttl.subsec_nanos() > 0);
            format!(r#"{{"data":{},"ttl":{seconds}}}"#, kept.data)
        });
        members.push(format!(r#""cache":{}"#, kept.as_deref().unwrap_or("null")));
    }
    Ok(format!("{{{}}}", members.join(",")).into())
}

/// `GET /channels/{channel}/users`: the members of a presence channel, each once.
///
/// # Errors
/// When the name is none of a presence channel.
pub async fn users(State(parts): State<Arc<Parts>>, signed: Signed) -> Result<Answer, ApiError> {
    let name = channel(&signed)?;
    if !name.kind().is_presence() {
        return Err(ApiError::Parameter("only presence channels have users".to_owned()));
    }
    let users = parts.hub.cluster.members(&signed.app, &name).await?;
    let users: Vec<String> = users.iter().map(|user| format!(r#"{{"id":{}}}"#, quoted(user.as_str()))).collect();
    Ok(format!(r#"{{"users":[{}]}}"#, users.join(",")).into())
}

/// The counts that are asked for, as a JSON object; only presence channels have members to count.
pub(super) fn counts(occupancy: Occupancy, info: &Info) -> String {
    format!("{{{}}}", count_members(occupancy, info).collect::<Vec<_>>().join(","))
}

/// A JSON object with a member for each channel.
pub(super) fn keyed<'a>(channels: impl Iterator<Item = (&'a ChannelName, String)>) -> String {
    let members: Vec<String> = channels.map(|(name, value)| format!("{}:{value}", quoted(name.as_str()))).collect();
    format!("{{{}}}", members.join(","))
}

fn count_members(occupancy: Occupancy, info: &Info) -> impl Iterator<Item = String> {
    let users = occupancy.user_count.filter(|_| info.has(Attribute::UserCount));
    let users = users.map(|count| format!(r#""user_count":{count}"#));
    let subscriptions = info.has(Attribute::SubscriptionCount);
    let subscriptions = subscriptions.then(|| format!(r#""subscription_count":{}"#, occupancy.subscription_count));
    users.into_iter().chain(subscriptions)
}

fn channel(signed: &Signed) -> Result<ChannelName, ApiError> {
    ApiError::channel(signed.value("channel"), signed.app.limits().channel_name)
}
