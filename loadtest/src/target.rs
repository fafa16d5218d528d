//! The server under measurement: where it is, whose app, and which process, if it runs on this machine.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use herald_protocol::Secret;

use crate::measure;
use crate::wire::App;

/// Where a server is, and the app that it has.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Whose clients and backends are played.
    pub(crate) app: App,
}

/// A server that can be measured.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Where it is.
    pub(crate) site: Site,
    /// Its process; without one, there is nothing to say about CPU and memory.
    pub(crate) process: Option<u32>,
}

impl Target {
    /// CPU time that the process has used so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Option<Duration>> {
        self.process.map(measure::cpu).transpose()
    }

    /// What it has used since.
    pub(crate) fn cpu_since(&self, before: Option<Duration>) -> anyhow::Result<Option<Duration>> {
        Ok(self.cpu()?.zip(before).map(|(now, before)| now.saturating_sub(before)))
    }

    /// Memory that is resident now, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<Option<u64>> {
        self.process.map(measure::resident).transpose()
    }
}

/// The same on the command line.
#[derive(Args, Clone, Debug)]
pub(crate) struct TargetOptions {
    /// Where the server listens
    #[arg(long, default_value = "127.0.0.1", global = true, help_heading = "Server")]
    host: String,
    /// Its port
    #[arg(long, default_value_t = 6001, global = true, help_heading = "Server")]
    port: u16,
    /// The app's id, as in the path of its API
    #[arg(long, default_value = "app-id", global = true, help_heading = "Server")]
    app_id: String,
    /// The app's key, as in the address that clients connect to
    #[arg(long, default_value = "app-key", global = true, help_heading = "Server")]
    key: String,
    /// The app's secret
    #[arg(
        long,
        env = "HERALD_LOADTEST_SECRET",
        hide_env_values = true,
        default_value = "app-secret",
        global = true,
        help_heading = "Server"
    )]
    secret: String,
    /// The server's process, for its CPU and memory; on loopback it is found by the port if it may be
    #[arg(long, global = true, help_heading = "Server")]
    pid: Option<u32>,
    /// Let load go to another machine
    #[arg(long, global = true, help_heading = "Server")]
    allow_remote: bool,
}

impl TargetOptions {
    /// The server that they name.
    pub(crate) fn target(&self) -> anyhow::Result<Target> {
        let Self { host, port, .. } = self;
        let mut addresses =
            (host.as_str(), *port).to_socket_addrs().with_context(|| format!("{host}: no such host"))?;
        let address = addresses.next().with_context(|| format!("{host} has no address"))?;
        let is_here = address.ip().is_loopback();
        anyhow::ensure!(
            is_here || self.allow_remote,
            "{address} is not on loopback: load goes there with --allow-remote only"
        );
        let app = App { id: self.app_id.clone(), key: self.key.clone(), secret: Secret::new(&self.secret) };
        let process = self.pid.or_else(|| measure::listener(address.port()).filter(|_| is_here));
        Ok(Target { site: Site { address, app }, process })
    }
}
