//! What can be measured of one server, each bounded in count and time.

pub(crate) mod broadcast;
pub(crate) mod connect;
pub(crate) mod publish;
pub(crate) mod slow;
pub(crate) mod storm;

use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::backend::Backend;
use crate::clock::Clock;
use crate::floor;
use crate::outcome::Outcome;
use crate::target::{Site, Target};

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
    /// All clients are cut off at once and come back at once: how long until all are counted right, and what others notice of it
    Storm(storm::Storm),
    /// Readers that have stopped reading among others: what those notice of it, and what the server does
    Slow(slow::Slow),
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
    /// Takes the figures of one server.
    pub(crate) fn measure(&self, target: &Target, bench: Bench) -> anyhow::Result<Outcome> {
        match self {
            Self::Connect(connect) => connect.measure(target, bench),
            Self::Broadcast(broadcast) => broadcast.measure(target, bench),
            Self::Publish(publish) => publish.measure(target, bench),
            Self::Storm(storm) => storm.measure(target, bench),
            Self::Slow(slow) => slow.measure(target, bench),
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
        }
    }

    /// Size of an event's data, where the bare server can do the same.
    pub(crate) const fn floor_bytes(&self) -> Option<usize> {
        match self {
            Self::Broadcast(broadcast) if broadcast.channels == 1 => Some(broadcast.bytes),
            Self::Broadcast(_) | Self::Storm(_) | Self::Slow(_) => None,
            Self::Connect(_) | Self::Publish(_) => Some(200),
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

/// How many the server says are subscribed to a channel.
pub(crate) fn subscription_count(backend: &mut Backend, site: &Site, channel: &str) -> anyhow::Result<usize> {
    let endpoint = format!("channels/{channel}");
    let request = site.app.request(site.address, "GET", &endpoint, &[("info", "subscription_count")], "");
    count_in(backend.ask_for(&request)?, "subscription_count")
}

/// A number in what the server says about a channel; one that nobody is on has none.
fn count_in(said: &str, name: &str) -> anyhow::Result<usize> {
    let said: Value = serde_json::from_str(said).with_context(|| format!("the server said {said}"))?;
    match said.get(name) {
        Some(count) => Ok(usize::try_from(count.as_u64().with_context(|| format!("the server said {said}"))?)?),
        None => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_without_anybody_has_no_count() {
        assert_eq!(count_in(r#"{"occupied":true,"subscription_count":7}"#, "subscription_count").unwrap(), 7);
        assert_eq!(count_in(r#"{"occupied":false}"#, "subscription_count").unwrap(), 0);
        assert!(count_in("<html>", "subscription_count").is_err());
    }

    #[test]
    fn one_channel_is_the_bare_servers() {
        assert_eq!(channels(1), [floor::CHANNEL]);
        assert_eq!(channels(2), ["load-00000", "load-00001"]);
        assert!(channels(0).is_empty());
    }
}
