//! HTTP itself: connections, bodies, methods, and clients that misbehave (cases I7 and I8).

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::support::{DEADLINE, Herald, Request, Response};

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_their_order() {
    let herald = Herald::start();
    let mut client = herald.subscriber(&["c"]).await;
    let mut wire = herald.wire().await;
    let mut all = Vec::new();
    for n in 0..20 {
        let event = json!({ "name": format!("e{n}"), "channel": "c", "data": "", "info": "subscription_count" });
        all.extend(Request::post("/events", &event).bytes());
        all.extend(Request::get(&format!("/channels/n{n}")).bytes());
    }
    all.extend(Request::get("/none").bytes());
    wire.write(&all).await;
    for n in 0..20 {
        let counts = json!({ "channels": { "c": { "subscription_count": 1 } } });
        assert_eq!(wire.response().await.json(), counts);
        assert_eq!(wire.response().await.json(), json!({ "occupied": false }));
        client.expect(&format!("e{n}")).await;
    }
    wire.response().await.error(404);
    wire.write(&Request::event().bytes()).await;
    assert_eq!(wire.response().await.json(), json!({}));
}

/// Alone in its piece it goes past the router; with another request behind it, through it.
#[tokio::test]
async fn a_trigger_is_answered_the_same_on_either_way() {
    let herald = Herald::with("", "[apps.limits]\nevent_data = 100");
    let mut subscriber = herald.subscriber(&["c", "d"]).await;
    let event = |body: &serde_json::Value| Request::post("/events", body);
    let accepted = [
        Request::event(),
        event(&json!({ "name": "e", "channels": ["c", "d"], "data": "é", "info": "subscription_count" })),
        Request::event().param("info", "subscription_count,user_count"),
        Request::event().header("Connection", "Keep-Alive").header("X-Pusher-Library", "pusher-http-php 7.2.7"),
        Request::event().header("Idempotency-Key", "first-come"),
    ];
    let refused = [
        Request::event().with(|request| request.path = "/apps/none/events".into()),
        Request::event().with(|request| request.secret = "guessed".into()),
        Request::event().with(|request| request.body = b"{}".to_vec()),
        Request::event().param("auth_key", "other"),
        Request::event().param("auth_version", "2.0"),
        Request::event().without("body_md5"),
        Request::event().without("auth_timestamp"),
        Request::event().header("Idempotency-Key", "no key"),
        Request::raw("/events", ""),
        Request::raw("/events", "{\"name\":"),
        Request::raw("/events", b"\xff".to_vec()),
        event(&json!({ "name": "pusher:e", "channel": "c", "data": "" })),
        event(&json!({ "name": "e", "channel": "c d", "data": "" })),
        event(&json!({ "name": "e", "channel": "c", "data": "x".repeat(101) })),
    ];
    let is_accepted = std::iter::repeat_n(true, accepted.len()).chain(std::iter::repeat(false));
    for (request, is_accepted) in accepted.into_iter().chain(refused).zip(is_accepted) {
        let (mut alone, mut routed) = (herald.wire().await, herald.wire().await);
        alone.write(&request.bytes()).await;
        let here = alone.response().await;
        routed.write(&[request.bytes(), Request::get("/connections").bytes()].concat()).await;
        let there = routed.response().await;
        assert_eq!(here.status == 200, is_accepted, "{here:?}");
        assert_eq!((here.status, &here.body), (there.status, &there.body), "{}", request.head(""));
        let headers = |response: &Response| {
            let lines = response.head.lines().filter(|line| !line.starts_with("date: "));
            lines.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
        };
        let is_repeated = request.headers.iter().any(|(name, _)| name == "Idempotency-Key") && is_accepted;
        if is_repeated {
            assert_eq!(there.header("idempotent-replayed"), Some("true"));
        } else {
            assert_eq!(headers(&here), headers(&there));
        }
        assert!(here.header("date").is_some_and(|date| date.len() == there.header("date").unwrap().len()));
        assert_eq!(routed.response().await.status, 200, "the other is answered too");
        let published = if is_accepted { 2 - usize::from(is_repeated) } else { 0 };
        let channels = if String::from_utf8_lossy(&request.body).contains("channels") { 2 } else { 1 };
        for _ in 0..published * channels {
            subscriber.expect("e").await;
        }
    }
}

