//! Accounts of users at other services (sections 8.3, 8.4 and 8.6): rows of `user_integrations`, with or without tokens, and who refreshes those.
//!
//! Tokens are ciphertext here. Always: one node at a time refreshes an account, the one that holds its lease; what it was told replaces what was
//! there in one write, and only as long as the lease is its own, so a refresh token is never lost to a slower node or an older answer.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::StoreError;
use super::tasks::NewTask;
use super::time::Timestamp;
use crate::seal::{Place, TokenColumn};

/// What `last_error` says of an account whose token has expired and cannot be refreshed.
pub const EXPIRED: &str = "expired";
/// Accounts of one user that are listed.
pub const MOST: i64 = 1_000;

/// Which account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountKey<'a> {
    /// The app's id.
    pub app: &'a str,
    /// Whose.
    pub user: &'a str,
    /// At which service.
    pub service: &'a str,
    /// The user's id there; empty where there is only one.
    pub service_user: &'a str,
}

/// An account, as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// The row.
    pub id: Uuid,
    /// The app's id.
    pub app: String,
    /// Whose.
    pub user: String,
    /// At which service.
    pub service: String,
    /// The user's id there.
    pub service_user: String,
    /// See [`TokenColumn::Access`].
    pub access: Option<String>,
    /// See [`TokenColumn::Refresh`].
    pub refresh: Option<String>,
    /// When the access token expires, if that is known.
    pub expires_at: Option<Timestamp>,
    /// From when on it is refreshed, if it is.
    pub refresh_at: Option<Timestamp>,
    /// How often that was tried in vain.
    pub refresh_attempts: u32,
    /// Until when some node has it in its hands; that moment names the lease.
    pub lease: Option<Timestamp>,
    /// What the tokens are good for.
    pub scopes: Vec<String>,
    /// What the app's backend keeps with it: an object.
    pub data: Option<Value>,
    /// Whether it can be used without the user's doing.
    pub is_active: bool,
    /// What went wrong last, in a word.
    pub last_error: Option<String>,
    /// Since when it is there.
    pub created_at: Timestamp,
    /// When a user would have noticed a change last.
    pub updated_at: Timestamp,
}

/// What a request says of a member: nothing, that there is none, or what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Said<T> {
    /// It stays as it is.
    #[default]
    Nothing,
    /// `null`: there is none.
    Gone,
    /// This.
    Is(T),
}

impl<T> Said<T> {
    /// What is there now, where `before` was.
    fn or(&self, before: Option<T>) -> Option<T>
    where
        T: Clone,
    {
        match self {
            Self::Nothing => before,
            Self::Gone => None,
            Self::Is(value) => Some(value.clone()),
        }
    }

    /// Whether it is said what it is.
    #[must_use]
    pub const fn is_value(&self) -> bool {
        matches!(self, Self::Is(_))
    }

    /// The same of something else.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Said<U> {
        match self {
            Self::Nothing => Said::Nothing,
            Self::Gone => Said::Gone,
            Self::Is(value) => Said::Is(make(value)),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Said<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Gone, Self::Is))
    }
}

/// What a backend says of an account. Tokens are encrypted already.
#[derive(Clone, Debug, PartialEq)]
pub struct PutAccount<'a> {
    /// Which.
    pub key: AccountKey<'a>,
    /// See [`Account::access`]; another one without `expires_at` expires nobody knows when.
    pub access: Said<String>,
    /// See [`Account::refresh`].
    pub refresh: Said<String>,
    /// See [`Account::expires_at`].
    pub expires_at: Said<Timestamp>,
    /// How long before that it is refreshed.
    pub lead: Duration,
    /// See [`Account::scopes`].
    pub scopes: Said<Vec<String>>,
    /// See [`Account::data`].
    pub data: Said<Value>,
    /// What is to be done with it outside, noted with it.
    pub task: Option<NewTask<'a>>,
}

