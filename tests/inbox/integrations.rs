//! Users' accounts at other services: tokens go in, one that can be used now comes out for servers only, whatever becomes of the service that
//! refreshes it, of the node that asks, and of the other node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use herald::store::time::Timestamp;
use herald_protocol::signature::request_string;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::postgres::Postgres;
use super::support::api::Answer;
use super::support::{Client, DEADLINE, Herald};
use super::third_party::{Asked, Mood, ThirdParty};
use super::user::{ask, auth, now, request, tab};

/// Each of these cases with SQLite, and with Postgres.
macro_rules! over_both {
    ($($case:ident),+ $(,)?) => { $( mod $case {
        #[tokio::test]
        async fn sqlite() {
            Box::pin(super::$case(super::Kept::File)).await;
        }

        #[tokio::test]
        async fn postgres() {
            Box::pin(super::$case(super::Kept::Server(super::Postgres::start().await))).await;
        }
    } )+ };
}

over_both! {
    a_token_goes_in_and_comes_out_for_servers_only,
    one_of_several_accounts_is_named,
    a_token_is_refreshed_before_it_expires_and_the_new_refresh_token_is_kept,
    an_expired_token_is_refreshed_for_whoever_asks_and_once_for_all_who_do,
    a_refresh_token_that_counts_no_more_is_told_to_the_user_once,
    a_token_that_nobody_can_refresh_is_set_aside_when_it_expires,
}

const API_KEY: &str = "a-key-of-a-backend-0123456789";
const KEYS: &str = "k1:J5pgjA3ziAqP8TtB9Gjqo77UtympDuM+FeIpJwHHeVk=";
const CLIENT: (&str, &str) = ("the client", "client-secret-%&=+ü");
const NOTHING: Value = Value::Null;
const PATH: &str = "/v1/users/user_ann/integrations/google";

/// Where everything is kept.
enum Kept {
    File,
    Server(Postgres),
}

impl Kept {
    fn config(&self) -> String {
        match self {
            Self::File => String::new(),
            Self::Server(server) => format!("[database]\nurl = \"{}\"\nschema = \"{}\"\n", server.url, server.schema),
        }
    }
}

fn config(kept: &Kept, keys: &str, oauth: &str) -> String {
    let server = format!("[server]\napi_keys = [\"{API_KEY}\"]\n");
    let tokens = if keys.is_empty() { String::new() } else { format!("[tokens]\nkeys = \"{keys}\"\n") };
    format!("{server}{}{tokens}{oauth}{}", kept.config(), auth(""))
}

fn oauth(url: &str) -> String {
    let (id, secret) = CLIENT;
    format!(
        "[integrations.oauth.google]\ntoken_url = \"{url}/token\"\nclient_id = \"{id}\"\nclient_secret = \"{secret}\"\n"
    )
}

async fn start(kept: &Kept, oauth: &str) -> Herald {
    Herald::start(&config(kept, KEYS, oauth)).await
}

/// A server's request.
async fn call(herald: &Herald, method: &str, path: &str, body: &Value) -> Answer {
    let authorization = format!("Authorization: Bearer {API_KEY}");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    request(herald, method, path, &[&authorization], &body).await
}

/// A request that is signed as a Pusher server library signs it, without a body.
async fn signed(herald: &Herald, method: &str, path: &str) -> Answer {
    let (timestamp, app) = (now().to_string(), &herald.app);
    let mut query = vec![("auth_key", app.key.as_str()), ("auth_timestamp", &timestamp), ("auth_version", "1.0")];
    let signature = app.secret.sign(request_string(method, path, query.iter().copied()).as_bytes());
    query.push(("auth_signature", &signature));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    request(herald, method, &format!("{path}?{query}"), &[], "").await
}

async fn token(herald: &Herald) -> Answer {
    call(herald, "POST", &format!("{PATH}/token"), &NOTHING).await
}

/// The user's list.
async fn list(herald: &Herald, user: &str) -> Vec<Value> {
    ask(herald, user, "GET", "/v1/integrations", &NOTHING).await.ok()["items"].as_array().unwrap().clone()
}

fn in_seconds(seconds: i64) -> String {
    Timestamp::from_micros(Timestamp::now().as_micros() + seconds * 1_000_000).to_string()
}

