//! The events of an inbox, as the outbox keeps them and clients get them (section 8.7): a name and an envelope with the revision, the
//! counts, and what has changed.
//!
//! Both databases write them in the transaction of the change, so the counts are those of that revision.

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::action::{Action, MarkAll};
use super::notification::{Filter, InboxState, Notification};
use super::time::Timestamp;

/// What an envelope may have in bytes. A larger one loses content, first of all `data`, and says `truncated`: the client fetches the item.
pub const MAX_BYTES: usize = 8 * 1024;

/// The name of an event about single notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventName {
    /// New, or a scheduled one became visible.
    Created,
    /// A group grew, or several things changed at once.
    Updated,
    /// See [`Action::Seen`].
    Seen,
    /// See [`Action::Read`].
    Read,
    /// See [`Action::Unread`].
    Unread,
    /// See [`Action::Archive`].
    Archived,
    /// See [`Action::Unarchive`].
    Unarchived,
    /// See [`Action::Snooze`].
    Snoozed,
    /// See [`Action::Unsnooze`]; also when its time has come.
    Unsnoozed,
    /// See [`Action::Delete`].
    Deleted,
}

impl EventName {
    /// As it goes over the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "notification.created",
            Self::Updated => "notification.updated",
            Self::Seen => "notification.seen",
            Self::Read => "notification.read",
            Self::Unread => "notification.unread",
            Self::Archived => "notification.archived",
            Self::Unarchived => "notification.unarchived",
            Self::Snoozed => "notification.snoozed",
            Self::Unsnoozed => "notification.unsnoozed",
            Self::Deleted => "notification.deleted",
        }
    }
}

impl From<Action> for EventName {
    fn from(action: Action) -> Self {
        match action {
            Action::Seen => Self::Seen,
            Action::Read => Self::Read,
            Action::Unread => Self::Unread,
            Action::Archive => Self::Archived,
            Action::Unarchive => Self::Unarchived,
            Action::Snooze(_) => Self::Snoozed,
            Action::Unsnooze => Self::Unsnoozed,
            Action::Delete => Self::Deleted,
        }
    }
}

/// The name of the event that tells of an action on all of an inbox.
#[must_use]
pub const fn all_name(action: MarkAll) -> &'static str {
    match action {
        MarkAll::Seen => "inbox.all_seen",
        MarkAll::Read => "inbox.all_read",
        MarkAll::Archive => "inbox.all_archived",
    }
}

