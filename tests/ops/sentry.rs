//! What reaches Sentry, and what does not: a stand-in takes the real binary's reports and keeps every byte. What is in them is read as Sentry
//! would, an envelope being lines of JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use herald::config::Config;
use herald::integrations::sentry;
use herald::outgoing::Outgoing;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::process::{Running, Setup, get};
use crate::support::{App, DEADLINE};

/// How the stand-in answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Behaviour {
    /// As Sentry does.
    Takes,
    /// It takes nothing, and says so with this status and these headers.
    Refuses(&'static str),
    /// It takes its time.
    Slow(Duration),
    /// It never answers.
    Hangs,
}

/// A stand-in for Sentry.
pub(crate) struct Sentry {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Vec<u8>>>>,
    changed: Arc<Notify>,
}

/// A part of an envelope: its type, and what it says.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    kind: String,
    says: Value,
}

impl Sentry {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (got, changed) = (Arc::<Mutex<Vec<Vec<u8>>>>::default(), Arc::new(Notify::new()));
        let (keep, tell) = (Arc::clone(&got), Arc::clone(&changed));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, behaviour, Arc::clone(&keep), Arc::clone(&tell)));
            }
        });
        Self { address, got, changed }
    }

    pub(crate) fn dsn(&self) -> String {
        format!("http://public@{}/prefix/42", self.address)
    }

    /// Every byte that came, heads of requests too.
    pub(crate) fn bytes(&self) -> String {
        self.got.lock().iter().map(|request| String::from_utf8(request.clone()).unwrap()).collect()
    }

    pub(crate) fn items(&self, kind: &str) -> Vec<Item> {
        let got = self.got.lock().clone();
        got.iter().flat_map(|request| envelope(request)).filter(|item| item.kind == kind).collect()
    }

    /// Waits for an event that is like this.
    async fn event(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.item("event", what, is_it).await
    }

    async fn item(&self, kind: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let changed = self.changed.notified();
                if let Some(item) = self.items(kind).into_iter().find(|item| is_it(&item.says)) {
                    return item.says;
                }
                changed.await;
            }
        };
        timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("no {kind} in time: {what}\n{}", self.bytes()))
    }
}

