//! Cache channels (3.1): the last event triggered over HTTP is kept for those who come later.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Client, Herald};

const CACHE_CHANNELS: [&str; 4] = ["cache-a", "private-cache-a", "private-encrypted-cache-a", "presence-cache-a"];

async fn enter(client: &mut Client, channel: &str) {
    match channel.starts_with("presence-") {
        true => client.join(channel, "7").await,
        false => client.subscribe(channel).await,
    };
}

#[tokio::test]
async fn every_cache_channel_says_that_it_has_nothing_or_shows_the_last_event_first() {
    let herald = Herald::start("").await;
    for channel in CACHE_CHANNELS {
        let mut early = herald.connect().await;
        enter(&mut early, channel).await;
        assert_eq!(early.next().await.text, format!(r#"{{"event":"pusher:cache_miss","channel":"{channel}"}}"#));
        herald.trigger(channel, "first", "1").await;
        herald.api().post("/events", &format!(r#"{{"name":"last","channel":"{channel}","data":"\u0041"}}"#)).await.ok();
        early.expect("first").await;
        let original = early.expect("last").await.text;
        let mut late = herald.connect().await;
        enter(&mut late, channel).await;
        assert_eq!(late.next().await.text, original, "directly after the answer, as it was sent");
        herald.trigger(channel, "live", "2").await;
        late.expect("live").await;
        enter(&mut late, channel).await;
        late.expect("live").await; // subscribing again is answered again
        early.expect("live").await;
        early.settle().await; // and nobody else gets it again
    }
    for channel in ["a", "private-a", "private-encrypted-a", "presence-a", "my-cache-a", "private-my-cache-a"] {
        herald.trigger(channel, "e", "not kept").await;
        let mut client = herald.connect().await;
        enter(&mut client, channel).await;
        client.settle().await;
    }
}

#[tokio::test]
async fn the_last_event_is_kept_when_everybody_has_left() {
    let herald = Herald::start("").await;
    herald.trigger("cache-a", "e", "before anybody came").await;
    for _ in 0..3 {
        let mut client = herald.connect().await;
        enter(&mut client, "cache-a").await;
        assert_eq!(client.expect("e").await.data(), "before anybody came");
        client.unsubscribe("cache-a").await;
        client.close().await;
    }
    let mut other = herald.connect().await;
    enter(&mut other, "cache-b").await;
    other.expect("pusher:cache_miss").await;
}

#[tokio::test]
async fn the_socket_that_triggered_is_left_out_but_others_find_the_event() {
    let herald = Herald::start("").await;
    let mut sender = herald.connect().await;
    enter(&mut sender, "cache-a").await;
    sender.expect("pusher:cache_miss").await;
    let body = json!({ "name": "e", "channel": "cache-a", "data": "", "socket_id": sender.socket_id().to_string() });
    herald.api().events(&body).await.ok();
    sender.settle().await;
    let mut late = herald.connect().await;
    enter(&mut late, "cache-a").await;
    late.expect("e").await;
}

#[tokio::test]
async fn the_last_event_is_forgotten_after_its_time() {
    let herald = Herald::start("[[apps]]\ncache_ttl = \"1s\"").await;
    let start = Instant::now();
    herald.trigger("cache-a", "e", "").await;
    let mut client = herald.connect().await;
    let mut seen = 0;
    loop {
        let asked = start.elapsed();
        enter(&mut client, "cache-a").await;
        let event = client.next().await;
        if event.event == "pusher:cache_miss" {
            assert!(start.elapsed() >= Duration::from_secs(1), "forgotten after {:?}", start.elapsed());
            break;
        }
        assert_eq!(event.event, "e");
        assert!(asked < Duration::from_secs(2), "still there after {asked:?}");
        seen += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(seen > 0);
    herald.trigger("cache-a", "e", "").await;
    client.expect("e").await;
    enter(&mut client, "cache-a").await;
    client.expect("e").await; // a new one has its own time
}

#[tokio::test]
async fn client_events_are_not_kept() {
    let herald = Herald::start("").await;
    let (mut ann, mut bob) = (herald.connect().await, herald.connect().await);
    for client in [&mut ann, &mut bob] {
        enter(client, "private-cache-a").await;
        client.expect("pusher:cache_miss").await;
    }
    ann.send(json!({ "event": "client-x", "channel": "private-cache-a", "data": {} })).await;
    bob.expect("client-x").await;
    let mut late = herald.connect().await;
    enter(&mut late, "private-cache-a").await;
    late.expect("pusher:cache_miss").await;
    herald.trigger("private-cache-a", "e", "").await;
    late.expect("e").await;
    ann.send(json!({ "event": "client-x", "channel": "private-cache-a", "data": {} })).await;
    late.expect("client-x").await;
    let mut later = herald.connect().await;
    enter(&mut later, "private-cache-a").await;
    later.expect("e").await; // nor do they replace what is
}

#[tokio::test]
async fn the_kept_event_can_be_read_over_http() {
    let herald = Herald::start("[[apps]]\ncache_ttl = \"10m\"").await;
    let api = herald.api();
    let read = async |channel: &str| api.get(&format!("/channels/{channel}"), &[("info", "cache")]).await;
    assert_eq!(read("cache-a").await.ok()["cache"], Value::Null);
    herald.trigger("cache-a", "e", r#"{"a": 1}"#).await;
    let answer = read("cache-a").await.ok();
    assert_eq!(answer["cache"]["data"], r#"{"a": 1}"#);
    let ttl = answer["cache"]["ttl"].as_u64().unwrap();
    assert!((590..=600).contains(&ttl), "{ttl}");
    assert_eq!(answer["occupied"], false);
    assert_eq!(read("a").await.status, 400, "only cache channels have one");
}

#[tokio::test]
async fn who_comes_during_a_long_fan_out_gets_each_event_once() {
    const CROWD: usize = 1_500;
    const EVENTS: usize = 100;
    rlimit::increase_nofile_limit(4_096).unwrap();
    let herald = Herald::start("").await;
    herald.trigger("cache-a", "e", "0").await;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut client = herald.connect().await;
        client.send(client.subscription("cache-a", None)).await;
        crowd.push(client);
    }
    for client in &mut crowd {
        client.expect_succeeded("cache-a").await;
    }
    let publish = async {
        for number in 1..=EVENTS {
            herald.trigger("cache-a", "e", number.to_string()).await;
        }
    };
    let come_and_go = join_all((0..8).map(|_| async {
        let mut client = herald.connect().await;
        let mut last = 0;
        while last < EVENTS {
            client.subscribe("cache-a").await;
            let mut expected: usize = client.expect("e").await.data().parse().unwrap();
            assert!(expected >= last, "the kept event is not older than what was seen");
            client.unsubscribe("cache-a").await;
            client.send(json!({ "event": "pusher:ping" })).await;
            loop {
                let event = client.next().await;
                if event.event == "pusher:pong" {
                    break;
                }
                expected += 1;
                assert_eq!(event.data(), expected.to_string(), "after the kept event comes the next one");
            }
            last = expected;
        }
    }));
    tokio::join!(publish, come_and_go);
}
