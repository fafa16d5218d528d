//! What holds for every input, not only for those somebody thought of: what is written is read back as it was, and nothing that
//! comes from outside makes a parser panic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::fmt::Write as _;
use std::time::Duration;

use herald_protocol::client::{ClientMessage, InvalidMessage, MemberData, Subscribe, UserData};
use herald_protocol::json::{JsonError, MAX_DEPTH, check_depth, data_token, decoded_len, members, quoted};
use herald_protocol::server::{self, SubscriptionError};
use herald_protocol::signature::{channel_string, request_string, user_string};
use herald_protocol::webhook::{self, WebhookEvent, WebhookKind};
use herald_protocol::{ChannelKind, ChannelName, Secret, SocketId, UserId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Text of any characters, those that JSON escapes and those beyond the first plane included.
fn any_text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        6 => any::<char>(),
        2 => select(vec!['"', '\\', '/', '\0', '\n', '\u{1f}', '\u{7f}', '\u{2028}', '\u{ffff}', '😀']),
        2 => prop::char::range(' ', '~'),
    ];
    vec(character, 0..40).prop_map(String::from_iter)
}

fn user_id() -> impl Strategy<Value = UserId> {
    any_text().prop_map(|text| UserId::parse(&format!("u{}", text.replace(char::is_control, ""))).unwrap())
}

/// A channel's name with the kind that its prefix makes of it.
fn named_kind() -> impl Strategy<Value = (String, ChannelKind)> {
    let prefixes = vec![
        ("p", ChannelKind::Public),
        ("cache-", ChannelKind::Cache),
        ("private-", ChannelKind::Private),
        ("private-cache-", ChannelKind::PrivateCache),
        ("private-encrypted-", ChannelKind::PrivateEncrypted),
        ("private-encrypted-cache-", ChannelKind::PrivateEncryptedCache),
        ("presence-", ChannelKind::Presence),
        ("presence-cache-", ChannelKind::PresenceCache),
    ];
    // A capital behind the prefix, so that it does not grow into a longer one.
    let by_prefix = (select(prefixes), "[A-Z][A-Za-z0-9_=@,.;-]{0,139}")
        .prop_map(|((prefix, kind), rest)| (prefix.to_owned() + &rest, kind));
    let of_user = user_id().prop_map(|user| (format!("#server-to-user-{user}"), ChannelKind::ServerToUser));
    prop_oneof![4 => by_prefix, 1 => of_user]
}

fn channel() -> impl Strategy<Value = ChannelName> {
    named_kind().prop_map(|(name, _)| ChannelName::parse(&name, 164).unwrap())
}

fn socket_id() -> impl Strategy<Value = SocketId> {
    any::<u64>().prop_map(SocketId::from_random)
}

/// Any JSON, a few levels deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((any_text(), inner), 0..5).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A JSON string token as any encoder may have written it, and the text behind it; `None` where half a surrogate pair stands alone.
fn any_token() -> impl Strategy<Value = (String, Option<String>)> {
    #[derive(Clone, Debug)]
    enum Piece {
        Plain(char),
        Escaped(char),
        Lone(u16),
    }
    let character = || any_text().prop_map(|text| text.chars().next().unwrap_or('"'));
    let piece = prop_oneof![
        10 => character().prop_map(Piece::Plain),
        10 => character().prop_map(Piece::Escaped),
        1 => (0xd800_u16..0xe000).prop_map(Piece::Lone),
    ];
    vec(piece, 0..30).prop_map(|pieces| {
        let mut token = "\"".to_owned();
        for piece in &pieces {
            match *piece {
                Piece::Plain(character) => {
                    let quoted = quoted(character.encode_utf8(&mut [0; 4]));
                    token.push_str(quoted.get(1..quoted.len() - 1).unwrap());
                }
                Piece::Escaped('/') => token.push_str("\\/"),
                Piece::Escaped(character) => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        write!(token, "\\u{unit:04X}").unwrap();
                    }
                }
                Piece::Lone(unit) => write!(token, "\\u{unit:04x}").unwrap(),
            }
        }
        token.push('"');
        let text = serde_json::from_str::<String>(&token).ok();
        (token, text)
    })
}

