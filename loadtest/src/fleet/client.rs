//! One client: its handshake, its frames put together again from whatever reads bring, the order of what it gets.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::Instant;

use anyhow::Context as _;
use memchr::memmem;
use mio::net::TcpStream;

use super::Desk;
use crate::wire::{self, Stamp};

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// TCP is not there yet.
    Connecting,
    /// The handshake is sent.
    Upgrading,
    /// It is a WebSocket; the server has not said who the client is.
    Greeting,
    /// It has asked for its channel.
    Subscribing,
    /// It is where it wants to be.
    Live,
    /// It is over.
    Over,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) stream: TcpStream,
    pub(super) stage: Stage,
    /// Where in the fleet's list its channel is; none for one that only connects.
    pub(super) channel: Option<usize>,
    /// Who it is on a presence channel.
    pub(super) member: Option<String>,
    /// It does not read.
    pub(super) is_stalled: bool,
    pub(super) close_code: Option<u16>,
    begun: Instant,
    /// What came of a frame so far.
    partial: Vec<u8>,
    order: Order,
}

/// Which numbers have come. Where nothing goes wrong that is one counter.
#[derive(Debug, Default)]
struct Order {
    /// The number that is next; whoever comes while events are published expects none in particular at first.
    next: Option<u64>,
    missing: Vec<u64>,
}

/// What a number says about those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    InOrder,
    OutOfOrder,
    Duplicate,
}

impl Order {
    fn note(&mut self, number: u64) -> Arrival {
        let next = self.next.unwrap_or(number);
        if number >= next {
            self.missing.extend(next..number);
            self.next = Some(number + 1);
            return Arrival::InOrder;
        }
        match self.missing.iter().position(|missing| *missing == number) {
            Some(position) => {
                self.missing.swap_remove(position);
                Arrival::OutOfOrder
            }
            None => Arrival::Duplicate,
        }
    }
}

impl Client {
    pub(super) fn new(stream: TcpStream, channel: Option<usize>, member: Option<String>) -> Self {
        Self {
            stream,
            stage: Stage::Connecting,
            channel,
            member,
            is_stalled: false,
            close_code: None,
            begun: Instant::now(),
            partial: Vec::new(),
            order: Order::default(),
        }
    }

    /// Of events numbered from 0 to below `published`, how many it did not get. One that got none has missed all.
    pub(super) fn lost(&self, published: u64) -> u64 {
        let behind = published.saturating_sub(self.order.next.unwrap_or(0));
        behind + self.order.missing.len() as u64
    }

    /// The next event is number 0.
    pub(super) fn expect_the_first(&mut self) {
        self.order = Order { next: Some(0), missing: Vec::new() };
    }

    /// Goes on with what has become possible; `other` is told of texts that are no stamped event.
    pub(super) fn serve(
        &mut self,
        desk: &mut Desk,
        buffer: &mut [u8],
        other: &mut impl FnMut(&[u8]) -> Option<Vec<u8>>,
    ) -> anyhow::Result<()> {
        if self.stage == Stage::Connecting {
            if let Some(error) = self.stream.take_error()? {
                return Err(error.into());
            }
            if self.stream.peer_addr().is_err() {
                return Ok(());
            }
            self.stream.set_nodelay(true)?;
            self.send(desk.upgrade.as_bytes())?;
            self.stage = Stage::Upgrading;
        }
        while self.stage != Stage::Over && !self.is_stalled {
            let read = match self.stream.read(buffer) {
                Ok(0) => {
                    self.stage = Stage::Over;
                    break;
                }
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    self.stage = Stage::Over;
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            self.digest(buffer.get(..read).unwrap_or_default(), desk, other)?;
            if read < buffer.len() {
                break; // a read that does not fill the buffer has emptied the socket
            }
        }
        Ok(())
    }

    /// Sends a few bytes; a socket that does not take them at once is an error.
    pub(super) fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = self.stream.write(bytes).context("a client's socket takes nothing")?;
        anyhow::ensure!(written == bytes.len(), "a client's socket took {written} of {} bytes", bytes.len());
        Ok(())
    }

