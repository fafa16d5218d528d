//! One channel on this node: its subscribers, members, kept event, and the fan-out to all of them.
//!
//! Always: whoever enters is answered in the same step, under the channel's lock, so nothing of the channel comes before
//! `subscription_succeeded` and nothing after it is missed. Fan-outs of one channel never overlap; a long one runs in chunks, and a
//! subscriber that entered after it began does not get it (it had the kept event, or came too late). Where the channel is one of a
//! cluster, whoever enters may have to wait, and the members are the cluster's: that is [`super::remote`]'s business.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use herald_protocol::client::MemberData;
use herald_protocol::{ChannelKind, ChannelName, SocketId, UserId, server};
use indexmap::IndexMap;
use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::mpsc;

use super::client::Client;
use super::flusher::Flushers;
use super::frame::Frame;
use super::queue::{Full, Handed, Way};
use super::remote::Remote;
use crate::metrics;

/// Subscribers served before the fan-out lets others run: a write takes long beside an entry in a queue.
const CHUNK: usize = 1_000;
const CHUNK_AT_ONCE: usize = 32;
/// The way to every so-many-th subscriber is measured.
const MEASURED: usize = 16;
/// How long a publisher is held back by queues whose writers have not run.
const HOLD_BACK: Duration = Duration::from_secs(2);
/// Up to so many subscribers each change of their number is announced, above at most every [`COUNT_PAUSE`] (section 3.1).
const FEW_SUBSCRIBERS: usize = 100;
const COUNT_PAUSE: Duration = Duration::from_secs(5);
/// Changes within this time are announced as one.
const COUNT_JOIN: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct Channel {
    /// The channel's name.
    pub name: ChannelName,
    pub(super) state: Mutex<State>,
    fan_out: tokio::sync::Mutex<()>,
    flushers: Arc<Flushers>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Taken out of the hub: whoever still holds it looks the name up again.
    pub(super) gone: bool,
    pub(super) subscribers: Slab<Subscriber>,
    /// The number of the last fan-out that began.
    fan_outs: u64,
    /// Those that subscribers know of.
    pub(super) members: IndexMap<UserId, Member>,
    pub(super) snapshot: Option<Frame>,
    pub(super) kept: Option<KeptEvent>,
    count: AnnouncedCount,
    /// What ties it to the cluster, if there is more than this node.
    pub(super) remote: Option<Box<Remote>>,
    /// Who hears of those who come.
    arrivals: Option<mpsc::Sender<Arrival>>,
}

/// Somebody came to a user's own channel, and was answered; or may have missed something there.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Who.
    pub client: Arc<Client>,
    /// Which channel.
    pub channel: ChannelName,
}

/// What subscribers know about their number.
#[derive(Debug, Default)]
struct AnnouncedCount {
    last: Option<(usize, Instant)>,
    /// When the next is due, if one is.
    due: Option<Instant>,
    /// Somebody is here who was not when the last was announced.
    has_newcomer: bool,
}

#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) client: Arc<Client>,
    pub(super) user: Option<UserId>,
    /// The last fan-out that had begun when it entered.
    entered: u64,
    /// The number of the kept event that it was given.
    has_kept: u64,
    /// The last revision of an inbox that it was given.
    has_rev: u64,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) info: Box<str>,
    /// On this node, where it is alone.
    subscriptions: usize,
}

#[derive(Debug)]
pub(super) struct KeptEvent {
    pub(super) frame: Frame,
    data: Box<str>,
    pub(super) until: Instant,
    /// Given by the cluster; 0 where there is none.
    pub(super) number: u64,
}

/// How an event is kept by its cache channel.
#[derive(Clone, Copy, Debug)]
pub struct Keep<'a> {
    /// The data's JSON string token, where it is asked for on this node.
    pub data: &'a str,
    /// For how long.
    pub ttl: Duration,
    /// Its number in the cluster; 0 where there is none.
    pub number: u64,
}

/// Whom an event reaches, and what becomes of it besides.
#[derive(Clone, Debug, Default)]
pub struct Delivery<'a> {
    /// Who does not get it.
    pub except: Option<SocketId>,
    /// Who does not get it either: it reaches them on another channel.
    pub elsewhere: HashSet<SocketId>,
    /// How it is kept.
    pub keep: Option<Keep<'a>>,
    /// Of an event of a user's own channels: its revision; whoever has got it, or a later one, does not get it again. 0 for one that is no
    /// change of the inbox.
    pub rev: Option<u64>,
}

