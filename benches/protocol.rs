//! What the steps of a message's way cost: read what a client sent, check its signature, encode an event, queue it for everybody.
//!
//! Not here: sockets. `herald-loadtest` measures the whole way, through the kernel.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark fails by panicking, and its macros document nothing")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use herald::apps::Apps;
use herald::cluster::Event;
use herald::cluster::local::Local;
use herald::config::AppOptions;
use herald::hub::queue::{Bounds, Queue};
use herald::hub::{Client, Frame, Hub, Node};
use herald::webhooks::Webhooks;
use herald_protocol::client::ClientMessage;
use herald_protocol::json::quoted;
use herald_protocol::signature::{body_md5, channel_string, request_string};
use herald_protocol::{ChannelName, Secret, SocketId};

const SUBSCRIBERS: u64 = 1_000;
const CHANNEL: &str = "private-orders";
const SOCKET_ID: &str = "2984157423.1374906281";
const SIGNATURE: &str = "app-key:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";

/// An event's data, 200 bytes of JSON as a string token.
fn data() -> String {
    quoted(&format!(r#"{{"order":4711,"state":"shipped","note":"{}"}}"#, "x".repeat(155)))
}

fn encode(c: &mut Criterion) {
    let (channel, data) = (ChannelName::parse(CHANNEL, 164).unwrap(), data());
    c.bench_function("encode/event", |b| {
        b.iter(|| Frame::text(&herald_protocol::server::event(black_box("order-changed"), &channel, black_box(&data))))
    });
}

fn decode(c: &mut Criterion) {
    let subscribe = format!(r#"{{"event":"pusher:subscribe","data":{{"auth":"{SIGNATURE}","channel":"{CHANNEL}"}}}}"#);
    let event = format!(r#"{{"event":"client-typing","channel":"{CHANNEL}","data":{}}}"#, data());
    for (name, text) in [("decode/subscribe", subscribe), ("decode/client event", event)] {
        c.bench_function(name, |b| b.iter(|| drop(black_box(ClientMessage::parse(black_box(&text)).unwrap()))));
    }
}

fn sign(c: &mut Criterion) {
    let secret = Secret::new("app-secret");
    let socket_id: SocketId = SOCKET_ID.parse().unwrap();
    let channel = || channel_string(black_box(socket_id), black_box(CHANNEL), None);
    let body = format!(r#"{{"name":"order-changed","channel":"{CHANNEL}","data":{}}}"#, data());
    let request = || {
        let md5 = body_md5(black_box(body.as_bytes()));
        let parameters = [
            ("auth_key", "app-key"),
            ("auth_timestamp", "1353088179"),
            ("auth_version", "1.0"),
            ("body_md5", md5.as_str()),
        ];
        request_string(black_box("POST"), black_box("/apps/app-id/events"), parameters)
    };
    let (of_channel, of_request) = (secret.sign(channel().as_bytes()), secret.sign(request().as_bytes()));
    c.bench_function("sign/channel", |b| b.iter(|| secret.sign(channel().as_bytes())));
    c.bench_function("verify/channel", |b| b.iter(|| secret.verifies(channel().as_bytes(), black_box(&of_channel))));
    c.bench_function("sign/request", |b| b.iter(|| secret.sign(request().as_bytes())));
    c.bench_function("verify/request", |b| b.iter(|| secret.verifies(request().as_bytes(), black_box(&of_request))));
}

/// One event to everybody's queue, on one thread; the queues are emptied between the rounds, outside of the measured time.
fn fan_out(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let app = AppOptions { id: "app-id".to_owned(), key: "app-key".to_owned(), ..AppOptions::default() };
    let apps = Apps::new(vec![app]);
    let app = apps.by_id("app-id").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let webhooks = Webhooks::start(&apps, &herald::outgoing::Outgoing::new().unwrap(), folder.path());
    let node = Arc::new(Node::new(&apps, &webhooks, false));
    let hub = Hub { cluster: Arc::new(Local::new(Arc::clone(&node))), node };
    let (channel, data) = (ChannelName::parse(CHANNEL, 164).unwrap(), data());
    let subscriber = |number| {
        let queue = Queue::new(Bounds { max_frames: 10_000, max_bytes: 1 << 20 });
        let client = Arc::new(Client::new(SocketId::from_random(number), Arc::clone(&app), queue));
        hub.subscribe(&client, &channel, None).unwrap();
        client
    };
    let clients: Vec<_> = (0..SUBSCRIBERS).map(subscriber).collect();
    let empty = |expected| {
        let mut frames = VecDeque::new();
        for client in &clients {
            let taken = client.queue.poll_take(&mut Context::from_waker(Waker::noop()), &mut frames, usize::MAX);
            assert!(matches!(taken, Poll::Ready(None)), "every subscriber has got something");
        }
        assert_eq!(frames.len(), expected);
    };
    let event = Event { channel: &channel, name: "order-changed", data: &data, except: None, once: None, rev: None };
    let publish = || runtime.block_on(hub.publish(&app, &event)).unwrap();
    empty(clients.len()); // the answers to their subscriptions
    publish();

    let mut group = c.benchmark_group("fan-out");
    group.throughput(Throughput::Elements(SUBSCRIBERS));
    group.bench_function("1,000 subscribers", |b| {
        b.iter_batched(|| empty(clients.len()), |()| publish(), BatchSize::PerIteration);
    });
}

criterion_group! {
    name = protocol;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = encode, decode, sign, fan_out
}
criterion_main!(protocol);
