//! The clients, cheap enough not to be what is measured: all subscribers share one thread and one epoll, a backend has a thread.
//!
//! [`Subscribers`] read events and compare every byte with what must come; a [`Backend`] triggers them, one after the other, over a
//! connection that is kept alive. Where there are several channels, client and event number `n` belong to channel `n` modulo their count.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mio::{Events, Interest, Poll, Token};

use crate::wire;

/// How long anything may take to be answered.
const PATIENCE: Duration = Duration::from_secs(10);

/// Clients that are subscribed to a channel each.
#[derive(Debug)]
pub(crate) struct Subscribers {
    poll: Poll,
    clients: Vec<Subscriber>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Subscriber {
    stream: mio::net::TcpStream,
    received: usize,
}

impl Subscribers {
    /// Connects and subscribes `count` clients, one after the other; on return, each has its answer.
    pub(crate) fn connect(address: SocketAddr, count: usize, channels: &[&str]) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut clients = Vec::with_capacity(count);
        for (number, channel) in channels.iter().cycle().take(count).enumerate() {
            let stream = subscribe(address, channel).with_context(|| format!("client {number} of {count}"))?;
            stream.set_nonblocking(true)?;
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            clients.push(Subscriber { stream, received: 0 });
        }
        Ok(Self { poll, clients, buffer: vec![0; 64 * 1024] })
    }

    /// Reads until everybody has got the frame of his channel exactly `times` times, and nothing else; fails if that is not so before
    /// `deadline`. `arrived` is told the number of each event that is there as a whole.
    pub(crate) fn receive(
        &mut self,
        frames: &[Vec<u8>],
        times: usize,
        deadline: Instant,
        mut arrived: impl FnMut(usize),
    ) -> anyhow::Result<()> {
        let all = times * self.clients.len();
        let mut received = 0;
        let mut events = Events::with_capacity(1024);
        while received < all {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                anyhow::bail!("{} of {all} deliveries are missing", all - received);
            }
            self.poll.poll(&mut events, Some(left))?;
            for event in &events {
                let number = event.token().0;
                let client = self.clients.get_mut(number).context("an event for nobody")?;
                let channel = number % frames.len();
                let frame = frames.get(channel).context("a client without a channel")?;
                client.read(frame, &mut self.buffer, |nth| {
                    received += 1;
                    arrived(nth * frames.len() + channel);
                })?;
                anyhow::ensure!(client.received <= times * frame.len(), "a client got more than {times} events");
            }
        }
        Ok(())
    }

    /// Fails if anything comes that was not asked for.
    pub(crate) fn expect_silence(&mut self, period: Duration) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(1);
        self.poll.poll(&mut events, Some(period))?;
        anyhow::ensure!(events.is_empty(), "a client got more than was sent, or was cut off");
        Ok(())
    }
}

impl Subscriber {
    /// Reads what is there: a read that does not fill the buffer has emptied the socket.
    fn read(&mut self, frame: &[u8], buffer: &mut [u8], mut arrived: impl FnMut(usize)) -> anyhow::Result<()> {
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => anyhow::bail!("the server cut a client off"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let mut bytes = buffer.get(..read).unwrap_or_default();
            while !bytes.is_empty() {
                let expected = frame.get(self.received % frame.len()..).unwrap_or_default();
                let (now, later) = bytes.split_at(expected.len().min(bytes.len()));
                anyhow::ensure!(expected.starts_with(now), "a client got something else than the event");
                self.received += now.len();
                bytes = later;
                if self.received.is_multiple_of(frame.len()) {
                    arrived(self.received / frame.len() - 1);
                }
            }
            if read < buffer.len() {
                return Ok(());
            }
        }
    }
}

fn subscribe(address: SocketAddr, channel: &str) -> anyhow::Result<std::net::TcpStream> {
    let mut stream = open(address)?;
    stream.write_all(wire::upgrade_request(address).as_bytes())?;
    read_past(&mut stream, "pusher:connection_established")?;
    stream.write_all(&wire::subscribe_frame(channel))?;
    read_past(&mut stream, "pusher_internal:subscription_succeeded")?;
    Ok(stream)
}

fn open(address: SocketAddr) -> anyhow::Result<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads until `event` has come, whole; nothing follows it before the client speaks again.
fn read_past(stream: &mut std::net::TcpStream, event: &str) -> anyhow::Result<()> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        answer.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let text = String::from_utf8_lossy(&answer);
        if text.contains(event) && text.ends_with('}') {
            return Ok(());
        }
        anyhow::ensure!(read > 0, "the server answered {text:?} where {event} was due");
    }
}

/// One backend on one connection.
#[derive(Debug)]
pub(crate) struct Backend {
    stream: std::net::TcpStream,
    requests: Vec<String>,
}

impl Backend {
    /// Connects; the triggers will be these `requests`, in turn.
    pub(crate) fn connect(address: SocketAddr, requests: Vec<String>) -> anyhow::Result<Self> {
        Ok(Self { stream: open(address)?, requests })
    }

    /// Triggers `times` events, evenly over `period`; fails if that takes longer, since the figures would be of another load. Without a
    /// period, each is sent as soon as the one before is answered. `sending` is told the number of each before it is sent.
    pub(crate) fn trigger(
        &mut self,
        times: u32,
        period: Option<Duration>,
        mut sending: impl FnMut(usize),
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        for (number, request) in (0..times).zip(self.requests.iter().cycle()) {
            if let Some(period) = period {
                let due = start + period.mul_f64(f64::from(number) / f64::from(times));
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            sending(number as usize);
            trigger_once(&mut self.stream, request)?;
        }
        let took = start.elapsed();
        match period {
            Some(period) if took > period.mul_f64(1.1) => {
                anyhow::bail!("{times} triggers took {took:.1?} instead of {period:.1?}")
            }
            _ => Ok(()),
        }
    }
}

fn trigger_once(stream: &mut std::net::TcpStream, request: &str) -> anyhow::Result<()> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&answer)? {
        let read = stream.read(&mut buffer)?;
        anyhow::ensure!(read > 0, "the server closed a backend's connection");
        answer.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    Ok(())
}

/// Whether all of an answer is there; fails on anything but 200.
fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(false) };
    anyhow::ensure!(head.starts_with("HTTP/1.1 200 "), "the server answered {text:?}");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Ok(body.len() >= length.context("the server's answer has no content-length")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        for cut in 0..answer.len() {
            assert!(!is_whole(&answer[..cut]).unwrap(), "{cut} bytes");
        }
        assert!(is_whole(answer).unwrap());
    }

    #[test]
    fn a_refusal_is_an_error() {
        assert!(is_whole(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
