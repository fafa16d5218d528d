//! A rolling restart: nodes behind one address end in order and are replaced one by one, while thousands are subscribed and events flow.
//!
//! Nobody is refused, everybody comes back, and whoever is subscribed gets what is published. What a client misses is what was published
//! between its goodbye and its next subscription; the test prints how much that was.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, timeout};

use crate::balancer::Balancer;
use crate::nodes::{Nodes, until_equal};
use crate::redis::Redis;
use crate::support::wire::Wire;
use crate::support::{App, DEADLINE, Frame};

const CLIENTS: usize = 2_000;
/// So many of them are members of [`ROOM`], each a user of his own; the others are spread over the plain channels.
const MEMBERS: usize = 100;
const PLAIN_CHANNELS: usize = 20;
const ROOM: &str = "presence-room";
/// Clients that come at once in the beginning.
const AT_ONCE: usize = 200;
/// An event each 50 ms, on each of this many channels.
const PAUSE: Duration = Duration::from_millis(50);
const CHANNELS_OF_AN_EVENT: usize = 4;
/// How long a backend waits before it tries again, and a client whose server did not tell it to come back at once.
const BACKEND_BACK_OFF: Duration = Duration::from_millis(100);
const CLIENT_BACK_OFF: Duration = Duration::from_secs(1);
/// An event that is published as a client is sent away may cross the goodbye; one that was answered this long before cannot, however
/// busy the machine is.
const CROSSING: Duration = Duration::from_secs(3);
/// Descriptors of this process: a client's, and the balancer's two.
const DESCRIPTORS: u64 = 3 * CLIENTS as u64 + 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_refuses_nobody_and_who_is_subscribed_misses_nothing() {
    assert!(rlimit::increase_nofile_limit(DESCRIPTORS).unwrap() >= DESCRIPTORS, "`ulimit -Hn` is too low");
    let redis = Redis::start();
    let config = "connection.activity_timeout = \"5m\"\nshutdown = { delay = \"500ms\", drain = \"5s\" }\n\
                  cluster = { heartbeat = \"5s\", node_timeout = \"15s\" }";
    let mut nodes = Nodes::start(&redis.url(), 3, config).await;
    let app = nodes[0].app.clone();
    let balancer = Balancer::before(nodes.iter().map(|node| node.address)).await;
    let clients = gather(balancer.address, &app).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let publishing = tokio::spawn(publish(balancer.address, app, Arc::clone(&is_over)));

    let began = Instant::now();
    for position in 0..nodes.len() {
        nodes[position].terminate();
        assert!(nodes[position].ended().await.success(), "a node ends in order");
        nodes.replace(position).await;
        balancer.replace(position, nodes[position].address);
        nodes.until_all_say("/connections", &[], &json!({ "connections": CLIENTS })).await;
        until_subscribed(&clients).await;
    }
    let took = began.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let published = publishing.await.unwrap();

    until_equal(&Vec::<String>::new(), "what was not delivered to who was subscribed", async || {
        clients.iter().flat_map(|client| client.lost(&published)).take(10).collect()
    })
    .await;
    occupancy_is_true(&nodes).await;
    presence_is_true(&nodes, &clients).await;
    assert_eq!(problems(&clients), Vec::<String>::new());
    eprintln!("{}", summary(&clients, &published, took));
}

async fn occupancy_is_true(nodes: &Nodes) {
    let each = (CLIENTS - MEMBERS) / PLAIN_CHANNELS;
    for channel in 0..PLAIN_CHANNELS {
        let here = json!({ "occupied": true, "subscription_count": each });
        let path = format!("/channels/{}", channel_name(channel));
        nodes.until_all_say(&path, &[("info", "subscription_count")], &here).await;
    }
    let here = json!({ "occupied": true, "subscription_count": MEMBERS, "user_count": MEMBERS });
    nodes.until_all_say(&format!("/channels/{ROOM}"), &[("info", "subscription_count,user_count")], &here).await;
}

