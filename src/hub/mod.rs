//! Who is here: this node's channels, their subscriptions, and the fan-out of one event to all of them.
//!
//! Start at [`Hub::publish`], the middle of every message's way: `connection` and `http` above it decide *whether* an event may pass,
//! each subscriber's [`queue::Queue`] below it decides *when* it is written.
//!
//! Always: an event arrives encoded, only its reference count changes per subscriber; a channel exists exactly as long as it has a
//! subscription or a kept event; a channel's lock is taken before a queue's, and neither lives across an `.await`; no shard of a map is
//! held while a channel's lock is taken. Not here: what goes over the wire (`herald_protocol`), who may subscribe
//! (`connection::session`).

pub mod channel;
pub mod client;
pub mod frame;
pub mod queue;
pub mod users;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use herald_protocol::client::{ClientEvent, MemberData};
use herald_protocol::webhook::{WebhookEvent, WebhookKind};
use herald_protocol::{ChannelKind, ChannelName, CloseReason, SocketId, UserId, server};

pub use channel::{Kept, Occupancy, Subscription};
pub use client::Client;
pub use frame::Frame;

use crate::apps::{App, Apps};
use crate::due::DueList;
use crate::metrics;
use crate::webhooks::{AppWebhooks, Webhooks};
use channel::{Change, Channel, NotPublished, Refused};
use users::Users;

/// Some subscribers' queues had no room in time though their readers are not to blame: the server is short of CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server cannot keep up; the event reached some subscribers only")]
pub struct Overloaded;

/// What is left to do for a message.
pub type Later = Pin<Box<dyn Future<Output = ()> + Send>>;

/// All that is here on this node, app by app.
#[derive(Debug)]
pub struct Hub {
    rooms: HashMap<String, Room>,
}

/// What one app has on this node.
#[derive(Debug)]
struct Room {
    channels: DashMap<ChannelName, Arc<Channel>>,
    clients: DashMap<SocketId, Arc<Client>>,
    users: Users,
    webhooks: Option<Arc<AppWebhooks>>,
    /// Channels whose number of subscriptions has to be announced.
    counts: Option<DueList<Arc<Channel>>>,
}

/// How many there are of an app's channels.
#[derive(Debug, Default)]
pub struct Census {
    /// On all channels.
    pub subscriptions: usize,
    /// Occupied ones of each kind.
    pub channels: Vec<(ChannelKind, usize)>,
}

impl Hub {
    /// An empty hub for these apps.
    #[must_use]
    pub fn new(apps: &Apps, webhooks: &Webhooks) -> Self {
        let room = |app: &Arc<App>| Room {
            channels: DashMap::new(),
            clients: DashMap::new(),
            users: Users::default(),
            webhooks: webhooks.of(app),
            counts: app.options.subscription_count.then(DueList::default),
        };
        Self { rooms: apps.iter().map(|app| (app.id().to_owned(), room(app))).collect() }
    }

    /// Says what becomes due: numbers of subscriptions, users who came and went. Runs until it is dropped.
    pub async fn run(&self) {
        let rooms = self.rooms.values().map(|room| async {
            tokio::join!(room.users.tell(), room.announce_counts());
        });
        futures_util::future::join_all(rooms).await;
    }

    fn room(&self, app: &App) -> &Room {
        &self.rooms[app.id()]
    }

    /// Hands an event triggered over HTTP to every subscriber of `channel` but `except`. It is encoded here, once, and only if there is
    /// anybody; `data` is the publisher's JSON string token, copied as it stands.
    ///
    /// # Errors
    /// [`Overloaded`] when some subscriber's queue had no room in time through no fault of its reader.
    pub async fn publish(
        &self,
        app: &App,
        channel: &ChannelName,
        event: &str,
        data: &str,
        except: Option<SocketId>,
    ) -> Result<(), Overloaded> {
        metrics::event_published("http");
        let keep = channel.kind().keeps_last_event().then_some((data, app.options.cache_ttl));
        loop {
            let found = if keep.is_some() { Some(self.room(app).open(channel)) } else { self.room(app).find(channel) };
            let Some(found) = found else { return Ok(()) };
            let frame = Frame::text(&server::event(event, channel, data));
            match found.publish(&frame, except, keep, || {}).await {
                Ok(()) => return Ok(()),
                Err(NotPublished::Overloaded) => return Err(Overloaded),
                Err(NotPublished::Gone) => {} // it was being taken out just now; there may be a new one
            }
        }
    }

