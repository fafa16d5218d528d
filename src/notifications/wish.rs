//! A request to create a notification, from its JSON to what is kept (section 8.6): every limit is checked here, and what is wrong is
//! named.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::store::jobs::Audience;
use crate::store::notification::{Draft, Severity, is_type};
use crate::store::preferences::Channel;
use crate::store::sending::MAX_RECIPIENTS;
use crate::store::time::Timestamp;

const MAX_TITLE: usize = 500;
const MAX_MESSAGE: usize = 10_000;
const MAX_DATA: usize = 32 * 1024;
const MAX_OBJECT: usize = 4 * 1024;
const MAX_URL: usize = 2_048;
const MAX_KEY: usize = 255;
const MAX_TOPIC: usize = 200;
/// How far ahead a notification may be scheduled.
const MAX_AHEAD: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// What was asked for, checked.
#[derive(Debug, PartialEq)]
pub struct Wish {
    /// For whom.
    pub to: Recipients,
    /// What it says.
    pub draft: Draft,
    /// The request's id, if it has one.
    pub transaction_id: Option<String>,
    /// The same for the same request, whoever it is for.
    pub hash: String,
    /// From when on it is in the inboxes.
    pub deliver_at: Option<Timestamp>,
}

/// For whom a notification is.
#[derive(Clone, Debug, PartialEq)]
pub enum Recipients {
    /// These: sorted, each once.
    Users(Vec<String>),
    /// All of them, but not those.
    Audience {
        /// Who.
        audience: Audience,
        /// Who not.
        excluded: Vec<String>,
    },
}

/// What is wrong with a request, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidWish(pub String);

/// What is asked for, as it is written; only its form is right.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewNotification)]
pub struct Written {
    #[schema(required, nullable = false)]
    to: Option<To>,
    /// Words of a-z and 0-9 joined by `.`, `_` or `-`.
    #[serde(rename = "type")]
    #[schema(
        required,
        nullable = false,
        max_length = 200,
        pattern = "^[a-z0-9]+([._-][a-z0-9]+)*$",
        example = "comment.mentioned"
    )]
    kind: Option<String>,
    #[schema(required, nullable = false, min_length = 1, max_length = 500)]
    title: Option<String>,
    #[schema(max_length = 10_000)]
    message: Option<String>,
    #[schema(value_type = Option<Severity>)]
    severity: Option<String>,
    /// Begins with https://, http:// or /.
    #[schema(max_length = 2_048, pattern = "^(https?://|/([^/]|$))")]
    action_url: Option<String>,
    /// Begins with https://, http:// or /.
    #[schema(max_length = 2_048, pattern = "^(https?://|/([^/]|$))")]
    image_url: Option<String>,
    /// Who did it; at most 4 KiB.
    #[schema(value_type = Option<Object>)]
    actor: Option<Value>,
    /// What it was done to; at most 4 KiB.
    #[schema(value_type = Option<Object>)]
    object: Option<Value>,
    /// Anything; at most 32 KiB.
    data: Option<Value>,
    /// Makes a repetition safe: each user gets what has it once.
    #[schema(min_length = 1, max_length = 255)]
    transaction_id: Option<String>,
    /// While an item with the same key is open, it grows instead of a new one being made. Not together with `deliver_at`.
    #[schema(min_length = 1, max_length = 255)]
    group_key: Option<String>,
    /// From when on it is in the inboxes; at most a year ahead.
    #[schema(value_type = Option<Timestamp>)]
    deliver_at: Option<String>,
    /// When it vanishes.
    #[schema(value_type = Option<Timestamp>)]
    expires_at: Option<String>,
    #[schema(max_items = 1_000)]
    exclude_user_ids: Option<Vec<String>>,
    #[schema(max_length = 255)]
    org_id: Option<String>,
    /// By which ways besides the inbox it may go, of push, email, sms and chat; all if nothing is said.
    channels: Option<Vec<String>>,
}

