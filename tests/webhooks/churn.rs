//! Alternation: whatever clients do, a channel is occupied and vacated in turn, a member added and removed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::RngExt as _;
use serde_json::{Value, json};

use super::receiver::Receiver;
use super::support::{Client, DEADLINE, Herald};

const CLIENTS: usize = 20;
const CHANNELS: usize = 12;
const CHURN: Duration = Duration::from_secs(12);

/// What the receiver knows: channels and members, and whether they are there.
#[derive(Default)]
struct Known(HashMap<(String, Option<String>), bool>);

impl Known {
    fn learn(&mut self, event: &Value) {
        let is_there = match event["name"].as_str().unwrap() {
            "channel_occupied" | "member_added" => true,
            "channel_vacated" | "member_removed" => false,
            name => panic!("{name} was not asked for"),
        };
        let subject = (event["channel"].as_str().unwrap().to_owned(), event["user_id"].as_str().map(str::to_owned));
        let was_there = self.0.insert(subject, is_there).unwrap_or(false);
        assert_ne!(was_there, is_there, "{event} tells a change that was told already");
    }

    fn is_anybody_there(&self) -> bool {
        self.0.values().any(|is_there| *is_there)
    }
}

#[tokio::test]
async fn changes_alternate_under_churn() {
    let mut receiver = Receiver::of_default_app().await;
    let herald = Herald::start(&format!("[[apps]]\n{}", receiver.section(""))).await;
    let until = Instant::now() + CHURN;
    join_all((0..CLIENTS).map(|number| come_and_go(&herald, number, until))).await;

    let mut known = Known::default();
    let mut events = 0;
    known.learn(&receiver.event().await);
    while known.is_anybody_there() {
        known.learn(&receiver.event().await);
        events += 1;
    }
    // Had anything more been told of a channel, it would come before this.
    let mut last = herald.connect().await;
    for channel in 0..CHANNELS {
        join(&mut last, &format!("presence-{channel}"), "last").await;
    }
    for _ in 0..CHANNELS * 2 {
        let event = receiver.event().await;
        assert!(event["name"] == "channel_occupied" || event["user_id"] == "last", "{event}");
        known.learn(&event);
    }
    assert!(events > 2 * (CLIENTS + CHANNELS), "more than one coming and going of each: {events}");
}

/// Some clients have a channel to themselves, some share it, some even the user.
fn place(number: usize) -> (String, String) {
    let user = if number.is_multiple_of(3) { "shared".to_owned() } else { format!("user-{number}") };
    (format!("presence-{}", number % CHANNELS), user)
}

/// Joins and leaves until the time is over: by unsubscribing or by vanishing, back at once or about when the grace ends.
async fn come_and_go(herald: &Herald, number: usize, until: Instant) {
    let (channel, user) = place(number);
    let mut client = herald.connect().await;
    while Instant::now() < until {
        join(&mut client, &channel, &user).await;
        rest(0..60).await;
        if rand::rng().random_bool(0.5) {
            client.unsubscribe(&channel).await;
        } else {
            client.cut();
            client = herald.connect().await;
        }
        rest(if rand::rng().random_bool(0.2) { 0..20 } else { 2_990..3_120 }).await;
    }
    client.close().await;
}

async fn join(client: &mut Client, channel: &str, user: &str) {
    client.send(client.subscription(channel, Some(&json!({ "user_id": user }).to_string()))).await;
    let answered = async { while client.next().await.event != "pusher_internal:subscription_succeeded" {} };
    assert!(tokio::time::timeout(DEADLINE, answered).await.is_ok(), "an answer in time");
}

async fn rest(milliseconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(rand::rng().random_range(milliseconds))).await;
}
