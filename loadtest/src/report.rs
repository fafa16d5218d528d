//! The whole matrix: Herald and the bare server in turn, several times, against the bars that Herald has to meet; written into a page.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::outcome::{Figure, Unit};
use crate::scenario::{Bench, Scenario};
use crate::table::{self, Round};

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    /// At most this many times the bare server's.
    TimesFloor(f64),
    /// At least this many times the bare server's.
    AtLeastTimesFloor(f64),
    /// At most this.
    AtMost(f64),
}

/// One scenario of the matrix, and which of its figures have a bar.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// What is done, for people.
    pub(crate) what: String,
    pub(crate) scenario: Scenario,
    /// What the bare server does beside it, where that is something else.
    pub(crate) beside: Option<Scenario>,
    pub(crate) bars: Vec<(&'static str, Bar)>,
}

/// An entry and what came out.
#[derive(Debug)]
struct Taken {
    entry: Entry,
    rounds: Vec<Round>,
}

/// Where the page's generated part begins and ends.
const BEGIN: &str = "<!-- figures: written by `herald-loadtest report` -->\n";
const END: &str = "<!-- end of figures -->\n";

/// Takes all figures `rounds` times, shows them, and writes them into `page` if there is one. True if nothing happened that must not.
pub(crate) fn run(
    entries: Vec<Entry>,
    herald: &Path,
    rounds: u8,
    page: Option<&Path>,
    bench: Bench,
) -> anyhow::Result<bool> {
    let text = page.map(std::fs::read_to_string).transpose().context("the page cannot be read")?;
    let mut taken: Vec<Taken> = entries.into_iter().map(|entry| Taken { entry, rounds: Vec::new() }).collect();
    let mut is_right = true;
    for number in 1..=rounds {
        for Taken { entry, rounds: of_entry } in &mut taken {
            eprintln!("round {number} of {rounds}: {}", entry.what);
            let round = round(entry, herald, bench).with_context(|| entry.what.clone())?;
            round.faults().for_each(|fault| {
                eprintln!("  {fault}");
                is_right = false;
            });
            for (name, bar) in &entry.bars {
                let (_, value, verdict) = row(std::slice::from_ref(&round), name, *bar);
                eprintln!("  {name}: {value}: {verdict}");
            }
            of_entry.push(round);
        }
    }
    let figures = figures(&taken, rounds)?;
    match page.zip(text) {
        Some((page, text)) => {
            std::fs::write(page, replaced(&text, &figures)?).with_context(|| format!("{}", page.display()))?;
            eprintln!("{} is written", page.display());
        }
        None => print!("{figures}"),
    }
    Ok(is_right)
}

fn round(Entry { scenario, beside, .. }: &Entry, herald: &Path, bench: Bench) -> anyhow::Result<Round> {
    let floor = beside.as_ref().unwrap_or(scenario).floor(bench)?;
    Ok(Round { floor, server: scenario.herald(herald, bench).context("Herald")? })
}

/// The generated part of the page.
fn figures(taken: &[Taken], rounds: u8) -> anyhow::Result<String> {
    let mut text = format!("{}\n\n", machine()?);
    write!(
        text,
        "Medians of {rounds} rounds; in brackets the smallest and the largest. A ratio is of two figures of the same round.\n\n\
         | what | figure | Herald | floor | Herald ÷ floor | bar | |\n|---|---|---|---|---|---|---|\n"
    )?;
    for Taken { entry, rounds } in taken {
        for (name, bar) in &entry.bars {
            let (cells, _, verdict) = row(rounds, name, *bar);
            let unit = figure(rounds, name).map_or(Unit::Count, |figure| figure.unit);
            writeln!(text, "| {} | {name} | {cells} | {} | {verdict} |", entry.what, bar.show(unit))?;
        }
    }
    text.push_str("\nEverything that was measured:\n");
    for Taken { entry, rounds } in taken {
        write!(text, "\n**{}**\n\n| figure | Herald | floor | Herald ÷ floor |\n|---|---|---|---|\n", entry.what)?;
        let first = rounds.first().context("nothing was measured")?;
        for figure in &first.server.figures {
            writeln!(text, "| {} | {} |", figure.name, cells(rounds, figure))?;
        }
    }
    Ok(text)
}

