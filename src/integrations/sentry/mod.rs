//! What goes wrong, reported to Sentry (section 4): panics, and lines of the log at `error`, with what led to them; and some of the HTTP
//! requests as traces.
//!
//! Start at [`start`]. The SDK gathers what is known where something happens, on the *hub* of that request or connection; [`verdict`] decides
//! whether it is worth a report, [`transport`] hands it on, [`scrub`] lets nothing leave that is nobody's business. [`health`] says whether
//! Sentry can be reached.
//!
//! Always: without a DSN none of this exists, neither client, layers, hubs nor thread; nobody waits for Sentry, not even a panic; what clients
//! and backends send is never part of a report, only what it was about.
//! Not here: traces of a connection's life, which would never end; the SDK's own transport, which waits without end for a Sentry that hangs;
//! its own way with panics, which looks for names of functions, and waits for the transport, on a thread that serves clients.

pub mod health;
mod panics;
pub mod scrub;
pub mod transport;
pub mod verdict;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::sentry::integrations::contexts::ContextIntegration;
use ::sentry::integrations::tracing::{BreadcrumbLayer, ErrorLayer};
use ::sentry::protocol::{Event, Map, Value};
use ::sentry::{
    Breadcrumb, Client, ClientOptions, Hub, Level, Scope, SentryFuture, SentryFutureExt as _, TransactionContext, User,
};
use herald_protocol::Secret;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Config, SentryOptions};
use crate::outgoing::Outgoing;
use scrub::Scrub;
use transport::Transport;
use verdict::Verdicts;

/// What led to an event is remembered for each connection, so it must not be much.
const BREADCRUMBS: usize = 20;
/// The largest value that Sentry keeps of a tag.
const TAG: usize = 200;

/// Whether reports are made. It is set once, before anybody is served.
static IS_ON: AtomicBool = AtomicBool::new(false);
/// Whether addresses may be told, and whether subscriptions of users may; set with it.
static SENDS_PII: AtomicBool = AtomicBool::new(false);
static TELLS_SUBSCRIPTION: AtomicBool = AtomicBool::new(false);

/// Reports are made as long as this is there.
#[must_use = "without it nothing is reported any more"]
#[derive(Debug)]
pub struct Reports(Arc<Client>);

/// Makes this process report, if that is configured. `secrets` are the values that must not leave. To be called before there are threads:
/// each has a hub that is made from the first one's.
///
/// # Errors
/// When the transport's thread cannot be started.
pub fn start(config: &Config, secrets: &[Secret], outgoing: &Outgoing) -> anyhow::Result<Option<Reports>> {
    let Some(dsn) = config.sentry.dsn.clone() else { return Ok(None) };
    let options = &config.sentry;
    let scrub = Scrub::new(secrets, options.send_pii);
    let transport = Arc::new(Transport::start(dsn.clone(), scrub, outgoing.service("sentry"))?);
    let client = Arc::new(Client::from(client_options(options, dsn, transport)));
    Hub::main().bind_client(Some(Arc::clone(&client)));
    SENDS_PII.store(options.send_pii, Ordering::Relaxed);
    let names = |metadata: &String| metadata == "subscription";
    TELLS_SUBSCRIPTION.store(config.auth.user_info_metadata.iter().any(names), Ordering::Relaxed);
    IS_ON.store(true, Ordering::Relaxed);
    panics::install();
    Ok(Some(Reports(client)))
}

fn client_options(options: &SentryOptions, dsn: ::sentry::types::Dsn, transport: Arc<Transport>) -> ClientOptions {
    let verdicts = Verdicts::default();
    let rate = options.traces_sample_rate as f32;
    let release = options.release.clone().unwrap_or_else(|| concat!("herald@", env!("CARGO_PKG_VERSION")).to_owned());
    let mut set = ClientOptions::new()
        .release(release)
        .environment(options.environment.clone())
        .send_default_pii(options.send_pii)
        .max_breadcrumbs(BREADCRUMBS)
        .default_integrations(false) // those look for variables of their own
        .add_integration(ContextIntegration::new())
        .traces_sampler(move |context: &TransactionContext| if is_traced(context.name()) { rate } else { 0.0 })
        .before_send(move |event: Event<'static>| verdicts.pass(event))
        .transport(transport::Factory(transport));
    set.dsn = Some(dsn);
    set
}

/// Who asks for a trace decides nothing: whether there is one is said by the configuration alone.
fn is_traced(name: &str) -> bool {
    let path = name.split_once(' ').map_or(name, |(_, path)| path);
    !["/health/live", "/health/ready", "/healthz", "/readyz", "/metrics"].iter().any(|end| path.ends_with(end))
        && !path.contains("/health/")
}

impl Reports {
    /// Ends it, when what waits has been sent or after so long.
    pub fn finish(self, within: Duration) {
        IS_ON.store(false, Ordering::Relaxed);
        self.0.close(Some(within));
    }
}

/// Whether anything is reported.
#[must_use]
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// The log's layers: a line at `error` is an event, those from `info` on are what led to it. There are no spans in Herald's log, so none is
/// asked for.
pub fn layers<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let errors = ErrorLayer::new().with_filter(LevelFilter::ERROR);
    let breadcrumbs = BreadcrumbLayer::new().with_filter(LevelFilter::INFO);
    errors.and_then(breadcrumbs)
}

