//! Receipts: how the owner of a stream of events learns which of them a receiver is done with.
//!
//! An event is done once it was delivered, given up, or dropped because the queue was full; one that merely goes away, at the end of
//! the server or since another node takes over, is not. Always: giving a receipt never waits, and what is listed is bounded by what
//! waits at the receivers, since the owner takes it out whenever it looks for more events.

use std::sync::Arc;

use parking_lot::Mutex;

/// A receiver is done with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The event's id.
    pub id: Arc<str>,
    /// The receiver's address, which may hold secrets.
    pub url: Arc<str>,
}

/// What receivers are done with, until the owner of the stream takes it.
#[derive(Debug, Default)]
pub struct DoneList {
    done: Mutex<Vec<Done>>,
}

/// Goes with an event that was handed over; dropped, it says nothing.
#[derive(Clone, Debug)]
pub struct Receipt {
    done: Done,
    list: Arc<DoneList>,
}

impl DoneList {
    /// Everything since the last time, in the order in which it was done.
    #[must_use]
    pub fn take_all(&self) -> Vec<Done> {
        std::mem::take(&mut *self.done.lock())
    }
}

impl Receipt {
    /// The receipt for an event at a receiver, to be given to `list`.
    #[must_use]
    pub fn new(id: Arc<str>, url: Arc<str>, list: Arc<DoneList>) -> Self {
        Self { done: Done { id, url }, list }
    }

    /// Whether it is given to this list.
    #[must_use]
    pub fn goes_to(&self, list: &DoneList) -> bool {
        std::ptr::eq(&raw const *self.list, list)
    }

    /// Tells the owner that the receiver is done with the event.
    pub fn give(self) {
        self.list.done.lock().push(self.done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_listed_and_once() {
        let list = Arc::new(DoneList::default());
        let receipt = |id: &str| Receipt::new(id.into(), "http://receiver/".into(), Arc::clone(&list));
        let (first, dropped, second) = (receipt("1-0"), receipt("2-0"), receipt("3-0"));
        second.give();
        drop(dropped);
        first.give();
        assert_eq!(list.take_all().iter().map(|done| &*done.id).collect::<Vec<_>>(), ["3-0", "1-0"]);
        assert_eq!(list.take_all(), []);
    }
}