#[tokio::test]
async fn whatever_comes_behind_a_trigger_is_served_on_its_connection() {
    let herald = Herald::start();
    let mut subscriber = herald.subscriber(&["c"]).await;
    for then in [Request::get("/connections"), Request::post("/batch_events", &json!({ "batch": [] }))] {
        let mut wire = herald.wire().await;
        for _ in 0..3 {
            wire.write(&Request::event().bytes()).await;
            assert_eq!(wire.response().await.json(), json!({}));
            subscriber.expect("e").await;
        }
        wire.write(&then.bytes()).await;
        wire.response().await;
        wire.write(&Request::event().bytes()).await;
        assert_eq!(wire.response().await.json(), json!({}));
        subscriber.expect("e").await;
    }

    let mut cut = herald.wire().await;
    let trigger = Request::event().bytes();
    cut.write(&trigger).await;
    assert_eq!(cut.response().await.json(), json!({}));
    subscriber.expect("e").await;
    for piece in trigger.chunks(100) {
        cut.write(piece).await;
    }
    assert_eq!(cut.response().await.json(), json!({}));
    subscriber.expect("e").await;

    let mut client = herald.wire().await;
    client.write(&trigger).await;
    client.response().await;
    subscriber.expect("e").await;
    let handshake = "GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: herald\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.write(handshake.as_bytes()).await;
    assert_eq!(client.head().await.status, 101);

    let mut leaving = herald.wire().await;
    leaving.write(&Request::event().header("Connection", "close").bytes()).await;
    let answer = leaving.response().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(leaving.closes().await);
}

#[tokio::test]
async fn http_2_is_spoken_too() {
    let herald = Herald::start();
    let mut subscriber = herald.subscriber(&["c"]).await;
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let send = async |request: Request| {
        let head = request.head("");
        let target = head.split(' ').nth(1).unwrap();
        let url = format!("http://127.0.0.1:{}{target}", herald.port);
        let method = request.method.parse().unwrap();
        let response = client.request(method, url).timeout(DEADLINE).body(request.body).send().await.unwrap();
        assert_eq!(response.version(), reqwest::Version::HTTP_2);
        let allow = response.headers().get("allow").map(|allow| allow.to_str().unwrap().to_owned());
        (response.status().as_u16(), allow, response.text().await.unwrap())
    };
    assert_eq!(send(Request::event()).await, (200, None, "{}".to_owned()));
    subscriber.expect("e").await;
    let connections = (200, None, "{\"connections\":1}".to_owned());
    assert_eq!(send(Request::get("/connections")).await, connections);
    let many = futures_util::future::join_all((0..50).map(|_| send(Request::get("/connections")))).await;
    assert!(many.iter().all(|answer| *answer == connections));
    let (status, allow, _) = send(Request::event().method("PUT")).await;
    assert_eq!((status, allow.as_deref()), (405, Some("POST")));
    assert_eq!(send(Request::raw("/events", vec![b' '; 300_000])).await.0, 413);
    assert_eq!(send(Request::event().with(|request| request.secret = "wrong".into())).await.0, 401);
}

#[tokio::test]
async fn a_chunked_body_is_a_body() {
    let herald = Herald::start();
    let request = Request::event();
    let mut wire = herald.wire().await;
    wire.write(request.head("Transfer-Encoding: chunked\r\n").as_bytes()).await;
    for piece in request.body.chunks(7) {
        wire.write(format!("{:x}\r\n", piece.len()).as_bytes()).await;
        wire.write(piece).await;
        wire.write(b"\r\n").await;
    }
    wire.write(b"0\r\n\r\n").await;
    assert_eq!(wire.response().await.json(), json!({}));

    let empty = Request::raw("/users/nobody/terminate_connections", "");
    wire.write(empty.head("Transfer-Encoding: chunked\r\n").as_bytes()).await;
    wire.write(b"0\r\n\r\n").await;
    assert_eq!(wire.response().await.json(), json!({}));
}

