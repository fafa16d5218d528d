//! Noise and near misses for every parser, from outside (case L5): frames, handshakes, requests, messages. The seed is fixed, so a
//! failure comes again; a failed test shows the seed, the number of the case and its bytes.
//!
//! After each case a healthy client is served. What the server answers is looked at too: its frames are well formed, its events are
//! JSON, its close codes are those of the protocol, and nothing is its own fault (500).

use std::io;

use herald_protocol::SocketId;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::wire::Wire;
use crate::support::{App, Client, DEADLINE, Frame, Herald};

const SEED: u64 = 0x4c35;

/// Cases of each kind.
const CASES: u64 = 5_000;

/// Shows which case it was, should the test fail while this lives.
struct Case<'a> {
    number: u64,
    bytes: &'a [u8],
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {SEED:#x}, case {}: {}", self.number, self.bytes.escape_ascii());
        }
    }
}

/// Runs the cases one after another: `make` says what is sent, `send` sends it and judges what comes back.
async fn fuzz(kind: u64, make: impl Fn(&mut StdRng) -> Vec<u8>, send: impl AsyncFn(&Herald, &[u8])) {
    let mut herald = Herald::start("server = { handshake_timeout = \"1s\", request_timeout = \"1s\" }").await;
    let mut healthy = herald.connect().await;
    healthy.subscribe("news").await;
    for number in 0..CASES {
        let mut rng = StdRng::seed_from_u64(SEED ^ kind << 48 ^ number << 16);
        let bytes = make(&mut rng);
        let _case = Case { number, bytes: &bytes };
        let sent = timeout(DEADLINE, send(&herald, &bytes)).await;
        sent.expect("the server ends what it cannot make sense of");
        healthy.settle().await;
        if number % 100 == 0 {
            herald.trigger("news", "e", number.to_string()).await;
            assert_eq!(healthy.expect("e").await.data(), number.to_string());
        }
        assert!(herald.is_running() && !herald.has_logged("panicked"));
    }
}

#[tokio::test]
async fn any_bytes_instead_of_frames_harm_nobody() {
    fuzz(1, frames, async |herald, bytes| {
        let mut wire = herald.connect().await.into_wire();
        // Whoever is closed while still sending may fail to.
        _ = wire.write(bytes).await;
        _ = wire.stream.shutdown().await;
        judge_frames(wire).await;
    })
    .await;
}

