//! What is told about the end, and what outlives it.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::delivery::{config, expect_in_order, herald_with, logged, say};
use super::receiver::{Receiver, Reply};
use super::support::{DEADLINE, Herald, in_cluster};

const FILE: &str = "undelivered-webhooks.jsonl";

#[tokio::test]
async fn the_end_tells_what_was_held_back() {
    if in_cluster() {
        return; // what is not delivered waits in Redis then, which tests/cluster looks at
    }
    let mut receiver = Receiver::of_default_app().await;
    let mut herald = Herald::start(&format!("[[apps]]\n{}", receiver.section(""))).await;
    let mut ann = herald.connect().await;
    ann.join("presence-room", "ann").await;
    herald.terminate();
    ann.expect_close(4200).await;
    assert!(herald.ended().await.success());
    receiver.expect(json!({ "name": "channel_occupied", "channel": "presence-room" })).await;
    receiver.expect(json!({ "name": "member_added", "channel": "presence-room", "user_id": "ann" })).await;
    receiver.expect(json!({ "name": "member_removed", "channel": "presence-room", "user_id": "ann" })).await;
    receiver.expect(json!({ "name": "channel_vacated", "channel": "presence-room" })).await;
    assert!(!herald.data().join(FILE).exists(), "there was nothing to keep");
}

#[tokio::test]
async fn the_end_tries_at_once_what_waits_for_its_next_attempt() {
    let mut receiver = Receiver::of_default_app().await;
    let mut herald = herald_with(&[(&receiver, "")]).await;
    let mut client = herald.connect().await;
    receiver.reply_first([500; 5].map(Reply::Status));
    client.subscribe("hall").await;
    for _ in 0..5 {
        receiver.request().await; // after the last, the next attempt is four seconds away, or more
    }
    let asked = Instant::now();
    herald.terminate();
    receiver.expect(json!({ "name": "channel_occupied", "channel": "hall" })).await;
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert!(herald.ended().await.success());
}

#[tokio::test]
async fn what_a_dead_receiver_missed_arrives_in_order_after_a_restart() {
    if in_cluster() {
        return; // what is not delivered waits in Redis then, which tests/cluster looks at
    }
    const CHANNELS: [&str; 3] = ["private-a", "private-b", "private-c"];
    let mut receiver = Receiver::of_default_app().await;
    let config = config(&[(&receiver, "")]);
    let mut herald = Herald::start(&config).await;
    receiver.down().await;
    let mut client = herald.connect().await;
    for channel in CHANNELS {
        client.subscribe(channel).await;
        say(&mut client, channel, 0..70).await;
    }
    herald.terminate();
    assert!(herald.ended().await.success());
    let file = herald.data().join(FILE);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 3 * 71);
    assert!(!text.contains("app-secret"), "{text}");

    let herald = herald.start_again(&config).await;
    assert!(!file.exists(), "it was taken over");
    let mut client = herald.connect().await;
    for channel in CHANNELS {
        client.subscribe(channel).await;
        say(&mut client, channel, 70..80).await;
    }
    receiver.up();
    expect_in_order(&mut receiver, &CHANNELS, 80, 3 * DEADLINE).await;
}

#[tokio::test]
async fn a_request_under_way_at_the_end_keeps_its_id() {
    if in_cluster() {
        return; // what is not delivered waits in Redis then, which tests/cluster looks at
    }
    for options in ["", "batch = false"] {
        let mut receiver = Receiver::of_default_app().await;
        receiver.reply(Reply::Never);
        let config = config(&[(&receiver, options)]);
        let mut herald = Herald::start(&config).await;
        let mut client = herald.connect().await;
        client.subscribe("private-talk").await;
        let under_way = receiver.request().await;
        say(&mut client, "private-talk", 0..3).await;
        herald.terminate();
        assert!(herald.ended().await.success());

        receiver.reply(Reply::Status(200));
        let _herald = herald.start_again(&config).await;
        let again = loop {
            let request = receiver.request().await;
            if request.reply == Reply::Status(200) {
                break request;
            }
        };
        assert_eq!(again.delivery(), under_way.delivery());
        assert_eq!(again.body, under_way.body, "with the time of the first attempt");
        let next = receiver.request().await;
        assert_ne!(next.delivery(), under_way.delivery());
        assert_eq!(next.events()[0]["data"], "0");
    }
}