#[tokio::test]
async fn who_expects_to_be_asked_for_the_body_is_asked() {
    let herald = Herald::start();
    let request = Request::event();
    let mut wire = herald.wire().await;
    let length = request.body.len();
    wire.write(request.head(&format!("Content-Length: {length}\r\nExpect: 100-continue\r\n")).as_bytes()).await;
    assert_eq!(wire.head().await.status, 100);
    wire.write(&request.body).await;
    assert_eq!(wire.response().await.json(), json!({}));
}

#[tokio::test]
async fn who_expects_to_be_asked_is_refused_without_being_asked() {
    let herald = Herald::start();
    let unknown_app = Request::event().with(|request| request.path = "/apps/none/events".into());
    let forged = Request::event().with(|request| request.secret = "guessed".into());
    for (request, length, status) in [(Request::event(), 10_000_000, 413), (unknown_app, 100, 404), (forged, 100, 401)]
    {
        let mut wire = herald.wire().await;
        wire.write(request.head(&format!("Content-Length: {length}\r\nExpect: 100-continue\r\n")).as_bytes()).await;
        wire.response().await.error(status);
    }
}

#[tokio::test]
async fn nothing_is_kept_of_the_body_of_somebody_who_is_nobody() {
    let herald = Herald::with("request_timeout = \"5m\"", "");
    for forge in [
        |request: &mut Request| request.secret = "guessed".into(),
        |request: &mut Request| request.signature = Some("none".into()),
        |request: &mut Request| request.query.retain(|(name, _)| name != "body_md5"),
    ] {
        let mut wire = herald.wire().await;
        wire.write(Request::event().with(forge).head("Content-Length: 100000\r\n").as_bytes()).await;
        wire.response().await.error(401);
    }
}

#[tokio::test]
async fn head_is_answered_like_get_without_the_body() {
    let herald = Herald::start();
    for path in ["/channels", "/channels/c", "/channels/presence-r/users", "/connections"] {
        let answer = herald.get(path, &[]).await;
        let mut wire = herald.wire().await;
        wire.write(&Request::get(path).method("HEAD").bytes()).await;
        let head = wire.head().await;
        assert_eq!((head.status, head.header("content-type")), (200, Some("application/json")));
        assert_eq!(head.header("content-length"), Some(answer.body.len().to_string().as_str()));
        // Nothing of a body stands before the next answer.
        wire.write(&Request::get(path).bytes()).await;
        assert_eq!(wire.response().await.status, 200);
    }
}

