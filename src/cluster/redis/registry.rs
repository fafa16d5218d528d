//! What this node has, brought into Redis: which channels, users and connections have changed ([`Changes`]), what Redis is known to hold
//! of them ([`Registry`]), and one line of work between the two.
//!
//! A change is only a name; what is told is how things stand when its turn comes, so many changes of one channel are one script, and the
//! line is never longer than there are channels. Somebody who waits is told at once; numbers that nobody waits for go out every
//! [`LAZY`]. What was sent and not acknowledged counts as neither known nor unknown: it is sent again, as news.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{join_all, try_join_all};
use futures_util::stream;
use herald_protocol::webhook::WebhookEvent;
use herald_protocol::{ChannelName, UserId};
use indexmap::IndexSet;
use parking_lot::Mutex;
use redis::{RedisError, RedisResult};
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::audit::Audit;
use super::bucket::{Bucket, Link};
use super::keys::Topic;
use super::session::Ended;
use super::subscriptions::Subscriptions;
use super::{GRACE_MS, is_counted};
use crate::hub::Frame;
use crate::hub::node::Room;
use crate::hub::remote::{Confirmed, Heard, HeldUser, Version, Wanted};

/// How long changes that nobody waits for are collected.
const LAZY: Duration = Duration::from_millis(100);
/// Channels that are told at once.
const BATCH: usize = 512;
/// How long a subscription in Redis outlives the last subscriber.
const LINGER: Duration = Duration::from_secs(5);

/// A channel of an app.
pub(super) type ChannelKey = (String, ChannelName);
/// A user of an app.
pub(super) type UserKey = (String, UserId);

/// What has changed and was not told yet.
#[derive(Debug, Default)]
pub(super) struct Changes {
    waiting: Mutex<Batch>,
    urgent: Notify,
    told: Notify,
}

#[derive(Debug, Default)]
struct Batch {
    urgent: IndexSet<ChannelKey>,
    lazy: IndexSet<ChannelKey>,
    users: IndexSet<UserKey>,
    /// Channels where somebody met an empty cache.
    missed: IndexSet<ChannelKey>,
    apps: HashSet<String>,
    is_in_work: bool,
}

impl Changes {
    pub(super) fn channel(&self, app: &str, channel: &ChannelName, urgent: bool) {
        let key = (app.to_owned(), channel.clone());
        let waiting = &mut *self.waiting.lock();
        if urgent {
            waiting.lazy.swap_remove(&key);
            waiting.urgent.insert(key);
            self.urgent.notify_one();
        } else if !waiting.urgent.contains(&key) {
            waiting.lazy.insert(key);
        }
    }

    pub(super) fn user(&self, app: &str, user: &UserId) {
        self.waiting.lock().users.insert((app.to_owned(), user.clone()));
        self.urgent.notify_one();
    }

    pub(super) fn missed(&self, app: &str, channel: &ChannelName) {
        self.waiting.lock().missed.insert((app.to_owned(), channel.clone()));
    }

    pub(super) fn connections(&self, app: &str) {
        let apps = &mut self.waiting.lock().apps;
        if !apps.contains(app) {
            apps.insert(app.to_owned());
        }
    }

    /// Whether all that somebody waits for was told.
    fn nobody_waits(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.urgent.is_empty() && waiting.users.is_empty()
    }

    /// Returns when nothing is left to tell.
    pub(super) async fn all_told(&self) {
        loop {
            let told = self.told.notified();
            {
                let waiting = self.waiting.lock();
                let is_empty = waiting.urgent.is_empty()
                    && waiting.lazy.is_empty()
                    && waiting.users.is_empty()
                    && waiting.apps.is_empty();
                if is_empty && !waiting.is_in_work {
                    return;
                }
            }
            told.await;
        }
    }

    /// What is urgent, as soon as something is; at each tick of the clock everything.
    async fn next(&self, lazy: &mut Interval) -> Batch {
        self.waiting.lock().is_in_work = false;
        self.told.notify_waiters();
        let everything = tokio::select! { biased;
            _ = lazy.tick() => true,
            () = self.urgent.notified() => false,
        };
        let waiting = &mut *self.waiting.lock();
        waiting.is_in_work = true;
        let mut batch = Batch::default();
        take(&mut waiting.urgent, &mut batch.urgent);
        take(&mut waiting.users, &mut batch.users);
        if everything {
            take(&mut waiting.lazy, &mut batch.urgent);
            take(&mut waiting.missed, &mut batch.missed);
            batch.apps = std::mem::take(&mut waiting.apps);
        }
        if !waiting.urgent.is_empty() || !waiting.users.is_empty() {
            self.urgent.notify_one();
        }
        batch
    }

