//! What the command line offers, a file each. Here: what several of them need.

pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod listen;
pub(crate) mod migrate;
pub(crate) mod rotate_keys;
pub(crate) mod serve;
pub(crate) mod trigger;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use herald::config::{AppOptions, Config, Listen, Sources};

/// Which server, and which of its apps; what is not said is taken from the configuration that the server would use.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Where the server is, such as https://realtime.example.com
    #[arg(long)]
    url: Option<url::Url>,
    /// The app's id; without it the first configured one
    #[arg(long)]
    app: Option<String>,
}

/// A server's address and credentials.
pub(crate) struct Server {
    pub(crate) url: url::Url,
    pub(crate) app: AppOptions,
}

impl Target {
    pub(crate) fn find(&self, sources: &Sources) -> anyhow::Result<Server> {
        let config = sources.load()?.config;
        let app = match &self.app {
            None => config.apps.first(),
            Some(id) => config.apps.iter().find(|app| app.id == *id),
        };
        let known: Vec<&str> = config.apps.iter().map(|app| app.id.as_str()).collect();
        let app =
            app.with_context(|| format!("--app: there is no such app; configured are {}", known.join(", ")))?.clone();
        let url = match &self.url {
            Some(url) => url.clone(),
            None => configured_url(&config)?,
        };
        anyhow::ensure!(matches!(url.scheme(), "http" | "https"), "--url: it must begin with http:// or https://");
        Ok(Server { url, app })
    }
}

/// Where a server with this configuration can be reached from this machine.
fn configured_url(config: &Config) -> anyhow::Result<url::Url> {
    let Listen::Tcp(mut address) = config.server.listen.clone() else {
        anyhow::bail!("--url is needed: the server listens on a unix socket");
    };
    anyhow::ensure!(address.port() != 0, "--url is needed: the server takes a free port");
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    let scheme = if config.tls.cert.is_some() { "https" } else { "http" };
    Ok(format!("{scheme}://{address}{}", config.server.path_prefix).parse()?)
}

/// Where the configuration is: the files that the command line names, and the environment.
pub(crate) fn sources(file: Option<PathBuf>, env_files: Vec<PathBuf>) -> Sources {
    #[allow(clippy::disallowed_methods, reason = "the one place where the environment is read")]
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Sources { variables: variables.collect(), file, env_files }
}

/// One thread alone needs no scheduler between threads, and the kernel finds the sockets of a process without threads at less cost.
pub(crate) fn runtime(threads: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    Ok(builder.worker_threads(threads).enable_all().build()?)
}

/// A line of output; false when nobody reads it any more.
pub(crate) fn say(text: &str) -> bool {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

/// A line about what went wrong.
pub(crate) fn complain(text: &str) {
    use std::io::Write as _;
    // Nobody may be there to read it.
    _ = writeln!(std::io::stderr(), "herald: {text}");
}
