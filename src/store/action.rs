//! What can be done to a notification, and what it makes of one (section 8.5): the same whatever keeps it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::notification::{Draft, Notification};
use super::time::Timestamp;

/// What is done to a notification. Repeating it changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was shown.
    Seen,
    /// It was read, and so seen.
    Read,
    /// As if it was not read.
    Unread,
    /// Put away.
    Archive,
    /// Taken back.
    Unarchive,
    /// Hidden until then.
    Snooze(Timestamp),
    /// Back in the inbox, unread and on top; nothing for one that is not snoozed.
    Unsnooze,
    /// Gone.
    Delete,
}

/// What can be done to all of an inbox at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MarkAll {
    /// They were shown.
    Seen,
    /// They were read, and so seen.
    Read,
    /// Put away.
    Archive,
}

impl Action {
    /// Does it to a notification; false if that changes nothing. One that comes back into the inbox may meet another open item of its
    /// group: that is for the store to look after.
    pub fn apply(self, to: &mut Notification, now: Timestamp) -> bool {
        let before = to.clone();
        match self {
            Self::Seen => to.seen_at = to.seen_at.or(Some(now)),
            Self::Read => {
                to.seen_at = to.seen_at.or(Some(now));
                to.read_at = to.read_at.or(Some(now));
            }
            Self::Unread => to.read_at = None,
            Self::Archive => to.archived_at = to.archived_at.or(Some(now)),
            Self::Unarchive => to.archived_at = None,
            Self::Snooze(until) => (to.snoozed_until, to.visible_at) = (Some(until), until),
            Self::Unsnooze if to.snoozed_until.is_some() => {
                (to.snoozed_until, to.visible_at, to.read_at) = (None, now, None);
            }
            Self::Unsnooze => {}
            Self::Delete => {
                let Draft { kind, severity, org_id, expires_at, .. } = std::mem::take(&mut to.draft);
                to.draft = Draft { kind, severity, org_id, expires_at, ..Draft::default() };
                to.deleted_at = Some(now);
            }
        }
        *to != before
    }
}

impl From<MarkAll> for Action {
    fn from(action: MarkAll) -> Self {
        match action {
            MarkAll::Seen => Self::Seen,
            MarkAll::Read => Self::Read,
            MarkAll::Archive => Self::Archive,
        }
    }
}
