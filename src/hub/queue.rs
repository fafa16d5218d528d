//! The outbound queue of one connection: its socket, and what waits to be written there, bounded in frames and bytes.
//!
//! The hub's end, [`Queue::offer`] and [`Queue::push`], never waits. A published event is written at once where nothing is before it
//! and the node has time to spare (see [`super::pressure`]); else it waits for a flusher ([`super::flusher`]), and goes out with what came
//! meanwhile. Everything else is written by the connection's own task ([`Queue::poll_write`]), also what the others could not get rid of.
//! Always: whatever is written, is written under the queue's lock, frame after frame; a reader is blamed ([`CloseReason::SlowReader`]) only while its socket is blocked; a queue that is full
//! because its writer has not run yet holds a publisher back instead. One frame alone is accepted whatever its size.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use herald_protocol::CloseReason;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::sync::Notify;

use super::frame::Frame;
use super::wire::{AtOnce, Outbound, Wire, Written};
use crate::metrics;
use crate::transport::Transport;

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

/// How a frame gets to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Written by the publisher if nothing is before it.
    AtOnce,
    /// Written by a flusher, with whatever else waits by then.
    Together,
    /// Written by the connection's task.
    ByTask,
}

/// What is left to do for a frame that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// Nothing.
    Over,
    /// The connection has to be put on a flusher's list.
    ToFlush,
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
    /// Gone when the connection is over.
    wire: Option<Wire>,
    frames: VecDeque<Outbound>,
    bytes: usize,
    /// The connection's task, if it waits for something to write.
    writer: Option<Waker>,
    /// Somebody waits for room.
    awaited: bool,
    /// A flusher has it on its list.
    listed: bool,
    close: Option<CloseReason>,
    ended: bool,
}

