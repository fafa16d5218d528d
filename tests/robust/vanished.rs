//! Peers that vanish without a word (case B4): the network between them and Herald drops every packet.
//!
//! A packet filter on the client's own socket plays the network: what Herald sends is dropped before the client's kernel sees it, so
//! nothing is acknowledged and nothing is reset; a client that says nothing sends nothing either. No privileges are needed for that.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{Client, DEADLINE, Herald};
use crate::{assert_served, eventually};

/// Two seconds until a ping, one for its answer.
const SHORT: &str = "connection = { activity_timeout = \"1s\", activity_grace = \"1s\", pong_timeout = \"1s\" }";

/// When the last trace of the vanished must be gone: both time-outs, and what a loaded machine adds.
const ALL: Duration = Duration::from_secs(3 + 3);

/// What is kept of a connection that could not be told goodbye: until the goodbye's deadline, and the kernel's own time-out.
const DESCRIPTOR: Duration = Duration::from_secs(5 + 3);

/// Reads until the member is gone; every event published meanwhile arrives, in order. Returns how many did.
async fn until_removed(watcher: &mut Client, user: &str, mut next: u64) -> u64 {
    loop {
        let event = watcher.next().await;
        match &*event.event {
            "pusher_internal:member_removed" => {
                assert_eq!(event.json(), json!({ "user_id": user }));
                return next;
            }
            "e" => {
                assert_eq!(event.data(), next.to_string());
                next += 1;
            }
            other => panic!("{other}: {}", event.text),
        }
    }
}

/// Reads, and so answers every ping that reaches it, until it is aborted.
fn alive(mut client: Client) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            client.next_frame_answered().await;
        }
    }))
}

#[tokio::test]
async fn a_member_whose_packets_are_dropped_leaves_within_both_time_outs() {
    let herald = Herald::start(SHORT).await;
    let [mut ann, bob, cid] = herald.members("presence-room", ["ann", "bob", "cid"]).await;
    let descriptors = herald.descriptors_but_the_databases();
    bob.drop_packets();
    let start = Instant::now();
    let _both = [bob, cid].map(alive);
    timeout(DEADLINE, until_removed(&mut ann, "bob", 0)).await.expect("it leaves");
    let elapsed = start.elapsed();
    assert!(elapsed > Duration::from_secs(2) && elapsed < ALL, "{elapsed:?}");
    // Who is there stays, the silent one that answers as well as the one that speaks.
    while herald.descriptors_but_the_databases() >= descriptors {
        assert_served(&herald, &mut ann, "presence-room").await;
        assert!(start.elapsed() < ALL + DESCRIPTOR, "its descriptor is still in use");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let members = herald.api().get("/channels/presence-room/users", &[]).await.ok();
    assert_eq!(members, json!({ "users": [{ "id": "ann" }, { "id": "cid" }] }));
}

#[tokio::test]
async fn a_member_that_vanishes_with_data_in_flight_leaves_within_both_time_outs() {
    join_all([10, 10_000].map(vanishes_while_events_flow)).await;
}

async fn vanishes_while_events_flow(size: usize) {
    let herald = Herald::start(SHORT).await;
    let [mut ann, mut bob] = herald.members("presence-room", ["ann", "bob"]).await;
    let descriptors = herald.descriptors_but_the_databases();
    let flood = json!({ "name": "flood", "channel": "flood", "data": "x".repeat(size) });
    bob.subscribe("flood").await;
    herald.api().events(&flood).await.ok();
    bob.expect("flood").await;
    bob.drop_packets();
    let start = Instant::now();
    let _bob = alive(bob);
    // What flows to it from now on is never acknowledged; what flows to the other goes on.
    let (api, mut sent) = (herald.api(), 0_u64);
    let flowing = async {
        loop {
            api.events(&flood).await.ok();
            api.trigger("presence-room", "e", sent.to_string()).await;
            sent += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = tokio::select! {
        () = flowing => unreachable!("it flows on"),
        seen = timeout(DEADLINE, until_removed(&mut ann, "bob", 0)) => seen.expect("it leaves"),
    };
    let elapsed = start.elapsed();
    assert!(elapsed > Duration::from_secs(2) && elapsed < ALL, "with {size} bytes an event it took {elapsed:?}");
    assert!(seen > 10, "the other was served meanwhile: {seen}");
    // One request may have been under way.
    eventually("its descriptor is free", async || herald.descriptors_but_the_databases(), |now| *now < descriptors)
        .await;
    assert!(start.elapsed() < ALL + DESCRIPTOR, "{:?}", start.elapsed());
}
