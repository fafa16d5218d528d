//! Many nodes that share one Redis.
//!
//! Start at `session::run`: while Redis can be reached, a session keeps this node in the cluster: `registry` brings what the hub says
//! has changed into Redis and its answers back, `inbound` hands other nodes' events to the hub, `owner` does what one node does for all
//! (due departures, dead nodes, webhooks). When it breaks, another session begins with everything registered anew. Here is what does not
//! need to wait in a line: publishing and asking. Always: what a node tells is absolute, never a difference, so it may be told twice; one
//! script decides what is first and last; a node that was taken out is told so and comes back under another id.

mod inbound;
mod keys;
mod message;
mod owner;
mod registry;
mod scripts;
mod session;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use herald_protocol::json::members;
use herald_protocol::webhook::WebhookEvent;
use herald_protocol::{ChannelKind, ChannelName, SocketId, UserId};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{
    Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo as _, Pipeline, RedisConnectionInfo, RedisError,
    RedisResult, Script, ScriptInvocation,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Cluster, Event, Metered, Trouble, Unclaimed, Unpublished, Unreachable};
use crate::answers::{Digest, Unrepeatable};
use crate::apps::App;
use crate::config::{ClusterOptions, RedisKind, RedisUrl, WhenUnreachable};
use crate::hub::channel::{Change, Channel, Keep};
use crate::hub::{Frame, Kept, Node, Occupancy};
use crate::limits::Refused;
use crate::metrics;
use keys::{Keys, Topic};
use registry::Changes;
use scripts::Scripts;

/// How long Redis may take to answer, and to be connected to.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a departure is held back, so that a page's reload goes unnoticed.
const GRACE_MS: u64 = 3_000;
/// Channels that are read at once for a list of all.
const PAGE: usize = 1_000;
/// How long a request under an idempotency key may run before another may try.
const RUN_FOR: Duration = Duration::from_secs(30);
/// How often it is looked whether the first of them is done.
const LOOK: Duration = Duration::from_millis(50);
/// How long, at an end in order, the last leaves may take.
const LAST_CHANGES: Duration = Duration::from_secs(3);

/// See the module.
pub struct Redis {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What the parts of it share.
struct Shared {
    node: Arc<Node>,
    client: redis::Client,
    options: ClusterOptions,
    keys: Keys,
    scripts: Scripts,
    /// The connection for commands, while Redis can be reached and this node stands in it.
    link: ArcSwapOption<Link>,
    changes: Changes,
    trouble: Mutex<Option<String>>,
    has_joined: AtomicBool,
    has_come: Notify,
    started: Instant,
}

/// A connection of a node that is in the cluster.
struct Link {
    node: String,
    connection: MultiplexedConnection,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

impl Redis {
    /// Joins the cluster, as soon as its Redis can be reached; clients that come before wait.
    ///
    /// # Errors
    /// When the URL is none, or the machine's certificates cannot be read.
    pub fn start(url: &RedisUrl, options: &ClusterOptions, node: &Arc<Node>) -> anyhow::Result<Arc<dyn Cluster>> {
        crate::outgoing::install_crypto();
        let shared = Arc::new(Shared {
            node: Arc::clone(node),
            client: client(url).with_context(|| format!("cluster.redis.url: {url} cannot be used"))?,
            options: options.clone(),
            keys: Keys::new(&options.redis.prefix, &url.database.to_string()),
            scripts: Scripts::new(),
            link: ArcSwapOption::empty(),
            changes: Changes::default(),
            trouble: Mutex::new(Some("not connected yet".to_owned())),
            has_joined: AtomicBool::new(false),
            has_come: Notify::new(),
            started: Instant::now(),
        });
        tracing::info!(redis = %url, "this node is one of a cluster");
        let redis = Self { shared, tasks: TaskTracker::new(), stop: CancellationToken::new() };
        let (shared, stop) = (Arc::clone(&redis.shared), redis.stop.clone());
        redis.tasks.spawn(async move { stop.run_until_cancelled(session::run(&shared)).await });
        Ok(Arc::new(redis))
    }
}

fn client(url: &RedisUrl) -> anyhow::Result<redis::Client> {
    anyhow::ensure!(
        url.kind == RedisKind::Standalone,
        "nodes are joined by a Redis without Sentinel and Redis Cluster"
    );
    let (host, port) = url.hosts.first().cloned().context("it names no host")?;
    let address = if url.is_tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    };
    let mut login = RedisConnectionInfo::default().set_db(url.database.into());
    if let Some(user) = &url.user {
        login = login.set_username(user);
    }
    if let Some(password) = &url.password {
        login = login.set_password(password);
    }
    Ok(redis::Client::open(address.into_connection_info()?.set_redis_settings(login))?)
}

impl Shared {
    fn link(&self) -> Result<Arc<Link>, Unreachable> {
        self.link.load_full().ok_or(Unreachable::Away)
    }

