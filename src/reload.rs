//! SIGHUP: everything is read again, the file, env files and what `_FILE` variables name, and what can be is in effect at once.
//!
//! Start at [`Reload::run`]. Requests get the [`Parts`] that are current when they begin, by routes that are made anew, so none sees two
//! configurations; apps stay who they are ([`Apps`](crate::apps::Apps)), so who is connected notices changed secrets and limits with the
//! next message. What the listeners, the cluster, the store and their tasks were started with waits for a restart, and is named.
//!
//! Always: a configuration with a problem changes nothing; of what has changed names are told, never values.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use tracing::Level;

use crate::config::{Config, Loaded, Sources, Written};
use crate::http::{self, ops};
use crate::integrations::provider::Provider;
use crate::parts::Parts;
use crate::tls::Tls;

/// Routes that may be others for the next request.
pub type Routes = Arc<ArcSwap<Router>>;
/// Parts that may be others for the next client.
pub type Current = Arc<ArcSwap<Parts>>;

/// Sections and options that are in effect as soon as they are read.
const AT_ONCE: &[&str] = &[
    "apps",
    "auth",
    "connection",
    "health",
    "limits",
    "log.level",
    "notifications.topics",
    "server.api_keys",
    "server.public_url",
    "server.request_timeout",
    "server.trusted_proxies",
    "shutdown",
];
/// Those within that are not: tasks were started with them.
const NOT_AT_ONCE: &[&str] = &["apps.webhooks", "auth.session_recheck"];

/// How it is read again.
pub struct Again {
    /// From where.
    pub sources: Sources,
    /// Makes the log tell from this level on.
    pub set_level: Box<dyn Fn(Level) + Send + Sync>,
}

/// See the module.
pub struct Reload {
    again: Again,
    /// What is in effect, as it was written.
    written: Written,
    parts: Arc<Parts>,
    recorded: PrometheusHandle,
    tls: Option<Arc<Tls>>,
    /// What clients get who come without a request to the routes.
    pub current: Current,
    /// The main listener's.
    pub main: Routes,
    /// Those of the listener for those who watch.
    pub watching: Routes,
}

impl Reload {
    /// The routes of what is configured at the start.
    #[must_use]
    pub fn new(
        again: Again,
        written: Written,
        parts: Arc<Parts>,
        recorded: PrometheusHandle,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        let main = Arc::new(ArcSwap::from_pointee(http::routes(Arc::clone(&parts))));
        let watching = Arc::new(ArcSwap::from_pointee(ops::routes(Arc::clone(&parts), recorded.clone())));
        let current = Arc::new(ArcSwap::new(Arc::clone(&parts)));
        Self { again, written, parts, recorded, tls, current, main, watching }
    }

    /// What is in effect.
    #[must_use]
    pub fn parts(&self) -> Arc<Parts> {
        Arc::clone(&self.parts)
    }

    /// Reads everything again. A certificate that can be used is, whatever else is wrong: it is not part of the configuration.
    pub fn run(&mut self) {
        if let Some(tls) = &self.tls {
            tls.reload();
        }
        match self.again.sources.load() {
            Ok(loaded) => self.adopt(loaded),
            Err(problems) => tracing::error!(%problems, "SIGHUP: nothing is changed"),
        }
    }

    fn adopt(&mut self, loaded: Loaded) {
        loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let Loaded { config: new, written, .. } = loaded;
        let provider = Provider::new(&new, &self.parts.outgoing);
        // Routes of users and what greets them are there or not from the start on.
        let auth_waits = provider.is_some() != self.parts.identity.is_some();
        let rechecks = self.parts.config.auth.session_recheck.is_some();
        let waits = |option: &str| {
            let is_in = |list: &[&str]| list.iter().any(|entry| is_within(option, entry));
            !is_in(AT_ONCE)
                || is_in(NOT_AT_ONCE)
                || (auth_waits && is_within(option, "auth"))
                || (rechecks && is_in(&["auth.secret_key", "auth.api_url"]))
        };
        let apps = |config: &Config| config.apps.iter().map(|app| app.id.clone()).collect::<BTreeSet<_>>();
        let (apps_before, apps_now) = (apps(&self.parts.config), apps(&new));
        let came_or_went: Vec<String> =
            apps_before.symmetric_difference(&apps_now).map(|id| format!(", apps {id:?}")).collect();
        let differing = self.written.differing(&written).filter(|(option, which)| {
            !(is_within(option, "apps") && came_or_went.iter().any(|app| which.starts_with(app.as_str())))
        });
        let (waiting, changed): (Vec<_>, Vec<_>) = differing.partition(|(option, _)| waits(option));
        let name = |(option, which): &(String, String)| format!("{option}{which}");
        let added = apps_now.difference(&apps_before).map(|id| format!("app {id:?} is new"));
        let removed = apps_before.difference(&apps_now).map(|id| format!("app {id:?} is gone"));
        let told: Vec<String> = changed.iter().map(name).chain(added).chain(removed).collect();

        let has_changed = |section: &str| changed.iter().any(|(option, _)| is_within(option, section));
        let next = in_effect(&self.parts.config, &new, auth_waits);
        let mut parts = Parts::clone(&self.parts);
        if has_changed("auth") {
            parts.identity = provider.map(Arc::new);
            if let Some(accounts) = &parts.accounts {
                accounts.ask(parts.identity.as_ref().and_then(|identity| identity.users.clone()));
            }
            parts.health = Arc::default(); // what was found of the one before says nothing of this one
        }
        parts.config = next;
        parts.apps.update(parts.config.apps.clone(), |app| {
            parts.webhooks.add(app);
            parts.hub.node.open(app, parts.webhooks.of(app));
        });
        self.parts = Arc::new(parts);
        self.current.store(Arc::clone(&self.parts));
        self.main.store(Arc::new(http::routes(Arc::clone(&self.parts))));
        self.watching.store(Arc::new(ops::routes(Arc::clone(&self.parts), self.recorded.clone())));
        self.parts.hub.node.send_away();
        if has_changed("log.level") {
            (self.again.set_level)(self.parts.config.log.level);
        }
        self.written.take_over(written, |option| !waits(option));

        if !waiting.is_empty() {
            let options: Vec<String> = waiting.iter().map(name).collect();
            tracing::warn!(options = options.join("; "), "SIGHUP: this waits for a restart");
        }
        let changed = if told.is_empty() { "nothing".to_owned() } else { told.join("; ") };
        tracing::info!(changed, "SIGHUP: the configuration was read again");
    }
}

/// What was in effect, with what of `new` is in effect at once.
fn in_effect(before: &Config, new: &Config, auth_waits: bool) -> Config {
    let mut next = before.clone();
    next.apps.clone_from(&new.apps);
    next.connection = new.connection.clone();
    next.health = new.health.clone();
    next.limits = new.limits.clone();
    next.shutdown = new.shutdown.clone();
    next.log.level = new.log.level;
    next.notifications.topics.clone_from(&new.notifications.topics);
    next.server.api_keys.clone_from(&new.server.api_keys);
    next.server.public_url.clone_from(&new.server.public_url);
    next.server.request_timeout = new.server.request_timeout;
    next.server.trusted_proxies.clone_from(&new.server.trusted_proxies);
    if !auth_waits {
        next.auth = new.auth.clone();
        next.auth.session_recheck = before.auth.session_recheck;
    }
    next
}

/// Whether it is this option or one of this section.
fn is_within(option: &str, section: &str) -> bool {
    option.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
