//! Notifications: how many are created a second, and how long one takes from the request until its user's client has the frame.
//!
//! Herald is started for it, over SQLite or Postgres, with everything durable. The bare server is asked to trigger events as often as
//! notifications are created; and for what has to be on the disk, a write that is synced stands beside it.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::asking::{Asked, Asking};
use super::store::Kept;
use super::{Bench, GRACE, SILENCE};
use crate::backend::{Answer, Backend};
use crate::fleet::{Fleet, TURN, Wave};
use crate::outcome::{Outcome, Unit};
use crate::target::{Site, Target};
use crate::threads::join;
use crate::wire::Stamp;

/// Whose client is watched.
const WATCHED: &str = "user_watched";
const PER_SECOND: &str = "notifications a second";
const CPU: &str = "CPU per notification";

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Inbox {
    /// Backends that create as fast as they are answered, each with a connection that is kept alive
    #[arg(long, default_value_t = Self::default().backends, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) backends: u32,
    /// Notifications from each of them
    #[arg(long, default_value_t = Self::default().requests, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) requests: u32,
    /// Users among whom they are created
    #[arg(long, default_value_t = Self::default().users, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) users: u32,
    /// Notifications that are timed until the user's client has them
    #[arg(long, default_value_t = Self::default().watched, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) watched: u32,
    /// So many of those a second
    #[arg(long, default_value_t = Self::default().rate, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rate: u32,
    /// A Postgres to keep them in, in a schema of its own; otherwise it is SQLite
    #[arg(long, value_name = "URL")]
    pub(crate) postgres: Option<String>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { backends: 8, requests: 500, users: 1_000, watched: 500, rate: 50, postgres: None }
    }
}

impl Inbox {
    /// Starts Herald itself.
    pub(super) fn measure(&self, herald: &Path, bench: Bench) -> anyhow::Result<Outcome> {
        let kept = Kept::start(herald, self.postgres.as_deref())?;
        let target = kept.server.target();
        let mut outcome = Outcome::default();
        self.watch(&target.site, bench, &mut outcome)?;
        let requests: Vec<Vec<String>> =
            (0..self.backends).map(|backend| self.creations(&target.site, backend)).collect();
        let asked = self.ask(&target, bench, &requests)?;
        let synced_ms = kept.synced_ms()?;
        outcome.add("a write that is synced", synced_ms, Unit::Milliseconds);
        asked.report(&mut outcome, PER_SECOND, CPU);
        outcome.add("share of the synced writes a second", asked.per_second() * synced_ms / 1e3, Unit::Times);
        Ok(outcome)
    }

    /// What the bare server takes for as many requests.
    pub(super) fn floor(&self, target: &Target, bench: Bench) -> anyhow::Result<Outcome> {
        let request = target.site.app.trigger_nobody(target.site.address);
        let asked = self.ask(target, bench, &vec![vec![request]; self.backends as usize])?;
        let mut outcome = Outcome::default();
        asked.report(&mut outcome, PER_SECOND, CPU);
        Ok(outcome)
    }

    fn ask(&self, target: &Target, bench: Bench, requests: &[Vec<String>]) -> anyhow::Result<Asked> {
        Asking { each: self.requests, rate: 0 }.run(target, bench, requests, "creating")
    }

    /// What one backend creates, each for another user than its neighbours.
    fn creations(&self, site: &Site, backend: u32) -> Vec<String> {
        let creation = |number| {
            let user = (backend + number * self.backends) % self.users;
            creation(site, &format!("user_{user}"), &format!("full-speed-{backend}-{number}"))
        };
        (0..self.requests).map(creation).collect()
    }

    /// Creates notifications for one user at a steady rate and times each until the user's client has it. Their title is a stamp.
    fn watch(&self, site: &Site, bench: Bench, outcome: &mut Outcome) -> anyhow::Result<()> {
        let mut fleet = Fleet::new(site, bench.clock, vec![format!("private-user-{WATCHED}")])?;
        let wave = Wave { count: 1, at_once: 1, within: GRACE };
        fleet.connect(wave, &bench.progress("subscribing", 1))?;
        let mut backend = Backend::connect(site)?;
        let progress = bench.progress("watching", self.watched.into());
        thread::scope(|scope| {
            let creating = scope.spawn(|| self.create_watched(&mut backend, site, bench));
            while !creating.is_finished() {
                fleet.turn(TURN, |_, _| None)?;
                progress.set_position(fleet.tally().deliveries);
            }
            join(creating)
        })?;
        let created = [u64::from(self.watched)];
        fleet.turn_until(Instant::now() + GRACE, |fleet| fleet.lost(&created) == 0)?;
        fleet.turn_until(Instant::now() + SILENCE, |_| false)?;
        let latencies = fleet.tally().latencies.clone();
        let names = ["POST to frame, median", "POST to frame, p99", "POST to frame, p99.9", "POST to frame, longest"];
        outcome.add_latencies(names, &latencies);
        outcome.add_fault("lost", fleet.lost(&created), format_args!(" of {}", self.watched));
        outcome.add_fault("doubled", fleet.tally().duplicated, "");
        outcome.add_fault("out of order", fleet.tally().out_of_order, "");
        outcome.latencies = Some(latencies);
        Ok(())
    }

    fn create_watched(&self, backend: &mut Backend, site: &Site, bench: Bench) -> anyhow::Result<()> {
        let (start, step) = (Instant::now(), Duration::from_secs(1) / self.rate);
        for number in 0..self.watched {
            thread::sleep((start + step * number).saturating_duration_since(Instant::now()));
            let stamp = Stamp { number: number.into(), at_ns: bench.clock.ns() };
            let Answer { status, body } = backend.ask(&creation(site, WATCHED, &stamp.data(Stamp::BYTES)))?;
            anyhow::ensure!((200..300).contains(&status), "the server answered {status}: {body}");
        }
        Ok(())
    }
}

/// A backend's request for one notification.
fn creation(site: &Site, user: &str, title: &str) -> String {
    let body = json!({
        "to": { "user_ids": [user] }, "type": "comment.mentioned", "title": title, "message": "Jane mentioned you in a comment",
        "action_url": "/posts/1#c1", "actor": { "id": "user_2def", "name": "Jane" }, "transaction_id": title,
    });
    site.app.request(site.address, "POST", "notifications", &[], &body.to_string())
}
