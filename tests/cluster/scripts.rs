//! The scripts on their own, against a real Redis: what each changes, refuses and reports.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisResult, Script};

use crate::redis::Redis;

const GRACE_MS: &str = "60000";
/// Nobody is silent for so long in a test.
const TIMEOUT_MS: &str = "60000";
/// A time that does not come.
const NEVER: &str = "9000000000000000";

macro_rules! script {
    ($name:literal) => {
        Script::new(concat!(
            include_str!("../../src/cluster/redis/scripts/library.lua"),
            include_str!(concat!("../../src/cluster/redis/scripts/", $name, ".lua")),
        ))
    };
}

/// One bucket of a Redis of the test's own.
struct Bucket {
    connection: MultiplexedConnection,
    _redis: Redis,
}

/// What scripts/channel.lua answers: epoch, seq, refused users, members, kept event.
type Answer = (u64, u64, Vec<String>, Option<Vec<String>>, Option<(u64, String, i64)>);

impl Bucket {
    /// Into which these nodes were let.
    async fn with(nodes: &[&str]) -> Self {
        let redis = Redis::start();
        let client = redis::Client::open(redis.url()).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut bucket = Self { connection, _redis: redis };
        for node in nodes {
            bucket.beat(node, "1").await;
        }
        bucket
    }

    async fn call<T: FromRedisValue>(&mut self, script: &Script, arguments: &[&str]) -> RedisResult<T> {
        let mut call = script.key("{t}:nodes");
        arguments.iter().for_each(|argument| _ = call.arg(*argument));
        call.invoke_async(&mut self.connection).await
    }

    async fn ask<T: FromRedisValue>(&mut self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut asked = Cmd::new();
        words.by_ref().for_each(|word| _ = asked.arg(word));
        asked.query_async(&mut self.connection).await.unwrap()
    }

    async fn beat(&mut self, node: &str, joining: &str) -> (String, u8, u8, Vec<String>, String, u64, u64) {
        self.call(&script!("beat"), &[node, joining, TIMEOUT_MS, TIMEOUT_MS]).await.unwrap()
    }

    /// So many subscriptions of the node, with webhooks, and what has changed of its users.
    async fn channel(&mut self, node: &str, channel: &str, count: &str, users: &[&str]) -> RedisResult<Answer> {
        let head = [node, "app", channel, count, "hl", "2", GRACE_MS];
        self.call(&script!("channel"), &[&head[..], users].concat()).await
    }

    async fn presence(&mut self, node: &str, count: &str, users: &[&str]) -> Answer {
        let head = [node, "app", "presence-a", count, "hlp", "2", GRACE_MS];
        self.call(&script!("channel"), &[&head[..], users].concat()).await.unwrap()
    }

    /// Kinds of the events that wait for webhooks.
    async fn reported(&mut self) -> Vec<String> {
        let stream: redis::streams::StreamRangeReply = self.ask("XRANGE {t}:webhooks - +").await;
        stream.ids.iter().map(|entry| entry.get("kind").unwrap()).collect()
    }
}

#[tokio::test]
async fn who_was_taken_out_is_refused() {
    let mut bucket = Bucket::with(&["n1"]).await;
    let refused = bucket.channel("n2", "a", "1", &[]).await.unwrap_err();
    assert_eq!(refused.code(), Some("FENCED"));
    assert_eq!(bucket.ask::<usize>("EXISTS {t}:ch:app:a:nodes").await, 0);
    let (_, is_alive, ..) = bucket.beat("n2", "0").await;
    assert_eq!(is_alive, 0, "a sign of life lets nobody in again");
}

#[tokio::test]
async fn what_is_told_twice_counts_once() {
    let mut bucket = Bucket::with(&["n1", "n2"]).await;
    for (node, count) in [("n1", "3"), ("n1", "3"), ("n2", "1"), ("n1", "2")] {
        bucket.channel(node, "a", count, &[]).await.unwrap();
    }
    let counts: Vec<usize> = bucket.ask("HVALS {t}:ch:app:a:nodes").await;
    assert_eq!(counts.iter().sum::<usize>(), 3);
    assert_eq!(bucket.reported().await, ["channel_occupied"]);
}

