//! Authorizations of channels with session tokens, from several backends at once.
//!
//! Herald is started for it, with a key to check tokens with. The bare server is asked to trigger events as often.

use std::net::SocketAddr;
use std::path::Path;

use clap::Args;

use super::Bench;
use super::asking::{Asked, Asking};
use super::store::{Kept, token};
use crate::outcome::Outcome;
use crate::target::Target;

const USER: &str = "user_2abc";

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Auth {
    /// Connections, each kept alive
    #[arg(long, default_value_t = Self::default().backends, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) backends: u32,
    /// Requests over each of them
    #[arg(long, default_value_t = Self::default().requests, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) requests: u32,
    /// A Postgres for what Herald keeps, in a schema of its own; otherwise it is SQLite
    #[arg(long, value_name = "URL")]
    pub(crate) postgres: Option<String>,
}

impl Default for Auth {
    fn default() -> Self {
        Self { backends: 8, requests: 5_000, postgres: None }
    }
}

impl Auth {
    /// Starts Herald itself.
    pub(super) fn measure(&self, herald: &Path, bench: Bench) -> anyhow::Result<Outcome> {
        let kept = Kept::start(herald, self.postgres.as_deref())?;
        let target = kept.server.target();
        let request = authorization(target.site.address, &token(USER)?);
        let asked = self.ask(&target, bench, request)?;
        Ok(report(asked))
    }

    /// What the bare server takes for as many requests.
    pub(super) fn floor(&self, target: &Target, bench: Bench) -> anyhow::Result<Outcome> {
        let request = target.site.app.trigger_nobody(target.site.address);
        Ok(report(self.ask(target, bench, request)?))
    }

    fn ask(&self, target: &Target, bench: Bench, request: String) -> anyhow::Result<Asked> {
        let requests = vec![vec![request]; self.backends as usize];
        Asking { each: self.requests, rate: 0 }.run(target, bench, &requests, "authorizing")
    }
}

fn report(asked: Asked) -> Outcome {
    let mut outcome = Outcome::default();
    asked.report(&mut outcome, "requests a second", "CPU per request");
    asked.report_answers(&mut outcome);
    outcome.latencies = Some(asked.answers);
    outcome
}

/// A request of a client for its user's own channel.
fn authorization(address: SocketAddr, token: &str) -> String {
    let body = format!("socket_id=1.1&channel_name=private-user-{USER}");
    format!(
        "POST /pusher/auth HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
