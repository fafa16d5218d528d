//! The inbox of every user, moving: what was committed is published ([`relay`]), what becomes due is announced ([`schedule`]), what is
//! asked for is checked ([`wish`]) and created ([`create`], for many users [`fanout`]), who comes is told where the inbox stands ([`arrivals`]),
//! and what is to go by other ways too is handed to the app's backend ([`dispatch`]) when it may ([`hours`]).
//!
//! Always: a request is answered after its commit, and what is committed reaches the user's connections, after a restart if need be; of one
//! inbox events are published in the order of their revisions. While the store is away both loops wait and say so once.
//!
//! Not here: what is kept and how (`store`), who may ask (`http`).

pub mod arrivals;
pub mod create;
pub mod dispatch;
pub mod fanout;
pub mod hours;
pub mod one_store;
pub mod relay;
pub mod schedule;
pub mod topics;
pub mod wish;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use herald_protocol::json::quoted;
use reqwest::Url;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::apps::{App, Apps};
use crate::hub::Hub;
use crate::integrations::clerk::sessions::Sessions;
use crate::integrations::standard_webhooks::Secrets;
use crate::outgoing::service::Service;
use crate::sessions;
use crate::store::time::Timestamp;
use crate::store::{Store, StoreError};
use crate::work::{self, Worker};
use create::Defaults;
use dispatch::Dispatcher;
use fanout::Fanout;
use one_store::OtherStore;