    /// What has changed, while nobody can be told.
    pub(super) async fn next_alone(&self) -> (Vec<ChannelKey>, Vec<UserKey>) {
        self.urgent.notified().await;
        let waiting = &mut *self.waiting.lock();
        (waiting.urgent.drain(..).collect(), waiting.users.drain(..).collect())
    }
}

fn take<T: std::hash::Hash + Eq>(from: &mut IndexSet<T>, into: &mut IndexSet<T>) {
    let most = from.len().min(BATCH);
    into.extend(from.drain(..most));
}

/// What Redis is known to hold under this node's id.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) channels: HashMap<ChannelKey, Held>,
    pub(super) users: HashMap<UserKey, usize>,
    subscribed: HashSet<Topic>,
    lingering: VecDeque<(Instant, Topic)>,
    /// Channels whose members are read again once all nodes had time to register.
    doubtful: VecDeque<(Instant, ChannelKey)>,
}

/// Of a channel.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) count: usize,
    /// Whether it was acknowledged that there are some, and nothing was told since that takes the last away.
    is_sure: bool,
    pub(super) users: HashMap<UserId, HeldUser>,
}

/// The answer of scripts/channel.lua: epoch, seq, refused users, members, kept event (number, frame, ms left).
type Answer = (u64, u64, Vec<String>, Option<HashMap<String, String>>, Option<(u64, String, i64)>);

impl Registry {
    /// Everything that it held was taken out of Redis, and others were told.
    pub(super) fn forget(&mut self) {
        self.channels.clear();
        self.users.clear();
    }

    /// Registers what Redis had acknowledged before, without telling anybody.
    pub(super) async fn register(&mut self, bucket: &Bucket, link: &Link) -> Result<(), Ended> {
        self.subscribed.clear();
        self.lingering.clear();
        let again = self.channels.iter().filter(|(_, held)| held.is_sure && held.count > 0);
        let calls = again.map(|((app, channel), held)| {
            let sure = held.users.iter().filter(|(_, user)| user.is_sure);
            let users = sure.map(|(user, held)| (user.clone(), held.connections, held.info.clone())).collect();
            let wanted = Wanted { count: held.count, users, ..Wanted::default() };
            async move {
                let Some(room) = bucket.common.node.room_of(app) else { return Ok(()) };
                tell(bucket, link, &room, channel, &wanted, true).await.map(|_| ())
            }
        });
        let calls: Vec<_> = calls.collect();
        let mut told = stream::iter(calls).buffer_unordered(BATCH);
        while let Some(done) = told.next().await {
            done.map_err(ended)?;
        }
        Ok(())
    }

    /// Notes everything that Redis may hold as changed.
    pub(super) fn note_held(&self, bucket: &Bucket) {
        bucket.note_connections();
        self.channels.keys().for_each(|(app, channel)| bucket.changes.channel(app, channel, true));
        self.users.keys().for_each(|(app, user)| bucket.changes.user(app, user));
    }

    /// Tells Redis what changes, until that fails.
    pub(super) async fn keep_up(&mut self, bucket: &Bucket, link: &Link, subscriptions: &Subscriptions) -> Ended {
        let mut lazy = tokio::time::interval(LAZY);
        lazy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut audit = Audit::new(bucket);
        let mut is_new = true;
        loop {
            let batch = bucket.changes.next(&mut lazy).await;
            let told = async {
                self.subscribe(bucket, subscriptions, &batch).await?;
                self.tell_channels(bucket, link, &batch.urgent).await?;
                self.tell_users(bucket, link, &batch.users).await?;
                tell_connections(bucket, link, &batch.apps).await?;
                tell_missed(bucket, &batch.missed).await;
                self.unsubscribe(bucket, subscriptions).await
            };
            if let Err(ended) = told.await {
                return ended;
            }
            self.look_again(bucket);
            if is_new && bucket.changes.nobody_waits() {
                is_new = false;
                bucket.joined(link);
            }
            if !is_new && let Err(ended) = audit.go_on(bucket, link, self).await {
                return ended;
            }
        }
    }

    /// Subscribes in Redis to what this node's clients want, before anybody is counted: nothing is missed from then on.
    async fn subscribe(&mut self, bucket: &Bucket, subscriptions: &Subscriptions, batch: &Batch) -> Result<(), Ended> {
        let is_here = |(app, channel): &&ChannelKey| {
            bucket.common.node.room_of(app).is_some_and(|room| room.find(channel).is_some())
        };
        let is_of_interest = |(app, user): &&UserKey| {
            bucket.common.node.room_of(app).is_some_and(|room| room.users.wanted(user).is_of_interest)
        };
        let channels = batch.urgent.iter().filter(is_here).map(|(app, name)| Topic::Channel(app.clone(), name.clone()));
        let users = batch.users.iter().filter(is_of_interest).map(|(app, user)| Topic::User(app.clone(), user.clone()));
        let new: Vec<Topic> = channels.chain(users).filter(|topic| !self.subscribed.contains(topic)).collect();
        let begun = new.iter().map(|topic| async { subscriptions.begin(&bucket.keys.topic(topic)).await });
        try_join_all(begun).await?;
        self.subscribed.extend(new);
        Ok(())
    }

