//! Connecting (section 2): who gets a hello, who is refused and how he is told.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{App, Client, Frame, Herald, Options};

#[tokio::test]
async fn the_hello_is_the_first_frame_and_tells_id_and_timeout() {
    for (config, expected) in [("", 60), ("connection = { activity_timeout = \"7s\" }", 7)] {
        let herald = Herald::start(config).await;
        let mut client = herald.open("/app/app-key?protocol=7&client=js&version=8.6.0&flash=false").await;
        let hello = client.read_hello().await;
        assert_eq!(hello.channel, None, "{}", hello.text);
        let data = hello.json();
        assert_eq!(data["activity_timeout"], expected, "pusher-js throws if it is missing or 0");
        let id = data["socket_id"].as_str().unwrap();
        let (first, second) = id.split_once('.').unwrap();
        for number in [first, second] {
            assert!(number.bytes().all(|byte| byte.is_ascii_digit()) && number.parse::<u64>().unwrap() > 0, "{id}");
        }
        client.settle().await;
    }
}

#[tokio::test]
async fn ten_thousand_socket_ids_are_distinct() {
    let herald = Herald::start("").await;
    let mut ids = HashSet::new();
    for _ in 0..500 {
        let clients = [(); 20].map(|()| async {
            let client = herald.connect().await;
            let id = client.socket_id();
            client.cut(); // a reset leaves no port behind that waits
            id
        });
        ids.extend(futures_util::future::join_all(clients).await);
    }
    assert_eq!(ids.len(), 10_000);
}

#[tokio::test]
async fn whoever_is_refused_is_told_by_event_and_by_close_code() {
    let herald = Herald::start(
        r#"
        [[apps]]
        [[apps]]
        id = "disabled"
        key = "disabled"
        secret = "s"
        enabled = false
        [[apps]]
        id = "tls"
        key = "tls"
        secret = "s"
        require_tls = true
        [[apps]]
        id = "origins"
        key = "origins"
        secret = "s"
        allowed_origins = ["https://shop.example"]
        "#,
    )
    .await;
    for (path, headers, code, rule) in [
        ("/app/tls?protocol=7", "", 4000, "the app demands TLS"),
        (
            "/app/tls?protocol=7",
            "X-Forwarded-Proto: https\r\n",
            4000,
            "a header from nobody in particular is not believed",
        ),
        ("/app/nobody?protocol=7", "", 4001, "no app with this key"),
        ("/app/APP-KEY?protocol=7", "", 4001, "keys are compared as they are"),
        ("/app/disabled?protocol=7", "", 4003, "app disabled"),
        ("/app/app-key?protocol=4", "", 4007, "protocol other than 5, 6, 7"),
        ("/app/origins?protocol=7", "Origin: https://other.example\r\n", 4009, "origin not allowed"),
    ] {
        let mut client = herald.open_with(path, Options { headers, ..Options::default() }).await;
        let reason = client.expect_refusal(code).await;
        assert!(!reason.contains("secret"), "{rule}: {reason}");
    }
    for (path, headers, rule) in [
        ("/app/app-key?protocol=7", "", "a known key"),
        ("/app/app-key?protocol=7&client=js&version=none%20at%20all", "", "no client is refused for its version"),
        ("/app/app-key?protocol=7&unknown=1&flash=maybe", "", "other parameters are ignored"),
        ("/app/origins?protocol=7", "Origin: https://shop.example\r\n", "an allowed origin"),
    ] {
        let mut client = herald.open_with(path, Options { headers, ..Options::default() }).await;
        assert_eq!(client.next().await.event, "pusher:connection_established", "{rule}");
    }
}

