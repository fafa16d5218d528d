//! The support at Crisp: whose inbox its replies reach and whose never, what a page's chat is told, and what becomes of messages while Crisp is slow,
//! broken or mad.

use std::time::Duration;

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use herald::config::Sources;
use herald::integrations::crisp::Crisp;
use herald::outgoing::problem::CallProblem;
use ring::hmac;
use serde_json::{Value, json};

use super::support::api::Answer;
use super::support::{Client, Herald};
use super::third_party::{Asked, Mood, ThirdParty};
use super::user::{CLERK_SECRET, ask, auth, now, request, tab, webhook};

const WEBSITE: &str = "6c50f7a8-680f-3657-f5fd-cc3a1a952a17";
const TOKEN_ID: &str = "7c3ef21c-1e04-41ce-8c06-5605c346f73e";
const TOKEN_KEY: &str = "hush-token-key";
const SIGNING: &str = "hush-signing-secret";
const HOOK_KEY: &str = "hush-webhook-key";
const IDENTITY: &str = "2d8ec0d1cbcf268751e351d9dcb986d0ba02af8d9d1495259448b466c7858e24";
const API_KEY: &str = "hush-api-key-0123456789";
const ALL: &str = "rest hooks identity";

/// A configuration with these parts of it.
fn config(parts: &str, url: &str, more: &str) -> String {
    let mut crisp = format!("[integrations.crisp]\nwebsite_id = \"{WEBSITE}\"\napi_url = \"{url}\"\n");
    for (part, options) in [
        ("rest", format!("token_id = \"{TOKEN_ID}\"\ntoken_key = \"{TOKEN_KEY}\"\n")),
        ("hooks", format!("signing_secrets = [\"an-old-one\", \"{SIGNING}\"]\nwebhook_keys = [\"{HOOK_KEY}\"]\n")),
        ("identity", format!("identity_secret = \"{IDENTITY}\"\n")),
    ] {
        if parts.contains(part) {
            crisp += &options;
        }
    }
    let log = "[log]\nlevel = \"debug\"\n[server]\napi_keys = [\"hush-api-key-0123456789\"]\n";
    format!("{}\n{log}{crisp}{more}", auth(&format!("webhook_secret = \"{CLERK_SECRET}\"")))
}

/// Crisp's REST API: every conversation is that of the address that its name begins with, verified if that ends so.
async fn api() -> ThirdParty {
    ThirdParty::start(|asked| {
        let basic = BASE64.encode(format!("{TOKEN_ID}:{TOKEN_KEY}").as_bytes());
        if asked.header("authorization") != format!("Basic {basic}") || asked.header("x-crisp-tier") != "plugin" {
            return (401, json!({ "error": true, "reason": "invalid_session", "data": {} }));
        }
        let data = |data: Value| (200, json!({ "error": false, "reason": "resolved", "data": data }));
        if asked.path == "/v1/plugin/connect/session" && asked.method == "HEAD" {
            return (200, Value::Null);
        }
        let path = asked.path.strip_prefix(&format!("/v1/website/{WEBSITE}/conversation/")).unwrap_or_default();
        let (session, rest) = path.split_once('/').unwrap_or((path, ""));
        let email = format!("{}@example.com", session.split('-').next().unwrap());
        match (asked.method.as_str(), rest) {
            ("GET", "") if session.ends_with("gone") => {
                (404, json!({ "error": true, "reason": "session_not_found", "data": {} }))
            }
            ("GET", "") if session.ends_with("embedded") => {
                data(json!({ "is_verified": true, "meta": { "email": email } }))
            }
            ("GET", "") if session.ends_with("phone") => data(
                json!({ "is_verified": true, "verifications": [{ "identity": "phone" }], "meta": { "email": email } }),
            ),
            ("GET", "") => data(
                json!({ "is_verified": session.ends_with("verified"), "verifications": [], "state": "unresolved" }),
            ),
            ("GET", "meta") => data(json!({ "email": email, "nickname": "x", "data": { "user_id": "user_bob" } })),
            ("POST", "message") => {
                (202, json!({ "error": false, "reason": "dispatched", "data": { "fingerprint": 1 } }))
            }
            _ => (404, Value::Null),
        }
    })
    .await
}

