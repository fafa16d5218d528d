//! Whether sessions still live, as Clerk's Backend API says (sections 1.9 and 1.10): a safety net for webhooks that were lost, off unless it is
//! configured.
//!
//! Every session to which a connection of this node belongs is asked about once in each period, one after the other, well below Clerk's limit.
//! One that has ended is kept as a webhook would have it, so it ends on every node. What Clerk does not say changes nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use herald_protocol::Secret;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::users::{Unanswered, headers};
use crate::hub::Hub;
use crate::outgoing::Outgoing;
use crate::outgoing::service::{Limits, Retry, Service};
use crate::store::Store;
use crate::store::people::{Change, Inbound};
use crate::store::time::Timestamp;

const LIMITS: Limits = Limits { within: Duration::from_secs(3), bytes: 256 * 1024 };
/// The pause between two calls, at least: a tenth of what Clerk allows a production instance, and a development instance.
const PRODUCTION: Duration = Duration::from_millis(100);
const DEVELOPMENT: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Sessions {
    url: String,
    headers: HeaderMap,
    service: Arc<Service>,
    every: Duration,
    pause: Duration,
}

#[derive(Deserialize)]
struct Session {
    status: String,
}

impl Sessions {
    /// The API at `url` (`https://api.clerk.com`), with this secret key; each session is asked about so often.
    #[must_use]
    pub fn new(url: &str, secret: &Secret, every: Duration, outgoing: &Outgoing) -> Self {
        Self {
            url: format!("{}/v1/sessions", url.trim_end_matches('/')),
            headers: headers(secret),
            service: outgoing.service("clerk.sessions"),
            every,
            pause: if secret.expose().starts_with("sk_test_") { DEVELOPMENT } else { PRODUCTION },
        }
    }

    /// Asks until it is dropped.
    pub async fn run(&self, hub: &Hub, store: &dyn Store) {
        loop {
            let sessions = hub.node.sessions();
            let share = self.every / u32::try_from(sessions.len() + 1).unwrap_or(u32::MAX);
            for (session, user) in sessions {
                tokio::time::sleep(share.max(self.pause)).await;
                if let Err(error) = self.check(&session, &user, store).await {
                    tracing::debug!(%error, "whether a session still lives is not known");
                }
            }
            tokio::time::sleep(share).await;
        }
    }

    /// Keeps that a session has ended, if Clerk says so.
    async fn check(&self, session: &str, user: &str, store: &dyn Store) -> anyhow::Result<()> {
        if let Some(status) = self.ended(session).await? {
            let inbound = Inbound { source: "clerk.sessions", event_id: session, kind: &status };
            let change = Change::SessionEnded { session: session.to_owned(), user: Some(user.to_owned()) };
            store.apply(&inbound, &change, Timestamp::now()).await?;
            tracing::info!(session, status, "a session has ended, and no webhook has told of it");
        }
        Ok(())
    }

    /// How a session has ended; `None` for one that lives.
    ///
    /// # Errors
    /// [`Unanswered`]; one that Clerk does not know is not known to have ended: the key may be another instance's.
    pub async fn ended(&self, session: &str) -> Result<Option<String>, Unanswered> {
        let url = format!("{}/{}", self.url, utf8_percent_encode(session, NON_ALPHANUMERIC));
        let request = |client: &reqwest::Client| client.get(&url).headers(self.headers.clone());
        let answer = self.service.send(request, LIMITS, Retry::Never).await;
        let answer = answer.map_err(|error| Unanswered(error.to_string()))?;
        if answer.status.as_u16() != 200 {
            return Err(Unanswered(format!("it answers {}", answer.status)));
        }
        let session: Session = serde_json::from_slice(&answer.body)
            .map_err(|error| Unanswered(format!("its answer is no session: {error}")))?;
        let lives = matches!(session.status.as_str(), "active" | "pending");
        Ok((!lives).then_some(session.status))
    }
}