/// The event that a cache channel keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The data's JSON string token.
    pub data: String,
    /// How long it will still be kept.
    pub ttl: Duration,
}

/// How many are on a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Subscriptions.
    pub subscription_count: usize,
    /// Members, on presence channels.
    pub user_count: Option<usize>,
}

/// One client's place on a channel; give it back with [`Channel::leave`].
#[derive(Debug)]
pub struct Subscription {
    pub(super) channel: Arc<Channel>,
    pub(super) place: Place,
    /// Who the client is there.
    pub user: Option<UserId>,
}

/// Where a client stands on a channel.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// Among the subscribers.
    At(usize),
    /// The cluster is asked, or was: then the slot among the subscribers, or [`REFUSED`].
    Asked(Arc<AtomicUsize>),
}

/// The cluster has not answered yet.
pub(super) const WAITING: usize = usize::MAX;
/// The cluster has no room for it.
pub(super) const REFUSED: usize = usize::MAX - 1;

impl Place {
    pub(super) fn get(&self) -> usize {
        match self {
            Self::At(slot) => *slot,
            Self::Asked(place) => place.load(Ordering::Acquire),
        }
    }
}

/// One event on its way to the subscribers.
struct FanOut<'a> {
    number: u64,
    frame: &'a Frame,
    delivery: &'a Delivery<'a>,
    published: Instant,
    way: Way,
    delivered: u64,
    /// Who has to be put on a flusher's list.
    to_flush: Vec<Arc<Client>>,
    /// Whose queue had no room yet.
    waiting: Vec<Arc<Client>>,
}

/// What entering or leaving changed on this node, for the cluster.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Somebody came; else somebody left.
    pub entered: bool,
    /// Somebody waits for the cluster to know it.
    pub awaited: bool,
    /// The channel had nobody before, or has nobody now.
    pub occupancy: bool,
    /// The user had no subscription before, or has none now.
    pub member: Option<UserId>,
    /// A subscriber met an empty cache.
    pub cache_miss: bool,
    /// When the number of subscriptions has to be announced, if that is not due already.
    pub announce_count_at: Option<Instant>,
}

/// Why nobody can enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The channel was taken out of the hub meanwhile; look it up again.
    #[error("the channel is gone")]
    Gone,
    /// As many members as the app allows.
    #[error("the channel has as many members as the app allows ({0})")]
    MembersFull(usize),
}

/// Why an event did not reach everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPublished {
    /// The channel was taken out of the hub meanwhile; nobody was on it.
    #[error("the channel is gone")]
    Gone,
    /// Some queues had no room in time though their readers are not to blame: the server is short of CPU.
    #[error("the server cannot keep up; the event reached some subscribers only")]
    Overloaded,
}

impl Channel {
    pub(super) fn new(
        name: ChannelName,
        remote: Option<Box<Remote>>,
        arrivals: Option<mpsc::Sender<Arrival>>,
        flushers: Arc<Flushers>,
    ) -> Self {
        let state = Mutex::new(State { remote, arrivals, ..State::default() });
        Self { name, state, fan_out: tokio::sync::Mutex::default(), flushers }
    }

