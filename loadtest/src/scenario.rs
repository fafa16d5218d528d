//! What is measured, and against which bar.

use std::fmt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use herald_protocol::ChannelName;

use crate::clients::{Backend, Backends, Subscribers};
use crate::server::Server;
use crate::wire;

/// How long what was sent last may be under way.
const GRACE: Duration = Duration::from_secs(10);
/// How long a server has to come to rest before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);
/// How long nothing more may come after the last event.
const SILENCE: Duration = Duration::from_millis(200);

/// One figure to take, of one server at a time.
#[derive(Clone, Debug)]
pub(crate) enum Scenario {
    /// CPU per delivery.
    Broadcast(Broadcast),
    /// CPU per HTTP trigger.
    Publish(Publish),
    /// Memory per connection.
    Memory(Memory),
}

/// One channel, many subscribers, a steady rate of events.
#[derive(Args, Clone, Debug)]
pub(crate) struct Broadcast {
    /// Clients on the channel
    #[arg(long, default_value_t = Self::default().subscribers, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub subscribers: u32,
    /// Events a second
    #[arg(long, default_value_t = Self::default().rate, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rate: u32,
    /// How long
    #[arg(long, default_value_t = Self::default().seconds, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub seconds: u32,
    /// Size of an event's data
    #[arg(long, default_value_t = Self::default().bytes)]
    pub bytes: usize,
}

impl Default for Broadcast {
    fn default() -> Self {
        Self { subscribers: 1_000, rate: 50, seconds: 10, bytes: 200 }
    }
}

/// Triggers with nobody subscribed, over connections that are kept alive; each sends the next as soon as it is answered.
#[derive(Args, Clone, Debug)]
pub(crate) struct Publish {
    /// Triggers
    #[arg(long, default_value_t = Self::default().requests, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub requests: u32,
    /// Connections
    #[arg(long, default_value_t = Self::default().connections, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,
}

impl Default for Publish {
    fn default() -> Self {
        Self { requests: 200_000, connections: 8 }
    }
}

/// Connections that are subscribed to one channel and do nothing.
#[derive(Args, Clone, Debug)]
pub(crate) struct Memory {
    /// Connections
    #[arg(long, default_value_t = Self::default().connections, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
}

impl Default for Memory {
    fn default() -> Self {
        Self { connections: 5_000 }
    }
}

/// What Herald has to stay under.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    /// This many times the floor's figure.
    TimesFloor(f64),
    /// This figure.
    Absolute(f64),
}

impl Scenario {
    /// All of them, as the bars are set.
    pub(crate) fn all() -> Vec<Self> {
        vec![Self::Broadcast(Broadcast::default()), Self::Publish(Publish::default()), Self::Memory(Memory::default())]
    }

    /// The bar for Herald.
    pub(crate) const fn bar(&self) -> Bar {
        match self {
            Self::Broadcast(_) => Bar::TimesFloor(1.3),
            Self::Publish(_) => Bar::TimesFloor(2.7),
            Self::Memory(_) => Bar::Absolute(8.0),
        }
    }

    /// The unit of the figure.
    pub(crate) const fn unit(&self) -> &'static str {
        match self {
            Self::Broadcast(_) | Self::Publish(_) => "µs",
            Self::Memory(_) => "KiB",
        }
    }

    /// The figure of the bare server.
    pub(crate) fn floor(&self) -> anyhow::Result<f64> {
        let bytes = match self {
            Self::Broadcast(broadcast) => broadcast.bytes,
            Self::Publish(_) | Self::Memory(_) => Broadcast::default().bytes,
        };
        self.measure(&Server::floor(bytes)?).context("floor")
    }

    /// The figure of Herald.
    pub(crate) fn herald(&self, binary: &Path) -> anyhow::Result<f64> {
        self.measure(&Server::herald(binary)?).context("Herald")
    }

    fn measure(&self, server: &Server) -> anyhow::Result<f64> {
        match self {
            Self::Broadcast(broadcast) => broadcast.measure(server),
            Self::Publish(publish) => publish.measure(server),
            Self::Memory(memory) => memory.measure(server),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broadcast(Broadcast { subscribers, rate, bytes, .. }) => {
                write!(f, "CPU per delivery: {subscribers} subscribers × {rate} events/s × {bytes} B")
            }
            Self::Publish(Publish { connections, .. }) => {
                write!(f, "CPU per HTTP trigger: nobody subscribed, {connections} connections kept alive")
            }
            Self::Memory(Memory { connections }) => {
                write!(f, "Resident memory per idle subscribed connection: {connections} connections")
            }
        }
    }
}

impl Broadcast {
    /// µs of CPU per delivery, from before the first trigger until everybody has everything.
    fn measure(&self, server: &Server) -> anyhow::Result<f64> {
        let frame = wire::event_frame(&ChannelName::parse(wire::CHANNEL, 164)?, self.bytes);
        let mut subscribers = Subscribers::connect(server.address, self.subscribers as usize)?;
        let mut backend = Backend::connect(server.address, wire::trigger_request(server.address, self.bytes))?;
        let events = (self.rate * self.seconds) as usize;
        let deadline = Instant::now() + Duration::from_secs(self.seconds.into()) + GRACE;
        let before = server.cpu()?;
        thread::scope(|scope| {
            let triggering = scope.spawn(|| backend.trigger(events, self.rate));
            let received = subscribers.receive(&frame, events, deadline);
            triggering.join().map_err(|_| anyhow::anyhow!("the backend's thread panicked"))??;
            received
        })?;
        let used = server.cpu()? - before;
        subscribers.expect_silence(SILENCE)?;
        Ok(used.as_secs_f64() * 1e6 / (events * self.subscribers as usize) as f64)
    }
}

impl Publish {
    /// µs of CPU per request.
    fn measure(&self, server: &Server) -> anyhow::Result<f64> {
        let request = wire::trigger_request(server.address, Broadcast::default().bytes);
        let mut backends = Backends::connect(server.address, self.connections as usize, request)?;
        let before = server.cpu()?;
        backends.trigger(self.requests as usize)?;
        let used = server.cpu()? - before;
        Ok(used.as_secs_f64() * 1e6 / f64::from(self.requests))
    }
}

impl Memory {
    /// KiB per connection.
    fn measure(&self, server: &Server) -> anyhow::Result<f64> {
        thread::sleep(SETTLE);
        let before = server.resident()?;
        let subscribers = Subscribers::connect(server.address, self.connections as usize)?;
        thread::sleep(SETTLE);
        let grown = server.resident()?.saturating_sub(before);
        drop(subscribers);
        Ok(grown as f64 / 1024.0 / f64::from(self.connections))
    }
}
