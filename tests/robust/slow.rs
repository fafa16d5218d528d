//! Hundreds who send a byte at a time, or nothing: each is cut in its time, and nobody waits for them.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{DEADLINE, Herald};
use crate::{assert_served, eventually};

const SHORT: &str = "server = { handshake_timeout = \"2s\", request_timeout = \"2s\" }";

/// Of each kind.
const SLOW: usize = 150;
/// Between two bytes.
const PAUSE: Duration = Duration::from_millis(100);

/// What they may cost together while they are there.
const MEMORY: u64 = 48 * 1024 * 1024;

/// Who is slow, and with what: a beginning that is there at once, and what then comes byte by byte.
fn kinds(herald: &Herald) -> Vec<(&'static str, String, String)> {
    let data = "x".repeat(10_000);
    let request = herald.api().events_request(&json!({ "name": "e", "channel": "news", "data": data }));
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let unsigned = head.replace("auth_signature=", "auth_signature=0");
    let (line, _) = head.split_once("\r\n").unwrap();
    let upgrade = "GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: herald\r\n";
    vec![
        ("says nothing", String::new(), String::new()),
        ("sends its handshake byte by byte", String::new(), format!("{upgrade}Connection: Upgrade\r\n")),
        ("adds a header now and then", upgrade.to_owned(), "X: y\r\n".to_owned()),
        ("sends the body of a POST byte by byte", format!("{head}\r\n\r\n"), body.to_owned()),
        ("sends a body that nobody signed", format!("{unsigned}\r\n\r\n"), body.to_owned()),
        (
            "sends chunks that never end",
            format!("{line}\r\nHost: herald\r\nTransfer-Encoding: chunked\r\n\r\n"),
            "1\r\n{\r\n".to_owned(),
        ),
        (
            "speaks HTTP/2 and asks nothing",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned(),
            String::new(),
        ),
    ]
}

#[tokio::test]
async fn hundreds_of_slow_senders_are_cut_and_hinder_nobody() {
    let herald = Herald::start(SHORT).await;
    let mut ann = herald.connect().await;
    ann.subscribe("news").await;
    assert_served(&herald, &mut ann, "news").await;
    let (descriptors, memory) = (herald.descriptors_but_the_databases(), herald.resident_bytes());
    let mut slow = JoinSet::new();
    let kinds = kinds(&herald);
    let all = kinds.len() * SLOW;
    for (kind, beginning, rest) in kinds {
        for _ in 0..SLOW {
            let (address, beginning, rest) = (herald.address, beginning.clone(), rest.clone());
            slow.spawn(async move {
                let start = Instant::now();
                // That it cannot send on is one of the ways to learn that it was cut.
                _ = tokio::time::timeout(2 * DEADLINE, drip(address, &beginning, &rest))
                    .await
                    .unwrap_or_else(|_| panic!("who {kind} was not cut"));
                (kind, start.elapsed())
            });
        }
    }
    eventually("most are there", async || herald.descriptors_but_the_databases(), |now| *now >= descriptors + all / 2)
        .await;
    let start = Instant::now();
    while herald.descriptors_but_the_databases() > descriptors + SLOW {
        let mut new = herald.connect().await; // who comes now is not kept waiting either
        new.subscribe("late").await;
        assert_served(&herald, &mut ann, "news").await;
        new.close().await;
        let growth = herald.resident_bytes().saturating_sub(memory);
        assert!(growth < MEMORY, "{growth} bytes for those who are slow");
        assert!(start.elapsed() < DEADLINE, "they are still there");
    }
    for (kind, elapsed) in slow.join_all().await {
        assert!(elapsed > Duration::from_secs(1), "who {kind} was given {elapsed:?} only");
        assert!(elapsed < Duration::from_secs(8), "who {kind} was cut after {elapsed:?}");
    }
    eventually("descriptors", async || herald.descriptors_but_the_databases(), |now| *now <= descriptors).await;
    assert_served(&herald, &mut ann, "news").await;
}

/// Sends the beginning at once and the rest byte by byte, over and over; returns when the server ends it.
async fn drip(address: SocketAddr, beginning: &str, rest: &str) -> io::Result<()> {
    let (mut read, mut write) = TcpStream::connect(address).await?.into_split();
    write.write_all(beginning.as_bytes()).await?;
    let sending = async {
        for byte in rest.bytes().cycle() {
            tokio::time::sleep(PAUSE).await;
            write.write_all(&[byte]).await?;
        }
        std::future::pending().await
    };
    let mut answer = Vec::new();
    tokio::select! {
        failed = sending => failed,
        ended = read.read_to_end(&mut answer) => ended.map(|_| ()),
    }
}