    async fn tell_channels(
        &mut self,
        bucket: &Bucket,
        link: &Link,
        channels: &IndexSet<ChannelKey>,
    ) -> Result<(), Ended> {
        let mut calls = Vec::with_capacity(channels.len());
        for key in channels {
            let (app, name) = key;
            let Some(room) = bucket.common.node.room_of(app) else { continue };
            let found = room.find(name);
            let held = self.channels.entry(key.clone()).or_default();
            let wanted = match &found {
                Some(channel) => channel.wanted(&held.users),
                None => {
                    let gone = held.users.keys().map(|user| (user.clone(), 0, Box::default()));
                    Wanted { users: gone.collect(), ..Wanted::default() }
                }
            };
            held.will_be(&wanted);
            calls.push(async move {
                let answer = tell(bucket, link, &room, name, &wanted, false).await;
                (key, room, found, wanted, answer)
            });
        }
        for (key, room, found, wanted, answer) in join_all(calls).await {
            let confirmed = confirmed(answer.map_err(ended)?);
            let held = self.channels.entry(key.clone()).or_default();
            held.is(&wanted, &confirmed.refused);
            if held.count == 0 && held.users.is_empty() {
                self.channels.remove(key);
            }
            let Some(channel) = found else {
                self.lingering.push_back((Instant::now() + LINGER, Topic::Channel(key.0.clone(), key.1.clone())));
                continue;
            };
            if !confirmed.refused.is_empty() {
                bucket.changes.channel(&key.0, &key.1, true); // those are counted no more
            }
            let mut missed = false;
            let patience = bucket.common.options.node_timeout;
            match channel.confirm(wanted.number, confirmed, patience, || missed = true) {
                Heard::Current => {}
                Heard::Stale => bucket.changes.channel(&key.0, &key.1, true),
                Heard::Doubtful => self.doubtful.push_back((Instant::now() + patience, key.clone())),
            }
            if missed {
                bucket.changes.missed(&key.0, &key.1);
            }
            if wanted.is_awaited && room.app.options().subscription_count {
                bucket.changes.channel(&key.0, &key.1, false); // who was let in just now is told the number, too
            }
        }
        Ok(())
    }

    async fn tell_users(&mut self, bucket: &Bucket, link: &Link, users: &IndexSet<UserKey>) -> Result<(), Ended> {
        let calls = users.iter().filter_map(|key| {
            let (app, user) = key;
            let room = bucket.common.node.room_of(app)?;
            let wanted = room.users.wanted(user);
            let is_held = self.users.contains_key(key);
            // Somebody who is only watched is asked about, not counted.
            let count =
                if wanted.connections > 0 || is_held { wanted.connections.to_string() } else { "-1".to_owned() };
            if wanted.connections > 0 {
                self.users.insert(key.clone(), wanted.connections);
            }
            Some(async move {
                let told = bucket.script::<u8>(link, &bucket.common.scripts.user, |call| {
                    call.arg(&link.node).arg(app).arg(user.as_str()).arg(count).arg(GRACE_MS);
                });
                (key, room, wanted, told.await)
            })
        });
        let calls: Vec<_> = calls.collect();
        for (key, room, wanted, online) in join_all(calls).await {
            let online = online.map_err(ended)?;
            if wanted.connections == 0 {
                self.users.remove(key);
            }
            if wanted.is_of_interest {
                room.users.confirm(&key.1, wanted.number, online == 1);
            } else {
                self.lingering.push_back((Instant::now() + LINGER, Topic::User(key.0.clone(), key.1.clone())));
            }
        }
        Ok(())
    }

    /// Ends subscriptions in Redis that nobody has wanted for a while.
    async fn unsubscribe(&mut self, bucket: &Bucket, subscriptions: &Subscriptions) -> Result<(), Ended> {
        let now = Instant::now();
        let mut unwanted = Vec::new();
        while let Some((at, topic)) = self.lingering.pop_front() {
            if at > now {
                self.lingering.push_front((at, topic));
                break;
            }
            let is_wanted = match &topic {
                Topic::Channel(app, channel) => {
                    bucket.common.node.room_of(app).is_some_and(|room| room.find(channel).is_some())
                }
                Topic::User(app, user) => {
                    bucket.common.node.room_of(app).is_some_and(|room| room.users.wanted(user).is_of_interest)
                }
                Topic::Node(_) | Topic::Nodes => true,
            };
            if !is_wanted && self.subscribed.remove(&topic) {
                unwanted.push(bucket.keys.topic(&topic));
            }
        }
        try_join_all(unwanted.iter().map(|name| subscriptions.end(name))).await?;
        Ok(())
    }