    /// Lets `client` in and answers it, telling `on_change` what changed before anybody else can change it again.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn enter(
        self: &Arc<Self>,
        client: &Arc<Client>,
        member: Option<MemberData>,
        on_change: impl FnOnce(&Change),
    ) -> Result<Subscription, Refused> {
        let mut state = self.state.lock();
        if state.gone {
            return Err(Refused::Gone);
        }
        if let Some(remote) = &mut state.remote
            && remote.has_to_ask(member.is_some())
        {
            let user = member.as_ref().map(|member| member.user_id.clone());
            let place = remote.ask(client, member);
            on_change(&Change { entered: true, awaited: true, ..Change::default() });
            return Ok(Subscription { channel: Arc::clone(self), place: Place::Asked(place), user });
        }
        let mut change = Change { entered: true, occupancy: state.subscribers.is_empty(), ..Change::default() };
        let user = match member {
            None => None,
            Some(member) => {
                let limit = client.app.limits().presence_members;
                let (user, is_new) = state.join(member, limit)?;
                if is_new {
                    state.announce_member(&self.name, &user, true);
                    change.member = Some(user.clone());
                }
                Some(user)
            }
        };
        let (slot, missed) = state.settle(&self.name, client, user.clone());
        change.announce_count_at = state.count_changed(&self.name);
        change.cache_miss = missed;
        on_change(&change);
        drop(state);
        Ok(Subscription { channel: Arc::clone(self), place: Place::At(slot), user })
    }

    /// Answers a client that subscribes to what it already has.
    pub fn answer_again(&self, client: &Client) {
        self.state.lock().answer(&self.name, client);
    }

    /// Gives a place back; returns whether the channel has to be taken out of the hub.
    pub fn leave(&self, subscription: &Subscription, on_change: impl FnOnce(&Change)) -> bool {
        let mut state = self.state.lock();
        let mut change = Change::default();
        let slot = subscription.place.get();
        if state.subscribers.contains(slot) {
            state.subscribers.remove(slot);
        } else if !state.remote.as_mut().is_some_and(|remote| remote.no_longer_asks(&subscription.place)) {
            return state.retire(Instant::now());
        }
        let is_last = state.subscribers.is_empty();
        if let Some(remote) = &mut state.remote {
            change.awaited = remote.left(subscription.user.as_ref(), is_last);
            on_change(&change);
            return state.retire(Instant::now());
        }
        if let Some(user) = &subscription.user
            && state.part(user)
        {
            state.announce_member(&self.name, user, false);
            change.member = Some(user.clone());
        }
        change.occupancy = state.subscribers.is_empty();
        change.announce_count_at = state.count_changed(&self.name);
        on_change(&change);
        state.retire(Instant::now())
    }

    /// Marks the channel as gone if nothing keeps it; true if it is. For the sweep of expired kept events.
    pub(super) fn retire(&self, now: Instant) -> bool {
        self.state.lock().retire(now)
    }

    /// Hands `frame` to every subscriber whom it is for, in the order of the calls. `delivered` is called before the next event's turn, so
    /// that what it reports keeps the order too.
    ///
    /// # Errors
    /// See [`NotPublished`].
    pub async fn publish(
        &self,
        frame: &Frame,
        delivery: &Delivery<'_>,
        delivered: impl FnOnce(),
    ) -> Result<(), NotPublished> {
        let _turn = self.fan_out.lock().await;
        let published = Instant::now();
        let (number, subscribers) = {
            let mut state = self.state.lock();
            if state.gone {
                return Err(NotPublished::Gone);
            }
            if let Some(keep) = delivery.keep {
                state.keep(frame, keep, published);
            }
            state.fan_outs += 1;
            (state.fan_outs, state.subscribers.len())
        };
        let way = self.flushers.way(published, subscribers);
        let (to_flush, waiting) = (Vec::new(), Vec::new());
        let mut fan_out = FanOut { number, frame, delivery, published, way, delivered: 0, to_flush, waiting };
        let mut cursor = 0;
        loop {
            let next = self.state.lock().serve(cursor, &mut fan_out);
            self.flushers.add(std::mem::take(&mut fan_out.to_flush));
            match next {
                Some(next) => cursor = next,
                None => break,
            }
            tokio::task::yield_now().await;
        }
        metrics::DELIVERIES.increment(fan_out.delivered);
        delivered();
        if fan_out.waiting.is_empty() {
            return Ok(());
        }
        let catch_up = async {
            for client in &fan_out.waiting {
                while client.queue.offer(frame, None, Way::ByTask).is_err() {
                    client.queue.room(frame).await;
                }
            }
        };
        tokio::time::timeout(HOLD_BACK, catch_up).await.map_err(|_| NotPublished::Overloaded)
    }

    /// The number of subscriptions to announce now; `None` if everybody here knows it.
    pub(super) fn take_count(&self) -> Option<usize> {
        let mut state = self.state.lock();
        let count = state.subscribers.len();
        state.count.due = None;
        let has_newcomer = std::mem::take(&mut state.count.has_newcomer);
        if !has_newcomer && state.count.last.is_some_and(|(last, _)| last == count) {
            return None;
        }
        state.count.last = Some((count, Instant::now()));
        Some(count)
    }

    /// The subscribers' socket ids.
    #[must_use]
    pub fn socket_ids(&self) -> HashSet<SocketId> {
        self.state.lock().subscribers.iter().map(|(_, subscriber)| subscriber.client.socket_id).collect()
    }

    /// How many are here.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let state = self.state.lock();
        Occupancy {
            subscription_count: state.subscribers.len(),
            user_count: self.name.kind().is_presence().then_some(state.members.len()),
        }
    }

    /// The members' ids.
    #[must_use]
    pub fn members(&self) -> Vec<UserId> {
        self.state.lock().members.keys().cloned().collect()
    }

    /// The kept event.
    #[must_use]
    pub fn kept(&self) -> Option<Kept> {
        let now = Instant::now();
        let state = self.state.lock();
        let kept = state.kept.as_ref().filter(|kept| kept.until > now)?;
        Some(Kept { data: kept.data.to_string(), ttl: kept.until - now })
    }
}

