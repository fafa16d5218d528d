//! What users want to hear of, and when.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::types::Json;

use super::{Postgres, again, is_known, json, tasks};
use crate::store::preferences::{Channel, Digest, Preference, Preferences, Settings};
use crate::store::time::Timestamp;
use crate::store::{Inbox, StoreError};

#[async_trait]
impl Preferences for Postgres {
    async fn preferences(&self, inbox: Inbox<'_>) -> Result<Vec<Preference>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = "SELECT type, channel, enabled FROM notification_preferences WHERE app_id = $1 AND user_id = $2
                ORDER BY type, channel";
            let query = tx.rows(sql).bind(inbox.app).bind(inbox.user);
            let rows: Vec<(String, String, bool)> = query.fetch_all(tx.on()).await?;
            tx.commit().await?;
            let read = |(kind, channel, enabled): (String, String, bool)| {
                Some(Preference { kind, channel: Channel::parse(&channel)?, enabled })
            };
            Ok(rows.into_iter().filter_map(read).collect())
        })
        .await
    }

    async fn put_preferences(
        &self,
        inbox: Inbox<'_>,
        preferences: &[Preference],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            if !is_known(&mut tx, inbox.user, now).await? {
                return Ok(false);
            }
            for Preference { kind, channel, enabled } in preferences {
                let sql = "INSERT INTO notification_preferences (app_id, user_id, type, channel, enabled, updated_at)
                    VALUES ($1, $2, $3, $4, $5, $6)
                    ON CONFLICT (app_id, user_id, type, channel) DO UPDATE SET enabled = $5, updated_at = $6";
                let query = tx.query(sql).bind(inbox.app).bind(inbox.user).bind(kind).bind(channel.as_str());
                query.bind(enabled).bind(now).execute(tx.on()).await?;
            }
            tx.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn settings(&self, inbox: Inbox<'_>) -> Result<Settings, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = "SELECT timezone, quiet_hours, paused_until, digest FROM notification_settings
                WHERE app_id = $1 AND user_id = $2";
            let query = tx.rows(sql).bind(inbox.app).bind(inbox.user);
            let row: Option<(Option<String>, Option<Json<Value>>, Option<Timestamp>, String)> =
                query.fetch_optional(tx.on()).await?;
            tx.commit().await?;
            let Some((timezone, quiet_hours, paused_until, digest)) = row else { return Ok(Settings::default()) };
            let quiet_hours = quiet_hours.map(|Json(hours)| hours);
            Ok(Settings { timezone, quiet_hours, paused_until, digest: Digest::parse(&digest).unwrap_or_default() })
        })
        .await
    }

    async fn put_settings(&self, inbox: Inbox<'_>, settings: &Settings, now: Timestamp) -> Result<bool, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            if !is_known(&mut tx, inbox.user, now).await? {
                return Ok(false);
            }
            let sql = "INSERT INTO notification_settings
                    (app_id, user_id, timezone, quiet_hours, paused_until, digest, updated_at)
                VALUES ($1, $2, $3, $4::json, $5, $6, $7) ON CONFLICT (app_id, user_id) DO UPDATE SET
                    timezone = $3, quiet_hours = $4::json, paused_until = $5, digest = $6, updated_at = $7";
            tx.query(sql)
                .bind(inbox.app)
                .bind(inbox.user)
                .bind(&settings.timezone)
                .bind(settings.quiet_hours.as_ref().map(json))
                .bind(settings.paused_until)
                .bind(settings.digest.as_str())
                .bind(now)
                .execute(tx.on())
                .await?;
            tasks::wake(&mut tx, inbox.user, now).await?;
            tx.commit().await?;
            Ok(true)
        })
        .await
    }
}
