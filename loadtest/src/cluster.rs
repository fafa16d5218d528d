//! What several nodes cost: the same load on one node that is alone, on a node of a cluster, and over two of its nodes.
//!
//! Each time everything is started anew. Events are published on node A; node C has no clients, and what Redis sends to it is counted.

use std::fmt;
use std::net::SocketAddr;
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

/// How long everything is left alone for what is used at rest.
const REST: Duration = Duration::from_secs(5);
const ROWS: usize = 8;

/// A steady rate of events, to each of some channels in turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    channels: u32,
    subscribers: u32,
    rate: u32,
    /// Each channel gets as many as every other.
    events: u32,
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

const PLACES: [Place; 3] = [Place::Alone, Place::SameNode, Place::AnotherNode];

/// What came out once.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// From before a trigger is sent until a subscriber has the event, over all deliveries.
    median: Duration,
    p99: Duration,
    /// While events were published, and for [`REST`] before that, when everybody was subscribed and nothing was published.
    busy: Usage,
    at_rest: Usage,
}

/// What was used over some time.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    /// Of nodes A and B.
    nodes_cpu: Duration,
    redis_cpu: Duration,
    /// What Redis sent to all nodes, and what of it to node C.
    sent_bytes: f64,
    to_c_bytes: u64,
}

/// One node alone, or three over a Redis, of which the third has no clients.
#[derive(Debug)]
struct Nodes {
    a: Server,
    others: Option<Others>,
}

/// In the order in which they end: nobody misses his Redis.
#[derive(Debug)]
struct Others {
    b: Server,
    _c: Server,
    to_c: CountingProxy,
    redis: Redis,
}

impl Nodes {
    fn start(binary: &Path, place: Place) -> anyhow::Result<Self> {
        if place == Place::Alone {
            return Ok(Self { a: Server::herald(binary)?, others: None });
        }
        let redis = Redis::start()?;
        let to_c = CountingProxy::to(redis.address)?;
        let (a, b) = (Server::node(binary, redis.address)?, Server::node(binary, redis.address)?);
        let c = Server::node(binary, to_c.address)?;
        Ok(Self { a, others: Some(Others { b, _c: c, to_c, redis }) })
    }

    /// Where the subscribers connect to.
    fn subscribed(&self, place: Place) -> SocketAddr {
        match &self.others {
            Some(others) if place == Place::AnotherNode => others.b.address,
            _ => self.a.address,
        }
    }