#[tokio::test]
async fn a_channel_is_vacated_by_the_last_node_and_a_return_is_silent() {
    let mut bucket = Bucket::with(&["n1", "n2"]).await;
    for (node, count, is_listed, due) in [("n1", "1", 1, 0), ("n2", "1", 1, 0), ("n1", "0", 1, 0), ("n2", "0", 0, 1)] {
        bucket.channel(node, "a", count, &[]).await.unwrap();
        assert_eq!(bucket.ask::<usize>("ZCARD {t}:channels:app").await, is_listed, "{node} {count}");
        assert_eq!(bucket.ask::<usize>("ZCARD {t}:due").await, due, "{node} {count}");
    }
    bucket.channel("n1", "a", "1", &[]).await.unwrap();
    assert_eq!(bucket.ask::<usize>("ZCARD {t}:due").await, 0);
    assert_eq!(bucket.reported().await, ["channel_occupied"]);
}

#[tokio::test]
async fn a_member_stays_until_the_last_connection_on_any_node_and_a_full_room_refuses() {
    let mut bucket = Bucket::with(&["n1", "n2"]).await;
    let (epoch, seq, ..) = bucket.presence("n1", "1", &["ann", "1", "first"]).await;
    assert_eq!(seq, 1);
    let (same, seq, _, list, _) = bucket.presence("n2", "2", &["ann", "1", "second", "bob", "1", "null"]).await;
    assert_eq!((same, seq), (epoch, 2), "only bob is new");
    let mut list = list.unwrap();
    list.sort();
    assert_eq!(list, ["ann", "bob", "first", "null"], "the first writer wins");
    let (_, seq, refused, ..) = bucket.presence("n2", "3", &["cid", "1", "null"]).await;
    assert_eq!((seq, refused), (2, vec!["cid".to_owned()]));
    assert_eq!(bucket.ask::<usize>("HGET {t}:ch:app:presence-a:nodes n2").await, 2, "who was refused is not counted");
    let (_, seq, ..) = bucket.presence("n1", "0", &["ann", "0", ""]).await;
    assert_eq!(seq, 2, "she is on the other node");
    let (_, seq, ..) = bucket.presence("n2", "1", &["ann", "0", ""]).await;
    assert_eq!(seq, 3);
    assert_eq!(bucket.ask::<Vec<String>>("HKEYS {t}:ch:app:presence-a:members").await, ["bob"]);
}

#[tokio::test]
async fn the_owner_alone_cleans_up_and_nothing_of_the_dead_is_left() {
    let mut bucket = Bucket::with(&["n1", "n2"]).await;
    bucket.presence("n2", "1", &["ann", "1", "null"]).await;
    bucket.channel("n2", "a", "1", &[]).await.unwrap();
    bucket.call::<u8>(&script!("user"), &["n2", "app", "ann", "1", GRACE_MS]).await.unwrap();
    bucket.call::<u8>(&script!("connections"), &["n2", "app", "1", "-1"]).await.unwrap();
    bucket.ask::<usize>("ZADD {t}:nodes 0 n2").await; // silent since ever
    let (_, _, is_owner, reaping, ..) = bucket.beat("n1", "0").await;
    assert_eq!((is_owner, reaping), (1, vec!["n2".to_owned()]));
    let not_owner = bucket.call::<usize>(&script!("reap"), &["n3", "n2", "1", GRACE_MS]).await.unwrap_err();
    assert_eq!(not_owner.code(), Some("NOTOWNER"));
    let mut calls = 0;
    while bucket.call::<usize>(&script!("reap"), &["n1", "n2", "1", GRACE_MS, "h:app"]).await.unwrap() > 0 {
        calls += 1;
    }
    assert_eq!(calls, 4, "a presence channel, a channel, a user, the connections");
    assert_eq!(bucket.ask::<usize>("ZCARD {t}:due").await, 4, "vacated twice, one member, one user");
    let mut left: Vec<String> = bucket.ask("KEYS *").await;
    left.sort();
    assert_eq!(left, ["{t}:due", "{t}:epoch", "{t}:nodes", "{t}:owner", "{t}:webhooks"]);
}

