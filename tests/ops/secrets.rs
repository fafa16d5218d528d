//! No secret leaves: Herald is given a marked secret in every variable that takes one, everything that can go wrong is made to, and the marks
//! are looked for in whatever comes out.
//!
//! The third parties are one [`Echo`], which answers each request in another wrong way and repeats in it what it was told, as servers do
//! in their error pages: what Herald passes on of such an answer would show.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::slice;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use data_encoding::{BASE64, HEXLOWER};
use futures_util::stream::{self, StreamExt as _};
use herald::integrations::standard_webhooks::Secrets;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::process::{Running, Setup, get};
use crate::sentry::{Behaviour, Sentry};
use crate::support::api::Answer;
use crate::support::{App, DEADLINE};
use crate::user::{now, pem, token};

/// What is in every secret.
const MARK: &str = "Gx81hq";
/// Names of variables that sound like a secret, and have none.
const PUBLIC: &[&str] = &[
    "HERALD_APP_KEY",
    "HERALD_AUTH_ALLOW_TEMPLATE_TOKENS",
    "HERALD_AUTH_JWT_KEY",
    "HERALD_AUTH_PUBLISHABLE_KEY",
    "HERALD_INTEGRATIONS_CLOUDINARY_API_KEY",
    "HERALD_INTEGRATIONS_CRISP_TOKEN_ID",
    "HERALD_INTEGRATIONS_OAUTH_NAME_TOKEN_URL",
    "HERALD_TLS_KEY",
    "HERALD_TOKENS_ALGORITHM",
    "HERALD_TOKENS_STRICT",
];

/// 32 bytes that begin with the mark, as base64.
fn key() -> String {
    let mut key = [7; 32];
    key[..MARK.len()].copy_from_slice(MARK.as_bytes());
    BASE64.encode(&key)
}

/// Every variable with a secret, and one in it. Those with an address of `dead` reach nobody.
fn marked(dead: SocketAddr, dsn: &str) -> BTreeMap<&'static str, String> {
    let text = |of: &str| format!("{of}-secret-{MARK}");
    BTreeMap::from([
        ("HERALD_APP_SECRET", text("app")),
        ("HERALD_APP_OTHER_SECRET", text("other")),
        ("HERALD_API_KEYS", text("api-key")),
        ("HERALD_AUTH_SECRET_KEY", format!("sk_test_{MARK}")),
        ("HERALD_AUTH_WEBHOOK_SECRET", format!("whsec_{}", key())),
        ("HERALD_AUTH_ENCRYPTION_MASTER_KEY", key()),
        ("HERALD_CLUSTER_REDIS_URL", format!("redis://herald:redis-{MARK}@{dead}")),
        ("HERALD_CLUSTER_REDIS_PASSWORD", text("redis")),
        ("HERALD_DATABASE_URL", format!("postgres://herald:postgres-{MARK}@{dead}/herald")),
        ("HERALD_DISPATCH_SECRET", format!("whsec_{}", key())),
        ("HERALD_HEALTH_TOKEN", text("health-token")),
        ("HERALD_INTEGRATIONS_CLOUDINARY_API_SECRET", text("cloudinary")),
        ("HERALD_INTEGRATIONS_CLOUDINARY_URL", format!("cloudinary://123456789012345:url-{MARK}@demo")),
        ("HERALD_INTEGRATIONS_CLOUDINARY_WEBHOOK_SECRETS", text("cloudinary-webhook")),
        ("HERALD_INTEGRATIONS_CRISP_TOKEN_KEY", text("crisp-token")),
        ("HERALD_INTEGRATIONS_CRISP_SIGNING_SECRETS", text("crisp-signing")),
        ("HERALD_INTEGRATIONS_CRISP_WEBHOOK_KEYS", text("crisp-webhook")),
        ("HERALD_INTEGRATIONS_CRISP_IDENTITY_SECRET", text("crisp-identity")),
        ("HERALD_INTEGRATIONS_OAUTH_NAME_CLIENT_SECRET", text("oauth")),
        ("HERALD_INTEGRATIONS_OAUTH_NAME_OTHER_CLIENT_SECRET", text("oauth-other")),
        ("HERALD_SENTRY_DSN", dsn.to_owned()),
        ("HERALD_TOKENS_KEYS", format!("k1:{}", key())),
    ])
}

