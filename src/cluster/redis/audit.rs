//! At the beginning of a session and once in a while, what Redis holds under this node's id is compared with what it should hold, and each difference is told like any
//! change: a failover that lost the last second of writes, or a hand that slipped in `redis-cli`, heals by itself.
//!
//! It goes on page by page between the changes, so nobody waits for it; and since the changes' task does it, nothing is told meanwhile that
//! could look like a difference. What Redis lost altogether was simply not among the pages.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use herald_protocol::{ChannelName, UserId};
use rand::RngExt as _;
use tokio::time::Instant;

use super::bucket::{Bucket, Link};
use super::is_counted;
use super::registry::{ChannelKey, Registry, UserKey, ended};
use super::session::Ended;
use crate::hub::remote::{HeldUser, Version};

/// Entries that are compared at once.
const PAGE: usize = 200;
/// A comparison begins so many node time-outs after the one before; about a minute.
const TIMEOUTS: u32 = 4;

/// See the module.
pub(super) struct Audit {
    every: Duration,
    next: Instant,
    cursor: String,
    /// What should be there and was not found yet.
    channels: HashSet<ChannelKey>,
    users: HashSet<UserKey>,
    /// Channels and users that had to be told again.
    differences: usize,
}

/// The answer of scripts/audit.lua: the next cursor; entry, number, epoch, seq, connections of users.
type Page = (String, Vec<(String, usize, u64, u64, HashMap<String, usize>)>);

impl Audit {
    /// The first is due at once: it may be another server than before.
    pub(super) fn new(bucket: &Bucket) -> Self {
        let every = bucket.common.options.node_timeout * TIMEOUTS;
        let (channels, users) = (HashSet::new(), HashSet::new());
        Self { every, next: Instant::now(), cursor: "0".to_owned(), channels, users, differences: 0 }
    }

    /// Does some of it, if it is due.
    pub(super) async fn go_on(&mut self, bucket: &Bucket, link: &Link, registry: &mut Registry) -> Result<(), Ended> {
        if Instant::now() < self.next {
            return Ok(());
        }
        if self.cursor == "0" {
            let counted = registry.channels.keys().filter(|(_, channel)| is_counted(channel));
            self.channels = counted.cloned().collect();
            self.users = registry.users.keys().cloned().collect();
        }
        let asked = bucket.script::<Page>(link, &bucket.common.scripts.audit, |call| {
            call.arg(&link.node).arg(&self.cursor).arg(PAGE);
        });
        let (cursor, entries) = asked.await.map_err(ended)?;
        for (entry, count, epoch, seq, users) in entries {
            let mut parts = entry.splitn(3, '\0');
            let (Some(kind), Some(app), Some(name)) = (parts.next(), parts.next(), parts.next()) else { continue };
            match kind {
                "c" => {
                    let Ok(name) = ChannelName::parse(name, 200) else { continue };
                    let key = (app.to_owned(), name);
                    let users = users.into_iter().filter_map(|(user, count)| Some((UserId::parse(&user).ok()?, count)));
                    let is_wrong = compare(bucket, registry, &key, count, Version { epoch, seq }, users.collect());
                    self.differences += usize::from(is_wrong);
                    self.channels.remove(&key);
                }
                "u" => {
                    let Ok(user) = UserId::parse(name) else { continue };
                    let key = (app.to_owned(), user);
                    if registry.users.get(&key) != Some(&count) {
                        self.differences += 1;
                        registry.users.insert(key.clone(), count);
                        bucket.changes.user(app, &key.1);
                    }
                    self.users.remove(&key);
                }
                _ => {}
            }
        }
        self.cursor = cursor;
        if self.cursor == "0" {
            self.end(bucket, registry);
        }
        Ok(())
    }

    /// All pages were looked at.
    fn end(&mut self, bucket: &Bucket, registry: &mut Registry) {
        for key in self.channels.drain() {
            if let Some(held) = registry.channels.get_mut(&key) {
                self.differences += 1;
                held.doubt();
                bucket.changes.channel(&key.0, &key.1, false);
            }
        }
        for (app, user) in self.users.drain() {
            bucket.changes.user(&app, &user);
        }
        bucket.note_connections();
        if self.differences > 0 {
            let (bucket, told) = (bucket.keys.bucket(), std::mem::take(&mut self.differences));
            tracing::warn!(bucket, told, "Redis did not hold what it should; these channels and users are told again");
        }
        self.next = soon(self.every);
    }
}

/// So that not all nodes ask at once.
fn soon(every: Duration) -> Instant {
    Instant::now() + every.mul_f64(rand::rng().random_range(0.75..1.25))
}

/// Whether Redis holds something else than it should.
fn compare(
    bucket: &Bucket,
    registry: &mut Registry,
    (app, name): &ChannelKey,
    count: usize,
    version: Version,
    users: HashMap<UserId, usize>,
) -> bool {
    let held = registry.channels.entry((app.clone(), name.clone())).or_default();
    let is_missing = held.users.iter().any(|(user, held)| users.get(user) != Some(&held.connections));
    let mut is_wrong = held.count != count || is_missing;
    for (user, connections) in users {
        held.users.entry(user).or_insert_with(|| {
            is_wrong = true;
            HeldUser { connections, info: Box::default(), is_sure: false }
        });
    }
    if is_wrong {
        tracing::debug!(channel = %name, "Redis does not hold what it should");
        held.count = held.count.max(count);
        held.doubt();
    }
    let found = bucket.common.node.room_of(app).and_then(|room| room.find(name));
    let is_old = found.is_some_and(|channel| name.kind().is_presence() && channel.doubt_unless_at(version));
    if is_wrong || is_old {
        bucket.changes.channel(app, name, false);
    }
    is_wrong
}