#[tokio::test]
async fn an_unknown_address_is_a_404_in_json() {
    let herald = Herald::start();
    for path in ["", "/", "/event", "/events/", "/channels/c/", "/channels/c/members", "/users/7"] {
        herald.send(&Request::get(path)).await.refused(404, "nothing at this address");
        herald.send(&Request::post(path, &json!({}))).await.refused(404, "nothing at this address");
    }
    for path in ["/", "/apps", "/apps/app-id"] {
        let mut wire = herald.wire().await;
        wire.write(format!("GET {path} HTTP/1.1\r\nHost: herald\r\n\r\n").as_bytes()).await;
        wire.response().await.error(404);
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let herald = Herald::start();
    for (path, allowed) in [
        ("/events", "POST"),
        ("/batch_events", "POST"),
        ("/users/7/terminate_connections", "POST"),
        ("/channels", "GET,HEAD"),
        ("/channels/c", "GET,HEAD"),
        ("/channels/c/users", "GET,HEAD"),
        ("/connections", "GET,HEAD"),
    ] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
            if allowed.contains(method) {
                continue;
            }
            let request = Request::event().method(method);
            let request = request.with(|request| request.path = format!("/apps/app-id{path}"));
            let response = herald.send(&request).await;
            response.refused(405, "this method is not allowed here");
            assert_eq!(response.header("allow"), Some(allowed), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn any_content_type_is_json() {
    let herald = Herald::start();
    for kind in ["application/json", "application/x-www-form-urlencoded", "text/plain; charset=latin1", "nonsense"] {
        assert_eq!(herald.send(&Request::event().header("Content-Type", kind)).await.json(), json!({}));
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_its_sender_sees_that() {
    let herald = Herald::start();
    let limit = 10 * 10_240 + 64 * 1_024;
    let text = format!("the request body has more than {limit} bytes");
    let fits = format!("{{\"x\":\"{}\"}}", "x".repeat(limit - 8));
    assert_eq!(fits.len(), limit);
    herald.send(&Request::raw("/events", fits.clone())).await.refused(400, "`name` is missing");
    herald.send(&Request::raw("/events", fits + " ")).await.refused(413, &text);
    for length in [300_000, 3_000_000] {
        let body = vec![b' '; length];
        herald.send(&Request::raw("/events", body.clone())).await.refused(413, &text);
        let unknown = Request::raw("/events", body.clone()).with(|request| request.path = "/apps/none/events".into());
        herald.send(&unknown).await.refused(404, "no app");
        let nowhere = Request::raw("/events", body).with(|request| request.path = "/none".into());
        herald.send(&nowhere).await.refused(404, "nothing at this address");
    }
}

#[tokio::test]
async fn the_size_of_a_body_is_believed_before_it_is_sent() {
    let herald = Herald::start();
    let mut wire = herald.wire().await;
    wire.write(Request::event().head("Content-Length: 10000000000\r\n").as_bytes()).await;
    let response = wire.response().await;
    response.refused(413, "bytes");
    assert_eq!(response.header("connection"), Some("close"));
    assert!(wire.closes().await);
}

#[tokio::test]
async fn chunks_that_never_end_are_cut() {
    let herald = Herald::start();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    // Whoever stops sees the answer.
    let mut wire = herald.wire().await;
    wire.write(Request::event().head("Transfer-Encoding: chunked\r\n").as_bytes()).await;
    for _ in 0..48 {
        wire.write(&chunk).await;
    }
    wire.response().await.error(413);
    assert!(wire.closes().await);
    // Whoever does not is cut.
    let mut wire = herald.wire().await;
    wire.write(Request::event().head("Transfer-Encoding: chunked\r\n").as_bytes()).await;
    let writing = async { while wire.stream.write_all(&chunk).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, writing).await.expect("chunks are read for ever");
}

#[tokio::test]
async fn a_slow_body_is_not_waited_for() {
    let herald = Herald::with("request_timeout = \"300ms\"", "");
    let started = Instant::now();
    for drip in [false, true] {
        let mut wire = herald.wire().await;
        wire.write(Request::event().head("Content-Length: 1000\r\n").as_bytes()).await;
        if drip {
            for _ in 0..3 {
                wire.write(b" ").await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let response = wire.response().await;
        response.refused(408, "did not arrive within 300ms");
        assert_eq!(response.header("connection"), Some("close"));
        assert!(wire.closes().await);
    }
    assert!(started.elapsed() >= Duration::from_millis(600));
}

#[tokio::test]
async fn a_body_longer_than_announced_is_no_second_event() {
    let herald = Herald::start();
    let mut client = herald.subscriber(&["c"]).await;
    let mut wire = herald.wire().await;
    let mut bytes = Request::event().bytes();
    bytes.extend(b"surplus surplus surplus\r\n\r\n");
    wire.write(&bytes).await;
    assert_eq!(wire.response().await.json(), json!({}));
    assert_eq!(wire.head().await.status, 400);
    assert!(wire.closes().await);
    herald.trigger("c", "end", "").await;
    client.expect("e").await;
    client.expect("end").await;
}

#[tokio::test]
async fn a_body_that_ends_early_triggers_nothing() {
    let herald = Herald::start();
    let mut client = herald.subscriber(&["c"]).await;
    let request = Request::event();
    let announced = format!("Content-Length: {}\r\n", request.body.len() + 1);
    for (headers, body) in [(&*announced, &*request.body), ("Transfer-Encoding: chunked\r\n", b"no chunk\r\n")] {
        let mut wire = herald.wire().await;
        wire.write(request.head(headers).as_bytes()).await;
        wire.write(body).await;
        wire.stream.shutdown().await.unwrap();
        assert!(!wire.until_closed().await.contains("200 OK"));
    }
    herald.trigger("c", "end", "").await;
    client.expect("end").await;
}
