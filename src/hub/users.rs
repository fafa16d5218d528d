//! Users who are signed in on this node, and the connections that are theirs.

use std::sync::Arc;

use dashmap::DashMap;
use herald_protocol::UserId;

use super::client::Client;

/// Signed-in users of one app.
#[derive(Debug, Default)]
pub struct Users {
    connections: DashMap<UserId, Vec<Arc<Client>>>,
}

impl Users {
    /// The client is the user from now on.
    pub fn sign_in(&self, user: &UserId, client: &Arc<Client>) {
        self.connections.entry(user.clone()).or_default().push(Arc::clone(client));
    }

    /// The client is nobody any more.
    pub fn sign_out(&self, user: &UserId, client: &Client) {
        if let Some(mut connections) = self.connections.get_mut(user) {
            connections.retain(|known| known.socket_id != client.socket_id);
        }
        self.connections.remove_if(user, |_, connections| connections.is_empty());
    }

    /// The user's connections.
    #[must_use]
    pub fn connections(&self, user: &UserId) -> Vec<Arc<Client>> {
        self.connections.get(user).map(|entry| entry.clone()).unwrap_or_default()
    }
}
