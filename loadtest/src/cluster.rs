//! What several nodes cost: the same load once with its subscribers on the node that is asked to publish, once with them on another.
//!
//! Each time a Redis and three nodes are started anew. Events are published on node A; node C has no clients, and what Redis sends to it is
//! counted.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use herald_protocol::ChannelName;

use crate::clients::{Backend, Subscribers};
use crate::measure::Readings;
use crate::redis::{CountingProxy, Redis};
use crate::report;
use crate::scenario::{GRACE, SETTLE, SILENCE, join};
use crate::server::Server;
use crate::wire;

const BYTES: usize = 200;
/// There are at least so many subscribers, and one for each channel.
const SUBSCRIBERS: u32 = 1_000;
/// No more than so many events a second, and deliveries.
const EVENTS_PER_SECOND: u32 = 500;
const DELIVERIES_PER_SECOND: u32 = 50_000;

/// A steady rate of events, to each of some channels in turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    channels: u32,
    subscribers: u32,
    rate: u32,
    /// Each channel gets as many as every other.
    events: u32,
}

/// Where the subscribers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    A,
    B,
}

/// What came out once.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// From before a trigger is sent until a subscriber has the event, over all deliveries.
    median: Duration,
    p99: Duration,
    /// While events were published, and for as long before that, when everybody was subscribed and nothing was published.
    busy: Usage,
    at_rest: Usage,
}

/// What was used over some time.
#[derive(Clone, Copy, Debug)]
struct Usage {
    /// Of nodes A and B.
    nodes_cpu: Duration,
    redis_cpu: Duration,
    /// What Redis sent to all nodes, and what of it to node C.
    sent_bytes: f64,
    to_c_bytes: u64,
}

/// A Redis and three nodes, of which the third has no clients.
#[derive(Debug)]
struct Cluster {
    redis: Redis,
    a: Server,
    b: Server,
    proxy: CountingProxy,
    _c: Server,
}

impl Cluster {
    fn start(binary: &Path) -> anyhow::Result<Self> {
        let redis = Redis::start()?;
        let proxy = CountingProxy::to(redis.address)?;
        let (a, b) = (Server::node(binary, redis.address)?, Server::node(binary, redis.address)?);
        let c = Server::node(binary, proxy.address)?;
        Ok(Self { redis, a, b, proxy, _c: c })
    }

    /// What was used so far.
    fn usage(&self) -> anyhow::Result<Usage> {
        Ok(Usage {
            nodes_cpu: self.a.cpu()? + self.b.cpu()?,
            redis_cpu: self.redis.cpu()?,
            sent_bytes: self.redis.sent_bytes()?,
            to_c_bytes: self.proxy.returned_bytes(),
        })
    }

    fn usage_since(&self, before: Usage) -> anyhow::Result<Usage> {
        let now = self.usage()?;
        Ok(Usage {
            nodes_cpu: now.nodes_cpu - before.nodes_cpu,
            redis_cpu: now.redis_cpu - before.redis_cpu,
            sent_bytes: now.sent_bytes - before.sent_bytes,
            to_c_bytes: now.to_c_bytes - before.to_c_bytes,
        })
    }
}

impl Load {
    /// So many channels for so long.
    pub(crate) fn new(channels: u32, seconds: u32) -> Self {
        let subscribers = SUBSCRIBERS.max(channels);
        let rate = EVENTS_PER_SECOND.min(DELIVERIES_PER_SECOND * channels / subscribers);
        let events = (rate * seconds).next_multiple_of(channels);
        Self { channels, subscribers, rate, events }
    }

