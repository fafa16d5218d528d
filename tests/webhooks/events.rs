//! What is told: each kind, its members, the request around it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::receiver::Receiver;
use super::support::Herald;

const EVERY_KIND: &str = r#"events = ["channel_occupied", "channel_vacated", "member_added", "member_removed", "client_event", "cache_miss",
    "subscription_count"]"#;

#[tokio::test]
async fn each_kind_has_its_members() {
    let mut receiver = Receiver::of_default_app().await;
    let herald = Herald::start(&format!("[[apps]]\nsubscription_count = true\n{}", receiver.section(EVERY_KIND))).await;

    let mut ann = herald.connect().await;
    ann.join("presence-cache-room", "ann").await;
    receiver.expect(json!({ "name": "channel_occupied", "channel": "presence-cache-room" })).await;
    receiver.expect(json!({ "name": "member_added", "channel": "presence-cache-room", "user_id": "ann" })).await;
    receiver.expect(json!({ "name": "cache_miss", "channel": "presence-cache-room" })).await;

    ann.expect("pusher:cache_miss").await;
    ann.send(json!({ "event": "client-wave", "channel": "presence-cache-room", "data": { "hand": "left" } })).await;
    receiver
        .expect(json!({
            "name": "client_event", "channel": "presence-cache-room", "event": "client-wave", "data": r#"{"hand":"left"}"#,
            "socket_id": ann.socket_id().to_string(), "user_id": "ann",
        }))
        .await;

    ann.subscribe("private-talk").await;
    receiver.expect(json!({ "name": "channel_occupied", "channel": "private-talk" })).await;
    receiver.expect(json!({ "name": "subscription_count", "channel": "private-talk", "subscription_count": 1 })).await;
    ann.send(json!({ "event": "client-say", "channel": "private-talk", "data": "as it is" })).await;
    receiver
        .expect(json!({
            "name": "client_event", "channel": "private-talk", "event": "client-say", "data": "as it is",
            "socket_id": ann.socket_id().to_string(),
        }))
        .await;

    ann.unsubscribe("presence-cache-room").await;
    receiver.expect(json!({ "name": "member_removed", "channel": "presence-cache-room", "user_id": "ann" })).await;
    receiver.expect(json!({ "name": "channel_vacated", "channel": "presence-cache-room" })).await;
}

#[tokio::test]
async fn a_request_says_whose_it_is_and_when_it_happened() {
    let mut receiver = Receiver::of_default_app().await;
    let options = r#"headers = { Authorization = "Bearer t0ken", X-Extra = "yes" }"#;
    let herald = Herald::start(&format!("[[apps]]\n{}", receiver.section(options))).await;
    let before = now_ms();
    let mut client = herald.connect().await;
    client.subscribe("first").await;

    let request = receiver.request().await;
    let now = now_ms();
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("x-pusher-key"), "app-key");
    assert_eq!(request.header("user-agent"), concat!("herald/", env!("CARGO_PKG_VERSION")));
    assert_eq!(request.header("authorization"), "Bearer t0ken");
    assert_eq!(request.header("x-extra"), "yes");
    let time = request.json()["time_ms"].as_u64().unwrap();
    assert!((before..=now).contains(&time), "{before} {time} {now}");
    assert_eq!(request.json().as_object().unwrap().len(), 2, "{}", request.body);

    client.subscribe("second").await;
    assert_ne!(receiver.request().await.delivery(), request.delivery(), "each delivery has an id of its own");
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
