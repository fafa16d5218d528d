//! What one node does for all: dead nodes are cleaned up after, what is due is done, webhooks are handed to their receivers.
//!
//! The owner of a bucket is whoever holds the lease; every script here asks Redis for that again, so that nothing is done by two. Whoever
//! takes over finds all that is unfinished in Redis. Of several buckets each belongs to the node whose id is the lowest there; since ids are
//! drawn by lot, that spreads them over the nodes, and whoever owns one that belongs to another hands it over.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use herald_protocol::webhook::{WebhookEvent, WebhookKind};
use herald_protocol::{ChannelName, UserId};
use redis::RedisResult;
use redis::streams::StreamRangeReply;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::bucket::{Bucket, Common, Link};
use super::registry::ended;
use super::session::Ended;
use super::{GRACE_MS, hex};
use crate::answers::digest;
use crate::metrics;
use crate::webhooks::receipt::DoneList;

/// How often it is looked what is due.
const TICK: Duration = Duration::from_millis(100);
/// What is done in one call: entries of a dead node, of the due list, of the stream.
const AT_ONCE: usize = 200;
/// Events that may be with receivers at once, over all buckets; further ones wait in the stream.
const MAX_HANDED_OVER: usize = 100_000;
/// How long receivers may take to be done before the bucket is handed over to another node.
const LAST_DELIVERIES: Duration = Duration::from_secs(10);

/// What a sign of life is answered.
#[derive(Debug)]
pub(super) struct Beat {
    /// Which Redis's data this is.
    pub(super) epoch: String,
    /// Whether the node is in the cluster.
    pub(super) is_alive: bool,
    /// Whether it is the one.
    pub(super) is_owner: bool,
    /// Nodes that are being cleaned up after.
    pub(super) reaping: Vec<String>,
    /// The node, among those that are alive, that should be the owner.
    heir: String,
}

/// Says that this node is alive; `joining` it is let in if it is not.
pub(super) async fn beat(bucket: &Bucket, link: &Link, joining: bool) -> Result<Beat, Ended> {
    let timeout = bucket.common.options.node_timeout;
    let told =
        bucket.script::<(String, u8, u8, Vec<String>, String, u64, usize)>(link, &bucket.common.scripts.beat, |call| {
            call.arg(&link.node).arg(u8::from(joining));
            call.arg(timeout.as_millis().to_string()).arg(lease(bucket).as_millis().to_string());
        });
    let (epoch, is_alive, is_owner, reaping, heir, now_us, nodes) = told.await.map_err(ended)?;
    link.set_clock(now_us);
    bucket.common.nodes.store(nodes, Ordering::Relaxed);
    Ok(Beat { epoch, is_alive: is_alive == 1, is_owner: is_owner == 1, reaping, heir })
}

/// For how long an owner is believed to be at work.
fn lease(bucket: &Bucket) -> Duration {
    bucket.common.options.node_timeout * 2 / 3
}

/// Does the owner's work whenever this node is the one; `owns` brings the nodes that have to be cleaned up after.
pub(super) async fn run(bucket: &Bucket, link: &Link, mut owns: mpsc::Receiver<Vec<String>>) -> Ended {
    while let Some(reaping) = owns.recv().await {
        match work(bucket, link, reaping).await {
            Err(Ended::Redis(error)) if error.code() == Some("NOTOWNER") => {}
            Err(ended) => return ended,
            Ok(()) => {}
        }
    }
    Ended::Unsubscribed
}

/// Until another is the owner.
async fn work(bucket: &Bucket, link: &Link, mut reaping: Vec<String>) -> Result<(), Ended> {
    let heartbeat = bucket.common.options.heartbeat;
    let look_every = (heartbeat / 5).max(TICK.min(heartbeat / 2));
    let mut looked = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut deliveries = Deliveries::take_over(bucket, link).await?;
    let mut is_another_s: Option<Instant> = None;
    loop {
        for dead in std::mem::take(&mut reaping) {
            reap(bucket, link, &dead).await?;
        }
        while due(bucket, link).await? == AT_ONCE {}
        if is_another_s.is_none() {
            deliveries.hand_over(bucket, link).await?;
        } else {
            deliveries.settle(bucket, link, Vec::new()).await?;
        }
        ticks.tick().await;
        if looked.elapsed() < look_every {
            continue;
        }
        looked = Instant::now();
        let beat = beat(bucket, link, false).await?;
        if !beat.is_alive {
            return Err(Ended::TakenOut);
        } else if !beat.is_owner {
            return Ok(());
        }
        reaping = beat.reaping;
        is_another_s = if bucket.keys.is_sharded() && beat.heir != link.node {
            let since = is_another_s.unwrap_or(looked);
            if deliveries.open.is_empty() || since.elapsed() > LAST_DELIVERIES {
                return give(bucket, link, &beat.heir).await;
            }
            Some(since)
        } else {
            None
        };
    }
}

