//! A client over any stream: TLS, IPv6, a unix socket.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::DEADLINE;

/// See the module.
#[derive(Debug)]
pub(crate) struct Socket<S>(WebSocketStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Upgrades as a client of the app with this key, and reads the hello.
    pub(crate) async fn open(stream: S, key: &str) -> Self {
        let mut socket = Self::upgrade(stream, key).await;
        let hello = socket.next().await;
        assert_eq!(hello["event"], "pusher:connection_established", "{hello}");
        socket
    }

    /// Upgrades; nothing is read yet.
    pub(crate) async fn upgrade(stream: S, key: &str) -> Self {
        let url = format!("ws://localhost/app/{key}?protocol=7");
        let upgraded = timeout(DEADLINE, tokio_tungstenite::client_async(url, stream)).await;
        Self(upgraded.expect("an answer in time").expect("an upgrade").0)
    }

    /// The next event.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            match timeout(DEADLINE, self.0.next()).await.expect("an event in time").expect("an event").unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("an event was expected: {other:?}"),
            }
        }
    }

    /// Subscribes to a public channel.
    pub(crate) async fn subscribe(&mut self, channel: &str) {
        let message = json!({ "event": "pusher:subscribe", "data": { "channel": channel } });
        self.0.send(Message::text(message.to_string())).await.unwrap();
        let answer = self.next().await;
        assert_eq!(answer["event"], "pusher_internal:subscription_succeeded", "{answer}");
    }

    /// The next event, which must be this one of a channel; its data.
    pub(crate) async fn expect(&mut self, event: &str) -> Value {
        let mut next = self.next().await;
        assert_eq!(next["event"], event, "{next}");
        next["data"].take()
    }

    /// Whether it is served: a ping is answered, and nothing else comes.
    pub(crate) async fn settle(&mut self) {
        self.0.send(Message::text(r#"{"event":"pusher:ping","data":{}}"#)).await.unwrap();
        self.expect("pusher:pong").await;
    }

    /// Text is read over, up to a close with this code; the server ends the stream then, and TLS as TLS is ended.
    pub(crate) async fn expect_close(&mut self, code: u16) {
        loop {
            match timeout(DEADLINE, self.0.next()).await.expect("a close in time").expect("a close").unwrap() {
                Message::Close(Some(why)) => break assert_eq!(u16::from(why.code), code, "{why:?}"),
                Message::Text(_) | Message::Ping(_) => {}
                other => panic!("a close was expected: {other:?}"),
            }
        }
        let end = timeout(DEADLINE, self.0.next()).await.expect("an end in time");
        assert!(end.is_none(), "{end:?}");
    }
}
