//! Tokens of other services, as they are kept: encrypted, each bound to its row and column (section 8.4). What they say, only
//! [`crate::seal`] knows.

use async_trait::async_trait;
use uuid::Uuid;

use super::StoreError;
use crate::seal::{Place, TokenColumn};

/// The tokens of one row of `user_integrations`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTokens {
    /// The row.
    pub id: Uuid,
    /// Whose.
    pub app: String,
    /// Whose.
    pub user: String,
    /// The service.
    pub service: String,
    /// The user's id there.
    pub service_user: String,
    /// See [`TokenColumn::Access`].
    pub access: Option<String>,
    /// See [`TokenColumn::Refresh`].
    pub refresh: Option<String>,
}

impl StoredTokens {
    /// Where the token of this column stands.
    #[must_use]
    pub fn place(&self, column: TokenColumn) -> Place<'_> {
        Place { column, app: &self.app, user: &self.user, service: &self.service, service_user: &self.service_user }
    }
}

/// What replaces the keys of stored tokens.
#[async_trait]
pub trait Tokens {
    /// How many tokens there are under each key, by the key's id.
    async fn tokens_by_key(&self) -> Result<Vec<(String, u64)>, StoreError>;

    /// The next rows, by their ids from behind `after`, with a token that is not under this key.
    async fn tokens_not_under(
        &self,
        key: &str,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<StoredTokens>, StoreError>;

    /// Replaces a token if it still is `old`. Returns whether it was.
    async fn replace_token(&self, id: Uuid, column: TokenColumn, old: &str, new: &str) -> Result<bool, StoreError>;
}
