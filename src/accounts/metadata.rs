//! Writes what is kept of an account into the user's public metadata at Clerk, under the service's name (sections 1.10 and 8.6): a task, noted
//! with what it follows from. Clerk takes ten such changes of one user in ten seconds; whoever asks for more waits.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;

use crate::integrations::clerk::users::Users;
use crate::outgoing::service::{Service, retry_after};
use crate::store::accounts::SyncMetadata;
use crate::store::tasks::{Task, TaskKind};
use crate::store::{Store, StoreError};
use crate::work::{Attempt, Worker};

/// How long one waits that is not told how long.
const WAIT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct MetadataWriter {
    /// Whom these are calls of.
    pub service: Arc<Service>,
    /// Where it is written.
    pub clerk: Arc<ArcSwapOption<Users>>,
    /// Where it is read.
    pub store: Arc<dyn Store>,
}

#[async_trait]
impl Worker for MetadataWriter {
    fn kind(&self) -> TaskKind {
        TaskKind::Metadata
    }

    fn service(&self) -> &Service {
        &self.service
    }

    async fn attempt(&self, task: &Task) -> Result<Attempt, StoreError> {
        let Ok(SyncMetadata { app, user, service, service_user }) = serde_json::from_str(&task.payload) else {
            return Ok(Attempt::GivenUp("it does not say which account".to_owned()));
        };
        let Some(clerk) = self.clerk.load_full() else {
            return Ok(Attempt::GivenUp("Clerk's secret key is not configured any more".to_owned()));
        };
        let accounts = self.store.accounts(&app, &user, Some(&service)).await?;
        let account = accounts.into_iter().find(|account| account.service_user == service_user);
        let Some(data) = account.and_then(|account| account.data) else { return Ok(Attempt::Done) };
        Ok(match clerk.merge_metadata(&user, &service, &data, &self.service).await {
            Ok(answer) if answer.status == 429 => Attempt::Later(retry_after(&answer.headers).unwrap_or(WAIT)),
            answered => Attempt::of(answered, |answer| answer.status.is_success()),
        })
    }
}
