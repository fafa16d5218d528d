//! Making notifications (section 8.5).

use std::collections::HashMap;

use sqlx::sqlite::SqliteConnection;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow};
use uuid::Uuid;

use super::inbox::{self, COLUMNS};
use super::{COUNTS, NEXT_REV, Sqlite, is_known, jobs, put_event, tasks};
use crate::store::event::{About, EventName};
use crate::store::notification::{Counts, InboxState};
use crate::store::sending::{Create, Created, Wanted};
use crate::store::time::Timestamp;
use crate::store::{Inbox, StoreError};

/// Where a group's open item is met, it grows.
const GROW: &str = "ON CONFLICT (app_id, user_id, group_key)
    WHERE group_key IS NOT NULL AND read_at IS NULL AND archived_at IS NULL AND deleted_at IS NULL
    DO UPDATE SET group_count = user_notifications.group_count + 1, severity = excluded.severity, title = excluded.title,
        message = excluded.message, action_url = excluded.action_url, image_url = excluded.image_url, actor = excluded.actor,
        object = excluded.object, data = excluded.data, channels = excluded.channels, rev = excluded.rev, seen_at = NULL, expires_at = excluded.expires_at,
        updated_at = excluded.updated_at,
        visible_at = CASE WHEN user_notifications.snoozed_until IS NOT NULL THEN user_notifications.visible_at
            ELSE excluded.visible_at END";

const INSERT: &str = "INSERT INTO user_notifications (app_id, user_id, created_at, updated_at, id, org_id, type, severity, title,
        message, action_url, image_url, actor, object, data, transaction_id, group_key, rev, visible_at, announced_at, expires_at,
        channels)
    VALUES ($1, $2, $3, $3, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)";

impl Sqlite {
    pub(super) async fn make(&self, create: &Create<'_>, now: Timestamp) -> Result<Created, StoreError> {
        let mut tx = self.write().await?;
        let mut created = Created::default();
        let mut recipients = Vec::with_capacity(create.recipients.len());
        for user in create.recipients {
            let recipient = Recipient::find(&mut tx, create, user).await?;
            if recipient.hash.as_ref().is_some_and(|hash| hash != create.request_hash) {
                return Err(StoreError::Conflict);
            }
            recipients.push(recipient);
        }
        if create.job.is_none() {
            let sql = "SELECT EXISTS (SELECT 1 FROM fanout_jobs WHERE app_id = $1 AND transaction_id = $2 AND request_hash <> $3)";
            let query = sqlx::query_scalar(sql).bind(create.app).bind(create.transaction_id).bind(create.request_hash);
            if query.fetch_one(&mut *tx).await? {
                return Err(StoreError::Conflict);
            }
        }
        for recipient in &recipients {
            if !recipient.is_known && !is_known(&mut tx, recipient.user, create.only_known, now).await? {
                created.unknown.push(recipient.user.to_owned());
                continue;
            }
            match self.make_one(&mut tx, create, recipient, now).await? {
                Made::New => created.created += 1,
                Made::Before => created.duplicates += 1,
                Made::Unwanted => created.suppressed += 1,
            }
        }
        if let Some(step) = &create.job {
            jobs::note(&mut tx, step, &created).await?;
        }
        tx.commit().await?;
        Ok(created)
    }
}

/// A recipient before the creation.
struct Recipient<'a> {
    user: &'a str,
    /// Of the request with this id that the user has got.
    hash: Option<String>,
    is_known: bool,
    /// What the user wants in the inbox, by types and their prefixes.
    own: HashMap<String, i64>,
}

