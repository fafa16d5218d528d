//! Accounts of users at other services (sections 1.10, 8.4 and 8.6): what a backend keeps of them, tokens on demand, and who is told of changes.
//!
//! [`Accounts::token`] is where to start: from the database if it is there, refreshed if it is due (`refresh`), else from Clerk, which refreshes
//! the tokens that it holds itself; those are not copied. [`metadata`] writes what is kept of an account to Clerk.
//!
//! Always: tokens are plain only between the database and whoever is given one, and stand in no log, error or event; a refresh that was begun
//! is ended and kept, whoever has asked for it and gone.
//!
//! Not here: how a token is encrypted (`seal`), what a token endpoint answers (`integrations::oauth`), who may ask (`http`).

pub mod metadata;
mod refresh;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::apps::Apps;
use crate::config::{Config, IntegrationOptions};
use crate::integrations::clerk::accounts::{Held, HeldToken};
use crate::integrations::clerk::users::Users;
use crate::integrations::oauth::Endpoint;
use crate::notifications::Notifications;
use crate::outgoing::Outgoing;
use crate::outgoing::breaker::State;
use crate::seal::{KeyRing, NotOpened, Place, PlainToken, TokenColumn};
use crate::store::StoreError;
use crate::store::accounts::{Account, AccountKey, Deleted, PutAccount, Said, SyncMetadata};
use crate::store::tasks::{NewTask, TaskKind};
use crate::store::time::Timestamp;
use metadata::MetadataWriter;

/// The event that a user's connections get.
const UPDATED: &str = "integration.updated";
/// How long whoever wants a token waits for one that is being refreshed, by whichever node, and how often is looked whether it is there.
const WITHIN: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct Accounts {
    notifications: Arc<Notifications>,
    apps: Arc<Apps>,
    ring: Option<KeyRing>,
    /// Where tokens are refreshed, by the service's name.
    endpoints: BTreeMap<String, Endpoint>,
    /// Who holds tokens of its own.
    clerk: Arc<ArcSwapOption<Users>>,
    /// Whether metadata is written to Clerk.
    pub writes_metadata: bool,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What is told of an account: never a token.
#[derive(Debug, Serialize, ToSchema)]
pub struct Integration {
    service: String,
    /// The user's id there; empty where the backend has named none.
    service_user_id: String,
    /// Whether there is a token, which backends get and nobody else.
    has_access_token: bool,
    /// When that expires, if it is known.
    token_expires_at: Option<Timestamp>,
    /// What it is good for.
    scopes: Vec<String>,
    /// Whether it can be used; if not, the user has to connect it again.
    is_active: bool,
    /// What went wrong last, in a word such as `invalid_grant`.
    last_error: Option<String>,
    /// What the app's backend keeps with it.
    #[schema(value_type = Option<Object>)]
    service_data: Option<Value>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&Account> for Integration {
    fn from(account: &Account) -> Self {
        Self {
            service: account.service.clone(),
            service_user_id: account.service_user.clone(),
            has_access_token: account.access.is_some(),
            token_expires_at: account.expires_at,
            scopes: account.scopes.clone(),
            is_active: account.is_active,
            last_error: account.last_error.clone(),
            service_data: account.data.clone(),
            created_at: account.created_at,
            updated_at: account.updated_at,
        }
    }
}

/// What a backend says of an account, tokens as they are.
#[derive(Debug)]
pub struct Told<'a> {
    /// Which.
    pub key: AccountKey<'a>,
    /// What opens the service.
    pub access: Said<PlainToken>,
    /// What is given for another one.
    pub refresh: Said<PlainToken>,
    /// When the first expires.
    pub expires_at: Said<Timestamp>,
    /// What it is good for.
    pub scopes: Said<Vec<String>>,
    /// What is kept with it: an object.
    pub data: Said<Value>,
    /// Whether that is written into the user's metadata at Clerk.
    pub sync_metadata: bool,
}

/// A token for whoever may have it.
#[derive(Debug)]
pub struct Handed {
    /// The token.
    pub access: PlainToken,
    /// When it expires, if that is known.
    pub expires_at: Option<Timestamp>,
}

/// Why nothing is kept, or there is no token.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There are no keys to encrypt tokens with.
    #[error("tokens cannot be encrypted: no key is configured")]
    NoKeys,
    /// The user was deleted.
    #[error("the user was deleted")]
    UserDeleted,
    /// There is no such account.
    #[error("the user has not connected this service")]
    NotConnected,
    /// There are several, and none was named.
    #[error("the user has several accounts there, and none was named")]
    Several,
    /// The user has to connect it again.
    #[error("the user has to connect this service again")]
    Ended,
    /// There is none at the moment.
    #[error("there is no token at the moment: {reason}")]
    Unavailable {
        /// Why, in a word.
        reason: String,
        /// When another try makes sense.
        again_in: Duration,
    },
}