/// Clerk tells of a user with this address.
async fn meet(herald: &Herald, user: &str, email: &str, more: Value) {
    let mut data = json!({
        "id": user, "first_name": "Ann", "last_name": "Lee", "image_url": "https://img.clerk.com/x", "updated_at": 2,
        "primary_email_address_id": "e",
        "email_addresses": [{ "id": "e", "email_address": email, "verification": { "status": "verified" } }],
    });
    for (name, value) in more.as_object().unwrap() {
        data[name] = value.clone();
    }
    webhook(herald, &format!("msg_{user}"), "user.created", &data).await.ok();
}

fn hook(kind: &str, session: &str, data: &Value) -> Value {
    let mut data = data.clone();
    (data["website_id"], data["session_id"]) = (WEBSITE.into(), session.into());
    json!({ "website_id": WEBSITE, "event": kind, "data": data, "timestamp": now() * 1_000 })
}

fn reply(session: &str, text: &str, fingerprint: u64) -> Value {
    let data = json!({
        "type": "text", "from": "operator", "origin": "chat", "content": text, "fingerprint": fingerprint,
        "user": { "user_id": "op-1", "nickname": "Jane" },
    });
    hook("message:received", session, &data)
}

fn verified(session: &str, email: &str) -> Value {
    let verifications = json!([{ "identity": email, "method": "hmac" }]);
    hook("session:update_verify", session, &json!({ "is_verified": true, "verifications": verifications }))
}

/// A plugin's hook, signed as Crisp does it.
async fn tell_with(herald: &Herald, path: &str, body: &str, secret: &str, timestamp: u64) -> Answer {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = HEXLOWER.encode(hmac::sign(&key, format!("[{timestamp};{body}]").as_bytes()).as_ref());
    let headers = [format!("X-Crisp-Signature: {signature}"), format!("X-Crisp-Request-Timestamp: {timestamp}")];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    request(herald, "POST", path, &headers, body).await
}

async fn tell(herald: &Herald, body: &Value) {
    let answer = tell_with(herald, "/webhooks/crisp", &body.to_string(), SIGNING, now() * 1_000).await;
    assert_eq!(answer.ok(), json!({}), "{body}");
}

async fn inbox(herald: &Herald, user: &str) -> Vec<Value> {
    ask(herald, user, "GET", "/v1/inbox", &Value::Null).await.ok()["items"].as_array().unwrap().clone()
}

/// What the page is told next, as type and message. A repetition would come before what is told after it.
async fn next(client: &mut Client, event: &str) -> (String, Value) {
    let told = client.expect(event).await.json();
    let notification = &told["notification"];
    (notification["type"].as_str().unwrap().to_owned(), notification["message"].clone())
}

async fn send(herald: &Herald, body: &Value) -> Answer {
    let headers = [format!("Authorization: Bearer {API_KEY}"), "Content-Type: application/json".to_owned()];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    request(herald, "POST", "/v1/support/messages", &headers, &body.to_string()).await
}

