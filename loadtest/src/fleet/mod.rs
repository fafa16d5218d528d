//! The clients: all of them in one thread and one epoll, so that thousands cost next to nothing beside the server.
//!
//! [`Fleet::connect`] brings them where they shall be; [`Fleet::turn`] waits once for something to happen and acts on all of it. What came is
//! in [`Fleet::tally`].

mod client;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::ProgressBar;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::clock::Clock;
use crate::latencies::Latencies;
use crate::target::Site;
use crate::wire;
use client::{Client, Stage};

/// Addresses of loopback that clients of a server there come from, since one has 28,000 ports and those of closed connections rest for a minute.
const LOOPBACK_SOURCES: usize = 16;
/// What a `connect` that has only begun says on Linux (EINPROGRESS).
const IN_PROGRESS: i32 = 115;
const BUFFER: usize = 256 * 1024;
/// How long one turn waits when nothing else says so.
pub(crate) const TURN: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Fleet {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    desk: Desk,
    buffer: Vec<u8>,
}

/// What the clients have in common.
struct Desk {
    site: Site,
    clock: Clock,
    channels: Vec<String>,
    upgrade: String,
    pong: Vec<u8>,
    /// Where the last stamp stood in its text.
    stamp_at: usize,
    minds_order: bool,
    tells_events: bool,
    handshakes: Latencies,
    tally: Tally,
}

/// What the clients got.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Stamped events, each at one client.
    pub(crate) deliveries: u64,
    /// Of them, those that a client had already.
    pub(crate) duplicated: u64,
    /// Of them, those that came after a later one.
    pub(crate) out_of_order: u64,
    /// From the stamp until the client has the frame.
    pub(crate) latencies: Latencies,
    /// When the last came.
    pub(crate) last_ns: u64,
}

/// How clients are let in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wave {
    /// How many.
    pub(crate) count: usize,
    /// How many of them at most are on their way.
    pub(crate) at_once: usize,
    /// How long all of it may take.
    pub(crate) within: Duration,
}

