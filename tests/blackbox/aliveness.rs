//! Aliveness (section 2): pings of both layers, who is taken for gone and when.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Frame, Herald};

/// Pinged after 1 s, gone 1 s later.
const SHORT: &str = r#"connection = { activity_timeout = "1s", activity_grace = "0s", pong_timeout = "1s" }"#;

#[tokio::test]
async fn both_kinds_of_ping_are_answered() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    for data in ["", r#","data":{}"#, r#","data":"""#, r#","data":null"#, r#","data":[1]"#] {
        client.send_text(&format!(r#"{{"event":"pusher:ping"{data}}}"#)).await;
        assert_eq!(client.next().await.text, r#"{"event":"pusher:pong","data":"{}"}"#, "{data}");
    }
    for payload in [&b""[..], b"hello", &[0xff; 125]] {
        client.send_frame(&Frame::new(Frame::PING, payload)).await;
        assert_eq!(client.next_frame().await, Some(Frame::new(Frame::PONG, payload)));
    }
    client.send(json!({ "event": "pusher:pong", "data": {} })).await;
    client.send_frame(&Frame::new(Frame::PONG, "nobody asked")).await;
    client.settle().await; // neither was answered
}

#[tokio::test]
async fn the_silent_are_pinged_and_then_closed() {
    let herald = Herald::start(SHORT).await;
    let mut silent = herald.connect().await;
    silent.answers_pings = false;
    let start = Instant::now();
    let ping = silent.next_frame().await.unwrap();
    assert_eq!(ping.opcode, Frame::PING);
    assert!(start.elapsed() >= Duration::from_millis(900), "pinged too early: {:?}", start.elapsed());
    silent.expect_refusal(4201).await;
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_millis(1_900), "closed too early: {elapsed:?}");
    assert!(elapsed < Duration::from_secs(5), "closed too late: {elapsed:?}");
}

#[tokio::test]
async fn whoever_is_still_sending_is_not_silent() {
    let herald = Herald::start(SHORT).await;
    let mut slow = herald.connect().await;
    slow.answers_pings = false;
    for byte in Frame::new(Frame::TEXT, r#"{"event":"pusher:ping"}"#).masked() {
        slow.send_bytes(&[byte]).await;
        tokio::time::sleep(Duration::from_millis(150)).await; // over 4 s in all
    }
    slow.expect("pusher:pong").await;
}

#[tokio::test]
async fn whoever_answers_or_says_anything_stays() {
    const GONE_AFTER: Duration = Duration::from_secs(1 + 3);
    let herald =
        Herald::start(r#"connection = { activity_timeout = "1s", activity_grace = "0s", pong_timeout = "3s" }"#).await;
    let (mut answering, mut speaking) = (herald.connect().await, herald.connect().await);
    speaking.answers_pings = false;
    let start = Instant::now();
    let answers = async {
        while start.elapsed() < GONE_AFTER + Duration::from_secs(2) {
            let ping = answering.next_frame().await.unwrap();
            assert_eq!(ping.opcode, Frame::PING);
            answering.send_frame(&Frame::new(Frame::PONG, ping.payload)).await;
        }
    };
    let speaks = async {
        // It answers no ping: what it says by itself has to be enough.
        let mut ticks = tokio::time::interval(Duration::from_millis(400));
        while start.elapsed() < GONE_AFTER + Duration::from_secs(2) {
            ticks.tick().await;
            speaking.send(json!({ "event": "pusher:pong" })).await;
        }
    };
    tokio::join!(answers, speaks);
    answering.settle().await;
    speaking.settle().await;
}

#[tokio::test]
async fn whoever_only_receives_stays() {
    let herald = Herald::start(SHORT).await;
    let mut receiver = herald.connect().await;
    receiver.subscribe("news").await;
    let start = Instant::now();
    let mut number = 0;
    while start.elapsed() < Duration::from_secs(4) {
        number += 1;
        herald.trigger("news", "tick", number.to_string()).await;
        assert_eq!(receiver.expect("tick").await.data(), number.to_string());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    receiver.settle().await;
}

#[tokio::test]
async fn a_vanished_member_leaves_within_both_time_outs() {
    let herald = Herald::start(SHORT).await;
    // The socket stays open and answers nothing, as when a network drops every packet: no FIN, no RST.
    let [mut ann, vanished] = herald.members("presence-room", ["ann", "bob"]).await;
    let start = Instant::now();
    let removed = ann.expect("pusher_internal:member_removed").await;
    assert_eq!(removed.json(), json!({ "user_id": "bob" }));
    let elapsed = start.elapsed();
    assert!(elapsed > Duration::from_millis(900) && elapsed < Duration::from_secs(5), "{elapsed:?}");
    drop(vanished);
    ann.settle().await; // who is there stays
}
