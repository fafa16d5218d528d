//! The breaker in front of a service (section 6): after some failures in a row it lets nobody through for a while, then one, and if that one
//! succeeds everybody.
//!
//! Each change of its state begins a generation, and what was admitted in an older one says nothing any more: a slow call from before
//! neither opens nor closes it. A call that was given up before it ended counts as nothing. The clock is the caller's.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::metrics;

/// When it opens and closes.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open: so long at first, doubled up to the longest with each trial that fails.
    pub open: Duration,
    /// See [`Thresholds::open`].
    pub longest_open: Duration,
    /// Calls at once while it is tried.
    pub probes: u32,
    /// Successes that close it then.
    pub successes: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        let open = Duration::from_secs(30);
        Self { failures: 5, open, longest_open: open, probes: 1, successes: 1 }
    }
}

/// Whether calls are let through, the better before the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// All are.
    Closed,
    /// A few are, to see.
    HalfOpen,
    /// None is.
    Open,
}

impl State {
    /// Its name in metrics and on pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    /// Whose, in metrics.
    name: &'static str,
    thresholds: Thresholds,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    generation: u64,
    /// How long it stays open the next time.
    open: Duration,
    /// However that is, not longer.
    at_most: Duration,
    /// The service has asked not to be called until then.
    not_before: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    Closed { failures: u32 },
    Open { since: Instant, period: Duration },
    HalfOpen { under_way: u32, successes: u32 },
}

/// A call that was let through. Dropped without a word, it was given up.
#[derive(Debug)]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    generation: u64,
    is_reported: bool,
}

/// A call that was not let through; after that time it makes sense to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected(pub Duration);

impl Breaker {
    /// Closed.
    #[must_use]
    pub const fn new(name: &'static str, thresholds: Thresholds) -> Self {
        let inner = Inner {
            phase: Phase::Closed { failures: 0 },
            generation: 0,
            open: thresholds.open,
            at_most: Duration::MAX,
            not_before: None,
        };
        Self { name, thresholds, inner: Mutex::new(inner) }
    }

    /// Lets a call through, or not.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn acquire(&self, now: Instant) -> Result<Permit<'_>, Rejected> {
        let mut inner = self.inner.lock();
        if let Some(at) = inner.not_before.filter(|at| *at > now) {
            return Err(Rejected(at - now));
        }
        if let Phase::Open { since, period } = inner.phase {
            let left = period.min(inner.at_most).saturating_sub(now.saturating_duration_since(since));
            if !left.is_zero() {
                return Err(Rejected(left));
            }
            self.enter(&mut inner, Phase::HalfOpen { under_way: 0, successes: 0 });
        }
        if let Phase::HalfOpen { under_way, .. } = &mut inner.phase {
            if *under_way >= self.thresholds.probes {
                return Err(Rejected(Duration::from_secs(1)));
            }
            *under_way += 1;
        }
        Ok(Permit { breaker: self, generation: inner.generation, is_reported: false })
    }

    /// Whether calls are let through.
    #[must_use]
    pub fn state(&self) -> State {
        self.inner.lock().phase.state()
    }

    /// What a call would meet: `Open` if it would be rejected, `HalfOpen` if it would be a trial.
    #[must_use]
    pub fn readiness(&self, now: Instant) -> State {
        let inner = self.inner.lock();
        let is_over = |since, period: Duration| now.saturating_duration_since(since) >= period.min(inner.at_most);
        match inner.phase {
            _ if inner.not_before.is_some_and(|at| at > now) => State::Open,
            Phase::Closed { .. } => State::Closed,
            Phase::Open { since, period } if is_over(since, period) => State::HalfOpen,
            Phase::HalfOpen { under_way, .. } if under_way < self.thresholds.probes => State::HalfOpen,
            Phase::Open { .. } | Phase::HalfOpen { .. } => State::Open,
        }
    }

    /// Lets no call through until then, whatever its state: the service has asked for that.
    pub fn postpone(&self, until: Instant) {
        let mut inner = self.inner.lock();
        inner.not_before = inner.not_before.max(Some(until));
    }

    /// From now on it is not open for longer than that, now neither.
    pub fn hurry(&self, at_most: Duration) {
        self.inner.lock().at_most = at_most;
    }

    fn enter(&self, inner: &mut Inner, phase: Phase) {
        metrics::outgoing_state(self.name, phase.state().as_str());
        inner.phase = phase;
        inner.generation += 1;
    }

    fn open(&self, inner: &mut Inner, now: Instant) {
        let period = inner.open;
        inner.open = period.saturating_mul(2).min(self.thresholds.longest_open);
        self.enter(inner, Phase::Open { since: now, period });
    }
}

impl Phase {
    const fn state(&self) -> State {
        match self {
            Self::Closed { .. } => State::Closed,
            Self::Open { .. } => State::Open,
            Self::HalfOpen { .. } => State::HalfOpen,
        }
    }
}

