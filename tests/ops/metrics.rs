//! `/metrics`: every family that is documented appears, counts what happened and returns to zero.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::process::{Running, Setup, get, listening_sockets};
use crate::support::{App, Client, DEADLINE, Options};

/// The page at one moment: series by name and labels, as `name{a="b",c="d"}` with sorted labels.
pub(crate) struct Page {
    pub(crate) text: String,
    series: BTreeMap<String, f64>,
}

impl Page {
    pub(crate) async fn of(herald: &Running) -> Self {
        let (status, text) = get(&format!("{}/metrics", herald.metrics_url().await)).await;
        assert_eq!(status, 200);
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let series = samples.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (sorted(name), value.parse().unwrap())
        });
        Self { series: series.collect(), text }
    }

    pub(crate) fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("{series} is missing:\n{}", self.text))
    }

    /// All series of a name together.
    fn sum(&self, name: &str) -> f64 {
        let of_name = |series: &str| series.split('{').next() == Some(name);
        self.series.iter().filter(|(series, _)| of_name(series)).map(|(_, value)| value).sum()
    }
}

fn sorted(series: &str) -> String {
    let Some((name, labels)) = series.trim_end_matches('}').split_once('{') else { return series.to_owned() };
    let mut labels: Vec<&str> = labels.split(',').collect();
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}

/// Waits until the page says this.
async fn until(herald: &Running, what: &str, is_so: impl Fn(&Page) -> bool) -> Page {
    let wait = async {
        loop {
            let page = Page::of(herald).await;
            if is_so(&page) {
                return page;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, wait).await {
        Ok(page) => page,
        Err(_) => panic!("{what}, in time:\n{}", Page::of(herald).await.text),
    }
}

/// Names and kinds of docs/metrics.md.
pub(crate) fn documented() -> Vec<(String, String)> {
    let rows = include_str!("../../docs/metrics.md").lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let mut columns = row.split('|').map(|column| column.trim().trim_matches('`').to_owned());
        (columns.next().unwrap(), columns.next().unwrap())
    })
    .collect()
}

