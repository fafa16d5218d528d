//! What can be measured of one server, each bounded in count and time.

mod asking;
pub(crate) mod auth;
pub(crate) mod broadcast;
mod channel;
pub(crate) mod client_events;
pub(crate) mod cluster;
pub(crate) mod connect;
pub(crate) mod inbox;
pub(crate) mod presence;
pub(crate) mod publish;
pub(crate) mod slow;
pub(crate) mod soak;
mod store;
pub(crate) mod storm;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::Clock;
use crate::floor;
use crate::outcome::Outcome;
use crate::server::Server;
use crate::target::Target;

/// How long what was sent last may be under way.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// How long a server has to come to rest before it is measured.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);
/// How long nothing more may come after the last event.
pub(crate) const SILENCE: Duration = Duration::from_millis(200);
/// Clients that connect at once where nothing else is asked for.
pub(crate) const AT_ONCE: usize = 64;

/// One measurement of one server.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Connections that come, stay, and do nothing: connects a second, handshakes, memory and CPU for each, CPU while they are idle
    Connect(connect::Connect),
    /// Events to many subscribers: deliveries a second, what was lost, doubled or out of order, latency, CPU for each
    Broadcast(broadcast::Broadcast),
    /// Triggers over HTTP with nobody subscribed: requests a second, CPU for each
    Publish(publish::Publish),
    /// All clients are cut off at once and come back: how long that takes, and what others notice of it
    Storm(storm::Storm),
    /// Readers of whom a few stop reading: what the others notice, and what becomes of those few
    Slow(slow::Slow),
    /// Pairs of clients that send each other events: round trips, what was not answered, CPU for each
    ClientEvents(client_events::ClientEvents),
    /// Members of a presence channel who come and go: announcements, and whether everybody counts right
    Presence(presence::Presence),
    /// A mix of everything for minutes or hours: whether memory, descriptors and threads stay what they are
    Soak(soak::Soak),
    /// Herald on several nodes, which are started with a Redis: added latency, CPU for each remote delivery
    Cluster(cluster::Cluster),
    /// Herald with session tokens, which is started for it: authorizations of channels a second, CPU for each
    Auth(auth::Auth),
    /// Herald with a store, which is started for it: notifications a second, and from the request to the frame
    Inbox(inbox::Inbox),
}

/// What every measurement needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bench {
    /// The tool's clock.
    pub(crate) clock: Clock,
    /// Whether progress is shown.
    pub(crate) is_quiet: bool,
}

impl Bench {
    /// A bar on the terminal, if there is one, that ends with this number.
    pub(crate) fn progress(self, what: &'static str, end: u64) -> ProgressBar {
        if self.is_quiet {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg:24} {wide_bar} {human_pos}/{human_len} {elapsed}");
        let bar = ProgressBar::new(end).with_message(what);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    }
}

impl Scenario {
    /// Takes the figures of one server; of those that start Herald themselves, only what the bare server can do.
    pub(crate) fn measure(&self, target: &Target, bench: Bench) -> anyhow::Result<Outcome> {
        match self {
            Self::Connect(connect) => connect.measure(target, bench),
            Self::Broadcast(broadcast) => broadcast.measure(target, bench),
            Self::Publish(publish) => publish.measure(target, bench),
            Self::Storm(storm) => storm.measure(target, bench),
            Self::Slow(slow) => slow.measure(target, bench),
            Self::ClientEvents(client_events) => client_events.measure(target, bench),
            Self::Presence(presence) => presence.measure(target, bench),
            Self::Soak(soak) => soak.measure(target, bench),
            Self::Auth(auth) => auth.floor(target, bench),
            Self::Inbox(inbox) => inbox.floor(target, bench),
            Self::Cluster(_) => anyhow::bail!("it starts its servers itself"),
        }
    }

    /// Takes the figures of a bare server, which is started for that; none if it cannot do the same.
    pub(crate) fn floor(&self, bench: Bench) -> anyhow::Result<Option<Outcome>> {
        let Some(bytes) = self.floor_bytes() else { return Ok(None) };
        self.measure(&Server::floor(bytes)?.target(), bench).map(Some).context("the bare server")
    }

    /// Takes the figures of Herald, which is started for that.
    pub(crate) fn herald(&self, binary: &Path, bench: Bench) -> anyhow::Result<Outcome> {
        match self {
            Self::Cluster(cluster) => cluster.measure(binary, bench),
            Self::Auth(auth) => auth.measure(binary, bench),
            Self::Inbox(inbox) => inbox.measure(binary, bench),
            _ => self.measure(&Server::herald(binary, &[])?.target(), bench),
        }
    }

    /// Its name on the command line.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Broadcast(_) => "broadcast",
            Self::Publish(_) => "publish",
            Self::Storm(_) => "storm",
            Self::Slow(_) => "slow",
            Self::ClientEvents(_) => "client-events",
            Self::Presence(_) => "presence",
            Self::Soak(_) => "soak",
            Self::Cluster(_) => "cluster",
            Self::Auth(_) => "auth",
            Self::Inbox(_) => "inbox",
        }
    }

    /// Whether it starts its servers itself.
    pub(crate) const fn is_staged(&self) -> bool {
        matches!(self, Self::Cluster(_) | Self::Auth(_) | Self::Inbox(_))
    }

    /// Size of an event's data, where the bare server can do the same.
    const fn floor_bytes(&self) -> Option<usize> {
        match self {
            Self::Broadcast(broadcast) if broadcast.channels == 1 => Some(broadcast.bytes),
            Self::Connect(_) | Self::Publish(_) | Self::Auth(_) | Self::Inbox(_) => Some(200),
            _ => None,
        }
    }
}

/// Names of so many channels; one alone is the bare server's.
pub(crate) fn channels(count: u32) -> Vec<String> {
    match count {
        0 => Vec::new(),
        1 => vec![floor::CHANNEL.to_owned()],
        more => (0..more).map(|number| format!("{}-{number:05}", floor::CHANNEL)).collect(),
    }
}
