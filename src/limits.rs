//! How many of something may happen in a time: the generic cell rate algorithm.
//!
//! A [`Rate`] lets as many pass at once as in a whole window, then one each `window / limit`. All that has to be remembered is when the
//! next one would be due if they came evenly, so the state of a limit is one `Option<Instant>`, wherever its owner keeps it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// So many in a window.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    interval: Duration,
    window: Duration,
}

/// Why something may not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not now; so much later it may.
    For(Duration),
    /// It is more at once than the limit ever allows.
    Always,
}

impl Rate {
    /// `limit` in each `window`; at least one.
    #[must_use]
    pub fn new(limit: usize, window: Duration) -> Self {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX).max(1);
        let micros = window.as_micros().div_ceil(u128::from(limit));
        let interval = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        Self { interval, window: interval.saturating_mul(limit) }
    }

    /// The time between two that come evenly.
    #[must_use]
    pub const fn interval(self) -> Duration {
        self.interval
    }

    /// The time of as many as may come at once.
    #[must_use]
    pub const fn window(self) -> Duration {
        self.window
    }

    /// `limit` in each second; at least one.
    #[must_use]
    pub fn per_second(limit: usize) -> Self {
        Self::new(limit, Duration::from_secs(1))
    }

    /// Lets `cost` of them happen at the time `now`, and remembers that in `due`.
    ///
    /// # Errors
    /// When they may not happen; nothing is remembered then.
    pub fn admit(self, due: &mut Option<Instant>, now: Instant, cost: usize) -> Result<(), Refused> {
        let cost = self.interval.saturating_mul(u32::try_from(cost).unwrap_or(u32::MAX));
        if cost > self.window {
            return Err(Refused::Always);
        }
        let next = due.map_or(now, |due| due.max(now)) + cost;
        let wait = next.saturating_duration_since(now + self.window);
        if !wait.is_zero() {
            return Err(Refused::For(wait));
        }
        if !cost.is_zero() {
            *due = Some(next);
        }
        Ok(())
    }
}

/// A limit that several tasks share.
#[derive(Debug)]
pub struct Limiter {
    /// How many there may be, as configured.
    pub limit: usize,
    rate: Rate,
    due: Mutex<Option<Instant>>,
}

impl Limiter {
    /// `limit` in each second; at least one.
    #[must_use]
    pub fn per_second(limit: usize) -> Self {
        Self { limit, rate: Rate::per_second(limit), due: Mutex::default() }
    }

    /// How they have to be spread.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// Lets `cost` of them happen now.
    ///
    /// # Errors
    /// When they may not happen.
    pub fn admit(&self, cost: usize) -> Result<(), Refused> {
        self.rate.admit(&mut self.due.lock(), Instant::now(), cost)
    }
}

/// How long attempts to connect are counted together.
const MINUTE: Duration = Duration::from_secs(60);
/// Addresses that are counted at once; beyond that, new ones are let in uncounted until the minute is over.
const MAX_ADDRESSES: usize = 100_000;

/// Counts attempts to connect by address, minute by minute.
#[derive(Debug)]
pub struct Attempts {
    limit: Option<usize>,
    counted: Mutex<(Instant, HashMap<IpAddr, usize>)>,
}

impl Attempts {
    /// So many attempts are allowed a minute.
    #[must_use]
    pub fn new(limit: Option<usize>) -> Self {
        Self { limit, counted: Mutex::new((Instant::now(), HashMap::new())) }
    }

    /// Counts one; false if it is one too many.
    #[must_use]
    pub fn admit(&self, address: IpAddr) -> bool {
        let Some(limit) = self.limit else { return true };
        let mut counted = self.counted.lock();
        if counted.0.elapsed() >= MINUTE {
            *counted = (Instant::now(), HashMap::new());
        }
        if counted.1.len() >= MAX_ADDRESSES && !counted.1.contains_key(&address) {
            return true;
        }
        let attempts = counted.1.entry(address).or_default();
        *attempts += 1;
        *attempts <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../tests/vectors/rate_limit_gcra.json")).unwrap();
        for sequence in vectors["sequences"].as_array().unwrap() {
            let number = |value: &serde_json::Value, member: &str| value[member].as_i64().unwrap();
            let limit = usize::try_from(number(sequence, "limit")).unwrap();
            let rate = Rate::new(limit, Duration::from_micros(sequence["window_us"].as_u64().unwrap()));
            let steps = sequence["steps"].as_array().unwrap();
            // Instants begin anywhere: the first step stands a day in, since a clock of the vectors goes back.
            let start = Instant::now() + Duration::from_secs(86_400);
            let first = number(&steps[0], "now_us");
            let mut due = None;
            for (position, step) in steps.iter().enumerate() {
                let since = number(step, "now_us") - first;
                let distance = Duration::from_micros(since.unsigned_abs());
                let now = if since < 0 { start - distance } else { start + distance };
                let expected = match (step["allowed"].as_bool().unwrap(), number(step, "retry_after_us")) {
                    (true, _) => Ok(()),
                    (false, -1) => Err(Refused::Always),
                    (false, wait) => Err(Refused::For(Duration::from_micros(wait.unsigned_abs()))),
                };
                let cost = usize::try_from(number(step, "cost")).unwrap();
                assert_eq!(rate.admit(&mut due, now, cost), expected, "{}, step {position}", sequence["name"]);
            }
        }
    }

    #[test]
    fn a_shared_limit_lets_as_many_pass_as_it_says() {
        let limiter = Limiter::per_second(3);
        assert_eq!([1, 2].map(|cost| limiter.admit(cost)), [Ok(()), Ok(())]);
        assert!(matches!(limiter.admit(1), Err(Refused::For(wait)) if wait <= Duration::from_secs(1)));
        assert_eq!(limiter.admit(4), Err(Refused::Always));
    }

    #[test]
    fn attempts_are_counted_by_address() {
        let attempts = Attempts::new(Some(2));
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert_eq!([one, one, one, other].map(|address| attempts.admit(address)), [true, true, false, true]);
        assert!(Attempts::new(None).admit(one));
    }
}