/// The forms in which the mark could come out.
fn forms() -> Vec<String> {
    let base64 = (0..3).map(|before| {
        let text = BASE64.encode(&[&vec![0; before][..], MARK.as_bytes(), &vec![0; 3 - before][..]].concat());
        // At its edges stands what is around it.
        text.chars().skip(if before == 0 { 0 } else { before + 1 }).take(7).collect()
    });
    let bytes = MARK.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    let percent = MARK.bytes().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02X}").unwrap();
        text
    });
    let mut forms = vec![MARK.to_owned(), HEXLOWER.encode(MARK.as_bytes()), bytes, percent];
    forms.extend(base64);
    forms
}

/// What came out, by what it was.
#[derive(Debug, Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn add(&mut self, what: impl Into<String>, text: impl Into<String>) {
        self.0.push((what.into(), text.into()));
    }

    /// Also what the headers of an answer say.
    fn answer(&mut self, what: &str, answer: &Answer) {
        self.add(what, format!("{:?} {}", answer.headers, answer.text));
    }

    /// What tells a secret, and what stands around it there.
    fn told(&self) -> Option<(&str, String)> {
        self.0.iter().find_map(|(what, text)| {
            let at = forms().iter().find_map(|form| text.find(form))?;
            let around = text.char_indices().filter(|(index, _)| index.abs_diff(at) < 300);
            Some((&**what, around.map(|(_, char)| char).collect()))
        })
    }
}

/// All third parties at once: wrong in a way that changes with each request, with what it was told in its answer.
struct Echo {
    address: SocketAddr,
    asked: Arc<Asked>,
}

#[derive(Default)]
struct Asked {
    /// Paths, and how often.
    paths: Mutex<BTreeMap<String, usize>>,
    changed: Notify,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Asked>::default();
        let router = Router::new().fallback(echo).with_state(Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, asked }
    }

    /// Waits until it was asked so often for a path with this in it.
    async fn asked_for(&self, part: &str, times: usize) {
        let enough = async {
            loop {
                let changed = self.asked.changed.notified();
                let count: usize = self
                    .asked
                    .paths
                    .lock()
                    .iter()
                    .filter(|(path, _)| path.contains(part))
                    .map(|(_, count)| count)
                    .sum();
                if count >= times {
                    return;
                }
                changed.await;
            }
        };
        let in_time = timeout(2 * DEADLINE, enough).await;
        assert!(in_time.is_ok(), "{part} is asked for {times} times, in time: {:?}", self.asked.paths.lock());
    }
}

async fn echo(State(asked): State<Arc<Asked>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let times = {
        let mut paths = asked.paths.lock();
        // Of users and conversations each has a path of its own.
        let several = ["/v1/users/", "/v1/website/"].into_iter().find(|path| uri.path().starts_with(path));
        let path = several.unwrap_or(uri.path());
        let times = paths.entry(path.to_owned()).or_default();
        *times += 1;
        *times
    };
    asked.changed.notify_waiters();
    let told = format!("{uri} {headers:?} {}", String::from_utf8_lossy(&body));
    match times % 6 {
        1 => (StatusCode::INTERNAL_SERVER_ERROR, told).into_response(),
        0 => (
            StatusCode::BAD_REQUEST,
            json!({ "errors": [{ "code": told, "message": told }], "error": told }).to_string(),
        )
            .into_response(),
        2 => (StatusCode::OK, told).into_response(),
        3 => (StatusCode::OK, json!({ "id": told, "result": told, "keys": [told], "error": told }).to_string())
            .into_response(),
        4 => (
            StatusCode::UNAUTHORIZED,
            [("WWW-Authenticate", format!("Basic realm=\"{}\"", HEXLOWER.encode(told.as_bytes())))],
            told,
        )
            .into_response(),
        _ => (StatusCode::FOUND, [("Location", format!("http://127.0.0.1:1/{}", HEXLOWER.encode(told.as_bytes())))])
            .into_response(),
    }
}

