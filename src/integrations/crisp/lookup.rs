//! Asks Crisp whose a conversation is (section 3.3, rule 2): a task for each hook about one that is nobody's, which takes along what its user
//! is to be told. However many there are, Crisp is asked at most once a minute about one conversation, and its answer counts for all that came
//! before it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Rest;
use super::news::{self, News};
use crate::notifications::Notifications;
use crate::outgoing::service::Service;
use crate::store::StoreError;
use crate::store::support::Whose;
use crate::store::tasks::{Task, TaskKind};
use crate::store::time::Timestamp;
use crate::work::{Attempt, Worker};

/// How often one that waits is looked at: it may have become somebody's by a hook.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What a task of this kind is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lookup {
    /// The conversation.
    pub session: String,
    /// What its user is to be told.
    pub news: Option<News>,
    /// An answer as of before that says nothing, in Unix microseconds.
    pub since: i64,
}

/// See the module.
#[derive(Debug)]
pub struct Asker {
    /// Who is asked.
    pub rest: Arc<Rest>,
    /// Who is told what waits for the answer.
    pub notifications: Arc<Notifications>,
    /// Whose users they are.
    pub app: String,
}

#[async_trait]
impl Worker for Asker {
    fn kind(&self) -> TaskKind {
        TaskKind::SupportLookup
    }

    fn service(&self) -> &Service {
        &self.rest.service
    }

    async fn attempt(&self, task: &Task) -> Result<Attempt, StoreError> {
        let Ok(Lookup { session, news, since }) = serde_json::from_str(&task.payload) else {
            return Ok(Attempt::GivenUp("it does not say which conversation".to_owned()));
        };
        let (store, website, now) = (&self.notifications.store, &self.rest.website_id, Timestamp::now());
        let user = match store.whose_support(website, &session, Timestamp::from_micros(since), now).await? {
            Whose::Users(user) => Some(user),
            Whose::Nobodys => None,
            Whose::AskedLately(left) => return Ok(Attempt::Later(left.min(LOOK_AGAIN))),
            Whose::Ask => match self.rest.proven_emails(&session).await {
                Ok(emails) => store.support_answered(website, &session, &emails, now, Timestamp::now()).await?,
                Err(problem) => return Ok(Attempt::in_vain(problem)),
            },
        };
        if let (Some(user), Some(news)) = (user, news) {
            news::tell(&self.notifications, &self.app, &user, &news, Timestamp::now()).await?;
        }
        Ok(Attempt::Done)
    }
}
