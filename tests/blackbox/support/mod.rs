//! What the tests stand on: the server's process, its clients, its backend.

pub(crate) mod api;
mod client;
mod herald;
pub(crate) mod wire;

use std::time::Duration;

use herald_protocol::signature::{channel_string, user_string};
use herald_protocol::{Secret, SocketId};

pub(crate) use client::{Client, Event, Options};
pub(crate) use herald::Herald;
pub(crate) use wire::Frame;

/// How long anything that must happen may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Whether the servers of this run are nodes of a cluster: what they leave undelivered then waits in Redis, and what waits for Redis can be
/// cancelled.
#[allow(dead_code, reason = "each of the tests that share this asks for some of it")]
pub(crate) fn in_cluster() -> bool {
    std::env::var_os("HERALD_TEST_REDIS_URL").is_some()
}

/// An app's credentials.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) secret: Secret,
}

impl App {
    pub(crate) fn new(id: &str, key: &str, secret: &str) -> Self {
        Self { id: id.to_owned(), key: key.to_owned(), secret: Secret::new(secret) }
    }

    /// `auth` of a subscription, as the app's backend hands it out.
    pub(crate) fn authorize(&self, socket_id: SocketId, channel: &str, channel_data: Option<&str>) -> String {
        self.sign(&channel_string(socket_id, channel, channel_data))
    }

    /// `auth` of a sign-in.
    pub(crate) fn authenticate(&self, socket_id: SocketId, user_data: &str) -> String {
        self.sign(&user_string(socket_id, user_data))
    }

    fn sign(&self, text: &str) -> String {
        format!("{}:{}", self.key, self.secret.sign(text.as_bytes()))
    }
}
