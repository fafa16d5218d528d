//! A connected client as the hub sees it: an id, an app, a queue.

use std::sync::Arc;

use herald_protocol::{CloseReason, SocketId};
use parking_lot::Mutex;

use super::bindings::Binding;
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
    /// Whose it is, once an auth endpoint of Herald's own has answered for it.
    binding: Mutex<Option<Box<Binding>>>,
}

impl Client {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(socket_id: SocketId, app: Arc<App>, queue: Queue) -> Self {
        Self { socket_id, app, queue, binding: Mutex::default() }
    }

    /// It belongs to this user and session from now on.
    pub fn bind(&self, binding: Binding) {
        *self.binding.lock() = Some(Box::new(binding));
    }

    /// Whether it belongs to somebody of whom this is true.
    pub fn is_bound_to(&self, is_it: impl FnOnce(&Binding) -> bool) -> bool {
        self.binding.lock().as_deref().is_some_and(is_it)
    }

    /// Whose it is, if it was authorized for anything.
    #[must_use]
    pub fn binding(&self) -> Option<Binding> {
        self.binding.lock().as_deref().cloned()
    }

    /// The user to whom it belongs.
    pub fn bound_user(&self) -> Option<String> {
        self.binding.lock().as_deref().map(|binding| binding.user.clone())
    }

    /// Sends a message of the server's own.
    pub fn send(&self, text: &str) {
        self.queue.push(&Frame::text(text));
    }

    /// Asks the connection to end.
    pub fn close(&self, reason: CloseReason) {
        self.queue.close(reason);
    }
}
