//! Refreshes tokens before they expire: five minutes before, more or less, by whichever node takes it, or at once where somebody needs one.
//!
//! In this order: the account is leased in the database, so nobody else gives its refresh token away; the service is asked; what it has answered
//! is kept, new refresh token and all, before anybody gets it. A node that dies in between leaves the refresh token that was there, for whoever
//! leases the account next. A database that is away then is waited for, as long as the lease lasts.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rand::RngExt as _;
use uuid::Uuid;

use super::Accounts;
use crate::integrations::oauth::{Granted, NotGranted};
use crate::metrics;
use crate::notifications::wish::{Recipients, Wish};
use crate::notifications::{Outage, TICK};
use crate::outgoing::breaker::State;
use crate::outgoing::problem::CallProblem;
use crate::outgoing::service::CallError;
use crate::seal::{KeyRing, TokenColumn};
use crate::store::StoreError;
use crate::store::accounts::{Account, Refreshed, refresh_at};
use crate::store::notification::Draft;
use crate::store::time::Timestamp;

/// How long before its end a token is refreshed, and by how much of that more or less.
const LEAD: Duration = Duration::from_secs(5 * 60);
const MORE_OR_LESS: f64 = 0.1;
/// How soon after a refresh the next one may be, however short a service says that a token lives.
const SOONEST: Duration = Duration::from_secs(10);
/// The pause after a refresh that was in vain doubles from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);
/// How long an account is this node's. Asking takes seconds; the rest is for a database that is away afterwards.
const LEASE: Duration = Duration::from_secs(60);
/// Accounts that are refreshed at once, and that are set aside at once.
const AT_ONCE: usize = 8;
const EXPIRED_AT_ONCE: usize = 200;
/// How often accounts whose token has expired are looked for, in ticks.
const EXPIRE_EVERY: u32 = 5;
/// What `last_error` says where no key of the ring opens the refresh token.
pub(super) const UNREADABLE: &str = "unreadable";
/// The type of the notification that a user gets.
const REAUTH_REQUIRED: &str = "integration.reauth_required";

/// How long before its end this token is refreshed.
pub(super) fn lead() -> Duration {
    LEAD.mul_f64(rand::rng().random_range(1.0 - MORE_OR_LESS..1.0 + MORE_OR_LESS))
}

fn pause(attempts: u32) -> Duration {
    let most = FIRST_PAUSE.saturating_mul(1 << attempts.min(16)).min(LONGEST_PAUSE);
    most.mul_f64(rand::rng().random_range(0.5..1.0))
}