/// How often is looked for what nobody has given a sign of.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Notifications {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    hub: Arc<Hub>,
    defaults: Arc<Defaults>,
    /// Whether the store answers.
    pub reached: Arc<Reached>,
    committed: Arc<Notify>,
    jobs_wait: Arc<Notify>,
    ended: Arc<Notify>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Notifications {
    /// Starts to publish and to announce what `store` has, until [`Notifications::finish`].
    #[must_use]
    pub fn start(store: Arc<dyn Store>, hub: &Arc<Hub>, apps: &Arc<Apps>, defaults: Defaults) -> Self {
        let this = Self {
            store,
            hub: Arc::clone(hub),
            defaults: Arc::new(defaults),
            reached: Arc::default(),
            committed: Arc::default(),
            jobs_wait: Arc::default(),
            ended: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let relay = relay::Relay {
            store: Arc::clone(&this.store),
            hub: Arc::clone(hub),
            apps: Arc::clone(apps),
            committed: Arc::clone(&this.committed),
            reached: Arc::clone(&this.reached),
        };
        let stop = this.stop.clone();
        this.tasks.spawn(async move { relay.run(&stop).await });
        let (store, hub_of_sessions, ended) = (Arc::clone(&this.store), Arc::clone(hub), Arc::clone(&this.ended));
        let stop = this.stop.clone();
        let watch = async move { sessions::run(&*store, &hub_of_sessions, &ended).await };
        this.tasks.spawn(async move { stop.run_until_cancelled(watch).await });
        let fanout = Fanout {
            store: Arc::clone(&this.store),
            defaults: Arc::clone(&this.defaults),
            committed: Arc::clone(&this.committed),
            waiting: Arc::clone(&this.jobs_wait),
        };
        let stop = this.stop.clone();
        this.tasks.spawn(async move { fanout.run(&stop).await });
        let (store, committed, stop) = (Arc::clone(&this.store), Arc::clone(&this.committed), this.stop.clone());
        this.tasks.spawn(async move { stop.run_until_cancelled(schedule::run(&*store, &committed)).await });
        this
    }

    /// From now on whoever comes to a user's own channel is told where the inbox stands. Without an identity provider nobody could ask for
    /// more, and an app that has nothing to do with inboxes shall not hear of them.
    pub fn greet(&self) {
        if let Some(heard) = self.hub.node.arrivals() {
            let (store, stop) = (Arc::clone(&self.store), self.stop.clone());
            self.tasks.spawn(async move { stop.run_until_cancelled(arrivals::run(&*store, heard)).await });
        }
    }

    /// From now on Clerk is asked whether the sessions of this node's connections still live.
    pub fn recheck(&self, sessions: Sessions) {
        let (store, hub, stop) = (Arc::clone(&self.store), Arc::clone(&self.hub), self.stop.clone());
        let ask = async move { sessions.run(&hub, &*store).await };
        self.tasks.spawn(async move { stop.run_until_cancelled(ask).await });
    }

    /// From now on the cluster is told so often which store this node has.
    ///
    /// # Errors
    /// When a node that lives has another one.
    pub async fn claim_store(&self, every: Duration) -> Result<(), OtherStore> {
        let claimed = one_store::claim(&*self.store, &*self.hub.cluster).await;
        let (store, hub, stop) = (Arc::clone(&self.store), Arc::clone(&self.hub), self.stop.clone());
        let claim = async move { one_store::run(&*store, &*hub.cluster, every).await };
        self.tasks.spawn(async move { stop.run_until_cancelled(claim).await });
        claimed
    }

    /// From now on the app's backend is told of what is to go by other ways than the inbox.
    pub fn dispatch(&self, service: Arc<Service>, url: Url, secrets: Secrets) {
        let (store, defaults) = (Arc::clone(&self.store), Arc::clone(&self.defaults));
        let dispatcher = Dispatcher { store, defaults, service, url, secrets };
        let stop = self.stop.clone();
        self.tasks.spawn(async move { dispatcher.run(&stop).await });
    }

    /// From now on this node does tasks of the worker's kind.
    pub fn work(&self, worker: impl Worker + 'static) {
        let (store, stop) = (Arc::clone(&self.store), self.stop.clone());
        self.tasks.spawn(async move { work::run(&worker, &*store, &stop).await });
    }

    /// Tells a user's connections of what is no change of the inbox, as far as they can be reached: nothing is kept of it.
    pub async fn tell(&self, app: &App, user: &str, event: &str, data: &Value) {
        let data = quoted(&data.to_string());
        if let Err(error) = relay::to_user(&self.hub, app, user, event, &data, 0).await {
            tracing::warn!(event, %error, "an event of a user reached some connections only");
        }
    }

    /// Something was committed on this node: it is published now instead of within a second.
    pub fn committed(&self) {
        self.committed.notify_one();
    }

    /// A job was noted on this node: it begins now instead of within a second.
    fn jobs_wait(&self) {
        self.jobs_wait.notify_one();
    }

    /// Somebody is not served any more, as was kept just now.
    pub fn ended(&self) {
        self.ended.notify_one();
    }

    /// Ends the loops after what they are doing, and the store's connections.
    pub async fn finish(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await;
    }
}

/// How the store is, as whoever asks it most has found it last.
#[derive(Debug, Default)]
pub struct Reached {
    ever: AtomicBool,
    now: AtomicBool,
    /// In microseconds since 1970; 0 for none.
    waits_since: AtomicI64,
}

impl Reached {
    /// Whether it has answered since the start.
    #[must_use]
    pub fn ever(&self) -> bool {
        self.ever.load(Ordering::Acquire)
    }

    /// Whether it answers.
    #[must_use]
    pub fn now(&self) -> bool {
        self.now.load(Ordering::Acquire)
    }

    /// It has answered, or not.
    pub fn note(&self, is_reached: bool) {
        self.now.store(is_reached, Ordering::Release);
        self.ever.fetch_or(is_reached, Ordering::AcqRel);
    }

    /// Since when the oldest event waits that is still to be published, if there is one.
    fn waits_since(&self, since: Option<Timestamp>) {
        self.waits_since.store(since.map_or(0, Timestamp::as_micros), Ordering::Release);
    }

    /// For how long it has waited.
    #[must_use]
    pub fn waiting_for(&self) -> Duration {
        match self.waits_since.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => Duration::from_micros(u64::try_from(Timestamp::now().as_micros() - since).unwrap_or_default()),
        }
    }
}

/// Says once when the store goes away, and once when it is back.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    lasts: bool,
}

impl Outage {
    pub(crate) fn note<T>(&mut self, what: &str, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(done) => {
                if std::mem::take(&mut self.lasts) {
                    tracing::info!(what, "the store answers again");
                }
                Some(done)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.lasts, true) {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(what, %error, cause, "the store fails; it is tried on");
                }
                None
            }
        }
    }
}
