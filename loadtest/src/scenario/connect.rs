//! Connections that come, stay, and do nothing.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::{AT_ONCE, Bench, SETTLE, channels};
use crate::fleet::{Fleet, Wave};
use crate::outcome::{Outcome, Unit};
use crate::target::Target;

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Connect {
    /// Connections
    #[arg(long, default_value_t = Self::default().connections, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) connections: u32,
    /// They only connect, and subscribe to nothing
    #[arg(long)]
    pub(crate) unsubscribed: bool,
    /// How many connect at once
    #[arg(long, default_value_t = Self::default().at_once, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) at_once: u32,
    /// For how long they stay and answer pings
    #[arg(long, default_value_t = Self::default().idle_seconds, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    pub(crate) idle_seconds: u32,
}

impl Default for Connect {
    fn default() -> Self {
        Self { connections: 5_000, unsubscribed: false, at_once: AT_ONCE as u32, idle_seconds: 0 }
    }
}

impl Connect {
    pub(super) fn measure(&self, target: &Target, bench: Bench) -> anyhow::Result<Outcome> {
        let count = self.connections as usize;
        thread::sleep(SETTLE);
        let resident = target.resident()?;
        let mut fleet = Fleet::new(&target.site, bench.clock, channels(u32::from(!self.unsubscribed)))?;
        let (cpu, begun) = (target.cpu()?, Instant::now());
        let wave = Wave { count, at_once: self.at_once as usize, within: Duration::from_secs(300) };
        fleet.connect(wave, &bench.progress("connecting", count as u64))?;
        let took = begun.elapsed();
        let used = target.cpu_since(cpu)?;
        fleet.turn_until(Instant::now() + SETTLE, |_| false)?;
        let grown = target.resident()?.zip(resident).map(|(now, before)| now.saturating_sub(before));

        let mut outcome = Outcome::default();
        outcome.add("connects a second", count as f64 / took.as_secs_f64(), Unit::PerSecond);
        outcome.add("handshake, median", fleet.handshakes().quantile_ms(0.5), Unit::Milliseconds);
        outcome.add("handshake, p99", fleet.handshakes().quantile_ms(0.99), Unit::Milliseconds);
        let each = |total: f64| total / count as f64;
        outcome.add_known("CPU per connection", used.map(|used| each(used.as_secs_f64() * 1e6)), Unit::Microseconds);
        outcome.add_known("memory per connection", grown.map(|bytes| each(bytes as f64 / 1024.0)), Unit::Kibibytes);
        if self.idle_seconds > 0 {
            let idle = Duration::from_secs(self.idle_seconds.into());
            let (cpu, begun) = (target.cpu()?, Instant::now());
            let progress = bench.progress("idle, seconds", idle.as_secs());
            fleet.turn_until(begun + idle, |_| {
                progress.set_position(begun.elapsed().as_secs());
                false
            })?;
            let share = target.cpu_since(cpu)?.map(|used| 100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64());
            outcome.add_known("CPU while idle", share, Unit::Percent);
        }
        let closed = fleet.closed();
        let cut_off = closed.values().sum::<usize>() as u64;
        outcome.add_fault("clients cut off", cut_off, format_args!(", by code: {closed:?}"));
        outcome.latencies = Some(fleet.handshakes().clone());
        Ok(outcome)
    }
}
