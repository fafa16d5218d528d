//! Whose connections they are, by the tokens that they were authorized with, and the end of those who are not served any more (sections 1.8
//! and 1.9).
//!
//! Always: a session or a user that has ended here has no connection here, whichever comes first, the end or the binding: an end is
//! remembered for as long as a token of before it may still be used.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use herald_protocol::json::quoted;
use herald_protocol::segment::user_channel;
use herald_protocol::{ChannelName, CloseReason, SocketId, UserId, server};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::channel::Delivery;
use super::{Client, Frame, Node};

/// How long an end is remembered: a token lives a minute, and clocks differ.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);

/// Whose connection it is, by the token that it was authorized with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The user.
    pub user: String,
    /// The session.
    pub session: Option<String>,
    /// When it ends by itself, where no session can end it.
    pub expires: Option<SystemTime>,
}

/// Sessions and users that have ended lately.
#[derive(Debug, Default)]
pub(super) struct Lately {
    ended: Mutex<HashMap<Who, Instant>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    Session(String),
    User(String),
}

impl Lately {
    fn note(&self, who: Who) {
        let now = Instant::now();
        let mut ended = self.ended.lock();
        ended.retain(|_, at| now.duration_since(*at) < REMEMBERED);
        ended.insert(who, now);
    }

    fn forget(&self, who: &Who) {
        self.ended.lock().remove(who);
    }

    fn has(&self, binding: &Binding) -> bool {
        let ended = self.ended.lock();
        let session = binding.session.clone().map(Who::Session);
        !ended.is_empty()
            && [session, Some(Who::User(binding.user.clone()))]
                .iter()
                .flatten()
                .any(|who| ended.get(who).is_some_and(|at| at.elapsed() < REMEMBERED))
    }
}

/// When the first binding that ends by itself may do so, so that nobody need look at every connection to see that none does.
#[derive(Debug, Default)]
pub(super) struct FirstExpiry(Mutex<Option<SystemTime>>);

impl FirstExpiry {
    fn note(&self, at: SystemTime) {
        let mut first = self.0.lock();
        *first = Some(first.map_or(at, |first| first.min(at)));
    }

    /// Whether it is time to look at all, who are then noted again.
    fn take_due(&self, now: SystemTime) -> bool {
        self.0.lock().take_if(|at| *at <= now).is_some()
    }
}

impl Node {
    /// The connection belongs to this user and session from now on, if it is here; it ends if those have.
    pub fn bind(&self, app: &str, socket_id: SocketId, binding: Binding) {
        let Some(client) = self.room_of(app).and_then(|room| room.client(socket_id)) else { return };
        client.bind(binding.clone());
        if let Some(at) = binding.expires {
            self.first_expiry.note(at);
        }
        if self.lately.has(&binding) {
            client.close(CloseReason::SessionEnded);
        }
    }

    /// The sessions to which connections here belong, each with its user.
    #[must_use]
    pub fn sessions(&self) -> BTreeMap<String, String> {
        let bound = self.clients().into_iter().filter_map(|client| client.binding());
        bound.filter_map(|binding| Some((binding.session?, binding.user))).collect()
    }

    /// Ends the connections of a session, and tells the user's others.
    pub async fn end_session(&self, session: &str) {
        self.lately.note(Who::Session(session.to_owned()));
        let ended = self.close_where(&CloseReason::SessionEnded, |binding| binding.session.as_deref() == Some(session));
        let users: HashSet<String> = ended.iter().filter_map(|client| client.bound_user()).collect();
        let elsewhere: HashSet<SocketId> = ended.iter().map(|client| client.socket_id).collect();
        for user in users {
            self.tell(&user, "session.revoked", &json!({ "session_id": session }).to_string(), &elsewhere).await;
        }
    }

    /// Ends the connections of a user in all apps: those that were authorized for the user, and those that are signed in.
    pub fn end_user(&self, user: &str) {
        self.lately.note(Who::User(user.to_owned()));
        self.close_where(&CloseReason::SessionEnded, |binding| binding.user == user);
        let Ok(id) = UserId::parse(user) else { return }; // nobody can sign in with it
        for room in self.rooms() {
            room.users.connections(&id).iter().for_each(|client| client.close(CloseReason::SessionEnded));
        }
    }

    /// The user may come again.
    pub fn readmit(&self, user: &str) {
        self.lately.forget(&Who::User(user.to_owned()));
    }

    /// Sends the connections of a user away to come back: pusher-js would not notice if a subscription were taken from it.
    pub fn ask_anew(&self, user: &str) {
        self.close_where(&CloseReason::AccessChanged, |binding| binding.user == user);
    }

    /// Sends those away to come back whom no end of a session could reach, and whose time is over.
    pub fn end_expired(&self, now: SystemTime) {
        if !self.first_expiry.take_due(now) {
            return;
        }
        self.close_where(&CloseReason::AccessChanged, |binding| {
            let Some(at) = binding.expires else { return false };
            if at > now {
                self.first_expiry.note(at);
            }
            at <= now
        });
    }

    fn close_where(&self, reason: &CloseReason, is_meant: impl Fn(&Binding) -> bool) -> Vec<std::sync::Arc<Client>> {
        let mut meant = self.clients();
        meant.retain(|client| client.is_bound_to(&is_meant));
        meant.iter().for_each(|client| client.close(reason.clone()));
        meant
    }

    /// Sends an event to a user's own channel in every app, but not to those connections.
    async fn tell(&self, user: &str, event: &str, data: &str, but: &HashSet<SocketId>) {
        let Ok(channel) = ChannelName::parse(&user_channel(user), usize::MAX) else { return };
        let frame = || Frame::text(&server::event(event, &channel, &quoted(data)));
        for room in self.rooms() {
            let delivery = Delivery { elsewhere: but.clone(), ..Delivery::default() };
            if room.fan_out(&channel, frame, delivery).await.is_err() {
                tracing::warn!(%channel, event, "an event reached some subscribers only: short of CPU");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_ends_by_itself_is_due_once() {
        let (start, first) = (SystemTime::UNIX_EPOCH, FirstExpiry::default());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!first.take_due(after(100)), "nobody has one");
        for seconds in [20, 10, 30] {
            first.note(after(seconds));
        }
        assert!(!first.take_due(after(9)) && first.take_due(after(10)) && !first.take_due(after(10)));
    }

    #[test]
    fn an_end_is_remembered_until_the_user_may_come_again() {
        let binding = |user: &str, session: Option<&str>| Binding {
            user: user.to_owned(),
            session: session.map(str::to_owned),
            expires: None,
        };
        let lately = Lately::default();
        assert!(!lately.has(&binding("ann", Some("s1"))));
        lately.note(Who::Session("s1".to_owned()));
        lately.note(Who::User("bob".to_owned()));
        for (user, session, has_ended) in [
            ("ann", Some("s1"), true),
            ("ann", Some("s2"), false),
            ("ann", None, false),
            ("bob", None, true),
            ("s1", None, false),
        ] {
            assert_eq!(lately.has(&binding(user, session)), has_ended, "{user} {session:?}");
        }
        lately.forget(&Who::User("bob".to_owned()));
        assert!(!lately.has(&binding("bob", None)));
    }
}
