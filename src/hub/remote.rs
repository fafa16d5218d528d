//! A channel as a part of the cluster's: who waits for the cluster's answer, what this node wants it to know, which members it has.
//!
//! The cluster asks [`Channel::wanted`] and answers with [`Channel::confirm`]; what other nodes change comes in by
//! [`Channel::member_changed`]. Always: subscribers are shown one list of members, which follows the cluster's version by version; a gap
//! makes the list [`Heard::Stale`], and the differences of the next one go out as ordinary member events. Nobody is answered before the
//! list has what the cluster had when it counted him.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use herald_protocol::client::MemberData;
use herald_protocol::server::{self, SubscriptionError};
use herald_protocol::{ChannelName, UserId};

use super::channel::{Channel, Keep, Place, REFUSED, State, WAITING};
use super::client::Client;
use super::frame::Frame;

/// A state of a channel's members: when the cluster's count of changes began, and how many there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Time of the cluster's clock in µs.
    pub epoch: u64,
    /// Changes since.
    pub seq: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Remote {
    /// The cluster knows this node as a subscriber, and events reach it.
    confirmed: bool,
    /// What the list of members stands at; `None` before there is one.
    version: Option<Version>,
    /// The list has to be read again.
    stale: bool,
    /// When another epoch was first seen: until all nodes have registered in it, whoever is missing may still be there.
    new_epoch: Option<Instant>,
    waiting: Vec<Waiting>,
    asked: u64,
    /// Connections of each user on this node, those that wait included.
    local: HashMap<UserId, Local>,
}

#[derive(Debug)]
struct Local {
    connections: usize,
    info: Box<str>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    client: Arc<Client>,
    user: Option<UserId>,
    place: Arc<AtomicUsize>,
    /// The list of members has to reach this first.
    until: Option<Version>,
}

/// What the cluster is known to hold of a user on this node.
#[derive(Clone, Debug)]
pub struct HeldUser {
    /// Connections.
    pub connections: usize,
    /// As it was told.
    pub info: Box<str>,
    /// Whether the cluster has acknowledged it.
    pub is_sure: bool,
}

/// What the cluster has to know of a channel on this node.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Subscriptions.
    pub count: usize,
    /// Whoever asked up to this number is answered by it.
    pub number: u64,
    /// Users whose connections are others than the cluster holds.
    pub users: Vec<(UserId, usize, Box<str>)>,
    /// Whether somebody waits for it.
    pub is_awaited: bool,
    /// Whether some do not know the number of subscriptions yet.
    pub has_newcomers: bool,
    /// Whether the list of members is wanted.
    pub list: bool,
    /// Whether the kept event is wanted.
    pub kept: bool,
}

/// The cluster's answer.
#[derive(Debug)]
pub struct Confirmed {
    /// Where the members stand now.
    pub version: Version,
    /// Users for whom there was no room.
    pub refused: HashSet<UserId>,
    /// All members, if that was wanted.
    pub list: Option<HashMap<UserId, Box<str>>>,
    /// The kept event with its number and how long it will be kept.
    pub kept: Option<(u64, Frame, Duration)>,
}

/// What is left to do about the list of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Heard {
    /// Nothing.
    #[default]
    Current,
    /// It has to be read again, now.
    Stale,
    /// It has to be read again once every node had time to register.
    Doubtful,
}

impl Remote {
    /// Whether somebody who enters has to wait for the cluster.
    pub(super) const fn has_to_ask(&self, is_member: bool) -> bool {
        is_member || !self.confirmed
    }

    pub(super) fn ask(&mut self, client: &Arc<Client>, member: Option<MemberData>) -> Arc<AtomicUsize> {
        self.asked += 1;
        let user = member.as_ref().map(|member| member.user_id.clone());
        if let Some(member) = member {
            let local = self.local.entry(member.user_id);
            local.or_insert(Local { connections: 0, info: member.user_info }).connections += 1;
        }
        let place = Arc::new(AtomicUsize::new(WAITING));
        self.waiting.push(Waiting {
            number: self.asked,
            client: Arc::clone(client),
            user,
            place: Arc::clone(&place),
            until: None,
        });
        place
    }

    /// Forgets that somebody waits; false if he does not.
    pub(super) fn no_longer_asks(&mut self, place: &Place) -> bool {
        let Place::Asked(place) = place else { return false };
        let position = self.waiting.iter().position(|waiting| Arc::ptr_eq(&waiting.place, place));
        position.map(|position| self.waiting.remove(position)).is_some()
    }

    /// Somebody has left; true if the cluster has to hear of it at once.
    pub(super) fn left(&mut self, user: Option<&UserId>, nobody_is_left: bool) -> bool {
        let user_has_left = user.is_some_and(|user| self.uncount(user));
        user_has_left || (nobody_is_left && self.waiting.is_empty())
    }

