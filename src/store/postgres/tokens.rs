//! Tokens of other services. The key's id is the fourth part of the text.

use async_trait::async_trait;
use uuid::Uuid;

use super::{Postgres, again};
use crate::seal::TokenColumn;
use crate::store::StoreError;
use crate::store::tokens::{StoredTokens, Tokens};

#[async_trait]
impl Tokens for Postgres {
    async fn tokens_by_key(&self) -> Result<Vec<(String, u64)>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = "SELECT split_part(token, ':', 4) COLLATE \"C\" AS key, count(*) FROM (
                    SELECT access_token_enc AS token FROM user_integrations
                    UNION ALL SELECT refresh_token_enc FROM user_integrations) AS tokens
                WHERE token IS NOT NULL GROUP BY 1 ORDER BY 1";
            let rows: Vec<(String, i64)> = tx.rows(sql).fetch_all(tx.on()).await?;
            tx.commit().await?;
            Ok(rows.into_iter().map(|(key, tokens)| (key, u64::try_from(tokens).unwrap_or_default())).collect())
        })
        .await
    }

    async fn tokens_not_under(
        &self,
        key: &str,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<StoredTokens>, StoreError> {
        type Row = (Uuid, String, String, String, String, Option<String>, Option<String>);
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = "SELECT id, app_id, user_id, service, service_user_id, access_token_enc, refresh_token_enc
                FROM user_integrations WHERE id > $1
                    AND (split_part(access_token_enc, ':', 4) <> $2 OR split_part(refresh_token_enc, ':', 4) <> $2)
                ORDER BY id LIMIT $3";
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let query = tx.rows(sql).bind(after.unwrap_or_default()).bind(key).bind(limit);
            let rows: Vec<Row> = query.fetch_all(tx.on()).await?;
            tx.commit().await?;
            let tokens = rows.into_iter().map(|(id, app, user, service, service_user, access, refresh)| StoredTokens {
                id,
                app,
                user,
                service,
                service_user,
                access,
                refresh,
            });
            Ok(tokens.collect())
        })
        .await
    }

    async fn replace_token(&self, id: Uuid, column: TokenColumn, old: &str, new: &str) -> Result<bool, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let column = column.as_str();
            let sql = format!("UPDATE user_integrations SET {column} = $3 WHERE id = $1 AND {column} = $2");
            let query = tx.query(&sql).bind(id).bind(old).bind(new);
            let replaced = query.execute(tx.on()).await?.rows_affected();
            tx.commit().await?;
            Ok(replaced > 0)
        })
        .await
    }
}
