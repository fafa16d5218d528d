//! WebSocket frames as RFC 6455 draws them. Written out here, and not taken from the library that the server uses, so that a test may
//! send what no library sends and sees what really came.

use std::io;

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Whether the message ends here.
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) const CONTINUATION: u8 = 0;
    pub(crate) const TEXT: u8 = 1;
    pub(crate) const BINARY: u8 = 2;
    pub(crate) const CLOSE: u8 = 8;
    pub(crate) const PING: u8 = 9;
    pub(crate) const PONG: u8 = 10;

    /// A whole message, or a control frame.
    pub(crate) fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { fin: true, opcode, payload: payload.into() }
    }

    /// A part of a message that goes on.
    pub(crate) fn part(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { fin: false, opcode, payload: payload.into() }
    }

    /// As a client sends it: masked.
    pub(crate) fn masked(&self) -> Vec<u8> {
        const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
        let mut bytes = Vec::with_capacity(self.payload.len() + 14);
        bytes.push(u8::from(self.fin) << 7 | self.opcode);
        match self.payload.len() {
            length @ 0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
            length @ 126..0x1_0000 => {
                bytes.push(0x80 | 126);
                bytes.put_u16(u16::try_from(length).unwrap());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.put_u64(length as u64);
            }
        }
        bytes.extend(MASK);
        bytes.extend(self.payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// The code and reason of a close frame.
    pub(crate) fn close(&self) -> (u16, String) {
        match self.payload.split_first_chunk() {
            Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap()),
            None => (1005, String::new()),
        }
    }

    /// The first frame in `buffer`, if it is there as a whole.
    fn take(buffer: &mut BytesMut) -> Option<Self> {
        let [first, second] = *buffer.first_chunk::<2>()?;
        assert_eq!(first & 0x70, 0, "no extension was agreed on");
        assert_eq!(second & 0x80, 0, "a server's frames are not masked");
        let (head, length) = match second & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes(*buffer.get(2..)?.first_chunk()?))),
            127 => (10, usize::try_from(u64::from_be_bytes(*buffer.get(2..)?.first_chunk()?)).unwrap()),
            length => (2, usize::from(length)),
        };
        if buffer.len() < head + length {
            buffer.reserve(head + length - buffer.len());
            return None;
        }
        buffer.advance(head);
        let payload = buffer.split_to(length).to_vec();
        Some(Self { fin: first & 0x80 != 0, opcode: first & 0x0f, payload })
    }
}

/// A stream of frames.
#[derive(Debug)]
pub(crate) struct Wire<S = TcpStream> {
    pub(crate) stream: S,
    buffer: BytesMut,
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// `read_ahead` is what came behind the answer to the upgrade.
    pub(crate) fn new(stream: S, read_ahead: &[u8]) -> Self {
        Self { stream, buffer: BytesMut::from(read_ahead) }
    }

    /// The next frame; `None` at the end of the stream. Nothing is lost when the future is dropped.
    pub(crate) async fn read(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = Frame::take(&mut self.buffer) {
                return Ok(Some(frame));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

impl Wire {
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Both directions, each for a task of its own.
    #[allow(dead_code, reason = "some of the tests that share this ask for it")]
    pub(crate) fn split(self) -> (Wire<OwnedReadHalf>, OwnedWriteHalf) {
        let (read, write) = self.stream.into_split();
        (Wire { stream: read, buffer: self.buffer }, write)
    }
}