#[tokio::test]
async fn a_bucket_is_handed_to_the_lowest_id_among_the_living_by_its_owner_alone() {
    let mut bucket = Bucket::with(&["n2", "n1", "n0", "n3"]).await;
    bucket.ask::<usize>("ZADD {t}:nodes 0 n0").await; // silent since ever
    let (_, _, is_owner, _, heir, ..) = bucket.beat("n2", "0").await;
    assert_eq!((is_owner, heir.as_str()), (1, "n1"));
    let (_, _, is_owner, _, heir, ..) = bucket.beat("n1", "0").await;
    assert_eq!((is_owner, heir.as_str()), (0, ""), "it is told to the owner only");
    let give = script!("give");
    let not_owner = bucket.call::<u8>(&give, &["n1", "n1", TIMEOUT_MS]).await.unwrap_err();
    assert_eq!(not_owner.code(), Some("NOTOWNER"));
    assert_eq!(bucket.call::<u8>(&give, &["n2", "gone", TIMEOUT_MS]).await.unwrap(), 0, "not to the dead");
    assert_eq!(bucket.call::<u8>(&give, &["n2", "n1", TIMEOUT_MS]).await.unwrap(), 1);
    assert!(bucket.ask::<i64>("PTTL {t}:owner").await > 0, "if the heir does not take it, another will");
    for (node, expected) in [("n2", 0), ("n1", 1)] {
        assert_eq!(bucket.beat(node, "0").await.2, expected, "{node}");
    }
}

#[tokio::test]
async fn a_rate_is_kept_and_its_key_expires() {
    let mut bucket = Bucket::with(&[]).await;
    let arguments = ["app:Events", "60000000", "30000000"]; // two a minute
    for (waits, resets) in [(0..=0, 30), (0..=0, 60), (1..=30_000_000_u64, 60)] {
        let (wait, reset): (u64, u64) = bucket.call(&script!("rate"), &arguments).await.unwrap();
        assert!(waits.contains(&wait), "{wait}");
        assert!((resets * 1_000_000 - 10_000_000..=resets * 1_000_000).contains(&reset), "{reset}");
        assert!(bucket.ask::<i64>("PTTL {t}:rate:app:Events").await > 0, "no key without an end");
    }
    let asking = bucket.call::<(u64, u64)>(&script!("rate"), &["other", "60000000", "0"]).await.unwrap();
    assert_eq!(asking, (0, 0));
    assert_eq!(bucket.ask::<i64>("EXISTS {t}:rate:other").await, 0, "what costs nothing is not remembered");
}

#[tokio::test]
async fn one_runs_under_a_key_and_the_others_get_its_answer() {
    let mut bucket = Bucket::with(&[]).await;
    let claim = script!("claim");
    for (request, token, expected) in [("r", "n1", "first"), ("r", "n2", "running"), ("other", "n2", "other")] {
        let found: String = bucket.call(&claim, &["app", "k", request, token, "30000"]).await.unwrap();
        assert_eq!(found, expected);
    }
    bucket.call::<u8>(&script!("answered"), &["app", "k", "n2", "1", "theirs"]).await.unwrap();
    bucket.call::<u8>(&script!("answered"), &["app", "k", "n1", "1", "{}"]).await.unwrap();
    let found: String = bucket.call(&claim, &["app", "k", "r", "n2", "30000"]).await.unwrap();
    assert_eq!(found, "={}", "the answer of whoever ran");
    assert!(bucket.ask::<i64>("PTTL {t}:idem:app:k").await > 0, "no key without an end");
}

#[tokio::test]
async fn what_is_published_under_a_key_is_published_once_and_numbers_of_kept_events_rise() {
    let mut bucket = Bucket::with(&[]).await;
    let publish = script!("publish");
    for expected in ["0", "-1"] {
        let number: String = bucket.call(&publish, &["app", "a", "n1\0", "f", "0", "key", "0", NEVER]).await.unwrap();
        assert_eq!(number, expected);
    }
    let mut last = 0;
    for _ in 0..3 {
        let number: u64 =
            bucket.call(&publish, &["app", "cache-a", "n1\0", "f", "60000", "", "0", NEVER]).await.unwrap();
        assert!(number > last);
        last = number;
    }
    let late = ["app", "cache-a", "n1\0", "f", "60000", "late", "0", "1000"];
    assert_eq!(bucket.call::<String>(&publish, &late).await.unwrap_err().code(), Some("LATE"));
    assert_eq!(bucket.ask::<u64>("HGET {t}:ch:app:cache-a:cache number").await, last);
    assert_eq!(bucket.ask::<usize>("EXISTS {t}:once:app:late").await, 0, "it may be published under its key yet");
}

