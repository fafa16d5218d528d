//! Work that is left to be done.

use async_trait::async_trait;
use uuid::Uuid;

use super::{Postgres, Tx, again};
use crate::store::StoreError;
use crate::store::notification::Notification;
use crate::store::tasks::{Dispatch, NewTask, Task, TaskKind, Tasks};
use crate::store::time::{Timestamp, too_far};

#[async_trait]
impl Tasks for Postgres {
    async fn add_task(&self, task: &NewTask<'_>, now: Timestamp) -> Result<bool, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let is_new = note(&mut tx, task, now).await?;
            tx.commit().await?;
            Ok(is_new)
        })
        .await
    }

    async fn take_tasks(
        &self,
        kind: TaskKind,
        limit: usize,
        locked_until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = "UPDATE jobs SET locked_until = $3 WHERE id IN (SELECT id FROM jobs
                    WHERE kind = $1 AND done_at IS NULL AND available_at <= $2
                        AND (locked_until IS NULL OR locked_until <= $2 OR locked_until > $5)
                    ORDER BY available_at, user_id, id LIMIT $4 FOR UPDATE SKIP LOCKED)
                RETURNING available_at, user_id, id, payload, attempts";
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let query = tx
                .rows(sql)
                .bind(kind.as_str())
                .bind(now)
                .bind(locked_until)
                .bind(limit)
                .bind(too_far(locked_until, now));
            let mut rows: Vec<(Timestamp, Option<String>, Uuid, String, i64)> = query.fetch_all(tx.on()).await?;
            tx.commit().await?;
            rows.sort_unstable();
            let task = |(_, user, id, payload, attempts)| {
                let attempts: i64 = attempts;
                Task { id, user, payload, attempts: u32::try_from(attempts).unwrap_or(u32::MAX) }
            };
            Ok(rows.into_iter().map(task).collect())
        })
        .await
    }

    async fn finish_tasks(&self, ids: &[Uuid], given_up: Option<&str>, now: Timestamp) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = "UPDATE jobs SET locked_until = NULL, done_at = $2, last_error = $3
                WHERE done_at IS NULL AND id = ANY($1)";
            tx.query(sql).bind(ids).bind(now).bind(given_up).execute(tx.on()).await?;
            tx.commit().await
        })
        .await
    }

    async fn postpone_tasks(&self, ids: &[Uuid], until: Timestamp, failed: Option<&str>) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = "UPDATE jobs SET locked_until = NULL, available_at = $2, last_error = coalesce($3, last_error),
                    attempts = attempts + CASE WHEN $3 IS NULL THEN 0 ELSE 1 END
                WHERE done_at IS NULL AND id = ANY($1)";
            tx.query(sql).bind(ids).bind(until).bind(failed).execute(tx.on()).await?;
            tx.commit().await
        })
        .await
    }
}

/// Notes a task as part of what it follows from; false if there is one with its key.
pub(super) async fn note(tx: &mut Tx, task: &NewTask<'_>, now: Timestamp) -> Result<bool, StoreError> {
    let sql = "INSERT INTO jobs (id, kind, dedupe_key, user_id, payload, available_at, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
    let query = tx.query(sql).bind(Uuid::now_v7()).bind(task.kind.as_str()).bind(task.dedupe_key).bind(task.user);
    let noted = query.bind(task.payload).bind(task.available_at).bind(now).execute(tx.on()).await?;
    Ok(noted.rows_affected() > 0)
}

/// Notes that these, which were just announced, are to go by other ways too.
pub(super) async fn dispatch(
    tx: &mut Tx,
    app: &str,
    announced: &[(String, Notification)],
    now: Timestamp,
) -> Result<(), StoreError> {
    let (mut ids, mut keys, mut users, mut payloads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (user, notification) in announced {
        ids.push(Uuid::now_v7());
        keys.push(notification.version());
        users.push(user.as_str());
        let payload = Dispatch { app: app.to_owned(), notification: notification.id };
        payloads.push(serde_json::to_string(&payload).map_err(|error| sqlx::Error::Encode(error.into()))?);
    }
    let sql = "INSERT INTO jobs (id, kind, dedupe_key, user_id, payload, available_at, created_at)
        SELECT i, $1, k, u, p, $2, $2 FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[]) AS t(i, k, u, p)
        ON CONFLICT DO NOTHING";
    let query = tx.query(sql).bind(TaskKind::Dispatch.as_str()).bind(now);
    query.bind(&ids).bind(&keys).bind(&users).bind(&payloads).execute(tx.on()).await?;
    Ok(())
}

/// Whatever waits for this user is looked at again at once: what it waits for may not hold any more.
pub(super) async fn wake(tx: &mut Tx, user: &str, now: Timestamp) -> Result<(), StoreError> {
    let sql = "UPDATE jobs SET available_at = $2 WHERE user_id = $1 AND done_at IS NULL AND available_at > $2 AND attempts = 0";
    tx.query(sql).bind(user).bind(now).execute(tx.on()).await?;
    Ok(())
}
