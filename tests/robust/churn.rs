//! Thousands come and are cut at random while events flow (case L1): nothing of them is left, and those who stay miss nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use herald_protocol::SocketId;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::eventually;
use crate::support::api::KeptOpen;
use crate::support::wire::Wire;
use crate::support::{App, Client, DEADLINE, Frame, Herald};

/// Connections of one round, and how many of them are open at once.
const CONNECTIONS: usize = 10_000;
const AT_ONCE: usize = 500;
/// Events of one round are a hundred a second for as long as it takes.
const PAUSE: Duration = Duration::from_millis(10);
/// Those who stay.
const STAYING: usize = 4;
/// What a second round may add to the memory of the first.
const MORE_MEMORY: u64 = 8 * 1024 * 1024;

const SEED: u64 = 0x4c31;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_that_come_and_are_cut_nothing_is_left() {
    let herald = Herald::start("metrics = { listen = \"127.0.0.1:0\" }\nserver = { handshake_timeout = \"2s\" }").await;
    let mut staying: Vec<Client> = Vec::new();
    for number in 0..STAYING {
        let mut client = herald.connect().await;
        client.subscribe("news").await;
        client.join("presence-lobby", &format!("staying-{number}")).await;
        staying.push(client);
    }
    let of_staying = json!({ "connections": STAYING, "subscriptions": 2 * STAYING, "channels": 2 });
    assert_eq!(gauges(&herald).await, of_staying);
    let descriptors = herald.descriptors();

    let mut reading = JoinSet::new();
    for client in staying {
        reading.spawn(read_to_the_end(client));
    }
    let mut published = 0;
    let mut memory = Vec::new();
    for round in 0..2 {
        published = publish_during(&herald, published, come_and_go(&herald, SEED + round)).await;
        eventually("gauges", async || gauges(&herald).await, |now| *now == of_staying).await;
        eventually("descriptors", async || herald.descriptors(), |now| *now <= descriptors).await;
        memory.push(herald.resident_bytes());
    }
    assert!(memory[1] <= memory[0] + MORE_MEMORY, "bytes of memory after each round: {memory:?}");
    let members = herald.api().get("/channels/presence-lobby/users", &[]).await.ok();
    assert_eq!(members["users"].as_array().unwrap().len(), STAYING, "who came has left: {members}");
    herald.trigger("news", "end", "").await;
    for (seen, client) in reading.join_all().await {
        assert_eq!(seen, [published; 2], "each event in order on both channels");
        client.close().await;
    }
    let accepted = sum(&herald.metrics().await, "herald_connections_accepted_total");
    assert!(accepted > CONNECTIONS * 9 / 10, "half of all were to become clients, {accepted} of two rounds did");
    let nobody = json!({ "connections": 0, "subscriptions": 0, "channels": 0 });
    eventually("gauges", async || gauges(&herald).await, |now| *now == nobody).await;
    assert_eq!(herald.api().get("/channels", &[]).await.ok(), json!({ "channels": {} }));
    assert!(!herald.has_logged("panicked"), "a task panicked");
}

/// What the server says is here.
async fn gauges(herald: &Herald) -> Value {
    let page = herald.metrics().await;
    let [connections, subscriptions, channels] =
        ["herald_connections", "herald_subscriptions", "herald_channels"].map(|name| sum(&page, name));
    json!({ "connections": connections, "subscriptions": subscriptions, "channels": channels })
}

/// The value of a metric over all labels.
fn sum(page: &str, name: &str) -> usize {
    let lines = page.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter(|rest| rest.starts_with([' ', '{'])).map(|rest| rest.rsplit(' ').next().unwrap());
    values.map(|value| value.parse::<usize>().unwrap()).sum()
}

/// Publishes numbered events to both channels until `done`; returns the next number.
async fn publish_during(herald: &Herald, mut next: u64, done: impl Future<Output = ()>) -> u64 {
    let ended = Arc::new(AtomicBool::new(false));
    let mut backend = KeptOpen::connect(herald.api()).await;
    let publish = async {
        let mut ticks = tokio::time::interval(PAUSE);
        while !ended.load(Ordering::Relaxed) {
            ticks.tick().await;
            backend.trigger(&["news", "presence-lobby"], "e", next.to_string()).await;
            next += 1;
        }
    };
    tokio::join!(publish, async {
        done.await;
        ended.store(true, Ordering::Relaxed);
    });
    next
}

/// Reads events on both channels up to the end, each in order; members come and go as they like. Returns how many there were.
async fn read_to_the_end(mut client: Client) -> ([u64; 2], Client) {
    let mut seen = [0; 2];
    loop {
        let event = client.next().await;
        match &*event.event {
            "e" => {
                let seen = &mut seen[usize::from(event.channel.as_deref() == Some("news"))];
                assert_eq!(event.data(), seen.to_string(), "on {:?}", event.channel);
                *seen += 1;
            }
            "end" => return (seen, client),
            "pusher_internal:member_added" | "pusher_internal:member_removed" => {}
            other => panic!("{other}: {}", event.text),
        }
    }
}

