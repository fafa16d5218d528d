//! Crisp, the chat in which an app's users are helped (section 3). Its hooks ([`hook`]) tell of replies, which become notifications of whoever the
//! conversation belongs to ([`news`]); whose it is says Crisp's own proof alone: what a hook says of it, or what Crisp answers when it is asked
//! ([`lookup`]). A page gets what its chat needs ([`identity`]), a backend may write into a user's conversation ([`send`]).
//!
//! Start at [`Crisp`], a website. Always: no secret leaves it but in a request to Crisp, and nothing it is asked for is on the way of an event.
//! Not here: what is kept of conversations (`store::support`), who may ask (`http`).

pub mod hook;
pub mod identity;
pub mod lookup;
pub mod news;
pub mod send;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use herald_protocol::Secret;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{Config, CrispOptions};
use crate::outgoing::Outgoing;
use crate::outgoing::problem::CallProblem;
use crate::outgoing::service::{Answer, CallError, Limits, Retry, Service};
use hook::Trusted;

/// How long a call that is part of a task may take, and one that asks whether all is well.
const WITHIN: Duration = Duration::from_secs(5);
const PING_WITHIN: Duration = Duration::from_secs(2);
/// How much is read of an answer.
const MAX_BYTES: usize = 256 * 1024;

/// A website, and how Herald uses it.
#[derive(Debug)]
pub struct Crisp {
    /// Its id.
    pub website_id: String,
    /// Whose hooks count.
    pub trusted: Trusted,
    /// What users' addresses are signed with.
    pub identity_secret: Option<Secret>,
    /// What may be asked of Crisp itself, if anything.
    pub rest: Option<Arc<Rest>>,
}

/// The REST API, and who Herald is there.
#[derive(Debug)]
pub struct Rest {
    /// The website's id.
    pub website_id: String,
    url: String,
    token_id: String,
    token_key: Secret,
    tier: Tier,
    /// What it is asked with.
    pub service: Arc<Service>,
}

/// Whose a token for the REST API is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// A plugin's.
    Plugin,
    /// A website's.
    Website,
    /// An operator's.
    User,
}

impl Tier {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plugin, Self::Website, Self::User];

    /// Its name, as Crisp knows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Website => "website",
            Self::User => "user",
        }
    }
}

/// What Crisp says of a conversation.
#[derive(Debug, Default, Deserialize)]
struct Conversation {
    #[serde(default)]
    is_verified: bool,
    #[serde(default)]
    verifications: Value,
    #[serde(default)]
    meta: Value,
}

impl Crisp {
    /// The website that is configured, if one is.
    #[must_use]
    pub fn of(options: &CrispOptions, outgoing: &Outgoing) -> Option<Self> {
        let website_id = options.website_id.clone()?;
        let rest = options.token_id.clone().zip(options.token_key.clone()).map(|(token_id, token_key)| Rest {
            website_id: website_id.clone(),
            url: format!("{}/v1", options.api_url),
            token_id,
            token_key,
            tier: options.tier,
            service: outgoing.service("crisp.rest"),
        });
        let trusted =
            Trusted { signing_secrets: options.signing_secrets.clone(), webhook_keys: options.webhook_keys.clone() };
        let identity_secret = options.identity_secret.clone();
        let is_on = rest.is_some() || trusted.is_any() || identity_secret.is_some();
        is_on.then_some(Self { website_id, trusted, identity_secret, rest: rest.map(Arc::new) })
    }

    /// The same; lines in the log say whether, and what of it there is not.
    #[must_use]
    pub fn new(config: &Config, outgoing: &Outgoing) -> Option<Self> {
        let options = &config.integrations.crisp;
        let Some(crisp) = Self::of(options, outgoing) else {
            if options.website_id.is_some() {
                tracing::info!(
                    "Crisp is off: only public names (NEXT_PUBLIC_…) are set; it needs CRISP_WEBSITE_ID and one of CRISP_TOKEN_ID with \
                     CRISP_TOKEN_KEY, CRISP_SIGNING_SECRET, CRISP_WEBHOOK_KEY and CRISP_IDENTITY_SECRET"
                );
            } else {
                tracing::info!("Crisp is off");
            }
            return None;
        };
        let (hooks, rest, identity) = (crisp.trusted.is_any(), crisp.rest.is_some(), crisp.identity_secret.is_some());
        tracing::info!(website_id = crisp.website_id, hooks, rest, identity, "Crisp is on");
        Some(crisp)
    }
}

