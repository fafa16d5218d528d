//! What several nodes cost: the same load on one node that is alone, on a node of a cluster, and over two of its nodes.
//!
//! Each time everything is started anew, a Redis included. Events are published on node A; node C has no clients, and what Redis sends to it is
//! counted on its way.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;

use super::broadcast::{bytes, deliver};
use super::{AT_ONCE, Bench, SETTLE, SILENCE, channels};
use crate::backend::Publishing;
use crate::fleet::{Fleet, Wave};
use crate::latencies::Latencies;
use crate::outcome::{Outcome, Unit};
use crate::redis::{CountingProxy, Redis};
use crate::server::Server;
use crate::target::Target;

/// How long everything is left alone for what is used at rest.
const REST: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Cluster {
    /// Channels, to which events go in turn
    #[arg(long, default_value_t = Self::default().channels, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) channels: u32,
    /// Clients, each on one channel; at least one for each channel
    #[arg(long, default_value_t = Self::default().subscribers, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) subscribers: u32,
    /// Events a second over all channels
    #[arg(long, default_value_t = Self::default().rate, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: u32,
    /// For how long, at each place
    #[arg(long, default_value_t = Self::default().seconds, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Size of an event's data
    #[arg(long, default_value_t = Self::default().bytes, value_parser = bytes)]
    pub(crate) bytes: usize,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { channels: 1, subscribers: 100, rate: 200, seconds: 10, bytes: 200 }
    }
}

/// Where the subscribers are, as seen from node A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// With A, and there is no cluster.
    Alone,
    /// With A.
    SameNode,
    /// With node B.
    AnotherNode,
}

/// The places, and how their figures are called.
const PLACES: [(Place, Names); 3] = [
    (
        Place::Alone,
        Names {
            median: "alone: latency, median",
            p99: "alone: latency, p99",
            nodes: "alone: CPU per delivery",
            shared: None,
        },
    ),
    (
        Place::SameNode,
        Names {
            median: "A to A: latency, median",
            p99: "A to A: latency, p99",
            nodes: "A to A: CPU of A and B per delivery",
            shared: Some(Shared {
                redis: "A to A: CPU of Redis per event",
                to_c: "A to A: sent to C",
                to_c_at_rest: "A to A: sent to C at rest, in that time",
            }),
        },
    ),
    (
        Place::AnotherNode,
        Names {
            median: "A to B: latency, median",
            p99: "A to B: latency, p99",
            nodes: "A to B: CPU of A and B per delivery",
            shared: Some(Shared {
                redis: "A to B: CPU of Redis per event",
                to_c: "A to B: sent to C",
                to_c_at_rest: "A to B: sent to C at rest, in that time",
            }),
        },
    ),
];

struct Names {
    median: &'static str,
    p99: &'static str,
    nodes: &'static str,
    /// Where there is a cluster.
    shared: Option<Shared>,
}

struct Shared {
    redis: &'static str,
    to_c: &'static str,
    to_c_at_rest: &'static str,
}

/// What came out at one place.
struct Passed {
    latencies: Latencies,
    events: u64,
    deliveries: u64,
    /// Lost, doubled or out of order; and triggers that were refused, and clients that were cut off.
    wrong: u64,
    refused: u64,
    cut_off: u64,
    /// While events were published, and for as long at rest.
    busy: Usage,
    at_rest: Usage,
}

/// What was used over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Usage {
    /// Of nodes A and B, in seconds.
    nodes_cpu: f64,
    redis_cpu: f64,
    /// What Redis sent to node C, in bytes.
    to_c: f64,
}

impl Usage {
    fn since(self, before: Self) -> Self {
        Self {
            nodes_cpu: self.nodes_cpu - before.nodes_cpu,
            redis_cpu: self.redis_cpu - before.redis_cpu,
            to_c: self.to_c - before.to_c,
        }
    }

    fn times(self, factor: f64) -> Self {
        Self { nodes_cpu: self.nodes_cpu * factor, redis_cpu: self.redis_cpu * factor, to_c: self.to_c * factor }
    }
}

/// One node alone, or three over a Redis, of which the third has no clients.
struct Nodes {
    a: Server,
    others: Option<Others>,
}

/// In the order in which they end: nobody misses its Redis.
struct Others {
    b: Server,
    _c: Server,
    to_c: CountingProxy,
    redis: Redis,
}

impl Nodes {
    fn start(herald: &Path, place: Place) -> anyhow::Result<Self> {
        const QUIET: (&str, &str) = ("HERALD_LOG_LEVEL", "warn");
        if place == Place::Alone {
            return Ok(Self { a: Server::herald(herald, &[QUIET])?, others: None });
        }
        let redis = Redis::start()?;
        let to_c = CountingProxy::to(redis.address)?;
        let node = |redis| {
            let url = format!("redis://{redis}");
            Server::herald(herald, &[QUIET, ("HERALD_CLUSTER_REDIS_URL", &url)])
        };
        let (a, b) = (node(redis.address)?, node(redis.address)?);
        let c = node(to_c.address)?;
        Ok(Self { a, others: Some(Others { b, _c: c, to_c, redis }) })
    }

    /// Where the subscribers connect to.
    fn subscribed(&self, place: Place) -> Target {
        match &self.others {
            Some(others) if place == Place::AnotherNode => others.b.target(),
            _ => self.a.target(),
        }
    }

