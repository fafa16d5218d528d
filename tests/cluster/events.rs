//! Promise 1: an event published on any node reaches every subscriber on every node, once, in the order of its publisher.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::nodes::Nodes;
use crate::support::api::{Answer, Api, KeptOpen};
use crate::support::{Client, Herald};

over_both! {
    every_subscriber_gets_each_event_once_in_the_order_of_its_publisher,
    an_event_arrives_as_it_was_sent_whatever_it_holds,
    a_trigger_of_many_channels_and_a_batch_reach_all_of_them,
    the_socket_that_is_left_out_is_left_out_on_every_node,
    a_client_event_reaches_the_others_of_every_node_with_its_sender,
    what_a_cache_channel_keeps_is_shown_on_every_node,
    who_comes_to_a_cache_channel_between_two_events_misses_none_and_sees_none_twice,
    a_repeat_on_another_node_gets_the_first_answer_and_delivers_nothing,
    of_many_repeats_at_once_on_many_nodes_one_is_the_first,
}

/// A subscriber of this channel on each node.
async fn one_on_each(nodes: &Nodes, channel: &str) -> Vec<Client> {
    join_all(nodes.iter().map(|node| subscriber(node, channel))).await
}

async fn subscriber(node: &Herald, channel: &str) -> Client {
    let mut client = node.connect().await;
    client.subscribe(channel).await;
    client
}

async fn every_subscriber_gets_each_event_once_in_the_order_of_its_publisher(url: &str) {
    const EVENTS: usize = 200;
    let nodes = Nodes::start(url, 3, "").await;
    let subscribers = one_on_each(&nodes, "news").await;
    let publish = async |node: &Herald, name: &str| {
        let mut backend = KeptOpen::connect(node.api()).await;
        for number in 0..EVENTS {
            backend.trigger(&["news"], name, number.to_string()).await;
        }
    };
    let read = async |mut client: Client| {
        let (mut one, mut other) = (0, 0);
        while one < EVENTS || other < EVENTS {
            let event = client.next().await;
            let count = if event.event == "one" { &mut one } else { &mut other };
            assert_eq!(event.data(), count.to_string(), "each in its turn: {}", event.text);
            *count += 1;
        }
        client
    };
    let reading = join_all(subscribers.into_iter().map(read));
    let ((), (), subscribers) = tokio::join!(publish(&nodes[0], "one"), publish(&nodes[1], "other"), reading);
    nodes[2].trigger("news", "end", "").await;
    for mut client in subscribers {
        client.expect("end").await; // nothing came twice
    }
}

async fn an_event_arrives_as_it_was_sent_whatever_it_holds(url: &str) {
    let nodes = Nodes::start(url, 2, "").await;
    let (mut here, mut there) = (subscriber(&nodes[0], "news").await, subscriber(&nodes[1], "news").await);
    for data in ["", "plain", "{\"a\": [1, null]}", "ä😀\u{2028}\0\r\n", &"x".repeat(10_000)] {
        nodes[0].trigger("news", "e", data).await;
        let event = there.expect("e").await;
        assert_eq!((event.channel.as_deref(), event.data()), (Some("news"), data));
        assert_eq!(event.text, here.expect("e").await.text, "on every node the same bytes");
    }
}

async fn a_trigger_of_many_channels_and_a_batch_reach_all_of_them(url: &str) {
    let nodes = Nodes::start(url, 3, "").await;
    let (mut a, mut b) = (subscriber(&nodes[1], "a").await, subscriber(&nodes[2], "b").await);
    let both = json!({ "name": "both", "channels": ["a", "b", "nobody"], "data": "" });
    nodes[0].api().events(&both).await.ok();
    let one = |channel: &str, name: &str| json!({ "name": name, "channel": channel, "data": "" });
    let batch = json!({ "batch": [one("a", "first"), one("b", "first"), one("a", "second")] });
    nodes[0].api().post("/batch_events", &batch.to_string()).await.ok();
    for event in ["both", "first", "second"] {
        a.expect(event).await;
    }
    for event in ["both", "first"] {
        b.expect(event).await;
    }
}

async fn the_socket_that_is_left_out_is_left_out_on_every_node(url: &str) {
    let nodes = Nodes::start(url, 3, "").await;
    let mut clients = one_on_each(&nodes, "news").await;
    let mut neighbour = subscriber(&nodes[0], "news").await;
    let except = clients[0].socket_id().to_string();
    for node in &*nodes {
        node.api().events(&json!({ "name": "e", "channel": "news", "data": "", "socket_id": except })).await.ok();
    }
    nodes[1].trigger("news", "end", "").await;
    for client in [&mut neighbour].into_iter().chain(&mut clients[1..]) {
        for event in ["e", "e", "e", "end"] {
            client.expect(event).await;
        }
    }
    clients[0].expect("end").await;
}

