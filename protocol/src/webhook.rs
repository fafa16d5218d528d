//! Webhooks (section 5): what a backend is told about channels, members and client events, and the body that is signed.

use std::str::FromStr;

use crate::channel::ChannelName;
use crate::json::quoted;
use crate::socket_id::SocketId;
use crate::user::UserId;

/// Something that a backend may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookEvent {
    /// The first subscriber came.
    ChannelOccupied {
        /// Where.
        channel: ChannelName,
    },
    /// The last subscriber has gone.
    ChannelVacated {
        /// Where.
        channel: ChannelName,
    },
    /// A user's first connection joined a presence channel.
    MemberAdded {
        /// Where.
        channel: ChannelName,
        /// Who.
        user_id: UserId,
    },
    /// A user's last connection has left a presence channel.
    MemberRemoved {
        /// Where.
        channel: ChannelName,
        /// Who.
        user_id: UserId,
    },
    /// A client's event was delivered.
    ClientEvent {
        /// Where.
        channel: ChannelName,
        /// Its name.
        event: String,
        /// Its data's JSON string token.
        data: String,
        /// Whose.
        socket_id: SocketId,
        /// On presence channels, who that is.
        user_id: Option<UserId>,
    },
    /// A subscriber met an empty cache.
    CacheMiss {
        /// Where.
        channel: ChannelName,
    },
    /// The number of subscriptions has changed.
    SubscriptionCount {
        /// Where.
        channel: ChannelName,
        /// How many there are.
        count: usize,
    },
}

/// The seven kinds of [`WebhookEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WebhookKind {
    /// [`WebhookEvent::ChannelOccupied`]
    ChannelOccupied,
    /// [`WebhookEvent::ChannelVacated`]
    ChannelVacated,
    /// [`WebhookEvent::MemberAdded`]
    MemberAdded,
    /// [`WebhookEvent::MemberRemoved`]
    MemberRemoved,
    /// [`WebhookEvent::ClientEvent`]
    ClientEvent,
    /// [`WebhookEvent::CacheMiss`]
    CacheMiss,
    /// [`WebhookEvent::SubscriptionCount`]
    SubscriptionCount,
}

/// A name that no kind of webhook has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no kind of webhook has this name")]
pub struct UnknownKind;

impl WebhookKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::ChannelOccupied,
        Self::ChannelVacated,
        Self::MemberAdded,
        Self::MemberRemoved,
        Self::ClientEvent,
        Self::CacheMiss,
        Self::SubscriptionCount,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
            Self::ClientEvent => "client_event",
            Self::CacheMiss => "cache_miss",
            Self::SubscriptionCount => "subscription_count",
        }
    }

    /// Whether a receiver that names no kinds gets it: all but those that come with every message or every change.
    #[must_use]
    pub const fn on_by_default(self) -> bool {
        !matches!(self, Self::ClientEvent | Self::SubscriptionCount)
    }
}

impl FromStr for WebhookKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownKind)
    }
}

impl WebhookEvent {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> WebhookKind {
        match self {
            Self::ChannelOccupied { .. } => WebhookKind::ChannelOccupied,
            Self::ChannelVacated { .. } => WebhookKind::ChannelVacated,
            Self::MemberAdded { .. } => WebhookKind::MemberAdded,
            Self::MemberRemoved { .. } => WebhookKind::MemberRemoved,
            Self::ClientEvent { .. } => WebhookKind::ClientEvent,
            Self::CacheMiss { .. } => WebhookKind::CacheMiss,
            Self::SubscriptionCount { .. } => WebhookKind::SubscriptionCount,
        }
    }

    /// The channel that it is about.
    #[must_use]
    pub const fn channel(&self) -> &ChannelName {
        match self {
            Self::ChannelOccupied { channel }
            | Self::ChannelVacated { channel }
            | Self::MemberAdded { channel, .. }
            | Self::MemberRemoved { channel, .. }
            | Self::ClientEvent { channel, .. }
            | Self::CacheMiss { channel }
            | Self::SubscriptionCount { channel, .. } => channel,
        }
    }

