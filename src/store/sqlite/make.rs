//! Making notifications (section 8.5).

use sqlx::sqlite::SqliteConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::inbox::{self, COLUMNS};
use super::{Sqlite, is_known, next_rev, tell};
use crate::store::event::{About, EventName};
use crate::store::sending::{Create, Created};
use crate::store::time::Timestamp;
use crate::store::{Inbox, StoreError};

/// Where a group's open item is met, it grows.
const GROW: &str = "ON CONFLICT (app_id, user_id, group_key)
    WHERE group_key IS NOT NULL AND read_at IS NULL AND archived_at IS NULL AND deleted_at IS NULL
    DO UPDATE SET group_count = user_notifications.group_count + 1, severity = excluded.severity, title = excluded.title,
        message = excluded.message, action_url = excluded.action_url, image_url = excluded.image_url, actor = excluded.actor,
        object = excluded.object, data = excluded.data, rev = excluded.rev, seen_at = NULL, expires_at = excluded.expires_at,
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
        for user in create.recipients {
            if !is_known(&mut tx, user, create.only_known, now).await? {
                created.unknown.push(user.clone());
            } else if make_one(&mut tx, create, user, now).await? {
                created.created += 1;
            } else {
                created.duplicates += 1;
            }
        }
        tx.commit().await?;
        Ok(created)
    }
}

/// False if the user had it already.
async fn make_one(
    connection: &mut SqliteConnection,
    create: &Create<'_>,
    user: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let inbox = Inbox { app: create.app, user };
    let id = Uuid::now_v7();
    let sql =
        "INSERT INTO notification_dedupe (app_id, user_id, transaction_id, request_hash, notification_id, created_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    let noted = sqlx::query(sql)
        .bind(inbox.app)
        .bind(user)
        .bind(create.transaction_id)
        .bind(create.request_hash)
        .bind(id.to_string())
        .bind(now)
        .execute(&mut *connection)
        .await?;
    if noted.rows_affected() == 0 {
        return Ok(false);
    }
    let later = create.deliver_at.filter(|at| *at > now);
    let rev = match later {
        Some(_) => None,
        None => Some(next_rev(connection, inbox).await?),
    };
    let draft = create.draft;
    let sql = sqlx::AssertSqlSafe(format!(
        "INSERT INTO user_notifications (id, app_id, user_id, org_id, type, severity, title, message, action_url, image_url,
            actor, object, data, transaction_id, group_key, rev, visible_at, announced_at, expires_at, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $20)
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
        .fetch_one(&mut *connection)
        .await?;
    if let Some(rev) = rev {
        let notification = inbox::notification(&row)?;
        let event = if notification.group_count == 1 { EventName::Created } else { EventName::Updated };
        tell(connection, inbox, rev, event.as_str(), About::One(&notification), now).await?;
    }
    Ok(true)
}
