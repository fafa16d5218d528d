//! A Redis Cluster: what happens to one of its shards costs nobody anything, and touches only the channels that lie there.
//!
//! Promises 1 to 5 over a Redis Cluster stand where they stand over one Redis.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde_json::json;

use crate::nodes::{IMPATIENT, Nodes, health, until, until_equal};
use crate::observer::Observer;
use crate::shards::Shards;
use crate::support::Client;
use crate::traffic::{PATIENT, Traffic, Writes, channel, room};

/// The slot in which a channel with subscribers lies.
fn slot_of(shards: &Shards, channel: &str) -> u16 {
    let keys = shards.keys(&format!("*:ch:app-id:{channel}:nodes"));
    let [key] = &*keys else { panic!("{channel} has one key with its subscribers: {keys:?}") };
    shards.slot_of(key)
}

#[tokio::test]
async fn channels_and_all_else_are_spread_over_the_shards() {
    let shards = Shards::start().await;
    let nodes = Nodes::start(&shards.url(), 2, "").await;
    let mut client = nodes[0].connect().await;
    let names: Vec<String> = (0..60).map(|number| format!("channel-{number}")).collect();
    for name in &names {
        client.subscribe(name).await;
    }
    let slots: BTreeSet<u16> = names.iter().map(|name| slot_of(&shards, name)).collect();
    let owners: BTreeSet<usize> = slots.iter().map(|slot| shards.owner_of(*slot)).collect();
    assert!((8..=16).contains(&slots.len()), "most of the buckets: {slots:?}");
    assert_eq!(owners.len(), 3, "every shard has its share");
    let sixteenths: BTreeSet<u16> = slots.iter().map(|slot| slot / 1024).collect();
    assert_eq!(sixteenths.len(), slots.len(), "each bucket in its own part of the slots: {slots:?}");
    let keys = shards.keys("*");
    let of_buckets = keys.iter().filter(|key| !key.ends_with(":buckets")); // how many there are stands outside
    let all: BTreeSet<u16> = of_buckets.map(|key| shards.slot_of(key)).collect();
    assert!(all.len() <= 16, "all else lies in the same buckets: {all:?}");
}

#[tokio::test]
async fn nodes_with_the_password_are_one_cluster_wherever_a_slot_moves() {
    let shards = Shards::with_password("s3cret").await;
    let nodes = Nodes::start(&shards.url(), 2, "").await;
    let mut client = nodes[0].connect().await;
    client.subscribe("news").await;
    let slot = slot_of(&shards, "news");
    let joined = async |node| nodes.sum([node], "herald_redis_reconnects_total").await;
    let before = [joined(0).await, joined(1).await];
    shards.move_slot(slot, shards.other_than(shards.owner_of(slot))).await;
    for (node, before) in before.into_iter().enumerate() {
        until_equal(&true, "whether it is with the new server", async || joined(node).await > before).await;
    }
    nodes[1].trigger("news", "e", "").await;
    client.expect("e").await;
    for node in &*nodes {
        assert!(!node.has_logged("s3cret"), "the log holds no password");
    }
}

#[tokio::test]
async fn the_buckets_are_spread_over_the_nodes_and_those_of_a_dead_one_are_taken_over() {
    const OWNED: &str = "herald_cluster_owned_buckets";
    let shards = Shards::start().await;
    let mut nodes = Nodes::start(&shards.url(), 3, IMPATIENT).await;
    until_equal(&16, "each bucket has one owner", async || nodes.sum(0..3, OWNED).await).await;
    // The first node to come had all; what belongs to another is handed over. By lot: that one keeps all happens once in a million times.
    let richest = async || {
        let each = join_all((0..3).map(|position| nodes.sum([position], OWNED))).await;
        each.iter().sum::<u64>() == 16 && each.iter().max().is_some_and(|most| *most < 16)
    };
    until_equal(&true, "they are spread", richest).await;
    nodes[0].kill();
    until_equal(&16, "the others have all", async || nodes.sum(1..3, OWNED).await).await;
}