    /// Its JSON object, one entry of [`body`].
    #[must_use]
    pub fn json(&self) -> String {
        let more = match self {
            Self::ChannelOccupied { .. } | Self::ChannelVacated { .. } | Self::CacheMiss { .. } => String::new(),
            Self::MemberAdded { user_id, .. } | Self::MemberRemoved { user_id, .. } => {
                format!(r#","user_id":{}"#, quoted(user_id.as_str()))
            }
            Self::ClientEvent { event, data, socket_id, user_id, .. } => {
                let user = user_id.as_ref().map(|user| format!(r#","user_id":{}"#, quoted(user.as_str())));
                let user = user.unwrap_or_default();
                format!(r#","event":{},"data":{data},"socket_id":"{socket_id}"{user}"#, quoted(event))
            }
            Self::SubscriptionCount { count, .. } => format!(r#","subscription_count":{count}"#),
        };
        format!(r#"{{"name":"{}","channel":{}{more}}}"#, self.kind().as_str(), quoted(self.channel().as_str()))
    }
}

/// What is posted and signed: `events` are JSON objects, `time_ms` is when the first of them happened.
#[must_use]
pub fn body<T: AsRef<str>>(time_ms: u64, events: &[T]) -> String {
    let mut text = format!(r#"{{"time_ms":{time_ms},"events":["#);
    for (position, event) in events.iter().enumerate() {
        text.push_str(if position > 0 { "," } else { "" });
        text.push_str(event.as_ref());
    }
    text + "]}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_members() {
        let channel = ChannelName::parse("presence-room", 164).unwrap();
        let user_id = UserId::parse("a\"b").unwrap();
        let client_event = |user_id| WebhookEvent::ClientEvent {
            channel: ChannelName::parse("private-x", 164).unwrap(),
            event: "client-typing".to_owned(),
            data: r#""{\"who\":1}""#.to_owned(),
            socket_id: SocketId::from_random(0),
            user_id,
        };
        for (event, json) in [
            (
                WebhookEvent::ChannelOccupied { channel: channel.clone() },
                r#"{"name":"channel_occupied","channel":"presence-room"}"#,
            ),
            (
                WebhookEvent::ChannelVacated { channel: channel.clone() },
                r#"{"name":"channel_vacated","channel":"presence-room"}"#,
            ),
            (
                WebhookEvent::MemberAdded { channel: channel.clone(), user_id: user_id.clone() },
                r#"{"name":"member_added","channel":"presence-room","user_id":"a\"b"}"#,
            ),
            (
                WebhookEvent::MemberRemoved { channel: channel.clone(), user_id: user_id.clone() },
                r#"{"name":"member_removed","channel":"presence-room","user_id":"a\"b"}"#,
            ),
            (
                WebhookEvent::CacheMiss { channel: channel.clone() },
                r#"{"name":"cache_miss","channel":"presence-room"}"#,
            ),
            (
                WebhookEvent::SubscriptionCount { channel, count: 3 },
                r#"{"name":"subscription_count","channel":"presence-room","subscription_count":3}"#,
            ),
            (
                client_event(None),
                r#"{"name":"client_event","channel":"private-x","event":"client-typing","data":"{\"who\":1}","socket_id":"1.1"}"#,
            ),
            (
                client_event(Some(user_id)),
                r#"{"name":"client_event","channel":"private-x","event":"client-typing","data":"{\"who\":1}","socket_id":"1.1","user_id":"a\"b"}"#,
            ),
        ] {
            assert_eq!(event.json(), json);
            assert_eq!(event.kind().as_str().parse(), Ok(event.kind()));
        }
        assert_eq!(body(1, &["{}", "{}"]), r#"{"time_ms":1,"events":[{},{}]}"#);
        assert_eq!("channel_ocupied".parse::<WebhookKind>(), Err(UnknownKind));
    }
}
