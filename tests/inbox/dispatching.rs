//! Ways besides the inbox: what the app's backend is told to send, when, and what becomes of it while that backend is away.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use herald::integrations::standard_webhooks::Secrets;
use herald::store::time::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::support::{DEADLINE, Herald};
use super::user::{ask, auth, now, request, tab};

const KEY: &str = "a-key-of-a-backend-0123456789";
const SECRET: &str = "whsec_bm90IHJlYWxseSBhIHNlY3JldA==";

/// The app's backend: checks what it is told, and answers with this status.
struct Backend {
    url: String,
    told: mpsc::Receiver<(String, Value)>,
    status: Arc<Mutex<u16>>,
}

impl Backend {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/dispatch", listener.local_addr().unwrap());
        let (tell, told) = mpsc::channel(100);
        let status = Arc::new(Mutex::new(204));
        let answered = Arc::clone(&status);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (headers, body) = read(&mut stream).await;
                let secrets = Secrets::parse(SECRET).unwrap();
                let id = secrets.verify(&headers, body.as_bytes(), now()).expect("it is signed").to_owned();
                let status = *answered.lock();
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
                if status == 204 {
                    tell.send((id, serde_json::from_str(&body).unwrap())).await.ok();
                }
            }
        });
        Self { url, told, status }
    }

    fn config(&self, more: &str) -> String {
        format!("[dispatch]\nurl = \"{}\"\nsecret = \"{SECRET}\"\n{}\n{more}", self.url, auth(""))
    }

    /// The next thing that it was told, with its id.
    async fn next(&mut self) -> (String, Value) {
        timeout(DEADLINE, self.told.recv()).await.expect("it is told, in time").unwrap()
    }

    /// The titles of the next thing that it was told.
    async fn titles(&mut self) -> Vec<String> {
        let (_, told) = self.next().await;
        let notifications = told["data"]["notifications"].as_array().unwrap();
        notifications.iter().map(|told| told["title"].as_str().unwrap().to_owned()).collect()
    }
}

async fn read(stream: &mut tokio::net::TcpStream) -> (HeaderMap, String) {
    let mut request = Vec::new();
    loop {
        stream.read_buf(&mut request).await.unwrap();
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let headers = head.lines().skip(1).filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            Some((name.parse::<axum::http::HeaderName>().unwrap(), value.parse::<axum::http::HeaderValue>().unwrap()))
        });
        let headers: HeaderMap = headers.collect();
        if body.len() >= headers["content-length"].to_str().unwrap().parse().unwrap() {
            return (headers, body.to_owned());
        }
    }
}

async fn create(herald: &Herald, title: &str, more: &Value) {
    let mut body = json!({ "to": { "user_ids": ["user_ann"] }, "type": "comment.mentioned", "title": title });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    herald.api().post("/notifications", &body.to_string()).await.ok();
}

async fn set(herald: &Herald, settings: &Value) -> Value {
    ask(herald, "user_ann", "PUT", "/v1/preferences/settings", settings).await.ok()
}

#[tokio::test]
async fn the_backend_is_told_what_to_send_and_by_which_ways() {
    let mut backend = Backend::start().await;
    let herald = Herald::start(
        &backend.config(&format!("[notifications]\ndefaults = [\"*:sms=off\"]\n[server]\napi_keys = [\"{KEY}\"]")),
    )
    .await;
    let user = json!({ "name": "Ann Lee", "email": "ann@example.com", "timezone": "Europe/Vienna" }).to_string();
    let authorization = format!("Authorization: Bearer {KEY}");
    assert_eq!(request(&herald, "PUT", "/v1/users/user_ann", &[&authorization], &user).await.status, 204);
    let no_chat = json!({ "preferences": [{ "type": "comment.*", "channel": "chat", "enabled": false }] });
    ask(&herald, "user_ann", "PUT", "/v1/preferences", &no_chat).await.ok();
    create(&herald, "Hello", &json!({ "action_url": "/posts/1" })).await;
    let (id, told) = backend.next().await;
    assert!(id.starts_with("msg_"), "{id}");
    assert_eq!((&told["type"], &told["data"]["digest"]), (&json!("notification.dispatch"), &json!("instant")));
    let (data, notification) = (&told["data"], &told["data"]["notifications"][0]);
    assert_eq!((&data["app_id"], &data["user"]["id"]), (&json!("app-id"), &json!("user_ann")));
    assert_eq!((&data["user"]["name"], &data["user"]["email"]), (&json!("Ann Lee"), &json!("ann@example.com")));
    assert_eq!((&notification["title"], &notification["action_url"]), (&json!("Hello"), &json!("/posts/1")));
    assert_eq!(
        notification["channels"],
        json!(["push", "email"]),
        "not by sms by default, not by chat by her own wish"
    );

    create(&herald, "No more than mail", &json!({ "channels": ["email", "chat"] })).await;
    assert_eq!(backend.next().await.1["data"]["notifications"][0]["channels"], json!(["email"]));
    create(&herald, "The inbox alone", &json!({ "channels": [] })).await;
    create(&herald, "Critical", &json!({ "severity": "critical" })).await;
    let (_, told) = backend.next().await;
    let notification = &told["data"]["notifications"][0];
    assert_eq!(notification["title"], "Critical", "nothing is told of what is for the inbox alone");
    assert_eq!(notification["channels"], json!(["push", "email", "sms", "chat"]), "whatever she wants");
    assert!(!herald.has_logged(SECRET));
}

