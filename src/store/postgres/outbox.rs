//! Events that wait to be published (section 8.7, Relay). Taking is short, and done by one node at a time.

use async_trait::async_trait;

use super::{Mode, Postgres, again};
use crate::store::sending::Outgoing;
use crate::store::time::{Timestamp, too_far};
use crate::store::{Outbox, StoreError};

#[async_trait]
impl Outbox for Postgres {
    async fn take_outgoing(
        &self,
        limit: usize,
        locked_until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Outgoing>, StoreError> {
        again(|| async {
            let mut tx = self.begin_as(Mode::Forgetful).await?;
            // The schema's own lock: whoever else takes meanwhile would see the events before as free.
            let sql = "SELECT pg_advisory_xact_lock(hashtext(current_schema()), 1)";
            tx.query(sql).execute(tx.on()).await?;
            let sql = "UPDATE outbox SET locked_until = $3 WHERE id IN (
                    SELECT id FROM outbox AS this WHERE delivered_at IS NULL
                        AND (locked_until IS NULL OR locked_until <= $2 OR locked_until > $4)
                        AND NOT EXISTS (SELECT 1 FROM outbox AS older WHERE older.app_id = this.app_id
                            AND older.user_id = this.user_id AND older.id < this.id AND older.delivered_at IS NULL
                            AND older.locked_until > $2 AND older.locked_until <= $4)
                    ORDER BY id LIMIT $1)
                RETURNING id, app_id, user_id, rev, event, payload, created_at";
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let query = tx.rows(sql).bind(limit).bind(now).bind(locked_until).bind(too_far(locked_until, now));
            let rows: Vec<(i64, String, String, i64, String, String, Timestamp)> = query.fetch_all(tx.on()).await?;
            tx.commit().await?;
            let mut taken: Vec<Outgoing> = rows
                .into_iter()
                .map(|(id, app, user, rev, event, payload, created_at)| Outgoing {
                    id,
                    app,
                    user,
                    rev,
                    event,
                    payload,
                    created_at,
                })
                .collect();
            taken.sort_unstable_by_key(|outgoing| outgoing.id);
            Ok(taken)
        })
        .await
    }

    async fn published(&self, ids: &[i64], now: Timestamp) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        again(|| async {
            let mut tx = self.begin_as(Mode::Forgetful).await?;
            let sql = "UPDATE outbox SET delivered_at = $2 WHERE delivered_at IS NULL AND id = ANY($1)";
            tx.query(sql).bind(ids).bind(now).execute(tx.on()).await?;
            tx.commit().await
        })
        .await
    }

    async fn release(&self, ids: &[i64]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = "UPDATE outbox SET locked_until = NULL WHERE delivered_at IS NULL AND id = ANY($1)";
            tx.query(sql).bind(ids).execute(tx.on()).await?;
            tx.commit().await
        })
        .await
    }
}
