//! What the server sends (section 3), encoded: every function gives the text of one frame.

use std::fmt::Write as _;
use std::time::Duration;

use crate::channel::ChannelName;
use crate::json::quoted;
use crate::socket_id::SocketId;
use crate::user::UserId;

/// The hello of an accepted connection (section 2).
#[must_use]
pub fn connection_established(socket_id: SocketId, activity_timeout: Duration) -> String {
    let seconds = activity_timeout.as_secs().max(1);
    format!(
        r#"{{"event":"pusher:connection_established","data":"{{\"socket_id\":\"{socket_id}\",\"activity_timeout\":{seconds}}}"}}"#
    )
}

/// The answer to `pusher:ping`.
pub const PONG: &str = r#"{"event":"pusher:pong","data":"{}"}"#;

/// `pusher:error`, the one event whose data is an object.
#[must_use]
pub fn error(code: Option<u16>, message: &str, channel: Option<&str>) -> String {
    let code = code.map_or_else(|| "null".to_owned(), |code| code.to_string());
    let channel = channel.map(|channel| format!(r#","channel":{}"#, quoted(channel))).unwrap_or_default();
    format!(r#"{{"event":"pusher:error","data":{{"code":{code},"message":{}}}{channel}}}"#, quoted(message))
}

/// An event of a channel; `data` is the publisher's JSON string token, copied as it stands. `event` is no token yet.
#[must_use]
pub fn event(event: &str, channel: &ChannelName, data: &str) -> String {
    format!(r#"{{"event":{},"channel":{},"data":{data}}}"#, quoted(event), quoted(channel.as_str()))
}

/// A client's event, with the sender's id on presence channels (3.4).
#[must_use]
pub fn client_event(event: &str, channel: &ChannelName, data: &str, user: Option<&UserId>) -> String {
    let user = user.map(|user| format!(r#","user_id":{}"#, quoted(user.as_str()))).unwrap_or_default();
    format!(r#"{{"event":{},"channel":{},"data":{data}{user}}}"#, quoted(event), quoted(channel.as_str()))
}

/// `pusher_internal:subscription_succeeded`; `data` is the JSON text that is put into a string.
#[must_use]
pub fn subscription_succeeded(channel: &ChannelName, data: &str) -> String {
    event("pusher_internal:subscription_succeeded", channel, &quoted(data))
}

/// The members of a presence channel, as `data` of [`subscription_succeeded`]; each user's info is JSON text.
#[must_use]
pub fn presence<'a>(members: impl ExactSizeIterator<Item = (&'a UserId, &'a str)> + Clone) -> String {
    let mut text = format!(r#"{{"presence":{{"count":{},"ids":["#, members.len());
    for (position, (user, _)) in members.clone().enumerate() {
        text.push_str(if position > 0 { "," } else { "" });
        text.push_str(&quoted(user.as_str()));
    }
    text.push_str(r#"],"hash":{"#);
    for (position, (user, info)) in members.enumerate() {
        text.push_str(if position > 0 { "," } else { "" });
        text.push_str(&quoted(user.as_str()));
        text.push(':');
        text.push_str(info);
    }
    text.push_str("}}}");
    text
}

/// `pusher_internal:member_added`
#[must_use]
pub fn member_added(channel: &ChannelName, user: &UserId, info: &str) -> String {
    let data = format!(r#"{{"user_id":{},"user_info":{info}}}"#, quoted(user.as_str()));
    event("pusher_internal:member_added", channel, &quoted(&data))
}

/// `pusher_internal:member_removed`
#[must_use]
pub fn member_removed(channel: &ChannelName, user: &UserId) -> String {
    let data = format!(r#"{{"user_id":{}}}"#, quoted(user.as_str()));
    event("pusher_internal:member_removed", channel, &quoted(&data))
}

/// `pusher_internal:subscription_count`
#[must_use]
pub fn subscription_count(channel: &ChannelName, count: usize) -> String {
    event("pusher_internal:subscription_count", channel, &quoted(&format!(r#"{{"subscription_count":{count}}}"#)))
}

/// `pusher:cache_miss`, which has no data.
#[must_use]
pub fn cache_miss(channel: &ChannelName) -> String {
    format!(r#"{{"event":"pusher:cache_miss","channel":{}}}"#, quoted(channel.as_str()))
}

/// What went wrong with a subscription (3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionError {
    /// Signature missing, malformed, wrong or foreign; not signed in as that user.
    Auth,
    /// A name or `channel_data` that cannot be.
    InvalidChannel,
    /// The name is too long.
    NameTooLong,
    /// Too many members or subscriptions.
    Full,
    /// The user's info is too large.
    UserInfoTooLarge,
}

impl SubscriptionError {
    const fn type_and_status(self) -> (&'static str, u16) {
        match self {
            Self::Auth => ("AuthError", 401),
            Self::InvalidChannel => ("InvalidChannel", 400),
            Self::NameTooLong => ("LimitReached", 4009),
            Self::Full => ("LimitReached", 4100),
            Self::UserInfoTooLarge => ("LimitReached", 4301),
        }
    }
}

/// `pusher:subscription_error`; the channel is named as the client wrote it.
#[must_use]
pub fn subscription_error(channel: &str, error: SubscriptionError, message: &str) -> String {
    let (kind, status) = error.type_and_status();
    let data = format!(r#"{{"type":"{kind}","error":{},"status":{status}}}"#, quoted(message));
    format!(r#"{{"event":"pusher:subscription_error","channel":{},"data":{}}}"#, quoted(channel), quoted(&data))
}

/// `pusher:signin_success`
#[must_use]
pub fn signin_success(user_data: &str) -> String {
    let data = format!(r#"{{"user_data":{}}}"#, quoted(user_data));
    format!(r#"{{"event":"pusher:signin_success","data":{}}}"#, quoted(&data))
}

/// `pusher_internal:watchlist_events`; `None` when neither list holds anybody.
#[must_use]
pub fn watchlist_events(online: &[UserId], offline: &[UserId]) -> Option<String> {
    let mut events = String::new();
    for (name, users) in [("online", online), ("offline", offline)] {
        if users.is_empty() {
            continue;
        }
        let ids: Vec<String> = users.iter().map(|user| quoted(user.as_str())).collect();
        let comma = if events.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        _ = write!(events, r#"{comma}{{"name":"{name}","user_ids":[{}]}}"#, ids.join(","));
    }
    let data = quoted(&format!(r#"{{"events":[{events}]}}"#));
    (!events.is_empty()).then(|| format!(r#"{{"event":"pusher_internal:watchlist_events","data":{data}}}"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_of_the_specification() {
        let room = ChannelName::parse("presence-room", 164).unwrap();
        let seven = UserId::parse("7").unwrap();
        assert_eq!(
            subscription_succeeded(&room, &presence([(&seven, r#"{"name":"A"}"#)].into_iter())),
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-room","data":"{\"presence\":{\"count\":1,\"ids\":[\"7\"],\"hash\":{\"7\":{\"name\":\"A\"}}}}"}"#
        );
        assert_eq!(
            client_event("client-typing", &room, r#""{\"who\":\"A\"}""#, Some(&seven)),
            r#"{"event":"client-typing","channel":"presence-room","data":"{\"who\":\"A\"}","user_id":"7"}"#
        );
        assert_eq!(
            error(Some(4301), "no", Some("a")),
            r#"{"event":"pusher:error","data":{"code":4301,"message":"no"},"channel":"a"}"#
        );
        assert_eq!(
            watchlist_events(std::slice::from_ref(&seven), &[]).unwrap(),
            r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"7\"]}]}"}"#
        );
        assert_eq!(watchlist_events(&[], &[]), None);
    }

    #[test]
    fn data_is_copied_verbatim() {
        let name = ChannelName::parse("a", 164).unwrap();
        for token in [r#""\u2028\/ 1e21""#, "\"\"", "\"😀\""] {
            assert!(event("e", &name, token).ends_with(&format!(r#""data":{token}}}"#)));
        }
    }
}