/// A receiver that takes every request.
async fn receiver() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 16 * 1024];
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn every_documented_metric_appears_with_its_help_and_kind() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "[limits]\nfailed_auth = \"1/h\"\n[auth.oidc]\nissuer = \"http://{dead}\"\naudiences = [\"a\"]\n\
         [sentry]\ndsn = \"http://key@{dead}/1\"\ntraces_sample_rate = 1\n\
         [dispatch]\nurl = \"http://{dead}/\"\nsecret = \"whsec_bm90IGEgc2VjcmV0\"\n\
         [server]\napi_keys = [\"a-key-of-a-backend\"]\n[tokens]\nkeys = \"k:J5pgjA3ziAqP8TtB9Gjqo77UtympDuM+FeIpJwHHeVk=\"\n\
         [integrations.oauth.google]\ntoken_url = \"http://{dead}/\"\nclient_id = \"1\"\nclient_secret = \"2\"\n\
         [integrations.cloudinary]\nurl = \"cloudinary://1:2@demo\"\napi_url = \"http://{dead}\"\n\
         [[apps]]\nid = \"app-id\"\nkey = \"app-key\"\nsecret = \"app-secret\"\n\
         [[apps.webhooks]]\nurl = \"{}\"\n[[apps.webhooks]]\nurl = \"http://{dead}/\"\n",
        receiver().await
    );
    let herald = Setup::new().config(&config).start().await;
    // What counts without labels is there from the start: a rate over it needs a first value.
    let first = Page::of(&herald).await;
    for name in [
        "herald_messages_received_total",
        "herald_received_bytes_total",
        "herald_messages_sent_total",
        "herald_sent_bytes_total",
        "herald_deliveries_total",
        "herald_queue_dropped_messages_total",
        "herald_invalid_messages_total",
        "herald_webhook_events_dropped_total",
        "herald_connections",
        "herald_queued_messages",
        "herald_queued_bytes",
        "herald_longest_queue_messages",
        "herald_webhook_queue_events",
    ] {
        assert_eq!(first.value(name), 0.0, "{name}");
    }
    assert_eq!(first.value("herald_ready"), 1.0);

    let mut client = herald.connect().await;
    client.subscribe("private-room").await;
    for _ in 0..50 {
        herald.api().trigger("private-room", "e", "data").await; // one subscriber in sixteen is measured
        client.expect("e").await;
    }
    herald.open("/app/none?protocol=7", "").await.expect_refusal(4001).await;
    herald.connect().await.cut();
    client.send_text("no JSON").await;
    client.expect_error(None).await;
    client.send(json!({ "event": "pusher:subscribe", "data": { "channel": "private-x", "auth": "a:b" } })).await;
    client.expect_subscription_error("private-x").await;
    let length = "socket_id=1.1".len();
    let unsure = format!(
        "POST /pusher/auth HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.e30.AA\r\n\r\nsocket_id=1.1"
    );
    assert_eq!(herald.api().raw(&unsure).await.status, 503, "nobody says whose token it is");
    for status in [401, 429] {
        let wrong = "GET /apps/app-id/channels?auth_key=wrong HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        assert_eq!(herald.api().raw(wrong).await.status, status);
    }
    let notification = json!({ "to": { "user_ids": ["user_ann"] }, "type": "a", "title": "Hello" });
    herald.api().post("/notifications", &notification.to_string()).await.ok();
    // A token has expired, and cannot be refreshed.
    let account = r#"{"access_token":"a","refresh_token":"r","token_expires_at":"2020-01-01T00:00:00Z"}"#;
    let put = format!(
        "PUT /v1/users/user_ann/integrations/google HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\
         Authorization: Bearer a-key-of-a-backend\r\n\r\n{account}",
        account.len()
    );
    herald.api().raw(&put).await.ok();
    // A file that is too large is to be deleted, which cannot be done.
    let file =
        r#"{"notification_type":"upload","public_id":"users/user_ann/x","secure_url":"https://x","bytes":10000001}"#;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let signature = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{file}{now}2").as_bytes());
    let told = format!(
        "POST /webhooks/cloudinary HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\nX-Cld-Timestamp: {now}\r\n\
         X-Cld-Signature: {}\r\n\r\n{file}",
        file.len(),
        HEXLOWER.encode(signature.as_ref())
    );
    herald.api().raw(&told).await.ok();
    let page = until(&herald, "every metric appears", |page| {
        documented().iter().all(|(name, _)| page.text.contains(&format!("# TYPE {name} ")))
            && page.sum("herald_webhooks_total") >= 2.0
            && page.sum("herald_tasks_total") >= 1.0
            && page.sum("herald_sentry_reports_total") >= 1.0
    })
    .await;
    for (name, kind) in documented() {
        assert!(page.text.contains(&format!("# TYPE {name} {kind}\n")), "{name} is a {kind}:\n{}", page.text);
        assert!(page.text.contains(&format!("# HELP {name} ")), "{name} has a help text:\n{}", page.text);
    }
    for line in page.text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(documented().iter().any(|(known, _)| known == name), "{name} is not documented");
    }
    assert!(page.value("herald_publish_to_socket_seconds_count") >= 1.0);
    assert!(page.text.contains("herald_publish_to_socket_seconds_bucket{le=\"0.001\"}"), "{}", page.text);
    assert_eq!(
        page.value("herald_publish_to_socket_seconds_bucket{le=\"+Inf\"}"),
        page.value("herald_publish_to_socket_seconds_count")
    );
    for result in ["delivered", "retried"] {
        assert!(page.value(&format!("herald_webhooks_total{{result=\"{result}\"}}")) >= 1.0, "{}", page.text);
    }
    assert!(page.value("herald_webhook_queue_events") >= 1.0, "what was not taken waits:\n{}", page.text);
    for (series, value) in [
        ("herald_rate_limited_total{policy=\"failed_auth\"}", 1.0),
        ("herald_rate_limit_redis_errors_total", 0.0),
        ("herald_cluster_nodes", 1.0),
        ("herald_cluster_reached", 1.0),
        ("herald_database_reached", 1.0),
        ("herald_outbox_age_seconds", 0.0),
        ("herald_web_vitals_lcp_seconds_count", 0.0),
        ("herald_web_vitals_cls_count", 0.0),
    ] {
        assert_eq!(page.value(series), value, "{series}\n{}", page.text);
    }
    let deleting = "herald_tasks_total{kind=\"cloudinary.destroy\",result=\"retried\"}";
    assert!(page.value(deleting) >= 1.0, "{}", page.text);
    let reports = "herald_sentry_reports_total{result=\"dropped\"}";
    assert!(page.value(reports) >= 1.0, "there is no Sentry:\n{}", page.text);
}

