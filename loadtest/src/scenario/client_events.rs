//! Pairs of clients that send each other events: one asks, the other answers at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use memchr::memmem;

use super::{AT_ONCE, Bench, GRACE};
use crate::fleet::{Fleet, TURN, Wave};
use crate::latencies::Latencies;
use crate::outcome::{Outcome, Unit};
use crate::target::{Site, Target};
use crate::wire::{Stamp, client_frame};

/// Size of an event's data.
const BYTES: usize = 100;

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClientEvents {
    /// Pairs of clients, each on a private channel of its own
    #[arg(long, default_value_t = Self::default().pairs, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) pairs: u32,
    /// Events a second from each client; servers refuse more than 10
    #[arg(long, default_value_t = Self::default().rate, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rate: u32,
    /// For how long
    #[arg(long, default_value_t = Self::default().seconds, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
}

impl Default for ClientEvents {
    fn default() -> Self {
        Self { pairs: 100, rate: 5, seconds: 10 }
    }
}

/// What pairs of clients do for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    /// Pairs of clients.
    pub(crate) pairs: usize,
    /// Events a second from each client.
    pub(crate) rate: u32,
    /// For how long.
    pub(crate) period: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Exchanged {
    /// Events that were sent and want an answer.
    pub(crate) asked: u64,
    /// From before the first of a pair sends until the answer of the second is there.
    pub(crate) round_trips: Latencies,
    /// How long it went on.
    pub(crate) took: Duration,
    /// Clients that the server has cut off.
    pub(crate) cut_off: u64,
}

impl Exchanged {
    /// Events without an answer.
    pub(crate) fn unanswered(&self) -> u64 {
        self.asked.saturating_sub(self.round_trips.count())
    }
}

impl ClientEvents {
    pub(super) fn measure(&self, target: &Target, bench: Bench) -> anyhow::Result<Outcome> {
        let period = Duration::from_secs(self.seconds.into());
        let exchange = Exchange { pairs: self.pairs as usize, rate: self.rate, period };
        let mut fleet = exchange.fleet(&target.site, bench)?;
        let before = target.cpu()?;
        let exchanged = exchange.run(&mut fleet, bench, &AtomicBool::new(false))?;
        let used = target.cpu_since(before)?;

        let (mut outcome, round_trips) = (Outcome::default(), &exchanged.round_trips);
        outcome.add("round trips", round_trips.count() as f64, Unit::Count);
        let per_second = round_trips.count() as f64 / exchanged.took.as_secs_f64();
        outcome.add("round trips a second", per_second, Unit::PerSecond);
        let names = ["round trip, median", "round trip, p99", "round trip, p99.9", "round trip, longest"];
        outcome.add_latencies(names, round_trips);
        let events = fleet.tally().deliveries as f64;
        let per_event = used.map(|used| used.as_secs_f64() * 1e6 / events);
        outcome.add_known("CPU per event", per_event, Unit::Microseconds);
        outcome.add_fault("unanswered", exchanged.unanswered(), format_args!(" of {}", exchanged.asked));
        outcome.add_fault("clients cut off", exchanged.cut_off, format_args!(", by code: {:?}", fleet.closed()));
        outcome.latencies = Some(exchanged.round_trips);
        Ok(outcome)
    }
}

impl Exchange {
    /// The clients: number `n` asks and number `n` plus the pairs answers, since both are on the same channel.
    pub(crate) fn fleet(&self, site: &Site, bench: Bench) -> anyhow::Result<Fleet> {
        let mut fleet = Fleet::new(site, bench.clock, (0..self.pairs).map(channel).collect())?;
        fleet.tell_events();
        let wave = Wave { count: 2 * self.pairs, at_once: AT_ONCE, within: Duration::from_secs(60) };
        fleet.connect(wave, &bench.progress("subscribing", wave.count as u64))?;
        Ok(fleet)
    }

    /// Goes on until the time is over or `stop` is set, and then until nothing is unanswered.
    pub(crate) fn run(&self, fleet: &mut Fleet, bench: Bench, stop: &AtomicBool) -> anyhow::Result<Exchanged> {
        let (start, step) = (Instant::now(), Duration::from_secs(1) / self.rate / u32::try_from(self.pairs)?);
        let (mut asked, mut round_trips, mut refusal) = (0_u64, Latencies::new()?, None);
        let progress = bench.progress("round trips", (self.period.as_nanos() / step.as_nanos()) as u64);
        let mut deadline = None;
        loop {
            // Each event is due at its own time, so a pair that waits holds nobody up.
            let due = start + Duration::from_nanos(step.as_nanos() as u64 * asked);
            let now = Instant::now();
            let is_over = due >= start + self.period || now >= start + self.period || stop.load(Ordering::Relaxed);
            let wait = if is_over {
                let deadline = *deadline.get_or_insert(now + GRACE);
                if round_trips.count() >= asked || now >= deadline {
                    break;
                }
                TURN
            } else if due <= now {
                let pair = asked as usize % self.pairs;
                let stamp = Stamp { number: asked / self.pairs as u64, at_ns: bench.clock.ns() };
                fleet.send(pair, &event("client-ping", pair, &stamp.data(BYTES)))?;
                asked += 1;
                Duration::ZERO
            } else {
                (due - now).min(TURN)
            };
            fleet.turn(wait, |number, text| match Stamp::find(text, 0) {
                Some(at) if number < self.pairs => {
                    let stamp = Stamp::read(text.get(at)?)?;
                    round_trips.record(stamp.at_ns, bench.clock.ns());
                    None
                }
                Some(at) => {
                    let stamp = Stamp::read(text.get(at)?)?;
                    Some(event("client-pong", number - self.pairs, &stamp.data(BYTES)))
                }
                None => {
                    if is_refusal(text) {
                        refusal = Some(String::from_utf8_lossy(text).into_owned());
                    }
                    None
                }
            })?;
            if let Some(refusal) = refusal {
                anyhow::bail!(
                    "the server refuses client events (are they on for this app, and is the rate allowed?): {refusal}"
                );
            }
            progress.set_position(round_trips.count());
        }
        let cut_off = fleet.closed().values().sum::<usize>() as u64;
        Ok(Exchanged { asked, round_trips, took: start.elapsed(), cut_off })
    }
}

/// Pusher's own code for a client event that is not let through.
fn is_refusal(text: &[u8]) -> bool {
    memmem::find(text, b"pusher:error").is_some() && memmem::find(text, b"4301").is_some()
}

fn channel(pair: usize) -> String {
    format!("private-pair-{pair:05}")
}

fn event(name: &str, pair: usize, data: &str) -> Vec<u8> {
    client_frame(&format!(r#"{{"event":"{name}","channel":"{}","data":"{data}"}}"#, channel(pair)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_no_event() {
        assert!(is_refusal(br#"{"event":"pusher:error","data":{"code":4301,"message":"no"},"channel":"a"}"#));
        assert!(!is_refusal(br#"{"event":"pusher:error","data":{"code":4009,"message":"no"}}"#));
        assert!(!is_refusal(br#"{"event":"client-ping","channel":"private-pair-04301","data":"x"}"#));
    }

    #[test]
    fn what_has_no_answer_is_counted() {
        let mut exchanged =
            Exchanged { asked: 3, round_trips: Latencies::new().unwrap(), took: Duration::ZERO, cut_off: 0 };
        exchanged.round_trips.record(0, 1);
        assert_eq!(exchanged.unanswered(), 2);
    }
}
