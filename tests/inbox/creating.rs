//! A backend creates a notification: it is kept, every tab of the user gets it, and what one tab does the others see.

use serde_json::{Value, json};

use super::support::Herald;
use super::user::{ask, auth, notify, tab};

#[tokio::test]
async fn a_notification_is_kept_reaches_every_tab_and_what_one_does_the_others_see() {
    let herald = Herald::start(&auth("")).await;
    let [mut one, mut other] = [tab(&herald, "user_ann").await, tab(&herald, "user_ann").await];
    let mut bob = tab(&herald, "user_bob").await;
    let created = notify(&herald, &["user_ann"], "Jane mentioned you").await;
    assert_eq!((&created["created"], &created["status"]), (&json!(1), &json!("done")));
    for tab in [&mut one, &mut other] {
        let event = tab.expect("notification.created").await.json();
        assert_eq!((&event["rev"], &event["counts"]), (&json!(1), &json!({ "unread": 1, "unseen": 1 })));
        assert_eq!(event["notification"]["title"], "Jane mentioned you");
    }
    let inbox = ask(&herald, "user_ann", "GET", "/v1/inbox", &Value::Null).await.ok();
    let id = inbox["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&inbox["rev"], &inbox["counts"]["unread"], &inbox["next_cursor"]),
        (&json!(1), &json!(1), &Value::Null)
    );

    let changed = ask(&herald, "user_ann", "PATCH", &format!("/v1/inbox/{id}"), &json!({ "read": true })).await.ok();
    assert_eq!((&changed["rev"], &changed["counts"]["unread"]), (&json!(2), &json!(0)));
    let event = other.expect("notification.read").await.json();
    assert_eq!((&event["notification"]["id"], &event["counts"]["unread"]), (&json!(id), &json!(0)));

    herald.trigger("private-user-user_bob", "marker", "1").await;
    assert_eq!(bob.next().await.event, "marker", "nothing of ann's came before");
}

#[tokio::test]
async fn what_was_created_is_there_after_the_process_was_killed() {
    let config = auth("");
    let mut herald = Herald::start(&config).await;
    for number in 1..=20 {
        notify(&herald, &["user_ann"], &format!("n{number}")).await;
    }
    herald.kill();
    let herald = herald.start_again(&config).await;
    let inbox = ask(&herald, "user_ann", "GET", "/v1/inbox?limit=100", &Value::Null).await.ok();
    assert_eq!((inbox["items"].as_array().unwrap().len(), &inbox["rev"]), (20, &json!(20)));
    let mut tab = tab(&herald, "user_ann").await;
    notify(&herald, &["user_ann"], "after").await;
    // What the last run could not publish any more may come before.
    loop {
        let event = tab.expect("notification.created").await.json();
        if event["notification"]["title"] == "after" {
            break assert_eq!(event["rev"], 21);
        }
    }
}

#[tokio::test]
async fn a_request_that_is_repeated_creates_nothing_again_and_another_one_under_its_id_nothing_at_all() {
    let herald = Herald::start(&auth("")).await;
    let body = |title: &str| {
        json!({ "to": { "user_ids": ["user_ann"] }, "type": "a", "title": title, "transaction_id": "t1" }).to_string()
    };
    assert_eq!(herald.api().post("/notifications", &body("One")).await.ok()["created"], 1);
    let again = herald.api().post("/notifications", &body("One")).await.ok();
    assert_eq!((&again["created"], &again["duplicates"]), (&json!(0), &json!(1)));
    let other = herald.api().post("/notifications", &body("Other")).await;
    assert_eq!((other.status, &other.json()["error"]["code"]), (409, &json!("transaction_conflict")));
    let inbox = ask(&herald, "user_ann", "GET", "/v1/inbox", &Value::Null).await.ok();
    assert_eq!(inbox["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named_and_nothing_is_created() {
    let herald = Herald::start(&auth("")).await;
    for (body, part) in [
        ("{", "JSON"),
        (r#"{"type":"a","title":"x"}"#, "user_ids"),
        (r#"{"to":{"user_ids":["user_ann"]},"type":"A","title":"x"}"#, "`type`"),
        (r#"{"to":{"user_ids":["user_ann"]},"type":"a","title":"x","action_url":"javascript:1"}"#, "`action_url`"),
    ] {
        let answer = herald.api().post("/notifications", body).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["code"]), (400, &json!("invalid_request")), "{body}");
        assert!(error["message"].as_str().unwrap().contains(part), "{body}: {error}");
        assert!(error["request_id"].is_string());
    }
    let unsigned =
        "POST /apps/app-id/notifications HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    let answer = herald.api().raw(unsigned).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (401, &json!("unauthenticated")));
    assert_eq!(ask(&herald, "user_ann", "GET", "/v1/inbox", &Value::Null).await.ok()["rev"], 0);
}

#[tokio::test]
async fn a_scheduled_notification_comes_when_its_time_has_come() {
    let herald = Herald::start(&auth("")).await;
    let mut tab = tab(&herald, "user_ann").await;
    let at = herald::store::time::Timestamp::now().after(std::time::Duration::from_secs(2));
    let body = json!({ "to": { "user_ids": ["user_ann"] }, "type": "a", "title": "Later", "deliver_at": at });
    herald.api().post("/notifications", &body.to_string()).await.ok();
    let inbox = ask(&herald, "user_ann", "GET", "/v1/inbox", &Value::Null).await.ok();
    assert_eq!(inbox["items"], json!([]));
    let event = tab.expect("notification.created").await.json();
    assert_eq!(event["notification"]["title"], "Later");
    assert!(herald::store::time::Timestamp::now() >= at);
}
