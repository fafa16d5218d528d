//! Users who are signed in on this node: the connections that are theirs, and who watches whom (section 3.5).
//!
//! Always: whoever signs in is answered, and told the present state of those it watches, in the same step, under the lock; every
//! change comes after that. A user is announced as offline after `GRACE`, so a page's reload is silent; changes within `JOIN` go
//! to a watcher as one message. In a cluster whoever signs in waits until it knows him and has said which of those he watches are online;
//! it also keeps the grace.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use herald_protocol::{SocketId, UserId, server};
use indexmap::IndexMap;
use parking_lot::Mutex;

use super::client::Client;
use crate::due::DueList;

/// How long a user who left still counts as online.
const GRACE: Duration = Duration::from_secs(3);
/// How long changes are collected before a watcher is told.
const JOIN: Duration = Duration::from_millis(100);

/// Many may watch one user, and many may be the same user: each is found by its id.
type Clients = IndexMap<SocketId, Arc<Client>>;

/// Signed-in users of one app.
#[derive(Debug, Default)]
pub struct Users {
    state: Mutex<State>,
    due: DueList<Due>,
}

#[derive(Debug, Default)]
struct State {
    users: HashMap<UserId, User>,
    /// The watchers of each user, online or not.
    watched_by: HashMap<UserId, Clients>,
    /// What each watcher has not been told yet, in the order of the changes.
    untold: HashMap<SocketId, Untold>,
    departures: u64,
    remote: Option<Remote>,
}

/// What the cluster has said, and who waits for it.
#[derive(Debug, Default)]
struct Remote {
    /// Whether those are online who are connected here or watched from here.
    known: HashMap<UserId, bool>,
    /// Those of whom every change is heard.
    fresh: HashSet<UserId>,
    pending: Vec<Pending>,
    asked: u64,
}

#[derive(Debug)]
struct Pending {
    number: u64,
    client: Arc<Client>,
    waits_for: HashSet<UserId>,
    watched: Vec<UserId>,
    success: String,
    notice: Option<String>,
}

/// A sign-in that was verified.
#[derive(Debug)]
pub struct SignIn<'a> {
    /// As whom.
    pub user: &'a UserId,
    /// The answer.
    pub success: String,
    /// Whom the client watches from now on.
    pub watched: &'a [UserId],
    /// Whom it has watched, if it was signed in already.
    pub before: Option<&'a [UserId]>,
    /// What it is told besides.
    pub notice: Option<String>,
}

/// What the cluster has to know of a user on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedUser {
    /// Signed-in connections.
    pub connections: usize,
    /// Whether changes have to reach this node.
    pub is_of_interest: bool,
    /// Whoever asked up to this number is answered by it.
    pub number: u64,
}

/// A user who counts as online.
#[derive(Debug, Default)]
struct User {
    connections: Clients,
    /// The departure that is held back, if nobody is connected any more.
    departed: Option<u64>,
}

#[derive(Debug)]
struct Untold {
    client: Arc<Client>,
    changes: Vec<(UserId, bool)>,
}

#[derive(Debug)]
enum Due {
    Departure(UserId, u64),
    Tell(SocketId),
}

impl Users {
    /// Nobody is signed in yet.
    #[must_use]
    pub fn new(in_cluster: bool) -> Self {
        let state = State { remote: in_cluster.then(Remote::default), ..State::default() };
        Self { state: Mutex::new(state), due: DueList::default() }
    }

    /// The client is the user from now on, and is answered, at once or when the cluster has said what it has to say of the users that are
    /// returned.
    #[must_use]
    pub fn sign_in(&self, client: &Arc<Client>, sign_in: SignIn<'_>) -> Vec<UserId> {
        let SignIn { user, success, watched, before, notice } = sign_in;
        let state = &mut *self.state.lock();
        match before {
            Some(before) => state.unwatch(client, before),
            None => self.arrive(state, user, client),
        }
        for other in watched {
            state.watched_by.entry(other.clone()).or_default().insert(client.socket_id, Arc::clone(client));
        }
        if let Some(remote) = &mut state.remote {
            remote.asked += 1;
            let unknown = watched.iter().filter(|other| !remote.fresh.contains(*other));
            let waits_for: HashSet<UserId> = unknown.chain([user]).cloned().collect();
            let asked = waits_for.iter().cloned().collect();
            let (number, client, watched) = (remote.asked, Arc::clone(client), watched.to_vec());
            remote.pending.push(Pending { number, client, waits_for, watched, success, notice });
            return asked;
        }
        answer(client, &success, watched, notice.as_deref(), |other| state.users.contains_key(other));
        Vec::new()
    }

