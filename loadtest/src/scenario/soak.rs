//! A mix of everything for minutes or hours: memory, descriptors and threads have to stay what they are.
//!
//! Four parts in threads of their own, each with its own clients: a steady broadcast, client events, and two crowds that come and go, one of
//! them on a presence channel. Each second the server's process is looked at. Judged is the last quarter of the time against the second, since
//! in the first a server warms up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;

use super::broadcast::deliver;
use super::client_events::{Exchange, Exchanged};
use super::{AT_ONCE, Bench, channels};
use crate::backend::{Backend, Publishing};
use crate::fleet::{Fleet, TURN, Wave};
use crate::latencies::Latencies;
use crate::measure::{self, Readings};
use crate::outcome::{Outcome, Unit};
use crate::target::{Site, Target};
use crate::threads::join;

/// How often the process is looked at.
const LOOKED_EVERY: Duration = Duration::from_secs(1);
/// How often the crowds come, both at once, and how long they stay. The rest of the time neither is there: what a server keeps without them is
/// seen too.
const ROUND: Duration = Duration::from_secs(5);
const STAY: Duration = Duration::from_secs(2);
/// How long a crowd may take to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Events a second of the broadcast, and their size.
const RATE: u32 = 20;
const BYTES: usize = 200;
/// Of each client that sends client events.
const CLIENT_RATE: u32 = 2;
/// Growth up to that share, or up to so many bytes, is none.
const ALLOWED_SHARE: f64 = 0.1;
const ALLOWED_BYTES: f64 = 8.0 * MEBIBYTE;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Soak {
    /// For how long
    #[arg(long, default_value_t = Self::default().minutes, value_parser = clap::value_parser!(u32).range(1..=1_440))]
    pub(crate) minutes: u32,
    /// Clients that stay and get 20 events a second
    #[arg(long, default_value_t = Self::default().subscribers, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) subscribers: u32,
    /// Clients that come, subscribe and go together, again and again
    #[arg(long, default_value_t = Self::default().crowd, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) crowd: u32,
    /// The same on a presence channel
    #[arg(long, default_value_t = Self::default().members, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) members: u32,
    /// Pairs that send each other client events
    #[arg(long, default_value_t = Self::default().pairs, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) pairs: u32,
    /// Where the server tells its metrics as Prometheus reads them, for the connections and tasks that it counts itself
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) metrics: Option<String>,
}

impl Default for Soak {
    fn default() -> Self {
        Self { minutes: 5, subscribers: 200, crowd: 200, members: 50, pairs: 10, metrics: None }
    }
}

/// What the process was seen to have, each second.
#[derive(Debug, Default)]
struct Samples {
    resident: Vec<f64>,
    descriptors: Vec<f64>,
    threads: Vec<f64>,
    /// As the server itself counts them.
    connections: Vec<f64>,
    /// Of its runtime, by its own count.
    tasks: Vec<f64>,
}

/// What came of the broadcast.
struct Broadcasted {
    latencies: Latencies,
    deliveries: u64,
    wrong: u64,
    refused: u64,
    cut_off: u64,
}

/// What all parts need.
#[derive(Clone, Copy)]
struct Shared<'a> {
    site: &'a Site,
    bench: Bench,
    begun: Instant,
    period: Duration,
    stop: &'a AtomicBool,
}