    fn digest(
        &mut self,
        bytes: &[u8],
        desk: &mut Desk,
        other: &mut impl FnMut(&[u8]) -> Option<Vec<u8>>,
    ) -> anyhow::Result<()> {
        if self.partial.is_empty() {
            let used = self.frames(bytes, desk, other)?;
            self.partial.extend_from_slice(bytes.get(used..).unwrap_or_default());
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let used = self.frames(&all, desk, other)?;
        all.drain(..used);
        if !all.is_empty() {
            self.partial = all;
        }
        Ok(())
    }

    /// Acts on every frame that is there as a whole; returns how many bytes they had.
    fn frames(
        &mut self,
        bytes: &[u8],
        desk: &mut Desk,
        other: &mut impl FnMut(&[u8]) -> Option<Vec<u8>>,
    ) -> anyhow::Result<usize> {
        let mut used = 0;
        if self.stage == Stage::Upgrading {
            const END: &[u8] = b"\r\n\r\n";
            let Some(head) = memmem::find(bytes, END) else { return Ok(0) };
            anyhow::ensure!(bytes.starts_with(b"HTTP/1.1 101 "), "no upgrade: {}", String::from_utf8_lossy(bytes));
            (self.stage, used) = (Stage::Greeting, head + END.len());
        }
        while let Some((kind, payload)) = wire::first_frame(bytes.get(used..).unwrap_or_default()) {
            let payload = used + payload.start..used + payload.end;
            used = payload.end;
            let payload = bytes.get(payload).unwrap_or_default();
            match kind {
                wire::TEXT => self.text(payload, desk, other)?,
                wire::PING => self.send(&wire::masked(wire::PONG, payload))?,
                wire::CLOSE => {
                    self.close_code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    self.stage = Stage::Over;
                }
                _ => {}
            }
        }
        Ok(used)
    }

    fn text(
        &mut self,
        text: &[u8],
        desk: &mut Desk,
        other: &mut impl FnMut(&[u8]) -> Option<Vec<u8>>,
    ) -> anyhow::Result<()> {
        if self.stage == Stage::Live {
            if let Some(at) = Stamp::find(text, desk.stamp_at) {
                desk.stamp_at = at.start;
                return self.event(text.get(at).unwrap_or_default(), text, desk, other);
            }
            if memmem::find(text, b"\"pusher:ping\"").is_some() {
                return self.send(&desk.pong);
            }
        }
        match self.stage {
            Stage::Greeting if memmem::find(text, b"pusher:connection_established").is_some() => {
                let Some(channel) = self.channel.and_then(|channel| desk.channels.get(channel)) else {
                    self.arrived(desk);
                    return Ok(());
                };
                let socket_id = socket_id(text).context("a greeting without a socket id")?;
                let wish = desk.site.app.subscribe_frame(socket_id, channel, self.member.as_deref());
                self.stage = Stage::Subscribing;
                self.send(&wish)?;
            }
            Stage::Subscribing if memmem::find(text, b"subscription_succeeded").is_some() => {
                self.arrived(desk);
                self.tell(text, other)?;
            }
            Stage::Greeting | Stage::Subscribing if memmem::find(text, b"rror").is_some() => {
                anyhow::bail!("a client was refused: {}", String::from_utf8_lossy(text));
            }
            _ => self.tell(text, other)?,
        }
        Ok(())
    }

    fn tell(&mut self, text: &[u8], other: &mut impl FnMut(&[u8]) -> Option<Vec<u8>>) -> anyhow::Result<()> {
        match other(text) {
            Some(answer) => self.send(&answer),
            None => Ok(()),
        }
    }

    fn arrived(&mut self, desk: &mut Desk) {
        self.stage = Stage::Live;
        let now_ns = desk.clock.ns();
        let took_ns = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        desk.handshakes.record(now_ns.saturating_sub(took_ns), now_ns);
    }

    fn event(
        &mut self,
        stamp: &[u8],
        text: &[u8],
        desk: &mut Desk,
        other: &mut impl FnMut(&[u8]) -> Option<Vec<u8>>,
    ) -> anyhow::Result<()> {
        let stamp = Stamp::read(stamp).with_context(|| format!("a broken event: {}", String::from_utf8_lossy(text)))?;
        let now_ns = desk.clock.ns();
        desk.tally.deliveries += 1;
        desk.tally.last_ns = now_ns;
        desk.tally.latencies.record(stamp.at_ns, now_ns);
        if desk.minds_order {
            match self.order.note(stamp.number) {
                Arrival::InOrder => {}
                Arrival::OutOfOrder => desk.tally.out_of_order += 1,
                Arrival::Duplicate => desk.tally.duplicated += 1,
            }
        }
        if desk.tells_events { self.tell(text, other) } else { Ok(()) }
    }
}

/// The socket id in a greeting, in which it is JSON within JSON.
fn socket_id(greeting: &[u8]) -> Option<&str> {
    let (_, behind) = str::from_utf8(greeting).ok()?.split_once("socket_id")?;
    let start = behind.find(|letter: char| letter.is_ascii_digit())?;
    let digits = behind.get(start..)?;
    let end = digits.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
    digits.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_repetitions_are_told_apart() {
        let mut order = Order::default();
        assert_eq!(order.note(3), Arrival::InOrder, "the first is the first, whatever its number");
        assert_eq!(order.note(6), Arrival::InOrder);
        assert_eq!(order.note(5), Arrival::OutOfOrder);
        assert_eq!(order.note(5), Arrival::Duplicate);
        assert_eq!(order.note(3), Arrival::Duplicate);
        assert_eq!((order.next, order.missing), (Some(7), vec![4]));
    }

    #[test]
    fn the_socket_id_is_found_in_its_quotes() {
        let greeting = br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"123.456\",\"activity_timeout\":120}"}"#;
        assert_eq!(socket_id(greeting), Some("123.456"));
        assert_eq!(socket_id(b"{}"), None);
    }
}
