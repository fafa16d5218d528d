//! What the steps of a message's way cost: read what a client sent, check its signature, encode an event, queue it for everybody.
//!
//! Not here: sockets. `herald-loadtest` measures the whole way, through the kernel.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark fails by panicking, and its macros document nothing")]

use std::hint::black_box;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use herald::apps::Apps;
use herald::config::AppOptions;
use herald::http::pusher::auth;
use herald::hub::queue::{Bounds, Handed, Queue, Way};
use herald::hub::{Client, Frame};
use herald::transport::Transport;
use herald_protocol::client::ClientMessage;
use herald_protocol::json::{members, quoted, string, strings};
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

/// What is done with a backend's trigger before it is published: its signature, its body's sum, its body.
fn trigger(c: &mut Criterion) {
    const NOW: u64 = 1_353_088_179;
    let secret = Secret::new("app-secret");
    let options = AppOptions { id: "app-id".to_owned(), key: "app-key".to_owned(), secret, ..AppOptions::default() };
    let app = Apps::new(vec![options]).by_id("app-id").unwrap();
    let body = format!(r#"{{"name":"order-changed","channels":["{CHANNEL}"],"data":{}}}"#, data());
    let (path, md5, now) = ("/apps/app-id/events", body_md5(body.as_bytes()), NOW.to_string());
    let query = [("auth_key", "app-key"), ("auth_timestamp", &now), ("auth_version", "1.0"), ("body_md5", &md5)];
    let (_, signature) = app.sign(request_string("POST", path, query).as_bytes());
    let query = query.map(|(name, value)| format!("{name}={value}")).join("&");
    let query = format!("{query}&auth_signature={signature}");
    c.bench_function("trigger/check", |b| {
        b.iter(|| {
            let authorized = auth::check(&app, "POST", black_box(path), black_box(&query), true, NOW).unwrap();
            authorized.with(black_box(body.as_bytes())).unwrap()
        });
    });
    c.bench_function("trigger/read", |b| {
        let names = ["name", "data", "socket_id", "info", "channels", "channel"];
        b.iter(|| {
            let [name, data, .., channels, _] = members(black_box(&body), names).unwrap();
            (string("name", name.unwrap()).unwrap(), data, strings("channels", channels.unwrap()).unwrap())
        });
    });
}

/// One event to everybody's socket, on one thread: written by the connections' tasks, and at once. What arrives
/// is read between the rounds, outside of the measured time.
fn fan_out(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _inside = runtime.enter();
    let app = AppOptions { id: "app-id".to_owned(), key: "app-key".to_owned(), ..AppOptions::default() };
    let app = Apps::new(vec![app]).by_id("app-id").unwrap();
    let sockets = |_| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let bounds = Bounds { max_frames: 10_000, max_bytes: 1 << 20 };
        let queue = Queue::new(bounds, Some(Transport::Unix(tokio::net::UnixStream::from_std(ours).unwrap())));
        (Arc::new(Client::new(SocketId::from_random(7), Arc::clone(&app), queue)), theirs)
    };
    let sockets: Vec<(Arc<Client>, UnixStream)> = (0..SUBSCRIBERS).map(sockets).collect();
    let (channel, data) = (ChannelName::parse(CHANNEL, 164).unwrap(), data());
    let frame = Frame::text(&herald_protocol::server::event("order-changed", &channel, &data));
    let write = || {
        let mut cx = Context::from_waker(Waker::noop());
        sockets.iter().for_each(|(client, _)| assert!(client.queue.poll_write(&mut cx).is_pending()));
    };
    let hand_over = |way| {
        for (client, _) in &sockets {
            assert_eq!(client.queue.offer(&frame, None, way), Ok(Handed::Over));
        }
    };
    let read = || {
        let mut buffer = vec![0; frame.size()];
        sockets.iter().for_each(|(_, theirs)| (&mut &*theirs).read_exact(&mut buffer).unwrap());
    };
    runtime.block_on(tokio::task::yield_now()); // the runtime hears from the kernel that all of them may be written to
    write(); // from now on the tasks wait for something to write

    let mut group = c.benchmark_group("fan-out");
    group.throughput(Throughput::Elements(SUBSCRIBERS));
    let mut bench = |name: &str, hand_over: &dyn Fn()| {
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let timed = |_| {
                    let start = Instant::now();
                    hand_over();
                    let took = start.elapsed();
                    read();
                    took
                };
                (0..rounds).map(timed).sum()
            });
        });
    };
    bench("1,000 sockets, by their tasks", &|| {
        hand_over(Way::ByTask);
        write();
    });
    bench("1,000 sockets, at once", &|| hand_over(Way::AtOnce));
}

criterion_group! {
    name = protocol;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = encode, decode, sign, trigger, fan_out
}
criterion_main!(protocol);
