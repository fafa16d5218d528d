//! Users (3.5): signing in, what is sent to a user, who is watched, and the end of a user's connections.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, Event, Frame, Herald, in_cluster};

#[tokio::test]
async fn signing_in_is_answered_with_the_data_that_was_signed() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    let user_data = r#"{"id":"7","user_info":{"name":"A"},"watchlist":[]}"#;
    let auth = client.app.authenticate(client.socket_id(), user_data);
    client.send(json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } })).await;
    let answer = client.expect("pusher:signin_success").await;
    assert_eq!(answer.json(), json!({ "user_data": user_data }));
    assert_eq!(answer.channel, None);
    client.settle().await; // nobody is watched, so nothing is told of anybody
}

#[tokio::test]
async fn a_sign_in_that_fails_leaves_the_connection_open() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    let stranger = herald.connect().await;
    let (app, id) = (herald.app.clone(), client.socket_id());
    let right = r#"{"id":"7"}"#;
    for (user_data, auth, rule) in [
        (right, app.authenticate(stranger.socket_id(), right), "signed for another socket"),
        (right, app.authenticate(id, r#"{"id":"8"}"#), "signed for another user"),
        (right, app.authorize(id, ":user", Some(right)).replace("app-key", "other-key"), "an unknown key"),
        (right, app.authenticate(id, right).to_uppercase(), "in capitals"),
        (right, "app-key:".to_owned(), "an empty signature"),
        (right, String::new(), "nothing"),
        ("", app.authenticate(id, ""), "no JSON"),
        ("[]", app.authenticate(id, "[]"), "no object"),
        ("{}", app.authenticate(id, "{}"), "no id"),
        (r#"{"id":""}"#, app.authenticate(id, r#"{"id":""}"#), "an empty id"),
        (r#"{"id":7}"#, app.authenticate(id, r#"{"id":7}"#), "an id that is no text"),
        (r#"{"id":"a\n"}"#, app.authenticate(id, r#"{"id":"a\n"}"#), "a control character"),
    ] {
        client.send(json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } })).await;
        let error = client.expect_error(4009).await;
        assert!(!error.error().1.contains("app-secret"), "{rule}: {}", error.text);
    }
    client.send(json!({ "event": "pusher:subscribe", "data": { "channel": "#server-to-user-7" } })).await;
    client.expect_subscription_error("#server-to-user-7").await; // none of it signed it in
    client.sign_in("7").await;
}

#[tokio::test]
async fn who_has_signed_in_stays_who_he_is() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    client.sign_in("ann").await;
    client.ask_to_sign_in(&json!({ "id": "ann", "user_info": { "name": "Ann" } })).await;
    client.expect("pusher:signin_success").await;
    client.ask_to_sign_in(&json!({ "id": "bob" })).await;
    client.expect_error(4009).await;
    client.subscribe("#server-to-user-ann").await;
    client.send(client.subscription("#server-to-user-bob", None)).await;
    client.expect_subscription_error("#server-to-user-bob").await;
    let answer = client.subscribe("presence-room").await;
    assert_eq!(
        answer.json()["presence"]["hash"],
        json!({ "ann": { "name": "Ann" } }),
        "the later data of the same user"
    );
}

#[tokio::test]
async fn what_is_sent_to_a_user_reaches_all_its_sockets_and_nobody_else() {
    let herald = Herald::start("").await;
    let (mut tab, mut other_tab, mut silent, mut bob) =
        (herald.connect().await, herald.connect().await, herald.connect().await, herald.connect().await);
    for client in [&mut tab, &mut other_tab, &mut silent] {
        client.sign_in("ann/1 ä").await;
    }
    bob.sign_in("bob").await;
    let channel = "#server-to-user-ann/1 ä";
    for client in [&mut tab, &mut other_tab] {
        client.send(json!({ "event": "pusher:subscribe", "data": { "channel": channel, "auth": "" } })).await;
        client.expect_succeeded(channel).await;
    }
    bob.subscribe("#server-to-user-bob").await;
    bob.send(bob.subscription(channel, None)).await;
    let (kind, status, _) = bob.expect_subscription_error(channel).await;
    assert_eq!((&*kind, status), ("AuthError", 401));
    herald.trigger(channel, "hello", "ann").await;
    for client in [&mut tab, &mut other_tab] {
        let event = client.expect("hello").await;
        assert_eq!((event.channel.as_deref(), event.data()), (Some(channel), "ann"));
    }
    silent.settle().await; // signed in, but not subscribed: nothing is kept for it either
    silent.subscribe(channel).await;
    silent.settle().await;
    bob.settle().await;
    tab.send(json!({ "event": "client-x", "channel": channel, "data": {} })).await;
    tab.expect_error(4301).await;
    other_tab.settle().await;
}

