//! The applications (tenants): who may connect and trigger, with which key pairs and limits.
//!
//! Always: an [`App`] is one and the same from its first mention to the process's end; what is configured for it may change meanwhile
//! ([`Apps::update`]), and counts from the next look at [`App::options`] on. So whoever is connected keeps app, channels and places.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use herald_protocol::CloseReason;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio::sync::OwnedSemaphorePermit;

use crate::answers::Answers;
use crate::config::{AppOptions, Limits};
use crate::limits::Limiter;

/// What there may be too much of in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metered {
    /// Events over HTTP.
    Events,
    /// Reading requests.
    Reads,
}

/// One application.
#[derive(Debug)]
pub struct App {
    id: String,
    options: ArcSwap<AppOptions>,
    /// Whether it is configured no more.
    is_gone: AtomicBool,
    /// How many events a second may be triggered over HTTP.
    events: ArcSwapOption<Limiter>,
    /// How many reading requests a second may come.
    reads: ArcSwapOption<Limiter>,
    /// The answers that a repeated request gets again.
    pub answers: Answers,
    connections: AtomicUsize,
}

/// What was configured for an app when it was looked at; to be held briefly.
type Options = Guard<Arc<AppOptions>>;

/// The limits of an app when they were looked at; to be held briefly.
#[derive(Debug)]
pub struct LimitsNow(Options);

impl Deref for LimitsNow {
    type Target = Limits;

    fn deref(&self) -> &Limits {
        &self.0.limits
    }
}

impl App {
    fn new(options: AppOptions) -> Self {
        let limiter = |limit: Option<usize>| ArcSwapOption::from_pointee(limit.map(Limiter::per_second));
        Self {
            id: options.id.clone(),
            events: limiter(options.limits.events_per_second),
            reads: limiter(options.limits.reads_per_second),
            options: ArcSwap::from_pointee(options),
            is_gone: AtomicBool::new(false),
            answers: Answers::default(),
            connections: AtomicUsize::new(0),
        }
    }

    fn update(&self, options: AppOptions) {
        let before = self.options.swap(Arc::new(options));
        let (before, now) = (&before.limits, self.limits());
        for (limiter, before, now) in [
            (&self.events, before.events_per_second, now.events_per_second),
            (&self.reads, before.reads_per_second, now.reads_per_second),
        ] {
            if before != now {
                limiter.store(now.map(|limit| Arc::new(Limiter::per_second(limit))));
            }
        }
    }

    /// The id in the paths of the HTTP API.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is configured for it.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options.load()
    }

    /// The limits that hold for it.
    #[must_use]
    pub fn limits(&self) -> LimitsNow {
        LimitsNow(self.options())
    }

    /// The limit of what may happen in a second, if there is one; it counts for this node.
    #[must_use]
    pub fn limiter(&self, what: Metered) -> Option<Arc<Limiter>> {
        match what {
            Metered::Events => self.events.load_full(),
            Metered::Reads => self.reads.load_full(),
        }
    }

    /// Connections on this node, those included that were let in just now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Why its clients have to go, if they do.
    #[must_use]
    pub fn refusal(&self) -> Option<CloseReason> {
        match self.options().enabled {
            _ if self.is_gone.load(Ordering::Acquire) => Some(CloseReason::UnknownApp),
            false => Some(CloseReason::AppDisabled),
            true => None,
        }
    }

    /// Whether this is one of the app's keys.
    #[must_use]
    pub fn has_key(&self, key: &str) -> bool {
        let options = self.options();
        std::iter::once(&options.key).chain(options.keys.iter().map(|pair| &pair.key)).any(|known| known == key)
    }

    /// Whether `signature` is one of `message` with a secret that belongs to `key`; `None` if that is none of this app's keys.
    #[must_use]
    pub fn verifies(&self, key: &str, message: &[u8], signature: &str) -> Option<bool> {
        let options = self.options();
        let same = |known: &str| bool::from(known.as_bytes().ct_eq(key.as_bytes()));
        if same(&options.key) {
            let mut secrets = std::iter::once(&options.secret).chain(&options.other_secret);
            return Some(secrets.any(|secret| secret.verifies(message, signature)));
        }
        let pair = options.keys.iter().find(|pair| same(&pair.key))?;
        Some(pair.secret.verifies(message, signature))
    }

    /// The key, and the signature of `message` with its secret.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> (String, String) {
        let options = self.options();
        (options.key.clone(), options.secret.sign(message))
    }

    /// Takes a place among the app's connections beside the one on the node; `None` when all are taken. Both are free again when the
    /// permit is dropped.
    #[must_use]
    pub fn admit(self: &Arc<Self>, on_node: Option<OwnedSemaphorePermit>) -> Option<Permit> {
        let limit = self.options().max_connections.unwrap_or(usize::MAX);
        let admitted = self
            .connections
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < limit).then_some(taken + 1));
        admitted.ok().map(|_| Permit { app: Arc::clone(self), _on_node: on_node })
    }
}

