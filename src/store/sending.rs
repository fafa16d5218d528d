//! What is to be sent: the creation of notifications, its long-running form, and what leaves for the apps (sections 8.5 to 8.8).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::notification::Draft;
use super::time::Timestamp;

/// A notification for several users. In one transaction all of them get it, or none.
#[derive(Clone, Debug)]
pub struct Create<'a> {
    /// Whose inboxes.
    pub app: &'a str,
    /// The id of the request; each user gets what has it once.
    pub transaction_id: &'a str,
    /// What was asked for; the same id with another hash is refused.
    pub request_hash: &'a str,
    /// At most [`MAX_RECIPIENTS`], sorted by bytes, each once: two requests in different order would wait for each other for ever.
    pub recipients: &'a [String],
    /// What it says.
    pub draft: &'a Draft,
    /// From when on it is in the inbox; at once if that is not in the future. Never together with a group.
    pub deliver_at: Option<Timestamp>,
    /// Whether users that nobody has told of get nothing; else they become known.
    pub only_known: bool,
    /// What the users' preferences are asked for; `None` if they are not (mandatory, critical).
    pub wanted: Option<Wanted<'a>>,
    /// Whether a dispatch job is to be made for each of them (section 8.8): for those too whose preferences keep it out of the inbox.
    pub dispatch: bool,
    /// The job of which this is a step: its progress is noted in the same transaction.
    pub job: Option<JobStep>,
}

/// Users of one [`Create`].
pub const MAX_RECIPIENTS: usize = 1_000;

/// Whether users want a notification in their inbox: the first of their own settings for these patterns, or the application's.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The type and its prefixes from long to short: `a.b`, `a.*`, `*`.
    pub patterns: &'a [String],
    /// What holds for users who have said nothing.
    pub otherwise: bool,
}

/// How a creation went; each recipient is in one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Created {
    /// How many got it.
    pub created: u64,
    /// How many had it already.
    pub duplicates: u64,
    /// How many do not want such ones.
    pub suppressed: u64,
    /// Who is not known, or deleted.
    pub unknown: Vec<String>,
}

/// What is known of a request by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Users who got it.
    pub created: u64,
    /// Users who did not want it.
    pub suppressed: u64,
    /// Of those who got it: who has seen it.
    pub seen: u64,
    /// Of those who got it: who has read it.
    pub read: u64,
    /// Of those who got it: whose inbox it has left again (deleted, expired, cancelled).
    pub deleted: u64,
    /// The job that sends it, if it is one.
    pub job: Option<JobProgress>,
}

/// For whom a long-running creation is.
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

/// A creation for more users than one transaction takes.
#[derive(Clone, Debug, PartialEq)]
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
    /// The notification, and whatever else its steps need.
    pub template: &'a Value,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobProgress {
    /// Whether it waits, runs, or has ended, and how.
    pub status: JobStatus,
    /// Users who got it so far.
    pub created: u64,
    /// Users who did not want it.
    pub suppressed: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// See [`JobProgress::status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
    /// See [`NewJob::template`].
    pub template: Value,
    /// The last user, by bytes of the id, that has been served; empty at the beginning.
    pub last_user: String,
}

/// A step of a job, done by the transaction that creates its notifications.
#[derive(Clone, Copy, Debug)]
pub struct JobStep {
    /// Which job. It is over if it was cancelled meanwhile: [`super::StoreError::Cancelled`].
    pub id: Uuid,
    /// Until when no other node takes it.
    pub locked_until: Timestamp,
}

/// An event of an inbox that was committed and is to be published.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Its place in the outbox.
    pub id: i64,
    /// Whose inbox.
    pub app: String,
    /// Whose inbox.
    pub user: String,
    /// The revision that it is about.
    pub rev: i64,
    /// Its name.
    pub event: String,
    /// Its data: a JSON object.
    pub payload: String,
    /// Attempts before this one that failed by its own fault.
    pub attempts: u32,
}

/// A piece of work for later that outlives a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its id.
    pub id: Uuid,
    /// What kind of work.
    pub kind: String,
    /// For whom.
    pub user: Option<String>,
    /// What is needed for it.
    pub payload: Value,
    /// Attempts before this one.
    pub attempts: u32,
    /// When it was made.
    pub created_at: Timestamp,
}
