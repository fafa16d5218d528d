//! The protocol's state machine for one client: what it may do, what it has, what it is told.
//!
//! Start at [`Session::receive`]. Answers go through the client's own queue, so they keep their order with what the hub sends. Not
//! here: bytes and time (`connection`), other clients (`hub`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use herald_protocol::client::{ClientEvent, ClientMessage, MemberData, Subscribe, UserData};
use herald_protocol::server::{self, SubscriptionError};
use herald_protocol::signature::{channel_string, user_string};
use herald_protocol::{ChannelKind, ChannelName, CloseReason, InvalidChannelName, UserId, json};

use crate::apps::Permit;
use crate::hub::users::SignIn;
use crate::hub::{Client, Hub, Later, Subscription};
use crate::integrations::sentry;
use crate::limits::Rate;
use crate::metrics;

/// With so many invalid messages within [`INVALID_WINDOW`] a client is closed.
const MAX_INVALID: usize = 20;
const INVALID_WINDOW: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Session {
    hub: Arc<Hub>,
    client: Arc<Client>,
    /// The client's place among its app's connections.
    permit: Option<Permit>,
    /// By their names. Most clients have one or a few, whom a map would cost more than all that is in it.
    subscriptions: Vec<Subscription>,
    user: Option<Box<SignedIn>>,
    authorized: bool,
    /// When the next client event would be due if they came evenly.
    events_due: Option<Instant>,
    /// When the last invalid messages came, fewer than [`MAX_INVALID`].
    invalid: VecDeque<Instant>,
}

/// Who the client has signed in as.
#[derive(Debug)]
struct SignedIn {
    data: UserData,
    watched: Vec<UserId>,
}

/// Why a subscription or sign-in fails: kind and text for the client.
type Failure = (SubscriptionError, String);

impl Session {
    /// A session of a client that was just accepted.
    #[must_use]
    pub fn new(hub: Arc<Hub>, client: Arc<Client>, permit: Permit) -> Self {
        hub.connect(&client);
        Self {
            hub,
            client,
            permit: Some(permit),
            subscriptions: Vec::new(),
            user: None,
            authorized: false,
            events_due: None,
            invalid: VecDeque::new(),
        }
    }

    /// Whether the client has signed in or subscribed with authorization.
    #[must_use]
    pub const fn is_authorized(&self) -> bool {
        self.authorized
    }

    /// Acts on one text frame.
    ///
    /// # Errors
    /// When the connection has to end.
    pub fn receive(&mut self, text: &str) -> Result<Option<Later>, CloseReason> {
        match ClientMessage::parse(text) {
            Ok(ClientMessage::Ping) => self.client.send(server::PONG),
            Ok(ClientMessage::Pong) => {}
            Ok(ClientMessage::Subscribe(wish)) => self.subscribe(&wish),
            Ok(ClientMessage::Unsubscribe { channel }) => {
                if self.forget(&channel) {
                    sentry::user_action("unsubscribe", &channel, "ok");
                }
            }
            Ok(ClientMessage::SignIn { auth, user_data }) => self.sign_in(&auth, &user_data),
            Ok(ClientMessage::Event(event)) => match self.client_event(&event) {
                Ok(later) => return Ok(Some(later)),
                Err(message) => self.client.send(&server::error(Some(4301), &message, Some(&event.channel))),
            },
            Err(invalid) => {
                metrics::INVALID_MESSAGES.increment(1);
                self.client.send(&server::error(None, &invalid.to_string(), None));
                if is_one_too_many(&mut self.invalid, Instant::now()) {
                    return Err(CloseReason::InvalidMessages);
                }
            }
        }
        Ok(None)
    }

    /// Takes the client out of everything; the connection's last step but the goodbye.
    pub fn leave(&mut self) {
        for subscription in std::mem::take(&mut self.subscriptions) {
            self.hub.unsubscribe(&self.client, &subscription);
        }
        if let Some(user) = self.user.take() {
            self.hub.sign_out(&self.client, &user.data.id, &user.watched);
        }
        self.hub.disconnect(&self.client);
        self.permit = None;
    }

    fn subscribe(&mut self, wish: &Subscribe) {
        match self.try_subscribe(wish) {
            Ok(()) => sentry::user_action("subscribe", &wish.channel, "ok"),
            Err((kind, message)) => {
                // What is no channel's name may be anything.
                let is_name = !matches!(kind, SubscriptionError::InvalidChannel | SubscriptionError::NameTooLong);
                sentry::user_action("subscribe", if is_name { &wish.channel } else { "" }, "refused");
                self.client.send(&server::subscription_error(&wish.channel, kind, &message));
            }
        }
    }