#[tokio::test]
async fn a_second_signal_loses_nothing_either() {
    if in_cluster() {
        return; // what is not delivered waits in Redis then, which tests/cluster looks at
    }
    let mut receiver = Receiver::of_default_app().await;
    let config = format!("{}\n[shutdown]\ndelay = \"5m\"\n", config(&[(&receiver, "")]));
    let mut herald = Herald::start(&config).await;
    receiver.down().await;
    let mut client = herald.connect().await;
    client.subscribe("private-talk").await;
    say(&mut client, "private-talk", 0..60).await;
    herald.terminate();
    logged(&herald, "shutting down").await;
    herald.terminate();
    assert_eq!(herald.ended().await.code(), Some(1));
    receiver.up();
    let _herald = herald.start_again(&config).await;
    expect_in_order(&mut receiver, &["private-talk"], 60, DEADLINE).await;
}

#[tokio::test]
async fn an_endless_pause_asked_for_is_bounded_and_outlived() {
    let mut receiver = Receiver::of_default_app().await;
    let config = config(&[(&receiver, "")]);
    let mut herald = Herald::start(&config).await;
    receiver.reply_first([Reply::With(503, "retry-after", u64::MAX.to_string())]);
    herald.connect().await.subscribe("hall").await;
    receiver.request().await;
    logged(&herald, "it is tried again").await;
    herald.terminate();
    assert!(herald.ended().await.success());
    assert_eq!(receiver.requests().len(), 1, "the pause is respected");
    let _herald = herald.start_again(&config).await;
    receiver.expect(json!({ "name": "channel_occupied", "channel": "hall" })).await;
}

