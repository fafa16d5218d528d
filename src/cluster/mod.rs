//! Many nodes as one: what a client may rely on whether there is one node or fifty.
//!
//! [`Cluster`] is the contract, [`local`] and [`redis`] keep it side by side; `server` alone chooses. The hub tells it what changes on this
//! node ([`Cluster::channel_changed`] and its neighbours never wait) and asks it for what is true of all nodes. Alone, all of that is
//! answered from this node; in Redis, one script a change keeps counts, members and webhooks true whoever dies when (docs/cluster.md).

pub mod local;
pub mod redis;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use herald_protocol::webhook::WebhookEvent;
use herald_protocol::{ChannelName, SocketId, UserId, server};
use uuid::Uuid;

use crate::answers::{Digest, Unrepeatable};
use crate::apps::App;
use crate::hub::channel::{Change, Channel};
use crate::hub::{Binding, Kept, Occupancy, Overloaded};
use crate::limits::{Counted, Rate};

/// An event of a backend, for one channel.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Where it goes.
    pub channel: &'a ChannelName,
    /// Its name.
    pub name: &'a str,
    /// The publisher's JSON string token, copied as it stands.
    pub data: &'a str,
    /// Who does not get it.
    pub except: Option<SocketId>,
    /// Of a request with an `Idempotency-Key`: that, and which of its events this is. Published at most once then.
    pub once: Option<(Digest, usize)>,
    /// Of an event of a user's own channels, whose subscribers get it on one of them: its revision; whoever has got it, or a later one, does
    /// not get it again. 0 for one that is no change of the inbox.
    pub rev: Option<u64>,
}

impl Event<'_> {
    /// The text of the frame that every subscriber gets.
    #[must_use]
    pub fn text(&self) -> String {
        server::event(self.name, self.channel, self.data)
    }
}

/// The cluster cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// It is known to be away; nothing was sent.
    #[error("the cluster cannot be reached (Redis is away); nothing was sent")]
    Away,
    /// It went away meanwhile.
    #[error("the cluster could not be reached (Redis did not answer); the request may have been delivered")]
    Unknown,
}

/// Why an event did not reach everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpublished {
    /// Short of CPU.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// Other nodes.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

/// What is wrong with the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// Whether this node has ever been in it: if not, it has nobody whom it could serve on.
    pub has_joined: bool,
    /// Whether some channels are served as ever.
    pub is_partial: bool,
}

/// See the module. What is said of "the cluster" is said of this node where it is alone.
#[async_trait]
pub trait Cluster: Debug + Send + Sync {
    /// Returns once this node is in the cluster, and what is asked of it is answered.
    async fn joined(&self);

    /// Somebody came to a channel of this node, or left it. Called under the channel's lock; never waits.
    fn channel_changed(&self, app: &Arc<App>, channel: &ChannelName, change: &Change);

    /// These users have connections or watchers on this node, or have none any more. Never waits.
    fn users_changed(&self, app: &Arc<App>, users: &[UserId]);

    /// The number of an app's connections on this node has changed. Never waits.
    fn connections_changed(&self, app: &Arc<App>);

    /// Hands an event to every subscriber on every node. If the second is sent after the first was answered, everybody gets them in this
    /// order.
    ///
    /// # Errors
    /// See [`Unpublished`].
    async fn publish(&self, app: &App, event: &Event<'_>) -> Result<(), Unpublished>;

    /// Hands a client's event to the others on every node, and reports it.
    async fn client_event(
        &self,
        app: &Arc<App>,
        channel: Arc<Channel>,
        text: String,
        sender: SocketId,
        webhook: Option<WebhookEvent>,
    );

    /// Tells other nodes to end a user's connections.
    ///
    /// # Errors
    /// When they cannot be told.
    async fn terminate(&self, app: &App, user: &UserId) -> Result<(), Unreachable>;

    /// Tells other nodes that the connection of this id, which one of them has, belongs to this user and session from now on.
    ///
    /// # Errors
    /// When they cannot be told.
    async fn bind(&self, app: &App, socket_id: SocketId, binding: &Binding) -> Result<(), Unreachable>;

    /// How many are on each of these channels.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    async fn occupancy(&self, app: &App, channels: &[&ChannelName]) -> Result<Vec<Occupancy>, Unreachable>;

    /// The occupied channels whose names begin with `prefix`, sorted; server-to-user channels are never listed.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    async fn channels(&self, app: &App, prefix: &str) -> Result<Vec<(ChannelName, Occupancy)>, Unreachable>;

    /// The members of a presence channel.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    async fn members(&self, app: &App, channel: &ChannelName) -> Result<Vec<UserId>, Unreachable>;

    /// The event that a cache channel keeps.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    async fn kept(&self, app: &App, channel: &ChannelName) -> Result<Option<Kept>, Unreachable>;

    /// Open connections of an app.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    async fn connections(&self, app: &App) -> Result<usize, Unreachable>;

    /// Whether the app may have one more connection, that which this node has just counted.
    async fn has_place(&self, app: &App) -> bool;

    /// Counts `cost` against the limit of this name, over all nodes. `None` where each has to count by itself: it is alone, or the cluster has
    /// not answered `within` that time.
    async fn count(&self, name: &str, rate: Rate, cost: usize, within: Duration) -> Option<Counted>;

    /// How many nodes there are, as far as is known.
    fn nodes(&self) -> usize;

    /// Asks the other nodes whether a request under an idempotency key may run here, after this node's own [`crate::answers`] let it:
    /// `None` if it may, else the answer that it got elsewhere. A repeat waits `within` that time for the first.
    ///
    /// # Errors
    /// See [`Unclaimed`].
    async fn claim(
        &self,
        app: &App,
        scope: Digest,
        request: Digest,
        within: Duration,
    ) -> Result<Option<Bytes>, Unclaimed>;

    /// Ends what [`Cluster::claim`] let run: with an answer for those who repeat it, or without one, so that another may try.
    async fn settle(&self, app: &App, scope: Digest, answer: Option<&Bytes>);

    /// Says that this node keeps users and notifications in the store of this id, which holds as long as a node may be silent; returns the id
    /// of another store that a node has which lives, and says nothing then.
    ///
    /// # Errors
    /// When the cluster cannot be told.
    async fn claim_store(&self, store: Uuid) -> Result<Option<Uuid>, Unreachable>;

    /// Whether all of its parts answer; `None` where there is nothing but this node.
    async fn ping(&self) -> Option<Result<(), Unreachable>>;

    /// What is wrong with it, if anything: for the health page.
    fn trouble(&self) -> Option<Trouble>;

    /// How many parts of the cluster this node looks after: their webhooks, their dead nodes, the end of graces.
    fn owned_buckets(&self) -> usize;

    /// Gives up what this node holds, at an end in order.
    async fn leave(&self);
}

/// Why a request with an idempotency key cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclaimed {
    /// The key forbids it.
    #[error(transparent)]
    Unrepeatable(#[from] Unrepeatable),
    /// Whether it ran before cannot be known.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}
