//! A connected client as the hub sees it: an id, an app, a queue.

use std::sync::Arc;

use herald_protocol::{CloseReason, SocketId};

use super::frame::Frame;
use super::queue::Queue;
use crate::apps::App;

/// One connection. The hub pushes to its queue; the connection's task writes from it.
#[derive(Debug)]
pub struct Client {
    /// Unique in the cluster.
    pub socket_id: SocketId,
    /// The app whose key the client used.
    pub app: Arc<App>,
    /// What waits to be written.
    pub queue: Queue,
}

impl Client {
    /// Sends a message of the server's own.
    pub fn send(&self, text: &str) {
        self.queue.push(&Frame::text(text));
    }

    /// Asks the connection to end.
    pub fn close(&self, reason: CloseReason) {
        self.queue.close(reason);
    }
}
