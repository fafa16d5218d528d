//! A server that the tool starts itself: Herald or the floor, as a child process of its own, so that both are read from outside alike.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::Context as _;

use crate::target::{Site, Target};
use crate::wire::App;

/// A running server; dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Held open, so that the server can go on printing.
    _stdout: BufReader<ChildStdout>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// This binary's own bare server; `bytes` is the size of its event's data.
    pub(crate) fn floor(bytes: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["floor", "--bytes", &bytes.to_string()]);
        Self::start(command)
    }

    /// Herald as it comes, with a free port and no metrics; and with these variables besides.
    pub(crate) fn herald(binary: &Path, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.env_clear().env("HERALD_LISTEN", "127.0.0.1:0").env("HERALD_METRICS_LISTEN", "off");
        command.envs(environment.iter().copied());
        Self::start(command).with_context(|| format!("{}: is it built? (cargo build --release)", binary.display()))
    }

    fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start")?;
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let address = loop {
            let mut line = String::new();
            if stdout.read_line(&mut line)? == 0 {
                anyhow::bail!("the server ended before it listened: {}", child.wait()?);
            }
            if let Some(address) = line.trim().strip_prefix("listening on http://") {
                break address.parse()?;
            }
        };
        Ok(Self { child, _stdout: stdout, address })
    }

    /// What there is to measure.
    pub(crate) fn target(&self) -> Target {
        Target { site: Site { address: self.address, app: App::of_herald() }, process: Some(self.child.id()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A child that has ended already is what is wanted.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
