//! Notifications: one user's, timed from before the request until his client has the event; and as many as can be created. Everything is
//! durable, so a write that is synced is measured beside it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;

use super::ask_all;
use super::users::{self, Users};
use crate::backend::Backend;
use crate::fleet::{Fleet, TURN, Wave};
use crate::outcome::{Outcome, Unit};
use crate::scenario::{Bench, GRACE};
use crate::threads::join;
use crate::wire::Stamp;

/// Created one by one for one user, so many a second.
const PER_SECOND: u32 = 50;
const SYNCED: u32 = 200;

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Inbox {
    #[command(flatten)]
    pub(crate) users: users::Options,
    /// Notifications that one user's client waits for, 50 a second
    #[arg(long, default_value_t = Self::default().watched, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) watched: u32,
    /// Notifications created as fast as they are answered, by eight backends together, for a thousand users
    #[arg(long, default_value_t = Self::default().created, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    pub(crate) created: u32,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { users: users::Options::default(), watched: 500, created: 4_000 }
    }
}

impl Inbox {
    pub(super) fn measure(&self, herald: &Path, bench: Bench) -> anyhow::Result<Outcome> {
        let users = Users::start(herald, &self.users)?;
        let target = users.server.target();
        let mut outcome = Outcome::default();
        self.watch(&users, bench, &mut outcome)?;

        let each = self.created as usize / users::BACKENDS;
        let of_backend = |backend: usize| -> Vec<String> {
            let user = |number: usize| format!("user_{}", (backend + number * users::BACKENDS) % users::USERS);
            (0..each).map(|number| users.creation(&user(number), &format!("full-speed-{backend}-{number}"))).collect()
        };
        let requests: Vec<Vec<String>> = (0..users::BACKENDS).map(of_backend).collect();
        let begun = Instant::now();
        let per_creation = ask_all(&target, bench, &requests)?;
        let per_second = (each * users::BACKENDS) as f64 / begun.elapsed().as_secs_f64();
        outcome.add("created a second", per_second, Unit::PerSecond);
        outcome.add_known("CPU per request", per_creation, Unit::Microseconds);
        let synced = synced(users.folder())?;
        outcome.add("a write that is synced", synced.as_secs_f64() * 1e3, Unit::Milliseconds);
        outcome.add("created ÷ synced writes a second", per_second * synced.as_secs_f64(), Unit::Times);
        Ok(outcome)
    }

    /// One after the other for one user, whose client gets them as events with their stamps as titles.
    fn watch(&self, users: &Users, bench: Bench, outcome: &mut Outcome) -> anyhow::Result<()> {
        let site = users.server.target().site;
        let mut fleet = Fleet::new(&site, bench.clock, vec!["private-user-user_watched".to_owned()])?;
        fleet.connect(Wave { count: 1, at_once: 1, within: GRACE }, &ProgressBar::hidden())?;
        fleet.begin_again()?;
        let progress = bench.progress("watching", self.watched.into());
        let stop = AtomicBool::new(false);
        let create = || -> anyhow::Result<()> {
            let (mut backend, start) = (Backend::connect(&site)?, Instant::now());
            for number in 0..self.watched {
                thread::sleep(
                    (start + Duration::from_secs(1) / PER_SECOND * number).saturating_duration_since(Instant::now()),
                );
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let title = Stamp { number: number.into(), at_ns: bench.clock.ns() }.data(Stamp::BYTES);
                backend.ask_for(&users.creation("user_watched", &title))?;
                progress.inc(1);
            }
            Ok(())
        };
        thread::scope(|scope| {
            let creating = scope.spawn(create);
            while !creating.is_finished() {
                fleet.turn(TURN, |_, _| None)?;
            }
            join(creating)
        })?;
        let all = [u64::from(self.watched)];
        fleet.turn_until(Instant::now() + GRACE, |fleet| fleet.lost(&all) == 0)?;
        outcome.add_fault("lost", fleet.lost(&all), "");
        outcome.add_fault("duplicated", fleet.tally().duplicated, "");
        outcome.add_fault("out of order", fleet.tally().out_of_order, "");
        let names = [
            "request to event, median",
            "request to event, p99",
            "request to event, p99.9",
            "request to event, longest",
        ];
        outcome.add_latencies(names, &fleet.tally().latencies);
        outcome.latencies = Some(fleet.tally().latencies.clone());
        Ok(())
    }
}

/// How long a page takes to be on the disk.
fn synced(folder: &Path) -> anyhow::Result<Duration> {
    let mut file = File::create(folder.join("synced"))?;
    let begun = Instant::now();
    for _ in 0..SYNCED {
        file.write_all(&[7; 4_096])?;
        file.sync_data()?;
    }
    Ok(begun.elapsed() / SYNCED)
}
