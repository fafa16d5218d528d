//! A node's time in a bucket, from one connection to its server to the loss of it, and again.
//!
//! Commands and subscriptions have a connection each. Both are proven at every heartbeat: a script on the one, a message to itself that
//! has to come back on the other. Whatever fails ends the session; the next begins by registering anew what Redis was told before.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use herald_protocol::UserId;
use rand::RngExt as _;
use redis::RedisError;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::bucket::{Bucket, Link};
use super::inbound::{Inbound, Pulse};
use super::keys::Topic;
use super::registry::Registry;
use super::servers::Server;
use super::subscriptions::Subscriptions;
use super::{ANSWER, message, new_id, owner};
use crate::config::WhenUnreachable;

/// Pauses between attempts to reach Redis; the longest is a third of `node_timeout` where that is shorter, since the others count as
/// gone who is not back by then.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What does not beat for so many heartbeats, and at least [`ANSWER`], counts as broken.
const MISSED_BEATS: u32 = 3;

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error("{0}")]
    NotFound(String),
    #[error("Redis did not answer a command")]
    Unanswered,
    #[error("the connection for subscriptions was closed")]
    Unsubscribed,
    #[error("nothing comes back on the connection for subscriptions")]
    HalfOpen,
    #[error("another server has its place now")]
    Moved,
    #[error("this node was silent for too long and was taken out of the cluster")]
    TakenOut,
    #[error(
        "other nodes have cut this cluster into {0} buckets, this one cuts it into {1}; all need the same kind of URL and a version that agrees"
    )]
    OtherBuckets(u16, u16),
    #[error("a part of it has failed: {0}")]
    Panicked(String),
}

/// What a node knows of the time before: under which id it was in the cluster, and of which Redis's data.
#[derive(Debug, Default)]
struct Before {
    node: Option<String>,
    epoch: String,
}

/// Stays in the cluster until it is dropped.
pub(super) async fn run(bucket: &Arc<Bucket>) {
    let mut registry = Registry::default();
    let mut before = Before::default();
    let longest_pause = LONGEST_PAUSE.min(bucket.common.options.node_timeout / 3);
    let mut pause = FIRST_PAUSE;
    let number = bucket.keys.bucket();
    loop {
        let begun = Instant::now();
        let ended = session(bucket, &mut registry, &mut before).await;
        bucket.link.store(None);
        unconfirm(bucket);
        let is_news = bucket.lost();
        if begun.elapsed() > longest_pause {
            pause = FIRST_PAUSE;
        }
        if is_news || pause == FIRST_PAUSE {
            tracing::warn!(bucket = number, reason = %ended, "the cluster cannot be reached; it is tried until it can");
        } else {
            tracing::debug!(bucket = number, reason = %ended, "the cluster cannot be reached");
        }
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
        meanwhile(bucket, tokio::time::sleep(jittered)).await;
        pause = (pause * 2).min(longest_pause);
    }
}

/// One session, to its end.
async fn session(bucket: &Arc<Bucket>, registry: &mut Registry, before: &mut Before) -> Ended {
    match meanwhile(bucket, begin(bucket, registry, before)).await {
        Ok((link, subscriptions, mut tasks)) => {
            let _over = link.over.clone().drop_guard();
            unconfirm(bucket);
            registry.note_held(bucket);
            tokio::select! {
                ended = registry.keep_up(bucket, &link, &subscriptions) => ended,
                () = link.over.cancelled() => Ended::Unanswered,
                Some(ended) = tasks.join_next() => ended.unwrap_or_else(|error| Ended::Panicked(error.to_string())),
            }
        }
        Err(ended) => ended,
    }
}

