//! What goes on while something happens to Redis: a backend that publishes, people who come and go, others who stay and watch.
//!
//! Afterwards all that stayed must be as it was, for every node and every client. Who waits for Redis meanwhile waits; what is published
//! meanwhile may be lost, but a backend that repeats under the same idempotency key never makes it arrive twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::nodes::{LOOK, Nodes, until, until_equal};
use crate::observer::Observer;
use crate::support::{Client, DEADLINE};

/// So many rooms and channels: on a Redis Cluster they lie in most of its buckets.
const PLACES: usize = 12;
/// Between two events of the backend.
const PAUSE: Duration = Duration::from_millis(20);
/// Nodes that count as dead later than all of them have found Redis again: they pause for up to 5 s between two attempts.
pub(crate) const PATIENT: &str = "cluster.heartbeat = \"200ms\"\ncluster.node_timeout = \"15s\"";
/// Users that come and go at a time.
const RESTLESS: usize = 3;

/// See the module.
#[derive(Debug)]
pub(crate) struct Traffic<'a> {
    nodes: &'a Nodes,
    /// A watcher of each room on each node, a member of it like the user `tabs` who is on all nodes.
    watchers: Vec<(usize, usize, Observer)>,
    tabs: Vec<Client>,
    /// A subscriber of each channel on each node.
    subscribers: Vec<(usize, Client)>,
    attempts: AtomicUsize,
    is_over: AtomicBool,
}

/// Whether a master's last writes may be lost, and the marks of idempotency keys with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    AreKept,
    MayBeLost,
}

pub(crate) fn room(number: usize) -> String {
    format!("presence-room-{number:02}")
}

pub(crate) fn channel(number: usize) -> String {
    format!("news-{number:02}")
}

impl<'a> Traffic<'a> {
    /// Everybody has come, and nothing is under way.
    pub(crate) async fn start(nodes: &'a Nodes) -> Self {
        let (mut watchers, mut tabs, mut subscribers) = (Vec::new(), Vec::new(), Vec::new());
        for (position, node) in nodes.iter().enumerate() {
            for number in 0..PLACES {
                watchers.push((
                    number,
                    position,
                    Observer::join(node, &room(number), &format!("watch-{position}")).await,
                ));
                let mut client = node.connect().await;
                client.subscribe(&channel(number)).await;
                subscribers.push((number, client));
            }
            for number in 0..PLACES {
                let mut tab = node.connect().await;
                tab.join(&room(number), "tabs").await;
                tabs.push(tab);
            }
        }
        let mut traffic =
            Self { nodes, watchers, tabs, subscribers, attempts: AtomicUsize::new(0), is_over: AtomicBool::new(false) };
        traffic.agrees().await;
        traffic.watchers.iter_mut().for_each(|(.., watcher)| _ = watcher.told());
        traffic
    }

    /// Does something while people come and go and a backend publishes; the backend goes on after it until every node is ready.
    pub(crate) async fn meanwhile(&mut self, happens: impl AsyncFnOnce(&Self)) {
        self.is_over.store(false, Ordering::Relaxed);
        let these = &*self;
        let main = async {
            these.until_tried(25).await;
            happens(these).await;
            join_all(these.nodes.iter().map(|node| until(node, "ready"))).await;
            these.until_tried(25).await;
            these.is_over.store(true, Ordering::Relaxed);
        };
        tokio::join!(main, these.publish(), join_all((0..RESTLESS).map(|user| these.come_and_go(user))));
    }

