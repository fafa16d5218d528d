//! Who is told what: kinds, channels, apps.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::receiver::Receiver;
use super::support::{App, Herald};

#[tokio::test]
async fn kinds_and_names_decide() {
    let mut picky = Receiver::of_default_app().await;
    let mut curious = Receiver::of_default_app().await;
    let options = r#"events = ["channel_occupied"]
                     channel_prefix = "wanted-"
                     channel_suffix = "-yes""#;
    let herald = Herald::start(&format!("[[apps]]\n{}{}", picky.section(options), curious.section(""))).await;
    let mut client = herald.connect().await;
    let channels = ["other-yes", "wanted-no", "private-wanted-yes", "wanted-yes"];
    for channel in channels {
        client.subscribe(channel).await;
        curious.expect(json!({ "name": "channel_occupied", "channel": channel })).await;
        client.unsubscribe(channel).await;
    }
    for _ in channels {
        assert_eq!(curious.event().await["name"], "channel_vacated");
    }
    client.subscribe("wanted-later-yes").await;
    picky.expect(json!({ "name": "channel_occupied", "channel": "wanted-yes" })).await;
    picky.expect(json!({ "name": "channel_occupied", "channel": "wanted-later-yes" })).await;
    assert_eq!(picky.requests().len(), 2);
}

#[tokio::test]
async fn client_events_and_counts_are_told_only_if_asked_for() {
    let mut receiver = Receiver::of_default_app().await;
    let herald = Herald::start(&format!("[[apps]]\nsubscription_count = true\n{}", receiver.section(""))).await;
    let [mut ann, mut bob] = [herald.connect().await, herald.connect().await];
    ann.subscribe("private-talk").await;
    ann.expect("pusher_internal:subscription_count").await;
    bob.subscribe("private-talk").await;
    bob.expect("pusher_internal:subscription_count").await;
    bob.send(json!({ "event": "client-say", "channel": "private-talk", "data": "hello" })).await;
    ann.expect("pusher_internal:subscription_count").await;
    ann.expect("client-say").await;
    ann.close().await;
    bob.close().await;
    receiver.expect(json!({ "name": "channel_occupied", "channel": "private-talk" })).await;
    receiver.expect(json!({ "name": "channel_vacated", "channel": "private-talk" })).await;
}

#[tokio::test]
async fn an_empty_cache_is_told_once_within_ten_seconds() {
    let mut receiver = Receiver::of_default_app().await;
    let herald = Herald::start(&format!("[[apps]]\n{}", receiver.section(r#"events = ["cache_miss"]"#))).await;
    let miss = json!({ "name": "cache_miss", "channel": "cache-news" });
    let mut first = herald.connect().await;
    let told = Instant::now();
    first.subscribe("cache-news").await;
    receiver.expect(miss.clone()).await;

    let mut client = herald.connect().await;
    let mut visits = 0;
    while receiver.requests().len() == 1 {
        assert!(told.elapsed() < Duration::from_secs(20), "told again after ten seconds");
        client.subscribe("cache-news").await;
        client.expect("pusher:cache_miss").await;
        client.unsubscribe("cache-news").await;
        visits += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    receiver.expect(miss).await;
    assert!(told.elapsed() >= Duration::from_secs(10) && visits > 1, "{visits} in {:?}", told.elapsed());

    herald.trigger("cache-full", "kept", "1").await;
    client.subscribe("cache-full").await;
    client.expect("kept").await;
    client.subscribe("cache-empty").await;
    receiver.expect(json!({ "name": "cache_miss", "channel": "cache-empty" })).await;
}

#[tokio::test]
async fn channels_of_users_are_nobodys_business() {
    let mut receiver = Receiver::of_default_app().await;
    let every = r#"events = ["channel_occupied", "channel_vacated", "subscription_count", "cache_miss"]"#;
    let herald = Herald::start(&format!("[[apps]]\nsubscription_count = true\n{}", receiver.section(every))).await;
    let mut ann = herald.connect().await;
    ann.sign_in("ann").await;
    ann.subscribe("#server-to-user-ann").await;
    ann.unsubscribe("#server-to-user-ann").await;
    ann.subscribe("hall").await;
    ann.unsubscribe("hall").await;
    while receiver.event().await != json!({ "name": "channel_vacated", "channel": "hall" }) {}
    let told: Vec<Value> = receiver.requests().iter().flat_map(super::receiver::Request::events).collect();
    assert!(told.iter().all(|event| event["channel"] == "hall"), "{told:?}");
}

#[tokio::test]
async fn two_apps_share_names_and_nothing_else() {
    let other = App::new("other", "other-key", "other-secret");
    let mut mine = Receiver::of_default_app().await;
    let mut theirs = Receiver::start(&other).await;
    let kinds = r#"events = ["channel_occupied", "channel_vacated", "member_added", "member_removed", "client_event"]"#;
    let herald = Herald::start(&format!(
        "[[apps]]\n{}\n[[apps]]\nid = \"other\"\nkey = \"other-key\"\nsecret = \"other-secret\"\n{}",
        mine.section(kinds),
        theirs.section(kinds)
    ))
    .await;
    let mut ann = herald.connect().await;
    let mut eve = herald.connect_to(&other).await;
    for (client, receiver, user) in [(&mut ann, &mut mine, "ann"), (&mut eve, &mut theirs, "eve")] {
        client.join("presence-room", user).await;
        client.send(json!({ "event": "client-hi", "channel": "presence-room", "data": user })).await;
        client.unsubscribe("presence-room").await;
        receiver.expect(json!({ "name": "channel_occupied", "channel": "presence-room" })).await;
        receiver.expect(json!({ "name": "member_added", "channel": "presence-room", "user_id": user })).await;
        let said = receiver.event().await;
        assert_eq!([&said["user_id"], &said["socket_id"]], [user, &client.socket_id().to_string()]);
    }
    for (receiver, user) in [(&mut mine, "ann"), (&mut theirs, "eve")] {
        receiver.expect(json!({ "name": "member_removed", "channel": "presence-room", "user_id": user })).await;
        receiver.expect(json!({ "name": "channel_vacated", "channel": "presence-room" })).await;
    }
}
