//! What becomes due: notifications that become visible, those whose time is over, rows that are old (section 8.7). One node at a time looks
//! for it; the others find nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::inbox::{COLUMNS, notification, write};
use super::{Postgres, Tx, lock, next_rev, tasks, tell};
use crate::store::action::Action;
use crate::store::event::{About, EventName};
use crate::store::notification::Notification;
use crate::store::time::Timestamp;
use crate::store::{Inbox, StoreError};

/// How long delivered events and ended sessions are kept: longer than any token of the session lives.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What comes with its time. Each is another lock.
#[derive(Clone, Copy)]
enum Due {
    Visible = 2,
    Over = 3,
    Old = 4,
}

impl Postgres {
    pub(super) async fn announce(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        let mut tx = self.begin().await?;
        if !is_mine(&mut tx, Due::Visible).await? {
            return Ok(0);
        }
        // One whose group has an open item in the app already is an item of its own there.
        let sql = "UPDATE user_notifications AS this SET app_id = $1, group_key = CASE WHEN EXISTS (SELECT 1 FROM user_notifications o
                WHERE o.app_id = $1 AND o.user_id = this.user_id AND o.group_key = this.group_key AND o.read_at IS NULL
                    AND o.archived_at IS NULL AND o.deleted_at IS NULL) THEN NULL ELSE group_key END
            WHERE app_id = 'default' AND announced_at IS NULL AND deleted_at IS NULL AND visible_at <= $2";
        if self.default_app != "default" {
            tx.query(sql).bind(&self.default_app).bind(now).execute(tx.on()).await?;
        }
        let due = due(&mut tx, "announced_at IS NULL AND visible_at <= $1 ORDER BY visible_at", limit, now).await?;
        for (app, user, mut due) in due.iter().cloned() {
            let inbox = Inbox { app: &app, user: &user };
            let was_snoozed = due.snoozed_until.take().is_some();
            if was_snoozed {
                due.read_at = None; // it comes back as unread
            }
            let rev = next_rev(&mut tx, inbox).await?;
            write(&mut tx, inbox, &mut due, rev, now).await?;
            let event = if was_snoozed { EventName::Unsnoozed } else { EventName::Created };
            tell(&mut tx, inbox, event.as_str(), About::One(&due), now).await?;
            if self.dispatches && !was_snoozed {
                tasks::dispatch(&mut tx, &app, &[(user, due)], now).await?;
            }
        }
        tx.commit().await?;
        Ok(due.len())
    }

    pub(super) async fn expire(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        let mut tx = self.begin().await?;
        if !is_mine(&mut tx, Due::Over).await? {
            return Ok(0);
        }
        let over = due(&mut tx, "expires_at IS NOT NULL AND expires_at <= $1 ORDER BY expires_at", limit, now).await?;
        for (app, user, mut over) in over.iter().cloned() {
            let inbox = Inbox { app: &app, user: &user };
            Action::Delete.apply(&mut over, now);
            let rev = next_rev(&mut tx, inbox).await?;
            write(&mut tx, inbox, &mut over, rev, now).await?;
            tell(&mut tx, inbox, EventName::Deleted.as_str(), About::Gone(over.id, Some("expired")), now).await?;
        }
        tx.commit().await?;
        Ok(over.len())
    }

    pub(super) async fn purge_rows(&self, keep: Duration, limit: usize, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        if !is_mine(&mut tx, Due::Old).await? {
            return Ok(true);
        }
        let (old, day_old) = (now.before(keep), now.before(A_DAY));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = "WITH gone AS (DELETE FROM user_notifications WHERE id IN (SELECT id FROM user_notifications
                WHERE deleted_at IS NOT NULL AND deleted_at < $1 LIMIT $2) RETURNING app_id, user_id, coalesce(rev, 0) AS rev),
            newest AS (SELECT app_id, user_id, max(rev) AS rev FROM gone GROUP BY app_id, user_id),
            raised AS (UPDATE inbox_state SET purged_rev = greatest(purged_rev, newest.rev) FROM newest
                WHERE inbox_state.app_id = newest.app_id AND inbox_state.user_id = newest.user_id)
            SELECT count(*) FROM gone";
        let gone: i64 = tx.value(sql).bind(old).bind(limit).fetch_one(tx.on()).await?;
        let mut most = u64::try_from(gone).unwrap_or_default();
        for (table, column, before) in [
            ("notification_dedupe", "created_at", old),
            ("webhook_events", "received_at", old),
            ("user_tombstones", "deleted_at", old),
            ("outbox", "delivered_at", day_old),
            ("ended_sessions", "ended_at", day_old),
            ("fanout_jobs", "finished_at", old),
            ("jobs", "done_at", day_old),
            ("user_files", "status = 'deleted' AND updated_at", old),
            ("support_sessions", "user_id IS NULL AND updated_at", old),
        ] {
            let sql = format!(
                "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {column} < $1 LIMIT $2))"
            );
            let deleted = tx.query(&sql).bind(before).bind(limit).execute(tx.on()).await?.rows_affected();
            most = most.max(deleted);
        }
        tx.commit().await?;
        Ok(i64::try_from(most).unwrap_or(i64::MAX) < limit)
    }
}

/// Whether this transaction is the one that sees to it.
async fn is_mine(tx: &mut Tx, what: Due) -> Result<bool, StoreError> {
    let sql = "SELECT pg_try_advisory_xact_lock(hashtext(current_schema()), $1)";
    Ok(tx.value(sql).bind(what as i32).fetch_one(tx.on()).await?)
}

/// What is due, once its inboxes are locked: it may have been something else until then.
async fn due(
    tx: &mut Tx,
    which: &str,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<(String, String, Notification)>, StoreError> {
    let sql = format!(
        "SELECT app_id, user_id, {COLUMNS} FROM user_notifications WHERE deleted_at IS NULL AND {which} LIMIT $2"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let first = tx.query(&sql).bind(now).bind(limit).fetch_all(tx.on()).await?;
    let inboxes = first.iter().map(owner).collect::<Result<BTreeSet<(String, String)>, sqlx::Error>>()?;
    for (app, user) in &inboxes {
        lock(tx, Inbox { app, user }).await?;
    }
    let again = tx.query(&sql).bind(now).bind(limit).fetch_all(tx.on()).await?;
    let mut due = Vec::new();
    for row in &again {
        let (app, user) = owner(row)?;
        // One that came up only now has its turn the next time.
        if inboxes.contains(&(app.clone(), user.clone())) {
            due.push((app, user, notification(row)?));
        }
    }
    Ok(due)
}

fn owner(row: &PgRow) -> Result<(String, String), sqlx::Error> {
    Ok((row.try_get("app_id")?, row.try_get("user_id")?))
}