async fn give(bucket: &Bucket, link: &Link, heir: &str) -> Result<(), Ended> {
    let told = bucket.script::<()>(link, &bucket.common.scripts.give, |call| {
        call.arg(&link.node).arg(heir).arg(lease(bucket).as_millis().to_string());
    });
    told.await.map_err(ended)
}

async fn reap(bucket: &Bucket, link: &Link, dead: &str) -> Result<(), Ended> {
    let mut wants = Vec::new();
    for room in bucket.common.node.rooms() {
        if room.webhooks.is_some() {
            wants.push(format!("h:{}", room.app.id()));
        }
        if room.app.options().subscription_count {
            wants.push(format!("c:{}", room.app.id()));
        }
    }
    let mut entries = 0;
    loop {
        let told = bucket.script::<usize>(link, &bucket.common.scripts.reap, |call| {
            call.arg(&link.node).arg(dead).arg(AT_ONCE).arg(GRACE_MS).arg(&wants);
        });
        match told.await? {
            0 => break,
            taken => entries += taken,
        }
    }
    metrics::REAPED_NODES.increment(1);
    tracing::warn!(node = dead, entries, "a node is dead: what it had was taken out");
    Ok(())
}

async fn due(bucket: &Bucket, link: &Link) -> RedisResult<usize> {
    let told = bucket.script::<(usize, u64)>(link, &bucket.common.scripts.due, |call| {
        call.arg(&link.node).arg(AT_ONCE);
    });
    let (done, dropped) = told.await?;
    if dropped > 0 {
        metrics::WEBHOOK_EVENTS_DROPPED.increment(dropped);
        tracing::error!(dropped, "events for webhooks are dropped: too many wait for their receivers already");
    }
    Ok(done)
}

/// Events of the stream on their way to the receivers. An event stays in the stream until all its receivers are done with it; which of
/// them already are stands beside it meanwhile.
struct Deliveries {
    common: Arc<Common>,
    /// What the ids of its events begin with: the stream's own number what is unique in the bucket only.
    prefix: String,
    /// The last entry that was read.
    read: Option<String>,
    /// Receivers that are not done, by entry.
    open: HashMap<String, HashSet<Arc<str>>>,
    /// What former owners' receivers were done with: entry and digest of the address.
    done_before: HashSet<(String, String)>,
    done: Arc<DoneList>,
}

/// At the end of the ownership: what receivers still have is another's to deliver.
impl Drop for Deliveries {
    fn drop(&mut self) {
        self.common.owned.fetch_sub(1, Ordering::Relaxed);
        let webhooks = self.common.node.rooms().filter_map(|room| room.webhooks.clone());
        webhooks.for_each(|webhooks| webhooks.forget_handed_over(&self.done));
    }
}

