//! Who is known, and who is not served any more.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::{Sqlite, files, is_known};
use crate::store::people::{Applied, Change, Ended, Inbound, Standing, User};
use crate::store::time::Timestamp;
use crate::store::{People, StoreError};

impl<'r> FromRow<'r, SqliteRow> for User {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
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
    FROM (SELECT 1) LEFT JOIN users ON users.id = $1";

#[async_trait]
impl People for Sqlite {
    async fn standing(&self, user: &str, session: Option<&str>, org: Option<&str>) -> Result<Standing, StoreError> {
        let row = sqlx::query(STANDING).bind(user).bind(session).bind(org).fetch_one(&self.readers).await?;
        let known: Option<String> = row.try_get("id")?;
        Ok(Standing {
            user: known.is_some().then(|| User::from_row(&row)).transpose()?,
            is_deleted: row.try_get("is_deleted")?,
            is_session_ended: row.try_get("is_session_ended")?,
            has_left: row.try_get("has_left")?,
        })
    }

    async fn put_user(&self, user: &User, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let is_put = put_user(&mut tx, user, now).await?;
        tx.commit().await?;
        Ok(is_put)
    }

    async fn meet(&self, user: &str, now: Timestamp) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM users WHERE id = $1";
        let known: Option<i64> = sqlx::query_scalar(sql).bind(user).fetch_optional(&self.readers).await?;
        if known.is_some() {
            return Ok(true);
        }
        let mut tx = self.write().await?;
        let is_known = is_known(&mut tx, user, false, now).await?;
        tx.commit().await?;
        Ok(is_known)
    }

    async fn apply(&self, inbound: &Inbound<'_>, change: &Change, now: Timestamp) -> Result<Applied, StoreError> {
        let mut tx = self.write().await?;
        if !note(&mut tx, inbound, now).await? {
            return Ok(Applied::Repeated);
        }
        let has_changed = match change {
            Change::User(user) => put_user(&mut tx, user, now).await?,
            Change::UserDeleted { id } => delete_user(&mut tx, id, now).await?,
            Change::SessionEnded { session, user } => {
                let sql = "INSERT INTO ended_sessions (session_id, user_id, ended_at) VALUES ($1, $2, $3)
                    ON CONFLICT DO NOTHING";
                sqlx::query(sql).bind(session).bind(user).bind(now).execute(&mut *tx).await?.rows_affected() > 0
            }
            Change::Member { org, user, role, updated_at } => {
                put_member(&mut tx, (org, user), role, *updated_at, None, now).await?
            }
            Change::MemberLeft { org, user, updated_at } => {
                put_member(&mut tx, (org, user), "", *updated_at, Some(now), now).await?
            }
            Change::OrgDeleted { org } => {
                let sql = "UPDATE org_members SET deleted_at = $2 WHERE org_id = $1 AND deleted_at IS NULL";
                sqlx::query(sql).bind(org).bind(now).execute(&mut *tx).await?.rows_affected() > 0
            }
            Change::Nothing => false,
        };
        tx.commit().await?;
        Ok(if has_changed { Applied::Done } else { Applied::Unchanged })
    }

    async fn ended_since(&self, since: Timestamp) -> Result<Vec<Ended>, StoreError> {
        let mut tx = self.read().await?;
        let sql = "SELECT session_id, user_id, ended_at FROM ended_sessions WHERE ended_at >= $1";
        let sessions: Vec<(String, Option<String>, Timestamp)> =
            sqlx::query_as(sql).bind(since).fetch_all(&mut *tx).await?;
        let sql = "SELECT user_id, ended_at FROM ended_users WHERE ended_at >= $1";
        let users: Vec<(String, Timestamp)> = sqlx::query_as(sql).bind(since).fetch_all(&mut *tx).await?;
        let sql = "SELECT user_id, org_id, deleted_at FROM org_members WHERE deleted_at >= $1";
        let members: Vec<(String, String, Timestamp)> = sqlx::query_as(sql).bind(since).fetch_all(&mut *tx).await?;
        let sessions = sessions.into_iter().map(|(session, user, at)| Ended::Session { session, user, at });
        let users = users.into_iter().map(|(user, at)| Ended::User { user, at });
        let members = members.into_iter().map(|(user, org, at)| Ended::Membership { user, org, at });
        Ok(sessions.chain(users).chain(members).collect())
    }
}