    /// Runs a script; `arguments` adds them behind the bucket's first key.
    async fn script<T: FromRedisValue>(
        &self,
        link: &Link,
        script: &Script,
        arguments: impl FnOnce(&mut ScriptInvocation<'_>) + Send,
    ) -> RedisResult<T> {
        let mut invocation = script.key(self.keys.nodes());
        arguments(&mut invocation);
        measured(invocation.invoke_async(&mut link.connection.clone())).await
    }

    async fn command<T: FromRedisValue>(&self, link: &Link, command: &Cmd) -> RedisResult<T> {
        measured(command.query_async(&mut link.connection.clone())).await
    }

    async fn pipeline<T: FromRedisValue>(&self, link: &Link, pipeline: &Pipeline) -> RedisResult<T> {
        measured(pipeline.query_async(&mut link.connection.clone())).await
    }

    /// Hands an event to the other nodes; the number of a kept one, `None` if it was published before.
    async fn hand_on(&self, link: &Link, app: &App, event: &Event<'_>, text: &str) -> RedisResult<Option<u64>> {
        let header = message::header(&link.node, event.except);
        let kept = event.channel.kind().keeps_last_event();
        if !kept && event.once.is_none() {
            let topic = self.keys.topic(&Topic::Channel(app.id().to_owned(), event.channel.clone()));
            let published = redis::cmd("PUBLISH").arg(topic).arg(message::event(&header, text)).to_owned();
            return self.command::<()>(link, &published).await.map(|()| Some(0));
        }
        let ttl = if kept { app.options.cache_ttl.as_millis() } else { 0 };
        let (request, position) = event.once.map_or((String::new(), 0), |(scope, position)| (hex(&scope), position));
        let number: i64 = self
            .script(link, &self.scripts.publish, |call| {
                call.arg(app.id()).arg(event.channel.as_str()).arg(header).arg(text);
                call.arg(ttl.to_string()).arg(request).arg(position);
            })
            .await?;
        Ok(u64::try_from(number).ok())
    }

    async fn occupancies(&self, app: &App, channels: &[&ChannelName]) -> Result<Vec<Occupancy>, Unreachable> {
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        let link = self.link()?;
        let mut asked = redis::pipe();
        for channel in channels {
            asked.cmd("HGETALL").arg(self.keys.channel_nodes(app.id(), channel));
            if channel.kind().is_presence() {
                asked.cmd("HLEN").arg(self.keys.members(app.id(), channel));
            }
        }
        let answers: Vec<redis::Value> = self.pipeline(&link, &asked).await.map_err(unknown)?;
        let mut answers = answers.into_iter();
        let mut occupancies = Vec::with_capacity(channels.len());
        for channel in channels {
            let mut counts: HashMap<String, usize> = read(answers.next())?;
            // What this node has is told in batches; to those who ask here it is known.
            if let Some(here) = self.node.room(app).find(channel) {
                counts.insert(link.node.clone(), here.occupancy().subscription_count);
            }
            let user_count = if channel.kind().is_presence() { Some(read(answers.next())?) } else { None };
            occupancies.push(Occupancy { subscription_count: counts.values().sum(), user_count });
        }
        Ok(occupancies)
    }

    /// All that is here is registered, and every event for it reaches this node.
    fn joined(&self, link: &Link) {
        let before = self.trouble.lock().take();
        self.has_joined.store(true, Ordering::Release);
        self.has_come.notify_waiters();
        metrics::REDIS_RECONNECTS.increment(1);
        tracing::info!(node = link.node, before, "in the cluster");
    }

    /// What receivers still have of the stream is another's to deliver.
    fn forget_handed_over(&self) {
        let webhooks = self.node.rooms().filter_map(|room| room.webhooks.as_ref());
        webhooks.for_each(|webhooks| webhooks.forget_handed_over());
    }

    /// Reports what no change of occupancy brings; the stream carries it to whoever delivers.
    async fn report(&self, app: &App, event: &WebhookEvent) -> Result<(), Unreachable> {
        let link = self.link()?;
        let (kind, channel, json) = (event.kind().as_str(), event.channel().as_str(), event.json());
        self.script(&link, &self.scripts.report, |call| {
            call.arg(app.id()).arg(kind).arg(channel).arg(json);
        })
        .await
        .map_err(unknown)
    }
}

#[async_trait]
impl Cluster for Redis {
    async fn joined(&self) {
        loop {
            let joined = self.shared.has_come.notified();
            if self.shared.has_joined.load(Ordering::Acquire) {
                return;
            }
            joined.await;
        }
    }

