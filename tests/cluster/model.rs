//! All promises of presence and counts at random: users come and go on any node while a model in the test says what must be true.
//!
//! A schedule is a seed: joins and leaves, most of them without waiting for one another, then a quiet point at which every node's answers and
//! every observer's list must be what the model says. Most schedules share their nodes, each with channels of its own. Every
//! [`CRASHING`]th has nodes of its own, which it also kills, replaces and puts to sleep.
//!
//! `HERALD_MODEL_SCHEDULES` says how many there are, over one Redis and over a Redis Cluster. A schedule that fails says its seed: with `HERALD_MODEL_SEED` set to it and
//! `HERALD_MODEL_SCHEDULES=1`, that schedule runs again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::nodes::{IMPATIENT, Nodes, members, until_equal};
use crate::observer::Observer;
use crate::redis::Redis;
use crate::shards::Shards;
use crate::support::Client;
use crate::support::api::Api;

/// Which of the schedules have crashes: those whose seed this divides.
const CRASHING: u64 = 20;
const NODES: usize = 3;
const STEPS: usize = 30;
const CHANNELS: usize = 2;
const USERS: usize = 4;
/// Schedules that run at a time, on shared nodes and on nodes of their own.
const AT_ONCE: (usize, usize) = (12, 2);
const SETTINGS: &str = "connection.activity_timeout = \"10m\"";

static FAILED: AtomicBool = AtomicBool::new(false);

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[tokio::test]
async fn whatever_happens_in_whatever_order_every_node_tells_the_truth() {
    let redis = Redis::start();
    schedules(&redis.url(), 200).await;
}

#[tokio::test]
async fn whatever_happens_in_whatever_order_every_node_tells_the_truth_over_a_redis_cluster() {
    let shards = Shards::start().await;
    schedules(&shards.url(), 60).await;
}

async fn schedules(url: &str, count: u64) {
    let first = variable("HERALD_MODEL_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000_000));
    let seeds = first..first + variable("HERALD_MODEL_SCHEDULES").unwrap_or(count);
    eprintln!("HERALD_MODEL_SEED={first}");
    let shared = Nodes::start(url, NODES, SETTINGS).await;
    let (crashing, calm): (Vec<u64>, Vec<u64>) = seeds.partition(|seed| seed % CRASHING == 0);
    let calm = stream::iter(calm).for_each_concurrent(AT_ONCE.0, |seed| {
        let place = Place::Shared(&shared);
        async move { Schedule::new(seed, place).run().await }
    });
    let crashing = stream::iter(crashing).for_each_concurrent(AT_ONCE.1, |seed| async move {
        let nodes = Nodes::start(url, NODES, &format!("{IMPATIENT}{SETTINGS}")).await;
        Schedule::new(seed, Place::Own(nodes)).run().await;
    });
    futures_util::future::join(calm, crashing).await;
}

enum Place<'a> {
    Shared(&'a Nodes),
    Own(Nodes),
}

impl Place<'_> {
    fn nodes(&self) -> &Nodes {
        match self {
            Self::Shared(nodes) => nodes,
            Self::Own(nodes) => nodes,
        }
    }
}

/// One connection of a user, and where it is.
struct Tab {
    node: usize,
    user: String,
    client: Client,
    /// The channels that it is on.
    channels: BTreeSet<String>,
}

struct Schedule<'a> {
    seed: u64,
    random: StdRng,
    place: Place<'a>,
    tabs: Vec<Tab>,
    /// Those of each presence channel, one on each node; they are members, too.
    observers: Vec<(usize, String, Observer)>,
    steps: Vec<String>,
}

/// Says which schedule failed, whatever failed in it: the first to be dropped, for the others go with it.
impl Drop for Schedule<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !FAILED.swap(true, Ordering::Relaxed) {
            let steps = self.steps.join("\n  ");
            eprintln!("with HERALD_MODEL_SEED={} HERALD_MODEL_SCHEDULES=1:\n  {steps}", self.seed);
        }
    }
}

impl<'a> Schedule<'a> {
    fn new(seed: u64, place: Place<'a>) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { seed, random, place, tabs: Vec::new(), observers: Vec::new(), steps: Vec::new() }
    }