impl Permit<'_> {
    /// The service is well.
    pub fn succeeded(mut self) {
        self.is_reported = true;
        let mut inner = self.breaker.inner.lock();
        if inner.generation != self.generation {
            return;
        }
        match &mut inner.phase {
            Phase::Closed { failures } => *failures = 0,
            Phase::HalfOpen { under_way, successes } => {
                *under_way = under_way.saturating_sub(1);
                *successes += 1;
                if *successes >= self.breaker.thresholds.successes {
                    inner.open = self.breaker.thresholds.open;
                    self.breaker.enter(&mut inner, Phase::Closed { failures: 0 });
                }
            }
            Phase::Open { .. } => {}
        }
    }

    /// It is not.
    pub fn failed(mut self, now: Instant) {
        self.is_reported = true;
        let mut inner = self.breaker.inner.lock();
        if inner.generation != self.generation {
            return;
        }
        match &mut inner.phase {
            Phase::Closed { failures } => {
                *failures += 1;
                if *failures >= self.breaker.thresholds.failures {
                    self.breaker.open(&mut inner, now);
                }
            }
            Phase::HalfOpen { .. } => self.breaker.open(&mut inner, now),
            Phase::Open { .. } => {}
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_reported {
            return;
        }
        let mut inner = self.breaker.inner.lock();
        if inner.generation == self.generation
            && let Phase::HalfOpen { under_way, .. } = &mut inner.phase
        {
            *under_way = under_way.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::Value;

    use super::*;

    #[test]
    fn it_does_what_the_vectors_say() {
        let vectors: Value = serde_json::from_str(include_str!("../../tests/vectors/circuit_breaker.json")).unwrap();
        let origin = Instant::now();
        for scenario in vectors["scenarios"].as_array().unwrap() {
            let number = |name: &str| scenario["config"][name].as_u64().unwrap();
            let open = Duration::from_millis(number("open_ms"));
            let breaker = Breaker::new(
                "test",
                Thresholds {
                    failures: number("failure_threshold") as u32,
                    open,
                    longest_open: open,
                    probes: number("half_open_max_calls") as u32,
                    successes: number("successes_to_close") as u32,
                },
            );
            let mut permits = HashMap::new();
            for step in scenario["steps"].as_array().unwrap() {
                let now = origin + Duration::from_millis(step["t_ms"].as_u64().unwrap());
                let call = step["call"].as_str().unwrap();
                match step["op"].as_str().unwrap() {
                    "acquire" => {
                        let permit = breaker.acquire(now).ok();
                        assert_eq!(permit.is_some(), step["admitted"], "{}: {step}", scenario["name"]);
                        permits.insert(call, permit);
                    }
                    _ => match (permits.remove(call).flatten(), step["result"].as_str().unwrap()) {
                        (Some(permit), "success") => permit.succeeded(),
                        (Some(permit), "failure") => permit.failed(now),
                        (permit, _) => drop(permit),
                    },
                }
                assert_eq!(
                    breaker.state().as_str(),
                    step["state"].as_str().unwrap().replace('-', "_"),
                    "{}: {step}",
                    scenario["name"]
                );
            }
        }
    }

    #[test]
    fn a_service_that_asks_for_a_pause_gets_it() {
        let (breaker, now) = (Breaker::new("test", Thresholds::default()), Instant::now());
        breaker.postpone(now + Duration::from_secs(7));
        breaker.postpone(now + Duration::from_secs(3));
        assert_eq!(breaker.acquire(now).unwrap_err(), Rejected(Duration::from_secs(7)));
        assert_eq!(breaker.readiness(now), State::Open);
        assert!(breaker.acquire(now + Duration::from_secs(7)).is_ok());
    }

    #[test]
    fn it_says_what_a_call_would_meet_and_changes_nothing_by_that() {
        let (breaker, now) =
            (Breaker::new("test", Thresholds { failures: 1, ..Thresholds::default() }), Instant::now());
        assert_eq!(breaker.readiness(now), State::Closed);
        breaker.acquire(now).unwrap().failed(now);
        assert_eq!((breaker.readiness(now), breaker.state()), (State::Open, State::Open));
        let later = now + Duration::from_secs(30);
        assert_eq!((breaker.readiness(later), breaker.state()), (State::HalfOpen, State::Open));
        let trial = breaker.acquire(later).unwrap();
        assert_eq!((breaker.readiness(later), breaker.state()), (State::Open, State::HalfOpen), "one is enough");
        trial.succeeded();
        assert_eq!(breaker.readiness(later), State::Closed);
    }
    #[test]
    fn each_trial_that_fails_doubles_how_long_it_is_open_unless_there_is_no_time() {
        let [open, longest_open] = [1, 3].map(Duration::from_secs);
        let breaker = Breaker::new("test", Thresholds { failures: 1, open, longest_open, ..Thresholds::default() });
        let mut now = Instant::now();
        breaker.acquire(now).unwrap().failed(now);
        for seconds in [1, 2, 3, 3] {
            let open = Duration::from_secs(seconds);
            assert_eq!(breaker.acquire(now).unwrap_err(), Rejected(open));
            now += open;
            breaker.acquire(now).unwrap().failed(now);
        }
        breaker.hurry(Duration::from_millis(100));
        assert_eq!(breaker.acquire(now).unwrap_err(), Rejected(Duration::from_millis(100)));
        now += Duration::from_millis(100);
        breaker.acquire(now).unwrap().succeeded();
        breaker.acquire(now).unwrap().failed(now);
        breaker.hurry(Duration::MAX);
        assert_eq!(breaker.acquire(now).unwrap_err(), Rejected(open), "it had been well in between");
    }
}
