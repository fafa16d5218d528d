//! `herald-loadtest`: what Herald costs, as a multiple of the least that any server would.
//!
//! Each figure is taken twice in the same run, from Herald and from a bare server that this binary contains ([`floor`]), so that the
//! machine and whatever else it does cancel out. Start at [`scenario`], which says what is measured; [`clients`] drives both servers
//! the same way, [`server`] starts them, [`report`] repeats and tabulates. What several nodes cost ([`cluster`]) is compared with
//! one of them; [`inbox`] is about users and what is kept for them. Everything is bounded in count and time and stays on
//! loopback. A run in which anything is lost, doubled or altered fails.

mod clients;
mod cluster;
mod floor;
mod inbox;
mod measure;
mod redis;
mod report;
mod scenario;
mod server;
mod wire;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use scenario::{Broadcast, Memory, Publish, Scenario};

#[derive(Debug, Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What one server costs: broadcast, publish and memory, as a Markdown table
    Report(Runs),
    /// CPU per delivery: one channel, many subscribers, a steady rate of events
    Broadcast {
        #[command(flatten)]
        runs: Runs,
        #[command(flatten)]
        scenario: Broadcast,
    },
    /// CPU per HTTP trigger with nobody subscribed
    Publish {
        #[command(flatten)]
        runs: Runs,
        #[command(flatten)]
        scenario: Publish,
    },
    /// Resident memory per idle connection that is subscribed to one channel
    Memory {
        #[command(flatten)]
        runs: Runs,
        #[command(flatten)]
        scenario: Memory,
    },
    /// What several nodes add: subscribers on one node alone, on the node of a cluster that publishes, on another; starts a redis-server
    Cluster {
        #[command(flatten)]
        runs: Runs,
        /// Numbers of channels, each a load of its own
        #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 10_000], value_parser = clap::value_parser!(u32).range(1..=10_000))]
        channels: Vec<u32>,
        /// How long, at least
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60))]
        seconds: u32,
    },
    /// What users and their inboxes cost: creations, the way to the user's client, the auth endpoint; on SQLite, and on Postgres if one is named
    Inbox {
        #[command(flatten)]
        runs: Runs,
        /// A Postgres, in which a schema is made for each round, such as postgres://user@127.0.0.1/database
        #[arg(long)]
        postgres: Option<String>,
    },
    /// The bare server itself, which the other commands start: one thread, one prebuilt frame, no checks
    Floor {
        /// Port on loopback; 0 takes a free one
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Size of the event's data
        #[arg(long, default_value_t = Broadcast::default().bytes)]
        bytes: usize,
    },
}

#[derive(Debug, Args)]
struct Runs {
    /// Herald's binary, built for release
    #[arg(long, default_value = "target/release/herald")]
    herald: PathBuf,
    /// How often each figure is taken, Herald and floor in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
}

fn main() -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(u64::MAX).context("cannot raise the limit of open files")?;
    let (runs, scenarios) = match Cli::parse().command {
        Command::Floor { port, bytes } => return floor::run(port, bytes),
        Command::Cluster { runs, channels, seconds } => {
            let loads: Vec<_> = channels.into_iter().map(|channels| cluster::Load::new(channels, seconds)).collect();
            return cluster::run(&runs.herald, usize::from(runs.rounds), &loads);
        }
        Command::Inbox { runs, postgres } => {
            return inbox::run(&runs.herald, usize::from(runs.rounds), postgres.as_deref());
        }
        Command::Report(runs) => (runs, Scenario::all()),
        Command::Broadcast { runs, scenario } => (runs, vec![Scenario::Broadcast(scenario)]),
        Command::Publish { runs, scenario } => (runs, vec![Scenario::Publish(scenario)]),
        Command::Memory { runs, scenario } => (runs, vec![Scenario::Memory(scenario)]),
    };
    report::run(&runs.herald, usize::from(runs.rounds), &scenarios)
}
