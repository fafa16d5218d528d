//! What becomes due: notifications that become visible, those whose time is over, rows that are old (section 8.7).

use std::time::Duration;

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::inbox::{COLUMNS, notification, write};
use super::{Sqlite, next_rev, tasks, tell};
use crate::store::action::Action;
use crate::store::event::{About, EventName};
use crate::store::time::Timestamp;
use crate::store::{Inbox, StoreError};

/// How long delivered events and ended sessions are kept: longer than any token of the session lives.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Sqlite {
    pub(super) async fn announce(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        let mut tx = self.write().await?;
        // One whose group has an open item in the app already is an item of its own there.
        let sql = "UPDATE user_notifications AS this SET app_id = $1, group_key = CASE WHEN EXISTS (SELECT 1 FROM user_notifications o
                WHERE o.app_id = $1 AND o.user_id = this.user_id AND o.group_key = this.group_key AND o.read_at IS NULL
                    AND o.archived_at IS NULL AND o.deleted_at IS NULL) THEN NULL ELSE group_key END
            WHERE app_id = 'default' AND announced_at IS NULL AND deleted_at IS NULL AND visible_at <= $2";
        if self.default_app != "default" {
            sqlx::query(sql).bind(&self.default_app).bind(now).execute(&mut *tx).await?;
        }
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT app_id, user_id, {COLUMNS} FROM user_notifications
            WHERE announced_at IS NULL AND deleted_at IS NULL AND visible_at <= $1 ORDER BY visible_at LIMIT $2"
        ));
        let due = sqlx::query(sql).bind(now).bind(count(limit)).fetch_all(&mut *tx).await?;
        for row in &due {
            let (app, user) = owner(row)?;
            let inbox = Inbox { app, user };
            let mut due = notification(row)?;
            let was_snoozed = due.snoozed_until.take().is_some();
            if was_snoozed {
                due.read_at = None; // it comes back as unread
            }
            let rev = next_rev(&mut tx, inbox).await?;
            write(&mut tx, inbox, &mut due, rev, now).await?;
            let event = if was_snoozed { EventName::Unsnoozed } else { EventName::Created };
            tell(&mut tx, inbox, rev, event.as_str(), About::One(&due), now).await?;
            if self.dispatches && !was_snoozed {
                tasks::dispatch(&mut tx, inbox, &due, now).await?;
            }
        }
        tx.commit().await?;
        Ok(due.len())
    }

    pub(super) async fn expire(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        let mut tx = self.write().await?;
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT app_id, user_id, {COLUMNS} FROM user_notifications
            WHERE expires_at IS NOT NULL AND deleted_at IS NULL AND expires_at <= $1 ORDER BY expires_at LIMIT $2"
        ));
        let over = sqlx::query(sql).bind(now).bind(count(limit)).fetch_all(&mut *tx).await?;
        for row in &over {
            let (app, user) = owner(row)?;
            let inbox = Inbox { app, user };
            let mut over = notification(row)?;
            Action::Delete.apply(&mut over, now);
            let rev = next_rev(&mut tx, inbox).await?;
            write(&mut tx, inbox, &mut over, rev, now).await?;
            let about = About::Gone(over.id, Some("expired"));
            tell(&mut tx, inbox, rev, EventName::Deleted.as_str(), about, now).await?;
        }
        tx.commit().await?;
        Ok(over.len())
    }

    pub(super) async fn purge_rows(&self, keep: Duration, limit: usize, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let (old, day_old, limit) = (now.before(keep), now.before(A_DAY), count(limit));
        let sql = "DELETE FROM user_notifications WHERE id IN (SELECT id FROM user_notifications
            WHERE deleted_at IS NOT NULL AND deleted_at < $1 LIMIT $2) RETURNING app_id, user_id, coalesce(rev, 0)";
        let gone: Vec<(String, String, i64)> = sqlx::query_as(sql).bind(old).bind(limit).fetch_all(&mut *tx).await?;
        for (app, user, rev) in &gone {
            let sql = "UPDATE inbox_state SET purged_rev = max(purged_rev, $3) WHERE app_id = $1 AND user_id = $2";
            sqlx::query(sql).bind(app).bind(user).bind(rev).execute(&mut *tx).await?;
        }
        let mut most = gone.len() as u64;
        for (sql, before) in [
            (
                "DELETE FROM notification_dedupe WHERE rowid IN (SELECT rowid FROM notification_dedupe WHERE created_at < $1 LIMIT $2)",
                old,
            ),
            (
                "DELETE FROM webhook_events WHERE rowid IN (SELECT rowid FROM webhook_events WHERE received_at < $1 LIMIT $2)",
                old,
            ),
            (
                "DELETE FROM user_tombstones WHERE rowid IN (SELECT rowid FROM user_tombstones WHERE deleted_at < $1 LIMIT $2)",
                old,
            ),
            (
                "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE delivered_at IS NOT NULL AND delivered_at < $1 LIMIT $2)",
                day_old,
            ),
            (
                "DELETE FROM ended_sessions WHERE rowid IN (SELECT rowid FROM ended_sessions WHERE ended_at < $1 LIMIT $2)",
                day_old,
            ),
            (
                "DELETE FROM fanout_jobs WHERE rowid IN (SELECT rowid FROM fanout_jobs WHERE finished_at < $1 LIMIT $2)",
                old,
            ),
            (
                "DELETE FROM user_files WHERE id IN (SELECT id FROM user_files WHERE status = 'deleted' AND updated_at < $1 LIMIT $2)",
                old,
            ),
            (
                "DELETE FROM support_sessions WHERE rowid IN (SELECT rowid FROM support_sessions WHERE user_id IS NULL AND updated_at < $1 LIMIT $2)",
                old,
            ),
            ("DELETE FROM jobs WHERE rowid IN (SELECT rowid FROM jobs WHERE done_at < $1 LIMIT $2)", day_old),
        ] {
            let deleted = sqlx::query(sql).bind(before).bind(limit).execute(&mut *tx).await?.rows_affected();
            most = most.max(deleted);
        }
        tx.commit().await?;
        Ok(i64::try_from(most).unwrap_or(i64::MAX) < limit)
    }
}

fn owner(row: &SqliteRow) -> Result<(&str, &str), sqlx::Error> {
    Ok((row.try_get("app_id")?, row.try_get("user_id")?))
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