#[tokio::test]
async fn a_reply_reaches_its_users_page_and_inbox_once() {
    let herald = Herald::start(&config("hooks", "http://127.0.0.1:1", "")).await;
    meet(&herald, "user_ann", "Ann@Example.com", json!({})).await;
    let mut ann = tab(&herald, "user_ann").await;
    tell(&herald, &verified("s1", "ann@example.com")).await;
    let first = reply("s1", "How can I help?", 1);
    tell(&herald, &first).await;
    tell(&herald, &first).await;
    let mut again = first.clone();
    again["data"]["stamped"] = json!(true); // the same message, in other words
    tell(&herald, &again).await;
    let note = json!({ "type": "note", "from": "operator", "content": "do not refund", "fingerprint": 2 });
    tell(&herald, &hook("message:received", "s1", &note)).await;
    let event = json!({ "type": "event", "content": { "namespace": "state:resolved" }, "fingerprint": 3 });
    tell(&herald, &hook("message:received", "s1", &event)).await;
    let own = json!({ "type": "text", "from": "user", "content": "Hi", "fingerprint": 4 });
    tell(&herald, &hook("message:send", "s1", &own)).await;
    for kind in ["message:updated", "message:removed"] {
        tell(&herald, &hook(kind, "s1", &json!({ "content": "changed", "fingerprint": 1 }))).await;
    }
    tell(&herald, &hook("session:set_state", "s1", &json!({ "state": "resolved" }))).await;
    assert_eq!(next(&mut ann, "notification.created").await, ("support.message".to_owned(), json!("How can I help?")));
    assert_eq!(next(&mut ann, "notification.created").await, ("support.resolved".to_owned(), Value::Null));
    let file = json!({ "type": "file", "content": { "name": "invoice.pdf", "url": "https://x" }, "fingerprint": 5 });
    tell(&herald, &hook("message:received", "s1", &file)).await;
    assert_eq!(next(&mut ann, "notification.updated").await, ("support.message".to_owned(), json!("invoice.pdf")));
    let items = inbox(&herald, "user_ann").await;
    assert_eq!((items.len(), &items[0]["group_count"], &items[1]["group_count"]), (2, &json!(2), &json!(1)));
    assert_eq!(items[0]["title"], "New reply from support");
    assert_eq!(items[1]["object"], json!({ "type": "conversation", "id": "s1" }));
    assert!(!items.iter().any(|item| item.to_string().contains("refund")));
    tell(&herald, &hook("session:removed", "s1", &json!({}))).await;
    tell(&herald, &reply("s1", "too late", 6)).await;
    assert_eq!(inbox(&herald, "user_ann").await, items);
}

#[tokio::test]
async fn the_scenario_of_the_specification_is_told_as_it_says() {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/webhook_events.json")).unwrap();
    let scenario = &vectors["crisp"];
    let website = scenario["config"]["website_id"].as_str().unwrap();
    let config = config("hooks", "http://127.0.0.1:1", "").replace(WEBSITE, website);
    let herald = Herald::start(&config).await;
    let user = scenario["start"]["users"][0].as_str().unwrap();
    meet(&herald, user, "ann@example.com", json!({})).await;
    let send = async |body: &Value| {
        tell_with(&herald, "/webhooks/crisp", &body.to_string(), SIGNING, now() * 1_000).await.status
    };
    for session in
        scenario["start"]["support_sessions"].as_array().unwrap().iter().filter(|session| session["verified"] == true)
    {
        let mut proof = verified(session["session_id"].as_str().unwrap(), "ann@example.com");
        (proof["website_id"], proof["data"]["website_id"]) = (website.into(), website.into());
        assert_eq!(send(&proof).await, 200);
    }
    let mut before = Value::Null;
    for step in scenario["deliveries"].as_array().unwrap() {
        let (note, expect) = (&step["note"], &step["expect"]);
        assert_eq!(send(&step["body"]).await, expect["status"].as_u64().unwrap_or(200) as u16, "{note}");
        let inbox = ask(&herald, user, "GET", "/v1/inbox", &Value::Null).await.ok();
        assert_eq!(inbox["rev"] == before["rev"], expect["notification"].is_null(), "{note}: {inbox}");
        for (member, value) in expect["notification"].as_object().into_iter().flatten() {
            let told = if member == "user_id" { &json!(user) } else { &inbox["items"][0][member] };
            assert_eq!(told, value, "{note}: {member}");
        }
        before = inbox;
    }
}

