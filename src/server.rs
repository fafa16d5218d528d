//! Builds the parts, binds the listeners, runs them, and shuts them down in order.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use herald_protocol::CloseReason;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts::Accounts;
use crate::apps::Apps;
use crate::cluster::Cluster;
use crate::cluster::local::Local;
use crate::cluster::redis::Redis;
use crate::config::{Config, Loaded, TokenOptions};
use crate::health::Health;
use crate::hub::{Hub, Node};
use crate::integrations::clerk::sessions::Sessions;
use crate::integrations::cloudinary::Cloudinary;
use crate::integrations::cloudinary::destroy::Destroyer;
use crate::integrations::crisp::Crisp;
use crate::integrations::crisp::lookup::Asker;
use crate::integrations::crisp::send::Sender;
use crate::integrations::provider::Provider;
use crate::limits::Callers;
use crate::listener::{Listener, Serving};
use crate::metrics;
use crate::notifications::Notifications;
use crate::notifications::create::Defaults;
use crate::outgoing::Outgoing;
use crate::parts::Parts;
use crate::reload::{Again, Current, Reload, Routes};
use crate::rotation;
use crate::store::{self, Store};
use crate::tls::Tls;
use crate::webhooks::{LAST_DELIVERIES, Webhooks};

/// How often kept events are looked through for those whose time is over.
const SWEEP: Duration = Duration::from_secs(30);
/// How often the histograms' samples are put into their buckets, whether or not somebody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long a start waits for the cluster before anybody is let in.
const FIND_OTHERS: Duration = Duration::from_secs(3);
/// How long it waits for the database to say that it is there.
const FIRST_CONTACT: Duration = Duration::from_secs(1);
/// How long, after the clients were sent away, their goodbyes may take, and requests that are under way.
const GOODBYES: Duration = Duration::from_secs(8);
const LAST_REQUESTS: Duration = Duration::from_secs(2);
/// Clients whose refusal is held back at once; further ones are told without delay.
const HELD_BACK: usize = 10_000;

/// How the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everybody was sent away, everything was written.
    InOrder,
    /// A second signal cut it short.
    AtOnce,
}

