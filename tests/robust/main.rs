//! Robustness from outside: the real binary under those who vanish, stall, flood and send nonsense.
//!
//! Start at [`churn`], the longest: thousands come and are cut at random while events flow. Then one file for each way to do harm:
//! [`vanished`] peers, exhausted [`descriptors`], [`slow`] senders, [`floods`], abuse of [`http2`], and the [`fuzz`] of every parser.
//! Always the same questions: is everybody else served, is what it costs bounded, is nothing left of it afterwards?

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "a failed test shows the server's log")]

mod churn;
mod descriptors;
mod floods;
mod fuzz;
mod http2;
#[allow(dead_code, reason = "shared with the tests of webhooks, which use the rest")]
#[path = "../webhooks/receiver.rs"]
mod receiver;
mod slow;
#[allow(dead_code, unused_imports, reason = "shared with the black-box tests, which use the rest")]
#[path = "../blackbox/support/mod.rs"]
mod support;
mod vanished;

use std::cell::Cell;
use std::time::{Duration, Instant};

use support::{Client, DEADLINE, Herald};

/// Waits until `is_so`, looking often; at the deadline it shows what was seen last.
async fn eventually<T: std::fmt::Debug>(what: &str, mut look: impl AsyncFnMut() -> T, is_so: impl Fn(&T) -> bool) -> T {
    let start = Instant::now();
    loop {
        let seen = look().await;
        if is_so(&seen) {
            return seen;
        }
        assert!(start.elapsed() < 2 * DEADLINE, "{what}: {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everybody else is served: a client gets its answer and a backend's event, both at once.
async fn assert_served(herald: &Herald, client: &mut Client, channel: &str) {
    let start = Instant::now();
    client.settle().await;
    herald.trigger(channel, "served", "").await;
    client.expect("served").await;
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(2), "an answer and an event took {elapsed:?}");
    assert!(!herald.has_logged("panicked"), "a task panicked");
}

/// The result of `work`; meanwhile and afterwards everybody else is served, and nothing that is done grows the memory by more than `most`.
async fn served_during<T>(herald: &Herald, client: &mut Client, most: u64, work: impl Future<Output = T>) -> T {
    let memory = herald.resident_bytes();
    client.subscribe("others").await;
    let over = Cell::new(false);
    let others = async {
        loop {
            let last = over.get();
            assert_served(herald, client, "others").await;
            let growth = herald.resident_bytes().saturating_sub(memory);
            assert!(growth < most, "the memory has grown by {growth} bytes");
            if last {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let work = async {
        let result = work.await;
        over.set(true);
        result
    };
    tokio::join!(work, others).0
}