#[tokio::test]
async fn what_finds_no_room_in_the_stream_of_webhooks_is_counted_once() {
    let mut bucket = Bucket::with(&["n1"]).await;
    let fill = Script::new("for _ = 1, 100000 do redis.call('XADD', KEYS[1], '*', 'app', 'app') end");
    fill.key("{t}:webhooks").invoke_async::<()>(&mut bucket.connection).await.unwrap();
    for _ in 0..2 {
        bucket.call::<u8>(&script!("report"), &["app", "client_event", "a", "{}"]).await.unwrap();
    }
    assert_eq!(bucket.ask::<usize>("XLEN {t}:webhooks").await, 100_000, "what waits longer is not thrown away for it");
    let due = script!("due");
    for dropped in [2, 0] {
        assert_eq!(bucket.call::<(usize, u64)>(&due, &["n1", "200"]).await.unwrap(), (0, dropped));
    }
}

#[tokio::test]
async fn what_stands_under_a_node_s_id_is_told_to_it_and_what_no_list_names_counts_as_lost() {
    type Page = (String, Vec<(String, usize, u64, u64, Vec<(String, usize)>)>);
    let mut bucket = Bucket::with(&["n1", "n2"]).await;
    bucket.presence("n1", "3", &["ann", "2", "{}", "bob", "1", "{}"]).await;
    bucket.presence("n2", "1", &["ann", "1", "{}"]).await;
    bucket.channel("n1", "a", "2", &[]).await.unwrap();
    bucket.call::<u8>(&script!("user"), &["n1", "app", "ann", "2", GRACE_MS]).await.unwrap();
    let audit = script!("audit");
    let (cursor, mut entries): Page = bucket.call(&audit, &["n1", "0", "100"]).await.unwrap();
    entries.sort();
    let found: Vec<_> = entries.iter().map(|(entry, count, ..)| (entry.as_str(), *count)).collect();
    assert_eq!(cursor, "0", "there is no further page");
    assert_eq!(found, [("c\0app\0a", 2), ("c\0app\0presence-a", 3), ("u\0app\0ann", 2)]);
    let (_, _, epoch, seq, mut users) = entries.swap_remove(1);
    users.sort();
    assert!(epoch > 0);
    assert_eq!((seq, users), (2, vec![("ann".to_owned(), 2), ("bob".to_owned(), 1)]));

    bucket.ask::<usize>("ZREM {t}:channels:app a").await;
    bucket.ask::<usize>("HDEL {t}:ch:app:presence-a:members bob").await;
    let (_, mut entries): Page = bucket.call(&audit, &["n1", "0", "100"]).await.unwrap();
    entries.sort();
    assert_eq!(entries[0].1, 0, "the list of channels does not name it");
    assert!(entries[1].4.contains(&("bob".to_owned(), 0)), "the list of members does not name him: {entries:?}");
    let fenced = bucket.call::<Page>(&audit, &["n3", "0", "100"]).await.unwrap_err();
    assert_eq!(fenced.code(), Some("FENCED"));
}

#[tokio::test]
async fn a_store_is_the_clusters_as_long_as_a_node_lives_that_has_it() {
    let mut bucket = Bucket::with(&[]).await;
    let claim = script!("store");
    let mut claims = async |who: &str, store: &str, ttl_ms: &str| -> String {
        bucket.call(&claim, &[who, store, ttl_ms]).await.unwrap()
    };
    assert_eq!(claims("a", "one", TIMEOUT_MS).await, "");
    assert_eq!(claims("b", "one", TIMEOUT_MS).await, "", "the same");
    assert_eq!(claims("c", "two", TIMEOUT_MS).await, "one", "another");
    assert_eq!(claims("c", "two", TIMEOUT_MS).await, "one", "it was not noted");
    for who in ["a", "b"] {
        assert_eq!(claims(who, "", "0").await, "");
    }
    assert_eq!(claims("c", "two", "1").await, "", "they have ended");
    let start = std::time::Instant::now();
    while !claims("a", "one", TIMEOUT_MS).await.is_empty() {
        assert!(start.elapsed() < crate::support::DEADLINE, "who is silent for longer than it said is forgotten");
    }
}
