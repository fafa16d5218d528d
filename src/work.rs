//! Work outside of the database that one node does for all, such as deleting a file at its service: tasks of one kind ([`store::tasks`]), each noted
//! by the transaction that causes it, done by whichever node takes it, tried again until it is done or given up.
//!
//! [`Worker`] is one kind; [`run`] is the loop around it. A service that is away only postpones: while its breaker is open no task is taken, and
//! that counts as no attempt.
//!
//! [`store::tasks`]: crate::store::tasks

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use rand::RngExt as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::metrics;
use crate::notifications::{Outage, TICK};
use crate::outgoing::breaker::State;
use crate::outgoing::problem::CallProblem;
use crate::outgoing::service::{Answer, CallError, Service};
use crate::store::tasks::{Task, TaskKind};
use crate::store::time::Timestamp;
use crate::store::{Store, StoreError};

/// Tasks that are taken at once, and that are done at once.
const BATCH: usize = 40;
const AT_ONCE: usize = 4;
/// How long they are this node's.
const LOCK: Duration = Duration::from_secs(120);
/// Attempts of one task: about half a day, with a pause that doubles from the first to the longest.
pub(crate) const ATTEMPTS: u32 = 20;
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// One kind of task, and how it is done.
#[async_trait]
pub trait Worker: Debug + Send + Sync {
    /// Which kind.
    fn kind(&self) -> TaskKind;

    /// Whom it is done with.
    fn service(&self) -> &Service;

    /// Tries it once.
    ///
    /// # Errors
    /// When the store does not answer; the task is tried again once its lock is over.
    async fn attempt(&self, task: &Task) -> Result<Attempt, StoreError>;
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It is done, or need not be done any more.
    Done,
    /// It was in vain, and another one may not be: for the log and the row, without secrets.
    Failed(String),
    /// It cannot be done, ever.
    GivenUp(String),
    /// Nothing was tried: it is not due before that much time has passed.
    Later(Duration),
}

impl Attempt {
    /// What an answer means, where `is_done` knows which statuses are as good as done.
    pub fn of(answered: Result<Answer, CallError>, is_done: impl Fn(&Answer) -> bool) -> Self {
        match answered {
            Ok(answer) if is_done(&answer) => Self::Done,
            Ok(answer) => Self::in_vain(CallProblem::Status(answer.status)),
            Err(error) => Self::in_vain(error.into()),
        }
    }

    /// What it means that there is no such answer. 4xx would be the same at every repetition, but for those that pass.
    #[must_use]
    pub fn in_vain(problem: CallProblem) -> Self {
        match problem {
            CallProblem::Status(status)
                if status.is_client_error() && !matches!(status.as_u16(), 401 | 408 | 420 | 423 | 429) =>
            {
                Self::GivenUp(format!("it answered {status}"))
            }
            CallProblem::Status(status) => Self::Failed(format!("it answered {status}")),
            CallProblem::Call(CallError::Rejected(left)) => Self::Later(left),
            problem => Self::Failed(problem.to_string()),
        }
    }
}

