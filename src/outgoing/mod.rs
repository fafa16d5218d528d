//! Whatever leaves the process: one HTTP client for all of it, with a time-out on everything and no surprises; and for each third party and
//! kind of call a [`service::Service`] with the [`breaker`] before it, so that one that is away costs nobody anything.

pub mod address;
pub mod breaker;
pub mod problem;
pub mod service;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;

use address::NamedBy;
use breaker::{State, Thresholds};
use service::Service;

/// How long a third party may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What third parties are asked with.
#[derive(Clone, Debug)]
pub struct Outgoing {
    client: reqwest::Client,
    /// For addresses that were told by others.
    wary: reqwest::Client,
    services: Arc<Mutex<Vec<Weak<Service>>>>,
}

impl Outgoing {
    /// Nobody has been asked yet.
    ///
    /// # Errors
    /// When the machine's certificates cannot be read.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { client: client(NamedBy::Operator)?, wary: client(NamedBy::Others)?, services: Arc::default() })
    }

    /// One kind of what is asked of a third party, under this name in metrics.
    #[must_use]
    pub fn service(&self, name: &'static str) -> Arc<Service> {
        self.service_that_opens(name, Thresholds::default())
    }

    /// The same, with a breaker that opens and closes at these.
    #[must_use]
    pub fn service_that_opens(&self, name: &'static str, thresholds: Thresholds) -> Arc<Service> {
        self.add(Service::new(name, self.client.clone(), NamedBy::Operator, thresholds))
    }

    /// One whose addresses were told by others: it reaches only what all the world can reach.
    #[must_use]
    pub fn service_named_by_others(&self, name: &'static str) -> Arc<Service> {
        self.add(Service::new(name, self.wary.clone(), NamedBy::Others, Thresholds::default()))
    }

    fn add(&self, service: Service) -> Arc<Service> {
        let service = Arc::new(service);
        self.services.lock().push(Arc::downgrade(&service));
        service
    }

    /// How many of the services of each name are not asked at the moment, or are only being tried.
    #[must_use]
    pub fn not_asked(&self) -> BTreeMap<&'static str, usize> {
        let mut found = BTreeMap::new();
        for service in self.services.lock().iter().filter_map(Weak::upgrade) {
            *found.entry(service.name).or_default() += usize::from(service.state() != State::Closed);
        }
        found
    }

    /// How it is with whatever `party` is asked for: the services `party` and `party.…`; `None` where there are none.
    #[must_use]
    pub fn calls(&self, party: &str) -> Option<Calls> {
        let services = self.services.lock();
        let of_party = services.iter().filter_map(Weak::upgrade).filter(|service| {
            service.name.strip_prefix(party).is_some_and(|kind| kind.is_empty() || kind.starts_with('.'))
        });
        let calls = of_party.map(|service| Calls { breaker: service.state(), rejected: service.rejected() });
        calls.reduce(|one, other| Calls {
            breaker: one.breaker.max(other.breaker),
            rejected: one.rejected + other.rejected,
        })
    }
}

/// How it is with calls of a third party, of whatever kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    /// The worst state of any kind's breaker.
    pub breaker: State,
    /// Calls that were not made, since the start.
    pub rejected: u64,
}

/// A client that follows no redirects, asks no proxy and no cloud for credentials, and gives up after `TIMEOUT`.
///
/// # Errors
/// When the machine's certificates cannot be read.
pub fn client(named_by: NamedBy) -> anyhow::Result<reqwest::Client> {
    builder(named_by).build().context("cannot prepare the HTTP client")
}

/// The same, for whom something more is to be said.
pub fn builder(named_by: NamedBy) -> reqwest::ClientBuilder {
    install_crypto();
    reqwest::Client::builder()
        .user_agent(concat!("herald/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .dns_resolver(Arc::new(address::Resolver(named_by)))
        .timeout(TIMEOUT)
        .pool_max_idle_per_host(4)
        .pool_idle_timeout(Duration::from_secs(30))
}

/// Makes ring the cryptography of every TLS connection of this process.
pub fn install_crypto() {
    // Whoever was first has installed the same.
    _ = rustls::crypto::ring::default_provider().install_default();
}