/// What a backend says of a new connection that expires in so many seconds.
fn connection(name: &str, seconds: i64) -> Value {
    json!({
        "access_token": format!("access-{name}"), "refresh_token": format!("refresh-{name}"), "token_expires_at": in_seconds(seconds),
        "scopes": ["mail", "files"], "service_data": { "plan": "pro" },
    })
}

async fn put(herald: &Herald, body: &Value) -> Value {
    call(herald, "PUT", PATH, body).await.ok()["integration"].clone()
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"]["code"].as_str().unwrap().to_owned())
}

/// A token server as strict as there are: each refresh token counts once, the next one is `NAME'`, and one that comes back ends the connection.
#[derive(Clone, Default)]
struct Grants(Arc<Mutex<BTreeMap<String, Grant>>>);

#[derive(Default)]
struct Grant {
    refreshed: usize,
    revoked: bool,
}

impl Grants {
    fn answer(&self, asked: &Asked) -> (u16, Value) {
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", encoded(CLIENT.0), encoded(CLIENT.1));
        if asked.header("authorization") != format!("Basic {}", BASE64.encode(pair.as_bytes())) {
            return (401, json!({ "error": "invalid_client" }));
        }
        assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/token"));
        assert_eq!(asked.header("content-type"), "application/x-www-form-urlencoded");
        assert_eq!(
            (asked.header("accept"), asked.form("grant_type").as_deref()),
            ("application/json", Some("refresh_token"))
        );
        assert_eq!((asked.form("client_id"), asked.form("client_secret")), (None, None), "one way at a time");
        let given = asked.form("refresh_token").unwrap();
        let name = given.strip_prefix("refresh-").unwrap().trim_end_matches('\'').to_owned();
        let mut grants = self.0.lock();
        let grant = grants.entry(name.clone()).or_default();
        if grant.revoked || given != format!("refresh-{name}{}", "'".repeat(grant.refreshed)) {
            grant.revoked = true;
            return (400, json!({ "error": "invalid_grant", "error_description": given }));
        }
        grant.refreshed += 1;
        let mark = "'".repeat(grant.refreshed);
        let body = json!({
            "access_token": format!("access-{name}{mark}"), "refresh_token": format!("refresh-{name}{mark}"), "token_type": "Bearer",
            "expires_in": 3_600, "scope": "mail",
        });
        (200, body)
    }

    fn revoke(&self, name: &str) {
        self.0.lock().entry(name.to_owned()).or_default().revoked = true;
    }

    /// How often each was refreshed; nothing of one that was given twice.
    fn all(&self) -> BTreeMap<String, usize> {
        self.0
            .lock()
            .iter()
            .filter(|(_, grant)| !grant.revoked)
            .map(|(name, grant)| (name.clone(), grant.refreshed))
            .collect()
    }
}

async fn token_server() -> (ThirdParty, Grants) {
    let grants = Grants::default();
    let answering = grants.clone();
    (ThirdParty::start(move |asked| answering.answer(asked)).await, grants)
}

/// Asks until that holds of the user's only account, or the deadline is over.
async fn until(herald: &Herald, holds: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let items = list(herald, "user_ann").await;
        if holds(&items[0]) {
            return items[0].clone();
        }
        assert!(begun.elapsed() < DEADLINE * 2, "{items:?}");
        tokio::time::sleep(Duration::from_millis(300)).await; // a user may not ask as often as one likes
    }
}

/// What a user is told of a lost connection, in whichever order: the notification, and the account.
async fn both(client: &mut Client) -> (Value, Value) {
    let (first, second) = (client.next().await, client.next().await);
    let (first, second) = if first.event == "notification.created" { (first, second) } else { (second, first) };
    assert_eq!((first.event.as_str(), second.event.as_str()), ("notification.created", "integration.updated"));
    (first.json(), second.json())
}

fn says_nothing(herald: &Herald) {
    for secret in ["access-", "refresh-one", "refresh-two", CLIENT.1, "client-secret"] {
        assert!(!herald.has_logged(secret), "{secret} is in the log");
    }
}

