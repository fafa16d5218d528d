//! A user's inbox (section 8.6): lists, catches up, and changes what is in it. The user is always the token's. Every answer says where the
//! inbox stands.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{caller, cursor};
use crate::apps::App;
use crate::http::fault::{Fault, Refused, read_body};
use crate::http::pusher::body;
use crate::identity::Identity;
use crate::notifications::Notifications;
use crate::notifications::wish::is_id;
use crate::parts::Parts;
use crate::store::Inbox;
use crate::store::action::{Action, MarkAll};
use crate::store::notification::{
    Archived, BySeverity, Cursor, Filter, InboxState, Notification, Severity, Since, Snoozed, Status, is_type,
};
use crate::store::time::Timestamp;

/// The largest body of a request.
const MAX_BYTES: usize = 64 * 1024;
/// Notifications of a page, if nothing is said, and at most.
const PAGE: usize = 20;
const MAX_PAGE: usize = 100;
/// Changes of a page, if nothing is said, and at most.
const CHANGES: usize = 100;
const MAX_CHANGES: usize = 500;
/// Notifications of one bulk action.
const MAX_IDS: usize = 100;
/// How near and how far a snooze may be.
const SNOOZE_FROM: std::time::Duration = std::time::Duration::from_secs(60);
const SNOOZE_TO: std::time::Duration = std::time::Duration::from_secs(90 * 24 * 60 * 60);

/// Whose inbox it is.
pub(super) struct Mine {
    pub(super) app: Arc<App>,
    pub(super) user: String,
    pub(super) identity: Identity,
    pub(super) now: Timestamp,
}

impl Mine {
    async fn of(parts: &Parts, head: &axum::http::request::Parts) -> Result<Self, Fault> {
        let identity = caller::served(parts, head).await?;
        let app = caller::app(parts, head, None)?;
        Ok(Self { app, user: identity.user.clone(), identity, now: Timestamp::now() })
    }

    pub(super) fn inbox(&self) -> Inbox<'_> {
        Inbox { app: self.app.id(), user: &self.user }
    }
}

/// A request without its body.
pub(super) async fn begin(parts: &Parts, request: Request) -> Result<(Mine, axum::http::request::Parts), Fault> {
    let (head, body) = request.into_parts();
    body::swallow(&head, body).await;
    Ok((Mine::of(parts, &head).await?, head))
}

/// A request with its body as JSON.
pub(super) async fn begin_with(parts: &Parts, request: Request) -> Result<(Mine, Map<String, Value>), Fault> {
    let (head, body) = request.into_parts();
    let body = read_body(parts, &head, body, MAX_BYTES).await?;
    let mine = Mine::of(parts, &head).await?;
    let object = serde_json::from_slice(&body).map_err(|_| invalid("the body must be a JSON object"))?;
    Ok((mine, object))
}

/// Which app is meant.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Its id or its key; needed where there are several. The header `X-Herald-App` does as well.
    pub app: Option<String>,
}

/// An answer about an inbox: what was asked for, and where the inbox stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct Answer<T> {
    #[serde(flatten)]
    what: T,
    #[serde(flatten)]
    state: InboxState,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Items {
    items: Vec<Notification>,
    /// Where the next page begins, if there is one: `cursor` of the next request.
    next_cursor: Option<String>,
}

/// `GET /v1/inbox`
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    get, path = "/v1/inbox", tag = "inbox", operation_id = "list_inbox", summary = "A page of the user's inbox, newest first",
    params(Which, Filter,
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Notifications of the page; 20 if nothing is said"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")),
    responses((status = 200, body = Answer<Items>), Refused), security(("session" = [])),
)]
pub async fn list(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let (mine, head) = begin(&parts, request).await?;
    page(&parts, mine.inbox(), head.uri.query().unwrap_or_default(), mine.now).await
}