#[tokio::test]
async fn a_slot_that_moves_costs_nobody_anything() {
    let shards = Shards::start().await;
    let nodes = Nodes::start(&shards.url(), 3, PATIENT).await;
    let mut traffic = Traffic::start(&nodes).await;
    for (number, name) in [(0, channel(0)), (1, room(1))] {
        let slot = slot_of(&shards, &name);
        let to = shards.other_than(shards.owner_of(slot));
        traffic
            .meanwhile(async |traffic| {
                if number == 0 {
                    shards.move_slot(slot, to).await;
                } else {
                    let moved = shards.begin_move(slot, to);
                    traffic.until_tried(50).await; // half of it here, half of it there
                    shards.finish_move(moved).await;
                }
            })
            .await;
        traffic.agrees_after(Writes::AreKept).await;
        assert_eq!(slot_of(&shards, &name), slot);
        assert_eq!(shards.owner_of(slot), to);
    }
}

#[tokio::test]
async fn a_master_that_hands_over_to_its_replica_costs_nobody_anything() {
    let shards = Shards::start().await;
    let nodes = Nodes::start(&shards.url(), 3, PATIENT).await;
    let mut traffic = Traffic::start(&nodes).await;
    let slot = slot_of(&shards, &channel(0));
    for _ in 0..2 {
        traffic.meanwhile(async |_| shards.failover(slot).await).await;
        traffic.agrees_after(Writes::AreKept).await;
    }
}

#[tokio::test]
async fn a_master_that_dies_costs_nobody_anything() {
    let mut shards = Shards::start().await;
    let nodes = Nodes::start(&shards.url(), 3, PATIENT).await;
    let mut traffic = Traffic::start(&nodes).await;
    let slot = slot_of(&shards, &room(0));
    traffic.meanwhile(async |_| _ = shards.kill_master_of(slot).await).await;
    traffic.agrees_after(Writes::MayBeLost).await;
}

#[tokio::test]
async fn a_master_that_wakes_up_when_its_replica_has_its_place_is_nobodys_master() {
    let shards = Shards::start().await;
    let nodes = Nodes::start(&shards.url(), 3, PATIENT).await;
    let mut traffic = Traffic::start(&nodes).await;
    let slot = slot_of(&shards, &room(0));
    traffic
        .meanwhile(async |traffic| {
            let sleeper = shards.pause_master_of(slot).await;
            traffic.until_tried(25).await;
            shards.resume(sleeper);
        })
        .await;
    traffic.agrees_after(Writes::MayBeLost).await;
}

#[tokio::test]
async fn a_shard_that_hangs_holds_up_only_the_channels_that_lie_there() {
    one_shard_is_away(|shards, position| shards.pause(position), |shards, position| shards.resume(position)).await;
}

#[tokio::test]
async fn a_shard_that_has_died_holds_up_only_the_channels_that_lie_there_and_may_come_back_empty() {
    one_shard_is_away(Shards::kill, Shards::start_again).await;
}