impl Subscriber {
    /// Whether it gets an event, and notes its revision then.
    fn is_meant(&mut self, delivery: &Delivery<'_>) -> bool {
        let socket_id = self.client.socket_id;
        let kept = delivery.keep.map_or(0, |keep| keep.number);
        let had_it_kept = kept > 0 && self.has_kept >= kept;
        let had_it = delivery.rev.is_some_and(|rev| rev > 0 && self.has_rev >= rev);
        let is_left_out = delivery.except == Some(socket_id) || delivery.elsewhere.contains(&socket_id);
        if had_it_kept || had_it || is_left_out {
            return false;
        }
        self.has_rev = self.has_rev.max(delivery.rev.unwrap_or_default());
        true
    }
}

impl State {
    /// Counts the user's subscription; true if it is the first.
    fn join(&mut self, member: MemberData, limit: usize) -> Result<(UserId, bool), Refused> {
        if let Some((_, user, known)) = self.members.get_full_mut(&member.user_id) {
            known.subscriptions += 1;
            return Ok((user.clone(), false));
        }
        if self.members.len() >= limit {
            return Err(Refused::MembersFull(limit));
        }
        self.members.insert(member.user_id.clone(), Member { info: member.user_info, subscriptions: 1 });
        self.snapshot = None;
        Ok((member.user_id, true))
    }

    /// Uncounts the user's subscription; true if it was the last.
    fn part(&mut self, user: &UserId) -> bool {
        let Some(member) = self.members.get_mut(user) else { return false };
        member.subscriptions -= 1;
        if member.subscriptions > 0 {
            return false;
        }
        self.members.swap_remove(user);
        self.snapshot = None;
        true
    }

    /// When to announce the new number of subscriptions, if the channel announces it and it is not due before that anyway.
    fn count_changed(&mut self, channel: &ChannelName) -> Option<Instant> {
        let kind = channel.kind();
        if kind.is_presence() || kind == ChannelKind::ServerToUser {
            return None;
        }
        let soon = Instant::now() + COUNT_JOIN;
        let at = match self.count.last {
            Some((_, last)) if self.subscribers.len() > FEW_SUBSCRIBERS => soon.max(last + COUNT_PAUSE),
            _ => soon,
        };
        if self.count.due.is_some_and(|due| due <= at) {
            return None;
        }
        self.count.due = Some(at);
        Some(at)
    }

    /// Among the subscribers from now on, and answered: its slot, and whether it met an empty cache.
    pub(super) fn settle(
        &mut self,
        channel: &ChannelName,
        client: &Arc<Client>,
        user: Option<UserId>,
    ) -> (usize, bool) {
        self.count.has_newcomer = true;
        let has_kept = self.kept.as_ref().map_or(0, |kept| kept.number);
        let subscriber = Subscriber { client: Arc::clone(client), user, entered: self.fan_outs, has_kept, has_rev: 0 };
        let slot = self.subscribers.insert(subscriber);
        let missed = self.answer(channel, client);
        self.announce(channel, client);
        (slot, missed)
    }

    fn announce(&self, channel: &ChannelName, client: &Arc<Client>) {
        if let Some(arrivals) = &self.arrivals {
            // A full queue means that the store is away or slow: clients ask for what they miss.
            _ = arrivals.try_send(Arrival { client: Arc::clone(client), channel: channel.clone() });
        }
    }

    /// Announces everybody once more: something may have been missed here.
    pub(super) fn announce_all(&self, channel: &ChannelName) {
        if self.arrivals.is_some() {
            self.subscribers.iter().for_each(|(_, subscriber)| self.announce(channel, &subscriber.client));
        }
    }

    /// Whether somebody is here who was not when the number of subscriptions was told last.
    pub(super) const fn take_newcomers(&mut self) -> bool {
        std::mem::replace(&mut self.count.has_newcomer, false)
    }

