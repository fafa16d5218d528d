//! `herald check`: says whether the configuration is right, and what is in effect.

use std::process::ExitCode;

use herald::config::{Sources, document};
use herald::tls::Tls;

use super::{complain, say};

pub(crate) fn run(sources: &Sources) -> anyhow::Result<ExitCode> {
    let loaded = sources.load()?;
    Tls::load(&loaded.config.tls)?;
    for line in loaded.notes.iter().chain(&loaded.warnings) {
        complain(line);
    }
    say(&format!(
        "# The configuration is right. In effect, secrets masked:\n\n{}",
        document::effective(&loaded.config)
    ));
    Ok(ExitCode::SUCCESS)
}
