//! `Idempotency-Key`: a repeat gets the first answer and delivers nothing (4.2, case I6).

use serde_json::json;

use crate::support::{Herald, Request};

fn trigger(name: &str, key: &str) -> Request {
    let event = json!({ "name": name, "channel": "c", "data": "", "info": "subscription_count" });
    Request::post("/events", &event).header("Idempotency-Key", key)
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_and_delivers_nothing() {
    let herald = Herald::start();
    let mut client = herald.subscriber(&["c"]).await;
    let first = herald.send(&trigger("once", "key-1")).await;
    assert_eq!(first.header("idempotent-replayed"), None);
    let _later = herald.subscriber(&["c"]).await;
    for _ in 0..3 {
        let repeat = herald.send(&trigger("once", "key-1")).await;
        assert_eq!(repeat.header("idempotent-replayed"), Some("true"));
        assert_eq!(repeat.json(), first.json());
    }
    assert_eq!(herald.send(&trigger("other", "key-2")).await.header("idempotent-replayed"), None);
    client.expect("once").await;
    client.expect("other").await;
}

#[tokio::test]
async fn of_many_at_once_one_is_the_first() {
    let herald = Herald::start();
    let mut client = herald.subscriber(&["c"]).await;
    let request = trigger("once", "key");
    let responses = futures_util::future::join_all((0..30).map(|_| herald.send(&request))).await;
    let replayed = responses.iter().filter(|response| response.header("idempotent-replayed") == Some("true")).count();
    assert_eq!(replayed, 29);
    for response in &responses {
        assert_eq!(response.json(), json!({ "channels": { "c": { "subscription_count": 1 } } }));
    }
    herald.trigger("c", "end", "").await;
    client.expect("once").await;
    client.expect("end").await;
}

#[tokio::test]
async fn a_key_belongs_to_one_request() {
    let herald = Herald::start();
    assert_eq!(herald.send(&trigger("one", "key")).await.status, 200);
    herald.send(&trigger("two", "key")).await.refused(409, "another body");
    herald.send(&trigger("one", "key").param("info", "user_count")).await.refused(409, "other parameters");
    // Another route is another scope, and so is another user.
    let batch = json!({ "batch": [{ "name": "e", "channel": "c", "data": "" }] });
    for request in [
        Request::post("/batch_events", &batch),
        Request::post("/users/ann/terminate_connections", &json!({})),
        Request::post("/users/bob/terminate_connections", &json!({})),
    ] {
        for replayed in [None, Some("true")] {
            let response = herald.send(&request.clone().header("idempotency-key", "key")).await;
            assert_eq!(response.json(), json!({}));
            assert_eq!(response.header("idempotent-replayed"), replayed);
        }
    }
}

#[tokio::test]
async fn keys_of_two_apps_are_two_keys() {
    let other = "[[apps]]\nid = \"other\"\nkey = \"other-key\"\nsecret = \"other-secret\"";
    let herald = Herald::with("", other);
    let of_other = trigger("e", "key").param("auth_key", "other-key").with(|request| {
        request.path = "/apps/other/events".into();
        request.secret = "other-secret".into();
    });
    for request in [trigger("e", "key"), of_other] {
        assert_eq!(herald.send(&request).await.header("idempotent-replayed"), None);
    }
}

#[tokio::test]
async fn only_success_is_kept() {
    let herald = Herald::start();
    herald.send(&trigger("pusher:no", "key")).await.error(400);
    herald.send(&trigger("e", "key").with(|request| request.secret = "wrong".into())).await.error(401);
    for replayed in [None, Some("true")] {
        assert_eq!(herald.send(&trigger("e", "key")).await.header("idempotent-replayed"), replayed);
    }
}

#[tokio::test]
async fn a_key_is_visible_ascii() {
    let herald = Herald::start();
    let longest = "k".repeat(255);
    for key in ["!", "~:{}\"", longest.as_str()] {
        assert_eq!(herald.send(&trigger("e", key)).await.status, 200, "{key}");
    }
    let too_long = "k".repeat(256);
    for key in ["", "a b", "schlüssel", too_long.as_str()] {
        herald.send(&trigger("e", key)).await.refused(400, "`Idempotency-Key`");
    }
    herald.send(&trigger("e", "a").header("Idempotency-Key", "b")).await.refused(400, "`Idempotency-Key`");
    // Questions change nothing, so they may be repeated anyway.
    let question = Request::get("/channels").header("Idempotency-Key", "a b");
    assert_eq!(herald.send(&question).await.status, 200);
}

#[tokio::test]
async fn a_client_that_goes_away_and_repeats_has_triggered_once() {
    let herald = Herald::start();
    let mut client = herald.subscriber(&["c"]).await;
    for n in 0..20 {
        let request = trigger(&format!("e{n}"), &format!("key-{n}"));
        let mut wire = herald.wire().await;
        wire.write(&request.bytes()).await;
        drop(wire);
        assert_eq!(herald.send(&request).await.status, 200);
        client.expect(&format!("e{n}")).await;
    }
}