/// Serves until a signal asks for the end, and then until everybody has left or a second signal comes; on SIGHUP all is read `again`.
/// `welcome` is called with the main listener's URL once it listens.
///
/// # Errors
/// When a listener cannot be bound or a certificate cannot be read.
pub async fn run(
    loaded: Loaded,
    outgoing: Outgoing,
    again: Again,
    welcome: impl FnOnce(&str),
) -> anyhow::Result<Ended> {
    let Loaded { config, written, .. } = loaded;
    let recorded = metrics::install()?;
    let tls = Tls::load(&config.tls)?.map(Arc::new);
    let main = Listener::bind(&config, tls.clone()).await?;
    let watching =
        config.metrics.listen.map(|address| Listener::bind_plain(address, "metrics.listen", &config)).transpose()?;
    let mut signals = Signals::new()?;

    let apps = Arc::new(Apps::new(config.apps.clone()));
    let webhooks = Arc::new(Webhooks::start(&apps, &outgoing, &config.server.data_dir));
    let node = Arc::new(Node::new(&apps, &webhooks, config.cluster.redis.url.is_some()));
    let cluster: Arc<dyn Cluster> = match &config.cluster.redis.url {
        None => Arc::new(Local::new(Arc::clone(&node))),
        Some(url) => Redis::start(url, &config.cluster, &node),
    };
    if timeout(FIND_OTHERS, cluster.joined()).await.is_err() {
        tracing::error!("the cluster is not found yet; clients that come wait for it, and this node is not ready");
    }
    let hub = Arc::new(Hub { node, cluster });
    let identity = Provider::new(&config, &outgoing).map(Arc::new);
    let notifications = inboxes(&config, &hub, &apps).await?.map(Arc::new);
    if let Some(notifications) = &notifications {
        match notifications.reached.now() {
            true => check_token_keys(&config.tokens, &*notifications.store).await?,
            false => tracing::warn!("whether stored tokens can be read is not known"),
        }
        if config.cluster.redis.url.is_some()
            && let Err(other) = notifications.claim_store(config.cluster.heartbeat).await
        {
            // Whoever only relays events has no inboxes to mix up.
            anyhow::ensure!(identity.is_none(), other);
            tracing::warn!("{other}");
        }
    }
    if let (Some(notifications), Some(url), Some(secrets)) =
        (&notifications, &config.dispatch.url, &config.dispatch.secret)
    {
        notifications.dispatch(outgoing.service("dispatch"), url.clone(), secrets.clone());
    }
    if let (Some(notifications), Some(every), Some(secret)) =
        (&notifications, config.auth.session_recheck, &config.auth.secret_key)
    {
        notifications.recheck(Sessions::new(&config.auth.api_url, secret, every, &outgoing));
    }
    let cloudinary = Cloudinary::new(&config, &outgoing).map(Arc::new);
    if let (Some(notifications), Some(cloudinary)) = (&notifications, &cloudinary) {
        let store = Arc::clone(&notifications.store);
        notifications.work(Destroyer { cloudinary: Arc::clone(cloudinary), store });
    }
    let crisp = Crisp::new(&config, &outgoing).map(Arc::new);
    if let (Some(notifications), Some(rest)) = (&notifications, crisp.as_ref().and_then(|crisp| crisp.rest.as_ref())) {
        let (store, app) = (Arc::clone(&notifications.store), config.integrations_app().to_owned());
        notifications.work(Asker { rest: Arc::clone(rest), notifications: Arc::clone(notifications), app });
        notifications.work(Sender { rest: Arc::clone(rest), store });
    }
    if let Some(notifications) = notifications.as_ref().filter(|_| identity.is_some()) {
        notifications.greet();
    }
    let accounts = notifications.as_ref().map(|notifications| {
        let clerk = identity.as_ref().and_then(|identity| identity.users.clone());
        Accounts::start(&config, &outgoing, notifications, &apps, clerk)
    });
    let parts = Arc::new(Parts {
        hub,
        webhooks,
        places: config.server.max_connections.map(|limit| Arc::new(Semaphore::new(limit))),
        callers: Arc::new(Callers::default()),
        listening: main.local()?,
        health: Arc::new(Health::default()),
        held_back: Arc::new(Semaphore::new(HELD_BACK)),
        connections: TaskTracker::new(),
        draining: CancellationToken::new(),
        outgoing,
        identity,
        cloudinary,
        crisp,
        notifications,
        accounts,
        ready: Arc::new(AtomicBool::new(true)),
        config,
        apps,
    });

    announce(&format!("listening on {}", main.url()?));
    welcome(&main.url()?);
    let background = Background::default();
    let watched = Background::default();
    let mut reload = Reload::new(again, written, Arc::clone(&parts), recorded.clone(), tls);
    if let Some(listener) = watching {
        announce(&format!("metrics on {}", listener.url()?));
        watched.tasks.spawn(listener.serve(watched.serving(&parts, &reload.watching, None)));
    }
    let streams = Background::default();
    streams.tasks.spawn(main.serve(streams.serving(&parts, &reload.main, Some(&reload.current))));
    background.spawn(sweep(Arc::clone(&parts)));
    background.spawn(upkeep(recorded));
    let hub = Arc::clone(&parts.hub);
    background.spawn(async move { hub.run().await });
    for number in 0..parts.hub.node.flushers.count() {
        let hub = Arc::clone(&parts.hub);
        background.spawn(async move { hub.node.flushers.run(number).await });
    }

    signals.end_asked_for(|| reload.run()).await;
    let parts = reload.parts();
    let in_order = async {
        shut_down(&parts, &streams).await;
        background.end().await;
        watched.end().await;
        Ended::InOrder
    };
    Ok(tokio::select! {
        ended = in_order => ended,
        () = signals.end_asked_for(|| tracing::info!("SIGHUP: nothing is read again, this is the end")) => {
            parts.webhooks.finish(Duration::ZERO).await;
            Ended::AtOnce
        }
    })
}

/// The inboxes; `None`, with a line in the log, where a file cannot be opened: whoever only relays events needs none.
async fn inboxes(config: &Config, hub: &Arc<Hub>, apps: &Arc<Apps>) -> anyhow::Result<Option<Notifications>> {
    match store::open::open(config).await {
        Ok(store) => {
            let is_reached = matches!(timeout(FIRST_CONTACT, store.ping()).await, Ok(Ok(())));
            let notifications = Notifications::start(store, hub, apps, Defaults::new(&config.notifications));
            notifications.reached.note(is_reached);
            Ok(Some(notifications))
        }
        Err(store::open::OpenError::File { path, cause }) => {
            let error = anyhow::Error::from(cause);
            tracing::error!(
                path = %path.display(),
                error = format!("{error:#}"),
                "there are no inboxes: their database cannot be opened"
            );
            Ok(None)
        }
        Err(other) => Err(other.into()),
    }
}