#[tokio::test]
async fn nothing_that_a_browser_says_makes_a_conversation_somebodys() {
    let herald = Herald::start(&config("hooks", "http://127.0.0.1:1", "")).await;
    meet(&herald, "user_ann", "ann@example.com", json!({})).await;
    meet(&herald, "user_bob", "bob@example.com", json!({})).await;
    for (kind, data) in [
        ("session:set_email", json!({ "email": "ann@example.com" })),
        ("session:set_data", json!({ "data": { "user_id": "user_ann", "email": "ann@example.com" } })),
        ("session:set_nickname", json!({ "nickname": "user_ann" })),
        (
            "session:update_verify",
            json!({ "is_verified": false, "verifications": [{ "identity": "ann@example.com" }] }),
        ),
        (
            "session:update_verify",
            json!({ "is_verified": true, "verifications": [{ "identity": "phone", "annotation": "ann@example.com" }] }),
        ),
        (
            "message:send",
            json!({ "type": "text", "from": "user", "content": "I am ann@example.com", "user": { "user_id": "user_ann" } }),
        ),
    ] {
        tell(&herald, &hook(kind, "s1", &data)).await;
        tell(&herald, &reply("s1", kind, 1)).await;
    }
    tell(&herald, &verified("s2", "ann@example.com")).await;
    tell(&herald, &hook("session:set_email", "s2", &json!({ "email": "bob@example.com" }))).await;
    tell(&herald, &reply("s2", "for whoever is there now", 2)).await;
    assert!(inbox(&herald, "user_ann").await.is_empty() && inbox(&herald, "user_bob").await.is_empty());
    tell(&herald, &verified("s2", "bob@example.com")).await;
    tell(&herald, &reply("s2", "for Bob", 3)).await;
    assert!(inbox(&herald, "user_ann").await.is_empty());
    assert_eq!(inbox(&herald, "user_bob").await[0]["message"], "for Bob");
}

#[tokio::test]
async fn what_is_not_crisps_is_refused_and_no_secret_is_told() {
    let herald = Herald::start(&config("hooks", "http://127.0.0.1:1", "")).await;
    let body = r#"{"website_id":"6c50f7a8-680f-3657-f5fd-cc3a1a952a17", "event": "message:send", "data": {"n": 1.0}}"#;
    for (secret, timestamp) in [(SIGNING, now() * 1_000), (SIGNING, now()), ("an-old-one", now() - 290)] {
        assert_eq!(tell_with(&herald, "/webhooks/crisp", body, secret, timestamp).await.ok(), json!({}));
    }
    for (secret, timestamp) in
        [("wrong", now()), (SIGNING, now() - 310), (SIGNING, (now() + 310) * 1_000), (HOOK_KEY, now())]
    {
        let refused = tell_with(&herald, "/webhooks/crisp", body, secret, timestamp).await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (403, &json!("forbidden")));
    }
    let by_key = async |query: &str, body: &str| {
        request(&herald, "POST", &format!("/api/webhooks/crisp{query}"), &[], body).await.status
    };
    assert_eq!(by_key(&format!("?key={HOOK_KEY}"), body).await, 200);
    for query in ["", "?key=", "?key=wrong", &format!("?key={SIGNING}"), &format!("?KEY={HOOK_KEY}")] {
        assert_eq!(by_key(query, body).await, 403, "{query}");
    }
    let (key, other) = (format!("?key={HOOK_KEY}"), body.replace(WEBSITE, "another-website"));
    assert_eq!(by_key(&key, &other).await, 403, "another website's");
    assert_eq!(by_key(&key, "no JSON at all").await, 200, "a repetition would not help");
    assert_eq!(by_key(&key, &"x".repeat(1024 * 1024 + 1)).await, 413);
    for secret in [HOOK_KEY, SIGNING, "an-old-one", "wrong"] {
        assert!(!herald.has_logged(secret), "{secret}");
    }
    herald.logged("the signature is not right").await;
    herald.logged("another website").await;
}

/// Asserts that Crisp was asked about this conversation, and for its address if that does not stand there.
async fn asked(api: &mut ThirdParty, session: &str, with_meta: bool) {
    let path = format!("/v1/website/{WEBSITE}/conversation/{session}");
    let paths = if with_meta { vec![path.clone(), format!("{path}/meta")] } else { vec![path] };
    for expected in paths {
        let Asked { method, path, .. } = api.next().await;
        assert_eq!((method.as_str(), path), ("GET", expected));
    }
}