#[tokio::test]
async fn nobody_listens_as_a_user_without_signing_in() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    client.send(client.subscription("#server-to-user-ann", None)).await;
    let (kind, status, _) = client.expect_subscription_error("#server-to-user-ann").await;
    assert_eq!((&*kind, status), ("AuthError", 401));
    let auth = client.app.authorize(client.socket_id(), "#server-to-user-ann", None);
    client
        .send(json!({ "event": "pusher:subscribe", "data": { "channel": "#server-to-user-ann", "auth": auth } }))
        .await;
    client.expect_subscription_error("#server-to-user-ann").await;
    client.sign_in("ann").await;
    client.subscribe("#server-to-user-ann").await;
}

#[tokio::test]
async fn signing_in_fits_before_between_and_after_subscriptions() {
    let herald = Herald::start("").await;
    let mut client = herald.connect().await;
    let text = |message: Value| Frame::new(Frame::TEXT, message.to_string()).masked();
    let user_data = r#"{"id":"ann"}"#;
    let auth = client.app.authenticate(client.socket_id(), user_data);
    let burst = [
        text(client.subscription("private-a", None)),
        text(json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } })),
        text(client.subscription("presence-room", None)),
        text(client.subscription("#server-to-user-ann", None)),
    ];
    client.send_bytes(&burst.concat()).await;
    let mut answers = Vec::new();
    for _ in &burst {
        answers.push(client.next().await);
    }
    if in_cluster() {
        // Each is answered when the cluster knows it; a user and a channel are not waited for in one line.
        let place = |answer: &Event| {
            let order = [Some("private-a"), None, Some("presence-room"), Some("#server-to-user-ann")];
            order.iter().position(|channel| answer.channel.as_deref() == *channel)
        };
        answers.sort_by_key(place);
    }
    let told = answers.iter().map(|answer| (&*answer.event, answer.channel.as_deref()));
    let succeeded = "pusher_internal:subscription_succeeded";
    let expected = [
        (succeeded, Some("private-a")),
        ("pusher:signin_success", None),
        (succeeded, Some("presence-room")),
        (succeeded, Some("#server-to-user-ann")),
    ];
    assert!(told.eq(expected), "{answers:?}");
    assert_eq!(answers[2].json()["presence"]["ids"], json!(["ann"]));
    for channel in ["private-a", "presence-room", "#server-to-user-ann"] {
        herald.trigger(channel, "e", "").await;
        assert_eq!(client.expect("e").await.channel.as_deref(), Some(channel));
    }
    let mut early = herald.connect().await;
    early.join("presence-room", "guest").await;
    client.expect("pusher_internal:member_added").await;
    early.sign_in("bob").await;
    client.settle().await; // a member stays who it joined as
}

#[tokio::test]
async fn a_terminated_user_is_closed_everywhere_and_may_come_back() {
    let herald = Herald::start("").await;
    let (mut tab, mut other_tab, mut bob, mut guest) =
        (herald.connect().await, herald.connect().await, herald.connect().await, herald.connect().await);
    tab.sign_in("ann/1").await;
    other_tab.sign_in("ann/1").await;
    bob.sign_in("bob").await;
    for (path, body) in [("/users/nobody/terminate_connections", "{}"), ("/users/ann%2F1/terminate_connections", "")] {
        assert_eq!(herald.api().post(path, body).await.ok(), json!({}));
    }
    tab.expect_refusal(4009).await;
    other_tab.expect_refusal(4009).await;
    bob.settle().await;
    guest.settle().await;
    herald.connect().await.sign_in("ann/1").await;
}

