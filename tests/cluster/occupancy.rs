//! Promise 2: whether anybody is on a channel is a fact of the cluster, told once.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::nodes::Nodes;
use crate::receiver::Receiver;
use crate::support::{Client, Herald};

over_both! {
    a_channel_is_occupied_by_the_first_and_vacated_by_the_last_of_all_nodes,
    nothing_is_told_while_somebody_is_left_on_another_node,
    coming_back_to_another_node_within_the_grace_is_silent,
    subscribers_of_all_nodes_are_counted,
    a_crowd_that_comes_and_goes_at_once_is_counted_exactly,
}

fn occupied(channel: &str) -> Value {
    json!({ "name": "channel_occupied", "channel": channel })
}

fn vacated(channel: &str) -> Value {
    json!({ "name": "channel_vacated", "channel": channel })
}

/// Three nodes that tell a backend what happens.
async fn reporting(url: &str) -> (Receiver, Nodes) {
    let receiver = Receiver::of_default_app().await;
    let nodes = Nodes::start(url, 3, &format!("[[apps]]\n{}", receiver.section(""))).await;
    (receiver, nodes)
}

/// A client on each node that has come to this channel, all at once.
async fn come(nodes: &Nodes, channel: &str) -> Vec<Client> {
    join_all(nodes.iter().map(async |node| {
        let mut client = node.connect().await;
        client.subscribe(channel).await;
        client
    }))
    .await
}

async fn a_channel_is_occupied_by_the_first_and_vacated_by_the_last_of_all_nodes(url: &str) {
    let (mut receiver, nodes) = reporting(url).await;
    for _ in 0..2 {
        let clients = come(&nodes, "hall").await;
        receiver.expect(occupied("hall")).await;
        join_all(clients.into_iter().map(Client::close)).await;
        let left = Instant::now();
        receiver.expect(vacated("hall")).await; // one more of either would have come before the next
        assert!(left.elapsed() >= Duration::from_millis(2_900), "after a grace: {:?}", left.elapsed());
    }
}

async fn nothing_is_told_while_somebody_is_left_on_another_node(url: &str) {
    let (mut receiver, nodes) = reporting(url).await;
    let mut clients = come(&nodes, "hall").await;
    receiver.expect(occupied("hall")).await;
    let mut last = clients.pop().unwrap();
    join_all(clients.into_iter().map(Client::close)).await;
    // A departure that began later, of the same grace: when it is told, the others would have been.
    let [later] = &mut *come_to(&nodes[0], "elsewhere").await else { panic!("one client") };
    receiver.expect(occupied("elsewhere")).await;
    later.unsubscribe("elsewhere").await;
    receiver.expect(vacated("elsewhere")).await;
    last.unsubscribe("hall").await;
    receiver.expect(vacated("hall")).await;
}

async fn come_to(node: &Herald, channel: &str) -> Vec<Client> {
    let mut client = node.connect().await;
    client.subscribe(channel).await;
    vec![client]
}

async fn coming_back_to_another_node_within_the_grace_is_silent(url: &str) {
    let (mut receiver, nodes) = reporting(url).await;
    let mut client = nodes[0].connect().await;
    client.join("presence-room", "ann").await;
    receiver.expect(occupied("presence-room")).await;
    receiver.expect(json!({ "name": "member_added", "channel": "presence-room", "user_id": "ann" })).await;
    client.close().await;
    let mut client = nodes[1].connect().await;
    client.join("presence-room", "ann").await;
    let mut passer_by = nodes[2].connect().await;
    passer_by.subscribe("elsewhere").await;
    receiver.expect(occupied("elsewhere")).await;
    passer_by.unsubscribe("elsewhere").await;
    receiver.expect(vacated("elsewhere")).await;
    client.unsubscribe("presence-room").await;
    receiver.expect(json!({ "name": "member_removed", "channel": "presence-room", "user_id": "ann" })).await;
    receiver.expect(vacated("presence-room")).await;
}

async fn subscribers_of_all_nodes_are_counted(url: &str) {
    let nodes = Nodes::start(url, 3, "[[apps]]\nsubscription_count = true").await;
    let mut clients: Vec<Client> = Vec::new();
    for node in &*nodes {
        let mut client = node.connect().await;
        client.subscribe("news").await;
        clients.push(client);
        let count = clients.len();
        for client in &mut clients {
            until_counted(client, count).await;
        }
    }
    clients.pop().unwrap().close().await;
    for client in &mut clients {
        until_counted(client, 2).await;
    }
    nodes.until_all_say("/channels/news", &[("info", "subscription_count")], &counted(2)).await;
}

fn counted(count: usize) -> Value {
    json!({ "occupied": true, "subscription_count": count })
}

/// Reads until the client is told that there are so many; changes close to each other may be told as one.
async fn until_counted(client: &mut Client, count: usize) {
    loop {
        let event = client.expect("pusher_internal:subscription_count").await;
        if event.json()["subscription_count"] == count {
            return;
        }
    }
}

async fn a_crowd_that_comes_and_goes_at_once_is_counted_exactly(url: &str) {
    const CROWD: usize = 60;
    let nodes = Nodes::start(url, 3, "").await;
    let info = [("info", "subscription_count")];
    let mut crowd = join_all((0..CROWD).map(async |number| {
        let mut client = nodes[number % 3].connect().await;
        client.subscribe("news").await;
        client
    }))
    .await;
    nodes.until_all_say("/channels/news", &info, &counted(CROWD)).await;
    let staying = crowd.split_off(CROWD / 2);
    join_all(crowd.into_iter().map(Client::close)).await;
    nodes.until_all_say("/channels/news", &info, &counted(CROWD / 2)).await;
    staying.into_iter().for_each(Client::cut);
    let nobody = json!({ "occupied": false, "subscription_count": 0 });
    nodes.until_all_say("/channels/news", &info, &nobody).await;
    nodes.until_all_say("/channels", &[], &json!({ "channels": {} })).await;
}
