//! What takes more than one server as it comes: these measurements start what they need themselves, and end it.

pub(crate) mod auth;
pub(crate) mod cluster;
pub(crate) mod inbox;
mod redis;
mod users;

use std::path::Path;
use std::thread;

use clap::Subcommand;

use crate::backend::Backend;
use crate::outcome::Outcome;
use crate::scenario::Bench;
use crate::target::{Site, Target};
use crate::threads::join;

/// One of these measurements.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Staged {
    /// Two nodes and a Redis: what it adds that subscribers are on another node than the one where events are published
    Cluster(cluster::Cluster),
    /// Users' session tokens at the auth endpoint: requests a second, CPU for each
    Auth(auth::Auth),
    /// Notifications: created a second, the way to the user's client, CPU for each; over SQLite or Postgres
    Inbox(inbox::Inbox),
}

impl Staged {
    /// Takes the figures.
    pub(crate) fn measure(&self, herald: &Path, bench: Bench) -> anyhow::Result<Outcome> {
        match self {
            Self::Cluster(cluster) => cluster.measure(herald, bench),
            Self::Auth(auth) => auth.measure(herald, bench),
            Self::Inbox(inbox) => inbox.measure(herald, bench),
        }
    }

    /// Its name on the command line.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Cluster(_) => "cluster",
            Self::Auth(_) => "auth",
            Self::Inbox(_) => "inbox",
        }
    }
}

/// Sends each backend's requests as fast as they are answered, all backends at once; µs of CPU per request.
fn ask_all(target: &Target, bench: Bench, requests: &[Vec<String>]) -> anyhow::Result<Option<f64>> {
    let count: usize = requests.iter().map(Vec::len).sum();
    let progress = bench.progress("asking", count as u64);
    let ask = |site: &Site, requests: &[String]| -> anyhow::Result<()> {
        let mut backend = Backend::connect(site)?;
        requests.iter().try_for_each(|request| {
            progress.inc(1);
            backend.ask_for(request).map(drop)
        })
    };
    let before = target.cpu()?;
    thread::scope(|scope| {
        let ask = &ask;
        let asking: Vec<_> = requests.iter().map(|requests| scope.spawn(move || ask(&target.site, requests))).collect();
        asking.into_iter().try_for_each(join)
    })?;
    Ok(target.cpu_since(before)?.map(|used| used.as_secs_f64() * 1e6 / count as f64))
}