#[tokio::test]
async fn where_no_hook_says_whose_it_is_crisp_is_asked_once_a_minute() {
    let mut api = api().await;
    let herald = Herald::start(&config("rest hooks", &api.url, "")).await;
    meet(&herald, "user_ann", "ann@example.com", json!({})).await;
    let mut ann = tab(&herald, "user_ann").await;
    for (session, with_meta) in [("ann-1-verified", true), ("ann-2-embedded", false)] {
        tell(&herald, &reply(session, session, 1)).await;
        asked(&mut api, session, with_meta).await;
        assert_eq!(next(&mut ann, "notification.created").await, ("support.message".to_owned(), json!(session)));
        tell(&herald, &reply(session, "known now", 2)).await;
        assert_eq!(next(&mut ann, "notification.updated").await.1, "known now");
    }
    for session in ["ann-3", "ann-4-phone", "ann-5-gone"] {
        for number in 0..5 {
            tell(&herald, &reply(session, "for nobody who is known", number)).await;
        }
        asked(&mut api, session, false).await;
    }
    // Whoever is proven to be there hears what has come since the answer.
    tell(&herald, &reply("ann-3", "for her after all", 9)).await;
    tell(&herald, &verified("ann-3", "ann@example.com")).await;
    loop {
        let told = ann.next().await.json();
        if told["notification"]["message"] == "for her after all" {
            break;
        }
    }
    // The chat's own word that she is there, without her address.
    tell(&herald, &hook("session:update_verify", "ann-6-embedded", &json!({ "is_verified": true }))).await;
    asked(&mut api, "ann-6-embedded", false).await;
    let more: Vec<String> = api.so_far().into_iter().map(|asked| asked.path).collect();
    assert_eq!(more, [""; 0], "once about each");
}

#[tokio::test]
async fn a_backend_writes_into_a_users_conversation_once() {
    let mut api = api().await;
    let herald = Herald::start(&config(ALL, &api.url, "")).await;
    meet(&herald, "user_ann", "ann@example.com", json!({})).await;
    let body = json!({ "user_id": "user_ann", "text": "Your order is on its way", "transaction_id": "order-1" });
    let missing = send(&herald, &body).await;
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &json!("no_conversation")));
    tell(&herald, &verified("s1", "ann@example.com")).await;
    let queued = send(&herald, &body).await;
    assert_eq!((queued.status, queued.json()), (202, json!({ "transaction_id": "order-1", "status": "queued" })));
    let Asked { method, path, body: sent, .. } = api.next().await;
    assert_eq!((method.as_str(), path), ("POST", format!("/v1/website/{WEBSITE}/conversation/s1/message")));
    let mut sent: Value = serde_json::from_str(&sent).unwrap();
    assert!(sent.as_object_mut().unwrap().remove("fingerprint").unwrap().as_u64().unwrap() < 1 << 53);
    let expected =
        json!({ "type": "text", "from": "operator", "origin": "chat", "content": "Your order is on its way" });
    assert_eq!(sent, expected);
    assert_eq!(send(&herald, &body).await.json()["status"], "duplicate");
    let own = send(&herald, &json!({ "user_id": "user_ann", "text": "marker" })).await.json();
    assert!(own["transaction_id"].as_str().is_some_and(|id| !id.is_empty()));
    assert_eq!(api.next().await.json()["content"], "marker", "the other one was not sent again");
    for (body, named) in [
        (json!({ "text": "x" }), "user_id"),
        (json!({ "user_id": "user_ann" }), "text"),
        (json!({ "user_id": "", "text": "x" }), "user_id"),
        (json!({ "user_id": "user_ann", "text": "  " }), "text"),
        (json!({ "user_id": "user_ann", "text": "x".repeat(10_001) }), "10000"),
        (json!({ "user_id": "user_ann", "text": "x", "transaction_id": "" }), "transaction_id"),
    ] {
        let refused = send(&herald, &body).await;
        assert_eq!(refused.status, 400, "{body}");
        assert!(refused.json()["error"]["message"].as_str().unwrap().contains(named), "{}", refused.text);
    }
    assert_eq!(
        request(&herald, "POST", "/v1/support/messages", &["Authorization: Bearer wrong"], "{}").await.status,
        401
    );
    assert_eq!(herald.api().post("/v1/support/messages", "{}").await.status, 404, "it stands below no app");
    tell(&herald, &hook("session:removed", "s1", &json!({}))).await;
    assert_eq!(send(&herald, &json!({ "user_id": "user_ann", "text": "x" })).await.status, 404);
}

