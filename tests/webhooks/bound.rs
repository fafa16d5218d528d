//! The bound: what may wait for one receiver.

use std::time::Duration;

use super::delivery::{config, logged};
use super::receiver::{Receiver, Reply};
use super::support::{Frame, Herald, in_cluster};

/// Events that may wait for one receiver.
const BOUND: u64 = 100_000;

#[tokio::test]
async fn over_the_bound_events_are_dropped_and_counted() {
    if in_cluster() {
        return; // what is not delivered waits in Redis then, which tests/cluster looks at
    }
    let receiver = Receiver::of_default_app().await;
    receiver.reply(Reply::Never);
    let herald = Herald::start(&format!("{}\n[metrics]\nlisten = \"127.0.0.1:0\"\n", config(&[(&receiver, "")]))).await;
    let mut client = herald.connect().await;
    client.subscribe("private-flood").await;
    let event = Frame::new(Frame::TEXT, r#"{"event":"client-drop","channel":"private-flood","data":"-"}"#).masked();
    let flood = event.repeat(10_000);
    let waiting = async || herald.metric("herald_webhook_queue_events").await;
    while waiting().await < BOUND {
        client.send_bytes(&flood).await;
        client.settle().await;
    }
    let dropped = herald.metric("herald_webhook_events_dropped_total").await;
    client.send_bytes(&flood).await;
    client.settle().await;
    assert_eq!(waiting().await, BOUND);
    assert_eq!(herald.metric("herald_webhook_events_dropped_total").await, dropped + 10_000);
    logged(&herald, "as many wait as may").await;
    assert!(herald.resident_bytes() < 300 << 20, "{}", herald.resident_bytes());
    tokio::time::timeout(Duration::from_secs(1), herald.connect()).await.expect("others are served");
}
