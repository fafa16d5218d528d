//! Whether this node has time to spare: what decides how an event is written.
//!
//! Written at once by whoever publishes, an event costs little more than the system call. Left to a flusher it costs more, but what comes meanwhile
//! goes out with it: a node without time to spare saves by that. [Decision 0005](../../docs/decisions/0005-two-ways-to-the-socket.md)
//! has the figures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeMetrics};

use super::queue::Way;

/// How often the threads are asked how busy they were.
const WINDOW: Duration = Duration::from_millis(50);
/// From this share of the time on they have none to spare.
const BUSY: f64 = 0.9;
/// Several threads share the writing of an event to more subscribers than that.
const FOR_ONE_THREAD: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub struct Pressure {
    is_high: AtomicBool,
    last: Mutex<Option<Reading>>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    /// Of all threads together.
    busy: Duration,
}

impl Pressure {
    /// How an event to so many subscribers is written now.
    pub fn way(&self, now: Instant, subscribers: usize) -> Way {
        let Ok(runtime) = Handle::try_current() else { return Way::Together };
        let metrics = runtime.metrics();
        if let Some(mut last) = self.last.try_lock()
            && last.is_none_or(|last| now.duration_since(last.at) >= WINDOW)
        {
            let reading = Reading { at: now, busy: busy(&metrics) };
            if let Some(before) = last.replace(reading) {
                self.is_high.store(reading.share_since(before, metrics.num_workers()) >= BUSY, Ordering::Relaxed);
            }
        }
        let is_for_many = subscribers > FOR_ONE_THREAD && metrics.num_workers() > 1;
        if is_for_many || self.is_high.load(Ordering::Relaxed) { Way::Together } else { Way::AtOnce }
    }
}

impl Reading {
    /// Of the threads' time since then, the share in which they were busy.
    fn share_since(self, before: Self, threads: usize) -> f64 {
        let time = (self.at - before.at).as_secs_f64() * threads as f64;
        (self.busy - before.busy).as_secs_f64() / time
    }
}

fn busy(metrics: &RuntimeMetrics) -> Duration {
    (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_works_all_the_time_has_none_to_spare() {
        let start = Instant::now();
        let before = Reading { at: start, busy: Duration::from_secs(7) };
        let after =
            |busy_ms| Reading { at: start + WINDOW, busy: Duration::from_secs(7) + Duration::from_millis(busy_ms) };
        assert!((after(25).share_since(before, 1) - 0.5).abs() < 1e-6);
        assert!((after(50).share_since(before, 2) - 0.5).abs() < 1e-6);
    }

    #[tokio::test]
    async fn one_that_rests_writes_at_once_and_one_that_does_not_writes_together() {
        let pressure = Pressure::default();
        assert_eq!(pressure.way(Instant::now(), 1_000), Way::AtOnce);
        let deadline = Instant::now() + Duration::from_secs(20);
        while pressure.way(Instant::now(), 1_000) == Way::AtOnce {
            assert!(Instant::now() < deadline, "nobody has noticed that this thread never rests");
            let work = Instant::now() + Duration::from_millis(2);
            while Instant::now() < work {}
            tokio::task::yield_now().await;
        }
        while pressure.way(Instant::now(), 1_000) == Way::Together {
            assert!(Instant::now() < deadline, "nobody has noticed that this thread rests again");
            tokio::time::sleep(WINDOW).await;
        }
    }
}
