//! Readers that have stopped reading, among others that have not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::{AT_ONCE, Bench, GRACE, broadcast, channels, subscription_count};
use crate::backend::{Backend, Publishing};
use crate::fleet::{Fleet, Wave};
use crate::floor;
use crate::outcome::{Outcome, Unit};
use crate::target::Target;
use crate::threads::join;

/// A channel that only the stalled are on: what is sent there fills what the kernel holds for them.
const FLOODED: &str = "flooded";
/// How often the server is asked whether the stalled are still there.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// What a server says to those whom it gives up.
const OVER_CAPACITY: u16 = 4100;

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Slow {
    /// Clients on one channel
    #[arg(long, default_value_t = Self::default().subscribers, value_parser = clap::value_parser!(u32).range(2..=50_000))]
    pub(crate) subscribers: u32,
    /// Of them, those that stop reading
    #[arg(long, default_value_t = Self::default().stalled, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) stalled: u32,
    /// Events a second
    #[arg(long, default_value_t = Self::default().rate, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rate: u32,
    /// For how long, without and then with stalled readers
    #[arg(long, default_value_t = Self::default().seconds, value_parser = clap::value_parser!(u32).range(1..=300))]
    pub(crate) seconds: u32,
    /// Size of an event's data
    #[arg(long, default_value_t = Self::default().bytes, value_parser = broadcast::bytes)]
    pub(crate) bytes: usize,
    /// How long after that a server may take to give the stalled up, in seconds
    #[arg(long, default_value_t = Self::default().patience, value_parser = clap::value_parser!(u32).range(1..=300))]
    pub(crate) patience: u32,
}

impl Default for Slow {
    fn default() -> Self {
        Self { subscribers: 1_000, stalled: 1, rate: 50, seconds: 10, bytes: 200, patience: 30 }
    }
}

/// Turns the fleet until so many are on the flooded channel.
fn wait_for(fleet: &mut Fleet, target: &Target, bench: Bench, count: usize) -> anyhow::Result<()> {
    let mut backend = Backend::connect(&target.site)?;
    let deadline = bench.clock.ns() + GRACE.as_nanos() as u64;
    while subscription_count(&mut backend, &target.site, FLOODED)? < count {
        anyhow::ensure!(bench.clock.ns() < deadline, "the server lets nobody in to {FLOODED}");
        fleet.turn(ASK_EVERY, |_, _| None)?;
    }
    Ok(())
}

impl Slow {
    pub(super) fn measure(&self, target: &Target, bench: Bench) -> anyhow::Result<Outcome> {
        let (count, stalled) = (self.subscribers as usize, self.stalled.min(self.subscribers - 1) as usize);
        let mut fleet = Fleet::new(&target.site, bench.clock, channels(1))?;
        let wave = Wave { count, at_once: AT_ONCE, within: Duration::from_secs(60) };
        fleet.connect(wave, &bench.progress("subscribing", count as u64))?;
        let publishing = Publishing {
            channels: channels(1),
            rate: self.rate,
            period: Duration::from_secs(self.seconds.into()),
            bytes: self.bytes,
        };
        let resident = target.resident()?;
        let before = broadcast::deliver(&mut fleet, &publishing, &target.site, bench, count)?;
        anyhow::ensure!(fleet.lost(&before.events) == 0, "events were lost before anybody had stalled");
        let all_reading = fleet.tally().latencies.clone();

        for number in 0..stalled {
            fleet.send(number, &target.site.app.subscribe_frame("", FLOODED, None))?;
        }
        wait_for(&mut fleet, target, bench, stalled)?;
        (0..stalled).try_for_each(|number| fleet.stall(number))?;
        let flood = Publishing { channels: vec![FLOODED.to_owned()], rate: 200, bytes: 10_000, ..publishing.clone() };
        let ends = AtomicBool::new(false);
        let with = thread::scope(|scope| {
            let flooding = scope.spawn(|| flood.run(&target.site, bench.clock, &ends));
            let with = broadcast::deliver(&mut fleet, &publishing, &target.site, bench, count - stalled);
            ends.store(true, Ordering::Relaxed);
            join(flooding)?;
            with
        })?;
        let grown = target.resident()?.zip(resident).map(|(now, before)| now.saturating_sub(before));
        let some_stalled = fleet.tally().latencies.clone();
        let mut backend = Backend::connect(&target.site)?;
        let deadline = Instant::now() + Duration::from_secs(self.patience.into());
        let left = loop {
            let left = subscription_count(&mut backend, &target.site, floor::CHANNEL)? + stalled - count;
            if left == 0 || Instant::now() > deadline {
                break left;
            }
            thread::sleep(ASK_EVERY);
        };
        (0..stalled).try_for_each(|number| fleet.resume(number))?;
        fleet.turn_until(Instant::now() + GRACE, |fleet| fleet.live() == count - stalled)?;

        let mut outcome = Outcome::default();
        let quantile = |share| (all_reading.quantile_ms(share), some_stalled.quantile_ms(share));
        let ((median, median_with), (p99, p99_with)) = (quantile(0.5), quantile(0.99));
        outcome.add("latency while all read, median", median, Unit::Milliseconds);
        outcome.add("latency while all read, p99", p99, Unit::Milliseconds);
        outcome.add("the others' latency, median", median_with, Unit::Milliseconds);
        outcome.add("the others' latency, p99", p99_with, Unit::Milliseconds);
        outcome.add("the others' p99 ÷ before", p99_with / p99, Unit::Times);
        outcome.add_known("server's memory grew by", grown.map(|bytes| bytes as f64 / 1_048_576.0), Unit::Mebibytes);
        let closed = fleet.closed();
        let told = closed.get(&OVER_CAPACITY).copied().unwrap_or_default();
        outcome.add("stalled, told 4100", told as f64, Unit::Count);
        outcome.add("stalled, reset", closed.get(&0).copied().unwrap_or_default() as f64, Unit::Count);
        outcome.add_fault("stalled, and still served", left as u64, "");
        outcome.add_fault("others cut off", closed.values().sum::<usize>().saturating_sub(stalled) as u64, "");
        outcome.add_fault("lost to the others", fleet.lost(&with.events), "");
        outcome.add_fault("triggers refused", with.refused, format_args!(", the last with {}", with.refusal));
        outcome.latencies = Some(some_stalled);
        Ok(outcome)
    }
}
