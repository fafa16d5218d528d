//! What came out, for people and for machines.

use serde_json::{Value, json};

use crate::measure::Readings;
use crate::outcome::{Figure, Outcome, Unit};

/// One round: the bare server, if it can do the same, and the server under measurement.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) floor: Option<Outcome>,
    pub(crate) server: Outcome,
}

impl Round {
    /// What must not happen and did.
    pub(crate) fn faults(&self) -> impl Iterator<Item = String> {
        let of = |who: &'static str, outcome: &Outcome| -> Vec<String> {
            outcome.faults.iter().map(|fault| format!("{who}: {fault}")).collect()
        };
        let floor = self.floor.as_ref().map(|floor| of("the bare server", floor)).unwrap_or_default();
        floor.into_iter().chain(of("the server", &self.server))
    }
}

/// Medians over the rounds, each with the smallest and the largest if there are several; a ratio is of two figures of one round.
pub(crate) fn text(rounds: &[Round]) -> String {
    let Some(first) = rounds.first() else { return String::new() };
    let mut rows = vec![["".to_owned(), "server".to_owned(), "floor".to_owned(), "server ÷ floor".to_owned()]];
    for figure in &first.server.figures {
        let [server, floor, ratio] = cells(rounds, figure).map(Option::unwrap_or_default);
        rows.push([figure.name.to_owned(), server, floor, ratio]);
    }
    let has_floor = rounds.iter().any(|round| round.floor.is_some());
    let columns = if has_floor { 4 } else { 2 };
    let width = |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &[String; 4]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    rows.iter().map(|row| line(row) + "\n").collect()
}

/// A figure of the server under measurement, of the bare server, and their ratio, as far as there is any.
pub(crate) fn cells(rounds: &[Round], figure: &Figure) -> [Option<String>; 3] {
    let floor = Readings::of(rounds.iter().filter_map(|round| round.floor.as_ref()?.value(figure.name)).collect());
    [
        values(rounds, figure).map(|readings| show(readings, figure.unit)),
        floor.map(|readings| show(readings, figure.unit)),
        ratios(rounds, figure).map(|readings| show(readings, Unit::Times)),
    ]
}

/// A figure of the server under measurement.
pub(crate) fn values(rounds: &[Round], figure: &Figure) -> Option<Readings> {
    Readings::of(rounds.iter().filter_map(|round| round.server.value(figure.name)).collect())
}

/// The ratios of a figure, where it has any.
pub(crate) fn ratios(rounds: &[Round], figure: &Figure) -> Option<Readings> {
    if !figure.unit.has_ratio() {
        return None;
    }
    let ratio = |round: &Round| Some(round.server.value(figure.name)? / round.floor.as_ref()?.value(figure.name)?);
    Readings::of(rounds.iter().filter_map(ratio).collect())
}

/// The median; with the smallest and the largest if they are not the same.
fn show(Readings { median, least, most }: Readings, unit: Unit) -> String {
    let [shown, least, most] = [median, least, most].map(|value| unit.show(value));
    if least == most { shown } else { format!("{shown} ({least} to {most})") }
}

/// Everything, round by round.
pub(crate) fn json(scenario: &str, rounds: &[Round]) -> Value {
    let outcome = |outcome: &Outcome| {
        let figures = outcome.figures.iter().map(|Figure { name, value, unit }| {
            ((*name).to_owned(), json!({ "value": value, "unit": unit.symbol().trim() }))
        });
        json!({ "figures": figures.collect::<serde_json::Map<_, _>>(), "faults": outcome.faults })
    };
    let rounds: Vec<Value> = rounds
        .iter()
        .map(|round| json!({ "server": outcome(&round.server), "floor": round.floor.as_ref().map(outcome) }))
        .collect();
    json!({ "scenario": scenario, "rounds": rounds })
}

#[cfg(test)]
impl Round {
    /// One in which a delivery took so many µs, and nothing was lost.
    pub(crate) fn of(floor: f64, server: f64) -> Self {
        let outcome = |value| {
            let mut outcome = Outcome::default();
            outcome.add("CPU per delivery", value, Unit::Microseconds);
            outcome.add_fault("lost", 0, "");
            outcome
        };
        Self { floor: Some(outcome(floor)), server: outcome(server) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn a_ratio_is_taken_within_a_round() {
        let text = text(&[Round::of(10.0, 12.0), Round::of(20.0, 24.0), Round::of(10.0, 14.0)]);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("CPU per delivery") && line.ends_with("1.20 × (1.20 × to 1.40 ×)"), "{text}");
        assert!(text.lines().nth(2).unwrap().starts_with("lost"), "{text}");
    }

    #[test]
    fn without_a_floor_there_is_no_column_for_it() {
        let text = text(&[Round { floor: None, ..Round::of(1.0, 2.0) }]);
        assert_eq!(text.lines().nth(1), Some("CPU per delivery   2.00 µs"));
    }

    #[test]
    fn a_machine_gets_every_round() {
        let json = json("broadcast", &[Round::of(1.0, 2.0)]);
        assert_eq!(json["rounds"][0]["server"]["figures"]["CPU per delivery"], json!({ "value": 2.0, "unit": "µs" }));
        assert_eq!(json["rounds"][0]["floor"]["figures"]["lost"]["value"], 0.0);
    }
}
