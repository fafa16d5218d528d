//! The breaker in front of a service (section 6): after some failures in a row it lets nobody through for a while, then one, and if that one
//! succeeds everybody.
//!
//! Each change of its state begins a generation, and what was admitted in an older one says nothing any more: a slow call from before
//! neither opens nor closes it. A call that was given up before it ended counts as nothing. The clock is the caller's.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// When it opens and closes.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open.
    pub open: Duration,
    /// Calls at once while it is tried.
    pub probes: u32,
    /// Successes that close it then.
    pub successes: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { failures: 5, open: Duration::from_secs(30), probes: 1, successes: 1 }
    }
}

/// Whether calls are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All are.
    Closed,
    /// None is.
    Open,
    /// A few are, to see.
    HalfOpen,
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
    thresholds: Thresholds,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    generation: u64,
    /// The service has asked not to be called until then.
    not_before: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    Closed { failures: u32 },
    Open { since: Instant },
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
    pub const fn new(thresholds: Thresholds) -> Self {
        let inner = Inner { phase: Phase::Closed { failures: 0 }, generation: 0, not_before: None };
        Self { thresholds, inner: Mutex::new(inner) }
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
        if let Phase::Open { since } = inner.phase {
            let left = self.thresholds.open.saturating_sub(now.saturating_duration_since(since));
            if !left.is_zero() {
                return Err(Rejected(left));
            }
            inner.enter(Phase::HalfOpen { under_way: 0, successes: 0 });
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
        match self.inner.lock().phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Lets no call through until then, whatever its state: the service has asked for that.
    pub fn postpone(&self, until: Instant) {
        let mut inner = self.inner.lock();
        inner.not_before = inner.not_before.max(Some(until));
    }
}

impl Inner {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
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
                    inner.enter(Phase::Closed { failures: 0 });
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
                    inner.enter(Phase::Open { since: now });
                }
            }
            Phase::HalfOpen { .. } => inner.enter(Phase::Open { since: now }),
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
            let breaker = Breaker::new(Thresholds {
                failures: number("failure_threshold") as u32,
                open: Duration::from_millis(number("open_ms")),
                probes: number("half_open_max_calls") as u32,
                successes: number("successes_to_close") as u32,
            });
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
        let (breaker, now) = (Breaker::new(Thresholds::default()), Instant::now());
        breaker.postpone(now + Duration::from_secs(7));
        breaker.postpone(now + Duration::from_secs(3));
        assert_eq!(breaker.acquire(now).unwrap_err(), Rejected(Duration::from_secs(7)));
        assert!(breaker.acquire(now + Duration::from_secs(7)).is_ok());
    }
}
