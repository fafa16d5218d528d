//! Webhooks going out (section 5): what happened on channels becomes signed requests to the app's receivers.
//!
//! The hub reports under a channel's lock, so what is reported of a channel comes in its true order: [`AppWebhooks::entered`] and
//! [`AppWebhooks::left`]. Departures are held back here for `GRACE` and cancelled by a return; what remains goes to every
//! [`receiver::Receiver`] that wants it. Always: reporting never waits, so no receiver slows a socket; per channel `occupied` and
//! `vacated` alternate, and so do `member_added` and `member_removed` of a user.
//!
//! In a cluster events wait in a stream instead, and the node that owns it hands them over: [`AppWebhooks::hand_over`].

pub mod receipt;
pub mod receiver;
pub mod undelivered;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use herald_protocol::webhook::{WebhookEvent, WebhookKind};
use herald_protocol::{ChannelName, UserId};
use parking_lot::{Mutex, RwLock};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::apps::{App, Apps};
use crate::due::DueList;
use crate::metrics;
use crate::outgoing::Outgoing;
use receipt::DoneList;
use receiver::Receiver;
use undelivered::{About, Undelivered};

/// How long a departure is held back, so that a page's reload goes unnoticed.
const GRACE: Duration = Duration::from_secs(3);
/// A channel's empty cache is told once within this time.
const CACHE_MISS_PAUSE: Duration = Duration::from_secs(10);
/// How long, at an end in order, receivers are still tried.
pub const LAST_DELIVERIES: Duration = Duration::from_secs(5);

/// The webhooks of all apps.
#[derive(Debug)]
pub struct Webhooks {
    apps: RwLock<HashMap<String, Arc<AppWebhooks>>>,
    outgoing: Outgoing,
    folder: PathBuf,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The webhooks of one app.
#[derive(Debug)]
pub struct AppWebhooks {
    receivers: Vec<Arc<Receiver>>,
    transitions: Mutex<Transitions>,
    due: DueList<Due>,
}

#[derive(Debug, Default)]
struct Transitions {
    /// Departures that are held back, each with the number that its due entry must still have.
    departures: HashMap<Subject, u64>,
    /// Channels whose empty cache was told lately.
    cache_misses: HashSet<ChannelName>,
    numbers: u64,
}

/// Who has departed: the last subscriber of a channel, or a member.
type Subject = (ChannelName, Option<UserId>);

#[derive(Debug)]
enum Due {
    Departure(Subject, u64),
    CacheMiss(ChannelName),
}

impl Webhooks {
    /// The webhooks of these apps, delivered by tasks that run until [`Webhooks::finish`]. First comes what the last run has left in
    /// `folder`.
    #[must_use]
    pub fn start(apps: &Apps, outgoing: &Outgoing, folder: &Path) -> Self {
        let webhooks = Self {
            apps: RwLock::default(),
            outgoing: outgoing.clone(),
            folder: folder.to_owned(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        apps.iter().for_each(|app| webhooks.add(&app));
        webhooks.offer_again(&undelivered::take(folder));
        webhooks
    }

    /// Those of an app that is new, if it has any.
    pub fn add(&self, app: &Arc<App>) {
        if app.options().webhooks.is_empty() {
            return;
        }
        let webhooks = Arc::new(AppWebhooks::new(app, &self.outgoing));
        webhooks.receivers.iter().for_each(|receiver| receiver.start(&self.tasks, &self.stop));
        let (timed, stopped) = (Arc::clone(&webhooks), self.stop.clone());
        self.tasks.spawn(async move {
            while let Some(due) = stopped.run_until_cancelled(timed.due.next()).await {
                timed.settle(due);
            }
        });
        self.apps.write().insert(app.id().to_owned(), webhooks);
    }

    /// Those of an app, if it has any.
    #[must_use]
    pub fn of(&self, app: &App) -> Option<Arc<AppWebhooks>> {
        self.apps.read().get(app.id()).cloned()
    }

    /// Events that wait for their delivery.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.receivers().map(|receiver| receiver.waiting()).sum()
    }

    /// Says what was held back, tries for a while to deliver all of it, and ends the tasks. What is left then is written down for the
    /// next start.
    pub async fn finish(&self, try_for: Duration) {
        self.settle_all();
        self.receivers().for_each(|receiver| receiver.hurry());
        let all_delivered = async {
            for receiver in self.receivers() {
                receiver.empty().await;
            }
        };
        // Whether or not it was in time: what is left is looked for below.
        _ = timeout(try_for, all_delivered).await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.settle_all();
        self.write_undelivered();
    }

    fn settle_all(&self) {
        for webhooks in self.apps.read().values() {
            webhooks.due.take_all().into_iter().for_each(|due| webhooks.settle(due));
        }
    }

    fn write_undelivered(&self) {
        let mut left = Vec::new();
        for (app, webhooks) in &*self.apps.read() {
            webhooks.receivers.iter().for_each(|receiver| left.extend(receiver.take_undelivered(app)));
        }
        if left.is_empty() {
            return;
        }
        let (events, folder) = (left.len(), self.folder.display());
        match undelivered::write(&self.folder, &left) {
            Ok(()) => {
                tracing::warn!(events, %folder, "webhook events were not delivered: the next start tries them again");
            }
            Err(error) => {
                metrics::WEBHOOK_EVENTS_DROPPED.increment(events as u64);
                tracing::error!(events, %folder, %error, "webhook events are lost: not delivered, and they cannot be written down");
            }
        }
    }

    /// Queues what the last run could not deliver, in its order; what nobody is to get any more is counted and logged.
    fn offer_again(&self, events: &[Undelivered]) {
        let (mut again, mut unwanted, mut too_old) = (0_u64, 0_u64, 0_u64);
        let now = now_ms();
        let apps = self.apps.read();
        for event in events {
            let about = event.about();
            let wanted = about.as_ref().and_then(|about| {
                let receivers = &apps.get(&event.app)?.receivers;
                Some((receivers.iter().find(|receiver| receiver.still_wants(event, about))?, about))
            });
            match wanted {
                None => unwanted += 1,
                Some((receiver, about)) if receiver.offer_again(event, about, now) => again += 1,
                Some(_) => too_old += 1,
            }
        }
        if again > 0 {
            tracing::info!(events = again, "webhook events that the last run could not deliver are tried again");
        }
        metrics::WEBHOOK_EVENTS_DROPPED.increment(unwanted + too_old);
        for (events, why) in [(unwanted, "no configured receiver wants them"), (too_old, "their time is over")] {
            if events > 0 {
                tracing::error!(events, why, "webhook events of the last run are dropped");
            }
        }
    }

    fn receivers(&self) -> impl Iterator<Item = Arc<Receiver>> + use<> {
        let apps = self.apps.read();
        apps.values().flat_map(|webhooks| &webhooks.receivers).cloned().collect::<Vec<_>>().into_iter()
    }
}

impl AppWebhooks {
    fn new(app: &Arc<App>, outgoing: &Outgoing) -> Self {
        let options = app.options();
        let receivers = options.webhooks.iter().filter_map(|options| Receiver::new(app, options, outgoing));
        Self { receivers: receivers.map(Arc::new).collect(), transitions: Mutex::default(), due: DueList::default() }
    }