/// For whichever node is asked, and for each member who kept the list.
async fn presence_is_true(nodes: &Nodes, clients: &[Arc<Client>]) {
    let users: Vec<String> = (0..MEMBERS).map(user_name).collect();
    nodes.until_members_are(ROOM, &users.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let users = BTreeSet::from_iter(users);
    for client in clients.iter().filter(|client| client.user.is_some()) {
        until_equal(&users, "a member's list", async || client.seen.lock().members.clone()).await;
    }
}

/// The channels by number; the last is the room.
fn channel_name(number: usize) -> String {
    if number == PLAIN_CHANNELS { ROOM.to_owned() } else { format!("news-{number}") }
}

fn user_name(number: usize) -> String {
    format!("user-{number:03}")
}

/// An event that was published; its number is its place in the list of all.
#[derive(Clone, Copy, Debug)]
struct Published {
    /// Before its first attempt.
    sent: Instant,
    /// After its last.
    answered: Instant,
}

/// The channels of an event.
fn channels_of(number: usize) -> impl Iterator<Item = usize> {
    (0..CHANNELS_OF_AN_EVENT).map(move |step| (CHANNELS_OF_AN_EVENT * number + step) % (PLAIN_CHANNELS + 1))
}

/// Publishes as a backend does that means every event: what is refused with 503 or breaks is sent again under the same key.
async fn publish(address: SocketAddr, app: App, is_over: Arc<AtomicBool>) -> Vec<Published> {
    let api = crate::support::api::Api::new(address, app);
    let mut published = Vec::new();
    let mut ticks = tokio::time::interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !is_over.load(Ordering::Relaxed) {
        ticks.tick().await;
        let number = published.len();
        let channels: Vec<String> = channels_of(number).map(channel_name).collect();
        let event = json!({ "name": "numbered", "channels": channels, "data": number.to_string() });
        let keyed = format!("Connection: close\r\nIdempotency-Key: {:032x}\r\n", rand::random::<u128>());
        let request = api.events_request(&event).replacen("Connection: close\r\n", &keyed, 1);
        let sent = Instant::now();
        while !is_taken(address, &request).await {
            assert!(sent.elapsed() < DEADLINE, "event {number} is refused again and again");
            tokio::time::sleep(BACKEND_BACK_OFF).await;
        }
        published.push(Published { sent, answered: Instant::now() });
    }
    published
}

/// Sends a request; false if it has to be sent again.
async fn is_taken(address: SocketAddr, request: &str) -> bool {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = timeout(DEADLINE, exchange).await.expect("an answer in time").unwrap_or_default();
    let is_taken = answer.starts_with("HTTP/1.1 200 ");
    assert!(is_taken || answer.is_empty() || answer.starts_with("HTTP/1.1 503 "), "{answer}");
    is_taken
}

/// A client that stays: whenever its connection ends it comes back, as pusher-js does.
#[derive(Debug)]
struct Client {
    address: SocketAddr,
    app: App,
    channel: usize,
    user: Option<String>,
    seen: Mutex<Seen>,
}

/// What it has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Since when it was subscribed, and until when.
    sessions: Vec<(Instant, Option<Instant>)>,
    received: HashSet<usize>,
    members: BTreeSet<String>,
    /// Attempts to connect that ended before the hello, by what came instead.
    attempts: BTreeMap<String, usize>,
    problems: Vec<String>,
}

/// How a connection ended.
#[derive(Debug)]
enum Ended {
    /// Before there was one.
    Unconnected(String),
    /// Without a goodbye.
    Broken,
    /// With this code.
    Closed(u16),
}

async fn gather(address: SocketAddr, app: &App) -> Vec<Arc<Client>> {
    let mut clients = Vec::new();
    while clients.len() < CLIENTS {
        for number in clients.len()..(clients.len() + AT_ONCE).min(CLIENTS) {
            let (channel, user) = match number.checked_sub(CLIENTS - MEMBERS) {
                Some(member) => (PLAIN_CHANNELS, Some(user_name(member))),
                None => (number % PLAIN_CHANNELS, None),
            };
            let client = Client { address, app: app.clone(), channel, user, seen: Mutex::default() };
            let client = Arc::new(client);
            clients.push(Arc::clone(&client));
            tokio::spawn(async move { client.stay().await });
        }
        until_subscribed(&clients).await;
    }
    clients
}