/// A message is on its way to Crisp, which is in this mood; nobody waits for that. Returns once it was asked.
async fn message_while(mood: Mood) -> (Herald, ThirdParty, String) {
    let mut api = api().await;
    api.be(mood);
    let config = config(ALL, &api.url, "");
    let herald = Herald::start(&config).await;
    meet(&herald, "user_ann", "ann@example.com", json!({})).await;
    let begun = tokio::time::Instant::now();
    let mut ann = tab(&herald, "user_ann").await;
    tell(&herald, &verified("s1", "ann@example.com")).await;
    assert_eq!(send(&herald, &json!({ "user_id": "user_ann", "text": "hello" })).await.status, 202);
    assert_eq!(api.next().await.json()["content"], "hello");
    tell(&herald, &reply("s1", "meanwhile", 1)).await;
    tell(&herald, &reply("of-somebody", "meanwhile", 1)).await; // about whom Crisp would have to be asked
    ann.expect("notification.created").await;
    let identity = ask(&herald, "user_ann", "GET", "/v1/support/identity", &Value::Null).await;
    assert_eq!(identity.ok()["email"], "ann@example.com");
    assert!(begun.elapsed() < Duration::from_secs(4), "nobody waits for Crisp");
    (herald, api, config)
}

/// It arrives at last, and is not sent again.
async fn all_is_well(herald: &Herald, api: &mut ThirdParty) {
    api.be(Mood::Well);
    let message = async |api: &mut ThirdParty| loop {
        let asked = api.next().await;
        if asked.method == "POST" && asked.mood == Mood::Well {
            return asked.json();
        }
    };
    let sent = message(api).await;
    assert_eq!(sent["content"], "hello");
    send(herald, &json!({ "user_id": "user_ann", "text": "marker" })).await;
    assert_eq!(message(api).await["content"], "marker");
}

#[tokio::test]
async fn a_message_outlasts_a_crisp_that_is_broken() {
    let (herald, mut api, _) = message_while(Mood::Failing(500)).await;
    all_is_well(&herald, &mut api).await;
}

#[tokio::test]
async fn a_message_outlasts_a_crisp_that_hangs() {
    let (herald, mut api, _) = message_while(Mood::Hanging).await;
    all_is_well(&herald, &mut api).await;
}

#[tokio::test]
async fn a_message_goes_on_after_the_process_was_killed_in_the_midst_of_it() {
    let (mut herald, mut api, config) = message_while(Mood::Hanging).await;
    herald.kill();
    let herald = herald.start_again(&config).await;
    all_is_well(&herald, &mut api).await;
}

#[tokio::test]
async fn a_crisp_that_answers_without_end_is_heard_to_none() {
    let (herald, mut api, _) = message_while(Mood::Flooding).await;
    loop {
        // What it has taken by its status is done; what it says of a conversation is not believed.
        let asked = api.next().await;
        assert_eq!((asked.method.as_str(), asked.mood), ("GET", Mood::Flooding), "{asked:?}");
        if asked.path.ends_with("of-somebody") {
            break;
        }
    }
    assert_eq!(send(&herald, &json!({ "user_id": "user_ann", "text": "marker" })).await.status, 202);
    while api.next().await.method != "POST" {}
    assert!(herald.resident_bytes() < 100 * 1024 * 1024, "nobody keeps that: {}", herald.resident_bytes());
}

