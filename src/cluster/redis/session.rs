//! A node's time in the cluster, from one connection to Redis to its loss, and again.
//!
//! Commands and subscriptions have a connection each. Both are proven at every heartbeat: a script on the one, a message to itself that
//! has to come back on the other. Whatever fails ends the session; the next begins by registering anew what Redis was told before.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use redis::aio::PubSubSink;
use redis::{AsyncConnectionConfig, RedisError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::inbound::{self, Pulse};
use super::keys::Topic;
use super::registry::Registry;
use super::{ANSWER, Link, Shared, message, owner};
use crate::config::WhenUnreachable;

/// Pauses between attempts to reach Redis.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What does not beat for so many heartbeats, and at least [`ANSWER`], counts as broken.
const MISSED_BEATS: u32 = 3;

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error("Redis did not answer within {ANSWER:?}")]
    TimedOut,
    #[error("the connection for subscriptions was closed")]
    Unsubscribed,
    #[error("nothing comes back on the connection for subscriptions")]
    HalfOpen,
    #[error("this node was silent for too long and was taken out of the cluster")]
    TakenOut,
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
pub(super) async fn run(shared: &Arc<Shared>) {
    let mut registry = Registry::default();
    let mut before = Before::default();
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        let ended = session(shared, &mut registry, &mut before).await;
        shared.link.store(None);
        unconfirm(shared);
        *shared.trouble.lock() = Some(ended.to_string());
        if begun.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        if pause == FIRST_PAUSE {
            tracing::warn!(reason = %ended, "the cluster cannot be reached; it is tried until it can");
        } else {
            tracing::debug!(reason = %ended, "the cluster cannot be reached");
        }
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
        meanwhile(shared, tokio::time::sleep(jittered)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One session, to its end.
async fn session(shared: &Arc<Shared>, registry: &mut Registry, before: &mut Before) -> Ended {
    match meanwhile(shared, begin(shared, registry, before)).await {
        Ok((link, sink, mut tasks)) => {
            unconfirm(shared);
            registry.note_held(shared);
            tokio::select! {
                ended = registry.keep_up(shared, &link, sink) => ended,
                Some(ended) = tasks.join_next() => ended.unwrap_or_else(|error| Ended::Panicked(error.to_string())),
            }
        }
        Err(ended) => ended,
    }
}

async fn begin(
    shared: &Arc<Shared>,
    registry: &mut Registry,
    before: &mut Before,
) -> Result<(Arc<Link>, PubSubSink, JoinSet<Ended>), Ended> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER)).set_response_timeout(Some(ANSWER));
    let connection = shared.client.get_multiplexed_async_connection_with_config(&config).await?;
    let pubsub = within(shared.client.get_async_pubsub()).await?;
    let (mut sink, stream) = pubsub.split();

    let mut link = Link { node: before.node.clone().unwrap_or_else(new_id), connection };
    let mut beat = owner::beat(shared, &link, before.node.is_none()).await?;
    if !beat.is_alive {
        // Taken out by the others, so what it held was taken out too; or Redis has lost everybody, and nobody was told that he left.
        let was_lost = beat.epoch != before.epoch;
        tracing::warn!(was_lost, "this node is not in the cluster any more; it registers anew");
        if !was_lost {
            registry.forget();
        }
        link.node = new_id();
        beat = owner::beat(shared, &link, true).await?;
    }
    *before = Before { node: Some(link.node.clone()), epoch: beat.epoch };
    let (pulse, own_pulse) = Pulse::new();
    let mut tasks = JoinSet::new();
    inbound::start(shared, &link, stream, pulse, &mut tasks);
    within(sink.subscribe(shared.keys.topic(&Topic::Node(link.node.clone())))).await?;
    registry.register(shared, &link).await?;

    let link = Arc::new(link);
    shared.link.store(Some(Arc::clone(&link)));
    let (owned, owns) = mpsc::channel(1);
    let (of_beat, of_owner) = ((Arc::clone(shared), Arc::clone(&link)), (Arc::clone(shared), Arc::clone(&link)));
    tasks.spawn(async move { heartbeat(&of_beat.0, &of_beat.1, own_pulse, owned).await });
    tasks.spawn(async move { owner::run(&of_owner.0, &of_owner.1, owns).await });
    Ok((link, sink, tasks))
}

/// From now on whoever comes has to wait for Redis, and all that is here has to be told to it.
fn unconfirm(shared: &Shared) {
    for room in shared.node.rooms() {
        let app = room.app.id();
        for channel in room.channels() {
            channel.unconfirm();
            shared.changes.channel(app, &channel.name, true);
        }
        room.users.unconfirm();
        room.users.of_interest().iter().for_each(|user| shared.changes.user(app, user));
    }
}

/// Does `work`; if clients shall not wait for Redis, they are answered meanwhile from what is known here.
async fn meanwhile<T>(shared: &Shared, work: impl Future<Output = T>) -> T {
    match shared.options.when_unreachable {
        WhenUnreachable::Reject => work.await,
        WhenUnreachable::DeliverLocally => tokio::select! {
            done = work => done,
            never = answer_alone(shared) => match never {},
        },
    }
}

async fn answer_alone(shared: &Shared) -> Infallible {
    loop {
        let (channels, users) = shared.changes.next_alone().await;
        for (app, name) in channels {
            if let Some(channel) = shared.node.room_of(&app).and_then(|room| room.find(&name)) {
                channel.settle_alone();
            }
        }
        for (app, user) in users {
            if let Some(room) = shared.node.room_of(&app) {
                let wanted = room.users.wanted(&user);
                room.users.confirm(&user, wanted.number, wanted.connections > 0);
            }
        }
    }
}

/// Says that this node is alive, and looks whether its messages to itself come back.
async fn heartbeat(
    shared: &Shared,
    link: &Link,
    mut pulse: inbound::OwnPulse,
    owned: mpsc::Sender<Vec<String>>,
) -> Ended {
    let every = shared.options.heartbeat;
    let patience = (every * MISSED_BEATS).max(ANSWER);
    let topic = shared.keys.topic(&Topic::Node(link.node.clone()));
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sent = u64::try_from(shared.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let probe = redis::cmd("PUBLISH").arg(&topic).arg(message::probe(sent)).to_owned();
        let beat = tokio::try_join!(owner::beat(shared, link, false), async {
            shared.command::<()>(link, &probe).await.map_err(Ended::Redis)
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

async fn within<T>(work: impl Future<Output = Result<T, RedisError>>) -> Result<T, Ended> {
    tokio::time::timeout(ANSWER, work).await.map_err(|_| Ended::TimedOut)?.map_err(Ended::Redis)
}

fn new_id() -> String {
    format!("{:016x}", rand::rng().random::<u64>())
}