impl Soak {
    pub(super) fn measure(&self, target: &Target, bench: Bench) -> anyhow::Result<Outcome> {
        let process = target.process.context("soak watches the server's process: say which with --pid")?;
        let metrics = self.metrics.as_deref().map(Metrics::at).transpose()?;
        let (stop, came, members_came) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let period = Duration::from_secs(60 * u64::from(self.minutes));
        let quiet = Bench { is_quiet: true, ..bench };
        let shared = Shared { site: &target.site, bench: quiet, begun: Instant::now(), period, stop: &stop };
        let (samples, broadcasted, exchanged) = thread::scope(|scope| {
            let broadcasting =
                scope.spawn(|| self.broadcast(shared).inspect_err(|_| stop.store(true, Ordering::Relaxed)));
            let exchanging = scope.spawn(|| self.exchange(shared).inspect_err(|_| stop.store(true, Ordering::Relaxed)));
            let crowding = scope.spawn(|| {
                let came = crowd(shared, "soak-crowd", self.crowd as usize, None, &came);
                came.inspect_err(|_| stop.store(true, Ordering::Relaxed))
            });
            let gathering = scope.spawn(|| {
                let came = crowd(shared, "presence-soak", self.members as usize, Some("member-"), &members_came);
                came.inspect_err(|_| stop.store(true, Ordering::Relaxed))
            });
            let samples = look(process, metrics.as_ref(), period, &stop, bench);
            stop.store(true, Ordering::Relaxed);
            join(crowding)?;
            join(gathering)?;
            anyhow::Ok((samples?, join(broadcasting)?, join(exchanging)?))
        })?;

        let mut outcome = Outcome::default();
        let grown = samples.report(&mut outcome, period)?;
        outcome.add("clients that came and went", came.load(Ordering::Relaxed) as f64, Unit::Count);
        outcome.add("members that came and went", members_came.load(Ordering::Relaxed) as f64, Unit::Count);
        outcome.add("deliveries", broadcasted.deliveries as f64, Unit::Count);
        let names = ["latency, median", "latency, p99", "latency, p99.9", "latency, longest"];
        outcome.add_latencies(names, &broadcasted.latencies);
        outcome.add("round trip of client events, p99", exchanged.round_trips.quantile_ms(0.99), Unit::Milliseconds);
        outcome.add_fault("lost, doubled or out of order", broadcasted.wrong, "");
        outcome.add_fault("triggers refused", broadcasted.refused, "");
        outcome.add_fault("client events unanswered", exchanged.unanswered(), format_args!(" of {}", exchanged.asked));
        outcome.add_fault("clients cut off", broadcasted.cut_off + exchanged.cut_off, "");
        outcome.faults.extend(grown);
        outcome.latencies = Some(broadcasted.latencies);
        Ok(outcome)
    }

    /// A steady broadcast.
    fn broadcast(&self, shared: Shared<'_>) -> anyhow::Result<Broadcasted> {
        let Shared { site, bench, period, stop, .. } = shared;
        let subscribers = self.subscribers as usize;
        let mut fleet = Fleet::new(site, bench.clock, channels(1))?;
        let wave = Wave { count: subscribers, at_once: AT_ONCE, within: PATIENCE };
        fleet.connect(wave, &bench.progress("", 0))?;
        let publishing = Publishing { channels: channels(1), rate: RATE, period, bytes: BYTES };
        let published = deliver(&mut fleet, &publishing, site, bench, subscribers, stop)?;
        let tally = fleet.tally();
        Ok(Broadcasted {
            latencies: tally.latencies.clone(),
            deliveries: tally.deliveries,
            wrong: fleet.lost(&published.events) + tally.duplicated + tally.out_of_order,
            refused: published.refused,
            cut_off: fleet.closed().values().sum::<usize>() as u64,
        })
    }

    /// Client events.
    fn exchange(&self, shared: Shared<'_>) -> anyhow::Result<Exchanged> {
        let Shared { site, bench, period, stop, .. } = shared;
        let exchange = Exchange { pairs: self.pairs as usize, rate: CLIENT_RATE, period };
        let mut fleet = exchange.fleet(site, bench)?;
        exchange.run(&mut fleet, bench, stop)
    }
}

/// Clients that come, stay for a while, and go, until `stop` is set; those with a name are members of a presence channel.
fn crowd(
    shared: Shared<'_>,
    channel: &str,
    count: usize,
    member: Option<&str>,
    came: &AtomicU64,
) -> anyhow::Result<()> {
    let Shared { site, bench, begun, stop, .. } = shared;
    let mut fleet = Fleet::new(site, bench.clock, vec![channel.to_owned()])?;
    let is_stopped = |_: &Fleet| stop.load(Ordering::Relaxed);
    for round in 0_u32.. {
        fleet.turn_until(begun + ROUND * round, is_stopped)?;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let deadline = Instant::now() + PATIENCE;
        let mut coming = 0;
        while fleet.live() < count {
            for _ in 0..(count - coming).min(AT_ONCE.saturating_sub(coming - fleet.live())) {
                fleet.begin(member.map(|member| format!("{member}{coming}")))?;
                coming += 1;
            }
            fleet.turn(TURN, |_, _| None)?;
            let there = fleet.live();
            anyhow::ensure!(
                Instant::now() < deadline,
                "{channel}: {there} of {count} clients are where they should be"
            );
        }
        came.fetch_add(count as u64, Ordering::Relaxed);
        fleet.turn_until(Instant::now() + STAY, is_stopped)?;
        fleet.cut();
    }
    Ok(())
}

