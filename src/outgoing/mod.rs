//! Whatever leaves the process: one HTTP client for all of it, with a time-out on everything and no surprises; and for each third party and
//! kind of call a [`service::Service`] with the [`breaker`] before it, so that one that is away costs nobody anything.

pub mod breaker;
pub mod service;

use std::time::Duration;

use anyhow::Context as _;

use breaker::Thresholds;
use service::Service;

/// How long a third party may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What third parties are asked with.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The one client.
    pub client: reqwest::Client,
}

impl Outgoing {
    /// Nobody has been asked yet.
    ///
    /// # Errors
    /// When the machine's certificates cannot be read.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { client: client()? })
    }

    /// One kind of what is asked of a third party, under this name in metrics.
    #[must_use]
    pub fn service(&self, name: &'static str) -> Service {
        Service::new(name, self.client.clone(), Thresholds::default())
    }
}

/// A client that follows no redirects, asks no proxy and gives up after `TIMEOUT`.
///
/// # Errors
/// When the machine's certificates cannot be read.
pub fn client() -> anyhow::Result<reqwest::Client> {
    install_crypto();
    reqwest::Client::builder()
        .user_agent(concat!("herald/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .pool_max_idle_per_host(4)
        .pool_idle_timeout(Duration::from_secs(30))
        .build()
        .context("cannot prepare the HTTP client")
}

/// Makes ring the cryptography of every TLS connection of this process.
pub fn install_crypto() {
    // Whoever was first has installed the same.
    _ = rustls::crypto::ring::default_provider().install_default();
}
