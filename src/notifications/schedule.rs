//! What time brings: notifications that become visible or vanish, and the end of what is old (section 8.7).

use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Outage, TICK};
use crate::store::time::Timestamp;
use crate::store::{Store, StoreError};

/// Notifications that are changed in one transaction.
const BATCH: usize = 200;
/// How long deletions and ids of requests are remembered.
const KEEP: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often old rows are looked for, and how many of them go at once.
const PURGE_EVERY: Duration = Duration::from_secs(60 * 60);
const PURGE_BATCH: usize = 1_000;

/// Runs until it is dropped.
pub async fn run(store: &dyn Store, committed: &Notify) {
    let mut outage = Outage::default();
    let mut purged: Option<Instant> = None;
    loop {
        tokio::time::sleep(TICK).await;
        if outage.note("schedule", bring(store, committed).await).is_none() {
            continue;
        }
        if purged.is_none_or(|last| last.elapsed() >= PURGE_EVERY) {
            let done = outage.note("purge", store.purge(KEEP, PURGE_BATCH, Timestamp::now()).await);
            if done == Some(true) {
                purged = Some(Instant::now());
            }
        }
    }
}

async fn bring(store: &dyn Store, committed: &Notify) -> Result<(), StoreError> {
    loop {
        let now = Timestamp::now();
        let (announced, expired) = (store.announce_due(BATCH, now).await?, store.expire_due(BATCH, now).await?);
        if announced + expired > 0 {
            committed.notify_one();
        }
        if announced.max(expired) < BATCH {
            return Ok(());
        }
    }
}