async fn until_subscribed(clients: &[Arc<Client>]) {
    until_equal(&0, "clients that are not subscribed", async || {
        assert_eq!(problems(clients), Vec::<String>::new());
        clients.iter().filter(|client| !client.is_subscribed()).count()
    })
    .await;
}

/// The first of what should not have happened.
fn problems(clients: &[Arc<Client>]) -> Vec<String> {
    clients.iter().flat_map(|client| client.seen.lock().problems.clone()).take(10).collect()
}

impl Client {
    async fn stay(&self) {
        loop {
            match self.connect_once().await {
                Ended::Closed(4200) => continue, // come back at once
                Ended::Unconnected(answer) => *self.seen.lock().attempts.entry(answer).or_default() += 1,
                ended => self.problem(&format!("{ended:?}")),
            }
            tokio::time::sleep(CLIENT_BACK_OFF).await;
        }
    }

    /// One connection, to its end.
    async fn connect_once(&self) -> Ended {
        let mut wire = match self.upgrade().await {
            Ok(Ok(wire)) => wire,
            Ok(Err(answer)) => return Ended::Unconnected(answer),
            Err(error) => return Ended::Unconnected(error.kind().to_string()),
        };
        let (mut here, mut is_known) = (HashSet::new(), false);
        let ended = loop {
            match wire.read().await {
                Ok(Some(frame)) if frame.opcode == Frame::CLOSE => {
                    // The server may be gone before it has read this.
                    _ = wire.write(&frame.masked()).await;
                    break Ended::Closed(frame.close().0);
                }
                Ok(Some(frame)) => {
                    is_known = true;
                    if let Some(answer) = self.receive(&frame, &mut here) {
                        _ = wire.write(&Frame::new(Frame::TEXT, answer).masked()).await; // that it broke, the next read tells
                    }
                }
                _ if is_known => break Ended::Broken,
                _ => break Ended::Unconnected("no hello".to_owned()),
            }
        };
        if let Some((_, until @ None)) = self.seen.lock().sessions.last_mut() {
            *until = Some(Instant::now());
        }
        ended
    }

    /// The connection, or what the upgrade was answered with.
    async fn upgrade(&self) -> io::Result<Result<Wire, String>> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /app/{}?protocol=7&client=test&version=1.0 HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.app.key, self.address
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let end = loop {
            if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let (head, ahead) = answer.split_at(end);
        if head.starts_with(b"HTTP/1.1 101 ") {
            return Ok(Ok(Wire::new(stream, ahead)));
        }
        let status = String::from_utf8_lossy(head).lines().next().unwrap_or_default().to_owned();
        if !status.starts_with("HTTP/1.1 503 ") {
            self.problem(&status);
        }
        Ok(Err(status))
    }

    /// Notes what came; what there is to answer.
    fn receive(&self, frame: &Frame, here: &mut HashSet<usize>) -> Option<String> {
        let mut seen = self.seen.lock();
        let text = String::from_utf8_lossy(&frame.payload);
        let event: Value = serde_json::from_str(&text).unwrap_or_default();
        let data = || serde_json::from_str::<Value>(event["data"].as_str().unwrap_or_default()).unwrap_or_default();
        let user = || data()["user_id"].as_str().unwrap_or_default().to_owned();
        let is_right = match event["event"].as_str().unwrap_or_default() {
            "pusher:connection_established" => {
                return Some(self.subscription(data()["socket_id"].as_str().unwrap_or_default()));
            }
            "pusher_internal:subscription_succeeded" => {
                let ids = data()["presence"]["ids"].take();
                seen.members = serde_json::from_value(ids).unwrap_or_default();
                seen.sessions.push((Instant::now(), None));
                true
            }
            "numbered" => data().as_u64().is_some_and(|number| {
                seen.received.insert(number as usize);
                here.insert(number as usize) // false: it came before, over the same connection
            }),
            "pusher_internal:member_added" => seen.members.insert(user()),
            "pusher_internal:member_removed" => seen.members.remove(&user()),
            "pusher:error" => event["data"]["code"] == 4200, // the goodbye, for clients that know no close codes
            _ => false,
        };
        drop(seen);
        if !is_right {
            self.problem(&text);
        }
        None
    }

