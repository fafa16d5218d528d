//! Deletes files at Cloudinary (section 2.4): a task for each, noted with what it follows from, tried again until Cloudinary says that the
//! file is gone.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

use super::Cloudinary;
use crate::outgoing::service::{Answer, Service};
use crate::store::files::Destroy;
use crate::store::tasks::{Task, TaskKind};
use crate::store::time::Timestamp;
use crate::store::{Store, StoreError};
use crate::work::{Attempt, Worker};

/// See the module.
#[derive(Debug)]
pub struct Destroyer {
    /// Where the files are.
    pub cloudinary: Arc<Cloudinary>,
    /// Where it is kept that they are to go.
    pub store: Arc<dyn Store>,
}

#[derive(Deserialize)]
struct Done {
    result: String,
}

#[async_trait]
impl Worker for Destroyer {
    fn kind(&self) -> TaskKind {
        TaskKind::Destroy
    }

    fn service(&self) -> &Service {
        &self.cloudinary.destroying
    }

    async fn attempt(&self, task: &Task) -> Result<Attempt, StoreError> {
        let Ok(Destroy { file, key }) = serde_json::from_str(&task.payload) else {
            return Ok(Attempt::GivenUp("it does not say which file".to_owned()));
        };
        // Another file may have taken its place since.
        if let Some(file) = file
            && !self.store.is_to_be_destroyed(file).await?
        {
            return Ok(Attempt::Done);
        }
        let now = Timestamp::now();
        let seconds = u64::try_from(now.as_micros() / 1_000_000).unwrap_or_default();
        let attempt = Attempt::of(self.cloudinary.destroy(&key, seconds).await, is_gone);
        if let (Some(file), Attempt::Done) = (file, &attempt) {
            self.store.destroyed(file, now).await?;
        }
        Ok(attempt)
    }
}

/// A file that is not there need not be deleted.
fn is_gone(answer: &Answer) -> bool {
    let said: Option<Done> = serde_json::from_slice(&answer.body).ok();
    answer.status == 200 && said.is_some_and(|done| matches!(done.result.as_str(), "ok" | "not found"))
}
