//! A bucket's connection for subscriptions. It hands what is published to [`Inbound`] and says when it is not to be relied upon any more.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Client, PushInfo, PushKind, RedisResult, Value};
use tokio_util::sync::CancellationToken;

use super::inbound::Inbound;
use super::servers::patience;

/// See the module.
pub(super) struct Subscriptions {
    connection: MultiplexedConnection,
    is_sharded: bool,
    /// Names that are being unsubscribed from.
    ending: Arc<Mutex<HashSet<String>>>,
}

impl Subscriptions {
    /// `lost` is cancelled when the server has ended a subscription by itself, since the slot is another's now. When the connection is
    /// closed, `inbound` is dropped.
    pub(super) async fn open(
        client: &Client,
        is_sharded: bool,
        inbound: Inbound,
        lost: CancellationToken,
    ) -> RedisResult<Self> {
        let ending: Arc<Mutex<HashSet<String>>> = Arc::default();
        let asked = Arc::clone(&ending);
        let hear = move |PushInfo { kind, data }| {
            let mut data = data.into_iter();
            let (name, text) = (data.next(), data.next());
            match (kind, name, text) {
                (
                    PushKind::Message | PushKind::SMessage,
                    Some(Value::BulkString(name)),
                    Some(Value::BulkString(text)),
                ) => {
                    inbound.take(name, text);
                }
                (PushKind::Unsubscribe | PushKind::SUnsubscribe, Some(Value::BulkString(name)), _)
                    if !str::from_utf8(&name).is_ok_and(|name| asked.lock().remove(name)) =>
                {
                    lost.cancel();
                }
                _ => {}
            }
            Ok::<(), ()>(())
        };
        let connection = client.get_multiplexed_async_connection_with_config(&patience().set_push_sender(hear)).await?;
        Ok(Self { connection, is_sharded, ending })
    }

    /// Returns once whatever is published there arrives. One name a command, or the client library would take confirmations for answers
    /// to other commands.
    pub(super) async fn begin(&self, name: &str) -> RedisResult<()> {
        let command = if self.is_sharded { "SSUBSCRIBE" } else { "SUBSCRIBE" };
        redis::cmd(command).arg(name).query_async(&mut self.connection.clone()).await
    }

    /// The opposite.
    pub(super) async fn end(&self, name: &str) -> RedisResult<()> {
        let command = if self.is_sharded { "SUNSUBSCRIBE" } else { "UNSUBSCRIBE" };
        self.ending.lock().insert(name.to_owned());
        redis::cmd(command).arg(name).query_async(&mut self.connection.clone()).await
    }
}
