//! What is to be sent: the creation of notifications, and the events that follow (sections 8.5 and 8.7).

use super::jobs::JobStep;
use super::notification::Draft;
use super::time::Timestamp;

/// A notification for several users. In one transaction all of them get it, or none.
#[derive(Clone, Copy, Debug)]
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
    /// What the users' preferences are asked for; `None` if they are not.
    pub wanted: Option<Wanted<'a>>,
    /// The job of which this is a step.
    pub job: Option<JobStep<'a>>,
}

/// Whether users want a notification in their inbox: the first of their own preferences for these patterns, or the application's.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The type and its prefixes from long to short: `a.b`, `a.*`, `*`.
    pub patterns: &'a [String],
    /// What holds for users who have said nothing.
    pub otherwise: bool,
}

/// Users of one [`Create`].
pub const MAX_RECIPIENTS: usize = 1_000;

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

/// An event of an inbox that was committed and is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Since when it waits.
    pub created_at: Timestamp,
}
