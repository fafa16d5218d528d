//! What a page asks of the inbox, and what it is told when it asks for what is not there or not allowed.

use serde_json::{Value, json};

use super::support::Herald;
use super::user::{ask, auth, notify, request, token};

const NOTHING: Value = Value::Null;

#[tokio::test]
async fn pages_follow_each_other_and_changes_catch_up() {
    let herald = Herald::start(&auth("")).await;
    for number in 1..=5 {
        notify(&herald, &["user_ann"], &format!("n{number}")).await;
    }
    let first = ask(&herald, "user_ann", "GET", "/v1/inbox?limit=3", &NOTHING).await.ok();
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = ask(&herald, "user_ann", "GET", &format!("/v1/inbox?limit=3&cursor={cursor}"), &NOTHING).await.ok();
    let titles = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["title"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((titles(&first).join(" "), titles(&second).join(" ")), ("n5 n4 n3".to_owned(), "n2 n1".to_owned()));

    let ids: Vec<&Value> = first["items"].as_array().unwrap().iter().map(|item| &item["id"]).collect();
    let bulk = json!({ "ids": ids, "action": "archive" });
    let archived = ask(&herald, "user_ann", "POST", "/v1/inbox/bulk", &bulk).await.ok();
    assert_eq!((&archived["updated"], &archived["missing"], &archived["rev"]), (&json!(3), &json!([]), &json!(6)));
    let all = json!({ "action": "read", "up_to_rev": 1 });
    let marked = ask(&herald, "user_ann", "POST", "/v1/inbox/mark-all", &all).await.ok();
    assert_eq!((&marked["updated"], &marked["counts"]), (&json!(1), &json!({ "unread": 1, "unseen": 1 })));

    let mut since = "5".to_owned();
    let mut told = 0;
    loop {
        let path = format!("/v1/inbox/changes?limit=2&since={since}");
        let changes = ask(&herald, "user_ann", "GET", &path, &NOTHING).await.ok();
        told += changes["changes"].as_array().unwrap().len();
        assert_eq!((&changes["reset"], &changes["rev"]), (&json!(false), &json!(7)));
        let Some(next) = changes["next"].as_str() else { break };
        since = next.to_owned();
    }
    assert_eq!(told, 4, "three archived, one read");
    let ahead = ask(&herald, "user_ann", "GET", "/v1/inbox/changes?since=99", &NOTHING).await.ok();
    assert_eq!(ahead["reset"], true);
}

#[tokio::test]
async fn counts_are_answered_again_only_when_something_changed() {
    let herald = Herald::start(&auth("")).await;
    notify(&herald, &["user_ann"], "Hello").await;
    let counts = ask(&herald, "user_ann", "GET", "/v1/inbox/counts", &NOTHING).await;
    let by_severity = json!({ "low": 0, "normal": 1, "high": 0, "critical": 0 });
    assert_eq!(counts.ok(), json!({ "unread": 1, "unseen": 1, "by_severity": by_severity, "rev": 1 }));
    let authorization = format!("Authorization: Bearer {}", token("user_ann", &json!({})));
    let known = format!("If-None-Match: {}", counts.headers["etag"]);
    let again = request(&herald, "GET", "/v1/inbox/counts", &[&authorization, &known], "").await;
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    notify(&herald, &["user_ann"], "Again").await;
    let changed = request(&herald, "GET", "/v1/inbox/counts", &[&authorization, &known], "").await;
    assert_eq!(changed.ok()["rev"], 2);
}

#[tokio::test]
async fn a_notification_is_snoozed_and_deleted() {
    let herald = Herald::start(&auth("")).await;
    notify(&herald, &["user_ann"], "Hello").await;
    let inbox = ask(&herald, "user_ann", "GET", "/v1/inbox", &NOTHING).await.ok();
    let path = format!("/v1/inbox/{}", inbox["items"][0]["id"].as_str().unwrap());
    let until = herald::store::time::Timestamp::now().after(std::time::Duration::from_secs(3_600));
    let snoozed = ask(&herald, "user_ann", "PATCH", &path, &json!({ "snoozed_until": until })).await.ok();
    assert_eq!((&snoozed["counts"]["unread"], &snoozed["notification"]["snoozed_until"]), (&json!(0), &json!(until)));
    assert_eq!(
        ask(&herald, "user_ann", "GET", "/v1/inbox?snoozed=only", &NOTHING).await.ok()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let back = ask(&herald, "user_ann", "PATCH", &path, &json!({ "snoozed_until": null })).await.ok();
    assert_eq!(back["counts"]["unread"], 1);
    assert_eq!(ask(&herald, "user_ann", "DELETE", &path, &NOTHING).await.status, 204);
    assert_eq!(ask(&herald, "user_ann", "GET", &path, &NOTHING).await.status, 404);
    let changes = ask(&herald, "user_ann", "GET", "/v1/inbox/changes?since=3", &NOTHING).await.ok();
    assert!(changes["changes"][0]["deleted"].is_string(), "{changes}");
}

#[tokio::test]
async fn nobody_sees_or_changes_what_is_anothers() {
    let herald = Herald::start(&auth("")).await;
    notify(&herald, &["user_ann"], "Secret").await;
    let inbox = ask(&herald, "user_ann", "GET", "/v1/inbox", &NOTHING).await.ok();
    let id = inbox["items"][0]["id"].as_str().unwrap();
    let path = format!("/v1/inbox/{id}");
    assert_eq!(ask(&herald, "user_bob", "GET", "/v1/inbox", &NOTHING).await.ok()["items"], json!([]));
    assert_eq!(ask(&herald, "user_bob", "GET", &path, &NOTHING).await.status, 404);
    assert_eq!(ask(&herald, "user_bob", "PATCH", &path, &json!({ "read": true })).await.status, 404);
    assert_eq!(ask(&herald, "user_bob", "DELETE", &path, &NOTHING).await.status, 404);
    let bulk = json!({ "ids": [id], "action": "delete" });
    assert_eq!(ask(&herald, "user_bob", "POST", "/v1/inbox/bulk", &bulk).await.ok()["missing"], json!([id]));
    assert_eq!(ask(&herald, "user_ann", "GET", "/v1/inbox", &NOTHING).await.ok()["counts"]["unread"], 1);
}

#[tokio::test]
async fn what_is_wrong_is_named_with_what_is_allowed() {
    let herald = Herald::start(&auth("")).await;
    for (method, path, body, part) in [
        ("GET", "/v1/inbox?limit=0", NOTHING, "1 to 100"),
        ("GET", "/v1/inbox?status=new", NOTHING, "all, unread, read, unseen"),
        ("GET", "/v1/inbox?archived=yes", NOTHING, "exclude, only, include"),
        ("GET", "/v1/inbox?cursor=x", NOTHING, "`cursor`"),
        ("GET", "/v1/inbox?type=A", NOTHING, "`type`"),
        ("GET", "/v1/inbox/changes", NOTHING, "`since` is missing"),
        ("GET", "/v1/inbox/changes?since=-1", NOTHING, "`since`"),
        ("POST", "/v1/inbox/bulk", json!({ "ids": [], "action": "read" }), "0 ids"),
        (
            "POST",
            "/v1/inbox/bulk",
            json!({ "ids": ["018f0000-0000-7000-8000-000000000000"], "action": "eat" }),
            "`action`",
        ),
        ("POST", "/v1/inbox/mark-all", json!({ "action": "read" }), "`up_to_rev` is missing"),
        ("PATCH", "/v1/inbox/018f0000-0000-7000-8000-000000000000", json!({}), "nothing is asked for"),
        ("PATCH", "/v1/inbox/018f0000-0000-7000-8000-000000000000", json!({ "read": 1 }), "true or false"),
        (
            "PATCH",
            "/v1/inbox/018f0000-0000-7000-8000-000000000000",
            json!({ "snoozed_until": "2020-01-01T00:00:00Z" }),
            "90 days",
        ),
    ] {
        let answer = ask(&herald, "user_ann", method, path, &body).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["code"]), (400, &json!("invalid_request")), "{path}: {error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{path}: {error}");
    }
    for path in ["/v1/inbox", "/v1/inbox/counts", "/v1/inbox/changes?since=0"] {
        let answer = request(&herald, "GET", path, &[], "").await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (401, &json!("unauthenticated")), "{path}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        let wrong = request(&herald, "GET", path, &["Authorization: Bearer a.b.c"], "").await;
        assert_eq!((wrong.status, &wrong.json()["error"]["code"]), (401, &json!("invalid_token")), "{path}");
    }
}

#[tokio::test]
async fn without_an_identity_provider_there_are_no_inboxes() {
    let herald = Herald::start("").await;
    assert_eq!(request(&herald, "GET", "/v1/inbox", &[], "").await.status, 404);
    assert_eq!(request(&herald, "POST", "/pusher/auth", &[], "").await.status, 404);
    assert_eq!(request(&herald, "POST", "/webhooks/clerk", &[], "{}").await.status, 404);
}
