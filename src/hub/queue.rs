//! The outbound queue of one connection: what waits to be written, bounded in frames and bytes.
//!
//! The hub's end, [`Queue::offer`] and [`Queue::push`], never waits; the connection's end, [`Queue::poll_take`], hands the waiting
//! frames to the writer. Always: a reader is blamed ([`CloseReason::SlowReader`]) only while its socket is blocked; a queue that is
//! full because its writer has not run yet holds a publisher back instead. One frame alone is accepted whatever its size.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use herald_protocol::CloseReason;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::frame::Frame;
use crate::metrics;

/// What the server says on its own (answers, member events) may go this many times over the bound before the client is given up:
/// nobody can be held back for it, and dropping one would leave the client's picture wrong.
const OWN_MESSAGES_FACTOR: usize = 4;

/// How much may wait for one client.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Frames that may wait.
    pub max_frames: usize,
    /// Bytes that may wait.
    pub max_bytes: usize,
}

/// The queue is over its bound though the socket is not blocked: the writer has not run yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A frame that waits, and when it was published if its way is measured.
#[derive(Debug)]
pub struct Outbound {
    /// What is left to write.
    pub bytes: Bytes,
    /// When the publisher handed it over.
    pub published: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub struct Queue {
    bounds: Bounds,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Outbound>,
    bytes: usize,
    writer: Option<Waker>,
    blocked: bool,
    /// Somebody waits for room.
    awaited: bool,
    close: Option<CloseReason>,
    ended: bool,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, state: Mutex::default(), changed: Notify::new() }
    }

    /// Queues a published event. A reader that is over the bound and blocked is told to go; nobody else is.
    ///
    /// # Errors
    /// [`Full`] when the writer has not caught up; see [`Queue::room`].
    pub fn offer(&self, frame: &Frame, published: Option<Instant>) -> Result<(), Full> {
        self.enqueue(frame, published, 1)
    }

    /// Queues what the server itself has to say.
    pub fn push(&self, frame: &Frame) {
        if self.enqueue(frame, None, OWN_MESSAGES_FACTOR).is_err() {
            self.close(CloseReason::SlowReader);
        }
    }

    fn enqueue(&self, frame: &Frame, published: Option<Instant>, factor: usize) -> Result<(), Full> {
        let mut state = self.state.lock();
        if state.close.is_some() || state.ended {
            return Ok(());
        }
        if !state.has_room(self.bounds, frame.size(), factor) {
            if !state.blocked {
                return Err(Full);
            }
            state.close = Some(CloseReason::SlowReader);
        } else {
            state.bytes += frame.size();
            state.frames.push_back(Outbound { bytes: frame.clone().into_bytes(), published });
        }
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(())
    }

    /// Tells the connection to end, once; the first reason stays.
    pub fn close(&self, reason: CloseReason) {
        let mut state = self.state.lock();
        state.close.get_or_insert(reason);
        let writer = state.writer.take();
        drop(state);
        self.changed.notify_waiters();
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Waits until another [`Queue::offer`] of `frame` succeeds: there is room, the reader is to blame, or its connection is ending.
    pub async fn room(&self, frame: &Frame) {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state.lock();
                let is_over = state.close.is_some() || state.ended || state.blocked;
                if is_over || state.has_room(self.bounds, frame.size(), 1) {
                    return;
                }
                state.awaited = true;
            }
            changed.await;
        }
    }

    /// Waits until the connection has ended, its goodbye written or given up.
    pub async fn ended(&self) {
        loop {
            let changed = self.changed.notified();
            if self.state.lock().ended {
                return;
            }
            changed.await;
        }
    }

    /// Moves up to `max_frames` waiting frames to the writer; ready with a reason as soon as the connection has to end.
    pub fn poll_take(
        &self,
        cx: &mut Context<'_>,
        into: &mut VecDeque<Outbound>,
        max_frames: usize,
    ) -> Poll<Option<CloseReason>> {
        let mut state = self.state.lock();
        if let Some(reason) = &state.close {
            return Poll::Ready(Some(reason.clone()));
        }
        if state.frames.is_empty() {
            if !state.writer.as_ref().is_some_and(|writer| writer.will_wake(cx.waker())) {
                state.writer = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        state.take(into, max_frames);
        let awaited = std::mem::take(&mut state.awaited);
        drop(state);
        if awaited {
            self.changed.notify_waiters();
        }
        Poll::Ready(None)
    }

    /// Ready with a reason as soon as the connection has to end; for while a write is blocked.
    pub fn poll_close(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let mut state = self.state.lock();
        if let Some(reason) = &state.close {
            return Poll::Ready(reason.clone());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Says whether the socket takes no more for now.
    pub fn set_blocked(&self, blocked: bool) {
        let mut state = self.state.lock();
        state.blocked = blocked;
        let awaited = std::mem::take(&mut state.awaited);
        drop(state);
        if awaited {
            self.changed.notify_waiters();
        }
    }

    /// Hands over all that still waits; whatever is queued from now on is thrown away.
    pub fn drain(&self, into: &mut VecDeque<Outbound>) {
        let mut state = self.state.lock();
        state.close.get_or_insert(CloseReason::Broken);
        state.take(into, usize::MAX);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Throws away all that waits, and whatever is queued from now on.
    pub fn forget(&self) {
        let mut state = self.state.lock();
        state.close.get_or_insert(CloseReason::Broken);
        state.forget();
        drop(state);
        self.changed.notify_waiters();
    }

    /// Marks the connection as gone.
    pub fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        state.forget();
        drop(state);
        self.changed.notify_waiters();
    }

    /// Frames and bytes that wait, for the metrics.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.frames.len(), state.bytes)
    }
}

impl State {
    fn has_room(&self, bounds: Bounds, more: usize, factor: usize) -> bool {
        self.frames.is_empty()
            || (self.frames.len() < bounds.max_frames.saturating_mul(factor)
                && self.bytes + more <= bounds.max_bytes.saturating_mul(factor))
    }

    fn forget(&mut self) {
        metrics::QUEUE_DROPPED.increment(self.frames.len() as u64);
        self.frames = VecDeque::new();
        self.bytes = 0;
    }

    fn take(&mut self, into: &mut VecDeque<Outbound>, max_frames: usize) {
        if into.is_empty() && self.frames.len() <= max_frames {
            std::mem::swap(&mut self.frames, into);
            self.bytes = 0;
            return;
        }
        for _ in 0..max_frames {
            let Some(outbound) = self.frames.pop_front() else { break };
            self.bytes -= outbound.bytes.len();
            into.push_back(outbound);
        }
        if self.frames.is_empty() && self.frames.capacity() > 64 {
            self.frames = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { max_frames: 2, max_bytes: 1_000 };

    #[test]
    fn a_writer_that_has_not_run_holds_the_publisher_back() {
        let queue = Queue::new(BOUNDS);
        let frame = Frame::text("x");
        assert_eq!(queue.offer(&frame, None), Ok(()));
        assert_eq!(queue.offer(&frame, None), Ok(()));
        assert_eq!(queue.offer(&frame, None), Err(Full));
        assert_eq!(queue.depth().0, 2);
        assert!(queue.state.lock().close.is_none());
    }

    #[tokio::test]
    async fn room_is_waited_for_until_the_frame_fits() {
        let queue = Queue::new(BOUNDS);
        let (first, second) = (Frame::text(&"x".repeat(600)), Frame::text(&"x".repeat(500)));
        assert_eq!(queue.offer(&first, None), Ok(()));
        assert_eq!(queue.offer(&second, None), Err(Full));
        let mut room = std::pin::pin!(queue.room(&second));
        assert!(futures_util::poll!(room.as_mut()).is_pending());
        let take = |cx: &mut Context<'_>| queue.poll_take(cx, &mut VecDeque::new(), 1);
        assert_eq!(std::future::poll_fn(take).await, None);
        assert!(futures_util::poll!(room.as_mut()).is_ready());
        assert_eq!(queue.offer(&second, None), Ok(()));

        let mut room = std::pin::pin!(queue.room(&second));
        assert!(futures_util::poll!(room.as_mut()).is_pending());
        queue.set_blocked(true);
        assert!(futures_util::poll!(room.as_mut()).is_ready(), "a reader that is to blame is not waited for");
        assert_eq!(queue.offer(&second, None), Ok(()));
        assert_eq!(queue.state.lock().close, Some(CloseReason::SlowReader));
    }

    #[test]
    fn a_blocked_reader_over_the_bound_is_told_to_go() {
        let queue = Queue::new(BOUNDS);
        queue.set_blocked(true);
        for _ in 0..3 {
            assert_eq!(queue.offer(&Frame::text("x"), None), Ok(()));
        }
        assert_eq!(queue.state.lock().close, Some(CloseReason::SlowReader));
    }

    #[test]
    fn one_frame_alone_is_accepted_whatever_its_size() {
        let queue = Queue::new(BOUNDS);
        assert_eq!(queue.offer(&Frame::text(&"x".repeat(100_000)), None), Ok(()));
        assert_eq!(queue.offer(&Frame::text("x"), None), Err(Full));
    }
}