async fn come_and_go(herald: &Herald, seed: u64) {
    let mut tasks = JoinSet::new();
    for worker in 0..AT_ONCE {
        let (address, app) = (herald.address, herald.app.clone());
        tasks.spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed << 32 | worker as u64);
            for _ in 0..CONNECTIONS / AT_ONCE {
                let one = timeout(2 * DEADLINE, visit(address, &app, &mut rng)).await;
                // An error is the server's good right where the visitor misbehaves, and those who stay see what it should not do.
                _ = one.unwrap_or_else(|_| panic!("a visitor hangs; seed {seed}, worker {worker}"));
            }
        });
    }
    tasks.join_all().await;
}

/// How far a visitor comes before it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Connected,
    HandshakeBegun,
    HandshakeSent,
    Welcomed,
    Subscribed,
    FrameBegun,
}

const STAGES: [Stage; 6] = [
    Stage::Connected,
    Stage::HandshakeBegun,
    Stage::HandshakeSent,
    Stage::Welcomed,
    Stage::Subscribed,
    Stage::FrameBegun,
];

/// One connection from its beginning to an end that nobody expects.
async fn visit(address: SocketAddr, app: &App, rng: &mut StdRng) -> std::io::Result<()> {
    let last = STAGES[rng.random_range(0..STAGES.len())];
    let mut stream = TcpStream::connect(address).await?;
    let handshake = format!(
        "GET /app/{}?protocol=7 HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        app.key
    );
    if last == Stage::HandshakeBegun {
        stream.write_all(&handshake.as_bytes()[..rng.random_range(1..handshake.len())]).await?;
    }
    if last >= Stage::HandshakeSent {
        stream.write_all(handshake.as_bytes()).await?;
    }
    let mut wire = Wire::new(stream, &[]);
    if last >= Stage::Welcomed {
        let socket_id = read_hello(&mut wire).await?;
        let subscriptions = if last >= Stage::Subscribed { subscriptions(app, socket_id, rng) } else { Vec::new() };
        for subscription in &subscriptions {
            wire.write(&Frame::new(Frame::TEXT, subscription.to_string()).masked()).await?;
        }
        // Half of them wait until they are in; the others are cut on their way there.
        let mut awaited = if rng.random() { subscriptions.len() } else { 0 };
        while awaited > 0 {
            let frame = wire.read().await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
            awaited -= usize::from(frame.payload.starts_with(b"{\"event\":\"pusher_internal:subscription_succeeded\""));
        }
        if last >= Stage::FrameBegun {
            let frame = Frame::new(Frame::TEXT, vec![b' '; rng.random_range(1..5_000)]).masked();
            wire.write(&frame[..rng.random_range(1..frame.len())]).await?;
        }
    }
    if rng.random() {
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..250))).await;
    }
    end(wire, last, rng).await
}

async fn read_hello(wire: &mut Wire) -> std::io::Result<SocketId> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(wire.stream.read_u8().await?);
    }
    let hello = wire.read().await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let hello: Value = serde_json::from_slice(&hello.payload)?;
    let data: Value = serde_json::from_str(hello["data"].as_str().unwrap())?;
    Ok(data["socket_id"].as_str().unwrap().parse().unwrap())
}

/// A few channels; one visitor in three is a member of the lobby, as one of a hundred users.
fn subscriptions(app: &App, socket_id: SocketId, rng: &mut StdRng) -> Vec<Value> {
    let mut channels = vec!["news".to_owned(), format!("private-{}", rng.random_range(0..50))];
    channels.push(format!("cache-{}", rng.random_range(0..50)));
    let member = (rng.random_range(0..3) == 0).then(|| format!("{{\"user_id\":{}}}", rng.random_range(0..100)));
    channels.extend(member.is_some().then(|| "presence-lobby".to_owned()));
    let subscription = |channel: &String| {
        let channel_data = member.as_deref().filter(|_| channel.starts_with("presence-"));
        let auth = app.authorize(socket_id, channel, channel_data);
        let mut data = json!({ "channel": channel, "auth": auth });
        if let Some(channel_data) = channel_data {
            data["channel_data"] = channel_data.into();
        }
        json!({ "event": "pusher:subscribe", "data": data })
    };
    channels.iter().map(subscription).collect()
}

/// One of the ways to go.
async fn end(mut wire: Wire, last: Stage, rng: &mut StdRng) -> std::io::Result<()> {
    match rng.random_range(0..4) {
        0 => socket2::SockRef::from(&wire.stream).set_linger(Some(Duration::ZERO)), // a reset
        1 => {
            wire.stream.shutdown().await?; // half-closed: the server still may say something
            read_out(&mut wire).await
        }
        2 if last >= Stage::HandshakeSent && last < Stage::FrameBegun => {
            wire.write(&Frame::new(Frame::CLOSE, 1000_u16.to_be_bytes()).masked()).await?;
            read_out(&mut wire).await
        }
        _ => Ok(()), // gone without a word, whatever is still unread
    }
}

async fn read_out(wire: &mut Wire) -> std::io::Result<()> {
    let start = Instant::now();
    let mut thrown_away = [0; 4_096];
    while wire.stream.read(&mut thrown_away).await? > 0 {}
    assert!(start.elapsed() < DEADLINE, "the server let go after {:?}", start.elapsed());
    Ok(())
}
