//! A member that watches: it keeps the list of members as pusher-js keeps it, from its snapshot and the events after it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::nodes::until_equal;
use crate::support::{Client, Event, Herald};

/// See the module. It fails the test when it is told that somebody came who is there, or left who is not.
#[derive(Debug)]
pub(crate) struct Observer {
    pub(crate) client: Client,
    pub(crate) list: BTreeSet<String>,
    channel: String,
    /// What it was told since it joined or since the test looked: `+user` or `-user`.
    told: Vec<String>,
}

impl Observer {
    /// Joins a channel of this node as this user.
    pub(crate) async fn join(node: &Herald, channel: &str, user: &str) -> Self {
        let mut client = node.connect().await;
        let list = ids(&client.join(channel, user).await);
        Self { client, list, channel: channel.to_owned(), told: Vec::new() }
    }

    /// Joins a channel of each of these nodes as another user; all have seen all others come, and have been told nothing since.
    pub(crate) async fn one_a_node<const N: usize>(nodes: &[Herald], channel: &str, users: [&str; N]) -> [Self; N] {
        assert_eq!(nodes.len(), N);
        let mut observers = Vec::new();
        for (node, user) in nodes.iter().zip(users) {
            observers.push(Self::join(node, channel, user).await);
        }
        for observer in &mut observers {
            observer.until(users).await;
            observer.told();
        }
        observers.try_into().unwrap()
    }

    /// Reads one event; that of a member changes the list.
    pub(crate) async fn next(&mut self) -> Event {
        let event = self.client.next().await;
        let user = || event.json()["user_id"].as_str().unwrap().to_owned();
        match &*event.event {
            "pusher_internal:member_added" => {
                assert!(self.list.insert(user()), "told that somebody came who is there: {}; {self:?}", event.text);
                self.told.push(format!("+{}", user()));
            }
            "pusher_internal:member_removed" => {
                assert!(
                    self.list.remove(&user()),
                    "told that somebody left who is not there: {}; {self:?}",
                    event.text
                );
                self.told.push(format!("-{}", user()));
            }
            _ => {}
        }
        event
    }

    /// Reads until these are the members, with the observers themselves.
    pub(crate) async fn until<'a>(&mut self, users: impl IntoIterator<Item = &'a str>) {
        let users: BTreeSet<String> = users.into_iter().map(str::to_owned).collect();
        while self.list != users {
            self.next().await;
        }
    }

    /// Reads all that came before an event that this other node is asked to send now.
    pub(crate) async fn catch_up(&mut self, other: &Herald) {
        let marker = format!("marker-{:016x}", rand::random::<u64>());
        let body = json!({ "name": marker, "channel": self.channel, "data": "" });
        // A node that slept may find out only now that it has to join anew.
        until_equal(&200, "a trigger", async || other.api().events(&body).await.status).await;
        while self.next().await.event != marker {}
    }

    /// Reads all that came before the answer to a ping: its node serves it.
    pub(crate) async fn settle(&mut self) {
        self.client.send_text(r#"{"event":"pusher:ping"}"#).await;
        while self.next().await.event != "pusher:pong" {}
    }

    /// What it was told of members since the last look.
    pub(crate) fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }
}

/// The users of a snapshot, which must agree with itself.
pub(crate) fn ids(snapshot: &Event) -> BTreeSet<String> {
    let presence: Value = snapshot.json()["presence"].clone();
    let ids: BTreeSet<String> =
        presence["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    assert_eq!(presence["count"], ids.len(), "count is the number of users: {}", snapshot.text);
    assert!(presence["hash"].as_object().unwrap().keys().eq(&ids), "hash holds the same users: {}", snapshot.text);
    ids
}
