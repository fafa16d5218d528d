//! What the hot paths cost in instructions, which is the same on a busy machine and on a quiet one.
//!
//! Herald runs under valgrind and does something so many times, then in another run more times: the difference is the price of one. These are
//! builds without optimisation, so the figures say nothing about speed, only whether a path has become longer. One that is over its
//! bound is a mistake to mend, or a price that is worth it: then the bound is raised, and the commit says why.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "figures")]

#[allow(dead_code, reason = "shared with the tests of the HTTP API, which use the rest")]
#[path = "../http/support.rs"]
mod support;

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use support::{Client, Herald, Request, Wire};

/// How long a start may take; under valgrind everything takes fifty times as long.
const START: Duration = Duration::from_secs(120);

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
threads = 1
[shutdown]
drain = "0s"
[[apps]]
id = "app-id"
key = "app-key"
secret = "app-secret"
"#;

#[tokio::test]
async fn a_trigger_with_nobody_subscribed() {
    let price = price([50, 1_050], async |herald, count| {
        let mut backend = herald.wire().await;
        for _ in 0..count {
            trigger(&mut backend, "nobody-is-there").await;
        }
    });
    is_at_most(TRIGGER, price.await);
}

#[tokio::test]
async fn a_connect_with_a_subscription() {
    let price = price([10, 310], async |herald, count| drop(subscribers(herald, count).await));
    is_at_most(CONNECT, price.await);
}

#[tokio::test]
async fn a_delivery() {
    const CLIENTS: u32 = 50;
    let event = price([10, 210], async |herald, count| {
        let mut clients = subscribers(herald, CLIENTS).await;
        let mut backend = herald.wire().await;
        for _ in 0..count {
            trigger(&mut backend, "channel").await;
            for client in &mut clients {
                client.expect("e").await;
            }
        }
    });
    is_at_most(DELIVERY, event.await / u64::from(CLIENTS));
}

/// Instructions, an eighth above the most of several runs when these lines were written.
const TRIGGER: u64 = 185_000;
const CONNECT: u64 = 275_000;
const DELIVERY: u64 = 8_200;

#[track_caller]
fn is_at_most(bound: u64, price: u64) {
    println!("{price} instructions, {bound} are allowed");
    assert!(price <= bound, "{price} instructions, {bound} are allowed");
    assert!(price > bound / 2, "{price} instructions: the bound of {bound} is worth nothing any more, lower it");
}

/// Instructions of one of what `work` does as often as it is told.
async fn price([few, many]: [u32; 2], work: impl AsyncFn(&Herald, u32)) -> u64 {
    let mut taken = [0; 2];
    for (taken, count) in taken.iter_mut().zip([few, many]) {
        let herald = under_valgrind();
        work(&herald, count).await;
        *taken = instructions(herald);
    }
    taken[1].saturating_sub(taken[0]) / u64::from(many - few)
}

fn under_valgrind() -> Herald {
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    std::fs::write(path("herald.toml"), CONFIG).unwrap();
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--tool=callgrind", "--separate-threads=yes"])
        .arg(format!("--callgrind-out-file={}", path("counted").display()))
        .arg(format!("--log-file={}", path("valgrind").display()))
        .arg(env!("CARGO_BIN_EXE_herald"));
    Herald::run(command, directory, START)
}

/// Ends it, and says how many instructions its one thread has taken. The database's threads have work of their own, each second.
fn instructions(mut herald: Herald) -> u64 {
    let ended = Command::new("kill").args(["-TERM", &herald.child.id().to_string()]).status().unwrap();
    assert!(ended.success() && herald.child.wait().unwrap().success());
    let counted = std::fs::read_to_string(herald.directory.path().join("counted-01")).unwrap();
    let total = counted.lines().find_map(|line| line.strip_prefix("totals: "));
    total.expect("callgrind says a total").trim().parse().unwrap()
}

async fn subscribers(herald: &Herald, count: u32) -> Vec<Client> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(herald.subscriber(&["channel"]).await);
    }
    all
}

async fn trigger(backend: &mut Wire, channel: &str) {
    let event = json!({ "name": "e", "channels": [channel], "data": "x".repeat(200) });
    backend.write(&Request::post("/events", &event).bytes()).await;
    assert_eq!(backend.response().await.json(), json!({}));
}
