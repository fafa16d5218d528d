//! Events at a steady rate to many subscribers.

use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::{AT_ONCE, Bench, GRACE, SILENCE, channels};
use crate::backend::{Published, Publishing};
use crate::fleet::{Fleet, TURN, Wave};
use crate::outcome::{Outcome, Unit};
use crate::target::{Site, Target};
use crate::threads::join;

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Broadcast {
    /// Clients, each on one channel
    #[arg(long, default_value_t = Self::default().subscribers, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) subscribers: u32,
    /// Channels
    #[arg(long, default_value_t = Self::default().channels, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) channels: u32,
    /// Events a second over all channels
    #[arg(long, default_value_t = Self::default().rate, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: u32,
    /// For how long; a server that does not keep up gets fewer events, not more time
    #[arg(long, default_value_t = Self::default().seconds, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Size of an event's data
    #[arg(long, default_value_t = Self::default().bytes, value_parser = bytes)]
    pub(crate) bytes: usize,
}

/// An event has room for its stamp, and is no larger than servers take.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let allowed = 64..=10_000;
    text.parse().ok().filter(|bytes| allowed.contains(bytes)).ok_or(format!("{allowed:?} bytes are allowed"))
}

impl Default for Broadcast {
    fn default() -> Self {
        Self { subscribers: 1_000, channels: 1, rate: 50, seconds: 10, bytes: 200 }
    }
}

impl Broadcast {
    pub(super) fn measure(&self, target: &Target, bench: Bench) -> anyhow::Result<Outcome> {
        let subscribers = self.subscribers as usize;
        let mut fleet = Fleet::new(&target.site, bench.clock, channels(self.channels))?;
        let wave = Wave { count: subscribers, at_once: AT_ONCE, within: Duration::from_secs(60) };
        fleet.connect(wave, &bench.progress("subscribing", subscribers as u64))?;
        let publishing = Publishing {
            channels: channels(self.channels),
            rate: self.rate,
            period: Duration::from_secs(self.seconds.into()),
            bytes: self.bytes,
        };
        let before = target.cpu()?;
        let published = deliver(&mut fleet, &publishing, &target.site, bench, subscribers, &AtomicBool::new(false))?;
        let used = target.cpu_since(before)?;
        fleet.turn_until(Instant::now() + SILENCE, |_| false)?;

        let mut outcome = Outcome::default();
        report(&mut outcome, &fleet, &published);
        let per_delivery = used.map(|used| used.as_secs_f64() * 1e6 / fleet.tally().deliveries as f64);
        outcome.add_known("CPU per delivery", per_delivery, Unit::Microseconds);
        Ok(outcome)
    }
}

/// Publishes until the time is over or `stop` is set, and turns the fleet until everybody has got everything or it is certain that they will not.
pub(crate) fn deliver(
    fleet: &mut Fleet,
    publishing: &Publishing,
    site: &Site,
    bench: Bench,
    subscribers: usize,
    stop: &AtomicBool,
) -> anyhow::Result<Published> {
    let of_each = (subscribers / publishing.channels.len()) as u64;
    let asked_for = u64::from(publishing.rate) * publishing.period.as_secs() * of_each;
    let progress = bench.progress("delivering", asked_for);
    fleet.expect_the_first();
    thread::scope(|scope| {
        let running = scope.spawn(|| publishing.run(site, bench.clock, stop));
        while !running.is_finished() {
            fleet.turn(TURN, |_, _| None)?;
            progress.set_position(fleet.tally().deliveries);
        }
        let published = join(running)?;
        fleet.turn_until(Instant::now() + GRACE, |fleet| fleet.lost(&published.events) == 0)?;
        Ok(published)
    })
}

/// What came of the events that were published.
pub(crate) fn report(outcome: &mut Outcome, fleet: &Fleet, published: &Published) {
    let tally = fleet.tally();
    let took = tally.last_ns.saturating_sub(published.first_ns) as f64 / 1e9;
    outcome.add("events published", published.total() as f64, Unit::Count);
    outcome.add("deliveries", tally.deliveries as f64, Unit::Count);
    outcome.add("deliveries a second", tally.deliveries as f64 / took, Unit::PerSecond);
    outcome.add_fault("lost", fleet.lost(&published.events), "");
    outcome.add_fault("duplicated", tally.duplicated, "");
    outcome.add_fault("out of order", tally.out_of_order, "");
    outcome.add_fault("triggers refused", published.refused, format_args!(", the last with {}", published.refusal));
    let closed = fleet.closed();
    outcome.add_fault("clients cut off", closed.values().sum::<usize>() as u64, format_args!(", by code: {closed:?}"));
    let names = ["latency, median", "latency, p99", "latency, p99.9", "latency, longest"];
    outcome.add_latencies(names, &tally.latencies);
    outcome.add("answer to a trigger, median", published.answers.quantile_ms(0.5), Unit::Milliseconds);
    outcome.add("answer to a trigger, p99", published.answers.quantile_ms(0.99), Unit::Milliseconds);
    outcome.latencies = Some(tally.latencies.clone());
}