/// An address at which nobody is.
fn dead() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server with all of these, at its most talkative.
fn talkative(variables: &BTreeMap<&str, String>) -> Setup {
    let setup = variables.iter().fold(Setup::new(), |setup, (name, value)| setup.env(name, value));
    let setup = setup.env("HERALD_APP_ID", "app-id").env("HERALD_APP_KEY", "app-key");
    let setup =
        setup.env("HERALD_AUTH_JWT_KEY", &pem("a")).env("HERALD_AUTH_AUTHORIZED_PARTIES", "https://app.example.com");
    let setup =
        setup.env("HERALD_LOG_LEVEL", "trace").env("HERALD_SHUTDOWN_DELAY", "0s").env("HERALD_SHUTDOWN_DRAIN", "0s");
    let setup = setup.env("CRISP_WEBSITE_ID", "website").env("CRISP_TOKEN_ID", "token");
    let setup = setup.env("HERALD_INTEGRATIONS_OAUTH_NAME_CLIENT_ID", "client");
    let setup = setup.env("HERALD_INTEGRATIONS_OAUTH_NAME_TOKEN_URL", "http://127.0.0.1:1/token");
    let setup = setup.env("SENTRY_TRACES_SAMPLE_RATE", "1").env("SENTRY_SEND_PII", "true");
    setup.app(App::new("app-id", "app-key", &variables["HERALD_APP_SECRET"]))
}

/// Every operation that is described, and Pusher's.
async fn operations(herald: &Running) -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(&get(&format!("{}/openapi.json", herald.url())).await.1).unwrap();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{app_id}", "app-id").replace(['{', '}'], "");
        all.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    assert!(all.len() > 20, "{all:?}");
    for (method, path) in [
        ("POST", "/apps/app-id/events"),
        ("POST", "/apps/app-id/batch_events"),
        ("GET", "/apps/app-id/channels"),
        ("GET", "/apps/app-id/channels/presence-room/users"),
        ("POST", "/apps/app-id/users/ann/terminate_connections"),
        ("GET", "/health/integrations"),
        ("GET", "/nowhere"),
        ("GET", "/app/app-key?protocol=7"),
    ] {
        all.push((method.to_owned(), path.to_owned()));
    }
    all
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

async fn send(herald: &Running, method: &str, path: &str, headers: &[String], body: &str) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    herald.api().raw(&(head + body)).await
}

/// Asks for everything as nobody, as somebody with wrong credentials, and with right ones and nonsense.
async fn ask_for_everything(herald: &Running, secrets: &BTreeMap<&str, String>, said: &mut Said) {
    let user = bearer(&token("user_ann", &json!({})));
    let wrong = bearer(&format!("{}.{}", token("user_ann", &json!({})), BASE64.encode(MARK.as_bytes())));
    let backend = bearer(&secrets["HERALD_API_KEYS"]);
    let json = || "Content-Type: application/json".to_owned();
    let signed = ["svix-signature", "webhook-signature", "x-cld-signature", "x-crisp-signature"];
    let signed = signed.map(|name| format!("{name}: v1,{MARK}")).into_iter().chain(["svix-id: a".to_owned()]);
    let query = format!("auth_key=app-key&auth_signature={MARK}&key={MARK}&auth_timestamp=1&auth_version=1.0");
    let ways = [
        ("", vec![], ""),
        (&*query, vec![], "{}"),
        ("", vec![bearer(&format!("wrong-{MARK}")), format!("Cookie: __session={MARK}; __client_uat={MARK}")], "{}"),
        ("", vec![wrong, format!("Referer: https://x/?t={MARK}"), format!("X-Something-New: {MARK}")], "{}"),
        ("", vec![user.clone()], "{\"to\":"),
        ("", vec![user, json()], "{}"),
        ("", vec![backend.clone()], "{\"to\":"),
        ("", vec![backend, json()], "{\"to\":{}}"),
        ("", signed.collect(), "{}"),
    ];
    let operations = operations(herald).await;
    let requests = operations.iter().flat_map(|operation| ways.iter().map(move |way| (operation, way)));
    let answers = stream::iter(requests).map(|((method, path), (query, headers, body))| async move {
        let joint = if path.contains('?') { '&' } else { '?' };
        let answer = send(herald, method, &format!("{path}{joint}{query}"), headers, body).await;
        (format!("{method} {path}"), answer)
    });
    let answers: Vec<(String, Answer)> = answers.buffer_unordered(32).collect().await;
    answers.iter().for_each(|(what, answer)| said.answer(what, answer));
    let token = bearer(&secrets["HERALD_HEALTH_TOKEN"]);
    said.answer("health", &send(herald, "GET", "/health/integrations", &[token], "").await);
}