/// The page of an inbox that a query asks for.
///
/// # Errors
/// See [`Fault`].
pub async fn page(parts: &Parts, inbox: Inbox<'_>, query: &str, now: Timestamp) -> Result<Response, Fault> {
    let query = Query::parse(query)?;
    let limit = query.limit(PAGE, MAX_PAGE)?;
    let after = query.get("cursor").map(cursor::read).transpose()?;
    let after = after.map(|(visible_at, id)| Cursor { visible_at, id });
    let store = &parts.notifications()?.store;
    let page = store.list(inbox, &query.filter()?, after, limit, now).await?;
    let next = page.next.map(|next| cursor::write(next.visible_at, next.id));
    Ok(answer(Items { items: page.items, next_cursor: next }, page.state))
}

/// How many are new. Counting ends at 1,000, which means "that many or more".
#[derive(Debug, Serialize, ToSchema)]
pub struct Counted {
    unread: i64,
    unseen: i64,
    /// The unread ones.
    by_severity: BySeverity,
    rev: i64,
}

/// `GET /v1/inbox/counts`
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    get, path = "/v1/inbox/counts", tag = "inbox", operation_id = "inbox_counts", summary = "How many are unread and unseen",
    params(Which, ("If-None-Match" = Option<String>, Header, description = "The `ETag` that is known")),
    responses((status = 200, body = Counted, headers(("ETag" = String, description = "The revision"))),
        (status = 304, description = "Nothing has changed"), Refused),
    security(("session" = [])),
)]
pub async fn counts(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let (mine, head) = begin(&parts, request).await?;
    let store = &parts.notifications()?.store;
    let (by_severity, InboxState { rev, counts }) = store.by_severity(mine.inbox(), mine.now).await?;
    let tag = format!("\"{rev}\"");
    let known = head.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let headers = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "private, no-cache".to_owned())];
    if known == Some(tag.as_str()) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let counted = Counted { unread: counts.unread, unseen: counts.unseen, by_severity, rev };
    Ok((StatusCode::OK, headers, Json(counted)).into_response())
}

/// What has changed, in the order of revisions.
#[derive(Debug, Serialize, ToSchema)]
pub struct Changed {
    changes: Vec<Change>,
    /// `since` of the next request, if there is more.
    next: Option<String>,
    /// What the client knows is too old or of another inbox: it has to load anew. Then there are no changes.
    reset: bool,
}

/// A notification as it is now, or the id of one that is gone.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Change {
    /// It is gone.
    Gone {
        /// The revision of that.
        rev: Option<i64>,
        /// Its id.
        deleted: Uuid,
    },
    /// It is so now.
    Now {
        /// The revision of that.
        rev: Option<i64>,
        /// What it is.
        notification: Box<Notification>,
    },
}

impl From<Notification> for Change {
    fn from(item: Notification) -> Self {
        let rev = item.rev;
        match item.deleted_at {
            Some(_) => Self::Gone { rev, deleted: item.id },
            None => Self::Now { rev, notification: Box::new(item) },
        }
    }
}