impl<'a> Recipient<'a> {
    async fn find(connection: &mut SqliteConnection, create: &Create<'_>, user: &'a str) -> Result<Self, StoreError> {
        let sql = "SELECT
            (SELECT request_hash FROM notification_dedupe WHERE app_id = $1 AND user_id = $2 AND transaction_id = $3),
            EXISTS (SELECT 1 FROM users WHERE id = $2),
            (SELECT json_group_object(type, enabled) FROM notification_preferences
                WHERE app_id = $1 AND user_id = $2 AND channel = 'in_app')";
        let query = sqlx::query_as(sql).bind(create.app).bind(user).bind(create.transaction_id);
        let (hash, is_known, Json(own)) = query.fetch_one(connection).await?;
        Ok(Self { user, hash, is_known, own })
    }

    /// The preference for the longest of these patterns says it, else the application's.
    fn wants(&self, wanted: &Wanted<'_>) -> bool {
        let own = wanted.patterns.iter().find_map(|pattern| self.own.get(pattern));
        own.map_or(wanted.otherwise, |enabled| *enabled != 0)
    }
}

/// What became of one recipient.
enum Made {
    New,
    Before,
    Unwanted,
}

impl Sqlite {
    async fn make_one(
        &self,
        connection: &mut SqliteConnection,
        create: &Create<'_>,
        recipient: &Recipient<'_>,
        now: Timestamp,
    ) -> Result<Made, StoreError> {
        if recipient.hash.is_some() {
            return Ok(Made::Before);
        }
        let inbox = Inbox { app: create.app, user: recipient.user };
        let is_wanted = create.wanted.as_ref().is_none_or(|wanted| recipient.wants(wanted));
        let later = create.deliver_at.filter(|at| *at > now);
        let id = Uuid::now_v7();
        // In one go with the inbox's next revision: each way to SQLite's thread costs more than what is done there.
        let note =
            "INSERT INTO notification_dedupe (app_id, user_id, transaction_id, request_hash, notification_id, created_at)
            VALUES ($1, $2, $3, $4, $5, $6)";
        let sql = if is_wanted && later.is_none() { format!("{note}; {NEXT_REV}") } else { note.to_owned() };
        let rev: Option<i64> = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(inbox.app)
            .bind(inbox.user)
            .bind(create.transaction_id)
            .bind(create.request_hash)
            .bind(is_wanted.then(|| id.to_string()))
            .bind(now)
            .fetch_optional(&mut *connection)
            .await?;
        if !is_wanted {
            return Ok(Made::Unwanted);
        }
        let draft = create.draft;
        let grow = if draft.group_key.is_some() { GROW } else { "" };
        let counts = if rev.is_some() { COUNTS } else { "" };
        let query = sqlx::query(AssertSqlSafe(format!("{INSERT} {grow} RETURNING {COLUMNS}; {counts}")))
            .bind(inbox.app)
            .bind(inbox.user)
            .bind(now)
            .bind(Counts::MOST)
            .bind(id.to_string())
            .bind(&draft.org_id)
            .bind(&draft.kind)
            .bind(draft.severity.as_str())
            .bind(&draft.title)
            .bind(&draft.message)
            .bind(&draft.action_url)
            .bind(&draft.image_url)
            .bind(draft.actor.as_ref().map(Json))
            .bind(draft.object.as_ref().map(Json))
            .bind(draft.data.as_ref().map(Json))
            .bind(create.transaction_id)
            .bind(&draft.group_key)
            .bind(rev)
            .bind(later.unwrap_or(now))
            .bind(rev.map(|_| now))
            .bind(draft.expires_at)
            .bind(draft.channels.as_ref().map(Json));
        let rows = query.fetch_all(&mut *connection).await?;
        if let (Some(rev), [row, counts, ..]) = (rev, rows.as_slice()) {
            let notification = inbox::notification(row)?;
            let (unread, unseen) = FromRow::from_row(counts)?;
            let state = InboxState { rev, counts: Counts { unread, unseen } };
            let event = if notification.group_count == 1 { EventName::Created } else { EventName::Updated };
            put_event(connection, inbox, state, event.as_str(), About::One(&notification), now).await?;
            if self.dispatches {
                tasks::dispatch(connection, inbox, &notification, now).await?;
            }
        }
        Ok(Made::New)
    }
}