/// What has changed.
#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    /// One notification, as it is now.
    One(&'a Notification),
    /// One that is gone; the reason, if it was not somebody's wish.
    Gone(Uuid, Option<&'static str>),
    /// These, all in the same way.
    Many(&'a [Uuid]),
    /// All that the filter means and that have not changed after this revision.
    All {
        /// The revision.
        up_to_rev: i64,
        /// Which of them.
        filter: &'a Filter,
    },
}

/// Data of an event: a JSON object of at most [`MAX_BYTES`].
#[must_use]
pub fn envelope(app: &str, user: &str, state: InboxState, at: Timestamp, about: About<'_>) -> String {
    let mut envelope = json!({
        "id": format!("{app}:{user}:{}", state.rev),
        "rev": state.rev,
        "at": at,
        "counts": state.counts,
    });
    match about {
        About::One(notification) => set(&mut envelope, "notification", notification),
        About::Gone(id, reason) => {
            envelope["notification"] = json!({ "id": id });
            if let Some(reason) = reason {
                envelope["reason"] = reason.into();
            }
        }
        About::Many(ids) => set(&mut envelope, "ids", ids),
        About::All { up_to_rev, filter } => {
            envelope["up_to_rev"] = up_to_rev.into();
            set(&mut envelope, "filter", filter);
        }
    }
    fit(envelope)
}

fn set(envelope: &mut Value, member: &str, value: impl Serialize) {
    // Strings, numbers and maps with string keys are what these values are made of: they always have a JSON form.
    envelope[member] = serde_json::to_value(value).unwrap_or_default();
}

/// Takes content out until the rest fits.
fn fit(mut envelope: Value) -> String {
    let mut text = envelope.to_string();
    for member in ["data", "message", "object", "actor", "image_url", "action_url"] {
        let excess = text.len().saturating_sub(MAX_BYTES);
        if excess == 0 {
            break;
        }
        let Some(content) = envelope.get_mut("notification").and_then(|notification| notification.get_mut(member))
        else {
            continue;
        };
        let kept = match content {
            // What has to go of it, and room for the mark; a character may take six bytes in JSON, so half of it may be too little.
            Value::String(message) if member == "message" => shortened(message, excess + 32),
            _ => None,
        };
        *content = kept.map_or(Value::Null, Value::String);
        envelope["truncated"] = true.into();
        text = envelope.to_string();
        if text.len() > MAX_BYTES {
            envelope["notification"][member] = Value::Null;
            text = envelope.to_string();
        }
    }
    text
}

/// The beginning of a text without `excess` bytes at its end.
fn shortened(text: &str, excess: usize) -> Option<String> {
    let keep = text.len().checked_sub(excess)?;
    let end = text
        .char_indices()
        .map(|(start, character)| start + character.len_utf8())
        .take_while(|end| *end <= keep)
        .last()?;
    text.get(..end).map(|kept| format!("{kept}…"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::notification::{Counts, Draft};

    fn notification(message: &str, data: Value) -> Notification {
        let now = Timestamp::from_micros(1_790_000_000_000_000);
        Notification {
            id: Uuid::from_u128(7),
            draft: Draft {
                kind: "comment.mentioned".to_owned(),
                title: "Jane mentioned you".to_owned(),
                message: Some(message.to_owned()),
                data: Some(data),
                ..Draft::default()
            },
            transaction_id: None,
            group_count: 1,
            rev: Some(42),
            visible_at: now,
            seen_at: None,
            read_at: None,
            archived_at: None,
            snoozed_until: None,
            deleted_at: None,
            created_at: now,
            updated_at: now,
        }
    }

    fn of(notification: &Notification) -> (usize, Value) {
        let state = InboxState { rev: 42, counts: Counts { unread: 3, unseen: 1 } };
        let text = envelope("shop", "user_1", state, Timestamp::EPOCH, About::One(notification));
        (text.len(), serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn an_event_says_where_the_inbox_stands_and_what_has_changed() {
        let (_, event) = of(&notification("Hello", json!({ "a": 1 })));
        assert_eq!(event["id"], "shop:user_1:42");
        assert_eq!(event["counts"], json!({ "unread": 3, "unseen": 1 }));
        assert_eq!(event["notification"]["type"], "comment.mentioned");
        assert_eq!(event["notification"]["data"], json!({ "a": 1 }));
        assert!(event.get("truncated").is_none());
    }

    #[test]
    fn what_is_too_large_loses_data_first_and_then_the_end_of_the_message() {
        let (size, event) = of(&notification("Hello", json!("x".repeat(9_000))));
        assert!(size <= MAX_BYTES);
        assert_eq!((&event["notification"]["data"], &event["truncated"]), (&Value::Null, &json!(true)));
        assert_eq!(event["notification"]["message"], "Hello");
        for long in ["x".repeat(9_000), "\u{1}".repeat(9_000), "ä😀".repeat(3_000), "\"".repeat(9_999)] {
            let (size, event) = of(&notification(&long, Value::Null));
            assert!(size <= MAX_BYTES, "{size}");
            assert_eq!(event["truncated"], true);
            if let Some(message) = event["notification"]["message"].as_str() {
                assert!(long.starts_with(message.strip_suffix('…').unwrap()));
            }
        }
        let (_, event) = of(&notification(&"x".repeat(9_000), Value::Null));
        assert!(event["notification"]["message"].as_str().unwrap().len() > 5_000, "as much is kept as has room");
    }
}