    fn try_subscribe(&mut self, wish: &Subscribe) -> Result<(), Failure> {
        let app = Arc::clone(&self.client.app);
        let limits = app.limits();
        let name = ChannelName::parse(&wish.channel, limits.channel_name).map_err(|error| match error {
            InvalidChannelName::TooLong { .. } => (SubscriptionError::NameTooLong, error.to_string()),
            _ => (SubscriptionError::InvalidChannel, error.to_string()),
        })?;
        let kind = name.kind();
        if kind.needs_authorization() {
            self.authorize(&name, wish)?;
        } else if kind == ChannelKind::ServerToUser
            && self.user.as_ref().map(|user| user.data.id.as_str()) != name.user()
        {
            return Err((SubscriptionError::Auth, "not signed in as the user of this channel".to_owned()));
        }
        let member = if kind.is_presence() { Some(self.member(wish)?) } else { None };
        self.authorized |= kind.needs_authorization();
        match subscription(&self.subscriptions, name.as_str()) {
            Some(known) if known.is_refused() => _ = self.forget(name.as_str()),
            Some(known) => {
                known.answer_again(&self.client);
                return Ok(());
            }
            None => {}
        }
        if self.subscriptions.len() >= limits.subscriptions {
            let message =
                format!("the connection has as many subscriptions as the app allows ({})", limits.subscriptions);
            return Err((SubscriptionError::Full, message));
        }
        let subscription = self
            .hub
            .subscribe(&self.client, &name, member)
            .map_err(|refused| (SubscriptionError::Full, refused.to_string()))?;
        if self.subscriptions.is_empty() {
            self.subscriptions.reserve_exact(1);
        }
        let place = place_of(&self.subscriptions, name.as_str()).unwrap_or_else(|place| place);
        self.subscriptions.insert(place, subscription);
        Ok(())
    }

    /// Whether there was a subscription to give up.
    fn forget(&mut self, channel: &str) -> bool {
        let Ok(place) = place_of(&self.subscriptions, channel) else { return false };
        let subscription = self.subscriptions.remove(place);
        self.hub.unsubscribe(&self.client, &subscription);
        true
    }

    fn authorize(&self, name: &ChannelName, wish: &Subscribe) -> Result<(), Failure> {
        let refuse = |message: String| Err((SubscriptionError::Auth, message));
        let Some(auth) = wish.auth.as_deref().filter(|auth| !auth.is_empty()) else {
            metrics::auth_failed("channel", "missing");
            return refuse(format!("`auth` is missing; {name} needs KEY:SIGNATURE from the app's auth endpoint"));
        };
        let signed = channel_string(self.client.socket_id, name.as_str(), wish.channel_data.as_deref());
        self.verify("channel", auth, &signed).or_else(refuse)
    }

    /// Checks `KEY:HEX` over `signed`; the error names what had to be signed, which holds no secret.
    fn verify(&self, what: &'static str, auth: &str, signed: &str) -> Result<(), String> {
        let failed = |reason, message: String| {
            metrics::auth_failed(what, reason);
            Err(message)
        };
        let Some((key, signature)) = auth.split_once(':') else {
            return failed("malformed", "`auth` must be KEY:SIGNATURE".to_owned());
        };
        match self.client.app.verifies(key, signed.as_bytes(), signature) {
            None => return failed("unknown_key", "the key in `auth` is none of this app's".to_owned()),
            Some(true) => return Ok(()),
            Some(false) => {}
        }
        let message = format!(
            "wrong signature: it must be the lower-case hex HMAC-SHA256, with the secret of that key, of {signed:?}"
        );
        failed("wrong_signature", message)
    }

    fn member(&self, wish: &Subscribe) -> Result<MemberData, Failure> {
        let member = match (&wish.channel_data, &self.user) {
            (Some(channel_data), _) => MemberData::parse(channel_data)
                .map_err(|error| (SubscriptionError::InvalidChannel, format!("`channel_data`: {error}")))?,
            (None, Some(user)) => MemberData { user_id: user.data.id.clone(), user_info: user.data.user_info.clone() },
            (None, None) => {
                let message =
                    "a presence channel needs `channel_data` with a `user_id`, or a signed-in user".to_owned();
                return Err((SubscriptionError::InvalidChannel, message));
            }
        };
        let limit = self.client.app.limits().presence_user_info;
        if member.user_info.len() > limit {
            let message = format!("`user_info` has {} bytes, {limit} are allowed", member.user_info.len());
            return Err((SubscriptionError::UserInfoTooLarge, message));
        }
        Ok(member)
    }

