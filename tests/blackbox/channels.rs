//! Channels (sections 1, 3.1 to 3.3): names, kinds, signatures, subscribing and unsubscribing, and what arrives in which order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use herald_protocol::Secret;
use serde_json::json;

use crate::support::api::Api;
use crate::support::{App, Client, DEADLINE, Frame, Herald, in_cluster};

/// Every kind that a subscription alone opens.
const KINDS: [&str; 8] = [
    "news",
    "cache-news",
    "private-news",
    "private-cache-news",
    "private-encrypted-news",
    "private-encrypted-cache-news",
    "presence-news",
    "presence-cache-news",
];

#[tokio::test]
async fn every_kind_of_channel_is_subscribed_heard_and_left() {
    let herald = Herald::start("").await;
    for channel in KINDS {
        let mut client = herald.connect().await;
        client.subscribe("marker").await;
        herald.trigger(channel, "before", "nobody hears this").await;
        let answer = match channel.starts_with("presence-") {
            true => client.join(channel, "7").await,
            false => client.subscribe(channel).await,
        };
        match channel.starts_with("presence-") {
            true => {
                assert_eq!(answer.json(), json!({ "presence": { "count": 1, "ids": ["7"], "hash": { "7": null } } }))
            }
            false => assert_eq!(answer.data(), "{}", "{channel}"),
        }
        if channel.contains("cache-") {
            assert_eq!(client.next().await.event, "before", "{channel} keeps the last event");
        }
        herald.trigger(channel, "greeting", r#"{"a": 1}"#).await;
        let expected = format!(r#"{{"event":"greeting","channel":"{channel}","data":"{{\"a\": 1}}"}}"#);
        assert_eq!(client.next().await.text, expected);
        client.unsubscribe(channel).await;
        client.settle().await;
        herald.trigger(channel, "after", "nobody hears this").await;
        herald.trigger("marker", "marker", "").await;
        client.expect("marker").await;
    }
}

#[tokio::test]
async fn names_hold_what_is_allowed_and_no_more() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    let all = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=@,.;";
    for name in [all, "a", "=", "-private", "private", "presence", &"x".repeat(164)] {
        client.subscribe(name).await;
        herald.trigger(name, "e", "1").await;
        assert_eq!(client.expect("e").await.channel.as_deref(), Some(name));
    }
    for (name, kind, status) in [
        ("", "InvalidChannel", 400),
        ("a b", "InvalidChannel", 400),
        ("a/b", "InvalidChannel", 400),
        ("a:b", "InvalidChannel", 400),
        ("a*", "InvalidChannel", 400),
        ("a'", "InvalidChannel", 400),
        ("a\"", "InvalidChannel", 400),
        ("a\\", "InvalidChannel", 400),
        ("a\n", "InvalidChannel", 400),
        ("a\0", "InvalidChannel", 400),
        ("ä", "InvalidChannel", 400),
        ("😀", "InvalidChannel", 400),
        ("a#b", "InvalidChannel", 400),
        ("#a", "InvalidChannel", 400),
        ("#server-to-user-", "InvalidChannel", 400),
        ("#server-to-user-a\u{7}", "InvalidChannel", 400),
        (&"x".repeat(165), "LimitReached", 4009),
    ] {
        client.send(json!({ "event": "pusher:subscribe", "data": { "channel": name } })).await;
        let (found, found_status, text) = client.expect_subscription_error(name).await;
        assert_eq!((&*found, found_status), (kind, status), "{name:?}: {text}");
        let answer = herald.api().events(&json!({ "name": "e", "channels": ["a", name], "data": "" })).await;
        assert_eq!(answer.status, 400, "{name:?}: {answer:?}");
    }
    client.settle().await; // nothing of the refused triggers arrived on "a"
}

#[tokio::test]
async fn the_length_of_a_name_follows_the_configured_limit() {
    let herald = Herald::start("[[apps]]\n[apps.limits]\nchannel_name = 200").await;
    let mut client = herald.connect().await;
    client.subscribe(&"x".repeat(200)).await;
    let long = "x".repeat(201);
    client.send(json!({ "event": "pusher:subscribe", "data": { "channel": long } })).await;
    let (kind, status, text) = client.expect_subscription_error(&long).await;
    assert_eq!((&*kind, status), ("LimitReached", 4009));
    assert!(text.contains("200"), "the limit is told: {text}");
}

#[tokio::test]
async fn subscribing_twice_is_answered_twice_and_changes_nothing() {
    let herald = Herald::start("").await;
    let [mut ann, mut bob] = herald.members("presence-room", ["ann", "bob"]).await;
    for channel in ["news", "private-news", "presence-room"] {
        if channel == "presence-room" {
            let answer = ann.join(channel, "ann").await;
            assert_eq!(answer.json()["presence"]["count"], 2, "the snapshot is the present one");
        } else {
            ann.subscribe(channel).await;
            ann.subscribe(channel).await;
        }
        herald.trigger(channel, "e", "once").await;
        ann.expect("e").await;
        ann.settle().await;
    }
    bob.expect("e").await; // and was not told of any joining
    ann.unsubscribe("presence-room").await;
    bob.expect("pusher_internal:member_removed").await; // one unsubscription is enough
    ann.unsubscribe("presence-room").await;
    ann.unsubscribe("news").await;
    ann.unsubscribe("news").await;
    ann.unsubscribe("never-subscribed").await;
    ann.unsubscribe("not a name").await;
    ann.settle().await;
    bob.settle().await;
    ann.send(json!({ "event": "pusher:subscribe", "data": { "channel": "private-news", "auth": "app-key:00" } })).await;
    ann.expect_subscription_error("private-news").await; // the second time is verified too, and costs nothing
    herald.trigger("private-news", "e", "").await;
    ann.expect("e").await;
}

#[tokio::test]
async fn a_burst_of_subscribing_and_leaving_ends_as_the_last_word_says() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    let subscribe = Frame::new(Frame::TEXT, client.subscription("private-a", None).to_string()).masked();
    let unsubscribe = json!({ "event": "pusher:unsubscribe", "data": { "channel": "private-a" } });
    let unsubscribe = Frame::new(Frame::TEXT, unsubscribe.to_string()).masked();
    client.send_bytes(&[subscribe.as_slice(), &unsubscribe].concat().repeat(20)).await;
    client.send_bytes(&subscribe).await;
    if in_cluster() {
        // Those that left before the cluster knew them get no answer; the last one stays.
        client.expect_succeeded("private-a").await;
        return;
    }
    for _ in 0..21 {
        client.expect_succeeded("private-a").await;
    }
    herald.trigger("private-a", "e", "on").await;
    client.expect("e").await;
    client.send_bytes(&[unsubscribe.as_slice(), &subscribe, &unsubscribe].concat()).await;
    client.expect_succeeded("private-a").await;
    client.settle().await;
    herald.trigger("private-a", "e", "off").await;
    client.settle().await;
}

