//! One receiver of webhooks: what it wants, what waits for it, and how it is tried.
//!
//! A channel's events always take the same of `LANES` lanes, and a lane has one request under way: so events stay in order per
//! channel, at most four requests run at once, and a receiver that hangs holds up nobody but itself. One that fails again and again is
//! tried by one lane after the other, more and more seldom (its breaker). An event stays in its lane until it was delivered or given up; what is left there at the end outlives a restart. Events that were handed over from a cluster's
//! stream carry a [`Receipt`]: that is given when they are done, and what is left of them at the end is still in the stream.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use herald_protocol::webhook::{self, WebhookEvent, WebhookKind};
use parking_lot::Mutex;
use rand::RngExt as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::receipt::{DoneList, Receipt};
use super::undelivered::{About, Undelivered};
use crate::apps::App;
use crate::config::WebhookOptions;
use crate::metrics;
use crate::outgoing::Outgoing;
use crate::outgoing::breaker::{State, Thresholds};
use crate::outgoing::service::{Limits, Service, retry_after};

/// Requests under way at once.
const LANES: usize = 4;
/// Events of one request, and how long they are collected.
const BATCH_EVENTS: usize = 50;
const COLLECT: Duration = Duration::from_millis(50);
/// Events that may wait for one receiver.
const MAX_WAITING: usize = 100_000;
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// How long an event is tried; a request, until this is over for all of its events.
const TRY_FOR: Duration = Duration::from_secs(5 * 60);
/// The first pause after a failure, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A receiver that fails is left alone for a while, which only postpones: short at first, since many merely restart.
const BREAKER: Thresholds =
    Thresholds { failures: 5, open: Duration::from_secs(1), longest_open: LONGEST_PAUSE, probes: 1, successes: 1 };
/// An answer counts by its status.
const LIMITS: Limits = Limits { within: Duration::from_secs(5), bytes: 0 };

/// See the module.
#[derive(Debug)]
pub struct Receiver {
    options: WebhookOptions,
    url: Url,
    /// The same, as receipts name it.
    address: Arc<str>,
    app: Arc<App>,
    headers: HeaderMap,
    service: Arc<Service>,
    lanes: [Lane; LANES],
    waiting: Mutex<Load>,
    dropping: AtomicUsize,
    emptied: Notify,
    /// Cancelled when the server ends: pauses are cut short then.
    ending: CancellationToken,
}

#[derive(Debug, Default)]
struct Lane {
    /// In front, those of the request under way.
    events: Mutex<VecDeque<Waiting>>,
    added: Notify,
}

#[derive(Clone, Debug)]
struct Waiting {
    /// Its own id, the same whenever it is sent.
    id: Arc<str>,
    json: Arc<str>,
    time_ms: u64,
    give_up_at: Instant,
    /// The id of the request that it is in, once it is.
    delivery: Option<Arc<str>>,
    /// If it was handed over: whom to tell when it is done.
    receipt: Option<Receipt>,
}

/// What waits, in all lanes.
#[derive(Debug, Default)]
struct Load {
    events: usize,
    bytes: usize,
}

impl Load {
    /// Counts an event; false if there is no room for it.
    fn add(&mut self, bytes: usize) -> bool {
        let has_room = self.events < MAX_WAITING && self.bytes + bytes <= MAX_WAITING_BYTES;
        if has_room {
            self.events += 1;
            self.bytes += bytes;
        }
        has_room
    }
}

