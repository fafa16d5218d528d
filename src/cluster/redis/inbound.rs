//! What other nodes and the scripts have published, on its way to this node's hub.
//!
//! The connection's own task puts each message into one of some lanes and does nothing else, since it also reads the answers to commands;
//! a task for each lane hands on. A channel always takes the same lane, which keeps its order; a lane that is full loses messages, counted,
//! and members are read again.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use herald_protocol::{ChannelName, CloseReason};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::bucket::Bucket;
use super::keys::Topic;
use super::message::{self, Message};
use super::session::Ended;
use crate::hub::channel::{Channel, Delivery, Keep};
use crate::hub::node::{Room, tell_count};
use crate::hub::remote::Heard;
use crate::hub::{Frame, Overloaded};
use crate::metrics;

/// Fan-outs that run side by side, over all buckets.
const LANES: usize = 16;
/// Messages that may wait in one lane.
const MAX_WAITING: usize = 8_192;

/// Where what is published goes.
pub(super) struct Inbound {
    lanes: Vec<mpsc::Sender<Published>>,
    overflown: Arc<AtomicBool>,
    pulse: Pulse,
    started: std::time::Instant,
}

/// When a message of this node to itself has last come back.
#[derive(Clone, Debug)]
pub(super) struct Pulse(Arc<Mutex<Instant>>);

/// The name of a pub/sub channel, and what was said there.
struct Published {
    name: Vec<u8>,
    text: Vec<u8>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(super) fn silent_for(&self) -> Duration {
        self.0.lock().elapsed()
    }
}

impl Inbound {
    /// Starts the lanes' tasks, for the node of that id; they end with `tasks`, or when this is dropped.
    pub(super) fn start(bucket: &Arc<Bucket>, node: &str, pulse: Pulse, tasks: &mut JoinSet<Ended>) -> Self {
        let overflown = Arc::new(AtomicBool::new(false));
        let count = (LANES / usize::from(bucket.keys.buckets())).max(1);
        let lane = |_| {
            let (lane, messages) = mpsc::channel(MAX_WAITING);
            let (bucket, node, overflown) = (Arc::clone(bucket), node.to_owned(), Arc::clone(&overflown));
            tasks.spawn(async move { hand_on(&bucket, &node, messages, &overflown).await });
            lane
        };
        let lanes = (0..count).map(lane).collect();
        Self { lanes, overflown, pulse, started: bucket.common.started }
    }

    /// Takes a message; never waits.
    pub(super) fn take(&self, name: Vec<u8>, text: Vec<u8>) {
        if let Some(sent_us) = message::read_probe(&text) {
            let now_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
            metrics::CLUSTER_LAG.record(Duration::from_micros(now_us.saturating_sub(sent_us)));
            *self.pulse.0.lock() = Instant::now();
            return;
        }
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let lane = self.lanes.get((hasher.finish() % self.lanes.len() as u64) as usize);
        if lane.is_none_or(|lane| lane.try_send(Published { name, text }).is_err()) {
            metrics::REMOTE_DROPPED.increment(1);
            self.overflown.store(true, Ordering::Release);
        }
    }
}

async fn hand_on(
    bucket: &Bucket,
    node: &str,
    mut messages: mpsc::Receiver<Published>,
    overflown: &AtomicBool,
) -> Ended {
    while let Some(Published { name, text }) = messages.recv().await {
        if overflown.swap(false, Ordering::AcqRel) {
            tracing::error!("messages of other nodes are dropped: this node cannot keep up");
            doubt_all(bucket);
        }
        let (Ok(name), Ok(text)) = (str::from_utf8(&name), str::from_utf8(&text)) else { continue };
        let Some(topic) = bucket.keys.read_topic(name) else { continue };
        let Some(message) = Message::read(text) else { continue };
        match topic {
            Topic::Channel(app, channel) => {
                if let Some(room) = bucket.common.node.room_of(&app) {
                    of_channel(bucket, &room, &channel, node, message).await;
                }
            }
            Topic::User(app, user) => {
                let Some(room) = bucket.common.node.room_of(&app) else { continue };
                match message {
                    Message::Online(online) => room.users.heard(&user, online),
                    Message::Terminate => {
                        room.users
                            .connections(&user)
                            .iter()
                            .for_each(|client| client.close(CloseReason::UserTerminated));
                    }
                    _ => {}
                }
            }
            Topic::Nodes => {
                if let Message::Bind { app, socket_id, binding } = message {
                    bucket.common.node.bind(app, socket_id, binding);
                }
            }
            Topic::Node(_) => {}
        }
    }
    Ended::Unsubscribed
}

async fn of_channel(bucket: &Bucket, room: &Room, channel: &ChannelName, node: &str, message: Message<'_>) {
    match message {
        // This node has delivered its own events already.
        Message::Event { origin, .. } if origin == node => {}
        Message::Event { except, number, rev, text, .. } => {
            let ttl = room.app.options().cache_ttl;
            let keep = (number > 0).then_some(Keep { data: "", ttl, number });
            let delivery = Delivery { except, keep, rev, ..Delivery::default() };
            if room.fan_out(channel, || Frame::text(text), delivery).await == Err(Overloaded) {
                tracing::warn!(%channel, "another node's event reached some subscribers only: short of CPU");
            }
        }
        Message::Member(version, user, info) => {
            let Some(found) = room.find(channel) else { return };
            if found.member_changed(version, &user, info) != Heard::Current {
                bucket.changes.channel(room.app.id(), channel, true);
            }
        }
        Message::Count(count) => {
            if let Some(found) = room.find(channel) {
                tell_count(&found, count).await;
            }
        }
        _ => {}
    }
}

/// Some member events, or changes of inboxes, may be among what was lost.
fn doubt_all(bucket: &Bucket) {
    for room in bucket.common.node.rooms() {
        let app = room.app.id();
        let is_held = |channel: &&Arc<Channel>| bucket.holds_channel(app, &channel.name);
        for channel in room.channels().iter().filter(is_held) {
            channel.missed();
            if channel.name.kind().is_presence() {
                channel.doubt();
                bucket.changes.channel(app, &channel.name, true);
            }
        }
    }
}
