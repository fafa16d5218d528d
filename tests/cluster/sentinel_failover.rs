//! A Redis with Sentinels: the nodes are with whatever server is the master, and follow when it is another.

use std::time::Duration;

use serde_json::json;

use crate::nodes::{Nodes, until, until_equal_within};
use crate::observer::Observer;
use crate::sentinel::Sentinels;
use crate::traffic::{PATIENT, Traffic, Writes};

const ROOM: &str = "presence-room";

#[tokio::test]
async fn nodes_that_ask_sentinels_are_one_cluster() {
    for sentinels in [Sentinels::start().await, Sentinels::with_password("s3cret").await] {
        let nodes = Nodes::start(&sentinels.url(), 3, "").await;
        let mut ann = Observer::join(&nodes[0], ROOM, "ann").await;
        let mut bob = Observer::join(&nodes[1], ROOM, "bob").await;
        ann.until(["ann", "bob"]).await;
        nodes.until_members_are(ROOM, &["ann", "bob"]).await;
        nodes[2].trigger(ROOM, "hello", "").await;
        for observer in [&mut ann, &mut bob] {
            while observer.next().await.event != "hello" {}
        }
    }
}

#[tokio::test]
async fn a_sentinel_that_is_dead_or_says_nothing_is_passed_over() {
    let mut sentinels = Sentinels::start().await;
    let url = sentinels.url();
    sentinels.kill_sentinel(0);
    sentinels.pause_sentinel(1);
    let nodes = Nodes::start(&url, 2, "").await;
    let mut ann = Observer::join(&nodes[0], ROOM, "ann").await;
    ann.catch_up(&nodes[1]).await;
}

#[tokio::test]
async fn a_failover_by_command_costs_nobody_anything() {
    let sentinels = Sentinels::start().await;
    let nodes = Nodes::start(&sentinels.url(), 3, PATIENT).await;
    let mut traffic = Traffic::start(&nodes).await;
    for _ in 0..2 {
        traffic.meanwhile(async |_| sentinels.failover().await).await;
        traffic.agrees_after(Writes::MayBeLost).await;
    }
}

#[tokio::test]
async fn a_master_that_dies_costs_nobody_anything() {
    let mut sentinels = Sentinels::with_password("s3cret").await;
    let nodes = Nodes::start(&sentinels.url(), 3, PATIENT).await;
    let mut traffic = Traffic::start(&nodes).await;
    traffic.meanwhile(async |_| sentinels.kill_master().await).await;
    traffic.agrees_after(Writes::MayBeLost).await;
}

#[tokio::test]
async fn a_master_that_wakes_up_when_another_has_its_place_is_nobodys_master() {
    let sentinels = Sentinels::start().await;
    let mut nodes = Nodes::start(&sentinels.url(), 3, PATIENT).await;
    let mut traffic = Traffic::start(&nodes).await;
    traffic
        .meanwhile(async |traffic| {
            let sleeper = sentinels.pause_master().await;
            traffic.until_tried(25).await;
            sentinels.resume(sleeper); // it answers, and takes itself for the master
        })
        .await;
    traffic.agrees_after(Writes::MayBeLost).await;
    drop(traffic);

    nodes[2].terminate();
    nodes[2].ended().await;
    let sleeper = sentinels.pause_master().await;
    sentinels.resume(sleeper);
    nodes.replace(2).await; // whoever comes now must not be misled either
    for node in &*nodes {
        until(node, "ready").await;
    }
    let mut watchers = Vec::new();
    for (position, user) in ["ann", "bob", "cid"].into_iter().enumerate() {
        watchers.push(Observer::join(&nodes[position], ROOM, user).await);
    }
    nodes.until_members_are(ROOM, &["ann", "bob", "cid"]).await;
    for (position, watcher) in watchers.iter_mut().enumerate() {
        watcher.until(["ann", "bob", "cid"]).await;
        watcher.catch_up(&nodes[(position + 1) % 3]).await;
    }
    // That node 2 has gone may be lost with the sleeper: then it counts as dead, after `node_timeout`, and all it had goes.
    let all = json!({ "channels": { ROOM: {} } });
    for api in nodes.apis() {
        let channels = async || api.get("/channels", &[]).await.json();
        until_equal_within(Duration::from_secs(30), &all, "the channels", channels).await;
    }
}
