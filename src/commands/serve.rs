//! `herald`: the server, with its log and what a newcomer needs to see.

use std::io::IsTerminal as _;
use std::num::NonZero;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::ExitCode;
use std::time::Duration;

use herald::config::{LogFormat, LogOptions, Sources};
use herald::integrations::sentry;
use herald::outgoing::Outgoing;
use herald::reload::Again;
use herald::server::{self, Ended};
use tracing::Level;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, reload};

use super::{runtime, say};

/// How long the end waits for reports that are under way.
const LAST_REPORTS: Duration = Duration::from_secs(2);

pub(crate) fn run(sources: &Sources, no_migrate: bool) -> anyhow::Result<ExitCode> {
    let mut loaded = sources.load()?;
    loaded.config.database.migrate &= !no_migrate;
    let outgoing = Outgoing::new()?;
    // Before there are threads: each has what the first one has.
    let reports = sentry::start(&loaded.config, &loaded.secrets, &outgoing)?;
    let set_level = write_log(&loaded.config.log, reports.is_some());
    loaded.notes.iter().for_each(|note| tracing::info!("{note}"));
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) => tracing::info!(files, "limit of open files, and so of connections"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it was"),
    }
    let newcomer = loaded.is_newcomer.then(|| loaded.config.server.path_prefix.clone());
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = runtime(loaded.config.server.threads.unwrap_or(cores - 1).max(1))?;
    let manager = sources.variables.iter().find(|(name, _)| name == "NOTIFY_SOCKET").map(|(_, path)| path.clone());
    let again = Again { sources: sources.clone(), set_level };
    let ended = runtime.block_on(server::run(loaded, outgoing, again, |url| {
        if let Some(Err(error)) = manager.as_deref().map(tell_manager) {
            tracing::warn!(%error, "systemd could not be told that the server is ready");
        }
        if let Some(prefix) = newcomer {
            say(&welcome(url, &prefix));
        }
    }));
    runtime.shutdown_background();
    if let Some(reports) = reports {
        reports.finish(if matches!(ended, Ok(Ended::AtOnce)) { Duration::ZERO } else { LAST_REPORTS });
    }
    Ok(match ended? {
        Ended::InOrder => ExitCode::SUCCESS,
        Ended::AtOnce => ExitCode::FAILURE,
    })
}

/// To stderr: stdout is for what was asked for. What it returns changes from which level on it is written.
fn write_log(options: &LogOptions, is_reported: bool) -> Box<dyn Fn(Level) + Send + Sync> {
    // The libraries below say little that an operator can use; at `debug` and `trace` Herald's own lines are what is wanted.
    let filter = |level| EnvFilter::new(format!("warn,herald={level},herald_protocol={level}"));
    let (level, changed) = reload::Layer::new(filter(options.level));
    // By default a line that nobody takes is told on stderr, which is the same place: the connection's task would panic.
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let is_terminal = std::io::stderr().is_terminal();
    let log = match options.format {
        LogFormat::Json => log.json().flatten_event(true).boxed(),
        LogFormat::Auto if !is_terminal => log.json().flatten_event(true).boxed(),
        LogFormat::Auto | LogFormat::Text => log.with_ansi(is_terminal).boxed(),
    };
    let log = tracing_subscriber::registry().with(level).with(log);
    if is_reported {
        log.with(sentry::layers()).init()
    } else {
        log.init()
    }
    Box::new(move |level| {
        if let Err(error) = changed.reload(filter(level)) {
            tracing::warn!(%error, "the log's level stays as it was");
        }
    })
}

/// Tells systemd that the server is ready, over the socket that it names (`sd_notify(3)`).
fn tell_manager(socket: &str) -> std::io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(|_| ())
}

/// What somebody needs who has started it for the first time.
fn welcome(url: &str, prefix: &str) -> String {
    let credentials = "
No app is configured, so there is one for this machine only:

    app id  app-id      key  app-key      secret  app-secret
";
    let own = "
Your own app: HERALD_APP_ID, HERALD_APP_KEY and HERALD_APP_SECRET, or a file as in config/herald.toml.
";
    let parsed = url::Url::parse(url).ok();
    let address = parsed.as_ref().and_then(|url| Some((url.host_str()?, url.port_or_known_default()?)));
    let Some((host, port)) = address else {
        return format!("{credentials}\nClients and backends reach it through a proxy that passes on to {url}.\n{own}");
    };
    let way = if url.starts_with("https") {
        format!("wssPort: {port}, forceTLS: true, enabledTransports: ['wss']")
    } else {
        format!("wsPort: {port}, forceTLS: false, enabledTransports: ['ws']")
    };
    let path = if prefix.is_empty() { String::new() } else { format!(", wsPath: '{prefix}'") };
    let herald = std::env::args().next().unwrap_or_else(|| "herald".to_owned());
    let there = match format!("{url}{prefix}").as_str() {
        "http://127.0.0.1:6001" => String::new(), // where a command looks by itself
        elsewhere => format!(" --url {elsewhere}"),
    };
    format!(
        r#"{credentials}
In a page, with pusher-js:

    const pusher = new Pusher('app-key', {{
      cluster: 'herald', wsHost: '{host}', {way}{path}, enableStats: false,
    }});
    pusher.subscribe('my-channel').bind('my-event', (data) => console.log(data));

Or in a second terminal, and then an event from a third:

    {herald} listen my-channel{there}
    {herald} trigger my-channel my-event '{{"hello":"world"}}'{there}
{own}"#
    )
}