    async fn run(mut self) {
        for node in 0..NODES {
            self.watch_from(node).await;
        }
        for step in 0..STEPS {
            match self.random.random_range(0..100) {
                0..40 => self.come().await,
                40..60 => self.leave().await,
                60..70 => self.close(),
                70..80 => self.move_on().await,
                80..90 => self.agree().await,
                90..95 if matches!(self.place, Place::Own(_)) => self.crash().await,
                95.. if matches!(self.place, Place::Own(_)) => self.sleep().await,
                _ => self.come().await,
            }
            if step == STEPS / 2 {
                self.agree().await;
            }
        }
        self.agree().await;
        self.tabs.clear();
        self.note("everybody left");
        self.agree().await;
    }

    fn note(&mut self, step: impl Into<String>) {
        self.steps.push(step.into());
    }

    fn presence(&self, number: usize) -> String {
        format!("presence-{}-{number}", self.seed)
    }

    /// An observer of each presence channel, on this node.
    async fn watch_from(&mut self, node: usize) {
        for number in 0..CHANNELS {
            let channel = self.presence(number);
            let observer = Observer::join(&self.place.nodes()[node], &channel, &format!("watch-{node}")).await;
            self.observers.push((node, channel, observer));
        }
    }

    fn pick_channel(&mut self) -> String {
        let number = self.random.random_range(0..2 * CHANNELS);
        if number < CHANNELS { self.presence(number) } else { format!("plain-{}-{number}", self.seed) }
    }

    /// Somebody comes to a channel: in a tab that is open, or in a new one.
    async fn come(&mut self) {
        let channel = self.pick_channel();
        let there = |tab: &Tab| tab.channels.contains(&channel);
        let open: Vec<usize> = (0..self.tabs.len()).filter(|tab| !there(&self.tabs[*tab])).collect();
        let tab = if !open.is_empty() && self.random.random_bool(0.5) {
            open[self.random.random_range(0..open.len())]
        } else {
            let (node, user) = (self.random.random_range(0..NODES), self.random.random_range(0..USERS));
            let client = self.place.nodes()[node].connect().await;
            self.tabs.push(Tab { node, user: format!("user-{user}"), client, channels: BTreeSet::new() });
            self.tabs.len() - 1
        };
        let at = self.tabs[tab].node;
        self.note(format!("{} comes to {channel} on node {at}", self.tabs[tab].user));
        self.tabs[tab].enter(&channel).await;
    }

    /// A tab leaves one of its channels; nobody waits for it.
    async fn leave(&mut self) {
        let Some(tab) = self.pick_tab() else { return };
        let channels: Vec<String> = self.tabs[tab].channels.iter().cloned().collect();
        if channels.is_empty() {
            return;
        }
        let channel = &channels[self.random.random_range(0..channels.len())];
        let at = self.tabs[tab].node;
        self.note(format!("{} leaves {channel} on node {at}", self.tabs[tab].user));
        self.tabs[tab].client.unsubscribe(channel).await;
        self.tabs[tab].channels.remove(channel);
    }

    /// A tab is closed without a word.
    fn close(&mut self) {
        let Some(tab) = self.pick_tab() else { return };
        let tab = self.tabs.swap_remove(tab);
        self.note(format!("{} closes a tab on node {}", tab.user, tab.node));
        tab.client.cut();
    }

    /// A page is loaded again, and the balancer sends it to another node.
    async fn move_on(&mut self) {
        let Some(tab) = self.pick_tab() else { return };
        let node = self.random.random_range(0..NODES);
        let client = self.place.nodes()[node].connect().await;
        let old = self.tabs.swap_remove(tab);
        self.note(format!("{} goes from node {} to node {node}", old.user, old.node));
        old.client.cut();
        let mut new = Tab { node, user: old.user, client, channels: BTreeSet::new() };
        for channel in &old.channels {
            new.enter(channel).await;
        }
        self.tabs.push(new);
    }

    fn pick_tab(&mut self) -> Option<usize> {
        (!self.tabs.is_empty()).then(|| self.random.random_range(0..self.tabs.len()))
    }

    /// A node dies, and a new one takes its place, at once or later than it is missed.
    async fn crash(&mut self) {
        let node = self.random.random_range(0..NODES);
        let is_missed = self.random.random_bool(0.5);
        self.note(format!("node {node} dies{}", if is_missed { ", and is missed" } else { "" }));
        let Place::Own(nodes) = &mut self.place else { return };
        nodes[node].kill();
        self.tabs.retain(|tab| tab.node != node);
        self.observers.retain(|(at, ..)| *at != node);
        if is_missed {
            self.until_seen(node, false).await;
        }
        let Place::Own(nodes) = &mut self.place else { return };
        nodes.replace(node).await;
        self.watch_from(node).await;
    }

