//! Departures: held back for three seconds, and cancelled by a return.

use std::time::{Duration, Instant};

use serde_json::json;

use super::receiver::Receiver;
use super::support::Herald;

#[tokio::test]
async fn a_reload_within_three_seconds_is_silent() {
    let mut receiver = Receiver::of_default_app().await;
    let herald = Herald::start(&format!("[[apps]]\n{}", receiver.section(""))).await;
    let mut ann = herald.connect().await;
    ann.join("presence-room", "ann").await;
    receiver.expect(json!({ "name": "channel_occupied", "channel": "presence-room" })).await;
    receiver.expect(json!({ "name": "member_added", "channel": "presence-room", "user_id": "ann" })).await;

    ann.close().await;
    let mut passer_by = herald.connect().await;
    passer_by.subscribe("elsewhere").await;
    passer_by.unsubscribe("elsewhere").await;
    let mut ann = herald.connect().await;
    ann.join("presence-room", "ann").await;
    receiver.expect(json!({ "name": "channel_occupied", "channel": "elsewhere" })).await;
    // This departure began later than ann's, so hers is settled by now.
    receiver.expect(json!({ "name": "channel_vacated", "channel": "elsewhere" })).await;
    passer_by.join("presence-room", "bob").await;
    receiver.expect(json!({ "name": "member_added", "channel": "presence-room", "user_id": "bob" })).await;
}

#[tokio::test]
async fn a_departure_is_told_once_after_three_seconds() {
    let mut receiver = Receiver::of_default_app().await;
    let herald = Herald::start(&format!("[[apps]]\n{}", receiver.section(""))).await;
    let mut ann = herald.connect().await;
    let occupied = json!({ "name": "channel_occupied", "channel": "presence-room" });
    let added = json!({ "name": "member_added", "channel": "presence-room", "user_id": "ann" });
    for _ in 0..2 {
        ann.join("presence-room", "ann").await;
        receiver.expect(occupied.clone()).await;
        receiver.expect(added.clone()).await;
        let left = Instant::now();
        ann.unsubscribe("presence-room").await;
        receiver.expect(json!({ "name": "member_removed", "channel": "presence-room", "user_id": "ann" })).await;
        receiver.expect(json!({ "name": "channel_vacated", "channel": "presence-room" })).await;
        let after = left.elapsed();
        assert!(after >= Duration::from_secs(3), "{after:?}");
    }
}

#[tokio::test]
async fn each_departure_has_three_seconds_of_its_own() {
    let mut receiver = Receiver::of_default_app().await;
    let herald = Herald::start(&format!("[[apps]]\n{}", receiver.section(""))).await;
    let mut ann = herald.connect().await;
    ann.subscribe("hall").await;
    receiver.expect(json!({ "name": "channel_occupied", "channel": "hall" })).await;
    ann.unsubscribe("hall").await;
    ann.settle().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ann.subscribe("hall").await;
    let left = Instant::now();
    ann.unsubscribe("hall").await;
    receiver.expect(json!({ "name": "channel_vacated", "channel": "hall" })).await;
    assert!(left.elapsed() >= Duration::from_secs(3), "{:?}", left.elapsed());
}

#[tokio::test]
async fn a_second_tab_neither_adds_nor_removes() {
    let mut receiver = Receiver::of_default_app().await;
    let herald = Herald::start(&format!("[[apps]]\n{}", receiver.section(""))).await;
    let [_ann, tab, mut bob] = herald.members("presence-room", ["ann", "ann", "bob"]).await;
    receiver.expect(json!({ "name": "channel_occupied", "channel": "presence-room" })).await;
    receiver.expect(json!({ "name": "member_added", "channel": "presence-room", "user_id": "ann" })).await;
    receiver.expect(json!({ "name": "member_added", "channel": "presence-room", "user_id": "bob" })).await;
    tab.close().await;
    bob.unsubscribe("presence-room").await;
    receiver.expect(json!({ "name": "member_removed", "channel": "presence-room", "user_id": "bob" })).await;
}