#[tokio::test]
async fn an_upgrade_elsewhere_is_not_found() {
    let herald = Herald::start("").await;
    for path in ["/", "/app", "/app/", "/app/app-key/more", "/other"] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        assert_eq!(herald.api().raw(&request).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn protocols_5_6_and_7_are_served() {
    let herald = Herald::start("").await;
    for query in ["", "?protocol=5", "?protocol=6", "?protocol=7", "?client=js&protocol=7"] {
        herald.open(&format!("/app/app-key{query}")).await.read_hello().await;
    }
    for query in ["?protocol=4", "?protocol=8", "?protocol=x", "?protocol=77", "?protocol=-7"] {
        herald.open(&format!("/app/app-key{query}")).await.expect_refusal(4007).await;
    }
}

#[tokio::test]
async fn only_allowed_origins_connect() {
    let herald = Herald::start(
        r#"
        [[apps]]
        allowed_origins = ["https://a.example", "http://c.example:8080", "*.b.example"]
        [[apps]]
        id = "strict"
        key = "strict"
        secret = "s"
        allowed_origins = ["https://a.example"]
        require_origin = true
        [[apps]]
        id = "by-hand"
        key = "by-hand"
        secret = "s"
        allowed_origins = ["HTTPS://A.Example:443", "https://münchen.example", "capacitor://Localhost", "*.B.example"]
        [[apps]]
        id = "open"
        key = "open"
        secret = "s"
        "#,
    )
    .await;
    for (key, origin, allowed, rule) in [
        ("app-key", Some("https://a.example"), true, "an exact origin"),
        ("app-key", Some("http://a.example"), false, "the scheme is part of it"),
        ("app-key", Some("https://a.example:8443"), false, "the port is part of it"),
        ("app-key", Some("http://c.example:8080"), true, "an exact origin with its port"),
        ("app-key", Some("http://c.example"), false, "an exact origin without its port"),
        ("app-key", Some("https://x.b.example"), true, "a subdomain"),
        ("app-key", Some("https://x.y.b.example"), true, "a subdomain of a subdomain"),
        ("app-key", Some("https://evilb.example"), false, "the dot is part of the pattern"),
        ("app-key", Some("https://x.b.example.evil.example"), false, "the pattern stands at the end"),
        ("app-key", Some("null"), false, "a sandboxed page"),
        ("app-key", None, true, "no browser"),
        ("strict", None, false, "no origin where one is required"),
        ("strict", Some("https://a.example"), true, "the required origin"),
        ("by-hand", Some("https://a.example"), true, "capitals and the scheme's own port, which browsers do not send"),
        ("by-hand", Some("https://xn--mnchen-3ya.example"), true, "an international name"),
        ("by-hand", Some("capacitor://localhost"), true, "a scheme that is not the web's"),
        ("by-hand", Some("https://x.b.example:8443"), true, "capitals in a pattern, any port"),
        ("by-hand", Some("https://a.example:8443"), false, "another port"),
        ("open", Some("https://anywhere.example"), true, "an empty list allows all"),
        ("open", None, true, "an empty list allows all"),
    ] {
        let headers = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
        let options = Options { headers: &headers, ..Options::default() };
        let mut client = herald.open_with(&format!("/app/{key}?protocol=7"), options).await;
        let event = client.next().await;
        assert_eq!(event.event == "pusher:connection_established", allowed, "{rule}: {key} {origin:?}: {}", event.text);
        if !allowed {
            assert_eq!(event.error().0, Some(4009), "{rule}");
            client.expect_close(4009).await;
        }
    }
}

#[tokio::test]
async fn a_path_prefix_stands_before_both_addresses() {
    let herald = Herald::start("server = { path_prefix = \"/realtime/v2\" }").await;
    let mut client = herald.open("/realtime/v2/app/app-key?protocol=7").await;
    client.read_hello().await;
    client.subscribe("news").await;
    let mut api = herald.api();
    assert_eq!(api.events(&json!({ "name": "e", "channel": "news", "data": "without" })).await.status, 404);
    api.prefix = "/realtime/v2";
    api.trigger("news", "e", "with").await;
    assert_eq!(client.expect("e").await.data(), "with");
    let plain = "GET /app/app-key HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(herald.api().raw(plain).await.status, 404);
}

#[tokio::test]
async fn a_get_without_upgrade_says_what_this_address_is() {
    let herald = Herald::start("").await;
    let upgrade = "Connection: Upgrade, close\r\nUpgrade: websocket\r\n";
    for headers in [
        "Connection: close\r\n".to_owned(),
        upgrade.to_owned(),
        format!("{upgrade}Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
    ] {
        let request = format!("GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let answer = herald.api().raw(&request).await;
        assert_eq!(answer.status, 426, "{headers}");
        assert!(answer.text.contains("WebSocket"), "{answer:?}");
        assert_eq!(answer.headers["upgrade"], "websocket");
        let version = answer.headers.get("sec-websocket-version").map(String::as_str);
        assert_eq!(version, Some("13"), "a client is told which version it may use");
    }
    herald.connect().await.settle().await;
}

#[tokio::test]
async fn browsers_write_their_upgrade_in_several_ways() {
    let herald = Herald::start("").await;
    for (connection, headers) in [
        ("upgrade", ""),
        (
            "keep-alive, Upgrade",
            "Pragma: no-cache\r\nCache-Control: no-cache\r\nAccept-Encoding: gzip, deflate, br\r\n",
        ),
        ("Upgrade", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"),
        ("Upgrade", "Sec-WebSocket-Extensions: permessage-deflate\r\nOrigin: null\r\nCookie: a=b\r\n"),
        ("keep-alive", "Connection: Upgrade\r\n"),
    ] {
        let options = Options { connection: Some(connection), headers, ..Options::default() };
        let mut client = herald.open_with("/app/app-key?protocol=7", options).await;
        client.read_hello().await;
        client.settle().await;
    }
}

#[tokio::test]
async fn what_is_sent_right_behind_the_handshake_is_read() {
    let herald = Herald::start("").await;
    let subscribe = |channel: &str| {
        let text = json!({ "event": "pusher:subscribe", "data": { "channel": channel } }).to_string();
        Frame::new(Frame::TEXT, text).masked()
    };
    let channels: Vec<String> = (0..100).map(|number| format!("channel-{number}")).collect();
    let behind: Vec<u8> = channels.iter().flat_map(|channel| subscribe(channel)).collect();
    let options = Options { behind: &behind, ..Options::default() };
    let mut client = herald.open_with("/app/app-key?protocol=7", options).await;
    client.read_hello().await; // the hello still comes first
    client.expect_all_succeeded(channels.iter().cloned()).await;
    client.settle().await;
}

#[tokio::test]
async fn a_key_may_be_escaped_in_the_address() {
    let herald = Herald::start("").await;
    for key in ["app%2Dkey", "%61pp-key", "app-ke%79"] {
        herald.open(&format!("/app/{key}?protocol=7")).await.read_hello().await;
    }
    for key in ["app%2Fkey", "app-key%20", "app%252Dkey", "%00", "%ff"] {
        let path = format!("/app/{key}?protocol=7");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        if herald.api().raw(&request).await.status == 426 {
            herald.open(&path).await.expect_refusal(4001).await;
        }
    }
}

#[tokio::test]
async fn who_is_not_authorized_in_time_is_sent_away() {
    let herald = Herald::start("[[apps]]\nrequire_authorized_within = \"2s\"").await;
    let (mut subscribed, mut signed_in, mut member) =
        (herald.connect().await, herald.connect().await, herald.connect().await);
    subscribed.subscribe("private-a").await;
    signed_in.sign_in("ann").await;
    member.join("presence-a", "ann").await;
    let (mut idle, mut public, mut refused) = (herald.connect().await, herald.connect().await, herald.connect().await);
    public.subscribe("news").await;
    refused
        .send(json!({ "event": "pusher:subscribe", "data": { "channel": "private-a", "auth": "app-key:00" } }))
        .await;
    refused.expect_subscription_error("private-a").await;
    for client in [&mut idle, &mut public, &mut refused] {
        client.expect_refusal(4009).await;
    }
    for client in [&mut subscribed, &mut signed_in, &mut member] {
        client.settle().await;
    }
}

#[tokio::test]
async fn a_slow_handshake_is_cut() {
    let herald = Herald::start("server = { handshake_timeout = \"500ms\" }").await;
    let mut client = herald.connect().await;
    for head in ["", "GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: x\r\nConnection: Upg"] {
        let start = Instant::now();
        let mut stream = tokio::net::TcpStream::connect(herald.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "the connection is still open after {:?}: {head:?}", start.elapsed());
        assert!(start.elapsed() >= Duration::from_millis(450), "it had its time: {head:?}");
        assert!(!answer.starts_with(b"HTTP/1.1 101"));
    }
    client.settle().await; // the time-out is for handshakes only
}

/// A client's handshake, written by hand.
const HEAD: &str = "GET /app/app-key?protocol=7&client=js HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Writes `pieces` one after another, and reads until `end` has come or the connection is closed.
async fn exchange(herald: &Herald, pieces: &[&[u8]], end: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(herald.address).await.unwrap();
    for piece in pieces {
        stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut answer = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&answer).contains(end) {
            if stream.read_buf(&mut answer).await.unwrap_or_default() == 0 {
                break;
            }
        }
    };
    _ = tokio::time::timeout(Duration::from_secs(8), reading).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_handshake_may_come_in_any_pieces_and_what_follows_at_once() {
    let herald = Herald::start("").await;
    let subscribe = json!({ "event": "pusher:subscribe", "data": { "channel": "news" } }).to_string();
    let frame = Frame::new(Frame::TEXT, subscribe).masked();
    let head = format!("{HEAD}\r\n");
    let whole = [head.as_bytes(), &frame].concat();
    let split = |at: &[usize]| {
        let ends = at.iter().copied().chain([whole.len()]);
        ends.scan(0, |begin, end| Some(&whole[std::mem::replace(begin, end)..end])).collect::<Vec<_>>()
    };
    for at in [&[][..], &[1], &[3, 40], &[head.len() - 1], &[head.len()], &[head.len() + 1], &[10, head.len() + 3]] {
        let answer = exchange(&herald, &split(at), "subscription_succeeded").await;
        let places = ["HTTP/1.1 101", "pusher:connection_established", "pusher_internal:subscription_succeeded"];
        let places =
            places.map(|part| answer.find(part).unwrap_or_else(|| panic!("{part}, split at {at:?}: {answer}")));
        assert!(places.is_sorted(), "split at {at:?}: {answer}");
    }
}

#[tokio::test]
async fn what_is_no_handshake_gets_its_answer_from_http() {
    let herald = Herald::start("").await;
    let cookie = |length: usize| format!("{HEAD}Cookie: {}\r\n\r\n", "c".repeat(length));
    for (request, status, rule) in [
        ("GET /app/app-key?protocol=7 HTTP/1.1\r\nBroken header: 1\r\n\r\n".to_owned(), "HTTP/1.1 400", "garbage"),
        ("\u{1}\u{2}\u{3} garbage\r\n\r\n".to_owned(), "HTTP/1.1 400", "garbage from the start"),
        ("GET /app/app-key HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "HTTP/1.1 426", "no upgrade"),
        (format!("{HEAD}\r\n").replace("/app/", "/other/"), "HTTP/1.1 404", "another address"),
        (format!("{HEAD}\r\n").replace("app-key", "app%2Dkey"), "HTTP/1.1 101", "an encoded key"),
        (cookie(3_000), "HTTP/1.1 101", "a long cookie"),
        (cookie(30_000), "HTTP/1.1 101", "a longer one"),
        (cookie(300_000), "HTTP/1.1 431", "more than a head may have"),
    ] {
        let answer = exchange(&herald, &[request.as_bytes()], "\r\n\r\n").await;
        assert!(answer.starts_with(status), "{rule}: {answer}");
    }
}

#[tokio::test]
async fn those_who_are_refused_are_upgraded_at_once_and_told_later() {
    let herald = Herald::start("[[apps]]\nmax_connections = 1").await;
    let _first = herald.connect().await;
    let start = Instant::now();
    let answer = exchange(&herald, &[HEAD.as_bytes(), b"\r\n"], "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101") && start.elapsed() < Duration::from_secs(1), "{answer}");
    let whole = format!("{HEAD}\r\n");
    let answer = exchange(&herald, &[whole.as_bytes()], "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101") && start.elapsed() < Duration::from_secs(1), "{answer}");
}

#[tokio::test]
async fn of_many_who_come_at_once_no_more_are_let_in_than_the_limit_allows() {
    let herald = Herald::start("[server]\nmax_connections = 5\n[[apps]]\n").await;
    let comers = join_all((0..200).map(|_| herald.open("/app/app-key?protocol=7"))).await;
    let answers = join_all(comers.into_iter().map(|mut client| async move {
        let event = client.next().await.event;
        (client, event)
    }));
    let answers = answers.await;
    let accepted = answers.iter().filter(|(_, event)| event == "pusher:connection_established").count();
    assert_eq!(accepted, 5);
}

#[tokio::test]
async fn over_capacity_is_told_late_and_over_as_soon_as_someone_leaves() {
    let per_app = "[[apps]]\nmax_connections = 2\n[[apps]]\nid = \"other\"\nkey = \"other\"\nsecret = \"s\"";
    let per_node = format!("[server]\nmax_connections = 2\n{}", per_app.replacen("max_connections = 2\n", "", 1));
    for (config, others_fit) in [(per_app, true), (&per_node, false)] {
        let herald = Herald::start(config).await;
        let (first, mut second) = (herald.connect().await, herald.connect().await);
        let start = Instant::now();
        let mut third = herald.open("/app/app-key?protocol=7").await;
        let mut other = herald.open("/app/other?protocol=7").await;
        third.expect_refusal(4100).await;
        let held_back = start.elapsed();
        assert!(held_back >= Duration::from_secs(1), "pusher-js comes back after exactly 1 s: {held_back:?}");
        if others_fit {
            other.read_hello().await;
        } else {
            other.expect_refusal(4100).await;
        }
        second.settle().await;
        first.close().await;
        back_in(&herald).await;
    }
}

/// Connects as a client that was refused with 4100 does: again, until there is room.
async fn back_in(herald: &Herald) -> Client {
    for _ in 0..5 {
        let mut client = herald.open("/app/app-key?protocol=7").await;
        if client.next().await.event == "pusher:connection_established" {
            return client;
        }
    }
    panic!("a place that was given back is free");
}

#[tokio::test]
async fn forwarded_encryption_counts_from_a_trusted_proxy() {
    let config = |proxies: &str| format!("server = {{ trusted_proxies = [{proxies}] }}\n[[apps]]\nrequire_tls = true");
    let trusting = Herald::start(&config("\"127.0.0.0/8\"")).await;
    let https = Options { headers: "X-Forwarded-Proto: https\r\n", ..Options::default() };
    let http = Options { headers: "X-Forwarded-Proto: http\r\n", ..Options::default() };
    trusting.open_with("/app/app-key?protocol=7", https).await.read_hello().await;
    trusting.open_with("/app/app-key?protocol=7", http).await.expect_refusal(4000).await;
    trusting.open("/app/app-key?protocol=7").await.expect_refusal(4000).await;
    let wary = Herald::start(&config("\"192.0.2.0/24\"")).await;
    wary.open_with("/app/app-key?protocol=7", https).await.expect_refusal(4000).await;
}

#[tokio::test]
async fn attempts_from_one_address_are_limited_where_configured() {
    let herald = Herald::start("limits = { connections = \"5/min\" }").await;
    for _ in 0..5 {
        herald.connect().await;
    }
    let mut sixth = herald.open("/app/app-key?protocol=7").await;
    assert!(sixth.expect_refusal(4100).await.contains("address"));
}

#[tokio::test]
async fn two_apps_have_their_own_keys() {
    let herald = Herald::start("[[apps]]\n[[apps]]\nid = \"b\"\nkey = \"kb\"\nsecret = \"sb\"").await;
    let b = App::new("b", "kb", "sb");
    let mut client = herald.connect_to(&b).await;
    client.subscribe("private-x").await;
    client.app = herald.app.clone();
    client.send(client.subscription("private-y", None)).await;
    let (kind, status, _) = client.expect_subscription_error("private-y").await;
    assert_eq!((&*kind, status), ("AuthError", 401));
}
