//! How long things took: their distribution, and how it went over time.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer than that is counted as that.
const LONGEST: Duration = Duration::from_secs(120);
/// What happens within this time is one point of the curve.
pub(crate) const SLOT: Duration = Duration::from_millis(100);
/// Points of a curve: what comes after them is in the last.
const MAX_SLOTS: usize = 100_000;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
    slots: Vec<Slot>,
    /// When the first slot began, in nanoseconds of the tool's clock.
    from_ns: Option<u64>,
}

/// What came within one [`SLOT`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    pub(crate) count: u64,
    pub(crate) sum_ns: u64,
    pub(crate) max_ns: u64,
}

impl Latencies {
    /// None yet.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3)?;
        Ok(Self { histogram, slots: Vec::new(), from_ns: None })
    }

    /// One that took from `begun_ns` until `ended_ns`.
    pub(crate) fn record(&mut self, begun_ns: u64, ended_ns: u64) {
        let took = ended_ns.saturating_sub(begun_ns);
        self.histogram.saturating_record(took);
        let from = *self.from_ns.get_or_insert(ended_ns);
        let slot = (ended_ns.saturating_sub(from) / SLOT.as_nanos() as u64) as usize;
        let slot = slot.min(MAX_SLOTS - 1);
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, Slot::default());
        }
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.count += 1;
            slot.sum_ns += took;
            slot.max_ns = slot.max_ns.max(took);
        }
    }

    /// Adds those of another thread; the curve stays this one's.
    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.histogram.add(&other.histogram)?;
        if self.slots.is_empty() {
            (self.slots, self.from_ns) = (other.slots.clone(), other.from_ns);
        }
        Ok(())
    }

    /// What that share of them did not exceed, in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        self.histogram.value_at_quantile(share) as f64 / 1e6
    }

    /// The longest, in milliseconds.
    pub(crate) fn max_ms(&self) -> f64 {
        self.histogram.max() as f64 / 1e6
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The curve over time, a point for each [`SLOT`].
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_the_curve() {
        let mut latencies = Latencies::new().unwrap();
        for number in 1..=1_000_u64 {
            latencies.record(number * 1_000_000, number * 1_000_000 + number * 1_000);
        }
        assert!((latencies.quantile_ms(0.5) - 0.5).abs() < 0.01);
        assert!((latencies.max_ms() - 1.0).abs() < 0.01);
        assert_eq!(latencies.count(), 1_000);
        assert!((10..=11).contains(&latencies.slots().len()), "one second is ten slots");
        assert_eq!(latencies.slots().iter().map(|slot| slot.count).sum::<u64>(), 1_000);
    }
}
