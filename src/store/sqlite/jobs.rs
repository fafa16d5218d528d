//! Creations for many users, what became of them, and topics.

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, QueryBuilder, Row as _, Sqlite as Database};
use uuid::Uuid;

use super::inbox::{COLUMNS, notification, write};
use super::{Sqlite, is_known, next_rev, tell};
use crate::store::action::Action;
use crate::store::event::{About, EventName};
use crate::store::jobs::{Audience, Job, JobProgress, JobStatus, JobStep, Jobs, NewJob, Template, Transaction};
use crate::store::sending::Created;
use crate::store::time::{Timestamp, too_far};
use crate::store::{Inbox, StoreError};

impl<'r> FromRow<'r, SqliteRow> for Job {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        let Json(audience): Json<Audience> = row.try_get("audience")?;
        let Json(template): Json<Template> = row.try_get("template")?;
        let id: &str = row.try_get("id")?;
        Ok(Self {
            id: id.parse().map_err(|error: uuid::Error| sqlx::Error::Decode(error.into()))?,
            app: row.try_get("app_id")?,
            transaction_id: row.try_get("transaction_id")?,
            request_hash: row.try_get("request_hash")?,
            audience,
            template,
            last_user: row.try_get("last_user_id")?,
        })
    }
}

#[async_trait]
impl Jobs for Sqlite {
    async fn begin_job(&self, job: &NewJob<'_>, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let sql =
            "INSERT INTO fanout_jobs (id, app_id, transaction_id, request_hash, audience, template, status, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, 'pending', $7) ON CONFLICT (app_id, transaction_id) DO NOTHING";
        let noted = sqlx::query(sql)
            .bind(job.id.to_string())
            .bind(job.app)
            .bind(job.transaction_id)
            .bind(job.request_hash)
            .bind(Json(job.audience))
            .bind(Json(job.template))
            .bind(now)
            .execute(&mut *tx)
            .await?;
        if noted.rows_affected() == 0 {
            let sql =
                "SELECT request_hash = $3 AND audience = $4 FROM fanout_jobs WHERE app_id = $1 AND transaction_id = $2";
            let is_same: bool = sqlx::query_scalar(sql)
                .bind(job.app)
                .bind(job.transaction_id)
                .bind(job.request_hash)
                .bind(Json(job.audience))
                .fetch_one(&mut *tx)
                .await?;
            return if is_same { Ok(false) } else { Err(StoreError::Conflict) };
        }
        let sql = "SELECT EXISTS (SELECT 1 FROM user_notifications n JOIN notification_dedupe d
                ON d.app_id = n.app_id AND d.user_id = n.user_id AND d.transaction_id = n.transaction_id
            WHERE n.app_id = $1 AND n.transaction_id = $2 AND d.request_hash <> $3)";
        let is_anothers: bool = sqlx::query_scalar(sql)
            .bind(job.app)
            .bind(job.transaction_id)
            .bind(job.request_hash)
            .fetch_one(&mut *tx)
            .await?;
        if is_anothers {
            return Err(StoreError::Conflict);
        }
        tx.commit().await?;
        Ok(true)
    }

    async fn take_job(&self, locked_until: Timestamp, now: Timestamp) -> Result<Option<Job>, StoreError> {
        let sql = "UPDATE fanout_jobs SET status = 'running', locked_until = $1 WHERE id = (SELECT id FROM fanout_jobs
                WHERE status IN ('pending', 'running') AND (locked_until IS NULL OR locked_until <= $2 OR locked_until > $3)
                ORDER BY created_at LIMIT 1)
            RETURNING *";
        let mut tx = self.write().await?;
        let job = sqlx::query_as(sql)
            .bind(locked_until)
            .bind(now)
            .bind(too_far(locked_until, now))
            .fetch_optional(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(job)
    }

    async fn audience(
        &self,
        app: &str,
        audience: &Audience,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let mut query = QueryBuilder::<Database>::new("SELECT ");
        match audience {
            Audience::Topic(topic) => {
                query.push("user_id FROM topic_subscriptions WHERE app_id = ").push_bind(app.to_owned());
                query
                    .push(" AND topic = ")
                    .push_bind(topic.clone())
                    .push(" AND user_id > ")
                    .push_bind(after.to_owned());
                query.push(" ORDER BY user_id")
            }
            Audience::OrgId(org) => {
                query.push("user_id FROM org_members WHERE deleted_at IS NULL AND org_id = ").push_bind(org.clone());
                query.push(" AND user_id > ").push_bind(after.to_owned()).push(" ORDER BY user_id")
            }
            Audience::All => query.push("id FROM users WHERE id > ").push_bind(after.to_owned()).push(" ORDER BY id"),
        };
        query.push(" LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        Ok(query.build_query_scalar().fetch_all(&mut *self.read().await?).await?)
    }

    async fn end_job(
        &self,
        id: Uuid,
        status: JobStatus,
        error: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE fanout_jobs SET status = $2, error = $3, finished_at = $4, locked_until = NULL
            WHERE id = $1 AND status = 'running'";
        let mut tx = self.write().await?;
        let query = sqlx::query(sql).bind(id.to_string()).bind(status.as_str()).bind(error).bind(now);
        query.execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }

    async fn transaction(&self, app: &str, transaction_id: &str) -> Result<Option<Transaction>, StoreError> {
        let mut tx = self.read().await?;
        let sql = "SELECT status, created_count, suppressed_count, error FROM fanout_jobs
            WHERE app_id = $1 AND transaction_id = $2";
        let job: Option<(String, i64, i64, Option<String>)> =
            sqlx::query_as(sql).bind(app).bind(transaction_id).fetch_optional(&mut *tx).await?;
        let sql = "SELECT count(*), count(seen_at), count(read_at), count(deleted_at) FROM user_notifications
            WHERE app_id = $1 AND transaction_id = $2";
        let (created, seen, read, deleted): (i64, i64, i64, i64) =
            sqlx::query_as(sql).bind(app).bind(transaction_id).fetch_one(&mut *tx).await?;
        if job.is_none() && created == 0 {
            return Ok(None);
        }
        let count = |count: i64| u64::try_from(count).unwrap_or_default();
        let job = job.map(|(status, created, suppressed, error)| JobProgress {
            status: JobStatus::parse(&status).unwrap_or(JobStatus::Failed),
            created: count(created),
            suppressed: count(suppressed),
            error,
        });
        let [created, seen, read, deleted] = [created, seen, read, deleted].map(count);
        Ok(Some(Transaction { created, seen, read, deleted, job }))
    }

    async fn cancel(
        &self,
        app: &str,
        transaction_id: &str,
        limit: usize,
        now: Timestamp,
    ) -> Result<Option<bool>, StoreError> {
        let mut tx = self.write().await?;
        let sql = "UPDATE fanout_jobs SET status = 'cancelled', finished_at = $3, locked_until = NULL
            WHERE app_id = $1 AND transaction_id = $2 AND status IN ('pending', 'running')";
        let ended = sqlx::query(sql).bind(app).bind(transaction_id).bind(now).execute(&mut *tx).await?.rows_affected();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT user_id, {COLUMNS} FROM user_notifications
                WHERE app_id = $1 AND transaction_id = $2 AND deleted_at IS NULL LIMIT $3"
        ));
        let rows = sqlx::query(sql).bind(app).bind(transaction_id).bind(limit).fetch_all(&mut *tx).await?;
        for row in &rows {
            let inbox = Inbox { app, user: row.try_get("user_id")? };
            let mut found = notification(row)?;
            if found.rev.is_none() {
                let sql = "DELETE FROM user_notifications WHERE id = $1";
                sqlx::query(sql).bind(found.id.to_string()).execute(&mut *tx).await?;
                continue;
            }
            Action::Delete.apply(&mut found, now);
            let rev = next_rev(&mut tx, inbox).await?;
            write(&mut tx, inbox, &mut found, rev, now).await?;
            let about = About::Gone(found.id, Some("cancelled"));
            tell(&mut tx, inbox, rev, EventName::Deleted.as_str(), about, now).await?;
        }
        let is_known: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM fanout_jobs WHERE app_id = $1 AND transaction_id = $2)
                OR EXISTS (SELECT 1 FROM user_notifications WHERE app_id = $1 AND transaction_id = $2)",
        )
        .bind(app)
        .bind(transaction_id)
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        let has_found = !rows.is_empty() || ended > 0 || is_known;
        Ok(has_found.then_some(i64::try_from(rows.len()).unwrap_or(i64::MAX) < limit))
    }

    async fn topics(&self, app: &str, user: &str) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT topic FROM topic_subscriptions WHERE app_id = $1 AND user_id = $2 ORDER BY topic";
        Ok(sqlx::query_scalar(sql).bind(app).bind(user).fetch_all(&mut *self.read().await?).await?)
    }

    async fn follow(
        &self,
        app: &str,
        user: &str,
        topic: &str,
        follows: bool,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let changed = if !follows {
            let sql = "DELETE FROM topic_subscriptions WHERE app_id = $1 AND user_id = $2 AND topic = $3";
            sqlx::query(sql).bind(app).bind(user).bind(topic).execute(&mut *tx).await?
        } else if is_known(&mut tx, user, false, now).await? {
            let sql = "INSERT INTO topic_subscriptions (app_id, user_id, topic, created_at) VALUES ($1, $2, $3, $4)
                ON CONFLICT DO NOTHING";
            sqlx::query(sql).bind(app).bind(user).bind(topic).bind(now).execute(&mut *tx).await?
        } else {
            return Ok(false);
        };
        tx.commit().await?;
        Ok(changed.rows_affected() > 0)
    }
}

/// Notes how far a job has come, in the transaction of the step.
pub(super) async fn note(
    connection: &mut SqliteConnection,
    step: &JobStep<'_>,
    created: &Created,
) -> Result<(), StoreError> {
    let sql = "UPDATE fanout_jobs SET last_user_id = $2, locked_until = $3, created_count = created_count + $4,
            suppressed_count = suppressed_count + $5
        WHERE id = $1 AND status = 'running'";
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let noted = sqlx::query(sql)
        .bind(step.id.to_string())
        .bind(step.last_user)
        .bind(step.locked_until)
        .bind(count(created.created))
        .bind(count(created.suppressed))
        .execute(connection)
        .await?;
    if noted.rows_affected() == 0 { Err(StoreError::Cancelled) } else { Ok(()) }
}