impl Accounts {
    /// Begins to refresh what is due, until [`Accounts::finish`].
    #[must_use]
    pub fn start(
        config: &Config,
        outgoing: &Outgoing,
        notifications: &Arc<Notifications>,
        apps: &Arc<Apps>,
        clerk: Option<Arc<Users>>,
    ) -> Arc<Self> {
        let IntegrationOptions { oauth, .. } = &config.integrations;
        let endpoint = |(name, options)| Some((String::clone(name), Endpoint::new(options, outgoing)?));
        let this = Arc::new(Self {
            notifications: Arc::clone(notifications),
            apps: Arc::clone(apps),
            ring: config.tokens.key_ring(),
            endpoints: oauth.iter().filter_map(endpoint).collect(),
            writes_metadata: clerk.is_some(),
            clerk: Arc::new(ArcSwapOption::new(clerk)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        if this.writes_metadata {
            let (store, clerk) = (Arc::clone(&notifications.store), Arc::clone(&this.clerk));
            notifications.work(MetadataWriter { service: outgoing.service("clerk.metadata"), clerk, store });
        }
        let refreshing = Arc::clone(&this);
        this.tasks.spawn(async move { refreshing.run().await });
        this
    }

    /// From now on this Clerk is asked: its key may be another one.
    pub fn ask(&self, clerk: Option<Arc<Users>>) {
        self.clerk.store(clerk);
    }

    /// Ends what is under way, and keeps it.
    pub async fn finish(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A user's accounts.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list(&self, app: &str, user: &str) -> Result<Vec<Integration>, StoreError> {
        let accounts = self.notifications.store.accounts(app, user, None).await?;
        Ok(accounts.iter().map(Integration::from).collect())
    }

    /// Keeps what a backend says of an account.
    ///
    /// # Errors
    /// See [`AccountError`]; nothing was kept then.
    pub async fn put(&self, told: Told<'_>) -> Result<Integration, AccountError> {
        let Told { key, access, refresh, expires_at, scopes, data, sync_metadata } = told;
        if (access.is_value() || refresh.is_value()) && self.ring.is_none() {
            return Err(AccountError::NoKeys);
        }
        let sealed = |token: PlainToken, column| {
            let AccountKey { app, user, service, service_user } = key;
            let ring = self.ring.as_ref();
            ring.map(|ring| ring.seal(token.expose(), Place { column, app, user, service, service_user }))
        };
        let seal = |token: Said<PlainToken>, column| match token.map(|token| sealed(token, column)) {
            Said::Is(Some(sealed)) => Said::Is(sealed),
            Said::Gone => Said::Gone,
            Said::Is(None) | Said::Nothing => Said::Nothing,
        };
        let now = Timestamp::now();
        let payload = sync_metadata.then(|| json!(SyncMetadata::from(key)).to_string());
        let dedupe_key = Uuid::now_v7().to_string();
        let task = payload.as_deref().map(|payload| NewTask {
            kind: TaskKind::Metadata,
            dedupe_key: &dedupe_key,
            user: Some(key.user),
            payload,
            available_at: now,
        });
        let said = PutAccount {
            key,
            access: seal(access, TokenColumn::Access),
            refresh: seal(refresh, TokenColumn::Refresh),
            expires_at,
            lead: refresh::lead(),
            scopes,
            data,
            task,
        };
        let account = self.notifications.store.put_account(&said, now).await?.ok_or(AccountError::UserDeleted)?;
        self.tell(&account).await;
        Ok(Integration::from(&account))
    }

    /// Forgets an account, with its tokens.
    ///
    /// # Errors
    /// See [`AccountError`]; nothing was forgotten then.
    pub async fn delete(
        &self,
        app: &str,
        user: &str,
        service: &str,
        service_user: Option<&str>,
    ) -> Result<(), AccountError> {
        match self.notifications.store.delete_account(app, user, service, service_user).await? {
            Deleted::Done(account) => {
                let data = json!({
                    "integration": { "service": account.service, "service_user_id": account.service_user },
                    "deleted": true,
                });
                self.tell_user(&account, &data).await;
                Ok(())
            }
            Deleted::None => Err(AccountError::NotConnected),
            Deleted::Several => Err(AccountError::Several),
        }
    }

    /// A token that can be used now.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub async fn token(
        self: &Arc<Self>,
        app: &str,
        user: &str,
        service: &str,
        service_user: Option<&str>,
    ) -> Result<Handed, AccountError> {
        let begun = Instant::now();
        loop {
            let mut found = self.notifications.store.accounts(app, user, Some(service)).await?;
            let is_named = |id: &str| service_user.is_none_or(|named| named == id);
            found.retain(|account| account.has_tokens() && is_named(&account.service_user));
            let account = match (found.pop(), found.len()) {
                (None, _) => return self.held(user, service, service_user).await,
                (Some(account), 0) => account,
                (Some(_), _) => return Err(AccountError::Several),
            };
            let ring = self.ring.as_ref().ok_or(AccountError::NoKeys)?;
            let now = Timestamp::now();
            if !account.is_active {
                return Err(AccountError::Ended);
            }
            let endpoint = self.endpoints.get(service).filter(|_| account.refresh.is_some());
            let is_due = account.refresh_at.is_some_and(|at| at <= now);
            if is_due && begun.elapsed() < WITHIN && endpoint.is_some_and(is_asked) {
                if !self.refresh_on_demand(account.id, now).await? {
                    tokio::time::sleep(LOOK).await;
                }
                continue;
            }
            match &account.access {
                Some(stored) if !account.is_expired(now) => {
                    let access = ring.open(stored, account.place(TokenColumn::Access));
                    let access = access.map_err(|error| unreadable(&account, &error))?;
                    return Ok(Handed { access, expires_at: account.expires_at });
                }
                _ if endpoint.is_none() => {
                    self.expire(Some(account.id), now).await?;
                    return Err(AccountError::Ended);
                }
                _ => {
                    let wait = account.refresh_at.map_or(LOOK, |at| at.since(now));
                    let otherwise = if endpoint.is_some_and(is_asked) { "timeout" } else { "breaker_open" };
                    let reason = account.last_error.unwrap_or_else(|| otherwise.to_owned());
                    return Err(AccountError::Unavailable { reason, again_in: wait });
                }
            }
        }
    }

    /// A token that Clerk holds.
    async fn held(&self, user: &str, service: &str, service_user: Option<&str>) -> Result<Handed, AccountError> {
        let clerk = self.clerk.load_full().ok_or(AccountError::NotConnected)?;
        let held = clerk.held_tokens(user, service).await.map_err(|error| {
            tracing::warn!(service, %error, "a token cannot be had from Clerk");
            AccountError::Unavailable { reason: "clerk".to_owned(), again_in: Duration::from_secs(5) }
        })?;
        let Held::Tokens(mut tokens) = held else { return Err(AccountError::Ended) };
        tokens.retain(|token| service_user.is_none_or(|named| token.service_user.as_deref() == Some(named)));
        match (tokens.pop(), tokens.is_empty()) {
            (None, _) => Err(AccountError::NotConnected),
            (Some(HeldToken { access, expires_at, .. }), true) => Ok(Handed { access, expires_at }),
            (Some(_), false) => Err(AccountError::Several),
        }
    }

    /// Tells a user's connections how an account is now.
    async fn tell(&self, account: &Account) {
        self.tell_user(account, &json!({ "integration": Integration::from(account) })).await;
    }

    async fn tell_user(&self, account: &Account, data: &Value) {
        if let Some(app) = self.apps.by_id(&account.app) {
            self.notifications.tell(&app, &account.user, UPDATED, data).await;
        }
    }
}

impl From<AccountKey<'_>> for SyncMetadata {
    fn from(key: AccountKey<'_>) -> Self {
        Self {
            app: key.app.to_owned(),
            user: key.user.to_owned(),
            service: key.service.to_owned(),
            service_user: key.service_user.to_owned(),
        }
    }
}

/// Whether it makes sense to ask it now.
fn is_asked(endpoint: &Endpoint) -> bool {
    endpoint.service.readiness() != State::Open
}

fn unreadable(account: &Account, error: &NotOpened) -> AccountError {
    tracing::error!(account = %account.id, service = account.service, %error, "a stored token cannot be read");
    AccountError::Unavailable { reason: refresh::UNREADABLE.to_owned(), again_in: Duration::from_secs(60) }
}
