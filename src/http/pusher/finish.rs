//! What is begun is finished: a request's work goes on when its client has gone, so an event reaches everybody or nobody, and a batch
//! is not cut in two.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Does `work` here; if this future is dropped before the end, the rest of it becomes one of `tasks`.
pub(in crate::http) fn finish<F>(tasks: TaskTracker, work: F) -> impl Future<Output = F::Output> + Send
where
    F: Future<Output: Send> + Send + 'static,
{
    Finishing { tasks, work: Some(Box::pin(work)) }
}

struct Finishing<F: Future<Output: Send> + Send + 'static> {
    tasks: TaskTracker,
    work: Option<Pin<Box<F>>>,
}

impl<F: Future<Output: Send> + Send + 'static> Future for Finishing<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Taken out meanwhile, so that what panics is not tried again.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Finishing<F> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take()
            && let Ok(runtime) = Handle::try_current()
        {
            self.tasks.spawn_on(async move { drop(work.await) }, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_rest_is_done_when_nobody_waits_for_it() {
        let tasks = TaskTracker::new();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let (done, mut is_done) = tokio::sync::mpsc::channel(1);
        let work = async move {
            gone.await.unwrap();
            done.send(()).await.unwrap();
        };
        let mut finishing = Box::pin(finish(tasks.clone(), work));
        assert!(futures_util::poll!(finishing.as_mut()).is_pending());
        drop(finishing);
        go.send(()).unwrap();
        assert_eq!(is_done.recv().await, Some(()));
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn what_is_finished_leaves_nothing_behind() {
        let tasks = TaskTracker::new();
        assert_eq!(finish(tasks.clone(), async { 7 }).await, 7);
        assert!(tasks.is_empty());
    }
}
