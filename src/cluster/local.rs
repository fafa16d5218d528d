//! One node alone: everything is known here, so everything is answered at once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use herald_protocol::webhook::WebhookEvent;
use herald_protocol::{ChannelKind, ChannelName, SocketId, UserId};
use uuid::Uuid;

use super::{Cluster, Event, Trouble, Unclaimed, Unpublished, Unreachable};
use crate::answers::Digest;
use crate::apps::App;
use crate::hub::channel::{Change, Channel, Delivery, Keep};
use crate::hub::{Binding, Frame, Kept, Node, Occupancy};
use crate::limits::{Counted, Rate};

/// See the module.
#[derive(Debug)]
pub struct Local {
    node: Arc<Node>,
}

impl Local {
    /// Alone with this node.
    #[must_use]
    pub const fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

#[async_trait]
impl Cluster for Local {
    async fn joined(&self) {}

    fn channel_changed(&self, app: &Arc<App>, channel: &ChannelName, change: &Change) {
        let room = self.node.room(app);
        let Some(webhooks) = room.webhooks_of(channel) else { return };
        let occupancy = change.occupancy.then_some(None);
        let member = change.member.as_ref().map(Some);
        if change.entered {
            occupancy.into_iter().chain(member).for_each(|user| webhooks.entered(channel, user));
        } else {
            member.into_iter().chain(occupancy).for_each(|user| webhooks.left(channel, user));
        }
        if change.cache_miss {
            webhooks.missed(channel);
        }
    }

    fn users_changed(&self, _: &Arc<App>, _: &[UserId]) {}

    fn connections_changed(&self, _: &Arc<App>) {}

    async fn publish(&self, app: &App, event: &Event<'_>) -> Result<(), Unpublished> {
        let kept = event.channel.kind().keeps_last_event();
        let keep = kept.then_some(Keep { data: event.data, ttl: app.options().cache_ttl, number: 0 });
        let frame = || Frame::text(&event.text());
        let delivery = Delivery { except: event.except, keep, rev: event.rev, ..Delivery::default() };
        Ok(self.node.room(app).fan_out(event.channel, frame, delivery).await?)
    }

    async fn client_event(
        &self,
        app: &Arc<App>,
        channel: Arc<Channel>,
        text: String,
        sender: SocketId,
        webhook: Option<WebhookEvent>,
    ) {
        let report = || {
            if let (Some(webhooks), Some(event)) = (&self.node.room(app).webhooks, &webhook) {
                webhooks.deliver(event);
            }
        };
        let delivery = Delivery { except: Some(sender), ..Delivery::default() };
        if channel.publish(&Frame::text(&text), &delivery, report).await.is_err() {
            tracing::warn!(channel = %channel.name, "a client event reached some subscribers only: short of CPU");
        }
    }

    async fn terminate(&self, _: &App, _: &UserId) -> Result<(), Unreachable> {
        Ok(())
    }

    async fn bind(&self, _: &App, _: SocketId, _: &Binding) -> Result<(), Unreachable> {
        Ok(())
    }

    async fn occupancy(&self, app: &App, channels: &[&ChannelName]) -> Result<Vec<Occupancy>, Unreachable> {
        let nobody = |name: &ChannelName| Occupancy {
            subscription_count: 0,
            user_count: name.kind().is_presence().then_some(0),
        };
        let room = self.node.room(app);
        let one = |name: &&ChannelName| room.find(name).map_or_else(|| nobody(name), |channel| channel.occupancy());
        Ok(channels.iter().map(one).collect())
    }

    async fn channels(&self, app: &App, prefix: &str) -> Result<Vec<(ChannelName, Occupancy)>, Unreachable> {
        let listed = |name: &ChannelName| name.kind() != ChannelKind::ServerToUser && name.as_str().starts_with(prefix);
        let occupied = |channel: Arc<Channel>| {
            let occupancy = channel.occupancy();
            (occupancy.subscription_count > 0).then(|| (channel.name.clone(), occupancy))
        };
        let all = self.node.room(app).channels();
        let mut found: Vec<_> = all.into_iter().filter(|channel| listed(&channel.name)).filter_map(occupied).collect();
        found.sort_unstable_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        Ok(found)
    }

    async fn members(&self, app: &App, channel: &ChannelName) -> Result<Vec<UserId>, Unreachable> {
        Ok(self.node.room(app).find(channel).map(|channel| channel.members()).unwrap_or_default())
    }

    async fn kept(&self, app: &App, channel: &ChannelName) -> Result<Option<Kept>, Unreachable> {
        Ok(self.node.room(app).find(channel).and_then(|channel| channel.kept()))
    }

    async fn connections(&self, app: &App) -> Result<usize, Unreachable> {
        Ok(self.node.room(app).connections())
    }

    async fn has_place(&self, _: &App) -> bool {
        true // the app's own count has said so
    }

    async fn count(&self, _: &str, _: Rate, _: usize, _: Duration) -> Option<Counted> {
        None
    }

    fn nodes(&self) -> usize {
        1
    }

    async fn claim(&self, _: &App, _: Digest, _: Digest, _: Duration) -> Result<Option<Bytes>, Unclaimed> {
        Ok(None)
    }

    async fn settle(&self, _: &App, _: Digest, _: Option<&Bytes>) {}

    async fn claim_store(&self, _: Uuid) -> Result<Option<Uuid>, Unreachable> {
        Ok(None)
    }

    async fn ping(&self) -> Option<Result<(), Unreachable>> {
        None
    }

    fn trouble(&self) -> Option<Trouble> {
        None
    }

    fn owned_buckets(&self) -> usize {
        0
    }

    async fn leave(&self) {}
}
