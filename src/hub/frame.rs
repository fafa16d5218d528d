//! A finished WebSocket frame: header and payload in one shared buffer, made once and written as it stands to every subscriber.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes that can go to any client's socket; cloning costs a reference count.
#[derive(Clone, Debug)]
pub struct Frame(Bytes);

const FINAL: u8 = 0x80;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;

impl Frame {
    /// A text frame.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::new(TEXT, text.as_bytes())
    }

    /// An empty ping.
    #[must_use]
    pub fn ping() -> Self {
        Self::new(PING, b"")
    }

    /// A close frame; of the reason as many bytes as fit.
    #[must_use]
    pub fn close(code: u16, reason: &str) -> Self {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend(reason.as_bytes().iter().take(123));
        Self::new(CLOSE, &payload)
    }

    /// Header after RFC 6455, 5.2: a server's frames are not masked, so everybody's are the same.
    fn new(opcode: u8, payload: &[u8]) -> Self {
        let mut frame = BytesMut::with_capacity(payload.len() + 10);
        frame.put_u8(FINAL | opcode);
        match payload.len() {
            short @ 0..=125 => frame.put_u8(short as u8),
            medium @ 126..=0xffff => {
                frame.put_u8(126);
                frame.put_u16(medium as u16);
            }
            long => {
                frame.put_u8(127);
                frame.put_u64(long as u64);
            }
        }
        frame.put_slice(payload);
        Self(frame.freeze())
    }

    /// What goes to the socket.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Bytes on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.len()
    }
}
