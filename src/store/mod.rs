//! What is kept: users, their notifications, what they want to hear of, and what is still to be sent (sections 8.2 to 8.8).
//!
//! [`Store`] is the contract; [`sqlite`] (the default, one file) and [`postgres`] keep it side by side, and `tests/store` runs every case over
//! both. A method is one transaction: done whole, or not at all. What its promises have in common:
//!
//! - Each inbox (app and user) has a revision. A change takes the next one in its own transaction, writes it to the rows it changed and an
//!   event with it to the outbox; many rows changed at once share one. So revisions have no gaps and are committed in their order. What
//!   changes nothing takes none.
//! - The clock is the caller's: `now` is given, nothing reads the database's clock.
//! - Locks are taken in the order deduplication, inbox, notifications, outbox; users in the order of their ids.
//! - A user is a row of `users`; where one is needed and none is known, an id alone is noted, unless the user was deleted.
//!
//! Not here: what may be asked for and by whom (`http`), when something is due (`notifications`).

pub mod event;
pub mod notification;
pub mod people;
pub mod postgres;
pub mod preferences;
pub mod sending;
pub mod sqlite;
pub mod time;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use notification::{
    Acted, ActedOnMany, Action, BySeverity, Changes, Cursor, Filter, InboxState, MarkAll, Notification, Page, Since,
};
use people::{Applied, Change, Ended, Inbound, Membership, Standing, User};
use preferences::{Channel, Preference, Settings};
use sending::{Audience, Create, Created, Job, JobStatus, NewJob, Outgoing, Task, Transaction};
use time::Timestamp;

/// Why something was not kept or not found out. Nothing is half done then.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, has no connection free in time, or did not answer in time.
    #[error("the database cannot be reached or does not answer in time")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It has no room left.
    #[error("the database has no room left")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The id of the request belongs to another one.
    #[error("this transaction id belongs to another request")]
    Conflict,
    /// The job of which this is a step was cancelled.
    #[error("the job was cancelled")]
    Cancelled,
    /// Its id alone does not say who the user is any more: deleted.
    #[error("the user was deleted")]
    UserDeleted,
    /// It says what makes no sense to Herald, or refuses a statement: a fault of ours, or a schema that others changed.
    #[error("the database refuses: {0}")]
    Broken(String),
}

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
pub trait Store: Debug + Send + Sync {
    /// The id that it got when it was made: nodes of one cluster must have the same.
    fn id(&self) -> Uuid;

    /// What it is, for the log and the health page: `sqlite` or `postgres`.
    fn kind(&self) -> &'static str;

    /// Returns when it answers.
    ///
    /// # Errors
    /// When it does not.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Ends its connections, after what is under way.
    async fn close(&self);

    // --- people ---

    /// What is to be known before this user is served with this session; and the membership in `org`, if one is asked about.
    async fn standing(&self, user: &str, session: Option<&str>, org: Option<&str>) -> Result<Standing, StoreError>;

    /// Notes what the app or the identity provider says of a user. False, and nothing is changed, when it is older news than what is known
    /// (by [`User::source_updated_at`]), or the user was deleted.
    async fn put_user(&self, user: &User, now: Timestamp) -> Result<bool, StoreError>;