#[tokio::test]
async fn the_process_is_told_as_the_kernel_knows_it() {
    let herald = Setup::new().after("ulimit -n 700").start().await;
    let folder = format!("/proc/{}", herald.id());
    let open = || std::fs::read_dir(format!("{folder}/fd")).unwrap().count() as f64;
    let before = Page::of(&herald).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(herald.connect().await);
    }
    let page = Page::of(&herald).await;
    assert_eq!(page.value("process_max_fds"), 700.0);
    let (files, found) = (page.value("process_open_fds"), open());
    assert!((files - found).abs() <= 5.0, "{files}, where the kernel has {found}");
    assert!(files >= before.value("process_open_fds") + 18.0);
    let status = std::fs::read_to_string(format!("{folder}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
    let (memory, resident) = (page.value("process_resident_memory_bytes"), resident.parse::<f64>().unwrap() * 1024.0);
    assert!((memory / resident - 1.0).abs() < 0.2, "{memory}, where the kernel has {resident}");
    assert!(page.value("herald_memory_limit_bytes") > memory);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let began = page.value("process_start_time_seconds");
    assert!((now - 60.0..=now).contains(&began), "{began}, now it is {now}");
    let worked = page.value("process_cpu_seconds_total");
    assert!(worked > 0.0 && worked < 60.0, "{worked}");
    until(&herald, "it works", |page| page.value("process_cpu_seconds_total") > worked).await;
}

#[tokio::test]
async fn gauges_follow_what_is_there_and_return_to_zero() {
    let config =
        "[[apps]]\nid = \"a\"\nkey = \"ka\"\nsecret = \"sa\"\n[[apps]]\nid = \"b\"\nkey = \"kb\"\nsecret = \"sb\"\n";
    let herald = Setup::new().config(config).start().await;
    let [a, b] = ["a", "b"].map(|id| App::new(id, &format!("k{id}"), &format!("s{id}")));
    let mut clients: Vec<Client> = Vec::new();
    for app in [&a, &a, &a, &b] {
        clients.push(herald.connect_to(app).await);
    }
    for channel in ["c", "d", "private-c", "private-encrypted-c", "private-encrypted-cache-c"] {
        clients[0].subscribe(channel).await;
    }
    for channel in ["cache-c", "private-cache-c"] {
        clients[1].subscribe(channel).await;
        clients[1].expect("pusher:cache_miss").await;
    }
    clients[1].subscribe("c").await;
    clients[2].join("presence-c", "ann").await;
    clients[2].sign_in("ann").await;
    clients[3].join("presence-cache-c", "ann").await;
    let page = Page::of(&herald).await;
    for (series, value) in [
        ("herald_connections", 4.0),
        ("herald_app_connections{app=\"a\"}", 3.0),
        ("herald_app_connections{app=\"b\"}", 1.0),
        ("herald_subscriptions{app=\"a\"}", 9.0),
        ("herald_subscriptions{app=\"b\"}", 1.0),
        ("herald_users{app=\"a\"}", 1.0),
        ("herald_users{app=\"b\"}", 0.0),
    ] {
        assert_eq!(page.value(series), value, "{series}\n{}", page.text);
    }
    let kinds = page.series.iter().filter(|(series, value)| series.starts_with("herald_channels{") && **value > 0.0);
    let kinds: BTreeMap<_, _> = kinds.collect();
    assert_eq!(kinds.len(), 8, "a kind of channel is a series: {kinds:?}");
    assert_eq!(page.value("herald_channels{app=\"a\",kind=\"public\"}"), 2.0);
    assert_eq!(page.value("herald_channels{app=\"a\",kind=\"presence\"}"), 1.0);

    for (position, client) in clients.into_iter().enumerate() {
        if position % 2 == 0 { client.cut() } else { drop(client) }
    }
    let gauges =
        ["herald_connections", "herald_app_connections", "herald_subscriptions", "herald_users", "herald_channels"];
    until(&herald, "gauges return to zero", |page| gauges.iter().all(|name| page.sum(name) == 0.0)).await;
}

#[tokio::test]
async fn messages_bytes_and_deliveries_are_counted() {
    let herald = Setup::new().start().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = herald.connect().await;
        client.subscribe("private-c").await;
        clients.push(client);
    }
    // A hello and an answer for each; a subscription from each.
    let before = until(&herald, "six messages", |page| page.value("herald_messages_sent_total") == 6.0).await;
    assert_eq!(before.value("herald_messages_received_total"), 3.0);
    assert_eq!(before.value("herald_deliveries_total"), 0.0);

    let data = "x".repeat(5_000);
    herald.api().trigger("private-c", "e", &*data).await;
    for client in &mut clients {
        client.expect("e").await;
    }
    herald.api().trigger("nobody-here", "e", &*data).await;
    clients[0].send(json!({ "event": "client-e", "channel": "private-c", "data": data })).await;
    for client in &mut clients[1..] {
        client.expect("client-e").await;
    }
    let after = until(&herald, "eleven messages", |page| page.value("herald_messages_sent_total") == 11.0).await;
    let grown = |name: &str| after.value(name) - before.value(name);
    assert_eq!(grown("herald_deliveries_total"), 5.0, "three of the trigger, two of the client's");
    assert_eq!(grown("herald_messages_received_total"), 1.0);
    assert!((25_000.0..26_000.0).contains(&grown("herald_sent_bytes_total")), "{}", after.text);
    assert!((5_000.0..5_200.0).contains(&grown("herald_received_bytes_total")), "{}", after.text);
    assert_eq!(after.value("herald_events_published_total{source=\"http\"}"), 2.0);
    assert_eq!(after.value("herald_events_published_total{source=\"client\"}"), 1.0);

    clients[0].send_text("{}").await;
    clients[0].expect_error(None).await;
    assert_eq!(Page::of(&herald).await.value("herald_invalid_messages_total"), 1.0);
}

