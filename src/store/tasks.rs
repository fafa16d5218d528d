//! Work that is left to be done outside of the database, such as what the app's own sender of mail is told (section 8.8). A task is noted by
//! the transaction that causes it, worked on by one node at a time, and tried again until it is done or given up.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::StoreError;
use super::time::Timestamp;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// A notification goes by other ways than the inbox: [`Dispatch`].
    Dispatch,
    /// A file is deleted at its service: [`files::Destroy`](super::files::Destroy).
    Destroy,
    /// Crisp is asked whose a conversation is: [`Lookup`](crate::integrations::crisp::lookup::Lookup).
    SupportLookup,
    /// A message goes into a user's conversation at Crisp: [`Message`](crate::integrations::crisp::send::Message).
    SupportMessage,
    /// What is kept of an account is written into the user's metadata at Clerk: [`accounts::SyncMetadata`](super::accounts::SyncMetadata).
    Metadata,
}

impl TaskKind {
    /// Its name, as it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dispatch => "dispatch",
            Self::Destroy => "cloudinary.destroy",
            Self::SupportLookup => "crisp.lookup",
            Self::SupportMessage => "crisp.message",
            Self::Metadata => "clerk.metadata",
        }
    }
}

/// What a task of the kind [`TaskKind::Dispatch`] is about: what it says is read when it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// Whose inbox: the app's id.
    pub app: String,
    /// Which notification.
    pub notification: Uuid,
}

/// A task to be noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask<'a> {
    /// What is to be done.
    pub kind: TaskKind,
    /// Of the tasks of one kind with the same key only the first is noted.
    pub dedupe_key: &'a str,
    /// Whom it is about, if it is to go with this user.
    pub user: Option<&'a str>,
    /// The rest, as JSON.
    pub payload: &'a str,
    /// From when on it may be done.
    pub available_at: Timestamp,
}

/// A task that was taken to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: Uuid,
    /// Whom it is about, if it is about somebody: it goes with this user.
    pub user: Option<String>,
    /// The rest, as JSON.
    pub payload: String,
    /// How often it was tried in vain.
    pub attempts: u32,
}

/// See the module.
#[async_trait]
pub trait Tasks {
    /// Notes a task that follows from nothing else that is kept. False if there was one with its key.
    async fn add_task(&self, task: &NewTask<'_>, now: Timestamp) -> Result<bool, StoreError>;

    /// Takes tasks that are due, by the time they are due at and their users, and locks them.
    async fn take_tasks(
        &self,
        kind: TaskKind,
        limit: usize,
        locked_until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError>;

    /// These are done; or given up, for this reason.
    async fn finish_tasks(&self, ids: &[Uuid], given_up: Option<&str>, now: Timestamp) -> Result<(), StoreError>;

    /// These are free again, and due then. `failed` says why an attempt was in vain, if there was one.
    async fn postpone_tasks(&self, ids: &[Uuid], until: Timestamp, failed: Option<&str>) -> Result<(), StoreError>;
}