    /// Lets a client into a channel and answers it.
    ///
    /// # Errors
    /// The text says which limit the channel has reached.
    pub fn subscribe(
        &self,
        client: &Arc<Client>,
        name: &ChannelName,
        member: Option<MemberData>,
    ) -> Result<Subscription, Refused> {
        let room = self.room(&client.app);
        loop {
            let channel = room.open(name);
            let on_change = |change: &Change| {
                if let Some(webhooks) = room.webhooks_of(name) {
                    if change.occupancy {
                        webhooks.entered(name, None);
                    }
                    if let Some(user) = &change.member {
                        webhooks.entered(name, Some(user));
                    }
                    if change.cache_miss {
                        webhooks.missed(name);
                    }
                }
                room.count_later(&channel, change);
            };
            match channel.enter(client, member.clone(), on_change) {
                Err(Refused::Gone) => {}
                done => return done,
            }
        }
    }

    /// Takes a client out of a channel.
    pub fn unsubscribe(&self, client: &Client, subscription: &Subscription) {
        let (channel, room) = (&subscription.channel, self.room(&client.app));
        let on_change = |change: &Change| {
            if let Some(webhooks) = room.webhooks_of(&channel.name) {
                if let Some(user) = &change.member {
                    webhooks.left(&channel.name, Some(user));
                }
                if change.occupancy {
                    webhooks.left(&channel.name, None);
                }
            }
            room.count_later(channel, change);
        };
        if channel.leave(subscription, on_change) {
            room.remove(channel);
        }
    }

    /// Hands a client's event to the others; nothing happens before the future is polled.
    #[must_use]
    pub fn client_event(&self, client: &Client, subscription: &Subscription, event: &ClientEvent<'_>) -> Later {
        let (channel, user) = (Arc::clone(&subscription.channel), subscription.user.as_ref());
        let frame = Frame::text(&server::client_event(&event.event, &channel.name, &event.data, user));
        let webhooks =
            self.room(&client.app).webhooks.clone().filter(|webhooks| webhooks.want(WebhookKind::ClientEvent));
        let webhook = webhooks.map(|webhooks| {
            let event = WebhookEvent::ClientEvent {
                channel: channel.name.clone(),
                event: event.event.to_string(),
                data: event.data.to_string(),
                socket_id: client.socket_id,
                user_id: user.cloned(),
            };
            (webhooks, event)
        });
        let sender = client.socket_id;
        Box::pin(async move {
            metrics::event_published("client");
            let report = || {
                if let Some((webhooks, event)) = &webhook {
                    webhooks.deliver(event);
                }
            };
            if channel.publish(&frame, Some(sender), None, report).await.is_err() {
                tracing::warn!(channel = %channel.name, "a client event reached some subscribers only: short of CPU");
            }
        })
    }

    /// Adds a connection.
    pub fn connect(&self, client: &Arc<Client>) {
        self.room(&client.app).clients.insert(client.socket_id, Arc::clone(client));
    }

    /// Takes a connection out.
    pub fn disconnect(&self, client: &Client) {
        self.room(&client.app).clients.remove(&client.socket_id);
    }

    /// The users signed in to the app.
    #[must_use]
    pub fn users(&self, app: &App) -> &Users {
        &self.room(app).users
    }

    /// Ends every connection of a user, and returns when they have ended or after a second.
    pub async fn terminate(&self, app: &App, user: &UserId) {
        let clients = self.room(app).users.connections(user);
        clients.iter().for_each(|client| client.close(CloseReason::UserTerminated));
        let ended = async {
            for client in &clients {
                client.queue.ended().await;
            }
        };
        // Whoever takes longer is cut by its own connection's deadline; the caller need not wait for that.
        _ = tokio::time::timeout(Duration::from_secs(1), ended).await;
    }

    /// How many are on a channel.
    #[must_use]
    pub fn channel(&self, app: &App, name: &ChannelName) -> Occupancy {
        let nobody = || Occupancy { subscription_count: 0, user_count: name.kind().is_presence().then_some(0) };
        self.room(app).find(name).map_or_else(nobody, |channel| channel.occupancy())
    }