    /// The client is nobody any more, and watches nobody. Returns the users of whom the cluster has to hear.
    #[must_use]
    pub fn sign_out(&self, user: &UserId, client: &Client, watched: &[UserId]) -> Vec<UserId> {
        let state = &mut *self.state.lock();
        state.unwatch(client, watched);
        let number = state.departures + 1;
        let Some(known) = state.users.get_mut(user) else { return Vec::new() };
        known.connections.swap_remove(&client.socket_id);
        let was_last = known.connections.is_empty();
        if let Some(remote) = &mut state.remote {
            remote.pending.retain(|pending| pending.client.socket_id != client.socket_id);
            if was_last {
                state.users.remove(user);
            }
            return watched.iter().chain([user]).cloned().collect();
        }
        if was_last {
            known.departed = Some(number);
            state.departures = number;
            self.due.add(Instant::now() + GRACE, Due::Departure(user.clone(), number));
        }
        Vec::new()
    }

    /// What the cluster has to know of a user.
    pub fn wanted(&self, user: &UserId) -> WantedUser {
        let mut state = self.state.lock();
        let connections = state.users.get(user).map_or(0, |user| user.connections.len());
        let is_of_interest = connections > 0 || state.watched_by.contains_key(user);
        let Some(remote) = &mut state.remote else { return WantedUser { connections, is_of_interest, number: 0 } };
        if !is_of_interest {
            remote.known.remove(user);
            remote.fresh.remove(user);
        }
        WantedUser { connections, is_of_interest, number: remote.asked }
    }

    /// The cluster knows what was [`Users::wanted`] with `number`, every further change of the user reaches this node, and he is online or
    /// not.
    pub fn confirm(&self, user: &UserId, number: u64, online: bool) {
        let state = &mut *self.state.lock();
        if let Some(remote) = &mut state.remote {
            remote.fresh.insert(user.clone());
        }
        self.learn(state, user, online);
        let Some(remote) = &mut state.remote else { return };
        for pending in remote.pending.iter_mut().filter(|pending| pending.number <= number) {
            pending.waits_for.remove(user);
        }
        let (done, pending) =
            std::mem::take(&mut remote.pending).into_iter().partition(|pending| pending.waits_for.is_empty());
        remote.pending = pending;
        let done: Vec<Pending> = done;
        for Pending { client, success, watched, notice, .. } in done {
            let is_online = |other: &UserId| remote.known.get(other).copied().unwrap_or_default();
            answer(&client, &success, &watched, notice.as_deref(), is_online);
        }
    }

    /// Another node, or this one, has made the user online or offline.
    pub fn heard(&self, user: &UserId, online: bool) {
        let state = &mut *self.state.lock();
        if state.remote.as_ref().is_some_and(|remote| remote.known.contains_key(user)) {
            self.learn(state, user, online);
        }
    }

    /// The cluster cannot be reached: what is known of these users may change without being heard.
    pub fn unconfirm(&self, is_affected: impl Fn(&UserId) -> bool) {
        if let Some(remote) = &mut self.state.lock().remote {
            remote.fresh.retain(|user| !is_affected(user));
        }
    }

    /// All who are connected here or watched from here.
    #[must_use]
    pub fn of_interest(&self) -> Vec<UserId> {
        let state = self.state.lock();
        state.users.keys().chain(state.watched_by.keys()).cloned().collect()
    }

    fn learn(&self, state: &mut State, user: &UserId, online: bool) {
        let Some(remote) = &mut state.remote else { return };
        let before = remote.known.insert(user.clone(), online);
        if before.is_some_and(|before| before != online) {
            self.announce(state, user, online);
        }
    }

    /// The user's connections.
    #[must_use]
    pub fn connections(&self, user: &UserId) -> Vec<Arc<Client>> {
        let state = self.state.lock();
        state.users.get(user).map(|user| user.connections.values().cloned().collect()).unwrap_or_default()
    }

