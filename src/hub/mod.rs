//! Who is here: this node's channels, their subscriptions, and the fan-out of one event to all of them.
//!
//! Start at [`Hub::publish`], the middle of every message's way: `connection` and `http` above it decide *whether* an event may pass,
//! the [`Cluster`] hands it to every node, [`node`] fans it out here, each subscriber's [`queue::Queue`] below decides *when* it is
//! written.
//!
//! Always: an event arrives encoded, only its reference count changes per subscriber; a channel exists exactly as long as it has a
//! subscription or a kept event; a channel's lock is taken before a queue's, and neither lives across an `.await`; no shard of a map is
//! held while a channel's lock is taken. Not here: what goes over the wire (`herald_protocol`), who may subscribe
//! (`connection::session`), Redis (`cluster`).

mod bindings;
pub mod channel;
pub mod client;
pub mod flusher;
pub mod frame;
pub mod node;
pub mod pressure;
pub mod queue;
pub mod remote;
pub mod users;
pub mod wire;

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use herald_protocol::client::{ClientEvent, MemberData};
use herald_protocol::webhook::{WebhookEvent, WebhookKind};
use herald_protocol::{ChannelKind, ChannelName, CloseReason, SocketId, UserId, server};

pub use bindings::Binding;
pub use channel::{Kept, Occupancy, Subscription};
pub use client::Client;
pub use frame::Frame;
pub use node::Node;

use crate::apps::App;
use crate::cluster::{Cluster, Event, Unpublished, Unreachable};
use crate::metrics;
use channel::{Change, Refused};
use users::SignIn;

/// Some subscribers' queues had no room in time though their readers are not to blame: the server is short of CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server cannot keep up; the event reached some subscribers only")]
pub struct Overloaded;

/// What is left to do for a message.
pub type Later = Pin<Box<dyn Future<Output = ()> + Send>>;

/// All that is here, and what the cluster makes of it.
#[derive(Debug)]
pub struct Hub {
    /// What is on this node.
    pub node: Arc<Node>,
    /// What joins it with the others.
    pub cluster: Arc<dyn Cluster>,
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
    /// Says what becomes due on this node: numbers of subscriptions, users who came and went. Runs until it is dropped.
    pub async fn run(&self) {
        let (mut running, mut known) = (FuturesUnordered::new(), HashSet::new());
        loop {
            for room in self.node.rooms().filter(|room| known.insert(room.app.id().to_owned())) {
                running.push(async move {
                    tokio::join!(room.users.tell(), room.announce_counts());
                });
            }
            tokio::select! {
                () = self.node.opened.notified() => {}
                Some(()) = running.next() => {}
            }
        }
    }

    /// Hands an event triggered over HTTP to the subscribers that it is for, on every node.
    ///
    /// # Errors
    /// See [`Unpublished`].
    pub async fn publish(&self, app: &App, event: &Event<'_>) -> Result<(), Unpublished> {
        metrics::event_published("http");
        self.cluster.publish(app, event).await
    }

    /// Lets a client into a channel and answers it, at once or when the cluster knows it.
    ///
    /// # Errors
    /// The text says which limit the channel has reached.
    pub fn subscribe(
        &self,
        client: &Arc<Client>,
        name: &ChannelName,
        member: Option<MemberData>,
    ) -> Result<Subscription, Refused> {
        let room = self.node.room(&client.app);
        loop {
            let channel = room.open(name);
            let on_change = |change: &Change| {
                self.cluster.channel_changed(&client.app, name, change);
                room.count_later(&channel, change.announce_count_at);
            };
            match channel.enter(client, member.clone(), on_change) {
                Err(Refused::Gone) => {}
                done => return done,
            }
        }
    }

    /// Takes a client out of a channel.
    pub fn unsubscribe(&self, client: &Client, subscription: &Subscription) {
        let (channel, room) = (&subscription.channel, self.node.room(&client.app));
        let on_change = |change: &Change| {
            self.cluster.channel_changed(&client.app, &channel.name, change);
            room.count_later(channel, change.announce_count_at);
        };
        if channel.leave(subscription, on_change) {
            room.remove(channel);
        }
    }

    /// Hands a client's event to the others; nothing happens before the future is polled.
    #[must_use]
    pub fn client_event(&self, client: &Client, subscription: &Subscription, event: &ClientEvent<'_>) -> Later {
        let (channel, user) = (Arc::clone(&subscription.channel), subscription.user.as_ref());
        let text = server::client_event(&event.event, &channel.name, &event.data, user);
        let room = self.node.room(&client.app);
        let webhooks = room.webhooks.as_ref();
        let webhook =
            webhooks.filter(|webhooks| webhooks.want(WebhookKind::ClientEvent)).map(|_| WebhookEvent::ClientEvent {
                channel: channel.name.clone(),
                event: event.event.to_string(),
                data: event.data.to_string(),
                socket_id: client.socket_id,
                user_id: user.cloned(),
            });
        let (sender, app, cluster) = (client.socket_id, Arc::clone(&client.app), Arc::clone(&self.cluster));
        Box::pin(async move {
            metrics::event_published("client");
            cluster.client_event(&app, channel, text, sender, webhook).await;
        })
    }

    /// Adds a connection.
    pub fn connect(&self, client: &Arc<Client>) {
        self.node.room(&client.app).clients.insert(client.socket_id, Arc::clone(client));
        self.cluster.connections_changed(&client.app);
    }

    /// Takes a connection out.
    pub fn disconnect(&self, client: &Client) {
        self.node.room(&client.app).clients.remove(&client.socket_id);
        self.cluster.connections_changed(&client.app);
    }

    /// The connection of this id, wherever it is, belongs to this user and session from now on.
    ///
    /// # Errors
    /// When it is not on this node, and the others could not be told.
    pub async fn bind(&self, app: &App, socket_id: SocketId, binding: Binding) -> Result<(), Unreachable> {
        if self.node.room(app).client(socket_id).is_none() {
            return self.cluster.bind(app, socket_id, &binding).await;
        }
        self.node.bind(app.id(), socket_id, binding);
        Ok(())
    }

    /// The client is the user from now on, and is told so, at once or when the cluster knows it.
    pub fn sign_in(&self, client: &Arc<Client>, sign_in: SignIn<'_>) {
        let changed = self.node.room(&client.app).users.sign_in(client, sign_in);
        self.cluster.users_changed(&client.app, &changed);
    }

    /// The client is nobody any more, and watches nobody.
    pub fn sign_out(&self, client: &Client, user: &UserId, watched: &[UserId]) {
        let changed = self.node.room(&client.app).users.sign_out(user, client, watched);
        self.cluster.users_changed(&client.app, &changed);
    }

    /// Ends every connection of a user, and returns when those of this node have ended or after a second.
    ///
    /// # Errors
    /// When other nodes could not be told.
    pub async fn terminate(&self, app: &App, user: &UserId) -> Result<(), Unreachable> {
        let told = self.cluster.terminate(app, user).await;
        let clients = self.node.room(app).users.connections(user);
        clients.iter().for_each(|client| client.close(CloseReason::UserTerminated));
        let ended = async {
            for client in &clients {
                client.queue.ended().await;
            }
        };
        // Whoever takes longer is cut by its own connection's deadline; the caller need not wait for that.
        _ = tokio::time::timeout(Duration::from_secs(1), ended).await;
        told
    }

    /// Open connections of all apps on this node.
    #[must_use]
    pub fn total_connections(&self) -> usize {
        self.node.rooms().map(|room| room.connections()).sum()
    }
}
