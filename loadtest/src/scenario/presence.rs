//! Members of a presence channel who come and go, while everybody counts them.
//!
//! Each client counts as a library would: it begins with what it is told when it is subscribed, and adds and subtracts whoever is announced.
//! At the end every count has to be that of those who are there. The member who has been there longest leaves, so all change in the end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use memchr::memmem;

use super::channel::{Counted, count};
use super::{AT_ONCE, Bench, GRACE, SILENCE};
use crate::backend::Backend;
use crate::fleet::{Fleet, TURN};
use crate::latencies::Latencies;
use crate::outcome::{Outcome, Unit};
use crate::target::Target;

const CHANNEL: &str = "presence-load";
/// How a member is called; its number in the fleet follows.
const MEMBER: &str = "member-";
/// How long all may take to be there at first.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Presence {
    /// Members that are there at any time
    #[arg(long, default_value_t = Self::default().members, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub(crate) members: u32,
    /// So many leave a second, and as many come
    #[arg(long, default_value_t = Self::default().churn, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) churn: u32,
    /// For how long
    #[arg(long, default_value_t = Self::default().seconds, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
}

impl Default for Presence {
    fn default() -> Self {
        Self { members: 200, churn: 20, seconds: 10 }
    }
}

/// What one text says of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// So many are there, whoever is told so included.
    There(u64),
    /// This one has come.
    Came(usize),
    /// This one has gone.
    Went(usize),
}

/// Everybody's counts, by number in the fleet.
#[derive(Debug)]
struct Counts {
    counts: Vec<Option<i64>>,
    /// When each has begun to come, and to go, by the tool's clock.
    came_ns: Vec<u64>,
    went_ns: Vec<u64>,
    /// Members who came or went, each at one client.
    announcements: u64,
    joins: Latencies,
    leaves: Latencies,
}

impl Counts {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            counts: Vec::new(),
            came_ns: Vec::new(),
            went_ns: Vec::new(),
            announcements: 0,
            joins: Latencies::new()?,
            leaves: Latencies::new()?,
        })
    }

    /// One more client, which knows nothing yet.
    fn add(&mut self, now_ns: u64) {
        self.counts.push(None);
        self.came_ns.push(now_ns);
        self.went_ns.push(0);
    }

    fn note(&mut self, client: usize, said: Said, now_ns: u64) {
        let Some(count) = self.counts.get_mut(client) else { return };
        match said {
            Said::There(there) => *count = i64::try_from(there).ok(),
            Said::Came(member) => {
                *count = count.map(|count| count + 1);
                self.announcements += 1;
                if let Some(came_ns) = self.came_ns.get(member) {
                    self.joins.record(*came_ns, now_ns);
                }
            }
            Said::Went(member) => {
                *count = count.map(|count| count - 1);
                self.announcements += 1;
                if let Some(went_ns) = self.went_ns.get(member) {
                    self.leaves.record(*went_ns, now_ns);
                }
            }
        }
    }

    /// How many of these clients count anything but so many.
    fn wrong(&self, clients: &VecDeque<usize>, right: u32) -> u64 {
        let is_wrong = |client: &&usize| self.counts.get(**client).copied().flatten() != Some(right.into());
        clients.iter().filter(is_wrong).count() as u64
    }
}

impl Presence {
    pub(super) fn measure(&self, target: &Target, bench: Bench) -> anyhow::Result<Outcome> {
        let site = &target.site;
        let (mut fleet, mut counts) = (Fleet::new(site, bench.clock, vec![CHANNEL.to_owned()])?, Counts::new()?);
        let (mut there, mut left) = (VecDeque::new(), 0_u64);
        let (members, begun) = (self.members as usize, Instant::now());
        let progress = bench.progress("subscribing", self.members.into());
        while fleet.live() < members {
            for _ in 0..(members - there.len()).min(AT_ONCE.saturating_sub(there.len() - fleet.live())) {
                there.push_back(come(&mut fleet, &mut counts, bench)?);
            }
            turn(&mut fleet, &mut counts, bench, TURN)?;
            progress.set_position(fleet.live() as u64);
            anyhow::ensure!(begun.elapsed() < PATIENCE, "{} of {members} members are there", fleet.live());
        }
        settle(&mut fleet, &mut counts, bench, &there, self.members)?;
        let wrong_at_first = counts.wrong(&there, self.members);
        (counts.announcements, counts.joins, counts.leaves) = (0, Latencies::new()?, Latencies::new()?);

        let (before, begun) = (target.cpu()?, Instant::now());
        let (period, step) = (Duration::from_secs(self.seconds.into()), Duration::from_secs(1) / self.churn);
        let progress = bench.progress("coming and going", u64::from(self.churn) * period.as_secs());
        while begun.elapsed() < period {
            let due = begun + step * u32::try_from(left)?;
            // One turn at least, so that announcements are read as they come even if the schedule cannot be kept.
            let wait = due.saturating_duration_since(Instant::now()).min(TURN);
            turn(&mut fleet, &mut counts, bench, wait)?;
            if Instant::now() < due {
                continue;
            }
            let first = there.pop_front().context("nobody is there")?;
            if let Some(went_ns) = counts.went_ns.get_mut(first) {
                *went_ns = bench.clock.ns();
            }
            fleet.leave(first)?;
            left += 1;
            there.push_back(come(&mut fleet, &mut counts, bench)?);
            progress.set_position(left);
        }
        settle(&mut fleet, &mut counts, bench, &there, self.members)?;
        let (took, used) = (begun.elapsed(), target.cpu_since(before)?);
        let mut backend = Backend::connect(site)?;
        let counted = count(&mut backend, site, CHANNEL, Counted::Users)?;
        let closed = fleet.closed();

        let mut outcome = Outcome::default();
        outcome.add("members who left, and came", left as f64, Unit::Count);
        outcome.add("announcements", counts.announcements as f64, Unit::Count);
        outcome.add("announcements a second", counts.announcements as f64 / took.as_secs_f64(), Unit::PerSecond);
        let names = [
            "leave to announcement, median",
            "leave to announcement, p99",
            "leave to announcement, p99.9",
            "leave to announcement, longest",
        ];
        outcome.add_latencies(names, &counts.leaves);
        outcome.add("connect to announcement, median", counts.joins.quantile_ms(0.5), Unit::Milliseconds);
        outcome.add("connect to announcement, p99", counts.joins.quantile_ms(0.99), Unit::Milliseconds);
        let per_announcement = used.map(|used| used.as_secs_f64() * 1e6 / counts.announcements as f64);
        outcome.add_known("CPU per announcement", per_announcement, Unit::Microseconds);
        outcome.add_fault("wrong counts at first", wrong_at_first, format_args!(" of {members}"));
        let wrong = counts.wrong(&there, self.members);
        outcome.add_fault("wrong counts at the end", wrong, format_args!(" of {members}"));
        let differs = counted.abs_diff(self.members.into());
        outcome.add_fault("wrong by the server's own count", differs, format_args!(": {counted} of {members}"));
        let cut_off = (closed.values().sum::<usize>() as u64).saturating_sub(left);
        outcome.add_fault("members cut off", cut_off, format_args!(", by code with those who left: {closed:?}"));
        outcome.latencies = Some(counts.leaves);
        Ok(outcome)
    }
}

