//! Messages (section 3) and frames (section 2, RFC 6455): what is no message, what is no frame, and that nobody else is harmed by it.

use serde_json::json;

use crate::support::{Client, Event, Frame, Herald};

/// What a message may have: the limit of an event's data, 10,240 bytes, and 16 KiB.
const LARGEST: usize = 10_240 + 16 * 1024;

/// Two members of a room who have seen each other.
async fn pair(herald: &Herald) -> (Client, Client) {
    let [ann, bob] = herald.members("presence-room", ["ann", "bob"]).await;
    (ann, bob)
}

#[tokio::test]
async fn an_invalid_message_is_told_what_is_wrong_and_harms_nobody() {
    let herald = Herald::start("").await;
    let (mut ann, mut bob) = pair(&herald).await;
    let deep =
        |levels: usize| format!(r#"{{"event":"pusher:ping","data":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    for (text, says) in [
        ("", "JSON"),
        (" ", "JSON"),
        ("hello", "JSON"),
        ("{", "JSON"),
        ("[]", "object"),
        ("1", "object"),
        ("null", "object"),
        (r#""pusher:ping""#, "object"),
        (r#"{"event":"pusher:ping"} {}"#, "JSON"),
        ("{}", "`event` is missing"),
        (r#"{"data":{}}"#, "`event` is missing"),
        (r#"{"event":null}"#, "`event` must be a string"),
        (r#"{"event":5}"#, "`event` must be a string"),
        (r#"{"event":["pusher:ping"]}"#, "`event` must be a string"),
        (r#"{"event":""}"#, "unknown event"),
        (r#"{"event":"pusher:nonsense","data":{}}"#, "pusher:nonsense"),
        (
            r#"{"event":"pusher_internal:member_added","channel":"presence-room","data":{}}"#,
            "pusher_internal:member_added",
        ),
        (r#"{"event":"hello","channel":"presence-room","data":{}}"#, "hello"),
        (r#"{"event":"Client-x","channel":"presence-room","data":{}}"#, "Client-x"),
        (r#"{"event":"pusher:subscribe"}"#, "`data` is missing"),
        (r#"{"event":"pusher:subscribe","data":null}"#, "`data` must be an object"),
        (r#"{"event":"pusher:subscribe","data":[]}"#, "`data` must be an object"),
        (r#"{"event":"pusher:subscribe","data":"news"}"#, "`data` must be an object"),
        (r#"{"event":"pusher:subscribe","data":{}}"#, "`data.channel` is missing"),
        (r#"{"event":"pusher:subscribe","data":{"channel":5}}"#, "`data.channel` must be a string"),
        (r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":5}}"#, "`data.auth` must be a string"),
        (
            r#"{"event":"pusher:subscribe","data":{"channel":"a","channel_data":{}}}"#,
            "`data.channel_data` must be a string",
        ),
        (r#"{"event":"pusher:unsubscribe","data":{}}"#, "`data.channel` is missing"),
        (r#"{"event":"pusher:signin","data":{}}"#, "`data.auth` is missing"),
        (r#"{"event":"pusher:signin","data":{"auth":"a:b"}}"#, "`data.user_data` is missing"),
        (r#"{"event":"client-x","data":{}}"#, "`channel` is missing"),
        (r#"{"event":"client-x","channel":7}"#, "`channel` must be a string"),
        (&deep(64), "deeper than 64"),
        (&deep(10_000), "deeper than 64"),
        (r#"{"event":"pusher:\ud800"}"#, "`event`"),
        ("{\"event\":\"pusher:\u{0}\"}", "JSON"),
    ] {
        let mut client = herald.connect().await;
        client.send_text(text).await;
        let error = client.expect_error(None).await;
        assert!(error.text.contains(r#""code":null"#), "{}", error.text);
        assert!(error.error().1.contains(says), "{text} must be told {says}: {}", error.text);
        client.settle().await; // it lives
    }
    ann.settle().await; // and nothing of it reached anybody
    bob.settle().await;
    let mut client = herald.connect().await;
    client.send_text(&deep(63)).await;
    client.expect("pusher:pong").await;
}

#[tokio::test]
async fn a_flood_of_invalid_messages_ends_the_connection() {
    let herald = Herald::start("").await;
    let (mut flooding, mut other) = (herald.connect().await, herald.connect().await);
    for _ in 0..19 {
        flooding.send_text("nonsense").await;
        flooding.expect_error(None).await;
    }
    flooding.settle().await; // nineteen are borne
    flooding.send_text("nonsense").await;
    let reason = flooding.expect_close(4100).await;
    assert!(reason.contains("invalid"), "{reason}");
    other.settle().await;
}

#[tokio::test]
async fn what_clients_may_not_say_reaches_nobody() {
    let herald = Herald::start("").await;
    let (mut ann, mut bob) = pair(&herald).await;
    for event in ["hello", "pusher:hello", "pusher:error", "pusher_internal:member_added", "clientx", "message"] {
        ann.send(json!({ "event": event, "channel": "presence-room", "data": {} })).await;
        ann.expect_error(None).await;
    }
    ann.send(json!({ "event": "client-hello", "channel": "presence-room", "data": {} })).await;
    assert_eq!(bob.next().await.event, "client-hello", "the first that reaches the other is the one that may");
}

#[tokio::test]
async fn members_may_stand_in_any_order_and_the_last_of_duplicates_counts() {
    let herald = Herald::start("").await;
    for (text, channel) in [
        (r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":""}}"#, "a"),
        (r#"{"data":{"auth":null,"x":[1,{"y":2}],"channel":"b"},"more":1e999,"event":"pusher:subscribe"}"#, "b"),
        (r#"{"event":"pusher:subscribe","data":"{\"channel\":\"c\"}"}"#, "c"),
        (
            r#"{"event":"pusher:ping","event":"pusher:subscribe","data":{"channel":"x"},"data":{"channel":"y","channel":"d"}}"#,
            "d",
        ),
        (" {\n\t\"event\" : \"pusher:subscribe\" , \"data\" : { \"channel\" : \"e\" } } \r\n", "e"),
        (r#"{"\u0065vent":"pusher:s\u0075bscribe","data":{"channel":"\u0066"}}"#, "f"),
        (
            r#"{"event":"pusher:subscribe","data":{"channel":"g"},"n":-12345678901234567890123456789012345678901234567890.5e-400}"#,
            "g",
        ),
        (r#"{"event":"pusher:subscribe","data":{"channel":"h","x":"\ud800\u0000"}}"#, "h"),
    ] {
        let mut client = herald.connect().await;
        client.send_text(text).await;
        client.expect_succeeded(channel).await;
        client.settle().await;
    }
}

#[tokio::test]
async fn data_as_a_string_is_accepted_in_every_message() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    for channel in ["news", "private-news"] {
        let mut message = client.subscription(channel, None);
        message["data"] = message["data"].to_string().into();
        client.send(message).await;
        client.expect_succeeded(channel).await;
    }
    client.send(json!({ "event": "pusher:unsubscribe", "data": r#"{"channel":"news"}"# })).await;
    let user_data = r#"{"id":"ann"}"#;
    let auth = client.app.authenticate(client.socket_id(), user_data);
    let data = json!({ "auth": auth, "user_data": user_data }).to_string();
    client.send(json!({ "event": "pusher:signin", "data": data })).await;
    client.expect("pusher:signin_success").await;
    herald.trigger("news", "e", "left").await;
    herald.trigger("private-news", "e", "still there").await;
    assert_eq!(client.expect("e").await.data(), "still there");
}

#[tokio::test]
async fn odd_text_in_names_is_refused_and_in_data_travels() {
    let herald = Herald::start("").await;
    let (mut ann, mut bob) = pair(&herald).await;
    for channel in ["a\\u0000", "\\ud83d\\ude00", "a\\nb"] {
        ann.send_text(&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#)).await;
        let event = ann.expect("pusher:subscription_error").await;
        assert_eq!(event.json()["status"], 400, "{}", event.text);
    }
    for token in [r#""\ud800""#, r#""\u0000""#, r#""1e999""#] {
        ann.send_text(&format!(r#"{{"event":"client-x","channel":"presence-room","data":{token}}}"#)).await;
        let Some(frame) = bob.next_frame().await else { panic!("{token}") };
        let text = String::from_utf8(frame.payload).unwrap();
        assert!(text.contains(&format!(r#""data":{token}"#)), "{token}: {text}");
    }
    ann.settle().await;
}

#[tokio::test]
async fn a_message_may_come_in_fragments_with_control_frames_between() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    client.send_frame(&Frame::part(Frame::TEXT, r#"{"event":"pusher:"#)).await;
    client.send_frame(&Frame::new(Frame::PING, "between")).await;
    assert_eq!(client.next_frame().await, Some(Frame::new(Frame::PONG, "between")));
    client.send_frame(&Frame::part(Frame::CONTINUATION, "")).await;
    client.send_frame(&Frame::new(Frame::CONTINUATION, r#"ping"}"#)).await;
    client.expect("pusher:pong").await;

    let (mut ann, mut bob) = pair(&herald).await;
    let text = r#"{"event":"client-x","channel":"presence-room","data":"ä😀"}"#.as_bytes();
    for (position, byte) in text.iter().enumerate() {
        let opcode = if position == 0 { Frame::TEXT } else { Frame::CONTINUATION };
        ann.send_frame(&Frame { fin: position + 1 == text.len(), opcode, payload: vec![*byte] }).await;
    }
    assert_eq!(bob.expect("client-x").await.data(), "ä😀", "fragments end within characters");
}

#[tokio::test]
async fn frames_may_come_byte_by_byte_or_many_at_once() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    let ping = Frame::new(Frame::TEXT, r#"{"event":"pusher:ping"}"#).masked();
    for byte in &ping {
        client.send_bytes(&[*byte]).await;
    }
    client.expect("pusher:pong").await;
    client.send_bytes(&ping.repeat(500)).await;
    for _ in 0..500 {
        client.expect("pusher:pong").await;
    }
}

/// A ping of this many bytes.
fn padded(size: usize) -> String {
    let text = r#"{"event":"pusher:ping","data":""}"#;
    text.replace(r#""""#, &format!(r#""{}""#, "x".repeat(size - text.len())))
}

#[tokio::test]
async fn the_largest_message_passes_and_one_byte_more_closes() {
    let herald = Herald::start("").await;
    let (mut ann, mut bob) = pair(&herald).await;
    ann.send_text(&padded(LARGEST)).await;
    ann.expect("pusher:pong").await;
    let text = padded(LARGEST);
    let (first, second) = text.split_at(20_000);
    ann.send_frame(&Frame::part(Frame::TEXT, first)).await;
    ann.send_frame(&Frame::new(Frame::CONTINUATION, second)).await;
    ann.expect("pusher:pong").await;

    let mut whole = herald.connect().await;
    whole.send_text(&padded(LARGEST + 1)).await;
    whole.expect_close(1009).await;

    let mut announced = herald.connect().await;
    announced.send_bytes(&[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]).await;
    announced.expect_close(1009).await;

    let mut parts = herald.connect().await;
    parts.send_frame(&Frame::part(Frame::TEXT, first)).await;
    parts.send_frame(&Frame::part(Frame::CONTINUATION, second)).await;
    parts.send_frame(&Frame::new(Frame::CONTINUATION, "x")).await;
    parts.expect_close(1009).await;

    ann.settle().await;
    bob.settle().await;
}

#[tokio::test]
async fn the_largest_message_follows_the_limit_of_the_data() {
    let herald = Herald::start("[[apps]]\n[apps.limits]\nevent_data = 100000").await;
    let mut client = herald.connect().await;
    client.send_text(&padded(100_000 + 16 * 1024)).await;
    client.expect("pusher:pong").await;
    client.send_text(&padded(100_000 + 16 * 1024 + 1)).await;
    client.expect_close(1009).await;
}

#[tokio::test]
async fn what_breaks_the_protocol_of_frames_closes_with_its_code() {
    let herald = Herald::start("").await;
    let (mut ann, mut bob) = pair(&herald).await;
    let masked = |frame: Frame| frame.masked();
    let first_byte = |byte: u8| {
        let mut frame = Frame::new(Frame::TEXT, r#"{"event":"pusher:ping"}"#).masked();
        frame[0] = byte;
        frame
    };
    for (bytes, code, rule) in [
        (masked(Frame::new(Frame::BINARY, "{}")), 1003, "binary"),
        (masked(Frame::new(Frame::BINARY, "")), 1003, "binary, empty"),
        (masked(Frame::new(Frame::TEXT, [b'"', 0xff, b'"'])), 1007, "a byte that UTF-8 does not have"),
        (masked(Frame::new(Frame::TEXT, [0xed, 0xa0, 0x80])), 1007, "a surrogate"),
        (masked(Frame::new(Frame::TEXT, [b'"', 0xc3])), 1007, "a character that is cut off"),
        (masked(Frame::new(Frame::CONTINUATION, "{}")), 1002, "a continuation of nothing"),
        (
            [masked(Frame::part(Frame::TEXT, "{")), masked(Frame::new(Frame::TEXT, "}"))].concat(),
            1002,
            "a message within a message",
        ),
        (masked(Frame::part(Frame::PING, "")), 1002, "a control frame in fragments"),
        (masked(Frame::new(Frame::PING, [b'x'; 126])), 1002, "a control frame over 125 bytes"),
        (first_byte(0xc1), 1002, "a reserved bit"),
        (first_byte(0x83), 1002, "a reserved type"),
        (first_byte(0x8b), 1002, "a reserved control type"),
        (b"\x81\x02{}".to_vec(), 1002, "a frame that is not masked"),
    ] {
        let mut client = herald.connect().await;
        client.send_bytes(&bytes).await;
        let frame = client.next_frame().await.unwrap();
        assert_eq!(frame.opcode, Frame::CLOSE, "{rule}");
        assert_eq!(frame.close().0, code, "{rule}: {:?}", frame.close());
        assert!(!frame.close().1.is_empty(), "{rule}");
    }
    ann.settle().await;
    bob.settle().await;
}

#[tokio::test]
async fn a_close_is_answered_with_its_code_and_the_stream_ends() {
    let herald = Herald::start("").await;
    for (payload, code) in
        [(vec![], 1005), (1000_u16.to_be_bytes().to_vec(), 1000), (4321_u16.to_be_bytes().to_vec(), 4321)]
    {
        let mut client = herald.connect().await;
        client.send_frame(&Frame::new(Frame::CLOSE, payload)).await;
        let answer = client.next_frame().await.unwrap();
        assert_eq!((answer.opcode, answer.close().0), (Frame::CLOSE, code));
        assert_eq!(client.next_frame().await, None);
    }
}

#[tokio::test]
async fn what_is_sent_on_after_a_refusal_does_not_hide_it() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    let flood = Frame::new(Frame::TEXT, padded(10_000)).masked();
    client.send_frame(&Frame::new(Frame::BINARY, "x")).await;
    for _ in 0..100 {
        client.send_bytes(&flood).await; // unread data would make the kernel reset the connection: 1006
    }
    client.expect_close(1003).await;
}

#[tokio::test]
async fn an_error_names_no_secret() {
    let herald = Herald::start("[[apps]]\nsecret = \"hush-hush\"").await;
    let mut client = herald.connect().await;
    client.send(json!({ "event": "pusher:subscribe", "data": { "channel": "private-a", "auth": "app-key:00" } })).await;
    let error: Event = client.expect("pusher:subscription_error").await;
    assert!(!error.text.contains("hush"), "{}", error.text);
}
