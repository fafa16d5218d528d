//! What Redis holds is compared with the truth again and again: whatever came between them, they agree in the end.

use serde_json::json;

use crate::nodes::{IMPATIENT, Nodes, until_equal};
use crate::observer::Observer;
use crate::redis::Redis;

const ROOM: &str = "presence-room";

/// Two nodes, a member on each, and a subscriber and a signed-in user on the second.
async fn start() -> (Redis, Nodes, Observer, Observer) {
    let redis = Redis::start();
    let nodes = Nodes::start(&redis.url(), 2, &format!("{IMPATIENT}cluster.redis.prefix = \"audited\"")).await;
    let mut ann = Observer::join(&nodes[0], ROOM, "ann").await;
    let mut bob = Observer::join(&nodes[1], ROOM, "bob").await;
    bob.client.subscribe("news").await;
    ann.until(["ann", "bob"]).await;
    ann.told();
    (redis, nodes, ann, bob)
}

async fn until_all_is_right(nodes: &Nodes) {
    nodes.until_members_are(ROOM, &["ann", "bob"]).await;
    let all = json!({ "channels": { ROOM: { "user_count": 2 }, "news": {} } });
    for api in nodes.apis() {
        until_equal(&all, "the channels", async || {
            let mut answer = api.get("/channels", &[]).await.json();
            answer["channels"][ROOM] = json!({ "user_count": 2 });
            answer
        })
        .await;
    }
    nodes.until_all_say("/connections", &[], &json!({ "connections": 2 })).await;
}

#[tokio::test]
async fn what_redis_has_lost_is_told_again() {
    let (redis, nodes, mut ann, mut bob) = start().await;
    for lost in ["ch:*", "ch:*:members", "ch:*:nodes", "channels:*", "node:*", "app:*"] {
        let lose =
            "for _, key in ipairs(redis.call('KEYS', '{audited:0:0}:' .. ARGV[1])) do redis.call('DEL', key) end";
        redis.cli(&["EVAL", lose, "0", lost]);
        until_all_is_right(&nodes).await;
    }
    assert_eq!(redis.cli(&["EXISTS", "{audited:0:0}:ch:app-id:news:nodes"]), "1");
    for (observer, other) in [(&mut ann, &nodes[1]), (&mut bob, &nodes[0])] {
        observer.until(["ann", "bob"]).await;
        observer.catch_up(other).await;
    }
}

#[tokio::test]
async fn what_nobody_has_is_taken_out() {
    let (redis, nodes, mut ann, mut bob) = start().await;
    let haunt = "local node = redis.call('ZRANGE', '{audited:0:0}:nodes', 0, 0)[1]
        local function add(channel)
            redis.call('HSET', '{audited:0:0}:ch:app-id:' .. channel .. ':nodes', node, 3)
            redis.call('ZADD', '{audited:0:0}:channels:app-id', 0, channel)
            redis.call('SADD', '{audited:0:0}:node:' .. node, 'c\\0app-id\\0' .. channel)
        end
        add('ghostly')
        add('presence-room')
        redis.call('HSET', '{audited:0:0}:ch:app-id:presence-room:members', 'ghost', '{}')
        redis.call('HSET', '{audited:0:0}:ch:app-id:presence-room:conns', 'ghost\\0' .. node, 1)";
    redis.cli(&["EVAL", haunt, "0"]);
    until_all_is_right(&nodes).await;
    let count = json!({ "occupied": true, "subscription_count": 2 });
    nodes.until_all_say(&format!("/channels/{ROOM}"), &[("info", "subscription_count")], &count).await;
    for (observer, other) in [(&mut ann, &nodes[1]), (&mut bob, &nodes[0])] {
        observer.until(["ann", "bob"]).await;
        observer.catch_up(other).await;
    }
}