    /// Keeps an event, unless a later one of the cluster came first.
    pub(super) fn keep(&mut self, frame: &Frame, keep: Keep<'_>, now: Instant) {
        if keep.number > 0 && self.kept.as_ref().is_some_and(|kept| kept.number >= keep.number) {
            return;
        }
        let Keep { data, ttl, number } = keep;
        self.kept = Some(KeptEvent { frame: frame.clone(), data: data.into(), until: now + ttl, number });
    }

    /// Shows the user to everybody from now on.
    pub(super) fn add_member(&mut self, channel: &ChannelName, user: &UserId, info: Box<str>) {
        self.members.insert(user.clone(), Member { info, subscriptions: 0 });
        self.snapshot = None;
        self.announce_member(channel, user, true);
    }

    /// Shows the user to nobody any more.
    pub(super) fn remove_member(&mut self, channel: &ChannelName, user: &UserId) {
        if self.members.swap_remove(user).is_some() {
            self.snapshot = None;
            self.announce_member(channel, user, false);
        }
    }

    /// To all but the user's own subscriptions.
    fn announce_member(&self, channel: &ChannelName, user: &UserId, added: bool) {
        let text = match self.members.get(user) {
            Some(member) if added => server::member_added(channel, user, &member.info),
            _ => server::member_removed(channel, user),
        };
        let frame = Frame::text(&text);
        let others = self.subscribers.iter().filter(|(_, subscriber)| subscriber.user.as_ref() != Some(user));
        others.for_each(|(_, subscriber)| subscriber.client.queue.push(&frame));
    }

    /// `subscription_succeeded`, then the kept event or the miss; true on a miss.
    fn answer(&mut self, channel: &ChannelName, client: &Client) -> bool {
        if channel.kind().is_presence() {
            let snapshot = self.snapshot.take().unwrap_or_else(|| {
                let members = self.members.iter().map(|(user, member)| (user, &*member.info));
                Frame::text(&server::subscription_succeeded(channel, &server::presence(members)))
            });
            client.queue.push(&snapshot);
            self.snapshot = Some(snapshot);
        } else {
            client.send(&server::subscription_succeeded(channel, "{}"));
        }
        if !channel.kind().keeps_last_event() {
            return false;
        }
        match &self.kept {
            Some(kept) if kept.until > Instant::now() => {
                client.queue.push(&kept.frame);
                false
            }
            _ => {
                client.send(&server::cache_miss(channel));
                true
            }
        }
    }

    /// Serves one chunk of a fan-out from `cursor`; returns where the next begins, if there is one.
    fn serve(&mut self, cursor: usize, fan_out: &mut FanOut<'_>) -> Option<usize> {
        // A slab keeps everyone's place while others come and go, so the cursor stays true between chunks.
        let mut left = if fan_out.way == Way::AtOnce { CHUNK_AT_ONCE } else { CHUNK };
        for slot in cursor..self.subscribers.capacity() {
            let Some(subscriber) = self.subscribers.get_mut(slot) else { continue };
            if left == 0 {
                return Some(slot);
            }
            left -= 1;
            if subscriber.entered >= fan_out.number || !subscriber.is_meant(fan_out.delivery) {
                continue;
            }
            let measured = (slot % MEASURED == 0).then_some(fan_out.published);
            match subscriber.client.queue.offer(fan_out.frame, measured, fan_out.way) {
                Ok(Handed::Over) => {}
                Ok(Handed::ToFlush) => fan_out.to_flush.push(Arc::clone(&subscriber.client)),
                Err(Full) => fan_out.waiting.push(Arc::clone(&subscriber.client)),
            }
            fan_out.delivered += 1;
        }
        None
    }

    fn retire(&mut self, now: Instant) -> bool {
        if self.kept.as_ref().is_some_and(|kept| kept.until <= now) {
            self.kept = None;
        }
        let is_kept = match &self.remote {
            None => self.kept.is_some(),
            Some(remote) => remote.is_awaited(), // the cluster keeps the event
        };
        self.gone |= self.subscribers.is_empty() && !is_kept;
        self.gone
    }
}

impl Subscription {
    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &ChannelName {
        &self.channel.name
    }

    /// Whether the client was answered that it is on the channel.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !matches!(self.place.get(), WAITING | REFUSED)
    }

    /// Whether the cluster had no room for the client.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.place.get() == REFUSED
    }

    /// Answers the client once more, without changing anything.
    pub fn answer_again(&self, client: &Client) {
        if self.is_settled() {
            self.channel.answer_again(client);
        } // else the answer is still to come
    }
}
