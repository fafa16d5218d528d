//! Things that become due at a time of their own: held-back announcements, joined ones, the end of what is kept.

use std::collections::BTreeMap;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A list that hands out each entry when its time has come. Adding never waits; one task takes.
#[derive(Debug)]
pub struct DueList<T> {
    entries: Mutex<Entries<T>>,
    sooner: Notify,
}

#[derive(Debug)]
struct Entries<T> {
    by_time: BTreeMap<(Instant, u64), T>,
    added: u64,
}

impl<T> Default for DueList<T> {
    fn default() -> Self {
        Self { entries: Mutex::new(Entries { by_time: BTreeMap::new(), added: 0 }), sooner: Notify::new() }
    }
}

impl<T> DueList<T> {
    /// Adds an entry that is due at `at`.
    pub fn add(&self, at: Instant, entry: T) {
        let mut entries = self.entries.lock();
        entries.added += 1;
        let key = (at, entries.added);
        let is_first = entries.by_time.keys().next().is_none_or(|first| key < *first);
        entries.by_time.insert(key, entry);
        drop(entries);
        if is_first {
            self.sooner.notify_one();
        }
    }

    /// The next entry, once it is due. Cancel safe.
    pub async fn next(&self) -> T {
        loop {
            let first = self.entries.lock().by_time.keys().next().map(|(at, _)| *at);
            match first {
                Some(at) if at <= Instant::now() => {
                    if let Some((_, entry)) = self.entries.lock().by_time.pop_first() {
                        return entry;
                    }
                }
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = self.sooner.notified() => {}
                },
                None => self.sooner.notified().await,
            }
        }
    }

    /// Everything, whether due or not, in order.
    pub fn take_all(&self) -> Vec<T> {
        std::mem::take(&mut self.entries.lock().by_time).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn entries_come_in_the_order_of_their_times() {
        let list = DueList::default();
        let now = Instant::now();
        list.add(now + Duration::from_millis(30), "later");
        list.add(now, "now");
        list.add(now, "and now");
        assert_eq!([list.next().await, list.next().await, list.next().await], ["now", "and now", "later"]);
        assert!(Instant::now() >= now + Duration::from_millis(30));
        list.add(now + Duration::from_secs(600), "never");
        assert_eq!(list.take_all(), ["never"]);
    }
}
