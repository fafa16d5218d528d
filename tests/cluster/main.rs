//! Many nodes as one, from outside: real processes, a real Redis of the test's own, real sockets.
//!
//! Start at [`nodes::Nodes`], some servers that share one [`redis::Redis`], and at [`observer::Observer`], a member that keeps the list of
//! members as pusher-js does and fails when it is told something that cannot be. [`proxy::Proxy`] stands between a node and Redis where the
//! way between them is to break; [`sentinel::Sentinels`] and [`shards::Shards`] are Redises of several servers, and [`traffic::Traffic`] is
//! what goes on while something happens to them. One file for each promise of docs/cluster.md; [`model`] tries them all at random. Always: what must happen
//! is waited for to a deadline; that something does *not* happen is proven by an event that was sent after it, from another node than the
//! one that the observer is with, since only what comes by the same way keeps its order.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "a failed test shows the server's log")]

/// Each of these cases over one Redis, and over a Redis Cluster: tests of their own.
macro_rules! over_both {
    ($($case:ident),+ $(,)?) => { $( mod $case {
        #[tokio::test]
        async fn redis() {
            let redis = crate::redis::Redis::start();
            Box::pin(super::$case(&redis.url())).await;
        }

        #[tokio::test]
        async fn redis_cluster() {
            let shards = crate::shards::Shards::start().await;
            Box::pin(super::$case(&shards.url())).await;
        }
    } )+ };
}

mod audit;
mod away;
mod balancer;
mod crash;
mod events;
mod inbox;
mod limits;
mod model;
mod nodes;
mod observer;
mod occupancy;
mod partition;
#[allow(dead_code, reason = "shared with the store's tests, which use all of it")]
#[path = "../store/postgres.rs"]
mod postgres;
mod presence;
mod proxy;
mod reads;
#[allow(dead_code, unused_imports, reason = "shared with the webhooks' tests, which use all of it")]
#[path = "../webhooks/receiver.rs"]
mod receiver;
mod redis;
mod rolling;
mod scripts;
mod sentinel;
mod sentinel_failover;
mod server;
mod sessions;
mod settings;
mod sharded;
mod shards;
mod share;
mod stores;
#[allow(dead_code, unused_imports, reason = "shared with the black-box tests, which use all of it")]
#[path = "../blackbox/support/mod.rs"]
mod support;
mod traffic;
#[allow(dead_code, reason = "shared with the inbox's tests, which use all of it")]
#[path = "../inbox/user.rs"]
mod user;
mod users;
