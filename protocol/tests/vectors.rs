//! The vectors of `vectors/pusher_auth.json`, made with the official libraries, proven with Herald's functions.
//!
//! Not here: `shared_secret` of encrypted channels. It is between backend and clients; Herald never sees the master key.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use herald_protocol::client::{ClientMessage, MemberData, UserData};
use herald_protocol::signature::{channel_string, user_string};
use herald_protocol::{ChannelName, Secret, SocketId};
use serde_json::Value;

/// What the official libraries allow; an app's own limit is lower.
const LONGEST_NAME: usize = 200;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/pusher_auth.json")).unwrap()
}

fn cases<'a>(vectors: &'a Value, list: &str) -> &'a [Value] {
    let cases = vectors.pointer(list).and_then(Value::as_array).unwrap();
    assert!(!cases.is_empty(), "{list}");
    cases
}

fn text<'a>(case: &'a Value, pointer: &str) -> &'a str {
    case.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} of {case}"))
}

fn socket_id(case: &Value) -> SocketId {
    text(case, "/socket_id").parse().unwrap()
}

/// Whether `auth` is the key and the signature of `message`, made and compared as the server does it.
fn is_authorized(case: &Value, auth: &str, message: &str) -> bool {
    let secret = Secret::new(text(case, "/app_secret"));
    let (key, signature) = auth.split_once(':').unwrap();
    key == text(case, "/app_key") && secret.verifies(message.as_bytes(), signature)
}

#[test]
fn channels_are_authorized_as_the_library_does_it() {
    for case in cases(&vectors(), "/channel_cases") {
        let channel = ChannelName::parse(text(case, "/channel_name"), LONGEST_NAME).unwrap();
        assert!(channel.kind().needs_authorization(), "{channel}");
        let channel_data = case.pointer("/expect/channel_data").and_then(Value::as_str);
        let auth = text(case, "/expect/auth");
        let signed = channel_string(socket_id(case), channel.as_str(), channel_data);
        assert!(is_authorized(case, auth, &signed), "{case}");

        for (other, rule) in [
            (channel_string(SocketId::from_random(1), channel.as_str(), channel_data), "another socket"),
            (channel_string(socket_id(case), "private-other", channel_data), "another channel"),
            (channel_string(socket_id(case), channel.as_str(), Some("{}")), "other channel_data"),
        ] {
            assert!(!is_authorized(case, auth, &other), "{rule}: {case}");
        }
        if let Some(channel_data) = channel_data {
            let member = MemberData::parse(channel_data).unwrap();
            assert_eq!(member.user_id.as_str(), text(case, "/channel_data_object/user_id"));
            let info: Value = serde_json::from_str(&member.user_info).unwrap();
            assert_eq!(info, case["channel_data_object"]["user_info"]);
        }
    }
}

#[test]
fn users_are_signed_in_as_the_library_does_it() {
    for case in cases(&vectors(), "/user_cases") {
        let (auth, user_data) = (text(case, "/expect/auth"), text(case, "/expect/user_data"));
        assert!(is_authorized(case, auth, &user_string(socket_id(case), user_data)), "{case}");
        assert!(!is_authorized(case, auth, &user_string(SocketId::from_random(1), user_data)), "{case}");

        let user = UserData::parse(user_data).unwrap();
        assert_eq!(user.id.as_str(), text(case, "/user_data_object/id"));
        assert_eq!(serde_json::from_str::<Value>(&user.user_info).unwrap(), case["user_data_object"]["user_info"]);
        assert_eq!(Value::from(user.watchlist), case["user_data_object"]["watchlist"]);
    }
}

#[test]
fn what_the_library_refuses_is_refused() {
    let vectors = vectors();
    for case in cases(&vectors, "/validation_cases") {
        let socket_id = text(case, "/socket_id").parse::<SocketId>();
        let channel = ChannelName::parse(text(case, "/channel_name"), LONGEST_NAME);
        assert_eq!(socket_id.is_ok() && channel.is_ok(), case["library_accepts"], "{case}");
    }
    for case in cases(&vectors, "/user_validation_cases") {
        let user = UserData::parse(&case["user_data_object"].to_string());
        assert_eq!(user.is_ok(), case["library_accepts"], "{case}");
    }
}

#[test]
fn what_pusher_js_sends_is_understood() {
    let vectors = vectors();
    let requests = cases(&vectors, "/client_requests/requests");
    let mut socket_ids = Vec::new();
    for request in requests {
        for (name, value) in form_urlencoded::parse(text(request, "/body").as_bytes()) {
            match name.as_ref() {
                "socket_id" => socket_ids.push(value.parse::<SocketId>().unwrap()),
                "channel_name" => assert!(ChannelName::parse(&value, LONGEST_NAME).is_ok(), "{value}"),
                _ => {}
            }
        }
    }
    assert_eq!(socket_ids.len(), requests.len());
    let socket_id = socket_ids[0];

    let key_pair = &vectors["channel_cases"][0];
    for frame in cases(&vectors, "/client_requests/websocket_frames_sent") {
        match ClientMessage::parse(&frame.to_string()) {
            Ok(ClientMessage::SignIn { auth, user_data }) => {
                assert!(is_authorized(key_pair, &auth, &user_string(socket_id, &user_data)), "{frame}");
                assert!(UserData::parse(&user_data).is_ok(), "{frame}");
            }
            Ok(ClientMessage::Subscribe(wish)) => {
                let channel = ChannelName::parse(&wish.channel, LONGEST_NAME).unwrap();
                let auth = wish.auth.unwrap();
                if channel.kind().needs_authorization() {
                    let signed = channel_string(socket_id, channel.as_str(), wish.channel_data.as_deref());
                    assert!(is_authorized(key_pair, &auth, &signed), "{frame}");
                } else {
                    assert_eq!(auth, "", "{frame}");
                }
            }
            other => panic!("{frame}: {other:?}"),
        }
    }
}
