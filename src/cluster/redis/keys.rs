//! Names of keys and pub/sub channels. All of a bucket carry its hash tag, so they lie in one slot of a Redis Cluster; the app stands
//! after it. The scripts make the same names (scripts/library.lua).

use crc::{CRC_16_XMODEM, Crc};
use herald_protocol::{ChannelName, UserId};

/// Buckets on a Redis Cluster: enough to spread over its servers, few enough that a connection and a heartbeat for each cost nothing.
/// Every node has to make the same of a name, so this never changes.
const BUCKETS: u16 = 16;
/// Slots of a Redis Cluster.
const SLOTS: u16 = 16_384;
/// What Redis Cluster makes slots with.
const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// The names of one bucket.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// In how many buckets everything lies, whatever their number is.
    pub(super) all: String,
    tag: String,
    bucket: u16,
    buckets: u16,
}

/// What a pub/sub channel is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    /// A channel of an app.
    Channel(String, ChannelName),
    /// A signed-in user of an app.
    User(String, UserId),
    /// A node.
    Node(String),
    /// All nodes.
    Nodes,
}

/// Which of so many buckets holds a channel, a user or anything else of an app.
pub(super) fn bucket_of(app: &str, name: &str, buckets: u16) -> u16 {
    let mut digest = CRC.digest();
    digest.update(app.as_bytes());
    digest.update(b"\0");
    digest.update(name.as_bytes());
    digest.finalize() % buckets
}

impl Keys {
    /// Of the one bucket of a single Redis, or of each of those of a Redis Cluster.
    pub(super) fn of_all(prefix: &str, database: u16, is_sharded: bool) -> Vec<Self> {
        let buckets = if is_sharded { BUCKETS } else { 1 };
        (0..buckets).map(|bucket| Self::new(prefix, database, bucket, buckets)).collect()
    }

    /// Pub/sub does not know databases, so the database is part of the name. What may stand behind the bucket's number brings its slot into
    /// the bucket's share of all slots: servers of a Redis Cluster, which have a range each, then have as many buckets each.
    fn new(prefix: &str, database: u16, bucket: u16, buckets: u16) -> Self {
        let share = SLOTS / buckets;
        let first = format!("{prefix}:{database}:{bucket}");
        let others = (1..=u16::MAX).map(|salt| format!("{first}.{salt}"));
        let is_within = |tag: &String| CRC.checksum(tag.as_bytes()) % SLOTS / share == bucket;
        let tag = std::iter::once(first.clone()).chain(others).find(is_within).unwrap_or(first);
        let all = format!("{{{prefix}:{database}:0}}:buckets");
        Self { all, tag: format!("{{{tag}}}"), bucket, buckets }
    }

    /// Its number.
    pub(super) fn bucket(&self) -> u16 {
        self.bucket
    }

    /// How many there are.
    pub(super) fn buckets(&self) -> u16 {
        self.buckets
    }

    /// Whether they lie on a Redis Cluster.
    pub(super) fn is_sharded(&self) -> bool {
        self.buckets > 1
    }

    /// Whether this bucket is the one for the name.
    pub(super) fn hold(&self, app: &str, name: &str) -> bool {
        bucket_of(app, name, self.buckets) == self.bucket
    }

    /// The nodes that are alive: every script's first key.
    pub(super) fn nodes(&self) -> String {
        format!("{}:nodes", self.tag)
    }

    /// A key that never exists.
    pub(super) fn absent(&self) -> String {
        format!("{}:absent", self.tag)
    }

    /// The stream of events that wait for their webhooks.
    pub(super) fn webhooks(&self) -> String {
        format!("{}:webhooks", self.tag)
    }

    /// Which receivers are done with events that others still wait for.
    pub(super) fn webhooks_done(&self) -> String {
        format!("{}:webhooks:done", self.tag)
    }

    /// Occupied channels of an app.
    pub(super) fn channels(&self, app: &str) -> String {
        format!("{}:channels:{app}", self.tag)
    }

