//! Users who are signed in on this node: the connections that are theirs, and who watches whom (section 3.5).
//!
//! Always: whoever signs in is answered, and told the present state of those it watches, in the same step, under the lock; every
//! change comes after that. A user is announced as offline after `GRACE`, so a page's reload is silent; changes within `JOIN` go
//! to a watcher as one message.

use std::collections::HashMap;
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
    /// The client is the user from now on, and watches these users instead of `before`, if it was signed in already.
    pub fn sign_in(
        &self,
        user: &UserId,
        client: &Arc<Client>,
        success: &str,
        watched: &[UserId],
        before: Option<&[UserId]>,
    ) {
        let mut state = self.state.lock();
        match before {
            Some(before) => state.unwatch(client, before),
            None => self.arrive(&mut state, user, client),
        }
        client.send(success);
        let (mut online, mut offline) = (Vec::new(), Vec::new());
        for other in watched {
            if state.users.contains_key(other) { &mut online } else { &mut offline }.push(other.clone());
            state.watched_by.entry(other.clone()).or_default().insert(client.socket_id, Arc::clone(client));
        }
        if let Some(text) = server::watchlist_events(&online, &offline) {
            client.send(&text);
        }
    }

    /// The client is nobody any more, and watches nobody.
    pub fn sign_out(&self, user: &UserId, client: &Client, watched: &[UserId]) {
        let mut state = self.state.lock();
        state.unwatch(client, watched);
        let number = state.departures + 1;
        let Some(known) = state.users.get_mut(user) else { return };
        known.connections.swap_remove(&client.socket_id);
        if known.connections.is_empty() {
            known.departed = Some(number);
            state.departures = number;
            self.due.add(Instant::now() + GRACE, Due::Departure(user.clone(), number));
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
        if !was_online {
            self.announce(state, user, true);
        }
    }

    fn announce(&self, state: &mut State, user: &UserId, online: bool) {
        let State { watched_by, untold, .. } = state;
        for (socket_id, client) in watched_by.get(user).into_iter().flatten() {
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
            let queue = Queue::new(Bounds { max_frames: 10, max_bytes: 10_000 });
            Arc::new(Client { socket_id: SocketId::from_random(number), app: Arc::clone(&app), queue })
        };
        let clients: Vec<_> = (0..WATCHERS).map(client).collect();
        let (guest, staff) = (UserId::parse("guest").unwrap(), [UserId::parse("staff").unwrap()]);
        let users = Users::default();
        for client in &clients {
            users.sign_in(&guest, client, "{}", &staff, None);
        }
        assert_eq!(users.connections(&guest).len(), clients.len());
        let start = Instant::now();
        for client in clients.iter().rev() {
            users.sign_out(&guest, client, &staff);
        }
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        let state = users.state.lock();
        assert!(state.watched_by.is_empty());
        assert_eq!(users.due.take_all().len(), 1, "the last of them departs");
    }
}
