//! A client of the RFC 6455 frame, no more: it sends octets as it is told to and tells frame by frame what comes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// Far longer than any answer takes, so that a missing one fails the case and hangs nothing.
const DEADLINE: Duration = Duration::from_secs(20);

/// A whole message in one frame.
pub(crate) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(FINAL | opcode, payload)
}

/// A frame that its message's next frame continues.
pub(crate) fn unfinished(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(opcode, payload)
}

/// A whole message in one frame with reserved bits set.
pub(crate) fn reserved(bits: u8, opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(FINAL | (bits << 4) | opcode, payload)
}

/// A message in frames of at most `size` octets.
pub(crate) fn fragments(opcode: u8, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let count = payload.chunks(size).len();
    let fragment = |(position, part): (usize, &[u8])| {
        let opcode = if position == 0 { opcode } else { CONTINUATION };
        frame_with(if position + 1 == count { FINAL | opcode } else { opcode }, part)
    };
    payload.chunks(size).enumerate().map(fragment).collect()
}

/// A close frame.
pub(crate) fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

fn frame_with(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(MASKED | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(MASKED | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(MASKED | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(octet, mask)| octet ^ mask));
    frame
}

/// What the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Text(String),
    Pong(Vec<u8>),
    /// Code and reason; no code if the frame is empty.
    Close(Option<u16>, String),
    /// The end of the stream.
    End,
}

/// A connection after its handshake and hello.
pub(crate) struct Client {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("an option of every socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("an option of every socket");
        stream.set_write_timeout(Some(DEADLINE)).expect("an option of every socket");
        let request = format!(
            "GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("the server reads");
        let mut client = Self { stream, ahead: Vec::new() };
        let head = loop {
            if let Some(end) = client.ahead.windows(4).position(|window| window == b"\r\n\r\n") {
                break client.ahead.drain(..end + 4).collect::<Vec<_>>();
            }
            client.read_more().expect("the server answers the handshake");
        };
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        match client.receive() {
            Ok(Received::Text(hello)) if hello.contains("pusher:connection_established") => client,
            other => panic!("the server's hello: {other:?}"),
        }
    }

    /// Sends octets in one write. One that finds the connection failed already is none the wiser: what was received tells.
    pub(crate) fn write(&mut self, octets: &[u8]) {
        _ = self.stream.write_all(octets);
    }

    /// The next frame, which must be as a server's have to be: whole, unmasked, without reserved bits.
    pub(crate) fn receive(&mut self) -> io::Result<Received> {
        loop {
            if let Some((first, payload)) = self.take_frame() {
                let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).map_err(io::Error::other);
                return match first {
                    first if first == FINAL | TEXT => text(&payload).map(Received::Text),
                    first if first == FINAL | PONG => Ok(Received::Pong(payload)),
                    first if first == FINAL | CLOSE => match payload.split_first_chunk() {
                        Some((code, reason)) => Ok(Received::Close(Some(u16::from_be_bytes(*code)), text(reason)?)),
                        None if payload.is_empty() => Ok(Received::Close(None, String::new())),
                        None => Err(io::Error::other("a close frame with one octet")),
                    },
                    first => Err(io::Error::other(format!("a frame that begins with {first:#04x}"))),
                };
            }
            match self.read_more() {
                Ok(0) if self.ahead.is_empty() => return Ok(Received::End),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        let read = self.stream.read(&mut buffer)?;
        self.ahead.extend(buffer.iter().take(read));
        Ok(read)
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second, rest @ ..] = self.ahead.as_slice() else { return None };
        let (length, header) = match *second {
            126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?, 10),
            short => (usize::from(short), 2), // a mask bit makes it a frame that never ends
        };
        let (first, end) = (*first, header + length);
        let payload = self.ahead.get(header..end)?.to_vec();
        self.ahead.drain(..end);
        Some((first, payload))
    }
}