impl Receiver {
    /// A receiver of an app's webhooks; `None` if it has no address.
    #[must_use]
    pub fn new(app: &Arc<App>, options: &WebhookOptions, outgoing: &Outgoing) -> Option<Self> {
        let header = |(name, value): (&String, &String)| {
            Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?))
        };
        let url = options.url.clone()?;
        Some(Self {
            address: url.as_str().into(),
            url,
            app: Arc::clone(app),
            headers: options.headers.iter().filter_map(header).collect(),
            options: options.clone(),
            service: outgoing.service_that_opens("webhooks", BREAKER),
            lanes: Default::default(),
            waiting: Mutex::default(),
            dropping: AtomicUsize::new(0),
            emptied: Notify::new(),
            ending: CancellationToken::new(),
        })
    }

    /// Starts its lanes, which end when `stop` is cancelled.
    pub fn start(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        for lane in 0..LANES {
            let (receiver, stop) = (Arc::clone(self), stop.clone());
            tasks.spawn(async move { stop.run_until_cancelled(receiver.run(&receiver.lanes[lane])).await });
        }
    }

    /// Whether it wants events of this kind at all.
    #[must_use]
    pub fn wants_kind(&self, kind: WebhookKind) -> bool {
        self.options.events.contains(&kind)
    }

    /// Whether it wants this event.
    #[must_use]
    pub fn wants(&self, event: &WebhookEvent) -> bool {
        self.wants_about(event.kind(), event.channel().as_str())
    }

    /// Whether it wants events of this kind on this channel.
    #[must_use]
    pub fn wants_about(&self, kind: WebhookKind, channel: &str) -> bool {
        self.wants_kind(kind)
            && channel.starts_with(&self.options.channel_prefix)
            && channel.ends_with(&self.options.channel_suffix)
    }

    /// Its address, as receipts name it.
    #[must_use]
    pub const fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// Queues an event that has just happened; never waits. A full queue drops it, counted and logged.
    pub fn offer(&self, id: Arc<str>, channel: &str, json: Arc<str>, time_ms: u64) {
        let give_up_at = Instant::now() + TRY_FOR;
        self.queue(channel, Waiting { id, json, time_ms, give_up_at, delivery: None, receipt: None });
    }

    /// Queues an event of a stream that is tried until five minutes after it happened, or once if that is over; never waits. `done`
    /// gets its receipt: at once if a full queue drops it.
    pub fn hand_over(&self, id: &Arc<str>, channel: &str, json: Arc<str>, time_ms: u64, done: &Arc<DoneList>) {
        let left = left(time_ms, super::now_ms()).unwrap_or_default();
        let waiting = Waiting {
            id: Arc::clone(id),
            json,
            time_ms,
            give_up_at: Instant::now() + left,
            delivery: None,
            receipt: Some(Receipt::new(Arc::clone(id), Arc::clone(&self.address), Arc::clone(done))),
        };
        self.queue(channel, waiting);
    }

    /// Drops what was handed over with this list and is in no request yet, without its receipts.
    pub fn forget_handed_over(&self, done: &DoneList) {
        for lane in &self.lanes {
            let (mut events, mut bytes) = (0, 0);
            lane.events.lock().retain(|event| {
                let is_its = event.receipt.as_ref().is_some_and(|receipt| receipt.goes_to(done));
                let is_kept = !is_its || event.delivery.is_some();
                if !is_kept {
                    events += 1;
                    bytes += event.json.len();
                }
                is_kept
            });
            self.no_longer_waiting(events, bytes);
        }
    }

    /// Whether an event that was not delivered in the last run is still meant for it.
    #[must_use]
    pub fn still_wants(&self, event: &Undelivered, about: &About<'_>) -> bool {
        event.url == *self.address && about.kind().is_some_and(|kind| self.wants_about(kind, &about.channel))
    }

    /// Queues an event of the last run; false if its time is over.
    pub fn offer_again(&self, event: &Undelivered, about: &About<'_>, now_ms: u64) -> bool {
        let Some(left) = left(event.time_ms, now_ms) else { return false };
        let waiting = Waiting {
            id: event.id.as_deref().map_or_else(new_id, Arc::from),
            json: event.event.get().into(),
            time_ms: event.time_ms,
            give_up_at: Instant::now() + left,
            delivery: event.delivery.as_deref().map(Arc::from),
            receipt: None,
        };
        self.queue(&about.channel, waiting);
        true
    }

    fn queue(&self, channel: &str, event: Waiting) {
        if !self.waiting.lock().add(event.json.len()) {
            metrics::WEBHOOK_EVENTS_DROPPED.increment(1);
            // Lines for the first and each doubling: a flood of events must not become a flood of lines.
            let dropped = self.dropping.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::error!(
                    receiver = %self.name(),
                    dropped,
                    "webhook events are dropped: as many wait as may, {MAX_WAITING} or {MAX_WAITING_BYTES} bytes"
                );
            }
            return event.receipt.into_iter().for_each(Receipt::give);
        }
        self.dropping.store(0, Ordering::Relaxed);
        let mut hasher = DefaultHasher::new();
        channel.hash(&mut hasher);
        let lane = &self.lanes[(hasher.finish() % LANES as u64) as usize];
        lane.events.lock().push_back(event);
        lane.added.notify_one();
    }

    /// Events that wait, those under way included.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.lock().events
    }

    /// Returns when nothing waits.
    pub async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.waiting() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Cuts the pauses between attempts short, but for those that it has asked for.
    pub fn hurry(&self) {
        self.ending.cancel();
        self.service.hurry(FIRST_PAUSE);
    }

    /// Takes out what was not delivered, once its lanes have ended; what was handed over is still in its stream.
    pub fn take_undelivered(&self, app: &str) -> Vec<Undelivered> {
        let left: Vec<Waiting> = self.lanes.iter().flat_map(|lane| std::mem::take(&mut *lane.events.lock())).collect();
        *self.waiting.lock() = Load::default();
        let undelivered = |event: Waiting| {
            let json = RawValue::from_string(event.json.as_ref().to_owned());
            Some(Undelivered {
                id: Some(event.id.as_ref().to_owned()),
                app: app.to_owned(),
                url: self.url.to_string(),
                time_ms: event.time_ms,
                delivery: event.delivery.as_deref().map(str::to_owned),
                event: json.inspect_err(|error| tracing::error!(%error, "a webhook event is no JSON")).ok()?,
            })
        };
        left.into_iter().filter(|event| event.receipt.is_none()).filter_map(undelivered).collect()
    }

    /// Where it is and whose: user, path and query may hold a token.
    fn name(&self) -> String {
        format!("{} of the app with key {}", self.url.origin().ascii_serialization(), self.app.options().key)
    }

    async fn run(&self, lane: &Lane) {
        loop {
            let batch = self.next_batch(lane).await;
            self.deliver(&batch).await;
            self.done(lane, batch.len());
        }
    }

    async fn next_batch(&self, lane: &Lane) -> Vec<Waiting> {
        loop {
            let added = lane.added.notified();
            if !lane.events.lock().is_empty() {
                break;
            }
            added.await;
        }
        if !self.options.batch {
            return lane.begin(1);
        }
        let until = Instant::now() + COLLECT;
        while lane.events.lock().len() < BATCH_EVENTS {
            let added = lane.added.notified();
            tokio::select! {
                () = added => {}
                () = tokio::time::sleep_until(until) => break,
            }
        }
        lane.begin(BATCH_EVENTS)
    }

    /// Tries until it is delivered or its time is over.
    async fn deliver(&self, batch: &[Waiting]) {
        let Some(first) = batch.first() else { return };
        // Not of the last one: events of several nodes come in the order of their stream, and clocks differ.
        let Some(give_up_at) = batch.iter().map(|event| event.give_up_at).max() else { return };
        let jsons: Vec<&str> = batch.iter().map(|event| &*event.json).collect();
        let body = webhook::body(first.time_ms, &jsons);
        let delivery = first.delivery.as_deref().unwrap_or_default();
        let ids = batch.iter().map(|event| &*event.id).collect::<Vec<_>>().join(",");
        let mut pause = FIRST_PAUSE;
        for attempt in 1_u32.. {
            let Err(why) = self.attempt(&body, delivery, &ids).await else {
                return metrics::webhook_sent("delivered");
            };
            if Instant::now() >= give_up_at {
                metrics::webhook_sent("given_up");
                metrics::WEBHOOK_EVENTS_DROPPED.increment(batch.len() as u64);
                tracing::error!(receiver = %self.name(), delivery, attempt, why, events = batch.len(), "webhook given up");
                return;
            }
            metrics::webhook_sent("retried");
            tracing::warn!(receiver = %self.name(), delivery, attempt, why, "webhook not delivered, it is tried again");
            // Otherwise its breaker says when it is tried again, and all go on as soon as it is well.
            if self.service.state() == State::Closed {
                self.pause(pause, give_up_at).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Waits about so long, at most until `latest`; at the end of the server about the first pause.
    async fn pause(&self, pause: Duration, latest: Instant) {
        let jittered = |pause: Duration| pause.mul_f64(rand::rng().random_range(0.5..1.0));
        let next = (Instant::now() + jittered(pause)).min(latest);
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = self.ending.cancelled() => tokio::time::sleep(jittered(FIRST_PAUSE)).await,
        }
    }

    /// Tries once, as soon as the receiver may be tried.
    async fn attempt(&self, body: &str, delivery: &str, ids: &str) -> Result<(), String> {
        let (key, signature) = self.app.sign(body.as_bytes());
        let request = |client: &Client| {
            client
                .post(self.url.clone())
                .headers(self.headers.clone())
                .header("content-type", "application/json")
                .header("x-pusher-key", &key)
                .header("x-pusher-signature", &signature)
                .header("x-herald-delivery", delivery)
                .header("x-herald-event-ids", ids)
                .body(body.to_owned())
        };
        let answer = self.service.send_when_admitted(request, LIMITS).await.map_err(|error| error.to_string())?;
        if answer.status.is_success() {
            return Ok(());
        }
        if let Some(wish) = retry_after(&answer.headers) {
            self.service.postpone(wish);
        }
        Err(match answer.status {
            StatusCode::GONE => "it answered 410 Gone: remove it from the configuration if that is so".to_owned(),
            status => format!("it answered {status}"),
        })
    }

    fn done(&self, lane: &Lane, events: usize) {
        let done: Vec<Waiting> = lane.events.lock().drain(..events).collect();
        self.no_longer_waiting(events, done.iter().map(|event| event.json.len()).sum());
        done.into_iter().filter_map(|event| event.receipt).for_each(Receipt::give);
    }

    fn no_longer_waiting(&self, events: usize, bytes: usize) {
        let mut waiting = self.waiting.lock();
        waiting.events -= events;
        waiting.bytes -= bytes;
        if waiting.events == 0 {
            self.emptied.notify_waiters();
        }
    }
}

impl Lane {
    /// The events of the next request, at most `limit`; they stay in front until they are done.
    fn begin(&self, limit: usize) -> Vec<Waiting> {
        let mut events = self.events.lock();
        let tried = events.front().and_then(|first| first.delivery.clone());
        let same = events.iter().take_while(|event| event.delivery == tried);
        // What was tried before a restart is tried again as it was, unless requests have become smaller.
        let (delivery, count) = match tried.clone() {
            None => (new_id(), same.take(limit).count()),
            Some(delivery) => match same.count() {
                count if count <= limit => (delivery, count),
                count => {
                    events.iter_mut().take(count).for_each(|event| event.delivery = None);
                    (new_id(), limit)
                }
            },
        };
        let next = events.iter_mut().take(count).map(|event| {
            event.delivery = Some(Arc::clone(&delivery));
            event.clone()
        });
        next.collect()
    }
}

/// How long an event that happened then is still to be tried; `None` if its time is over.
fn left(time_ms: u64, now_ms: u64) -> Option<Duration> {
    TRY_FOR.checked_sub(Duration::from_millis(now_ms.saturating_sub(time_ms)))
}

/// An id for an event or a request.
#[must_use]
pub fn new_id() -> Arc<str> {
    format!("{:032x}", rand::rng().random::<u128>()).into()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::apps::Apps;
    use crate::config::AppOptions;

    fn waiting(data: u64, delivery: Option<&str>) -> Waiting {
        Waiting {
            id: format!("event-{data}").into(),
            json: data.to_string().into(),
            time_ms: 0,
            give_up_at: Instant::now(),
            delivery: delivery.map(Arc::from),
            receipt: None,
        }
    }

    fn receiver(url: &str) -> Arc<Receiver> {
        let options = WebhookOptions { url: Some(url.parse().unwrap()), batch: false, ..WebhookOptions::default() };
        let app = AppOptions { key: "app-key".to_owned(), ..AppOptions::default() };
        let app = Apps::new(vec![app]).by_key("app-key").unwrap();
        Arc::new(Receiver::new(&app, &options, &Outgoing::new().unwrap()).unwrap())
    }

    fn hand_over(receiver: &Receiver, id: &str, time_ms: u64, done: &Arc<DoneList>) {
        receiver.hand_over(&id.into(), "hall", format!("\"{id}\"").into(), time_ms, done);
    }

    fn ids(done: &DoneList) -> Vec<String> {
        done.take_all().into_iter().map(|done| done.id.to_string()).collect()
    }

    /// Reads one request at a time and answers it with the next of these; then it hangs.
    async fn answering(answers: &'static [&'static str]) -> (String, TaskTracker) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let tasks = TaskTracker::new();
        tasks.spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"]}") {
                    stream.read_buf(&mut request).await.unwrap();
                }
                let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        (url, tasks)
    }

    #[tokio::test]
    async fn a_receipt_is_given_when_its_event_was_delivered_or_given_up() {
        let (url, _serving) = answering(&["200 OK", "500 Oh no", "503 Later", "204 No Content"]).await;
        let (receiver, done) = (receiver(&url), Arc::new(DoneList::default()));
        let now = super::super::now_ms();
        hand_over(&receiver, "delivered", now, &done);
        hand_over(&receiver, "its-time-is-over", now - 301_000, &done);
        hand_over(&receiver, "delivered-later", now - 290_000, &done);
        hand_over(&receiver, "under-way", now, &done);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        receiver.start(&tasks, &stop);
        let mut found = Vec::new();
        while found.len() < 3 {
            found.extend(done.take_all().into_iter().map(|done| (done.id.to_string(), done.url.to_string())));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let expected = ["delivered", "its-time-is-over", "delivered-later"];
        assert_eq!(found, expected.map(|id| (id.to_owned(), url.clone())));
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        assert_eq!(receiver.waiting(), 1);
        assert_eq!(receiver.take_undelivered("app-id").len(), 0, "it is still in the stream");
        drop(receiver);
        assert_eq!(ids(&done), [""; 0], "what merely goes away is not done");
    }

    #[tokio::test]
    async fn a_full_queue_gives_the_receipt_at_once() {
        let (receiver, done) = (receiver("http://127.0.0.1:1/"), Arc::new(DoneList::default()));
        receiver.waiting.lock().events = MAX_WAITING - 1;
        hand_over(&receiver, "fits", 0, &done);
        assert_eq!(ids(&done), [""; 0]);
        hand_over(&receiver, "dropped", 0, &done);
        assert_eq!(ids(&done), ["dropped"]);
    }

    #[tokio::test]
    async fn only_what_this_node_has_alone_is_written_down() {
        let (receiver, done) = (receiver("http://127.0.0.1:1/"), Arc::new(DoneList::default()));
        hand_over(&receiver, "of-the-stream", 0, &done);
        receiver.offer("of-this-node".into(), "hall", "1".into(), 7);
        let left = receiver.take_undelivered("app-id");
        let [event] = &left[..] else { panic!("one event: {left:?}") };
        assert_eq!((event.id.as_deref(), event.time_ms), (Some("of-this-node"), 7));
        assert_eq!((receiver.waiting(), ids(&done).len()), (0, 0));
    }

    #[tokio::test]
    async fn what_is_forgotten_was_handed_over_and_is_in_no_request() {
        let (receiver, done) = (receiver("http://127.0.0.1:1/"), Arc::new(DoneList::default()));
        for id in ["under-way", "forgotten"] {
            hand_over(&receiver, id, 0, &done);
        }
        receiver.offer("of-this-node".into(), "hall", "12345".into(), 0);
        hand_over(&receiver, "forgotten-too", 0, &done);
        let lane = receiver.lanes.iter().find(|lane| !lane.events.lock().is_empty()).unwrap();
        assert_eq!(&*lane.begin(1)[0].id, "under-way");
        receiver.forget_handed_over(&done);
        let left = || lane.events.lock().iter().map(|event| event.id.to_string()).collect::<Vec<_>>();
        assert_eq!(left(), ["under-way", "of-this-node"]);
        assert_eq!(receiver.waiting.lock().bytes, "\"under-way\"".len() + 5);
        assert_eq!((receiver.waiting(), ids(&done).len()), (2, 0), "nobody is told");
        receiver.done(lane, 1);
        assert_eq!(ids(&done), ["under-way"], "its request was still answered");
        assert_eq!(left(), ["of-this-node"]);
        receiver.done(lane, 1);
        receiver.forget_handed_over(&done);
        receiver.empty().await;
    }

    /// Empties a lane by requests of at most `limit` events; each with its id, or a dash if that is a new one.
    fn requests(lane: &Lane, known: &[&str], limit: usize) -> Vec<(String, Vec<String>)> {
        let mut requests = Vec::new();
        let mut ids = Vec::new();
        while !lane.events.lock().is_empty() {
            let batch = lane.begin(limit);
            assert_eq!(lane.begin(limit).len(), batch.len(), "begun again, it is the same");
            let id = batch[0].delivery.clone().unwrap();
            assert!(batch.iter().all(|event| event.delivery.as_ref() == Some(&id)));
            assert!(!ids.contains(&id), "an id of its own");
            let shown = if known.contains(&&*id) { id.to_string() } else { "-".to_owned() };
            requests.push((shown, batch.iter().map(|event| event.json.to_string()).collect()));
            ids.push(id);
            lane.events.lock().drain(..batch.len());
        }
        requests
    }

    #[test]
    fn a_request_is_repeated_as_it_was_unless_it_has_become_too_big() {
        let ids = ["a", "b"];
        for (limit, expected, rule) in [
            (50, "a:1,2 b:3,4,5 -:6,7", "each as it was tried, the others together"),
            (2, "a:1,2 -:3,4 -:5,6 -:7", "too big for one request: new ids, since they stand for other requests"),
            (1, "-:1 -:2 -:3 -:4 -:5 -:6 -:7", "one event each"),
        ] {
            let lane = Lane::default();
            let tried = [Some("a"), Some("a"), Some("b"), Some("b"), Some("b"), None, None];
            lane.events.lock().extend((1..).zip(tried).map(|(data, delivery)| waiting(data, delivery)));
            let found: Vec<_> =
                requests(&lane, &ids, limit).iter().map(|(id, events)| format!("{id}:{}", events.join(","))).collect();
            assert_eq!(found.join(" "), expected, "{rule}");
        }
    }

    #[test]
    fn the_log_names_a_receiver_without_what_may_be_a_token() {
        let receiver = receiver("https://t0ken:t0ken@hooks.example.com:8443/services/t0ken?key=t0ken");
        assert_eq!(receiver.name(), "https://hooks.example.com:8443 of the app with key app-key");
    }
}
