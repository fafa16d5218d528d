//! How many of something may happen in a time: the generic cell rate algorithm.
//!
//! A [`Rate`] lets as many pass at once as in a whole window, then one each `window / limit`. All that has to be remembered is when the
//! next one would be due if they came evenly, so the state of a limit is one `Option<Instant>`, wherever its owner keeps it.

use std::fmt;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

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

/// What counting has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Why it may not happen, if it may not.
    pub refused: Option<Refused>,
    /// How many may still happen at once.
    pub remaining: usize,
    /// How much later as many may happen as ever.
    pub reset_after: Duration,
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

    /// The same, and where the limit stands then.
    pub fn count(self, due: &mut Option<Instant>, now: Instant, cost: usize) -> Counted {
        let refused = self.admit(due, now, cost).err();
        let reset_after = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
        self.counted(refused, reset_after)
    }

    /// What it means that as many may happen as ever after that time.
    #[must_use]
    pub fn counted(self, refused: Option<Refused>, reset_after: Duration) -> Counted {
        let remaining = self.window.saturating_sub(reset_after).as_micros() / self.interval.as_micros().max(1);
        Counted { refused, remaining: usize::try_from(remaining).unwrap_or(usize::MAX), reset_after }
    }

    /// What is left of it for one of so many who count by themselves.
    #[must_use]
    pub fn shared_by(self, nodes: usize) -> Self {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX).max(1);
        let limit = (self.window.as_micros() / self.interval.as_micros().max(1)).div_ceil(u128::from(nodes));
        Self::new(usize::try_from(limit).unwrap_or(usize::MAX), self.window)
    }
}

/// A limit that several tasks share.
#[derive(Debug)]
pub struct Limiter {
    /// How many there may be, as configured.
    pub limit: usize,
    rate: Rate,
    due: Mutex<Option<Instant>>,
    /// What was counted ahead over the cluster.
    pub ahead: Ahead,
}

/// What a node has counted ahead against a limit of the cluster, so that it need not ask each time.
#[derive(Debug)]
pub struct Ahead {
    left: Mutex<(usize, Instant)>,
    /// Whoever has it may count ahead: if all who find nothing left did, nothing would be left for other nodes.
    pub turn: Semaphore,
}

/// How long it counts: what a node does not use is not kept from others for ever.
const AHEAD: Duration = Duration::from_secs(1);

impl Ahead {
    fn new() -> Self {
        Self { left: Mutex::new((0, Instant::now())), turn: Semaphore::const_new(1) }
    }

    /// Takes `cost` of what was counted; false if it is not there.
    #[must_use]
    pub fn take(&self, cost: usize) -> bool {
        let mut left = self.left.lock();
        let is_there = left.0 >= cost && Instant::now() < left.1;
        if is_there {
            left.0 -= cost;
        }
        is_there
    }

    /// So many were counted.
    pub fn put(&self, counted: usize) {
        *self.left.lock() = (counted, Instant::now() + AHEAD);
    }
}

impl Limiter {
    /// `limit` in each second; at least one.
    #[must_use]
    pub fn per_second(limit: usize) -> Self {
        Self { limit, rate: Rate::per_second(limit), due: Mutex::default(), ahead: Ahead::new() }
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
        self.admit_share(cost, 1)
    }

    /// The same, where so many nodes count by themselves.
    ///
    /// # Errors
    /// When they may not happen.
    pub fn admit_share(&self, cost: usize, nodes: usize) -> Result<(), Refused> {
        self.rate.shared_by(nodes).admit(&mut self.due.lock(), Instant::now(), cost)
    }
}

/// So many in a window, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many.
    pub limit: usize,
    /// In how long.
    pub window: Duration,
}

/// Windows and what they are called.
const WINDOWS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 3_600), ("d", 86_400)];

impl Quota {
    /// The most that one may allow.
    pub const MOST: usize = 10_000_000;

