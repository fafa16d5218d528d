//! A client's WebSocket: tungstenite decodes what comes in, finished frames go out as they are.
//!
//! Reading and writing are polled side by side by the connection's one task. Control replies (pongs, the echo of a close) are written by
//! tungstenite into a small buffer that goes out before the next frames, never inside one. Frames go from the queue to the socket
//! without a copy: several that wait are one `writev`.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use herald_protocol::CloseReason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::has_budget_remaining;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use super::transport::Transport;
use crate::hub::queue::{Outbound, Queue};
use crate::metrics;

/// Bytes read at once from a client: they send little, and a bigger message grows the buffer for as long as it takes.
const READ_BUFFER: usize = 256;
/// Frames that are written together.
const BATCH_FRAMES: usize = 32;
/// Control replies that may wait before reading pauses.
const MAX_REPLIES: usize = 4 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Socket {
    transport: Transport,
    codec: WebSocketContext,
    replies: Vec<u8>,
    writing: VecDeque<Outbound>,
    /// All that came was read: neither the codec nor the transport holds back any of it.
    read_empty: bool,
    /// Something came since it was last asked.
    heard: bool,
    /// The first of `writing` is half out: nothing may come between.
    begun: bool,
    /// Since when the transport has taken nothing.
    blocked_since: Option<Instant>,
    /// Something was taken since it was last said to be blocked.
    progress: bool,
}

/// What became of the writes.
#[derive(Debug)]
pub enum Written {
    /// All that waited is written.
    All,
    /// The transport takes no more for now.
    Blocked,
}

impl Socket {
    /// A socket after its handshake; `read_ahead` is what the client sent right behind it.
    #[must_use]
    pub fn new(transport: Transport, read_ahead: &[u8], max_message: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let codec = WebSocketContext::from_partially_read(read_ahead.to_vec(), Role::Server, Some(config));
        Self {
            transport,
            codec,
            replies: Vec::new(),
            writing: VecDeque::new(),
            read_empty: false,
            heard: false,
            begun: false,
            blocked_since: None,
            progress: false,
        }
    }

    /// The first that goes out: the client's first frame, in one piece with what its handshake still lacks.
    pub fn greet(&mut self, answer: &[u8], hello: Bytes) {
        let bytes = if answer.is_empty() { hello } else { [answer, &hello].concat().into() };
        self.writing = VecDeque::from([Outbound { bytes, published: None }]);
    }

