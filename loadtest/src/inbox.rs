//! What users and their inboxes cost: notifications created a second, the time from the request to the frame in the user's client, and a
//! request to the auth endpoint; over SQLite and Postgres.
//!
//! Beside each stands what nobody can go under on this machine in the same round: the bare server's request, and for what has to be on the disk
//! a write that is synced.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use herald_protocol::Secret;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use tungstenite::Message;

use crate::clients::Backend;
use crate::measure::Readings;
use crate::report;
use crate::scenario::{GRACE, join};
use crate::server::Server;
use crate::wire;

const BACKENDS: usize = 8;
/// Users among whom notifications are created.
const USERS: usize = 1_000;
/// Created at full speed, by all backends together.
const CREATED: u32 = 4_000;
/// Created one by one for one user, so many a second.
const WATCHED: u32 = 500;
const PER_SECOND: u32 = 50;
/// Requests to the auth endpoint, by all backends together.
const AUTHORIZED: u32 = 40_000;
/// Synced writes.
const SYNCED: u32 = 200;
/// The key pair of the tests: it signs nothing elsewhere.
const KEYS: &str = include_str!("../../tests/vectors/clerk_jwt.json");

/// Where notifications are kept.
#[derive(Clone, Debug)]
enum Kept {
    File,
    Postgres(String),
}

/// What came out once.
#[derive(Clone, Copy, Debug)]
struct Figures {
    created_per_second: f64,
    cpu_per_create_us: f64,
    median_ms: f64,
    p99_ms: f64,
    cpu_per_authorization_us: f64,
    /// The bare server's CPU per request, and a synced write.
    floor_us: f64,
    synced_ms: f64,
}

/// Takes every figure `rounds` times, and prints a table.
pub(crate) fn run(herald: &Path, rounds: usize, postgres: Option<&str>) -> anyhow::Result<()> {
    let stores = std::iter::once(Kept::File).chain(postgres.map(|url| Kept::Postgres(url.to_owned())));
    let stores: Vec<Kept> = stores.collect();
    let mut figures: Vec<Vec<Figures>> = stores.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for (store, figures) in stores.iter().zip(&mut figures) {
            let came_out = measure(herald, store)?;
            eprintln!("round {round} of {rounds}: {}: {came_out:?}", store.name());
            figures.push(came_out);
        }
    }
    println!("{}\n", report::machine()?);
    println!("| what | {} |", stores.iter().map(Kept::name).collect::<Vec<_>>().join(" | "));
    println!("|---|{}", "---|".repeat(stores.len()));
    for (what, unit, figure) in ROWS {
        let columns = figures.iter().map(|figures| {
            let readings = Readings::of(figures.iter().map(figure).collect())?;
            let Readings { median, least, most } = readings;
            Some(format!("{median:.2} {unit} ({least:.2}–{most:.2})"))
        });
        let columns: Option<Vec<String>> = columns.collect();
        println!("| {what} | {} |", columns.context("nothing was measured")?.join(" | "));
    }
    Ok(())
}

/// What, in which unit, and how it is had from the figures.
type Row = (&'static str, &'static str, fn(&Figures) -> f64);

const ROWS: [Row; 9] = [
    ("notifications created a second, 8 backends, one user each", "/s", |figures| figures.created_per_second),
    ("– as a share of the synced writes a second", "×", |figures| {
        figures.created_per_second * figures.synced_ms / 1e3
    }),
    ("CPU of Herald per notification", "µs", |figures| figures.cpu_per_create_us),
    ("– ÷ the bare server's per request", "×", |figures| figures.cpu_per_create_us / figures.floor_us),
    ("from the POST to the frame, median, 50/s", "ms", |figures| figures.median_ms),
    ("from the POST to the frame, p99", "ms", |figures| figures.p99_ms),
    ("CPU per request to the auth endpoint", "µs", |figures| figures.cpu_per_authorization_us),
    ("– ÷ the bare server's per request", "×", |figures| figures.cpu_per_authorization_us / figures.floor_us),
    ("a write that is synced, for comparison", "ms", |figures| figures.synced_ms),
];

impl Kept {
    const fn name(&self) -> &'static str {
        match self {
            Self::File => "SQLite",
            Self::Postgres(_) => "Postgres",
        }
    }
}

/// A folder of one round; it goes with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let path = std::env::temp_dir().join(format!("herald-loadtest-{}-{now}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left lies in the folder for what may be deleted.
        _ = std::fs::remove_dir_all(&self.0);
    }
}

