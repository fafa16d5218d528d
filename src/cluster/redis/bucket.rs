//! One bucket: a part of all channels and users that is whole in itself and lies in one slot, so one script can change it.
//!
//! A single Redis has one, a Redis Cluster has several spread over its servers. Each has its own session, its own line of changes, its own
//! leases, due list and webhooks. What happens to one, a slot that moves or a server that dies, the others do not notice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use herald_protocol::webhook::WebhookEvent;
use herald_protocol::{ChannelName, UserId};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, Script, ScriptInvocation};
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use super::keys::{Keys, Topic};
use super::registry::Changes;
use super::scripts::Scripts;
use super::servers::Servers;
use super::unsure::{End, Unsure};
use super::{ANSWER, hex, message};
use crate::apps::App;
use crate::cluster::{Event, Unreachable};
use crate::config::ClusterOptions;
use crate::hub::{Node, Occupancy};
use crate::metrics;

/// Channels that are read at once for a list of all.
const PAGE: usize = 1_000;

/// See the module.
pub(super) struct Bucket {
    pub(super) keys: Keys,
    /// The connection for commands, while Redis can be reached and this node stands in it.
    pub(super) link: ArcSwapOption<Link>,
    pub(super) changes: Changes,
    pub(super) unsure: Unsure,
    /// Set once this node has been in it.
    pub(super) has_joined: SetOnce<()>,
    is_away: AtomicBool,
    pub(super) common: Arc<Common>,
}

/// What all buckets of a node have in common.
pub(super) struct Common {
    pub(super) node: Arc<Node>,
    pub(super) servers: Servers,
    pub(super) options: ClusterOptions,
    pub(super) scripts: Scripts,
    /// Who runs requests under idempotency keys: this node, whatever its ids in the buckets are.
    pub(super) runner: String,
    /// Buckets in which this node does not stand right now.
    pub(super) away: AtomicUsize,
    /// Buckets that this node looks after.
    pub(super) owned: AtomicUsize,
    /// Nodes in the cluster when this one was heard last.
    pub(super) nodes: AtomicUsize,
    pub(super) started: Instant,
}

/// A connection of a node that is in the bucket.
pub(super) struct Link {
    /// The node's id there; each bucket knows it by another.
    pub(super) node: String,
    pub(super) connection: MultiplexedConnection,
    /// Cancelled when its session is over, and ends it when a command is not answered: whoever waits for an answer does not wait in vain,
    /// and knows before the next session begins.
    pub(super) over: CancellationToken,
    /// When the server has last told its time, and which it was, in µs.
    clock: Mutex<(Instant, u64)>,
}

impl Link {
    pub(super) fn new(node: String, connection: MultiplexedConnection) -> Self {
        Self { node, connection, over: CancellationToken::new(), clock: Mutex::new((Instant::now(), 0)) }
    }

    async fn measured<T>(&self, work: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        let start = Instant::now();
        let done = self.over.run_until_cancelled(work).await;
        let done = done.unwrap_or_else(|| Err((ErrorKind::Io, "the connection was given up").into()));
        metrics::REDIS_ROUND_TRIP.record(start.elapsed());
        if let Err(error) = &done {
            metrics::REDIS_ERRORS.increment(1);
            if is_unanswered(error) {
                self.over.cancel();
            }
        }
        done
    }

    pub(super) fn set_clock(&self, now_us: u64) {
        *self.clock.lock() = (Instant::now(), now_us);
    }

    /// The time of the server's clock after which it is not waited any more for what is sent now, in µs.
    fn deadline_us(&self) -> u128 {
        let (told, at_us) = *self.clock.lock();
        u128::from(at_us) + (told.elapsed() + ANSWER).as_micros()
    }
}

impl Bucket {
    pub(super) fn new(keys: Keys, common: Arc<Common>) -> Self {
        Self {
            keys,
            link: ArcSwapOption::empty(),
            changes: Changes::default(),
            unsure: Unsure::default(),
            has_joined: SetOnce::new(),
            is_away: AtomicBool::new(true),
            common,
        }
    }

