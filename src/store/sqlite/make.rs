//! Making notifications (section 8.5).

use std::collections::HashMap;

use sqlx::sqlite::SqliteConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::inbox::{self, COLUMNS};
use super::{Sqlite, is_known, jobs, next_rev, tasks, tell};
use crate::store::event::{About, EventName};
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

impl Sqlite {
    pub(super) async fn make(&self, create: &Create<'_>, now: Timestamp) -> Result<Created, StoreError> {
        let mut tx = self.write().await?;
        let mut created = Created::default();
        for user in create.recipients {
            let sql = "SELECT request_hash FROM notification_dedupe WHERE app_id = $1 AND user_id = $2 AND transaction_id = $3";
            let known: Option<String> = sqlx::query_scalar(sql)
                .bind(create.app)
                .bind(user)
                .bind(create.transaction_id)
                .fetch_optional(&mut *tx)
                .await?;
            if known.is_some_and(|hash| hash != create.request_hash) {
                return Err(StoreError::Conflict);
            }
        }
        if create.job.is_none() {
            let sql = "SELECT EXISTS (SELECT 1 FROM fanout_jobs WHERE app_id = $1 AND transaction_id = $2 AND request_hash <> $3)";
            let query = sqlx::query_scalar(sql).bind(create.app).bind(create.transaction_id).bind(create.request_hash);
            if query.fetch_one(&mut *tx).await? {
                return Err(StoreError::Conflict);
            }
        }
        for user in create.recipients {
            if !is_known(&mut tx, user, create.only_known, now).await? {
                created.unknown.push(user.clone());
                continue;
            }
            match self.make_one(&mut tx, create, user, now).await? {
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
        user: &str,
        now: Timestamp,
    ) -> Result<Made, StoreError> {
        let inbox = Inbox { app: create.app, user };
        let is_wanted = match &create.wanted {
            Some(wanted) => is_wanted(connection, inbox, wanted).await?,
            None => true,
        };
        let id = Uuid::now_v7();
        let sql =
            "INSERT INTO notification_dedupe (app_id, user_id, transaction_id, request_hash, notification_id, created_at)
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let noted = sqlx::query(sql)
            .bind(inbox.app)
            .bind(user)
            .bind(create.transaction_id)
            .bind(create.request_hash)
            .bind(is_wanted.then(|| id.to_string()))
            .bind(now)
            .execute(&mut *connection)
            .await?;
        if noted.rows_affected() == 0 {
            return Ok(Made::Before);
        }
        if !is_wanted {
            return Ok(Made::Unwanted);
        }
        let later = create.deliver_at.filter(|at| *at > now);
        let rev = match later {
            Some(_) => None,
            None => Some(next_rev(connection, inbox).await?),
        };
        let draft = create.draft;
        let sql = sqlx::AssertSqlSafe(format!(
            "INSERT INTO user_notifications (id, app_id, user_id, org_id, type, severity, title, message, action_url, image_url,
                actor, object, data, transaction_id, group_key, rev, visible_at, announced_at, expires_at, created_at, updated_at,
                channels)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $20, $21)
            {} RETURNING {COLUMNS}",
            if draft.group_key.is_some() { GROW } else { "" }
        ));
        let row = sqlx::query(sql)
            .bind(id.to_string())
            .bind(inbox.app)
            .bind(user)
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
            .bind(now)
            .bind(draft.channels.as_ref().map(Json))
            .fetch_one(&mut *connection)
            .await?;
        if let Some(rev) = rev {
            let notification = inbox::notification(&row)?;
            let event = if notification.group_count == 1 { EventName::Created } else { EventName::Updated };
            tell(connection, inbox, rev, event.as_str(), About::One(&notification), now).await?;
            if self.dispatches {
                tasks::dispatch(connection, inbox, &notification, now).await?;
            }
        }
        Ok(Made::New)
    }
}

/// Whether the user wants such ones in the inbox: the preference for the longest of these patterns, else the application's.
async fn is_wanted(
    connection: &mut SqliteConnection,
    inbox: Inbox<'_>,
    wanted: &Wanted<'_>,
) -> Result<bool, StoreError> {
    let sql =
        "SELECT type, enabled FROM notification_preferences WHERE app_id = $1 AND user_id = $2 AND channel = 'in_app'";
    let own: HashMap<String, bool> =
        sqlx::query_as(sql).bind(inbox.app).bind(inbox.user).fetch_all(connection).await?.into_iter().collect();
    Ok(wanted.patterns.iter().find_map(|pattern| own.get(pattern).copied()).unwrap_or(wanted.otherwise))
}
