//! HTTP/2 used against the server: streams that are opened and reset at once, headers that never end, pings and settings that nobody
//! asked for. Frames are written out here, since no client library sends them.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{DEADLINE, Herald};
use crate::{eventually, served_during};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What one connection may cost.
const MEMORY: u64 = 24 * 1024 * 1024;
const PROCESSOR: Duration = Duration::from_secs(5);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block in HPACK without tables of its own: method and scheme from the static table, the rest as literals.
fn request(method: u8, path: &str) -> Vec<u8> {
    let literal = |name: u8, value: &str| [&[name, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    [&[method, 0x86][..], &literal(0x04, path), &literal(0x01, "herald")].concat()
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// Sends `attack` over one connection until the server ends it or all is sent, reads what it says meanwhile, and returns that with how
/// much was sent.
async fn abuse(herald: &Herald, reads: bool, attack: impl Iterator<Item = Vec<u8>>) -> (Vec<u8>, usize) {
    let (mut read, mut write) = TcpStream::connect(herald.address).await.unwrap().into_split();
    let mut sent = 0;
    let mut answers = Vec::new();
    let sending = async {
        let mut chunk = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
        for bytes in attack {
            chunk.extend(bytes);
            if chunk.len() >= 16_384 {
                if write.write_all(&chunk).await.is_err() {
                    return;
                }
                sent += chunk.len();
                chunk.clear();
            }
        }
        // Whether the last of it is still taken is the server's choice.
        _ = write.write_all(&chunk).await;
        sent += chunk.len();
        _ = write.shutdown().await;
    };
    let reading = async {
        // An end by a reset is an end as well.
        _ = if reads { read.read_to_end(&mut answers).await } else { Ok(0) };
    };
    // Who reads nothing may find that nothing is taken from it either: that bounds it too.
    let ended =
        timeout(if reads { DEADLINE } else { Duration::from_secs(1) }, async { tokio::join!(sending, reading) });
    assert!(ended.await.is_ok() || !reads, "no end in time");
    (answers, sent)
}

/// The kinds of the frames in `bytes`, and the codes of its GOAWAYs.
fn frames(mut bytes: &[u8]) -> (Vec<u8>, Vec<u32>) {
    let (mut kinds, mut codes) = (Vec::new(), Vec::new());
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        kinds.push(head[3]);
        if head[3] == GOAWAY {
            codes.push(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        bytes = rest;
    }
    (kinds, codes)
}

const ENHANCE_YOUR_CALM: u32 = 11;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_abuses_http_2_is_sent_away_or_held_back_and_harms_nobody() {
    let herald = Herald::start("server = { handshake_timeout = \"2s\", request_timeout = \"2s\" }").await;
    let mut ann = herald.connect().await;
    let descriptors = herald.descriptors_but_the_databases();
    let get = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &request(GET, "/apps/app-id/channels"));
    let post = |stream| frame(HEADERS, END_HEADERS, stream, &request(POST, "/apps/app-id/events?auth_key=app-key"));
    let cancel = |stream| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    let streams = || (0_u32..).map(|number| 2 * number + 1);
    type Attack<'a> = Box<dyn Iterator<Item = Vec<u8>> + 'a>;
    // What is sent, whether the answers are read, and whether it ends with a GOAWAY that says why.
    let attacks: [(&str, Attack<'_>, bool, bool); 10] = [
        ("resets each stream", Box::new(streams().take(100_000).flat_map(|id| [get(id), cancel(id)])), true, true),
        ("resets each POST", Box::new(streams().take(100_000).flat_map(|id| [post(id), cancel(id)])), true, true),
        (
            "makes the server reset each stream",
            Box::new(
                streams()
                    .take(100_000)
                    .flat_map(|id| [post(id), frame(WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff])]),
            ),
            true,
            true,
        ),
        (
            "continues its headers for ever",
            Box::new(
                std::iter::once(frame(HEADERS, 0, 1, &request(GET, "/")))
                    .chain((0..4_000).map(|_| frame(CONTINUATION, 0, 1, &b"\x00\x01x\x01y".repeat(2_000)))),
            ),
            true,
            true,
        ),
        (
            "continues its headers with nothing",
            Box::new(
                std::iter::once(frame(HEADERS, 0, 1, &request(GET, "/")))
                    .chain((0..200_000).map(|_| frame(CONTINUATION, 0, 1, b""))),
            ),
            true,
            true,
        ),
        ("opens more streams than it may", Box::new(streams().take(20_000).map(post)), true, false),
        (
            "sends data of no length",
            Box::new(std::iter::once(post(1)).chain((0..200_000).map(|_| frame(DATA, 0, 1, b"")))),
            true,
            false,
        ),
        ("pings and reads nothing", Box::new((0..1_000_000).map(|_| frame(PING, 0, 0, &[7; 8]))), false, false),
        ("changes its settings for ever", Box::new((0..1_000_000).map(|_| frame(SETTINGS, 0, 0, b""))), false, false),
        ("asks on and on and reads nothing", Box::new(streams().take(200_000).map(get)), false, false),
    ];
    for (what, attack, reads, says_why) in attacks {
        let (processor, start) = (herald.processor_time(), Instant::now());
        let attacking = abuse(&herald, reads, attack);
        let (answers, sent) = served_during(&herald, &mut ann, MEMORY, attacking).await;
        let busy = herald.processor_time() - processor;
        let (kinds, codes) = frames(&answers);
        assert!(busy < PROCESSOR, "who {what} cost {busy:?} of a processor in {:?}", start.elapsed());
        if says_why {
            assert!(codes.contains(&ENHANCE_YOUR_CALM), "who {what} is told why: {kinds:?} {codes:?}");
            assert!(sent < 4 * 1024 * 1024, "who {what} was listened to for {sent} bytes");
        }
    }
    eventually("descriptors", async || herald.descriptors_but_the_databases(), |now| *now <= descriptors).await;
}
