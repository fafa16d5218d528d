//! Many nodes that share one Redis: a single one, what the Sentinels call the master, or a Redis Cluster.
//!
//! Everything lies in buckets (`bucket`), and start at `session::run`: while a bucket's server (`servers`) can be reached, a session
//! keeps this node in the bucket: `registry` brings what the hub says has changed into Redis and its answers back, `inbound` hands other
//! nodes' events to the hub, `owner` does what one node does for all (due departures, dead nodes, webhooks). When it breaks, another session
//! begins with everything registered anew. Here is what does not need to wait in a line: publishing and asking. Always: what a node tells is
//! absolute, never a difference, so it may be told twice; one script decides what is first and last; a node that was taken out is told so
//! and comes back under another id.

mod audit;
mod bucket;
mod examine;
mod inbound;
mod keys;
mod message;
mod owner;
mod registry;
mod scripts;
mod servers;
mod session;
mod subscriptions;
mod unsure;

pub use examine::{Seen, examine};

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use herald_protocol::json::members;
use herald_protocol::webhook::WebhookEvent;
use herald_protocol::{ChannelKind, ChannelName, SocketId, UserId};
use rand::RngExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{Cluster, Event, Trouble, Unclaimed, Unpublished, Unreachable};
use crate::answers::{Digest, Unrepeatable};
use crate::apps::App;
use crate::config::{ClusterOptions, RedisUrl, WhenUnreachable};
use crate::hub::channel::{Change, Channel, Delivery, Keep};
use crate::hub::{Binding, Frame, Kept, Node, Occupancy};
use crate::limits::{Counted, Rate, Refused};
use crate::metrics;
use bucket::{Bucket, Common, is_unanswered, unknown};
use keys::{Keys, Topic, bucket_of};
use scripts::Scripts;
use servers::Servers;
use unsure::End;

/// How long Redis may take to answer, and to be connected to.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a departure is held back, so that a page's reload goes unnoticed.
const GRACE_MS: u64 = 3_000;
/// How long a request under an idempotency key may run before another may try.
const RUN_FOR: Duration = Duration::from_secs(30);
/// How often it is looked whether the first of them is done.
const LOOK: Duration = Duration::from_millis(50);
/// How long, at an end in order, the last leaves may take.
const LAST_CHANGES: Duration = Duration::from_secs(3);

/// See the module.
pub struct Redis {
    common: Arc<Common>,
    buckets: Vec<Arc<Bucket>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

impl Redis {
    /// Joins the cluster, as soon as its Redis can be reached; clients that come before wait.
    #[must_use]
    pub fn start(url: &RedisUrl, options: &ClusterOptions, node: &Arc<Node>) -> Arc<dyn Cluster> {
        crate::outgoing::install_crypto();
        let servers = Servers::new(url);
        let all_keys = Keys::of_all(&options.redis.prefix, url.database, servers.are_shards());
        let common = Arc::new(Common {
            node: Arc::clone(node),
            servers,
            options: options.clone(),
            scripts: Scripts::new(),
            runner: new_id(),
            away: AtomicUsize::new(all_keys.len()),
            owned: AtomicUsize::new(0),
            nodes: AtomicUsize::new(0),
            started: Instant::now(),
        });
        tracing::info!(redis = %url, "this node is one of a cluster");
        let bucket = |keys| Arc::new(Bucket::new(keys, Arc::clone(&common)));
        let buckets = all_keys.into_iter().map(bucket).collect();
        let redis =
            Self { common: Arc::clone(&common), buckets, tasks: TaskTracker::new(), stop: CancellationToken::new() };
        for bucket in &redis.buckets {
            let (bucket, stop) = (Arc::clone(bucket), redis.stop.clone());
            redis.tasks.spawn(async move { stop.run_until_cancelled(session::run(&bucket)).await });
        }
        Arc::new(redis)
    }

    /// The bucket that holds something of an app.
    fn bucket(&self, app: &App, name: &str) -> &Arc<Bucket> {
        let number = bucket_of(app.id(), name, self.buckets.len() as u16);
        &self.buckets[usize::from(number)]
    }

    fn of_channel(&self, app: &App, channel: &ChannelName) -> &Arc<Bucket> {
        self.bucket(app, channel.as_str())
    }

    /// Whether clients are served from what is known here while Redis is away.
    fn answers_alone(&self) -> bool {
        self.common.options.when_unreachable == WhenUnreachable::DeliverLocally
    }