/// What arrives when a client, or whoever pretends to be one, sends something: noise, or a valid message with some of it changed.
fn hostile() -> impl Strategy<Value = String> {
    let valid = select(vec![
        r#"{"event":"pusher:subscribe","data":{"channel":"presence-room","auth":"k:00","channel_data":"{\"user_id\":\"7\"}"}}"#,
        r#"{"event":"pusher:subscribe","data":"{\"channel\":\"a\"}"}"#,
        r#"{"event":"pusher:unsubscribe","data":{"channel":"a"}}"#,
        r#"{"event":"pusher:signin","data":{"auth":"k:00","user_data":"{\"id\":\"7\",\"watchlist\":[\"8\"]}"}}"#,
        r#"{"event":"client-x","channel":"private-a","data":{"n":[1e21,-0.5,null,"\ud83d\ude00"]}}"#,
        r#"{"event":"pusher:ping","data":{}}"#,
        r#"{"user_id":"7","user_info":{"name":"A"}}"#,
        r#"{"id":"7","user_info":null,"watchlist":["8","9"]}"#,
        "#server-to-user-7",
        "private-encrypted-cache-a",
        "583992.91827364",
    ]);
    let patch = select(vec![
        "", "\"", "\\", "{", "}", "[", "]", ",", ":", "\\u", "\\ud800", "null", "1e999", "\0", "é", "😀", ".",
    ]);
    let changes = vec((any::<prop::sample::Index>(), 0_usize..4, patch), 0..5);
    let mutated = (valid, changes).prop_map(|(valid, changes)| {
        let mut characters: Vec<char> = valid.chars().collect();
        for (at, removed, inserted) in changes {
            let at = at.index(characters.len() + 1);
            let until = (at + removed).min(characters.len());
            characters.splice(at..until, inserted.chars());
        }
        String::from_iter(characters)
    });
    let noise = vec(any::<u8>(), 0..200).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let brackets = vec(select(vec!["{", "[", "}", "]", "\"a\":", "\"", "\\", ",", "1"]), 0..200);
    prop_oneof![4 => mutated, 1 => noise, 1 => any_text(), 1 => brackets.prop_map(|parts| parts.concat())]
}

fn read(message: &str) -> Value {
    serde_json::from_str(message).unwrap_or_else(|error| panic!("{error}: {message}"))
}

/// The message's `data`, which must be a string of JSON, decoded twice.
fn data(message: &Value) -> Value {
    let text = message["data"].as_str().unwrap_or_else(|| panic!("`data` is no string: {message}"));
    read(text)
}

