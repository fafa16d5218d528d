//! An app's limits hold over all its nodes.

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::timeout;

use crate::nodes::{IMPATIENT, Nodes};
use crate::support::{Client, DEADLINE, Herald};

over_both! {
    connections_of_an_app_are_limited_over_all_nodes,
    a_node_that_died_gives_its_places_back,
    events_a_second_are_limited_over_all_nodes,
}

const PATH: &str = "/app/app-key?protocol=7";

async fn connections_of_an_app_are_limited_over_all_nodes(url: &str) {
    let nodes = Nodes::start(url, 3, "[[apps]]\nmax_connections = 3").await;
    let mut clients = join_all(nodes.iter().map(Herald::connect)).await;
    nodes.until_all_say("/connections", &[], &json!({ "connections": 3 })).await;
    for node in &*nodes {
        node.open(PATH).await.expect_refusal(4100).await;
    }
    clients.remove(2).close().await;
    timeout(DEADLINE, back_in(&nodes[0])).await.expect("a place that was given back on another node is free");
}

/// Connects as a client that was refused with 4100 does: again, until there is room.
async fn back_in(node: &Herald) -> Client {
    loop {
        let mut client = node.open(PATH).await;
        if client.next().await.event == "pusher:connection_established" {
            return client;
        }
    }
}

async fn a_node_that_died_gives_its_places_back(url: &str) {
    let mut nodes = Nodes::start(url, 2, &format!("{IMPATIENT}[[apps]]\nmax_connections = 2")).await;
    let _clients = join_all([nodes[1].connect(), nodes[1].connect()]).await;
    nodes.until_all_say("/connections", &[], &json!({ "connections": 2 })).await;
    nodes[0].open(PATH).await.expect_refusal(4100).await;
    nodes[1].kill();
    timeout(DEADLINE, back_in(&nodes[0])).await.expect("the places of a dead node are free");
}

async fn events_a_second_are_limited_over_all_nodes(url: &str) {
    const LIMIT: usize = 5;
    let limits = format!("[[apps]]\nlimits.events_per_second = {LIMIT}\nlimits.reads_per_second = {LIMIT}");
    let nodes = Nodes::start(url, 3, &limits).await;
    let apis = nodes.apis();
    let event = json!({ "name": "e", "channel": "news", "data": "" });
    let triggers = join_all((0..30).map(|number| apis[number % 3].events(&event))).await;
    let reads = join_all((0..30).map(|number| apis[number % 3].get("/connections", &[]))).await;
    for answers in [triggers, reads] {
        let (allowed, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        // A limit of each node for itself would allow three times as many at once.
        assert!((LIMIT..3 * LIMIT).contains(&allowed.len()), "{} were allowed", allowed.len());
        for answer in refused {
            assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (429, "1"), "{answer:?}");
        }
    }
    let allowed = async { while apis[2].events(&event).await.status == 429 {} };
    timeout(DEADLINE, allowed).await.expect("a second later all of it is there again");
}
