//! Apps (sections 2 and 4.1): nothing crosses from one to another, a disabled one is closed, keys can be changed without a gap.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::{App, Client, DEADLINE, Herald, in_cluster};

const TWO: &str = r#"
    [[apps]]
    [[apps]]
    id = "other"
    key = "other-key"
    secret = "other-secret"
"#;

fn other() -> App {
    App::new("other", "other-key", "other-secret")
}

/// A client of each app.
async fn one_each(herald: &Herald) -> (Client, Client) {
    (herald.connect().await, herald.connect_to(&other()).await)
}

#[tokio::test]
async fn events_stay_within_their_app() {
    let herald = Herald::start(TWO).await;
    let (mut ours, mut theirs) = one_each(&herald).await;
    for channel in ["news", "private-news"] {
        ours.subscribe(channel).await;
        theirs.subscribe(channel).await;
        herald.trigger(channel, "e", "ours").await;
        herald.api_of(&other()).trigger(channel, "e", "theirs").await;
        assert_eq!(ours.expect("e").await.data(), "ours");
        assert_eq!(theirs.expect("e").await.data(), "theirs");
    }
    ours.send(json!({ "event": "client-x", "channel": "private-news", "data": "" })).await;
    ours.settle().await;
    theirs.settle().await;
    herald.trigger("cache-a", "e", "ours").await;
    theirs.subscribe("cache-a").await;
    theirs.expect("pusher:cache_miss").await;
    ours.subscribe("cache-a").await;
    ours.expect("e").await;
    let body = json!({ "name": "e", "channel": "news", "data": "", "socket_id": theirs.socket_id().to_string() });
    herald.api().events(&body).await.ok();
    ours.expect("e").await;
    theirs.settle().await;
}

#[tokio::test]
async fn members_and_users_stay_within_their_app() {
    let herald = Herald::start(TWO).await;
    let (mut ours, mut theirs) = one_each(&herald).await;
    ours.join("presence-room", "ann").await;
    let answer = theirs.join("presence-room", "ann").await;
    assert_eq!(answer.json()["presence"]["count"], 1);
    let mut more = herald.connect_to(&other()).await;
    more.join("presence-room", "bob").await;
    theirs.expect("pusher_internal:member_added").await;
    more.close().await;
    theirs.expect("pusher_internal:member_removed").await;
    ours.settle().await;
    for client in [&mut ours, &mut theirs] {
        client.sign_in("ann").await;
        client.subscribe("#server-to-user-ann").await;
    }
    herald.trigger("#server-to-user-ann", "e", "ours").await;
    ours.expect("e").await;
    theirs.settle().await;
}

#[tokio::test]
async fn counts_and_terminations_stay_within_their_app() {
    let herald = Herald::start(TWO).await;
    let (mut ours, mut theirs) = one_each(&herald).await;
    let mut more = herald.connect_to(&other()).await;
    ours.subscribe("news").await;
    for client in [&mut theirs, &mut more] {
        client.subscribe("news").await;
        client.subscribe("theirs-alone").await;
    }
    let (our_api, their_api) = (herald.api(), herald.api_of(&other()));
    let count = [("info", "subscription_count")];
    says(&our_api, "/channels/news", &count, json!({ "occupied": true, "subscription_count": 1 })).await;
    says(&their_api, "/channels/news", &count, json!({ "occupied": true, "subscription_count": 2 })).await;
    assert!(our_api.get("/channels", &[]).await.ok()["channels"].as_object().unwrap().keys().eq(["news"]));
    says(&our_api, "/connections", &[], json!({ "connections": 1 })).await;
    says(&their_api, "/connections", &[], json!({ "connections": 2 })).await;
    ours.sign_in("ann").await;
    theirs.sign_in("ann").await;
    their_api.post("/users/ann/terminate_connections", "{}").await.ok();
    theirs.expect_refusal(4009).await;
    ours.settle().await;
}

#[tokio::test]
async fn credentials_open_their_own_app_only() {
    let herald = Herald::start(TWO).await;
    let (mut ours, mut theirs) = one_each(&herald).await;
    for (client, wrong) in [(&mut ours, other()), (&mut theirs, herald.app.clone())] {
        let auth = wrong.authorize(client.socket_id(), "private-a", None);
        client.send(json!({ "event": "pusher:subscribe", "data": { "channel": "private-a", "auth": auth } })).await;
        let (kind, status, _) = client.expect_subscription_error("private-a").await;
        assert_eq!((&*kind, status), ("AuthError", 401));
    }
    let body = json!({ "name": "e", "channel": "news", "data": "" });
    let mixed = |id: &str, credentials: &App| App { id: id.to_owned(), ..credentials.clone() };
    assert_eq!(herald.api_of(&mixed("app-id", &other())).events(&body).await.status, 401);
    assert_eq!(herald.api_of(&mixed("other", &herald.app)).events(&body).await.status, 401);
    assert_eq!(herald.api_of(&mixed("nobody", &other())).events(&body).await.status, 404);
    assert_eq!(herald.api_of(&other()).events(&body).await.status, 200);
}

#[tokio::test]
async fn a_disabled_app_is_closed_on_both_sides() {
    let herald = Herald::start(&TWO.replace("id = \"other\"", "id = \"other\"\nenabled = false")).await;
    herald.open("/app/other-key?protocol=7").await.expect_refusal(4003).await;
    let body = json!({ "name": "e", "channel": "news", "data": "" });
    let answer = herald.api_of(&other()).events(&body).await;
    assert_eq!((answer.status, answer.json()["code"].as_u64()), (403, Some(403)));
    herald.connect().await.subscribe("news").await;
    herald.api().events(&body).await.ok();
}

#[tokio::test]
async fn while_keys_are_changed_both_pairs_are_valid() {
    let herald = Herald::start("[[apps]]\nkeys = [{ key = \"next-key\", secret = \"next-secret\" }]").await;
    let next = App::new("app-id", "next-key", "next-secret");
    let (mut old, mut new) = (herald.connect().await, herald.connect_to(&next).await);
    for client in [&mut old, &mut new] {
        client.subscribe("private-a").await;
        client.sign_in("ann").await;
    }
    herald.trigger("private-a", "e", "by the old pair").await;
    herald.api_of(&next).trigger("private-a", "e", "by the new pair").await;
    for client in [&mut old, &mut new] {
        assert_eq!(client.expect("e").await.data(), "by the old pair");
        assert_eq!(client.expect("e").await.data(), "by the new pair");
    }
    // Which pair a client connected with does not bind its backend.
    old.app = next.clone();
    old.subscribe("private-b").await;
    let body = json!({ "name": "e", "channel": "news", "data": "" });
    for (key, secret) in [("next-key", "app-secret"), ("app-key", "next-secret"), ("no-key", "app-secret")] {
        assert_eq!(herald.api_of(&App::new("app-id", key, secret)).events(&body).await.status, 401, "{key} {secret}");
    }
}

/// What is answered: at once by a server alone, within a moment by a node to which others bring their numbers in batches.
async fn says(api: &Api, path: &str, parameters: &[(&str, &str)], expected: Value) {
    let until = Instant::now() + DEADLINE;
    loop {
        let answer = api.get(path, parameters).await.ok();
        if answer == expected || !in_cluster() || Instant::now() > until {
            return assert_eq!(answer, expected, "{path}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
