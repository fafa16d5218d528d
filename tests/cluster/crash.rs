//! Promise 4: a node that dies takes what its connections held with it, and one that only slept comes back as if it were new.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::nodes::{IMPATIENT, Nodes, members, until_members_are, until_says};
use crate::observer::Observer;
use crate::receiver::Receiver;
use crate::redis::Redis;
use crate::support::{Client, Herald};

over_both! {
    a_node_that_ends_in_order_takes_its_members_along_at_once,
    a_node_that_slept_too_long_comes_back_with_all_it_has,
    a_node_that_slept_a_little_has_lost_nothing,
    the_last_node_may_die_and_a_new_one_finds_no_ghosts,
    webhooks_of_a_node_that_died_are_told_by_another_in_their_order,
}

const ROOM: &str = "presence-room";
const REAPED: &str = "herald_cluster_reaped_nodes_total";

async fn member(node: &Herald, user: &str) -> Client {
    let mut client = node.connect().await;
    client.join(ROOM, user).await;
    client
}

/// Waits until a node sees this many members, for as long as a node may count as alive.
async fn until_there_are(node: &Herald, count: usize, within: Duration) {
    let (api, start) = (node.api(), Instant::now());
    loop {
        let found = members(&api, ROOM).await;
        if found.as_array().is_some_and(|users| users.len() == count) {
            return;
        }
        assert!(start.elapsed() < within, "{count} are left within {within:?}; there are: {found}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// With the time-outs that a cluster has by default.
#[tokio::test]
async fn two_hundred_members_of_a_node_that_dies_leave_once_each() {
    const CROWD: usize = 200;
    let redis = Redis::start();
    let mut receiver = Receiver::of_default_app().await;
    let defaults = "cluster.heartbeat = \"5s\"\ncluster.node_timeout = \"15s\"\nconnection.activity_timeout = \"5m\"";
    let events = "events = [\"channel_vacated\", \"member_removed\"]";
    let config = format!("{defaults}\n[[apps]]\n{}", receiver.section(events));
    let mut nodes = Nodes::start(&redis.url(), 3, &config).await;
    let mut observers = [Observer::join(&nodes[1], ROOM, "ann").await, Observer::join(&nodes[2], ROOM, "bob").await];
    let users: Vec<String> = (0..CROWD).map(|number| format!("user-{number:03}")).collect();
    let crowd = join_all(users.iter().map(|user| member(&nodes[0], user))).await;
    let _tab = member(&nodes[1], "user-000").await; // one of them has a tab elsewhere, and stays
    let mut alone = nodes[0].connect().await;
    alone.subscribe("hall").await;
    let everybody = || ["ann", "bob"].into_iter().chain(users.iter().map(String::as_str));
    for observer in &mut observers {
        observer.until(everybody()).await;
        observer.told();
    }

    nodes[0].kill();
    let died = Instant::now();
    drop((crowd, alone));
    let limit = Duration::from_secs(20);
    until_there_are(&nodes[1], 3, limit).await;
    for (observer, other) in observers.iter_mut().zip([2, 1]) {
        observer.until(["ann", "bob", "user-000"]).await;
        assert!(died.elapsed() < limit, "{:?}", died.elapsed());
        observer.catch_up(&nodes[other]).await;
        let told = observer.told();
        assert_eq!(told.len(), CROWD - 1, "once each: {told:?}");
        assert!(told.iter().all(|change| change.starts_with('-')), "{told:?}");
    }
    for node in &nodes[1..] {
        until_members_are(&node.api(), ROOM, &["ann", "bob", "user-000"]).await;
        let nobody = json!({ "occupied": false, "subscription_count": 0 });
        until_says(&node.api(), "/channels/hall", &[("info", "subscription_count")], &nobody).await;
    }
    assert_eq!(nodes.sum([1, 2], REAPED).await, 1, "one of the survivors has cleaned up");

    let (mut removed, mut vacated) = (BTreeSet::new(), 0);
    while removed.len() < CROWD - 1 || vacated == 0 {
        let event = receiver.event().await;
        if event["name"] == "channel_vacated" {
            assert_eq!(event["channel"], "hall", "nobody else's channel is empty");
            vacated += 1;
        } else {
            assert_eq!((&event["name"], &event["channel"]), (&json!("member_removed"), &json!(ROOM)));
            assert!(removed.insert(event["user_id"].as_str().unwrap().to_owned()), "told twice: {event}");
        }
    }
    assert_eq!(vacated, 1);
    assert!(!removed.contains("user-000"));
}

async fn a_node_that_ends_in_order_takes_its_members_along_at_once(url: &str) {
    // Nobody could find out in time that it is dead: that they are gone, it has said itself.
    let patient = "cluster.heartbeat = \"10s\"\ncluster.node_timeout = \"60s\"";
    let mut nodes = Nodes::start(url, 3, patient).await;
    let mut ann = Observer::join(&nodes[1], ROOM, "ann").await;
    let _crowd = join_all(["bob", "cid", "dan"].map(|user| member(&nodes[0], user))).await;
    ann.until(["ann", "bob", "cid", "dan"]).await;
    nodes[0].terminate();
    ann.until(["ann"]).await;
    assert!(nodes[0].ended().await.success());
    for node in &nodes[1..] {
        until_members_are(&node.api(), ROOM, &["ann"]).await;
        until_says(&node.api(), "/connections", &[], &json!({ "connections": 1 })).await;
    }
    assert_eq!(nodes.sum([1, 2], REAPED).await, 0, "there was nothing to clean up");
}

async fn a_node_that_slept_too_long_comes_back_with_all_it_has(url: &str) {
    let nodes = Nodes::start(url, 3, IMPATIENT).await;
    let (mut ann, mut bob) =
        (Observer::join(&nodes[0], ROOM, "ann").await, Observer::join(&nodes[1], ROOM, "bob").await);
    let _tab = member(&nodes[0], "bob").await;
    let mut plain = nodes[0].connect().await;
    plain.subscribe("news").await;
    ann.until(["ann", "bob"]).await;
    bob.until(["ann", "bob"]).await;
    for round in 0..2 {
        nodes[0].pause();
        bob.until(["bob"]).await;
        until_members_are(&nodes[2].api(), ROOM, &["bob"]).await;
        let cid = member(&nodes[2], "cid").await;
        bob.until(["bob", "cid"]).await;
        nodes[0].resume();
        bob.until(["ann", "bob", "cid"]).await;
        ann.until(["ann", "bob", "cid"]).await;
        nodes.until_members_are(ROOM, &["ann", "bob", "cid"]).await;
        let count = json!({ "occupied": true, "user_count": 3, "subscription_count": 4 });
        let info = [("info", "user_count,subscription_count")];
        nodes.until_all_say("/channels/presence-room", &info, &count).await;
        let count = json!({ "channels": { "news": { "subscription_count": 1 } } });
        nodes.until_all_say("/channels", &[("filter_by_prefix", "news"), ("info", "subscription_count")], &count).await;
        nodes[1].trigger("news", "after", round.to_string()).await;
        assert_eq!(
            plain.expect("after").await.data(),
            round.to_string(),
            "what it missed asleep is lost, not repeated"
        );
        cid.close().await;
        ann.until(["ann", "bob"]).await;
        bob.until(["ann", "bob"]).await;
        ann.catch_up(&nodes[1]).await;
        assert!(!ann.told().iter().any(|change| change.ends_with("ann")), "a member is not told of itself");
    }
    assert!(nodes.sum([1, 2], REAPED).await >= 2);
}

async fn a_node_that_slept_a_little_has_lost_nothing(url: &str) {
    let patient = "cluster.heartbeat = \"1s\"\ncluster.node_timeout = \"10s\"";
    let nodes = Nodes::start(url, 2, patient).await;
    let mut ann = Observer::join(&nodes[0], ROOM, "ann").await;
    let mut bob = Observer::join(&nodes[1], ROOM, "bob").await;
    ann.until(["ann", "bob"]).await;
    ann.told();
    nodes[0].pause();
    nodes[1].trigger(ROOM, "meanwhile", "").await;
    let cid = member(&nodes[1], "cid").await;
    cid.close().await;
    bob.until(["ann", "bob", "cid"]).await;
    bob.until(["ann", "bob"]).await;
    nodes[0].resume();
    ann.client.expect("meanwhile").await;
    ann.until(["ann", "bob", "cid"]).await;
    ann.until(["ann", "bob"]).await;
    ann.catch_up(&nodes[1]).await;
    bob.catch_up(&nodes[0]).await;
    assert_eq!(
        (ann.told(), bob.told()),
        (vec!["+cid".to_owned(), "-cid".to_owned()], vec!["+cid".into(), "-cid".into()])
    );
    assert_eq!(nodes.sum([0, 1], REAPED).await, 0);
}

async fn the_last_node_may_die_and_a_new_one_finds_no_ghosts(url: &str) {
    let mut nodes = Nodes::start(url, 1, IMPATIENT).await;
    let _crowd = join_all(["ann", "bob"].map(|user| member(&nodes[0], user))).await;
    nodes[0].kill();
    nodes.replace(0).await;
    let mut cid = Observer::join(&nodes[0], ROOM, "cid").await;
    cid.until(["cid"]).await;
    nodes.until_members_are(ROOM, &["cid"]).await;
    let channels = json!({ "channels": { "presence-room": { "user_count": 1, "subscription_count": 1 } } });
    let info = [("filter_by_prefix", "presence-"), ("info", "user_count,subscription_count")];
    nodes.until_all_say("/channels", &info, &channels).await;
    nodes.until_all_say("/connections", &[], &json!({ "connections": 1 })).await;
}

async fn webhooks_of_a_node_that_died_are_told_by_another_in_their_order(url: &str) {
    let mut receiver = Receiver::of_default_app().await;
    let mut nodes = Nodes::start(url, 3, &format!("{IMPATIENT}[[apps]]\n{}", receiver.section(""))).await;
    let mut clients = Vec::new();
    for node in &*nodes {
        let mut client = node.connect().await;
        client.join(ROOM, "ann").await;
        clients.push(client);
    }
    let event = |name: &str| json!({ "name": name, "channel": ROOM });
    let of = |name: &str, user: &str| -> Value { json!({ "name": name, "channel": ROOM, "user_id": user }) };
    let mut told = Vec::new();
    // At least once: what the dead one had delivered without noting it comes again, after which all goes on in its order.
    let mut expect = async |expected: Value| {
        told.push(expected.clone());
        loop {
            let event = receiver.event().await;
            if event == expected {
                return;
            }
            assert!(told.contains(&event), "{event} was not to come before {expected}");
        }
    };
    expect(event("channel_occupied")).await;
    expect(of("member_added", "ann")).await;
    nodes[0].kill();
    nodes[1].kill();
    let mut bob = nodes[2].connect().await;
    bob.join(ROOM, "bob").await;
    expect(of("member_added", "bob")).await; // whoever looked after the webhooks may be dead
    until_members_are(&nodes[2].api(), ROOM, &["ann", "bob"]).await;
    let counted = json!({ "occupied": true, "subscription_count": 2 });
    until_says(&nodes[2].api(), "/channels/presence-room", &[("info", "subscription_count")], &counted).await;
    let mut ann = clients.pop().unwrap();
    ann.unsubscribe(ROOM).await;
    expect(of("member_removed", "ann")).await;
    bob.unsubscribe(ROOM).await;
    expect(of("member_removed", "bob")).await;
    expect(event("channel_vacated")).await;
}
