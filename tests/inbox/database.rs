//! A database that goes away: whoever asks for an inbox is told to come again, everybody else notices nothing, and it is all there when it
//! is back.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::postgres::Postgres;
use super::support::{DEADLINE, Herald};
use super::user::{ask, auth, authorize, notify, tab, token};

fn config(server: &Postgres) -> String {
    format!(
        "metrics.listen = \"127.0.0.1:0\"\n[database]\nurl = \"{}\"\nschema = \"{}\"\n{}",
        server.url,
        server.schema,
        auth("[[auth.rules]]\nchannels = [\"room\"]")
    )
}

/// Waits until the page for Prometheus says so.
async fn until_told(herald: &Herald, line: &str) {
    let told = async { while !herald.metrics().await.contains(line) {} };
    tokio::time::timeout(DEADLINE, told).await.unwrap_or_else(|_| panic!("{line:?} is told in time"));
}

async fn until_ready(herald: &Herald) {
    let start = Instant::now();
    while ask(herald, "user_ann", "GET", "/v1/inbox", &Value::Null).await.status != 200 {
        assert!(start.elapsed() < DEADLINE * 2, "the database is back");
    }
}

#[tokio::test]
async fn while_postgres_is_away_inboxes_are_and_nothing_else_is() {
    let mut server = Postgres::own().await;
    let herald = Herald::start(&config(&server)).await;
    let mut ann = tab(&herald, "user_ann").await;
    notify(&herald, &["user_ann"], "Before").await;
    ann.expect("notification.created").await;
    server.stop();
    let body = json!({ "to": { "user_ids": ["user_ann"] }, "type": "a", "title": "Meanwhile", "transaction_id": "t" });
    let refused = herald.api().post("/notifications", &body.to_string()).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("store_unavailable")));
    assert_eq!(refused.headers["retry-after"], "5");
    assert_eq!(ask(&herald, "user_ann", "GET", "/v1/inbox", &Value::Null).await.status, 503);
    until_told(&herald, "herald_database_reached 0\n").await;
    // Who is let in is told by the token, as long as it lives.
    let form = format!("socket_id={}&channel_name=presence-room", ann.socket_id());
    assert_eq!(authorize(&herald, "/pusher/auth", &token("user_ann", &json!({})), &form).await.status, 200);
    herald.trigger("private-user-user_ann", "marker", "1").await;
    ann.expect("marker").await;
    server.resume().await;
    until_ready(&herald).await;
    until_told(&herald, "herald_database_reached 1\n").await;
    let made = herald.api().post("/notifications", &body.to_string()).await.ok();
    assert_eq!((&made["created"], &made["duplicates"]), (&json!(1), &json!(0)), "nothing was half done");
    assert_eq!(ann.expect("notification.created").await.json()["notification"]["title"], "Meanwhile");
    assert!(!herald.has_logged("password"));
}

#[tokio::test]
async fn a_server_that_finds_no_database_at_its_start_finds_it_later() {
    let mut server = Postgres::own().await;
    server.stop();
    let herald = Herald::start(&config(&server)).await;
    assert_eq!(ask(&herald, "user_ann", "GET", "/v1/inbox", &Value::Null).await.status, 503);
    server.resume().await;
    until_ready(&herald).await;
    let mut ann = tab(&herald, "user_ann").await;
    notify(&herald, &["user_ann"], "Hello").await;
    ann.expect("notification.created").await;
}