    pub(super) const fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// True if it was the user's last connection here.
    fn uncount(&mut self, user: &UserId) -> bool {
        let Some(local) = self.local.get_mut(user) else { return false };
        local.connections -= 1;
        let was_last = local.connections == 0;
        if was_last {
            self.local.remove(user);
        }
        was_last
    }
}

impl Channel {
    /// What the cluster has to know, given what it is known to hold.
    pub fn wanted(&self, held: &HashMap<UserId, HeldUser>) -> Wanted {
        let mut state = self.state.lock();
        let is_awaited = state.remote.as_ref().is_some_and(|remote| remote.is_awaited());
        let has_newcomers = !is_awaited && state.take_newcomers();
        let Some(remote) = &state.remote else { return Wanted::default() };
        let is_held = |user: &UserId, local: &Local| {
            held.get(user).is_some_and(|held| held.is_sure && held.connections == local.connections)
        };
        let changed = remote.local.iter().filter(|(user, local)| !is_held(user, local));
        let changed = changed.map(|(user, local)| (user.clone(), local.connections, local.info.clone()));
        let gone = held.keys().filter(|user| !remote.local.contains_key(*user));
        let gone = gone.map(|user| (user.clone(), 0, Box::default()));
        Wanted {
            count: state.subscribers.len() + remote.waiting.len(),
            number: remote.asked,
            is_awaited,
            has_newcomers,
            users: changed.chain(gone).collect(),
            list: self.name.kind().is_presence() && (remote.version.is_none() || remote.stale),
            kept: self.name.kind().keeps_last_event() && !remote.confirmed,
        }
    }

    /// The cluster knows what was [`Channel::wanted`] with `number`, and its events reach this node: whoever asked until then is answered.
    /// `missed` is called if somebody met an empty cache. `patience` is how long nodes may take to register after a loss.
    pub fn confirm(&self, number: u64, confirmed: Confirmed, patience: Duration, missed: impl FnOnce()) -> Heard {
        let mut state = self.state.lock();
        let Some(remote) = &mut state.remote else { return Heard::Current };
        let has_been_away = !std::mem::replace(&mut remote.confirmed, true);
        let asked = remote.waiting.iter_mut().filter(|waiting| waiting.number <= number);
        asked.for_each(|waiting| waiting.until = waiting.until.or(Some(confirmed.version)));
        if !confirmed.refused.is_empty() {
            self.refuse(remote, number, &confirmed.refused);
        }
        if has_been_away {
            state.announce_all(&self.name);
        }
        if let Some((number, frame, ttl)) = &confirmed.kept {
            state.keep(frame, Keep { data: "", ttl: *ttl, number: *number }, Instant::now());
        }
        let heard = match confirmed.list {
            Some(list) => state.take_list(&self.name, confirmed.version, list, patience),
            None => Heard::Current,
        };
        if state.settle_waiting(&self.name) {
            missed();
        }
        heard
    }

    /// Another node's change of the members, or this one's own.
    pub fn member_changed(&self, version: Version, user: &UserId, info: Option<&str>) -> Heard {
        let mut state = self.state.lock();
        let Some(remote) = &mut state.remote else { return Heard::Current };
        let Some(known) = remote.version else { return Heard::Current }; // the list is still to come
        if version.epoch == known.epoch && version.seq <= known.seq {
            return Heard::Current;
        }
        if version.epoch != known.epoch || version.seq != known.seq + 1 {
            remote.stale = true;
            return Heard::Stale;
        }
        remote.version = Some(version);
        match info {
            Some(info) if !state.members.contains_key(user) => state.add_member(&self.name, user, info.into()),
            Some(_) => {}
            None => state.remove_member(&self.name, user),
        }
        state.settle_waiting(&self.name);
        Heard::Current
    }

    /// The cluster cannot be reached: who comes now has to wait, and the list of members may miss changes from now on.
    pub fn unconfirm(&self) {
        if let Some(remote) = &mut self.state.lock().remote {
            (remote.confirmed, remote.stale) = (false, true);
            // What another server had counted up to may never be reached on the next.
            remote.waiting.iter_mut().for_each(|waiting| waiting.until = None);
        }
    }

    /// Answers whoever waits from what is known here, since the cluster cannot be reached and nobody shall wait for it.
    pub fn settle_alone(&self) {
        let mut state = self.state.lock();
        let Some(remote) = &mut state.remote else { return };
        let version = remote.version.get_or_insert(Version { epoch: 0, seq: 0 });
        let (version, newcomers) = (*version, remote.waiting.iter().filter_map(|waiting| waiting.user.clone()));
        let newcomers: Vec<UserId> = newcomers.collect();
        remote.waiting.iter_mut().for_each(|waiting| waiting.until = Some(version));
        for user in newcomers {
            let info = state.remote.as_ref().and_then(|remote| remote.local.get(&user)).map(|local| local.info.clone());
            if !state.members.contains_key(&user) {
                state.add_member(&self.name, &user, info.unwrap_or_default());
            }
        }
        state.settle_waiting(&self.name);
    }

