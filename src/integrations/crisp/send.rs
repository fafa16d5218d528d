//! Writes into a user's conversation at Crisp what a backend has to say there (section 3.3, rule 6): a task for each message, tried again until Crisp
//! takes it. Which conversation that is, is looked up when it is sent: it may have become another user's since it was asked for.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Rest;
use crate::outgoing::service::Service;
use crate::store::tasks::{Task, TaskKind};
use crate::store::{Store, StoreError};
use crate::work::{Attempt, Worker};

/// What a task of this kind is about, beside its user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What is to be written.
    pub text: String,
}

/// See the module.
#[derive(Debug)]
pub struct Sender {
    /// Who takes it.
    pub rest: Arc<Rest>,
    /// Where it is kept whose conversations are whose.
    pub store: Arc<dyn Store>,
}

#[async_trait]
impl Worker for Sender {
    fn kind(&self) -> TaskKind {
        TaskKind::SupportMessage
    }

    fn service(&self) -> &Service {
        &self.rest.service
    }

    async fn attempt(&self, task: &Task) -> Result<Attempt, StoreError> {
        let (Ok(Message { text }), Some(user)) = (serde_json::from_str(&task.payload), &task.user) else {
            return Ok(Attempt::GivenUp("it does not say what, or to whom".to_owned()));
        };
        let Some(session) = self.store.support_of(&self.rest.website_id, user).await? else {
            return Ok(Attempt::GivenUp("the user has no conversation any more".to_owned()));
        };
        // The same at each attempt, so that one whose answer was lost is known again.
        let (_, low) = task.id.as_u64_pair();
        let said = self.rest.say(&session, &text, low & FINGERPRINT).await;
        Ok(Attempt::of(said, |answer| answer.status.is_success()))
    }
}

/// As long as Crisp's own, which have to be whole numbers in JavaScript.
const FINGERPRINT: u64 = (1 << 48) - 1;
