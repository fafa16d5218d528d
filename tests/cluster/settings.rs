//! How a cluster is configured: which Redis, with what credentials, which part of it, and what is refused.

use serde_json::json;

use crate::events::once;
use crate::nodes::{IMPATIENT, Nodes, health, refusal, until};
use crate::receiver::Receiver;
use crate::redis::Redis;
use crate::shards::Shards;
use crate::support::{Client, Herald};

async fn subscriber(node: &Herald) -> Client {
    let mut client = node.connect().await;
    client.subscribe("news").await;
    client
}

/// Two nodes are one: what is sent to the first arrives at the second.
async fn are_one(nodes: &[Herald]) {
    let mut client = subscriber(&nodes[1]).await;
    nodes[0].trigger("news", "e", "").await;
    while client.next().await.event != "e" {} // it may be told first how many subscribers there are
}

#[tokio::test]
async fn a_user_and_a_password_stand_in_the_address() {
    let redis = Redis::with_user("herald", "s3cret/pass+word:@");
    let nodes = Nodes::start(&redis.url(), 2, "").await;
    are_one(&nodes).await;
    for node in &*nodes {
        assert!(!node.has_logged("s3cret"), "the log holds no password");
    }
}

/// The page's rule, for the prefix that it names.
fn documented_rule() -> String {
    let page = include_str!("../../docs/cluster.md");
    let rule = page.split_once("```\nuser herald on ").expect("the page has a rule").1;
    rule.split_once("```").unwrap().0.to_owned()
}

#[tokio::test]
async fn the_documented_user_may_do_all_that_is_needed() {
    let redis = Redis::start();
    let rule = documented_rule();
    let rule: Vec<&str> = ["ACL", "SETUSER", "herald", "on"].into_iter().chain(rule.split_whitespace()).collect();
    assert_eq!(redis.cli(&rule), "OK", "{rule:?}");
    let url = format!("redis://herald:password@{}", redis.address());
    let receiver = Receiver::of_default_app().await;
    let app = format!(
        "[[apps]]\nlimits.events_per_second = 100\nmax_connections = 100\nsubscription_count = true\n{}",
        receiver.section("")
    );
    let mut nodes = Nodes::start(&url, 2, &format!("{IMPATIENT}cluster.redis.prefix = \"herald\"\n{app}")).await;
    are_one(&nodes).await;
    let mut ann = nodes[0].connect().await;
    ann.sign_in("ann").await;
    ann.join("presence-room", "ann").await;
    ann.subscribe("cache-news").await;
    ann.expect("pusher:cache_miss").await;
    nodes[1].trigger("cache-news", "kept", "").await;
    while ann.next().await.event != "kept" {}
    nodes.until_members_are("presence-room", &["ann"]).await;
    nodes.until_all_say("/channels/presence-room", &[], &json!({ "occupied": true })).await;
    nodes[0].kill();
    nodes.replace(0).await;
    nodes.until_members_are("presence-room", &[]).await; // cleaned up after
    nodes[1].api().post("/users/ann/terminate_connections", "").await;
    let event = json!({ "name": "once", "channel": "news", "data": "" });
    for (api, is_repeat) in nodes.apis().iter().zip([false, true]) {
        let (answer, is_replayed) = once(api, "key", &event).await;
        assert_eq!((answer.status, is_replayed), (200, is_repeat), "{answer:?}");
    }
    assert_eq!(redis.cli(&["ACL", "LOG"]), "", "nothing was denied");
}

#[tokio::test]
async fn an_encrypted_redis_is_believed_when_its_certificate_is() {
    let redis = Redis::with_tls();
    let (url, certificate) = (redis.url(), redis.certificate());
    let nodes = Nodes::start_in(&[&url, &url], "", &[("SSL_CERT_FILE", &certificate)]).await;
    are_one(&nodes).await;
}

#[tokio::test]
async fn an_encrypted_redis_cluster_is_believed_when_its_certificate_is() {
    let shards = Shards::with_tls().await;
    let (url, certificate) = (shards.url(), shards.certificate());
    let nodes = Nodes::start_in(&[&url, &url], "", &[("SSL_CERT_FILE", &certificate)]).await;
    are_one(&nodes).await;
}

#[tokio::test]
async fn the_number_of_a_database_stands_in_the_address() {
    let redis = Redis::start();
    let (first, second) = (format!("{}/1", redis.url()), format!("{}/2", redis.url()));
    let prefix = "[cluster.redis]\nprefix = \"same\"";
    let one = Nodes::start(&first, 2, prefix).await;
    let other = Nodes::start(&second, 2, prefix).await;
    are_strangers(&one, &other).await;
    assert_ne!(redis.cli(&["-n", "1", "DBSIZE"]), "0");
    assert_ne!(redis.cli(&["-n", "2", "DBSIZE"]), "0");
    assert_eq!(redis.cli(&["-n", "0", "DBSIZE"]), "0");
}