impl Fleet {
    /// Nobody yet. Client number `n` will be on channel `n` modulo their count; without channels, clients only connect.
    pub(crate) fn new(site: &Site, clock: Clock, channels: Vec<String>) -> anyhow::Result<Self> {
        let tally = Tally { deliveries: 0, duplicated: 0, out_of_order: 0, latencies: Latencies::new()?, last_ns: 0 };
        let desk = Desk {
            site: site.clone(),
            clock,
            channels,
            upgrade: site.app.upgrade_request(site.address),
            pong: wire::client_frame(r#"{"event":"pusher:pong","data":{}}"#),
            stamp_at: 0,
            minds_order: true,
            tells_events: false,
            handshakes: Latencies::new()?,
            tally,
        };
        let (poll, events) = (Poll::new()?, Events::with_capacity(4096));
        Ok(Self { poll, events, clients: Vec::new(), desk, buffer: vec![0; BUFFER] })
    }

    /// Stamped events are told to whoever turns the fleet, and their order is nobody's business.
    pub(crate) const fn tell_events(&mut self) {
        (self.desk.tells_events, self.desk.minds_order) = (true, false);
    }

    /// Lets more clients in; on return, each is where it shall be.
    pub(crate) fn connect(&mut self, wave: Wave, progress: &ProgressBar) -> anyhow::Result<()> {
        self.connect_beside(wave, progress, |_, _| None)
    }

    /// The same; `other` is told what else comes meanwhile.
    pub(crate) fn connect_beside(
        &mut self,
        wave: Wave,
        progress: &ProgressBar,
        mut other: impl FnMut(usize, &[u8]) -> Option<Vec<u8>>,
    ) -> anyhow::Result<()> {
        let (first, deadline) = (self.clients.len(), Instant::now() + wave.within);
        let before = self.desk.handshakes.count();
        let arrived = |fleet: &Self| (fleet.desk.handshakes.count() - before) as usize;
        while arrived(self) < wave.count {
            let begun = self.clients.len() - first;
            let more = wave.count.min(arrived(self) + wave.at_once).saturating_sub(begun);
            for _ in 0..more {
                self.begin(None)?;
            }
            self.turn(TURN, &mut other)?;
            progress.set_position(arrived(self) as u64);
            anyhow::ensure!(
                Instant::now() < deadline,
                "after {:?}, {} of {} clients are not where they should be",
                wave.within,
                wave.count - arrived(self),
                wave.count
            );
        }
        let over = self.clients.iter().skip(first).filter(|client| client.stage == Stage::Over).count();
        anyhow::ensure!(over == 0, "{over} of {} clients were cut off at once", wave.count);
        Ok(())
    }

    /// Begins to connect one more client and returns its number; `member` is who it is on a presence channel.
    pub(crate) fn begin(&mut self, member: Option<String>) -> anyhow::Result<usize> {
        let number = self.clients.len();
        let mut stream = connect(self.desk.site.address, number)?;
        self.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        let channel = number.checked_rem(self.desk.channels.len());
        self.clients.push(Client::new(stream, channel, member));
        Ok(number)
    }

    /// Waits until something happens, or for `wait`, and acts on it. `other` is told which client got which text that is no stamped event, and
    /// says what the client answers.
    pub(crate) fn turn(
        &mut self,
        wait: Duration,
        mut other: impl FnMut(usize, &[u8]) -> Option<Vec<u8>>,
    ) -> anyhow::Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            done => done?,
        }
        for event in &self.events {
            let number = event.token().0;
            let Some(client) = self.clients.get_mut(number) else { continue };
            let served = client.serve(&mut self.desk, &mut self.buffer, &mut |text| other(number, text));
            served.with_context(|| format!("client {number}"))?;
            if client.stage == Stage::Over {
                // What is over needs no attention; its socket closes with the fleet, or when it is cut.
                _ = self.poll.registry().deregister(&mut client.stream);
            }
        }
        Ok(())
    }

    /// Turns until `is_done` or the deadline, telling nobody of anything.
    pub(crate) fn turn_until(
        &mut self,
        deadline: Instant,
        mut is_done: impl FnMut(&Self) -> bool,
    ) -> anyhow::Result<()> {
        while !is_done(self) && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            self.turn(left.min(TURN), |_, _| None)?;
        }
        Ok(())
    }

    /// Sends a frame for a client.
    pub(crate) fn send(&mut self, number: usize, frame: &[u8]) -> anyhow::Result<()> {
        self.clients.get_mut(number).context("no such client")?.send(frame)
    }

    /// A client reads nothing any more, and its kernel takes as little as it can.
    pub(crate) fn stall(&mut self, number: usize) -> anyhow::Result<()> {
        let client = self.clients.get_mut(number).context("no such client")?;
        client.is_stalled = true;
        Ok(socket2::SockRef::from(&client.stream).set_recv_buffer_size(4096)?)
    }

    /// A client that was stalled reads on.
    pub(crate) fn resume(&mut self, number: usize) -> anyhow::Result<()> {
        let client = self.clients.get_mut(number).context("no such client")?;
        client.is_stalled = false;
        client.serve(&mut self.desk, &mut self.buffer, &mut |_| None)?;
        // An end that came while nobody read is told once and was not listened to: this has it told again.
        let interest = Interest::READABLE | Interest::WRITABLE;
        Ok(self.poll.registry().reregister(&mut client.stream, Token(number), interest)?)
    }

    /// Cuts everybody off, as if the network were gone for a moment.
    pub(crate) fn cut(&mut self) {
        self.clients.clear();
    }

    /// Cuts one client off; its number is not used again.
    pub(crate) fn leave(&mut self, number: usize) -> anyhow::Result<()> {
        let client = self.clients.get_mut(number).context("no such client")?;
        client.stage = Stage::Over;
        Ok(client.stream.shutdown(std::net::Shutdown::Both)?)
    }

    /// What came.
    pub(crate) const fn tally(&self) -> &Tally {
        &self.desk.tally
    }

    /// Of each channel the next event is number 0: before anything is published.
    pub(crate) fn expect_the_first(&mut self) {
        self.clients.iter_mut().for_each(Client::expect_the_first);
    }

    /// How long each client took from TCP's first packet until it was where it shall be.
    pub(crate) const fn handshakes(&self) -> &Latencies {
        &self.desk.handshakes
    }

    /// Events that clients did not get, of so many on each channel; those who are over did not want them.
    pub(crate) fn lost(&self, published: &[u64]) -> u64 {
        let live = self.clients.iter().filter(|client| client.stage == Stage::Live && !client.is_stalled);
        live.map(|client| {
            let published = client.channel.and_then(|channel| published.get(channel));
            client.lost(published.copied().unwrap_or_default())
        })
        .sum()
    }

    /// Clients that are where they shall be.
    pub(crate) fn live(&self) -> usize {
        self.clients.iter().filter(|client| client.stage == Stage::Live).count()
    }

    /// Those that the server has cut off, by code; 0 for those without.
    pub(crate) fn closed(&self) -> BTreeMap<u16, usize> {
        let mut closed = BTreeMap::new();
        for client in self.clients.iter().filter(|client| client.stage == Stage::Over) {
            *closed.entry(client.close_code.unwrap_or_default()).or_default() += 1;
        }
        closed
    }
}

/// Begins to connect; clients of a server on loopback come from several of its addresses.
fn connect(address: SocketAddr, number: usize) -> anyhow::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let IpAddr::V4(ip) = address.ip()
        && ip.is_loopback()
    {
        let source = Ipv4Addr::new(127, 0, 0, 1 + (number % LOOPBACK_SOURCES) as u8);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => Err(error.into()),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}
