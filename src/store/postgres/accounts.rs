//! Accounts of users at other services.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};
use uuid::Uuid;

use super::{Postgres, Tx, again, is_known, json, tasks};
use crate::store::StoreError;
use crate::store::accounts::{Account, Accounts, Deleted, EXPIRED, MOST, PutAccount, Refreshed};
use crate::store::time::{Timestamp, too_far};

const COLUMNS: &str =
    "id, app_id, user_id, service, service_user_id, access_token_enc, refresh_token_enc, token_expires_at, refresh_at,
    refresh_attempts, refresh_locked_until, scopes, service_data, is_active, last_error, created_at, updated_at";
/// Whether nobody has it in its hands, at the moment $1 and for whoever takes it until $2; a lock that lasts beyond $3 is none.
const FREE: &str = "(refresh_locked_until IS NULL OR refresh_locked_until <= $1 OR refresh_locked_until > $3)";

impl<'r> FromRow<'r, PgRow> for Account {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        let attempts: i32 = row.try_get("refresh_attempts")?;
        let Json(scopes): Json<Vec<String>> = row.try_get("scopes")?;
        let data: Option<Json<Value>> = row.try_get("service_data")?;
        Ok(Self {
            id: row.try_get("id")?,
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
impl Accounts for Postgres {
    async fn accounts(&self, app: &str, user: &str, service: Option<&str>) -> Result<Vec<Account>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let accounts = find(&mut tx, app, user, service, "").await?;
            tx.commit().await?;
            Ok(accounts)
        })
        .await
    }

