//! Several backends at once, each with its own requests over a connection that is kept alive.

use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::Bench;
use crate::backend::{Answer, Backend};
use crate::latencies::Latencies;
use crate::outcome::{Outcome, Unit};
use crate::target::Target;
use crate::threads::join;

/// How often progress is told, in requests.
const TOLD_EVERY: u32 = 100;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    /// Requests from each backend, which begins anew when it is through with its own.
    pub(crate) each: u32,
    /// Requests a second from each of them; 0 sends the next as soon as the last is answered.
    pub(crate) rate: u32,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Requests of all backends.
    pub(crate) requests: f64,
    /// From before a request is sent until its answer is there.
    pub(crate) answers: Latencies,
    /// How long all of it took.
    pub(crate) took: Duration,
    /// The server's CPU time, if that is known.
    pub(crate) used: Option<Duration>,
}

impl Asked {
    /// Requests a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.requests / self.took.as_secs_f64()
    }

    /// The server's CPU for each of so many, in µs.
    pub(crate) fn cpu_us(&self, of: f64) -> Option<f64> {
        self.used.map(|used| used.as_secs_f64() * 1e6 / of)
    }

    /// Adds how long answers took.
    pub(crate) fn report_answers(&self, outcome: &mut Outcome) {
        outcome.add_latencies(["answer, median", "answer, p99", "answer, p99.9", "answer, longest"], &self.answers);
    }

    /// Adds the rate and the cost of what is asked for.
    pub(crate) fn report(&self, outcome: &mut Outcome, per_second: &'static str, cpu: &'static str) {
        outcome.add(per_second, self.per_second(), Unit::PerSecond);
        outcome.add_known(cpu, self.cpu_us(self.requests), Unit::Microseconds);
    }
}

impl Asking {
    /// Asks with as many backends as there are lists of requests. Any answer that is no success ends it.
    pub(crate) fn run(
        self,
        target: &Target,
        bench: Bench,
        requests: &[Vec<String>],
        what: &'static str,
    ) -> anyhow::Result<Asked> {
        let all = u64::from(self.each) * requests.len() as u64;
        let progress = bench.progress(what, all);
        let connect = |requests| Ok((Backend::connect(&target.site)?, requests));
        let mut backends = requests.iter().map(connect).collect::<anyhow::Result<Vec<_>>>()?;
        let (before, begun) = (target.cpu()?, Instant::now());
        let answers = thread::scope(|scope| {
            let progress = &progress;
            let ask = backends
                .iter_mut()
                .map(|(backend, requests)| scope.spawn(move || self.ask(backend, requests, bench, progress)));
            // All are begun before one is waited for.
            let asking: Vec<_> = ask.collect();
            asking.into_iter().map(join).collect::<anyhow::Result<Vec<_>>>()
        })?;
        let took = begun.elapsed();
        let used = target.cpu_since(before)?;
        let mut together = Latencies::new()?;
        answers.iter().try_for_each(|answers| together.add(answers))?;
        Ok(Asked { requests: all as f64, answers: together, took, used })
    }

    fn ask(
        self,
        backend: &mut Backend,
        requests: &[String],
        bench: Bench,
        progress: &ProgressBar,
    ) -> anyhow::Result<Latencies> {
        let (start, mut answers) = (Instant::now(), Latencies::new()?);
        for (number, request) in (0..self.each).zip(requests.iter().cycle()) {
            if self.rate > 0 {
                let due = start + Duration::from_secs(1) / self.rate * number;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let begun_ns = bench.clock.ns();
            let Answer { status, body } = backend.ask(request)?;
            anyhow::ensure!((200..300).contains(&status), "the server answered {status}: {body}");
            answers.record(begun_ns, bench.clock.ns());
            if number % TOLD_EVERY == TOLD_EVERY - 1 {
                progress.inc(TOLD_EVERY.into());
            }
        }
        Ok(answers)
    }
}