    /// How many users are connected.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.lock().users.values().filter(|user| !user.connections.is_empty()).count()
    }

    /// Tells watchers what is due; runs until it is dropped.
    pub async fn tell(&self) {
        loop {
            let due = self.due.next().await;
            let mut state = self.state.lock();
            match due {
                Due::Departure(user, number) => {
                    if state.users.get(&user).is_some_and(|known| known.departed == Some(number)) {
                        state.users.remove(&user);
                        self.announce(&mut state, &user, false);
                    }
                }
                Due::Tell(socket_id) => {
                    if let Some(untold) = state.untold.remove(&socket_id) {
                        untold.tell();
                    }
                }
            }
        }
    }

    fn arrive(&self, state: &mut State, user: &UserId, client: &Arc<Client>) {
        let was_online = state.users.contains_key(user);
        let known = state.users.entry(user.clone()).or_default();
        known.connections.insert(client.socket_id, Arc::clone(client));
        known.departed = None;
        if !was_online && state.remote.is_none() {
            self.announce(state, user, true);
        }
    }

    fn announce(&self, state: &mut State, user: &UserId, online: bool) {
        let State { watched_by, untold, remote, .. } = state;
        let pending = remote.iter().flat_map(|remote| &remote.pending).map(|pending| pending.client.socket_id);
        let pending: HashSet<SocketId> = pending.collect(); // they are told with their answer
        for (socket_id, client) in watched_by.get(user).into_iter().flatten() {
            if pending.contains(socket_id) {
                continue;
            }
            let untold = untold.entry(*socket_id).or_insert_with(|| {
                self.due.add(Instant::now() + JOIN, Due::Tell(*socket_id));
                Untold { client: Arc::clone(client), changes: Vec::new() }
            });
            untold.changes.retain(|(known, _)| known != user);
            untold.changes.push((user.clone(), online));
        }
    }
}

impl State {
    fn unwatch(&mut self, client: &Client, watched: &[UserId]) {
        for user in watched {
            if let Some(watchers) = self.watched_by.get_mut(user) {
                watchers.swap_remove(&client.socket_id);
                if watchers.is_empty() {
                    self.watched_by.remove(user);
                }
            }
        }
        self.untold.remove(&client.socket_id);
    }
}

/// Tells a client that it is signed in, who of those it watches is online, and what there is besides.
fn answer(
    client: &Client,
    success: &str,
    watched: &[UserId],
    notice: Option<&str>,
    is_online: impl Fn(&UserId) -> bool,
) {
    client.send(success);
    let (online, offline): (Vec<UserId>, Vec<UserId>) = watched.iter().cloned().partition(is_online);
    if let Some(text) = server::watchlist_events(&online, &offline) {
        client.send(&text);
    }
    if let Some(text) = notice {
        client.send(text);
    }
}

impl Untold {
    fn tell(self) {
        let (online, offline): (Vec<_>, Vec<_>) = self.changes.into_iter().partition(|(_, online)| *online);
        let users = |changes: Vec<(UserId, bool)>| changes.into_iter().map(|(user, _)| user).collect::<Vec<_>>();
        if let Some(text) = server::watchlist_events(&users(online), &users(offline)) {
            self.client.send(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::Apps;
    use crate::config::AppOptions;
    use crate::hub::queue::{Bounds, Queue};

    #[test]
    fn a_user_whom_everybody_watches_costs_each_of_them_no_more() {
        const WATCHERS: u64 = 50_000;
        let app = Apps::new(vec![AppOptions::default()]).by_id("").unwrap();
        let client = |number: u64| {
            let queue = Queue::new(Bounds { max_frames: 10, max_bytes: 10_000 }, None);
            Arc::new(Client::new(SocketId::from_random(number), Arc::clone(&app), queue))
        };
        let clients: Vec<_> = (0..WATCHERS).map(client).collect();
        let (guest, staff) = (UserId::parse("guest").unwrap(), [UserId::parse("staff").unwrap()]);
        let users = Users::default();
        for client in &clients {
            let success = "{}".to_owned();
            let asked =
                users.sign_in(client, SignIn { user: &guest, success, watched: &staff, before: None, notice: None });
            assert!(asked.is_empty(), "nobody has to be asked");
        }
        assert_eq!(users.connections(&guest).len(), clients.len());
        let start = Instant::now();
        for client in clients.iter().rev() {
            assert!(users.sign_out(&guest, client, &staff).is_empty());
        }
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        let state = users.state.lock();
        assert!(state.watched_by.is_empty());
        assert_eq!(users.due.take_all().len(), 1, "the last of them departs");
    }
}
