//! One store, one cluster (section 8.3): nodes that keep inboxes in databases of their own would be several inboxes without a word. So each
//! says which it has as long as it lives, and one that has another than the rest does not start where users have inboxes.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::store::Store;

/// A node that lives has another database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "another node of this cluster keeps users and notifications in another database: give all nodes the same DATABASE_URL \
     (database.url, a Postgres), or each a Redis of its own"
)]
pub struct OtherStore;

/// Says it once. What cannot be known now, the database's id or the cluster, is no contradiction.
///
/// # Errors
/// [`OtherStore`].
pub async fn claim(store: &dyn Store, cluster: &dyn Cluster) -> Result<(), OtherStore> {
    let Ok(id) = store.id().await else { return Ok(()) };
    match cluster.claim_store(id).await {
        Ok(Some(_)) => Err(OtherStore),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Says it on and on, so often, until it is dropped.
pub async fn run(store: &dyn Store, cluster: &dyn Cluster, every: Duration) {
    let mut is_told = false;
    loop {
        tokio::time::sleep(every).await;
        let claimed = claim(store, cluster).await;
        if let Err(other) = claimed
            && !is_told
        {
            tracing::error!("{other}");
        }
        is_told = claimed.is_err();
    }
}
