//! What backends ask for besides creating for users who are named: audiences, what became of a request, users, topics, and the API key.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::api::Answer;
use super::support::{DEADLINE, Herald};
use super::user::{ask, auth, request, tab};

const KEY: &str = "a-key-of-a-backend-0123456789";
const NOTHING: Value = Value::Null;

async fn start(more: &str) -> Herald {
    let keys = format!("[server]\napi_keys = [\"{KEY}\", \"the-one-before-0123456789\"]");
    Herald::start(&format!("{keys}\n{}\n{more}", auth(""))).await
}

async fn call(herald: &Herald, method: &str, path: &str, body: &Value) -> Answer {
    let authorization = format!("Authorization: Bearer {KEY}");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    request(herald, method, path, &[&authorization], &body).await
}

fn news(to: &Value, id: &str) -> Value {
    json!({ "to": to, "type": "news.daily", "title": "News", "transaction_id": id })
}

#[tokio::test]
async fn an_api_key_stands_for_a_signature_and_another_one_for_nothing() {
    let herald = start("").await;
    let mut ann = tab(&herald, "user_ann").await;
    let body = news(&json!({ "user_ids": ["user_ann"] }), "t1");
    let created = call(&herald, "POST", "/v1/notifications", &body).await;
    assert_eq!((created.status, &created.json()["created"]), (202, &json!(1)));
    ann.expect("notification.created").await;
    for key in ["the-one-before-0123456789", "a-key-of-a-backend-012345678", "", "x"] {
        let authorization = format!("Authorization: Bearer {key}");
        let answer = request(&herald, "GET", "/v1/notifications/t1", &[&authorization], "").await;
        assert_eq!(answer.status == 200, key.starts_with("the-one-before"), "{key:?}: {}", answer.status);
    }
    let body = body.to_string();
    let signed = herald.api().post("/notifications", &body).await;
    assert_eq!((signed.status, &signed.json()["duplicates"]), (200, &json!(1)), "the same request, signed");
    assert!(!herald.has_logged(KEY));
}

#[tokio::test]
async fn who_follows_a_topic_gets_what_is_created_for_it_and_everybody_what_is_for_all() {
    let herald = start("[notifications]\ntopics = [\"news.*\", \"user:{user_id}\"]").await;
    let (mut ann, mut bob) = (tab(&herald, "user_ann").await, tab(&herald, "user_bob").await);
    let followed = ask(&herald, "user_ann", "PUT", "/v1/topics/news.sport/subscription", &NOTHING).await;
    assert_eq!(followed.status, 204, "{followed:?}");
    for (topic, status) in [("user:user_bob", 403), ("secret", 403), (&*"x".repeat(201), 400)] {
        let path = format!("/v1/topics/{topic}/subscription");
        assert_eq!(ask(&herald, "user_ann", "PUT", &path, &NOTHING).await.status, status, "{topic}");
    }
    assert_eq!(call(&herald, "PUT", "/v1/users/user_bob/topics/secret", &NOTHING).await.status, 204);
    let topics = ask(&herald, "user_bob", "GET", "/v1/topics", &NOTHING).await.ok();
    assert_eq!(topics, json!({ "topics": ["secret"] }));

    let made = call(&herald, "POST", "/v1/notifications", &news(&json!({ "topic": "news.sport" }), "t1")).await;
    assert_eq!((made.status, &made.json()["created"]), (202, &json!(1)));
    ann.expect("notification.created").await;
    let made = call(&herald, "POST", "/v1/notifications", &news(&json!({ "all": true }), "t2")).await;
    assert_eq!(made.json()["created"], 2);
    assert_eq!(bob.expect("notification.created").await.json()["rev"], 1, "the first was not for bob");
    assert_eq!(ask(&herald, "user_ann", "DELETE", "/v1/topics/news.sport/subscription", &NOTHING).await.status, 204);
    let made = call(&herald, "POST", "/v1/notifications", &news(&json!({ "topic": "news.sport" }), "t3")).await;
    assert_eq!(made.json()["created"], 0);
}

