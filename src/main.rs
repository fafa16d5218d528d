//! Herald, the command: command line, configuration, run; nothing else.

mod commands;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use commands::{check, doctor, listen, migrate, rotate_keys, serve, trigger};

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
    #[command(flatten)]
    env: EnvFiles,
    /// Leave the database's tables as they are: `herald migrate` is run by somebody else
    #[arg(long)]
    no_migrate: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Given in front of the command and behind it: a global argument would forget the former.
#[derive(Debug, Default, Args)]
struct EnvFiles {
    /// A file of variables such as an app's .env, below the real environment; may be given again, a later one is over an earlier one
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (what happens without a command, too)
    Serve(EnvFiles),
    /// Bring the database's tables up to date
    Migrate(EnvFiles),
    /// Bring stored tokens of other services under the first key of `tokens.keys`; servers may go on meanwhile
    RotateKeys(EnvFiles),
    /// Say whether the configuration is right, and print what is in effect, secrets masked
    Check(EnvFiles),
    /// Look at everything from outside in, and say what is wrong and how to mend it; exit code 1 if something is
    Doctor {
        #[command(flatten)]
        what: doctor::Arguments,
        #[command(flatten)]
        env: EnvFiles,
    },
    /// Send an event to a channel of a running server
    Trigger {
        #[command(flatten)]
        what: trigger::Arguments,
        #[command(flatten)]
        env: EnvFiles,
    },
    /// Subscribe to a channel of a running server and print its events as they come
    Listen {
        #[command(flatten)]
        what: listen::Arguments,
        #[command(flatten)]
        env: EnvFiles,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (file, mut env_files) = (arguments.config, arguments.env.env_files);
    let mut sources = |behind: EnvFiles| {
        env_files.extend(behind.env_files);
        commands::sources(file.clone(), std::mem::take(&mut env_files))
    };
    let done = match arguments.command.unwrap_or_else(|| Command::Serve(EnvFiles::default())) {
        Command::Serve(env) => serve::run(&sources(env), arguments.no_migrate),
        Command::Migrate(env) => migrate::run(&sources(env)),
        Command::RotateKeys(env) => rotate_keys::run(&sources(env)),
        Command::Check(env) => check::run(&sources(env)),
        Command::Doctor { what, env } => doctor::run(&sources(env), &what),
        Command::Trigger { what, env } => trigger::run(&sources(env), &what),
        Command::Listen { what, env } => listen::run(&sources(env), &what),
    };
    done.unwrap_or_else(|error| {
        commands::complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}