async fn begin(
    bucket: &Arc<Bucket>,
    registry: &mut Registry,
    before: &mut Before,
) -> Result<(Arc<Link>, Subscriptions, JoinSet<Ended>), Ended> {
    let Server { address, client, connection } = bucket.common.servers.of(&bucket.keys.nodes()).await?;
    agree(bucket).await?;
    let mut link = Link::new(before.node.clone().unwrap_or_else(new_id), connection);
    let mut beat = owner::beat(bucket, &link, before.node.is_none()).await?;
    if !beat.is_alive {
        // Taken out by the others, so what it held was taken out too; or Redis has lost everybody, and nobody was told that he left.
        let was_lost = beat.epoch != before.epoch;
        tracing::warn!(was_lost, "this node is not in the cluster any more; it registers anew");
        if !was_lost {
            registry.forget();
        }
        link.node = new_id();
        beat = owner::beat(bucket, &link, true).await?;
    }
    *before = Before { node: Some(link.node.clone()), epoch: beat.epoch };
    let (pulse, lost, mut tasks) = (Pulse::new(), CancellationToken::new(), JoinSet::new());
    let inbound = Inbound::start(bucket, &link.node, pulse.clone(), &mut tasks);
    let subscriptions = Subscriptions::open(&client, bucket.keys.is_sharded(), inbound, lost.clone()).await?;
    tasks.spawn(async move {
        lost.cancelled().await;
        Ended::Moved
    });
    for topic in [Topic::Node(link.node.clone()), Topic::Nodes] {
        subscriptions.begin(&bucket.keys.topic(&topic)).await?;
    }
    bucket.unsure.settle(bucket, &link).await?;
    registry.register(bucket, &link).await?;

    let link = Arc::new(link);
    bucket.link.store(Some(Arc::clone(&link)));
    let (owned, owns) = mpsc::channel(1);
    let (of_beat, of_owner) = ((Arc::clone(bucket), Arc::clone(&link)), (Arc::clone(bucket), Arc::clone(&link)));
    tasks.spawn(async move { heartbeat(&of_beat.0, &of_beat.1, &pulse, owned).await });
    let of_place = Arc::clone(bucket);
    tasks.spawn(
        async move { of_place.common.servers.until_replaced(&address, of_place.common.options.heartbeat).await },
    );
    tasks.spawn(async move { owner::run(&of_owner.0, &of_owner.1, owns).await });
    Ok((link, subscriptions, tasks))
}

/// Nodes that looked for a channel in different buckets would not find each other.
async fn agree(bucket: &Bucket) -> Result<(), Ended> {
    let (key, ours) = (&bucket.keys.all, bucket.keys.buckets());
    if bucket.keys.bucket() > 0 || bucket.has_joined.initialized() {
        return Ok(()); // one asks for all, and once: another server than the bucket's may hold the answer
    }
    let mut server = bucket.common.servers.of(key).await?;
    let (theirs,): (u16,) = redis::pipe()
        .cmd("SET")
        .arg(key)
        .arg(ours)
        .arg("NX")
        .ignore()
        .cmd("GET")
        .arg(key)
        .query_async(&mut server.connection)
        .await?;
    if theirs == ours { Ok(()) } else { Err(Ended::OtherBuckets(theirs, ours)) }
}

/// From now on whoever comes has to wait for Redis, and all that is here has to be told to it.
fn unconfirm(bucket: &Bucket) {
    for room in bucket.common.node.rooms() {
        let app = room.app.id();
        for channel in room.channels().iter().filter(|channel| bucket.holds_channel(app, &channel.name)) {
            channel.unconfirm();
            bucket.changes.channel(app, &channel.name, true);
        }
        let is_its = |user: &UserId| bucket.holds_user(app, user);
        room.users.unconfirm(is_its);
        room.users.of_interest().iter().filter(|user| is_its(user)).for_each(|user| bucket.changes.user(app, user));
    }
}

/// Does `work`; if clients shall not wait for Redis, they are answered meanwhile from what is known here.
async fn meanwhile<T>(bucket: &Bucket, work: impl Future<Output = T>) -> T {
    match bucket.common.options.when_unreachable {
        WhenUnreachable::Reject => work.await,
        WhenUnreachable::DeliverLocally => tokio::select! {
            done = work => done,
            never = answer_alone(bucket) => match never {},
        },
    }
}

async fn answer_alone(bucket: &Bucket) -> Infallible {
    loop {
        let (channels, users) = bucket.changes.next_alone().await;
        for (app, name) in channels {
            if let Some(channel) = bucket.common.node.room_of(&app).and_then(|room| room.find(&name)) {
                channel.settle_alone();
            }
        }
        for (app, user) in users {
            if let Some(room) = bucket.common.node.room_of(&app) {
                let wanted = room.users.wanted(&user);
                room.users.confirm(&user, wanted.number, wanted.connections > 0);
            }
        }
    }
}

/// Says that this node is alive, and looks whether its messages to itself come back.
async fn heartbeat(bucket: &Bucket, link: &Link, pulse: &Pulse, owned: mpsc::Sender<Vec<String>>) -> Ended {
    let every = bucket.common.options.heartbeat;
    let patience = (every * MISSED_BEATS).max(ANSWER);
    let topic = Topic::Node(link.node.clone());
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sent = u64::try_from(bucket.common.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let probe = message::probe(sent);
        let beat = tokio::try_join!(owner::beat(bucket, link, false), async {
            bucket.tell(link, &topic, &probe).await.map_err(Ended::Redis)
        });
        match beat {
            Ok((beat, ())) if !beat.is_alive => return Ended::TakenOut,
            // A full line means that the owner is at it.
            Ok((beat, ())) if beat.is_owner => _ = owned.try_send(beat.reaping),
            Ok(_) => {}
            Err(ended) => return ended,
        }
        if pulse.silent_for() > patience {
            return Ended::HalfOpen;
        }
    }
}
