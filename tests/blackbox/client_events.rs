//! Client events (3.4): from one client to the others of its channel.

use serde_json::{Value, json};

use crate::support::{Client, Frame, Herald};

fn whisper(event: &str, channel: &str, data: &Value) -> Value {
    json!({ "event": event, "channel": channel, "data": data })
}

/// Two clients on this channel.
async fn two(herald: &Herald, channel: &str) -> (Client, Client) {
    let (mut ann, mut bob) = (herald.connect().await, herald.connect().await);
    ann.subscribe(channel).await;
    bob.subscribe(channel).await;
    (ann, bob)
}

#[tokio::test]
async fn the_others_get_it_with_data_as_a_string() {
    let herald = Herald::start("").await;
    let (mut ann, mut bob) = two(&herald, "private-a").await;
    for (data, arrives) in [
        (r#","data":{"who": "A"}"#, r#""{\"who\": \"A\"}""#),
        (r#","data":"{\"who\":\"\u0041\"}""#, r#""{\"who\":\"\u0041\"}""#),
        (r#","data":"plain""#, r#""plain""#),
        (r#","data":5"#, r#""5""#),
        (r#","data":[ ]"#, r#""[ ]""#),
        (r#","data":null"#, r#""null""#),
        (r#","data":"""#, r#""""#),
        ("", r#""{}""#),
    ] {
        ann.send_text(&format!(r#"{{"event":"client-x","channel":"private-a"{data}}}"#)).await;
        assert_eq!(bob.next().await.text, format!(r#"{{"event":"client-x","channel":"private-a","data":{arrives}}}"#));
    }
    ann.settle().await; // never back to the sender
}

#[tokio::test]
async fn the_sender_is_named_on_presence_channels_and_cannot_be_another() {
    let herald = Herald::start("").await;
    let [mut ann, mut bob, mut tab] = herald.members("presence-room", ["ann", "bob", "ann"]).await;
    bob.settle().await;
    for text in [
        r#"{"event":"client-x","channel":"presence-room","data":{}}"#,
        r#"{"event":"client-x","channel":"presence-room","data":{},"user_id":"bob"}"#,
        r#"{"user_id":"bob","event":"client-x","channel":"presence-room","data":{},"user_id":null}"#,
    ] {
        ann.send_text(text).await;
        for other in [&mut bob, &mut tab] {
            let expected = r#"{"event":"client-x","channel":"presence-room","data":"{}","user_id":"ann"}"#;
            assert_eq!(other.next().await.text, expected, "{text}");
        }
    }
    ann.settle().await;
    let (mut cid, mut dan) = two(&herald, "private-a").await;
    cid.send_text(r#"{"event":"client-x","channel":"private-a","data":{},"user_id":"bob"}"#).await;
    assert_eq!(dan.next().await.text, r#"{"event":"client-x","channel":"private-a","data":"{}"}"#);
}

#[tokio::test]
async fn every_channel_with_authorization_carries_them_encrypted_ones_as_they_are() {
    let herald = Herald::start("").await;
    for channel in ["private-a", "private-encrypted-a"] {
        let (mut ann, mut bob) = two(&herald, channel).await;
        let data = r#"{"nonce":"bm9uY2U=","ciphertext":"Y2lwaGVy"}"#;
        ann.send(whisper("client-x", channel, &data.into())).await;
        assert_eq!(bob.expect("client-x").await.data(), data);
    }
    for channel in ["private-cache-a", "private-encrypted-cache-a"] {
        let (mut ann, mut bob) = two(&herald, channel).await;
        bob.expect("pusher:cache_miss").await;
        ann.send(whisper("client-x", channel, &"1".into())).await;
        assert_eq!(bob.expect("client-x").await.data(), "1");
    }
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_and_reaches_nobody() {
    let herald = Herald::start("").await;
    let (mut ann, mut bob) = two(&herald, "private-a").await;
    for client in [&mut ann, &mut bob] {
        client.subscribe("news").await;
        client.subscribe("cache-news").await;
        client.expect("pusher:cache_miss").await;
    }
    bob.subscribe("private-b").await;
    for (event, channel, data, says) in [
        ("client-x", "news", "1".to_owned(), "private and presence"),
        ("client-x", "cache-news", "1".to_owned(), "private and presence"),
        ("client-x", "private-b", "1".to_owned(), "subscription"),
        ("client-x", "private-nowhere", "1".to_owned(), "subscription"),
        ("client-x", "not a name", "1".to_owned(), "subscription"),
        (&format!("client-{}", "x".repeat(194)), "private-a", "1".to_owned(), "200"),
        ("client-a\u{7}", "private-a", "1".to_owned(), "control"),
        ("client-x", "private-a", "x".repeat(10_241), "10240"),
        ("client-x", "private-a", "ä".repeat(5_121), "10240"),
    ] {
        ann.send(whisper(event, channel, &data.into())).await;
        let error = ann.expect_error(4301).await;
        assert_eq!(error.channel.as_deref(), Some(channel));
        assert!(error.error().1.contains(says), "{event} on {channel} must be told {says}: {}", error.text);
    }
    bob.settle().await;
    let longest = format!("client-{}", "x".repeat(193));
    for (event, data) in [("client-x", "x".repeat(10_240)), ("client-", "ä".repeat(5_120)), (&longest, "1".to_owned())]
    {
        ann.send(whisper(event, "private-a", &data.clone().into())).await;
        assert_eq!(bob.expect(event).await.data(), data);
    }
    ann.unsubscribe("private-a").await;
    ann.send(whisper("client-x", "private-a", &"1".into())).await;
    ann.expect_error(4301).await;
    bob.settle().await;
}

#[tokio::test]
async fn an_app_may_do_without_them() {
    let herald = Herald::start("[[apps]]\nclient_events = false").await;
    let (mut ann, mut bob) = two(&herald, "private-a").await;
    ann.send(whisper("client-x", "private-a", &"1".into())).await;
    let error = ann.expect_error(4301).await;
    assert!(error.error().1.contains("not enabled"), "{}", error.text);
    herald.trigger("private-a", "client-x", "from the backend").await;
    assert_eq!(bob.next().await.data(), "from the backend");
}

#[tokio::test]
async fn ten_a_second_pass_and_what_is_more_is_dropped() {
    let herald = Herald::start("").await;
    let (mut ann, mut bob) = two(&herald, "private-a").await;
    let burst = |count: usize| {
        let frame = |number: usize| {
            Frame::new(Frame::TEXT, whisper("client-x", "private-a", &number.to_string().into()).to_string())
        };
        (0..count).flat_map(|number| frame(number).masked()).collect::<Vec<u8>>()
    };
    ann.send_bytes(&burst(10)).await;
    for number in 0..10 {
        assert_eq!(bob.expect("client-x").await.data(), number.to_string());
    }
    ann.settle().await; // none of ten was refused
    let (mut cid, mut dan) = two(&herald, "private-a").await;
    cid.send_bytes(&burst(40)).await;
    cid.send(json!({ "event": "pusher:ping" })).await;
    let mut refused = 0;
    loop {
        let event = cid.next().await;
        if event.event == "pusher:pong" {
            break;
        }
        let (code, message) = event.error();
        assert_eq!((code, event.channel.as_deref()), (Some(4301), Some("private-a")));
        assert!(message.contains("10"), "the limit is told: {message}");
        refused += 1;
    }
    assert!((1..=30).contains(&refused), "ten and a few for the time that it took: {refused} refused");
    herald.trigger("private-a", "marker", "").await;
    let mut passed = 0;
    while dan.next().await.event == "client-x" {
        passed += 1;
    }
    assert_eq!(passed + refused, 40);
    bob.send(whisper("client-x", "private-a", &"mine".into())).await;
    let mut event = dan.next().await;
    assert_eq!((&*event.event, event.data()), ("client-x", "mine"), "each connection has its own allowance");
    while event.event != "marker" {
        event = ann.next().await;
        assert_ne!(event.event, "pusher:error", "and what one does too often is no other's fault");
    }
}

#[tokio::test]
async fn the_rate_follows_the_configured_limit() {
    let herald = Herald::start("[[apps]]\n[apps.limits]\nclient_events_per_second = 1").await;
    let (mut ann, mut bob) = two(&herald, "private-a").await;
    let one = Frame::new(Frame::TEXT, whisper("client-x", "private-a", &"1".into()).to_string()).masked();
    ann.send_bytes(&one.repeat(2)).await;
    ann.expect_error(4301).await;
    bob.expect("client-x").await;
    bob.settle().await;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await; // the second that one takes
    ann.send_bytes(&one).await;
    bob.expect("client-x").await;
}