#[tokio::test]
async fn what_is_for_more_than_a_thousand_is_queued_and_a_kill_in_the_midst_of_it_loses_nobody() {
    const USERS: usize = 3_000;
    // It is asked as often as it can be.
    let config = format!("limits.servers = \"off\"\n[server]\napi_keys = [\"{KEY}\"]\n{}", auth(""));
    let mut herald = Herald::start(&config).await;
    for chunk in (0..USERS).collect::<Vec<_>>().chunks(1_000) {
        let users: Vec<String> = chunk.iter().map(|number| format!("user_{number:05}")).collect();
        let body = json!({ "to": { "user_ids": users }, "type": "welcome", "title": "Hello" });
        assert_eq!(call(&herald, "POST", "/v1/notifications", &body).await.json()["created"], 1_000);
    }
    let queued = call(&herald, "POST", "/v1/notifications", &news(&json!({ "all": true }), "all")).await;
    assert_eq!((queued.status, &queued.json()["status"]), (202, &json!("queued")));
    let status = async |herald: &Herald| call(herald, "GET", "/v1/notifications/all", &NOTHING).await.ok();
    let start = tokio::time::Instant::now();
    while status(&herald).await["created"] == 0 {
        assert!(start.elapsed() < DEADLINE);
    }
    herald.kill();
    let herald = herald.start_again(&config).await;
    let start = tokio::time::Instant::now();
    loop {
        let known = status(&herald).await;
        if known["status"] == "done" {
            assert_eq!(known["created"], USERS, "{known}");
            break;
        }
        assert!(start.elapsed() < DEADLINE, "{known}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let inbox = call(&herald, "GET", "/v1/users/user_02999/inbox", &NOTHING).await.ok();
    let titles: Vec<&Value> = inbox["items"].as_array().unwrap().iter().map(|item| &item["title"]).collect();
    assert_eq!(titles, ["News", "Hello"], "each once");
}

#[tokio::test]
async fn a_request_is_followed_and_taken_back() {
    let herald = start("").await;
    let mut ann = tab(&herald, "user_ann").await;
    let body = news(&json!({ "user_ids": ["user_ann", "user_bob"] }), "t/1");
    call(&herald, "POST", "/v1/notifications", &body).await;
    let id = ann.expect("notification.created").await.json()["notification"]["id"].as_str().unwrap().to_owned();
    ask(&herald, "user_ann", "PATCH", &format!("/v1/inbox/{id}"), &json!({ "read": true })).await.ok();
    ann.expect("notification.read").await;
    let known = call(&herald, "GET", "/v1/notifications/t%2F1", &NOTHING).await.ok();
    assert_eq!((&known["created"], &known["seen"], &known["read"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(call(&herald, "DELETE", "/v1/notifications/t%2F1", &NOTHING).await.status, 204);
    let gone = ann.expect("notification.deleted").await.json();
    assert_eq!((&gone["notification"]["id"], &gone["reason"]), (&json!(id), &json!("cancelled")));
    assert_eq!(call(&herald, "GET", "/v1/notifications/t%2F1", &NOTHING).await.ok()["deleted"], 2);
    for method in ["GET", "DELETE"] {
        assert_eq!(call(&herald, method, "/v1/notifications/none", &NOTHING).await.status, 404);
    }
}

#[tokio::test]
async fn a_backend_tells_of_users_and_a_ban_ends_their_connections() {
    let herald = start("[[auth.rules]]\nchannels = [\"room\"]").await;
    let told = json!({ "name": "Ann Lee", "image_url": "https://example.com/a.png" });
    assert_eq!(call(&herald, "PUT", "/v1/users/user_ann", &told).await.status, 204);
    let form = "socket_id=1.1&channel_name=presence-room";
    let token = super::user::token("user_ann", &json!({}));
    let answer = super::user::authorize(&herald, "/pusher/auth", &token, form).await.ok();
    assert!(answer["channel_data"].as_str().unwrap().contains("Ann Lee"));
    let mut ann = tab(&herald, "user_ann").await;
    assert_eq!(call(&herald, "PUT", "/v1/users/user_ann", &json!({ "banned": true })).await.status, 204);
    ann.expect_refusal(4009).await;
    assert_eq!(super::user::authorize(&herald, "/pusher/auth", &token, form).await.status, 401);
    assert_eq!(call(&herald, "PUT", "/v1/users/user_ann", &json!({ "banned": false })).await.status, 204);
    assert_eq!(super::user::authorize(&herald, "/pusher/auth", &token, form).await.status, 200);
    let large = json!({ "public_metadata": { "x": "y".repeat(9_000) } });
    assert_eq!(call(&herald, "PUT", "/v1/users/user_ann", &large).await.status, 400);
}

#[tokio::test]
async fn a_user_says_what_is_wanted_and_the_other_tab_hears_of_it() {
    let herald = start("[notifications]\nmandatory = [\"security.*\"]\ndefaults = [\"marketing.*:in_app=off\"]").await;
    let mut ann = tab(&herald, "user_ann").await;
    ann.sign_in("user_ann").await;
    ann.subscribe("#server-to-user-user_ann").await;
    ann.expect("inbox.state").await;
    let wanted = json!({ "preferences": [{ "type": "comment.*", "channel": "in_app", "enabled": false }] });
    assert_eq!(ask(&herald, "user_ann", "PUT", "/v1/preferences", &wanted).await.ok(), wanted);
    let told = ann.expect("preferences.updated").await;
    assert_eq!((told.channel.as_deref(), told.json()), (Some("private-user-user_ann"), wanted.clone()));
    assert_eq!(ask(&herald, "user_ann", "GET", "/v1/preferences", &NOTHING).await.ok(), wanted);
    for (kind, severity, suppressed) in [
        ("comment.mentioned", "normal", 1),
        ("comment.mentioned", "critical", 0),
        ("marketing.offer", "normal", 1),
        ("security.login", "normal", 0),
        ("order.paid", "normal", 0),
    ] {
        let body = json!({ "to": { "user_ids": ["user_ann"] }, "type": kind, "severity": severity, "title": "x" });
        let made = call(&herald, "POST", "/v1/notifications", &body).await.json();
        assert_eq!(made["suppressed"], suppressed, "{kind} {severity}");
    }
    for (wrong, part) in [
        (json!({}), "`preferences` is missing"),
        (json!({ "preferences": [{ "type": "x", "channel": "fax", "enabled": true }] }), "in_app, push"),
        (json!({ "preferences": [{ "type": "X!", "channel": "push", "enabled": true }] }), "comment.mentioned"),
    ] {
        let refused = ask(&herald, "user_ann", "PUT", "/v1/preferences", &wrong).await;
        assert_eq!(refused.status, 400);
        assert!(refused.json()["error"]["message"].as_str().unwrap().contains(part), "{wrong}: {refused:?}");
    }
}
