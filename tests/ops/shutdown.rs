//! How it ends: what a balancer, a client and a supervisor see after SIGTERM.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::process::{Running, Setup, get, signed};
use crate::support::{Client, DEADLINE};

/// A server with these times for its end.
fn ending(delay: &str, drain: &str) -> Setup {
    Setup::new().env("HERALD_SHUTDOWN_DELAY", delay).env("HERALD_SHUTDOWN_DRAIN", drain)
}

/// Waits until it is on its way out.
async fn is_ending(herald: &Running) {
    herald.logged(&["shutting down"]).await;
    until_ready_says(herald, 503).await;
}

async fn until_ready_says(herald: &Running, status: u16) {
    let url = format!("{}/health/ready", herald.metrics_url().await);
    let said = async { while get(&url).await.0 != status {} };
    timeout(DEADLINE, said).await.expect("ready says it in time");
}

/// Waits until nobody new is accepted.
async fn is_closed(herald: &Running) {
    let address = herald.address();
    let closed = async { while TcpStream::connect(address).await.is_ok() {} };
    timeout(DEADLINE, closed).await.expect("the listener is closed in time");
}

#[tokio::test]
async fn balancers_are_told_first_while_everybody_is_still_served() {
    let herald = ending("3s", "1s").start().await;
    let mut early = herald.connect().await;
    early.subscribe("c").await;
    let start = Instant::now();
    herald.signal("TERM");
    is_ending(&herald).await;
    for base in [herald.url(), herald.metrics_url().await] {
        let (status, text) = get(&format!("{base}/health/ready")).await;
        let checks = json!({ "database": "ok", "redis": "ok", "draining": true });
        let expected = json!({ "status": "not_ready", "checks": checks });
        assert_eq!((status, serde_json::from_str(&text).unwrap()), (503, expected));
        assert_eq!(get(&format!("{base}/health/live")).await.0, 200);
    }
    assert!(get(&format!("{}/metrics", herald.metrics_url().await)).await.1.contains("\nherald_ready 0\n"));
    let mut late = herald.connect().await; // it is accepted, and served as ever
    late.subscribe("c").await;
    herald.api().trigger("c", "e", "data").await;
    early.expect("e").await;
    late.expect("e").await;
    early.settle().await;
    assert!(start.elapsed() < Duration::from_secs(3), "all of that was within the delay");
    tokio::join!(early.expect_close(4200), late.expect_close(4200));
    assert!(start.elapsed() >= Duration::from_secs(3), "nobody is sent away before");
    drop((early, late));
    assert!(herald.finished().await.status.success());
}

#[tokio::test]
async fn clients_are_sent_away_evenly() {
    const CLIENTS: u32 = 20;
    const DRAIN: Duration = Duration::from_secs(2);
    let herald = ending("0s", "2s").start().await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(herald.connect().await);
    }
    herald.signal("TERM");
    is_ending(&herald).await;
    let start = Instant::now();
    let closes = clients.into_iter().map(|mut client| async move {
        let reason = client.expect_close(4200).await;
        assert!(reason.contains("going away"), "{reason}");
        start.elapsed()
    });
    let watch = async {
        // Meanwhile nobody new comes in, and those who watch see how many are left.
        is_closed(&herald).await;
        get(&format!("{}/metrics", herald.metrics_url().await)).await.1
    };
    let (mut closes, page) = tokio::join!(join_all(closes), watch);
    closes.sort_unstable();
    let left = page.lines().find_map(|line| line.strip_prefix("herald_connections ")).unwrap();
    assert!(left.parse::<u32>().unwrap() > 0, "{page}");
    assert!(closes.last().unwrap() >= &(DRAIN * 3 / 5), "the last stays nearly to the end: {closes:?}");
    assert!(closes.last().unwrap() <= &(DRAIN + Duration::from_secs(2)), "{closes:?}");
    let at_half = closes.iter().filter(|close| **close < DRAIN / 2).count();
    assert!((4..=16).contains(&at_half), "about half at half time: {closes:?}");
    for window in closes.windows(7) {
        assert!(window[6] - window[0] >= Duration::from_millis(150), "seven at once are no spread: {closes:?}");
    }
    assert!(herald.finished().await.status.success());
}