/// How a refresh went. Tokens are encrypted already.
#[derive(Clone, Debug, PartialEq)]
pub enum Refreshed {
    /// There are new tokens.
    Done {
        /// The access token.
        access: String,
        /// The refresh token, if it is another one now.
        refresh: Option<String>,
        /// When the access token expires, if that was said.
        expires_at: Option<Timestamp>,
        /// When it is to be refreshed.
        refresh_at: Option<Timestamp>,
        /// What it is good for, if that was said.
        scopes: Option<Vec<String>>,
    },
    /// It was in vain, and is tried again.
    Failed {
        /// Why, in a word.
        error: &'static str,
        /// When.
        again_at: Timestamp,
    },
    /// It was not tried.
    Postponed {
        /// When it is.
        again_at: Timestamp,
    },
    /// It is over: the user has to connect it again.
    Ended {
        /// Why, in a word.
        error: &'static str,
    },
}

/// What became of a deletion.
#[derive(Clone, Debug, PartialEq)]
pub enum Deleted {
    /// It is gone; so it was.
    Done(Box<Account>),
    /// There is none.
    None,
    /// There are several, and none was named.
    Several,
}

/// What a task of the kind [`TaskKind::Metadata`](super::tasks::TaskKind::Metadata) is about: what is written is read when it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncMetadata {
    /// The app's id.
    pub app: String,
    /// Whose.
    pub user: String,
    /// At which service.
    pub service: String,
    /// The user's id there.
    pub service_user: String,
}

/// When a token that expires then is refreshed: so much earlier, but not before half of its time has passed.
#[must_use]
pub fn refresh_at(expires_at: Timestamp, lead: Duration, now: Timestamp) -> Timestamp {
    expires_at.before(lead.min(expires_at.since(now) / 2))
}

impl Account {
    /// Where the token of this column stands.
    #[must_use]
    pub fn place(&self, column: TokenColumn) -> Place<'_> {
        Place { column, app: &self.app, user: &self.user, service: &self.service, service_user: &self.service_user }
    }

    /// Whether there is anything to hand out or to refresh.
    #[must_use]
    pub const fn has_tokens(&self) -> bool {
        self.access.is_some() || self.refresh.is_some()
    }

    /// Whether the access token has expired.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    /// What it is after that was said.
    pub(super) fn put(&mut self, said: &PutAccount<'_>, now: Timestamp) {
        self.access = said.access.or(self.access.take());
        self.refresh = said.refresh.or(self.refresh.take());
        // The time that was known is the other token's.
        let before = self.expires_at.filter(|_| said.access == Said::Nothing);
        self.expires_at = said.expires_at.or(before);
        self.scopes = said.scopes.or(Some(std::mem::take(&mut self.scopes))).unwrap_or_default();
        self.data = said.data.or(self.data.take());
        if said.refresh != Said::Nothing {
            self.lease = None; // whoever refreshes the one before is too late
        }
        if said.access.is_value() || said.refresh.is_value() {
            (self.is_active, self.last_error, self.refresh_attempts) = (true, None, 0);
        }
        if said.access != Said::Nothing || said.refresh != Said::Nothing || said.expires_at != Said::Nothing {
            self.refresh_at = match (&self.access, &self.refresh) {
                _ if !self.is_active => None,
                (_, None) => None,
                (None, Some(_)) => Some(now),
                (Some(_), Some(_)) => self.expires_at.map(|expires_at| refresh_at(expires_at, said.lead, now)),
            };
        }
        self.updated_at = now;
    }

    /// What it is after it was refreshed so.
    pub(super) fn end_refresh(&mut self, refreshed: &Refreshed, now: Timestamp) {
        self.lease = None;
        match refreshed {
            Refreshed::Done { access, refresh, expires_at, refresh_at, scopes } => {
                self.access = Some(access.clone());
                self.refresh = refresh.clone().or(self.refresh.take());
                (self.expires_at, self.refresh_at) = (*expires_at, *refresh_at);
                self.scopes = scopes.clone().unwrap_or(std::mem::take(&mut self.scopes));
                (self.is_active, self.last_error, self.refresh_attempts) = (true, None, 0);
                self.updated_at = now;
            }
            Refreshed::Failed { error, again_at } => {
                self.refresh_at = Some(*again_at);
                self.refresh_attempts = self.refresh_attempts.saturating_add(1);
                self.last_error = Some((*error).to_owned());
            }
            Refreshed::Postponed { again_at } => self.refresh_at = Some(*again_at),
            Refreshed::Ended { error } => {
                self.refresh_at = None;
                (self.is_active, self.last_error) = (false, Some((*error).to_owned()));
                self.updated_at = now;
            }
        }
    }
}

