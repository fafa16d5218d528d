//! Accounts of users at other services.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, Row as _};
use uuid::Uuid;

use super::{Sqlite, is_known, tasks};
use crate::store::StoreError;
use crate::store::accounts::{Account, Accounts, Deleted, EXPIRED, MOST, PutAccount, Refreshed};
use crate::store::time::{Timestamp, too_far};

const COLUMNS: &str =
    "id, app_id, user_id, service, service_user_id, access_token_enc, refresh_token_enc, token_expires_at, refresh_at,
    refresh_attempts, refresh_locked_until, scopes, service_data, is_active, last_error, created_at, updated_at";
/// Whether nobody has it in its hands, at the moment $1 and for whoever takes it until $2; a lock that lasts beyond $3 is none.
const FREE: &str = "(refresh_locked_until IS NULL OR refresh_locked_until <= $1 OR refresh_locked_until > $3)";

impl<'r> FromRow<'r, SqliteRow> for Account {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        let (id, attempts): (&str, i64) = (row.try_get("id")?, row.try_get("refresh_attempts")?);
        let Json(scopes): Json<Vec<String>> = row.try_get("scopes")?;
        let data: Option<Json<Value>> = row.try_get("service_data")?;
        Ok(Self {
            id: id.parse().map_err(|error: uuid::Error| sqlx::Error::Decode(error.into()))?,
            app: row.try_get("app_id")?,
            user: row.try_get("user_id")?,
            service: row.try_get("service")?,
            service_user: row.try_get("service_user_id")?,
            access: row.try_get("access_token_enc")?,
            refresh: row.try_get("refresh_token_enc")?,
            expires_at: row.try_get("token_expires_at")?,
            refresh_at: row.try_get("refresh_at")?,
            refresh_attempts: u32::try_from(attempts).unwrap_or_default(),
            lease: row.try_get("refresh_locked_until")?,
            scopes,
            data: data.map(|Json(data)| data),
            is_active: row.try_get("is_active")?,
            last_error: row.try_get("last_error")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

#[async_trait]
impl Accounts for Sqlite {
    async fn accounts(&self, app: &str, user: &str, service: Option<&str>) -> Result<Vec<Account>, StoreError> {
        find(&mut *self.read().await?, app, user, service).await
    }

    async fn put_account(&self, said: &PutAccount<'_>, now: Timestamp) -> Result<Option<Account>, StoreError> {
        let mut tx = self.write().await?;
        if !is_known(&mut tx, said.key.user, false, now).await? {
            return Ok(None);
        }
        let (app, user) = (said.key.app, said.key.user);
        let sql =
            "INSERT INTO user_integrations (id, app_id, user_id, service, service_user_id, created_at, updated_at)
            VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT DO NOTHING";
        let query = sqlx::query(sql).bind(Uuid::now_v7().to_string()).bind(app).bind(user);
        query.bind(said.key.service).bind(said.key.service_user).bind(now).execute(&mut *tx).await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM user_integrations WHERE app_id = $1 AND user_id = $2 AND service = $3 AND service_user_id = $4"
        );
        let query = sqlx::query_as(AssertSqlSafe(sql)).bind(app).bind(user);
        let mut account: Account = query.bind(said.key.service).bind(said.key.service_user).fetch_one(&mut *tx).await?;
        account.put(said, now);
        save(&mut tx, &account).await?;
        if let Some(task) = &said.task {
            tasks::note(&mut tx, task, now).await?;
        }
        tx.commit().await?;
        Ok(Some(account))
    }

    async fn delete_account(
        &self,
        app: &str,
        user: &str,
        service: &str,
        service_user: Option<&str>,
    ) -> Result<Deleted, StoreError> {
        let mut tx = self.write().await?;
        let mut found = find(&mut tx, app, user, Some(service)).await?;
        found.retain(|account| service_user.is_none_or(|service_user| account.service_user == service_user));
        if found.len() > 1 {
            return Ok(Deleted::Several);
        }
        let Some(account) = found.pop() else { return Ok(Deleted::None) };
        let query = sqlx::query("DELETE FROM user_integrations WHERE id = $1").bind(account.id.to_string());
        query.execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Deleted::Done(Box::new(account)))
    }

    async fn lease_account(&self, id: Uuid, until: Timestamp, now: Timestamp) -> Result<Option<Account>, StoreError> {
        let mut tx = self.write().await?;
        let sql = format!(
            "UPDATE user_integrations SET refresh_locked_until = $2
            WHERE id = $4 AND is_active AND refresh_token_enc IS NOT NULL AND refresh_at <= $1 AND {FREE} RETURNING {COLUMNS}"
        );
        let query = sqlx::query_as(AssertSqlSafe(sql)).bind(now).bind(until).bind(too_far(until, now));
        let leased = query.bind(id.to_string()).fetch_optional(&mut *tx).await?;
        tx.commit().await?;
        Ok(leased)
    }

    async fn lease_due_accounts(
        &self,
        services: &[&str],
        limit: usize,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Account>, StoreError> {
        let mut tx = self.write().await?;
        let sql = format!(
            "UPDATE user_integrations SET refresh_locked_until = $2 WHERE id IN (SELECT id FROM user_integrations
                WHERE is_active AND refresh_at <= $1 AND refresh_token_enc IS NOT NULL AND service IN (SELECT value FROM json_each($4)) AND {FREE}
                ORDER BY refresh_at LIMIT $5)
            RETURNING {COLUMNS}"
        );
        let query = sqlx::query_as(AssertSqlSafe(sql)).bind(now).bind(until).bind(too_far(until, now));
        let query = query.bind(Json(services)).bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let leased = query.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(leased)
    }

    async fn end_refresh(
        &self,
        id: Uuid,
        lease: Timestamp,
        refreshed: &Refreshed,
        now: Timestamp,
    ) -> Result<Option<Account>, StoreError> {
        let mut tx = self.write().await?;
        let sql = format!("SELECT {COLUMNS} FROM user_integrations WHERE id = $1 AND refresh_locked_until = $2");
        let query = sqlx::query_as(AssertSqlSafe(sql)).bind(id.to_string()).bind(lease);
        let Some(mut account): Option<Account> = query.fetch_optional(&mut *tx).await? else { return Ok(None) };
        account.end_refresh(refreshed, now);
        save(&mut tx, &account).await?;
        tx.commit().await?;
        Ok(Some(account))
    }

    async fn expire_accounts(
        &self,
        refreshable: &[&str],
        only: Option<Uuid>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Account>, StoreError> {
        let mut tx = self.write().await?;
        let sql = format!(
            "UPDATE user_integrations SET is_active = 0, last_error = $1, refresh_at = NULL, updated_at = $2
            WHERE id IN (SELECT id FROM user_integrations
                WHERE is_active AND token_expires_at <= $2 AND access_token_enc IS NOT NULL AND ($4 IS NULL OR id = $4)
                    AND (refresh_token_enc IS NULL OR service NOT IN (SELECT value FROM json_each($3)))
                ORDER BY token_expires_at LIMIT $5)
            RETURNING {COLUMNS}"
        );
        let query = sqlx::query_as(AssertSqlSafe(sql)).bind(EXPIRED).bind(now).bind(Json(refreshable));
        let query = query.bind(only.map(|id| id.to_string())).bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let expired = query.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(expired)
    }
}

async fn find(
    connection: &mut SqliteConnection,
    app: &str,
    user: &str,
    service: Option<&str>,
) -> Result<Vec<Account>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM user_integrations WHERE app_id = $1 AND user_id = $2 AND ($3 IS NULL OR service = $3)
        ORDER BY service, service_user_id LIMIT $4"
    );
    let query = sqlx::query_as(AssertSqlSafe(sql)).bind(app).bind(user).bind(service).bind(MOST);
    Ok(query.fetch_all(connection).await?)
}

/// Writes all that may change of an account.
async fn save(connection: &mut SqliteConnection, account: &Account) -> Result<(), StoreError> {
    let sql = "UPDATE user_integrations SET access_token_enc = $2, refresh_token_enc = $3, token_expires_at = $4, refresh_at = $5,
            refresh_attempts = $6, refresh_locked_until = $7, scopes = $8, service_data = $9, is_active = $10, last_error = $11,
            updated_at = $12
        WHERE id = $1";
    let query = sqlx::query(sql).bind(account.id.to_string()).bind(&account.access).bind(&account.refresh);
    let query = query.bind(account.expires_at).bind(account.refresh_at).bind(i64::from(account.refresh_attempts));
    let query = query.bind(account.lease).bind(Json(&account.scopes)).bind(account.data.as_ref().map(Json));
    let query = query.bind(account.is_active).bind(&account.last_error).bind(account.updated_at);
    query.execute(connection).await?;
    Ok(())
}
