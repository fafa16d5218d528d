//! What clients send (section 3): one text frame is one [`ClientMessage`].

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json::{self, JsonError, members, string};
use crate::user::{InvalidUserId, UserId};

/// A client's message, read as far as the protocol goes; names of channels are checked by whoever knows the app's limits.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// `pusher:ping`
    Ping,
    /// `pusher:pong`
    Pong,
    /// `pusher:subscribe`
    Subscribe(Subscribe),
    /// `pusher:unsubscribe`
    Unsubscribe {
        /// The channel's name, unchecked.
        channel: String,
    },
    /// `pusher:signin`
    SignIn {
        /// `KEY:HEX`
        auth: String,
        /// The signed text, a JSON object.
        user_data: String,
    },
    /// `client-…`
    Event(ClientEvent<'a>),
}

/// A wish to subscribe.
#[derive(Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The channel's name, unchecked.
    pub channel: String,
    /// `KEY:HEX`, if it was sent.
    pub auth: Option<String>,
    /// The signed text about the member, a JSON object, if it was sent.
    pub channel_data: Option<String>,
}

/// An event from one client to the others of a channel.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientEvent<'a> {
    /// `client-…`
    pub event: Cow<'a, str>,
    /// The channel's name, unchecked.
    pub channel: Cow<'a, str>,
    /// The data as the JSON string token that goes out.
    pub data: Cow<'a, str>,
}

/// Why a frame is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// It is not the JSON that it must be.
    #[error("invalid message: {0}")]
    Json(#[from] JsonError),
    /// An event that clients do not send.
    #[error(
        "unknown event {0:?}: clients send pusher:subscribe, pusher:unsubscribe, pusher:signin, pusher:ping, pusher:pong and client-…"
    )]
    UnknownEvent(String),
}

impl<'a> ClientMessage<'a> {
    /// Reads one text frame.
    ///
    /// # Errors
    /// Says what is wrong with which member.
    pub fn parse(text: &'a str) -> Result<Self, InvalidMessage> {
        json::check_depth(text)?;
        let [event, channel, data] = members(text, ["event", "channel", "data"])?;
        let event = string("event", event.ok_or(JsonError::Missing("event"))?)?;
        match event.as_ref() {
            "pusher:ping" => Ok(Self::Ping),
            "pusher:pong" => Ok(Self::Pong),
            "pusher:subscribe" => {
                let data = object(data)?;
                let [channel, auth, channel_data] = members(&data, ["channel", "auth", "channel_data"])?;
                Ok(Self::Subscribe(Subscribe {
                    channel: required("data.channel", channel)?,
                    auth: optional("data.auth", auth)?,
                    channel_data: optional("data.channel_data", channel_data)?,
                }))
            }
            "pusher:unsubscribe" => {
                let data = object(data)?;
                let [channel] = members(&data, ["channel"])?;
                Ok(Self::Unsubscribe { channel: required("data.channel", channel)? })
            }
            "pusher:signin" => {
                let data = object(data)?;
                let [auth, user_data] = members(&data, ["auth", "user_data"])?;
                Ok(Self::SignIn {
                    auth: required("data.auth", auth)?,
                    user_data: required("data.user_data", user_data)?,
                })
            }
            name if name.starts_with("client-") => Ok(Self::Event(ClientEvent {
                channel: string("channel", channel.ok_or(JsonError::Missing("channel"))?)?,
                data: data.map_or(Cow::Borrowed("\"{}\""), json::data_token),
                event,
            })),
            _ => Err(InvalidMessage::UnknownEvent(event.chars().take(80).collect())),
        }
    }
}

/// `data` of a `pusher:*` event: an object, or a string that holds one.
fn object(data: Option<&RawValue>) -> Result<Cow<'_, str>, JsonError> {
    let data = data.ok_or(JsonError::Missing("data"))?;
    let text = if json::is_string(data) { string("data", data)? } else { Cow::Borrowed(data.get()) };
    json::check_depth(&text)?;
    if text.trim_start().starts_with('{') {
        Ok(text)
    } else {
        Err(JsonError::Type { member: "data", expected: "an object" })
    }
}

fn required(member: &'static str, value: Option<&RawValue>) -> Result<String, JsonError> {
    string(member, value.ok_or(JsonError::Missing(member))?).map(Cow::into_owned)
}

fn optional(member: &'static str, value: Option<&RawValue>) -> Result<Option<String>, JsonError> {
    match value {
        Some(value) if value.get() != "null" => string(member, value).map(|text| Some(text.into_owned())),
        _ => Ok(None),
    }
}

/// A member of a presence channel, as `channel_data` tells it (3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberData {
    /// Who it is; a JSON number was taken as its decimal text.
    pub user_id: UserId,
    /// Any JSON, as it was sent; absent counts as `null`.
    pub user_info: Box<str>,
}