impl Deliveries {
    async fn take_over(bucket: &Bucket, link: &Link) -> RedisResult<Self> {
        let asked = redis::cmd("SMEMBERS").arg(bucket.keys.webhooks_done()).to_owned();
        let marks: Vec<String> = bucket.command(link, &asked).await?;
        let marks = marks.iter().filter_map(|mark| mark.split_once(' '));
        bucket.common.owned.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            common: Arc::clone(&bucket.common),
            prefix: format!("{}-", bucket.keys.bucket()),
            read: None,
            open: HashMap::new(),
            done_before: marks.map(|(entry, url)| (entry.to_owned(), url.to_owned())).collect(),
            done: Arc::default(),
        })
    }

    async fn hand_over(&mut self, bucket: &Bucket, link: &Link) -> RedisResult<()> {
        let mut finished = Vec::new();
        while self.open.len() < MAX_HANDED_OVER / usize::from(bucket.keys.buckets()) {
            let from = self.read.as_ref().map_or_else(|| "-".to_owned(), |read| format!("({read}"));
            let range = redis::cmd("XRANGE")
                .arg(bucket.keys.webhooks())
                .arg(from)
                .arg("+")
                .arg("COUNT")
                .arg(AT_ONCE)
                .to_owned();
            let page: StreamRangeReply = bucket.command(link, &range).await?;
            let size = page.ids.len();
            for entry in page.ids {
                self.read = Some(entry.id.clone());
                let field = |name: &str| entry.get::<String>(name).unwrap_or_default();
                let urls = self.offer(&entry.id, &field);
                if urls.is_empty() {
                    finished.push(entry.id);
                } else {
                    self.open.insert(entry.id, urls);
                }
            }
            if size < AT_ONCE {
                break;
            }
        }
        self.settle(bucket, link, finished).await
    }

    /// Offers one event to its receivers; those that are not done at once.
    fn offer(&self, id: &str, field: &dyn Fn(&str) -> String) -> HashSet<Arc<str>> {
        let mut open = HashSet::new();
        let (app, channel) = (field("app"), field("channel"));
        let (Some(webhooks), Ok(kind), Ok(time_ms)) = (
            self.common.node.room_of(&app).and_then(|room| room.webhooks.clone()),
            field("kind").parse::<WebhookKind>(),
            field("time").parse(),
        ) else {
            return open;
        };
        let Some(json) = json(kind, &channel, field) else { return open };
        let (json, event): (Arc<str>, Arc<str>) = (json.into(), format!("{}{id}", self.prefix).into());
        for url in webhooks.urls_for(kind, &channel) {
            let is_done = self.done_before.contains(&(id.to_owned(), address_mark(&url)));
            if !is_done && webhooks.hand_over(&event, &url, &channel, Arc::clone(&json), time_ms, &self.done) {
                open.insert(url);
            }
        }
        open
    }

    /// Takes out of the stream what all receivers are done with, and notes what some are.
    async fn settle(&mut self, bucket: &Bucket, link: &Link, mut finished: Vec<String>) -> RedisResult<()> {
        let mut marks = Vec::new();
        for done in self.done.take_all() {
            let Some(id) = done.id.strip_prefix(&self.prefix) else { continue };
            let Some(open) = self.open.get_mut(id) else { continue };
            open.remove(&done.url);
            if open.is_empty() {
                self.open.remove(id);
                finished.push(id.to_owned());
            } else {
                marks.push((id.to_owned(), address_mark(&done.url)));
            }
        }
        if finished.is_empty() && marks.is_empty() {
            return Ok(());
        }
        let mut told = redis::pipe();
        told.atomic();
        for (id, url) in &marks {
            told.cmd("SADD").arg(bucket.keys.webhooks_done()).arg(format!("{id} {url}")).ignore();
        }
        self.done_before.extend(marks);
        let finished: HashSet<String> = finished.into_iter().collect();
        for (id, url) in self.done_before.extract_if(|(id, _)| finished.contains(id)) {
            told.cmd("SREM").arg(bucket.keys.webhooks_done()).arg(format!("{id} {url}")).ignore();
        }
        for id in &finished {
            told.cmd("XDEL").arg(bucket.keys.webhooks()).arg(id).ignore();
        }
        bucket.pipeline::<()>(link, &told).await
    }
}

/// The address may hold a token, so it stands nowhere.
fn address_mark(url: &str) -> String {
    let mut mark = hex(&digest([url.as_bytes()]));
    mark.truncate(16);
    mark
}

/// The event as its receivers get it.
fn json(kind: WebhookKind, channel: &str, field: &dyn Fn(&str) -> String) -> Option<String> {
    let channel = ChannelName::parse(channel, 200).ok()?;
    let user_id = || UserId::parse(&field("user")).ok();
    let event = match kind {
        WebhookKind::ChannelOccupied => WebhookEvent::ChannelOccupied { channel },
        WebhookKind::ChannelVacated => WebhookEvent::ChannelVacated { channel },
        WebhookKind::MemberAdded => WebhookEvent::MemberAdded { channel, user_id: user_id()? },
        WebhookKind::MemberRemoved => WebhookEvent::MemberRemoved { channel, user_id: user_id()? },
        WebhookKind::SubscriptionCount => {
            WebhookEvent::SubscriptionCount { channel, count: field("count").parse().ok()? }
        }
        WebhookKind::ClientEvent | WebhookKind::CacheMiss => return Some(field("json")),
    };
    Some(event.json())
}