/// Right and wrong on a connection.
async fn connect(herald: &Running, said: &mut Said) {
    let mut client = herald.connect().await;
    client.sign_in("user_ann").await;
    client.join("presence-room", "user_ann").await;
    client.subscribe("private-encrypted-room").await;
    said.add("a subscription of another's", {
        client.app = App::new("app-id", "app-key", MARK);
        client.send(client.subscription("private-other", None)).await;
        client.expect_subscription_error("private-other").await.2
    });
    client.send(json!({ "event": "pusher:subscribe", "data": { "channel": "private-x", "auth": MARK } })).await;
    said.add("an authorization that is none", client.expect_subscription_error("private-x").await.2);
    client.ask_to_sign_in(&json!({ "id": "user_ann" })).await;
    said.add("a sign-in", client.expect_error(4009).await.text);
    for path in ["/app/none?protocol=7".to_owned(), format!("/app/app-key?protocol=99&secret={MARK}")] {
        let mut client = herald.open(&path, "").await;
        said.add("a refusal", client.next().await.text);
    }
}

/// What each third party is asked for, by what makes Herald ask.
async fn have_others_asked(herald: &Running, secrets: &BTreeMap<&str, String>, echo: &Echo, said: &mut Said) {
    let user = token("user_ann", &json!({}));
    let user = bearer(&user);
    // Who is this? What may they do? Clerk and the app's own authorizer.
    for number in 0..8 {
        let user = bearer(&token(&format!("user_{number}"), &json!({})));
        for channel in ["presence-room", "private-mine"] {
            let form = format!("socket_id=1.2&channel_name={channel}&app=app-id");
            let headers = [user.clone(), "Content-Type: application/x-www-form-urlencoded".into()];
            said.answer("an authorization", &send(herald, "POST", "/pusher/auth", &headers, &form).await);
        }
    }
    // A file that Cloudinary has told of is deleted.
    send(herald, "POST", "/v1/files/signature", slice::from_ref(&user), "{}").await.ok();
    let uploaded = json!({
        "notification_type": "upload", "public_id": "users/user_ann/photo", "version": 1, "bytes": 10, "format": "jpg",
        "resource_type": "image", "type": "upload", "secure_url": "https://res.cloudinary.com/demo/image/upload/v1/users/user_ann/photo.jpg",
    })
    .to_string();
    let signed = format!("{uploaded}{}{}", now(), secrets["HERALD_INTEGRATIONS_CLOUDINARY_WEBHOOK_SECRETS"]);
    let signature = HEXLOWER.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, signed.as_bytes()).as_ref());
    let headers = [format!("X-Cld-Signature: {signature}"), format!("X-Cld-Timestamp: {}", now())];
    send(herald, "POST", "/webhooks/cloudinary", &headers, &uploaded).await.ok();
    let files = send(herald, "GET", "/v1/files", slice::from_ref(&user), "").await.ok();
    let path = format!("/v1/files/{}", files["items"][0]["id"].as_str().unwrap());
    assert_eq!(send(herald, "DELETE", &path, slice::from_ref(&user), "").await.status, 204);
    // Crisp tells of conversations, and is asked whose they are.
    for number in 0..8 {
        let data = json!({ "session_id": format!("session_{number}"), "type": "text", "from": "user", "content": "x" });
        let hook = json!({ "website_id": "website", "event": "message:send", "data": data }).to_string();
        let path = format!("/webhooks/crisp?key={}", secrets["HERALD_INTEGRATIONS_CRISP_WEBHOOK_KEYS"]);
        said.answer("Crisp's hook", &send(herald, "POST", &path, &[], &hook).await);
    }
    // A service refreshes a user's tokens, which are secrets too.
    let tokens = json!({
        "access_token": format!("access-{MARK}"), "refresh_token": format!("refresh-{MARK}"), "token_expires_at": "2026-01-01T00:00:00Z",
    });
    let backend = [bearer(&secrets["HERALD_API_KEYS"]), "Content-Type: application/json".to_owned()];
    let path = "/v1/users/user_ann/integrations/name";
    let put = send(herald, "PUT", &format!("{path}?app=app-id"), &backend, &tokens.to_string()).await;
    assert_eq!(put.status, 200, "{put:?}");
    said.answer("an account", &put);
    for _ in 0..6 {
        said.answer("a token", &send(herald, "POST", &format!("{path}/token?app=app-id"), &backend, "{}").await);
        said.answer("accounts", &send(herald, "GET", "/v1/integrations?app=app-id", slice::from_ref(&user), "").await);
    }
    // Clerk tells of a user, in a form that is right and in one that is not.
    for body in [
        json!({ "type": "user.created", "object": "event", "data": { "id": "user_bob" }, "timestamp": now() }),
        json!(["x"]),
    ] {
        let (id, body) = ("msg_1", body.to_string());
        let signature =
            Secrets::parse(&secrets["HERALD_AUTH_WEBHOOK_SECRET"]).unwrap().sign(id, now(), body.as_bytes());
        let headers =
            [format!("svix-id: {id}"), format!("svix-timestamp: {}", now()), format!("svix-signature: {signature}")];
        said.answer("Clerk's webhook", &send(herald, "POST", "/webhooks/clerk", &headers, &body).await);
    }
    // The app's backend is told what to send, and of channels.
    let body = json!({ "to": { "user_ids": ["user_ann"] }, "type": "a", "title": "t" }).to_string();
    said.answer("a notification", &herald.api().post("/notifications", &body).await);
    for (part, times) in [
        ("/v1/users/", 4),
        ("/authorize", 6),
        ("/destroy", 2),
        ("/v1/website/", 4),
        ("/token", 2),
        ("/dispatch", 2),
        ("/hooks", 2),
    ] {
        echo.asked_for(part, times).await;
    }
}

