//! Inboxes over all nodes, which share a Postgres: what one keeps another publishes, each change once and in order, and who is ended
//! anywhere is ended everywhere.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::timeout;

use crate::nodes::Nodes;
use crate::postgres::Postgres;
use crate::proxy::{Proxy, Way};
use crate::redis::Redis;
use crate::support::DEADLINE;
use crate::user::{CLERK_SECRET, auth, notify, tab, token, webhook};

over_both! {
    every_tab_on_every_node_hears_each_change_once_in_order,
    a_session_that_one_node_hears_of_ends_on_the_other,
}

fn config(database: &Postgres) -> String {
    format!(
        "metrics.listen = \"127.0.0.1:0\"\n[database]\nurl = \"{}\"\nschema = \"{}\"\n{}",
        database.url,
        database.schema,
        auth(&format!("webhook_secret = \"{CLERK_SECRET}\""))
    )
}

async fn every_tab_on_every_node_hears_each_change_once_in_order(url: &str) {
    let database = Postgres::start().await;
    let nodes = Nodes::start(url, 2, &config(&database)).await;
    let mut tabs = Vec::new();
    for node in &*nodes {
        tabs.push(tab(node, "user_ann").await);
    }
    for number in 0..20 {
        notify(&nodes[number % 2], &["user_ann"], &format!("n{number}")).await;
    }
    for tab in &mut tabs {
        let mut last = 0;
        while last < 20 {
            let rev = tab.expect("notification.created").await.json()["rev"].as_i64().unwrap();
            // Two nodes may overtake each other: then a revision is left out, and its client asks for it.
            assert!(rev > last, "{rev} after {last}");
            last = rev;
        }
        tab.settle().await;
    }
}

async fn a_session_that_one_node_hears_of_ends_on_the_other(url: &str) {
    let database = Postgres::start().await;
    let nodes = Nodes::start(url, 2, &config(&database)).await;
    let mut ann = tab(&nodes[1], "user_ann").await;
    let mut bob = tab(&nodes[1], "user_bob").await;
    let start = Instant::now();
    let session = json!({ "id": "sess_user_ann", "user_id": "user_ann", "object": "session" });
    webhook(&nodes[0], "msg_1", "session.revoked", &session).await.ok();
    ann.expect_refusal(4009).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    bob.settle().await;
    let form = "socket_id=1.1&channel_name=private-user-user_ann";
    let refused = crate::user::authorize(&nodes[1], "/pusher/auth", &token("user_ann", &json!({})), form).await;
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn what_a_node_has_kept_and_cannot_publish_any_more_is_published_by_another() {
    let (redis, database) = (Redis::start(), Postgres::start().await);
    let proxy = Proxy::to(&redis.address()).await;
    let mut nodes = Nodes::start_each(&[&proxy.url(), &redis.url()], &config(&database)).await;
    let mut ann = tab(&nodes[1], "user_ann").await;
    proxy.set(Way::Stalled);
    notify(&nodes[0], &["user_ann"], "Kept").await;
    nodes[0].kill();
    // What the dead node had taken to publish is free again half a minute later.
    let deadline = Instant::now() + Duration::from_secs(45);
    let kept = loop {
        ann.send_text(r#"{"event":"pusher:ping"}"#).await;
        let event = ann.next().await;
        if event.event != "pusher:pong" {
            break event;
        }
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!((&*kept.event, &kept.json()["notification"]["title"]), ("notification.created", &json!("Kept")));
}

#[tokio::test]
async fn how_long_an_event_waits_for_the_cluster_is_told() {
    let (redis, database) = (Redis::start(), Postgres::start().await);
    let proxy = Proxy::to(&redis.address()).await;
    let nodes = Nodes::start_each(&[&proxy.url()], &config(&database)).await;
    let age = async || {
        let page = nodes[0].metrics().await;
        let line = page.lines().find_map(|line| line.strip_prefix("herald_outbox_age_seconds "));
        line.unwrap_or_else(|| panic!("{page}")).parse::<f64>().unwrap()
    };
    assert_eq!(age().await, 0.0);
    proxy.set(Way::Cut);
    notify(&nodes[0], &["user_ann"], "Kept").await;
    let waits = async { while age().await < 2.0 {} };
    timeout(DEADLINE, waits).await.expect("it grows");
    proxy.set(Way::Open);
    let published = async { while age().await > 0.0 {} };
    timeout(DEADLINE, published).await.expect("nothing waits any more");
}