    fn problem(&self, what: &str) {
        let who = self.user.clone().unwrap_or_else(|| format!("a client of {}", channel_name(self.channel)));
        self.seen.lock().problems.push(format!("{who} got {what}"));
    }

    fn subscription(&self, socket_id: &str) -> String {
        let channel = channel_name(self.channel);
        let mut data = json!({ "channel": channel });
        if let Some(user) = &self.user {
            let channel_data = json!({ "user_id": user }).to_string();
            data["auth"] = self.app.authorize(socket_id.parse().unwrap(), &channel, Some(&channel_data)).into();
            data["channel_data"] = channel_data.into();
        }
        json!({ "event": "pusher:subscribe", "data": data }).to_string()
    }

    fn is_subscribed(&self) -> bool {
        self.seen.lock().sessions.last().is_some_and(|(_, until)| until.is_none())
    }

    /// The events of its channel that were sent since it was subscribed for the first time.
    fn due(&self, published: &[Published]) -> Vec<(usize, Published)> {
        let since = self.seen.lock().sessions[0].0;
        let is_due = |(number, event): &(usize, Published)| {
            event.sent > since && channels_of(*number).any(|channel| channel == self.channel)
        };
        published.iter().copied().enumerate().filter(is_due).collect()
    }

    /// Those that did not come.
    fn missed(&self, published: &[Published]) -> Vec<(usize, Published)> {
        let mut due = self.due(published);
        let seen = self.seen.lock();
        due.retain(|(number, _)| !seen.received.contains(number));
        due
    }

    /// When it was away: since its goodbye, until it was subscribed again.
    fn absences(&self) -> Vec<(Instant, Instant)> {
        let seen = self.seen.lock();
        seen.sessions.windows(2).map(|pair| (pair[0].1.unwrap(), pair[1].0)).collect()
    }

    /// What it missed although it was there.
    fn lost(&self, published: &[Published]) -> Vec<String> {
        let absences = self.absences();
        let was_away = |event: &Published| {
            absences.iter().any(|(since, until)| event.sent <= *until && event.answered + CROSSING >= *since)
        };
        let missed = self.missed(published).into_iter();
        let lost = missed.filter(|(_, event)| !was_away(event));
        let sessions = self.seen.lock().sessions.clone();
        lost.map(|(number, event)| format!("event {number}: {event:?}; subscribed: {sessions:?}")).collect()
    }
}

/// What it cost, in a line.
fn summary(clients: &[Arc<Client>], published: &[Published], took: Duration) -> String {
    let [due, missed] = [Client::due, Client::missed]
        .map(|events| clients.iter().map(|client| events(client, published).len() as f64).collect::<Vec<_>>());
    let absences = clients.iter().flat_map(|client| client.absences());
    let away: Vec<f64> = absences.map(|(since, until)| (until - since).as_secs_f64() * 1e3).collect();
    let mut attempts = BTreeMap::<String, usize>::new();
    for (answer, times) in clients.iter().flat_map(|client| client.seen.lock().attempts.clone()) {
        *attempts.entry(answer).or_default() += times;
    }
    format!(
        "3 nodes restarted in {took:.1?} under {CLIENTS} clients and {} events/s; missed per client: {} of {:.0} events, {:.2} % of all; \
         away, {} times: {} ms; attempts to connect that failed: {attempts:?}",
        (1.0 / PAUSE.as_secs_f64()).round(),
        spread(&missed, 0),
        due.iter().sum::<f64>() / due.len() as f64,
        100.0 * missed.iter().sum::<f64>() / due.iter().sum::<f64>(),
        away.len(),
        spread(&away, 1),
    )
}

fn spread(values: &[f64], digits: usize) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    format!("median {:.digits$}, p95 {:.digits$}, max {:.digits$}", at(0.5), at(0.95), at(1.0))
}