    pub(super) fn link(&self) -> Result<Arc<Link>, Unreachable> {
        self.link.load_full().ok_or(Unreachable::Away)
    }

    /// Whether it is the one for this channel.
    pub(super) fn holds_channel(&self, app: &str, channel: &ChannelName) -> bool {
        self.keys.hold(app, channel.as_str())
    }

    /// Whether it is the one for this user.
    pub(super) fn holds_user(&self, app: &str, user: &UserId) -> bool {
        self.keys.hold(app, user.as_str())
    }

    /// Notes that the connections of all apps that are counted here have to be told.
    pub(super) fn note_connections(&self) {
        let rooms = self.common.node.rooms().filter(|room| self.keys.hold(room.app.id(), ""));
        rooms.for_each(|room| self.changes.connections(room.app.id()));
    }

    /// Runs a script; `arguments` adds them behind the bucket's keys.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        link: &Link,
        script: &Script,
        arguments: impl FnOnce(&mut ScriptInvocation<'_>) + Send,
    ) -> RedisResult<T> {
        let mut invocation = script.key(self.keys.nodes());
        if self.keys.is_sharded() {
            // A key that never exists: while the slot moves, Redis refuses a call with it before anything was changed.
            invocation.key(self.keys.absent());
        }
        arguments(&mut invocation);
        link.measured(invocation.invoke_async(&mut link.connection.clone())).await
    }

    pub(super) async fn command<T: FromRedisValue>(&self, link: &Link, command: &Cmd) -> RedisResult<T> {
        link.measured(command.query_async(&mut link.connection.clone())).await
    }

    pub(super) async fn pipeline<T: FromRedisValue>(&self, link: &Link, pipeline: &Pipeline) -> RedisResult<T> {
        link.measured(pipeline.query_async(&mut link.connection.clone())).await
    }

    /// Sends a message to whoever listens to a topic.
    pub(super) async fn tell(&self, link: &Link, topic: &Topic, message: &str) -> RedisResult<()> {
        let command = if self.keys.is_sharded() { "SPUBLISH" } else { "PUBLISH" };
        self.command(link, redis::cmd(command).arg(self.keys.topic(topic)).arg(message)).await
    }

    /// Hands an event to the other nodes; the number of a kept one, `None` if it was published before.
    pub(super) async fn hand_on(
        &self,
        link: &Link,
        app: &App,
        event: &Event<'_>,
        text: &str,
    ) -> RedisResult<Option<u64>> {
        let header = message::header(&link.node, event.except);
        let kept = event.channel.kind().keeps_last_event();
        if !kept && event.once.is_none() {
            let topic = Topic::Channel(app.id().to_owned(), event.channel.clone());
            let message = match event.rev {
                Some(rev) => message::change(rev, &header, text),
                None => message::event(&header, text),
            };
            return self.tell(link, &topic, &message).await.map(|()| Some(0));
        }
        let ttl = if kept { app.options().cache_ttl.as_millis() } else { 0 };
        let (request, position) = event.once.map_or((String::new(), 0), |(scope, position)| (hex(&scope), position));
        let published = self.script::<i64>(link, &self.common.scripts.publish, |call| {
            call.arg(app.id()).arg(event.channel.as_str()).arg(header).arg(text);
            call.arg(ttl.to_string()).arg(&request).arg(position).arg(link.deadline_us().to_string());
        });
        let number = published.await.inspect_err(|error| {
            if event.once.is_some() && is_unanswered(error) {
                self.unsure.published(app, event, text, request.clone(), position);
            }
        })?;
        Ok(u64::try_from(number).ok())
    }

    /// Tells all nodes that the run under an idempotency key has ended.
    pub(super) async fn end_run(&self, link: &Link, end: &End) -> RedisResult<()> {
        let told = self.script(link, &self.common.scripts.answered, |call| {
            call.arg(&end.app).arg(&end.request).arg(&self.common.runner);
            call.arg(u8::from(end.answer.is_some())).arg(end.answer.as_ref().map_or(&[][..], |answer| answer));
        });
        told.await
    }

