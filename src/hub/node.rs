//! What is on this node: each app's connections, channels and signed-in users. The hub and the cluster's implementations stand on it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use herald_protocol::segment::{USER_CHANNEL, user_channel};
use herald_protocol::webhook::WebhookEvent;
use herald_protocol::{ChannelKind, ChannelName, SocketId, server};
use tokio::sync::{Notify, mpsc};

use super::bindings::{FirstExpiry, Lately};
use super::channel::{Arrival, Channel, Delivery, NotPublished};
use super::client::Client;
use super::flusher::Flushers;
use super::frame::Frame;
use super::remote::Remote;
use super::users::Users;
use super::{Census, Overloaded};
use crate::apps::{App, Apps};
use crate::due::DueList;
use crate::webhooks::{AppWebhooks, Webhooks};

/// See the module.
#[derive(Debug)]
pub struct Node {
    /// An app that is configured no more keeps its room: its clients are still leaving, and it may come back.
    rooms: ArcSwap<HashMap<String, Arc<Room>>>,
    pub(super) opened: Notify,
    in_cluster: bool,
    arrivals: Arc<OnceLock<mpsc::Sender<Arrival>>>,
    pub(super) lately: Lately,
    pub(super) first_expiry: FirstExpiry,
    /// Who writes what waits for many.
    pub flushers: Arc<Flushers>,
}

/// What one app has on this node.
#[derive(Debug)]
pub struct Room {
    /// Whose it is.
    pub app: Arc<App>,
    channels: DashMap<ChannelName, Arc<Channel>>,
    pub(super) clients: DashMap<SocketId, Arc<Client>>,
    /// Who is signed in.
    pub users: Users,
    /// Who is told what happens.
    pub webhooks: Option<Arc<AppWebhooks>>,
    /// Whether the channels are a cluster's.
    in_cluster: bool,
    /// Channels whose number of subscriptions has to be announced, where this node is alone.
    counts: Option<DueList<Arc<Channel>>>,
    /// Who hears of those who come to users' own channels, if anybody does.
    arrivals: Arc<OnceLock<mpsc::Sender<Arrival>>>,
    flushers: Arc<Flushers>,
}

/// Arrivals that wait to be heard of.
const MAX_ARRIVALS: usize = 100_000;

impl Node {
    /// Nobody yet, for these apps; their channels are a cluster's, or this node's alone.
    #[must_use]
    pub fn new(apps: &Apps, webhooks: &Webhooks, in_cluster: bool) -> Self {
        let node = Self {
            rooms: ArcSwap::default(),
            opened: Notify::new(),
            in_cluster,
            arrivals: Arc::default(),
            lately: Lately::default(),
            first_expiry: FirstExpiry::default(),
            flushers: Arc::default(),
        };
        apps.iter().for_each(|app| node.open(&app, webhooks.of(&app)));
        node
    }

    /// Makes the room of an app that is new, before anybody can come.
    pub fn open(&self, app: &Arc<App>, webhooks: Option<Arc<AppWebhooks>>) {
        let room = Arc::new(Room {
            app: Arc::clone(app),
            channels: DashMap::new(),
            clients: DashMap::new(),
            users: Users::new(self.in_cluster),
            webhooks,
            in_cluster: self.in_cluster,
            counts: (!self.in_cluster).then(DueList::default),
            arrivals: Arc::clone(&self.arrivals),
            flushers: Arc::clone(&self.flushers),
        });
        self.rooms.rcu(|rooms| {
            let mut rooms = HashMap::clone(rooms);
            rooms.insert(app.id().to_owned(), Arc::clone(&room));
            rooms
        });
        self.opened.notify_one();
    }

    /// Whoever comes to a user's own channel from now on; `None` if they are heard of elsewhere already.
    #[must_use]
    pub fn arrivals(&self) -> Option<mpsc::Receiver<Arrival>> {
        let (arrivals, heard) = mpsc::channel(MAX_ARRIVALS);
        self.arrivals.set(arrivals).ok().map(|()| heard)
    }

    /// What an app has here.
    #[must_use]
    pub fn room(&self, app: &App) -> Arc<Room> {
        Arc::clone(&self.rooms.load()[app.id()])
    }

    /// The same by the app's id, which another node may have sent.
    #[must_use]
    pub fn room_of(&self, app: &str) -> Option<Arc<Room>> {
        self.rooms.load().get(app).cloned()
    }

    /// Every app's.
    pub fn rooms(&self) -> impl Iterator<Item = Arc<Room>> + use<> {
        self.rooms.load().values().cloned().collect::<Vec<_>>().into_iter()
    }

    /// Sends the clients of apps away that are configured no more or disabled.
    pub fn send_away(&self) {
        for room in self.rooms() {
            if let Some(reason) = room.app.refusal() {
                let clients: Vec<_> = room.clients.iter().map(|entry| Arc::clone(&entry)).collect();
                clients.iter().for_each(|client| client.close(reason.clone()));
            }
        }
    }

    /// Every open connection.
    #[must_use]
    pub fn clients(&self) -> Vec<Arc<Client>> {
        self.rooms().flat_map(|room| room.clients.iter().map(|entry| Arc::clone(&entry)).collect::<Vec<_>>()).collect()
    }

