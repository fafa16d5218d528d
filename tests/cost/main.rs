//! What the hot paths cost in instructions, which is the same on a busy machine and on a quiet one.
//!
//! Herald runs under valgrind and does something so many times, then in another run more times: the difference is the price of one. These are
//! builds without optimisation, so the figures say nothing about speed, only whether a path has become longer. One that is over its
//! bound is a mistake to mend, or a price that is worth it: then the bound is raised, and the commit says why.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures, and the log of a server whose test has failed")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use herald_protocol::Secret;
use herald_protocol::signature::{body_md5, request_string};
use serde_json::json;
use tempfile::TempDir;

/// How long anything may take; under valgrind everything takes fifty times as long.
const DEADLINE: Duration = Duration::from_secs(120);

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
threads = 1
[metrics]
listen = "off"
[shutdown]
drain = "0s"
[[apps]]
id = "app-id"
key = "app-key"
secret = "app-secret"
"#;

#[test]
fn a_trigger_with_nobody_subscribed() {
    is_at_most(
        TRIGGER,
        price([50, 1_050], |herald, count| {
            let mut backend = herald.backend();
            (0..count).for_each(|_| backend.trigger("nobody-is-there"));
        }),
    );
}

#[test]
fn a_connect_with_a_subscription() {
    is_at_most(
        CONNECT,
        price([10, 110], |herald, count| {
            let _all: Vec<Client> = (0..count).map(|_| herald.client("channel")).collect();
        }),
    );
}

#[test]
fn a_delivery() {
    const CLIENTS: u32 = 50;
    let event = price([10, 210], |herald, count| {
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| herald.client("channel")).collect();
        let mut backend = herald.backend();
        for _ in 0..count {
            backend.trigger("channel");
            clients.iter_mut().for_each(|client| client.expect("\"event\":\"e\""));
        }
    });
    is_at_most(DELIVERY, event / u64::from(CLIENTS));
}

/// Instructions, an eighth above the most of several runs when these lines were written.
const TRIGGER: u64 = 185_000;
const CONNECT: u64 = 275_000;
const DELIVERY: u64 = 8_200;

#[track_caller]
fn is_at_most(bound: u64, price: u64) {
    println!("{price} instructions, {bound} are allowed");
    assert!(price <= bound, "{price} instructions, {bound} are allowed");
    assert!(price > bound / 2, "{price} instructions: the bound of {bound} is worth nothing any more, lower it");
}

/// Instructions of one of what `work` does as often as it is told.
fn price([few, many]: [u32; 2], work: impl Fn(&Herald, u32)) -> u64 {
    let [of_few, of_many] = [few, many].map(|count| {
        let herald = Herald::start();
        work(&herald, count);
        herald.instructions()
    });
    of_many.saturating_sub(of_few) / u64::from(many - few)
}

/// A server under valgrind.
struct Herald {
    child: Child,
    directory: TempDir,
    port: u16,
}

impl Herald {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        std::fs::write(path("herald.toml"), CONFIG).unwrap();
        let mut child = Command::new("valgrind")
            .args(["--quiet", "--tool=callgrind", "--separate-threads=yes"])
            .arg(format!("--callgrind-out-file={}", path("counted").display()))
            .arg(format!("--log-file={}", path("valgrind").display()))
            .arg(env!("CARGO_BIN_EXE_herald"))
            .env_clear()
            .env("HERALD_CONFIG", path("herald.toml"))
            .env("HERALD_DATA_DIR", directory.path())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(path("log")).unwrap())
            .spawn()
            .expect("valgrind is needed, `make test` installs it");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| line.strip_prefix("listening on http://127.0.0.1:")?.parse().ok());
        // What it says later nobody reads, but it must be able to say it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, directory, port: port.expect("herald did not say where it listens") }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn backend(&self) -> Backend {
        Backend(Wire { stream: self.connect(), received: Vec::new() })
    }

    /// A client that is subscribed.
    fn client(&self, channel: &str) -> Client {
        let mut client = Client(Wire { stream: self.connect(), received: Vec::new() });
        let handshake = "GET /app/app-key?protocol=7&client=js&version=8.4.0 HTTP/1.1\r\nHost: herald\r\n\
                         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        client.0.stream.write_all(handshake.as_bytes()).unwrap();
        client.expect("pusher:connection_established");
        client.say(&json!({ "event": "pusher:subscribe", "data": { "channel": channel } }).to_string());
        client.expect("pusher_internal:subscription_succeeded");
        client
    }

    /// Ends it, and says how many instructions its one thread has taken. The database's threads have work of their own, each second.
    fn instructions(mut self) -> u64 {
        let ended = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(ended.success() && self.child.wait().unwrap().success());
        let counted = std::fs::read_to_string(self.directory.path().join("counted-01")).unwrap();
        let total = counted.lines().find_map(|line| line.strip_prefix("totals: "));
        total.expect("callgrind says a total").trim().parse().unwrap()
    }
}

impl Drop for Herald {
    fn drop(&mut self) {
        // It has ended already, unless a test has failed.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default());
        }
    }
}

struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Wire {
    /// Reads until `text` has come, and forgets all until then.
    fn read_until(&mut self, text: &str) {
        loop {
            if let Some(place) = memchr::memmem::find(&self.received, text.as_bytes()) {
                self.received.drain(..place + text.len());
                return;
            }
            let mut buffer = [0; 4096];
            let read = self.stream.read(&mut buffer).unwrap_or_else(|error| panic!("no {text:?} in time: {error}"));
            assert!(read > 0, "no {text:?} but {:?}", String::from_utf8_lossy(&self.received));
            self.received.extend_from_slice(&buffer[..read]);
        }
    }
}

struct Backend(Wire);

impl Backend {
    fn trigger(&mut self, channel: &str) {
        let body = json!({ "name": "e", "channels": [channel], "data": "x".repeat(200) }).to_string();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
        let md5 = body_md5(body.as_bytes());
        let query = [("auth_key", "app-key"), ("auth_timestamp", &now), ("auth_version", "1.0"), ("body_md5", &md5)];
        let signature = Secret::new("app-secret").sign(request_string("POST", "/apps/app-id/events", query).as_bytes());
        let query = query.map(|(name, value)| format!("{name}={value}")).join("&");
        let request = format!(
            "POST /apps/app-id/events?{query}&auth_signature={signature} HTTP/1.1\r\nHost: herald\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.stream.write_all(request.as_bytes()).unwrap();
        self.0.read_until("HTTP/1.1 200 OK\r\n");
        self.0.read_until("\r\n\r\n{}");
    }
}

struct Client(Wire);

impl Client {
    fn expect(&mut self, text: &str) {
        self.0.read_until(text);
    }

    /// Sends a short text frame, masked with zeros.
    fn say(&mut self, text: &str) {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("it is short");
        let frame = [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat();
        self.0.stream.write_all(&frame).unwrap();
    }
}
