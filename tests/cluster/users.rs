//! Users over all nodes: what is sent to one, the end of one's connections, and who watches whom.

use serde_json::{Value, json};

use crate::nodes::{IMPATIENT, Nodes};
use crate::support::{Client, Herald};

over_both! {
    what_is_sent_to_a_user_reaches_its_sockets_on_every_node,
    a_terminated_user_is_closed_on_every_node_and_may_come_back,
    who_watches_is_told_of_the_first_and_the_last_connection_of_all_nodes,
    who_comes_back_to_another_node_was_never_away,
    who_was_on_a_node_that_died_goes_offline,
}

async fn signed_in(node: &Herald, user: &str) -> Client {
    let mut client = node.connect().await;
    client.sign_in(user).await;
    client
}

async fn what_is_sent_to_a_user_reaches_its_sockets_on_every_node(url: &str) {
    let nodes = Nodes::start(url, 3, "").await;
    let mut tabs = Vec::new();
    for node in &*nodes {
        let mut tab = signed_in(node, "ann").await;
        tab.subscribe("#server-to-user-ann").await;
        tabs.push(tab);
    }
    let mut bob = signed_in(&nodes[1], "bob").await;
    bob.subscribe("#server-to-user-bob").await;
    for (number, node) in nodes.iter().enumerate() {
        node.trigger("#server-to-user-ann", "hello", number.to_string()).await;
        for tab in &mut tabs {
            let event = tab.expect("hello").await;
            assert_eq!(event.channel.as_deref(), Some("#server-to-user-ann"));
            assert_eq!(event.data(), number.to_string());
        }
    }
    nodes[0].trigger("#server-to-user-bob", "end", "").await;
    bob.expect("end").await;
}

async fn a_terminated_user_is_closed_on_every_node_and_may_come_back(url: &str) {
    let nodes = Nodes::start(url, 3, "").await;
    for node in &*nodes {
        let mut tabs = Vec::new();
        for place in &*nodes {
            tabs.push(signed_in(place, "ann/1").await);
        }
        let mut bob = signed_in(&nodes[2], "bob").await;
        assert_eq!(node.api().post("/users/ann%2F1/terminate_connections", "{}").await.ok(), json!({}));
        for tab in &mut tabs {
            tab.expect_refusal(4009).await;
        }
        bob.settle().await;
    }
}

/// The changes of a `pusher_internal:watchlist_events`, each `+user` for online and `-user` for offline, sorted.
async fn changes(client: &mut Client) -> Vec<String> {
    let event = client.expect("pusher_internal:watchlist_events").await;
    let mut changes = Vec::new();
    for state in event.json()["events"].as_array().unwrap() {
        let sign = if state["name"] == "online" { '+' } else { '-' };
        let users = state["user_ids"].as_array().unwrap().iter().map(Value::as_str);
        changes.extend(users.map(|user| format!("{sign}{}", user.unwrap())));
    }
    changes.sort();
    changes
}

async fn watching(node: &Herald, user: &str, watchlist: &[&str]) -> Client {
    let mut client = node.connect().await;
    client.ask_to_sign_in(&json!({ "id": user, "watchlist": watchlist })).await;
    client.expect("pusher:signin_success").await;
    client
}

async fn who_watches_is_told_of_the_first_and_the_last_connection_of_all_nodes(url: &str) {
    let nodes = Nodes::start(url, 3, "").await;
    let bob = signed_in(&nodes[1], "bob").await;
    let mut ann = watching(&nodes[0], "ann", &["bob", "cid"]).await;
    assert_eq!(changes(&mut ann).await, ["+bob", "-cid"], "how it is at the start");
    let cid = signed_in(&nodes[2], "cid").await;
    assert_eq!(changes(&mut ann).await, ["+cid"]);
    let tab = signed_in(&nodes[2], "bob").await;
    bob.close().await;
    cid.close().await;
    assert_eq!(changes(&mut ann).await, ["-cid"], "bob left earlier, but has another tab on another node");
    tab.close().await;
    assert_eq!(changes(&mut ann).await, ["-bob"]);
    ann.settle().await;
}

async fn who_comes_back_to_another_node_was_never_away(url: &str) {
    let nodes = Nodes::start(url, 3, "").await;
    let (bob, cid) = (signed_in(&nodes[1], "bob").await, signed_in(&nodes[1], "cid").await);
    let mut ann = watching(&nodes[0], "ann", &["bob", "cid"]).await;
    assert_eq!(changes(&mut ann).await, ["+bob", "+cid"]);
    bob.close().await;
    let _bob = signed_in(&nodes[2], "bob").await;
    cid.close().await;
    assert_eq!(changes(&mut ann).await, ["-cid"]);
    ann.settle().await;
}

async fn who_was_on_a_node_that_died_goes_offline(url: &str) {
    let mut nodes = Nodes::start(url, 3, IMPATIENT).await;
    let _bob = signed_in(&nodes[1], "bob").await;
    let (_tab, _other_tab) = (signed_in(&nodes[1], "cid").await, signed_in(&nodes[2], "cid").await);
    let mut ann = watching(&nodes[0], "ann", &["bob", "cid"]).await;
    assert_eq!(changes(&mut ann).await, ["+bob", "+cid"]);
    nodes[1].kill();
    assert_eq!(changes(&mut ann).await, ["-bob"]);
    ann.settle().await;
}