    /// Says which store this node has, for so long; nothing of it holds any more after no time. Every node asks the same bucket.
    async fn say_store(&self, store: Uuid, ttl: Duration) -> Result<String, Unreachable> {
        let bucket = &self.buckets[0];
        let link = bucket.link()?;
        let said = bucket.script(&link, &self.common.scripts.store, |call| {
            call.arg(&self.common.runner).arg(store.to_string()).arg(ttl.as_millis().to_string());
        });
        said.await.map_err(unknown)
    }

    /// The bucket in which an app's connections are counted.
    fn of_app(&self, app: &App) -> &Arc<Bucket> {
        self.bucket(app, "")
    }
}

#[async_trait]
impl Cluster for Redis {
    async fn joined(&self) {
        for bucket in &self.buckets {
            bucket.has_joined.wait().await;
        }
    }

    fn channel_changed(&self, app: &Arc<App>, channel: &ChannelName, change: &Change) {
        let changes = &self.of_channel(app, channel).changes;
        changes.channel(app.id(), channel, change.awaited);
        if change.cache_miss {
            changes.missed(app.id(), channel);
        }
    }

    fn users_changed(&self, app: &Arc<App>, users: &[UserId]) {
        users.iter().for_each(|user| self.bucket(app, user.as_str()).changes.user(app.id(), user));
    }

    fn connections_changed(&self, app: &Arc<App>) {
        self.of_app(app).changes.connections(app.id());
    }

    async fn publish(&self, app: &App, event: &Event<'_>) -> Result<(), Unpublished> {
        let bucket = self.of_channel(app, event.channel);
        let text = event.text();
        let number = match bucket.link() {
            Ok(link) => match bucket.hand_on(&link, app, event, &text).await.map_err(unknown)? {
                Some(number) => number,
                None => return Ok(()), // published before, by this node too
            },
            Err(_) if self.answers_alone() => 0,
            Err(away) => return Err(away.into()),
        };
        let keep = (number > 0).then_some(Keep { data: "", ttl: app.options().cache_ttl, number });
        let frame = || Frame::text(&text);
        let delivery = Delivery { except: event.except, keep, rev: event.rev, ..Delivery::default() };
        Ok(self.common.node.room(app).fan_out(event.channel, frame, delivery).await?)
    }

    async fn client_event(
        &self,
        app: &Arc<App>,
        channel: Arc<Channel>,
        text: String,
        sender: SocketId,
        webhook: Option<WebhookEvent>,
    ) {
        let bucket = self.of_channel(app, &channel.name);
        if let Ok(link) = bucket.link() {
            let topic = Topic::Channel(app.id().to_owned(), channel.name.clone());
            let header = message::header(&link.node, Some(sender));
            if let Err(error) = bucket.tell(&link, &topic, &message::event(&header, &text)).await {
                tracing::warn!(channel = %channel.name, %error, "a client event may have reached some nodes only");
            }
        } else if !self.answers_alone() {
            tracing::debug!(channel = %channel.name, "a client event was dropped: Redis is away");
            return;
        }
        let delivery = Delivery { except: Some(sender), ..Delivery::default() };
        if channel.publish(&Frame::text(&text), &delivery, || {}).await.is_err() {
            tracing::warn!(channel = %channel.name, "a client event reached some subscribers only: short of CPU");
        }
        if let Some(event) = webhook
            && let Err(error) = bucket.report(app, &event).await
        {
            metrics::WEBHOOK_EVENTS_DROPPED.increment(1);
            tracing::warn!(channel = %channel.name, %error, "a client event is not reported");
        }
    }

    async fn terminate(&self, app: &App, user: &UserId) -> Result<(), Unreachable> {
        let bucket = self.bucket(app, user.as_str());
        let link = bucket.link()?;
        let topic = Topic::User(app.id().to_owned(), user.clone());
        bucket.tell(&link, &topic, &message::terminate()).await.map_err(unknown)
    }

    async fn bind(&self, app: &App, socket_id: SocketId, binding: &Binding) -> Result<(), Unreachable> {
        let bucket = self.of_app(app);
        match bucket.link() {
            Ok(link) => {
                let message = message::bind(app.id(), socket_id, binding);
                bucket.tell(&link, &Topic::Nodes, &message).await.map_err(unknown)
            }
            Err(_) if self.answers_alone() => Ok(()),
            Err(away) => Err(away),
        }
    }