/// `GET /v1/inbox/changes?since=`, where `since` is a revision, or the `next` of the page before.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    get, path = "/v1/inbox/changes", tag = "inbox", operation_id = "inbox_changes", summary = "What has changed since a revision",
    params(Which,
        ("since" = String, Query, pattern = "^[0-9]{1,9}(:[0-9a-f-]{36})?$", description = "The revision that is known, or `next` of the answer before", example = "42"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "Changes of the answer; 100 if nothing is said")),
    responses((status = 200, body = Answer<Changed>), Refused), security(("session" = [])),
)]
pub async fn changes(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let (mine, head) = begin(&parts, request).await?;
    let query = Query::parse(head.uri.query().unwrap_or_default())?;
    let limit = query.limit(CHANGES, MAX_CHANGES)?;
    let since = since(query.get("since").ok_or_else(|| invalid("`since` is missing: the revision that is known"))?)?;
    let changes = parts.notifications()?.store.changes(mine.inbox(), since, limit, mine.now).await?;
    let next = changes.next.and_then(|next| Some(format!("{}:{}", next.rev, next.id?)));
    let items = changes.items.into_iter().map(Change::from).collect();
    Ok(answer(Changed { changes: items, next, reset: changes.reset }, changes.state))
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct One {
    notification: Notification,
}

/// `GET /v1/inbox/{id}`
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    get, path = "/v1/inbox/{id}", tag = "inbox", operation_id = "get_notification", summary = "One notification",
    params(Which, ("id" = Uuid, Path, description = "The notification's id")),
    responses((status = 200, body = Answer<One>), Refused), security(("session" = [])),
)]
pub async fn show(
    State(parts): State<Arc<Parts>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Fault> {
    let (mine, _) = begin(&parts, request).await?;
    let found = parts.notifications()?.store.notification(mine.inbox(), uuid(&id)?, mine.now).await?;
    let (notification, state) = found.ok_or(Fault::NotFound)?;
    Ok(answer(One { notification }, state))
}

/// What can be changed of a notification: at least one of these.
#[derive(ToSchema)]
pub struct Wanted {
    /// Only `true`.
    #[schema(nullable = false)]
    pub seen: Option<bool>,
    /// Whether it is read.
    #[schema(nullable = false)]
    pub read: Option<bool>,
    /// Whether it is put away.
    #[schema(nullable = false)]
    pub archived: Option<bool>,
    /// Hidden until then, a minute to 90 days ahead; `null` brings it back.
    pub snoozed_until: Option<Timestamp>,
}

/// `PATCH /v1/inbox/{id}`: what is named is done, in one order.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    patch, path = "/v1/inbox/{id}", tag = "inbox", operation_id = "change_notification", summary = "Change one notification",
    params(Which, ("id" = Uuid, Path, description = "The notification's id")), request_body = Wanted,
    responses((status = 200, body = Answer<One>), Refused), security(("session" = [])),
)]
pub async fn change(
    State(parts): State<Arc<Parts>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Fault> {
    let (mine, body) = begin_with(&parts, request).await?;
    let actions = actions(&body, mine.now)?;
    let notifications = parts.notifications()?;
    let acted = notifications.store.act(mine.inbox(), uuid(&id)?, &actions, mine.now).await?.ok_or(Fault::NotFound)?;
    tell(notifications, acted.changed);
    Ok(answer(One { notification: acted.notification }, acted.state))
}

/// `DELETE /v1/inbox/{id}`
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    delete, path = "/v1/inbox/{id}", tag = "inbox", operation_id = "delete_notification", summary = "Delete one notification",
    params(Which, ("id" = Uuid, Path, description = "The notification's id")),
    responses((status = 204, description = "It is gone"), Refused), security(("session" = [])),
)]
pub async fn delete(
    State(parts): State<Arc<Parts>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Fault> {
    let (mine, _) = begin(&parts, request).await?;
    let notifications = parts.notifications()?;
    let acted = notifications.store.act(mine.inbox(), uuid(&id)?, &[Action::Delete], mine.now).await?;
    tell(notifications, acted.ok_or(Fault::NotFound)?.changed);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// An action on several.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Bulk {
    /// Which.
    #[schema(value_type = Vec<Uuid>, min_items = 1, max_items = 100)]
    ids: Vec<String>,
    /// One of seen, read, unread, archive, unarchive and delete.
    #[schema(pattern = "^(seen|read|unread|archive|unarchive|delete)$")]
    action: String,
}

/// How that went.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkDone {
    /// How many changed.
    updated: u64,
    /// Those that are not in this inbox.
    missing: Vec<Uuid>,
}

/// `POST /v1/inbox/bulk`: one action on several notifications.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    post, path = "/v1/inbox/bulk", tag = "inbox", operation_id = "bulk_inbox", summary = "One action on several notifications", params(Which), request_body = Bulk,
    responses((status = 200, body = Answer<BulkDone>), Refused), security(("session" = [])),
)]
pub async fn bulk(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let (mine, body) = begin_with(&parts, request).await?;
    let Bulk { ids, action } =
        serde_json::from_value(body.into()).map_err(|error| invalid(format!("the body: {error}")))?;
    if !(1..=MAX_IDS).contains(&ids.len()) {
        return Err(invalid(format!("`ids` has {} ids, 1 to {MAX_IDS} are allowed", ids.len())));
    }
    let mut ids = ids.iter().map(|id| uuid(id)).collect::<Result<Vec<Uuid>, Fault>>()?;
    ids.sort_unstable();
    ids.dedup();
    let action = match action.as_str() {
        "seen" => Action::Seen,
        "read" => Action::Read,
        "unread" => Action::Unread,
        "archive" => Action::Archive,
        "unarchive" => Action::Unarchive,
        "delete" => Action::Delete,
        _ => return Err(invalid("`action` must be one of seen, read, unread, archive, unarchive and delete")),
    };
    let notifications = parts.notifications()?;
    let acted = notifications.store.act_on_many(mine.inbox(), &ids, action, mine.now).await?;
    tell(notifications, acted.updated > 0);
    Ok(answer(BulkDone { updated: acted.updated, missing: acted.missing }, acted.state))
}