    /// The occupied channels whose names begin with `prefix`; server-to-user channels are never listed.
    #[must_use]
    pub fn channels(&self, app: &App, prefix: &str) -> Vec<(ChannelName, Occupancy)> {
        let listed = |name: &ChannelName| name.kind() != ChannelKind::ServerToUser && name.as_str().starts_with(prefix);
        let occupied = |channel: Arc<Channel>| {
            let occupancy = channel.occupancy();
            (occupancy.subscription_count > 0).then(|| (channel.name.clone(), occupancy))
        };
        self.room(app).all().into_iter().filter(|channel| listed(&channel.name)).filter_map(occupied).collect()
    }

    /// The members of a presence channel.
    #[must_use]
    pub fn members(&self, app: &App, name: &ChannelName) -> Vec<UserId> {
        self.room(app).find(name).map(|channel| channel.members()).unwrap_or_default()
    }

    /// The event that a cache channel keeps.
    #[must_use]
    pub fn kept(&self, app: &App, name: &ChannelName) -> Option<Kept> {
        self.room(app).find(name)?.kept()
    }

    /// Open connections of an app.
    #[must_use]
    pub fn connections(&self, app: &App) -> usize {
        self.room(app).clients.len()
    }

    /// Open connections of all apps.
    #[must_use]
    pub fn total_connections(&self) -> usize {
        self.rooms.values().map(|room| room.clients.len()).sum()
    }

    /// How many channels and subscriptions an app has.
    #[must_use]
    pub fn census(&self, app: &App) -> Census {
        let mut census = Census { subscriptions: 0, channels: ChannelKind::ALL.map(|kind| (kind, 0)).to_vec() };
        for channel in self.room(app).all() {
            let subscriptions = channel.occupancy().subscription_count;
            census.subscriptions += subscriptions;
            let kind = census.channels.iter_mut().find(|(kind, _)| *kind == channel.name.kind());
            if let Some((_, channels)) = kind.filter(|_| subscriptions > 0) {
                *channels += 1;
            }
        }
        census
    }

    /// Every open connection.
    #[must_use]
    pub fn clients(&self) -> Vec<Arc<Client>> {
        self.rooms.values().flat_map(|room| room.clients.iter().map(|entry| Arc::clone(&entry))).collect()
    }

    /// Forgets kept events whose time is over.
    pub fn sweep(&self) {
        let now = Instant::now();
        for room in self.rooms.values() {
            for channel in room.all() {
                if channel.retire(now) {
                    room.remove(&channel);
                }
            }
        }
    }
}

impl Room {
    /// Who is told about the channel; nobody hears of what is sent to one user.
    fn webhooks_of(&self, channel: &ChannelName) -> Option<&AppWebhooks> {
        self.webhooks.as_deref().filter(|_| channel.kind() != ChannelKind::ServerToUser)
    }

    /// Puts the channel on the list of those whose number of subscriptions is announced, unless it is there already.
    fn count_later(&self, channel: &Arc<Channel>, change: &Change) {
        if let (Some(counts), Some(at)) = (&self.counts, change.announce_count_at) {
            counts.add(at, Arc::clone(channel));
        }
    }

    async fn announce_counts(&self) {
        let Some(counts) = &self.counts else { return };
        loop {
            let channel = counts.next().await;
            let Some(count) = channel.take_count() else { continue };
            let frame = Frame::text(&server::subscription_count(&channel.name, count));
            if channel.publish(&frame, None, None, || {}).await == Err(NotPublished::Overloaded) {
                tracing::warn!(channel = %channel.name, "a subscription count reached some subscribers only: short of CPU");
            }
            if let Some(webhooks) = &self.webhooks {
                webhooks.deliver(&WebhookEvent::SubscriptionCount { channel: channel.name.clone(), count });
            }
        }
    }

    fn find(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        self.channels.get(name).map(|entry| Arc::clone(&entry))
    }

    fn open(&self, name: &ChannelName) -> Arc<Channel> {
        self.find(name).unwrap_or_else(|| {
            let entry = self.channels.entry(name.clone()).or_insert_with(|| Arc::new(Channel::new(name.clone())));
            Arc::clone(&entry)
        })
    }

    fn all(&self) -> Vec<Arc<Channel>> {
        self.channels.iter().map(|entry| Arc::clone(&entry)).collect()
    }

    fn remove(&self, gone: &Arc<Channel>) {
        self.channels.remove_if(&gone.name, |_, channel| Arc::ptr_eq(channel, gone));
    }
}
