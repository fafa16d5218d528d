//! Hundreds who send a byte at a time, or nothing: each is cut in its time, and nobody waits for them.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{DEADLINE, Herald};
use crate::{assert_served, eventually};

const SHORT: &str = "server = { handshake_timeout = \"2s\", request_timeout = \"2s\" }";

/// Of each kind.
const SLOW: usize = 200;
/// Between two bytes.
const PAUSE: Duration = Duration::from_millis(100);

/// What they may cost together while they are there.
const MEMORY: u64 = 48 * 1024 * 1024;

/// Who is slow, and with what: a beginning that is there at once, and what then comes byte by byte.
const KINDS: [(&str, &str, &str); 6] = [
    ("speaks HTTP/2 and asks nothing", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", ""),
    ("says nothing", "", ""),
    (
        "sends its handshake byte by byte",
        "",
        "GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: herald\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
    ),
    (
        "adds a header now and then",
        "GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: herald\r\n",
        "X: y\r\nX: y\r\nX: y\r\n",
    ),
    (
        "sends the body of a POST byte by byte",
        "POST /apps/app-id/events?auth_key=app-key HTTP/1.1\r\nHost: herald\r\nContent-Length: 10000\r\n\r\n",
        "{\"name\":\"e\",\"channel\":\"news\",\"data\":\"",
    ),
    (
        "sends chunks that never end",
        "POST /apps/app-id/events?auth_key=app-key HTTP/1.1\r\nHost: herald\r\nTransfer-Encoding: chunked\r\n\r\n",
        "1\r\n{\r\n1\r\n{\r\n1\r\n{\r\n1\r\n{\r\n1\r\n{\r\n1\r\n{\r\n",
    ),
];

#[tokio::test]
async fn hundreds_of_slow_senders_are_cut_and_hinder_nobody() {
    let herald = Herald::start(SHORT).await;
    let mut ann = herald.connect().await;
    ann.subscribe("news").await;
    assert_served(&herald, &mut ann, "news").await;
    let (descriptors, memory) = (herald.descriptors(), herald.resident_bytes());
    let mut slow = JoinSet::new();
    for (kind, beginning, rest) in KINDS {
        for _ in 0..SLOW {
            let address = herald.address;
            slow.spawn(async move {
                let start = Instant::now();
                // That it cannot send on is one of the ways to learn that it was cut.
                _ = tokio::time::timeout(2 * DEADLINE, drip(address, beginning, rest))
                    .await
                    .unwrap_or_else(|_| panic!("who {kind} was not cut"));
                (kind, start.elapsed())
            });
        }
    }
    eventually("all are there", async || herald.descriptors(), |now| *now >= descriptors + KINDS.len() * SLOW).await;
    let start = Instant::now();
    while herald.descriptors() > descriptors + SLOW {
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
    eventually("descriptors", async || herald.descriptors(), |now| *now <= descriptors).await;
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
