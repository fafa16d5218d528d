//! The log: one line for each refusal with its reason, JSON for programs and text for people, and no harm where nobody takes it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::process::{Running, Setup, get};
use crate::support::{App, DEADLINE};

const APPS: &str = r#"
    shutdown = { delay = "0s", drain = "0s" }
    [server]
    max_connections = 3
    [[apps]]
    id = "app-id"
    key = "app-key"
    secret = "app-secret"
    max_connections = 2
    [apps.limits]
    events_per_second = 1000
    reads_per_second = 1
    [[apps]]
    id = "off"
    key = "off-key"
    secret = "s"
    enabled = false
    [[apps]]
    id = "strict"
    key = "strict-key"
    secret = "s"
    require_tls = true
    [[apps]]
    id = "pages"
    key = "pages-key"
    secret = "s"
    allowed_origins = ["https://example.com"]
"#;

/// The lines about refusals, as soon as there are so many.
async fn refusals(herald: &Running, count: usize) -> Vec<Value> {
    let is_refusal = |line: &Value| line["message"].as_str().is_some_and(|text| text.contains("refused"));
    let enough = async {
        loop {
            let lines: Vec<Value> = herald.log().into_iter().filter(is_refusal).collect();
            if lines.len() >= count {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let lines = tokio::time::timeout(DEADLINE, enough).await;
    lines.unwrap_or_else(|_| panic!("{count} refusals, in time:\n{}", herald.stderr.read()))
}

/// How many there were when all is written.
async fn refusals_in_all(herald: Running) -> usize {
    herald.signal("TERM");
    herald.finished().await.stderr.lines().filter(|line| line.contains("refused")).count()
}

#[tokio::test]
async fn a_refused_connection_is_one_line_with_its_reason() {
    let herald = Setup::new().config(APPS).env("HERALD_TRUSTED_PROXIES", "127.0.0.1").start().await;
    let guests = [herald.connect().await, herald.connect().await];
    let mut third = herald.open("/app/pages-key?protocol=7", "").await;
    third.read_hello().await;
    let cases = [
        ("/app/none?protocol=7&client=js", "", 4001, "unknown_app"),
        ("/app/off-key?protocol=7", "", 4003, "app_disabled"),
        ("/app/strict-key?protocol=7", "", 4000, "tls_required"),
        ("/app/app-key?protocol=3", "", 4007, "unsupported_protocol"),
        ("/app/pages-key?protocol=7", "Origin: https://example.org\r\n", 4009, "origin_not_allowed"),
        ("/app/app-key?protocol=7", "", 4100, "node_connections"),
    ];
    for (position, (path, headers, code, reason)) in cases.into_iter().enumerate() {
        let headers = format!("X-Forwarded-For: 203.0.113.9\r\n{headers}");
        herald.open(path, &headers).await.expect_refusal(code).await;
        let line = &refusals(&herald, position + 1).await[position];
        assert_eq!(line["reason"], reason, "{line}");
        assert_eq!(line["code"], code, "{line}");
        assert_eq!(line["address"], "203.0.113.9", "whom it was: {line}");
        assert_eq!(line["level"], "INFO");
    }
    drop((guests, third));
    assert_eq!(refusals_in_all(herald).await, cases.len());
}

#[tokio::test]
async fn too_many_connections_of_an_app_are_a_line_each() {
    let herald = Setup::new().config(APPS).start().await;
    let guests = [herald.connect().await, herald.connect().await];
    herald.open("/app/app-key?protocol=7", "").await.expect_refusal(4100).await;
    assert_eq!(refusals(&herald, 1).await[0]["reason"], "app_connections");
    drop(guests);
    assert_eq!(refusals_in_all(herald).await, 1);
}

#[tokio::test]
async fn a_refused_request_is_one_line_with_its_reason() {
    let herald = Setup::new().config(APPS).env("HERALD_TRUSTED_PROXIES", "127.0.0.1").start().await;
    let api = herald.api();
    let mut count = 0;
    let mut check = async |status: u16, found: u16, part: &str| {
        assert_eq!(found, status);
        count += 1;
        let line = &refusals(&herald, count).await[count - 1];
        assert_eq!(line["status"], status, "{line}");
        let address = if status == 404 && part.contains("nothing") { "203.0.113.9" } else { "127.0.0.1" };
        assert_eq!(line["address"], address, "whose it was: {line}");
        let route = line["route"].as_str().unwrap();
        assert_eq!(route == "other", address == "203.0.113.9", "what it asked for: {line}");
        assert!(line["reason"].as_str().unwrap().contains(part), "{part}: {line}");
    };
    let event = |channel: &str, data: &str| json!({ "name": "e", "channel": channel, "data": data });
    check(400, api.events(&event("a b", "")).await.status, "a b").await;
    check(413, api.events(&event("c", &"x".repeat(10_241))).await.status, "10240").await;
    check(400, api.post("/events", "{").await.status, "").await;
    let wrong = herald.api_of(&App::new("app-id", "app-key", "wrong"));
    check(401, wrong.events(&event("c", "")).await.status, "wrong signature").await;
    let unknown = herald.api_of(&App::new("none", "k", "s"));
    check(404, unknown.events(&event("c", "")).await.status, "none").await;
    check(403, herald.api_of(&App::new("off", "off-key", "s")).events(&event("c", "")).await.status, "disabled").await;
    let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let forwarded = "GET /nowhere HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
    check(404, api.raw(forwarded).await.status, "nothing at this address").await;
    check(405, api.raw(&request("GET /apps/app-id/events")).await.status, "method").await;
    check(426, api.raw(&request("GET /app/app-key")).await.status, "upgrade").await;
    let mut limited = api.get("/channels", &[]).await;
    while limited.status == 200 {
        limited = api.get("/channels", &[]).await;
    }
    check(429, limited.status, "a second").await;
    let strange = format!("{}/apps", herald.metrics_url().await);
    assert_eq!(get(&strange).await.0, 404);
    count += 1;
    assert_eq!(refusals_in_all(herald).await, count);
}

#[tokio::test]
async fn a_client_that_says_nothing_in_time_is_one_line() {
    let herald = Setup::new().env("HERALD_HANDSHAKE_TIMEOUT", "100ms").env("HERALD_SHUTDOWN_DELAY", "0s").start().await;
    let _silent = TcpStream::connect(herald.address()).await.unwrap();
    let line = herald.logged(&["refused", "in time"]).await;
    assert_eq!((&line["level"], &line["address"]), (&json!("INFO"), &json!("127.0.0.1")), "{line}");
    assert_eq!(refusals_in_all(herald).await, 1);
}

#[tokio::test]
async fn programs_get_json_and_people_text() {
    for (format, is_json) in [("auto", true), ("json", true), ("text", false)] {
        let herald = Setup::new().env("HERALD_LOG_FORMAT", format).start().await;
        get(&format!("{}/nowhere", herald.url())).await;
        let line = herald.stderr.wait_for("request refused").await;
        assert_eq!(serde_json::from_str::<Value>(&line).is_ok(), is_json, "{format}: {line}");
        if is_json {
            for line in herald.log() {
                assert!(line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string());
            }
        } else {
            assert!(line.contains("status=404") && !line.contains('\u{1b}'), "no colours for a file: {line}");
        }
    }
}

#[tokio::test]
async fn nobody_can_forge_a_line() {
    const FORGED: &str = "x\n2026-01-01T00:00:00Z  INFO herald: forged\r\u{1b}[31m";
    let herald = Setup::new().env("HERALD_LOG_FORMAT", "text").env("HERALD_SHUTDOWN_DELAY", "0s").start().await;
    let api = herald.api();
    let encoded = "x%0A2026-01-01T00:00:00Z%20%20INFO%20herald:%20forged%0D%1B[31m";
    let request = |line: String| format!("{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    for line in [
        format!("GET /{encoded}"),
        format!("GET /apps/{encoded}/channels"),
        format!("GET /apps/app-id/channels?auth_key={encoded}"),
        format!("GET /apps/app-id/channels?{encoded}=1&auth_key=app-key&auth_timestamp=1&auth_version={encoded}"),
    ] {
        assert!(api.raw(&request(line)).await.status >= 400);
    }
    for parameters in [[("info", FORGED)], [("filter_by_prefix", FORGED)], [(FORGED, "x")]] {
        api.get("/channels", &parameters).await;
        api.get("/channels/c", &parameters).await;
    }
    for body in [
        json!({ "name": FORGED, "channel": "c", "data": "" }),
        json!({ "name": "e", "channel": FORGED, "data": "" }),
        json!({ "name": "e", "channel": "c", "data": "", "socket_id": FORGED }),
        json!({ "name": "e", "channel": "c", "data": "", "info": FORGED }),
        json!({ FORGED: "e" }),
        json!(FORGED),
    ] {
        api.events(&body).await;
    }
    let path = format!("/app/{encoded}?protocol={encoded}&client={encoded}");
    herald.open(&path, "").await.expect_refusal(4001).await;
    herald.signal("TERM");
    let said = herald.finished().await.stderr;
    assert!(said.lines().count() > 10, "{said}");
    for line in said.lines() {
        assert!(!line.starts_with("2026-01-01") && line.starts_with("20"), "{line}\n{said}");
    }
    assert!(!said.contains(['\r', '\u{1b}']), "{said:?}");
}

#[tokio::test]
async fn on_a_terminal_the_log_is_text_and_closing_that_ends_it() {
    let setup = Setup::new().env("TERM", "xterm").env("HERALD_SHUTDOWN_DELAY", "0s");
    let script = format!("exec script --quiet --flush --return --command {} /dev/null", env!("CARGO_BIN_EXE_herald"));
    let terminal = setup.after(&script).spawn();
    let line = terminal.stdout.wait_for("limit of open files").await;
    assert!(line.contains("INFO") && !line.starts_with('{'), "{line}");
    let line = terminal.stdout.wait_for("listening on http://").await;
    let address = line.trim().rsplit('/').next().unwrap();
    TcpStream::connect(address).await.unwrap();
    terminal.signal("KILL"); // the window is closed: nobody is there to end what runs in it
    let ended = async { while TcpStream::connect(address).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, ended).await.expect("it ends with its terminal");
}

#[tokio::test]
async fn only_what_the_level_asks_for_is_written() {
    for (level, refused, ended) in [("error", false, false), ("info", true, false), ("debug", true, true)] {
        let herald = Setup::new().env("HERALD_LOG_LEVEL", level).env("HERALD_SHUTDOWN_DELAY", "0s").start().await;
        get(&format!("{}/nowhere", herald.url())).await;
        herald.connect().await.close().await;
        herald.signal("TERM");
        let said = herald.finished().await.stderr;
        assert_eq!(said.contains("request refused"), refused, "{level}: {said}");
        assert_eq!(said.contains("connection ended"), ended, "{level}: {said}");
    }
}

#[tokio::test]
async fn a_server_whose_output_nobody_takes_serves_on() {
    let (mut command, _folder) = Setup::new().into_command();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let url = line.strip_prefix("listening on ").unwrap().to_owned();
    drop((lines, child.stderr.take())); // `herald | head -1`, or a collector of logs that died
    let mut child = Killed(child);
    for _ in 0..3 {
        assert_eq!(get(&format!("{url}/nowhere")).await.0, 404); // a line of the log each
    }
    assert_eq!(get(&format!("{url}/health/live")).await.0, 200);
    assert!(child.0.try_wait().unwrap().is_none());
}

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