impl Accounts {
    /// Refreshes and sets aside what is due until it is stopped, which ends it between two batches.
    pub(super) async fn run(&self) {
        let mut outage = Outage::default();
        let mut ticks = 0_u32;
        loop {
            while !self.stop.is_cancelled() && self.pass(&mut outage).await {}
            if ticks.is_multiple_of(EXPIRE_EVERY) {
                outage.note("accounts", self.expire(None, Timestamp::now()).await);
            }
            ticks = ticks.wrapping_add(1);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// One batch of all services that answer, and one account of each that is to be tried; whether there may be more.
    async fn pass(&self, outage: &mut Outage) -> bool {
        let Some(ring) = &self.ring else { return false };
        let are = |state: State| {
            let endpoints = self.endpoints.iter().filter(move |(_, endpoint)| endpoint.service.readiness() == state);
            endpoints.map(|(name, _)| name.as_str())
        };
        let well: Vec<&str> = are(State::Closed).collect();
        let batches = std::iter::once((well, AT_ONCE)).chain(are(State::HalfOpen).map(|name| (vec![name], 1)));
        let mut leased = Vec::new();
        for (services, most) in batches.filter(|(services, _)| !services.is_empty()) {
            let now = Timestamp::now();
            let taken = self.notifications.store.lease_due_accounts(&services, most, now.after(LEASE), now).await;
            leased.extend(outage.note("accounts", taken).unwrap_or_default());
        }
        join_all(leased.iter().map(|account| self.refresh(ring, account))).await;
        leased.len() >= AT_ONCE
    }

    /// Refreshes an account at once, by a task that goes on if whoever waits for it does not. False if another one has it in its hands, or had.
    pub(super) async fn refresh_on_demand(self: &Arc<Self>, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
        let this = Arc::clone(self);
        let refreshing = self.tasks.spawn(async move {
            let Some(account) = this.notifications.store.lease_account(id, now.after(LEASE), now).await? else {
                return Ok(false);
            };
            if let Some(ring) = &this.ring {
                this.refresh(ring, &account).await;
            }
            Ok(true)
        });
        // A task that has panicked has told of itself; its lease ends by itself.
        refreshing.await.unwrap_or(Ok(false))
    }

    /// Refreshes an account that this node has leased, and keeps what became of it.
    async fn refresh(&self, ring: &KeyRing, account: &Account) {
        let mut refreshed = self.ask_for_tokens(ring, account).await;
        if let Refreshed::Ended { error } = refreshed
            && let Err(cause) = self.ask_user(account).await
        {
            tracing::error!(account = %account.id, error = %cause, "a user could not be asked to connect an account again");
            refreshed = Refreshed::Failed { error, again_at: Timestamp::now().after(pause(account.refresh_attempts)) };
        }
        let Some(kept) = self.keep(account, &refreshed).await else { return };
        let service = &account.service;
        match &refreshed {
            Refreshed::Done { .. } => {
                metrics::token_refreshed("done");
                tracing::debug!(account = %account.id, service, "a token was refreshed");
                if account.last_error.is_some() {
                    self.tell(&kept).await;
                }
            }
            Refreshed::Failed { error, .. } => {
                metrics::token_refreshed("failed");
                tracing::warn!(account = %account.id, service, error, "a token was not refreshed; it is tried again");
            }
            Refreshed::Postponed { .. } => {}
            Refreshed::Ended { error } => {
                metrics::token_refreshed("ended");
                tracing::info!(account = %account.id, service, error, "an account has to be connected again");
                self.tell(&kept).await;
            }
        }
    }

    async fn ask_for_tokens(&self, ring: &KeyRing, account: &Account) -> Refreshed {
        let failed =
            |error| Refreshed::Failed { error, again_at: Timestamp::now().after(pause(account.refresh_attempts)) };
        let place = account.place(TokenColumn::Refresh);
        let (Some(endpoint), Some(stored)) = (self.endpoints.get(&account.service), &account.refresh) else {
            return failed("not_configured");
        };
        let token = match ring.open(stored, place) {
            Ok(token) => token,
            Err(error) => {
                tracing::error!(account = %account.id, service = account.service, %error, "a stored token cannot be read");
                return failed(UNREADABLE);
            }
        };
        match endpoint.refresh(&token).await {
            Ok(Granted { access, refresh, lives, scopes }) => {
                let now = Timestamp::now();
                let expires_at = lives.map(|lives| now.after(lives));
                Refreshed::Done {
                    access: ring.seal(access.expose(), account.place(TokenColumn::Access)),
                    refresh: refresh.map(|refresh| ring.seal(refresh.expose(), place)),
                    expires_at,
                    refresh_at: expires_at.map(|at| refresh_at(at, lead(), now).max(now.after(SOONEST))),
                    scopes,
                }
            }
            Err(NotGranted::Revoked) => Refreshed::Ended { error: NotGranted::Revoked.code() },
            Err(NotGranted::Call(CallProblem::Call(CallError::Rejected(left)))) => {
                Refreshed::Postponed { again_at: Timestamp::now().after(left) }
            }
            Err(error) => failed(error.code()),
        }
    }

    /// Keeps it, however long that takes: a refresh token that is not kept is lost.
    async fn keep(&self, account: &Account, refreshed: &Refreshed) -> Option<Account> {
        let lease = account.lease?;
        loop {
            let now = Timestamp::now();
            match self.notifications.store.end_refresh(account.id, lease, refreshed, now).await {
                Ok(kept) => return kept,
                Err(error) if now >= lease || self.stop.is_cancelled() => {
                    let service = &account.service;
                    tracing::error!(account = %account.id, service, %error, "what became of a refresh could not be kept");
                    return None;
                }
                Err(_) => tokio::time::sleep(TICK).await,
            }
        }
    }

    /// Asks the user to connect an account again, unless that was done meanwhile. It is done before it is kept that the account has ended, so no
    /// crash in between can swallow it; and once for each time that it ends.
    async fn ask_user(&self, account: &Account) -> Result<(), StoreError> {
        let now = self.notifications.store.accounts(&account.app, &account.user, Some(&account.service)).await?;
        if now.iter().all(|now| now.id != account.id || now.lease != account.lease) {
            return Ok(());
        }
        let transaction_id = format!("{REAUTH_REQUIRED}:{}:{}", account.id, account.updated_at.as_micros());
        let service = &account.service;
        let wish = Wish {
            to: Recipients::Users(vec![account.user.clone()]),
            draft: Draft {
                kind: REAUTH_REQUIRED.to_owned(),
                title: format!("Connect {service} again"),
                message: Some(format!("The connection to {service} has ended.")),
                data: Some(serde_json::json!({ "service": service, "service_user_id": account.service_user })),
                ..Draft::default()
            },
            transaction_id: None,
            hash: transaction_id.clone(),
            deliver_at: None,
        };
        match self.notifications.create(&account.app, &wish, &transaction_id, Timestamp::now()).await {
            // The backend has taken it back.
            Ok(_) | Err(StoreError::Cancelled) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sets aside what has expired and cannot be refreshed, and tells their users' pages.
    pub(super) async fn expire(&self, only: Option<Uuid>, now: Timestamp) -> Result<(), StoreError> {
        let refreshable: Vec<&str> = self.endpoints.keys().map(String::as_str).collect();
        loop {
            let expired = self.notifications.store.expire_accounts(&refreshable, only, EXPIRED_AT_ONCE, now).await?;
            for account in &expired {
                self.tell(account).await;
            }
            if expired.len() < EXPIRED_AT_ONCE {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_all_refreshed_at_once() {
        let leads: Vec<Duration> = (0..50).map(|_| lead()).collect();
        assert!(leads.iter().all(|lead| (Duration::from_secs(270)..Duration::from_secs(330)).contains(lead)));
        assert!(leads.iter().any(|lead| *lead != leads[0]));
        for attempts in 0..40 {
            let most = FIRST_PAUSE.saturating_mul(1 << attempts.min(16)).min(LONGEST_PAUSE);
            assert!((most / 2..=most).contains(&pause(attempts)), "{attempts}");
        }
    }
}