    /// Subscriptions of a channel by node.
    pub(super) fn channel_nodes(&self, app: &str, channel: &ChannelName) -> String {
        format!("{}:ch:{app}:{}:nodes", self.tag, channel.as_str())
    }

    /// Members of a channel.
    pub(super) fn members(&self, app: &str, channel: &ChannelName) -> String {
        format!("{}:ch:{app}:{}:members", self.tag, channel.as_str())
    }

    /// What a cache channel keeps.
    pub(super) fn cache(&self, app: &str, channel: &ChannelName) -> String {
        format!("{}:ch:{app}:{}:cache", self.tag, channel.as_str())
    }

    /// Which events of a request under an idempotency key were published.
    pub(super) fn once(&self, app: &str, request: &str) -> String {
        format!("{}:once:{app}:{request}", self.tag)
    }

    /// Connections of an app by node.
    pub(super) fn connections(&self, app: &str) -> String {
        format!("{}:app:{app}:conns", self.tag)
    }

    /// The pub/sub channel of a topic.
    pub(super) fn topic(&self, topic: &Topic) -> String {
        match topic {
            Topic::Channel(app, channel) => format!("{}:ch:{app}:{}", self.tag, channel.as_str()),
            Topic::User(app, user) => format!("{}:u:{app}:{user}", self.tag),
            Topic::Node(node) => format!("{}:n:{node}", self.tag),
            Topic::Nodes => format!("{}:all", self.tag),
        }
    }

    /// The topic of a pub/sub channel.
    pub(super) fn read_topic(&self, name: &str) -> Option<Topic> {
        let rest = name.strip_prefix(&self.tag)?.strip_prefix(':')?;
        if rest == "all" {
            return Some(Topic::Nodes);
        }
        let (kind, rest) = rest.split_once(':')?;
        if kind == "n" {
            return Some(Topic::Node(rest.to_owned()));
        }
        let (app, name) = rest.split_once(':')?;
        match kind {
            "ch" => Some(Topic::Channel(app.to_owned(), ChannelName::parse(name, 200).ok()?)),
            "u" => Some(Topic::User(app.to_owned(), UserId::parse(name).ok()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_read_as_it_was_written() {
        let keys = Keys::of_all("herald", 7, false).remove(0);
        let channel = |name| Topic::Channel("app_1-x".to_owned(), ChannelName::parse(name, 200).unwrap());
        for topic in [
            channel("presence-room"),
            channel("#server-to-user-a:b c"),
            Topic::User("app".to_owned(), UserId::parse("a:b\u{e9}").unwrap()),
            Topic::Node("0123".to_owned()),
            Topic::Nodes,
        ] {
            assert_eq!(keys.read_topic(&keys.topic(&topic)), Some(topic));
        }
        assert_eq!(keys.read_topic("{herald:0:0}:n:x"), None, "another database's");
        assert_eq!(keys.nodes(), "{herald:7:0}:nodes");
    }

    #[test]
    fn each_bucket_of_a_redis_cluster_has_its_share_of_the_slots() {
        for prefix in ["herald", "other", "a.b_c-d"] {
            for (position, keys) in Keys::of_all(prefix, 0, true).iter().enumerate() {
                let tag = keys.tag.trim_matches(['{', '}']);
                let slot = usize::from(CRC.checksum(tag.as_bytes()) % SLOTS);
                assert_eq!(slot / 1_024, position, "{tag}");
            }
        }
        // `CLUSTER KEYSLOT` says the same.
        assert_eq!(CRC.checksum(b"123456789") % SLOTS, 12_739);
    }

    #[test]
    fn every_name_is_held_by_one_bucket() {
        let all = Keys::of_all("herald", 0, true);
        let mut names = vec![0; all.len()];
        for number in 0..1_600 {
            let name = format!("private-{number}");
            let holders: Vec<u16> = all.iter().filter(|keys| keys.hold("app", &name)).map(Keys::bucket).collect();
            assert_eq!(holders, [bucket_of("app", &name, BUCKETS)], "{name}");
            names[usize::from(holders[0])] += 1;
        }
        assert!(names.iter().all(|names| (50..150).contains(names)), "about as many each: {names:?}");
    }
}
