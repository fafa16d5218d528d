//! The auth endpoint: each request brings a session token, which is verified (RS256) and its user looked up.

use std::path::Path;
use std::time::Instant;

use clap::Args;

use super::ask_all;
use super::users::{self, Users};
use crate::outcome::{Outcome, Unit};
use crate::scenario::Bench;

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Auth {
    #[command(flatten)]
    pub(crate) users: users::Options,
    /// Requests, by eight backends together
    #[arg(long, default_value_t = Self::default().requests, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    pub(crate) requests: u32,
}

impl Default for Auth {
    fn default() -> Self {
        Self { users: users::Options::default(), requests: 40_000 }
    }
}

impl Auth {
    pub(super) fn measure(&self, herald: &Path, bench: Bench) -> anyhow::Result<Outcome> {
        let users = Users::start(herald, &self.users)?;
        let target = users.server.target();
        let request = users.authorization()?;
        let each = vec![request; self.requests as usize / users::BACKENDS];
        let begun = Instant::now();
        let per_request = ask_all(&target, bench, &vec![each; users::BACKENDS])?;
        let mut outcome = Outcome::default();
        let per_second = f64::from(self.requests) / begun.elapsed().as_secs_f64();
        outcome.add("authorizations a second", per_second, Unit::PerSecond);
        outcome.add_known("CPU per request", per_request, Unit::Microseconds);
        Ok(outcome)
    }
}