#[tokio::test]
async fn any_text_instead_of_messages_harms_nobody() {
    fuzz(2, messages, async |herald, bytes| {
        let mut client = herald.connect().await;
        client.subscribe("private-a").await;
        let text = authorized(&herald.app, &client, bytes);
        client.send_frame(&Frame::new(Frame::TEXT, text)).await;
        client.send_text(r#"{"event":"pusher:ping"}"#).await;
        let mut wire = client.into_wire();
        _ = wire.stream.shutdown().await;
        judge_frames(wire).await;
    })
    .await;
}

#[tokio::test]
async fn any_bytes_instead_of_a_handshake_harm_nobody() {
    fuzz(3, handshake, async |herald, bytes| judge_http(exchange(herald, bytes).await)).await;
}

#[tokio::test]
async fn any_bytes_instead_of_a_request_harm_nobody() {
    fuzz(4, request, async |herald, bytes| judge_http(exchange(herald, bytes).await)).await;
}

#[tokio::test]
async fn any_body_that_is_signed_harms_nobody() {
    let paths = ["/events", "/batch_events", "/users/7/terminate_connections"];
    fuzz(
        5,
        |rng| [paths[rng.random_range(0..paths.len())].as_bytes(), b" ", &body(rng)].concat(),
        async |herald, bytes| {
            let (path, body) = str::from_utf8(bytes).unwrap().split_once(' ').unwrap();
            let answer = herald.api().post(path, body).await;
            assert!(matches!(answer.status, 200 | 400 | 413), "{answer:?}");
            answer.json();
        },
    )
    .await;
}

/// Reads to the end: all is well formed, and what stands behind a close is nothing.
async fn judge_frames(mut wire: Wire) {
    loop {
        match wire.read().await {
            Ok(None) => return,
            Ok(Some(Frame { fin: true, opcode: Frame::TEXT, payload })) => {
                let event: Value = serde_json::from_slice(&payload).expect("an event is JSON");
                assert!(event["event"].as_str().unwrap().starts_with("pusher"), "{event}");
            }
            Ok(Some(Frame { fin: true, opcode: Frame::PING | Frame::PONG, payload })) => assert!(payload.len() < 126),
            Ok(Some(frame)) if frame.opcode == Frame::CLOSE => {
                let code = frame.close().0;
                // A close is answered with its own code, whatever valid one that was.
                assert!(matches!(code, 1000..=1003 | 1005 | 1007..=1014 | 3000..=4999), "{frame:?}");
                assert!(!matches!(wire.read().await, Ok(Some(_))), "nothing comes behind a close");
                return;
            }
            Ok(Some(other)) => panic!("the server does not send {other:?}"),
            // Where bytes were still unread, the end is a reset.
            Err(error) => return assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
}

/// Sends the bytes and no more, and reads to the end.
async fn exchange(herald: &Herald, bytes: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = TcpStream::connect(herald.address).await.unwrap().into_split();
    let sending = async {
        // Whoever is refused while still sending may fail to.
        _ = write.write_all(bytes).await;
        _ = write.shutdown().await;
    };
    let mut answer = Vec::new();
    let (_, read) = tokio::join!(sending, read.read_to_end(&mut answer));
    if let Err(error) = read {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    }
    answer
}

/// Nothing, HTTP/2, or an answer that is not the server's own fault.
fn judge_http(answer: Vec<u8>) {
    let text = String::from_utf8_lossy(&answer);
    let Some(rest) = text.strip_prefix("HTTP/1.") else {
        assert!(answer.is_empty() || answer.get(3..5) == Some(&[4, 0]), "no HTTP: {text:?}");
        return;
    };
    let status: u16 = rest.get(2..5).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{text:?}"));
    assert!(matches!(status, 100 | 101 | 200 | 400..=499), "{text:?}");
}

/// One of `choices`.
fn pick<'a, T>(rng: &mut StdRng, choices: &'a [T]) -> &'a T {
    &choices[rng.random_range(0..choices.len())]
}

fn noise(rng: &mut StdRng, most: usize) -> Vec<u8> {
    let length = rng.random_range(0..=most);
    (0..length).map(|_| rng.random()).collect()
}

/// Changes a few places: bits, bytes, pieces that are cut out, doubled, or brought in from elsewhere.
fn mutate(rng: &mut StdRng, bytes: &mut Vec<u8>, pieces: &[&[u8]]) {
    for _ in 0..rng.random_range(0..5) {
        let at = rng.random_range(0..=bytes.len());
        let until = (at + rng.random_range(0..20)).min(bytes.len());
        match rng.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = *pick(rng, &[0, b'\r', b'\n', b'"', 0x7f, 0x80, 0xc0, 0xff]),
            2 => drop(bytes.drain(at..until)),
            3 => {
                let piece = bytes[at..until].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let piece = pick(rng, pieces).to_vec();
                bytes.splice(at..until, piece);
            }
            5 => {
                let piece = noise(rng, 8);
                bytes.splice(at..at, piece);
            }
            _ if rng.random_range(0..4) == 0 => bytes.truncate(at),
            _ => {}
        }
    }
}

