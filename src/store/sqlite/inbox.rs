//! Reading an inbox, and what its user does with it (section 8.5).

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{QueryBuilder, Row as _, Sqlite as Database};
use uuid::Uuid;

use super::{Sqlite, next_rev, state, tell};
use crate::store::action::{Action, MarkAll};
use crate::store::event::{About, EventName, all_name};
use crate::store::notification::{
    Acted, ActedOnMany, Archived, BySeverity, Changes, Counts, Cursor, Draft, Filter, InboxState, Notification, Page,
    Severity, Since, Snoozed, Status,
};
use crate::store::sending::{Create, Created};
use crate::store::time::Timestamp;
use crate::store::{Inbox, Inboxes, StoreError};

/// What [`notification`] reads.
pub(super) const COLUMNS: &str = "id, org_id, type, severity, title, message, action_url, image_url, actor, object, data, \
    transaction_id, group_key, group_count, rev, visible_at, seen_at, read_at, archived_at, snoozed_until, expires_at, \
    deleted_at, created_at, updated_at, channels";

/// Longer than what is snoozed is left lying once its time has come.
const AN_HOUR: Duration = Duration::from_secs(60 * 60);

/// A row of `user_notifications`.
pub(super) fn notification(row: &SqliteRow) -> Result<Notification, sqlx::Error> {
    let json = |name: &str| -> Result<Option<Value>, sqlx::Error> {
        Ok(row.try_get::<Option<Json<Value>>, _>(name)?.map(|Json(value)| value))
    };
    let decode = |name: &str, error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::ColumnDecode {
        index: name.to_owned(),
        source: error,
    };
    let id: &str = row.try_get("id")?;
    let severity: &str = row.try_get("severity")?;
    Ok(Notification {
        id: id.parse().map_err(|error: uuid::Error| decode("id", error.into()))?,
        draft: Draft {
            kind: row.try_get("type")?,
            severity: Severity::parse(severity).ok_or_else(|| decode("severity", "it is none".into()))?,
            title: row.try_get("title")?,
            message: row.try_get("message")?,
            action_url: row.try_get("action_url")?,
            image_url: row.try_get("image_url")?,
            actor: json("actor")?,
            object: json("object")?,
            data: json("data")?,
            org_id: row.try_get("org_id")?,
            group_key: row.try_get("group_key")?,
            expires_at: row.try_get("expires_at")?,
            // What others have inserted may hold anything.
            channels: json("channels")?.and_then(|names| serde_json::from_value(names).ok()),
        },
        transaction_id: row.try_get("transaction_id")?,
        group_count: row.try_get("group_count")?,
        rev: row.try_get("rev")?,
        visible_at: row.try_get("visible_at")?,
        seen_at: row.try_get("seen_at")?,
        read_at: row.try_get("read_at")?,
        archived_at: row.try_get("archived_at")?,
        snoozed_until: row.try_get("snoozed_until")?,
        deleted_at: row.try_get("deleted_at")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

fn notifications(rows: &[SqliteRow]) -> Result<Vec<Notification>, sqlx::Error> {
    rows.iter().map(notification).collect()
}

#[async_trait]
impl Inboxes for Sqlite {
    async fn create(&self, create: &Create<'_>, now: Timestamp) -> Result<Created, StoreError> {
        self.make(create, now).await
    }

    async fn state(&self, inbox: Inbox<'_>, now: Timestamp) -> Result<InboxState, StoreError> {
        state(&mut *self.read().await?, inbox, now).await
    }

    async fn by_severity(&self, inbox: Inbox<'_>, now: Timestamp) -> Result<(BySeverity, InboxState), StoreError> {
        let mut tx = self.read().await?;
        let sql = "SELECT severity, count(*) FROM (SELECT severity FROM user_notifications INDEXED BY un_unread_idx WHERE app_id = $1 AND user_id = $2 AND read_at IS NULL
                AND archived_at IS NULL AND deleted_at IS NULL AND announced_at IS NOT NULL AND (expires_at IS NULL OR expires_at > $3)
            ORDER BY visible_at DESC LIMIT $4) GROUP BY severity";
        let query = sqlx::query_as(sql).bind(inbox.app).bind(inbox.user).bind(now).bind(Counts::MOST);
        let counted: Vec<(String, i64)> = query.fetch_all(&mut *tx).await?;
        Ok((counted.into_iter().collect(), state(&mut tx, inbox, now).await?))
    }

    async fn list(
        &self,
        inbox: Inbox<'_>,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page, StoreError> {
        let mut tx = self.read().await?;
        let mut query = QueryBuilder::<Database>::new("SELECT ");
        query.push(COLUMNS).push(" FROM user_notifications INDEXED BY ").push(index_of(filter));
        push_inbox(&mut query, inbox);
        push_filter(&mut query, filter, now);
        if let Some(Cursor { visible_at, id }) = after {
            query
                .push(" AND (visible_at, id) < (")
                .push_bind(visible_at)
                .push(", ")
                .push_bind(id.to_string())
                .push(")");
        }
        query.push(" ORDER BY visible_at DESC, id DESC LIMIT ").push_bind(one_more(limit));
        let mut items = notifications(&query.build().fetch_all(&mut *tx).await?)?;
        let has_more = items.len() > limit;
        items.truncate(limit);
        let last = items.last().filter(|_| has_more);
        let next = last.map(|last| Cursor { visible_at: last.visible_at, id: last.id });
        Ok(Page { next, state: state(&mut tx, inbox, now).await?, items })
    }

    async fn changes(
        &self,
        inbox: Inbox<'_>,
        since: Since,
        limit: usize,
        now: Timestamp,
    ) -> Result<Changes, StoreError> {
        let mut tx = self.read().await?;
        let state = state(&mut tx, inbox, now).await?;
        let sql = "SELECT purged_rev FROM inbox_state WHERE app_id = $1 AND user_id = $2";
        let purged: Option<i64> =
            sqlx::query_scalar(sql).bind(inbox.app).bind(inbox.user).fetch_optional(&mut *tx).await?;
        if since.rev > state.rev || since.rev < purged.unwrap_or_default() {
            return Ok(Changes { items: Vec::new(), next: None, state, reset: true });
        }
        let mut query = select(inbox);
        match since.id {
            None => query.push(" AND rev > ").push_bind(since.rev),
            Some(id) => {
                query.push(" AND (rev, id) > (").push_bind(since.rev).push(", ").push_bind(id.to_string()).push(")")
            }
        };
        query.push(" ORDER BY rev, id LIMIT ").push_bind(one_more(limit));
        let mut items = notifications(&query.build().fetch_all(&mut *tx).await?)?;
        let has_more = items.len() > limit;
        items.truncate(limit);
        let last = items.last().filter(|_| has_more);
        let next = last.and_then(|last| Some(Since { rev: last.rev?, id: Some(last.id) }));
        Ok(Changes { items, next, state, reset: false })
    }

    async fn notification(
        &self,
        inbox: Inbox<'_>,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<(Notification, InboxState)>, StoreError> {
        let mut tx = self.read().await?;
        let Some(found) = find(&mut tx, inbox, id).await? else { return Ok(None) };
        Ok(Some((found, state(&mut tx, inbox, now).await?)))
    }

    async fn act(
        &self,
        inbox: Inbox<'_>,
        id: Uuid,
        actions: &[Action],
        now: Timestamp,
    ) -> Result<Option<Acted>, StoreError> {
        let mut tx = self.write().await?;
        let Some(mut notification) = find(&mut tx, inbox, id).await? else { return Ok(None) };
        let done: Vec<Action> = actions.iter().copied().filter(|action| action.apply(&mut notification, now)).collect();
        let Some((first, others)) = done.split_first() else {
            let state = state(&mut tx, inbox, now).await?;
            return Ok(Some(Acted { notification, state, changed: false }));
        };
        let rev = next_rev(&mut tx, inbox).await?;
        write(&mut tx, inbox, &mut notification, rev, now).await?;
        let event = if others.is_empty() { EventName::from(*first) } else { EventName::Updated };
        let about = if notification.deleted_at.is_some() { About::Gone(id, None) } else { About::One(&notification) };
        let state = tell(&mut tx, inbox, rev, event.as_str(), about, now).await?;
        tx.commit().await?;
        Ok(Some(Acted { notification, state, changed: true }))
    }

    async fn act_on_many(
        &self,
        inbox: Inbox<'_>,
        ids: &[Uuid],
        action: Action,
        now: Timestamp,
    ) -> Result<ActedOnMany, StoreError> {
        let mut tx = self.write().await?;
        let (mut missing, mut changed) = (Vec::new(), Vec::new());
        for id in ids {
            match find(&mut tx, inbox, *id).await? {
                None => missing.push(*id),
                Some(mut notification) => {
                    if action.apply(&mut notification, now) {
                        changed.push(notification);
                    }
                }
            }
        }
        if changed.is_empty() {
            return Ok(ActedOnMany { updated: 0, missing, state: state(&mut tx, inbox, now).await? });
        }
        let rev = next_rev(&mut tx, inbox).await?;
        for notification in &mut changed {
            write(&mut tx, inbox, notification, rev, now).await?;
        }
        let changed: Vec<Uuid> = changed.iter().map(|notification| notification.id).collect();
        let event = EventName::from(action).as_str();
        let state = tell(&mut tx, inbox, rev, event, About::Many(&changed), now).await?;
        tx.commit().await?;
        Ok(ActedOnMany { updated: changed.len() as u64, missing, state })
    }

    async fn mark_all(
        &self,
        inbox: Inbox<'_>,
        action: MarkAll,
        up_to_rev: i64,
        filter: &Filter,
        now: Timestamp,
    ) -> Result<(u64, InboxState), StoreError> {
        let mut tx = self.write().await?;
        let before = state(&mut tx, inbox, now).await?;
        if before.rev == 0 {
            return Ok((0, before)); // the user may not even have a row
        }
        // Taken before it is known whether anything changes, and given back with the transaction if nothing does.
        let rev = next_rev(&mut tx, inbox).await?;
        let mut query = QueryBuilder::<Database>::new("UPDATE user_notifications SET rev = ");
        query.push_bind(rev).push(", updated_at = ").push_bind(now);
        match action {
            MarkAll::Seen => query.push(", seen_at = ").push_bind(now),
            MarkAll::Read => {
                query.push(", seen_at = coalesce(seen_at, ").push_bind(now).push("), read_at = ").push_bind(now)
            }
            MarkAll::Archive => query.push(", archived_at = ").push_bind(now),
        };
        push_inbox(&mut query, inbox);
        push_filter(&mut query, filter, now);
        query.push(" AND rev <= ").push_bind(up_to_rev);
        query.push(match action {
            MarkAll::Seen => " AND seen_at IS NULL",
            MarkAll::Read => " AND read_at IS NULL",
            MarkAll::Archive => " AND archived_at IS NULL",
        });
        let updated = query.build().execute(&mut *tx).await?.rows_affected();
        if updated == 0 {
            return Ok((0, before));
        }
        let state = tell(&mut tx, inbox, rev, all_name(action), About::All { up_to_rev, filter }, now).await?;
        tx.commit().await?;
        Ok((updated, state))
    }

    async fn announce_due(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        self.announce(limit, now).await
    }

    async fn expire_due(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        self.expire(limit, now).await
    }
}

/// The index that has just what a list may contain, in its order. SQLite knows no better without statistics, and would take one that makes
/// it look at a hundred thousand archived rows for a page of others.
const fn index_of(filter: &Filter) -> &'static str {
    match (filter.archived, filter.status) {
        (Archived::Exclude, Status::Unread) => "un_unread_idx",
        (Archived::Exclude, Status::Unseen) => "un_unseen_idx",
        (Archived::Exclude, Status::All | Status::Read) => "un_inbox_idx",
        (Archived::Only, _) => "un_archived_idx",
        (Archived::Include, _) => "un_all_idx",
    }
}

fn select(inbox: Inbox<'_>) -> QueryBuilder<Database> {
    let mut query = QueryBuilder::<Database>::new("SELECT ");
    query.push(COLUMNS).push(" FROM user_notifications");
    push_inbox(&mut query, inbox);
    query
}

fn push_inbox(query: &mut QueryBuilder<Database>, inbox: Inbox<'_>) {
    query.push(" WHERE app_id = ").push_bind(inbox.app.to_owned());
    query.push(" AND user_id = ").push_bind(inbox.user.to_owned());
}

/// One more than is wanted tells whether there are more.
fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

fn push_filter(query: &mut QueryBuilder<Database>, filter: &Filter, now: Timestamp) {
    query.push(" AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > ").push_bind(now).push(")");
    match filter.snoozed {
        Snoozed::Exclude => query.push(" AND announced_at IS NOT NULL"),
        // Older ones have been announced again: the index need not be read to its end for them.
        Snoozed::Only => query.push(" AND snoozed_until IS NOT NULL AND visible_at > ").push_bind(now.before(AN_HOUR)),
    };
    query.push(match filter.archived {
        Archived::Exclude => " AND archived_at IS NULL",
        Archived::Only => " AND archived_at IS NOT NULL",
        Archived::Include => "",
    });
    query.push(match filter.status {
        Status::All => "",
        Status::Unread => " AND read_at IS NULL",
        Status::Read => " AND read_at IS NOT NULL",
        Status::Unseen => " AND seen_at IS NULL",
    });
    if let Some(severity) = filter.severity {
        query.push(" AND severity = ").push_bind(severity.as_str());
    }
    if let Some(org) = &filter.org_id {
        query.push(" AND org_id = ").push_bind(org.clone());
    }
    if let Some(after) = filter.created_after {
        query.push(" AND created_at > ").push_bind(after);
    }
    if !filter.kinds.is_empty() {
        query.push(" AND (");
        for (position, kind) in filter.kinds.iter().enumerate() {
            query.push(if position == 0 { "" } else { " OR " });
            match kind.strip_suffix('*') {
                // A type holds no character that LIKE or GLOB would take for something else but `_`, so a range says it.
                Some(prefix) => {
                    query.push("(type >= ").push_bind(prefix.to_owned()).push(" AND type < ");
                    query.push_bind(format!("{prefix}{}", char::MAX)).push(")")
                }
                None => query.push("type = ").push_bind(kind.clone()),
            };
        }
        query.push(")");
    }
}

/// One that its user can know of.
async fn find(
    connection: &mut SqliteConnection,
    inbox: Inbox<'_>,
    id: Uuid,
) -> Result<Option<Notification>, StoreError> {
    let mut query = select(inbox);
    query.push(" AND id = ").push_bind(id.to_string());
    query.push(" AND deleted_at IS NULL AND rev IS NOT NULL");
    let row = query.build().fetch_optional(connection).await?;
    Ok(row.as_ref().map(notification).transpose()?)
}

/// Writes a changed notification under its new revision. If it is open again and another open one has its group, it leaves the group.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    inbox: Inbox<'_>,
    notification: &mut Notification,
    rev: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    (notification.rev, notification.updated_at) = (Some(rev), now);
    let Notification { read_at, archived_at, deleted_at, .. } = *notification;
    let is_open = read_at.is_none() && archived_at.is_none() && deleted_at.is_none();
    if is_open && let Some(group) = &notification.draft.group_key {
        let sql = "SELECT 1 FROM user_notifications WHERE app_id = $1 AND user_id = $2 AND group_key = $3
            AND read_at IS NULL AND archived_at IS NULL AND deleted_at IS NULL AND id <> $4";
        let other: Option<i64> = sqlx::query_scalar(sql)
            .bind(inbox.app)
            .bind(inbox.user)
            .bind(group)
            .bind(notification.id.to_string())
            .fetch_optional(&mut *connection)
            .await?;
        if other.is_some() {
            notification.draft.group_key = None;
        }
    }
    // What is snoozed is announced anew when its time has come.
    let announced_at = notification.snoozed_until.is_none().then_some(now);
    let sql = "UPDATE user_notifications SET rev = $2, updated_at = $3, visible_at = $4, announced_at = $5, seen_at = $6,
            read_at = $7, archived_at = $8, snoozed_until = $9, deleted_at = $10, group_key = $11, title = $12, message = $13,
            action_url = $14, image_url = $15, actor = $16, object = $17, data = $18
        WHERE id = $1";
    let draft = &notification.draft;
    sqlx::query(sql)
        .bind(notification.id.to_string())
        .bind(rev)
        .bind(now)
        .bind(notification.visible_at)
        .bind(announced_at)
        .bind(notification.seen_at)
        .bind(notification.read_at)
        .bind(notification.archived_at)
        .bind(notification.snoozed_until)
        .bind(notification.deleted_at)
        .bind(&draft.group_key)
        .bind(&draft.title)
        .bind(&draft.message)
        .bind(&draft.action_url)
        .bind(&draft.image_url)
        .bind(draft.actor.as_ref().map(Json))
        .bind(draft.object.as_ref().map(Json))
        .bind(draft.data.as_ref().map(Json))
        .execute(connection)
        .await?;
    Ok(())
}
