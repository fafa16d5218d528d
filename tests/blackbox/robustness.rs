//! Robustness: readers that stall, a server that is short of CPU, an end under load.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Client, DEADLINE, Herald, Options};

#[tokio::test]
async fn a_stalled_reader_is_cut_and_its_neighbours_notice_nothing() {
    let herald =
        Herald::start("connection = { write_deadline = \"30s\", queue = { max_bytes = 65536, max_frames = 10000 } }")
            .await;
    let mut stalled = Vec::new();
    for number in 0..20 {
        let options = Options { receive_buffer: Some(4_096), ..Options::default() };
        let mut client = herald.open_with("/app/app-key?protocol=7", options).await;
        client.read_hello().await;
        client.join("presence-room", &format!("stalled-{number}")).await;
        stalled.push(client);
    }
    let [mut ann, mut bob] = herald.members("presence-room", ["ann", "bob"]).await;
    let before = herald.resident_bytes();
    let data = "x".repeat(10_000);
    let (mut gone, mut sent, mut slowest) = ([0; 2], 0, Duration::ZERO);
    while gone != [stalled.len(); 2] {
        assert!(sent < 5_000, "50 MB were sent, and of the stalled readers are gone {gone:?}");
        let start = Instant::now();
        herald.trigger("presence-room", "e", &*data).await;
        sent += 1;
        for (client, gone) in [&mut ann, &mut bob].into_iter().zip(&mut gone) {
            loop {
                let event = client.next().await;
                match &*event.event {
                    "e" => break,
                    "pusher_internal:member_removed" => *gone += 1,
                    other => panic!("{other}: {}", event.text),
                }
            }
        }
        slowest = slowest.max(start.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "an event took {slowest:?} to the neighbours");
    let growth = herald.resident_bytes().saturating_sub(before);
    assert!(growth < 32 * 1024 * 1024, "the memory grew by {growth} bytes");
    ann.settle().await;
}

#[tokio::test]
async fn a_queue_with_room_for_no_more_than_one_event_holds_a_batch_back_and_gets_all_of_it() {
    let herald = Herald::start("connection = { queue = { max_bytes = 16384, max_frames = 10000 } }").await;
    let mut ann = herald.connect().await;
    ann.subscribe("room").await;
    let data = "x".repeat(10_000);
    let event = |name: usize| json!({ "name": name.to_string(), "channel": "room", "data": data });
    let batch = json!({ "batch": (0..10).map(event).collect::<Vec<_>>() });
    herald.api().post("/batch_events", &batch.to_string()).await.ok();
    for name in 0..10 {
        ann.expect(&name.to_string()).await;
    }
}

#[tokio::test]
async fn a_reader_that_wakes_up_is_told_why_it_was_cut() {
    let herald = Herald::start("connection = { queue = { max_bytes = 65536, max_frames = 10000 } }").await;
    let options = Options { receive_buffer: Some(65_536), ..Options::default() };
    let mut stalled = herald.open_with("/app/app-key?protocol=7", options).await;
    stalled.read_hello().await;
    stalled.join("presence-room", "stalled").await;
    let mut ann = herald.connect().await;
    ann.join("presence-room", "ann").await;
    let data = "x".repeat(10_000);
    loop {
        herald.trigger("presence-room", "e", &*data).await;
        let event = ann.next().await;
        if event.event == "pusher_internal:member_removed" {
            break;
        }
        assert_eq!(event.event, "e");
    }
    stalled.expect("pusher_internal:member_added").await;
    let reason = stalled.expect_close(4100).await;
    assert!(reason.contains("slow"), "{reason}");
}

#[tokio::test]
async fn a_socket_that_takes_nothing_for_too_long_is_cut_though_little_waits() {
    let herald = Herald::start(
        "connection = { write_deadline = \"1s\", queue = { max_bytes = 67108864, max_frames = 100000 } }",
    )
    .await;
    let options = Options { receive_buffer: Some(4_096), ..Options::default() };
    let mut stalled = herald.open_with("/app/app-key?protocol=7", options).await;
    stalled.read_hello().await;
    stalled.join("presence-room", "stalled").await;
    let mut ann = herald.connect().await;
    ann.join("presence-room", "ann").await;
    let data = "x".repeat(10_000);
    let triggers = async {
        for _ in 0..1_000 {
            herald.trigger("presence-room", "e", &*data).await; // more than the kernel takes, less than the queue does
        }
    };
    // She reads meanwhile: on a busy machine the triggers take longer than the deadline.
    let reads = async {
        let (mut seen, mut gone) = (0, false);
        while seen < 1_000 || !gone {
            match &*ann.next().await.event {
                "e" => seen += 1,
                other => {
                    assert_eq!(other, "pusher_internal:member_removed");
                    gone = true;
                }
            }
        }
    };
    tokio::join!(triggers, reads);
    ann.settle().await;
}

#[tokio::test]
async fn a_server_short_of_cpu_cuts_nobody_for_it() {
    const READERS: usize = 50;
    const EVENTS: usize = 1_000;
    let herald = Herald::start("connection = { queue = { max_bytes = 16384, max_frames = 16 } }").await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut client = herald.connect().await;
        client.subscribe("news").await;
        readers.push(client);
    }
    // Far more at once than a queue holds; each event is small, so what waits is never more than a socket takes.
    let publish = join_all((0..20).map(|publisher| {
        let api = herald.api();
        async move {
            let mut told = 0;
            for number in 0..EVENTS / 20 {
                let data = format!("{publisher}.{number}");
                let answer = api.events(&json!({ "name": "e", "channel": "news", "data": data })).await;
                assert!(matches!(answer.status, 200 | 503), "{answer:?}");
                told += usize::from(answer.status == 200);
            }
            told
        }
    }));
    let read = join_all(readers.iter_mut().map(async |client| {
        let mut seen = 0;
        while client.next().await.event == "e" {
            seen += 1;
        }
        seen
    }));
    let published = async {
        let told: usize = publish.await.into_iter().sum();
        herald.trigger("news", "marker", "").await;
        told
    };
    let (told, seen) = tokio::join!(published, read);
    assert!(told > 0);
    for seen in seen {
        assert!((told..=EVENTS).contains(&seen), "{told} were told to have arrived, {seen} did");
    }
    for client in &mut readers {
        client.settle().await;
    }
}

