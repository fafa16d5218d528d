//! How Herald is configured, operated and ended, seen from outside: the real binary, its variables, files, output, signals and ports.
//!
//! Start at [`process`]: a [`process::Setup`] is what an operator prepares, a [`process::Running`] is the server that came of it. Clients
//! and backends that speak plain TCP are the black-box tests' own ([`support`]); [`socket`] has a client over any stream, for TLS, IPv6 and
//! unix sockets. A test is a sentence of the documentation with its counter-case. Always: what must happen is waited for to a deadline.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "a failed test shows the server's log")]

mod addresses;
mod commands;
mod configuration;
mod credentials;
mod doctor;
mod env_files;
mod health;
mod keys;
mod log;
mod metrics;
mod monitoring;
mod process;
mod proxies;
mod reload;
mod rotation;
mod secrets;
mod sentry;
mod shutdown;
mod socket;
#[allow(dead_code, unused_imports, reason = "shared with the black-box tests, which use the rest")]
#[path = "../blackbox/support/mod.rs"]
mod support;
mod tls;
#[allow(dead_code, reason = "shared with the tests of inboxes, which use the rest")]
#[path = "../inbox/user.rs"]
mod user;
mod vitals;
