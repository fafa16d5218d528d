//! What receivers are done with of the events that a cluster's stream has handed over.

use std::sync::Arc;

use parking_lot::Mutex;

/// A receiver is done with an event.
#[derive(Debug)]
pub struct Done {
    /// The event.
    pub id: Arc<str>,
    /// The receiver's address.
    pub url: Arc<str>,
}

/// Collected until somebody asks.
#[derive(Debug, Default)]
pub struct DoneList(Mutex<Vec<Done>>);

impl DoneList {
    /// Adds one.
    pub fn add(&self, done: Done) {
        self.0.lock().push(done);
    }

    /// Takes all.
    pub fn take(&self) -> Vec<Done> {
        std::mem::take(&mut self.0.lock())
    }
}