#[tokio::test]
async fn a_pause_holds_back_all_but_what_is_critical_and_what_was_read_meanwhile_is_not_sent() {
    let mut backend = Backend::start().await;
    let herald = Herald::start(&backend.config("")).await;
    let mut ann = tab(&herald, "user_ann").await;
    let until = Timestamp::now().after(Duration::from_secs(60 * 60));
    let set_to = set(&herald, &json!({ "paused_until": until, "timezone": "Europe/Vienna" })).await;
    let expected =
        json!({ "timezone": "Europe/Vienna", "quiet_hours": null, "paused_until": until, "digest": "instant" });
    assert_eq!(set_to, expected);
    assert_eq!(ann.expect("preferences.updated").await.json(), json!({ "settings": expected }));
    assert_eq!(ask(&herald, "user_ann", "GET", "/v1/preferences/settings", &Value::Null).await.ok(), expected);
    create(&herald, "read", &json!({})).await;
    let id = ann.expect("notification.created").await.json()["notification"]["id"].as_str().unwrap().to_owned();
    create(&herald, "kept", &json!({})).await;
    create(&herald, "critical", &json!({ "severity": "critical" })).await;
    assert_eq!(backend.titles().await, ["critical"]);
    ask(&herald, "user_ann", "PATCH", &format!("/v1/inbox/{id}"), &json!({ "read": true })).await.ok();
    set(&herald, &json!({ "paused_until": null })).await;
    assert_eq!(backend.titles().await, ["kept"], "the pause is over, and the other one was read");
}

#[tokio::test]
async fn quiet_hours_hold_back_until_they_are_taken_back() {
    let mut backend = Backend::start().await;
    let herald = Herald::start(&backend.config("")).await;
    let always: Value = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
        .map(|day| (day.to_owned(), json!([["00:00", "24:00"]])))
        .into_iter()
        .collect();
    set(&herald, &json!({ "quiet_hours": always })).await;
    create(&herald, "at night", &json!({})).await;
    create(&herald, "critical", &json!({ "severity": "critical" })).await;
    assert_eq!(backend.titles().await, ["critical"]);
    set(&herald, &json!({ "quiet_hours": null })).await;
    assert_eq!(backend.titles().await, ["at night"]);
}

#[tokio::test]
async fn a_digest_is_one_request_with_what_has_come_before_its_hour() {
    let mut backend = Backend::start().await;
    let herald = Herald::start(&backend.config("")).await;
    set(&herald, &json!({ "digest": "daily" })).await;
    // As another program would insert them, long ago: the digest that takes them up was due long ago too.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(herald.data().join("herald.db"));
    let mut database = sqlx::sqlite::SqliteConnection::connect_with(&options).await.unwrap();
    let sql = "INSERT INTO user_notifications (id, app_id, user_id, type, title, visible_at, created_at, updated_at)
        VALUES ('018f0000-0000-7000-8000-000000000001', 'app-id', 'user_ann', 'a', 'first', 1790000000000000, 1790000000000000, 1790000000000000),
            ('018f0000-0000-7000-8000-000000000002', 'app-id', 'user_ann', 'a', 'second', 1790000060000000, 1790000060000000, 1790000060000000)";
    sqlx::raw_sql(sql).execute(&mut database).await.unwrap();
    let (_, told) = backend.next().await;
    let mut titles: Vec<&Value> =
        told["data"]["notifications"].as_array().unwrap().iter().map(|told| &told["title"]).collect();
    titles.sort_by_key(|title| title.to_string());
    assert_eq!((titles, &told["data"]["digest"]), (vec![&json!("first"), &json!("second")], &json!("daily")));
    create(&herald, "today", &json!({})).await;
    create(&herald, "critical", &json!({ "severity": "critical" })).await;
    assert_eq!(backend.titles().await, ["critical"], "the other one waits for its digest");
}

#[tokio::test]
async fn a_backend_that_is_away_is_told_later_and_once_more_after_a_restart() {
    let mut backend = Backend::start().await;
    let config = backend.config("");
    let mut herald = Herald::start(&config).await;
    *backend.status.lock() = 500;
    create(&herald, "Hello", &json!({})).await;
    herald.logged("not dispatched, it is tried again").await;
    herald.kill();
    *backend.status.lock() = 204;
    let _herald = herald.start_again(&config).await;
    assert_eq!(backend.titles().await, ["Hello"]);
}

#[tokio::test]
async fn settings_that_are_none_are_named_with_what_is_allowed() {
    let herald = Herald::start(&auth("")).await;
    for (settings, part) in [
        (json!({ "timezone": "Mars/Olympus" }), "Europe/Vienna"),
        (json!({ "timezone": 7 }), "Europe/Vienna"),
        (json!({ "digest": "yearly" }), "instant, hourly, daily and weekly"),
        (json!({ "paused_until": "tomorrow" }), "2026-01-31T12:00:00Z"),
        (json!({ "quiet_hours": { "mon": [["22:00", "06:00"]] } }), "22:00"),
        (json!({ "quiet_hours": [] }), "mon, tue"),
    ] {
        let answer = ask(&herald, "user_ann", "PUT", "/v1/preferences/settings", &settings).await;
        assert_eq!(answer.status, 400, "{settings}");
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains(part), "{settings}: {}", answer.text);
    }
    let kept = ask(&herald, "user_ann", "GET", "/v1/preferences/settings", &Value::Null).await.ok();
    assert_eq!(kept["digest"], "instant");
}
