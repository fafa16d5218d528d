//! What is measured, and against which bar.

use std::fmt;
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use herald_protocol::ChannelName;

use crate::clients::{Backend, Subscribers};
use crate::server::Server;
use crate::wire;

/// How long what was sent last may be under way.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// How long a server has to come to rest before it is measured.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);
/// How long nothing more may come after the last event.
pub(crate) const SILENCE: Duration = Duration::from_millis(200);

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

/// Triggers with nobody subscribed, from several backends at once.
#[derive(Args, Clone, Debug)]
pub(crate) struct Publish {
    /// Backends, each with a connection that is kept alive
    #[arg(long, default_value_t = Self::default().backends, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) backends: u32,
    /// Triggers a second from each of them; 0 sends the next as soon as the last is answered
    #[arg(long, default_value_t = Self::default().rate, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) rate: u32,
    /// Triggers from each of them
    #[arg(long, default_value_t = Self::default().triggers, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) triggers: u32,
}

impl Default for Publish {
    fn default() -> Self {
        Self { backends: 8, rate: 500, triggers: 5_000 }
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
        let full_speed = Publish { rate: 0, triggers: 25_000, ..Publish::default() };
        vec![
            Self::Broadcast(Broadcast::default()),
            Self::Publish(full_speed),
            Self::Publish(Publish::default()),
            Self::Memory(Memory::default()),
        ]
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
            Self::Publish(Publish { backends, rate: 0, .. }) => {
                write!(f, "CPU per HTTP trigger: nobody subscribed, {backends} backends at full speed")
            }
            Self::Publish(Publish { backends, rate, .. }) => {
                write!(f, "CPU per HTTP trigger: nobody subscribed, {backends} backends × {rate}/s")
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
        let mut subscribers = Subscribers::connect(server.address, self.subscribers as usize, &[wire::CHANNEL])?;
        let request = wire::trigger_request(server.address, wire::CHANNEL, self.bytes);
        let mut backend = Backend::connect(server.address, vec![request])?;
        let events = self.rate * self.seconds;
        let period = Duration::from_secs(self.seconds.into());
        let deadline = Instant::now() + period + GRACE;
        let before = server.cpu()?;
        thread::scope(|scope| {
            let triggering = scope.spawn(|| backend.trigger(events, Some(period), |_| {}));
            let received = subscribers.receive(&[frame], events as usize, deadline, |_| {});
            join(triggering).and(received)
        })?;
        let used = server.cpu()? - before;
        subscribers.expect_silence(SILENCE)?;
        Ok(used.as_secs_f64() * 1e6 / (f64::from(events) * f64::from(self.subscribers)))
    }
}

impl Publish {
    /// µs of CPU per request.
    fn measure(&self, server: &Server) -> anyhow::Result<f64> {
        let request = wire::trigger_request(server.address, wire::CHANNEL, Broadcast::default().bytes);
        let backend = |_| Backend::connect(server.address, vec![request.clone()]);
        let mut backends = (0..self.backends).map(backend).collect::<anyhow::Result<Vec<_>>>()?;
        let period = (self.rate > 0).then(|| Duration::from_secs(1) * self.triggers / self.rate.max(1));
        let before = server.cpu()?;
        thread::scope(|scope| {
            let trigger = |backend: &mut Backend| backend.trigger(self.triggers, period, |_| {});
            let triggering: Vec<_> = backends.iter_mut().map(|backend| scope.spawn(move || trigger(backend))).collect();
            triggering.into_iter().try_for_each(join)
        })?;
        let used = server.cpu()? - before;
        Ok(used.as_secs_f64() * 1e6 / (f64::from(self.backends) * f64::from(self.triggers)))
    }
}

impl Memory {
    /// KiB per connection.
    fn measure(&self, server: &Server) -> anyhow::Result<f64> {
        thread::sleep(SETTLE);
        let before = server.resident()?;
        let subscribers = Subscribers::connect(server.address, self.connections as usize, &[wire::CHANNEL])?;
        thread::sleep(SETTLE);
        let grown = server.resident()?.saturating_sub(before);
        drop(subscribers);
        Ok(grown as f64 / 1024.0 / f64::from(self.connections))
    }
}

/// What a backend's thread came to.
pub(crate) fn join(triggering: ScopedJoinHandle<'_, anyhow::Result<()>>) -> anyhow::Result<()> {
    triggering.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a backend's thread panicked")))
}
