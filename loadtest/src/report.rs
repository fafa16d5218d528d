//! Repeats the measurements, floor and Herald in turn, and prints what came out as a Markdown table.

use std::path::Path;

use anyhow::Context as _;

use crate::measure::Readings;
use crate::scenario::{Bar, Scenario};

/// Takes every figure `rounds` times and prints the table; what is under way goes to stderr.
pub(crate) fn run(herald: &Path, rounds: usize, scenarios: &[Scenario]) -> anyhow::Result<()> {
    let mut readings: Vec<Vec<(f64, f64)>> = scenarios.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for (scenario, readings) in scenarios.iter().zip(&mut readings) {
            let (floor, herald) = (scenario.floor()?, scenario.herald(herald)?);
            let unit = scenario.unit();
            eprintln!("round {round} of {rounds}: {scenario}: floor {floor:.2} {unit}, Herald {herald:.2} {unit}");
            readings.push((floor, herald));
        }
    }
    println!("{}", machine()?);
    println!();
    println!("| what | floor | Herald | Herald ÷ floor | bar | |");
    println!("|---|---|---|---|---|---|");
    for (scenario, readings) in scenarios.iter().zip(&readings) {
        println!("{}", row(scenario, readings).context("nothing was measured")?);
    }
    Ok(())
}

/// One line: medians, each with the smallest and largest reading; a ratio is of two figures of the same round.
fn row(scenario: &Scenario, readings: &[(f64, f64)]) -> Option<String> {
    let floor = Readings::of(readings.iter().map(|(floor, _)| *floor).collect())?;
    let herald = Readings::of(readings.iter().map(|(_, herald)| *herald).collect())?;
    let ratio = Readings::of(readings.iter().map(|(floor, herald)| herald / floor).collect())?;
    let unit = scenario.unit();
    let show = |Readings { median, least, most }, unit| format!("{median:.2} {unit} ({least:.2}–{most:.2})");
    let (bar, ratio, met) = match scenario.bar() {
        Bar::TimesFloor(times) => (format!("≤ {times} ×"), show(ratio, "×"), ratio.median <= times),
        Bar::Absolute(figure) => (format!("≤ {figure} {unit}"), "–".to_owned(), herald.median <= figure),
    };
    let (floor, herald) = (show(floor, unit), show(herald, unit));
    let met = if met { "met" } else { "missed" };
    Some(format!("| {scenario} | {floor} | {herald} | {ratio} | {bar} | {met} |"))
}

/// What it was measured on.
pub(crate) fn machine() -> anyhow::Result<String> {
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let info = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    Ok(format!("{cores} cores ({model}), Linux {}, shared by server and clients.", kernel.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Broadcast, Memory};

    #[test]
    fn a_ratio_is_taken_within_a_round() {
        let readings = [(10.0, 12.0), (20.0, 24.0), (10.0, 14.0)];
        let row = row(&Scenario::Broadcast(Broadcast::default()), &readings).unwrap();
        assert!(row.contains("| 1.20 × (1.20–1.40) | ≤ 1.3 × | met |"), "{row}");
    }

    #[test]
    fn memory_has_an_absolute_bar() {
        let row = row(&Scenario::Memory(Memory::default()), &[(0.5, 8.5)]).unwrap();
        assert!(row.ends_with("| ≤ 8 KiB | missed |"), "{row}");
    }
}
