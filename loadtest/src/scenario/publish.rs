//! Triggers over HTTP with nobody subscribed, from several backends at once.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::Bench;
use crate::backend::Backend;
use crate::latencies::Latencies;
use crate::outcome::{Outcome, Unit};
use crate::target::{Site, Target};
use crate::threads::join;
use crate::wire::{EVENT, Stamp};

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Publish {
    /// Backends, each with a connection that is kept alive
    #[arg(long, default_value_t = Self::default().backends, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) backends: u32,
    /// Requests a second from each of them; 0 sends the next as soon as the last is answered
    #[arg(long, default_value_t = Self::default().rate, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) rate: u32,
    /// Requests from each of them
    #[arg(long, default_value_t = Self::default().requests, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) requests: u32,
    /// Events in a request; more than one go to `batch_events`
    #[arg(long, default_value_t = Self::default().batch, value_parser = clap::value_parser!(u32).range(1..=10))]
    pub(crate) batch: u32,
}

impl Default for Publish {
    fn default() -> Self {
        Self { backends: 8, rate: 500, requests: 5_000, batch: 1 }
    }
}

impl Publish {
    pub(super) fn measure(&self, target: &Target, bench: Bench) -> anyhow::Result<Outcome> {
        let request = self.request(&target.site);
        let all = f64::from(self.backends) * f64::from(self.requests);
        let progress = bench.progress("publishing", all as u64);
        let ask = |backend: &mut Backend| -> anyhow::Result<Latencies> {
            let (start, mut latencies) = (Instant::now(), Latencies::new()?);
            for number in 0..self.requests {
                if self.rate > 0 {
                    let due = start + Duration::from_secs(1) / self.rate * number;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                let begun_ns = bench.clock.ns();
                backend.ask_for(&request)?;
                latencies.record(begun_ns, bench.clock.ns());
                if number % 100 == 99 {
                    progress.inc(100);
                }
            }
            Ok(latencies)
        };
        let mut backends = Vec::new();
        for _ in 0..self.backends {
            backends.push(Backend::connect(&target.site)?);
        }
        let (before, begun) = (target.cpu()?, Instant::now());
        let latencies = thread::scope(|scope| {
            let ask = &ask;
            let asking: Vec<_> = backends.iter_mut().map(|backend| scope.spawn(move || ask(backend))).collect();
            asking.into_iter().map(join).collect::<anyhow::Result<Vec<_>>>()
        })?;
        let took = begun.elapsed();
        let used = target.cpu_since(before)?;

        let mut together = Latencies::new()?;
        latencies.iter().try_for_each(|latencies| together.add(latencies))?;
        let mut outcome = Outcome::default();
        outcome.add("requests a second", all / took.as_secs_f64(), Unit::PerSecond);
        let per = |events: f64| used.map(|used| used.as_secs_f64() * 1e6 / events);
        outcome.add_known("CPU per request", per(all), Unit::Microseconds);
        if self.batch > 1 {
            outcome.add_known("CPU per event", per(all * f64::from(self.batch)), Unit::Microseconds);
        }
        let names = ["answer, median", "answer, p99", "answer, p99.9", "answer, longest"];
        outcome.add_latencies(names, &together);
        outcome.latencies = Some(together);
        Ok(outcome)
    }

    /// The same bytes each time: what it takes to sign a request is the backend's business.
    fn request(&self, site: &Site) -> String {
        let data = Stamp { number: 0, at_ns: 0 }.data(200);
        if self.batch == 1 {
            return site.app.trigger(site.address, "nobody", &data);
        }
        let event = format!(r#"{{"name":"{EVENT}","channel":"nobody","data":"{data}"}}"#);
        let batch = vec![event; self.batch as usize].join(",");
        site.app.request(site.address, "POST", "batch_events", &[], &format!(r#"{{"batch":[{batch}]}}"#))
    }
}
