//! Webhooks from outside: the real binary, real sockets, and a backend that records what it is told.
//!
//! Start at [`receiver::Receiver`], the backend: it checks each request's signature and can fail, hang or be down. One file for each
//! question; a test is a sentence. Always: an event is waited for to a deadline; that one does *not* come is proven by a later one of
//! the same channel, since a channel's events keep their order.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "a failed test shows the server's log")]

mod bound;
mod churn;
mod delivery;
mod events;
mod filters;
mod grace;
mod ids;
mod page;
mod receiver;
mod restart;
#[allow(dead_code, unused_imports, reason = "shared with the black-box tests, which use all of it")]
#[path = "../blackbox/support/mod.rs"]
mod support;
