//! Names of keys and pub/sub channels. All of a bucket carry its hash tag, so they lie in one slot of a Redis Cluster; the app stands
//! after it. The scripts make the same names (scripts/library.lua).

use herald_protocol::{ChannelName, UserId};

/// The names of one bucket.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    tag: String,
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
}

impl Keys {
    /// Pub/sub does not know databases, so the database is part of the name.
    pub(super) fn new(prefix: &str, database: &str) -> Self {
        Self { tag: format!("{{{prefix}:{database}:0}}") }
    }

    /// The nodes that are alive: every script's first key.
    pub(super) fn nodes(&self) -> String {
        format!("{}:nodes", self.tag)
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
        }
    }

    /// The topic of a pub/sub channel.
    pub(super) fn read_topic(&self, name: &str) -> Option<Topic> {
        let rest = name.strip_prefix(&self.tag)?.strip_prefix(':')?;
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
        let keys = Keys::new("herald", "7");
        let channel = |name| Topic::Channel("app_1-x".to_owned(), ChannelName::parse(name, 200).unwrap());
        for topic in [
            channel("presence-room"),
            channel("#server-to-user-a:b c"),
            Topic::User("app".to_owned(), UserId::parse("a:b\u{e9}").unwrap()),
            Topic::Node("0123".to_owned()),
        ] {
            assert_eq!(keys.read_topic(&keys.topic(&topic)), Some(topic));
        }
        assert_eq!(keys.read_topic("{herald:0:0}:n:x"), None, "another database's");
        assert_eq!(keys.nodes(), "{herald:7:0}:nodes");
    }
}
