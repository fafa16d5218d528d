//! A wire between one node and Redis that breaks: the node comes back as one that slept does, however the wire was broken.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::events::once;
use crate::nodes::{IMPATIENT, Nodes, until, until_members_are};
use crate::observer::Observer;
use crate::proxy::{Proxy, Way};
use crate::redis::Redis;

const ROOM: &str = "presence-room";

#[tokio::test]
async fn a_node_that_hears_and_says_nothing_comes_back() {
    break_and_heal(Way::Stalled).await;
}

#[tokio::test]
async fn a_node_that_is_not_heard_comes_back() {
    break_and_heal(Way::StalledToRedis).await;
}

#[tokio::test]
async fn a_node_that_does_not_hear_comes_back() {
    break_and_heal(Way::StalledToNode).await;
}

#[tokio::test]
async fn a_node_that_was_cut_off_comes_back() {
    break_and_heal(Way::Cut).await;
}

/// Three nodes, one behind a wire that is so for longer than `node_timeout`, twice.
async fn break_and_heal(way: Way) {
    let redis = Redis::start();
    let proxy = Proxy::to(&redis.address()).await;
    let nodes = Nodes::start_each(&[&proxy.url(), &redis.url(), &redis.url()], IMPATIENT).await;
    let (mut ann, mut bob) =
        (Observer::join(&nodes[0], ROOM, "ann").await, Observer::join(&nodes[1], ROOM, "bob").await);
    let mut tab = nodes[0].connect().await;
    tab.join(ROOM, "bob").await;
    tab.subscribe("news").await;
    ann.until(["ann", "bob"]).await;
    bob.until(["ann", "bob"]).await;
    for round in 0..2 {
        proxy.set(way);
        until(&nodes[0], "degraded").await;
        bob.until(["bob"]).await;
        until_members_are(&nodes[2].api(), ROOM, &["bob"]).await;
        let answer = nodes[0].api().events(&json!({ "name": "e", "channel": "news", "data": "" })).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        nodes[1].trigger("news", "unheard", "").await; // 200: the others are a cluster without it
        let mut cid = nodes[2].connect().await;
        cid.join(ROOM, "cid").await;
        bob.until(["bob", "cid"]).await;
        ann.settle().await; // its own clients are served meanwhile

        proxy.set(Way::Open);
        until(&nodes[0], "ready").await;
        bob.until(["ann", "bob", "cid"]).await;
        ann.until(["ann", "bob", "cid"]).await;
        nodes.until_members_are(ROOM, &["ann", "bob", "cid"]).await;
        let counts = json!({ "occupied": true, "user_count": 3, "subscription_count": 4 });
        let info = [("info", "user_count,subscription_count")];
        nodes.until_all_say("/channels/presence-room", &info, &counts).await;
        nodes[1].trigger("news", "heard", round.to_string()).await;
        loop {
            // What it did not hear is lost, or comes late when the wire held it back; what its own backend was refused may have been sent.
            let event = tab.next().await;
            if event.event == "heard" {
                assert_eq!(event.data(), round.to_string());
                break;
            }
        }
        nodes[0].trigger(ROOM, "from the lost one", "").await;
        while bob.next().await.event != "from the lost one" {}
        cid.close().await;
        ann.until(["ann", "bob"]).await;
        bob.until(["ann", "bob"]).await;
        ann.catch_up(&nodes[1]).await;
        bob.catch_up(&nodes[2]).await;
        let ann_told = ann.told();
        assert!(!ann_told.iter().any(|change| change == "-ann" || change == "-bob"), "never gone: {ann_told:?}");
    }
    assert!(nodes.sum([0], "herald_redis_reconnects_total").await >= 1);
}

#[tokio::test]
async fn a_short_break_costs_nobody_a_member() {
    let redis = Redis::start();
    let proxy = Proxy::to(&redis.address()).await;
    let patient = "cluster.heartbeat = \"1s\"\ncluster.node_timeout = \"30s\"";
    let nodes = Nodes::start_each(&[&proxy.url(), &redis.url()], patient).await;
    let mut ann = Observer::join(&nodes[0], ROOM, "ann").await;
    let mut bob = Observer::join(&nodes[1], ROOM, "bob").await;
    ann.until(["ann", "bob"]).await;
    ann.told();
    proxy.set(Way::Cut);
    until(&nodes[0], "degraded").await;
    let mut cid = nodes[1].connect().await;
    cid.join(ROOM, "cid").await;
    bob.until(["ann", "bob", "cid"]).await;
    proxy.set(Way::Open);
    until(&nodes[0], "ready").await;
    ann.until(["ann", "bob", "cid"]).await; // what was missed is mended
    cid.close().await;
    for observer in [&mut ann, &mut bob] {
        observer.until(["ann", "bob"]).await;
    }
    ann.catch_up(&nodes[1]).await;
    bob.catch_up(&nodes[0]).await;
    for observer in [&mut ann, &mut bob] {
        assert_eq!(observer.told(), ["+cid", "-cid"]);
    }
}

#[tokio::test]
async fn a_repeated_trigger_arrives_once_though_redis_s_answer_was_lost() {
    const CHANNELS: usize = 100;
    let redis = Redis::start();
    let proxy = Proxy::to(&redis.address()).await;
    let nodes = Nodes::start_each(&[&proxy.url(), &redis.url()], IMPATIENT).await;
    let channels: Vec<String> = (0..CHANNELS).map(|number| format!("channel-{number}")).collect();
    let mut clients = Vec::new();
    for node in &*nodes {
        let mut client = node.connect().await;
        for channel in &channels {
            client.subscribe(channel).await;
        }
        clients.push(client);
    }
    let (event, api) = (json!({ "name": "once", "channels": channels, "data": "" }), nodes[0].api());
    let (first, heard) = tokio::join!(once(&api, "key", &event), async {
        let heard = clients[1].expect("once").await;
        proxy.set(Way::StalledToNode); // what is said still arrives, as the next event does
        heard
    });
    assert_eq!(first.0.status, 503, "{first:?}");
    until(&nodes[0], "degraded").await;
    proxy.set(Way::Open);
    until(&nodes[0], "ready").await;
    let start = Instant::now();
    while once(&nodes[1].api(), "key", &event).await.0.status != 200 {
        assert!(start.elapsed() < Duration::from_secs(5), "the first has ended, and its node has told so");
    }
    for channel in &channels {
        nodes[1].trigger(channel, "end", "").await; // events of a channel keep their order; those of two need not
    }
    for (client, before) in clients.iter_mut().zip([None, heard.channel]) {
        let mut arrived: Vec<String> = before.into_iter().collect();
        let mut ended = 0;
        while ended < CHANNELS {
            let event = client.next().await;
            match event.event.as_str() {
                "once" => arrived.extend(event.channel),
                "end" => ended += 1,
                other => panic!("{other} was not sent"),
            }
        }
        assert_eq!(arrived.len(), CHANNELS, "no more than once");
        arrived.sort();
        arrived.dedup();
        assert_eq!(arrived.len(), CHANNELS, "each once");
    }
}