    fn channel_changed(&self, app: &Arc<App>, channel: &ChannelName, change: &Change) {
        self.shared.changes.channel(app.id(), channel, change.awaited);
        if change.cache_miss {
            self.shared.changes.missed(app.id(), channel);
        }
    }

    fn users_changed(&self, app: &Arc<App>, users: &[UserId]) {
        users.iter().for_each(|user| self.shared.changes.user(app.id(), user));
    }

    fn connections_changed(&self, app: &Arc<App>) {
        self.shared.changes.connections(app.id());
    }

    async fn publish(&self, app: &App, event: &Event<'_>) -> Result<(), Unpublished> {
        let shared = &self.shared;
        let text = event.text();
        let number = match shared.link() {
            Ok(link) => match shared.hand_on(&link, app, event, &text).await.map_err(unknown)? {
                Some(number) => number,
                None => return Ok(()), // published before, by this node too
            },
            Err(_) if shared.options.when_unreachable == WhenUnreachable::DeliverLocally => 0,
            Err(away) => return Err(away.into()),
        };
        let keep = (number > 0).then_some(Keep { data: "", ttl: app.options.cache_ttl, number });
        let frame = || Frame::text(&text);
        Ok(shared.node.room(app).fan_out(event.channel, frame, event.except, keep).await?)
    }

    async fn client_event(
        &self,
        app: &Arc<App>,
        channel: Arc<Channel>,
        text: String,
        sender: SocketId,
        webhook: Option<WebhookEvent>,
    ) {
        let shared = &self.shared;
        if let Ok(link) = shared.link() {
            let topic = shared.keys.topic(&Topic::Channel(app.id().to_owned(), channel.name.clone()));
            let header = message::header(&link.node, Some(sender));
            let published = redis::cmd("PUBLISH").arg(topic).arg(message::event(&header, &text)).to_owned();
            if let Err(error) = shared.command::<()>(&link, &published).await {
                tracing::warn!(channel = %channel.name, %error, "a client event may have reached some nodes only");
            }
        } else if shared.options.when_unreachable == WhenUnreachable::Reject {
            tracing::debug!(channel = %channel.name, "a client event was dropped: Redis is away");
            return;
        }
        if channel.publish(&Frame::text(&text), Some(sender), None, || {}).await.is_err() {
            tracing::warn!(channel = %channel.name, "a client event reached some subscribers only: short of CPU");
        }
        if let Some(event) = webhook
            && let Err(error) = shared.report(app, &event).await
        {
            metrics::WEBHOOK_EVENTS_DROPPED.increment(1);
            tracing::warn!(channel = %channel.name, %error, "a client event is not reported");
        }
    }

