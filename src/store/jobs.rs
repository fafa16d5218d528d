//! A creation for more users than one transaction takes, and what became of any creation (section 8.6).
//!
//! A job serves its audience in the order of the users' ids. Each step notes in its own transaction how far it came, so whoever takes a job
//! over goes on behind the last user that got it, and nobody gets it twice.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::StoreError;
use super::notification::Draft;
use super::time::Timestamp;

/// For whom a creation is, if not for users who are named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Those who follow a topic.
    Topic(String),
    /// The members of an organization.
    OrgId(String),
    /// Everybody who is known.
    All,
}

/// What each step of a job creates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// The notification.
    pub draft: Draft,
    /// From when on it is in the inboxes.
    pub deliver_at: Option<Timestamp>,
    /// Who of the audience does not get it.
    pub excluded: Vec<String>,
}

/// A job that begins.
#[derive(Clone, Copy, Debug)]
pub struct NewJob<'a> {
    /// Its id.
    pub id: Uuid,
    /// Whose inboxes.
    pub app: &'a str,
    /// The id of the request.
    pub transaction_id: &'a str,
    /// What was asked for.
    pub request_hash: &'a str,
    /// For whom.
    pub audience: &'a Audience,
    /// What.
    pub template: &'a Template,
}

/// A job that was taken to be worked on.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: Uuid,
    /// Whose inboxes.
    pub app: String,
    /// The id of the request.
    pub transaction_id: String,
    /// What was asked for.
    pub request_hash: String,
    /// For whom.
    pub audience: Audience,
    /// What.
    pub template: Template,
    /// The last user, by the bytes of the id, that has been served; empty at the beginning.
    pub last_user: String,
}

/// A step of a job, noted by the transaction that creates its notifications.
#[derive(Clone, Copy, Debug)]
pub struct JobStep<'a> {
    /// Which job.
    pub id: Uuid,
    /// The last user of the audience that it has looked at.
    pub last_user: &'a str,
    /// Until when no other node takes it.
    pub locked_until: Timestamp,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobProgress {
    /// Whether it waits, runs, or has ended, and how.
    pub status: JobStatus,
    /// Users who got it so far.
    pub created: u64,
    /// Users who do not want such ones.
    pub suppressed: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// See [`JobProgress::status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Nobody has begun it.
    Pending,
    /// A node works on it.
    Running,
    /// All have it.
    Done,
    /// It cannot be done.
    Failed,
    /// Nobody wants it any more.
    Cancelled,
}

impl JobStatus {
    /// Its name, as it is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let all = [Self::Pending, Self::Running, Self::Done, Self::Failed, Self::Cancelled];
        all.into_iter().find(|status| status.as_str() == name)
    }
}

/// What is known of a request by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Users who got it.
    pub created: u64,
    /// Of those: who has seen it.
    pub seen: u64,
    /// Of those: who has read it.
    pub read: u64,
    /// Of those: whose inbox it has left again (deleted, expired, cancelled).
    pub deleted: u64,
    /// The job that sends it, if it is one.
    pub job: Option<JobProgress>,
}

/// See the module.
#[async_trait]
pub trait Jobs {
    /// Notes a job. False if the same one was noted before.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the transaction id is another request's.
    async fn begin_job(&self, job: &NewJob<'_>, now: Timestamp) -> Result<bool, StoreError>;

    /// Takes a job that waits, or whose node has let go of it, and locks it.
    async fn take_job(&self, locked_until: Timestamp, now: Timestamp) -> Result<Option<Job>, StoreError>;

    /// The next users of an audience, sorted by the bytes of their ids, from behind `after`.
    async fn audience(
        &self,
        app: &str,
        audience: &Audience,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError>;

    /// The job has ended so; one that was cancelled stays so.
    async fn end_job(&self, id: Uuid, status: JobStatus, error: Option<&str>, now: Timestamp)
    -> Result<(), StoreError>;

    /// What became of a request; `None` if nothing is known of it.
    async fn transaction(&self, app: &str, transaction_id: &str) -> Result<Option<Transaction>, StoreError>;

    /// Cancels a request: its job ends, what was not visible yet will never be, what is visible is deleted with an event for each inbox. At
    /// most `limit` notifications in one call; false while there are more. `None` if nothing is known of it.
    async fn cancel(
        &self,
        app: &str,
        transaction_id: &str,
        limit: usize,
        now: Timestamp,
    ) -> Result<Option<bool>, StoreError>;

    /// The topics that a user follows, sorted.
    async fn topics(&self, app: &str, user: &str) -> Result<Vec<String>, StoreError>;

    /// The user follows the topic from now on, or ceases to. Returns whether that changed anything; a user that was deleted follows nothing.
    async fn follow(
        &self,
        app: &str,
        user: &str,
        topic: &str,
        follows: bool,
        now: Timestamp,
    ) -> Result<bool, StoreError>;
}