async fn a_token_goes_in_and_comes_out_for_servers_only(kept: Kept) {
    let herald = start(&kept, "").await;
    let mut ann = tab(&herald, "user_ann").await;
    let kept_now = put(&herald, &connection("one", 3_600)).await;
    let event = ann.expect("integration.updated").await.json();
    assert_eq!(event, json!({ "integration": kept_now }));
    assert_eq!(list(&herald, "user_ann").await, std::slice::from_ref(&kept_now));
    for (member, expected) in [
        ("service", json!("google")),
        ("service_user_id", json!("")),
        ("has_access_token", json!(true)),
        ("scopes", json!(["mail", "files"])),
        ("service_data", json!({ "plan": "pro" })),
        ("is_active", json!(true)),
        ("last_error", NOTHING),
    ] {
        assert_eq!(kept_now[member], expected, "{member}");
    }
    let handed = token(&herald).await;
    assert_eq!(handed.headers["cache-control"], "no-store");
    let expires_at = kept_now["token_expires_at"].clone();
    assert_eq!(handed.ok(), json!({ "access_token": "access-one", "expires_at": expires_at }));
    // What is signed with the app's key is a server's, too.
    let signed = signed(&herald, "POST", &format!("{PATH}/token")).await;
    assert_eq!(signed.ok()["access_token"], "access-one");
    // What is not said stays.
    let data = json!({ "service_data": { "plan": "free" }, "unknown": 1 });
    assert_eq!(put(&herald, &data).await["token_expires_at"], expires_at);
    assert_eq!(token(&herald).await.ok()["access_token"], "access-one");
    // A user gets none, nor does anybody without a key.
    for (method, path) in [("POST", format!("{PATH}/token")), ("PUT", PATH.to_owned()), ("DELETE", PATH.to_owned())] {
        assert_eq!(ask(&herald, "user_ann", method, &path, &json!({})).await.status, 401, "{method} {path}");
        assert_eq!(request(&herald, method, &path, &[], "{}").await.status, 401, "{method} {path}");
    }
    assert!(list(&herald, "user_bob").await.is_empty());
    assert_eq!(ask(&herald, "user_bob", "DELETE", "/v1/integrations/google", &NOTHING).await.status, 404);
    ann.expect("integration.updated").await;
    assert_eq!(ask(&herald, "user_ann", "DELETE", "/v1/integrations/google", &NOTHING).await.status, 204);
    let event = ann.expect("integration.updated").await.json();
    assert_eq!(event, json!({ "integration": { "service": "google", "service_user_id": "" }, "deleted": true }));
    assert_eq!(code(&token(&herald).await), (404, "not_found".to_owned()));
    assert_eq!(call(&herald, "DELETE", PATH, &NOTHING).await.status, 404);
    if let Kept::File = kept {
        for file in std::fs::read_dir(herald.data()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            for token in ["access-one", "refresh-one"] {
                assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()), "it is not on the disk");
            }
        }
    }
    says_nothing(&herald);
}

async fn one_of_several_accounts_is_named(kept: Kept) {
    let herald = start(&kept, "").await;
    for id in ["1", "2"] {
        let mut body = connection(id, 3_600);
        body["service_user_id"] = id.into();
        put(&herald, &body).await;
    }
    let refused = token(&herald).await;
    assert_eq!(code(&refused), (400, "invalid_request".to_owned()));
    assert!(refused.text.contains("`service_user_id`"), "{}", refused.text);
    let of = |id: &str| format!("{PATH}/token?service_user_id={id}");
    assert_eq!(call(&herald, "POST", &of("2"), &NOTHING).await.ok()["access_token"], "access-2");
    assert_eq!(call(&herald, "POST", &of("3"), &NOTHING).await.status, 404);
    let delete = async |query: &str| {
        ask(&herald, "user_ann", "DELETE", &format!("/v1/integrations/google{query}"), &NOTHING).await.status
    };
    assert_eq!(
        (delete("").await, delete("?service_user_id=3").await, delete("?service_user_id=2").await),
        (400, 404, 204)
    );
    assert_eq!(call(&herald, "DELETE", PATH, &NOTHING).await.status, 204, "it is the only one now");
    assert!(list(&herald, "user_ann").await.is_empty());
}

async fn a_token_is_refreshed_before_it_expires_and_the_new_refresh_token_is_kept(kept: Kept) {
    let (mut server, grants) = token_server().await;
    let herald = start(&kept, &oauth(&server.url)).await;
    put(&herald, &connection("one", 4)).await;
    assert_eq!(server.next().await.form("refresh_token").unwrap(), "refresh-one", "nobody has asked for it");
    let now = until(&herald, |account| account["scopes"] == json!(["mail"])).await;
    assert_eq!((&now["is_active"], &now["last_error"]), (&json!(true), &NOTHING));
    assert_eq!(
        token(&herald).await.ok(),
        json!({ "access_token": "access-one'", "expires_at": now["token_expires_at"] })
    );
    // Its time is over sooner than was thought: now the second refresh token counts.
    put(&herald, &json!({ "token_expires_at": in_seconds(-1) })).await;
    assert_eq!(token(&herald).await.ok()["access_token"], "access-one''");
    assert_eq!(grants.all()["one"], 2);
    says_nothing(&herald);
}

