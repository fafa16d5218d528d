//! Too much at once: subscriptions, members, bytes. Each is answered as the limits say, and costs what they allow.

use std::cell::Cell;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::receiver::Receiver;
use crate::support::{App, Client, DEADLINE, Frame, Herald, Options};
use crate::{assert_served, eventually, served_during};

/// What one who floods may cost.
const MEMORY: u64 = 32 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_subscriptions_from_one_socket_are_answered_by_the_limit() {
    const WISHES: usize = 100_000;
    const LIMIT: usize = 1_000;
    let herald = Herald::start("").await;
    let mut ann = herald.connect().await;
    let flooding = herald.connect().await.into_wire();
    let (mut read, mut write) = flooding.split();
    let sending = tokio::spawn(async move {
        for first in (0..WISHES).step_by(1_000) {
            let wish = |number: usize| {
                let wish = json!({ "event": "pusher:subscribe", "data": { "channel": format!("c{number}") } });
                Frame::new(Frame::TEXT, wish.to_string()).masked()
            };
            let wishes: Vec<u8> = (first..first + 1_000).flat_map(wish).collect();
            write.write_all(&wishes).await.unwrap();
        }
        write
    });
    let answers = tokio::spawn(async move {
        let mut answers = [0; 2];
        for number in 0..WISHES {
            let frame = timeout(DEADLINE, read.read()).await.expect("an answer in time").unwrap().unwrap();
            let answer: Value = serde_json::from_slice(&frame.payload).unwrap();
            assert_eq!(answer["channel"], format!("c{number}"), "{answer}");
            let refused = match answer["event"].as_str().unwrap() {
                "pusher_internal:subscription_succeeded" => false,
                "pusher:subscription_error" => answer["data"].as_str().unwrap().contains("\"status\":4100"),
                other => panic!("{other}: {answer}"),
            };
            assert_eq!(refused, number >= LIMIT, "{answer}");
            answers[usize::from(refused)] += 1;
        }
        (answers, read)
    });
    let (answers, connection) = served_during(&herald, &mut ann, MEMORY, answers).await.unwrap();
    assert_eq!(answers, [LIMIT, WISHES - LIMIT]);
    drop((sending.await.unwrap(), connection));
}

#[tokio::test]
async fn who_asks_on_and_on_and_reads_no_answer_is_cut() {
    let herald = Herald::start("connection = { write_deadline = \"1s\" }").await;
    let mut ann = herald.connect().await;
    let message = |message: Value| Frame::new(Frame::TEXT, message.to_string());
    let wishes = [
        message(json!({ "event": "pusher:subscribe", "data": { "channel": "c" } })), // answered each time
        message(json!({ "event": "pusher:subscribe", "data": { "channel": "private-c", "auth": "x" } })),
        message(json!({ "event": "pusher:ping", "data": {} })),
        Frame::new(Frame::PING, [b' '; 125]),
    ];
    let cut = join_all(wishes.iter().map(async |wish| {
        let options = Options { receive_buffer: Some(4_096), ..Options::default() };
        let mut client = herald.open_with("/app/app-key?protocol=7", options).await;
        client.read_hello().await;
        let mut wire = client.into_wire();
        let wishes = wish.masked().repeat(1_000);
        let asking = async { while wire.write(&wishes).await.is_ok() {} };
        timeout(3 * DEADLINE, asking).await.unwrap_or_else(|_| panic!("who sends {wish:?} and reads nothing is cut"));
    }));
    served_during(&herald, &mut ann, MEMORY, cut).await;
}

#[tokio::test]
async fn who_sends_request_after_request_and_reads_no_answer_is_held_back() {
    let herald = Herald::start("").await;
    let mut ann = herald.connect().await;
    let mut stream = TcpStream::connect(herald.address).await.unwrap();
    let requests = b"GET /apps/app-id/channels HTTP/1.1\r\nHost: herald\r\n\r\n".repeat(1_000);
    let taken = Cell::new(0);
    let asking = async {
        loop {
            match stream.write(&requests).await {
                Ok(bytes) => taken.set(taken.get() + bytes),
                Err(error) => panic!("it is held back, not cut: {error}"),
            }
        }
    };
    let mut before = (0, Duration::ZERO);
    let mut look = async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = (taken.get(), herald.processor_time());
        let before = std::mem::replace(&mut before, now);
        (now.0 - before.0, now.1 - before.1)
    };
    let held_back = async {
        let held_back = eventually("bytes taken within a second", &mut look, |(bytes, _)| *bytes == 0);
        served_during(&herald, &mut ann, MEMORY, held_back).await;
        // Now that nobody else asks for anything, either.
        let costs_nothing = |(bytes, busy): &(usize, Duration)| *bytes == 0 && *busy <= Duration::from_millis(10);
        eventually("bytes taken within a second, and what they cost", look, costs_nothing).await;
    };
    tokio::select! {
        never = asking => never,
        () = held_back => {}
    }
}

