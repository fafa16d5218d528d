//! What is kept, against a real database of each test's own: what a user would notice of the store's promises.
//!
//! One file for each thing that a user does; `support` opens the database and says who is who.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

/// Each of these cases over SQLite, and over Postgres: tests of their own.
macro_rules! over_both {
    ($($case:ident),+ $(,)?) => { $( mod $case {
        #[tokio::test]
        async fn sqlite() {
            Box::pin(super::$case(crate::support::sqlite().await)).await;
        }

        #[tokio::test]
        async fn postgres() {
            Box::pin(super::$case(crate::support::postgres().await)).await;
        }
    } )+ };
}

mod accounts;
mod acting;
mod conversations;
mod creating;
mod due;
mod files;
mod large;
mod many;
mod model;
mod outbox;
mod people;
mod plans;
mod postgres;
mod server;
mod support;
mod tasks;
mod tokens;
mod trouble;
