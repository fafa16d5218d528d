//! Promise 6: Redis going away takes no node down, and when it is back, even empty, nobody has to notice.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::nodes::{IMPATIENT, Nodes, health, until, until_members_are};
use crate::observer::{Observer, ids};
use crate::receiver::Receiver;
use crate::redis::Redis;
use crate::support::api::Answer;
use crate::traffic::{PATIENT, Traffic, Writes};

const ROOM: &str = "presence-room";

/// Waits until each node says this of itself.
async fn until_all(nodes: &Nodes, status: &str) {
    join_all(nodes.iter().map(|node| until(node, status))).await;
}

fn event(channel: &str, name: &str) -> Value {
    json!({ "name": name, "channel": channel, "data": "" })
}

/// The text of an answer that says to come back later.
fn refused(answer: &Answer) -> &str {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers["retry-after"].parse::<u32>().is_ok_and(|seconds| seconds > 0), "{answer:?}");
    &answer.text
}

#[tokio::test]
async fn a_node_without_its_redis_says_so_and_still_wants_its_traffic() {
    let mut redis = Redis::start();
    let nodes = Nodes::start(&redis.url(), 2, "").await;
    redis.kill();
    until_all(&nodes, "degraded").await;
    for node in &*nodes {
        let answer = health(node).await;
        assert_eq!(answer.status, 200, "taking every node out at once helps nobody");
        assert!(answer.json()["checks"].is_object(), "{answer:?}");
        assert!(!answer.text.contains(&redis.address()), "nothing of the inside is shown: {answer:?}");
    }
    redis.start_again();
    until_all(&nodes, "ready").await;
    assert!(nodes.sum([0], "herald_redis_reconnects_total").await >= 1);
}

#[tokio::test]
async fn while_redis_is_away_a_backend_is_told_that_nothing_was_sent() {
    let mut redis = Redis::start();
    let nodes = Nodes::start(&redis.url(), 2, "").await;
    let mut client = nodes[0].connect().await;
    client.subscribe("news").await;
    redis.kill();
    until_all(&nodes, "degraded").await;
    let api = nodes[0].api();
    let text = refused(&api.events(&event("news", "lost")).await).to_owned();
    assert!(!text.contains("may have been delivered"), "{text}");
    let batch = json!({ "batch": [event("news", "lost")] });
    refused(&api.post("/batch_events", &batch.to_string()).await);
    for path in ["/channels", "/channels/news", "/channels/presence-room/users", "/connections"] {
        refused(&api.get(path, &[]).await); // what this node knows is not the answer
    }
    client.settle().await; // it got nothing of it, and is served
    redis.start_again();
    until_all(&nodes, "ready").await;
    nodes[1].trigger("news", "found", "").await;
    client.expect("found").await;
}

#[tokio::test]
async fn where_the_outcome_is_unknown_a_backend_is_told_that_too_and_may_repeat_with_a_key() {
    let redis = Redis::start();
    let nodes = Nodes::start(&redis.url(), 2, "cluster.heartbeat = \"1s\"\ncluster.node_timeout = \"60s\"").await;
    let mut clients = Vec::new();
    for node in &*nodes {
        let mut client = node.connect().await;
        client.subscribe("news").await;
        clients.push(client);
    }
    redis.pause();
    let api = nodes[0].api();
    let once = api.events_request(&event("news", "once")).replacen("Connection", "Idempotency-Key: k\r\nConnection", 1);
    let perhaps = event("news", "perhaps");
    let (plain, keyed) = tokio::join!(api.events(&perhaps), api.raw(&once));
    for answer in [&plain, &keyed] {
        assert!(refused(answer).contains("may have been delivered"), "{answer:?}");
    }
    redis.resume();
    until_all(&nodes, "ready").await;
    // The first is under way until it is known to have failed; until then a repeat is told to come back.
    let mut answer = api.raw(&once).await;
    for _ in 0..100 {
        if answer.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = api.raw(&once).await;
    }
    answer.ok();
    nodes[1].trigger("news", "end", "").await;
    for client in &mut clients {
        let (mut once, mut perhaps) = (0, 0);
        loop {
            match &*client.next().await.event {
                "once" => once += 1,
                "perhaps" => perhaps += 1,
                "end" => break,
                other => panic!("{other}"),
            }
        }
        assert_eq!(once, 1, "exactly once");
        assert!(perhaps <= 1, "at most once");
    }
}

