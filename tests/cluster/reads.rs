//! Promise 5: what a backend asks is answered for the whole cluster, the same from every node.

use serde_json::json;

use crate::nodes::Nodes;
use crate::support::{App, Client};

over_both! {
    every_node_lists_the_channels_of_all,
    every_node_says_how_a_channel_is,
    a_trigger_that_asks_is_answered_for_all_nodes,
    connections_of_all_nodes_are_counted,
    a_long_list_is_complete_and_sorted,
}

/// Three nodes, and clients on different ones.
async fn some(url: &str) -> (Nodes, Vec<Client>) {
    let nodes = Nodes::start(url, 3, "[[apps]]\n[[apps]]\nid = \"other\"\nkey = \"other\"\nsecret = \"s\"").await;
    let mut clients = Vec::new();
    for (position, user, channels) in
        [(0, "ann", &["news", "a"] as &[_]), (1, "ann", &["news", "private-ab"]), (2, "bob", &["news", "cache-x"])]
    {
        let mut client = nodes[position].connect().await;
        for channel in channels {
            client.subscribe(channel).await;
        }
        if user == "bob" {
            client.expect("pusher:cache_miss").await;
        }
        client.join("presence-room", user).await;
        clients.push(client);
    }
    (nodes, clients)
}

async fn every_node_lists_the_channels_of_all(url: &str) {
    let (nodes, _clients) = some(url).await;
    let all = json!({ "a": {}, "cache-x": {}, "news": {}, "presence-room": {}, "private-ab": {} });
    nodes.until_all_say("/channels", &[], &json!({ "channels": all })).await;
    let counts = [("filter_by_prefix", "presence-"), ("info", "user_count,subscription_count")];
    let room = json!({ "presence-room": { "user_count": 2, "subscription_count": 3 } });
    nodes.until_all_say("/channels", &counts, &json!({ "channels": room })).await;
    let counts = [("filter_by_prefix", "news"), ("info", "subscription_count")];
    nodes.until_all_say("/channels", &counts, &json!({ "channels": { "news": { "subscription_count": 3 } } })).await;
    for node in &*nodes {
        let other = node.api_of(&App::new("other", "other", "s"));
        assert_eq!(other.get("/channels", &[]).await.ok(), json!({ "channels": {} }), "each app has its own");
    }
}

async fn every_node_says_how_a_channel_is(url: &str) {
    let (nodes, mut clients) = some(url).await;
    let counts = [("info", "user_count,subscription_count")];
    let room = |users: usize, subscriptions: usize| json!({ "occupied": subscriptions > 0, "user_count": users, "subscription_count": subscriptions });
    nodes.until_all_say("/channels/presence-room", &counts, &room(2, 3)).await;
    nodes.until_members_are("presence-room", &["ann", "bob"]).await;
    clients.remove(0).close().await;
    nodes.until_all_say("/channels/presence-room", &counts, &room(2, 2)).await;
    nodes.until_members_are("presence-room", &["ann", "bob"]).await;
    clients.remove(0).cut();
    nodes.until_all_say("/channels/presence-room", &counts, &room(1, 1)).await;
    nodes.until_members_are("presence-room", &["bob"]).await;
    clients.remove(0).unsubscribe("presence-room").await;
    nodes.until_all_say("/channels/presence-room", &counts, &room(0, 0)).await;
    nodes.until_members_are("presence-room", &[]).await;
    let empty = json!({ "occupied": false, "subscription_count": 0 });
    nodes.until_all_say("/channels/nobody", &[("info", "subscription_count")], &empty).await;
}

async fn a_trigger_that_asks_is_answered_for_all_nodes(url: &str) {
    let (nodes, _clients) = some(url).await;
    nodes.until_members_are("presence-room", &["ann", "bob"]).await;
    for api in nodes.apis() {
        let event = json!({
            "name": "e", "channels": ["presence-room", "news"], "data": "", "info": "subscription_count,user_count",
        });
        let counts = json!({
            "presence-room": { "user_count": 2, "subscription_count": 3 }, "news": { "subscription_count": 3 },
        });
        assert_eq!(api.events(&event).await.ok(), json!({ "channels": counts }));
    }
}

async fn connections_of_all_nodes_are_counted(url: &str) {
    let (nodes, mut clients) = some(url).await;
    nodes.until_all_say("/connections", &[], &json!({ "connections": 3 })).await;
    clients.remove(0).close().await;
    nodes.until_all_say("/connections", &[], &json!({ "connections": 2 })).await;
    clients.into_iter().for_each(Client::cut);
    nodes.until_all_say("/connections", &[], &json!({ "connections": 0 })).await;
}

async fn a_long_list_is_complete_and_sorted(url: &str) {
    const CHANNELS: usize = 700;
    let nodes = Nodes::start(url, 2, "").await;
    let mut clients = [nodes[0].connect().await, nodes[1].connect().await];
    for (position, client) in clients.iter_mut().enumerate() {
        for number in (position..CHANNELS).step_by(2) {
            client.send(client.subscription(&format!("many-{number:03}"), None)).await;
        }
        for _ in (position..CHANNELS).step_by(2) {
            client.expect("pusher_internal:subscription_succeeded").await;
        }
    }
    for api in nodes.apis() {
        let answer = api.get("/channels", &[("filter_by_prefix", "many-")]).await.ok();
        let names: Vec<&String> = answer["channels"].as_object().unwrap().keys().collect();
        assert_eq!(
            names,
            (0..CHANNELS).map(|number| format!("many-{number:03}")).collect::<Vec<_>>().iter().collect::<Vec<_>>()
        );
    }
}
