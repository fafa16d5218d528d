//! What several nodes cost: the same load on one node that is alone, on a node of a cluster, and over two of its nodes.
//!
//! Each time everything is started anew. Events are published on node A; node C has no clients, and what Redis sends to it is counted.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::redis::{CountingProxy, Redis};
use crate::backend::Publishing;
use crate::fleet::{Fleet, Wave};
use crate::outcome::{Outcome, Unit};
use crate::scenario::{AT_ONCE, Bench, SETTLE, SILENCE, broadcast, channels};
use crate::server::Server;
use crate::target::Site;

/// How long everything is left alone for what is used at rest.
const REST: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Cluster {
    /// Clients, each on one channel
    #[arg(long, default_value_t = Self::default().subscribers, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) subscribers: u32,
    /// Channels
    #[arg(long, default_value_t = Self::default().channels, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) channels: u32,
    /// Events a second over all channels
    #[arg(long, default_value_t = Self::default().rate, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: u32,
    /// For how long
    #[arg(long, default_value_t = Self::default().seconds, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Size of an event's data
    #[arg(long, default_value_t = Self::default().bytes, value_parser = broadcast::bytes)]
    pub(crate) bytes: usize,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { subscribers: 100, channels: 1, rate: 200, seconds: 10, bytes: 200 }
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

/// One node alone, or three over a Redis, of which the third has no clients.
struct Nodes {
    a: Server,
    others: Option<Others>,
}

/// In the order in which they end: nobody misses his Redis.
struct Others {
    b: Server,
    _c: Server,
    to_c: CountingProxy,
    redis: Redis,
}

/// What was used so far.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    /// Of nodes A and B.
    nodes: Duration,
    redis: Duration,
    to_c_bytes: u64,
}

/// What came out at one place.
struct Figures {
    median_ms: f64,
    p99_ms: f64,
    lost: u64,
    refused: u64,
    cpu_per_delivery_us: f64,
    redis_per_event_us: f64,
    to_c_bytes: u64,
}

impl Nodes {
    fn start(binary: &Path, place: Place) -> anyhow::Result<Self> {
        if place == Place::Alone {
            return Ok(Self { a: Server::herald(binary, &[("HERALD_LOG_LEVEL", "warn")])?, others: None });
        }
        let redis = Redis::start()?;
        let to_c = CountingProxy::to(redis.address)?;
        let node = |redis| {
            let url = format!("redis://{redis}");
            Server::herald(binary, &[("HERALD_CLUSTER_REDIS_URL", &url), ("HERALD_LOG_LEVEL", "warn")])
        };
        let (a, b, c) = (node(redis.address)?, node(redis.address)?, node(to_c.address)?);
        Ok(Self { a, others: Some(Others { b, _c: c, to_c, redis }) })
    }

    /// Where the subscribers connect to.
    fn subscribed(&self, place: Place) -> Site {
        match &self.others {
            Some(others) if place == Place::AnotherNode => others.b.target().site,
            _ => self.a.target().site,
        }
    }

    fn usage(&self) -> anyhow::Result<Usage> {
        let a = self.a.target().cpu()?.unwrap_or_default();
        let Some(Others { b, to_c, redis, .. }) = &self.others else {
            return Ok(Usage { nodes: a, ..Usage::default() });
        };
        let nodes = a + b.target().cpu()?.unwrap_or_default();
        Ok(Usage { nodes, redis: redis.cpu()?, to_c_bytes: to_c.returned_bytes() })
    }
}

impl Usage {
    fn since(self, before: Self) -> Self {
        Self {
            nodes: self.nodes.saturating_sub(before.nodes),
            redis: self.redis.saturating_sub(before.redis),
            to_c_bytes: self.to_c_bytes - before.to_c_bytes,
        }
    }
}

impl Cluster {
    pub(super) fn measure(&self, herald: &Path, bench: Bench) -> anyhow::Result<Outcome> {
        let alone = self.at(herald, bench, Place::Alone)?;
        let same = self.at(herald, bench, Place::SameNode)?;
        let another = self.at(herald, bench, Place::AnotherNode)?;
        let mut outcome = Outcome::default();
        outcome.add("latency alone, median", alone.median_ms, Unit::Milliseconds);
        outcome.add("latency alone, p99", alone.p99_ms, Unit::Milliseconds);
        outcome.add("latency on the same node, median", same.median_ms, Unit::Milliseconds);
        outcome.add("latency on the same node, p99", same.p99_ms, Unit::Milliseconds);
        outcome.add("latency on another node, median", another.median_ms, Unit::Milliseconds);
        outcome.add("latency on another node, p99", another.p99_ms, Unit::Milliseconds);
        outcome.add(
            "another node's median over the same node's",
            another.median_ms - same.median_ms,
            Unit::Milliseconds,
        );
        outcome.add("CPU per delivery, alone", alone.cpu_per_delivery_us, Unit::Microseconds);
        outcome.add("CPU per delivery, same node", same.cpu_per_delivery_us, Unit::Microseconds);
        outcome.add("CPU per delivery", another.cpu_per_delivery_us, Unit::Microseconds);
        outcome.add("CPU of Redis per event", another.redis_per_event_us, Unit::Microseconds);
        outcome.add("bytes to a node without clients", another.to_c_bytes as f64, Unit::Count);
        outcome.add_fault("lost", alone.lost + same.lost + another.lost, "");
        outcome.add_fault("triggers refused", alone.refused + same.refused + another.refused, "");
        Ok(outcome)
    }

    fn at(&self, herald: &Path, bench: Bench, place: Place) -> anyhow::Result<Figures> {
        let nodes = Nodes::start(herald, place)?;
        let subscribers = self.subscribers as usize;
        let mut fleet = Fleet::new(&nodes.subscribed(place), bench.clock, channels(self.channels))?;
        let wave = Wave { count: subscribers, at_once: AT_ONCE, within: Duration::from_secs(60) };
        fleet.connect(wave, &bench.progress("subscribing", subscribers as u64))?;

        thread::sleep(SETTLE);
        let before = nodes.usage()?;
        thread::sleep(REST);
        let at_rest = nodes.usage()?.since(before);

        let publishing = Publishing {
            channels: channels(self.channels),
            rate: self.rate,
            period: Duration::from_secs(self.seconds.into()),
            bytes: self.bytes,
        };
        let before = nodes.usage()?;
        let begun = Instant::now();
        let published = broadcast::deliver(&mut fleet, &publishing, &nodes.a.target().site, bench, subscribers)?;
        let (used, took) = (nodes.usage()?.since(before), begun.elapsed());
        fleet.turn_until(Instant::now() + SILENCE, |_| false)?;
        // What is used when nothing is published does not count.
        let rests = took.as_secs_f64() / REST.as_secs_f64();
        let us = |used: Duration, at_rest: Duration| (used.as_secs_f64() - at_rest.as_secs_f64() * rests) * 1e6;
        let tally = fleet.tally();
        Ok(Figures {
            median_ms: tally.latencies.quantile_ms(0.5),
            p99_ms: tally.latencies.quantile_ms(0.99),
            lost: fleet.lost(&published.events),
            refused: published.refused,
            cpu_per_delivery_us: us(used.nodes, at_rest.nodes) / tally.deliveries as f64,
            redis_per_event_us: us(used.redis, at_rest.redis) / published.total() as f64,
            to_c_bytes: used.to_c_bytes,
        })
    }
}
