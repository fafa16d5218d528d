//! What follows from Clerk's webhooks: names, ended sessions, banned and deleted users, memberships.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::Herald;
use super::user::{CLERK_SECRET, ask, auth, authorize, notify, request, subscriber, tab, tab_of, token, webhook};

fn config() -> String {
    auth(&format!("webhook_secret = \"{CLERK_SECRET}\"\n[[auth.rules]]\nchannels = [\"room\"]"))
}

#[tokio::test]
async fn a_session_that_is_revoked_loses_its_socket_and_opens_none_again() {
    let herald = Herald::start(&config()).await;
    let mut ended = tab(&herald, "user_ann").await;
    let other = json!({ "sid": "sess_other" });
    let mut stays = tab_of(&herald, "user_ann", &other).await;
    let session = json!({ "id": "sess_user_ann", "user_id": "user_ann", "object": "session" });
    let answer = webhook(&herald, "msg_1", "session.revoked", &session).await;
    assert_eq!(answer.ok(), json!({ "received": true }));
    ended.expect_error(4009).await;
    ended.expect_close(4009).await;
    assert_eq!(stays.expect("session.revoked").await.json(), json!({ "session_id": "sess_user_ann" }));
    let form = "socket_id=1.1&channel_name=private-user-user_ann";
    let refused = authorize(&herald, "/pusher/auth", &token("user_ann", &json!({})), form).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!("invalid_token")));
    assert_eq!(ask(&herald, "user_ann", "GET", "/v1/inbox", &Value::Null).await.status, 401);
    herald.trigger("private-user-user_ann", "marker", "1").await;
    stays.expect("marker").await;
    assert_eq!(authorize(&herald, "/pusher/auth", &token("user_ann", &other), form).await.status, 200);
}

#[tokio::test]
async fn a_user_who_is_banned_or_deleted_is_out_everywhere() {
    for (kind, data) in [
        ("user.updated", json!({ "id": "user_ann", "banned": true, "updated_at": 1 })),
        ("user.deleted", json!({ "id": "user_ann", "deleted": true })),
    ] {
        let herald = Herald::start(&config()).await;
        let mut tab = tab(&herald, "user_ann").await;
        notify(&herald, &["user_ann"], "Hello").await;
        tab.expect("notification.created").await;
        webhook(&herald, "msg_1", kind, &data).await.ok();
        tab.expect_error(4009).await;
        tab.expect_close(4009).await;
        assert_eq!(ask(&herald, "user_ann", "GET", "/v1/inbox", &Value::Null).await.status, 401, "{kind}");
    }
}

#[tokio::test]
async fn members_see_the_name_and_picture_that_clerk_knows_and_what_of_the_metadata_is_named() {
    let herald =
        Herald::start(&config().replacen("[auth]", "[auth]\nuser_info_metadata = [\"team\", \"id\"]", 1)).await;
    let user = json!({
        "public_metadata": { "team": "blue", "salary": 1, "id": "somebody else" },
        "id": "user_ann", "first_name": "Ann", "last_name": "Lee", "image_url": "https://img.clerk.com/x", "updated_at": 2,
        "primary_email_address_id": "e", "email_addresses":
            [{ "id": "e", "email_address": "ann@example.com", "verification": { "status": "verified" } }],
    });
    webhook(&herald, "msg_1", "user.created", &user).await.ok();
    let form = "socket_id=1.1&channel_name=presence-room";
    let answer = authorize(&herald, "/pusher/auth", &token("user_ann", &json!({})), form).await.ok();
    let data: Value = serde_json::from_str(answer["channel_data"].as_str().unwrap()).unwrap();
    let info = json!({ "id": "user_ann", "name": "Ann Lee", "image_url": "https://img.clerk.com/x", "team": "blue" });
    assert_eq!(data, json!({ "user_id": "user_ann", "user_info": info }));
    assert!(!answer.to_string().contains("ann@example.com"), "an address is nobody's business");
}

#[tokio::test]
async fn who_leaves_an_organization_comes_back_and_is_not_let_into_its_channels() {
    let herald = Herald::start(&config()).await;
    let claims = json!({ "o": { "id": "org_1", "rol": "member" } });
    let mut client = subscriber(&herald, &token("user_ann", &claims), "private-org-org_1").await;
    let membership =
        json!({ "organization": { "id": "org_1" }, "public_user_data": { "user_id": "user_ann" }, "updated_at": 5 });
    webhook(&herald, "msg_1", "organizationMembership.deleted", &membership).await.ok();
    client.expect_error(4200).await;
    client.expect_close(4200).await;
    let form = "socket_id=1.1&channel_name=private-org-org_1";
    let refused = authorize(&herald, "/pusher/auth", &token("user_ann", &claims), form).await;
    assert_eq!(refused.status, 403, "though the token still says so");
}

