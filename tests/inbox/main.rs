//! Identity and the inbox, from outside: the real binary, tokens as Clerk signs them, sockets that see what arrives.
//!
//! One file for each thing that somebody relies on; `support` holds the tokens and a user's requests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, unused_imports, reason = "shared with the black-box tests, which use the rest")]
#[path = "../blackbox/support/mod.rs"]
mod support;

mod asking;
mod authorizing;
mod backends;
mod clerk;
mod creating;
mod crisp;
mod database;
mod dispatching;
mod files;
mod integrations;
mod keys;
mod limits;
mod live;
mod outage;
#[allow(dead_code, reason = "shared with the store's tests, which use all of it")]
#[path = "../store/postgres.rs"]
mod postgres;
mod third_party;
mod user;