    async fn occupancy(&self, app: &App, channels: &[&ChannelName]) -> Result<Vec<Occupancy>, Unreachable> {
        let mut by_bucket: HashMap<u16, Vec<usize>> = HashMap::new();
        for (position, channel) in channels.iter().enumerate() {
            by_bucket.entry(self.of_channel(app, channel).keys.bucket()).or_default().push(position);
        }
        let asked = by_bucket.into_iter().map(|(number, positions)| async move {
            let its: Vec<&ChannelName> = positions.iter().map(|position| channels[*position]).collect();
            let occupancies = self.buckets[usize::from(number)].occupancies(app, &its).await?;
            Ok(positions.into_iter().zip(occupancies).collect::<Vec<_>>())
        });
        let mut occupancies: Vec<_> = try_join_all(asked).await?.into_iter().flatten().collect();
        occupancies.sort_unstable_by_key(|(position, _)| *position);
        Ok(occupancies.into_iter().map(|(_, occupancy)| occupancy).collect())
    }

    async fn channels(&self, app: &App, prefix: &str) -> Result<Vec<(ChannelName, Occupancy)>, Unreachable> {
        let asked = self.buckets.iter().map(|bucket| bucket.channels(app, prefix));
        let mut found: Vec<_> = try_join_all(asked).await?.into_iter().flatten().collect();
        found.sort_unstable_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        Ok(found)
    }

    async fn members(&self, app: &App, channel: &ChannelName) -> Result<Vec<UserId>, Unreachable> {
        let bucket = self.of_channel(app, channel);
        let link = bucket.link()?;
        let asked = redis::cmd("HKEYS").arg(bucket.keys.members(app.id(), channel)).to_owned();
        let members: Vec<String> = bucket.command(&link, &asked).await.map_err(unknown)?;
        Ok(members.iter().filter_map(|user| UserId::parse(user).ok()).collect())
    }

    async fn kept(&self, app: &App, channel: &ChannelName) -> Result<Option<Kept>, Unreachable> {
        let bucket = self.of_channel(app, channel);
        let link = bucket.link()?;
        let key = bucket.keys.cache(app.id(), channel);
        let mut asked = redis::pipe();
        asked.cmd("HGET").arg(&key).arg("frame").cmd("PTTL").arg(&key);
        let (frame, ttl_ms): (Option<String>, i64) = bucket.pipeline(&link, &asked).await.map_err(unknown)?;
        let Some(frame) = frame else { return Ok(None) };
        let [data] = members(&frame, ["data"]).unwrap_or_default();
        let ttl = Duration::from_millis(u64::try_from(ttl_ms).unwrap_or_default());
        Ok(data.map(|data| Kept { data: data.get().to_owned(), ttl }))
    }

    async fn connections(&self, app: &App) -> Result<usize, Unreachable> {
        let bucket = self.of_app(app);
        let link = bucket.link()?;
        let asked = redis::cmd("HGETALL").arg(bucket.keys.connections(app.id())).to_owned();
        let mut counts: HashMap<String, usize> = bucket.command(&link, &asked).await.map_err(unknown)?;
        counts.insert(link.node.clone(), self.common.node.room(app).connections());
        Ok(counts.values().sum())
    }

    async fn has_place(&self, app: &App) -> bool {
        let Some(limit) = app.options().max_connections else { return true };
        let bucket = self.of_app(app);
        let Ok(link) = bucket.link() else { return true }; // this node's own count holds while Redis is away
        let asked = bucket.script::<u8>(&link, &self.common.scripts.connections, |call| {
            call.arg(&link.node).arg(app.id()).arg(app.connections()).arg(limit);
        });
        asked.await.map_or(true, |has_place| has_place == 1)
    }

    async fn count(&self, name: &str, rate: Rate, cost: usize, within: Duration) -> Option<Counted> {
        let bucket = &self.buckets[usize::from(bucket_of("", name, self.buckets.len() as u16))];
        let (interval, window) = (rate.interval().as_micros(), rate.window().as_micros());
        let cost_us = interval.saturating_mul(cost as u128);
        let asked = async {
            let link = bucket.link().ok()?;
            let asked = bucket.script::<(u64, u64)>(&link, &self.common.scripts.rate, |call| {
                call.arg(name).arg(window.to_string()).arg(cost_us.to_string());
            });
            asked.await.ok()
        };
        let Ok(Some((wait, reset_after))) = tokio::time::timeout(within, asked).await else {
            metrics::RATE_LIMIT_REDIS_ERRORS.increment(1);
            return None;
        };
        let refused = match wait {
            _ if cost_us > window => Some(Refused::Always),
            0 => None,
            wait => Some(Refused::For(Duration::from_micros(wait))),
        };
        Some(rate.counted(refused, Duration::from_micros(reset_after)))
    }