/// Notes a webhook; false if it was noted before.
pub(super) async fn note(
    connection: &mut SqliteConnection,
    inbound: &Inbound<'_>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let sql = "INSERT INTO webhook_events (source, event_id, type, received_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING";
    let noted = sqlx::query(sql).bind(inbound.source).bind(inbound.event_id).bind(inbound.kind).bind(now);
    Ok(noted.execute(connection).await?.rows_affected() > 0)
}

/// Older news than what is known changes nothing, nor does any of a deleted user.
async fn put_user(connection: &mut SqliteConnection, user: &User, now: Timestamp) -> Result<bool, StoreError> {
    let sql = "INSERT INTO users (id, email, name, image_url, locale, timezone, public_metadata, banned, source_updated_at,
            created_at, updated_at)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10 WHERE NOT EXISTS (SELECT 1 FROM user_tombstones WHERE id = $1)
        ON CONFLICT (id) DO UPDATE SET email = excluded.email, name = excluded.name, image_url = excluded.image_url,
            locale = excluded.locale, timezone = excluded.timezone, public_metadata = excluded.public_metadata,
            banned = excluded.banned, source_updated_at = excluded.source_updated_at, updated_at = excluded.updated_at
        WHERE excluded.source_updated_at >= users.source_updated_at";
    let put = sqlx::query(sql)
        .bind(&user.id)
        .bind(&user.email)
        .bind(&user.name)
        .bind(&user.image_url)
        .bind(&user.locale)
        .bind(&user.timezone)
        .bind(Json(&user.public_metadata))
        .bind(user.banned)
        .bind(user.source_updated_at)
        .bind(now)
        .execute(&mut *connection)
        .await?;
    if put.rows_affected() == 0 {
        return Ok(false);
    }
    if user.banned {
        let sql = "INSERT INTO ended_users (user_id, ended_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        sqlx::query(sql).bind(&user.id).bind(now).execute(connection).await?;
    } else {
        sqlx::query("DELETE FROM ended_users WHERE user_id = $1").bind(&user.id).execute(connection).await?;
    }
    Ok(true)
}

async fn delete_user(connection: &mut SqliteConnection, id: &str, now: Timestamp) -> Result<bool, StoreError> {
    for sql in [
        "INSERT INTO user_tombstones (id, deleted_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        "INSERT INTO ended_users (user_id, ended_at) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET ended_at = $2",
    ] {
        sqlx::query(sql).bind(id).bind(now).execute(&mut *connection).await?;
    }
    sqlx::query("DELETE FROM outbox WHERE user_id = $1").bind(id).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM jobs WHERE user_id = $1").bind(id).execute(&mut *connection).await?;
    files::destroy_all(connection, id, now).await?;
    sqlx::query("DELETE FROM users WHERE id = $1").bind(id).execute(connection).await?;
    Ok(true)
}

async fn put_member(
    connection: &mut SqliteConnection,
    (org, user): (&str, &str),
    role: &str,
    updated_at: i64,
    left_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if !is_known(connection, user, false, now).await? {
        return Ok(false);
    }
    let sql = "INSERT INTO org_members (org_id, user_id, role, source_updated_at, deleted_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (org_id, user_id) DO UPDATE SET role = excluded.role, source_updated_at = excluded.source_updated_at,
            deleted_at = excluded.deleted_at
        WHERE excluded.source_updated_at >= org_members.source_updated_at";
    let put =
        sqlx::query(sql).bind(org).bind(user).bind(role).bind(updated_at).bind(left_at).execute(connection).await?;
    Ok(put.rows_affected() > 0)
}
