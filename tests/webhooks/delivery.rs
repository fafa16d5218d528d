//! How it is told: batches, order, retries, and receivers that fail in every way.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::json;

use super::receiver::{Receiver, Reply};
use super::support::{Client, DEADLINE, Herald, in_cluster};

/// A server whose clients may send as many events as they like, all of them told to these receivers.
pub(crate) async fn herald_with(receivers: &[(&Receiver, &str)]) -> Herald {
    Herald::start(&config(receivers)).await
}

pub(crate) fn config(receivers: &[(&Receiver, &str)]) -> String {
    let section = |(receiver, options): &(&Receiver, &str)| {
        receiver.section(&format!("events = [\"client_event\", \"channel_occupied\"]\n{options}"))
    };
    let sections: String = receivers.iter().map(section).collect();
    format!("[[apps]]\n[apps.limits]\nclient_events_per_second = 100000\n{sections}")
}

/// Sends client events that carry these numbers; returns when the server has them.
pub(crate) async fn say(client: &mut Client, channel: &str, numbers: std::ops::Range<u64>) {
    for number in numbers {
        client.send(json!({ "event": "client-number", "channel": channel, "data": number.to_string() })).await;
    }
    client.settle().await;
}

/// Receives until so many client events of each channel have come, each channel's in the order of their numbers from 0.
pub(crate) async fn expect_in_order(receiver: &mut Receiver, channels: &[&str], count: u64, deadline: Duration) {
    let until = Instant::now() + deadline;
    let mut next = vec![0; channels.len()];
    while next.iter().any(|next| *next < count) {
        let event = receiver.event_within(until.saturating_duration_since(Instant::now())).await;
        if event["name"] == "client_event" {
            let position = channels.iter().position(|channel| event["channel"] == *channel).unwrap();
            assert_eq!(event["data"], next[position].to_string(), "the next of {event}; of all {channels:?}: {next:?}");
            next[position] += 1;
        }
    }
}

/// Waits for a line of the server's log.
pub(crate) async fn logged(herald: &Herald, text: &str) {
    let found = async {
        while !herald.has_logged(text) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, found).await.is_ok(), "{text:?} is logged");
}

#[tokio::test]
async fn what_happens_meanwhile_goes_into_one_request_of_up_to_fifty() {
    let mut receiver = Receiver::of_default_app().await;
    let herald = herald_with(&[(&receiver, "")]).await;
    let mut client = herald.connect().await;
    receiver.reply_first([Reply::Held]);
    client.subscribe("private-talk").await;
    assert_eq!(receiver.request().await.events().len(), 1);
    say(&mut client, "private-talk", 0..120).await;
    receiver.release();
    let mut number = 0;
    while number < 120 {
        let request = receiver.request().await;
        let (events, waiting) = (request.events().len(), 120 - number);
        // In a cluster they come out of the stream in portions.
        assert!(events == waiting.min(50) || in_cluster() && events <= 50, "{events} of {waiting}");
        for event in request.events() {
            assert_eq!(event["data"], number.to_string());
            number += 1;
        }
    }
    let said = Instant::now();
    say(&mut client, "private-talk", 120..121).await;
    receiver.request().await;
    assert!(said.elapsed() < Duration::from_secs(1), "a lonely event is not collected for long: {:?}", said.elapsed());
}

#[tokio::test]
async fn without_batches_each_event_has_a_request_of_its_own() {
    let mut receiver = Receiver::of_default_app().await;
    let herald = herald_with(&[(&receiver, "batch = false")]).await;
    let mut client = herald.connect().await;
    client.subscribe("private-talk").await;
    say(&mut client, "private-talk", 0..30).await;
    let mut deliveries = HashSet::new();
    for position in 0..31 {
        let request = receiver.request().await;
        let [event] = &request.events()[..] else { panic!("one event: {request:?}") };
        if position > 0 {
            assert_eq!(event["data"], (position - 1).to_string());
        }
        assert!(deliveries.insert(request.delivery()), "an id of its own");
    }
    assert_eq!(receiver.load(), (1, 1), "one channel: one request at a time, over one connection");
}