    /// A node sleeps until the others have given it up, and goes on.
    async fn sleep(&mut self) {
        let node = self.random.random_range(0..NODES);
        self.note(format!("node {node} sleeps"));
        self.place.nodes()[node].pause();
        self.until_seen(node, false).await;
        self.place.nodes()[node].resume();
        // Until it has joined anew, what others publish is lost for its clients.
        self.until_seen(node, true).await;
        self.note(format!("node {node} has woken up"));
    }

    /// Waits until another node sees the node's observer in each room, or does not.
    async fn until_seen(&self, node: usize, is_seen: bool) {
        let api = self.place.nodes()[(node + 1) % NODES].api();
        let observer = json!({ "id": format!("watch-{node}") });
        for channel in (0..CHANNELS).map(|number| self.presence(number)) {
            let sees = async || members(&api, &channel).await.as_array().map(|users| users.contains(&observer));
            until_equal(&Some(is_seen), &format!("whether node {node} is seen in {channel}"), sees).await;
        }
    }

    /// A quiet point: everybody says what the model says.
    async fn agree(&mut self) {
        self.note("all agree");
        let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (node, channel, _) in &self.observers {
            rooms.entry(channel.clone()).or_default().insert(format!("watch-{node}"));
            *counts.entry(channel.clone()).or_default() += 1;
        }
        for tab in &self.tabs {
            for channel in &tab.channels {
                if channel.starts_with("presence-") {
                    rooms.entry(channel.clone()).or_default().insert(tab.user.clone());
                }
                *counts.entry(channel.clone()).or_default() += 1;
            }
        }
        for position in 0..self.observers.len() {
            let (node, channel, observer) = &mut self.observers[position];
            observer.catch_up(&self.place.nodes()[(*node + 1) % NODES]).await; // on the way it may be the same by chance
            observer.until(rooms[channel].iter().map(String::as_str)).await;
        }
        join_all(self.place.nodes().apis().iter().map(|api| self.agrees(api, &rooms, &counts))).await;
        for position in 0..self.observers.len() {
            let (node, channel, observer) = &mut self.observers[position];
            observer.catch_up(&self.place.nodes()[(*node + 1) % NODES]).await;
            assert_eq!(observer.list, rooms[channel], "it stays so on node {node}");
        }
    }

    /// One node's answers.
    async fn agrees(&self, api: &Api, rooms: &BTreeMap<String, BTreeSet<String>>, counts: &BTreeMap<String, usize>) {
        for (kind, info) in [("presence", "user_count,subscription_count"), ("plain", "subscription_count")] {
            let prefix = format!("{kind}-{}-", self.seed);
            let mut expected = json!({ "channels": {} });
            for (channel, count) in counts.iter().filter(|(channel, _)| channel.starts_with(&prefix)) {
                expected["channels"][channel]["subscription_count"] = (*count).into();
                if let Some(users) = rooms.get(channel) {
                    expected["channels"][channel]["user_count"] = users.len().into();
                }
            }
            let parameters = [("filter_by_prefix", &*prefix), ("info", info)];
            until_equal(&expected, "GET /channels", async || api.get("/channels", &parameters).await.json()).await;
        }
        for (channel, users) in rooms {
            let users: Vec<Value> = users.iter().map(|user| json!({ "id": user })).collect();
            until_equal(&Value::from(users), channel, async || members(api, channel).await).await;
        }
    }
}

impl Tab {
    /// Comes to a channel, and waits for the answer; events of its other channels are read over.
    async fn enter(&mut self, channel: &str) {
        if channel.starts_with("presence-") {
            self.client.ask_to_join(channel, &json!({ "user_id": self.user })).await;
        } else {
            self.client.send(self.client.subscription(channel, None)).await;
        }
        loop {
            let event = self.client.next().await;
            if event.event == "pusher_internal:subscription_succeeded" && event.channel.as_deref() == Some(channel) {
                break;
            }
        }
        self.channels.insert(channel.to_owned());
    }
}
