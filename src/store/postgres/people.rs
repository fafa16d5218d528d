//! Who is known, and who is not served any more.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::{Postgres, Tx, again, files, is_known, json};
use crate::store::people::{Applied, Change, Ended, Inbound, Standing, User};
use crate::store::time::Timestamp;
use crate::store::{People, StoreError};

impl<'r> FromRow<'r, PgRow> for User {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        let Json(public_metadata): Json<Value> = row.try_get("public_metadata")?;
        Ok(Self {
            id: row.try_get("id")?,
            email: row.try_get("email")?,
            name: row.try_get("name")?,
            image_url: row.try_get("image_url")?,
            locale: row.try_get("locale")?,
            timezone: row.try_get("timezone")?,
            public_metadata,
            banned: row.try_get("banned")?,
            source_updated_at: row.try_get("source_updated_at")?,
        })
    }
}

/// A user's row, if there is one, and what may be against serving it: asked for at every request.
const STANDING: &str = "SELECT users.*, EXISTS (SELECT 1 FROM user_tombstones WHERE id = $1) AS is_deleted,
    EXISTS (SELECT 1 FROM ended_sessions WHERE session_id = $2) AS is_session_ended,
    EXISTS (SELECT 1 FROM org_members WHERE org_id = $3 AND user_id = $1 AND deleted_at IS NOT NULL) AS has_left
    FROM (SELECT 1) AS one LEFT JOIN users ON users.id = $1";

#[async_trait]
impl People for Postgres {
    async fn standing(&self, user: &str, session: Option<&str>, org: Option<&str>) -> Result<Standing, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let row = tx.query(STANDING).bind(user).bind(session).bind(org).fetch_one(tx.on()).await?;
            tx.commit().await?;
            let known: Option<String> = row.try_get("id")?;
            Ok(Standing {
                user: known.is_some().then(|| User::from_row(&row)).transpose()?,
                is_deleted: row.try_get("is_deleted")?,
                is_session_ended: row.try_get("is_session_ended")?,
                has_left: row.try_get("has_left")?,
            })
        })
        .await
    }

    async fn put_user(&self, user: &User, now: Timestamp) -> Result<bool, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let is_put = put_user(&mut tx, user, now).await?;
            tx.commit().await?;
            Ok(is_put)
        })
        .await
    }

    async fn meet(&self, user: &str, now: Timestamp) -> Result<bool, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let is_known = is_known(&mut tx, user, now).await?;
            tx.commit().await?;
            Ok(is_known)
        })
        .await
    }

    async fn apply(&self, inbound: &Inbound<'_>, change: &Change, now: Timestamp) -> Result<Applied, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            if !note(&mut tx, inbound, now).await? {
                return Ok(Applied::Repeated);
            }
            let has_changed = match change {
                Change::User(user) => put_user(&mut tx, user, now).await?,
                Change::UserDeleted { id } => delete_user(&mut tx, id, now).await?,
                Change::SessionEnded { session, user } => {
                    let sql = "INSERT INTO ended_sessions (session_id, user_id, ended_at) VALUES ($1, $2, $3)
                        ON CONFLICT DO NOTHING";
                    let query = tx.query(sql).bind(session).bind(user).bind(now);
                    query.execute(tx.on()).await?.rows_affected() > 0
                }
                Change::Member { org, user, role, updated_at } => {
                    put_member(&mut tx, (org, user), role, *updated_at, None, now).await?
                }
                Change::MemberLeft { org, user, updated_at } => {
                    put_member(&mut tx, (org, user), "", *updated_at, Some(now), now).await?
                }
                Change::OrgDeleted { org } => {
                    let sql = "UPDATE org_members SET deleted_at = $2 WHERE org_id = $1 AND deleted_at IS NULL";
                    tx.query(sql).bind(org).bind(now).execute(tx.on()).await?.rows_affected() > 0
                }
                Change::Nothing => false,
            };
            tx.commit().await?;
            Ok(if has_changed { Applied::Done } else { Applied::Unchanged })
        })
        .await
    }

    async fn ended_since(&self, since: Timestamp) -> Result<Vec<Ended>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = "SELECT session_id, user_id, ended_at FROM ended_sessions WHERE ended_at >= $1";
            let sessions: Vec<(String, Option<String>, Timestamp)> =
                tx.rows(sql).bind(since).fetch_all(tx.on()).await?;
            let sql = "SELECT user_id, ended_at FROM ended_users WHERE ended_at >= $1";
            let users: Vec<(String, Timestamp)> = tx.rows(sql).bind(since).fetch_all(tx.on()).await?;
            let sql = "SELECT user_id, org_id, deleted_at FROM org_members WHERE deleted_at >= $1";
            let members: Vec<(String, String, Timestamp)> = tx.rows(sql).bind(since).fetch_all(tx.on()).await?;
            tx.commit().await?;
            let sessions = sessions.into_iter().map(|(session, user, at)| Ended::Session { session, user, at });
            let users = users.into_iter().map(|(user, at)| Ended::User { user, at });
            let members = members.into_iter().map(|(user, org, at)| Ended::Membership { user, org, at });
            Ok(sessions.chain(users).chain(members).collect())
        })
        .await
    }
}