#[tokio::test]
async fn what_is_not_clerks_is_refused_and_what_is_unknown_is_received() {
    let herald = Herald::start(&config()).await;
    let unsigned =
        request(&herald, "POST", "/webhooks/clerk", &[], r#"{"type":"user.deleted","data":{"id":"user_ann"}}"#).await;
    assert_eq!((unsigned.status, &unsigned.json()["error"]["code"]), (400, &json!("invalid_signature")));
    assert_eq!(webhook(&herald, "msg_1", "waitlistEntry.created", &json!({ "id": "x" })).await.status, 200);
    assert_eq!(webhook(&herald, "msg_2", "user.deleted", &json!({ "deleted": true })).await.status, 200);
    assert!(!herald.has_logged(CLERK_SECRET));
}

/// Clerk's Backend API, as far as Herald asks it: it knows Ann, and sees to it that it is asked as its own SDK asks.
async fn backend_api() -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..read]).to_ascii_lowercase();
            for header in
                ["authorization: bearer sk_test_secret", "clerk-api-version: 2026-05-12", "user-agent: herald/"]
            {
                assert!(request.contains(header), "{request}");
            }
            let (status, body) = match request.split(' ').nth(1).unwrap() {
                "/v1/users/user%5fann" => ("200 OK", json!({
                    "id": "user_ann", "first_name": "Ann", "last_name": "Lee", "image_url": "https://img.clerk.com/x",
                    "email_addresses": [], "updated_at": 1_790_000_000_000_i64, "banned": false,
                }).to_string()),
                path if path.starts_with("/v1/sessions/") => match path.rsplit('/').next().unwrap() {
                    "gone" => ("404 Not Found", json!({ "errors": [] }).to_string()),
                    "broken" => ("500 Oops", String::new()),
                    status => ("200 OK", json!({ "id": "sess", "status": status }).to_string()),
                },
                "/v1/users/user%5fslow" => return std::future::pending().await,
                "/v1/jwks" => {
                    let vectors: Value = serde_json::from_str(include_str!("../vectors/clerk_jwt.json")).unwrap();
                    ("200 OK", vectors["jwks"].to_string())
                }
                _ => ("404 Not Found", json!({ "errors": [] }).to_string()),
            };
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    (url, asked)
}

#[tokio::test]
async fn who_is_not_known_yet_is_asked_for_once_and_a_slow_answer_is_not_waited_for() {
    let (url, asked) = backend_api().await;
    let config = format!(
        "[auth]\nsecret_key = \"sk_test_secret\"\napi_url = \"{url}\"\nauthorized_parties = [\"https://app.example.com\"]\n\
         [[auth.rules]]\nchannels = [\"room\"]"
    );
    let herald = Herald::start(&config).await;
    let info = async |user: &str| {
        let form = "socket_id=1.1&channel_name=presence-room";
        let answer = authorize(&herald, "/pusher/auth", &token(user, &json!({})), form).await.ok();
        let data: Value = serde_json::from_str(answer["channel_data"].as_str().unwrap()).unwrap();
        data["user_info"].clone()
    };
    let ann = json!({ "id": "user_ann", "name": "Ann Lee", "image_url": "https://img.clerk.com/x" });
    assert_eq!((info("user_ann").await, info("user_ann").await), (ann.clone(), ann));
    assert_eq!(asked.load(Ordering::SeqCst), 2, "for the keys, and for the user");
    assert_eq!(
        (info("user_bob").await, info("user_bob").await),
        (json!({ "id": "user_bob" }), json!({ "id": "user_bob" }))
    );
    assert_eq!(asked.load(Ordering::SeqCst), 3, "that there is nobody is remembered too");
    assert_eq!(info("user_slow").await, json!({ "id": "user_slow" }));
    assert!(!herald.has_logged("sk_test_secret"));
}

#[tokio::test]
async fn a_session_that_clerk_says_has_ended_has_and_one_that_it_does_not_know_may_live() {
    use herald::integrations::clerk::sessions::Sessions;
    let (url, _) = backend_api().await;
    let outgoing = herald::outgoing::Outgoing::new().unwrap();
    let secret = herald_protocol::Secret::new("sk_test_secret");
    let sessions = Sessions::new(&url, &secret, std::time::Duration::from_secs(600), &outgoing);
    for lives in ["active", "pending"] {
        assert_eq!(sessions.ended(lives).await.unwrap(), None);
    }
    for status in ["revoked", "ended", "expired", "removed", "abandoned", "replaced"] {
        assert_eq!(sessions.ended(status).await.unwrap().as_deref(), Some(status));
    }
    for unsure in ["gone", "broken"] {
        assert!(sessions.ended(unsure).await.is_err(), "{unsure}");
    }
}
