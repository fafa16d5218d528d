//! What is kept, against a real database of each test's own: what a user would notice of the store's promises.
//!
//! One file for each thing that a user does; `support` opens the database and says who is who.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod acting;
mod creating;
mod due;
mod many;
mod model;
mod outbox;
mod people;
mod plans;
mod support;
mod trouble;
