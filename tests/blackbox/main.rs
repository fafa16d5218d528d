//! Black-box tests: the real binary, spoken to over its sockets only.
//!
//! Start at [`support`]: a server of the test's own ([`support::Herald`]), clients that speak raw frames ([`support::Client`]) and a
//! backend that signs its requests ([`support::Api`]). One file for each part of the protocol; a test is a sentence, and asserts the
//! counter-case too. Always: an event is waited for to a deadline; that one does *not* come is proven by another that was sent after it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "a failed test shows the server's log")]

mod aliveness;
mod apps;
mod cache;
mod channels;
mod client_events;
mod handshake;
mod messages;
mod presence;
mod robustness;
mod support;
mod users;
