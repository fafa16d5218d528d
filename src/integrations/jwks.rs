//! The key set that an identity provider publishes, kept here (section 1.3).
//!
//! Always: many requests wait for one fetch; a provider that is away is asked again, while its last keys serve on for an hour; a stranger who
//! makes up key ids causes no more than one fetch in 30 seconds, whatever ids.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;

use crate::identity::{Algorithm, Key, KeySet};

/// How long a set counts as the present one.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// How long it serves when no other can be had.
const USABLE: Duration = Duration::from_secs(60 * 60);
/// How soon after a fetch an unknown id may cause another one.
const BETWEEN_UNKNOWN: Duration = Duration::from_secs(30);
/// How soon after a failed fetch there may be another one.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How much is read of an answer.
const MAX_BYTES: usize = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Jwks {
    url: String,
    client: reqwest::Client,
    algorithms: Vec<Algorithm>,
    loaded: ArcSwapOption<Loaded>,
    /// Whoever fetches holds it, so that the others wait for the same answer.
    fetching: Mutex<Attempts>,
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
    /// The key set at `url`; nothing is fetched before somebody asks for a key.
    #[must_use]
    pub fn new(url: String, client: reqwest::Client, algorithms: Vec<Algorithm>) -> Self {
        Self { url, client, algorithms, loaded: ArcSwapOption::empty(), fetching: Mutex::default() }
    }

    /// The key of this id; `None` if the provider has none.
    ///
    /// # Errors
    /// When there are no keys to look at.
    pub async fn find(&self, id: Option<&str>) -> Result<Option<Key>, NoKeys> {
        if let Some(loaded) = self.loaded.load().as_deref()
            && loaded.at.elapsed() < FRESH
            && let Some(key) = loaded.keys.find(id, false)
        {
            return Ok(Some(key.clone()));
        }
        self.refresh(id).await;
        let loaded = self.loaded.load();
        let usable = loaded.as_deref().filter(|loaded| loaded.at.elapsed() < USABLE).ok_or(NoKeys)?;
        Ok(usable.keys.find(id, false).cloned())
    }

    /// Fetches the set, unless somebody just did.
    async fn refresh(&self, id: Option<&str>) {
        let mut attempts = self.fetching.lock().await;
        let is_settled = self
            .loaded
            .load()
            .as_deref()
            .is_some_and(|loaded| loaded.at.elapsed() < FRESH && loaded.keys.find(id, false).is_some());
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
        let request = self.client.get(&self.url).send().await.map_err(reqwest::Error::without_url)?;
        let mut response = request.error_for_status().map_err(reqwest::Error::without_url)?;
        anyhow::ensure!(response.status().is_success(), "it answers {}", response.status());
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            document.extend_from_slice(&chunk);
            anyhow::ensure!(document.len() <= MAX_BYTES, "its answer has more than {MAX_BYTES} bytes");
        }
        Ok(KeySet::parse(&document, &self.algorithms)?)
    }
}