    /// What was used so far.
    fn usage(&self) -> anyhow::Result<Usage> {
        let cpu = |server: &Server| -> anyhow::Result<f64> {
            Ok(server.target().cpu()?.context("a server without a process")?.as_secs_f64())
        };
        let Some(Others { b, to_c, redis, .. }) = &self.others else {
            return Ok(Usage { nodes_cpu: cpu(&self.a)?, ..Usage::default() });
        };
        Ok(Usage {
            nodes_cpu: cpu(&self.a)? + cpu(b)?,
            redis_cpu: redis.cpu()?.as_secs_f64(),
            to_c: to_c.returned_bytes() as f64,
        })
    }
}

impl Cluster {
    /// Starts everything itself.
    pub(super) fn measure(&self, herald: &Path, bench: Bench) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        let (mut wrong, mut refused, mut cut_off) = (0, 0, 0);
        for (place, names) in &PLACES {
            let passed = self.pass(herald, *place, bench).with_context(|| format!("{place:?}"))?;
            names.report(&mut outcome, &passed);
            wrong += passed.wrong;
            refused += passed.refused;
            cut_off += passed.cut_off;
            outcome.latencies = Some(passed.latencies);
        }
        let [_, (_, same), (_, another)] = &PLACES;
        let added = outcome.value(another.median).zip(outcome.value(same.median)).map(|(there, here)| there - here);
        outcome.add_known("added latency, median", added, Unit::Milliseconds);
        outcome.add_fault("lost, doubled or out of order", wrong, "");
        outcome.add_fault("triggers refused", refused, "");
        outcome.add_fault("clients cut off", cut_off, "");
        Ok(outcome)
    }

    fn pass(&self, herald: &Path, place: Place, bench: Bench) -> anyhow::Result<Passed> {
        let nodes = Nodes::start(herald, place)?;
        let subscribers = self.subscribers.max(self.channels) as usize;
        let mut fleet = Fleet::new(&nodes.subscribed(place).site, bench.clock, channels(self.channels))?;
        let wave = Wave { count: subscribers, at_once: AT_ONCE, within: Duration::from_secs(60) };
        fleet.connect(wave, &bench.progress("subscribing", subscribers as u64))?;
        fleet.turn_until(Instant::now() + SETTLE, |_| false)?;
        let (before, begun) = (nodes.usage()?, Instant::now());
        fleet.turn_until(begun + REST, |_| false)?;
        let (at_rest, rested) = (nodes.usage()?.since(before), begun.elapsed());

        let publishing = Publishing {
            channels: channels(self.channels),
            rate: self.rate,
            period: Duration::from_secs(self.seconds.into()),
            bytes: self.bytes,
        };
        let (before, begun) = (nodes.usage()?, Instant::now());
        let site = nodes.a.target().site;
        let published = deliver(&mut fleet, &publishing, &site, bench, subscribers, &AtomicBool::new(false))?;
        let (busy, took) = (nodes.usage()?.since(before), begun.elapsed());
        fleet.turn_until(Instant::now() + SILENCE, |_| false)?;
        let tally = fleet.tally();
        Ok(Passed {
            latencies: tally.latencies.clone(),
            events: published.total(),
            deliveries: tally.deliveries,
            wrong: fleet.lost(&published.events) + tally.duplicated + tally.out_of_order,
            refused: published.refused,
            cut_off: fleet.closed().values().sum::<usize>() as u64,
            busy,
            at_rest: at_rest.times(took.as_secs_f64() / rested.as_secs_f64()),
        })
    }
}

impl Names {
    /// What is used at rest does not count for events and deliveries.
    fn report(&self, outcome: &mut Outcome, passed: &Passed) {
        let Passed { latencies, busy, at_rest, .. } = passed;
        let used = busy.since(*at_rest);
        outcome.add(self.median, latencies.quantile_ms(0.5), Unit::Milliseconds);
        outcome.add(self.p99, latencies.quantile_ms(0.99), Unit::Milliseconds);
        outcome.add(self.nodes, used.nodes_cpu * 1e6 / passed.deliveries as f64, Unit::Microseconds);
        if let Some(Shared { redis, to_c, to_c_at_rest }) = &self.shared {
            outcome.add(redis, used.redis_cpu * 1e6 / passed.events as f64, Unit::Microseconds);
            outcome.add(to_c, busy.to_c / 1024.0, Unit::Kibibytes);
            outcome.add(to_c_at_rest, at_rest.to_c / 1024.0, Unit::Kibibytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(busy: Usage, at_rest: Usage) -> Passed {
        let latencies = Latencies::new().unwrap();
        Passed { latencies, events: 10, deliveries: 1_000, wrong: 0, refused: 0, cut_off: 0, busy, at_rest }
    }

    #[test]
    fn what_is_used_at_rest_does_not_count() {
        let at_rest = Usage { nodes_cpu: 0.25, redis_cpu: 0.125, to_c: 512.0 }.times(2.0);
        let busy = Usage { nodes_cpu: 1.5, redis_cpu: 0.75, to_c: 1_024.0 };
        let [(_, alone), _, (_, another)] = &PLACES;
        let shared = another.shared.as_ref().unwrap();
        let mut outcome = Outcome::default();
        another.report(&mut outcome, &passed(busy, at_rest));
        assert_eq!(outcome.value(another.nodes), Some(1_000.0));
        assert_eq!(outcome.value(shared.redis), Some(50_000.0));
        assert_eq!((outcome.value(shared.to_c), outcome.value(shared.to_c_at_rest)), (Some(1.0), Some(1.0)));
        let mut outcome = Outcome::default();
        alone.report(&mut outcome, &passed(busy, at_rest));
        assert_eq!(outcome.figures.len(), 3, "there is no Redis for one alone");
    }
}