/// A few frames, most of them possible ones, with lengths that may lie, changed a little.
fn frames(rng: &mut StdRng) -> Vec<u8> {
    if rng.random_range(0..10) == 0 {
        return noise(rng, 2_000);
    }
    let mut bytes = Vec::new();
    for _ in 0..rng.random_range(1..6) {
        let payload = match rng.random_range(0..4) {
            0 => noise(rng, 200),
            1 => message(rng).into_bytes(),
            2 => [
                pick(rng, &[0_u16, 999, 1000, 1004, 1005, 1006, 1015, 3000, 4999, 5000, 65535])
                    .to_be_bytes()
                    .as_slice(),
                b"bye",
            ]
            .concat(),
            _ => vec![*pick(rng, b" \"{[\xff\xe2"); *pick(rng, &[0, 1, 125, 126, 127, 65_535, 65_536])],
        };
        let opcode = if rng.random() { *pick(rng, &[0, 1, 1, 1, 2, 8, 9, 10]) } else { rng.random_range(0..16) };
        let mut frame = Frame { fin: rng.random_range(0..4) > 0, opcode, payload }.masked();
        match rng.random_range(0..12) {
            0 => frame[0] ^= 1 << rng.random_range(4..7), // reserved bits
            1 => frame[1] &= 0x7f,                        // not masked
            2 => frame[1] = frame[1] & 0x80 | *pick(rng, &[0, 125, 126, 127]),
            _ => {}
        }
        bytes.extend(frame);
    }
    if rng.random() {
        mutate(rng, &mut bytes, &[&[0x81, 0xff, 0xff], &[0x80, 0x80], &[0x88, 0x82], &[0x89, 0xfe, 0, 0]]);
    }
    bytes
}

/// A message that may be one.
fn message(rng: &mut StdRng) -> String {
    let names = [
        "a",
        "private-a",
        "presence-a",
        "cache-a",
        "private-encrypted-cache-a",
        "#server-to-user-7",
        "#",
        "",
        "ü",
        "a b",
    ];
    let channel = *pick(rng, &names);
    let event = *pick(
        rng,
        &[
            "pusher:subscribe",
            "pusher:unsubscribe",
            "pusher:signin",
            "pusher:ping",
            "pusher:pong",
            "client-e",
            "client-",
            "x",
            "",
        ],
    );
    let id = if rng.random() { json!("7") } else { any_json(rng, 1) };
    let user_data = json!({ "id": id, "user_info": any_json(rng, 2), "watchlist": ["8", "9"] });
    let channel_data = json!({ "user_id": id, "user_info": any_json(rng, 3) });
    let data = match rng.random_range(0..5) {
        0 => any_json(rng, 4),
        1 => json!({ "channel": channel, "auth": any_json(rng, 1), "channel_data": any_json(rng, 2) }),
        2 => json!({ "auth": "AUTH", "user_data": user_data.to_string() }),
        _ => json!({ "channel": channel, "auth": "AUTH", "channel_data": channel_data.to_string() }),
    };
    let data = if rng.random_range(0..4) == 0 { data.to_string().into() } else { data };
    json!({ "event": event, "channel": channel, "data": data }).to_string()
}

fn messages(rng: &mut StdRng) -> Vec<u8> {
    let mut text = message(rng).into_bytes();
    if rng.random() {
        mutate(rng, &mut text, &JSON_PIECES);
    }
    text
}

const JSON_PIECES: [&[u8]; 16] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b",",
    b":",
    b"null",
    b"1e999",
    b"-0",
    b"\\ud800",
    b"\\u0000",
    "\u{10ffff}".as_bytes(),
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"\"event\":\"pusher:ping\",",
];

/// The text with a true signature in place of `AUTH`, where it is a message that asks for one: so that what lies behind is reached.
fn authorized(app: &App, client: &Client, text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text).into_owned();
    let Ok(message) = serde_json::from_str::<Value>(&text) else { return text.into_bytes() };
    let data = match &message["data"] {
        Value::String(data) => serde_json::from_str(data).unwrap_or_default(),
        data => data.clone(),
    };
    let socket_id: SocketId = client.socket_id();
    let auth = match (data["channel"].as_str(), data["channel_data"].as_str(), data["user_data"].as_str()) {
        (_, _, Some(user_data)) => app.authenticate(socket_id, user_data),
        (Some(channel), channel_data, None) => app.authorize(socket_id, channel, channel_data),
        _ => return text.into_bytes(),
    };
    text.replace("AUTH", &auth).into_bytes()
}

