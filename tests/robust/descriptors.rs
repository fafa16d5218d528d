//! A process that may open no more descriptors (case L4): those who are there are served on, new ones wait at the door.

use std::time::{Duration, Instant};

use crate::support::api::KeptOpen;
use crate::support::{Client, Herald};
use crate::{assert_served, eventually};

/// Those who were there before, and how many more may come then.
const EARLY: usize = 20;
const MORE: usize = 10;
/// How long it stays like that.
const FOR: Duration = Duration::from_secs(3);

/// Connections that were made while the process could not accept them all; each becomes a client once it is served.
fn knock(herald: &Herald, count: usize) -> Vec<tokio::task::JoinHandle<Client>> {
    let open = || {
        let (address, app) = (herald.address, herald.app.clone());
        tokio::spawn(async move {
            let mut client = Client::open_when_served(address, app).await;
            client.read_hello().await;
            client
        })
    };
    (0..count).map(|_| open()).collect()
}

fn served(waiting: &[tokio::task::JoinHandle<Client>]) -> usize {
    waiting.iter().filter(|client| client.is_finished()).count()
}

#[tokio::test]
async fn without_descriptors_those_who_are_there_are_served_on() {
    let mut herald = Herald::start("").await;
    let mut early = Vec::new();
    for _ in 0..EARLY {
        let mut client = herald.connect().await;
        client.subscribe("news").await;
        early.push(client);
    }
    let mut backend = KeptOpen::connect(herald.api()).await;
    backend.trigger(&["news"], "before", "").await;
    for client in &mut early {
        client.expect("before").await;
    }
    let before = herald.descriptors_but_the_databases();
    herald.limit_descriptors(herald.descriptors() + MORE);

    let waiting = knock(&herald, 3 * MORE);
    eventually("told in the log", async || herald.has_logged("cannot accept"), |told| *told).await;
    // Everybody who was let in; the database may have taken some of the places.
    let inside = async || (served(&waiting), herald.descriptors_but_the_databases() - before);
    let all_served = |(served, accepted): &(usize, usize)| served == accepted && *served >= MORE / 2;
    let (inside, _) = eventually("served", inside, all_served).await;
    assert!(inside < 2 * MORE, "{inside} were let in");
    let (start, processor) = (Instant::now(), herald.processor_time());
    let mut number = 0;
    while start.elapsed() < FOR {
        number += 1;
        backend.trigger(&["news"], "e", number.to_string()).await;
        for client in &mut early {
            assert_eq!(client.expect("e").await.data(), number.to_string());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let busy = herald.processor_time() - processor;
    assert!(busy < FOR / 4, "{number} events took {busy:?} of a processor: it must not spin");
    assert_eq!(served(&waiting), inside, "nobody else was let in");
    let lines = herald.times_logged("cannot accept");
    assert!((1..=2).contains(&lines), "it is told, and not over and over: {lines} lines");

    // Each that leaves makes room for one that waits, until all have been served.
    let (mut waiting, mut gone) = (waiting, 0);
    while !waiting.is_empty() {
        let all = 3 * MORE - gone;
        eventually("served", async || served(&waiting), |served| *served >= inside.min(all)).await;
        let ready = waiting.iter().position(tokio::task::JoinHandle::is_finished).unwrap();
        waiting.swap_remove(ready).await.unwrap().close().await;
        gone += 1;
    }
    let lines = herald.times_logged("cannot accept");
    assert!(lines <= 2, "who comes and goes at the limit does not fill the log: {lines} lines");
    eventually("a place", async || herald.descriptors(), |now| *now < EARLY + MORE + 20).await;
    let mut late = herald.connect().await;
    late.subscribe("news").await;
    assert_served(&herald, &mut late, "news").await;
    for client in &mut early {
        client.expect("served").await;
    }
    assert!(herald.is_running());
}
