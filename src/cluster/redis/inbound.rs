//! What other nodes and the scripts have published, on its way to this node's hub.
//!
//! One task reads the connection and does nothing else, so that the client library's own buffer stays empty; [`LANES`] others hand on.
//! A channel always takes the same lane, which keeps its order; a lane that is full loses messages, counted, and members are read again.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use herald_protocol::{ChannelName, CloseReason};
use parking_lot::Mutex;
use redis::Msg;
use redis::aio::PubSubStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::keys::Topic;
use super::message::Message;
use super::session::Ended;
use super::{Link, Shared};
use crate::hub::channel::Keep;
use crate::hub::node::{Room, tell_count};
use crate::hub::remote::Heard;
use crate::hub::{Frame, Overloaded};
use crate::metrics;

/// Fan-outs that run side by side.
const LANES: usize = 8;
/// Messages that may wait in one lane.
const MAX_WAITING: usize = 8_192;

/// When a message of this node to itself has last come back.
#[derive(Debug)]
pub(super) struct Pulse(Arc<Mutex<Instant>>);

/// The other end of it.
#[derive(Debug)]
pub(super) struct OwnPulse(Arc<Mutex<Instant>>);

impl Pulse {
    pub(super) fn new() -> (Self, OwnPulse) {
        let last = Arc::new(Mutex::new(Instant::now()));
        (Self(Arc::clone(&last)), OwnPulse(last))
    }
}

impl OwnPulse {
    pub(super) fn silent_for(&mut self) -> Duration {
        self.0.lock().elapsed()
    }
}

/// Starts the tasks; they end with `tasks`.
pub(super) fn start(shared: &Arc<Shared>, link: &Link, stream: PubSubStream, pulse: Pulse, tasks: &mut JoinSet<Ended>) {
    let overflown = Arc::new(AtomicBool::new(false));
    let mut lanes = Vec::with_capacity(LANES);
    for _ in 0..LANES {
        let (lane, messages) = mpsc::channel(MAX_WAITING);
        lanes.push(lane);
        let (shared, node, overflown) = (Arc::clone(shared), link.node.clone(), Arc::clone(&overflown));
        tasks.spawn(async move { hand_on(&shared, &node, messages, &overflown).await });
    }
    let shared = Arc::clone(shared);
    tasks.spawn(async move { read(&shared, stream, &lanes, &pulse, &overflown).await });
}

async fn read(
    shared: &Shared,
    mut stream: PubSubStream,
    lanes: &[mpsc::Sender<Msg>],
    pulse: &Pulse,
    overflown: &AtomicBool,
) -> Ended {
    while let Some(message) = stream.next().await {
        if let Ok(text) = str::from_utf8(message.get_payload_bytes())
            && let Some(Message::Probe(sent_us)) = Message::read(text)
        {
            let now_us = u64::try_from(shared.started.elapsed().as_micros()).unwrap_or(u64::MAX);
            metrics::CLUSTER_LAG.record(Duration::from_micros(now_us.saturating_sub(sent_us)));
            *pulse.0.lock() = Instant::now();
            continue;
        }
        let mut hasher = DefaultHasher::new();
        message.get_channel_name().hash(&mut hasher);
        let lane = lanes.get((hasher.finish() % LANES as u64) as usize);
        if lane.is_none_or(|lane| lane.try_send(message).is_err()) {
            metrics::REMOTE_DROPPED.increment(1);
            overflown.store(true, Ordering::Release);
        }
    }
    Ended::Unsubscribed
}

async fn hand_on(shared: &Shared, node: &str, mut messages: mpsc::Receiver<Msg>, overflown: &AtomicBool) -> Ended {
    while let Some(message) = messages.recv().await {
        if overflown.swap(false, Ordering::AcqRel) {
            tracing::error!("messages of other nodes are dropped: this node cannot keep up");
            doubt_all(shared);
        }
        let Some(topic) = shared.keys.read_topic(message.get_channel_name()) else { continue };
        let Ok(text) = str::from_utf8(message.get_payload_bytes()) else { continue };
        let Some(message) = Message::read(text) else { continue };
        match topic {
            Topic::Channel(app, channel) => {
                if let Some(room) = shared.node.room_of(&app) {
                    of_channel(shared, room, &channel, node, message).await;
                }
            }
            Topic::User(app, user) => {
                let Some(room) = shared.node.room_of(&app) else { continue };
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
            Topic::Node(_) => {}
        }
    }
    Ended::Unsubscribed
}

async fn of_channel(shared: &Shared, room: &Room, channel: &ChannelName, node: &str, message: Message<'_>) {
    match message {
        // This node has delivered its own events already.
        Message::Event { origin, .. } if origin == node => {}
        Message::Event { except, number, text, .. } => {
            let ttl = room.app.options.cache_ttl;
            let keep = (number > 0).then_some(Keep { data: "", ttl, number });
            if room.fan_out(channel, || Frame::text(text), except, keep).await == Err(Overloaded) {
                tracing::warn!(%channel, "another node's event reached some subscribers only: short of CPU");
            }
        }
        Message::Member(version, user, info) => {
            let Some(found) = room.find(channel) else { return };
            if found.member_changed(version, &user, info) != Heard::Current {
                shared.changes.channel(room.app.id(), channel, true);
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

/// Some member events may be among what was lost.
fn doubt_all(shared: &Shared) {
    for room in shared.node.rooms() {
        for channel in room.channels().iter().filter(|channel| channel.name.kind().is_presence()) {
            channel.doubt();
            shared.changes.channel(room.app.id(), &channel.name, true);
        }
    }
}