#[tokio::test]
async fn a_frame_of_two_megabytes_is_refused_however_it_comes() {
    const SIZE: usize = 2 * 1024 * 1024;
    let herald = Herald::start("").await;
    let mut ann = herald.connect().await;
    ann.subscribe("news").await;
    let memory = herald.resident_bytes();
    let text = format!(r#"{{"event":"pusher:ping","data":"{}"}}"#, "x".repeat(SIZE));
    let whole = Frame::new(Frame::TEXT, text.clone()).masked();
    let mut fragments = Frame::part(Frame::TEXT, &text.as_bytes()[..1_000]).masked();
    for part in text.as_bytes()[1_000..].chunks(1_000) {
        fragments.extend(Frame::part(Frame::CONTINUATION, part).masked());
    }
    let announced = |length: u64| [&[0x81, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4], b"some of it"].concat();
    for (what, bytes) in [
        ("whole", whole),
        ("in fragments", fragments),
        ("announced", announced(SIZE as u64)),
        ("as long as a length can be", announced(i64::MAX as u64)),
        ("longer than a length may be", announced(u64::MAX)),
    ] {
        let mut client = herald.connect().await;
        client.send_bytes(&bytes).await;
        let frame = client.next_frame().await.unwrap();
        assert_eq!(frame.opcode, Frame::CLOSE, "{what}");
        assert!(matches!(frame.close().0, 1009 | 1002), "{what}: {:?}", frame.close());
        let growth = herald.resident_bytes().saturating_sub(memory);
        assert!(growth < MEMORY / 4, "{what}: it has grown by {growth} bytes");
        assert_served(&herald, &mut ann, "news").await;
    }
}

#[tokio::test]
async fn heads_without_end_are_refused() {
    let herald = Herald::start("").await;
    let mut ann = herald.connect().await;
    ann.subscribe("news").await;
    let memory = herald.resident_bytes();
    let large = "x".repeat(1024 * 1024);
    let many = |count: usize| (0..count).map(|number| format!("X-{number}: {number}\r\n")).collect::<String>();
    for (what, target, headers) in [
        ("a header of 200 KiB", "/apps/app-id/channels", format!("X: {}\r\n", "x".repeat(200 * 1024))),
        ("a header of 1 MiB", "/apps/app-id/channels", format!("X: {large}\r\n")),
        ("a header's name of 1 MiB", "/apps/app-id/channels", format!("{large}: x\r\n")),
        ("500 headers", "/apps/app-id/channels", many(500)),
        ("50,000 headers", "/apps/app-id/channels", many(50_000)),
        ("an address of 1 MiB", &*format!("/apps/app-id/channels?{large}"), String::new()),
        (
            "an upgrade with 1 MiB",
            "/app/app-key",
            format!("Connection: Upgrade\r\nUpgrade: websocket\r\nX: {large}\r\n"),
        ),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: herald\r\n{headers}\r\n");
        let (mut read, mut write) = TcpStream::connect(herald.address).await.unwrap().into_split();
        let mut answer = Vec::new();
        // Whoever is refused while still sending may fail to send, and need not be let read to the end.
        let (_, _) =
            timeout(DEADLINE, async { tokio::join!(write.write_all(head.as_bytes()), read.read_to_end(&mut answer)) })
                .await
                .unwrap_or_else(|_| panic!("{what}: no end in time"));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(matches!(status, "431" | "414" | "400"), "{what}: {answer:?}");
        let growth = herald.resident_bytes().saturating_sub(memory);
        assert!(growth < MEMORY / 4, "{what}: it has grown by {growth} bytes");
        assert_served(&herald, &mut ann, "news").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_who_want_in_a_room_lets_in_what_it_holds() {
    const WANT: usize = 10_000;
    const HOLDS: usize = 1_000;
    const AT_ONCE: usize = 50;
    let app = App::new("app-id", "app-key", "app-secret");
    let mut receiver = Receiver::start(&app).await;
    let config = format!("[[apps]]\nlimits = {{ presence_members = {HOLDS} }}\n{}", receiver.section(""));
    let herald = Herald::start(&config).await;
    let start = Instant::now();
    let members: Vec<Vec<Client>> = join_all((0..AT_ONCE).map(async |first| {
        let mut members = Vec::new();
        for number in (first..HOLDS).step_by(AT_ONCE) {
            let mut client = herald.connect().await;
            let member = json!({ "user_id": number, "user_info": { "name": "x".repeat(100) } });
            client.ask_to_join("presence-room", &member).await;
            while client.next().await.event != "pusher_internal:subscription_succeeded" {}
            members.push(client);
        }
        members
    }))
    .await;
    // Nobody leaves, so everybody else is refused; who is refused may ask again, as somebody else.
    let refused = join_all((0..AT_ONCE).map(async |first| {
        let mut client = herald.connect().await;
        let mut slowest = Duration::ZERO;
        for number in (HOLDS + first..WANT).step_by(AT_ONCE) {
            let start = Instant::now();
            client.ask_to_join("presence-room", &json!({ "user_id": number })).await;
            let (kind, status, text) = client.expect_subscription_error("presence-room").await;
            assert_eq!((&*kind, status), ("LimitReached", 4100), "{text}");
            slowest = slowest.max(start.elapsed());
        }
        slowest
    }));
    let slowest = refused.await.into_iter().max().unwrap();
    assert!(slowest < Duration::from_secs(2), "a refusal took {slowest:?}");
    assert!(start.elapsed() < Duration::from_secs(30), "all took {:?}", start.elapsed());
    let users = herald.api().get("/channels/presence-room/users", &[]).await.ok();
    assert_eq!(users["users"].as_array().unwrap().len(), HOLDS);

    // The backend was told of each who came in, of nobody else, and of what happens elsewhere without delay.
    let mut told = HashSet::new();
    let mut ann = herald.connect().await;
    ann.subscribe("news").await;
    let asked = Instant::now();
    loop {
        let event = receiver.event().await;
        match (event["name"].as_str().unwrap(), event["channel"].as_str().unwrap()) {
            ("member_added", "presence-room") => {
                assert!(told.insert(event["user_id"].as_str().unwrap().to_owned()), "told twice: {event}");
            }
            ("channel_occupied", "presence-room") => {}
            ("channel_occupied", "news") => break,
            other => panic!("{other:?}: {event}"),
        }
    }
    assert_eq!(told.len(), HOLDS);
    assert!(asked.elapsed() < Duration::from_secs(5), "a webhook took {:?}", asked.elapsed());
    assert_served(&herald, &mut ann, "news").await;
    drop(members);
}