    async fn put_account(&self, said: &PutAccount<'_>, now: Timestamp) -> Result<Option<Account>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            if !is_known(&mut tx, said.key.user, now).await? {
                return Ok(None);
            }
            let (app, user) = (said.key.app, said.key.user);
            let sql =
                "INSERT INTO user_integrations (id, app_id, user_id, service, service_user_id, created_at, updated_at)
                VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT DO NOTHING";
            let query = tx.query(sql).bind(Uuid::now_v7()).bind(app).bind(user);
            query.bind(said.key.service).bind(said.key.service_user).bind(now).execute(tx.on()).await?;
            let sql = format!(
                "SELECT {COLUMNS} FROM user_integrations
                WHERE app_id = $1 AND user_id = $2 AND service = $3 AND service_user_id = $4 FOR UPDATE"
            );
            let query = tx.rows(&sql).bind(app).bind(user).bind(said.key.service).bind(said.key.service_user);
            let mut account: Account = query.fetch_one(tx.on()).await?;
            account.put(said, now);
            save(&mut tx, &account).await?;
            if let Some(task) = &said.task {
                tasks::note(&mut tx, task, now).await?;
            }
            tx.commit().await?;
            Ok(Some(account))
        })
        .await
    }

    async fn delete_account(
        &self,
        app: &str,
        user: &str,
        service: &str,
        service_user: Option<&str>,
    ) -> Result<Deleted, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let mut found = find(&mut tx, app, user, Some(service), " FOR UPDATE").await?;
            found.retain(|account| service_user.is_none_or(|service_user| account.service_user == service_user));
            if found.len() > 1 {
                return Ok(Deleted::Several);
            }
            let Some(account) = found.pop() else { return Ok(Deleted::None) };
            tx.query("DELETE FROM user_integrations WHERE id = $1").bind(account.id).execute(tx.on()).await?;
            tx.commit().await?;
            Ok(Deleted::Done(Box::new(account)))
        })
        .await
    }

    async fn lease_account(&self, id: Uuid, until: Timestamp, now: Timestamp) -> Result<Option<Account>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = format!(
                "UPDATE user_integrations SET refresh_locked_until = $2
                WHERE id = $4 AND is_active AND refresh_token_enc IS NOT NULL AND refresh_at <= $1 AND {FREE} RETURNING {COLUMNS}"
            );
            let query = tx.rows(&sql).bind(now).bind(until).bind(too_far(until, now)).bind(id);
            let leased = query.fetch_optional(tx.on()).await?;
            tx.commit().await?;
            Ok(leased)
        })
        .await
    }

    async fn lease_due_accounts(
        &self,
        services: &[&str],
        limit: usize,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Account>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = format!(
                "UPDATE user_integrations SET refresh_locked_until = $2 WHERE id IN (SELECT id FROM user_integrations
                    WHERE is_active AND refresh_at <= $1 AND refresh_token_enc IS NOT NULL AND service = ANY($4) AND {FREE}
                    ORDER BY refresh_at LIMIT $5 FOR UPDATE SKIP LOCKED)
                RETURNING {COLUMNS}"
            );
            let query = tx.rows(&sql).bind(now).bind(until).bind(too_far(until, now)).bind(services);
            let leased = query.bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(tx.on()).await?;
            tx.commit().await?;
            Ok(leased)
        })
        .await
    }

    async fn end_refresh(
        &self,
        id: Uuid,
        lease: Timestamp,
        refreshed: &Refreshed,
        now: Timestamp,
    ) -> Result<Option<Account>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = format!(
                "SELECT {COLUMNS} FROM user_integrations WHERE id = $1 AND refresh_locked_until = $2 FOR UPDATE"
            );
            let found = tx.rows(&sql).bind(id).bind(lease).fetch_optional(tx.on()).await?;
            let Some(mut account): Option<Account> = found else { return Ok(None) };
            account.end_refresh(refreshed, now);
            save(&mut tx, &account).await?;
            tx.commit().await?;
            Ok(Some(account))
        })
        .await
    }

    async fn expire_accounts(
        &self,
        refreshable: &[&str],
        only: Option<Uuid>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Account>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = format!(
                "UPDATE user_integrations SET is_active = false, last_error = $1, refresh_at = NULL, updated_at = $2
                WHERE id IN (SELECT id FROM user_integrations
                    WHERE is_active AND token_expires_at <= $2 AND access_token_enc IS NOT NULL AND ($4::uuid IS NULL OR id = $4)
                        AND (refresh_token_enc IS NULL OR NOT service = ANY($3))
                    ORDER BY token_expires_at LIMIT $5 FOR UPDATE SKIP LOCKED)
                RETURNING {COLUMNS}"
            );
            let query = tx.rows(&sql).bind(EXPIRED).bind(now).bind(refreshable).bind(only);
            let expired = query.bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(tx.on()).await?;
            tx.commit().await?;
            Ok(expired)
        })
        .await
    }
}

async fn find(
    tx: &mut Tx,
    app: &str,
    user: &str,
    service: Option<&str>,
    lock: &str,
) -> Result<Vec<Account>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM user_integrations WHERE app_id = $1 AND user_id = $2 AND ($3::text IS NULL OR service = $3)
        ORDER BY service, service_user_id LIMIT $4{lock}"
    );
    Ok(tx.rows(&sql).bind(app).bind(user).bind(service).bind(MOST).fetch_all(tx.on()).await?)
}

/// Writes all that may change of an account that this transaction has locked.
async fn save(tx: &mut Tx, account: &Account) -> Result<(), StoreError> {
    let sql = "UPDATE user_integrations SET access_token_enc = $2, refresh_token_enc = $3, token_expires_at = $4, refresh_at = $5,
            refresh_attempts = $6, refresh_locked_until = $7, scopes = $8::json, service_data = $9::json, is_active = $10, last_error = $11,
            updated_at = $12
        WHERE id = $1";
    let query = tx.query(sql).bind(account.id).bind(&account.access).bind(&account.refresh).bind(account.expires_at);
    let query = query.bind(account.refresh_at).bind(i32::try_from(account.refresh_attempts).unwrap_or(i32::MAX));
    let query = query.bind(account.lease).bind(json(&account.scopes)).bind(account.data.as_ref().map(json));
    let query = query.bind(account.is_active).bind(&account.last_error).bind(account.updated_at);
    query.execute(tx.on()).await?;
    Ok(())
}