#[tokio::test]
async fn at_the_end_every_client_is_sent_away_in_order() {
    const CLIENTS: usize = 300;
    let mut herald = Herald::start("shutdown = { delay = \"300ms\", drain = \"1s\" }").await;
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..CLIENTS {
        let mut client = herald.connect().await;
        client.subscribe("news").await;
        if number % 3 == 0 {
            client.join("presence-room", &format!("user-{number}")).await;
        }
        clients.push(client);
    }
    let api = herald.api();
    let load = tokio::spawn(async move {
        let mut published = 0;
        while api.try_events(&json!({ "name": "e", "channel": "news", "data": "x".repeat(500) })).await.is_ok() {
            published += 1;
        }
        published
    });
    let reading = clients.into_iter().map(|mut client| tokio::spawn(async move { client.expect_close(4200).await }));
    let reading: Vec<_> = reading.collect();
    let mut watcher = herald.connect().await;
    watcher.subscribe("news").await;
    for _ in 0..20 {
        watcher.expect("e").await; // the load is on
    }
    let start = Instant::now();
    herald.terminate();
    for reason in join_all(reading).await {
        assert!(reason.unwrap().contains("going away")); // anything but 4200 has failed in the task, a connection reset too
    }
    watcher.expect_close(4200).await;
    assert!(start.elapsed() < Duration::from_secs(8), "the last was told after {:?}", start.elapsed());
    assert!(herald.ended().await.success());
    assert!(load.await.unwrap() > 0);
}

#[tokio::test]
async fn an_end_with_nobody_there_is_quick() {
    let mut herald = Herald::start("shutdown = { delay = \"0s\", drain = \"1m\" }").await;
    let mut client = herald.connect().await;
    let start = Instant::now();
    herald.terminate();
    client.expect_close(4200).await;
    drop(client);
    assert!(herald.ended().await.success());
    assert!(start.elapsed() < Duration::from_secs(8), "it waits for nobody: {:?}", start.elapsed());
}

#[tokio::test]
async fn who_comes_while_the_server_is_going_is_still_served_or_sent_on() {
    let mut herald = Herald::start("shutdown = { delay = \"2s\", drain = \"0s\" }").await;
    let mut early = herald.connect().await;
    herald.terminate();
    let mut late = herald.connect().await; // the balancer has not noticed yet
    late.subscribe("news").await;
    herald.trigger("news", "e", "").await;
    late.expect("e").await;
    late.expect_close(4200).await;
    early.expect_close(4200).await;
    drop((early, late));
    assert!(herald.ended().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut herald = Herald::start("shutdown = { delay = \"5m\", drain = \"5m\" }").await;
    let _client = herald.connect().await;
    herald.terminate();
    // Two signals that come as one would count as one: the second is sent once the first was heeded.
    let ready = "GET /health/ready HTTP/1.1\r\nHost: herald\r\nConnection: close\r\n\r\n";
    let heeded = async { while herald.api().raw(ready).await.status != 503 {} };
    tokio::time::timeout(DEADLINE, heeded).await.unwrap();
    let start = Instant::now();
    herald.terminate();
    herald.ended().await;
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}