/// Notes a webhook; false if it was noted before.
pub(super) async fn note(tx: &mut Tx, inbound: &Inbound<'_>, now: Timestamp) -> Result<bool, StoreError> {
    let sql = "INSERT INTO webhook_events (source, event_id, type, received_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING";
    let noted = tx.query(sql).bind(inbound.source).bind(inbound.event_id).bind(inbound.kind).bind(now);
    Ok(noted.execute(tx.on()).await?.rows_affected() > 0)
}

/// Older news than what is known changes nothing, nor does any of a deleted user.
async fn put_user(tx: &mut Tx, user: &User, now: Timestamp) -> Result<bool, StoreError> {
    let sql =
        "INSERT INTO users (id, email, name, image_url, locale, timezone, public_metadata, banned, source_updated_at,
            created_at, updated_at)
        SELECT $1, $2, $3, $4, $5, $6, $7::json, $8, $9, $10, $10
        WHERE NOT EXISTS (SELECT 1 FROM user_tombstones WHERE id = $1)
        ON CONFLICT (id) DO UPDATE SET email = excluded.email, name = excluded.name, image_url = excluded.image_url,
            locale = excluded.locale, timezone = excluded.timezone, public_metadata = excluded.public_metadata,
            banned = excluded.banned, source_updated_at = excluded.source_updated_at, updated_at = excluded.updated_at
        WHERE excluded.source_updated_at >= users.source_updated_at";
    let put = tx
        .query(sql)
        .bind(&user.id)
        .bind(&user.email)
        .bind(&user.name)
        .bind(&user.image_url)
        .bind(&user.locale)
        .bind(&user.timezone)
        .bind(json(&user.public_metadata))
        .bind(user.banned)
        .bind(user.source_updated_at)
        .bind(now)
        .execute(tx.on())
        .await?;
    if put.rows_affected() == 0 {
        return Ok(false);
    }
    if user.banned {
        let sql = "INSERT INTO ended_users (user_id, ended_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        tx.query(sql).bind(&user.id).bind(now).execute(tx.on()).await?;
    } else {
        tx.query("DELETE FROM ended_users WHERE user_id = $1").bind(&user.id).execute(tx.on()).await?;
    }
    Ok(true)
}

async fn delete_user(tx: &mut Tx, id: &str, now: Timestamp) -> Result<bool, StoreError> {
    // Waits for a row that is being made just now, which would stay otherwise.
    let sql = "INSERT INTO users (id, created_at, updated_at) VALUES ($1, $2, $2) ON CONFLICT (id) DO UPDATE SET updated_at = $2";
    tx.query(sql).bind(id).bind(now).execute(tx.on()).await?;
    for sql in [
        "INSERT INTO user_tombstones (id, deleted_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        "INSERT INTO ended_users (user_id, ended_at) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET ended_at = $2",
    ] {
        tx.query(sql).bind(id).bind(now).execute(tx.on()).await?;
    }
    files::destroy_all(tx, id, now).await?;
    tx.query("DELETE FROM users WHERE id = $1").bind(id).execute(tx.on()).await?;
    tx.query("DELETE FROM outbox WHERE user_id = $1").bind(id).execute(tx.on()).await?;
    tx.query("DELETE FROM jobs WHERE user_id = $1").bind(id).execute(tx.on()).await?;
    Ok(true)
}

async fn put_member(
    tx: &mut Tx,
    (org, user): (&str, &str),
    role: &str,
    updated_at: i64,
    left_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if !is_known(tx, user, now).await? {
        return Ok(false);
    }
    let sql = "INSERT INTO org_members (org_id, user_id, role, source_updated_at, deleted_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (org_id, user_id) DO UPDATE SET role = excluded.role, source_updated_at = excluded.source_updated_at,
            deleted_at = excluded.deleted_at
        WHERE excluded.source_updated_at >= org_members.source_updated_at";
    let query = tx.query(sql).bind(org).bind(user).bind(role).bind(updated_at).bind(left_at);
    Ok(query.execute(tx.on()).await?.rows_affected() > 0)
}
