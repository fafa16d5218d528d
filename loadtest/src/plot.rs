//! A measurement's latencies as a picture: over time, and their distribution.

use std::path::Path;

use anyhow::Context as _;
use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::coord::combinators::IntoLogRange as _;
use plotters::drawing::IntoDrawingArea as _;
use plotters::element::PathElement;
use plotters::prelude::SVGBackend;
use plotters::series::LineSeries;
use plotters::style::{BLACK, Color as _, RGBColor, WHITE};

use crate::latencies::{Latencies, SLOT};

const SIZE: (u32, u32) = (1_000, 800);
const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44), RGBColor(148, 103, 189)];
/// From that many milliseconds on the axes begin.
const LEAST_MS: f64 = 0.01;

/// Draws the latencies of several servers, each under its name.
pub(crate) fn draw(file: &Path, title: &str, servers: &[(&str, &Latencies)]) -> anyhow::Result<()> {
    let failed = || format!("{}: cannot be drawn", file.display());
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE).with_context(failed)?;
    let (over_time, distribution) = root.split_vertically(SIZE.1 / 2);

    let most_ms = servers.iter().map(|(_, latencies)| latencies.max_ms()).fold(LEAST_MS * 10.0, f64::max);
    let seconds = |slot: usize| slot as f64 * SLOT.as_secs_f64();
    let longest = servers.iter().map(|(_, latencies)| seconds(latencies.slots().len())).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&over_time)
        .caption(format!("{title}: milliseconds over time, mean and longest of each {SLOT:?}"), ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..longest, (LEAST_MS..most_ms * 1.1).log_scale())
        .with_context(failed)?;
    chart.configure_mesh().x_desc("seconds").y_desc("ms").draw().with_context(failed)?;
    for ((name, latencies), colour) in servers.iter().zip(COLOURS) {
        let filled = || latencies.slots().iter().enumerate().filter(|(_, slot)| slot.count > 0);
        let mean = filled().map(|(at, slot)| (seconds(at), slot.sum_ns as f64 / slot.count as f64 / 1e6));
        let max = filled().map(|(at, slot)| (seconds(at), slot.max_ns as f64 / 1e6));
        let legend = move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour);
        chart.draw_series(LineSeries::new(mean, &colour)).with_context(failed)?.label(*name).legend(legend);
        chart.draw_series(LineSeries::new(max, colour.mix(0.35))).with_context(failed)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .border_style(BLACK)
        .background_style(WHITE.mix(0.8))
        .draw()
        .with_context(failed)?;

    // Towards the right each step is ten times as rare: 0.9, 0.99, 0.999, …
    let rarities: Vec<f64> = (0..=100).map(|step| f64::from(step) / 20.0).collect();
    let mut chart = ChartBuilder::on(&distribution)
        .caption("milliseconds that all but the rarest stay under", ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..5.0, (LEAST_MS..most_ms * 1.1).log_scale())
        .with_context(failed)?;
    let share =
        |rarity: &f64| if *rarity < 0.1 { "all".to_owned() } else { format!("1 in {:.0}", 10_f64.powf(*rarity)) };
    chart.configure_mesh().x_labels(6).x_label_formatter(&share).y_desc("ms").draw().with_context(failed)?;
    for ((_, latencies), colour) in servers.iter().zip(COLOURS) {
        let points = rarities.iter().map(|rarity| (*rarity, latencies.quantile_ms(1.0 - 10_f64.powf(-rarity))));
        chart.draw_series(LineSeries::new(points, &colour)).with_context(failed)?;
    }
    root.present().with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_line_for_each_server() {
        let mut latencies = Latencies::new().unwrap();
        (1..2_000_u64).for_each(|number| latencies.record(number * 1_000_000, number * 1_001_000));
        let file = std::env::temp_dir().join(format!("herald-loadtest-{}.svg", std::process::id()));
        draw(&file, "broadcast", &[("floor", &latencies), ("server", &latencies)]).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("broadcast"), "{svg}");
        assert!(svg.contains("floor") && svg.contains("server"), "the legend names both");
        let lines = svg.matches("<polyline").count();
        assert!(lines >= 6, "{lines} lines: mean and longest over time, and the distribution, of each");
    }
}