#[tokio::test]
async fn a_crisp_that_lies_or_is_slow_binds_nobody_wrongly_and_is_asked_again() {
    let mut api = api().await;
    api.be(Mood::Lying("<html>[1,2"));
    let herald = Herald::start(&config("rest hooks", &api.url, "")).await;
    meet(&herald, "user_ann", "ann@example.com", json!({})).await;
    tell(&herald, &reply("ann-1-verified", "hello", 1)).await;
    assert_eq!(api.next().await.mood, Mood::Lying("<html>[1,2"));
    herald.logged("its answer makes no sense").await;
    assert!(inbox(&herald, "user_ann").await.is_empty());
    api.be(Mood::Slow(Duration::from_secs(1)));
    tell(&herald, &reply("ann-2-verified", "hello", 1)).await;
    let mut ann = tab(&herald, "user_ann").await;
    assert_eq!(next(&mut ann, "notification.created").await.1, "hello");
}

#[tokio::test]
async fn a_page_is_told_who_its_user_is_in_the_chat() {
    let herald = Herald::start(&config("identity", "http://127.0.0.1:1", "")).await;
    let identity = async |user: &str| ask(&herald, user, "GET", "/v1/support/identity", &Value::Null).await;
    let metadata = json!({ "subscription": "pro", "signup_date": "2026-01-31", "secret": "x" });
    meet(&herald, "user_ann", "Jane.Doe+tag@Example.com", json!({ "public_metadata": metadata })).await;
    let answer = identity("user_ann").await;
    assert_eq!(answer.headers["cache-control"], "private, no-store");
    assert!(answer.headers["ratelimit-policy"].starts_with("\"inbox_reads\""), "{:?}", answer.headers);
    let key = hmac::Key::new(hmac::HMAC_SHA256, herald.app.secret.expose().as_bytes());
    let token_id =
        |user: &str| BASE64URL_NOPAD.encode(hmac::sign(&key, format!("crisp-token|{user}").as_bytes()).as_ref());
    assert_eq!(
        answer.ok(),
        json!({
            "website_id": WEBSITE, "email": "Jane.Doe+tag@Example.com", "nickname": "Ann Lee", "avatar": "https://img.clerk.com/x",
            "signature": "6dab5ec9b246244c5924ca5f1b46cf20344ca5aab6c217c8696c02346395d474",
            "session_data": { "user_id": "user_ann", "subscription": "pro", "signup_date": "2026-01-31" },
            "token_id": token_id("user_ann"),
        })
    );
    let unverified = json!({ "email_addresses": [{ "id": "e", "email_address": "bob@example.com", "verification": { "status": "unverified" } }] });
    meet(&herald, "user_bob", "", unverified).await;
    let bob = identity("user_bob").await.ok();
    assert!(bob.get("email").is_none() && bob.get("signature").is_none(), "{bob}");
    assert_eq!((&bob["nickname"], &bob["token_id"]), (&json!("Ann Lee"), &json!(token_id("user_bob"))));
    let stranger = identity("user_carol").await.ok();
    let expected = json!({ "website_id": WEBSITE, "session_data": { "user_id": "user_carol" }, "token_id": token_id("user_carol") });
    assert_eq!(stranger, expected);
    assert_eq!(request(&herald, "GET", "/v1/support/identity", &[], "").await.status, 401);
    let method = ask(&herald, "user_ann", "POST", "/v1/support/identity", &json!({})).await;
    assert_eq!((method.status, method.headers["allow"].as_str()), (405, "GET, OPTIONS"));
    assert!(!herald.has_logged(IDENTITY) && !herald.has_logged(&token_id("user_ann")));
}

#[tokio::test]
async fn there_is_what_is_configured_and_nothing_else() {
    let paths = [("GET", "/v1/support/identity"), ("POST", "/webhooks/crisp"), ("POST", "/v1/support/messages")];
    let found = async |config: &str, log: &str| {
        let herald = Herald::start(config).await;
        herald.logged(log).await;
        let mut found = Vec::new();
        for (method, path) in paths {
            let answer = if path.ends_with("messages") {
                send(&herald, &json!({})).await
            } else {
                ask(&herald, "user_ann", method, path, &Value::Null).await
            };
            found.push(answer.status);
        }
        found
    };
    let none = "http://127.0.0.1:1";
    assert_eq!(found(&auth(""), "Crisp is off").await, [404; 3]);
    assert_eq!(found(&config("hooks", none, ""), "Crisp is on").await, [200, 403, 404]);
    assert_eq!(found(&config("identity", none, ""), "Crisp is on").await, [200, 404, 404]);
    assert_eq!(found(&config("rest", none, ""), "Crisp is on").await, [200, 404, 400]);
}