    /// The first subscriber has entered `channel`, or the user's first connection if one is named; call this under the channel's lock.
    pub fn entered(&self, channel: &ChannelName, user: Option<&UserId>) {
        let mut transitions = self.transitions.lock();
        if transitions.has_returned(channel, user) {
            return;
        }
        let channel = channel.clone();
        self.deliver(&match user.cloned() {
            None => WebhookEvent::ChannelOccupied { channel },
            Some(user_id) => WebhookEvent::MemberAdded { channel, user_id },
        });
    }

    /// The last subscriber has left `channel`, or the user's last connection if one is named; call this under the channel's lock.
    pub fn left(&self, channel: &ChannelName, user: Option<&UserId>) {
        let subject = (channel.clone(), user.cloned());
        let number = self.transitions.lock().depart(subject.clone());
        self.due.add(Instant::now() + GRACE, Due::Departure(subject, number));
    }

    /// A subscriber has met an empty cache.
    pub fn missed(&self, channel: &ChannelName) {
        if self.transitions.lock().cache_misses.insert(channel.clone()) {
            self.due.add(Instant::now() + CACHE_MISS_PAUSE, Due::CacheMiss(channel.clone()));
            self.deliver(&WebhookEvent::CacheMiss { channel: channel.clone() });
        }
    }

    /// Whether a receiver wants events of this kind.
    #[must_use]
    pub fn want(&self, kind: WebhookKind) -> bool {
        self.receivers.iter().any(|receiver| receiver.wants_kind(kind))
    }

    /// Hands an event to the receivers that want it; never waits.
    pub fn deliver(&self, event: &WebhookEvent) {
        let mut told = None;
        for receiver in self.receivers.iter().filter(|receiver| receiver.wants(event)) {
            let (id, json): &(Arc<str>, Arc<str>) =
                told.get_or_insert_with(|| (receiver::new_id(), event.json().into()));
            receiver.offer(Arc::clone(id), event.channel().as_str(), Arc::clone(json), now_ms());
        }
    }

    /// The addresses that want an event of this kind on this channel, each once.
    #[must_use]
    pub fn urls_for(&self, kind: WebhookKind, channel: &str) -> Vec<Arc<str>> {
        let mut urls: Vec<Arc<str>> = Vec::new();
        for receiver in self.receivers.iter().filter(|receiver| receiver.wants_about(kind, channel)) {
            if !urls.contains(receiver.address()) {
                urls.push(Arc::clone(receiver.address()));
            }
        }
        urls
    }