/// For whom: exactly one of these.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Recipients)]
pub struct To {
    #[schema(min_items = 1, max_items = 1_000)]
    user_ids: Option<Vec<String>>,
    /// Those who follow it.
    #[schema(min_length = 1, max_length = 200)]
    topic: Option<String>,
    /// Its members.
    #[schema(min_length = 1, max_length = 255)]
    org_id: Option<String>,
    /// Everybody who is known.
    all: Option<bool>,
}

impl Wish {
    /// Reads a body at the time `now`. Members that are not known are left out of account.
    ///
    /// # Errors
    /// See [`InvalidWish`].
    pub fn parse(body: &[u8], now: Timestamp) -> Result<Self, InvalidWish> {
        let whole: Value = serde_json::from_slice(body).map_err(|_| wrong("the body must be a JSON object"))?;
        let written: Written = Written::deserialize(&whole).map_err(|error| wrong(format!("the body: {error}")))?;
        let to = recipients(written.to, written.exclude_user_ids.unwrap_or_default())?;
        let kind = written.kind.filter(|kind| is_type(kind)).ok_or_else(|| {
            wrong("`type` must be words of a-z and 0-9 joined by . _ or -, such as comment.mentioned, of at most 200 characters")
        })?;
        let title = text("title", written.title, MAX_TITLE)?.filter(|title| !title.is_empty());
        let severity = written.severity.as_deref().map_or(Some(Severity::Normal), Severity::parse);
        let deliver_at = time("deliver_at", written.deliver_at.as_deref())?;
        if deliver_at.is_some_and(|at| at > now.after(MAX_AHEAD)) {
            return Err(wrong("`deliver_at` is more than a year ahead"));
        }
        let draft = Draft {
            kind,
            severity: severity.ok_or_else(|| wrong("`severity` must be one of low, normal, high and critical"))?,
            title: title.ok_or_else(|| wrong("`title` is missing"))?,
            message: text("message", written.message, MAX_MESSAGE)?,
            action_url: url("action_url", written.action_url)?,
            image_url: url("image_url", written.image_url)?,
            actor: object("actor", written.actor)?,
            object: object("object", written.object)?,
            data: json("data", written.data.filter(|data| !data.is_null()), MAX_DATA)?,
            org_id: text("org_id", written.org_id, MAX_KEY)?,
            group_key: key("group_key", written.group_key)?,
            expires_at: time("expires_at", written.expires_at.as_deref())?,
            channels: written.channels.map(ways).transpose()?,
        };
        if draft.group_key.is_some() && deliver_at.is_some() {
            return Err(wrong("`group_key` and `deliver_at` exclude each other: a group grows when its event happens"));
        }
        let transaction_id = key("transaction_id", written.transaction_id)?;
        Ok(Self { to, draft, transaction_id, hash: hash(whole), deliver_at })
    }
}

/// The ways besides the inbox that it may go, each once.
fn ways(names: Vec<String>) -> Result<Vec<Channel>, InvalidWish> {
    let way = |name: &String| Channel::parse(name).filter(|channel| *channel != Channel::InApp);
    let ways: Option<BTreeSet<Channel>> = names.iter().map(way).collect();
    let ways =
        ways.ok_or_else(|| wrong("`channels` must be a list of push, email, sms and chat; the inbox is always one"))?;
    Ok(ways.into_iter().collect())
}

fn wrong(text: impl Into<String>) -> InvalidWish {
    InvalidWish(text.into())
}

