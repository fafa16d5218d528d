//! A backend: one HTTP connection that is kept alive, and requests over it, one after the other.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::clock::Clock;
use crate::latencies::Latencies;
use crate::target::Site;
use crate::wire::Stamp;

/// How long anything may take to be answered.
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug)]
pub(crate) struct Backend {
    stream: TcpStream,
    answer: Vec<u8>,
}

/// What the server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    /// HTTP's.
    pub(crate) status: u16,
    /// JSON, or what went wrong.
    pub(crate) body: &'a str,
}

impl Backend {
    /// Connects.
    pub(crate) fn connect(site: &Site) -> anyhow::Result<Self> {
        Self::connect_to(site.address)
    }

    /// Connects to whatever answers requests there.
    pub(crate) fn connect_to(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, answer: Vec::new() })
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(&mut self, request: &str) -> anyhow::Result<Answer<'_>> {
        self.stream.write_all(request.as_bytes())?;
        self.answer.clear();
        let mut buffer = [0; 4096];
        let (status, start) = loop {
            let read = self.stream.read(&mut buffer).context("no answer")?;
            anyhow::ensure!(read > 0, "the server closed a backend's connection");
            self.answer.extend_from_slice(buffer.get(..read).unwrap_or_default());
            if let Some(whole) = whole(&self.answer)? {
                break whole;
            }
        };
        let body = str::from_utf8(self.answer.get(start..).unwrap_or_default())?;
        Ok(Answer { status, body })
    }

    /// The same; anything but 200 is an error.
    pub(crate) fn ask_for(&mut self, request: &str) -> anyhow::Result<&str> {
        let Answer { status, body } = self.ask(request)?;
        anyhow::ensure!(status == 200, "the server answered {status}: {body}");
        Ok(body)
    }
}

/// Status of an answer and where its body begins, once all of it is there.
fn whole(answer: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(head) = memchr::memmem::find(answer, END) else { return Ok(None) };
    let text = str::from_utf8(answer.get(..head).unwrap_or_default())?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("the server answered {text:?}"))?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let start = head + END.len();
    let length = length.context("the server's answer has no content-length")?;
    Ok((answer.len() >= start + length).then_some((status, start)))
}

/// Events at a steady rate, to each channel in turn, from one backend.
#[derive(Clone, Debug)]
pub(crate) struct Publishing {
    /// Where they go.
    pub(crate) channels: Vec<String>,
    /// Events a second over all channels.
    pub(crate) rate: u32,
    /// For how long. A server that does not keep up gets fewer events, not more time.
    pub(crate) period: Duration,
    /// Size of an event's data.
    pub(crate) bytes: usize,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Published {
    /// Events that were accepted, by channel.
    pub(crate) events: Vec<u64>,
    /// From before the request until its answer.
    pub(crate) answers: Latencies,
    /// When the first was sent.
    pub(crate) first_ns: u64,
    /// What was answered that is not 200, and how often; of the last, what it said.
    pub(crate) refused: u64,
    /// See `refused`.
    pub(crate) refusal: String,
}

impl Published {
    /// Events that were accepted.
    pub(crate) fn total(&self) -> u64 {
        self.events.iter().sum()
    }
}

impl Publishing {
    /// Publishes until the time is over or `stop` is set. An event is stamped before its request is made, so its own cost on this side
    /// counts too.
    pub(crate) fn run(&self, site: &Site, clock: Clock, stop: &AtomicBool) -> anyhow::Result<Published> {
        let mut backend = Backend::connect(site)?;
        let mut published = Published {
            events: vec![0; self.channels.len()],
            answers: Latencies::new()?,
            first_ns: clock.ns(),
            refused: 0,
            refusal: String::new(),
        };
        let start = Instant::now();
        let step = Duration::from_secs(1) / self.rate.max(1);
        let mut position = 0;
        for event in 0_u32.. {
            let due = start + step * event;
            if due >= start + self.period {
                break;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if start.elapsed() >= self.period || stop.load(Ordering::Relaxed) {
                break;
            }
            let (Some(channel), Some(count)) = (self.channels.get(position), published.events.get_mut(position)) else {
                break;
            };
            let at_ns = clock.ns();
            let data = Stamp { number: *count, at_ns }.data(self.bytes);
            let answer = backend.ask(&site.app.trigger(site.address, channel, &data))?;
            if answer.status == 200 {
                *count += 1;
            } else {
                published.refused += 1;
                published.refusal = format!("{}: {}", answer.status, answer.body);
            }
            published.answers.record(at_ns, clock.ns());
            position = (position + 1) % self.channels.len();
        }
        Ok(published)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        for cut in 0..answer.len() {
            assert_eq!(whole(&answer[..cut]).unwrap(), None, "{cut} bytes");
        }
        assert_eq!(whole(answer).unwrap(), Some((200, answer.len() - 2)));
        assert_eq!(whole(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").unwrap().unwrap().0, 401);
        assert!(whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "nobody knows where it ends");
    }
}