    /// The list of members has to be read again.
    pub fn doubt(&self) {
        if let Some(remote) = &mut self.state.lock().remote {
            remote.stale = true;
        }
    }

    /// An event may have been missed.
    pub fn missed(&self) {
        self.state.lock().announce_all(&self.name);
    }

    /// The list of members has to be read again if it is not at this version; whether it has to.
    pub fn doubt_unless_at(&self, version: Version) -> bool {
        let state = &mut *self.state.lock();
        let Some(remote) = state.remote.as_mut().filter(|remote| remote.version.is_some_and(|known| known != version))
        else {
            return false;
        };
        remote.stale = true;
        true
    }

    fn refuse(&self, remote: &mut Remote, number: u64, refused: &HashSet<UserId>) {
        let (turned_away, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut remote.waiting).into_iter().partition(|waiting| {
                waiting.number <= number && waiting.user.as_ref().is_some_and(|user| refused.contains(user))
            });
        remote.waiting = waiting;
        for waiting in turned_away {
            if let Some(user) = &waiting.user {
                remote.uncount(user);
            }
            waiting.place.store(REFUSED, Ordering::Release);
            let limit = waiting.client.app.limits().presence_members;
            let message = super::channel::Refused::MembersFull(limit).to_string();
            waiting.client.send(&server::subscription_error(self.name.as_str(), SubscriptionError::Full, &message));
        }
    }
}

impl State {
    /// Makes the list of members the cluster's, telling subscribers the differences.
    fn take_list(
        &mut self,
        channel: &ChannelName,
        version: Version,
        list: HashMap<UserId, Box<str>>,
        patience: Duration,
    ) -> Heard {
        let Some(remote) = &mut self.remote else { return Heard::Current };
        remote.stale = false;
        let now = Instant::now();
        if remote.version.is_some_and(|known| known.epoch != version.epoch) {
            remote.new_epoch = Some(now);
        }
        remote.version = Some(version);
        let all_registered = remote.new_epoch.is_none_or(|seen| now >= seen + patience);
        if all_registered {
            remote.new_epoch = None;
        }
        let missing: Vec<UserId> = self.members.keys().filter(|user| !list.contains_key(*user)).cloned().collect();
        for (user, info) in list {
            if !self.members.contains_key(&user) {
                self.add_member(channel, &user, info);
            }
        }
        if all_registered {
            missing.iter().for_each(|user| self.remove_member(channel, user));
            return Heard::Current;
        }
        if missing.is_empty() { Heard::Current } else { Heard::Doubtful }
    }

    /// Lets in whoever waited for what the list has reached; true if somebody met an empty cache.
    fn settle_waiting(&mut self, channel: &ChannelName) -> bool {
        let Some(remote) = &mut self.remote else { return false };
        let reached = remote.version;
        let is_presence = channel.kind().is_presence();
        let may_enter = |waiting: &Waiting| waiting.until.is_some_and(|until| !is_presence || reached >= Some(until));
        let (entering, waiting) = std::mem::take(&mut remote.waiting).into_iter().partition(may_enter);
        remote.waiting = waiting;
        let entering: Vec<Waiting> = entering;
        let mut missed = false;
        for Waiting { client, user, place, .. } in entering {
            let (slot, met_empty_cache) = self.settle(channel, &client, user);
            place.store(slot, Ordering::Release);
            missed |= met_empty_cache;
        }
        missed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use herald_protocol::{ChannelName, SocketId};

    use super::*;
    use crate::apps::Apps;
    use crate::config::AppOptions;
    use crate::hub::client::Client;
    use crate::hub::queue::{Bounds, Queue};

    #[test]
    fn who_waited_for_more_than_the_next_server_has_counted_is_answered_all_the_same() {
        let name = ChannelName::parse("presence-room", 200).unwrap();
        let channel = Arc::new(Channel::new(name, Some(Box::default()), None, Arc::default()));
        let app = Apps::new(vec![AppOptions::default()]).by_id("").unwrap();
        let queue = Queue::new(Bounds { max_frames: 10, max_bytes: 10_000 }, None);
        let client = Arc::new(Client::new(SocketId::from_random(1), app, queue));
        let user_id = UserId::parse("ann").unwrap();
        let member = MemberData { user_id: user_id.clone(), user_info: "{}".into() };
        assert!(channel.enter(&client, Some(member), |_| {}).is_ok());
        let confirm = |seq: u64, list: Option<HashMap<UserId, Box<str>>>| {
            let number = channel.wanted(&HashMap::new()).number;
            let version = Version { epoch: 5, seq };
            let confirmed = Confirmed { version, refused: HashSet::new(), list, kept: None };
            channel.confirm(number, confirmed, Duration::ZERO, || {});
            client.queue.depth().0
        };
        assert_eq!(confirm(100, None), 0, "the event with that number is still to come");
        channel.unconfirm();
        let list = HashMap::from([(user_id, Box::from("{}"))]);
        assert_eq!(confirm(90, Some(list)), 1, "answered");
    }
}
