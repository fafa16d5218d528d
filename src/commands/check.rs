//! `herald check`: says whether the configuration is right, and what is in effect.

use std::path::PathBuf;
use std::process::ExitCode;

use herald::config::document;
use herald::tls::Tls;

use super::{complain, load, say};

pub(crate) fn run(file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let loaded = load(file)?;
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