/// A signed-in user, as `user_data` tells it (3.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserData {
    /// Who it is.
    pub id: UserId,
    /// Any JSON, as it was sent; absent counts as `null`.
    pub user_info: Box<str>,
    /// The users whose coming and going the user wants to know.
    pub watchlist: Vec<String>,
}

/// Why `channel_data` or `user_data` says nothing usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUser {
    /// It is not the JSON that it must be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The id is none.
    #[error(transparent)]
    Id(#[from] InvalidUserId),
}

impl MemberData {
    /// Reads `channel_data`.
    ///
    /// # Errors
    /// Says what is wrong with which member.
    pub fn parse(channel_data: &str) -> Result<Self, InvalidUser> {
        json::check_depth(channel_data)?;
        let [user_id, user_info] = members(channel_data, ["user_id", "user_info"])?;
        let user_id = user_id.ok_or(JsonError::Missing("user_id"))?;
        let is_number = user_id.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
        let text = if is_number { Cow::Borrowed(user_id.get()) } else { string("user_id", user_id)? };
        Ok(Self { user_id: UserId::parse(&text)?, user_info: raw_or_null(user_info) })
    }
}

impl UserData {
    /// Reads `user_data`.
    ///
    /// # Errors
    /// Says what is wrong with which member.
    pub fn parse(user_data: &str) -> Result<Self, InvalidUser> {
        json::check_depth(user_data)?;
        let [id, user_info, watchlist] = members(user_data, ["id", "user_info", "watchlist"])?;
        let id = string("id", id.ok_or(JsonError::Missing("id"))?)?;
        let watchlist = match watchlist {
            Some(watchlist) if watchlist.get() != "null" => {
                json::strings("watchlist", watchlist)?.into_iter().map(Cow::into_owned).collect()
            }
            _ => Vec::new(),
        };
        Ok(Self { id: UserId::parse(&id)?, user_info: raw_or_null(user_info), watchlist })
    }
}

fn raw_or_null(value: Option<&RawValue>) -> Box<str> {
    value.map_or("null", RawValue::get).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_may_be_an_object_or_a_string_that_holds_one() {
        for text in [
            r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":""}}"#,
            r#"{"data":"{\"channel\":\"a\",\"auth\":\"\"}","x":1,"event":"pusher:subscribe"}"#,
        ] {
            let expected = Subscribe { channel: "a".to_owned(), auth: Some(String::new()), channel_data: None };
            assert_eq!(ClientMessage::parse(text), Ok(ClientMessage::Subscribe(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            ("1", "not a JSON object"),
            (r#"{"event":5}"#, "`event` must be a string"),
            (r#"{"data":{}}"#, "`event` is missing"),
            (r#"{"event":"pusher:subscribe"}"#, "`data` is missing"),
            (r#"{"event":"pusher:subscribe","data":[]}"#, "`data` must be an object"),
            (r#"{"event":"pusher:subscribe","data":{"channel":7}}"#, "`data.channel` must be a string"),
            (r#"{"event":"client-x"}"#, "`channel` is missing"),
            (r#"{"event":"pusher:other"}"#, "unknown event \"pusher:other\""),
        ] {
            let message = ClientMessage::parse(text).unwrap_err().to_string();
            assert!(message.contains(error), "{text}: {message}");
        }
    }

    #[test]
    fn client_events_carry_a_string() {
        for (data, token) in
            [(r#","data":{"a":1}"#, r#""{\"a\":1}""#), (r#","data":"x\u0041""#, r#""x\u0041""#), ("", "\"{}\"")]
        {
            let text = format!(r#"{{"event":"client-x","channel":"private-a"{data}}}"#);
            let Ok(ClientMessage::Event(event)) = ClientMessage::parse(&text) else { panic!("{text}") };
            assert_eq!(event.data, token);
        }
    }

    #[test]
    fn members_and_users() {
        assert_eq!(MemberData::parse(r#"{"user_id":10}"#).unwrap().user_id.as_str(), "10");
        assert_eq!(&*MemberData::parse(r#"{"user_id":"a","user_info":{"n": 1}}"#).unwrap().user_info, r#"{"n": 1}"#);
        for wrong in ["{}", "[]", r#"{"user_id":""}"#, r#"{"user_id":{}}"#, r#"{"user_id":null}"#] {
            assert!(MemberData::parse(wrong).is_err(), "{wrong}");
        }
        for wrong in ["{}", r#"{"id":5}"#, r#"{"id":""}"#, r#"{"id":"a","watchlist":"b"}"#] {
            assert!(UserData::parse(wrong).is_err(), "{wrong}");
        }
    }
}
