//! Who is known: users, their organizations, their sessions that have ended; and what a third party's webhook tells of them (section
//! 1.11).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::time::Timestamp;

/// A user: what the identity provider tells of one, or an id alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// The identity provider's id.
    pub id: String,
    /// The verified primary address, if there is one.
    pub email: Option<String>,
    /// The name to show.
    pub name: Option<String>,
    /// A picture.
    pub image_url: Option<String>,
    /// A language, such as `de-AT`.
    pub locale: Option<String>,
    /// A zone of the IANA database.
    pub timezone: Option<String>,
    /// What everybody may know: an object.
    pub public_metadata: Value,
    /// Whether the identity provider lets nobody in as this user.
    pub banned: bool,
    /// When the provider changed it last, in Unix milliseconds; 0 for an id alone.
    pub source_updated_at: i64,
}

/// What is to be known before somebody is served.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// The row, if there is one.
    pub user: Option<User>,
    /// Whether the user was deleted.
    pub is_deleted: bool,
    /// Whether the session has ended.
    pub is_session_ended: bool,
    /// Whether the user was a member of the organization that was asked about, and is no more.
    pub has_left: bool,
}

impl Standing {
    /// Whether a request of that user and session is refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.is_deleted || self.is_session_ended || self.user.as_ref().is_some_and(|user| user.banned)
    }
}

/// A third party's webhook, as it is noted so that its repetition does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound<'a> {
    /// Whose it is, such as `clerk`.
    pub source: &'a str,
    /// The sender's id of it, the same at every repetition.
    pub event_id: &'a str,
    /// What it is called there.
    pub kind: &'a str,
}

/// What a webhook says has changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The user is so now; older news than what is known changes nothing, nor does any of a deleted user.
    User(User),
    /// The user is gone, with all that belongs to it, and does not come back.
    UserDeleted {
        /// Who.
        id: String,
    },
    /// The session has ended.
    SessionEnded {
        /// Which.
        session: String,
        /// Whose.
        user: Option<String>,
    },
    /// The user is a member with this role now; older news changes nothing.
    Member {
        /// Of which organization.
        org: String,
        /// Who.
        user: String,
        /// As what.
        role: String,
        /// When, in Unix milliseconds.
        updated_at: i64,
    },
    /// The user is no member any more; older news than what is known changes nothing.
    MemberLeft {
        /// Of which organization.
        org: String,
        /// Who.
        user: String,
        /// When, in Unix milliseconds.
        updated_at: i64,
    },
    /// The organization is gone, and with it its memberships.
    OrgDeleted {
        /// Which.
        org: String,
    },
    /// Nothing that is kept.
    Nothing,
}

/// What became of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It has changed something, now.
    Done,
    /// It is older than what is known, or about somebody deleted, or about nothing that is kept.
    Unchanged,
    /// It was applied before.
    Repeated,
}

/// Who is not to be served any more, since a moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// A session.
    Session {
        /// Which.
        session: String,
        /// Whose, if that is known.
        user: Option<String>,
        /// When.
        at: Timestamp,
    },
    /// A user, deleted or banned.
    User {
        /// Who.
        user: String,
        /// When.
        at: Timestamp,
    },
    /// A user's membership.
    Membership {
        /// Who.
        user: String,
        /// Of which organization.
        org: String,
        /// When.
        at: Timestamp,
    },
}
