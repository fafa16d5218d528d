//! What users want to hear of, and when.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::types::Json;

use super::{Sqlite, is_known, tasks};
use crate::store::preferences::{Channel, Digest, Preference, Preferences, Settings};
use crate::store::time::Timestamp;
use crate::store::{Inbox, StoreError};

#[async_trait]
impl Preferences for Sqlite {
    async fn preferences(&self, inbox: Inbox<'_>) -> Result<Vec<Preference>, StoreError> {
        let sql = "SELECT type, channel, enabled FROM notification_preferences WHERE app_id = $1 AND user_id = $2
            ORDER BY type, channel";
        let rows: Vec<(String, String, bool)> =
            sqlx::query_as(sql).bind(inbox.app).bind(inbox.user).fetch_all(&mut *self.read().await?).await?;
        let read = |(kind, channel, enabled): (String, String, bool)| {
            Some(Preference { kind, channel: Channel::parse(&channel)?, enabled })
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }

    async fn put_preferences(
        &self,
        inbox: Inbox<'_>,
        preferences: &[Preference],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        if !is_known(&mut tx, inbox.user, false, now).await? {
            return Ok(false);
        }
        for Preference { kind, channel, enabled } in preferences {
            let sql = "INSERT INTO notification_preferences (app_id, user_id, type, channel, enabled, updated_at)
                VALUES ($1, $2, $3, $4, $5, $6)
                ON CONFLICT (app_id, user_id, type, channel) DO UPDATE SET enabled = $5, updated_at = $6";
            let query = sqlx::query(sql).bind(inbox.app).bind(inbox.user).bind(kind).bind(channel.as_str());
            query.bind(enabled).bind(now).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    async fn settings(&self, inbox: Inbox<'_>) -> Result<Settings, StoreError> {
        let sql = "SELECT timezone, quiet_hours, paused_until, digest FROM notification_settings
            WHERE app_id = $1 AND user_id = $2";
        let row: Option<(Option<String>, Option<Json<Value>>, Option<Timestamp>, String)> =
            sqlx::query_as(sql).bind(inbox.app).bind(inbox.user).fetch_optional(&mut *self.read().await?).await?;
        let Some((timezone, quiet_hours, paused_until, digest)) = row else { return Ok(Settings::default()) };
        let quiet_hours = quiet_hours.map(|Json(hours)| hours);
        Ok(Settings { timezone, quiet_hours, paused_until, digest: Digest::parse(&digest).unwrap_or_default() })
    }

    async fn put_settings(&self, inbox: Inbox<'_>, settings: &Settings, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        if !is_known(&mut tx, inbox.user, false, now).await? {
            return Ok(false);
        }
        let sql = "INSERT INTO notification_settings (app_id, user_id, timezone, quiet_hours, paused_until, digest, updated_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (app_id, user_id) DO UPDATE SET
                timezone = $3, quiet_hours = $4, paused_until = $5, digest = $6, updated_at = $7";
        sqlx::query(sql)
            .bind(inbox.app)
            .bind(inbox.user)
            .bind(&settings.timezone)
            .bind(settings.quiet_hours.as_ref().map(Json))
            .bind(settings.paused_until)
            .bind(settings.digest.as_str())
            .bind(now)
            .execute(&mut *tx)
            .await?;
        tasks::wake(&mut tx, inbox.user, now).await?;
        tx.commit().await?;
        Ok(true)
    }
}