    async fn terminate(&self, app: &App, user: &UserId) -> Result<(), Unreachable> {
        let link = self.shared.link()?;
        let topic = self.shared.keys.topic(&Topic::User(app.id().to_owned(), user.clone()));
        let told = redis::cmd("PUBLISH").arg(topic).arg(message::terminate()).to_owned();
        self.shared.command(&link, &told).await.map_err(unknown)
    }

    async fn occupancy(&self, app: &App, channels: &[&ChannelName]) -> Result<Vec<Occupancy>, Unreachable> {
        self.shared.occupancies(app, channels).await
    }

    async fn channels(&self, app: &App, prefix: &str) -> Result<Vec<(ChannelName, Occupancy)>, Unreachable> {
        let link = self.shared.link()?;
        let (mut found, mut from) = (Vec::new(), format!("[{prefix}"));
        // Above every name with this prefix: names are ASCII.
        let to = if prefix.is_empty() { "+".to_owned() } else { format!("({prefix}\u{7f}") };
        loop {
            let range = redis::cmd("ZRANGEBYLEX")
                .arg(self.shared.keys.channels(app.id()))
                .arg(&from)
                .arg(&to)
                .arg("LIMIT")
                .arg(0)
                .arg(PAGE)
                .to_owned();
            let page: Vec<String> = self.shared.command(&link, &range).await.map_err(unknown)?;
            let names: Vec<ChannelName> = page.iter().filter_map(|name| ChannelName::parse(name, 200).ok()).collect();
            let occupancies = self.shared.occupancies(app, &names.iter().collect::<Vec<_>>()).await?;
            let occupied = names.into_iter().zip(occupancies).filter(|(_, occupancy)| occupancy.subscription_count > 0);
            found.extend(occupied);
            match page.last() {
                Some(last) if page.len() == PAGE => from = format!("({last}"),
                _ => return Ok(found),
            }
        }
    }

    async fn members(&self, app: &App, channel: &ChannelName) -> Result<Vec<UserId>, Unreachable> {
        let link = self.shared.link()?;
        let asked = redis::cmd("HKEYS").arg(self.shared.keys.members(app.id(), channel)).to_owned();
        let members: Vec<String> = self.shared.command(&link, &asked).await.map_err(unknown)?;
        Ok(members.iter().filter_map(|user| UserId::parse(user).ok()).collect())
    }

    async fn kept(&self, app: &App, channel: &ChannelName) -> Result<Option<Kept>, Unreachable> {
        let link = self.shared.link()?;
        let key = self.shared.keys.cache(app.id(), channel);
        let mut asked = redis::pipe();
        asked.cmd("HGET").arg(&key).arg("frame").cmd("PTTL").arg(&key);
        let (frame, ttl_ms): (Option<String>, i64) = self.shared.pipeline(&link, &asked).await.map_err(unknown)?;
        let Some(frame) = frame else { return Ok(None) };
        let [data] = members(&frame, ["data"]).unwrap_or_default();
        let ttl = Duration::from_millis(u64::try_from(ttl_ms).unwrap_or_default());
        Ok(data.map(|data| Kept { data: data.get().to_owned(), ttl }))
    }

    async fn connections(&self, app: &App) -> Result<usize, Unreachable> {
        let link = self.shared.link()?;
        let asked = redis::cmd("HGETALL").arg(self.shared.keys.connections(app.id())).to_owned();
        let mut counts: HashMap<String, usize> = self.shared.command(&link, &asked).await.map_err(unknown)?;
        counts.insert(link.node.clone(), self.shared.node.room(app).connections());
        Ok(counts.values().sum())
    }

    async fn has_place(&self, app: &App) -> bool {
        let Some(limit) = app.options.max_connections else { return true };
        let Ok(link) = self.shared.link() else { return true }; // this node's own count holds while Redis is away
        let asked = self.shared.script::<u8>(&link, &self.shared.scripts.connections, |call| {
            call.arg(&link.node).arg(app.id()).arg(app.connections()).arg(limit);
        });
        asked.await.map_or(true, |has_place| has_place == 1)
    }