#[tokio::test]
async fn what_nobody_is_to_get_any_more_is_dropped_and_counted() {
    let mut receiver = Receiver::of_default_app().await;
    let config = format!("{}\n[metrics]\nlisten = \"127.0.0.1:0\"\n", config(&[(&receiver, "channel_prefix = \"h\"")]));
    let herald = ended(&config).await;
    let now = now_ms();
    let url = receiver.url();
    let lines = [
        line("app-id", &url, now - 301_000, "channel_occupied", "hall-too-old"),
        line("app-id", "http://127.0.0.1:1/", now, "channel_occupied", "hall-of-nobody"),
        line("gone", &url, now, "channel_occupied", "hall-of-an-app-that-is-gone"),
        line("app-id", &url, now, "channel_vacated", "hall-unwanted-kind"),
        line("app-id", &url, now, "channel_occupied", "unwanted-channel"),
        line("app-id", &url, now, "channel_exploded", "hall-unknown-kind"),
        line("app-id", &url, now - 290_000, "channel_occupied", "hall"),
    ];
    std::fs::create_dir_all(herald.data()).unwrap();
    std::fs::write(herald.data().join(FILE), lines.concat()).unwrap();

    let herald = herald.start_again(&config).await;
    receiver.expect(json!({ "name": "channel_occupied", "channel": "hall" })).await;
    assert_eq!(receiver.requests()[0].json()["time_ms"], now - 290_000);
    assert_eq!(herald.metric("herald_webhook_events_dropped_total").await, 6);
    logged(&herald, "no configured receiver wants them").await;
    logged(&herald, "their time is over").await;
    assert!(!herald.has_logged("token=hidden"), "an address may hold a token");
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn a_file_that_is_no_such_file_stops_nothing() {
    let mut receiver = Receiver::of_default_app().await;
    let config = config(&[(&receiver, "")]);
    let herald = ended(&config).await;
    std::fs::create_dir_all(herald.data()).unwrap();
    std::fs::write(herald.data().join(FILE), "{\"app\":").unwrap();
    let herald = herald.start_again(&config).await;
    assert!(!herald.data().join(FILE).exists());
    assert_eq!(std::fs::read_to_string(herald.data().join(format!("{FILE}.broken"))).unwrap(), "{\"app\":");
    logged(&herald, "cannot be read").await;
    herald.connect().await.subscribe("hall").await;
    receiver.expect(json!({ "name": "channel_occupied", "channel": "hall" })).await;
}

/// A line of the file.
fn line(app: &str, url: &str, time_ms: u64, name: &str, channel: &str) -> String {
    let event = json!({ "name": name, "channel": channel });
    json!({ "app": app, "url": url, "time_ms": time_ms, "event": event }).to_string() + "\n"
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A server that has run and ended, with nothing to keep.
async fn ended(config: &str) -> Herald {
    let mut herald = Herald::start(config).await;
    herald.terminate();
    assert!(herald.ended().await.success());
    herald
}

#[tokio::test]
async fn what_cannot_be_written_down_is_counted_as_lost() {
    if in_cluster() {
        return; // what is not delivered waits in Redis then, which tests/cluster looks at
    }
    let mut receiver = Receiver::of_default_app().await;
    let mut herald = herald_with(&[(&receiver, "")]).await;
    receiver.down().await;
    std::fs::create_dir_all(herald.data().join(FILE)).unwrap(); // a folder where the file should be
    herald.connect().await.subscribe("hall").await;
    herald.terminate();
    assert!(herald.ended().await.success());
    logged(&herald, "webhook events are lost").await;
}

#[tokio::test]
async fn an_event_is_given_up_after_five_minutes_and_the_next_gets_its_own_time() {
    let mut receiver = Receiver::of_default_app().await;
    let config = format!("{}\n[metrics]\nlisten = \"127.0.0.1:0\"\n", config(&[(&receiver, "batch = false")]));
    let herald = ended(&config).await;
    std::fs::create_dir_all(herald.data()).unwrap();
    let old = line("app-id", &receiver.url(), now_ms() - 296_000, "channel_occupied", "private-talk");
    std::fs::write(herald.data().join(FILE), old).unwrap();
    receiver.reply(Reply::Status(500));
    let herald = herald.start_again(&config).await;
    let mut client = herald.connect().await;
    client.subscribe("private-talk").await;
    let first = receiver.request().await;
    let next = loop {
        let request = receiver.request().await;
        if request.delivery() != first.delivery() {
            break request;
        }
    };
    assert!(next.at - first.at >= Duration::from_secs(3), "{:?}", next.at - first.at);
    assert_eq!(herald.metric("herald_webhook_events_dropped_total").await, 1);
    logged(&herald, "webhook given up").await;
    receiver.reply(Reply::Status(200));
    receiver.expect(json!({ "name": "channel_occupied", "channel": "private-talk" })).await;
}

#[tokio::test]
async fn an_old_event_does_not_take_a_young_one_of_its_request_with_it() {
    let mut receiver = Receiver::of_default_app().await;
    let config = config(&[(&receiver, "")]);
    let herald = ended(&config).await;
    std::fs::create_dir_all(herald.data()).unwrap();
    let lines = [(299_000, "hall"), (200_000, "hall")]
        .map(|(age, channel)| line("app-id", &receiver.url(), now_ms() - age, "channel_occupied", channel));
    std::fs::write(herald.data().join(FILE), lines.concat()).unwrap();
    receiver.reply_first([500; 4].map(Reply::Status)); // the fourth comes after two seconds or more
    let _herald = herald.start_again(&config).await;
    receiver.expect(json!({ "name": "channel_occupied", "channel": "hall" })).await;
    receiver.expect(json!({ "name": "channel_occupied", "channel": "hall" })).await;
}