/// Whether stored tokens can be read. One that cannot concerns nobody else, so by default that is told and no more.
async fn check_token_keys(options: &TokenOptions, store: &dyn Store) -> anyhow::Result<()> {
    match rotation::missing_keys(store, options.keys.as_ref()).await {
        Ok(missing) if missing.is_empty() => {}
        Ok(missing) => {
            let missing: Vec<String> = missing.iter().map(|(key, tokens)| format!("{key:?} ({tokens})")).collect();
            let text = format!("stored tokens need keys that tokens.keys does not have: {}", missing.join(", "));
            anyhow::ensure!(!options.strict, text);
            tracing::error!("{text}; they cannot be used");
        }
        Err(error) => tracing::warn!(%error, "whether stored tokens can be read is not known"),
    }
    Ok(())
}

async fn shut_down(parts: &Parts, streams: &Background) {
    tracing::info!(connections = parts.hub.total_connections(), "shutting down");
    parts.ready.store(false, Ordering::Release);
    tokio::time::sleep(parts.config.shutdown.delay).await;
    streams.stop.cancel();
    drain(parts, parts.config.shutdown.drain).await;
    streams.tasks.close();
    if tokio::time::timeout(LAST_REQUESTS, streams.tasks.wait()).await.is_err() {
        tracing::warn!(left = streams.tasks.len(), "some requests did not end in time");
    }
    if let Some(accounts) = &parts.accounts {
        accounts.finish().await;
    }
    if let Some(notifications) = &parts.notifications {
        notifications.finish().await;
    }
    parts.hub.cluster.leave().await;
    parts.webhooks.finish(LAST_DELIVERIES).await;
}

/// Sends the clients away, spread evenly over `period`, and waits for their goodbyes.
async fn drain(parts: &Parts, period: Duration) {
    parts.draining.cancel();
    parts.connections.close();
    let clients = parts.hub.node.clients();
    let start = Instant::now();
    for (position, client) in (1_u32..).zip(&clients) {
        client.close(CloseReason::ServerGoingAway);
        let share = f64::from(position) / clients.len() as f64;
        let next = tokio::time::sleep_until(start + period.mul_f64(share));
        tokio::select! {
            () = next => {}
            () = parts.connections.wait() => break,
        }
    }
    if tokio::time::timeout(GOODBYES, parts.connections.wait()).await.is_err() {
        tracing::warn!(left = parts.connections.len(), "some clients did not take their goodbye in time");
    }
}

/// Lines for whoever started the process: on stdout, whatever the log level.
fn announce(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    // Whoever started it may have stopped reading.
    _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Tasks that end together.
#[derive(Debug, Default)]
struct Background {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Background {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(task).await });
    }

    fn serving(&self, parts: &Parts, routes: &Routes, straight: Option<&Current>) -> Serving {
        Serving {
            router: Arc::clone(routes),
            straight: straight.cloned(),
            handshake_timeout: parts.config.server.handshake_timeout,
            stop: self.stop.clone(),
            tasks: self.tasks.clone(),
        }
    }

    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        // What does not end by itself ends with the process.
        _ = tokio::time::timeout(LAST_REQUESTS, self.tasks.wait()).await;
    }
}

async fn sweep(parts: Arc<Parts>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        parts.hub.node.sweep();
        parts.callers.sweep();
    }
}

async fn upkeep(recorded: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        recorded.run_upkeep();
    }
}

/// The signals that Herald minds.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Whether somebody has started it by hand: then a hang-up may be that terminal's end.
    by_hand: bool,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let [terminate, interrupt, hang_up] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        let by_hand = std::io::stdin().is_terminal();
        Ok(Self { terminate: terminate?, interrupt: interrupt?, hang_up: hang_up?, by_hand })
    }

    /// Returns at SIGTERM or SIGINT, and when the terminal is closed that it was started in; any other SIGHUP means `read_again`.
    async fn end_asked_for(&mut self, mut read_again: impl FnMut()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    if self.by_hand && !std::io::stdin().is_terminal() {
                        return; // a closed terminal is none
                    }
                    read_again();
                }
            }
        }
    }
}