/// The states of a `pusher_internal:watchlist_events`: name and user ids.
async fn states(client: &mut Client) -> Vec<(String, Vec<String>)> {
    let event = client.expect("pusher_internal:watchlist_events").await;
    let states = event.json()["events"].as_array().unwrap().clone();
    let user_ids = |state: &Value| {
        let mut ids =
            state["user_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect::<Vec<_>>();
        ids.sort();
        ids
    };
    states.iter().map(|state| (state["name"].as_str().unwrap().to_owned(), user_ids(state))).collect()
}

fn state(name: &str, users: &[&str]) -> (String, Vec<String>) {
    (name.to_owned(), users.iter().map(|user| (*user).to_owned()).collect())
}

async fn watching(herald: &Herald, user: &str, watchlist: &[&str]) -> Client {
    let mut client = herald.connect().await;
    client.ask_to_sign_in(&json!({ "id": user, "watchlist": watchlist })).await;
    client.expect("pusher:signin_success").await;
    client
}

#[tokio::test]
async fn a_watchlist_tells_who_is_online_and_each_change() {
    let herald = Herald::start("").await;
    let bob = {
        let mut bob = herald.connect().await;
        bob.sign_in("bob").await;
        bob
    };
    let mut ann = watching(&herald, "ann", &["bob", "cid"]).await;
    assert_eq!(states(&mut ann).await, [state("online", &["bob"]), state("offline", &["cid"])]);
    let mut cid = herald.connect().await;
    cid.sign_in("cid").await;
    assert_eq!(states(&mut ann).await, [state("online", &["cid"])]);
    let mut stranger = herald.connect().await;
    stranger.sign_in("dan").await;
    let mut second = herald.connect().await;
    second.sign_in("bob").await;
    let start = Instant::now();
    bob.close().await;
    cid.close().await;
    assert_eq!(states(&mut ann).await, [state("offline", &["cid"])], "bob has another tab");
    assert!(start.elapsed() >= Duration::from_millis(2_900), "after a grace: {:?}", start.elapsed());
    ann.settle().await;
}

#[tokio::test]
async fn a_page_reload_is_silent_for_those_who_watch() {
    let herald = Herald::start("").await;
    let mut bob = herald.connect().await;
    bob.sign_in("bob").await;
    let mut ann = watching(&herald, "ann", &["bob"]).await;
    assert_eq!(states(&mut ann).await, [state("online", &["bob"])]);
    bob.close().await;
    let mut back = herald.connect().await;
    back.sign_in("bob").await;
    let mut cid = watching(&herald, "cid", &["bob"]).await;
    assert_eq!(states(&mut cid).await, [state("online", &["bob"])]);
    tokio::time::sleep(Duration::from_millis(3_500)).await; // longer than the grace
    ann.settle().await;
    back.close().await;
    assert_eq!(states(&mut ann).await, [state("offline", &["bob"])]);
}

#[tokio::test]
async fn changes_at_once_are_one_message() {
    let herald = Herald::start("").await;
    let mut ann = watching(&herald, "ann", &["b1", "b2", "b3", "b4"]).await;
    assert_eq!(states(&mut ann).await, [state("offline", &["b1", "b2", "b3", "b4"])]);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(herald.connect().await);
    }
    for (client, user) in clients.iter_mut().zip(["b1", "b2", "b3", "b4"]) {
        client.ask_to_sign_in(&json!({ "id": user })).await;
    }
    let (mut online, mut messages) = (Vec::new(), 0);
    while online.len() < 4 {
        for (name, users) in states(&mut ann).await {
            assert_eq!(name, "online");
            online.extend(users);
        }
        messages += 1;
    }
    online.sort();
    assert_eq!(online, ["b1", "b2", "b3", "b4"]);
    assert!(messages < 4, "some were joined: {messages}");
}

#[tokio::test]
async fn of_a_long_watchlist_the_first_hundred_are_watched() {
    let herald = Herald::start("").await;
    let users: Vec<String> = (0..101).map(|number| format!("user-{number:03}")).collect();
    let list: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut hundred = watching(&herald, "ann", &list[..100]).await;
    assert_eq!(states(&mut hundred).await, [state("offline", &list[..100])]);
    hundred.settle().await;
    let mut more = watching(&herald, "bob", &list).await;
    assert_eq!(states(&mut more).await, [state("offline", &list[..100])]);
    let error = more.expect_error(4302).await;
    assert!(error.error().1.contains("101"), "the count is named: {}", error.text);
    let mut last = herald.connect().await;
    last.sign_in("user-100").await;
    let mut first = herald.connect().await;
    first.sign_in("user-000").await;
    assert_eq!(states(&mut more).await, [state("online", &["user-000"])], "the hundred and first is not watched");
}

#[tokio::test]
async fn signing_in_again_brings_a_new_watchlist() {
    let herald = Herald::start("").await;
    let mut ann = watching(&herald, "ann", &["bob", "bob"]).await;
    assert_eq!(states(&mut ann).await, [state("offline", &["bob"])], "each user once");
    ann.ask_to_sign_in(&json!({ "id": "ann", "watchlist": ["cid"] })).await;
    ann.expect("pusher:signin_success").await;
    assert_eq!(states(&mut ann).await, [state("offline", &["cid"])]);
    let (mut bob, mut cid) = (herald.connect().await, herald.connect().await);
    bob.sign_in("bob").await;
    cid.sign_in("cid").await;
    assert_eq!(states(&mut ann).await, [state("online", &["cid"])], "bob is watched no more");
    ann.settle().await;
}

#[tokio::test]
async fn a_terminated_user_goes_offline_for_those_who_watch() {
    let herald = Herald::start("").await;
    let mut bob = herald.connect().await;
    bob.sign_in("bob").await;
    let mut ann = watching(&herald, "ann", &["bob"]).await;
    assert_eq!(states(&mut ann).await, [state("online", &["bob"])]);
    herald.api().post("/users/bob/terminate_connections", "{}").await.ok();
    bob.expect_refusal(4009).await;
    assert_eq!(states(&mut ann).await, [state("offline", &["bob"])]);
}
