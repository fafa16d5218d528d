//! Herald, the command: environment, configuration, run; nothing else.

use anyhow::Context as _;

#[allow(clippy::disallowed_methods, reason = "the one place where the environment is read")]
fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let config = herald::config::load(|name| std::env::var(name).ok()).context("the configuration is not usable")?;
    rlimit::increase_nofile_limit(u64::MAX).context("cannot raise the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(herald::server::run(config))
}