fn measure(herald: &Path, store: &Kept) -> anyhow::Result<Figures> {
    let folder = Folder::new()?;
    let data = folder.0.to_string_lossy().into_owned();
    let keys: Value = serde_json::from_str(KEYS)?;
    let key =
        |member: &str| keys["test_keys"]["a"][member].as_str().with_context(|| format!("the vectors have no {member}"));
    let schema = format!("load_{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros());
    let mut environment = vec![
        ("HERALD_DATA_DIR", data.as_str()),
        ("HERALD_LOG_LEVEL", "warn"),
        // What is measured is how much can be asked, not how much may.
        ("HERALD_LIMITS_SERVERS", "off"),
        ("HERALD_LIMITS_INBOX_READS", "off"),
        ("HERALD_AUTH_JWT_KEY", key("test_public_key_pem")?),
        ("HERALD_CLERK_AUTHORIZED_PARTIES", "https://app.example.com"),
    ];
    if let Kept::Postgres(url) = store {
        environment.extend([("HERALD_DATABASE_URL", url.as_str()), ("HERALD_DB_SCHEMA", &schema)]);
    }
    let floor = {
        let server = Server::floor(200)?;
        let requests = vec![vec![wire::trigger_request(server.address, wire::CHANNEL, 200)]; BACKENDS];
        cpu_per_request(&server, requests, AUTHORIZED)?
    };
    let server = Server::herald_with(herald, &environment)?;
    let token = token(key("kid")?, key("test_private_key_pem")?)?;
    let authorizations = vec![vec![authorization(server.address, &token)]; BACKENDS];
    let cpu_per_authorization_us = cpu_per_request(&server, authorizations, AUTHORIZED)?;
    let (median_ms, p99_ms) = post_to_frame(&server)?;
    let each = CREATED / BACKENDS as u32;
    let creations = (0..BACKENDS).map(|backend| {
        let of_backend = (0..each).map(|number| {
            let user = (backend + number as usize * BACKENDS) % USERS;
            creation(server.address, &format!("user_{user}"), &format!("full-speed-{backend}-{number}"))
        });
        of_backend.collect()
    });
    let begun = Instant::now();
    let cpu_per_create_us = cpu_per_request(&server, creations.collect(), CREATED)?;
    let created_per_second = f64::from(CREATED) / begun.elapsed().as_secs_f64();
    let synced_ms = synced(&folder.0)?;
    Ok(Figures {
        created_per_second,
        cpu_per_create_us,
        median_ms,
        p99_ms,
        cpu_per_authorization_us,
        floor_us: floor,
        synced_ms,
    })
}

/// µs of CPU per request, `times` of them from all of these backends together, each with its own requests in turn.
fn cpu_per_request(server: &Server, requests: Vec<Vec<String>>, times: u32) -> anyhow::Result<f64> {
    let each = times / u32::try_from(requests.len())?;
    let backends = requests.into_iter().map(|requests| Backend::connect(server.address, requests));
    let mut backends = backends.collect::<anyhow::Result<Vec<_>>>()?;
    let before = server.cpu()?;
    thread::scope(|scope| {
        let asking: Vec<_> =
            backends.iter_mut().map(|backend| scope.spawn(move || backend.trigger(each, None, |_| {}))).collect();
        asking.into_iter().try_for_each(join)
    })?;
    Ok((server.cpu()? - before).as_secs_f64() * 1e6 / f64::from(times))
}

/// Median and p99, in ms, from before the request is sent until the user's client has the event.
fn post_to_frame(server: &Server) -> anyhow::Result<(f64, f64)> {
    let requests = (0..WATCHED).map(|number| creation(server.address, "user_watched", &format!("watched-{number}")));
    let mut backend = Backend::connect(server.address, requests.collect())?;
    let mut client = subscribe(server.address, "private-user-user_watched")?;
    let sent = Mutex::new(Vec::with_capacity(WATCHED as usize));
    let period = Duration::from_secs(1) * WATCHED / PER_SECOND;
    let note = |_| {
        if let Ok(mut sent) = sent.lock() {
            sent.push(Instant::now());
        }
    };
    let arrived = thread::scope(|scope| -> anyhow::Result<HashMap<usize, Instant>> {
        let creating = scope.spawn(|| backend.trigger(WATCHED, Some(period), note));
        let mut arrived = HashMap::new();
        let deadline = Instant::now() + period + GRACE;
        while arrived.len() < WATCHED as usize {
            anyhow::ensure!(Instant::now() < deadline, "{} events are missing", WATCHED as usize - arrived.len());
            let Message::Text(text) = client.read()? else { continue };
            if let Some(number) = number(&text) {
                arrived.insert(number, Instant::now());
            }
        }
        join(creating)?;
        Ok(arrived)
    })?;
    let sent = sent.into_inner().map_err(|_| anyhow::anyhow!("a backend's thread panicked"))?;
    let mut times: Vec<f64> = sent
        .iter()
        .enumerate()
        .filter_map(|(number, sent)| Some((*arrived.get(&number)? - *sent).as_secs_f64() * 1e3))
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().context("nothing was measured");
    Ok((at(0.5)?, at(0.99)?))
}

/// Which of the watched notifications an event tells of.
fn number(text: &str) -> Option<usize> {
    let event: Value = serde_json::from_str(text).ok()?;
    let data: Value = serde_json::from_str(event["data"].as_str()?).ok()?;
    data["notification"]["title"].as_str()?.strip_prefix("watched-")?.parse().ok()
}

type Client = tungstenite::WebSocket<std::net::TcpStream>;

/// A client on a private channel of the app, as a backend of the app would authorize it.
fn subscribe(address: SocketAddr, channel: &str) -> anyhow::Result<Client> {
    let stream = std::net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(GRACE))?;
    let (mut client, _) = tungstenite::client(format!("ws://{address}/app/{}?protocol=7", wire::APP_KEY), stream)
        .map_err(|error| anyhow::anyhow!("the handshake failed: {error}"))?;
    let hello: Value = serde_json::from_str(client.read()?.to_text()?)?;
    let hello: Value = serde_json::from_str(hello["data"].as_str().unwrap_or_default())?;
    let socket_id = hello["socket_id"].as_str().context("no socket id")?;
    let signature = Secret::new(wire::APP_SECRET).sign(format!("{socket_id}:{channel}").as_bytes());
    let data = json!({ "channel": channel, "auth": format!("{}:{signature}", wire::APP_KEY) });
    client.send(Message::text(json!({ "event": "pusher:subscribe", "data": data }).to_string()))?;
    let answer = client.read()?;
    anyhow::ensure!(answer.to_text()?.contains("subscription_succeeded"), "not subscribed: {answer}");
    Ok(client)
}