/// Herald's figure, the bare server's, their ratio; the one that the bar is about; whether it is met.
fn row(rounds: &[Round], name: &str, bar: Bar) -> (String, String, &'static str) {
    const NONE: &str = "–";
    let Some(figure) = figure(rounds, name) else {
        return ([NONE; 3].join(" | "), NONE.to_owned(), "not measured");
    };
    let cells = cells(rounds, figure);
    let (readings, unit) = match bar {
        Bar::AtMost(_) => (table::values(rounds, figure), figure.unit),
        _ => (table::ratios(rounds, figure), Unit::Times),
    };
    let Some(readings) = readings else { return (cells, NONE.to_owned(), "not measured") };
    let is_met = match bar {
        Bar::TimesFloor(most) | Bar::AtMost(most) => readings.median <= most,
        Bar::AtLeastTimesFloor(least) => readings.median >= least,
    };
    (cells, unit.show(readings.median), if is_met { "met" } else { "**missed**" })
}

fn cells(rounds: &[Round], figure: &Figure) -> String {
    table::cells(rounds, figure).map(|cell| cell.unwrap_or_else(|| "–".to_owned())).join(" | ")
}

fn figure<'a>(rounds: &'a [Round], name: &str) -> Option<&'a Figure> {
    rounds.iter().find_map(|round| round.server.figures.iter().find(|figure| figure.name == name))
}

impl Bar {
    fn show(self, unit: Unit) -> String {
        match self {
            Self::TimesFloor(most) => format!("≤ {most} ×"),
            Self::AtLeastTimesFloor(least) => format!("≥ {least} ×"),
            Self::AtMost(most) => format!("≤ {most}{}", unit.symbol()),
        }
    }
}

/// The page with new figures in the place of the old ones.
fn replaced(page: &str, figures: &str) -> anyhow::Result<String> {
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("the page has no line {BEGIN:?}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("the page has no line {END:?}"))?;
    Ok([before, BEGIN, "\n", figures, "\n", END, after].concat())
}

/// What it was measured on, and with.
fn machine() -> anyhow::Result<String> {
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let info = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let rustc =
        Command::new("rustc").arg("--version").output().map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
    let rustc = rustc.unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    Ok(format!(
        "Herald {version}, {}; {cores} cores ({model}), Linux {}, shared by server and clients.",
        rustc.split(" (").next().unwrap_or_default().trim(),
        kernel.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_about_the_ratio_or_the_figure_itself() {
        let rounds = [Round::of(10.0, 11.0), Round::of(10.0, 12.0), Round::of(20.0, 22.0)];
        let verdict = |bar| row(&rounds, "CPU per delivery", bar).2;
        assert_eq!(verdict(Bar::TimesFloor(1.15)), "met");
        assert_eq!(verdict(Bar::TimesFloor(1.05)), "**missed**");
        assert_eq!(verdict(Bar::AtLeastTimesFloor(1.2)), "**missed**");
        assert_eq!(verdict(Bar::AtMost(12.0)), "met");
        assert_eq!(row(&rounds, "something else", Bar::AtMost(1.0)).2, "not measured");
        let (cells, ..) = row(&rounds, "CPU per delivery", Bar::TimesFloor(1.15));
        assert_eq!(cells, "12.0 µs (11.0 µs to 22.0 µs) | 10.0 µs (10.0 µs to 20.0 µs) | 1.10 × (1.10 × to 1.20 ×)");
    }

    #[test]
    fn only_the_figures_of_a_page_are_replaced() {
        let page = format!("# Title\n\n{BEGIN}old\n{END}\nmore\n");
        let new = replaced(&page, "new\n").unwrap();
        assert_eq!(new, format!("# Title\n\n{BEGIN}\nnew\n\n{END}\nmore\n"));
        assert_eq!(replaced(&new, "new\n").unwrap(), new);
        assert!(replaced("# Title\n", "new").is_err());
    }
}