/// Any JSON, so many levels deep.
fn any_json(rng: &mut StdRng, depth: u32) -> Value {
    match rng.random_range(0..if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => rng.random::<bool>().into(),
        2 => (*pick(rng, &[0, 1, -1, 7, i64::MAX, i64::MIN])).into(),
        3 => (*pick(rng, &[0.5, -0.0, 1e300, 1e-300])).into(),
        4 => (*pick(rng, &["", "7", "a", "\0", "\u{2028}😀", "app-key:", "1.2", "client-x"])).into(),
        5 => "x".repeat(*pick(rng, &[100, 128, 129, 164, 165, 201, 2_049, 10_241])).into(),
        6 => (0..rng.random_range(0..4)).map(|_| any_json(rng, depth - 1)).collect(),
        _ => {
            let names = ["channel", "auth", "user_id", "id", "name", "data", "\"", "ü"];
            (0..rng.random_range(0..4)).map(|_| ((*pick(rng, &names)).to_owned(), any_json(rng, depth - 1))).collect()
        }
    }
}

fn handshake(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = b"GET /app/app-key?protocol=7&client=js&version=8.4.0&flash=false HTTP/1.1\r\nHost: herald\r\n\
        Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nOrigin: http://example.com\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec();
    mutate(rng, &mut bytes, &HTTP_PIECES);
    if rng.random_range(0..4) == 0 {
        bytes.extend(frames(rng));
    }
    bytes
}

const HTTP_PIECES: [&[u8]; 16] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b" ",
    b": ",
    b"%",
    b"%00",
    b"%ff",
    b"?",
    b"/",
    b"&protocol=8",
    b"HTTP/2.0",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 18446744073709551616\r\n",
    b"Upgrade: h2c\r\n",
];

fn request(rng: &mut StdRng) -> Vec<u8> {
    let path = *pick(
        rng,
        &[
            "/events",
            "/batch_events",
            "/channels",
            "/channels/presence-a/users",
            "/users/7/terminate_connections",
            "/%",
            "",
        ],
    );
    let method = *pick(rng, &["GET", "POST", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "X"]);
    let body = body(rng);
    let query = "auth_key=app-key&auth_timestamp=1&auth_version=1.0&body_md5=0&auth_signature=0";
    let head = format!(
        "{method} /apps/app-id{path}?{query} HTTP/1.1\r\nHost: herald\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut bytes = [head.into_bytes(), body].concat();
    mutate(rng, &mut bytes, &HTTP_PIECES);
    if rng.random_range(0..10) == 0 {
        bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), noise(rng, 500)].concat();
    }
    bytes
}

/// What a backend may post, or nearly so.
fn body(rng: &mut StdRng) -> Vec<u8> {
    let event = |rng: &mut StdRng| {
        let mut event = json!({ "name": "e", "channel": "a", "data": "x" });
        for name in ["name", "channel", "channels", "data", "socket_id", "info", "batch"] {
            if rng.random_range(0..4) == 0 {
                event[name] = any_json(rng, 3);
            }
        }
        event
    };
    let value = match rng.random_range(0..4) {
        0 => any_json(rng, 4),
        1 => json!({ "batch": (0..rng.random_range(0..12)).map(|_| event(rng)).collect::<Value>() }),
        _ => event(rng),
    };
    let mut bytes = value.to_string().into_bytes();
    if rng.random() {
        mutate(rng, &mut bytes, &JSON_PIECES);
    }
    String::from_utf8_lossy(&bytes).into_owned().into_bytes()
}