async fn an_expired_token_is_refreshed_for_whoever_asks_and_once_for_all_who_do(kept: Kept) {
    let (server, grants) = token_server().await;
    let herald = start(&kept, &oauth(&server.url)).await;
    server.be(Mood::Slow(Duration::from_millis(700)));
    put(&herald, &connection("one", -10)).await;
    let handed = futures_util::future::join_all((0..10).map(|_| token(&herald))).await;
    for answer in handed {
        assert_eq!(answer.ok()["access_token"], "access-one'");
    }
    assert_eq!((grants.all()["one"], server.asked()), (1, 1));
    // Whoever asks and goes away leaves a refresh that is ended all the same.
    put(&herald, &json!({ "token_expires_at": in_seconds(-10) })).await;
    let head = format!(
        "POST {PATH}/token HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {API_KEY}\r\nContent-Length: 0\r\n\r\n"
    );
    let mut stream = tokio::net::TcpStream::connect(herald.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let begun = Instant::now();
    while server.asked() < 2 {
        assert!(begun.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(stream);
    assert_eq!(token(&herald).await.ok()["access_token"], "access-one''");
    assert_eq!(grants.all()["one"], 2);
}

async fn a_refresh_token_that_counts_no_more_is_told_to_the_user_once(kept: Kept) {
    let (mut server, grants) = token_server().await;
    let herald = start(&kept, &oauth(&server.url)).await;
    let mut ann = tab(&herald, "user_ann").await;
    grants.revoke("one");
    put(&herald, &connection("one", -10)).await;
    ann.expect("integration.updated").await;
    let (created, updated) = both(&mut ann).await;
    let notification = &created["notification"];
    assert_eq!(
        (&notification["type"], &notification["data"]),
        (&json!("integration.reauth_required"), &json!({ "service": "google", "service_user_id": "" }))
    );
    let told = &updated["integration"];
    assert_eq!((&told["is_active"], &told["last_error"]), (&json!(false), &json!("invalid_grant")));
    assert_eq!(code(&token(&herald).await), (409, "reauth_required".to_owned()));
    assert_eq!(
        (server.next().await.form("refresh_token").unwrap().as_str(), server.asked()),
        ("refresh-one", 1),
        "it is not asked again"
    );
    // Connected again, and lost again: that is another thing to tell.
    put(&herald, &connection("two", 3_600)).await;
    assert_eq!(ann.expect("integration.updated").await.json()["integration"]["is_active"], true);
    assert_eq!(token(&herald).await.ok()["access_token"], "access-two");
    grants.revoke("two");
    put(&herald, &json!({ "token_expires_at": in_seconds(-10) })).await;
    ann.expect("integration.updated").await;
    assert_eq!(both(&mut ann).await.0["counts"]["unread"], 2);
    says_nothing(&herald);
}

async fn a_token_that_nobody_can_refresh_is_set_aside_when_it_expires(kept: Kept) {
    let herald = start(&kept, "").await;
    let mut ann = tab(&herald, "user_ann").await;
    put(&herald, &connection("one", -1)).await;
    ann.expect("integration.updated").await;
    assert_eq!(code(&token(&herald).await), (409, "reauth_required".to_owned()));
    let told = ann.expect("integration.updated").await.json()["integration"].clone();
    assert_eq!((&told["is_active"], &told["last_error"]), (&json!(false), &json!("expired")));
    // Without being asked for, too.
    put(&herald, &connection("two", 1)).await;
    ann.expect("integration.updated").await;
    let begun = Instant::now();
    assert_eq!(ann.expect("integration.updated").await.json()["integration"]["is_active"], false);
    assert!(begun.elapsed() > Duration::from_millis(500), "it was good until then");
}

#[tokio::test]
async fn without_keys_no_token_is_kept_and_all_else_is() {
    let herald = Herald::start(&config(&Kept::File, "", "")).await;
    for member in ["access_token", "refresh_token"] {
        let mut body = json!({});
        body[member] = "access-one".into();
        let refused = call(&herald, "PUT", PATH, &body).await;
        assert_eq!(code(&refused), (503, "encryption_not_configured".to_owned()), "{member}");
    }
    assert!(list(&herald, "user_ann").await.is_empty(), "nothing was half done");
    assert_eq!(put(&herald, &json!({ "service_data": { "a": 1 } })).await["has_access_token"], false);
    assert_eq!(code(&token(&herald).await).0, 404);
    says_nothing(&herald);
}

#[tokio::test]
async fn each_app_has_accounts_of_its_own() {
    let apps =
        "[[apps]]\nid = \"a\"\nkey = \"ka\"\nsecret = \"sa\"\n[[apps]]\nid = \"b\"\nkey = \"kb\"\nsecret = \"sb\"\n";
    let herald = Herald::start(&format!("{}{apps}", config(&Kept::File, KEYS, ""))).await;
    call(&herald, "PUT", &format!("{PATH}?app=a"), &connection("one", 3_600)).await.ok();
    let taken = async |app: &str| call(&herald, "POST", &format!("{PATH}/token?app={app}"), &NOTHING).await.status;
    assert_eq!((taken("a").await, taken("b").await), (200, 404));
    assert_eq!(code(&token(&herald).await), (400, "app_required".to_owned()));
    let listed = async |app: &str| {
        let items = ask(&herald, "user_ann", "GET", &format!("/v1/integrations?app={app}"), &NOTHING).await.ok();
        items["items"].as_array().unwrap().len()
    };
    assert_eq!((listed("a").await, listed("kb").await), (1, 0));
    // A signature is an app's, and reaches no other's.
    let own = signed(&herald, "POST", &format!("{PATH}/token")).await;
    assert_eq!(own.ok()["access_token"], "access-one");
    let gone = async |app: &str| {
        ask(&herald, "user_ann", "DELETE", &format!("/v1/integrations/google?app={app}"), &NOTHING).await.status
    };
    assert_eq!((gone("b").await, gone("a").await), (404, 204));
}

#[tokio::test]
async fn what_is_wrong_is_named_and_no_token_quoted() {
    let herald = start(&Kept::File, "").await;
    let deep = format!("{{\"service_data\":{}1{}}}", "[".repeat(500), "]".repeat(500));
    for (body, named) in [
        ("access-one".to_owned(), "the body must be"),
        ("[\"access-one\"]".to_owned(), "the body must be"),
        (deep, "the body must be"),
        (json!({ "access_token": 1 }).to_string(), "`access_token`"),
        (json!({ "access_token": ["access-one"] }).to_string(), "`access_token`"),
        (json!({ "access_token": "" }).to_string(), "`access_token`"),
        (json!({ "access_token": "access-one\r\nX: y" }).to_string(), "`access_token`"),
        (json!({ "refresh_token": "x".repeat(16 * 1024 + 1) }).to_string(), "`refresh_token`"),
        (json!({ "token_expires_at": "access-one" }).to_string(), "`token_expires_at`"),
        (json!({ "token_expires_at": 1 }).to_string(), "`token_expires_at`"),
        (json!({ "scopes": "access-one" }).to_string(), "`scopes`"),
        (json!({ "scopes": vec!["x"; 201] }).to_string(), "`scopes`"),
        (json!({ "service_data": "access-one" }).to_string(), "`service_data` must be an object"),
        (json!({ "service_data": { "a": "x".repeat(8 * 1024) } }).to_string(), "`service_data` has 8200 bytes"),
        (json!({ "service_user_id": "a\u{0}" }).to_string(), "`service_user_id`"),
        (json!({ "service_user_id": "x".repeat(256) }).to_string(), "`service_user_id`"),
        (json!({ "sync_metadata": "yes" }).to_string(), "`sync_metadata`"),
        (json!({ "sync_metadata": true }).to_string(), "`sync_metadata` needs"),
    ] {
        let authorization = format!("Authorization: Bearer {API_KEY}");
        let refused = request(&herald, "PUT", PATH, &[&authorization], &body).await;
        assert_eq!(code(&refused), (400, "invalid_request".to_owned()), "{body}");
        let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with(named) && !message.contains("access-one"), "{body}: {message}");
    }
    for path in [
        "/v1/users/user_ann/integrations/Google",
        "/v1/users/user_ann/integrations/-x",
        "/v1/users/a%00/integrations/google",
    ] {
        assert_eq!(call(&herald, "PUT", path, &json!({})).await.status, 400, "{path}");
    }
    assert_eq!(call(&herald, "GET", PATH, &NOTHING).await.status, 405);
    assert!(list(&herald, "user_ann").await.is_empty());
    says_nothing(&herald);
}

#[tokio::test]
async fn a_token_server_that_is_broken_lying_mad_or_silent_costs_no_refresh_token() {
    for (mood, error) in [
        (Mood::Failing(500), "http_5xx"),
        (Mood::Failing(429), "rate_limited"),
        (Mood::Failing(302), "bad_response"),
        (Mood::Failing(403), "http_4xx"),
        (Mood::Lying("<html>refresh-one"), "bad_response"),
        (Mood::Lying("{\"access_token\":{\"refresh-one\":1}}"), "bad_response"),
        (Mood::Flooding, "bad_response"),
        (Mood::Hanging, "timeout"),
    ] {
        let (server, grants) = token_server().await;
        let herald = start(&Kept::File, &oauth(&server.url)).await;
        server.be(mood);
        put(&herald, &connection("one", 3_600)).await;
        put(&herald, &json!({ "token_expires_at": in_seconds(-1) })).await;
        let begun = Instant::now();
        let refused = token(&herald).await;
        assert_eq!(code(&refused), (503, "token_unavailable".to_owned()), "{mood:?}");
        assert!((1..=11).contains(&refused.headers["retry-after"].parse::<u64>().unwrap()), "{refused:?}");
        assert!(begun.elapsed() < DEADLINE, "{mood:?}");
        let known = until(&herald, |account| !account["last_error"].is_null()).await;
        assert_eq!((&known["last_error"], &known["is_active"]), (&json!(error), &json!(true)), "{mood:?}");
        // What is good still is handed out while the rest goes wrong.
        put(&herald, &json!({ "token_expires_at": in_seconds(60) })).await;
        assert_eq!(token(&herald).await.ok()["access_token"], "access-one", "{mood:?}");
        server.be(Mood::Well);
        put(&herald, &json!({ "token_expires_at": in_seconds(-1) })).await;
        let begun = Instant::now();
        loop {
            let answer = token(&herald).await;
            if answer.status == 200 {
                assert_eq!(answer.json()["access_token"], "access-one'");
                break;
            }
            assert!(begun.elapsed() < DEADLINE * 4, "{mood:?}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(grants.all()["one"], 1);
        says_nothing(&herald);
    }
}

#[tokio::test]
async fn two_nodes_refresh_each_token_once() {
    const USERS: usize = 30;
    let kept = Kept::Server(Postgres::start().await);
    let (server, grants) = token_server().await;
    server.be(Mood::Slow(Duration::from_millis(50)));
    let nodes = [start(&kept, &oauth(&server.url)).await, start(&kept, &oauth(&server.url)).await];
    let path = |number: usize| format!("/v1/users/user_{number}/integrations/google");
    for number in 0..USERS {
        call(&nodes[0], "PUT", &path(number), &connection(&number.to_string(), 3_600)).await.ok();
    }
    // Due for both at once, and asked for at both besides.
    for number in 0..USERS {
        call(&nodes[1], "PUT", &path(number), &json!({ "token_expires_at": in_seconds(-1) })).await.ok();
    }
    let asked =
        (0..USERS).flat_map(|number| nodes.iter().map(move |node| (number, node))).map(async |(number, node)| {
            let answer = call(node, "POST", &format!("{}/token", path(number)), &NOTHING).await;
            assert_eq!(answer.ok()["access_token"], format!("access-{number}'"));
        });
    futures_util::future::join_all(asked).await;
    let refreshed = grants.all();
    assert_eq!(refreshed.len(), USERS, "none was given twice: {refreshed:?}");
    assert!(refreshed.values().all(|times| *times == 1), "{refreshed:?}");
    assert_eq!(server.asked(), USERS);
    // By one what the other has kept.
    for node in &nodes {
        assert_eq!(call(node, "POST", &format!("{}/token", path(0)), &NOTHING).await.ok()["access_token"], "access-0'");
    }
}

#[tokio::test]
async fn a_node_that_is_killed_while_it_refreshes_leaves_the_token_to_the_next() {
    let (mut server, grants) = token_server().await;
    let config = config(&Kept::File, KEYS, &oauth(&server.url));
    let mut herald = Herald::start(&config).await;
    server.be(Mood::Hanging);
    put(&herald, &connection("one", -1)).await;
    server.next().await;
    herald.kill();
    server.be(Mood::Well);
    let herald = herald.start_again(&config).await;
    assert_eq!(token(&herald).await.ok()["access_token"], "access-one'");
    assert_eq!(grants.all()["one"], 1);
}

#[tokio::test]
async fn a_database_that_goes_away_while_a_token_is_refreshed_costs_no_refresh_token() {
    let (mut server, grants) = token_server().await;
    let mut kept = Kept::Server(Postgres::own().await);
    let herald = start(&kept, &oauth(&server.url)).await;
    server.be(Mood::Slow(Duration::from_secs(2)));
    put(&herald, &connection("one", -1)).await;
    server.next().await;
    let Kept::Server(database) = &mut kept else { panic!() };
    database.stop();
    let begun = Instant::now();
    while grants.all().get("one") != Some(&1) {
        assert!(begun.elapsed() < DEADLINE, "it is answered while the database is away");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    database.resume().await;
    let begun = Instant::now();
    while token(&herald).await.status != 200 {
        assert!(begun.elapsed() < DEADLINE * 2, "the database is back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(token(&herald).await.ok()["access_token"], "access-one'");
    assert_eq!((grants.all()["one"], server.asked()), (1, 1), "what it had brought was kept once it could be");
}

#[tokio::test]
async fn a_refresh_that_is_under_way_at_the_end_is_kept() {
    let (mut server, grants) = token_server().await;
    let config = config(&Kept::File, KEYS, &oauth(&server.url));
    let mut herald = Herald::start(&config).await;
    server.be(Mood::Slow(Duration::from_secs(2)));
    put(&herald, &connection("one", -1)).await;
    server.next().await;
    herald.terminate();
    assert!(herald.ended().await.success());
    let herald = herald.start_again(&config).await;
    assert_eq!(token(&herald).await.ok()["access_token"], "access-one'", "the next node has the new tokens");
    assert_eq!((grants.all()["one"], server.asked()), (1, 1));
}

#[tokio::test]
async fn a_client_shows_who_it_is_as_the_service_wants_it_and_with_either_secret() {
    let server = ThirdParty::start(|asked| {
        if asked.header("authorization").is_empty() && asked.form("client_secret").as_deref() == Some("the-new-secret")
        {
            assert_eq!(asked.form("client_id").as_deref(), Some("id"));
            (200, json!({ "access_token": "access-two", "expires_in": 3_600 }))
        } else {
            (400, json!({ "error": "invalid_client" }))
        }
    })
    .await;
    let oauth = format!(
        "[integrations.oauth.google]\ntoken_url = \"{}/token\"\nclient_id = \"id\"\nclient_secret = \"the-old-secret\"\n\
        other_client_secret = \"the-new-secret\"\n",
        server.url
    );
    let herald = start(&Kept::File, &oauth).await;
    put(&herald, &connection("one", -1)).await;
    assert_eq!(token(&herald).await.ok()["access_token"], "access-two");
    assert_eq!(server.asked(), 4, "each way with each secret, until one is taken");
    put(&herald, &json!({ "token_expires_at": in_seconds(-1) })).await;
    assert_eq!(token(&herald).await.ok()["access_token"], "access-two");
    assert_eq!(server.asked(), 5, "that one first from then on, with the refresh token that still counts");
    assert!(!herald.has_logged("-secret"));
}

/// A Herald that has Clerk's secret key, and a stand-in for Clerk.
async fn with_clerk(handler: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static) -> (Herald, ThirdParty) {
    let clerk = ThirdParty::start(handler).await;
    let auth = auth(&format!("secret_key = \"sk_live_hush\"\napi_url = \"{}\"", clerk.url));
    let config = format!("[server]\napi_keys = [\"{API_KEY}\"]\n[tokens]\nkeys = \"{KEYS}\"\n{auth}");
    (Herald::start(&config).await, clerk)
}

#[tokio::test]
async fn a_token_that_clerk_holds_is_asked_for_and_not_copied() {
    let expires = 1_990_000_000_u64;
    let (herald, mut clerk) = with_clerk(move |asked| {
        assert_eq!((asked.method.as_str(), asked.header("authorization")), ("GET", "Bearer sk_live_hush"));
        let token = |id: &str, expires_at: Value| {
            json!({
                "object": "oauth_access_token", "external_account_id": "eac_1", "provider_user_id": id, "token": format!("access-{id}"),
                "expires_at": expires_at, "provider": "oauth_x", "public_metadata": {}, "label": null, "scopes": ["mail"],
            })
        };
        match asked.path.as_str() {
            "/v1/users/user%5Fann/oauth_access_tokens/oauth_google" => (200, json!([token("1", json!(expires))])),
            "/v1/users/user%5Fann/oauth_access_tokens/oauth_github" => {
                (200, json!({ "data": [token("1", json!(expires * 1_000)), token("2", NOTHING)], "total_count": 2 }))
            }
            "/v1/users/user%5Fann/oauth_access_tokens/oauth_none" => (200, json!([])),
            "/v1/users/user%5Fann/oauth_access_tokens/oauth_lost" => (422, json!({ "errors": [] })),
            "/v1/users/user%5Fann/oauth_access_tokens/oauth_broken" => (500, json!({})),
            "/v1/users/user%5Fann/oauth_access_tokens/oauth_lying" => (200, json!([{ "token": 1, "x": "access-1" }])),
            _ => (404, json!({ "errors": [{ "code": "resource_not_found" }] })),
        }
    })
    .await;
    let of = async |service: &str| {
        call(&herald, "POST", &format!("/v1/users/user_ann/integrations/{service}"), &NOTHING).await
    };
    let expires_at = "2033-01-22T09:46:40.000000Z";
    for (service, expected) in [
        ("google/token", json!({ "access_token": "access-1", "expires_at": expires_at })),
        ("oauth_google/token", json!({ "access_token": "access-1", "expires_at": expires_at })),
        ("github/token?service_user_id=1", json!({ "access_token": "access-1", "expires_at": expires_at })),
        ("github/token?service_user_id=2", json!({ "access_token": "access-2", "expires_at": null })),
    ] {
        let answer = of(service).await;
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(answer.ok(), expected, "{service}");
    }
    for (service, status, expected) in [
        ("github/token", 400, "invalid_request"),
        ("github/token?service_user_id=3", 404, "not_found"),
        ("none/token", 404, "not_found"),
        ("unknown/token", 404, "not_found"),
        ("lost/token", 409, "reauth_required"),
        ("broken/token", 503, "token_unavailable"),
        ("lying/token", 503, "token_unavailable"),
    ] {
        assert_eq!(code(&of(service).await), (status, expected.to_owned()), "{service}");
    }
    assert!(list(&herald, "user_ann").await.is_empty(), "Clerk keeps it");
    clerk.be(Mood::Hanging);
    let begun = Instant::now();
    assert_eq!(code(&of("google/token").await), (503, "token_unavailable".to_owned()));
    assert!(begun.elapsed() < Duration::from_secs(5));
    // One of Herald's own counts before Clerk's.
    put(&herald, &connection("one", 3_600)).await;
    assert_eq!(token(&herald).await.ok()["access_token"], "access-one");
    assert_eq!(clerk.next().await.header("clerk-api-version"), "2026-05-12");
    says_nothing(&herald);
    assert!(!herald.has_logged("sk_live_hush"));
}

#[tokio::test]
async fn what_is_kept_of_an_account_is_merged_into_the_metadata_at_clerk() {
    let refused = Arc::new(Mutex::new(1));
    let (herald, mut clerk) = with_clerk(move |_| {
        let mut left = refused.lock();
        if *left > 0 {
            *left -= 1;
            return (429, json!({ "errors": [] }));
        }
        (200, json!({ "id": "user_ann" }))
    })
    .await;
    put(&herald, &json!({ "service_data": { "plan": "pro" } })).await;
    put(&herald, &json!({ "sync_metadata": true })).await;
    for attempt in 0..2 {
        if attempt > 0 {
            // Clerk has asked for a pause, and does not say how long.
            let begun = Instant::now();
            while clerk.asked() <= attempt {
                assert!(begun.elapsed() < Duration::from_secs(25), "it is tried again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let asked = clerk.next().await;
        assert_eq!((asked.method.as_str(), asked.path.as_str()), ("PATCH", "/v1/users/user%5Fann/metadata"));
        assert_eq!(asked.header("authorization"), "Bearer sk_live_hush");
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        assert_eq!(body, json!({ "public_metadata": { "google": { "plan": "pro" } } }));
    }
}
