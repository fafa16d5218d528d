//! The socket below a connection, and what is on its way into it. It belongs to the connection's [`super::queue`], under whose lock
//! everything is written: by the connection's own task, or at once by whoever publishes.
//!
//! Control replies (pongs, the echo of a close) wait in a small buffer that goes out before the next frame, never inside one. Frames go to
//! the socket without a copy: several that wait are one `writev`.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;
use tokio::task::coop::has_budget_remaining;

use crate::metrics;
use crate::transport::Transport;

/// Frames that are written together.
const BATCH_FRAMES: usize = 32;

/// A frame that waits, and when it was published if its way is measured.
#[derive(Debug)]
pub(super) struct Outbound {
    /// What is left to write.
    pub(super) bytes: Bytes,
    /// When the publisher handed it over.
    pub(super) published: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub struct Wire {
    /// What is read from, too.
    pub transport: Transport,
    /// Control replies that go out next.
    pub replies: Vec<u8>,
    /// The first frame that waits is half out: nothing may come between.
    begun: bool,
    /// Since when the transport has taken nothing though something waits.
    blocked_since: Option<Instant>,
    /// Something was taken since it was last said to be blocked.
    progress: bool,
}

/// What became of the writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All that waited.
    All,
    /// Some of it; the transport may take more.
    Some,
    /// The transport takes no more for now.
    Blocked,
    /// The task has used up its turn, which says nothing about the transport.
    OutOfTurn,
}

/// What became of a frame that was to be written at once.
#[derive(Debug)]
pub(super) enum AtOnce {
    /// It is on its way.
    Written,
    /// The transport has it and holds some of it back.
    Unflushed,
    /// The transport did not take all of it: this has to wait.
    Rest(Outbound),
}

impl Wire {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport, replies: Vec::new(), begun: false, blocked_since: None, progress: false }
    }

    /// Whether nothing is on its way, so that a frame may be written at once.
    pub(super) fn is_free(&self) -> bool {
        self.replies.is_empty() && !self.begun && self.blocked_since.is_none()
    }

    pub(super) const fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    /// Writes a frame when nothing waits.
    pub(super) fn write_at_once(&mut self, cx: &mut Context<'_>, mut frame: Outbound) -> AtOnce {
        // An error is met again by the connection's own task, whose business it is.
        let Poll::Ready(Ok(written)) = Pin::new(&mut self.transport).poll_write(cx, &frame.bytes) else {
            return AtOnce::Rest(frame);
        };
        metrics::BYTES_SENT.increment(written as u64);
        frame.bytes.advance(written);
        if !frame.bytes.is_empty() {
            self.begun = written > 0;
            return AtOnce::Rest(frame);
        }
        frame.is_sent();
        metrics::MESSAGES_SENT.increment(1);
        match Pin::new(&mut self.transport).poll_flush(cx) {
            Poll::Ready(Ok(())) => AtOnce::Written,
            _ => AtOnce::Unflushed,
        }
    }

    /// One system call for what waits, as far as it goes; the bytes of frames that it has taken come on top of `taken`.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        frames: &mut VecDeque<Outbound>,
        taken: &mut usize,
    ) -> io::Result<Written> {
        let written = if self.replies.is_empty() && frames.is_empty() {
            Pin::new(&mut self.transport).poll_flush(cx).map_ok(|()| None)
        } else {
            self.poll_write_some(cx, frames).map_ok(Some)
        };
        match written {
            Poll::Ready(Ok(None)) => {
                self.blocked_since = None;
                Ok(Written::All)
            }
            Poll::Ready(Ok(Some(0))) => Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(Some(written))) => {
                *taken += self.advance(frames, written);
                Ok(Written::Some)
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending if !has_budget_remaining() => Ok(Written::OutOfTurn),
            Poll::Pending => {
                if self.blocked_since.is_none() || self.progress {
                    (self.blocked_since, self.progress) = (Some(Instant::now()), false);
                }
                Ok(Written::Blocked)
            }
        }
    }

    /// Throws away what nobody began to write, and says how many frames that were.
    pub(super) fn forget(&mut self, frames: &mut VecDeque<Outbound>) -> usize {
        let begun = usize::from(self.begun);
        let forgotten = frames.len().saturating_sub(begun);
        frames.truncate(begun);
        forgotten
    }

    /// For a frame alone `send`, which costs the kernel less than `writev`.
    fn poll_write_some(&mut self, cx: &mut Context<'_>, frames: &VecDeque<Outbound>) -> Poll<io::Result<usize>> {
        let transport = Pin::new(&mut self.transport);
        if let Some(first) = frames.front()
            && (self.begun || (frames.len() == 1 && self.replies.is_empty()))
        {
            return transport.poll_write(cx, &first.bytes);
        }
        let mut slices = [IoSlice::new(&[]); BATCH_FRAMES + 1];
        let waiting = iter::once(self.replies.as_slice()).chain(frames.iter().map(|frame| &*frame.bytes));
        let filled = slices.iter_mut().zip(waiting).map(|(slice, bytes)| *slice = IoSlice::new(bytes)).count();
        transport.poll_write_vectored(cx, slices.get(..filled).unwrap_or_default())
    }

    /// Takes what was written off replies and frames; returns how many bytes of frames.
    fn advance(&mut self, frames: &mut VecDeque<Outbound>, mut written: usize) -> usize {
        self.progress = true;
        metrics::BYTES_SENT.increment(written as u64);
        let replies = if self.begun { 0 } else { written.min(self.replies.len()) };
        self.replies.drain(..replies);
        written -= replies;
        let (taken, mut sent) = (written, 0);
        self.begun = false;
        while let Some(frame) = frames.front_mut() {
            let step = written.min(frame.bytes.len());
            frame.bytes.advance(step);
            written -= step;
            if !frame.bytes.is_empty() {
                self.begun = step > 0;
                break;
            }
            frame.is_sent();
            sent += 1;
            frames.pop_front();
        }
        metrics::MESSAGES_SENT.increment(sent);
        taken
    }
}

impl Outbound {
    /// The socket has all of it.
    fn is_sent(&self) {
        if let Some(published) = self.published {
            metrics::PUBLISH_TO_SOCKET.record(published.elapsed());
        }
    }
}
