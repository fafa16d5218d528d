//! `herald rotate-keys`: brings every stored token under the first key of the ring (section 8.4), while servers go on.
//!
//! A token is replaced only if it still is what was read, each column by itself, so a server that stores a new one meanwhile wins. It may be
//! ended and begun again at any time. An old key may go from the ring when no token is left under it, which the report says.

use crate::seal::{KeyRing, NotOpened, TokenColumn, key_of};
use crate::store::tokens::StoredTokens;
use crate::store::{Store, StoreError};

/// Rows that are read at once.
const BATCH: usize = 500;

/// How it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotated {
    /// Tokens that are under the first key now and were not before.
    pub replaced: u64,
    /// Tokens that do not open with any key of the ring, or not at their place. They stay as they are.
    pub unreadable: u64,
    /// How many there are under each key now.
    pub by_key: Vec<(String, u64)>,
}

/// Brings every token under the first key. `progress` is told after each batch how many of how many tokens were looked at.
///
/// # Errors
/// When the store does not answer; what was done until then is done.
pub async fn rotate(store: &dyn Store, ring: &KeyRing, progress: impl Fn(u64, u64)) -> Result<Rotated, StoreError> {
    let others = store.tokens_by_key().await?.into_iter().filter(|(key, _)| key != ring.first());
    let total = others.map(|(_, tokens)| tokens).sum();
    let (mut rotated, mut looked_at, mut after) = (Rotated::default(), 0, None);
    progress(looked_at, total);
    loop {
        let rows = store.tokens_not_under(ring.first(), after, BATCH).await?;
        let Some(last) = rows.last() else { break };
        after = Some(last.id);
        for row in &rows {
            for (column, stored) in [(TokenColumn::Access, &row.access), (TokenColumn::Refresh, &row.refresh)] {
                let Some(stored) = stored.as_deref().filter(|stored| key_of(stored) != Some(ring.first())) else {
                    continue;
                };
                looked_at += 1;
                match sealed_anew(ring, row, column, stored) {
                    Ok(new) => rotated.replaced += u64::from(store.replace_token(row.id, column, stored, &new).await?),
                    Err(error) => {
                        rotated.unreadable += 1;
                        tracing::warn!(row = %row.id, column = column.as_str(), %error, "a token stays as it is");
                    }
                }
            }
        }
        progress(looked_at, total);
    }
    rotated.by_key = store.tokens_by_key().await?;
    Ok(rotated)
}

/// Keys that stored tokens need and the ring does not have, with how many need each.
///
/// # Errors
/// When the store does not answer.
pub async fn missing_keys(store: &dyn Store, ring: Option<&KeyRing>) -> Result<Vec<(String, u64)>, StoreError> {
    Ok(without_key(store.tokens_by_key().await?, ring))
}

/// Those of the keys that the ring does not have.
#[must_use]
pub fn without_key(mut keys: Vec<(String, u64)>, ring: Option<&KeyRing>) -> Vec<(String, u64)> {
    keys.retain(|(key, _)| !ring.is_some_and(|ring| ring.has(key)));
    keys
}

fn sealed_anew(ring: &KeyRing, row: &StoredTokens, column: TokenColumn, stored: &str) -> Result<String, NotOpened> {
    let place = row.place(column);
    Ok(ring.seal(ring.open(stored, place)?.expose(), place))
}
