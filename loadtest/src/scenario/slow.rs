//! Readers of whom a few stop reading: what the others notice, and what becomes of those few.
//!
//! The same load is taken twice, first with nobody stalled. Events are large, since the kernel's buffers between the server and a client that
//! does not read take megabytes before the server notices anything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::broadcast::{bytes, deliver};
use super::channel::{Counted, count};
use super::{AT_ONCE, Bench, GRACE, SILENCE};
use crate::backend::{Backend, Publishing};
use crate::fleet::{Fleet, Wave};
use crate::latencies::Latencies;
use crate::outcome::{Outcome, Unit};
use crate::target::Target;
use crate::threads::join;

/// How often the server is asked who is still there.
const ASKED_EVERY: Duration = Duration::from_millis(50);
/// The close codes that a reader who is too slow may get: "over capacity, come back", or none if the connection is simply reset.
const RIGHT_CODES: [u16; 2] = [4100, 0];

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Slow {
    /// Clients, all on one channel
    #[arg(long, default_value_t = Self::default().readers, value_parser = clap::value_parser!(u32).range(2..=50_000))]
    pub(crate) readers: u32,
    /// How many of them stop reading
    #[arg(long, default_value_t = Self::default().stalled, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) stalled: u32,
    /// Events a second
    #[arg(long, default_value_t = Self::default().rate, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rate: u32,
    /// For how long, once with nobody stalled and once with them
    #[arg(long, default_value_t = Self::default().seconds, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Size of an event's data
    #[arg(long, default_value_t = Self::default().bytes, value_parser = bytes)]
    pub(crate) bytes: usize,
}

impl Default for Slow {
    fn default() -> Self {
        Self { readers: 1_000, stalled: 1, rate: 25, seconds: 25, bytes: 10_000 }
    }
}

/// What came of one of the two loads.
struct Passed {
    latencies: Latencies,
    /// Of those who read.
    lost: u64,
    cut_off: u64,
    refused: u64,
    /// When the server had let go of all who are stalled, from the first event on.
    gone_after: Option<Duration>,
    /// How the stalled ended, by code; those who did not are under none.
    ends: BTreeMap<u16, usize>,
    still_open: u64,
    /// How much more the server had resident at most than before, in bytes.
    grown: Option<u64>,
}

/// What was seen from outside while events went out.
#[derive(Default)]
struct Seen {
    gone_after: Option<Duration>,
    most_resident: Option<u64>,
}

impl Slow {
    pub(super) fn measure(&self, target: &Target, bench: Bench) -> anyhow::Result<Outcome> {
        anyhow::ensure!(self.stalled < self.readers, "of {} readers, {} cannot stall", self.readers, self.stalled);
        let baseline = self.pass(target, "slow-baseline", 0, bench)?;
        let passed = self.pass(target, "slow", self.stalled, bench)?;

        let mut outcome = Outcome::default();
        let p99 = |passed: &Passed| passed.latencies.quantile_ms(0.99);
        outcome.add("latency, p99, nobody stalled", p99(&baseline), Unit::Milliseconds);
        outcome.add("latency, p99, of those who read", p99(&passed), Unit::Milliseconds);
        outcome.add("latency, p99 ÷ with nobody stalled", p99(&passed) / p99(&baseline), Unit::Times);
        outcome.add("latency, longest, nobody stalled", baseline.latencies.max_ms(), Unit::Milliseconds);
        outcome.add("latency, longest, of those who read", passed.latencies.max_ms(), Unit::Milliseconds);
        outcome.add_known(
            "stalled are let go after",
            passed.gone_after.map(|after| after.as_secs_f64()),
            Unit::Seconds,
        );
        if let Some((code, _)) = passed.ends.iter().max_by_key(|(_, count)| **count) {
            outcome.add("code that stalled are closed with", f64::from(*code), Unit::Count);
        }
        let mebibytes = passed.grown.map(|bytes| bytes as f64 / (1024.0 * 1024.0));
        outcome.add_known("memory more at most", mebibytes, Unit::Mebibytes);
        outcome.add_fault("stalled and still open", passed.still_open, format_args!(" of {}", self.stalled));
        let wrong = passed.ends.iter().filter(|(code, _)| !RIGHT_CODES.contains(code)).map(|(_, count)| count);
        outcome.add_fault(
            "stalled closed otherwise",
            wrong.sum::<usize>() as u64,
            format_args!(", by code: {:?}", passed.ends),
        );
        outcome.add_fault("lost by those who read", baseline.lost + passed.lost, "");
        outcome.add_fault("cut off although they read", baseline.cut_off + passed.cut_off, "");
        outcome.add_fault("triggers refused", baseline.refused + passed.refused, "");
        outcome.latencies = Some(passed.latencies);
        Ok(outcome)
    }