    fn look_again(&mut self, bucket: &Bucket) {
        let now = Instant::now();
        while self.doubtful.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, (app, channel))) = self.doubtful.pop_front()
        {
            if let Some(found) = bucket.common.node.room_of(&app).and_then(|room| room.find(&channel)) {
                found.doubt();
                bucket.changes.channel(&app, &channel, true);
            }
        }
    }
}

impl Held {
    /// It may not be there, whatever was acknowledged.
    pub(super) fn doubt(&mut self) {
        self.is_sure = false;
        self.users.values_mut().for_each(|user| user.is_sure = false);
    }

    /// This is being told: until it is acknowledged, who is new or gone may be known or not. Who stays is known, however many there are.
    fn will_be(&mut self, wanted: &Wanted) {
        self.is_sure &= wanted.count > 0;
        self.count = self.count.max(wanted.count);
        for (user, connections, info) in &wanted.users {
            let held = self.users.entry(user.clone()).or_insert_with(|| HeldUser {
                connections: *connections,
                info: info.clone(),
                is_sure: false,
            });
            held.is_sure &= *connections > 0;
        }
    }

    /// It was acknowledged.
    fn is(&mut self, wanted: &Wanted, refused: &HashSet<UserId>) {
        self.is_sure = true;
        self.count = wanted.count;
        for (user, connections, info) in &wanted.users {
            if *connections == 0 || refused.contains(user) {
                self.users.remove(user);
            } else {
                let held = HeldUser { connections: *connections, info: info.clone(), is_sure: true };
                self.users.insert(user.clone(), held);
            }
        }
    }
}

/// One call of scripts/channel.lua.
async fn tell(
    bucket: &Bucket,
    link: &Link,
    room: &Room,
    channel: &ChannelName,
    wanted: &Wanted,
    quietly: bool,
) -> RedisResult<Answer> {
    if !is_counted(channel) {
        return Ok(Answer::default());
    }
    let is_presence = channel.kind().is_presence();
    let options: String = [
        ('h', room.webhooks_of(channel).is_some()),
        ('q', quietly),
        ('p', is_presence),
        ('l', wanted.list),
        ('c', room.app.options().subscription_count && !is_presence && !quietly && !wanted.is_awaited),
        ('n', wanted.has_newcomers),
        ('k', wanted.kept),
    ]
    .into_iter()
    .filter_map(|(letter, is_set)| is_set.then_some(letter))
    .collect();
    bucket
        .script(link, &bucket.common.scripts.channel, |call| {
            call.arg(&link.node).arg(room.app.id()).arg(channel.as_str()).arg(wanted.count).arg(options);
            call.arg(room.app.limits().presence_members).arg(GRACE_MS);
            for (user, connections, info) in &wanted.users {
                call.arg(user.as_str()).arg(*connections).arg(&**info);
            }
        })
        .await
}

fn confirmed((epoch, seq, refused, list, kept): Answer) -> Confirmed {
    let user = |id: &String| UserId::parse(id).ok();
    Confirmed {
        version: Version { epoch, seq },
        refused: refused.iter().filter_map(user).collect(),
        list: list
            .map(|list| list.into_iter().filter_map(|(id, info)| Some((user(&id)?, info.into_boxed_str()))).collect()),
        kept: kept.map(|(number, frame, ttl_ms)| {
            (number, Frame::text(&frame), Duration::from_millis(u64::try_from(ttl_ms).unwrap_or_default()))
        }),
    }
}

async fn tell_connections(bucket: &Bucket, link: &Link, apps: &HashSet<String>) -> Result<(), Ended> {
    let calls = apps.iter().filter_map(|app| bucket.common.node.room_of(app)).map(|room| {
        bucket.script::<u8>(link, &bucket.common.scripts.connections, move |call| {
            call.arg(&link.node).arg(room.app.id()).arg(room.app.connections()).arg(-1);
        })
    });
    for told in join_all(calls).await {
        told.map_err(ended)?;
    }
    Ok(())
}

async fn tell_missed(bucket: &Bucket, channels: &IndexSet<ChannelKey>) {
    for (app, channel) in channels {
        let Some(room) = bucket.common.node.room_of(app).filter(|room| room.webhooks_of(channel).is_some()) else {
            continue;
        };
        let event = WebhookEvent::CacheMiss { channel: channel.clone() };
        if let Err(error) = bucket.report(&room.app, &event).await {
            tracing::warn!(%channel, %error, "an empty cache is not reported");
        }
    }
}

/// What a failed call means for the session.
pub(super) fn ended(error: RedisError) -> Ended {
    if error.code() == Some("FENCED") { Ended::TakenOut } else { Ended::Redis(error) }
}