/// The website `w` with this token.
fn crisp(tier: &str, id: &str, key: &str, url: &str) -> Crisp {
    let variables = [
        ("CRISP_WEBSITE_ID", "w"),
        ("CRISP_TOKEN_ID", id),
        ("CRISP_TOKEN_KEY", key),
        ("CRISP_TIER", tier),
        ("HERALD_INTEGRATIONS_CRISP_API_URL", url),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let config = Sources { variables, ..Sources::default() }.load().unwrap().config;
    Crisp::new(&config, &herald::outgoing::Outgoing::new().unwrap()).unwrap()
}

/// Whether it is well, as health and doctor ask it.
async fn ping(crisp: &Crisp) -> Result<(), CallProblem> {
    crisp.rest.as_ref().expect("it has a token").ping().await
}

#[tokio::test]
async fn whether_crisp_is_well_is_one_word() {
    let mut api = ThirdParty::start(|asked| match (asked.method.as_str(), asked.path.as_str()) {
        _ if asked.header("authorization") != format!("Basic {}", BASE64.encode(b"id:right")) => (401, Value::Null),
        ("HEAD", "/v1/plugin/connect/session") if asked.header("x-crisp-tier") == "plugin" => (200, Value::Null),
        ("GET", "/v1/website/w") if asked.header("x-crisp-tier") == "website" => {
            (200, json!({ "error": false, "data": {} }))
        }
        _ => (404, Value::Null),
    })
    .await;
    let with = |tier: &str, key: &str, url: &str| crisp(tier, "id", key, url);
    let url = api.url.clone();
    let code = async |crisp: Crisp| ping(&crisp).await.map_err(|problem| problem.code());
    assert_eq!(code(with("plugin", "right", &url)).await, Ok(()));
    assert_eq!(code(with("website", "right", &url)).await, Ok(()));
    assert_eq!(code(with("plugin", "wrong", &url)).await, Err("unauthorized"));
    assert_eq!(code(with("user", "right", &url)).await, Err("http_4xx"));
    for (mood, expected) in [
        (Mood::Failing(500), "http_5xx"),
        (Mood::Failing(420), "rate_limited"),
        (Mood::Failing(302), "bad_response"),
        (Mood::Lying("<html>[1,2"), "bad_response"),
        (Mood::Flooding, "bad_response"),
        (Mood::Hanging, "timeout"),
    ] {
        api.be(mood);
        assert_eq!(code(with("website", "right", &url)).await, Err(expected), "{mood:?}");
    }
    api.so_far();
    assert_eq!(code(with("plugin", "right", "http://127.0.0.1:1")).await, Err("connect"));
    let broken = with("plugin", "right", "http://127.0.0.1:1");
    for _ in 0..5 {
        assert!(ping(&broken).await.is_err());
    }
    assert_eq!(ping(&broken).await.unwrap_err().code(), "breaker_open");
    assert!(!format!("{broken:?}").contains("right"));
}

#[tokio::test]
async fn the_rest_api_is_asked_as_the_vectors_say() {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/crisp.json")).unwrap();
    let mut api = ThirdParty::start(|_| (200, Value::Null)).await;
    let examples = vectors["rest_auth_examples"].as_array().unwrap();
    assert!(!examples.is_empty());
    for example in examples {
        let [tier, id, key] = ["tier", "identifier", "key"].map(|member| example[member].as_str().unwrap());
        ping(&crisp(tier, id, key, &api.url)).await.unwrap();
        let asked = api.next().await;
        for (name, value) in example["headers"].as_object().unwrap() {
            assert_eq!(asked.header(name), value, "{name}");
        }
    }
}