#[tokio::test]
async fn a_request_that_failed_comes_again_as_it_was_and_in_order() {
    const CHANNELS: [&str; 6] = ["private-a", "private-b", "private-c", "private-d", "private-e", "private-f"];
    let mut receiver = Receiver::of_default_app().await;
    let herald = herald_with(&[(&receiver, "")]).await;
    let mut client = herald.connect().await;
    receiver.reply_first([500, 503, 200, 429, 404, 200, 410, 500, 301, 200, 400].map(Reply::Status));
    for channel in CHANNELS {
        client.subscribe(channel).await;
        say(&mut client, channel, 0..10).await;
    }
    for channel in CHANNELS {
        say(&mut client, channel, 10..60).await;
    }
    expect_in_order(&mut receiver, &CHANNELS, 60, 3 * DEADLINE).await;
    logged(&herald, "410 Gone").await;

    let requests = receiver.requests();
    let failed: Vec<_> = requests.iter().filter(|request| request.reply != Reply::Status(200)).collect();
    assert_eq!(failed.len(), 8);
    for earlier in failed {
        let same = |later: &&super::receiver::Request| later.delivery() == earlier.delivery() && later.at > earlier.at;
        let later = requests.iter().find(same).expect("it comes again");
        assert_eq!(later.body, earlier.body);
        assert_eq!(later.header("x-pusher-signature"), earlier.header("x-pusher-signature"));
        assert!(later.at - earlier.at >= Duration::from_millis(200), "after a pause");
    }
    let accepted: Vec<_> = requests.iter().filter(|request| request.reply == Reply::Status(200)).collect();
    let deliveries: HashSet<_> = accepted.iter().map(|request| request.delivery()).collect();
    assert_eq!(deliveries.len(), accepted.len(), "each delivery is accepted once");
    assert!(receiver.load().1 <= 4, "requests at once: {:?}", receiver.load());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut receiver = Receiver::of_default_app().await;
    let elsewhere = Receiver::of_default_app().await;
    let herald = herald_with(&[(&receiver, "")]).await;
    receiver.reply_first([301, 302, 307, 308].map(|code| Reply::With(code, "location", elsewhere.url())));
    herald.connect().await.subscribe("hall").await;
    receiver.expect(json!({ "name": "channel_occupied", "channel": "hall" })).await;
    assert_eq!(receiver.requests().len(), 5);
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_gets_it() {
    for code in [429, 503] {
        let mut receiver = Receiver::of_default_app().await;
        let herald = herald_with(&[(&receiver, "")]).await;
        let mut client = herald.connect().await;
        receiver.reply_first([Reply::With(code, "retry-after", "3".to_owned())]);
        client.subscribe("first").await;
        let first = receiver.request().await;
        logged(&herald, "it is tried again").await;
        for number in 0..20 {
            client.subscribe(&format!("other-{number}")).await;
        }
        for _ in 0..21 {
            receiver.event().await;
        }
        let second = &receiver.requests()[1];
        assert!(
            second.at - first.at >= Duration::from_millis(2_900),
            "{:?}, whatever its channel",
            second.at - first.at
        );
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_nobody_else() {
    let mut good = Receiver::of_default_app().await;
    let mut hanging = Receiver::of_default_app().await;
    hanging.reply(Reply::Never);
    let herald = herald_with(&[(&hanging, ""), (&good, "")]).await;
    let mut ann = herald.connect().await;
    let mut bob = herald.connect().await;
    for number in 0..20 {
        let start = Instant::now();
        let channel = format!("private-{number}");
        ann.subscribe(&channel).await;
        bob.subscribe(&channel).await;
        ann.send(json!({ "event": "client-hi", "channel": channel, "data": "hi" })).await;
        bob.expect("client-hi").await;
        herald.trigger(&channel, "news", "1").await;
        ann.expect("news").await;
        bob.expect("news").await;
        good.expect(json!({ "name": "channel_occupied", "channel": channel })).await;
        assert_eq!(good.event().await["event"], "client-hi");
        let elapsed = start.elapsed();
        assert!(elapsed < Duration::from_secs(5), "no attempt at the other was waited for: {elapsed:?}");
    }
    let first = hanging.request().await;
    while hanging.request().await.delivery() != first.delivery() {}
    let again = hanging.requests().into_iter().filter(|request| request.delivery() == first.delivery()).nth(1).unwrap();
    assert!(again.at - first.at >= Duration::from_secs(5), "an attempt has five seconds: {:?}", again.at - first.at);
    assert!(hanging.load().1 <= 4, "requests at once: {:?}", hanging.load());
}

#[tokio::test]
async fn all_arrives_in_order_once_a_receiver_is_back() {
    const CHANNELS: [&str; 5] = ["private-a", "private-b", "private-c", "private-d", "private-e"];
    let mut receiver = Receiver::of_default_app().await;
    let herald = herald_with(&[(&receiver, "")]).await;
    let mut client = herald.connect().await;
    client.subscribe("private-before").await;
    receiver.expect(json!({ "name": "channel_occupied", "channel": "private-before" })).await;
    receiver.down().await;
    for part in 0..10 {
        for channel in CHANNELS {
            if part == 0 {
                client.subscribe(channel).await;
            }
            say(&mut client, channel, part * 13..(part + 1) * 13).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    receiver.up();
    expect_in_order(&mut receiver, &CHANNELS, 130, Duration::from_secs(60)).await;
}