fn recipients(to: Option<To>, mut excluded: Vec<String>) -> Result<Recipients, InvalidWish> {
    let allowed = || wrong("`to` must have exactly one of `user_ids`, `topic`, `org_id` and `\"all\": true`");
    if excluded.len() > MAX_RECIPIENTS {
        return Err(wrong(format!("`exclude_user_ids` has {} ids, {MAX_RECIPIENTS} are allowed", excluded.len())));
    }
    let audience = match to.ok_or_else(allowed)? {
        To { user_ids: Some(users), topic: None, org_id: None, all: None } => return named(users, &excluded),
        To { user_ids: None, topic: Some(topic), org_id: None, all: None } => Audience::Topic(self::topic(topic)?),
        To { user_ids: None, topic: None, org_id: Some(org), all: None } if is_id(&org) => Audience::OrgId(org),
        To { user_ids: None, topic: None, org_id: None, all: Some(true) } => Audience::All,
        _ => return Err(allowed()),
    };
    excluded.sort_unstable();
    excluded.dedup();
    Ok(Recipients::Audience { audience, excluded })
}

fn named(mut users: Vec<String>, excluded: &[String]) -> Result<Recipients, InvalidWish> {
    if !(1..=MAX_RECIPIENTS).contains(&users.len()) {
        return Err(wrong(format!("`to.user_ids` has {} ids, 1 to {MAX_RECIPIENTS} are allowed", users.len())));
    }
    if !users.iter().all(|user| is_id(user)) {
        return Err(wrong(format!("`to.user_ids`: an id has 1 to {MAX_KEY} bytes and no control characters")));
    }
    users.retain(|user| !excluded.contains(user));
    users.sort_unstable();
    users.dedup();
    Ok(Recipients::Users(users))
}

/// Whether it can be the id of a user or an organization.
#[must_use]
pub fn is_id(id: &str) -> bool {
    (1..=MAX_KEY).contains(&id.len()) && !id.chars().any(char::is_control)
}

/// The name of a topic.
///
/// # Errors
/// Says what a name is.
pub fn topic(name: String) -> Result<String, InvalidWish> {
    let is_name = (1..=MAX_TOPIC).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if is_name {
        Ok(name)
    } else {
        Err(wrong(format!("a topic has 1 to {MAX_TOPIC} characters and no control characters")))
    }
}

fn text(name: &str, text: Option<String>, limit: usize) -> Result<Option<String>, InvalidWish> {
    let length = text.as_ref().map_or(0, |text| text.chars().count());
    if length > limit {
        return Err(wrong(format!("`{name}` has {length} characters, {limit} are allowed")));
    }
    if text.as_ref().is_some_and(|text| text.contains('\0')) {
        return Err(wrong(format!("`{name}` must not hold the character U+0000")));
    }
    Ok(text)
}

fn key(name: &str, written: Option<String>) -> Result<Option<String>, InvalidWish> {
    let key = text(name, written, MAX_KEY)?;
    if key.as_ref().is_some_and(String::is_empty) { Err(wrong(format!("`{name}` must not be empty"))) } else { Ok(key) }
}

/// A web address, or one within the app. Nothing that a browser would run.
fn url(name: &str, written: Option<String>) -> Result<Option<String>, InvalidWish> {
    let Some(written) = text(name, written, MAX_URL)? else { return Ok(None) };
    let is_web = ["http://", "https://"].iter().any(|scheme| written.starts_with(scheme));
    let is_relative = written.starts_with('/') && !written.starts_with("//");
    if is_web || is_relative {
        Ok(Some(written))
    } else {
        Err(wrong(format!("`{name}` must begin with https://, http:// or /")))
    }
}

fn object(name: &str, written: Option<Value>) -> Result<Option<Value>, InvalidWish> {
    let written = written.filter(|value| !value.is_null());
    if written.as_ref().is_some_and(|value| !value.is_object()) {
        return Err(wrong(format!("`{name}` must be an object")));
    }
    json(name, written, MAX_OBJECT)
}

fn json(name: &str, written: Option<Value>, limit: usize) -> Result<Option<Value>, InvalidWish> {
    let size = written.as_ref().map_or(0, |value| value.to_string().len());
    if size > limit { Err(wrong(format!("`{name}` has {size} bytes, {limit} are allowed"))) } else { Ok(written) }
}