    /// How many are on each of these channels, all of which it holds.
    pub(super) async fn occupancies(
        &self,
        app: &App,
        channels: &[&ChannelName],
    ) -> Result<Vec<Occupancy>, Unreachable> {
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
            if let Some(here) = self.common.node.room(app).find(channel) {
                counts.insert(link.node.clone(), here.occupancy().subscription_count);
            }
            let user_count = if channel.kind().is_presence() { Some(read(answers.next())?) } else { None };
            occupancies.push(Occupancy { subscription_count: counts.values().sum(), user_count });
        }
        Ok(occupancies)
    }

    /// The occupied channels that it holds and whose names begin with `prefix`, sorted.
    pub(super) async fn channels(&self, app: &App, prefix: &str) -> Result<Vec<(ChannelName, Occupancy)>, Unreachable> {
        let link = self.link()?;
        let (mut found, mut from) = (Vec::new(), format!("[{prefix}"));
        // Above every name with this prefix: names are ASCII.
        let to = if prefix.is_empty() { "+".to_owned() } else { format!("({prefix}\u{7f}") };
        loop {
            let range = redis::cmd("ZRANGEBYLEX")
                .arg(self.keys.channels(app.id()))
                .arg(&from)
                .arg(&to)
                .arg("LIMIT")
                .arg(0)
                .arg(PAGE)
                .to_owned();
            let page: Vec<String> = self.command(&link, &range).await.map_err(unknown)?;
            let names: Vec<ChannelName> = page.iter().filter_map(|name| ChannelName::parse(name, 200).ok()).collect();
            let occupancies = self.occupancies(app, &names.iter().collect::<Vec<_>>()).await?;
            let occupied = names.into_iter().zip(occupancies).filter(|(_, occupancy)| occupancy.subscription_count > 0);
            found.extend(occupied);
            match page.last() {
                Some(last) if page.len() == PAGE => from = format!("({last}"),
                _ => return Ok(found),
            }
        }
    }

    /// All that is here is registered, and every event for it reaches this node.
    pub(super) fn joined(&self, link: &Link) {
        _ = self.has_joined.set(()); // it may have been in it before
        metrics::REDIS_RECONNECTS.increment(1);
        tracing::debug!(bucket = self.keys.bucket(), node = link.node, "in the bucket");
        if self.is_away.swap(false, Ordering::AcqRel) && self.common.away.fetch_sub(1, Ordering::AcqRel) == 1 {
            tracing::info!("in the cluster");
        }
    }

    /// The opposite; whether it is news.
    pub(super) fn lost(&self) -> bool {
        let was_here = !self.is_away.swap(true, Ordering::AcqRel);
        if was_here {
            self.common.away.fetch_add(1, Ordering::AcqRel);
        }
        was_here
    }

    /// Reports what no change of occupancy brings; the stream carries it to whoever delivers.
    pub(super) async fn report(&self, app: &App, event: &WebhookEvent) -> Result<(), Unreachable> {
        let link = self.link()?;
        let (kind, channel, json) = (event.kind().as_str(), event.channel().as_str(), event.json());
        self.script(&link, &self.common.scripts.report, |call| {
            call.arg(app.id()).arg(kind).arg(channel).arg(json);
        })
        .await
        .map_err(unknown)
    }
}

/// Whether Redis said nothing, so that it may have done what it was asked. What it refuses it has not done.
pub(super) fn is_unanswered(error: &RedisError) -> bool {
    error.is_io_error()
}

/// Whether it was done cannot be known: the command was written, or may have been.
pub(super) fn unknown(error: RedisError) -> Unreachable {
    tracing::debug!(%error, "Redis did not do what it was asked");
    Unreachable::Unknown
}

fn read<T: FromRedisValue>(value: Option<redis::Value>) -> Result<T, Unreachable> {
    value.and_then(|value| T::from_redis_value(value).ok()).ok_or(Unreachable::Unknown)
}
