//! The applications (tenants): who may connect and trigger, with which key pairs and limits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use herald_protocol::Secret;
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
    /// What was configured for it.
    pub options: AppOptions,
    /// How many events a second may be triggered over HTTP.
    events: Option<Limiter>,
    /// How many reading requests a second may come.
    reads: Option<Limiter>,
    /// The answers that a repeated request gets again.
    pub answers: Answers,
    connections: AtomicUsize,
}

impl App {
    fn new(options: AppOptions) -> Self {
        Self {
            events: options.limits.events_per_second.map(Limiter::per_second),
            reads: options.limits.reads_per_second.map(Limiter::per_second),
            answers: Answers::default(),
            connections: AtomicUsize::new(0),
            options,
        }
    }

    /// The id in the paths of the HTTP API.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.options.id
    }

    /// The limits that hold for this app.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// The limit of what may happen in a second, if there is one; it counts for this node.
    #[must_use]
    pub const fn limiter(&self, what: Metered) -> Option<&Limiter> {
        match what {
            Metered::Events => self.events.as_ref(),
            Metered::Reads => self.reads.as_ref(),
        }
    }

    /// Connections on this node, those included that were let in just now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// The secret that belongs to `key`, if it is one of this app's keys.
    #[must_use]
    pub fn secret_of(&self, key: &str) -> Option<&Secret> {
        let same = |known: &str| bool::from(known.as_bytes().ct_eq(key.as_bytes()));
        if same(&self.options.key) {
            return Some(&self.options.secret);
        }
        self.options.keys.iter().find(|pair| same(&pair.key)).map(|pair| &pair.secret)
    }

    /// Takes a place among the app's connections beside the one on the node; `None` when all are taken. Both are free again when the
    /// permit is dropped.
    #[must_use]
    pub fn admit(self: &Arc<Self>, on_node: Option<OwnedSemaphorePermit>) -> Option<Permit> {
        let limit = self.options.max_connections.unwrap_or(usize::MAX);
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
    by_id: HashMap<String, Arc<App>>,
    by_key: HashMap<String, Arc<App>>,
}

impl Apps {
    /// The configured applications.
    #[must_use]
    pub fn new(options: Vec<AppOptions>) -> Self {
        let mut apps = Self { by_id: HashMap::new(), by_key: HashMap::new() };
        for options in options {
            let app = Arc::new(App::new(options));
            for key in std::iter::once(&app.options.key).chain(app.options.keys.iter().map(|pair| &pair.key)) {
                apps.by_key.insert(key.clone(), Arc::clone(&app));
            }
            apps.by_id.insert(app.options.id.clone(), app);
        }
        apps
    }

    /// The app of an HTTP path.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<Arc<App>> {
        self.by_id.get(id).cloned()
    }

    /// The app whose key a client connects with.
    #[must_use]
    pub fn by_key(&self, key: &str) -> Option<Arc<App>> {
        self.by_key.get(key).cloned()
    }

    /// The app, if there is just one.
    #[must_use]
    pub fn only(&self) -> Option<Arc<App>> {
        let mut all = self.iter();
        all.next().filter(|_| all.next().is_none()).cloned()
    }

    /// Every app.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<App>> {
        self.by_id.values()
    }
}