    fn sign_in(&mut self, auth: &str, user_data: &str) {
        let done = self.try_sign_in(auth, user_data);
        sentry::user_action("sign in", "", if done.is_ok() { "ok" } else { "refused" });
        if let Err(message) = done {
            self.client.send(&server::error(Some(4009), &message, None));
        }
    }

    fn try_sign_in(&mut self, auth: &str, user_data: &str) -> Result<(), String> {
        self.verify("user", auth, &user_string(self.client.socket_id, user_data))?;
        let data = UserData::parse(user_data).map_err(|error| format!("`user_data`: {error}"))?;
        if self.user.as_ref().is_some_and(|user| user.data.id != data.id) {
            return Err("already signed in as another user".to_owned());
        }
        let limit = self.client.app.limits().watchlist;
        let mut watched: Vec<UserId> = Vec::new();
        for user in data.watchlist.iter().take(limit).filter_map(|id| UserId::parse(id).ok()) {
            if !watched.contains(&user) {
                watched.push(user);
            }
        }
        let named = data.watchlist.len();
        let notice = (named > limit).then(|| {
            let message = format!("the watchlist names {named} users, the first {limit} are watched");
            server::error(Some(4302), &message, None)
        });
        let before = self.user.as_ref().map(|user| user.watched.as_slice());
        let success = server::signin_success(user_data);
        self.hub.sign_in(&self.client, SignIn { user: &data.id, success, watched: &watched, before, notice });
        sentry::is_user(data.id.as_str(), Some(&data.user_info));
        self.user = Some(Box::new(SignedIn { data, watched }));
        self.authorized = true;
        Ok(())
    }

    fn client_event(&mut self, event: &ClientEvent<'_>) -> Result<Later, String> {
        let app = &self.client.app;
        let limits = app.limits();
        if !app.options().client_events {
            return Err("client events are not enabled for this app".to_owned());
        }
        let subscription = subscription(&self.subscriptions, event.channel.as_ref())
            .filter(|subscription| subscription.is_settled())
            .ok_or("client events need a subscription to their channel")?;
        let name = subscription.name();
        if !name.kind().allows_client_events() {
            return Err("client events are allowed on private and presence channels only".to_owned());
        }
        if event.event.chars().count() > limits.event_name || event.event.chars().any(char::is_control) {
            return Err(format!(
                "an event name has at most {} characters and no control characters",
                limits.event_name
            ));
        }
        let size = json::decoded_len(&event.data);
        if size > limits.event_data {
            return Err(format!("`data` has {size} bytes, {} are allowed", limits.event_data));
        }
        let per_second = limits.client_events_per_second;
        Rate::per_second(per_second)
            .admit(&mut self.events_due, Instant::now(), 1)
            .map_err(|_| format!("too many client events, {per_second} a second are allowed"))?;
        Ok(self.hub.client_event(&self.client, subscription, event))
    }
}

/// Where the channel stands among subscriptions, or would.
fn place_of(subscriptions: &[Subscription], channel: &str) -> Result<usize, usize> {
    subscriptions.binary_search_by(|subscription| subscription.name().as_str().cmp(channel))
}

fn subscription<'a>(subscriptions: &'a [Subscription], channel: &str) -> Option<&'a Subscription> {
    subscriptions.get(place_of(subscriptions, channel).ok()?)
}

/// Notes an invalid message.
fn is_one_too_many(invalid: &mut VecDeque<Instant>, now: Instant) -> bool {
    while invalid.front().is_some_and(|first| now - *first > INVALID_WINDOW) {
        invalid.pop_front();
    }
    invalid.push_back(now);
    invalid.len() >= MAX_INVALID
}

/// However the connection's task ends, even by a panic: nobody stays in a channel as a ghost.
impl Drop for Session {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_invalid_messages_within_any_ten_seconds_are_too_many() {
        let start = Instant::now();
        let found = |seconds: &[u64]| {
            let mut invalid = VecDeque::new();
            seconds.iter().position(|at| is_one_too_many(&mut invalid, start + Duration::from_secs(*at)))
        };
        assert_eq!(found(&[0; 19]), None);
        assert_eq!(found(&[0; 20]), Some(19));
        let evenly: Vec<u64> = (0..100).map(|number| number * 6 / 10).collect();
        assert_eq!(found(&evenly), None);
        let around: Vec<u64> = [0].into_iter().chain([9; 18]).chain([11; 18]).collect();
        assert_eq!(found(&around), Some(20), "no window is begun anew");
    }
}
