//! Everybody is cut off at once and comes back at once, while others go on working.
//!
//! The others are in a thread and a fleet of their own, so that what they wait for is the server and not the crowd's own work in this tool.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;

use super::broadcast::deliver;
use super::channel::{Counted, count};
use super::{AT_ONCE, Bench, channels};
use crate::backend::{Backend, Published, Publishing};
use crate::fleet::{Fleet, Wave};
use crate::latencies::Latencies;
use crate::outcome::{Outcome, Unit};
use crate::target::{Site, Target};
use crate::threads::join;

/// Size of the bystanders' events.
const BYTES: usize = 200;
/// How long the bystanders are watched before the storm.
const CALM: Duration = Duration::from_secs(5);
/// How long they are watched until it begins, so that they are under way when it does.
const LEAD: Duration = Duration::from_millis(500);
/// How long a storm may last.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the server is asked how many it counts.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Storm {
    /// Clients that are cut off and come back
    #[arg(long, default_value_t = Self::default().clients, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) clients: u32,
    /// How many of them come back at once
    #[arg(long, default_value_t = Self::default().at_once, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) at_once: u32,
    /// Clients on another channel, who stay
    #[arg(long, default_value_t = Self::default().bystanders, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) bystanders: u32,
    /// Events a second to them
    #[arg(long, default_value_t = Self::default().rate, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rate: u32,
}

impl Default for Storm {
    fn default() -> Self {
        Self { clients: 5_000, at_once: 256, bystanders: 10, rate: 50 }
    }
}

/// What the bystanders saw.
struct Watched {
    published: Published,
    latencies: Latencies,
    /// Lost, doubled or out of order; and cut off.
    wrong: u64,
    closed: u64,
}

/// How long it took.
struct Passed {
    back: Duration,
    counted: Duration,
}

impl Storm {
    pub(super) fn measure(&self, target: &Target, bench: Bench) -> anyhow::Result<Outcome> {
        let (site, clients) = (&target.site, self.clients as usize);
        let mut fleet = Fleet::new(site, bench.clock, channels(1))?;
        let wave = Wave { count: clients, at_once: AT_ONCE, within: PATIENCE };
        fleet.connect(wave, &bench.progress("subscribing", clients as u64))?;
        let before = thread::scope(|scope| {
            // Nobody here answers pings meanwhile, which is no harm for so short a time.
            join(scope.spawn(|| self.watch(site, "bystanders-before", CALM, &AtomicBool::new(false), bench)))
        })?;
        let stop = AtomicBool::new(false);
        let (passed, meanwhile) = thread::scope(|scope| {
            let watching = scope.spawn(|| self.watch(site, "bystanders", PATIENCE + LEAD, &stop, bench));
            let passed = self.pass(&mut fleet, site, bench);
            stop.store(true, Ordering::Relaxed);
            anyhow::Ok((passed?, join(watching)?))
        })?;

        let mut outcome = Outcome::default();
        outcome.add("all are back after", passed.back.as_secs_f64(), Unit::Seconds);
        outcome.add("all are counted right after", passed.counted.as_secs_f64(), Unit::Seconds);
        let names = [
            "bystanders before, median",
            "bystanders before, p99",
            "bystanders before, p99.9",
            "bystanders before, longest",
        ];
        outcome.add_latencies(names, &before.latencies);
        let names = [
            "bystanders meanwhile, median",
            "bystanders meanwhile, p99",
            "bystanders meanwhile, p99.9",
            "bystanders meanwhile, longest",
        ];
        outcome.add_latencies(names, &meanwhile.latencies);
        let answers = &meanwhile.published.answers;
        outcome.add("answer to a trigger meanwhile, p99", answers.quantile_ms(0.99), Unit::Milliseconds);
        outcome.add("answer to a trigger meanwhile, longest", answers.max_ms(), Unit::Milliseconds);
        outcome.add("events published meanwhile", meanwhile.published.total() as f64, Unit::Count);
        let wrong = before.wrong + meanwhile.wrong;
        outcome.add_fault("bystanders' events lost, doubled or out of order", wrong, "");
        let refused = before.published.refused + meanwhile.published.refused;
        outcome.add_fault("triggers refused", refused, format_args!(", the last with {}", meanwhile.published.refusal));
        outcome.add_fault("bystanders cut off", before.closed + meanwhile.closed, "");
        let closed = fleet.closed();
        let cut_off = closed.values().sum::<usize>() as u64;
        outcome.add_fault("clients cut off after they were back", cut_off, format_args!(", by code: {closed:?}"));
        outcome.latencies = Some(meanwhile.latencies);
        Ok(outcome)
    }

    /// The storm itself.
    fn pass(&self, fleet: &mut Fleet, site: &Site, bench: Bench) -> anyhow::Result<Passed> {
        let mut backend = Backend::connect(site)?;
        fleet.turn_until(Instant::now() + LEAD, |_| false)?;
        let (begun, clients) = (Instant::now(), u64::from(self.clients));
        fleet.cut();
        let wave = Wave { count: self.clients as usize, at_once: self.at_once as usize, within: PATIENCE };
        fleet.connect(wave, &bench.progress("coming back", clients)).context("after the cut")?;
        let back = begun.elapsed();
        let channel = channels(1).concat();
        loop {
            let counted = count(&mut backend, site, &channel, Counted::Subscriptions)?;
            if counted == clients {
                return Ok(Passed { back, counted: begun.elapsed() });
            }
            anyhow::ensure!(
                begun.elapsed() < PATIENCE,
                "after {PATIENCE:?} the server counts {counted} subscriptions, not {clients}"
            );
            fleet.turn_until(Instant::now() + ASKED_EVERY, |_| false)?;
        }
    }

    /// Publishes to the bystanders, who come anew, until the time is over or `stop` is set.
    fn watch(
        &self,
        site: &Site,
        channel: &str,
        period: Duration,
        stop: &AtomicBool,
        bench: Bench,
    ) -> anyhow::Result<Watched> {
        let quiet = Bench { is_quiet: true, ..bench };
        let channels = vec![channel.to_owned()];
        let bystanders = self.bystanders as usize;
        let mut fleet = Fleet::new(site, bench.clock, channels.clone())?;
        let wave = Wave { count: bystanders, at_once: AT_ONCE, within: PATIENCE };
        fleet.connect(wave, &quiet.progress("", 0))?;
        let publishing = Publishing { channels, rate: self.rate, period, bytes: BYTES };
        let published = deliver(&mut fleet, &publishing, site, quiet, bystanders, stop)?;
        let tally = fleet.tally();
        Ok(Watched {
            wrong: fleet.lost(&published.events) + tally.duplicated + tally.out_of_order,
            closed: fleet.closed().values().sum::<usize>() as u64,
            latencies: tally.latencies.clone(),
            published,
        })
    }
}