    /// What was used so far.
    fn usage(&self) -> anyhow::Result<Usage> {
        let Some(Others { b, to_c, redis, .. }) = &self.others else {
            return Ok(Usage { nodes_cpu: self.a.cpu()?, ..Usage::default() });
        };
        Ok(Usage {
            nodes_cpu: self.a.cpu()? + b.cpu()?,
            redis_cpu: redis.cpu()?,
            sent_bytes: redis.sent_bytes()?,
            to_c_bytes: to_c.returned_bytes(),
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

    fn measure(&self, binary: &Path, place: Place) -> anyhow::Result<Figures> {
        let nodes = Nodes::start(binary, place)?;
        let names: Vec<String> = (0..self.channels).map(|number| format!("load-{number:05}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let frame = |name: &&str| Ok(wire::event_frame(&ChannelName::parse(name, 164)?, BYTES));
        let frames = names.iter().map(frame).collect::<anyhow::Result<Vec<_>>>()?;
        let requests = names.iter().map(|name| wire::trigger_request(nodes.a.address, name, BYTES)).collect();
        let mut subscribers = Subscribers::connect(nodes.subscribed(place), self.subscribers as usize, &names)?;

        thread::sleep(SETTLE);
        let before = nodes.usage()?;
        thread::sleep(REST);
        let at_rest = nodes.usage_since(before)?;

        let mut backend = Backend::connect(nodes.a.address, requests)?;
        let before = nodes.usage()?;
        let latencies = self.latencies(&mut backend, &mut subscribers, &frames)?;
        let busy = nodes.usage_since(before)?;
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

    /// The rows of the table: what, and the figure. What is used at rest does not count.
    fn rows(&self, figures: &Figures) -> [(&'static str, f64); ROWS] {
        let Figures { median, p99, busy, at_rest } = figures;
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let (events, rests) = (f64::from(self.events), self.period().as_secs_f64() / REST.as_secs_f64());
        let nodes = us(busy.nodes_cpu) - us(at_rest.nodes_cpu) * rests;
        let redis = us(busy.redis_cpu) - us(at_rest.redis_cpu) * rests;
        [
            ("publish to client, median, µs", us(*median)),
            ("publish to client, p99, µs", us(*p99)),
            ("CPU of A and B per delivery, µs", nodes / self.deliveries()),
            ("CPU of A and B per event, µs", nodes / events),
            ("CPU of Redis per event, µs", redis / events),
            ("sent by Redis per event, bytes", (busy.sent_bytes - at_rest.sent_bytes * rests) / events),
            ("CPU of A and B at rest, ms a second", us(at_rest.nodes_cpu) / 1e3 / REST.as_secs_f64()),
            ("CPU of Redis at rest, ms a second", us(at_rest.redis_cpu) / 1e3 / REST.as_secs_f64()),
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

/// Takes every figure `rounds` times, the places in turn, and prints the tables; what is under way goes to stderr.
pub(crate) fn run(herald: &Path, rounds: usize, loads: &[Load]) -> anyhow::Result<()> {
    let mut taken: Vec<Vec<[Figures; 3]>> = loads.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for (load, taken) in loads.iter().zip(&mut taken) {
            let measure = |place| load.measure(herald, place).with_context(|| format!("{load}, {place:?}"));
            let [alone, same, another] = PLACES.map(measure);
            let figures = [alone?, same?, another?];
            eprintln!("round {round} of {rounds}: {load}: {figures:?}");
            taken.push(figures);
        }
    }
    println!("{}", report::machine()?);
    for (load, taken) in loads.iter().zip(&taken) {
        println!("\n| {load} | alone | A to A | A to B | A to B − A to A | A to B ÷ A to A | A to B ÷ alone |");
        println!("|---|---|---|---|---|---|---|");
        let rounds: Vec<_> = taken.iter().map(|places| places.map(|figures| load.rows(&figures))).collect();
        for position in 0..ROWS {
            let of = |rows: [(&'static str, f64); ROWS]| rows.get(position).map_or(f64::NAN, |(_, figure)| *figure);
            let figures: Vec<[f64; 3]> = rounds.iter().map(|places| places.map(of)).collect();
            let what = rounds.first().and_then(|[rows, ..]| rows.get(position)).map_or("", |(what, _)| what);
            println!("| {what} | {} |", row(&figures).context("nothing was measured")?);
        }
    }
    println!("\n| sent by Redis to node C, which has no clients | at rest for {REST:?} | while A publishes to B |");
    println!("|---|---|---|");
    for (load, taken) in loads.iter().zip(&taken) {
        let of = |usage: fn(&Figures) -> Usage| {
            let bytes = taken.iter().map(|[.., another]| usage(another).to_c_bytes as f64).collect();
            show(bytes, 0).context("nothing was measured")
        };
        let (at_rest, busy) = (of(|figures| figures.at_rest)?, of(|figures| figures.busy)?);
        println!("| {load} | {at_rest} bytes | {busy} bytes in {:?} |", load.period());
    }
    Ok(())
}

/// The three places, and what two of them come to within a round.
fn row(rounds: &[[f64; 3]]) -> Option<String> {
    let digits = if rounds.iter().flatten().any(|figure| *figure > 100.0) { 0 } else { 1 };
    let cell = |digits, figure: fn(&[f64; 3]) -> f64| show(rounds.iter().map(figure).collect(), digits);
    let cells = [
        cell(digits, |[alone, ..]| *alone)?,
        cell(digits, |[_, same, _]| *same)?,
        cell(digits, |[.., another]| *another)?,
        cell(digits, |[_, same, another]| another - same)?,
        cell(2, |[_, same, another]| another / same)?,
        cell(2, |[alone, _, another]| another / alone)?,
    ];
    Some(cells.join(" | "))
}

/// The median, the smallest and the largest; what there is none of is a dash.
fn show(readings: Vec<f64>, digits: usize) -> Option<String> {
    let Readings { median, least, most } = Readings::of(readings)?;
    let is_none = !median.is_finite() || (least == 0.0 && most == 0.0);
    Some(if is_none { "–".to_owned() } else { format!("{median:.digits$} ({least:.digits$}–{most:.digits$})") })
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
    fn a_difference_and_a_ratio_are_taken_within_a_round() {
        let cells = row(&[[5.0, 10.0, 12.0], [5.0, 20.0, 30.0], [5.0, 10.0, 11.0]]).unwrap();
        assert!(cells.ends_with("| 2.0 (1.0–10.0) | 1.20 (1.10–1.50) | 2.40 (2.20–6.00)"), "{cells}");
    }

    #[test]
    fn what_there_is_none_of_is_a_dash() {
        assert_eq!(row(&[[0.0, 1.0, 1.0]]).unwrap(), "– | 1.0 (1.0–1.0) | 1.0 (1.0–1.0) | – | 1.00 (1.00–1.00) | –");
    }
}
