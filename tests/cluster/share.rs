//! What a node gets from Redis is what its own clients subscribe to, however much there is in the cluster.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::nodes::Nodes;
use crate::proxy::Proxy;
use crate::redis::Redis;
use crate::support::api::KeptOpen;
use crate::support::{Client, DEADLINE};

const EVENTS: usize = 1_000;
/// One in so many of them is for who is watched.
const EACH: usize = 10;
const HERE: &str = "here";
const ELSEWHERE: &str = "elsewhere";

/// A node whose every byte to and from Redis is counted, with one client; it and the others are so calm that none of their heartbeats falls
/// into the test.
#[tokio::test]
async fn only_what_somebody_here_is_subscribed_to_crosses_to_a_node() {
    let redis = Redis::start();
    let proxy = Proxy::to(&redis.address()).await;
    let calm = "cluster = { heartbeat = \"1m\", node_timeout = \"10m\" }";
    let nodes = Nodes::start_each(&[&redis.url(), &redis.url(), &proxy.url()], calm).await;
    let mut there = nodes[1].connect().await;
    there.subscribe(ELSEWHERE).await;
    let mut here = nodes[2].connect().await;
    here.subscribe(HERE).await;
    nodes.until_all_say("/connections", &[], &json!({ "connections": 2 })).await;
    let mut backend = KeptOpen::connect(nodes[0].api()).await;

    let of_one = of_one_event(&proxy, &mut backend, &mut here).await;
    let before = proxy.carried_bytes();
    for number in 0..EVENTS {
        trigger(&mut backend, ELSEWHERE, number).await;
    }
    trigger(&mut backend, HERE, 0).await;
    expect(&mut here, 0).await;
    let carried = proxy.carried_bytes() - before;
    assert_eq!(carried, of_one, "{EVENTS} events that nobody here is subscribed to, and one that somebody is");
    for number in 0..EVENTS {
        expect(&mut there, number).await;
    }

    let before = proxy.carried_bytes();
    for number in 0..EVENTS {
        trigger(&mut backend, if number % EACH == 0 { HERE } else { ELSEWHERE }, number).await;
    }
    for number in (0..EVENTS).step_by(EACH) {
        expect(&mut here, number).await;
    }
    let carried = proxy.carried_bytes() - before;
    assert_eq!(carried, (EVENTS / EACH) as u64 * of_one, "one event in {EACH} of {EVENTS}, of {of_one} bytes each");
}

/// What one event costs; found out once nothing else crosses any more.
async fn of_one_event(proxy: &Proxy, backend: &mut KeptOpen, here: &mut Client) -> u64 {
    let start = Instant::now();
    let mut last = 0;
    loop {
        let before = proxy.carried_bytes();
        trigger(backend, HERE, 0).await;
        expect(here, 0).await;
        let carried = proxy.carried_bytes() - before;
        if carried == last {
            return carried;
        }
        assert!(start.elapsed() < DEADLINE, "one event costs {last} bytes, then {carried}");
        last = carried;
        tokio::time::sleep(Duration::from_millis(100)).await; // changes of counts are collected for so long
    }
}

/// Events are all of the same length.
async fn trigger(backend: &mut KeptOpen, channel: &str, number: usize) {
    backend.trigger(&[channel], "numbered", format!("{number:04}")).await;
}

async fn expect(client: &mut Client, number: usize) {
    assert_eq!(client.expect("numbered").await.data(), format!("{number:04}"));
}