    fn nodes(&self) -> usize {
        self.common.nodes.load(Ordering::Relaxed).max(1)
    }

    async fn claim(
        &self,
        app: &App,
        scope: Digest,
        request: Digest,
        within: Duration,
    ) -> Result<Option<Bytes>, Unclaimed> {
        let deadline = tokio::time::Instant::now() + within;
        let bucket = self.bucket(app, &hex(&scope));
        let link = match bucket.link() {
            Ok(link) => link,
            Err(_) if self.answers_alone() => return Ok(None),
            Err(away) => return Err(away.into()),
        };
        loop {
            let asked = bucket.script::<Vec<u8>>(&link, &self.common.scripts.claim, |call| {
                call.arg(app.id()).arg(hex(&scope)).arg(hex(&request)).arg(&self.common.runner);
                call.arg(RUN_FOR.as_millis().to_string());
            });
            let answer = asked.await.map_err(|error| {
                if is_unanswered(&error) {
                    // It may have become the first after all; it will not run.
                    bucket.unsure.ended(End { app: app.id().to_owned(), request: hex(&scope), answer: None });
                }
                unknown(error)
            })?;
            match answer.split_first() {
                Some((b'=', answer)) => return Ok(Some(Bytes::copy_from_slice(answer))),
                _ if answer == b"first" => return Ok(None),
                _ if answer == b"other" => return Err(Unrepeatable::OtherRequest.into()),
                _ if tokio::time::Instant::now() >= deadline => return Err(Unrepeatable::StillRunning(within).into()),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    async fn settle(&self, app: &App, scope: Digest, answer: Option<&Bytes>) {
        let (app_id, request, answer) = (app.id().to_owned(), hex(&scope), answer.cloned());
        let bucket = self.bucket(app, &request);
        let end = End { app: app_id, request, answer };
        let is_told = match bucket.link() {
            Ok(link) => bucket.end_run(&link, &end).await.is_ok(),
            Err(_) => false,
        };
        if !is_told {
            bucket.unsure.ended(end);
        }
    }

    async fn claim_store(&self, store: Uuid) -> Result<Option<Uuid>, Unreachable> {
        let other = self.say_store(store, self.common.options.node_timeout).await?;
        Ok(other.parse().ok())
    }

    async fn ping(&self) -> Option<Result<(), Unreachable>> {
        let asked = self.buckets.iter().map(async |bucket| {
            let link = bucket.link()?;
            bucket.command::<String>(&link, &redis::cmd("PING")).await.map_err(unknown).map(drop)
        });
        Some(try_join_all(asked).await.map(drop))
    }

    fn trouble(&self) -> Option<Trouble> {
        let away = self.common.away.load(Ordering::Acquire);
        (away > 0).then(|| Trouble {
            has_joined: self.buckets.iter().all(|bucket| bucket.has_joined.initialized()),
            is_partial: away < self.buckets.len(),
        })
    }

    fn owned_buckets(&self) -> usize {
        self.common.owned.load(Ordering::Relaxed)
    }

    async fn leave(&self) {
        // If it cannot be told, it is forgotten.
        _ = self.say_store(Uuid::nil(), Duration::ZERO).await;
        let told = self.buckets.iter().map(|bucket| async move {
            bucket.changes.all_told().await;
            let Ok(link) = bucket.link() else { return };
            let gone = bucket.script::<()>(&link, &self.common.scripts.bye, |call| {
                call.arg(&link.node);
            });
            if let Err(error) = gone.await {
                tracing::warn!(%error, "the cluster was not told that this node ends; it will notice");
            }
        });
        if tokio::time::timeout(LAST_CHANGES, join_all(told)).await.is_err() {
            tracing::warn!("the cluster was not told in time that this node ends; it will notice");
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// No two nodes have ever the same.
fn new_id() -> String {
    format!("{:016x}", rand::rng().random::<u64>())
}

fn hex(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nobody is told of server-to-user channels, and nobody counts them.
fn is_counted(channel: &ChannelName) -> bool {
    channel.kind() != ChannelKind::ServerToUser
}
