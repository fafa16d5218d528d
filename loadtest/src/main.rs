//! `herald-loadtest`: measures a server that speaks the Pusher protocol, beside the least that any server would need.
//!
//! A [`scenario`] measures one server and comes to an [`outcome`]. Its clients are a [`fleet`], its backends [`backend`]s; what they say is
//! made in [`wire`]. [`floor`] is the bare server, which is measured in the same run, so that the machine and whatever else it does cancel out.
//! [`report`] takes the whole matrix of Herald, several times, and writes it down. Everything is bounded in count and time and stays on
//! loopback unless it is allowed to go elsewhere. A run in which anything is lost, doubled or altered fails.

mod backend;
mod clock;
mod fleet;
mod floor;
mod latencies;
mod matrix;
mod measure;
mod outcome;
mod plot;
mod redis;
mod report;
mod scenario;
mod server;
mod table;
mod target;
mod threads;
mod wire;

use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use clock::Clock;
use scenario::{Bench, Scenario};
use table::Round;
use target::TargetOptions;

#[derive(Debug, Parser)]
#[command(about, version)]
struct Cli {
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The bare server itself, which is measured beside others: one thread, one prebuilt frame, no checks
    Floor {
        /// Port on loopback; 0 takes a free one
        #[arg(long, default_value_t = 0)]
        listen: u16,
        /// Size of the event's data
        #[arg(long, default_value_t = 200, value_parser = scenario::broadcast::bytes)]
        bytes: usize,
    },
    #[command(flatten)]
    Scenario(Scenario),
    /// The whole matrix, of Herald and the bare server in turn, against what Herald has to keep to; written into docs/performance.md
    Report(Report),
}

#[derive(Args, Debug)]
struct Report {
    /// The page into which the figures are written, between the lines that say so
    #[arg(long, default_value = "docs/performance.md")]
    page: PathBuf,
    /// Less of everything, once, and nothing is written: whether anything is far off
    #[arg(long)]
    short: bool,
}

/// How often, and where what comes out goes.
#[derive(Args, Debug)]
struct Output {
    /// Herald's binary: it is started for each round, with nothing configured but a free port, and ended
    #[arg(long, global = true, value_name = "BINARY", help_heading = "Server")]
    herald: Option<PathBuf>,
    /// Measure the bare server too, in turn
    #[arg(long, global = true)]
    floor: bool,
    /// How often: once, a report three times
    #[arg(long, global = true, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: Option<u8>,
    /// JSON to stdout in place of a table, and no progress
    #[arg(long, global = true)]
    json: bool,
    /// A picture of the last round's latencies
    #[arg(long, global = true, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    rlimit::increase_nofile_limit(u64::MAX).context("cannot raise the limit of open files")?;
    let cli = Cli::parse();
    match &cli.command {
        Command::Floor { listen, bytes } => floor::run(*listen, *bytes).map(|()| ExitCode::SUCCESS),
        Command::Scenario(scenario) => run(scenario, &cli),
        Command::Report(Report { page, short }) => {
            if cli.output.herald.is_none() {
                build()?;
            }
            let bench = Bench { clock: Clock::start(), is_quiet: false };
            let (rounds, page) =
                if *short { (1, None) } else { (cli.output.rounds.unwrap_or(3), Some(page.as_path())) };
            let is_right = report::run(matrix::entries(*short)?, cli.output.herald(), rounds, page, bench)?;
            Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

impl Output {
    /// Herald's binary, for what has to start it.
    fn herald(&self) -> &Path {
        self.herald.as_deref().unwrap_or(Path::new("target/release/herald"))
    }
}

/// Builds Herald, so that what is reported is what stands here.
fn build() -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = process::Command::new(cargo).args(["build", "--release", "--locked", "-p", "herald"]).status();
    anyhow::ensure!(built.context("cargo cannot be run")?.success(), "Herald does not build");
    Ok(())
}

/// Takes the figures of one scenario and shows them; fails if something happened that must not.
fn run(scenario: &Scenario, cli: &Cli) -> anyhow::Result<ExitCode> {
    let output = &cli.output;
    let bench = Bench { clock: Clock::start(), is_quiet: output.json };
    let mut rounds = Vec::new();
    for _ in 0..output.rounds.unwrap_or(1) {
        let floor = if output.floor { scenario.floor(bench)? } else { None };
        let server = if output.herald.is_some() || scenario.is_staged() {
            scenario.herald(output.herald(), bench)?
        } else {
            scenario.measure(&cli.target.target()?, bench)?
        };
        rounds.push(Round { floor, server });
    }
    if output.json {
        println!("{}", table::json(scenario.name(), &rounds));
    } else {
        print!("{}", table::text(&rounds));
    }
    if let (Some(file), Some(Round { floor, server })) = (&output.plot, rounds.last()) {
        let outcomes = [("floor", floor.as_ref()), ("server", Some(server))];
        let drawn = outcomes.into_iter().filter_map(|(name, outcome)| Some((name, outcome?.latencies.as_ref()?)));
        plot::draw(file, scenario.name(), &drawn.collect::<Vec<_>>())?;
    }
    let faults: Vec<String> = rounds.iter().flat_map(Round::faults).collect();
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