async fn a_client_event_reaches_the_others_of_every_node_with_its_sender(url: &str) {
    let nodes = Nodes::start(url, 3, "").await;
    let mut clients = Vec::new();
    for (node, user) in nodes.iter().zip(["ann", "bob", "cid"]) {
        let mut client = node.connect().await;
        client.subscribe("private-talk").await;
        client.join("presence-room", user).await;
        for earlier in &mut clients {
            Client::expect(earlier, "pusher_internal:member_added").await;
        }
        clients.push(client);
    }
    let [ann, others @ ..] = &mut *clients else { panic!("three of them") };
    ann.send_text(r#"{"event":"client-x","channel":"presence-room","data":{"a": 1},"user_id":"bob"}"#).await;
    ann.send_text(r#"{"event":"client-y","channel":"private-talk","data":"plain"}"#).await;
    for other in &mut *others {
        // Two channels, so their order is nobody's promise.
        let mut texts = [other.next().await.text, other.next().await.text];
        texts.sort();
        assert_eq!(
            texts,
            [
                r#"{"event":"client-x","channel":"presence-room","data":"{\"a\": 1}","user_id":"ann"}"#,
                r#"{"event":"client-y","channel":"private-talk","data":"plain"}"#
            ]
        );
    }
    for channel in ["presence-room", "private-talk"] {
        nodes[1].trigger(channel, "end", "").await;
        ann.expect("end").await; // never back to the sender
    }
    for other in others {
        other.expect("end").await;
        other.expect("end").await;
        other.settle().await;
    }
}

async fn what_a_cache_channel_keeps_is_shown_on_every_node(url: &str) {
    let nodes = Nodes::start(url, 3, "").await;
    let mut early = subscriber(&nodes[1], "cache-a").await;
    early.expect("pusher:cache_miss").await;
    nodes[0].trigger("cache-a", "first", "1").await;
    nodes[0].trigger("cache-a", "last", r#"{"a": "ü"}"#).await;
    early.expect("first").await;
    let original = early.expect("last").await.text;
    for node in &*nodes {
        let mut late = subscriber(node, "cache-a").await;
        assert_eq!(late.next().await.text, original, "directly after the answer, as it was sent");
        late.settle().await;
        let kept = node.api().get("/channels/cache-a", &[("info", "cache")]).await.ok();
        assert_eq!(kept["cache"]["data"], r#"{"a": "ü"}"#);
    }
    nodes[2].trigger("cache-b", "kept", "before anybody came").await;
    let mut late = subscriber(&nodes[0], "cache-b").await;
    assert_eq!(late.expect("kept").await.data(), "before anybody came");
    early.settle().await; // nobody else got any of it again
}

async fn who_comes_to_a_cache_channel_between_two_events_misses_none_and_sees_none_twice(url: &str) {
    const EVENTS: usize = 150;
    let nodes = Nodes::start(url, 3, "").await;
    nodes[0].trigger("cache-a", "e", "0").await;
    let publish = async {
        let mut backend = KeptOpen::connect(nodes[0].api()).await;
        for number in 1..=EVENTS {
            backend.trigger(&["cache-a"], "e", number.to_string()).await;
        }
    };
    let come_and_go = join_all(nodes.iter().map(async |node| {
        let mut client = node.connect().await;
        let mut last = 0;
        while last < EVENTS {
            client.subscribe("cache-a").await;
            let first: usize = client.expect("e").await.data().parse().unwrap();
            assert!(first >= last, "what is kept is not older than what was seen: {first} after {last}");
            client.unsubscribe("cache-a").await;
            client.send(json!({ "event": "pusher:ping" })).await;
            last = first;
            loop {
                let event = client.next().await;
                if event.event == "pusher:pong" {
                    break;
                }
                last += 1;
                assert_eq!(event.data(), last.to_string(), "after the kept event comes the next one");
            }
        }
    }));
    tokio::join!(publish, come_and_go);
}

/// Triggers an event with an idempotency key; whether it was answered as a repeat.
pub(crate) async fn once(api: &Api, key: &str, body: &Value) -> (Answer, bool) {
    let header = format!("Connection: close\r\nIdempotency-Key: {key}\r\n");
    let answer = api.raw(&api.events_request(body).replacen("Connection: close\r\n", &header, 1)).await;
    let is_replayed = answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true");
    (answer, is_replayed)
}

async fn a_repeat_on_another_node_gets_the_first_answer_and_delivers_nothing(url: &str) {
    let nodes = Nodes::start(url, 3, "").await;
    let mut clients = one_on_each(&nodes, "news").await;
    let event = json!({ "name": "once", "channel": "news", "data": "", "info": "subscription_count" });
    let (first, is_replayed) = once(&nodes[0].api(), "key", &event).await;
    assert!(!is_replayed, "{first:?}");
    for api in nodes.apis() {
        let (repeat, is_replayed) = once(&api, "key", &event).await;
        assert!(is_replayed, "{repeat:?}");
        assert_eq!(repeat.ok(), first.ok());
    }
    let other = json!({ "name": "other", "channel": "news", "data": "" });
    assert_eq!(once(&nodes[1].api(), "key", &other).await.0.status, 409, "the key belongs to the first request");
    assert_eq!(once(&nodes[1].api(), "another", &other).await.0.status, 200);
    for client in &mut clients {
        client.expect("once").await;
        client.expect("other").await;
    }
}

async fn of_many_repeats_at_once_on_many_nodes_one_is_the_first(url: &str) {
    let nodes = Nodes::start(url, 3, "").await;
    let mut clients = one_on_each(&nodes, "news").await;
    let event = json!({ "name": "once", "channel": "news", "data": "" });
    let apis = nodes.apis();
    let answers = join_all((0..30).map(|number| once(&apis[number % 3], "key", &event))).await;
    for (answer, _) in &answers {
        answer.ok();
    }
    assert_eq!(answers.iter().filter(|(_, is_replayed)| !is_replayed).count(), 1);
    nodes[1].trigger("news", "end", "").await;
    for client in &mut clients {
        client.expect("once").await;
        client.expect("end").await;
    }
}
