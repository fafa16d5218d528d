//! What is kept: users, their notifications, and what is still to be told of them (sections 8.2 to 8.7).
//!
//! [`Store`] is the contract, in parts by what they are about; [`sqlite`] keeps it in one file. A method is one transaction: done
//! whole, or not at all. What its promises have in common:
//!
//! - Each inbox (app and user) has a revision. A change takes the next one in its own transaction, writes it to the rows it changed and an
//!   event with it to the outbox; many rows changed at once share one. So revisions have no gaps and are committed in their order. What
//!   changes nothing takes none.
//! - The clock is the caller's: `now` is given, nothing reads the database's clock.
//! - Locks are taken in the order deduplication, inbox, notifications, outbox; users in the order of their ids.
//! - A user is a row of `users`; where one is needed and none is known, an id alone is noted, unless the user was deleted.
//!
//! Not here: what may be asked for and by whom (`http`), when something is due (`notifications`).

pub mod accounts;
pub mod action;
pub mod error;
pub mod event;
pub mod files;
pub mod jobs;
pub mod notification;
pub mod open;
pub mod people;
pub mod postgres;
pub mod preferences;
pub mod sending;
pub mod sqlite;
pub mod support;
pub mod tasks;
pub mod time;
pub mod tokens;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

pub use error::StoreError;

use accounts::Accounts;
use action::{Action, MarkAll};
use files::Files;
use jobs::Jobs;
#[cfg(doc)]
use notification::Counts;
use notification::{Acted, ActedOnMany, BySeverity, Changes, Cursor, Filter, InboxState, Notification, Page, Since};
use people::{Applied, Change, Ended, Inbound, Standing, User};
use preferences::Preferences;
use sending::{Create, Created, Outgoing};
use support::Support;
use tasks::Tasks;
use time::Timestamp;
use tokens::Tokens;

/// Whose inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inbox<'a> {
    /// The app's id.
    pub app: &'a str,
    /// The user's id.
    pub user: &'a str,
}

/// See the module.
#[async_trait]
pub trait Store:
    People + Inboxes + Jobs + Preferences + Outbox + Tasks + Tokens + Accounts + Files + Support + Debug + Send + Sync
{
    /// Returns when it answers.
    ///
    /// # Errors
    /// When it does not.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Which store it is: every node that opens it finds the same id.
    async fn id(&self) -> Result<Uuid, StoreError>;

    /// Forgets what is old: deleted notifications, deduplication, webhooks, tombstones and conversations that are nobody's after `keep`, delivered events and ended sessions
    /// after a day. At most `limit` rows of each; returns whether that was all.
    async fn purge(&self, keep: Duration, limit: usize, now: Timestamp) -> Result<bool, StoreError>;

    /// Ends its connections, after what is under way.
    async fn close(&self);
}

/// Who is known, and who is not served any more.
#[async_trait]
pub trait People {
    /// What is to be known before this user is served with this session, as a member of this organization.
    async fn standing(&self, user: &str, session: Option<&str>, org: Option<&str>) -> Result<Standing, StoreError>;

    /// Notes what a backend says of a user. False, and nothing is changed, when it is older news than what is known, or the user was deleted.
    async fn put_user(&self, user: &User, now: Timestamp) -> Result<bool, StoreError>;

    /// Whoever it is becomes known, by the id alone if nothing else is. False for one who was deleted.
    async fn meet(&self, user: &str, now: Timestamp) -> Result<bool, StoreError>;

    /// Notes a webhook and does what follows from it, in one transaction; one that was noted before does nothing. Deleting a user deletes
    /// all that belongs to it, its outbox too, notes a task for each of its files, and leaves a tombstone. Whoever is not to be served any more (session ended, user deleted or
    /// banned, membership left) is found by [`People::ended_since`] afterwards.
    async fn apply(&self, inbound: &Inbound<'_>, change: &Change, now: Timestamp) -> Result<Applied, StoreError>;

    /// Who has been ended at or after that moment, in no particular order.
    async fn ended_since(&self, since: Timestamp) -> Result<Vec<Ended>, StoreError>;
}

/// Notifications: made, read, changed.
#[async_trait]
pub trait Inboxes {
    /// Creates a notification for each recipient, with its event (section 8.5). A scheduled one gets neither revision nor event yet. A
    /// grouped one that meets an open item of its group makes that one grow: count, content, unseen, on top (unless it is snoozed).
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if any recipient has the transaction id with another hash, or a job has it; [`StoreError::Cancelled`].
    async fn create(&self, create: &Create<'_>, now: Timestamp) -> Result<Created, StoreError>;

    /// Where an inbox stands.
    async fn state(&self, inbox: Inbox<'_>, now: Timestamp) -> Result<InboxState, StoreError>;

    /// The unread ones by severity, counted as [`Counts::unread`], and where the inbox stands.
    async fn by_severity(&self, inbox: Inbox<'_>, now: Timestamp) -> Result<(BySeverity, InboxState), StoreError>;

    /// A page of the notifications that `filter` means, newest first by `visible_at` and id.
    async fn list(
        &self,
        inbox: Inbox<'_>,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page, StoreError>;

    /// What has changed since. Asks for a reset when `since` is older than what was purged, or ahead of the inbox.
    async fn changes(
        &self,
        inbox: Inbox<'_>,
        since: Since,
        limit: usize,
        now: Timestamp,
    ) -> Result<Changes, StoreError>;

    /// One notification, visible or snoozed, and where the inbox stands; `None` for one that is deleted or was never visible.
    async fn notification(
        &self,
        inbox: Inbox<'_>,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<(Notification, InboxState)>, StoreError>;

    /// Does these in their order to one notification: one revision, and one event (that of the action if one of them changed something,
    /// `updated` if several did). `None` if there is no such one ([`Inboxes::notification`]).
    async fn act(
        &self,
        inbox: Inbox<'_>,
        id: Uuid,
        actions: &[Action],
        now: Timestamp,
    ) -> Result<Option<Acted>, StoreError>;

    /// Does this to several: one revision and one event that names those that changed.
    async fn act_on_many(
        &self,
        inbox: Inbox<'_>,
        ids: &[Uuid],
        action: Action,
        now: Timestamp,
    ) -> Result<ActedOnMany, StoreError>;

    /// Does this to all that `filter` means and that are no newer than `up_to_rev`: one revision, one event. Returns how many changed.
    async fn mark_all(
        &self,
        inbox: Inbox<'_>,
        action: MarkAll,
        up_to_rev: i64,
        filter: &Filter,
        now: Timestamp,
    ) -> Result<(u64, InboxState), StoreError>;

    /// Announces notifications that became visible (scheduled, snoozed, or inserted by others): a revision and an event each. At most
    /// `limit`; returns how many. Rows of the app `default` become the default app's first.
    async fn announce_due(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError>;

    /// Deletes notifications whose time is over, with an event (`"reason":"expired"`). At most `limit`; returns how many.
    async fn expire_due(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError>;
}

/// Events that were committed and are to be published.
#[async_trait]
pub trait Outbox {
    /// Takes events that wait, oldest first, and locks them until `locked_until`. Of one inbox always a run from its oldest: none while an
    /// older one of it is locked by another node.
    async fn take_outgoing(
        &self,
        limit: usize,
        locked_until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Outgoing>, StoreError>;

    /// These were published.
    async fn published(&self, ids: &[i64], now: Timestamp) -> Result<(), StoreError>;

    /// These were not published, and not by their fault: they are free again.
    async fn release(&self, ids: &[i64]) -> Result<(), StoreError>;
}