/// One more member begins to come.
fn come(fleet: &mut Fleet, counts: &mut Counts, bench: Bench) -> anyhow::Result<usize> {
    counts.add(bench.clock.ns());
    let number = counts.counts.len() - 1;
    fleet.begin(Some(format!("{MEMBER}{number}")))
}

fn turn(fleet: &mut Fleet, counts: &mut Counts, bench: Bench, wait: Duration) -> anyhow::Result<()> {
    fleet.turn(wait, |client, text| {
        if let Some(said) = said(text) {
            counts.note(client, said, bench.clock.ns());
        }
        None
    })
}

/// Turns until every count is right and stays so, or it is certain that some will not be.
fn settle(
    fleet: &mut Fleet,
    counts: &mut Counts,
    bench: Bench,
    there: &VecDeque<usize>,
    members: u32,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + GRACE;
    while counts.wrong(there, members) > 0 && Instant::now() < deadline {
        turn(fleet, counts, bench, TURN)?;
    }
    let silence = Instant::now() + SILENCE;
    while Instant::now() < silence {
        turn(fleet, counts, bench, SILENCE)?;
    }
    Ok(())
}

fn said(text: &[u8]) -> Option<Said> {
    if memmem::find(text, b"internal:member_added").is_some() {
        Some(Said::Came(number_behind(text, MEMBER)?))
    } else if memmem::find(text, b"internal:member_removed").is_some() {
        Some(Said::Went(number_behind(text, MEMBER)?))
    } else if memmem::find(text, b"internal:subscription_succeeded").is_some() {
        Some(Said::There(number_behind(text, r#"\"count\":"#)? as u64))
    } else {
        None
    }
}

/// The number that follows right behind this, blanks aside.
fn number_behind(text: &[u8], what: &str) -> Option<usize> {
    let start = memmem::find(text, what.as_bytes())? + what.len();
    let behind = text.get(start..)?.trim_ascii_start();
    let end = behind.iter().position(|byte| !byte.is_ascii_digit())?;
    str::from_utf8(behind.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBSCRIBED: &str = r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-load","data":"{\"presence\":{\"count\":12,\"ids\":[\"member-7\"]}}"}"#;
    const CAME: &str = r#"{"event":"pusher_internal:member_added","channel":"presence-load","data":"{\"user_id\":\"member-1\",\"user_info\":null}"}"#;
    const WENT: &str =
        r#"{"event":"pusher_internal:member_removed","channel":"presence-load","data":"{\"user_id\":\"member-0\"}"}"#;

    #[test]
    fn what_is_said_of_members_is_understood() {
        assert_eq!(said(SUBSCRIBED.as_bytes()), Some(Said::There(12)));
        assert_eq!(said(SUBSCRIBED.replace(":12", ": 12").as_bytes()), Some(Said::There(12)), "blanks are allowed");
        assert_eq!(said(CAME.as_bytes()), Some(Said::Came(1)));
        assert_eq!(said(WENT.as_bytes()), Some(Said::Went(0)));
        assert_eq!(said(br#"{"event":"pusher:pong","data":"{}"}"#), None);
    }

    #[test]
    fn a_client_counts_from_what_it_was_told_first() {
        let mut counts = Counts::new().unwrap();
        (0..2).for_each(|_| counts.add(0));
        counts.note(0, Said::There(1), 1);
        counts.note(1, Said::There(2), 2);
        counts.note(0, Said::Came(1), 3);
        let both = VecDeque::from([0, 1]);
        assert_eq!(counts.wrong(&both, 2), 0);
        counts.note(0, Said::Went(1), 4);
        assert_eq!(counts.wrong(&both, 2), 1, "the other was not told");
        counts.add(5);
        assert_eq!(counts.wrong(&VecDeque::from([2]), 2), 1, "one that knows nothing counts nothing right");
        assert_eq!((counts.announcements, counts.joins.count(), counts.leaves.count()), (2, 1, 1));
    }
}