/// An action on all that are known.
#[derive(ToSchema)]
pub struct Marked {
    /// What is done.
    pub action: MarkAll,
    /// The revision that the caller knows: what is newer is left alone.
    pub up_to_rev: i64,
    /// Which of them; all if nothing is said.
    pub filter: Option<Filter>,
}

/// How that went.
#[derive(Debug, Serialize, ToSchema)]
pub struct MarkedDone {
    /// How many changed.
    updated: u64,
}

/// `POST /v1/inbox/mark-all`: one action on all that the filter means and that the caller has seen, by the revision it knows: what arrives
/// meanwhile is left alone.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    post, path = "/v1/inbox/mark-all", tag = "inbox", operation_id = "mark_inbox", summary = "One action on all that are known", params(Which), request_body = Marked,
    responses((status = 200, body = Answer<MarkedDone>), Refused), security(("session" = [])),
)]
pub async fn mark_all(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let (mine, body) = begin_with(&parts, request).await?;
    let action = match body.get("action").and_then(Value::as_str) {
        Some("seen") => MarkAll::Seen,
        Some("read") => MarkAll::Read,
        Some("archive") => MarkAll::Archive,
        _ => return Err(invalid("`action` must be one of seen, read and archive")),
    };
    let up_to_rev = body.get("up_to_rev").and_then(Value::as_i64);
    let up_to_rev = up_to_rev.ok_or_else(|| invalid("`up_to_rev` is missing: the revision that the caller knows"))?;
    let filter = match body.get("filter") {
        None | Some(Value::Null) => Filter::default(),
        Some(Value::Object(filter)) => Query::of(filter)?.filter()?,
        Some(_) => return Err(invalid("`filter` must be an object")),
    };
    let notifications = parts.notifications()?;
    let (updated, state) = notifications.store.mark_all(mine.inbox(), action, up_to_rev, &filter, mine.now).await?;
    tell(notifications, updated > 0);
    Ok(answer(MarkedDone { updated }, state))
}

fn tell(notifications: &Notifications, changed: bool) {
    if changed {
        notifications.committed();
    }
}

/// Every answer about an inbox says where it stands.
fn answer(what: impl Serialize, state: InboxState) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("private, no-store"));
    (StatusCode::OK, headers, Json(Answer { what, state })).into_response()
}

pub(super) fn invalid(text: impl Into<String>) -> Fault {
    Fault::Invalid(text.into())
}

/// An id that is none is one that is not there.
pub(super) fn uuid(id: &str) -> Result<Uuid, Fault> {
    id.parse().map_err(|_| Fault::NotFound)
}

fn since(text: &str) -> Result<Since, Fault> {
    let read = || {
        let (rev, id) = text.split_once(':').map_or((text, None), |(rev, id)| (rev, Some(id)));
        let rev: u32 = rev.parse().ok()?;
        let id = id.map(str::parse).transpose().ok()?;
        Some(Since { rev: rev.into(), id })
    };
    read().ok_or_else(|| invalid("`since` must be a revision, or the `next` of the answer before"))
}

