//! `herald rotate-keys`: brings stored tokens under the first of the configured keys, while servers go on.

use std::process::ExitCode;

use anyhow::Context as _;
use herald::config::Sources;
use herald::rotation::{self, Rotated};
use herald::store::open::open;
use indicatif::{ProgressBar, ProgressStyle};

use super::{runtime, say};

/// What the bar shows; it is drawn where stderr is a terminal.
const BAR: &str = "{bar:40} {pos} of {len} tokens, {eta} left";

pub(crate) fn run(sources: &Sources) -> anyhow::Result<ExitCode> {
    let config = sources.load()?.config;
    let ring =
        config.tokens.key_ring().context("tokens.keys (HERALD_TOKEN_KEYS) is not set: there is no key to rotate to")?;
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(BAR)?);
    let rotated = runtime(1)?.block_on(async {
        let store = open(&config).await?;
        let rotated = rotation::rotate(&*store, &ring, |looked_at, total| {
            bar.set_length(total);
            bar.set_position(looked_at);
        })
        .await;
        store.close().await;
        rotated.context("the database does not answer; what was done until now is done: run it again")
    })?;
    bar.finish_and_clear();
    for line in report(&rotated, ring.first()) {
        say(&line);
    }
    Ok(if rotated.unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(rotated: &Rotated, first: &str) -> Vec<String> {
    let mut lines = vec![format!("{} tokens were brought under the key {first:?}.", rotated.replaced)];
    lines.extend(rotated.by_key.iter().map(|(key, tokens)| format!("Under the key {key:?} there are {tokens}.")));
    if rotated.unreadable > 0 {
        lines.push(format!(
            "{} cannot be read with any of the configured keys and stay as they are.",
            rotated.unreadable
        ));
    } else if rotated.by_key.iter().all(|(key, _)| key == first) {
        lines.push("Every other key may go from the configuration.".to_owned());
    }
    lines
}