#[tokio::test]
async fn what_waits_for_a_slow_reader_is_seen_and_counted_when_it_is_dropped() {
    let setup = Setup::new().env("HERALD_CONNECTION_QUEUE_MAX_BYTES", "1MiB");
    let herald = setup.env("HERALD_CONNECTION_WRITE_DEADLINE", "10m").start().await;
    let app = App::new("app-id", "app-key", "app-secret");
    let options = Options { receive_buffer: Some(4_096), ..Options::default() };
    let mut stalled = Client::open(herald.address(), "/app/app-key?protocol=7", app, options).await;
    stalled.read_hello().await;
    stalled.subscribe("c").await;
    let data = "x".repeat(10_000);
    let mut page = Page::of(&herald).await;
    while page.value("herald_queued_messages") < 10.0 {
        for _ in 0..10 {
            herald.api().trigger("c", "e", &*data).await;
        }
        page = Page::of(&herald).await;
    }
    assert_eq!(page.value("herald_longest_queue_messages"), page.value("herald_queued_messages"));
    // One of them may be half out.
    assert!(page.value("herald_queued_bytes") > 9.0 * 10_000.0, "{}", page.text);
    assert_eq!(page.value("herald_queue_dropped_messages_total"), 0.0);
    for _ in 0..200 {
        herald.api().trigger("c", "e", &*data).await;
    }
    let page = until(&herald, "it is cut", |page| {
        page.value("herald_connections") == 0.0 && page.value("herald_queue_dropped_messages_total") >= 10.0
    })
    .await;
    for name in ["herald_queued_messages", "herald_queued_bytes", "herald_longest_queue_messages"] {
        assert_eq!(page.value(name), 0.0, "{name}");
    }
    let slow = "herald_connections_closed_total{reason=\"slow_reader\"}";
    until(&herald, slow, |page| page.series.get(slow) == Some(&1.0)).await;
}