fn time(name: &str, written: Option<&str>) -> Result<Option<Timestamp>, InvalidWish> {
    written.map(|text| text.parse().map_err(|error| wrong(format!("`{name}`: {error}")))).transpose()
}

/// A digest of what is asked for, without whom it is for and the id of the request: its members in one order.
fn hash(mut whole: Value) -> String {
    if let Some(members) = whole.as_object_mut() {
        members.remove("to");
        members.remove("transaction_id");
        members.remove("exclude_user_ids");
    }
    data_encoding::HEXLOWER.encode(&Sha256::digest(whole.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(change: Value) -> Result<Wish, InvalidWish> {
        let mut body = json!({ "to": { "user_ids": ["b", "a", "b"] }, "type": "comment.mentioned", "title": "Hello" });
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        Wish::parse(body.to_string().as_bytes(), Timestamp::EPOCH)
    }

    #[test]
    fn a_request_is_read_and_its_users_are_sorted() {
        let wish = parse(json!({ "exclude_user_ids": ["c"], "unknown": 1, "data": null, "severity": "high" })).unwrap();
        assert_eq!(wish.to, Recipients::Users(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!((wish.draft.severity, wish.draft.data), (Severity::High, None));
    }

    #[test]
    fn the_same_request_has_the_same_hash_whoever_it_is_for() {
        let one = parse(json!({ "message": "x" })).unwrap().hash;
        assert_eq!(
            one,
            parse(json!({ "message": "x", "to": { "user_ids": ["z"] }, "transaction_id": "t" })).unwrap().hash
        );
        assert_ne!(one, parse(json!({ "message": "y" })).unwrap().hash);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        for (change, part) in [
            (json!({ "to": {} }), "exactly one of"),
            (json!({ "to": { "user_ids": ["a"], "all": true } }), "exactly one of"),
            (json!({ "to": { "all": false } }), "exactly one of"),
            (json!({ "to": { "topic": "" } }), "1 to 200 characters"),
            (json!({ "to": { "user_ids": [] } }), "0 ids"),
            (json!({ "to": { "user_ids": vec!["x"; 1_001] } }), "1001 ids"),
            (json!({ "to": { "user_ids": [""] } }), "1 to 255 bytes"),
            (json!({ "to": { "user_ids": [7] } }), "string"),
            (json!({ "type": "Comment" }), "comment.mentioned"),
            (json!({ "type": null }), "`type`"),
            (json!({ "title": "" }), "`title` is missing"),
            (json!({ "title": "x".repeat(501) }), "501 characters, 500"),
            (json!({ "title": "a\0b" }), "U+0000"),
            (json!({ "message": "x".repeat(10_001) }), "10000"),
            (json!({ "severity": "urgent" }), "low, normal, high and critical"),
            (json!({ "action_url": "javascript:alert(1)" }), "https://"),
            (json!({ "action_url": "//evil.example" }), "https://"),
            (json!({ "actor": "Jane" }), "`actor` must be an object"),
            (json!({ "data": "x".repeat(32 * 1024) }), "32768"),
            (json!({ "deliver_at": "tomorrow" }), "2026-01-31T12:00:00Z"),
            (json!({ "deliver_at": "2099-01-01T00:00:00Z" }), "a year ahead"),
            (json!({ "group_key": "g", "deliver_at": "1970-01-02T00:00:00Z" }), "exclude each other"),
            (json!({ "channels": ["email", "in_app"] }), "push, email, sms and chat"),
            (json!({ "channels": ["fax"] }), "push, email, sms and chat"),
            (json!({ "transaction_id": "" }), "must not be empty"),
        ] {
            let error = parse(change.clone()).unwrap_err().to_string();
            assert!(error.contains(part), "{change}: {error}");
        }
        for body in ["", "[]", "7"] {
            assert!(Wish::parse(body.as_bytes(), Timestamp::EPOCH).is_err(), "{body}");
        }
    }
}
