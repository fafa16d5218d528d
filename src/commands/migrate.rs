//! `herald migrate`: brings the database's tables up to date, for those who do not let the server do it.

use std::process::ExitCode;

use herald::config::Sources;
use herald::store::open::migrate;

use super::{runtime, say};

pub(crate) fn run(sources: &Sources) -> anyhow::Result<ExitCode> {
    let config = sources.load()?.config;
    let database = runtime(1)?.block_on(migrate(&config))?;
    say(&format!("The tables of {database} are up to date."));
    Ok(ExitCode::SUCCESS)
}
