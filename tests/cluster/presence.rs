//! Promise 3: who is a member is a fact of the cluster; a snapshot and the events after it never disagree.

use futures_util::future::join_all;
use serde_json::json;

use crate::nodes::Nodes;
use crate::observer::{Observer, ids};
use crate::support::{Client, Herald};

over_both! {
    a_user_with_tabs_on_three_nodes_is_one_member,
    the_info_of_the_first_is_shown_while_the_user_stays_on_any_node,
    snapshots_and_events_never_disagree_while_everybody_comes_and_goes,
    a_room_is_full_when_it_is_full_over_all_nodes,
}

const ROOM: &str = "presence-room";

async fn member(node: &Herald, user: &str) -> Client {
    let mut client = node.connect().await;
    client.join(ROOM, user).await;
    client
}

async fn a_user_with_tabs_on_three_nodes_is_one_member(url: &str) {
    let nodes = Nodes::start(url, 3, "").await;
    let mut observers = Observer::one_a_node(&nodes, ROOM, ["ann", "bob", "cid"]).await;
    let mut tabs = Vec::new();
    for node in nodes.iter().chain(nodes.iter()) {
        tabs.push(member(node, "dan").await);
    }
    nodes.until_members_are(ROOM, &["ann", "bob", "cid", "dan"]).await;
    let last = tabs.pop().unwrap();
    join_all(tabs.into_iter().map(Client::close)).await;
    nodes
        .until_all_say(
            "/channels/presence-room",
            &[("info", "subscription_count")],
            &json!({ "occupied": true, "subscription_count": 4 }),
        )
        .await;
    for (position, observer) in observers.iter_mut().enumerate() {
        observer.catch_up(&nodes[(position + 1) % 3]).await;
        assert_eq!(observer.told(), ["+dan"], "came once, and is still there");
    }
    last.close().await;
    for (position, observer) in observers.iter_mut().enumerate() {
        observer.until(["ann", "bob", "cid"]).await;
        observer.catch_up(&nodes[(position + 1) % 3]).await;
        assert_eq!(observer.told(), ["-dan"], "left once");
    }
    nodes.until_members_are(ROOM, &["ann", "bob", "cid"]).await;
}

async fn the_info_of_the_first_is_shown_while_the_user_stays_on_any_node(url: &str) {
    let nodes = Nodes::start(url, 3, "").await;
    let mut ann = member(&nodes[2], "ann").await;
    let mut tabs = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        let mut tab = node.connect().await;
        let answer = tab.join_with(ROOM, &json!({ "user_id": "bob", "user_info": number })).await;
        assert_eq!(answer.json()["presence"]["hash"]["bob"], 0, "on node {number}");
        tabs.push(tab);
    }
    assert_eq!(ann.expect("pusher_internal:member_added").await.json(), json!({ "user_id": "bob", "user_info": 0 }));
    tabs.remove(0).close().await; // the first writer leaves, its info stays
    let answer = nodes[0].connect().await.join(ROOM, "cid").await;
    assert_eq!(answer.json()["presence"]["hash"]["bob"], 0);
    for _ in ["cid came", "cid left"] {
        ann.next().await;
    }
    join_all(tabs.into_iter().map(Client::close)).await;
    ann.expect("pusher_internal:member_removed").await;
    let mut bob = nodes[1].connect().await;
    let answer = bob.join_with(ROOM, &json!({ "user_id": "bob", "user_info": "new" })).await;
    assert_eq!(answer.json()["presence"]["hash"]["bob"], "new");
    assert_eq!(ann.expect("pusher_internal:member_added").await.json()["user_info"], "new");
}

async fn snapshots_and_events_never_disagree_while_everybody_comes_and_goes(url: &str) {
    const ROUNDS: usize = 15;
    let nodes = Nodes::start(url, 3, "").await;
    let mut observers = Observer::one_a_node(&nodes, ROOM, ["ann", "bob", "cid"]).await;
    // Users that change places all the time; each round another observer joins in the middle of it and must not be contradicted.
    let restless = join_all((0..6).map(async |number| {
        let user = format!("user-{}", number / 2);
        for round in 0..ROUNDS {
            member(&nodes[(number + round) % 3], &user).await.close().await;
        }
    }));
    let latecomers = join_all((0..3).map(async |position: usize| {
        let mut late = Vec::new();
        for round in 0..ROUNDS {
            late.push(Observer::join(&nodes[position], ROOM, &format!("late-{position}-{round}")).await);
        }
        late
    }));
    let ((), late) = tokio::join!(async { _ = restless.await }, latecomers);
    let mut everybody = vec!["ann".to_owned(), "bob".to_owned(), "cid".to_owned()];
    everybody.extend((0..3).flat_map(|position| (0..ROUNDS).map(move |round| format!("late-{position}-{round}"))));
    let everybody: Vec<&str> = everybody.iter().map(String::as_str).collect();
    nodes.until_members_are(ROOM, &everybody).await;
    let mut late: Vec<Observer> = late.into_iter().flatten().collect();
    for observer in observers.iter_mut().chain(&mut late) {
        observer.catch_up(&nodes[0]).await; // in the middle of it the list may have been the same by chance
        observer.until(everybody.iter().copied()).await;
        observer.told();
    }
    for observer in observers.iter_mut().chain(&mut late) {
        observer.catch_up(&nodes[1]).await;
        assert_eq!(observer.told(), [""; 0], "it stays so");
    }
    let snapshot = nodes[0].connect().await.join(ROOM, "ann").await;
    assert!(ids(&snapshot).iter().eq(&observers[0].list));
}

async fn a_room_is_full_when_it_is_full_over_all_nodes(url: &str) {
    let nodes = Nodes::start(url, 3, "[[apps]]\nlimits.presence_members = 3").await;
    let mut clients = Vec::new();
    for (node, user) in nodes.iter().zip(["ann", "bob", "cid"]) {
        clients.push(member(node, user).await);
    }
    for node in &*nodes {
        let mut dan = node.connect().await;
        dan.ask_to_join(ROOM, &json!({ "user_id": "dan" })).await;
        let (kind, status, _) = dan.expect_subscription_error(ROOM).await;
        assert_eq!((&*kind, status), ("LimitReached", 4100));
        clients.push(member(node, "ann").await); // who is a member may have further tabs
    }
    nodes.until_members_are(ROOM, &["ann", "bob", "cid"]).await;
    clients.remove(1).close().await;
    nodes.until_members_are(ROOM, &["ann", "cid"]).await;
    member(&nodes[0], "dan").await;
}