    /// Notes a webhook and does what follows from it, in one transaction; one that was noted before does nothing. Deleting a user deletes
    /// all that belongs to it, its outbox and jobs too, and leaves a tombstone. Whoever is not to be served any more (session ended, user
    /// deleted or banned, membership left) is found by [`Store::ended_since`] afterwards.
    async fn apply(&self, inbound: &Inbound<'_>, change: &Change, now: Timestamp) -> Result<Applied, StoreError>;

    /// Who has been ended at or after that moment, in no particular order.
    async fn ended_since(&self, since: Timestamp) -> Result<Vec<Ended>, StoreError>;

    /// Which of these sessions have ended.
    async fn ended_sessions(&self, sessions: &[String]) -> Result<Vec<String>, StoreError>;

    // --- notifications ---

    /// Creates a notification for each recipient, with its event (section 8.5). A scheduled one gets neither revision nor event yet. A
    /// grouped one that meets an open item of its group makes that one grow: count, content, unseen, on top (unless it is snoozed).
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if any recipient has the transaction id with another hash, [`StoreError::Cancelled`].
    async fn create(&self, create: &Create<'_>, now: Timestamp) -> Result<Created, StoreError>;

    /// What is known of a request, `None` if nothing.
    async fn transaction(&self, app: &str, transaction_id: &str) -> Result<Option<Transaction>, StoreError>;

    /// Cancels a request: its job ends, what is not visible yet will never be, what is visible is deleted with an event for each inbox. At
    /// most `limit` inboxes in one call; false while there are more. `None` if nothing is known of it.
    async fn cancel(
        &self,
        app: &str,
        transaction_id: &str,
        limit: usize,
        now: Timestamp,
    ) -> Result<Option<bool>, StoreError>;

    /// Where an inbox stands.
    async fn state(&self, inbox: Inbox<'_>, now: Timestamp) -> Result<InboxState, StoreError>;

    /// Where several stand, in their order.
    async fn states(&self, inboxes: &[Inbox<'_>], now: Timestamp) -> Result<Vec<InboxState>, StoreError>;

    /// The unread ones by severity, and where the inbox stands.
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

    /// One notification, visible or not, but none that is deleted or was never announced; and where the inbox stands.
    async fn notification(
        &self,
        inbox: Inbox<'_>,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<(Notification, InboxState)>, StoreError>;

    /// Does these in their order to one notification: one revision, and one event (that of the action if one of them changed something,
    /// `updated` if several did). `None` if there is no such one ([`Store::notification`]).
    async fn act(
        &self,
        inbox: Inbox<'_>,
        id: Uuid,
        actions: &[Action],
        now: Timestamp,
    ) -> Result<Option<Acted>, StoreError>;

    /// Does this to several: one revision and one event that names those that changed. At most 100.
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

    // --- what becomes due ---

    /// Announces notifications that became visible (scheduled, snoozed, or inserted by others: those without a revision): a revision and an
    /// event each. At most `limit`; returns how many. Rows of the app `default` become the default app's first.
    async fn announce_due(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError>;

    /// Deletes notifications whose time is over, with an event (`"reason":"expired"`). At most `limit`; returns how many.
    async fn expire_due(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError>;

    /// Forgets what is old: deleted notifications, deduplication and webhooks after `keep` (raising the inbox's purged revision), delivered
    /// events, ended sessions and finished tasks after a day, tombstones of users after `keep`. In steps of at most `limit` rows of each;
    /// false while there are more.
    async fn purge(&self, keep: Duration, limit: usize, now: Timestamp) -> Result<bool, StoreError>;

    // --- outbox ---

    /// Takes events that wait, oldest first, and locks them until `locked_until`. Of one inbox always a run from its oldest: none while an
    /// older one of it is locked by another node or postponed.
    async fn take_outgoing(
        &self,
        limit: usize,
        locked_until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Outgoing>, StoreError>;

    /// These were published.
    async fn published(&self, ids: &[i64], now: Timestamp) -> Result<(), StoreError>;

    /// These were not published, and not by their fault: they are free again, and nothing is counted.
    async fn release(&self, ids: &[i64]) -> Result<(), StoreError>;

    /// This one cannot be published now by its own fault: one more attempt, not before `available_at`; `None` gives it up.
    async fn postpone(&self, id: i64, available_at: Option<Timestamp>, now: Timestamp) -> Result<(), StoreError>;

    // --- jobs for many users ---

    /// Notes a job. False if the same one was noted before.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the transaction id is another request's.
    async fn begin_job(&self, job: &NewJob<'_>, now: Timestamp) -> Result<bool, StoreError>;

    /// Takes a job that waits, or whose node has let go of it, and locks it.
    async fn take_job(&self, locked_until: Timestamp, now: Timestamp) -> Result<Option<Job>, StoreError>;

    /// The next users of an audience, sorted by the bytes of their ids, from behind `after`. Deleted ones are not among them.
    async fn audience(
        &self,
        app: &str,
        audience: &Audience,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError>;

    /// The job has ended.
    async fn end_job(&self, id: Uuid, status: JobStatus, error: Option<&str>, now: Timestamp)
    -> Result<(), StoreError>;

    // --- preferences and topics ---

    /// What a user has said, sorted.
    async fn preferences(&self, inbox: Inbox<'_>) -> Result<Vec<Preference>, StoreError>;

    /// Replaces these pairs of kind and channel.
    ///
    /// # Errors
    /// [`StoreError::UserDeleted`], as wherever a user's row is needed.
    async fn put_preferences(
        &self,
        inbox: Inbox<'_>,
        preferences: &[Preference],
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// What a user's own settings are for these patterns ([`sending::Wanted::patterns`]) and channel: the first that says anything.
    async fn preference(
        &self,
        inbox: Inbox<'_>,
        patterns: &[String],
        channel: Channel,
    ) -> Result<Option<bool>, StoreError>;

    /// A user's settings; those of one who has said nothing are the default.
    async fn settings(&self, inbox: Inbox<'_>) -> Result<Settings, StoreError>;

    /// Replaces them.
    async fn put_settings(&self, inbox: Inbox<'_>, settings: &Settings, now: Timestamp) -> Result<(), StoreError>;

    /// The topics that a user follows, sorted.
    async fn topics(&self, inbox: Inbox<'_>) -> Result<Vec<String>, StoreError>;

    /// Follows a topic, or ceases to. Returns whether that changed anything.
    async fn follow(&self, inbox: Inbox<'_>, topic: &str, follows: bool, now: Timestamp) -> Result<bool, StoreError>;

    /// The members of an organization that are known: of one user only.
    async fn membership(&self, org: &str, user: &str) -> Result<Option<Membership>, StoreError>;

    // --- tasks ---

    /// Notes a task, unless one of its kind with this key is there.
    async fn add_task(&self, task: &Task, dedupe_key: &str, available_at: Timestamp) -> Result<bool, StoreError>;

    /// Takes tasks of this kind that are due, and locks them.
    async fn take_tasks(
        &self,
        kind: &str,
        limit: usize,
        locked_until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError>;

    /// The task is done.
    async fn finish_task(&self, id: Uuid, now: Timestamp) -> Result<(), StoreError>;

    /// The task is tried again then; `counts` says whether this attempt is counted.
    async fn retry_task(&self, id: Uuid, available_at: Timestamp, counts: bool, error: &str) -> Result<(), StoreError>;

    // --- tokens at rest ---

    /// How many tokens there are under each key, by the key's id (section 8.4).
    async fn tokens_by_key(&self) -> Result<Vec<(String, u64)>, StoreError>;

    /// A batch of rows with a token that is not under `key`, from behind the row `after`.
    async fn tokens_not_under(
        &self,
        key: &str,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<StoredTokens>, StoreError>;

    /// Replaces a token if it still is `old`. Returns whether it was.
    async fn replace_token(&self, id: Uuid, column: TokenColumn, old: &str, new: &str) -> Result<bool, StoreError>;
}

/// The tokens of one row of `user_integrations`, as they are kept: encrypted, each bound to its row and column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTokens {
    /// The row.
    pub id: Uuid,
    /// Whose.
    pub app: String,
    /// Whose.
    pub user: String,
    /// The service.
    pub service: String,
    /// The user's id there.
    pub service_user: String,
    /// See [`TokenColumn::Access`].
    pub access: Option<String>,
    /// See [`TokenColumn::Refresh`].
    pub refresh: Option<String>,
}

/// Which token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenColumn {
    /// The one that opens the service.
    Access,
    /// The one that renews it.
    Refresh,
}

impl TokenColumn {
    /// The column's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access_token_enc",
            Self::Refresh => "refresh_token_enc",
        }
    }
}