#[tokio::test]
async fn no_secret_comes_out_whatever_goes_wrong() {
    let (sentry, echo) = (Sentry::start(Behaviour::Takes).await, Echo::start().await);
    let mut secrets = marked(dead(), &sentry.dsn());
    // Inboxes are kept here; with a database that is away there would be none. That and Redis are looked at below.
    secrets.retain(|name, _| {
        !["HERALD_DATABASE_URL", "HERALD_CLUSTER_REDIS_URL", "HERALD_CLUSTER_REDIS_PASSWORD"].contains(name)
    });
    let there = echo.address;
    let file = format!(
        "[dispatch]\nurl = \"http://user:pass-{MARK}@{there}/dispatch?token=query-{MARK}\"\n\
         [auth]\nauthorizer = \"http://user:pass-{MARK}@{there}/authorize?token=query-{MARK}\"\napi_url = \"http://{there}\"\n\
         [integrations.cloudinary]\ncloud_name = \"demo\"\napi_key = \"123456789012345\"\napi_url = \"http://{there}\"\n\
         [integrations.crisp]\napi_url = \"http://{there}\"\n\
         [[apps]]\nid = \"shop\"\nkey = \"shop-key\"\nsecret = \"first-{MARK}\"\nkeys = [{{ key = \"k2\", secret = \"second-{MARK}\" }}]\n\
         [[apps.webhooks]]\nurl = \"http://user:hook-{MARK}@{there}/hooks?token=hook-{MARK}\"\nheaders = {{ Authorization = \"header-{MARK}\" }}\n"
    );
    let setup = || {
        talkative(&secrets)
            .config(&file)
            .env("HERALD_LIMITS_FAILED_AUTH", "off")
            .env("HERALD_INTEGRATIONS_APP", "app-id")
            .env("HERALD_INTEGRATIONS_OAUTH_NAME_TOKEN_URL", &format!("http://{there}/token?token=query-{MARK}"))
    };
    let mut said = Said::default();
    let checked = setup().args(["check"]).run().await;
    assert!(checked.status.success() && checked.stdout.contains("***"), "{checked:?}");
    said.add("herald check", format!("{checked:?}"));

    let herald = setup().start().await;
    connect(&herald, &mut said).await;
    let mut shopper = herald.connect_to(&App::new("shop", "k2", &format!("second-{MARK}"))).await;
    shopper.subscribe("private-room").await; // the webhook tells of it
    ask_for_everything(&herald, &secrets, &mut said).await;
    have_others_asked(&herald, &secrets, &echo, &mut said).await;
    said.add("metrics", get(&format!("{}/metrics", herald.metrics_url().await)).await.1);
    said.add("openapi.json", get(&format!("{}/openapi.json", herald.url())).await.1);
    for args in [&["doctor"][..], &["rotate-keys"], &["migrate"], &["trigger", "a b", "e", "d"]] {
        let mut command = setup().args(args.iter().copied()).into_command();
        let output = command.0.current_dir(herald.folder()).output().unwrap();
        said.add(
            args[0],
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        );
    }
    herald.signal("TERM");
    let finished = herald.finished().await;
    assert!(finished.status.success());
    assert!(finished.stderr.lines().count() > 300, "it was talkative");
    assert!(sentry.items("transaction").len() > 100, "there was something to hide from Sentry");
    said.add("the log", finished.stderr);
    said.add("stdout", finished.stdout);
    said.add("envelopes", sentry.bytes());
    assert_eq!(said.told(), None);
}

