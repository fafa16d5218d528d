//! Creations for more users than one transaction takes (section 8.6): a node takes a job and serves its audience step by step. A node that
//! ends lets go of it when its lock is over, and the next goes on behind the last user that was served.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::create::{Defaults, patterns};
use super::{Outage, TICK};
use crate::metrics;
use crate::store::jobs::{Job, JobStatus, JobStep};
use crate::store::sending::Create;
use crate::store::time::Timestamp;
use crate::store::{Store, StoreError};

/// Users of one step.
const STEP: usize = 500;
/// How long a job is this node's, from the last step on.
const LOCK: Duration = Duration::from_secs(30);
/// How often the log says how far a long job is.
const REPORT: Duration = Duration::from_secs(10);

/// What the loop needs.
#[derive(Debug)]
pub struct Fanout {
    /// Where jobs wait.
    pub store: Arc<dyn Store>,
    /// What the application says about preferences.
    pub defaults: Arc<Defaults>,
    /// Somebody has committed something.
    pub committed: Arc<Notify>,
    /// A job was noted on this node.
    pub waiting: Arc<Notify>,
}

impl Fanout {
    /// Works until it is stopped, which ends it between two steps.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut outage = Outage::default();
        loop {
            while !stop.is_cancelled() && self.pass(&mut outage, stop).await {}
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.waiting.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// One job, if there is one; whether there was.
    async fn pass(&self, outage: &mut Outage, stop: &CancellationToken) -> bool {
        let now = Timestamp::now();
        let Some(Some(job)) = outage.note("jobs", self.store.take_job(now.after(LOCK), now).await) else {
            return false;
        };
        outage.note("jobs", self.serve(job, stop).await).is_some()
    }

    /// Serves a job until it has ended, or this node is to.
    async fn serve(&self, mut job: Job, stop: &CancellationToken) -> Result<(), StoreError> {
        let excluded: HashSet<&String> = job.template.excluded.iter().collect();
        let mut reported = Instant::now();
        let mut served = 0;
        while !stop.is_cancelled() {
            let audience = self.store.audience(&job.app, &job.audience, &job.last_user, STEP).await?;
            let Some(last_user) = audience.last().cloned() else {
                self.store.end_job(job.id, JobStatus::Done, None, Timestamp::now()).await?;
                tracing::info!(transaction_id = job.transaction_id, served, "a job for many users is done");
                return Ok(());
            };
            let users: Vec<String> = audience.into_iter().filter(|user| !excluded.contains(user)).collect();
            match self.step(&job, &users, &last_user).await {
                Ok(()) => {}
                Err(StoreError::Cancelled) => return Ok(()),
                Err(error @ (StoreError::Conflict | StoreError::Broken(_))) => {
                    tracing::error!(transaction_id = job.transaction_id, %error, "a job for many users has failed");
                    let told = error.to_string();
                    return self.store.end_job(job.id, JobStatus::Failed, Some(&told), Timestamp::now()).await;
                }
                Err(error) => return Err(error),
            }
            served += users.len();
            job.last_user = last_user;
            if reported.elapsed() >= REPORT {
                tracing::info!(transaction_id = job.transaction_id, served, "a job for many users goes on");
                reported = Instant::now();
            }
        }
        Ok(())
    }

    async fn step(&self, job: &Job, users: &[String], last_user: &str) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let draft = &job.template.draft;
        let patterns = patterns(&draft.kind);
        let create = Create {
            app: &job.app,
            transaction_id: &job.transaction_id,
            request_hash: &job.request_hash,
            recipients: users,
            draft,
            deliver_at: job.template.deliver_at,
            only_known: self.defaults.only_known(),
            wanted: self.defaults.wanted(draft, &patterns),
            job: Some(JobStep { id: job.id, last_user, locked_until: now.after(LOCK) }),
        };
        let created = self.store.create(&create, now).await?;
        metrics::NOTIFICATIONS_CREATED.increment(created.created);
        self.committed.notify_one();
        Ok(())
    }
}
