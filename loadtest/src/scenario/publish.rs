//! Triggers over HTTP with nobody subscribed, from several backends at once.

use clap::Args;

use super::Bench;
use super::asking::Asking;
use crate::outcome::{Outcome, Unit};
use crate::target::{Site, Target};
use crate::wire::{EVENT, NOBODY, Stamp};

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
        let requests = vec![vec![self.request(&target.site)]; self.backends as usize];
        let asking = Asking { each: self.requests, rate: self.rate };
        let asked = asking.run(target, bench, &requests, "publishing")?;

        let mut outcome = Outcome::default();
        asked.report(&mut outcome, "requests a second", "CPU per request");
        if self.batch > 1 {
            outcome.add_known(
                "CPU per event",
                asked.cpu_us(asked.requests * f64::from(self.batch)),
                Unit::Microseconds,
            );
        }
        asked.report_answers(&mut outcome);
        outcome.latencies = Some(asked.answers);
        Ok(outcome)
    }

    fn request(&self, site: &Site) -> String {
        if self.batch == 1 {
            return site.app.trigger_nobody(site.address);
        }
        let data = Stamp { number: 0, at_ns: 0 }.data(200);
        let event = format!(r#"{{"name":"{EVENT}","channel":"{NOBODY}","data":"{data}"}}"#);
        let batch = vec![event; self.batch as usize].join(",");
        site.app.request(site.address, "POST", "batch_events", &[], &format!(r#"{{"batch":[{batch}]}}"#))
    }
}
