//! The ids of events: one each, and the same whenever the event is sent.

use std::collections::HashSet;

use serde_json::json;

use super::delivery::{config, herald_with, say};
use super::receiver::{Receiver, Reply, Request};
use super::support::{Herald, in_cluster};

/// Checks that the request has one id for each event, none of them empty.
fn ids_of(request: &Request) -> Vec<String> {
    let ids = request.event_ids();
    assert_eq!(ids.len(), request.events().len(), "{request:?}");
    assert!(ids.iter().all(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic())), "{ids:?}");
    ids
}

#[tokio::test]
async fn each_event_has_an_id_of_its_own() {
    for (options, most) in [("", 50), ("batch = false", 1)] {
        let mut receiver = Receiver::of_default_app().await;
        let herald = herald_with(&[(&receiver, options)]).await;
        let mut client = herald.connect().await;
        receiver.reply_first([Reply::Held]);
        client.subscribe("private-talk").await;
        let mut all = ids_of(&receiver.request().await);
        assert_eq!(all.len(), 1);
        say(&mut client, "private-talk", 0..70).await;
        receiver.release();
        while all.len() < 71 {
            let (ids, waiting) = (ids_of(&receiver.request().await), 71 - all.len());
            // In a cluster they come out of the stream in portions.
            assert!(ids.len() == waiting.min(most) || in_cluster() && ids.len() <= most, "{} of {waiting}", ids.len());
            all.extend(ids);
        }
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "{all:?}");
    }
}

#[tokio::test]
async fn an_event_that_is_tried_again_keeps_its_id() {
    let mut receiver = Receiver::of_default_app().await;
    let herald = herald_with(&[(&receiver, "")]).await;
    let mut client = herald.connect().await;
    receiver.reply_first([Reply::Held, Reply::Status(500), Reply::Status(503)]);
    client.subscribe("private-talk").await;
    let other = ids_of(&receiver.request().await);
    say(&mut client, "private-talk", 0..10).await;
    receiver.release();
    let first = receiver.request().await;
    assert_eq!(ids_of(&first).len(), 10);
    for _ in 0..2 {
        let again = receiver.request().await;
        assert_eq!(again.body, first.body);
        assert_eq!(ids_of(&again), ids_of(&first));
    }
    assert!(!ids_of(&first).contains(&other[0]));
}

#[tokio::test]
async fn two_receivers_are_told_an_event_with_the_same_id() {
    let [mut one, mut two] = [Receiver::of_default_app().await, Receiver::of_default_app().await];
    let herald = herald_with(&[(&one, ""), (&two, "")]).await;
    herald.connect().await.subscribe("hall").await;
    assert_eq!(ids_of(&one.request().await), ids_of(&two.request().await));
}

#[tokio::test]
async fn an_event_keeps_its_id_over_a_restart_in_requests_of_another_size() {
    let mut receiver = Receiver::of_default_app().await;
    let mut herald = Herald::start(&config(&[(&receiver, "")])).await;
    receiver.reply_first([Reply::Held]);
    receiver.reply(Reply::Never);
    let mut client = herald.connect().await;
    client.subscribe("private-talk").await;
    receiver.request().await;
    say(&mut client, "private-talk", 0..10).await;
    receiver.release();
    let under_way = receiver.request().await;
    assert_eq!(under_way.events().len(), 10);
    herald.terminate();
    assert!(herald.ended().await.success());

    let seen = receiver.requests().len();
    receiver.reply(Reply::Status(200));
    let _herald = herald.start_again(&config(&[(&receiver, "batch = false")])).await;
    for number in 0..10 {
        let said = json!(number.to_string());
        let alone = loop {
            let request = receiver.request().await;
            if request.reply == Reply::Status(200) {
                break request;
            }
        };
        assert_eq!(alone.events().len(), 1);
        assert_eq!(alone.events()[0]["data"], said);
        assert_eq!(ids_of(&alone)[0], ids_of(&under_way)[number]);
        assert_ne!(alone.delivery(), under_way.delivery(), "another request");
    }
    assert_eq!(receiver.requests().len(), seen + 10);
}