#[tokio::test]
async fn two_prefixes_on_one_redis_are_two_clusters() {
    let redis = Redis::start();
    let one = Nodes::start(&redis.url(), 2, "[cluster.redis]\nprefix = \"one\"").await;
    let other = Nodes::start(&redis.url(), 2, "[cluster.redis]\nprefix = \"two\"").await;
    are_strangers(&one, &other).await;
    let keys = redis.cli(&["KEYS", "*"]);
    assert!(keys.contains("one") && keys.contains("two"), "{keys}");
    assert!(keys.lines().all(|key| key.contains("one") || key.contains("two")), "every key has its prefix: {keys}");
}

/// Neither sees what the other does.
async fn are_strangers(one: &Nodes, other: &Nodes) {
    let (mut ours, mut theirs) = (subscriber(&one[1]).await, subscriber(&other[1]).await);
    let (mut ann, mut bob) = (one[0].connect().await, other[0].connect().await);
    ann.join("presence-room", "ann").await;
    bob.join("presence-room", "bob").await;
    one.until_members_are("presence-room", &["ann"]).await;
    other.until_members_are("presence-room", &["bob"]).await;
    one.until_all_say("/connections", &[], &json!({ "connections": 2 })).await;
    for (cluster, name) in [(one, "ours"), (other, "theirs")] {
        cluster[0].trigger("news", name, "").await;
    }
    ours.expect("ours").await;
    theirs.expect("theirs").await;
    for (cluster, name) in [(other, "theirs"), (one, "ours")] {
        cluster[0].trigger("news", name, "").await;
    }
    ours.expect("ours").await; // nothing of the others in between
    theirs.expect("theirs").await;
    ann.settle().await;
    bob.settle().await;
}

#[tokio::test]
async fn apps_of_one_cluster_are_strangers_too() {
    let redis = Redis::start();
    let nodes =
        Nodes::start(&redis.url(), 2, "[[apps]]\n[[apps]]\nid = \"other\"\nkey = \"other\"\nsecret = \"s\"").await;
    let other = crate::support::App::new("other", "other", "s");
    let mut ours = subscriber(&nodes[0]).await;
    let mut theirs = nodes[1].connect_to(&other).await;
    theirs.subscribe("news").await;
    nodes[0].api_of(&other).trigger("news", "theirs", "").await;
    nodes[1].trigger("news", "ours", "").await;
    ours.expect("ours").await;
    theirs.expect("theirs").await;
    theirs.settle().await;
}

#[tokio::test]
async fn a_node_that_has_not_found_its_redis_yet_is_not_ready() {
    let mut redis = Redis::start();
    redis.kill();
    let config = format!("[cluster.redis]\nurl = \"{}\"", redis.url());
    let node = Herald::start(&config).await;
    let answer = health(&node).await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (503, Some("not_ready")), "{answer:?}");
    redis.start_again();
    until(&node, "ready").await;
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_the_start() {
    let timing = |heartbeat: &str, timeout: &str| {
        format!(
            "cluster = {{ heartbeat = \"{heartbeat}\", node_timeout = \"{timeout}\", redis.url = \"redis://127.0.0.1:1\" }}"
        )
    };
    let url = |url: &str| format!("cluster.redis.url = \"{url}\"");
    const FORMS: &[&str] = &["redis://USER", "redis-sentinel://", "master=NAME", "redis-cluster://", "rediss"];
    for (config, named) in [
        (timing("5s", "14s"), &["node_timeout", "heartbeat"] as &[_]),
        (timing("1s", "1s"), &["node_timeout", "heartbeat"]),
        (url("http://ann:hunter2@localhost:6379"), FORMS),
        (url("redis//ann:hunter2@localhost"), FORMS),
        (url("localhost:6379"), FORMS),
        (url("redis://ann:hunter2@localhost:notaport"), FORMS),
        (url("redis://ann:hunter2@localhost/notanumber"), FORMS),
        (url("redis://ann:hunter2@localhost?protocol=resp3"), FORMS),
        (url("redis-sentinel://ann:hunter2@localhost,localhost:26380"), FORMS),
        (url("redis-sentinel://ann:hunter2@localhost,?master=main"), FORMS),
        (url("redis-cluster://ann:hunter2@localhost:7000,localhost:7001/2"), FORMS),
        ("cluster.when_unreachable = \"hope\"".to_owned(), &["when_unreachable", "reject", "deliver-locally"]),
    ] {
        let said = refusal(&config).await;
        for name in named {
            assert!(said.contains(name), "{name} is named: {said}");
        }
        assert!(!said.contains("hunter2"), "a password is in nobody's log: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}