/// A place among an app's connections, and among the node's if those are limited.
#[derive(Debug)]
pub struct Permit {
    app: Arc<App>,
    _on_node: Option<OwnedSemaphorePermit>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.app.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All applications, by id and by key.
#[derive(Debug)]
pub struct Apps {
    now: ArcSwap<Index>,
    /// Every app that there ever was: one that comes back has clients that are still leaving.
    ever: Mutex<HashMap<String, Arc<App>>>,
}

#[derive(Debug, Default)]
struct Index {
    by_id: HashMap<String, Arc<App>>,
    by_key: HashMap<String, Arc<App>>,
}

impl Apps {
    /// The configured applications.
    #[must_use]
    pub fn new(options: Vec<AppOptions>) -> Self {
        let apps = Self { now: ArcSwap::default(), ever: Mutex::default() };
        apps.update(options, |_| {});
        apps
    }

    /// These are configured from now on. A new one is `prepared` before anybody can find it. The clients of those that are gone or
    /// disabled are still to be sent away ([`App::refusal`]).
    pub fn update(&self, options: Vec<AppOptions>, mut prepared: impl FnMut(&Arc<App>)) {
        let mut ever = self.ever.lock();
        let mut index = Index::default();
        for options in options {
            let keys: Vec<String> =
                std::iter::once(&options.key).chain(options.keys.iter().map(|pair| &pair.key)).cloned().collect();
            let app = match ever.get(&options.id) {
                Some(known) => {
                    known.update(options);
                    Arc::clone(known)
                }
                None => {
                    let new = Arc::new(App::new(options));
                    prepared(&new);
                    ever.insert(new.id.clone(), Arc::clone(&new));
                    new
                }
            };
            app.is_gone.store(false, Ordering::Release);
            index.by_key.extend(keys.into_iter().map(|key| (key, Arc::clone(&app))));
            index.by_id.insert(app.id.clone(), app);
        }
        for gone in ever.values().filter(|app| !index.by_id.contains_key(&app.id)) {
            gone.is_gone.store(true, Ordering::Release);
        }
        self.now.store(Arc::new(index));
    }

    /// The app of an HTTP path.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<Arc<App>> {
        self.now.load().by_id.get(id).cloned()
    }

    /// The app whose key a client connects with.
    #[must_use]
    pub fn by_key(&self, key: &str) -> Option<Arc<App>> {
        self.now.load().by_key.get(key).cloned()
    }

    /// The app, if there is just one.
    #[must_use]
    pub fn only(&self) -> Option<Arc<App>> {
        let index = self.now.load();
        let mut all = index.by_id.values();
        all.next().filter(|_| all.next().is_none()).cloned()
    }

    /// Every app.
    pub fn iter(&self) -> impl Iterator<Item = Arc<App>> {
        self.now.load().by_id.values().cloned().collect::<Vec<_>>().into_iter()
    }
}

#[cfg(test)]
mod tests {
    use herald_protocol::Secret;

    use super::*;
    use crate::config::KeyPair;

    fn options(id: &str, key: &str) -> AppOptions {
        AppOptions { id: id.to_owned(), key: key.to_owned(), secret: Secret::new("s"), ..AppOptions::default() }
    }

    #[test]
    fn a_key_has_two_secrets_while_one_replaces_the_other() {
        let pair = KeyPair { key: "further".to_owned(), secret: Secret::new("third") };
        let other_secret = Some(Secret::new("new"));
        let app = App::new(AppOptions { other_secret, keys: vec![pair], ..options("a", "k") });
        let signed = |secret: &str| Secret::new(secret).sign(b"message");
        for (key, secret, expected) in [
            ("k", "s", Some(true)),
            ("k", "new", Some(true)),
            ("k", "third", Some(false)),
            ("k", "", Some(false)),
            ("further", "third", Some(true)),
            ("further", "s", Some(false)),
            ("unknown", "s", None),
        ] {
            assert_eq!(app.verifies(key, b"message", &signed(secret)), expected, "{key} {secret}");
        }
    }

    #[test]
    fn an_app_stays_the_same_whatever_is_configured_for_it() {
        let apps = Apps::new(vec![options("a", "ka"), options("b", "kb")]);
        let (a, b) = (apps.by_id("a").unwrap(), apps.by_key("kb").unwrap());
        let place = a.admit(None).unwrap();
        let limited = |mut options: AppOptions| {
            options.limits.events_per_second = Some(1);
            options
        };
        let mut new = Vec::new();
        let changed = AppOptions { max_connections: Some(1), ..limited(options("a", "ka2")) };
        apps.update(vec![changed, options("c", "kc")], |app| new.push(app.id().to_owned()));
        assert_eq!(new, ["c"]);
        assert!(apps.by_key("ka").is_none() && Arc::ptr_eq(&apps.by_key("ka2").unwrap(), &a));
        assert!(a.admit(None).is_none() && a.limiter(Metered::Events).is_some() && a.refusal().is_none());
        assert!(apps.by_id("b").is_none() && b.refusal() == Some(CloseReason::UnknownApp));
        drop(place);
        assert_eq!(a.connections(), 0);

        let disabled = AppOptions { enabled: false, ..options("a", "ka2") };
        apps.update(vec![disabled, options("b", "kb")], |app| panic!("{} is not new", app.id()));
        assert!(a.limiter(Metered::Events).is_none() && a.refusal() == Some(CloseReason::AppDisabled));
        assert!(Arc::ptr_eq(&apps.by_id("b").unwrap(), &b) && b.refusal().is_none());
    }
}
