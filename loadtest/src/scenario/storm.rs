//! Everybody is cut off at once and comes back at once, while others go on undisturbed, or should.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;

use super::{AT_ONCE, Bench, GRACE, channels, subscription_count};
use crate::backend::{Backend, Published, Publishing};
use crate::fleet::{Fleet, TURN, Wave};
use crate::floor;
use crate::outcome::{Outcome, Unit};
use crate::target::{Site, Target};
use crate::threads::join;

/// The channel of those who are not cut off, how many they are, and how often they get an event.
const BYSTANDERS: &str = "bystanders";
const BYSTANDING: usize = 10;
const RATE: u32 = 50;
/// How long the bystanders are watched before the storm.
const BEFORE: Duration = Duration::from_secs(5);
/// How often the server is asked how many are subscribed.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Storm {
    /// Clients, all on one channel
    #[arg(long, default_value_t = Self::default().connections, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) connections: u32,
    /// How many are on their way back at once
    #[arg(long, default_value_t = Self::default().at_once, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) at_once: u32,
    /// How long it may take until everybody is back and counted right, in seconds
    #[arg(long, default_value_t = Self::default().within, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) within: u32,
}

impl Default for Storm {
    fn default() -> Self {
        Self { connections: 5_000, at_once: 256, within: 60 }
    }
}

/// What the bystanders saw: before the storm and in it.
struct Watched {
    outcome: Outcome,
    published: Published,
    lost: u64,
}

impl Storm {
    pub(super) fn measure(&self, target: &Target, bench: Bench) -> anyhow::Result<Outcome> {
        let (site, count) = (&target.site, self.connections as usize);
        let within = Duration::from_secs(self.within.into());
        let mut fleet = Fleet::new(site, bench.clock, channels(1))?;
        let wave = Wave { count, at_once: AT_ONCE, within: Duration::from_secs(300) };
        fleet.connect(wave, &bench.progress("connecting", count as u64))?;
        let mut backend = Backend::connect(site)?;
        counted(&mut backend, site, count, Instant::now() + GRACE)?;

        let (begins, ends) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            let watching = scope.spawn(|| watch(site, bench, &begins, &ends));
            fleet.turn_until(Instant::now() + BEFORE, |_| false)?;
            begins.store(true, Ordering::Relaxed);
            let storm = || -> anyhow::Result<(Duration, Duration, Option<Duration>)> {
                let (cpu, begun) = (target.cpu()?, Instant::now());
                let mut back = Fleet::new(site, bench.clock, channels(1))?;
                fleet.cut();
                let wave = Wave { count, at_once: self.at_once as usize, within };
                let counting =
                    scope.spawn(move || counted(&mut backend, site, count, begun + within).map(|()| begun.elapsed()));
                back.connect(wave, &bench.progress("coming back", count as u64))?;
                let subscribed = begun.elapsed();
                while !counting.is_finished() {
                    back.turn(TURN, |_, _| None)?;
                }
                Ok((subscribed, join(counting)?, target.cpu_since(cpu)?))
            };
            let came_out = storm();
            ends.store(true, Ordering::Relaxed);
            let Watched { mut outcome, published, lost } = join(watching)?;
            let (subscribed, counted, used) = came_out?;
            outcome.add("all subscribed again", subscribed.as_secs_f64(), Unit::Seconds);
            outcome.add("all counted right", counted.max(subscribed).as_secs_f64(), Unit::Seconds);
            let each = used.map(|used| used.as_secs_f64() * 1e6 / count as f64);
            outcome.add_known("CPU per client that left and came back", each, Unit::Microseconds);
            outcome.add("answer to a trigger, p99", published.answers.quantile_ms(0.99), Unit::Milliseconds);
            outcome.add("answer to a trigger, longest", published.answers.max_ms(), Unit::Milliseconds);
            outcome.add_fault("lost to bystanders", lost, "");
            outcome.add_fault(
                "triggers refused",
                published.refused,
                format_args!(", the last with {}", published.refusal),
            );
            Ok(outcome)
        })
    }
}

/// Waits until the server says that so many are subscribed.
fn counted(backend: &mut Backend, site: &Site, count: usize, deadline: Instant) -> anyhow::Result<()> {
    loop {
        let said = subscription_count(backend, site, floor::CHANNEL)?;
        if said == count {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{count} are subscribed, and the server counts {said}");
        thread::sleep(ASK_EVERY);
    }
}

/// Gives a few others their events all the time, in a fleet of their own so that the tool's own work does not hold them up.
fn watch(site: &Site, bench: Bench, begins: &AtomicBool, ends: &AtomicBool) -> anyhow::Result<Watched> {
    let mut fleet = Fleet::new(site, bench.clock, vec![BYSTANDERS.to_owned()])?;
    let wave = Wave { count: BYSTANDING, at_once: BYSTANDING, within: GRACE };
    fleet.connect(wave, &ProgressBar::hidden())?;
    fleet.begin_again()?;
    let publishing = Publishing {
        channels: vec![BYSTANDERS.to_owned()],
        rate: RATE,
        period: Duration::from_secs(3_600),
        bytes: 200,
    };
    let mut outcome = Outcome::default();
    thread::scope(|scope| {
        let running = scope.spawn(|| publishing.run(site, bench.clock, ends));
        while !running.is_finished() && !begins.load(Ordering::Relaxed) {
            fleet.turn(TURN, |_, _| None)?;
        }
        let names = [
            "bystanders before, median",
            "bystanders before, p99",
            "bystanders before, p99.9",
            "bystanders before, longest",
        ];
        outcome.add_latencies(names, &fleet.tally().latencies);
        fleet.forget()?;
        while !running.is_finished() {
            fleet.turn(TURN, |_, _| None)?;
        }
        let published = join(running)?;
        fleet.turn_until(Instant::now() + GRACE, |fleet| fleet.lost(&published.events) == 0)?;
        let names = [
            "bystanders in the storm, median",
            "bystanders in the storm, p99",
            "bystanders in the storm, p99.9",
            "bystanders in the storm, longest",
        ];
        outcome.add_latencies(names, &fleet.tally().latencies);
        outcome.latencies = Some(fleet.tally().latencies.clone());
        Ok(Watched { lost: fleet.lost(&published.events), outcome, published })
    })
}
