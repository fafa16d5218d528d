//! Herald, the command: command line, configuration, run; nothing else.

mod commands;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use commands::{check, listen, migrate, rotate_keys, serve, trigger};

/// A realtime server that speaks the Pusher protocol.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Without a command it serves. Every option: docs/configuration.md, config/herald.toml."
)]
struct Arguments {
    /// The configuration file; without it HERALD_CONFIG names one, or herald.toml is used if there is one.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Leave the database's tables as they are: `herald migrate` is run by somebody else
    #[arg(long)]
    no_migrate: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (what happens without a command, too)
    Serve,
    /// Bring the database's tables up to date
    Migrate,
    /// Bring stored tokens of other services under the first key of `tokens.keys`; servers may go on meanwhile
    RotateKeys,
    /// Say whether the configuration is right, and print what is in effect, secrets masked
    Check,
    /// Send an event to a channel of a running server
    Trigger(trigger::Arguments),
    /// Subscribe to a channel of a running server and print its events as they come
    Listen(listen::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        None | Some(Command::Serve) => serve::run(arguments.config, arguments.no_migrate),
        Some(Command::Migrate) => migrate::run(arguments.config),
        Some(Command::RotateKeys) => rotate_keys::run(arguments.config),
        Some(Command::Check) => check::run(arguments.config),
        Some(Command::Trigger(what)) => trigger::run(arguments.config, &what),
        Some(Command::Listen(what)) => listen::run(arguments.config, &what),
    };
    done.unwrap_or_else(|error| {
        commands::complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}
