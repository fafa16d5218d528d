//! From the outbox to the users' connections (section 8.7).
//!
//! An event is taken, published like any other on the user's two channels, the private one and that of signed-in connections, and marked. A
//! node that ends between the last two publishes it again: at least once, in order, and since each subscriber's last revision is known, once
//! and in order for a socket. Nobody listening is no fault: whoever was away asks what has changed.

use std::sync::Arc;
use std::time::Duration;

use herald_protocol::ChannelName;
use herald_protocol::channel::SERVER_TO_USER;
use herald_protocol::json::quoted;
use herald_protocol::segment::user_channel;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Outage, Reached, TICK};
use crate::apps::{App, Apps};
use crate::cluster::{Event, Unpublished};
use crate::hub::Hub;
use crate::metrics;
use crate::store::Store;
use crate::store::sending::Outgoing;
use crate::store::time::Timestamp;

/// Events that are taken at once.
const BATCH: usize = 200;
/// How long they are this node's; after that another one takes them.
const LOCK: Duration = Duration::from_secs(30);

/// What the loop needs.
#[derive(Debug)]
pub struct Relay {
    /// Where events wait.
    pub store: Arc<dyn Store>,
    /// Where they go.
    pub hub: Arc<Hub>,
    /// Whose they are.
    pub apps: Arc<Apps>,
    /// Somebody has committed something.
    pub committed: Arc<Notify>,
    /// How the store is.
    pub reached: Arc<Reached>,
}

impl Relay {
    /// Publishes until it is stopped; what was taken by then is published or given back.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut outage = Outage::default();
        loop {
            // As long as there is a full batch, the next one waits for nobody's sign.
            while !stop.is_cancelled() && self.pass(&mut outage).await {}
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.committed.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// One batch; whether there may be more.
    async fn pass(&self, outage: &mut Outage) -> bool {
        let now = Timestamp::now();
        let taken = self.store.take_outgoing(BATCH, now.after(LOCK), now).await;
        self.reached.note(taken.is_ok());
        let Some(taken) = outage.note("relay", taken) else { return false };
        self.reached.waits_since(taken.iter().map(|outgoing| outgoing.created_at).min());
        let mut published = Vec::with_capacity(taken.len());
        let mut failed = None;
        for outgoing in &taken {
            match self.publish(outgoing).await {
                Ok(()) => published.push(outgoing.id),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let rest: Vec<i64> = taken.iter().skip(published.len()).map(|outgoing| outgoing.id).collect();
        if rest.is_empty() {
            self.reached.waits_since(None);
        }
        if let Some(error) = failed {
            tracing::debug!(%error, waiting = rest.len(), "inbox events wait");
        }
        let is_settled = async {
            self.store.published(&published, Timestamp::now()).await?;
            self.store.release(&rest).await
        };
        let is_settled = outage.note("relay", is_settled.await).is_some();
        is_settled && rest.is_empty() && taken.len() == BATCH
    }

    async fn publish(&self, outgoing: &Outgoing) -> Result<(), Unpublished> {
        // An app that is not configured any more has nobody who could listen.
        let Some(app) = self.apps.by_id(&outgoing.app) else { return Ok(()) };
        let rev = u64::try_from(outgoing.rev).unwrap_or_default();
        to_user(&self.hub, &app, &outgoing.user, &outgoing.event, &quoted(&outgoing.payload), rev).await?;
        metrics::INBOX_EVENTS.increment(1);
        Ok(())
    }
}

/// Publishes an event on a user's two channels; a subscriber of both gets it once. `rev` as in [`Event::rev`].
///
/// # Errors
/// See [`Unpublished`].
pub async fn to_user(hub: &Hub, app: &App, user: &str, event: &str, data: &str, rev: u64) -> Result<(), Unpublished> {
    for name in [user_channel(user), format!("{SERVER_TO_USER}{user}")] {
        // An id that no connection can have has no such channel.
        let Ok(channel) = ChannelName::parse(&name, usize::MAX) else { continue };
        let event = Event { channel: &channel, name: event, data, except: None, once: None, rev: Some(rev) };
        hub.publish(app, &event).await?;
    }
    Ok(())
}