    async fn admit(&self, app: &App, what: Metered, cost: usize) -> Result<(), Refused> {
        let Some(limiter) = app.limiter(what) else { return Ok(()) };
        let Ok(link) = self.shared.link() else { return limiter.admit(cost) };
        let (interval, window) = (limiter.rate().interval().as_micros(), limiter.rate().window().as_micros());
        let cost_us = interval.saturating_mul(cost as u128);
        if cost_us > window {
            return Err(Refused::Always);
        }
        let name = format!("{}:{what:?}", app.id());
        let asked = self.shared.script::<u64>(&link, &self.shared.scripts.rate, |call| {
            call.arg(name).arg(interval.to_string()).arg(window.to_string()).arg(cost_us.to_string());
        });
        match asked.await {
            Ok(0) => Ok(()),
            Ok(wait) => Err(Refused::For(Duration::from_micros(wait))),
            Err(_) => limiter.admit(cost),
        }
    }

    async fn claim(
        &self,
        app: &App,
        scope: Digest,
        request: Digest,
        within: Duration,
    ) -> Result<Option<Bytes>, Unclaimed> {
        let deadline = tokio::time::Instant::now() + within;
        let link = match self.shared.link() {
            Ok(link) => link,
            Err(_) if self.shared.options.when_unreachable == WhenUnreachable::DeliverLocally => return Ok(None),
            Err(away) => return Err(away.into()),
        };
        loop {
            let asked = self.shared.script::<Vec<u8>>(&link, &self.shared.scripts.claim, |call| {
                call.arg(app.id()).arg(hex(&scope)).arg(hex(&request)).arg(&link.node);
                call.arg(RUN_FOR.as_millis().to_string());
            });
            let answer = asked.await.map_err(unknown)?;
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
        let Ok(link) = self.shared.link() else { return };
        let done = self.shared.script::<()>(&link, &self.shared.scripts.answered, |call| {
            call.arg(app.id()).arg(hex(&scope)).arg(&link.node);
            call.arg(u8::from(answer.is_some())).arg(answer.map_or(&[][..], |answer| answer));
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "an answer is not remembered for repeated requests at other nodes");
        }
    }

    fn trouble(&self) -> Option<Trouble> {
        let is_away = self.shared.trouble.lock().is_some();
        is_away.then(|| Trouble { has_joined: self.shared.has_joined.load(Ordering::Acquire) })
    }

    async fn leave(&self) {
        let told = async {
            self.shared.changes.all_told().await;
            let Ok(link) = self.shared.link() else { return };
            let gone = self.shared.script::<()>(&link, &self.shared.scripts.bye, |call| {
                call.arg(&link.node);
            });
            if let Err(error) = gone.await {
                tracing::warn!(%error, "the cluster was not told that this node ends; it will notice");
            }
        };
        if tokio::time::timeout(LAST_CHANGES, told).await.is_err() {
            tracing::warn!("the cluster was not told in time that this node ends; it will notice");
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.shared.forget_handed_over();
    }
}

/// Whether it was done cannot be known: the command was written, or may have been.
fn unknown(error: RedisError) -> Unreachable {
    tracing::debug!(%error, "Redis did not do what it was asked");
    Unreachable::Unknown
}

fn read<T: FromRedisValue>(value: Option<redis::Value>) -> Result<T, Unreachable> {
    value.and_then(|value| T::from_redis_value(value).ok()).ok_or(Unreachable::Unknown)
}

fn hex(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nobody is told of server-to-user channels, and nobody counts them.
fn is_counted(channel: &ChannelName) -> bool {
    channel.kind() != ChannelKind::ServerToUser
}

async fn measured<T>(work: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    let start = Instant::now();
    let done = work.await;
    metrics::REDIS_ROUND_TRIP.record(start.elapsed());
    if done.is_err() {
        metrics::REDIS_ERRORS.increment(1);
    }
    done
}
