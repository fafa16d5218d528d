//! What the app's backend is told over HTTP (section 5): the events of one request, and the body that carries them.
//!
//! A body is signed as it is sent: [`Secret::sign`](crate::Secret::sign) over [`body`], no more. Not here: who wants which event,
//! when it is due, and its delivery.

use std::fmt;
use std::str::FromStr;

use crate::channel::ChannelName;
use crate::json::quoted;
use crate::socket_id::SocketId;
use crate::user::UserId;

/// Something that happened, told once to every URL that wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookEvent {
    /// The first subscriber in the cluster came.
    ChannelOccupied {
        /// Where.
        channel: ChannelName,
    },
    /// The last subscriber has gone and nobody came back.
    ChannelVacated {
        /// Where.
        channel: ChannelName,
    },
    /// A user's first connection joined.
    MemberAdded {
        /// Where.
        channel: ChannelName,
        /// Who.
        user_id: UserId,
    },
    /// A user's last connection has gone and none came back.
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
        /// `client-…`
        event: String,
        /// The data as the JSON string token that went to the subscribers.
        data: String,
        /// The connection that sent it.
        socket_id: SocketId,
        /// Who sent it, on presence channels.
        user_id: Option<UserId>,
    },
    /// A subscriber met an empty cache.
    CacheMiss {
        /// Where.
        channel: ChannelName,
    },
    /// The number of subscriptions changed.
    SubscriptionCount {
        /// Where.
        channel: ChannelName,
        /// How many there are now.
        count: usize,
    },
}

/// The kinds of [`WebhookEvent`], by which a URL says what it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WebhookKind {
    /// `channel_occupied`
    ChannelOccupied,
    /// `channel_vacated`
    ChannelVacated,
    /// `member_added`
    MemberAdded,
    /// `member_removed`
    MemberRemoved,
    /// `client_event`
    ClientEvent,
    /// `cache_miss`
    CacheMiss,
    /// `subscription_count`
    SubscriptionCount,
}

/// A text that names no kind of webhook event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown webhook event {0:?}: there are channel_occupied, channel_vacated, member_added, member_removed, client_event, cache_miss and subscription_count"
)]
pub struct UnknownWebhookKind(String);

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

    /// The kind's name on the wire and in the configuration.
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

    /// Whether a URL gets the kind without asking for it.
    #[must_use]
    pub const fn on_by_default(self) -> bool {
        !matches!(self, Self::ClientEvent | Self::SubscriptionCount)
    }
}

impl fmt::Display for WebhookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WebhookKind {
    type Err = UnknownWebhookKind;

    fn from_str(text: &str) -> Result<Self, UnknownWebhookKind> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| UnknownWebhookKind(text.chars().take(80).collect()))
    }
}

impl WebhookEvent {
    /// What kind it is.
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

    /// Where it happened.
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

    /// The event as it stands in a body; the data of a client's event is copied as it is.
    #[must_use]
    pub fn json(&self) -> String {
        let user_id = |user: &UserId| format!(r#","user_id":{}"#, quoted(user.as_str()));
        let more = match self {
            Self::ChannelOccupied { .. } | Self::ChannelVacated { .. } | Self::CacheMiss { .. } => String::new(),
            Self::MemberAdded { user_id: user, .. } | Self::MemberRemoved { user_id: user, .. } => user_id(user),
            Self::ClientEvent { event, data, socket_id, user_id: user, .. } => {
                let user = user.as_ref().map(user_id).unwrap_or_default();
                format!(r#","event":{},"data":{data},"socket_id":"{socket_id}"{user}"#, quoted(event))
            }
            Self::SubscriptionCount { count, .. } => format!(r#","subscription_count":{count}"#),
        };
        format!(r#"{{"name":"{}","channel":{}{more}}}"#, self.kind(), quoted(self.channel().as_str()))
    }
}

/// The body of one request: `events` are what [`WebhookEvent::json`] made, `time_ms` is the milliseconds since 1970.
#[must_use]
pub fn body(time_ms: u64, events: &[impl AsRef<str>]) -> String {
    let events: Vec<&str> = events.iter().map(AsRef::as_ref).collect();
    format!(r#"{{"time_ms":{time_ms},"events":[{}]}}"#, events.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    fn one_of_each() -> [(WebhookEvent, &'static str); 8] {
        let channel = ChannelName::parse("presence-room", 164).unwrap();
        let user_id = UserId::parse("a\"b").unwrap();
        let socket_id = "123.456".parse().unwrap();
        let (event, data) = ("client-x".to_owned(), r#""{\"a\":\"\u00e9\/\"}""#.to_owned());
        [
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
                WebhookEvent::ClientEvent {
                    channel: channel.clone(),
                    event: event.clone(),
                    data: data.clone(),
                    socket_id,
                    user_id: Some(user_id),
                },
                r#"{"name":"client_event","channel":"presence-room","event":"client-x","data":"{\"a\":\"\u00e9\/\"}","socket_id":"123.456","user_id":"a\"b"}"#,
            ),
            (
                WebhookEvent::ClientEvent { channel: channel.clone(), event, data, socket_id, user_id: None },
                r#"{"name":"client_event","channel":"presence-room","event":"client-x","data":"{\"a\":\"\u00e9\/\"}","socket_id":"123.456"}"#,
            ),
            (
                WebhookEvent::CacheMiss { channel: channel.clone() },
                r#"{"name":"cache_miss","channel":"presence-room"}"#,
            ),
            (
                WebhookEvent::SubscriptionCount { channel, count: 3 },
                r#"{"name":"subscription_count","channel":"presence-room","subscription_count":3}"#,
            ),
        ]
    }

    #[test]
    fn each_kind_has_its_members() {
        for (event, json) in one_of_each() {
            assert_eq!(event.json(), json);
            assert!(json.contains(&format!(r#""name":"{}""#, event.kind())), "{json}");
            assert_eq!(event.channel().as_str(), "presence-room");
        }
    }

    #[test]
    fn kinds_are_named_as_on_the_wire() {
        for kind in WebhookKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert!(one_of_each().iter().any(|(event, _)| event.kind() == kind), "{kind}");
        }
        let asked_for: Vec<_> = WebhookKind::ALL.into_iter().filter(|kind| !kind.on_by_default()).collect();
        assert_eq!(asked_for, [WebhookKind::ClientEvent, WebhookKind::SubscriptionCount]);
        let unknown = "presence".parse::<WebhookKind>().unwrap_err().to_string();
        for kind in WebhookKind::ALL {
            assert!(unknown.contains(kind.as_str()), "{unknown}");
        }
    }

    #[test]
    fn a_body_carries_events_in_order_and_is_signed_as_it_is_sent() {
        assert_eq!(body(0, &[] as &[&str]), r#"{"time_ms":0,"events":[]}"#);
        let signed = body(1_327_078_148_132, &[r#"{"name":"a"}"#.to_owned(), r#"{"name":"b"}"#.to_owned()]);
        assert_eq!(signed, r#"{"time_ms":1327078148132,"events":[{"name":"a"},{"name":"b"}]}"#);
        assert_eq!(
            Secret::new("7ad3773142a6692b25b8").sign(signed.as_bytes()),
            "2a796f42134fe84c894d1c89e1f2919849b7d3fdec8dcb0a0b6de9782eb770f9"
        );
    }
}
