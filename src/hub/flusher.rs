//! Writes what waits for many connections, a few at a time: so an event to thousands of them does not put thousands of tasks into the runtime's
//! line, before whoever has the next event to publish. While those are written, more comes for them, and goes out with the rest.
//!
//! There are as many flushers as threads; a connection is on the list of one of them at most once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::client::Client;
use super::pressure::Pressure;
use super::queue::Way;

/// Connections that are written to before others have their turn.
const AT_A_TIME: usize = 32;

/// See the module.
#[derive(Debug)]
pub struct Flushers {
    pressure: Pressure,
    lists: Vec<List>,
    next: AtomicUsize,
}

#[derive(Debug, Default)]
struct List {
    clients: Mutex<Vec<Arc<Client>>>,
    added: Notify,
}

impl Default for Flushers {
    /// One for each thread of the runtime.
    fn default() -> Self {
        let threads = Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers());
        let lists = (0..threads).map(|_| List::default()).collect();
        Self { pressure: Pressure::default(), lists, next: AtomicUsize::new(0) }
    }
}

impl Flushers {
    /// How an event to so many subscribers is written now.
    pub(super) fn way(&self, now: Instant, subscribers: usize) -> Way {
        self.pressure.way(now, subscribers)
    }

    /// Puts connections on the lists, in equal parts.
    pub(super) fn add(&self, clients: Vec<Arc<Client>>) {
        let part = clients.len().div_ceil(self.lists.len());
        let mut clients = clients.into_iter().peekable();
        while clients.peek().is_some() {
            let list = self.lists.get(self.next.fetch_add(1, Ordering::Relaxed) % self.lists.len());
            let Some(list) = list else { return };
            list.clients.lock().extend(clients.by_ref().take(part));
            list.added.notify_one();
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.lists.len()
    }

    /// What one of them does, as long as it is polled.
    pub async fn run(&self, number: usize) {
        if let Some(list) = self.lists.get(number) {
            list.flush().await;
        }
    }
}

impl List {
    async fn flush(&self) {
        loop {
            self.added.notified().await;
            loop {
                let listed = std::mem::take(&mut *self.clients.lock());
                if listed.is_empty() {
                    break;
                }
                for clients in listed.chunks(AT_A_TIME) {
                    clients.iter().for_each(|client| client.queue.write_waiting());
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}
