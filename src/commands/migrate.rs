//! `herald migrate`: brings the database's tables up to date, for those who do not let the server do it.

use std::path::PathBuf;
use std::process::ExitCode;

use herald::store::open::migrate;

use super::{load, runtime, say};

pub(crate) fn run(file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let config = load(file)?.config;
    let database = runtime(1)?.block_on(migrate(&config))?;
    say(&format!("The tables of {database} are up to date."));
    Ok(ExitCode::SUCCESS)
}