    /// Hands an event of a stream to the receiver at `url`, to be tried until five minutes after `time_ms`; never waits. False if
    /// there is no such receiver; else `done` learns when it is done with the event, which a full queue is at once.
    ///
    /// The receiver is told `id`, as a part of a header: visible ASCII without commas.
    #[must_use]
    pub fn hand_over(
        &self,
        id: &Arc<str>,
        url: &str,
        channel: &str,
        json: Arc<str>,
        time_ms: u64,
        done: &Arc<DoneList>,
    ) -> bool {
        let there = || self.receivers.iter().filter(|receiver| **receiver.address() == *url);
        // Of several receivers that share the address, the one that wants it has the queue in which it keeps its order.
        let kind = serde_json::from_str::<About<'_>>(&json).ok().and_then(|about| about.kind());
        let wanting = there().find(|receiver| kind.is_some_and(|kind| receiver.wants_about(kind, channel)));
        let Some(receiver) = wanting.or_else(|| there().next()) else { return false };
        receiver.hand_over(id, channel, json, time_ms, done);
        true
    }

    /// Drops what was handed over with this list and is in no request yet, without a word to it: another node hands it over now.
    pub fn forget_handed_over(&self, done: &DoneList) {
        self.receivers.iter().for_each(|receiver| receiver.forget_handed_over(done));
    }

    fn settle(&self, due: Due) {
        let mut transitions = self.transitions.lock();
        match due {
            Due::CacheMiss(channel) => {
                transitions.cache_misses.remove(&channel);
            }
            Due::Departure(subject, number) => {
                if transitions.departures.get(&subject) != Some(&number) {
                    return;
                }
                transitions.departures.remove(&subject);
                // Still under the lock: a return from now on finds nothing to cancel, and its event comes after this one.
                self.deliver(&match subject {
                    (channel, None) => WebhookEvent::ChannelVacated { channel },
                    (channel, Some(user_id)) => WebhookEvent::MemberRemoved { channel, user_id },
                });
            }
        }
    }
}

impl Transitions {
    fn depart(&mut self, subject: Subject) -> u64 {
        self.numbers += 1;
        self.departures.insert(subject, self.numbers);
        self.numbers
    }

    /// Cancels a departure that is held back; false if there is none.
    fn has_returned(&mut self, channel: &ChannelName, user: Option<&UserId>) -> bool {
        self.departures.remove(&(channel.clone(), user.cloned())).is_some()
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AppOptions, WebhookOptions};

    const ROOMS: &str = "http://127.0.0.1:1/rooms";
    const ALL: &str = "http://127.0.0.1:1/all";

    /// One that wants rooms, two at another address that want private channels and all others.
    fn webhooks() -> AppWebhooks {
        let receiver = |(url, channel_prefix): (&str, &str)| WebhookOptions {
            url: Some(url.parse().unwrap()),
            channel_prefix: channel_prefix.to_owned(),
            ..WebhookOptions::default()
        };
        let webhooks = [(ROOMS, "presence-"), (ALL, "private-"), (ALL, "p")].map(receiver).into();
        let app = AppOptions { key: "app-key".to_owned(), webhooks, ..AppOptions::default() };
        let app = Apps::new(vec![app]).by_key("app-key").unwrap();
        AppWebhooks::new(&app, &Outgoing::new().unwrap())
    }

    #[test]
    fn each_address_that_wants_an_event_is_named_once() {
        let webhooks = webhooks();
        let occupied = WebhookKind::ChannelOccupied;
        for (kind, channel, expected) in [
            (occupied, "presence-a", &[ROOMS, ALL][..]),
            (occupied, "private-a", &[ALL]),
            (occupied, "hall", &[]),
            (WebhookKind::ClientEvent, "presence-a", &[]),
        ] {
            let urls = webhooks.urls_for(kind, channel);
            assert_eq!(urls.iter().map(|url| &**url).collect::<Vec<_>>(), expected, "{kind:?} on {channel}");
        }
    }

    #[test]
    fn an_event_is_handed_to_the_one_that_wants_it_until_another_node_does() {
        let (webhooks, done) = (webhooks(), Arc::new(DoneList::default()));
        let hand_over = |url, channel: &str| {
            let json = format!(r#"{{"name":"channel_occupied","channel":"{channel}"}}"#).into();
            webhooks.hand_over(&"1-0".into(), url, channel, json, now_ms(), &done)
        };
        let waiting = || webhooks.receivers.iter().map(|receiver| receiver.waiting()).collect::<Vec<_>>();
        assert!(!hand_over("http://127.0.0.1:1/gone", "presence-a"));
        assert!(hand_over(ROOMS, "presence-a"));
        assert!(hand_over(ALL, "presence-a"));
        assert!(hand_over(ALL, "presence-b"));
        assert!(hand_over(ALL, "private-a"));
        assert_eq!(waiting(), [1, 1, 2]);
        webhooks.forget_handed_over(&done);
        assert_eq!(waiting(), [0; 3]);
        assert_eq!(done.take_all(), []);
    }
}
