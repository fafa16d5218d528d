//! What a measurement came to: figures, and what must not have happened.

use std::fmt;

use crate::latencies::Latencies;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Microseconds,
    Milliseconds,
    Seconds,
    PerSecond,
    Kibibytes,
    Mebibytes,
    /// Of one core, or of anything.
    Percent,
    Times,
    Count,
}

impl Unit {
    /// Behind a number.
    pub(crate) const fn symbol(self) -> &'static str {
        match self {
            Self::Microseconds => " µs",
            Self::Milliseconds => " ms",
            Self::Seconds => " s",
            Self::PerSecond => " /s",
            Self::Kibibytes => " KiB",
            Self::Mebibytes => " MiB",
            Self::Percent => " %",
            Self::Times => " ×",
            Self::Count => "",
        }
    }

    /// Whether such a figure of two servers has a ratio that says something.
    pub(crate) const fn has_ratio(self) -> bool {
        // Of memory a bare server needs next to none.
        !matches!(self, Self::Count | Self::Percent | Self::Times | Self::Kibibytes | Self::Mebibytes)
    }

    /// A value as people read it: three digits that count.
    pub(crate) fn show(self, value: f64) -> String {
        let digits = match value.abs() {
            _ if self == Self::Count => 0,
            100.0.. => 0,
            10.0.. => 1,
            0.995.. => 2,
            _ => 3,
        };
        format!("{value:.digits$}{}", self.symbol())
    }
}

/// One of several things that were measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    /// What it is; the same of every server.
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// In the order in which they are shown.
    pub(crate) figures: Vec<Figure>,
    /// What must not happen and did.
    pub(crate) faults: Vec<String>,
    /// For the plot.
    pub(crate) latencies: Option<Latencies>,
}

impl Outcome {
    /// Adds a figure.
    pub(crate) fn add(&mut self, name: &'static str, value: f64, unit: Unit) {
        self.figures.push(Figure { name, value, unit });
    }

    /// Adds one that may be unknown.
    pub(crate) fn add_known(&mut self, name: &'static str, value: Option<f64>, unit: Unit) {
        self.figures.extend(value.map(|value| Figure { name, value, unit }));
    }

    /// Adds a count that has to be 0.
    pub(crate) fn add_fault(&mut self, name: &'static str, count: u64, detail: impl fmt::Display) {
        self.add(name, count as f64, Unit::Count);
        if count > 0 {
            self.faults.push(format!("{name}: {count}{detail}"));
        }
    }

    /// Adds the usual quantiles.
    pub(crate) fn add_latencies(&mut self, names: [&'static str; 4], latencies: &Latencies) {
        let values = [0.5, 0.99, 0.999].map(|share| latencies.quantile_ms(share));
        for (name, value) in names.into_iter().zip(values.into_iter().chain([latencies.max_ms()])) {
            self.add(name, value, Unit::Milliseconds);
        }
    }

    /// The value of a figure.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_count() {
        let shown = [0.031, 1.0, 4.8412, 48.41, 48_412.3].map(|value| Unit::Microseconds.show(value));
        assert_eq!(shown, ["0.031 µs", "1.00 µs", "4.84 µs", "48.4 µs", "48412 µs"]);
        assert_eq!(Unit::Count.show(3.0), "3");
    }

    #[test]
    fn what_must_not_happen_is_a_fault() {
        let mut outcome = Outcome::default();
        outcome.add_fault("lost", 0, "");
        assert!(outcome.faults.is_empty());
        outcome.add_fault("lost", 7, " of 10");
        assert_eq!(outcome.faults, ["lost: 7 of 10"]);
        assert_eq!(outcome.value("lost"), Some(0.0));
    }
}