/// Looks at the process until the time is over or `stop` is set.
fn look(
    process: u32,
    metrics: Option<&Metrics>,
    period: Duration,
    stop: &AtomicBool,
    bench: Bench,
) -> anyhow::Result<Samples> {
    let (begun, mut samples) = (Instant::now(), Samples::default());
    let progress = bench.progress("soaking, seconds", period.as_secs());
    for look in 1_u32.. {
        thread::sleep((begun + LOOKED_EVERY * look).saturating_duration_since(Instant::now()));
        if begun.elapsed() >= period || stop.load(Ordering::Relaxed) {
            break;
        }
        samples.resident.push(measure::resident(process)? as f64);
        samples.descriptors.push(measure::descriptors(process)? as f64);
        samples.threads.push(measure::threads(process)? as f64);
        if let Some(metrics) = metrics {
            let page = metrics.page()?;
            samples.connections.extend(parse_gauge(&page, "herald_connections"));
            samples.tasks.extend(parse_gauge(&page, "herald_runtime_tasks"));
        }
        progress.set_position(begun.elapsed().as_secs());
    }
    Ok(samples)
}

impl Samples {
    /// Adds what there was at first and at last; what grew comes back as faults.
    fn report(&self, outcome: &mut Outcome, period: Duration) -> anyhow::Result<Vec<String>> {
        let resident = Quarters::of(&self.resident).context("too short to be judged")?;
        let descriptors = Quarters::of(&self.descriptors).context("too short to be judged")?;
        let threads = Quarters::of(&self.threads).context("too short to be judged")?;
        let [first, second, _, last] = resident.0;
        outcome.add("memory in the first quarter", first.median / MEBIBYTE, Unit::Mebibytes);
        outcome.add("memory in the last quarter", last.median / MEBIBYTE, Unit::Mebibytes);
        let hours = period.as_secs_f64() / 3_600.0;
        // The middles of the second and the last quarter are half the time apart.
        let per_hour = (last.median - second.median) / MEBIBYTE / (hours / 2.0);
        outcome.add("memory, growth an hour", per_hour, Unit::Mebibytes);
        outcome.add("descriptors in the first quarter", descriptors.0[0].median, Unit::Count);
        outcome.add("descriptors in the last quarter", descriptors.0[3].median, Unit::Count);
        outcome.add("threads in the first quarter", threads.0[0].median, Unit::Count);
        outcome.add("threads in the last quarter", threads.0[3].median, Unit::Count);
        if let Some(connections) = Quarters::of(&self.connections) {
            outcome.add("connections by its own count, first quarter", connections.0[0].median, Unit::Count);
            outcome.add("connections by its own count, last quarter", connections.0[3].median, Unit::Count);
        }
        let tasks = Quarters::of(&self.tasks);
        if let Some(tasks) = tasks {
            outcome.add("tasks by its own count, first quarter", tasks.0[0].median, Unit::Count);
            outcome.add("tasks by its own count, last quarter", tasks.0[3].median, Unit::Count);
        }
        let mut faults = Vec::new();
        let grown = last.median - second.median;
        if grown > ALLOWED_BYTES && grown > second.median * ALLOWED_SHARE {
            faults.push(format!("memory grew by {:.1} MiB from the second quarter to the last", grown / MEBIBYTE));
        }
        // The least of a quarter is what is open while no crowd is there, so their coming and going does not show.
        for (what, quarters) in [("descriptors", Some(descriptors)), ("tasks", tasks)] {
            let Some(Quarters([_, before, _, after])) = quarters else { continue };
            if after.least > before.least {
                faults.push(format!("{what} grew from {} to {} while no crowd was there", before.least, after.least));
            }
        }
        Ok(faults)
    }
}