#[tokio::test]
async fn who_subscribes_meanwhile_waits_and_is_answered_when_redis_is_back() {
    let mut redis = Redis::start();
    let nodes = Nodes::start(&redis.url(), 2, "").await;
    let mut client = nodes[0].connect().await;
    redis.kill();
    until_all(&nodes, "degraded").await;
    client.send(client.subscription("news", None)).await;
    client.send(client.subscription("private-talk", None)).await;
    client.ask_to_join(ROOM, &json!({ "user_id": "ann" })).await;
    let mut user = nodes[0].connect().await;
    user.ask_to_sign_in(&json!({ "id": "bob" })).await;
    client.settle().await; // neither an answer nor an error, and the connection is served
    user.settle().await;
    redis.start_again();
    let mut answered = Vec::new();
    for _ in 0..3 {
        let answer = client.expect("pusher_internal:subscription_succeeded").await;
        answered.push(answer.channel.unwrap());
    }
    answered.sort();
    assert_eq!(answered, ["news", ROOM, "private-talk"]);
    user.expect("pusher:signin_success").await;
    until_all(&nodes, "ready").await;
    for channel in ["news", "private-talk", ROOM] {
        nodes[1].trigger(channel, "e", "").await;
        assert_eq!(client.expect("e").await.channel.as_deref(), Some(channel));
    }
    nodes.until_members_are(ROOM, &["ann"]).await;
}

#[tokio::test]
async fn a_subscription_that_waits_is_cancelled_by_unsubscribing_and_by_leaving() {
    let mut redis = Redis::start();
    let nodes = Nodes::start(&redis.url(), 2, "").await;
    let mut client = nodes[0].connect().await;
    redis.kill();
    until_all(&nodes, "degraded").await;
    client.send(client.subscription("cancelled", None)).await;
    client.ask_to_join(ROOM, &json!({ "user_id": "ann" })).await;
    let mut gone = nodes[0].connect().await;
    gone.send(gone.subscription("gone", None)).await;
    client.unsubscribe("cancelled").await;
    client.unsubscribe(ROOM).await;
    client.send(client.subscription("wanted", None)).await;
    gone.close().await;
    client.settle().await;
    redis.start_again();
    client.expect_succeeded("wanted").await;
    until_all(&nodes, "ready").await;
    for channel in ["cancelled", ROOM, "wanted"] {
        nodes[1].trigger(channel, "e", "").await;
    }
    assert_eq!(client.expect("e").await.channel.as_deref(), Some("wanted"));
    client.settle().await;
    nodes.until_all_say("/channels", &[], &json!({ "channels": { "wanted": {} } })).await;
    nodes.until_members_are(ROOM, &[]).await;
}

#[tokio::test]
async fn what_waits_counts_towards_the_limit_of_the_connection() {
    let mut redis = Redis::start();
    let nodes = Nodes::start(&redis.url(), 1, "[[apps]]\nlimits.subscriptions = 3").await;
    let mut client = nodes[0].connect().await;
    client.subscribe("a").await;
    redis.kill();
    until_all(&nodes, "degraded").await;
    for channel in ["b", "c", "d"] {
        client.send(client.subscription(channel, None)).await;
    }
    let (kind, _, _) = client.expect_subscription_error("d").await;
    assert_eq!(kind, "LimitReached");
    redis.start_again();
    for _ in ["b", "c"] {
        client.expect("pusher_internal:subscription_succeeded").await;
    }
}

#[tokio::test]
async fn a_node_may_deliver_to_its_own_while_redis_is_away() {
    let mut redis = Redis::start();
    let nodes = Nodes::start(&redis.url(), 2, "cluster.when_unreachable = \"deliver-locally\"").await;
    let (mut here, mut there) = (nodes[0].connect().await, nodes[1].connect().await);
    here.subscribe("news").await;
    there.subscribe("news").await;
    redis.kill();
    until_all(&nodes, "degraded").await;
    nodes[0].trigger("news", "local", "").await;
    here.expect("local").await;
    there.settle().await;
    let mut ann = nodes[0].connect().await;
    ann.subscribe("fresh").await; // answered from what this node knows
    let answer = ann.join(ROOM, "ann").await;
    assert!(ids(&answer).iter().eq(["ann"]));
    let mut bob = nodes[0].connect().await;
    let answer = bob.join(ROOM, "bob").await;
    assert!(ids(&answer).iter().eq(["ann", "bob"]));
    ann.expect("pusher_internal:member_added").await;
    nodes[0].trigger("fresh", "local", "").await;
    ann.expect("local").await;
    redis.start_again();
    until_all(&nodes, "ready").await;
    nodes.until_members_are(ROOM, &["ann", "bob"]).await;
    nodes[1].trigger("fresh", "everywhere", "").await;
    ann.expect("everywhere").await;
    nodes[1].trigger("news", "everywhere", "").await;
    here.expect("everywhere").await;
    there.expect("everywhere").await;
}