/// `value` in `depth` arrays.
fn nested(depth: usize, value: &str) -> String {
    "[".repeat(depth) + value + &"]".repeat(depth)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn channel_names_are_shown_as_they_were_read((name, kind) in named_kind()) {
        let channel = ChannelName::parse(&name, 164).unwrap();
        prop_assert_eq!(channel.to_string(), name.as_str());
        prop_assert_eq!(channel.kind(), kind);
        prop_assert_eq!(channel.user(), name.strip_prefix("#server-to-user-"));
    }

    #[test]
    fn a_channel_name_over_the_limit_is_refused((name, kind) in named_kind(), limit in 0_usize..200) {
        let fits = name.len() <= limit || kind == ChannelKind::ServerToUser;
        prop_assert_eq!(ChannelName::parse(&name, limit).is_ok(), fits);
    }

    #[test]
    fn socket_ids_are_read_as_they_are_shown(bits in any::<u64>(), (first, second) in any::<(u64, u64)>()) {
        let id = SocketId::from_random(bits);
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        let text = format!("{first}.{second}");
        prop_assert_eq!(text.parse::<SocketId>().unwrap().to_string(), text);
    }

    #[test]
    fn different_random_bits_are_different_sockets(one in any::<u64>(), other in any::<u64>()) {
        prop_assert_eq!(one == other, SocketId::from_random(one) == SocketId::from_random(other));
    }

    #[test]
    fn what_the_server_says_of_itself_is_read_back(
        id in socket_id(), seconds in 1_u64..100_000, code in any::<Option<u16>>(), message in any_text(),
        channel in prop::option::of(any_text()), user_data in any_text(),
    ) {
        let hello = read(&server::connection_established(id, Duration::from_secs(seconds)));
        prop_assert_eq!(&hello["event"], "pusher:connection_established");
        prop_assert_eq!(data(&hello), json!({ "socket_id": id.to_string(), "activity_timeout": seconds }));

        let error = read(&server::error(code, &message, channel.as_deref()));
        prop_assert_eq!(&error["event"], "pusher:error");
        prop_assert_eq!(&error["data"], &json!({ "code": code, "message": message }));
        prop_assert_eq!(error.get("channel").and_then(Value::as_str), channel.as_deref());

        let success = read(&server::signin_success(&user_data));
        prop_assert_eq!(&success["event"], "pusher:signin_success");
        prop_assert_eq!(data(&success), json!({ "user_data": user_data }));
    }

    #[test]
    fn what_the_server_says_of_a_channel_is_read_back(
        channel in channel(), members in vec((user_id(), any_json()), 0..6), user in user_id(), info in any_json(),
        count in any::<u32>(),
    ) {
        let name = channel.as_str();
        let texts: Vec<_> = members.iter().map(|(user, info)| (user, info.to_string())).collect();
        let presence = server::presence(texts.iter().map(|(user, info)| (*user, info.as_str())));
        let succeeded = read(&server::subscription_succeeded(&channel, &presence));
        prop_assert_eq!(&succeeded["event"], "pusher_internal:subscription_succeeded");
        prop_assert_eq!(&succeeded["channel"], name);
        let ids: Vec<_> = members.iter().map(|(user, _)| user.as_str()).collect();
        let hash: serde_json::Map<_, _> = members.iter().map(|(user, info)| (user.to_string(), info.clone())).collect();
        prop_assert_eq!(data(&succeeded), json!({ "presence": { "count": ids.len(), "ids": ids, "hash": hash } }));

        for (message, event, expected) in [
            (
                server::member_added(&channel, &user, &info.to_string()),
                "pusher_internal:member_added",
                json!({ "user_id": user.as_str(), "user_info": info }),
            ),
            (
                server::member_removed(&channel, &user),
                "pusher_internal:member_removed",
                json!({ "user_id": user.as_str() }),
            ),
            (
                server::subscription_count(&channel, count as usize),
                "pusher_internal:subscription_count",
                json!({ "subscription_count": count }),
            ),
        ] {
            let message = read(&message);
            prop_assert_eq!(&message["event"], event);
            prop_assert_eq!(&message["channel"], name);
            prop_assert_eq!(data(&message), expected);
        }
        prop_assert_eq!(read(&server::cache_miss(&channel)), json!({ "event": "pusher:cache_miss", "channel": name }));
    }

    #[test]
    fn a_failed_subscription_says_which_and_why(
        channel in any_text(), message in any_text(),
        (error, kind, status) in select(vec![
            (SubscriptionError::Auth, "AuthError", 401),
            (SubscriptionError::InvalidChannel, "InvalidChannel", 400),
            (SubscriptionError::NameTooLong, "LimitReached", 4009),
            (SubscriptionError::Full, "LimitReached", 4100),
            (SubscriptionError::UserInfoTooLarge, "LimitReached", 4301),
        ]),
    ) {
        let failed = read(&server::subscription_error(&channel, error, &message));
        prop_assert_eq!(&failed["event"], "pusher:subscription_error");
        prop_assert_eq!(&failed["channel"], &channel);
        prop_assert_eq!(data(&failed), json!({ "type": kind, "error": message, "status": status }));
    }

    #[test]
    fn watched_users_are_read_back(online in vec(user_id(), 0..4), offline in vec(user_id(), 0..4)) {
        let expected: Vec<_> = [("online", &online), ("offline", &offline)]
            .into_iter()
            .filter(|(_, users)| !users.is_empty())
            .map(|(name, users)| json!({ "name": name, "user_ids": users.iter().map(UserId::as_str).collect::<Vec<_>>() }))
            .collect();
        match server::watchlist_events(&online, &offline) {
            Some(message) => prop_assert_eq!(data(&read(&message)), json!({ "events": expected })),
            None => prop_assert!(expected.is_empty()),
        }
    }

    #[test]
    fn data_is_copied_verbatim(
        event in any_text(), channel in channel(), (token, text) in any_token(), user in prop::option::of(user_id()), id in socket_id(),
    ) {
        let webhook = WebhookEvent::ClientEvent {
            channel: channel.clone(),
            event: event.clone(),
            data: token.clone(),
            socket_id: id,
            user_id: user.clone(),
        };
        for message in [
            server::event(&event, &channel, &token),
            server::client_event(&event, &channel, &token, user.as_ref()),
            webhook.json(),
        ] {
            let [name, data] = members(&message, ["event", "data"]).unwrap();
            prop_assert_eq!(data.unwrap().get(), &token);
            prop_assert_eq!(read(name.unwrap().get()), event.as_str());
            if let Some(text) = &text {
                let message = read(&message);
                prop_assert_eq!(&message["channel"], channel.as_str());
                prop_assert_eq!(&message["data"], text);
            }
        }
        let sender = server::client_event(&event, &channel, &token, user.as_ref());
        let [sender] = members(&sender, ["user_id"]).unwrap();
        prop_assert_eq!(sender.map(|sender| read(sender.get())), user.map(|user| json!(user.as_str())));
    }

    #[test]
    fn the_decoded_length_is_that_of_the_decoded_string((token, text) in any_token(), plain in any_text()) {
        prop_assert_eq!(decoded_len(&quoted(&plain)), plain.len());
        if let Some(text) = text {
            prop_assert_eq!(decoded_len(&token), text.len(), "{}", token);
        }
    }

    #[test]
    fn client_events_arrive_as_they_were_sent(name in any_text(), channel in any_text(), (token, _) in any_token()) {
        let name = format!("client-{name}");
        let text = format!(r#"{{"event":{},"channel":{},"data":{token}}}"#, quoted(&name), quoted(&channel));
        let Ok(ClientMessage::Event(event)) = ClientMessage::parse(&text) else { panic!("{text}") };
        prop_assert_eq!((event.event.as_ref(), event.channel.as_ref(), event.data.as_ref()), (&*name, &*channel, &*token));
    }

    #[test]
    fn data_that_is_no_string_travels_as_its_json_text(value in any_json()) {
        let text = json!({ "event": "client-x", "channel": "private-a", "data": value }).to_string();
        let Ok(ClientMessage::Event(event)) = ClientMessage::parse(&text) else { panic!("{text}") };
        let sent = read(&event.data);
        prop_assert_eq!(if value.is_string() { sent } else { read(sent.as_str().unwrap()) }, value);
    }

    #[test]
    fn of_duplicates_the_last_counts(channels in vec(any_text(), 1..5), auths in vec(any_text(), 1..5), users in vec(user_id(), 1..5)) {
        let repeat = |name: &str, values: Vec<&str>| -> String {
            values.iter().map(|value| format!("{}:{}", quoted(name), quoted(value))).collect::<Vec<_>>().join(",")
        };
        let object = format!(
            "{},{}",
            repeat("channel", channels.iter().map(String::as_str).collect()),
            repeat("auth", auths.iter().map(String::as_str).collect())
        );
        let text = format!(r#"{{"event":"client-x","data":[],"event":"pusher:subscribe","data":{{{object}}}}}"#);
        let expected =
            Subscribe { channel: channels.last().unwrap().clone(), auth: auths.last().cloned(), channel_data: None };
        prop_assert_eq!(ClientMessage::parse(&text), Ok(ClientMessage::Subscribe(expected)));

        let ids: Vec<_> = users.iter().map(UserId::as_str).collect();
        let member = MemberData::parse(&format!("{{{}}}", repeat("user_id", ids.clone()))).unwrap();
        prop_assert_eq!(Some(&member.user_id), users.last());
        let user = UserData::parse(&format!("{{{}}}", repeat("id", ids))).unwrap();
        prop_assert_eq!(Some(&user.id), users.last());
    }

    #[test]
    fn nesting_is_bounded(depth in 0..2 * MAX_DEPTH) {
        let fits = depth < MAX_DEPTH;
        let too_deep = InvalidMessage::Json(JsonError::TooDeep);
        let object = format!(r#"{{"channel":"a","x":{}}}"#, nested(depth, "1"));
        prop_assert_eq!(check_depth(&object).is_ok(), fits);
        for text in [
            format!(r#"{{"event":"client-x","channel":"a","data":{}}}"#, nested(depth, "1")),
            format!(r#"{{"event":"pusher:subscribe","data":{}}}"#, quoted(&object)),
        ] {
            let parsed = ClientMessage::parse(&text);
            prop_assert_eq!(parsed.is_ok(), fits, "{}", text);
            prop_assert!(fits || parsed == Err(too_deep.clone()));
        }
        let in_a_string = format!(r#"{{"event":"client-x","channel":"a","data":{}}}"#, quoted(&nested(depth, "\"\\")));
        prop_assert!(ClientMessage::parse(&in_a_string).is_ok());
        let info = nested(depth, "1");
        prop_assert_eq!(MemberData::parse(&format!(r#"{{"user_id":"a","user_info":{info}}}"#)).is_ok(), fits);
        prop_assert_eq!(UserData::parse(&format!(r#"{{"id":"a","user_info":{info}}}"#)).is_ok(), fits);
    }

    #[test]
    fn members_and_users_are_read_back(id in user_id(), info in any_json(), watchlist in vec(any_text(), 0..5)) {
        let member = MemberData::parse(&json!({ "user_id": id.as_str(), "user_info": info }).to_string()).unwrap();
        prop_assert_eq!(&member.user_id, &id);
        prop_assert_eq!(read(&member.user_info), info.clone());
        let user = json!({ "id": id.as_str(), "user_info": info, "watchlist": watchlist }).to_string();
        let user = UserData::parse(&user).unwrap();
        prop_assert_eq!(user.id, id);
        prop_assert_eq!(read(&user.user_info), info);
        prop_assert_eq!(user.watchlist, watchlist);
    }

    #[test]
    fn nothing_from_outside_makes_a_parser_panic(text in hostile(), more in hostile(), limit in 0_usize..300) {
        // Each result is of no interest: that there is one is the property.
        let message = ClientMessage::parse(&text);
        prop_assert!(!matches!(&message, Err(invalid) if invalid.to_string().is_empty()));
        drop((MemberData::parse(&text), UserData::parse(&text), UserId::parse(&text)));
        drop((text.parse::<SocketId>(), text.parse::<WebhookKind>(), ChannelName::parse(&text, limit)));
        drop((check_depth(&text), decoded_len(&text), members(&text, ["event", "data"])));
        if let Ok(raw) = serde_json::from_str::<Box<RawValue>>(&text) {
            prop_assert!(serde_json::from_str::<&RawValue>(&data_token(&raw)).is_ok());
        }
        let parameters = [(text.as_str(), more.as_str()), (more.as_str(), text.as_str())];
let signed = request_string(&text, &more, parameters);
        prop_assert!(signed.starts_with(&(text + "\n" + &more + "\n")));
    }

    #[test]
    fn an_accepted_message_was_json(text in hostile()) {
        if ClientMessage::parse(&text).is_ok() {
            prop_assert!(serde_json::from_str::<&RawValue>(&text).is_ok(), "{}", text);
        }
    }

    #[test]
    fn what_was_signed_is_verified_and_nothing_else(
        secret in any_text(), message in any_text(), other in any_text(), at in 0_usize..64,
    ) {
        let secret = Secret::new(secret);
        let signature = secret.sign(message.as_bytes());
        prop_assert!(secret.verifies(message.as_bytes(), &signature));
        prop_assert_eq!(secret.verifies(other.as_bytes(), &signature), other == message);
        let mut changed = signature.clone().into_bytes();
        changed[at] ^= 1;
        prop_assert!(!secret.verifies(message.as_bytes(), &String::from_utf8(changed).unwrap()));
        prop_assert!(!secret.verifies(message.as_bytes(), signature.get(..at).unwrap()));
        let upper = signature.to_ascii_uppercase();
        prop_assert_eq!(secret.verifies(message.as_bytes(), &upper), upper == signature);
    }

    #[test]
    fn a_signature_is_bound_to_its_socket_and_purpose(one in socket_id(), other in socket_id(), name in channel(), text in any_text()) {
        prop_assert_eq!(channel_string(one, name.as_str(), Some(&text)) == channel_string(other, name.as_str(), Some(&text)), one == other);
        prop_assert_ne!(channel_string(one, name.as_str(), Some(&text)), channel_string(one, name.as_str(), None));
        prop_assert_ne!(channel_string(one, name.as_str(), Some(&text)), user_string(one, &text));
    }

    #[test]
    fn the_order_and_case_of_parameters_do_not_matter(
        parameters in prop::collection::btree_map("[a-z_]{1,8}", any_text(), 0..6), signature in any_text(),
    ) {
        let pairs: Vec<_> = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let signed = request_string("GET", "/x", pairs.iter().copied());
        let lines: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        prop_assert_eq!(&signed, &format!("GET\n/x\n{}", lines.join("&")));
        let upper: Vec<_> = pairs.iter().rev().map(|(name, value)| (name.to_ascii_uppercase(), *value)).collect();
        let with_signature = [("auth_signature", signature.as_str())];
        let reversed = upper.iter().map(|(name, value)| (name.as_str(), *value)).chain(with_signature);
        prop_assert_eq!(request_string("GET", "/x", reversed), signed);
    }

    #[test]
    fn webhooks_are_read_back(
        channel in channel(), user in user_id(), event in any_text(), text in any_text(), id in socket_id(), count in any::<u32>(),
        time in any::<u64>(),
    ) {
        let name = channel.as_str();
        let cases = [
            (WebhookEvent::ChannelOccupied { channel: channel.clone() }, json!({ "name": "channel_occupied", "channel": name })),
            (WebhookEvent::ChannelVacated { channel: channel.clone() }, json!({ "name": "channel_vacated", "channel": name })),
            (
                WebhookEvent::MemberAdded { channel: channel.clone(), user_id: user.clone() },
                json!({ "name": "member_added", "channel": name, "user_id": user.as_str() }),
            ),
            (
                WebhookEvent::MemberRemoved { channel: channel.clone(), user_id: user.clone() },
                json!({ "name": "member_removed", "channel": name, "user_id": user.as_str() }),
            ),
            (
                WebhookEvent::ClientEvent {
                    channel: channel.clone(),
                    event: event.clone(),
                    data: quoted(&text),
                    socket_id: id,
                    user_id: Some(user.clone()),
                },
                json!({
                    "name": "client_event", "channel": name, "event": event, "data": text, "socket_id": id.to_string(),
                    "user_id": user.as_str(),
                }),
            ),
            (WebhookEvent::CacheMiss { channel: channel.clone() }, json!({ "name": "cache_miss", "channel": name })),
            (
                WebhookEvent::SubscriptionCount { channel: channel.clone(), count: count as usize },
                json!({ "name": "subscription_count", "channel": name, "subscription_count": count }),
            ),
        ];
        let events: Vec<_> = cases.iter().map(|(event, _)| event.json()).collect();
        let expected: Vec<_> = cases.iter().map(|(_, expected)| expected).collect();
        prop_assert_eq!(read(&webhook::body(time, &events)), json!({ "time_ms": time, "events": expected }));
    }
}
