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
use crate::outgoing::problem::CallProblem;
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
    /// Where this OIDC issuer says; what it says is asked by this service.
    Issuer(String, Arc<Service>),
}

#[derive(Debug)]
struct Loaded {
    keys: KeySet,
    at: Instant,
}

#[derive(Debug, Default)]
struct Attempts {
    last: Option<Instant>,
    /// What was wrong with the last one.
    failed: Option<CallProblem>,
}

/// Why a fetched set is none.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Call(#[from] CallProblem),
    #[error("{0}")]
    Content(String),
}

impl FetchError {
    fn problem(self) -> CallProblem {
        match self {
            Self::Call(problem) => problem,
            Self::Content(_) => CallProblem::Answer,
        }
    }
}

/// There are no keys, and none to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the identity provider's keys cannot be loaded")]
pub struct NoKeys;

impl Jwks {
    /// A key set; nothing is fetched before somebody asks for a key.
    #[must_use]
    pub fn new(source: Source, service: Arc<Service>, algorithms: Vec<Algorithm>) -> Self {
        let lone = matches!(source, Source::Issuer(..));
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
        let pause = match (is_fresh, attempts.failed.is_some()) {
            (true, _) => BETWEEN_UNKNOWN,
            (false, true) => AFTER_FAILURE,
            (false, false) => Duration::ZERO,
        };
        if is_settled || attempts.last.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        attempts.last = Some(Instant::now());
        match self.fetch().await {
            Ok(keys) => {
                attempts.failed = None;
                self.loaded.store(Some(Arc::new(Loaded { keys, at: Instant::now() })));
            }
            Err(error) => {
                tracing::warn!(%error, "the identity provider's keys cannot be fetched");
                attempts.failed = Some(error.problem());
            }
        }
    }

    /// Whether the present keys are here or can be had, for health checks.
    ///
    /// # Errors
    /// What is wrong, and whether the last keys serve on meanwhile.
    pub async fn check(&self) -> Result<(), (CallProblem, bool)> {
        let age = || self.loaded.load().as_deref().map(|loaded| loaded.at.elapsed());
        if age().is_none_or(|age| age >= FRESH) {
            self.refresh(None).await;
        }
        if age().is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        let problem = self.fetching.lock().await.failed.clone().unwrap_or(CallProblem::Answer);
        Err((problem, age().is_some_and(|age| age < USABLE)))
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let keys = match &self.source {
            Source::Url(url) | Source::With(url, _) => self.get(&self.service, url).await?,
            Source::Issuer(issuer, of_others) => {
                let (url, is_own) = self.discover(issuer).await?;
                self.get(if is_own { &self.service } else { of_others }, &url).await?
            }
        };
        KeySet::parse(&keys, &self.algorithms).map_err(|error| FetchError::Content(error.to_string()))
    }

    /// Where an issuer publishes its keys: on its own host, or on another by HTTPS; and whether it is its own.
    async fn discover(&self, issuer: &str) -> Result<(String, bool), FetchError> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let wrong = |what: String| FetchError::Content(format!("its discovery document: {what}"));
        let found: Discovery = serde_json::from_slice(&self.get(&self.service, &address).await?)
            .map_err(|error| wrong(error.to_string()))?;
        if found.issuer != issuer {
            return Err(wrong("it is another issuer's".to_owned()));
        }
        let keys: Url = found.jwks_uri.parse().map_err(|error| wrong(format!("`jwks_uri`: {error}")))?;
        let is_own = issuer.parse::<Url>().is_ok_and(|issuer| issuer.origin() == keys.origin());
        if !is_own && keys.scheme() != "https" {
            return Err(wrong("its keys are not published by HTTPS".to_owned()));
        }
        Ok((keys.into(), is_own))
    }

    async fn get(&self, service: &Service, url: &str) -> Result<Bytes, CallProblem> {
        let limits = Limits { within: WITHIN, bytes: MAX_BYTES };
        let headers = match &self.source {
            Source::With(_, headers) => headers.clone(),
            Source::Url(_) | Source::Issuer(..) => HeaderMap::new(),
        };
        let request = |client: &reqwest::Client| client.get(url).headers(headers.clone());
        let answered = service.send(request, limits, Retry::Never).await;
        Ok(CallProblem::unless_success(answered)?.body)
    }
}