/// Readings of each quarter of the time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Quarters([Readings; 4]);

impl Quarters {
    /// Of at least four samples.
    fn of(samples: &[f64]) -> Option<Self> {
        let edge = |quarter: usize| samples.len() * quarter / 4;
        let quarter = |number: usize| Readings::of(samples.get(edge(number)..edge(number + 1))?.to_vec());
        Some(Self([quarter(0)?, quarter(1)?, quarter(2)?, quarter(3)?]))
    }
}

/// Where metrics are told.
struct Metrics {
    address: std::net::SocketAddr,
}

impl Metrics {
    fn at(host_and_port: &str) -> anyhow::Result<Self> {
        use std::net::ToSocketAddrs as _;
        let place = host_and_port.strip_prefix("http://").unwrap_or(host_and_port).trim_end_matches('/');
        let place = place.strip_suffix("/metrics").unwrap_or(place);
        let address = place.to_socket_addrs().with_context(|| format!("{place}: HOST:PORT is wanted"))?.next();
        Ok(Self { address: address.with_context(|| format!("{place} has no address"))? })
    }

    /// All of them, as text.
    fn page(&self) -> anyhow::Result<String> {
        let mut backend = Backend::connect_to(self.address)?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        Ok(backend.ask_for(&request)?.to_owned())
    }
}

fn parse_gauge(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(resident: impl Fn(usize) -> f64, descriptors: impl Fn(usize) -> f64) -> Samples {
        Samples {
            resident: (0..400).map(resident).collect(),
            descriptors: (0..400).map(descriptors).collect(),
            threads: vec![3.0; 400],
            connections: Vec::new(),
            tasks: Vec::new(),
        }
    }

    fn faults(samples: &Samples) -> usize {
        samples.report(&mut Outcome::default(), Duration::from_secs(400)).unwrap().len()
    }

    #[test]
    fn four_quarters_have_a_median_each() {
        let quarters = Quarters::of(&[1.0, 1.0, 2.0, 4.0, 5.0, 5.0, 9.0, 7.0]).unwrap();
        assert_eq!(quarters.0.map(|readings| readings.median), [1.0, 3.0, 5.0, 8.0]);
        assert_eq!(Quarters::of(&[1.0, 2.0, 3.0]), None);
    }

    #[test]
    fn what_only_warms_up_or_comes_and_goes_is_no_fault() {
        let warm = |second: usize| MEBIBYTE * if second < 100 { 20.0 } else { 40.0 };
        let crowd = |second: usize| if second % 4 < 2 { 300.0 } else { 12.0 };
        assert_eq!(faults(&samples(warm, crowd)), 0);
        let little = |second: usize| MEBIBYTE * (20.0 + second as f64 / 100.0);
        assert_eq!(faults(&samples(little, crowd)), 0, "less than what is allowed");
    }

    #[test]
    fn what_grows_is_a_fault() {
        let leaks = |second: usize| MEBIBYTE * (40.0 + second as f64 / 10.0);
        assert_eq!(faults(&samples(leaks, |_| 12.0)), 1);
        let forgets = |second: usize| 12.0 + (second / 100) as f64 + if second % 4 < 2 { 300.0 } else { 0.0 };
        assert_eq!(faults(&samples(|_| MEBIBYTE, forgets)), 1);
        let tasks = (0..400).map(forgets).collect();
        assert_eq!(faults(&Samples { tasks, ..samples(|_| MEBIBYTE, |_| 12.0) }), 1);
        let mut outcome = Outcome::default();
        samples(leaks, |_| 12.0).report(&mut outcome, Duration::from_secs(400)).unwrap();
        assert_eq!(outcome.value("memory, growth an hour").map(f64::round), Some(360.0), "0.1 MiB a second");
    }

    #[test]
    fn a_gauge_is_found_by_its_whole_name() {
        let metrics = "# TYPE herald_connections gauge\nherald_connections_accepted_total 9\nherald_connections 42\n";
        assert_eq!(parse_gauge(metrics, "herald_connections"), Some(42.0));
        assert_eq!(parse_gauge(metrics, "herald_connection"), None);
    }
}