fn creation(address: SocketAddr, user: &str, title: &str) -> String {
    let body = json!({
        "to": { "user_ids": [user] }, "type": "comment.mentioned", "title": title, "message": "Jane mentioned you in a comment",
        "action_url": "/posts/1#c1", "actor": { "id": "user_2def", "name": "Jane" }, "transaction_id": title,
    });
    wire::signed_request(address, "notifications", &body.to_string())
}

/// A request of a client for its user's own channel.
fn authorization(address: SocketAddr, token: &str) -> String {
    let body = "socket_id=1.1&channel_name=private-user-user_2abc";
    format!(
        "POST /pusher/auth HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A session token as Clerk signs it, valid for an hour.
fn token(kid: &str, private_key: &str) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": kid, "cat": "cl_B7d4PD111AAA" });
    let claims = json!({
        "v": 2, "sub": "user_2abc", "sid": "sess_1", "azp": "https://app.example.com", "sts": "active",
        "iat": now, "nbf": now - 10, "exp": now + 3_600,
    });
    let encoded = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", encoded(&header), encoded(&claims));
    let body: String = private_key.lines().filter(|line| !line.starts_with("-----")).collect();
    let pair = RsaKeyPair::from_pkcs8(&BASE64.decode(body.as_bytes())?).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut signature = vec![0; pair.public().modulus_len()];
    let done = pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature);
    done.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
}

/// ms that a page takes to be on the disk.
fn synced(folder: &Path) -> anyhow::Result<f64> {
    let mut file = File::create(folder.join("synced"))?;
    let begun = Instant::now();
    for _ in 0..SYNCED {
        file.write_all(&[7; 4_096])?;
        file.sync_data()?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3 / f64::from(SYNCED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_by_its_title() {
        let data = json!({ "rev": 7, "notification": { "title": "watched-42" } }).to_string();
        let event = json!({ "event": "notification.created", "channel": "private-user-u", "data": data });
        assert_eq!(number(&event.to_string()), Some(42));
        assert_eq!(number(r#"{"event":"pusher:ping","data":"{}"}"#), None);
    }

    #[test]
    fn a_token_has_three_parts() {
        let keys: Value = serde_json::from_str(KEYS).unwrap();
        let key = |member: &str| keys["test_keys"]["a"][member].as_str().unwrap();
        assert_eq!(token(key("kid"), key("test_private_key_pem")).unwrap().split('.').count(), 3);
    }
}