#[tokio::test]
async fn data_arrives_byte_for_byte() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    client.subscribe("news").await;
    for (sent, arrives) in [
        (r#""\u2028\u0041\/\b\f\n\r\t\"\\""#, None),
        ("\"\u{2028}\u{2029}\u{7f}\"", None),
        (r#""\ud83d\ude00""#, None),
        ("\"😀\"", None),
        (r#""1e21""#, None),
        (r#""not JSON at all""#, None),
        (r#""""#, None),
        (r#""\u0000""#, None),
        (r#""{\"a\":1.0,\"a\":2}""#, None),
        (r#"{"a": 1.00,  "b":[ ]}"#, Some(r#""{\"a\": 1.00,  \"b\":[ ]}""#)),
        ("1e21", Some(r#""1e21""#)),
        ("12345678901234567890123", Some(r#""12345678901234567890123""#)),
        ("null", Some(r#""null""#)),
        ("false", Some(r#""false""#)),
        ("[\"\u{2028}\"]", Some("\"[\\\"\u{2028}\\\"]\"")),
    ] {
        let body = format!(r#"{{"name":"e","channel":"news","data":{sent}}}"#);
        herald.api().post("/events", &body).await.ok();
        let event = client.expect("e").await;
        let expected = format!(r#"{{"event":"e","channel":"news","data":{}}}"#, arrives.unwrap_or(sent));
        assert_eq!(event.text, expected);
    }
}

#[tokio::test]
async fn the_socket_that_triggered_is_left_out() {
    let herald = Herald::start("").await;
    let (mut sender, mut other) = (herald.connect().await, herald.connect().await);
    for client in [&mut sender, &mut other] {
        client.subscribe("a").await;
        client.subscribe("b").await;
    }
    let trigger = async |socket_id: &str, data: &str| {
        let body = json!({ "name": "e", "channels": ["a", "b"], "data": data, "socket_id": socket_id });
        herald.api().events(&body).await
    };
    trigger(&sender.socket_id().to_string(), "but the sender").await.ok();
    for _ in 0..2 {
        assert_eq!(other.expect("e").await.data(), "but the sender");
    }
    sender.settle().await;
    trigger("1.1", "all").await.ok();
    for client in [&mut sender, &mut other] {
        for _ in 0..2 {
            assert_eq!(client.expect("e").await.data(), "all", "an unknown socket leaves out nobody");
        }
    }
    for malformed in ["", "1", "1.", "a.b", "1.1\n", "1.1.1", " 1.1", "-1.1"] {
        assert_eq!(trigger(malformed, "nobody").await.status, 400, "{malformed:?}");
    }
    sender.settle().await;
    other.settle().await;
}

#[tokio::test]
async fn an_event_to_several_channels_reaches_each_once() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    for channel in ["a", "b", "c"] {
        client.subscribe(channel).await;
    }
    herald.api().events(&json!({ "name": "e", "channels": ["a", "b", "a", "a"], "data": "" })).await.ok();
    let mut reached = [client.expect("e").await.channel.unwrap(), client.expect("e").await.channel.unwrap()];
    reached.sort();
    assert_eq!(reached, ["a", "b"]);
    client.settle().await;
}

#[tokio::test]
async fn a_subscription_needs_the_right_signature() {
    let herald = Herald::start(
        r#"
        [[apps]]
        keys = [{ key = "next-key", secret = "next-secret" }]
        [[apps]]
        id = "other"
        key = "other-key"
        secret = "other-secret"
        "#,
    )
    .await;
    let mut client = herald.connect().await;
    let stranger = herald.connect().await;
    let id = client.socket_id();
    let (app, next) = (&herald.app, App::new("app-id", "next-key", "next-secret"));
    let other = App::new("other", "other-key", "other-secret");
    let right = app.authorize(id, "private-a", None);
    let with_data = app.authorize(id, "private-a", Some("{}"));
    let mixed = App { secret: Secret::new("other-secret"), ..app.clone() };
    for (auth, channel_data, granted, rule) in [
        (Some(right.clone()), None, true, "right"),
        (Some(next.authorize(id, "private-a", None)), None, true, "of the second key pair"),
        (Some(with_data.clone()), Some("{}"), true, "over channel_data where it was sent"),
        (Some(right.clone()), Some("{}"), false, "without the channel_data that was sent"),
        (Some(with_data), None, false, "over channel_data that was not sent"),
        (Some(app.authorize(stranger.socket_id(), "private-a", None)), None, false, "of another socket"),
        (Some(app.authorize(id, "private-b", None)), None, false, "of another channel"),
        (Some(app.authenticate(id, "private-a")), None, false, "of a sign-in"),
        (Some(other.authorize(id, "private-a", None)), None, false, "of another app"),
        (Some(mixed.authorize(id, "private-a", None)), None, false, "with another app's secret"),
        (
            Some(App { key: "next-key".to_owned(), ..app.clone() }.authorize(id, "private-a", None)),
            None,
            false,
            "with the other pair's secret",
        ),
        (Some(right.to_uppercase().replace("APP-KEY", "app-key")), None, false, "in capitals"),
        (Some(right.strip_suffix(char::is_alphanumeric).unwrap().to_owned()), None, false, "truncated"),
        (Some(format!("{right}0")), None, false, "too long"),
        (Some(right.replace(':', "")), None, false, "without a colon"),
        (Some(format!(" {right}")), None, false, "with a blank"),
        (Some("app-key:".to_owned()), None, false, "empty"),
        (Some(String::new()), None, false, "no text"),
        (None, None, false, "missing"),
    ] {
        let mut data = json!({ "channel": "private-a" });
        if let Some(auth) = &auth {
            data["auth"] = auth.as_str().into();
        }
        if let Some(channel_data) = channel_data {
            data["channel_data"] = channel_data.into();
        }
        client.send(json!({ "event": "pusher:subscribe", "data": data })).await;
        if granted {
            client.expect_succeeded("private-a").await;
            client.unsubscribe("private-a").await;
            client.settle().await;
        } else {
            let (kind, status, text) = client.expect_subscription_error("private-a").await;
            assert_eq!((&*kind, status), ("AuthError", 401), "{rule}: {text}");
            assert!(!text.contains("app-secret"), "{rule}: {text}");
        }
        herald.trigger("private-a", "e", "").await;
        client.settle().await; // nobody is on it now, whoever was refused in particular
    }
}

#[tokio::test]
async fn a_wrong_signature_is_told_what_had_to_be_signed() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    let auth = client.app.authorize(client.socket_id(), "private-b", None);
    client.send(json!({ "event": "pusher:subscribe", "data": { "channel": "private-a", "auth": auth } })).await;
    let (_, _, text) = client.expect_subscription_error("private-a").await;
    assert!(text.contains(&format!("{}:private-a", client.socket_id())), "{text}");
    client.subscribe("private-b").await;
}

#[tokio::test]
async fn authorization_of_a_public_channel_is_not_looked_at() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    for (channel, auth) in [("a", json!("")), ("b", json!("app-key:00")), ("cache-c", json!(null))] {
        client.send(json!({ "event": "pusher:subscribe", "data": { "channel": channel, "auth": auth } })).await;
        client.expect_succeeded(channel).await;
    }
}

#[tokio::test]
async fn a_connection_has_a_thousand_subscriptions_and_not_one_more() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    let name = |number: usize| format!("channel-{number}");
    for number in 0..1_000 {
        client.send(client.subscription(&name(number), None)).await;
    }
    client.expect_all_succeeded((0..1_000).map(name)).await;
    client.send(client.subscription("one-more", None)).await;
    let (kind, status, text) = client.expect_subscription_error("one-more").await;
    assert_eq!((&*kind, status), ("LimitReached", 4100));
    assert!(text.contains("1000"), "the limit is told: {text}");
    client.subscribe(&name(0)).await; // what it has already is no new one
    client.unsubscribe(&name(0)).await;
    client.subscribe("one-more").await;
}

#[tokio::test]
async fn nothing_stays_occupied_by_those_who_were_cut() {
    let herald = Herald::start("").await;
    let mut staying = herald.connect().await;
    staying.subscribe("staying").await;
    for _ in 0..20 {
        let mut client = herald.connect().await;
        for channel in ["news", "cache-news", "private-news"] {
            client.send(client.subscription(channel, None)).await;
        }
        client.send(client.subscription("presence-news", Some(r#"{"user_id":"7"}"#))).await;
        client.cut(); // before or while it is answered
    }
    let emptied = async {
        loop {
            let channels = herald.api().get("/channels", &[]).await.ok();
            if channels["channels"].as_object().unwrap().keys().eq(["staying"]) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, emptied).await.expect("all channels but one are empty");
}

#[tokio::test]
async fn events_arrive_in_the_order_of_their_triggers() {
    let herald = Herald::start("").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = herald.connect().await;
        client.subscribe("news").await;
        clients.push(client);
    }
    for number in 0..1_000 {
        herald.trigger("news", "e", number.to_string()).await;
    }
    for client in &mut clients {
        for number in 0..1_000 {
            assert_eq!(client.expect("e").await.data(), number.to_string());
        }
    }
}

/// A hundred numbers in ten batches, every third to `a` and the others to `b`.
async fn trigger_batches(api: &Api) {
    for start in (0..100).step_by(10) {
        let events = (start..start + 10)
            .map(|number| json!({ "name": "e", "channel": channel_of(number), "data": number.to_string() }))
            .collect::<Vec<_>>();
        api.post("/batch_events", &json!({ "batch": events }).to_string()).await.ok();
    }
}

fn channel_of(number: usize) -> &'static str {
    if number.is_multiple_of(3) { "a" } else { "b" }
}

#[tokio::test]
async fn events_of_batches_arrive_in_their_order() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    client.subscribe("a").await;
    client.subscribe("b").await;
    trigger_batches(&Api::new(herald.address, herald.app.clone())).await;
    for number in 0..100 {
        let event = client.expect("e").await;
        assert_eq!((event.channel.as_deref(), event.data()), (Some(channel_of(number)), &*number.to_string()));
    }
}

#[tokio::test]
async fn events_of_batches_to_any_node_arrive_in_the_order_of_their_channel() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    client.subscribe("a").await;
    client.subscribe("b").await;
    trigger_batches(&herald.api()).await;
    let [mut of_a, mut of_b] = ["a", "b"].map(|name| (0..100).filter(move |number| channel_of(*number) == name));
    for _ in 0..100 {
        let event = client.expect("e").await;
        let expected = if event.channel.as_deref() == Some("a") { of_a.next() } else { of_b.next() };
        assert_eq!(Some(event.data()), expected.map(|number| number.to_string()).as_deref(), "{}", event.text);
    }
}

#[tokio::test]
async fn in_a_burst_of_subscriptions_nothing_comes_before_the_answer_and_nothing_is_missing_after() {
    const CLIENTS: usize = 50;
    let herald = Herald::start("").await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(herald.connect().await);
    }
    let everyone_is_in = tokio::sync::Semaphore::new(0);
    let next = AtomicUsize::new(0);
    let publisher = async {
        loop {
            let is_last = everyone_is_in.available_permits() == CLIENTS;
            let number = next.fetch_add(1, Ordering::Relaxed);
            herald.trigger("news", if is_last { "last" } else { "e" }, number.to_string()).await;
            if is_last {
                return;
            }
        }
    };
    let subscribers = join_all(clients.iter_mut().map(async |client| {
        client.subscribe("news").await; // fails if anything else is the first to come
        let not_sent_yet = next.load(Ordering::Relaxed);
        everyone_is_in.add_permits(1);
        let mut expected = None;
        loop {
            let event = client.next().await;
            let number: usize = event.data().parse().unwrap();
            match expected {
                Some(expected) => assert_eq!(number, expected, "none is missing, none comes twice"),
                None => assert!(number <= not_sent_yet, "{number}, but {not_sent_yet} was sent after the answer"),
            }
            expected = Some(number + 1);
            if event.event == "last" {
                return;
            }
        }
    }));
    tokio::join!(publisher, subscribers);
}

#[tokio::test]
async fn subscribers_are_counted_where_the_app_wants_it() {
    let herald =
        Herald::start("[[apps]]\nsubscription_count = true\n[[apps]]\nid = \"b\"\nkey = \"kb\"\nsecret = \"sb\"").await;
    let mut first = herald.connect().await;
    first.subscribe("private-news").await;
    let mut others = Vec::new();
    for _ in 0..4 {
        let mut client = herald.connect().await;
        client.subscribe("private-news").await;
        others.push(client);
    }
    let mut last = 0;
    while last < 5 {
        let event = first.expect("pusher_internal:subscription_count").await;
        assert_eq!(event.channel.as_deref(), Some("private-news"));
        let count = event.json()["subscription_count"].as_u64().unwrap();
        assert!(count > last, "{count} after {last}");
        last = count;
    }
    for client in others {
        client.close().await;
    }
    while last > 1 {
        let event = first.expect("pusher_internal:subscription_count").await;
        last = event.json()["subscription_count"].as_u64().unwrap();
    }
    first.join("presence-room", "ann").await;
    let mut quiet = herald.connect_to(&App::new("b", "kb", "sb")).await;
    quiet.subscribe("news").await;
    tokio::time::sleep(Duration::from_millis(300)).await; // longer than changes may be gathered
    quiet.settle().await;
    first.settle().await; // presence channels have their members instead
}

#[tokio::test]
async fn who_takes_the_place_of_another_is_told_the_count_too() {
    let herald = Herald::start("[[apps]]\nsubscription_count = true").await;
    let (mut ann, mut bob) = (herald.connect().await, herald.connect().await);
    ann.subscribe("news").await;
    ann.expect("pusher_internal:subscription_count").await;
    bob.subscribe("news").await;
    ann.unsubscribe("news").await;
    loop {
        let count = bob.expect("pusher_internal:subscription_count").await;
        if count.json()["subscription_count"] == 1 {
            break;
        }
    }
}

#[tokio::test]
async fn a_channel_that_is_no_longer_large_is_counted_at_once() {
    let herald = Herald::start("[[apps]]\nsubscription_count = true").await;
    let mut observer = herald.connect().await;
    observer.subscribe("news").await;
    let mut others = Vec::new();
    for _ in 0..100 {
        let mut client = herald.connect().await;
        client.subscribe("news").await;
        others.push(client);
    }
    let mut counted = async |wanted: u64| {
        while observer.expect("pusher_internal:subscription_count").await.json()["subscription_count"] != wanted {}
    };
    counted(101).await;
    let start = Instant::now();
    others.remove(0).cut(); // 100: announced within the pause that 101 has begun
    counted(100).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let mut late = herald.connect().await;
    late.subscribe("news").await; // 101 again: that is for later, but not what follows
    late.unsubscribe("news").await;
    others.remove(0).cut();
    let start = Instant::now();
    counted(99).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_large_channel_is_counted_rarely_and_the_last_count_always_arrives() {
    let herald = Herald::start("[[apps]]\nsubscription_count = true").await;
    let mut observer = herald.connect().await;
    observer.subscribe("news").await;
    let mut others = Vec::new();
    for _ in 0..129 {
        let mut client = herald.connect().await;
        client.send(client.subscription("news", None)).await;
        others.push(client);
    }
    let (mut count, mut large) = (0, Vec::new());
    while count != 130 {
        count =
            observer.expect("pusher_internal:subscription_count").await.json()["subscription_count"].as_u64().unwrap();
        if count > 100 {
            large.push(Instant::now());
        }
    }
    for pair in large.windows(2) {
        let pause = pair[1] - pair[0];
        assert!(pause > Duration::from_secs(4), "above a hundred at most every 5 s, not after {pause:?}");
    }
    others.into_iter().for_each(Client::cut);
    while count != 1 {
        count =
            observer.expect("pusher_internal:subscription_count").await.json()["subscription_count"].as_u64().unwrap();
    }
    observer.settle().await;
}