    fn period(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.events) / f64::from(self.rate))
    }

    fn deliveries(&self) -> f64 {
        f64::from(self.events) * f64::from(self.subscribers / self.channels)
    }

    fn measure(&self, binary: &Path, on: On) -> anyhow::Result<Figures> {
        let cluster = Cluster::start(binary)?;
        let subscribed = match on {
            On::A => &cluster.a,
            On::B => &cluster.b,
        };
        let names: Vec<String> = (0..self.channels).map(|number| format!("load-{number:05}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let frame = |name: &&str| Ok(wire::event_frame(&ChannelName::parse(name, 164)?, BYTES));
        let frames = names.iter().map(frame).collect::<anyhow::Result<Vec<_>>>()?;
        let requests = names.iter().map(|name| wire::trigger_request(cluster.a.address, name, BYTES)).collect();
        let mut subscribers = Subscribers::connect(subscribed.address, self.subscribers as usize, &names)?;

        thread::sleep(SETTLE);
        let before = cluster.usage()?;
        thread::sleep(self.period());
        let at_rest = cluster.usage_since(before)?;

        let mut backend = Backend::connect(cluster.a.address, requests)?;
        let before = cluster.usage()?;
        let latencies = self.latencies(&mut backend, &mut subscribers, &frames)?;
        let busy = cluster.usage_since(before)?;
        subscribers.expect_silence(SILENCE)?;
        let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or_default();
        Ok(Figures { median: at(0.5), p99: at(0.99), busy, at_rest })
    }

    /// Publishes all events and reads them; how long each delivery took, the fastest first.
    fn latencies(
        &self,
        backend: &mut Backend,
        subscribers: &mut Subscribers,
        frames: &[Vec<u8>],
    ) -> anyhow::Result<Vec<Duration>> {
        let start = Instant::now();
        let elapsed_ns = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let sent_ns: Vec<AtomicU64> = (0..self.events).map(|_| AtomicU64::new(0)).collect();
        let sent_ns = |event: usize| sent_ns.get(event);
        let mut latencies = Vec::with_capacity(self.deliveries() as usize);
        thread::scope(|scope| {
            let triggering = scope.spawn(|| {
                let sending = |event| _ = sent_ns(event).map(|sent| sent.store(elapsed_ns(), Ordering::Relaxed));
                backend.trigger(self.events, Some(self.period()), sending)
            });
            let times = self.events / self.channels;
            let received = subscribers.receive(frames, times as usize, start + self.period() + GRACE, |event| {
                let sent_ns = sent_ns(event).map_or(0, |sent| sent.load(Ordering::Relaxed));
                latencies.push(Duration::from_nanos(elapsed_ns().saturating_sub(sent_ns)));
            });
            join(triggering).and(received)
        })?;
        latencies.sort_unstable();
        Ok(latencies)
    }

    /// The rows of the table: what, and the figure. Of CPU, what is used at rest does not count.
    fn rows(&self, figures: &Figures) -> [(&'static str, f64); 7] {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let (busy, at_rest, events) = (&figures.busy, &figures.at_rest, f64::from(self.events));
        let nodes = us(busy.nodes_cpu.saturating_sub(at_rest.nodes_cpu));
        let redis = us(busy.redis_cpu.saturating_sub(at_rest.redis_cpu));
        [
            ("publish to client, median, µs", us(figures.median)),
            ("publish to client, p99, µs", us(figures.p99)),
            ("CPU of both nodes per delivery, µs", nodes / self.deliveries()),
            ("CPU of both nodes per event, µs", nodes / events),
            ("CPU of Redis per event, µs", redis / events),
            ("sent by Redis per event, bytes", (busy.sent_bytes - at_rest.sent_bytes) / events),
            ("CPU of both nodes and Redis at rest, ms a second", {
                us(at_rest.nodes_cpu + at_rest.redis_cpu) / 1e3 / self.period().as_secs_f64()
            }),
        ]
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, subscribers, rate, .. } = self;
        let plural = if *channels == 1 { "" } else { "s" };
        write!(f, "{channels} channel{plural}, {subscribers} subscribers, {rate} events/s")
    }
}

/// Takes every figure `rounds` times, the two places of the subscribers in turn, and prints the tables; what is under way goes to stderr.
pub(crate) fn run(herald: &Path, rounds: usize, loads: &[Load]) -> anyhow::Result<()> {
    let mut taken: Vec<Vec<(Figures, Figures)>> = loads.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for (load, taken) in loads.iter().zip(&mut taken) {
            let same = load.measure(herald, On::A).context("subscribers on node A")?;
            let other = load.measure(herald, On::B).context("subscribers on node B")?;
            eprintln!("round {round} of {rounds}: {load}: same node {same:?}, another node {other:?}");
            taken.push((same, other));
        }
    }
    println!("{}", report::machine()?);
    for (load, taken) in loads.iter().zip(&taken) {
        println!("\n| {load} | same node | another node | added | another ÷ same |");
        println!("|---|---|---|---|---|");
        let pairs: Vec<_> = taken.iter().map(|(same, other)| (load.rows(same), load.rows(other))).collect();
        for (position, what) in load.rows(&taken.first().context("nothing was measured")?.0).iter().enumerate() {
            let of = |rows: &[(&str, f64); 7]| rows.get(position).map_or(f64::NAN, |(_, figure)| *figure);
            let pairs: Vec<(f64, f64)> = pairs.iter().map(|(same, other)| (of(same), of(other))).collect();
            println!("| {} | {} |", what.0, row(&pairs).context("nothing was measured")?);
        }
    }
    println!("\n| sent by Redis to node C, which has no clients | nothing is published | A publishes to B | for |");
    println!("|---|---|---|---|");
    for (load, taken) in loads.iter().zip(&taken) {
        let of = |figure: fn(&Figures) -> u64| {
            show(&taken.iter().map(|(_, other)| figure(other) as f64).collect::<Vec<_>>(), 0)
        };
        let (at_rest, meanwhile) = (of(|figures| figures.at_rest.to_c_bytes), of(|figures| figures.busy.to_c_bytes));
        let (at_rest, meanwhile) =
            (at_rest.context("nothing was measured")?, meanwhile.context("nothing was measured")?);
        println!("| {load} | {at_rest} bytes | {meanwhile} bytes | {:.0} s each |", load.period().as_secs_f64());
    }
    Ok(())
}