    fn pass(&self, target: &Target, channel: &str, stalled: u32, bench: Bench) -> anyhow::Result<Passed> {
        let (site, readers, names) = (&target.site, self.readers as usize, vec![channel.to_owned()]);
        let mut fleet = Fleet::new(site, bench.clock, names.clone())?;
        let wave = Wave { count: readers, at_once: AT_ONCE, within: Duration::from_secs(60) };
        fleet.connect(wave, &bench.progress("subscribing", u64::from(self.readers)))?;
        (0..stalled as usize).try_for_each(|number| fleet.stall(number))?;
        let period = Duration::from_secs(self.seconds.into());
        let publishing = Publishing { channels: names, rate: self.rate, period, bytes: self.bytes };
        let (stop, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        let resident = target.resident()?;
        let (published, seen) = thread::scope(|scope| {
            let watching = scope.spawn(|| self.watch(target, channel, stalled, &is_over));
            let published = deliver(&mut fleet, &publishing, site, bench, readers, &stop);
            is_over.store(true, Ordering::Relaxed);
            anyhow::Ok((published?, join(watching)?))
        })?;
        fleet.turn_until(Instant::now() + SILENCE, |_| false)?;
        let (lost, cut_off) = (fleet.lost(&published.events), over(&fleet));
        let latencies = fleet.tally().latencies.clone();
        let before = fleet.closed();

        // What waits in the kernel for them is read first, and then the end of the connection, if there is one.
        (0..stalled as usize).try_for_each(|number| fleet.resume(number))?;
        fleet.turn_until(Instant::now() + GRACE, |fleet| over(fleet) >= cut_off + u64::from(stalled))?;
        let mut ends = fleet.closed();
        for (code, count) in before {
            if let Some(all) = ends.get_mut(&code) {
                *all -= count;
            }
        }
        ends.retain(|_, count| *count > 0);
        let ended = ends.values().sum::<usize>() as u64;
        let grown = seen.most_resident.zip(resident).map(|(most, before)| most.saturating_sub(before));
        Ok(Passed {
            latencies,
            lost,
            cut_off,
            refused: published.refused,
            gone_after: seen.gone_after,
            ends,
            still_open: u64::from(stalled).saturating_sub(ended),
            grown,
        })
    }

    /// Looks, from outside, when the stalled are gone and how much memory the server takes.
    fn watch(&self, target: &Target, channel: &str, stalled: u32, is_over: &AtomicBool) -> anyhow::Result<Seen> {
        let mut backend = if stalled > 0 { Some(Backend::connect(&target.site)?) } else { None };
        let (begun, mut seen) = (Instant::now(), Seen::default());
        while !is_over.load(Ordering::Relaxed) {
            seen.most_resident = seen.most_resident.max(target.resident()?);
            if let Some(backend) = &mut backend
                && seen.gone_after.is_none()
            {
                let left = count(backend, &target.site, channel, Counted::Subscriptions)?;
                seen.gone_after = (left <= u64::from(self.readers - stalled)).then(|| begun.elapsed());
            }
            thread::sleep(ASKED_EVERY);
        }
        Ok(seen)
    }
}

/// Clients that the server has cut off.
fn over(fleet: &Fleet) -> u64 {
    fleet.closed().values().sum::<usize>() as u64
}