#[tokio::test]
async fn what_waits_for_a_client_is_written_before_its_goodbye() {
    let herald = ending("0s", "0s").start().await;
    let mut client = herald.connect().await;
    client.subscribe("c").await;
    let data = "x".repeat(10_000);
    for _ in 0..300 {
        herald.api().trigger("c", "e", &*data).await; // more than the kernel takes for a client that does not read
    }
    herald.signal("TERM");
    is_ending(&herald).await;
    for _ in 0..300 {
        client.expect("e").await;
    }
    client.expect_close(4200).await;
    assert!(herald.finished().await.status.success());
}

#[tokio::test]
async fn it_ends_early_when_nobody_is_left() {
    let herald = ending("0s", "5m").start().await;
    let clients = join_all((0..4).map(|_| herald.connect())).await;
    herald.signal("TERM");
    is_closed(&herald).await;
    drop(clients);
    let start = Instant::now();
    assert!(herald.finished().await.status.success());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());

    let herald = ending("0s", "5m").start().await;
    let _silent = TcpStream::connect(herald.address()).await.unwrap(); // it never says a word
    let start = Instant::now();
    herald.signal("TERM");
    assert!(herald.finished().await.status.success());
    assert!(start.elapsed() < Duration::from_secs(1), "nobody was there: {:?}", start.elapsed());
}

#[tokio::test]
async fn who_was_refused_holds_nothing_up() {
    let herald = ending("0s", "0s").env("HERALD_MAX_CONNECTIONS", "1").start().await;
    let guest = herald.connect().await;
    let mut refused = herald.open("/app/app-key?protocol=7", "").await; // its refusal is held back for seconds
    let start = Instant::now();
    herald.signal("TERM");
    drop(guest);
    refused.expect_refusal(4100).await;
    drop(refused);
    assert!(herald.finished().await.status.success());
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn interrupt_ends_it_in_order_too() {
    let herald = ending("0s", "1s").start().await;
    let mut client = herald.connect().await;
    herald.signal("INT");
    client.expect_close(4200).await;
    drop(client);
    let finished = herald.finished().await;
    assert_eq!(finished.status.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (delay, drain) in [("5m", "5m"), ("0s", "5m")] {
        for [first, second] in [["TERM", "TERM"], ["INT", "INT"], ["TERM", "INT"]] {
            let herald = ending(delay, drain).start().await;
            let clients = join_all((0..3).map(|_| herald.connect())).await;
            herald.signal(first);
            is_ending(&herald).await;
            herald.signal("HUP"); // no signal of that kind
            herald.logged(&["SIGHUP"]).await;
            let start = Instant::now();
            herald.signal(second);
            let finished = herald.finished().await;
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
            assert_eq!(finished.status.code(), Some(1), "it did not end in order");
            drop(clients);
        }
    }
}

#[tokio::test]
async fn a_request_that_is_under_way_is_answered() {
    let herald = ending("0s", "1s").start().await;
    let mut client = herald.connect().await;
    client.subscribe("c").await;
    let body = r#"{"name":"e","channel":"c","data":"late"}"#;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
        signed("POST", "/apps/app-id/events", body),
        body.len()
    );
    let mut backend = TcpStream::connect(herald.address()).await.unwrap();
    let (beginning, end) = body.split_at(10);
    backend.write_all(format!("{head}{beginning}").as_bytes()).await.unwrap();
    let mut idle = TcpStream::connect(herald.address()).await.unwrap();
    idle.write_all(b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    herald.signal("TERM");
    is_closed(&herald).await;
    let mut rest = String::new();
    timeout(DEADLINE, idle.read_to_string(&mut rest)).await.expect("who keeps a connection open is let go").unwrap();
    backend.write_all(end.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, backend.read_to_string(&mut answer)).await.expect("an answer in time").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("{}"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    client.expect_close(4200).await; // it was the first of one
    drop(client);
    assert_eq!(herald.finished().await.status.code(), Some(0));
}

#[tokio::test]
async fn the_metrics_listener_is_the_last_to_go() {
    let herald = ending("0s", "5m").start().await;
    let clients = join_all((0..2).map(|_| herald.connect())).await;
    herald.signal("TERM");
    is_closed(&herald).await;
    assert_eq!(get(&format!("{}/health/live", herald.metrics_url().await)).await.0, 200);
    assert_eq!(get(&format!("{}/metrics", herald.metrics_url().await)).await.0, 200);
    drop(clients);
    assert!(herald.finished().await.status.success());
}