    /// Reads `100/min`: a number and one of s, min, h and d.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (limit, window) = text.split_once('/')?;
        let limit = limit.trim().parse().ok().filter(|limit| (1..=Self::MOST).contains(limit))?;
        let (_, seconds) = WINDOWS.into_iter().find(|(name, _)| *name == window.trim())?;
        Some(Self { limit, window: Duration::from_secs(seconds) })
    }

    /// How they have to be spread.
    #[must_use]
    pub fn rate(self) -> Rate {
        Rate::new(self.limit, self.window)
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.window.as_secs();
        let name = WINDOWS.into_iter().find(|(_, known)| *known == seconds).map_or("s", |(name, _)| name);
        write!(f, "{}/{name}", self.limit)
    }
}

/// Callers that are counted at once; beyond that, new ones are let in uncounted until older ones have nothing left to remember.
const MOST_CALLERS: usize = 200_000;

/// Limits that hold for each caller by itself, as this node counts them.
#[derive(Debug, Default)]
pub struct Callers {
    due: DashMap<String, Instant>,
}

impl Callers {
    /// Counts `cost` of whoever has this name.
    #[must_use]
    pub fn count(&self, name: &str, rate: Rate, cost: usize) -> Counted {
        let now = Instant::now();
        if let Some(mut known) = self.due.get_mut(name) {
            let mut due = Some(*known);
            let counted = rate.count(&mut due, now, cost);
            *known = due.unwrap_or(now);
            return counted;
        }
        let mut due = None;
        let counted = rate.count(&mut due, now, cost);
        if let Some(due) = due
            && self.due.len() < MOST_CALLERS
        {
            self.due.insert(name.to_owned(), due);
        }
        counted
    }

    /// Forgets those who may do as much as if they had never come.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.due.retain(|_, due| *due > now);
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
                let refused = match (step["allowed"].as_bool().unwrap(), number(step, "retry_after_us")) {
                    (true, _) => None,
                    (false, -1) => Some(Refused::Always),
                    (false, wait) => Some(Refused::For(Duration::from_micros(wait.unsigned_abs()))),
                };
                let expected = Counted {
                    refused,
                    remaining: usize::try_from(number(step, "remaining")).unwrap(),
                    reset_after: Duration::from_micros(step["reset_after_us"].as_u64().unwrap()),
                };
                let cost = usize::try_from(number(step, "cost")).unwrap();
                assert_eq!(rate.count(&mut due, now, cost), expected, "{}, step {position}", sequence["name"]);
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
    fn each_caller_is_counted_by_itself_and_forgotten_when_there_is_nothing_to_remember() {
        let callers = Callers::default();
        let (slow, fast) = (Rate::new(2, Duration::from_secs(3_600)), Rate::new(1, Duration::from_micros(1)));
        let count = |name: &str| callers.count(name, slow, 1);
        assert_eq!(["ann", "ann", "bob"].map(|name| count(name).remaining), [1, 0, 1]);
        assert!(matches!(count("ann").refused, Some(Refused::For(wait)) if wait <= Duration::from_secs(1_800)));
        let refused = callers.count("new", slow, 3);
        assert_eq!((refused.refused, callers.due.len()), (Some(Refused::Always), 2), "nothing is remembered of that");
        assert_eq!(callers.count("soon over", fast, 1).refused, None);
        while callers.due.contains_key("soon over") {
            callers.sweep();
        }
        assert_eq!(callers.due.len(), 2);
    }

    #[test]
    fn a_quota_is_written_as_it_is_read() {
        for text in ["1200/min", "1/s", "30/h", "5/d"] {
            assert_eq!(Quota::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "100", "0/s", "-1/s", "100/week", "100/", "/s", "10000001/s", "1.5/s"] {
            assert_eq!(Quota::parse(text), None, "{text:?}");
        }
        let third = Quota::parse("100/min").unwrap().rate().shared_by(3);
        assert_eq!(third.interval(), Rate::new(34, Duration::from_secs(60)).interval());
    }
}