    /// The next message, or why there will be none.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, CloseReason>> {
        if self.replies.len() > MAX_REPLIES {
            return Poll::Pending;
        }
        // Most wake-ups are for writing: whether there is anything to read is cheaper asked below the codec.
        if self.read_empty && self.transport.poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let (transport, replies, heard) = (&mut self.transport, &mut self.replies, &mut self.heard);
        let mut stream = Polled { transport, cx, replies, heard };
        let read = self.codec.read(&mut stream);
        self.read_empty = matches!(&read, Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock);
        match read {
            Err(_) if self.read_empty => Poll::Pending,
            Err(error) => Poll::Ready(Err(reason(&error))),
            Ok(message @ (Message::Ping(_) | Message::Close(_))) => {
                // The codec holds its reply back until it is called again, which may be never. Behind a close it says that it is done.
                match self.codec.flush(&mut stream) {
                    Ok(()) | Err(Error::ConnectionClosed) => Poll::Ready(Ok(message)),
                    Err(error) => Poll::Ready(Err(reason(&error))),
                }
            }
            Ok(message) => Poll::Ready(Ok(message)),
        }
    }

    /// Writes replies and waiting frames until nothing waits or the transport takes no more; ready with a reason when it is over.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, queue: &Queue) -> Poll<CloseReason> {
        loop {
            match self.poll_flush(cx) {
                Ok(Written::All) => {
                    if self.blocked_since.take().is_some() {
                        queue.set_blocked(false);
                    }
                }
                // A task that has used up its turn is sent to the back of the line: that says nothing about the reader.
                Ok(Written::Blocked) if !has_budget_remaining() => return queue.poll_close(cx),
                Ok(Written::Blocked) => {
                    if self.blocked_since.is_none() {
                        queue.set_blocked(true);
                    }
                    if self.blocked_since.is_none() || self.progress {
                        self.blocked_since = Some(Instant::now());
                        self.progress = false;
                    }
                    return queue.poll_close(cx);
                }
                Err(_) => return Poll::Ready(CloseReason::Broken),
            }
            if let Some(reason) = ready!(queue.poll_take(cx, &mut self.writing, BATCH_FRAMES)) {
                return Poll::Ready(reason);
            }
        }
    }

    /// Whether anything came since it was last asked, be it a part of a message only.
    pub const fn take_heard(&mut self) -> bool {
        std::mem::replace(&mut self.heard, false)
    }

    /// Since when the transport has taken nothing though something waits.
    #[must_use]
    pub const fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    /// Queues frames for the last words.
    pub fn last_words(&mut self, frames: impl IntoIterator<Item = Bytes>) {
        self.writing.extend(frames.into_iter().map(|bytes| Outbound { bytes, published: None }));
    }

    /// Drops what nobody began to write.
    pub fn forget_waiting(&mut self) {
        let begun = usize::from(self.begun);
        metrics::QUEUE_DROPPED.increment(self.writing.len().saturating_sub(begun) as u64);
        self.writing.truncate(begun);
    }

    /// The list of frames that are being written.
    pub const fn writing(&mut self) -> &mut VecDeque<Outbound> {
        &mut self.writing
    }

    /// Writes out what there is.
    ///
    /// # Errors
    /// When the transport broke.
    pub async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| match self.poll_flush(cx)? {
            Written::All => Poll::Ready(Ok(())),
            Written::Blocked => Poll::Pending,
        })
        .await
    }

    /// The transport, once the WebSocket is over.
    pub fn into_transport(self) -> Transport {
        self.transport
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> io::Result<Written> {
        loop {
            if self.replies.is_empty() && self.writing.is_empty() {
                return match Pin::new(&mut self.transport).poll_flush(cx) {
                    Poll::Ready(done) => done.map(|()| Written::All),
                    Poll::Pending => Ok(Written::Blocked),
                };
            }
            let written = match self.poll_write_some(cx) {
                Poll::Pending => return Ok(Written::Blocked),
                Poll::Ready(written) => written?,
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.advance(written);
        }
    }

    /// One system call; for a frame alone `send`, which costs the kernel less than `writev`.
    fn poll_write_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let transport = Pin::new(&mut self.transport);
        if let Some(first) = self.writing.front()
            && (self.begun || (self.writing.len() == 1 && self.replies.is_empty()))
        {
            return transport.poll_write(cx, &first.bytes);
        }
        let mut slices = [IoSlice::new(&[]); BATCH_FRAMES + 1];
        let waiting = iter::once(self.replies.as_slice()).chain(self.writing.iter().map(|frame| &*frame.bytes));
        let filled = slices.iter_mut().zip(waiting).map(|(slice, bytes)| *slice = IoSlice::new(bytes)).count();
        transport.poll_write_vectored(cx, slices.get(..filled).unwrap_or_default())
    }

    fn advance(&mut self, mut written: usize) {
        self.progress = true;
        metrics::BYTES_SENT.increment(written as u64);
        let mut sent = 0;
        let replies = if self.begun { 0 } else { written.min(self.replies.len()) };
        self.replies.drain(..replies);
        written -= replies;
        self.begun = false;
        while let Some(frame) = self.writing.front_mut() {
            let step = written.min(frame.bytes.len());
            frame.bytes.advance(step);
            written -= step;
            if !frame.bytes.is_empty() {
                self.begun = step > 0;
                break;
            }
            if let Some(published) = frame.published {
                metrics::PUBLISH_TO_SOCKET.record(published.elapsed());
            }
            sent += 1;
            self.writing.pop_front();
        }
        metrics::MESSAGES_SENT.increment(sent);
        if self.writing.is_empty() && self.writing.capacity() > BATCH_FRAMES {
            self.writing = VecDeque::new();
        }
    }
}

/// What a failure to read means for the client.
fn reason(error: &Error) -> CloseReason {
    match error {
        Error::Capacity(_) => CloseReason::MessageTooBig,
        Error::Utf8(_) => CloseReason::InvalidUtf8,
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => CloseReason::Broken,
        Error::Protocol(_) => CloseReason::ProtocolViolation,
        Error::ConnectionClosed => CloseReason::ClosedByClient,
        _ => CloseReason::Broken,
    }
}

/// The transport as tungstenite sees it within one poll: reads that would block say so, writes go to the replies.
struct Polled<'a, 'b> {
    transport: &'a mut Transport,
    cx: &'a mut Context<'b>,
    replies: &'a mut Vec<u8>,
    heard: &'a mut bool,
}

impl Read for Polled<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(into);
        match Pin::new(&mut *self.transport).poll_read(self.cx, &mut buffer) {
            Poll::Ready(done) => {
                let read = done.map(|()| buffer.filled().len())?;
                *self.heard |= read > 0;
                metrics::BYTES_RECEIVED.increment(read as u64);
                Ok(read)
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Polled<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.replies.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