#[tokio::test]
async fn no_secret_comes_out_while_redis_and_the_database_are_away() {
    let sentry = Sentry::start(Behaviour::Takes).await;
    // Redis with its password in the address and beside it, and the database.
    for (left_out, logged) in [
        (["HERALD_DATABASE_URL", "HERALD_CLUSTER_REDIS_PASSWORD"], "the cluster cannot be reached"),
        (["HERALD_DATABASE_URL", "HERALD_CLUSTER_REDIS_URL"], "the cluster cannot be reached"),
        (["HERALD_CLUSTER_REDIS_URL", "HERALD_CLUSTER_REDIS_PASSWORD"], "the database cannot be reached"),
    ] {
        let away = dead();
        let mut secrets = marked(away, &sentry.dsn());
        secrets.retain(|name, _| !left_out.contains(name));
        let setup = || {
            let setup = talkative(&secrets).env("HERALD_DISPATCH_URL", &format!("http://{away}/dispatch"));
            let without_address = secrets.contains_key("HERALD_CLUSTER_REDIS_PASSWORD")
                && !secrets.contains_key("HERALD_CLUSTER_REDIS_URL");
            if without_address { setup.env("HERALD_CLUSTER_REDIS_URL", &format!("redis://{away}")) } else { setup }
        };
        let herald = setup().start().await;
        herald.logged(&[logged]).await;
        let mut said = Said::default();
        ask_for_everything(&herald, &secrets, &mut said).await;
        said.add("metrics", get(&format!("{}/metrics", herald.metrics_url().await)).await.1);
        let doctor = setup().args(["doctor"]).run().await;
        assert!(doctor.stdout.contains("WRONG"), "{doctor:?}");
        said.add("doctor", format!("{doctor:?}"));
        said.add("migrate", format!("{:?}", setup().args(["migrate"]).run().await));
        herald.signal("TERM");
        let finished = herald.finished().await;
        said.add("the log", finished.stderr);
        said.add("stdout", finished.stdout);
        said.add("envelopes", sentry.bytes());
        assert_eq!(said.told(), None);
    }
}

#[tokio::test]
async fn no_secret_comes_out_of_a_configuration_that_is_refused() {
    let mut said = Said::default();
    // As each would be if it stood in another's place, or were cut off or doubled.
    for wrong in [format!("{MARK}{}", "x".repeat(600)), MARK.to_owned(), format!("https://user:{MARK}@/\u{7f}")] {
        let variables = marked(dead(), "").into_keys().map(|name| (name, wrong.clone())).collect();
        let finished = talkative(&variables).env("HERALD_LOG_LEVEL", "such a one").run().await;
        assert!(!finished.status.success(), "{finished:?}");
        said.add("a start", format!("{finished:?}"));
        let doctor = talkative(&variables).env("HERALD_LOG_LEVEL", "such a one").args(["doctor"]).run().await;
        said.add("doctor", format!("{doctor:?}"));
    }
    assert_eq!(said.told(), None);
}

#[test]
fn every_secret_is_marked() {
    let words = include_str!("../../config/herald.toml").split(|c: char| !c.is_ascii_uppercase() && c != '_');
    let sounds_secret =
        |name: &&str| ["SECRET", "KEY", "TOKEN", "PASSWORD", "DSN"].iter().any(|word| name.contains(word));
    let marked = marked(SocketAddr::from(([127, 0, 0, 1], 1)), "");
    for name in words.filter(|word| word.starts_with("HERALD_")).filter(sounds_secret) {
        let is_known = marked.contains_key(name) || PUBLIC.contains(&name);
        assert!(is_known || name == "HERALD_SENTRY_USE_PUBLIC_DSN", "{name}: does it take a secret?");
    }
    for form in forms() {
        assert!(form.len() >= 6, "{form}");
        assert!(Said(vec![(String::new(), format!("…{form}…"))]).told().is_some(), "{form}");
    }
}