impl Rest {
    /// Whether it answers, and takes the token.
    ///
    /// # Errors
    /// See [`CallProblem`].
    pub async fn ping(&self) -> Result<(), CallProblem> {
        let limits = Limits { within: PING_WITHIN, bytes: MAX_BYTES };
        let (method, path) = match self.tier {
            Tier::Plugin => (Method::HEAD, "plugin/connect/session".to_owned()),
            Tier::Website | Tier::User => (Method::GET, format!("website/{}", self.website_id)),
        };
        let is_body = method == Method::GET;
        let answer = CallProblem::unless_success(self.call(method, &path, None, limits).await)?;
        if is_body {
            data::<Value>(&answer).map(|_| ())
        } else if answer.status == StatusCode::OK {
            Ok(())
        } else {
            Err(CallProblem::Answer)
        }
    }

    /// The addresses that Crisp knows to be those of the conversation's visitor; none of no conversation.
    async fn proven_emails(&self, session: &str) -> Result<Vec<String>, CallProblem> {
        let limits = Limits { within: WITHIN, bytes: MAX_BYTES };
        let path = format!("website/{}/conversation/{session}", self.website_id);
        let answer = self.call(Method::GET, &path, None, limits).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        let found: Conversation = data(&CallProblem::unless_success(Ok(answer))?)?;
        if !found.is_verified || !hook::is_by_email(&found.verifications) {
            return Ok(Vec::new());
        }
        let mut emails = hook::addresses(&found.verifications);
        if emails.is_empty() {
            // What stands in the same answer is of the same moment, so that nobody changes the one while the other is asked for.
            let mut meta = found.meta;
            if meta["email"].is_null() {
                let answer = self.call(Method::GET, &format!("{path}/meta"), None, limits).await;
                meta = data(&CallProblem::unless_success(answer)?)?;
            }
            emails.extend(meta["email"].as_str().filter(|email| hook::is_address(email)).map(str::to_owned));
        }
        Ok(emails)
    }

    /// Writes into a conversation, as those who help. Its answer counts by the status alone: what was taken is not to be written twice.
    async fn say(&self, session: &str, text: &str, fingerprint: u64) -> Result<Answer, CallError> {
        let path = format!("website/{}/conversation/{session}/message", self.website_id);
        let message = json!({
            "type": "text", "from": "operator", "origin": "chat", "content": text, "fingerprint": fingerprint,
        })
        .to_string();
        self.call(Method::POST, &path, Some(message), Limits { within: WITHIN, bytes: 0 }).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        limits: Limits,
    ) -> Result<Answer, CallError> {
        let url = format!("{}/{path}", self.url);
        let request = |client: &reqwest::Client| {
            let request = client
                .request(method.clone(), &url)
                .basic_auth(&self.token_id, Some(self.token_key.expose()))
                .header("x-crisp-tier", self.tier.as_str())
                .header("accept", "application/json");
            match &body {
                Some(body) => request.header("content-type", "application/json").body(body.clone()),
                None => request,
            }
        };
        self.service.send(request, limits, Retry::Never).await
    }
}

/// What an answer says, in Crisp's envelope.
fn data<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T, CallProblem> {
    #[derive(Deserialize)]
    struct Envelope<T> {
        error: bool,
        data: Option<T>,
    }
    let said: Envelope<T> = serde_json::from_slice(&answer.body).map_err(|_| CallProblem::Answer)?;
    said.data.filter(|_| !said.error).ok_or(CallProblem::Answer)
}
