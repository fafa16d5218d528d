//! Work that is left to be done.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite as Database};
use uuid::Uuid;

use super::Sqlite;
use crate::store::notification::Notification;
use crate::store::tasks::{Dispatch, NewTask, Task, TaskKind, Tasks};
use crate::store::time::{Timestamp, too_far};
use crate::store::{Inbox, StoreError};

#[async_trait]
impl Tasks for Sqlite {
    async fn add_task(&self, task: &NewTask<'_>, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let is_new = note(&mut tx, task, now).await?;
        tx.commit().await?;
        Ok(is_new)
    }

    async fn take_tasks(
        &self,
        kind: TaskKind,
        limit: usize,
        locked_until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        let mut tx = self.write().await?;
        let sql = "UPDATE jobs SET locked_until = $3 WHERE id IN (SELECT id FROM jobs
                WHERE kind = $1 AND done_at IS NULL AND available_at <= $2 AND (locked_until IS NULL OR locked_until <= $2 OR locked_until > $5)
                ORDER BY available_at, user_id, id LIMIT $4)
            RETURNING available_at, user_id, id, payload, attempts";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = sqlx::query_as(sql)
            .bind(kind.as_str())
            .bind(now)
            .bind(locked_until)
            .bind(limit)
            .bind(too_far(locked_until, now));
        let mut rows: Vec<(Timestamp, Option<String>, String, String, i64)> = query.fetch_all(&mut *tx).await?;
        rows.sort_unstable();
        let tasks = rows.into_iter().map(|(_, user, id, payload, attempts)| {
            let id = id.parse().map_err(|error: uuid::Error| sqlx::Error::Decode(error.into()))?;
            Ok(Task { id, user, payload, attempts: u32::try_from(attempts).unwrap_or(u32::MAX) })
        });
        let tasks = tasks.collect::<Result<_, sqlx::Error>>()?;
        tx.commit().await?;
        Ok(tasks)
    }

    async fn finish_tasks(&self, ids: &[Uuid], given_up: Option<&str>, now: Timestamp) -> Result<(), StoreError> {
        let mut query = QueryBuilder::new("UPDATE jobs SET locked_until = NULL, done_at = ");
        query.push_bind(now).push(", last_error = ").push_bind(given_up.map(str::to_owned));
        self.change_tasks(query, ids).await
    }

    async fn postpone_tasks(&self, ids: &[Uuid], until: Timestamp, failed: Option<&str>) -> Result<(), StoreError> {
        let mut query = QueryBuilder::new("UPDATE jobs SET locked_until = NULL, available_at = ");
        query.push_bind(until);
        if let Some(reason) = failed {
            query.push(", attempts = attempts + 1, last_error = ").push_bind(reason.to_owned());
        }
        self.change_tasks(query, ids).await
    }
}

impl Sqlite {
    async fn change_tasks(&self, mut query: QueryBuilder<Database>, ids: &[Uuid]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        query.push(" WHERE done_at IS NULL AND id IN (");
        let mut list = query.separated(", ");
        for id in ids {
            list.push_bind(id.to_string());
        }
        query.push(")");
        let mut tx = self.write().await?;
        query.build().execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }
}

/// Notes that this, which was just announced, is to go by other ways too.
pub(super) async fn dispatch(
    connection: &mut SqliteConnection,
    inbox: Inbox<'_>,
    notification: &Notification,
    now: Timestamp,
) -> Result<(), StoreError> {
    let payload = Dispatch { app: inbox.app.to_owned(), notification: notification.id };
    let payload = serde_json::to_string(&payload).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let (kind, dedupe_key) = (TaskKind::Dispatch, &notification.version());
    note(connection, &NewTask { kind, dedupe_key, user: Some(inbox.user), payload: &payload, available_at: now }, now)
        .await?;
    Ok(())
}

/// Notes a task as part of what it follows from; false if there is one with its key.
pub(super) async fn note(
    connection: &mut SqliteConnection,
    task: &NewTask<'_>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let sql = "INSERT INTO jobs (id, kind, dedupe_key, user_id, payload, available_at, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
    let noted = sqlx::query(sql)
        .bind(Uuid::now_v7().to_string())
        .bind(task.kind.as_str())
        .bind(task.dedupe_key)
        .bind(task.user)
        .bind(task.payload)
        .bind(task.available_at)
        .bind(now)
        .execute(connection)
        .await?;
    Ok(noted.rows_affected() > 0)
}

/// Whatever waits for this user is looked at again at once: what it waits for may not hold any more.
pub(super) async fn wake(connection: &mut SqliteConnection, user: &str, now: Timestamp) -> Result<(), StoreError> {
    let sql = "UPDATE jobs SET available_at = $2 WHERE user_id = $1 AND done_at IS NULL AND available_at > $2 AND attempts = 0";
    sqlx::query(sql).bind(user).bind(now).execute(connection).await?;
    Ok(())
}