#[tokio::test]
async fn connections_are_counted_by_how_they_came_and_went() {
    let config = "[[apps]]\nid = \"app-id\"\nkey = \"app-key\"\nsecret = \"app-secret\"\nmax_connections = 3\n\
                  [[apps]]\nid = \"off\"\nkey = \"off-key\"\nsecret = \"s\"\nenabled = false\n";
    let herald = Setup::new().config(config).start().await;
    for (name, counted) in [("js", "js"), ("java-client", "java-client"), ("a-client-of-our-own", "other")] {
        let mut client = herald.open(&format!("/app/app-key?protocol=7&client={name}"), "").await;
        client.read_hello().await;
        let series = format!("herald_connections_accepted_total{{client=\"{counted}\"}}");
        until(&herald, &series, |page| page.series.get(&series) == Some(&1.0)).await;
        client.close().await;
    }
    until(&herald, "three were closed", |page| {
        page.series.get("herald_connections_closed_total{reason=\"closed_by_client\"}") == Some(&3.0)
    })
    .await;
    let mut guests = Vec::new();
    for _ in 0..3 {
        guests.push(herald.connect().await);
    }
    herald.open("/app/app-key?protocol=7", "").await.expect_refusal(4100).await;
    herald.open("/app/none?protocol=7", "").await.expect_refusal(4001).await;
    herald.open("/app/app-key?protocol=4", "").await.expect_refusal(4007).await;
    herald.open("/app/off-key?protocol=7", "").await.expect_refusal(4003).await;
    let page = Page::of(&herald).await;
    for reason in ["app_connections", "unknown_app", "unsupported_protocol", "app_disabled"] {
        let series = format!("herald_connections_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(page.value(&series), 1.0, "{series}");
    }
    assert_eq!(page.value("herald_connections"), 3.0, "who was refused is none of them");
}

#[tokio::test]
async fn failed_authentications_are_counted_by_reason() {
    let herald = Setup::new().start().await;
    let mut client = herald.connect().await;
    let right = client.app.clone();
    for (auth, _) in [("", "missing"), ("app-key", "malformed"), ("other:00", "unknown_key")] {
        client.send(json!({ "event": "pusher:subscribe", "data": { "channel": "private-c", "auth": auth } })).await;
        client.expect_subscription_error("private-c").await;
    }
    client.app = App::new("app-id", "app-key", "not it");
    client.send(client.subscription("private-c", None)).await;
    client.expect_subscription_error("private-c").await;
    client.ask_to_sign_in(&json!({ "id": "ann" })).await;
    client.expect_error(4009).await;
    let event = json!({ "name": "e", "channel": "c", "data": "" });
    for app in [App::new("app-id", "app-key", "not it"), App::new("app-id", "other", "s")] {
        assert_eq!(herald.api_of(&app).events(&event).await.status, 401);
    }
    let unsigned = "GET /apps/app-id/channels HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    assert_eq!(herald.api().raw(unsigned).await.status, 401);
    assert_eq!(herald.api_of(&right).events(&event).await.status, 200);
    let page = Page::of(&herald).await;
    for (what, reasons) in [
        ("channel", &["missing", "malformed", "unknown_key", "wrong_signature"][..]),
        ("user", &["wrong_signature"]),
        ("request", &["missing_parameter", "unknown_key", "wrong_signature"]),
    ] {
        for reason in reasons {
            let series = format!("herald_auth_failures_total{{reason=\"{reason}\",what=\"{what}\"}}");
            assert_eq!(page.value(&series), 1.0, "{series}\n{}", page.text);
        }
    }
    assert_eq!(page.sum("herald_auth_failures_total"), 8.0, "{}", page.text);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let herald = Setup::new().env("HERALD_PATH_PREFIX", "/realtime").start().await;
    let mut api = herald.api();
    api.prefix = "/realtime";
    let mut client = herald.open("/realtime/app/app-key?protocol=7", "").await;
    client.read_hello().await;
    client.join("presence-c", "ann").await;
    api.trigger("c", "e", "").await;
    api.trigger("d", "e", "").await;
    assert_eq!(api.events(&json!({ "name": "e", "channel": "a b", "data": "" })).await.status, 400);
    let batch = r#"{"batch":[{"name":"e","channel":"c","data":""}]}"#;
    assert_eq!(api.post("/batch_events", batch).await.status, 200);
    assert_eq!(api.get("/channels", &[]).await.status, 200);
    assert_eq!(api.get("/channels/presence-c", &[]).await.status, 200);
    assert_eq!(api.get("/channels/presence-c/users", &[]).await.status, 200);
    assert_eq!(api.get("/channels/c/users", &[]).await.status, 400);
    assert_eq!(api.get("/connections", &[]).await.status, 200);
    assert_eq!(api.post("/users/bob/terminate_connections", "{}").await.status, 200);
    let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    for (line, status) in [
        ("GET /health/live", 200),
        ("GET /health/ready", 200),
        ("GET /realtime/app/app-key", 426),
        ("DELETE /realtime/apps/app-id/events", 405),
        ("GET /nothing/here", 404),
        ("GET /metrics", 404),
    ] {
        assert_eq!(api.raw(&request(line)).await.status, status, "{line}");
    }
    let page = Page::of(&herald).await;
    for (route, status, times) in [
        ("app", 101, 1.0),
        ("app", 426, 1.0),
        ("events", 200, 2.0),
        ("events", 400, 1.0),
        ("events", 405, 1.0),
        ("batch_events", 200, 1.0),
        ("channels", 200, 1.0),
        ("channel", 200, 1.0),
        ("users", 200, 1.0),
        ("users", 400, 1.0),
        ("connections", 200, 1.0),
        ("terminate_connections", 200, 1.0),
        ("live", 200, 1.0),
        ("ready", 200, 1.0),
        ("other", 404, 2.0),
    ] {
        let series = format!("herald_http_requests_total{{route=\"{route}\",status=\"{status}\"}}");
        assert_eq!(page.value(&series), times, "{series}\n{}", page.text);
    }
    assert_eq!(page.sum("herald_http_requests_total"), 17.0, "{}", page.text);
}

#[tokio::test]
async fn the_page_is_on_its_own_listener_only_and_that_can_be_off() {
    let herald = Setup::new().start().await;
    assert_eq!(get(&format!("{}/metrics", herald.url())).await.0, 404);
    let watching = herald.metrics_url().await;
    assert_eq!(get(&format!("{watching}/metrics")).await.0, 200);
    for path in ["/apps/app-id/channels", "/app/app-key", "/"] {
        assert_eq!(get(&format!("{watching}{path}")).await.0, 404, "{path}");
    }
    assert_eq!(listening_sockets(herald.id()), 2);

    for off in [
        Setup::new().env("HERALD_METRICS_LISTEN", "off"),
        Setup::new().without("HERALD_METRICS_LISTEN").config("[metrics]\nlisten = \"off\"\n"),
    ] {
        let herald = off.start().await;
        for path in ["/health/live", "/health/ready"] {
            assert_eq!(get(&format!("{}{path}", herald.url())).await.0, 200);
        }
        assert_eq!(listening_sockets(herald.id()), 1);
        assert_eq!(herald.stdout.line_with("metrics on"), None);
    }
}