    /// Forgets kept events whose time is over.
    pub fn sweep(&self) {
        let now = Instant::now();
        for room in self.rooms() {
            for channel in room.channels() {
                if channel.retire(now) {
                    room.remove(&channel);
                }
            }
        }
    }
}

impl Room {
    /// The channel, if there is anybody or anything.
    #[must_use]
    pub fn find(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        self.channels.get(name).map(|entry| Arc::clone(&entry))
    }

    /// The channel, new if need be.
    #[must_use]
    pub fn open(&self, name: &ChannelName) -> Arc<Channel> {
        self.find(name).unwrap_or_else(|| {
            let remote = || self.in_cluster.then(|| Box::new(Remote::default()));
            let arrivals = || self.arrivals.get().filter(|_| is_users_own(name)).cloned();
            let new = || Arc::new(Channel::new(name.clone(), remote(), arrivals(), Arc::clone(&self.flushers)));
            Arc::clone(&self.channels.entry(name.clone()).or_insert_with(new))
        })
    }

    /// Every channel.
    #[must_use]
    pub fn channels(&self) -> Vec<Arc<Channel>> {
        self.channels.iter().map(|entry| Arc::clone(&entry)).collect()
    }

    pub(super) fn remove(&self, gone: &Arc<Channel>) {
        self.channels.remove_if(&gone.name, |_, channel| Arc::ptr_eq(channel, gone));
    }

    /// The connection of this id, if it is here.
    #[must_use]
    pub fn client(&self, socket_id: SocketId) -> Option<Arc<Client>> {
        self.clients.get(&socket_id).map(|entry| Arc::clone(&entry))
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.clients.len()
    }

    /// Who is told about the channel; nobody hears of what is sent to one user.
    #[must_use]
    pub fn webhooks_of(&self, channel: &ChannelName) -> Option<&AppWebhooks> {
        self.webhooks.as_deref().filter(|_| channel.kind() != ChannelKind::ServerToUser)
    }

    /// Fans an event out to this node's subscribers of a channel; `frame` is asked for only if there is anybody. A change of an inbox does
    /// not go to a server-to-user channel's subscriber who also has the user's private channel: it comes there.
    ///
    /// # Errors
    /// [`Overloaded`] when some subscriber's queue had no room in time through no fault of its reader.
    pub async fn fan_out(
        &self,
        channel: &ChannelName,
        frame: impl Fn() -> Frame,
        mut delivery: Delivery<'_>,
    ) -> Result<(), Overloaded> {
        if delivery.rev.is_some()
            && let Some(user) = channel.user()
        {
            let private = ChannelName::parse(&user_channel(user), usize::MAX).ok();
            delivery.elsewhere =
                private.and_then(|name| self.find(&name)).map(|found| found.socket_ids()).unwrap_or_default();
        }
        loop {
            // Alone, this node is where the event is kept, whether or not there is anybody.
            let opens = delivery.keep.is_some() && !self.in_cluster;
            let found = if opens { Some(self.open(channel)) } else { self.find(channel) };
            let Some(found) = found else { return Ok(()) };
            match found.publish(&frame(), &delivery, || {}).await {
                Ok(()) => return Ok(()),
                Err(NotPublished::Overloaded) => return Err(Overloaded),
                Err(NotPublished::Gone) => {} // it was being taken out just now; there may be a new one
            }
        }
    }

    /// Puts the channel on the list of those whose number of subscriptions is announced, unless it is there already.
    pub(super) fn count_later(&self, channel: &Arc<Channel>, at: Option<Instant>) {
        if let (Some(counts), Some(at)) = (&self.counts, at)
            && self.app.options().subscription_count
        {
            counts.add(at, Arc::clone(channel));
        }
    }

    pub(super) async fn announce_counts(&self) {
        let Some(counts) = &self.counts else { return };
        loop {
            let channel = counts.next().await;
            let Some(count) = channel.take_count() else { continue };
            tell_count(&channel, count).await;
            if let Some(webhooks) = &self.webhooks {
                webhooks.deliver(&WebhookEvent::SubscriptionCount { channel: channel.name.clone(), count });
            }
        }
    }

    /// How many channels and subscriptions there are.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut census = Census { subscriptions: 0, channels: ChannelKind::ALL.map(|kind| (kind, 0)).to_vec() };
        for channel in self.channels() {
            let subscriptions = channel.occupancy().subscription_count;
            census.subscriptions += subscriptions;
            let kind = census.channels.iter_mut().find(|(kind, _)| *kind == channel.name.kind());
            if let Some((_, channels)) = kind.filter(|_| subscriptions > 0) {
                *channels += 1;
            }
        }
        census
    }
}

/// Whether changes of an inbox come on this channel.
fn is_users_own(name: &ChannelName) -> bool {
    let segment = name.as_str().strip_prefix(USER_CHANNEL);
    name.kind() == ChannelKind::ServerToUser || segment.is_some_and(|segment| !segment.contains('-'))
}

/// Tells this node's subscribers of a channel how many there are.
pub async fn tell_count(channel: &Channel, count: usize) {
    let frame = Frame::text(&server::subscription_count(&channel.name, count));
    if channel.publish(&frame, &Delivery::default(), || {}).await == Err(NotPublished::Overloaded) {
        tracing::warn!(channel = %channel.name, "a subscription count reached some subscribers only: short of CPU");
    }
}