async fn answer(stream: TcpStream, behaviour: Behaviour, keep: Arc<Mutex<Vec<Vec<u8>>>>, tell: Arc<Notify>) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut request, mut length) = (Vec::new(), 0);
        loop {
            let begun = request.len();
            if stream.read_until(b'\n', &mut request).await.unwrap_or(0) == 0 {
                return;
            }
            let line = String::from_utf8_lossy(&request[begun..]).to_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let head = request.len();
        request.resize(head + length, 0);
        stream.read_exact(&mut request[head..]).await.unwrap();
        keep.lock().push(request);
        tell.notify_waiters();
        let status = match behaviour {
            Behaviour::Takes => "200 OK",
            Behaviour::Refuses(status) => status,
            Behaviour::Slow(pause) => {
                sleep(pause).await;
                "200 OK"
            }
            Behaviour::Hangs => return std::future::pending().await,
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The items of an envelope, as <https://develop.sentry.dev/sdk/data-model/envelopes/> says: a line of headers, then pairs of a line with type
/// and length and the item itself, a line feed behind it.
fn envelope(request: &[u8]) -> Vec<Item> {
    let start = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8(request[..start].to_vec()).unwrap();
    assert!(head.starts_with("POST /prefix/api/42/envelope/ HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("x-sentry-auth: Sentry sentry_key=public, sentry_version=7"), "{head}");
    let line = |from: &[u8]| {
        let end = from.iter().position(|byte| *byte == b'\n').expect("a line ends");
        (serde_json::from_slice::<Value>(&from[..end]).unwrap(), end + 1)
    };
    let mut rest = &request[start..];
    let (headers, read) = line(rest);
    assert!(headers["sent_at"].is_string() && headers.is_object(), "{headers}");
    rest = &rest[read..];
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (header, read) = line(rest);
        let length = usize::try_from(header["length"].as_u64().unwrap()).unwrap();
        let says =
            serde_json::from_slice(&rest[read..read + length]).expect("an item is JSON of the length that was told");
        assert_eq!(rest[read + length], b'\n');
        items.push(Item { kind: header["type"].as_str().unwrap().to_owned(), says });
        rest = &rest[read + length + 1..];
    }
    items
}

/// A server that reports there, and ends as soon as it is asked to.
fn reporting(sentry: &Sentry) -> Setup {
    let setup = Setup::new().env("SENTRY_DSN", &sentry.dsn()).env("SENTRY_ENVIRONMENT", "staging");
    setup.env("HERALD_SHUTDOWN_DELAY", "0s").env("HERALD_SHUTDOWN_DRAIN", "0s").env("SENTRY_TRACES_SAMPLE_RATE", "0")
}

/// Makes whatever needs this table fail, as if somebody had taken it away.
async fn take_away(herald: &Running, table: &str) {
    let path = herald.folder().join("data/herald.db");
    let mut database = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let statement = format!("ALTER TABLE {table} RENAME TO {table}_taken_away");
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut database).await.unwrap();
}

const NOTIFICATION: &str = r#"{"to":{"user_ids":["user_ann"]},"type":"a","title":"a-payload-Gx81hq"}"#;

/// A server of which one request always fails.
async fn failing(setup: Setup) -> Running {
    let herald = setup.start().await;
    take_away(&herald, "user_notifications").await;
    herald
}

async fn fail(herald: &Running) {
    assert_eq!(herald.api().post("/notifications", NOTIFICATION).await.status, 500);
}

fn is_failed_request(event: &Value) -> bool {
    event["message"] == "a request has failed"
}

#[tokio::test]
async fn an_internal_error_is_reported_with_its_request_route_and_app() {
    let sentry = Sentry::start(Behaviour::Takes).await;
    let herald = failing(reporting(&sentry)).await;
    fail(&herald).await;
    let event = sentry.event("the error", is_failed_request).await;
    assert!(event["level"].is_null(), "an error, which goes without saying: {event}");
    assert_eq!(event["environment"], "staging");
    assert_eq!(event["release"], concat!("herald@", env!("CARGO_PKG_VERSION")));
    let tags = json!({ "app_id": "app-id", "component": "inbox", "route": "notifications" });
    assert_eq!(event["tags"], tags, "{event}");
    assert_eq!(event["request"]["method"], "POST");
    let url = event["request"]["url"].as_str().unwrap();
    assert!(url.ends_with("/apps/app-id/notifications?[hidden]"), "{url}");
    assert_eq!(event["contexts"]["Rust Tracing Fields"]["address"], "[hidden]");
    assert!(
        event["contexts"]["Rust Tracing Fields"]["reason"].as_str().unwrap().contains("user_notifications"),
        "{event}"
    );
    assert!(event["user"].is_null(), "a backend is nobody: {event}");
    assert!(!sentry.bytes().contains("a-payload-Gx81hq"), "what was sent is nobody's business");
}

#[tokio::test]
async fn an_error_in_the_log_is_reported_with_the_lines_before_it() {
    let sentry = Sentry::start(Behaviour::Takes).await;
    let setup = reporting(&sentry).env("HERALD_DATABASE_URL", "sqlite:/dev/null/herald.db");
    let herald = setup.env("SENTRY_RELEASE", "shop@1.2.3").start().await;
    herald.logged(&["there are no inboxes"]).await;
    let event = sentry
        .event("the line", |event| event["message"].as_str().is_some_and(|text| text.contains("there are no inboxes")));
    let event = event.await;
    assert_eq!((&event["logger"], &event["release"]), (&json!("herald::server"), &json!("shop@1.2.3")));
    let before = event["breadcrumbs"]["values"].as_array().unwrap();
    assert!(before.iter().any(|line| line["message"].as_str().unwrap().contains("limit of open files")), "{event}");
}

#[tokio::test]
async fn a_user_is_told_by_id_alone_unless_more_is_configured() {
    for (send_pii, address) in [("false", Value::Null), ("true", json!("127.0.0.1"))] {
        let sentry = Sentry::start(Behaviour::Takes).await;
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let setup = reporting(&sentry).env("SENTRY_SEND_PII", send_pii).env("SENTRY_TRACES_SAMPLE_RATE", "1");
        let herald =
            setup.env("HERALD_AUTH_OIDC_ISSUER", &format!("http://{dead}")).env("HERALD_AUTH_OIDC_AUDIENCES", "a");
        let herald = herald.start().await;
        get(&format!("{}/v1/inbox", herald.url())).await;
        let trace = sentry.item("transaction", "of the request", |trace| trace["transaction"] == "GET /v1/inbox").await;
        assert_eq!(trace["user"]["ip_address"], address, "{trace}");
        assert_eq!(trace["tags"]["component"], "inbox");
        assert_eq!(trace["contexts"]["trace"]["data"]["http.response.status_code"], 401, "{trace}");
    }
}

#[tokio::test]
async fn traces_are_called_by_their_route_and_health_and_metrics_have_none() {
    let sentry = Sentry::start(Behaviour::Takes).await;
    let herald = reporting(&sentry).env("SENTRY_TRACES_SAMPLE_RATE", "1").start().await;
    for path in ["/health/live", "/health/ready", "/nowhere/some-token-Gx81hq?x=y"] {
        get(&format!("{}{path}", herald.url())).await;
    }
    get(&format!("{}/metrics", herald.metrics_url().await)).await;
    let mut client = herald.connect().await;
    client.subscribe("room").await;
    client.close().await;
    herald.api().get("/channels/room-12345", &[]).await.ok();
    sentry
        .item("transaction", "the last", |trace| trace["transaction"] == "GET /apps/{app_id}/channels/{channel}")
        .await;
    herald.signal("TERM");
    herald.finished().await;
    let names: Vec<String> =
        sentry.items("transaction").iter().map(|item| item.says["transaction"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["an unknown address", "GET /app/{key}", "GET /apps/{app_id}/channels/{channel}"]);
    let connected = &sentry.items("transaction")[1].says;
    assert_eq!(
        connected["contexts"]["trace"]["data"]["http.response.status_code"], 101,
        "a trace ends with the upgrade"
    );
    assert!(sentry.items("event").is_empty());
}

#[tokio::test]
async fn nobody_else_decides_what_is_traced() {
    let sentry = Sentry::start(Behaviour::Takes).await;
    let herald = failing(reporting(&sentry)).await;
    let wish = "GET /openapi.json HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
                sentry-trace: 09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1\r\n\r\n";
    assert_eq!(herald.api().raw(wish).await.status, 200);
    fail(&herald).await;
    sentry.event("what came after", is_failed_request).await;
    assert!(sentry.items("transaction").is_empty(), "the configured rate is 0");
}

#[tokio::test]
async fn what_is_expected_is_not_reported() {
    let sentry = Sentry::start(Behaviour::Takes).await;
    let herald = failing(reporting(&sentry)).await;
    let wrong = herald.api_of(&App::new("app-id", "app-key", "wrong"));
    assert_eq!(wrong.events(&json!({ "name": "e", "channel": "c", "data": "" })).await.status, 401);
    assert_eq!(herald.api().post("/events", "{").await.status, 400);
    assert_eq!(get(&format!("{}/nowhere", herald.url())).await.0, 404);
    herald.open("/app/none?protocol=7", "").await.expect_refusal(4001).await;
    let mut client = herald.connect().await;
    client.subscribe("room").await;
    client.cut();
    let mut client = herald.connect().await;
    client.send(json!({ "event": "pusher:subscribe", "data": { "channel": "private-x", "auth": "a:b" } })).await;
    client.expect_subscription_error("private-x").await;
    client.send_text("no JSON").await;
    client.expect_error(None).await;
    fail(&herald).await;
    sentry.event("what came after", is_failed_request).await;
    assert_eq!(sentry.items("event").len(), 1, "{}", sentry.bytes());
}

#[tokio::test]
async fn a_flood_is_ten_reports() {
    let sentry = Sentry::start(Behaviour::Takes).await;
    let herald = failing(reporting(&sentry)).await;
    for _ in 0..100 {
        fail(&herald).await;
    }
    herald.signal("TERM");
    herald.finished().await;
    assert_eq!(sentry.items("event").iter().filter(|item| is_failed_request(&item.says)).count(), 10);
}

#[tokio::test]
async fn what_was_reported_last_arrives_although_the_server_ends() {
    let sentry = Sentry::start(Behaviour::Slow(Duration::from_millis(200))).await;
    let herald = failing(reporting(&sentry)).await;
    for _ in 0..3 {
        fail(&herald).await;
    }
    herald.signal("TERM");
    assert!(herald.finished().await.status.success());
    assert_eq!(sentry.items("event").len(), 3);
}

#[tokio::test]
async fn no_secret_is_in_any_byte() {
    const MARK: &str = "Gx81hq";
    const IN_BASE64: &str = "R3g4MWhx"; // the same
    let sentry = Sentry::start(Behaviour::Takes).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let key = format!("{IN_BASE64}{}", "A".repeat(35) + "=");
    let config = format!(
        "server = {{ api_keys = [\"api-key-of-16-bytes-{MARK}\"] }}\n\
         [auth]\nencryption_master_key = \"{key}\"\nsecret_key = \"sk_live_{MARK}\"\nwebhook_secret = \"whsec_{key}\"\n\
         [auth.oidc]\nissuer = \"http://{dead}\"\naudiences = [\"a\"]\n\
         [tokens]\nkeys = \"k1:{key}\"\n\
         [dispatch]\nurl = \"http://user:pass-{MARK}@{dead}/x?token=query-{MARK}\"\nsecret = \"whsec_{key}\"\n\
         [[apps]]\nid = \"app-id\"\nkey = \"app-key\"\nsecret = \"first-{MARK}\"\nkeys = [{{ key = \"k2\", secret = \"second-{MARK}\" }}]\n\
         [[apps.webhooks]]\nurl = \"http://u:hook-{MARK}@{dead}/hooks?t=hook-{MARK}\"\nheaders = {{ Authorization = \"header-{MARK}\" }}\n"
    );
    let app = App::new("app-id", "app-key", &format!("first-{MARK}"));
    let setup = reporting(&sentry).config(&config).env("SENTRY_TRACES_SAMPLE_RATE", "1").env("SENTRY_SEND_PII", "true");
    let herald = failing(setup.env("HERALD_LOG_LEVEL", "trace").app(app)).await;
    let mut client = herald.connect().await;
    client.sign_in("user_ann").await;
    client.subscribe("private-room").await;
    let headers: BTreeMap<&str, String> = [
        "Authorization",
        "Cookie",
        "svix-signature",
        "webhook-signature",
        "x-cld-signature",
        "x-crisp-signature",
        "X-Pusher-Key",
        "X-Pusher-Signature",
        "X-Forwarded-For",
        "Referer",
        "X-Something-New",
        "x-api-key",
    ]
    .into_iter()
    .map(|name| (name, format!("Bearer {name}-{MARK}")))
    .collect();
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    for path in ["/v1/inbox", "/pusher/auth", "/webhooks/clerk", "/apps/app-id/channels", "/nowhere"] {
        for method in ["GET", "POST"] {
            let request = format!(
                "{method} {path}?auth_signature=query-{MARK}&key=query-{MARK} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
                 Content-Length: 0\r\n{lines}\r\n"
            );
            herald.api().raw(&request).await;
        }
    }
    let bearer = format!("Bearer api-key-of-16-bytes-{MARK}");
    let request = format!(
        "POST /apps/app-id/notifications?key=query-{MARK} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\
         Authorization: {bearer}\r\nContent-Type: application/json\r\n\r\n{NOTIFICATION}",
        NOTIFICATION.len()
    );
    assert_eq!(herald.api().raw(&request).await.status, 500);
    fail(&herald).await;
    sentry.event("the error", is_failed_request).await;
    herald.signal("TERM");
    herald.finished().await;
    let bytes = sentry.bytes();
    assert!(sentry.items("transaction").len() >= 10, "there was something to hide: {bytes}");
    for mark in [MARK, IN_BASE64] {
        let around = bytes.split_once(mark).map(|(before, _)| before.chars().rev().take(200).collect::<Vec<_>>());
        let before = around.map(|before| before.into_iter().rev().collect::<String>());
        assert_eq!(before, None, "{mark} was sent, after this");
    }
}

#[tokio::test]
async fn whatever_sentry_does_nobody_else_notices() {
    for behaviour in [
        Behaviour::Hangs,
        Behaviour::Refuses("500 Oops"),
        Behaviour::Refuses("429 Too Many Requests\r\nRetry-After: 60"),
        Behaviour::Slow(Duration::from_secs(1)),
    ] {
        let sentry = Sentry::start(behaviour).await;
        let herald = failing(reporting(&sentry).env("SENTRY_TRACES_SAMPLE_RATE", "1")).await;
        let mut client = herald.connect().await;
        client.subscribe("private-room").await;
        for number in 0..100 {
            fail(&herald).await;
            let begun = Instant::now();
            herald.api().trigger("private-room", "e", number.to_string()).await;
            client.expect("e").await;
            assert!(begun.elapsed() < Duration::from_secs(2), "{behaviour:?}: {:?}", begun.elapsed());
        }
        let page = get(&format!("{}/metrics", herald.metrics_url().await)).await.1;
        let dropped =
            page.lines().find_map(|line| line.strip_prefix("herald_sentry_reports_total{result=\"dropped\"} "));
        assert!(
            dropped.is_some_and(|count| count.parse::<f64>().unwrap() > 0.0),
            "{behaviour:?}: the queue has a bound\n{page}"
        );
        herald.signal("TERM");
        let begun = Instant::now();
        assert!(herald.finished().await.status.success());
        assert!(begun.elapsed() < Duration::from_secs(8), "{behaviour:?}: it ends all the same: {:?}", begun.elapsed());
    }
}

/// A process's threads, by name.
fn threads(herald: &Running) -> Vec<String> {
    let folder = format!("/proc/{}/task", herald.id());
    let thread =
        |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(entry.unwrap().path().join("comm"));
    std::fs::read_dir(folder).unwrap().filter_map(|entry| Some(thread(entry).ok()?.trim().to_owned())).collect()
}

#[tokio::test]
async fn without_a_dsn_there_is_nothing() {
    let sentry = Sentry::start(Behaviour::Takes).await;
    let on = reporting(&sentry).start().await;
    assert!(threads(&on).contains(&"sentry".to_owned()), "{:?}", threads(&on));
    for off in
        [Setup::new(), Setup::new().env("SENTRY_DSN", ""), Setup::new().env("NEXT_PUBLIC_SENTRY_DSN", &sentry.dsn())]
    {
        let herald = failing(off).await;
        fail(&herald).await;
        assert!(!threads(&herald).contains(&"sentry".to_owned()), "{:?}", threads(&herald));
        assert!(!get(&format!("{}/metrics", herald.metrics_url().await)).await.1.contains("\"sentry\""));
    }
    assert!(sentry.bytes().is_empty());
}

#[tokio::test]
async fn the_pages_own_dsn_counts_only_if_that_is_asked_for() {
    let sentry = Sentry::start(Behaviour::Takes).await;
    let setup = || Setup::new().env("NEXT_PUBLIC_SENTRY_DSN", &sentry.dsn());
    setup().start().await.logged(&["NEXT_PUBLIC_SENTRY_DSN is left to the app's pages"]).await;
    let herald = failing(setup().env("HERALD_SENTRY_USE_PUBLIC_DSN", "true")).await;
    fail(&herald).await;
    sentry.event("the error", is_failed_request).await;
}

#[tokio::test]
async fn a_dsn_that_is_none_prevents_the_start_and_is_not_printed() {
    for (variable, value) in [
        ("SENTRY_DSN", "https://Gx81hq.example/1"),
        ("SENTRY_DSN", "Gx81hq"),
        ("HERALD_SENTRY_DSN", "https://Gx81hq@sentry.example/"),
        ("NEXT_PUBLIC_SENTRY_DSN", "ftp://Gx81hq@sentry.example/1"),
    ] {
        let said = Setup::new().env(variable, value).env("HERALD_SENTRY_USE_PUBLIC_DSN", "true").refused().await;
        assert!(said.contains(&format!("sentry.dsn (from {variable})")), "{said}");
        assert!(said.contains("https://KEY@o1.ingest.sentry.io/2") && !said.contains("Gx81hq"), "{said}");
    }
    let checked = Setup::new().env("SENTRY_DSN", "https://Gx81hq@sentry.example/1").args(["check"]).run().await;
    assert!(checked.status.success() && checked.stdout.contains("dsn = \"***\""), "{checked:?}");
    assert!(!format!("{checked:?}").contains("Gx81hq"));
}

#[tokio::test]
async fn a_panic_in_a_connection_is_reported_with_its_user_and_the_neighbours_go_on() {
    let sentry = Sentry::start(Behaviour::Takes).await;
    let mut config = Config::default();
    config.sentry.dsn = Some(sentry.dsn().parse().unwrap());
    config.auth.user_info_metadata = vec!["subscription".to_owned()];
    std::panic::set_hook(Box::new(|_| {})); // how long the usual one takes is not what is looked at
    let reports = sentry::start(&config, &[], &Outgoing::new().unwrap()).unwrap().expect("it is on");
    let address = "192.0.2.1".parse().unwrap();
    let panicked = Arc::new(Notify::new());
    let goes_on = Arc::clone(&panicked);
    let (told, heard) = tokio::sync::oneshot::channel();
    let neighbour_task = tokio::spawn(sentry::connection("app-b", address, async move {
        sentry::is_user("user_bob", None);
        goes_on.notified().await;
        told.send(()).unwrap();
    }));
    let task = tokio::spawn(sentry::connection("app-a", address, async move {
        sentry::is_user("user_ann", Some(r#"{"email":"ann@example.com","subscription":"pro","other":"x"}"#));
        sentry::user_action("subscribe", "private-room", "ok");
        tokio::task::yield_now().await;
        panic!("the ninth wave");
    }));
    let begun = Instant::now();
    assert!(task.await.unwrap_err().is_panic());
    assert!(begun.elapsed() < Duration::from_secs(1), "a thread that panics waits for nobody: {:?}", begun.elapsed());
    panicked.notify_one();
    timeout(DEADLINE, heard).await.unwrap().unwrap();
    neighbour_task.await.unwrap();
    let event = sentry.event("the panic", |event| event["exception"]["values"][0]["value"] == "the ninth wave").await;
    assert_eq!(event["level"], "fatal");
    assert_eq!(event["user"], json!({ "id": "user_ann" }), "an id and no more");
    assert_eq!(event["tags"], json!({ "app_id": "app-a", "component": "ws", "subscription": "pro" }));
    let crumb = &event["breadcrumbs"]["values"][0];
    assert_eq!((&crumb["category"], &crumb["message"]), (&json!("user-action"), &json!("subscribe")));
    assert_eq!(crumb["data"], json!({ "of": "private-room", "outcome": "ok" }));
    let frames = event["exception"]["values"][0]["stacktrace"]["frames"].as_array().unwrap();
    assert!(
        frames.len() > 3 && frames.last().unwrap()["abs_path"].as_str().unwrap().ends_with("tests/ops/sentry.rs"),
        "{event}"
    );
    assert!(!sentry.bytes().contains("192.0.2.1") && !sentry.bytes().contains("ann@example.com"));
    reports.finish(Duration::from_secs(2));
}
