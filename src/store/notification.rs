//! A notification as it is kept and as clients see it, what can be done to it, and how an inbox is asked for (section 8.5).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::preferences::Channel;
use super::time::Timestamp;

/// How much a notification matters. `critical` ones pass every preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Can wait.
    Low,
    /// What nothing was said about.
    #[default]
    Normal,
    /// Should be seen soon.
    High,
    /// Must be seen.
    Critical,
}

impl Severity {
    /// All of them, from the least.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// Its name, as it is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == name)
    }
}

/// Whether it is a type of notifications: words of small letters and digits, joined by `.`, `_` or `-`; at most 200 characters.
#[must_use]
pub fn is_type(text: &str) -> bool {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    text.len() <= 200 && text.split(['.', '_', '-']).all(is_word)
}

/// What a notification says, as whoever creates it wrote it; checked already.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Draft {
    /// What kind it is, such as `comment.mentioned`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How much it matters.
    #[serde(default)]
    pub severity: Severity,
    /// One line.
    pub title: String,
    /// More.
    pub message: Option<String>,
    /// Where a click leads.
    pub action_url: Option<String>,
    /// A picture.
    pub image_url: Option<String>,
    /// Who did it: an object.
    pub actor: Option<Value>,
    /// What it was done to: an object.
    pub object: Option<Value>,
    /// Anything the app wants to have beside it.
    pub data: Option<Value>,
    /// The organization that it belongs to.
    pub org_id: Option<String>,
    /// Open ones with the same key are one item that grows.
    pub group_key: Option<String>,
    /// When it vanishes.
    pub expires_at: Option<Timestamp>,
    /// By which ways besides the inbox it may go; all if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<Channel>>,
}

/// A notification in a user's inbox: a row, and what the API answers.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Notification {
    /// A UUID, version 7.
    pub id: Uuid,
    /// What it says. The content of a deleted one is gone, its kind and organization stay.
    #[serde(flatten)]
    pub draft: Draft,
    /// The id of the request that made it.
    pub transaction_id: Option<String>,
    /// How many are grouped in it.
    pub group_count: i64,
    /// The inbox's revision at its last change; none while it was never announced.
    pub rev: Option<i64>,
    /// From when on it is in the inbox.
    pub visible_at: Timestamp,
    /// When it was seen in a list.
    pub seen_at: Option<Timestamp>,
    /// When it was read.
    pub read_at: Option<Timestamp>,
    /// When it was put away.
    pub archived_at: Option<Timestamp>,
    /// Until when it is hidden.
    pub snoozed_until: Option<Timestamp>,
    /// When it was deleted; such a row is kept for clients that were away.
    #[serde(skip)]
    pub deleted_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

impl Notification {
    /// A name of what it says now: another one when it has changed.
    #[must_use]
    pub fn version(&self) -> String {
        format!("{}:{}", self.id, self.rev.unwrap_or_default())
    }
}

/// How many of an inbox are new; each is counted up to [`Counts::MOST`], which means "that many or more".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Counts {
    /// In the inbox and not read.
    pub unread: i64,
    /// In the inbox and not seen.
    pub unseen: i64,
}

/// How many unread ones of each severity there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct BySeverity {
    /// See [`Severity::Low`].
    pub low: i64,
    /// See [`Severity::Normal`].
    pub normal: i64,
    /// See [`Severity::High`].
    pub high: i64,
    /// See [`Severity::Critical`].
    pub critical: i64,
}

impl FromIterator<(String, i64)> for BySeverity {
    fn from_iter<I: IntoIterator<Item = (String, i64)>>(counted: I) -> Self {
        let mut by_severity = Self::default();
        for (severity, count) in counted {
            match Severity::parse(&severity) {
                Some(Severity::Low) => by_severity.low = count,
                Some(Severity::Normal) => by_severity.normal = count,
                Some(Severity::High) => by_severity.high = count,
                Some(Severity::Critical) => by_severity.critical = count,
                None => {}
            }
        }
        by_severity
    }
}

impl Counts {
    /// Where counting ends.
    pub const MOST: i64 = 1_000;
}

/// Where an inbox stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct InboxState {
    /// The revision of its last change.
    pub rev: i64,
    /// What is new in it.
    pub counts: Counts,
}

/// Which notifications of an inbox are meant; by default all that are visible and not archived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Read or not, seen or not.
    #[param(inline, required = false)]
    #[schema(required = false)]
    pub status: Status,
    /// Archived or not.
    #[param(inline, required = false)]
    #[schema(required = false)]
    pub archived: Archived,
    /// Hidden or not.
    #[param(inline, required = false)]
    #[schema(required = false)]
    pub snoozed: Snoozed,
    /// Of one of these kinds; one that ends with `.*` means all that begin so. Empty means any.
    #[serde(rename = "type", skip_serializing_if = "Vec::is_empty")]
    #[param(required = false, max_items = 20)]
    #[schema(required = false, max_items = 20)]
    pub kinds: Vec<String>,
    /// Of this severity.
    #[param(inline)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// Of this organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org_id: Option<String>,
    /// Made after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_after: Option<Timestamp>,
}

/// See [`Filter::status`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Whatever it is.
    #[default]
    All,
    /// Not read.
    Unread,
    /// Read.
    Read,
    /// Not seen.
    Unseen,
}

/// See [`Filter::archived`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Archived {
    /// Only those that are not.
    #[default]
    Exclude,
    /// Only those that are.
    Only,
    /// All.
    Include,
}

/// See [`Filter::snoozed`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Snoozed {
    /// Only those that are visible.
    #[default]
    Exclude,
    /// Only those that are hidden until a time to come.
    Only,
}

/// Where a page of a list begins: behind this notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Its [`Notification::visible_at`].
    pub visible_at: Timestamp,
    /// Its id.
    pub id: Uuid,
}

/// A page of a list, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The notifications.
    pub items: Vec<Notification>,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
    /// Where the inbox stands.
    pub state: InboxState,
}

/// Where a client's knowledge ends: after this revision, and after this row of it if it has heard a part of that revision's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// The revision.
    pub rev: i64,
    /// The last row of it that is known: then the rest of the same revision comes first.
    pub id: Option<Uuid>,
}

/// What has changed in an inbox, in the order of revisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// The rows as they are now; deleted ones among them.
    pub items: Vec<Notification>,
    /// Where the next page begins, if there is one.
    pub next: Option<Since>,
    /// Where the inbox stands.
    pub state: InboxState,
    /// What the client knows is too old (or of another inbox): it has to load anew. Then there are no items.
    pub reset: bool,
}

/// How an action on one notification went.
#[derive(Clone, Debug, PartialEq)]
pub struct Acted {
    /// As it is now.
    pub notification: Notification,
    /// Where the inbox stands.
    pub state: InboxState,
    /// Whether anything changed.
    pub changed: bool,
}

/// How an action on several went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActedOnMany {
    /// How many of them changed.
    pub updated: u64,
    /// Those that are not in this inbox.
    pub missing: Vec<Uuid>,
    /// Where the inbox stands.
    pub state: InboxState,
}