/// See the module.
#[async_trait]
pub trait Accounts {
    /// A user's accounts, at all services or at one, by service and the id there; at most [`MOST`].
    async fn accounts(&self, app: &str, user: &str, service: Option<&str>) -> Result<Vec<Account>, StoreError>;

    /// Notes what is said of an account, a new one if need be, and the task with it. `None` for a user who was deleted.
    async fn put_account(&self, said: &PutAccount<'_>, now: Timestamp) -> Result<Option<Account>, StoreError>;

    /// Forgets an account with its tokens: the one of that id at the service, or the only one there.
    async fn delete_account(
        &self,
        app: &str,
        user: &str,
        service: &str,
        service_user: Option<&str>,
    ) -> Result<Deleted, StoreError>;

    /// Takes this account to refresh it, until `until`. `None` if it is not due, or in another node's hands.
    async fn lease_account(&self, id: Uuid, until: Timestamp, now: Timestamp) -> Result<Option<Account>, StoreError>;

    /// Takes accounts at these services that are due, those first that are due longest.
    async fn lease_due_accounts(
        &self,
        services: &[&str],
        limit: usize,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Account>, StoreError>;

    /// Keeps what became of a refresh, and gives the account back. `None`, and nothing is changed, if the lease is not that one any more: the account
    /// is gone, has another refresh token, or is in another node's hands.
    async fn end_refresh(
        &self,
        id: Uuid,
        lease: Timestamp,
        refreshed: &Refreshed,
        now: Timestamp,
    ) -> Result<Option<Account>, StoreError>;

    /// Sets accounts aside whose token has expired and that cannot be refreshed: without a refresh token, or not at one of these services. Only
    /// one of them, where it is named; at most `limit`.
    async fn expire_accounts(
        &self,
        refreshable: &[&str],
        only: Option<Uuid>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Account>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_refreshed_early_and_not_before_half_of_its_time() {
        let now = Timestamp::from_micros(1_000_000_000_000);
        let in_seconds = |seconds| now.after(Duration::from_secs(seconds));
        for (lifetime, lead, due) in [(3_600, 300, 3_300), (3_600, 330, 3_270), (60, 300, 30), (0, 300, 0)] {
            let at = refresh_at(in_seconds(lifetime), Duration::from_secs(lead), now);
            assert_eq!(at, in_seconds(due), "{lifetime} s, {lead} s before");
        }
        let past = now.before(Duration::from_secs(5));
        assert_eq!(refresh_at(past, Duration::from_secs(300), now), past, "it is due already");
    }

    #[test]
    fn null_is_something_else_than_nothing() {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            a: Said<String>,
        }
        let read = |text: &str| serde_json::from_str::<Body>(text).map(|body| body.a).ok();
        assert_eq!(read("{}"), Some(Said::Nothing));
        assert_eq!(read("{\"a\":null}"), Some(Said::Gone));
        assert_eq!(read("{\"a\":\"x\"}"), Some(Said::Is("x".to_owned())));
        assert_eq!(read("{\"a\":1}"), None);
    }
}
