//! An app's limits hold over all its nodes.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::nodes::{IMPATIENT, Nodes};
use crate::postgres::Postgres;
use crate::proxy::{Proxy, Way};
use crate::redis::Redis;
use crate::support::{App, Client, DEADLINE, Herald};
use crate::user::{ask, auth};

over_both! {
    connections_of_an_app_are_limited_over_all_nodes,
    a_node_that_died_gives_its_places_back,
    events_a_second_are_limited_over_all_nodes,
    fifty_callers_on_two_nodes_get_exactly_what_the_limit_allows,
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

/// Nodes with inboxes in one database, and these limits.
fn with_inboxes(database: &Postgres, limits: &str) -> String {
    format!(
        "metrics.listen = \"127.0.0.1:0\"\n[database]\nurl = \"{}\"\nschema = \"{}\"\n{}[limits]\n{limits}",
        database.url,
        database.schema,
        auth("")
    )
}

/// How many of so many reads, spread over all nodes at once, are served.
async fn served(nodes: &[Herald], reads: usize) -> usize {
    let read = |number: usize| ask(&nodes[number % nodes.len()], "ann", "GET", "/v1/inbox/counts", &Value::Null);
    let answers = join_all((0..reads).map(read)).await;
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 429)), "{answers:?}");
    served
}

async fn fifty_callers_on_two_nodes_get_exactly_what_the_limit_allows(url: &str) {
    const LIMIT: usize = 30;
    let database = Postgres::start().await;
    // A day, so that not one more becomes due meanwhile; and time for a busy machine to count.
    let limits = format!("inbox_reads = \"{LIMIT}/d\"\nredis_timeout = \"5s\"");
    let nodes = Nodes::start(url, 2, &with_inboxes(&database, &limits)).await;
    assert_eq!(served(&nodes, 50).await, LIMIT);
    assert_eq!(served(&nodes, 50).await, 0);
    for node in &*nodes {
        assert!(node.metrics().await.contains("herald_rate_limit_redis_errors_total 0"));
    }
}

#[tokio::test]
async fn no_limit_is_ever_remembered_without_an_end() {
    let (database, redis) = (Postgres::start().await, Redis::start());
    let limits = "inbox_reads = \"5/s\"\nfailed_auth = \"7/s\"\nconnections = \"9/s\"\nservers = \"3/s\"";
    let config = with_inboxes(&database, &format!("{limits}\n[[apps]]\nlimits.events_per_second = 4"));
    let mut nodes = Nodes::start(&redis.url(), 2, &config).await;
    let keys =
        || -> Vec<String> { redis.cli(&["--scan", "--pattern", "*:rate:*"]).lines().map(str::to_owned).collect() };
    let mut seen = BTreeSet::new();
    let mut look = || {
        for key in keys() {
            let left = redis.cli(&["PTTL", &key]);
            assert_ne!(left.trim(), "-1", "{key} stays for ever");
            seen.insert(key);
        }
    };
    for round in 0..10 {
        let event = json!({ "name": "e", "channel": "news", "data": "" });
        let wrong = App::new("app-id", "app-key", "wrong");
        let alive = if round > 5 { 1 } else { 2 };
        let each = nodes.iter().take(alive).map(|node| async {
            ask(node, "ann", "GET", "/v1/inbox/counts", &Value::Null).await;
            node.api().events(&event).await;
            node.api_of(&wrong).events(&event).await;
            node.api().get("/notifications/none", &[]).await;
            node.open(PATH).await
        });
        let clients = join_all(each).await;
        look();
        drop(clients);
        if round == 5 {
            nodes[1].kill(); // in the midst of it
        }
    }
    assert!(seen.len() >= 4, "there was something to look at: {seen:?}");
    let gone = async {
        while !redis.cli(&["--scan", "--pattern", "*:rate:*"]).trim().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(DEADLINE, gone).await.expect("they go by themselves");
}

#[tokio::test]
async fn while_redis_is_silent_each_node_lets_its_share_through() {
    let (database, redis) = (Postgres::start().await, Redis::start());
    let proxy = Proxy::to(&redis.address()).await;
    let limits = with_inboxes(&database, "inbox_reads = \"20/d\"\nredis_timeout = \"200ms\"");
    let nodes = Nodes::start_each(&[&proxy.url(), &redis.url()], &limits).await;
    let heard = async { while !nodes[0].metrics().await.contains("herald_cluster_nodes 2\n") {} };
    timeout(DEADLINE, heard).await.expect("the first node hears of the second");
    proxy.set(Way::Stalled);
    assert_eq!(served(&nodes[..1], 30).await, 10, "half of the limit for each of two nodes");
    assert!(!nodes[0].metrics().await.contains("herald_rate_limit_redis_errors_total 0\n"));
    proxy.set(Way::Open);
    let carol = async || ask(&nodes[0], "carol", "GET", "/v1/inbox/counts", &Value::Null).await;
    let counted = async { while carol().await.headers["x-ratelimit-limit"] != "20" {} };
    timeout(DEADLINE, counted).await.expect("it is counted over the cluster again");
}

#[tokio::test]
async fn redis_is_not_asked_about_an_app_s_limit_at_every_event() {
    const EVENTS: usize = 100;
    let redis = Redis::start();
    let nodes = Nodes::start(
        &redis.url(),
        1,
        "[[apps]]\nlimits.reads_per_second = 10000\n[cluster]\nheartbeat = \"30s\"\nnode_timeout = \"90s\"",
    )
    .await;
    let asked = async || {
        let page = nodes[0].metrics().await;
        let count = page.lines().find_map(|line| line.strip_prefix("herald_redis_round_trip_seconds_count "));
        count.unwrap().parse::<usize>().unwrap()
    };
    let before = asked().await;
    let api = nodes[0].api();
    for _ in 0..EVENTS {
        api.get("/channels/news", &[]).await.ok();
    }
    let trips = asked().await - before;
    // One each to read what was asked for, and few to count.
    assert!((EVENTS..EVENTS + EVENTS / 2).contains(&trips), "{trips} ways to Redis for {EVENTS} requests");
}