/// Both places, and the difference and the ratio within a round.
fn row(pairs: &[(f64, f64)]) -> Option<String> {
    let each =
        |figure: fn(f64, f64) -> f64| pairs.iter().map(|(same, other)| figure(*same, *other)).collect::<Vec<_>>();
    let digits = if pairs.iter().any(|(same, _)| *same > 100.0) { 0 } else { 1 };
    let (same, other) = (show(&each(|same, _| same), digits)?, show(&each(|_, other| other), digits)?);
    let (added, ratio) =
        (show(&each(|same, other| other - same), digits)?, show(&each(|same, other| other / same), 2)?);
    Some(format!("{same} | {other} | {added} | {ratio}"))
}

fn show(readings: &[f64], digits: usize) -> Option<String> {
    let Readings { median, least, most } = Readings::of(readings.to_vec())?;
    Some(format!("{median:.digits$} ({least:.digits$}–{most:.digits$})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_gets_as_many_events_as_the_others() {
        let load = Load::new(10_000, 20);
        assert_eq!((load.subscribers, load.rate, load.events), (10_000, 500, 10_000));
        let load = Load::new(1, 20);
        assert_eq!((load.subscribers, load.rate, load.events), (1_000, 50, 1_000));
        assert!((load.deliveries() - 1e6).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_added_is_added_within_a_round() {
        let row = row(&[(10.0, 12.0), (20.0, 30.0), (10.0, 11.0)]).unwrap();
        assert_eq!(row, "10.0 (10.0–20.0) | 12.0 (11.0–30.0) | 2.0 (1.0–10.0) | 1.20 (1.10–1.50)");
    }
}