    /// Returns when the backend has made so many further requests, whatever was answered.
    pub(crate) async fn until_tried(&self, count: usize) {
        let (enough, start) = (self.attempts.load(Ordering::Relaxed) + count, Instant::now());
        while self.attempts.load(Ordering::Relaxed) < enough {
            assert!(start.elapsed() < 8 * DEADLINE, "the backend's requests are answered");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Numbers, one after the other, each to the next channel by the next node: repeated until it is taken.
    async fn publish(&self) {
        let apis = self.nodes.apis();
        let mut number = 0_usize;
        while !self.is_over.load(Ordering::Relaxed) {
            number += 1;
            let body = json!({ "name": "number", "channel": channel(number % PLACES), "data": number.to_string() });
            let key = format!("{:016x}", rand::random::<u64>());
            let start = Instant::now();
            for attempt in 0.. {
                let api = &apis[(number + attempt) % apis.len()];
                let answer = api.events_once(&key, &body).await;
                self.attempts.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
                match answer.status {
                    200 => break,
                    // Another node that has lost Redis meanwhile says that it has given up when it is back.
                    409 | 503 => assert!(start.elapsed() < 6 * DEADLINE, "{number} is not taken: {answer:?}"),
                    _ => panic!("{number}: {answer:?}"),
                }
            }
        }
    }

    /// A user with a tab on one node, then on another, in one room and another.
    async fn come_and_go(&self, user: usize) {
        let mut round = user;
        while !self.is_over.load(Ordering::Relaxed) {
            let mut client = self.nodes[round % self.nodes.len()].connect().await;
            for number in [round, 2 * round + 1] {
                let room = room(number % PLACES);
                client.ask_to_join(&room, &json!({ "user_id": format!("restless-{user}") })).await;
                while client.next().await.event != "pusher_internal:subscription_succeeded" {}
            }
            if round.is_multiple_of(2) {
                client.cut()
            } else {
                client.close().await
            }
            round += 1;
        }
    }

    /// Everybody who stayed is there for every node and every watcher, and nobody else; nobody was told that one of them had left; what
    /// is published reaches all, and nothing came twice or in another order.
    pub(crate) async fn agrees_after(&mut self, writes: Writes) {
        self.agrees().await;
        for (number, position, watcher) in &mut self.watchers {
            watcher.catch_up(&self.nodes[(*position + 1) % self.nodes.len()]).await;
            let mut told = watcher.told();
            told.retain(|change| !change.contains("restless"));
            assert_eq!(told, [""; 0], "in {} on node {position} nobody else came or left", room(*number));
        }
        let end = format!("end-{:016x}", rand::random::<u64>());
        for number in 0..PLACES {
            let node = &self.nodes[number % self.nodes.len()];
            for name in [channel(number), room(number)] {
                node.trigger(&name, &end, "").await;
            }
        }
        for (number, client) in &mut self.subscribers {
            let mut last = 0;
            loop {
                let event = client.next().await;
                if event.event == end {
                    break;
                }
                let found: usize = event.data().parse().unwrap();
                // What a master had not answered for may come from it later, and again.
                let is_next = found > last || writes == Writes::MayBeLost;
                assert!(is_next, "{found} came after {last}: {}", channel(*number));
                last = found;
            }
        }
        for tab in &mut self.tabs {
            while tab.next().await.event != end {}
        }
        for (.., watcher) in &mut self.watchers {
            while watcher.next().await.event != end {}
        }
    }

    /// Every watcher's list and every node's answers are what they must be.
    async fn agrees(&mut self) {
        let nodes = self.nodes.len();
        let mut everybody: Vec<String> = (0..nodes).map(|position| format!("watch-{position}")).collect();
        everybody.push("tabs".to_owned());
        let everybody: Vec<&str> = everybody.iter().map(String::as_str).collect();
        let of = |prefix: &str, counts: Value| {
            let name = |number: usize| if prefix == "news-" { channel(number) } else { room(number) };
            let channels: BTreeMap<String, &Value> = (0..PLACES).map(|number| (name(number), &counts)).collect();
            json!({ "channels": channels })
        };
        let rooms = of("presence-", json!({ "user_count": nodes + 1, "subscription_count": 2 * nodes }));
        let channels = of("news-", json!({ "subscription_count": nodes }));
        for (prefix, info, expected) in
            [("presence-", "user_count,subscription_count", rooms), ("news-", "subscription_count", channels)]
        {
            self.nodes.until_all_say("/channels", &[("filter_by_prefix", prefix), ("info", info)], &expected).await;
        }
        for number in 0..PLACES {
            self.nodes.until_members_are(&room(number), &everybody).await;
        }
        for (_, position, watcher) in &mut self.watchers {
            watcher.catch_up(&self.nodes[(*position + 1) % nodes]).await; // on the way it may be the same by chance
            watcher.until(everybody.iter().copied()).await;
        }
        let clients = self.watchers.len() + self.tabs.len() + self.subscribers.len();
        for api in self.nodes.apis() {
            let ask = async || api.get("/connections", &[]).await.json();
            until_equal(&json!({ "connections": clients }), "/connections", ask).await;
        }
    }
}