/// The master and the replica of a shard go away and come back.
async fn one_shard_is_away(goes: impl Fn(&mut Shards, usize), comes: impl Fn(&mut Shards, usize)) {
    let mut shards = Shards::start().await;
    let nodes = Nodes::start(&shards.url(), 3, PATIENT).await;
    // Channels and rooms by the master that they lie with; somebody is on each of them on each node.
    let names: Vec<String> = (0..12).map(|number| format!("channel-{number}")).collect();
    let rooms: Vec<String> = (0..12).map(|number| format!("presence-{number}")).collect();
    let mut clients = join_all(nodes.iter().map(async |node| {
        let mut client = node.connect().await;
        for name in &names {
            client.subscribe(name).await;
        }
        client
    }))
    .await;
    let mut watchers: BTreeMap<&str, Observer> = BTreeMap::new();
    for name in &rooms {
        watchers.insert(name, Observer::join(&nodes[0], name, "ann").await);
    }
    let owner = |shards: &Shards, name: &str| shards.owner_of(slot_of(shards, name));
    let lost = owner(&shards, &names[0]);
    let (away, here): (Vec<&str>, Vec<&str>) =
        names.iter().chain(&rooms).map(String::as_str).partition(|name| owner(&shards, name) == lost);
    let is_room = |name: &&str| name.starts_with("presence-");
    let [room_away, room_here] = [&away, &here].map(|names| *names.iter().find(|name| is_room(name)).expect("a room"));
    let [away_name, here_name] =
        [&away, &here].map(|names| *names.iter().find(|name| !is_room(name)).expect("a channel"));

    let shard = shards.shard_of(slot_of(&shards, &names[0]));
    for position in &shard {
        goes(&mut shards, *position);
    }
    for node in &*nodes {
        until(node, "degraded").await;
        assert_eq!(health(node).await.status, 200, "it can serve most of its clients");
    }
    for (position, node) in nodes.iter().enumerate() {
        let api = node.api();
        for name in here.iter().filter(|name| !is_room(name)) {
            node.trigger(name, "here", position.to_string()).await;
            for client in &mut clients {
                let event = client.expect("here").await;
                assert_eq!((event.channel.as_deref(), event.data()), (Some(*name), &*position.to_string()));
            }
        }
        let answer = api.events(&json!({ "name": "away", "channel": away_name, "data": "" })).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        let told = json!({ "occupied": true, "subscription_count": 3 });
        let found = api.get(&format!("/channels/{here_name}"), &[("info", "subscription_count")]).await.ok();
        assert_eq!(found, told, "{here_name}");
        for path in [&format!("/channels/{away_name}"), "/channels", &format!("/channels/{room_away}/users")] {
            let answer =
                api.get(path, &[("info", "subscription_count")][..usize::from(!path.ends_with("users"))]).await;
            assert_eq!(answer.status, 503, "{path}: what is known of the rest is not the answer: {answer:?}");
        }
    }
    let mut waiting: Vec<Client> = Vec::new();
    for node in &*nodes {
        let mut client = node.connect().await;
        client.ask_to_join(room_away, &json!({ "user_id": "bob" })).await;
        client.join(room_here, "bob").await; // is answered, though it was asked later
        client.settle().await;
        waiting.push(client);
    }
    let watcher = watchers.get_mut(room_here).unwrap();
    watcher.until(["ann", "bob"]).await;
    nodes.until_members_are(room_here, &["ann", "bob"]).await;

    for position in &shard {
        comes(&mut shards, *position);
    }
    for node in &*nodes {
        until(node, "ready").await;
    }
    for client in &mut waiting {
        loop {
            let event = client.next().await;
            if event.event == "pusher_internal:subscription_succeeded" {
                assert_eq!(event.channel.as_deref(), Some(room_away));
                break;
            }
        }
    }
    let watcher = watchers.get_mut(room_away).unwrap();
    watcher.until(["ann", "bob"]).await;
    nodes.until_members_are(room_away, &["ann", "bob"]).await;
    for name in &rooms {
        let watcher = watchers.get_mut(&**name).unwrap();
        watcher.catch_up(&nodes[1]).await;
        let expected: &[&str] = if [room_away, room_here].contains(&&**name) { &["+bob"] } else { &[] };
        assert_eq!(watcher.told(), expected, "nobody was said to have left {name}");
    }
    let channels: BTreeMap<&str, _> = names.iter().map(|name| (&**name, json!({ "subscription_count": 3 }))).collect();
    let asked = [("filter_by_prefix", "channel-"), ("info", "subscription_count")];
    nodes.until_all_say("/channels", &asked, &json!({ "channels": channels })).await;
    for name in &names {
        nodes[2].trigger(name, "after", "").await;
        for client in &mut clients {
            loop {
                // What its backend was told may have been sent may have been.
                let event = client.next().await;
                if event.event == "after" {
                    assert_eq!(event.channel.as_deref(), Some(&**name));
                    break;
                }
                assert_eq!(event.event, "away", "{}", event.text);
            }
        }
    }
}
