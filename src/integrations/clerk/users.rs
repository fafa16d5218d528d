//! Users as Clerk's Backend API knows them (section 1.10), for those of whom no webhook has told yet.
//!
//! Always: requests for one user at once are one call; what is known is known for a minute, and that there is nobody for ten seconds; calls
//! stay well below Clerk's limit, and whoever would exceed it is told nothing instead of waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, header};
use herald_protocol::Secret;
use moka::Expiry;
use moka::future::Cache;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::user::ClerkUser;
use crate::limits::Limiter;
use crate::outgoing::Outgoing;
use crate::outgoing::service::{Limits, Retry, Service};
use crate::store::people::User;
use crate::store::time::Timestamp;

/// The version of the API that is spoken.
const VERSION: &str = "2026-05-12";
/// How long a request waits for what is only nice to have: the name that others see.
const WITHIN: Duration = Duration::from_secs(1);
/// How much is read of an answer.
const MAX_BYTES: usize = 256 * 1024;
/// How many are remembered, and for how long.
const MOST: u64 = 10_000;
const KNOWN_FOR: Duration = Duration::from_secs(60);
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// Calls a second: half of what Clerk allows a production instance, and a development instance.
const PRODUCTION: usize = 50;
const DEVELOPMENT: usize = 5;

/// See the module.
#[derive(Debug)]
pub struct Users {
    url: String,
    pub(super) headers: HeaderMap,
    pub(super) service: Arc<Service>,
    limiter: Limiter,
    known: Cache<String, Option<User>>,
}

/// Clerk does not say. The text is for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Clerk: {0}")]
pub struct Unanswered(pub(super) String);

struct HowLong;

impl Expiry<String, Option<User>> for HowLong {
    fn expire_after_create(&self, _: &String, user: &Option<User>, _: Instant) -> Option<Duration> {
        Some(if user.is_some() { KNOWN_FOR } else { UNKNOWN_FOR })
    }
}

/// What every request to the Backend API carries.
#[must_use]
pub fn headers(secret: &Secret) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", secret.expose())) {
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("clerk-api-version", HeaderValue::from_static(VERSION));
    headers
}

impl Users {
    /// The API at `url` (`https://api.clerk.com`), with this secret key.
    #[must_use]
    pub fn new(url: &str, secret: &Secret, outgoing: &Outgoing) -> Self {
        let is_development = secret.expose().starts_with("sk_test_");
        Self {
            url: format!("{}/v1/users", url.trim_end_matches('/')),
            headers: headers(secret),
            service: outgoing.service("clerk.users"),
            limiter: Limiter::per_second(if is_development { DEVELOPMENT } else { PRODUCTION }),
            known: Cache::builder().max_capacity(MOST).expire_after(HowLong).build(),
        }
    }

    /// The user of this id; `None` if Clerk has none.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn get(&self, id: &str) -> Result<Option<User>, Unanswered> {
        let fetched = self.known.try_get_with_by_ref(id, self.fetch(id)).await;
        fetched.map_err(|error: Arc<Unanswered>| (*error).clone())
    }

    /// Where a user is.
    pub(super) fn url_of(&self, id: &str) -> String {
        format!("{}/{}", self.url, utf8_percent_encode(id, NON_ALPHANUMERIC))
    }

    /// Counts a call.
    pub(super) fn admit(&self) -> Result<(), Unanswered> {
        self.limiter.admit(1).map_err(|_| Unanswered("as many calls as may be were made just now".to_owned()))
    }

    async fn fetch(&self, id: &str) -> Result<Option<User>, Unanswered> {
        self.admit()?;
        let url = self.url_of(id);
        let request = |client: &reqwest::Client| client.get(&url).headers(self.headers.clone());
        let limits = Limits { within: WITHIN, bytes: MAX_BYTES };
        let answer = self.service.send(request, limits, Retry::Never).await;
        let answer = answer.map_err(|error| Unanswered(error.to_string()))?;
        match answer.status.as_u16() {
            200 => {
                let user: ClerkUser = serde_json::from_slice(&answer.body)
                    .map_err(|error| Unanswered(format!("its answer is no user: {error}")))?;
                let user = user.into_user(Timestamp::now().as_micros() / 1_000);
                if user.id == id { Ok(Some(user)) } else { Err(Unanswered("its answer is another user".to_owned())) }
            }
            404 => Ok(None),
            status => Err(Unanswered(format!("it answers {status}"))),
        }
    }
}
