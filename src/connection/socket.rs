//! A client's WebSocket: tungstenite decodes what comes in.
//!
//! Finished frames go out as they are, by the connection's queue ([`crate::hub::queue`]), which has the socket; it is borrowed from there to
//! read. Control replies are written by tungstenite into the wire's small buffer for them.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use herald_protocol::CloseReason;
use tokio::io::{AsyncRead, ReadBuf};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use crate::hub::queue::Queue;
use crate::hub::wire::Wire;
use crate::metrics;

/// Bytes read at once from a client: they send little, and a bigger message grows the buffer for as long as it takes.
const READ_BUFFER: usize = 256;
/// Control replies that may wait before reading pauses.
const MAX_REPLIES: usize = 4 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Socket {
    codec: WebSocketContext,
    /// All that came was read: neither the codec nor the transport holds back any of it.
    read_empty: bool,
    /// Something came since it was last asked.
    heard: bool,
}

impl Socket {
    /// A socket after its handshake; `read_ahead` is what the client sent right behind it.
    #[must_use]
    pub fn new(read_ahead: &[u8], max_message: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let codec = WebSocketContext::from_partially_read(read_ahead.to_vec(), Role::Server, Some(config));
        Self { codec, read_empty: false, heard: false }
    }

    /// The next message, or why there will be none.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, queue: &Queue) -> Poll<Result<Message, CloseReason>> {
        let Some(mut wire) = queue.wire() else { return Poll::Ready(Err(CloseReason::Broken)) };
        if wire.replies.len() > MAX_REPLIES {
            return Poll::Pending;
        }
        // Most wake-ups are for writing: whether there is anything to read is cheaper asked below the codec.
        if self.read_empty && wire.transport.poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let mut stream = Polled { wire: &mut wire, cx, heard: &mut self.heard };
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

    /// Whether anything came since it was last asked, be it a part of a message only.
    pub const fn take_heard(&mut self) -> bool {
        std::mem::replace(&mut self.heard, false)
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
    wire: &'a mut Wire,
    cx: &'a mut Context<'b>,
    heard: &'a mut bool,
}

impl Read for Polled<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(into);
        match Pin::new(&mut self.wire.transport).poll_read(self.cx, &mut buffer) {
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
        self.wire.replies.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