/// What a change asks for, in the order in which it is done.
fn actions(body: &Map<String, Value>, now: Timestamp) -> Result<Vec<Action>, Fault> {
    let flag = |name: &str| match body.get(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(invalid(format!("`{name}` must be true or false"))),
    };
    let mut actions = Vec::new();
    match flag("seen")? {
        Some(true) => actions.push(Action::Seen),
        Some(false) => return Err(invalid("`seen` can only become true")),
        None => {}
    }
    actions.extend(flag("read")?.map(|read| if read { Action::Read } else { Action::Unread }));
    actions.extend(flag("archived")?.map(|archived| if archived { Action::Archive } else { Action::Unarchive }));
    match body.get("snoozed_until") {
        None => {}
        Some(Value::Null) => actions.push(Action::Unsnooze),
        Some(Value::String(until)) => {
            let until: Timestamp = until.parse().map_err(|error| invalid(format!("`snoozed_until`: {error}")))?;
            if !(now.after(SNOOZE_FROM)..=now.after(SNOOZE_TO)).contains(&until) {
                return Err(invalid("`snoozed_until` must be from a minute to 90 days ahead"));
            }
            actions.push(Action::Snooze(until));
        }
        Some(_) => return Err(invalid("`snoozed_until` must be a time or null")),
    }
    if actions.is_empty() {
        return Err(invalid("nothing is asked for: `seen`, `read`, `archived` and `snoozed_until` can be changed"));
    }
    Ok(actions)
}

/// What a filter may speak of; what else stands in one is left out of account.
const FILTERS: [&str; 7] = ["status", "archived", "snoozed", "type", "severity", "org_id", "created_after"];

/// Parameters of a query, or members of a filter.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(query: &str) -> Result<Self, Fault> {
        let pairs = form_urlencoded::parse(query.as_bytes());
        Ok(Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()))
    }

    fn of(filter: &Map<String, Value>) -> Result<Self, Fault> {
        let mut pairs = Vec::new();
        for (name, value) in filter.iter().filter(|(name, _)| FILTERS.contains(&name.as_str())) {
            let values = match value {
                Value::Null => continue,
                Value::Array(values) => values.iter().collect(),
                one => vec![one],
            };
            for value in values {
                let text = value.as_str().ok_or_else(|| invalid(format!("`filter.{name}` must be text")))?;
                pairs.push((name.clone(), text.to_owned()));
            }
        }
        Ok(Self(pairs))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn limit(&self, default: usize, most: usize) -> Result<usize, Fault> {
        let Some(limit) = self.get("limit") else { return Ok(default) };
        let limit = limit.parse().ok().filter(|limit| (1..=most).contains(limit));
        limit.ok_or_else(|| invalid(format!("`limit` must be a number from 1 to {most}")))
    }

    fn filter(&self) -> Result<Filter, Fault> {
        let kinds: Vec<String> =
            self.0.iter().filter(|(name, _)| name == "type").map(|(_, value)| value.clone()).collect();
        let is_pattern = |kind: &String| is_type(kind.strip_suffix(".*").unwrap_or(kind));
        if kinds.len() > 20 || !kinds.iter().all(is_pattern) {
            return Err(invalid(
                "`type` must be a type such as comment.mentioned, or a prefix such as comment.*; at most 20 of them",
            ));
        }
        Ok(Filter {
            status: self.one_of(
                "status",
                &[("all", Status::All), ("unread", Status::Unread), ("read", Status::Read), ("unseen", Status::Unseen)],
            )?,
            archived: self.one_of(
                "archived",
                &[("exclude", Archived::Exclude), ("only", Archived::Only), ("include", Archived::Include)],
            )?,
            snoozed: self.one_of("snoozed", &[("exclude", Snoozed::Exclude), ("only", Snoozed::Only)])?,
            kinds,
            severity: match self.get("severity") {
                None => None,
                Some(name) => Some(
                    Severity::parse(name)
                        .ok_or_else(|| invalid("`severity` must be one of low, normal, high, critical"))?,
                ),
            },
            org_id: match self.get("org_id") {
                Some(org) if !is_id(org) => {
                    return Err(invalid("`org_id` has 1 to 255 bytes and no control characters"));
                }
                org => org.map(str::to_owned),
            },
            created_after: match self.get("created_after") {
                None => None,
                Some(text) => Some(text.parse().map_err(|error| invalid(format!("`created_after`: {error}")))?),
            },
        })
    }

    fn one_of<T: Copy + Default>(&self, name: &str, allowed: &[(&str, T)]) -> Result<T, Fault> {
        let Some(value) = self.get(name) else { return Ok(T::default()) };
        let found = allowed.iter().find(|(known, _)| *known == value).map(|(_, value)| *value);
        let names = || allowed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| invalid(format!("`{name}` must be one of {}", names())))
    }
}
