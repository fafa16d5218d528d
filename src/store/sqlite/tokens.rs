//! Tokens of other services. The key's id is the fourth part of the text; SQLite has no function that splits, so it is found by comparing.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use uuid::Uuid;

use super::{BUSY, Sqlite};
use crate::seal::{TokenColumn, key_of};
use crate::store::StoreError;
use crate::store::tokens::{StoredTokens, Tokens};

/// The same as [`Tokens::tokens_by_key`], of a file that a server may have open; nothing is changed in it.
///
/// # Errors
/// When it is no database, or not Herald's.
pub async fn tokens_in(path: &Path) -> Result<Vec<(String, u64)>, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let found = by_key(&mut connection).await;
    connection.close().await?;
    found
}

async fn by_key(connection: &mut SqliteConnection) -> Result<Vec<(String, u64)>, sqlx::Error> {
    let sql = "SELECT access_token_enc FROM user_integrations WHERE access_token_enc IS NOT NULL
        UNION ALL SELECT refresh_token_enc FROM user_integrations WHERE refresh_token_enc IS NOT NULL";
    let tokens: Vec<String> = sqlx::query_scalar(sql).fetch_all(connection).await?;
    let mut keys = BTreeMap::new();
    for token in &tokens {
        *keys.entry(key_of(token).unwrap_or_default().to_owned()).or_default() += 1;
    }
    Ok(keys.into_iter().collect())
}

#[async_trait]
impl Tokens for Sqlite {
    async fn tokens_by_key(&self) -> Result<Vec<(String, u64)>, StoreError> {
        Ok(by_key(&mut *self.read().await?).await?)
    }

    async fn tokens_not_under(
        &self,
        key: &str,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<StoredTokens>, StoreError> {
        type Row = (String, String, String, String, String, Option<String>, Option<String>);
        // A key's id has no character that `LIKE` would take for another one but `_`, which is escaped.
        let under = format!("enc:v1:%:{}:%", key.replace('_', "\\_"));
        let sql = "SELECT id, app_id, user_id, service, service_user_id, access_token_enc, refresh_token_enc
            FROM user_integrations WHERE id > $1
                AND (access_token_enc NOT LIKE $2 ESCAPE '\\' OR refresh_token_enc NOT LIKE $2 ESCAPE '\\')
            ORDER BY id LIMIT $3";
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = sqlx::query_as(sql).bind(after).bind(under).bind(limit);
        let rows: Vec<Row> = query.fetch_all(&mut *self.read().await?).await?;
        let tokens = rows.into_iter().map(|(id, app, user, service, service_user, access, refresh)| {
            let id = id.parse().map_err(|error: uuid::Error| sqlx::Error::Decode(error.into()))?;
            Ok(StoredTokens { id, app, user, service, service_user, access, refresh })
        });
        Ok(tokens.collect::<Result<_, sqlx::Error>>()?)
    }

    async fn replace_token(&self, id: Uuid, column: TokenColumn, old: &str, new: &str) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let column = column.as_str();
        let sql = format!("UPDATE user_integrations SET {column} = $3 WHERE id = $1 AND {column} = $2");
        let query = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string()).bind(old).bind(new);
        let replaced = query.execute(&mut *tx).await?.rows_affected();
        tx.commit().await?;
        Ok(replaced > 0)
    }
}