/// Whatever happens in a client's connection is told with its app, and the user once there is one. The hub is the connection's own: it
/// remembers nothing of the request that it began with.
pub fn connection<F: Future<Output = ()>>(app: &str, address: IpAddr, serving: F) -> SentryFuture<F> {
    let mut scope = Scope::default();
    scope.set_tag("app_id", app);
    scope.set_tag("component", "ws");
    scope.set_user(somebody_at(address));
    serving.bind_hub(Hub::new(Hub::main().client(), Arc::new(scope)))
}

/// Says something of the request or connection at hand.
pub fn tag(name: &str, value: &str) {
    if is_on() {
        ::sentry::configure_scope(|scope| scope.set_tag(name, value.chars().take(TAG).collect::<String>()));
    }
}

/// Where the request at hand came from, if addresses may be told.
pub fn is_from(address: IpAddr) {
    if let Some(somebody) = somebody_at(address) {
        ::sentry::configure_scope(|scope| scope.set_user(Some(somebody)));
    }
}

fn somebody_at(address: IpAddr) -> Option<User> {
    SENDS_PII.load(Ordering::Relaxed).then(|| User { ip_address: Some(address.into()), ..User::default() })
}

/// What a request turned out to be: a name without anything that a client has chosen.
pub fn is_called(name: &str) {
    ::sentry::configure_scope(|scope| scope.set_transaction(Some(name)));
}

/// Who it is: an id, and a mail address only if addresses may be told and the app has told it in `user_info`, which is any JSON.
pub fn is_user(id: &str, user_info: Option<&str>) {
    if !is_on() {
        return;
    }
    let about: Value = user_info.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let text = |member: &str| about.get(member).and_then(Value::as_str);
    let email = text("email").filter(|_| SENDS_PII.load(Ordering::Relaxed)).map(str::to_owned);
    ::sentry::configure_scope(|scope| {
        let before = scope.user().cloned().unwrap_or_default();
        scope.set_user(Some(User { id: Some(id.to_owned()), email, ..before }));
    });
    if let Some(subscription) = text("subscription").filter(|_| TELLS_SUBSCRIPTION.load(Ordering::Relaxed)) {
        tag("subscription", subscription);
    }
}

/// Remembers what a user has done and what came of it; never what was sent.
pub fn user_action(action: &'static str, what: &str, outcome: &'static str) {
    if !is_on() {
        return;
    }
    ::sentry::add_breadcrumb(|| {
        let mut data = Map::new();
        data.insert("outcome".to_owned(), Value::from(outcome));
        if !what.is_empty() {
            data.insert("of".to_owned(), Value::from(what.chars().take(TAG).collect::<String>()));
        }
        let level = if outcome == "ok" { Level::Info } else { Level::Warning };
        let category = Some("user-action".to_owned());
        Breadcrumb { category, message: Some(action.to_owned()), level, data, ..Breadcrumb::default() }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_and_metrics_are_not_traced() {
        for (name, traced) in [
            ("GET /health/live", false),
            ("GET /prefix/health/ready", false),
            ("HEAD /api/health/integrations", false),
            ("GET /metrics", false),
            ("POST /apps/{app_id}/events", true),
            ("GET /app/{key}", true),
        ] {
            assert_eq!(is_traced(name), traced, "{name}");
        }
    }

    #[test]
    fn without_a_dsn_nothing_is_there() {
        let outgoing = Outgoing::new().unwrap();
        assert!(start(&Config::default(), &[], &outgoing).unwrap().is_none());
        assert!(!is_on());
        assert!(Hub::main().client().is_none(), "no client");
        assert!(outgoing.not_asked().is_empty(), "nobody that could be asked");
    }
}