/// Works until it is stopped, which ends it between two batches.
pub async fn run(worker: &dyn Worker, store: &dyn Store, stop: &CancellationToken) {
    let mut outage = Outage::default();
    loop {
        while !stop.is_cancelled() && pass(worker, store, &mut outage).await {}
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// One batch; whether there may be more.
async fn pass(worker: &dyn Worker, store: &dyn Store, outage: &mut Outage) -> bool {
    let kind = worker.kind();
    let Some(limit) = batch(worker.service(), BATCH) else { return false };
    let now = Timestamp::now();
    let Some(taken) = outage.note(kind.as_str(), store.take_tasks(kind, limit, now.after(LOCK), now).await) else {
        return false;
    };
    let mut is_well = true;
    for some in taken.chunks(AT_ONCE) {
        for settled in join_all(some.iter().map(|task| settle(worker, store, task))).await {
            is_well &= outage.note(kind.as_str(), settled).unwrap_or(false);
        }
    }
    is_well && taken.len() == limit
}

/// How many tasks may be taken for a service at the moment: while it is left alone none, and then one that sees whether it is back.
pub(crate) fn batch(service: &Service, most: usize) -> Option<usize> {
    match service.readiness() {
        State::Closed => Some(most),
        State::HalfOpen => Some(1),
        State::Open => None,
    }
}

/// Tries a task and keeps what became of it; false if the service is to be left alone for a while.
async fn settle(worker: &dyn Worker, store: &dyn Store, task: &Task) -> Result<bool, StoreError> {
    let attempt = worker.attempt(task).await?;
    match attempt {
        Attempt::Done => {
            metrics::task_tried(worker.kind().as_str(), "done");
            store.finish_tasks(&[task.id], None, Timestamp::now()).await?;
        }
        Attempt::Failed(reason) if task.attempts + 1 < ATTEMPTS => {
            metrics::task_tried(worker.kind().as_str(), "retried");
            tracing::warn!(kind = worker.kind().as_str(), task = %task.id, attempts = task.attempts, reason, "a task failed, it is tried again");
            let until = Timestamp::now().after(pause(task.attempts));
            store.postpone_tasks(&[task.id], until, Some(&reason)).await?;
        }
        Attempt::Failed(reason) | Attempt::GivenUp(reason) => give_up(worker, store, task.id, &reason).await?,
        Attempt::Later(left) => {
            store.postpone_tasks(&[task.id], Timestamp::now().after(left.max(TICK)), None).await?;
            return Ok(false);
        }
    }
    Ok(true)
}

async fn give_up(worker: &dyn Worker, store: &dyn Store, task: Uuid, reason: &str) -> Result<(), StoreError> {
    metrics::task_tried(worker.kind().as_str(), "given_up");
    tracing::error!(kind = worker.kind().as_str(), %task, reason, "a task is given up");
    store.finish_tasks(&[task], Some(reason), Timestamp::now()).await
}

/// How long a task that was tried in vain so often waits for the next attempt.
pub(crate) fn pause(attempts: u32) -> Duration {
    let most = FIRST_PAUSE.saturating_mul(1 << attempts.min(16)).min(LONGEST_PAUSE);
    most.mul_f64(rand::rng().random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::http::{HeaderMap, StatusCode};

    use super::*;

    #[test]
    fn what_an_answer_means() {
        let (done, failed, given_up) = ("done", "failed", "given up");
        for (status, expected) in [
            (200, done),
            (404, done),
            (400, given_up),
            (403, given_up),
            (401, failed), // the key may be mended
            (408, failed),
            (420, failed),
            (423, failed),
            (429, failed),
            (500, failed),
            (302, failed),
        ] {
            let answer =
                Answer { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body: Bytes::new() };
            let found = match Attempt::of(Ok(answer), |answer| matches!(answer.status.as_u16(), 200 | 404)) {
                Attempt::Done => done,
                Attempt::Failed(_) => failed,
                Attempt::GivenUp(_) => given_up,
                Attempt::Later(_) => "later",
            };
            assert_eq!(found, expected, "{status}");
        }
        let left = Duration::from_secs(7);
        assert_eq!(Attempt::of(Err(CallError::Rejected(left)), |_| true), Attempt::Later(left));
        assert!(matches!(Attempt::of(Err(CallError::TimedOut(left)), |_| true), Attempt::Failed(_)));
    }

    #[test]
    fn pauses_double_up_to_an_hour() {
        for attempts in 0..ATTEMPTS {
            let most = FIRST_PAUSE.saturating_mul(1 << attempts).min(LONGEST_PAUSE);
            assert!((0..50).all(|_| (most / 2..=most).contains(&pause(attempts))), "{attempts}");
        }
    }
}
