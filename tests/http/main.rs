//! The HTTP API for backends, from outside: the real binary, requests written byte by byte, subscribers that see what arrives.
//!
//! One file for each thing that a backend does; `support` holds the server, the requests and the subscribers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod auth;
mod batches;
mod channels;
mod events;
mod idempotency;
mod rates;
mod support;
mod users;
mod wire;
