//! Creations for many users, what became of them, and topics.

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Postgres as Database, QueryBuilder, Row as _};
use uuid::Uuid;

use super::inbox::{COLUMNS, notification, write};
use super::{Postgres, Tx, again, is_known, json, lock, next_rev, tell};
use crate::store::action::Action;
use crate::store::event::{About, EventName};
use crate::store::jobs::{Audience, Job, JobProgress, JobStatus, JobStep, Jobs, NewJob, Template, Transaction};
use crate::store::sending::Created;
use crate::store::time::{Timestamp, too_far};
use crate::store::{Inbox, StoreError};

impl<'r> FromRow<'r, PgRow> for Job {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        let audience: Audience = read(row, "audience")?;
        let template: Template = read(row, "template")?;
        Ok(Self {
            id: row.try_get("id")?,
            app: row.try_get("app_id")?,
            transaction_id: row.try_get("transaction_id")?,
            request_hash: row.try_get("request_hash")?,
            audience,
            template,
            last_user: row.try_get("last_user_id")?,
        })
    }
}

fn read<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

#[async_trait]
impl Jobs for Postgres {
    async fn begin_job(&self, job: &NewJob<'_>, now: Timestamp) -> Result<bool, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql =
                "INSERT INTO fanout_jobs (id, app_id, transaction_id, request_hash, audience, template, status, created_at)
                VALUES ($1, $2, $3, $4, $5, $6, 'pending', $7) ON CONFLICT (app_id, transaction_id) DO NOTHING";
            let noted = tx
                .query(sql)
                .bind(job.id)
                .bind(job.app)
                .bind(job.transaction_id)
                .bind(job.request_hash)
                .bind(json(job.audience))
                .bind(json(job.template))
                .bind(now)
                .execute(tx.on())
                .await?;
            if noted.rows_affected() == 0 {
                let sql =
                    "SELECT request_hash = $3 AND audience = $4 FROM fanout_jobs WHERE app_id = $1 AND transaction_id = $2";
                let is_same: bool = tx
                    .value(sql)
                    .bind(job.app)
                    .bind(job.transaction_id)
                    .bind(job.request_hash)
                    .bind(json(job.audience))
                    .fetch_one(tx.on())
                    .await?;
                return if is_same { Ok(false) } else { Err(StoreError::Conflict) };
            }
            let sql = "SELECT EXISTS (SELECT 1 FROM user_notifications n JOIN notification_dedupe d
                    ON d.app_id = n.app_id AND d.user_id = n.user_id AND d.transaction_id = n.transaction_id
                WHERE n.app_id = $1 AND n.transaction_id = $2 AND d.request_hash <> $3)";
            let is_anothers: bool =
                tx.value(sql).bind(job.app).bind(job.transaction_id).bind(job.request_hash).fetch_one(tx.on()).await?;
            if is_anothers {
                return Err(StoreError::Conflict);
            }
            tx.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn take_job(&self, locked_until: Timestamp, now: Timestamp) -> Result<Option<Job>, StoreError> {
        again(|| async {
            let sql =
                "UPDATE fanout_jobs SET status = 'running', locked_until = $1 WHERE id = (SELECT id FROM fanout_jobs
                    WHERE status IN ('pending', 'running') AND (locked_until IS NULL OR locked_until <= $2 OR locked_until > $3)
                    ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED)
                RETURNING *";
            let mut tx = self.begin().await?;
            let job = tx.rows(sql).bind(locked_until).bind(now).bind(too_far(locked_until, now)).fetch_optional(tx.on()).await?;
            tx.commit().await?;
            Ok(job)
        })
        .await
    }

    async fn audience(
        &self,
        app: &str,
        audience: &Audience,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        again(|| async {
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
                    query
                        .push("user_id FROM org_members WHERE deleted_at IS NULL AND org_id = ")
                        .push_bind(org.clone());
                    query.push(" AND user_id > ").push_bind(after.to_owned()).push(" ORDER BY user_id")
                }
                Audience::All => {
                    query.push("id FROM users WHERE id > ").push_bind(after.to_owned()).push(" ORDER BY id")
                }
            };
            query.push(" LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
            let mut tx = self.begin().await?;
            let users = query.build_query_scalar().persistent(tx.persistent).fetch_all(tx.on()).await?;
            tx.commit().await?;
            Ok(users)
        })
        .await
    }

    async fn end_job(
        &self,
        id: Uuid,
        status: JobStatus,
        error: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        again(|| async {
            let sql = "UPDATE fanout_jobs SET status = $2, error = $3, finished_at = $4, locked_until = NULL
                WHERE id = $1 AND status = 'running'";
            let mut tx = self.begin().await?;
            let query = tx.query(sql).bind(id).bind(status.as_str()).bind(error).bind(now);
            query.execute(tx.on()).await?;
            tx.commit().await
        })
        .await
    }

    async fn transaction(&self, app: &str, transaction_id: &str) -> Result<Option<Transaction>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = "SELECT status, created_count, suppressed_count, error FROM fanout_jobs
                WHERE app_id = $1 AND transaction_id = $2";
            let job: Option<(String, i64, i64, Option<String>)> =
                tx.rows(sql).bind(app).bind(transaction_id).fetch_optional(tx.on()).await?;
            let sql = "SELECT count(*), count(seen_at), count(read_at), count(deleted_at) FROM user_notifications
                WHERE app_id = $1 AND transaction_id = $2";
            let (created, seen, read, deleted): (i64, i64, i64, i64) =
                tx.rows(sql).bind(app).bind(transaction_id).fetch_one(tx.on()).await?;
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
        })
        .await
    }

    async fn cancel(
        &self,
        app: &str,
        transaction_id: &str,
        limit: usize,
        now: Timestamp,
    ) -> Result<Option<bool>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = "UPDATE fanout_jobs SET status = 'cancelled', finished_at = $3, locked_until = NULL
                WHERE app_id = $1 AND transaction_id = $2 AND status IN ('pending', 'running')";
            let ended = tx.query(sql).bind(app).bind(transaction_id).bind(now).execute(tx.on()).await?.rows_affected();
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let sql = format!(
                "SELECT user_id, {COLUMNS} FROM user_notifications
                    WHERE app_id = $1 AND transaction_id = $2 AND deleted_at IS NULL AND user_id = ANY($3) ORDER BY user_id"
            );
            let which = "SELECT DISTINCT user_id FROM user_notifications
                WHERE app_id = $1 AND transaction_id = $2 AND deleted_at IS NULL ORDER BY user_id LIMIT $3";
            let users: Vec<String> =
                tx.value(which).bind(app).bind(transaction_id).bind(limit).fetch_all(tx.on()).await?;
            for user in &users {
                lock(&mut tx, Inbox { app, user }).await?;
            }
            let rows = tx.query(&sql).bind(app).bind(transaction_id).bind(&users).fetch_all(tx.on()).await?;
            for row in &rows {
                let user: String = row.try_get("user_id")?;
                let inbox = Inbox { app, user: &user };
                let mut found = notification(row)?;
                if found.rev.is_none() {
                    let sql = "DELETE FROM user_notifications WHERE id = $1";
                    tx.query(sql).bind(found.id).execute(tx.on()).await?;
                    continue;
                }
                Action::Delete.apply(&mut found, now);
                let rev = next_rev(&mut tx, inbox).await?;
                write(&mut tx, inbox, &mut found, rev, now).await?;
                let about = About::Gone(found.id, Some("cancelled"));
                tell(&mut tx, inbox, EventName::Deleted.as_str(), about, now).await?;
            }
            let is_known: bool = tx.value(
                "SELECT EXISTS (SELECT 1 FROM fanout_jobs WHERE app_id = $1 AND transaction_id = $2)
                    OR EXISTS (SELECT 1 FROM user_notifications WHERE app_id = $1 AND transaction_id = $2)",
            )
            .bind(app)
            .bind(transaction_id)
            .fetch_one(tx.on())
            .await?;
            tx.commit().await?;
            let has_found = !rows.is_empty() || ended > 0 || is_known;
            Ok(has_found.then_some(i64::try_from(users.len()).unwrap_or(i64::MAX) < limit))
        })
        .await
    }

    async fn topics(&self, app: &str, user: &str) -> Result<Vec<String>, StoreError> {
        again(|| async {
            let sql = "SELECT topic FROM topic_subscriptions WHERE app_id = $1 AND user_id = $2 ORDER BY topic";
            let mut tx = self.begin().await?;
            let topics = tx.value(sql).bind(app).bind(user).fetch_all(tx.on()).await?;
            tx.commit().await?;
            Ok(topics)
        })
        .await
    }

    async fn follow(
        &self,
        app: &str,
        user: &str,
        topic: &str,
        follows: bool,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let changed = if !follows {
                let sql = "DELETE FROM topic_subscriptions WHERE app_id = $1 AND user_id = $2 AND topic = $3";
                tx.query(sql).bind(app).bind(user).bind(topic).execute(tx.on()).await?
            } else if is_known(&mut tx, user, now).await? {
                let sql = "INSERT INTO topic_subscriptions (app_id, user_id, topic, created_at) VALUES ($1, $2, $3, $4)
                    ON CONFLICT DO NOTHING";
                tx.query(sql).bind(app).bind(user).bind(topic).bind(now).execute(tx.on()).await?
            } else {
                return Ok(false);
            };
            tx.commit().await?;
            Ok(changed.rows_affected() > 0)
        })
        .await
    }
}

/// Notes how far a job has come, in the transaction of the step.
pub(super) async fn note(tx: &mut Tx, step: &JobStep<'_>, created: &Created) -> Result<(), StoreError> {
    let sql = "UPDATE fanout_jobs SET last_user_id = $2, locked_until = $3, created_count = created_count + $4,
            suppressed_count = suppressed_count + $5
        WHERE id = $1 AND status = 'running'";
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let noted = tx
        .query(sql)
        .bind(step.id)
        .bind(step.last_user)
        .bind(step.locked_until)
        .bind(count(created.created))
        .bind(count(created.suppressed))
        .execute(tx.on())
        .await?;
    if noted.rows_affected() == 0 { Err(StoreError::Cancelled) } else { Ok(()) }
}