#[tokio::test]
async fn after_redis_came_back_empty_under_traffic_all_is_as_it_was() {
    let mut redis = Redis::start();
    let mut receiver = Receiver::of_default_app().await;
    let nodes = Nodes::start(&redis.url(), 3, &format!("[[apps]]\n{}", receiver.section(""))).await;
    let mut observers = Observer::one_a_node(&nodes, ROOM, ["ann", "bob", "cid"]).await;
    let mut others = Vec::new();
    for (number, node) in nodes.iter().chain(nodes.iter()).enumerate() {
        let mut client = node.connect().await;
        client.join(ROOM, ["dan", "eve"][number % 2]).await; // on all three nodes each
        client.subscribe("news").await;
        others.push(client);
    }
    let everybody = ["ann", "bob", "cid", "dan", "eve"];
    for observer in &mut observers {
        observer.until(everybody).await;
    }
    for (position, observer) in observers.iter_mut().enumerate() {
        observer.catch_up(&nodes[(position + 1) % 3]).await;
        observer.told();
    }
    let told_before = events_of(&mut receiver, 7).await; // two channels, five members
    assert!(told_before.iter().all(|event| event["name"] != "channel_vacated" && event["name"] != "member_removed"));

    for _ in 0..2 {
        let traffic = nodes.apis().into_iter().map(|api| {
            tokio::spawn(async move {
                loop {
                    // Refused while Redis is away; it is the traffic that matters.
                    _ = api.try_events(&event("news", "traffic")).await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        });
        let traffic: Vec<_> = traffic.collect();
        redis.restart();
        let info = [("info", "user_count,subscription_count")];
        let room = json!({ "occupied": true, "user_count": 5, "subscription_count": 9 });
        nodes.until_all_say("/channels/presence-room", &info, &room).await;
        let news = json!({ "occupied": true, "subscription_count": 6 });
        nodes.until_all_say("/channels/news", &info[..0], &json!({ "occupied": true })).await;
        nodes.until_all_say("/channels/news", &[("info", "subscription_count")], &news).await;
        until_all(&nodes, "ready").await;
        nodes.until_members_are(ROOM, &everybody).await;
        nodes.until_all_say("/connections", &[], &json!({ "connections": 9 })).await;
        traffic.iter().for_each(tokio::task::JoinHandle::abort);
        join_all(traffic).await;
    }
    for (position, observer) in observers.iter_mut().enumerate() {
        observer.catch_up(&nodes[(position + 1) % 3]).await;
        assert_eq!(observer.told(), [""; 0], "nobody came or left, and nobody was said to");
    }
    for (number, node) in nodes.iter().enumerate() {
        let name = format!("after-{number}");
        node.trigger("news", &name, "").await;
        for client in &mut others {
            while client.next().await.event != name {}
        }
    }
    let mut late = nodes[1].connect().await;
    assert!(ids(&late.join(ROOM, "fay").await).iter().eq(everybody.iter().chain(&["fay"])));
    for observer in &mut observers {
        observer.until(everybody.into_iter().chain(["fay"])).await;
    }
    receiver.expect(json!({ "name": "member_added", "channel": ROOM, "user_id": "fay" })).await; // nothing before it
}

#[tokio::test]
async fn a_redis_that_dies_while_people_come_and_go_costs_nobody_anything() {
    let mut redis = Redis::start();
    let nodes = Nodes::start(&redis.url(), 3, PATIENT).await;
    let mut traffic = Traffic::start(&nodes).await;
    for _ in 0..3 {
        traffic.meanwhile(async |_| redis.restart()).await;
        traffic.agrees_after(Writes::MayBeLost).await;
    }
}

#[tokio::test]
async fn a_redis_that_sleeps_while_people_come_and_go_costs_nobody_anything() {
    let redis = Redis::start();
    let nodes = Nodes::start(&redis.url(), 3, PATIENT).await;
    let mut traffic = Traffic::start(&nodes).await;
    traffic
        .meanwhile(async |_| {
            redis.pause();
            until_all(&nodes, "degraded").await;
            redis.resume();
        })
        .await;
    traffic.agrees_after(Writes::AreKept).await;
}

#[tokio::test]
async fn after_redis_was_away_for_long_all_nodes_are_back_before_anybody_is_missed() {
    let mut redis = Redis::start();
    let nodes = Nodes::start(&redis.url(), 3, "cluster.node_timeout = \"2s\"").await;
    let mut observers = Observer::one_a_node(&nodes, ROOM, ["ann", "bob", "cid"]).await;
    redis.kill();
    tokio::time::sleep(Duration::from_secs(6)).await; // by then a node would try every few seconds only
    redis.start_again();
    until_all(&nodes, "ready").await;
    nodes.until_members_are(ROOM, &["ann", "bob", "cid"]).await;
    for (position, observer) in observers.iter_mut().enumerate() {
        observer.catch_up(&nodes[(position + 1) % 3]).await;
        assert_eq!(observer.told(), [""; 0], "nobody left");
    }
}

/// The next so many events that a backend is told.
async fn events_of(receiver: &mut Receiver, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    while events.len() < count {
        events.push(receiver.event().await);
    }
    events
}

#[tokio::test]
async fn who_came_or_left_while_redis_was_away_is_told_afterwards() {
    let mut redis = Redis::start();
    let nodes = Nodes::start(&redis.url(), 2, IMPATIENT).await;
    let (mut ann, mut bob) =
        (Observer::join(&nodes[0], ROOM, "ann").await, Observer::join(&nodes[1], ROOM, "bob").await);
    let mut leaver = nodes[0].connect().await;
    leaver.join(ROOM, "cid").await;
    for observer in [&mut ann, &mut bob] {
        observer.until(["ann", "bob", "cid"]).await;
        observer.told();
    }
    redis.kill();
    until_all(&nodes, "degraded").await;
    leaver.close().await;
    let mut comer = nodes[1].connect().await;
    comer.ask_to_join(ROOM, &json!({ "user_id": "dan" })).await;
    comer.settle().await;
    redis.start_again();
    for observer in [&mut ann, &mut bob] {
        observer.until(["ann", "bob", "dan"]).await;
    }
    comer.expect_succeeded(ROOM).await;
    nodes.until_members_are(ROOM, &["ann", "bob", "dan"]).await;
    ann.catch_up(&nodes[1]).await;
    bob.catch_up(&nodes[0]).await;
    for observer in [&mut ann, &mut bob] {
        let mut told = observer.told();
        told.sort();
        assert_eq!(told, ["+dan", "-cid"]);
    }
}

#[tokio::test]
async fn a_node_that_died_while_redis_was_away_is_missed_afterwards() {
    let mut redis = Redis::start();
    let mut nodes = Nodes::start(&redis.url(), 2, IMPATIENT).await;
    let mut ann = Observer::join(&nodes[0], ROOM, "ann").await;
    let _bob = Observer::join(&nodes[1], ROOM, "bob").await;
    ann.until(["ann", "bob"]).await;
    redis.kill();
    until(&nodes[0], "degraded").await;
    nodes[1].kill();
    redis.start_again();
    ann.until(["ann"]).await; // Redis knows nothing of him, and his node says nothing for longer than `node_timeout`
    until_members_are(&nodes[0].api(), ROOM, &["ann"]).await;
}

#[tokio::test]
async fn a_redis_that_hangs_holds_up_no_client() {
    let redis = Redis::start();
    let nodes = Nodes::start(&redis.url(), 1, "").await;
    let mut client = nodes[0].connect().await;
    client.subscribe("private-talk").await;
    redis.pause();
    let mut other = nodes[0].connect().await;
    other.settle().await;
    until(&nodes[0], "degraded").await;
    client.settle().await;
    client.unsubscribe("private-talk").await;
    client.settle().await;
    client.send(client.subscription("private-other", None)).await;
    client.settle().await;
    client.close().await; // in order, though it waits for something
    redis.resume();
    until(&nodes[0], "ready").await;
    other.subscribe("private-talk").await;
    nodes.until_all_say("/channels", &[], &json!({ "channels": { "private-talk": {} } })).await;
}

#[tokio::test]
async fn a_redis_that_was_away_for_long_and_has_kept_everything_costs_nobody_a_member() {
    let redis = Redis::start();
    let nodes = Nodes::start(&redis.url(), 3, IMPATIENT).await;
    let mut observers = Observer::one_a_node(&nodes, ROOM, ["ann", "bob", "cid"]).await;
    redis.pause(); // for all of them, and for longer than `node_timeout`
    for node in &*nodes {
        until(node, "degraded").await;
    }
    redis.resume();
    for node in &*nodes {
        until(node, "ready").await;
    }
    nodes.until_members_are(ROOM, &["ann", "bob", "cid"]).await;
    for (position, observer) in observers.iter_mut().enumerate() {
        observer.catch_up(&nodes[(position + 1) % 3]).await;
        assert_eq!(observer.told(), [""; 0], "nobody was taken for dead");
    }
}