impl Queue {
    /// An empty queue of this socket; without one, what is queued stays.
    #[must_use]
    pub fn new(bounds: Bounds, transport: Option<Transport>) -> Self {
        let state = State { wire: transport.map(Wire::new), ..State::default() };
        Self { bounds, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Hands over a published event. A reader that is over the bound and blocked is told to go; nobody else is.
    ///
    /// # Errors
    /// [`Full`] when the writer has not caught up; see [`Queue::room`].
    pub fn offer(&self, frame: &Frame, published: Option<Instant>, way: Way) -> Result<Handed, Full> {
        self.enqueue(frame, published, way, 1)
    }

    /// Queues what the server itself has to say.
    pub fn push(&self, frame: &Frame) {
        if self.enqueue(frame, None, Way::ByTask, OWN_MESSAGES_FACTOR).is_err() {
            self.close(CloseReason::SlowReader);
        }
    }

    fn enqueue(&self, frame: &Frame, published: Option<Instant>, way: Way, factor: usize) -> Result<Handed, Full> {
        let mut state = self.state.lock();
        if state.close.is_some() || state.ended {
            return Ok(Handed::Over);
        }
        let outbound = Outbound { bytes: frame.clone().into_bytes(), published };
        match state.write_at_once(outbound, way) {
            AtOnce::Written => return Ok(Handed::Over),
            AtOnce::Unflushed => {}
            AtOnce::Rest(_) if !state.has_room(self.bounds, frame.size(), factor) => {
                if !state.is_blocked() {
                    return Err(Full);
                }
                state.close = Some(CloseReason::SlowReader);
            }
            AtOnce::Rest(rest) => {
                state.bytes += rest.bytes.len();
                state.frames.push_back(rest);
                if way == Way::Together && state.writer.is_some() {
                    let is_listed = std::mem::replace(&mut state.listed, true);
                    return Ok(if is_listed { Handed::Over } else { Handed::ToFlush });
                }
            }
        }
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(Handed::Over)
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
                let is_over = state.close.is_some() || state.ended || state.is_blocked();
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

    /// Writes replies and waiting frames until nothing waits or the transport takes no more; ready with a reason as soon as the connection
    /// has to end. For the connection's task, which is woken when there is more to do.
    pub fn poll_write(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            let mut state = self.state.lock();
            if let Some(reason) = &state.close {
                return Poll::Ready(reason.clone());
            }
            let was_blocked = state.is_blocked();
            let Ok(written) = state.poll_write(cx) else { return Poll::Ready(CloseReason::Broken) };
            if written != Written::Some {
                state.wake_later(cx);
            }
            // Whoever waits for room has some now, or need not wait for a reader that is to blame.
            let is_news = written == Written::Some || state.is_blocked() != was_blocked;
            let awaited = is_news && std::mem::take(&mut state.awaited);
            drop(state);
            if awaited {
                self.changed.notify_waiters();
            }
            if written != Written::Some {
                return Poll::Pending;
            }
        }
    }

    /// Writes what waits in the name of the connection's task, unless that is about to do so itself. For a flusher that has it on its list.
    pub(super) fn write_waiting(&self) {
        let mut state = self.state.lock();
        state.listed = false;
        let Some(writer) = state.writer.take() else { return };
        let mut cx = Context::from_waker(&writer);
        let written = loop {
            match state.poll_write(&mut cx) {
                Ok(Written::Some) => {}
                other => break other,
            }
        };
        let awaited = std::mem::take(&mut state.awaited);
        let mut woken = None;
        match written {
            Ok(Written::All) if state.close.is_none() => state.writer = Some(writer),
            _ => woken = Some(writer), // the task minds what is blocked or broken
        }
        drop(state);
        if awaited {
            self.changed.notify_waiters();
        }
        if let Some(writer) = woken {
            writer.wake();
        }
    }

    /// Writes out what there is, whether or not the connection has to end.
    ///
    /// # Errors
    /// When the transport broke.
    pub async fn flush(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            loop {
                match self.state.lock().poll_write(cx)? {
                    Written::Some => {}
                    Written::All => return Poll::Ready(Ok(())),
                    Written::Blocked | Written::OutOfTurn => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// The socket, to read from it; nothing is written meanwhile.
    pub fn wire(&self) -> Option<MappedMutexGuard<'_, Wire>> {
        MutexGuard::try_map(self.state.lock(), |state| state.wire.as_mut()).ok()
    }

    /// Since when the transport has taken nothing though something waits.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.state.lock().wire.as_ref()?.blocked_since()
    }

    /// Whatever is queued from now on is thrown away, and unless they shall be kept, the frames that nobody began to write.
    pub fn stop(&self, keep: bool) {
        let mut state = self.state.lock();
        state.close.get_or_insert(CloseReason::Broken);
        if !keep {
            state.forget();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The first that goes out. Most clients never have more than that and another frame waiting: there is room for one.
    pub fn begin_with(&self, bytes: Bytes) {
        let mut state = self.state.lock();
        state.bytes = bytes.len();
        state.frames = VecDeque::from([Outbound { bytes, published: None }]);
    }

    /// Queues frames behind everything else, also when the connection has to end.
    pub fn last_words(&self, frames: impl IntoIterator<Item = Bytes>) {
        let last = frames.into_iter().map(|bytes| Outbound { bytes, published: None });
        let mut state = self.state.lock();
        for outbound in last {
            state.bytes += outbound.bytes.len();
            state.frames.push_back(outbound);
        }
    }

    /// Marks the connection as gone; whoever waits for its end need not wait any more. Gives the socket back.
    pub fn end(&self) -> Option<Transport> {
        let mut state = self.state.lock();
        state.ended = true;
        state.forget();
        state.frames = VecDeque::new();
        let wire = state.wire.take();
        drop(state);
        self.changed.notify_waiters();
        wire.map(|wire| wire.transport)
    }

    /// Frames and bytes that wait, for the metrics.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.frames.len(), state.bytes)
    }
}

impl State {
    /// Writes a frame in the name of the connection's task, if that waits for something to write and nothing is before it.
    fn write_at_once(&mut self, frame: Outbound, way: Way) -> AtOnce {
        let (Some(wire), Some(writer), Way::AtOnce) = (&mut self.wire, &self.writer, way) else {
            return AtOnce::Rest(frame);
        };
        if !self.frames.is_empty() || !wire.is_free() {
            return AtOnce::Rest(frame);
        }
        wire.write_at_once(&mut Context::from_waker(writer), frame)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<Written> {
        let Some(wire) = &mut self.wire else { return Ok(Written::All) };
        let mut taken = 0;
        let written = wire.poll_write(cx, &mut self.frames, &mut taken)?;
        self.bytes = self.bytes.saturating_sub(taken);
        if self.frames.is_empty() && self.frames.capacity() > 64 {
            self.frames = VecDeque::new();
        }
        Ok(written)
    }

    fn wake_later(&mut self, cx: &Context<'_>) {
        if !self.writer.as_ref().is_some_and(|writer| writer.will_wake(cx.waker())) {
            self.writer = Some(cx.waker().clone());
        }
    }

    fn is_blocked(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.blocked_since().is_some())
    }

    fn has_room(&self, bounds: Bounds, more: usize, factor: usize) -> bool {
        self.frames.is_empty()
            || (self.frames.len() < bounds.max_frames.saturating_mul(factor)
                && self.bytes + more <= bounds.max_bytes.saturating_mul(factor))
    }

    fn forget(&mut self) {
        let forgotten = match &mut self.wire {
            Some(wire) => wire.forget(&mut self.frames),
            None => std::mem::take(&mut self.frames).len(),
        };
        self.bytes = self.frames.iter().map(|frame| frame.bytes.len()).sum();
        metrics::QUEUE_DROPPED.increment(forgotten as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;

    use super::*;

    const BOUNDS: Bounds = Bounds { max_frames: 2, max_bytes: 1_000 };

    /// A queue of a socket, and the socket's other end.
    fn connected() -> (Queue, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Queue::new(BOUNDS, Some(Transport::Unix(ours))), theirs)
    }

    /// More than a socket takes at once.
    fn large() -> Frame {
        Frame::text(&"x".repeat(4 << 20))
    }

    async fn bytes_of(theirs: &mut UnixStream, frames: &[&Frame]) {
        for frame in frames {
            let mut read = vec![0; frame.size()];
            theirs.read_exact(&mut read).await.unwrap();
            assert!(read == *(*frame).clone().into_bytes(), "a frame came whole, and in its turn");
        }
    }

    #[test]
    fn a_writer_that_has_not_run_holds_the_publisher_back() {
        let queue = Queue::new(BOUNDS, None);
        let frame = Frame::text("x");
        assert_eq!(queue.offer(&frame, None, Way::AtOnce), Ok(Handed::Over));
        assert_eq!(queue.offer(&frame, None, Way::ByTask), Ok(Handed::Over));
        assert_eq!(queue.offer(&frame, None, Way::ByTask), Err(Full));
        assert_eq!(queue.depth().0, 2);
        assert!(queue.state.lock().close.is_none());
    }

    #[tokio::test]
    async fn room_is_waited_for_until_the_frame_fits() {
        let (queue, _theirs) = connected();
        let (first, second) = (Frame::text(&"x".repeat(600)), Frame::text(&"x".repeat(500)));
        assert_eq!(queue.offer(&first, None, Way::ByTask), Ok(Handed::Over));
        assert_eq!(queue.offer(&second, None, Way::ByTask), Err(Full));
        let mut room = std::pin::pin!(queue.room(&second));
        assert!(futures_util::poll!(room.as_mut()).is_pending());
        let mut writing = std::future::poll_fn(|cx| queue.poll_write(cx));
        assert!(futures_util::poll!(&mut writing).is_pending());
        assert!(futures_util::poll!(room.as_mut()).is_ready());
        assert_eq!(queue.offer(&second, None, Way::ByTask), Ok(Handed::Over));

        let third = large();
        assert!(futures_util::poll!(&mut writing).is_pending());
        assert_eq!(queue.offer(&third, None, Way::ByTask), Ok(Handed::Over), "one alone, whatever its size");
        let mut room = std::pin::pin!(queue.room(&second));
        assert!(futures_util::poll!(room.as_mut()).is_pending());
        assert!(futures_util::poll!(&mut writing).is_pending());
        assert!(futures_util::poll!(room.as_mut()).is_ready(), "a reader that is to blame is not waited for");
        assert_eq!(queue.offer(&second, None, Way::ByTask), Ok(Handed::Over));
        assert_eq!(futures_util::poll!(&mut writing), Poll::Ready(CloseReason::SlowReader));
    }

    #[tokio::test]
    async fn a_frame_goes_out_at_once_where_nothing_is_before_it() {
        let (queue, mut theirs) = connected();
        let (first, second, third) = (Frame::text("first"), Frame::text("second"), Frame::text("third"));
        queue.offer(&first, None, Way::AtOnce).unwrap();
        assert_eq!(queue.depth(), (1, first.size()), "the task has not begun to write");
        let mut writing = std::future::poll_fn(|cx| queue.poll_write(cx));
        assert!(futures_util::poll!(&mut writing).is_pending());
        queue.offer(&second, None, Way::AtOnce).unwrap();
        assert_eq!(queue.depth(), (0, 0));
        bytes_of(&mut theirs, &[&first, &second]).await;

        queue.offer(&first, None, Way::ByTask).unwrap();
        queue.offer(&third, None, Way::AtOnce).unwrap();
        assert_eq!(queue.depth().0, 2, "something is before it");
        assert!(futures_util::poll!(&mut writing).is_pending());
        bytes_of(&mut theirs, &[&first, &third]).await;
    }

    #[tokio::test]
    async fn what_is_left_of_a_frame_is_the_tasks_to_write() {
        #[derive(Default)]
        struct Woken(AtomicBool);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let (queue, mut theirs) = connected();
        let (first, second) = (large(), Frame::text("second"));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert!(queue.poll_write(&mut Context::from_waker(&waker)).is_pending());
        queue.offer(&first, None, Way::AtOnce).unwrap();
        let (frames, left) = queue.depth();
        assert!(frames == 1 && left > 0 && left < first.size(), "{left} of {} bytes are left", first.size());
        assert!(woken.0.load(Ordering::Relaxed));
        assert!(queue.poll_write(&mut Context::from_waker(&waker)).is_pending());
        assert!(queue.blocked_since().is_some());
        queue.stop(false);
        queue.last_words([second.clone().into_bytes()]);
        let expected = [&first, &second];
        let (written, ()) = tokio::join!(queue.flush(), bytes_of(&mut theirs, &expected));
        written.unwrap();
        assert_eq!(queue.depth(), (0, 0));
    }

    #[tokio::test]
    async fn a_flusher_writes_all_that_has_come_for_it() {
        let (queue, mut theirs) = connected();
        let (first, second) = (Frame::text("first"), Frame::text("second"));
        let mut writing = std::future::poll_fn(|cx| queue.poll_write(cx));
        assert!(futures_util::poll!(&mut writing).is_pending());
        assert_eq!(queue.offer(&first, None, Way::Together), Ok(Handed::ToFlush));
        assert_eq!(queue.offer(&second, None, Way::Together), Ok(Handed::Over), "it is on the list");
        assert_eq!(queue.depth().0, 2);
        queue.write_waiting();
        assert_eq!(queue.depth(), (0, 0));
        bytes_of(&mut theirs, &[&first, &second]).await;
        assert_eq!(queue.offer(&first, None, Way::Together), Ok(Handed::ToFlush), "and has to be put there again");
        queue.close(CloseReason::UserTerminated);
        queue.write_waiting();
        assert_eq!(
            futures_util::poll!(&mut writing),
            Poll::Ready(CloseReason::UserTerminated),
            "the task minds its end"
        );
    }

    #[test]
    fn one_frame_alone_is_accepted_whatever_its_size() {
        let queue = Queue::new(BOUNDS, None);
        assert_eq!(queue.offer(&large(), None, Way::ByTask), Ok(Handed::Over));
        assert_eq!(queue.offer(&Frame::text("x"), None, Way::ByTask), Err(Full));
    }
}
