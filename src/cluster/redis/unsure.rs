//! What a request under an idempotency key left behind when Redis went away meanwhile; it is put in order at the beginning of the next
//! session, before anything can come by another way.
//!
//! An event of which Redis did not say whether it was published: if it was, a repeat does not publish it again, on no node; and this node's
//! own clients, who do not get its events from Redis, would never get it. The end of a run: until Redis hears of it, repeats have to wait.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use herald_protocol::{ChannelName, SocketId};
use parking_lot::Mutex;
use redis::RedisResult;
use tokio::time::Instant;

use super::bucket::{Bucket, Link};
use crate::apps::App;
use crate::cluster::Event;
use crate::hub::Frame;
use crate::hub::channel::{Delivery, Keep};

/// How many are remembered; the oldest goes.
const MOST: usize = 1_000;
/// As long as Redis remembers what was published (scripts/publish.lua).
const REMEMBERED: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unsure {
    published: Mutex<VecDeque<Publication>>,
    ended: Mutex<VecDeque<End>>,
}

/// Of a run.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) app: String,
    pub(super) request: String,
    pub(super) answer: Option<Bytes>,
}

#[derive(Clone, Debug)]
struct Publication {
    since: Instant,
    app: String,
    channel: ChannelName,
    request: String,
    position: usize,
    text: String,
    except: Option<SocketId>,
}

impl Unsure {
    /// Notes an event of the request that is known in Redis by this name.
    pub(super) fn published(&self, app: &App, event: &Event<'_>, text: &str, request: String, position: usize) {
        let publication = Publication {
            since: Instant::now(),
            app: app.id().to_owned(),
            channel: event.channel.clone(),
            request,
            position,
            text: text.to_owned(),
            except: event.except,
        };
        note(&self.published, publication);
    }

    /// Notes that a run has ended.
    pub(super) fn ended(&self, end: End) {
        note(&self.ended, end);
    }

    /// Delivers to this node's clients what was published after all, and tells Redis which runs have ended.
    pub(super) async fn settle(&self, bucket: &Bucket, link: &Link) -> RedisResult<()> {
        while let Some(unsure) = next(&self.published) {
            let asked = was_published(bucket, link, &unsure).await;
            let number = asked.inspect_err(|_| self.published.lock().push_front(unsure.clone()))?;
            let (Some(number), Some(room)) = (number, bucket.common.node.room_of(&unsure.app)) else { continue };
            let keep = (number > 0).then_some(Keep { data: "", ttl: room.app.options().cache_ttl, number });
            let frame = || Frame::text(&unsure.text);
            let delivery = Delivery { except: unsure.except, keep, ..Delivery::default() };
            if room.fan_out(&unsure.channel, frame, delivery).await.is_err() {
                tracing::warn!(channel = %unsure.channel, "an event reached some subscribers only: short of CPU");
            }
        }
        while let Some(end) = next(&self.ended) {
            bucket.end_run(link, &end).await.inspect_err(|_| self.ended.lock().push_front(end.clone()))?;
        }
        Ok(())
    }
}

/// The number of an event that was published; if it was not, a repeat publishes it.
async fn was_published(bucket: &Bucket, link: &Link, unsure: &Publication) -> RedisResult<Option<u64>> {
    if unsure.since.elapsed() > REMEMBERED {
        return Ok(None);
    }
    let mark = bucket.keys.once(&unsure.app, &unsure.request);
    bucket.command(link, redis::cmd("HGET").arg(mark).arg(unsure.position)).await
}

fn note<T>(noted: &Mutex<VecDeque<T>>, one: T) {
    let mut noted = noted.lock();
    if noted.len() == MOST {
        noted.pop_front();
    }
    noted.push_back(one);
}

fn next<T>(noted: &Mutex<VecDeque<T>>) -> Option<T> {
    noted.lock().pop_front()
}
