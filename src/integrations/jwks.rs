//! The key set that an identity provider publishes, kept here (section 1.3).
//!
//! Always: many requests wait for one fetch; a provider that is away is asked again, while its last keys serve on for an hour; a stranger who
//! makes up key ids causes no more than one fetch in 30 seconds, whatever ids.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use axum::body::Bytes;
use axum::http::HeaderMap;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use crate::identity::{Algorithm, Key, KeySet};
use crate::outgoing::service::{Limits, Retry, Service};

/// How long a set counts as the present one.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// How long it serves when no other can be had.
const USABLE: Duration = Duration::from_secs(60 * 60);
/// How soon after a fetch an unknown id may cause another one.
const BETWEEN_UNKNOWN: Duration = Duration::from_secs(30);
/// How soon after a failed fetch there may be another one.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How long an answer may take, and how much is read of it.
const WITHIN: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Jwks {
    source: Source,
    service: Arc<Service>,
    algorithms: Vec<Algorithm>,
    /// Whether a token that names no key gets the only one there is.
    lone: bool,
    loaded: ArcSwapOption<Loaded>,
    /// Whoever fetches holds it, so that the others wait for the same answer.
    fetching: Mutex<Attempts>,
}

/// Where a key set is published.
#[derive(Clone, Debug)]
pub enum Source {
    /// At this address.
    Url(String),
    /// At this address, for whoever has these headers.
    With(String, HeaderMap),
    /// Where this OIDC issuer says.
    Issuer(String),
}

#[derive(Debug)]
struct Loaded {
    keys: KeySet,
    at: Instant,
}

#[derive(Debug, Default)]
struct Attempts {
    last: Option<Instant>,
    has_failed: bool,
}

/// There are no keys, and none to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the identity provider's keys cannot be loaded")]
pub struct NoKeys;

impl Jwks {
    /// A key set; nothing is fetched before somebody asks for a key.
    #[must_use]
    pub fn new(source: Source, service: Arc<Service>, algorithms: Vec<Algorithm>) -> Self {
        let lone = matches!(source, Source::Issuer(_));
        Self { source, service, algorithms, lone, loaded: ArcSwapOption::empty(), fetching: Mutex::default() }
    }

    /// The key of this id; `None` if the provider has none.
    ///
    /// # Errors
    /// When there are no keys to look at.
    pub async fn find(&self, id: Option<&str>) -> Result<Option<Key>, NoKeys> {
        if let Some(loaded) = self.loaded.load().as_deref()
            && loaded.at.elapsed() < FRESH
            && let Some(key) = loaded.keys.find(id, self.lone)
        {
            return Ok(Some(key.clone()));
        }
        self.refresh(id).await;
        let loaded = self.loaded.load();
        let usable = loaded.as_deref().filter(|loaded| loaded.at.elapsed() < USABLE).ok_or(NoKeys)?;
        Ok(usable.keys.find(id, self.lone).cloned())
    }

    /// Fetches the set, unless somebody just did.
    async fn refresh(&self, id: Option<&str>) {
        let mut attempts = self.fetching.lock().await;
        let is_settled = self
            .loaded
            .load()
            .as_deref()
            .is_some_and(|loaded| loaded.at.elapsed() < FRESH && loaded.keys.find(id, self.lone).is_some());
        let is_fresh = self.loaded.load().as_deref().is_some_and(|loaded| loaded.at.elapsed() < FRESH);
        let pause = match (is_fresh, attempts.has_failed) {
            (true, _) => BETWEEN_UNKNOWN,
            (false, true) => AFTER_FAILURE,
            (false, false) => Duration::ZERO,
        };
        if is_settled || attempts.last.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        attempts.last = Some(Instant::now());
        let fetched = self.fetch().await;
        attempts.has_failed = fetched.is_err();
        match fetched {
            Ok(keys) => self.loaded.store(Some(Arc::new(Loaded { keys, at: Instant::now() }))),
            Err(error) => tracing::warn!(%error, "the identity provider's keys cannot be fetched"),
        }
    }

    async fn fetch(&self) -> anyhow::Result<KeySet> {
        let url = match &self.source {
            Source::Url(url) | Source::With(url, _) => url.clone(),
            Source::Issuer(issuer) => self.discover(issuer).await?,
        };
        Ok(KeySet::parse(&self.get(&url).await?, &self.algorithms)?)
    }

    /// Where an issuer publishes its keys: on its own host, or on another by HTTPS.
    async fn discover(&self, issuer: &str) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let found: Discovery = serde_json::from_slice(&self.get(&address).await?)?;
        anyhow::ensure!(found.issuer == issuer, "its discovery document is another issuer's");
        let keys: Url = found.jwks_uri.parse()?;
        let is_own = issuer.parse::<Url>().is_ok_and(|issuer| issuer.origin() == keys.origin());
        anyhow::ensure!(is_own || keys.scheme() == "https", "its keys are not published by HTTPS");
        Ok(keys.into())
    }

    async fn get(&self, url: &str) -> anyhow::Result<Bytes> {
        let limits = Limits { within: WITHIN, bytes: MAX_BYTES };
        let headers = match &self.source {
            Source::With(_, headers) => headers.clone(),
            Source::Url(_) | Source::Issuer(_) => HeaderMap::new(),
        };
        let request = |client: &reqwest::Client| client.get(url).headers(headers.clone());
        let answer = self.service.send(request, limits, Retry::Never).await?;
        anyhow::ensure!(answer.status.is_success(), "it answers {}", answer.status);
        Ok(answer.body)
    }
}
