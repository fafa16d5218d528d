//! A client that shows what goes over the wire: it sends what it is told to, and reads one frame at a time.

use std::collections::HashSet;
use std::net::SocketAddr;

use herald_protocol::SocketId;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::wire::{Frame, Wire};
use super::{App, DEADLINE};

/// What a test may want otherwise about a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options<'a> {
    /// Further headers of the upgrade, each line with its end.
    pub(crate) headers: &'a str,
    /// The header `Connection`, where it is not just `Upgrade`.
    pub(crate) connection: Option<&'a str>,
    /// What is sent right behind the head, before the answer is there.
    pub(crate) behind: &'a [u8],
    /// How much the kernel takes in for a client that does not read.
    pub(crate) receive_buffer: Option<u32>,
}

/// One event from the server.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) event: String,
    pub(crate) channel: Option<String>,
    /// The whole frame, as it came.
    pub(crate) text: String,
    data: Value,
}

impl Event {
    /// The text in `data`; fails if it is no string.
    pub(crate) fn data(&self) -> &str {
        self.data.as_str().unwrap_or_else(|| panic!("`data` must be a string: {}", self.text))
    }

    /// The JSON in the string `data`.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.data())
            .unwrap_or_else(|error| panic!("`data` must hold JSON ({error}): {}", self.text))
    }

    /// Code and message of a `pusher:error`, whose data is an object.
    pub(crate) fn error(&self) -> (Option<u64>, &str) {
        assert_eq!(self.event, "pusher:error", "{}", self.text);
        let code = self.data.get("code").unwrap_or_else(|| panic!("`code` is missing: {}", self.text));
        (code.as_u64(), self.data["message"].as_str().unwrap_or_else(|| panic!("`message` is missing: {}", self.text)))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) app: App,
    /// Whether pings are answered while something is waited for.
    pub(crate) answers_pings: bool,
    socket_id: Option<SocketId>,
    wire: Wire,
    received: Vec<String>,
}

impl Client {
    /// Connects and upgrades.
    pub(crate) async fn open(address: SocketAddr, path: &str, app: App, options: Options<'_>) -> Self {
        let (mut stream, head) = connect(address, path, options).await;
        let mut answer = Vec::new();
        let end = loop {
            if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let read =
                timeout(DEADLINE, stream.read_buf(&mut answer)).await.expect("an answer to the upgrade").unwrap();
            assert!(read > 0, "the upgrade was not answered: {:?}", String::from_utf8_lossy(&answer));
        };
        let (answer, ahead) = answer.split_at(end);
        let answer = str::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{head}{answer}{}", String::from_utf8_lossy(ahead));
        let accepted = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        assert!(answer.to_ascii_lowercase().contains(&accepted.to_ascii_lowercase()), "{answer}");
        assert!(
            !answer.to_ascii_lowercase().contains("sec-websocket-extensions"),
            "no frame here is compressed: {answer}"
        );
        let wire = Wire::new(stream, ahead);
        Self { app, answers_pings: true, socket_id: None, wire, received: Vec::new() }
    }

    /// Reads the hello.
    pub(crate) async fn read_hello(&mut self) -> Event {
        let hello = self.expect("pusher:connection_established").await;
        self.socket_id = Some(hello.json()["socket_id"].as_str().unwrap().parse().unwrap());
        hello
    }

    /// The id that the hello told.
    pub(crate) fn socket_id(&self) -> SocketId {
        self.socket_id.expect("the hello was read")
    }

    /// The next frame; `None` at the end of the stream.
    pub(crate) async fn next_frame(&mut self) -> Option<Frame> {
        let frame = match timeout(DEADLINE, self.wire.read()).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(error)) => self.fail(&format!("the connection broke: {error}")),
            Err(_) => self.fail("nothing came in time"),
        };
        self.received.push(frame.as_ref().map_or_else(|| "end of the stream".to_owned(), describe));
        frame
    }

    /// The next event. Pings are answered meanwhile; anything but them and text fails the test.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            match self.next_frame().await {
                Some(Frame { fin: true, opcode: Frame::TEXT, payload }) => return self.parse(payload),
                Some(Frame { opcode: Frame::PING, payload, .. }) => {
                    if self.answers_pings {
                        self.send_frame(&Frame::new(Frame::PONG, payload)).await;
                    }
                }
                _ => self.fail("an event was expected"),
            }
        }
    }

    /// The next event, which must be this.
    pub(crate) async fn expect(&mut self, event: &str) -> Event {
        let next = self.next().await;
        if next.event != event {
            self.fail(&format!("{event} was expected"));
        }
        next
    }

    /// The next event, which must be a `pusher:error` with this code.
    pub(crate) async fn expect_error(&mut self, code: impl Into<Option<u64>>) -> Event {
        let error = self.expect("pusher:error").await;
        assert_eq!(error.error().0, code.into(), "{}", error.text);
        error
    }

    /// The next event, which must be a `pusher:subscription_error` of this channel; its type, status and text.
    pub(crate) async fn expect_subscription_error(&mut self, channel: &str) -> (String, u64, String) {
        let event = self.expect("pusher:subscription_error").await;
        assert_eq!(event.channel.as_deref(), Some(channel), "{}", event.text);
        let data = event.json();
        let text =
            |member: &str| data[member].as_str().unwrap_or_else(|| panic!("{member}: {}", event.text)).to_owned();
        (text("type"), data["status"].as_u64().unwrap(), text("error"))
    }

    /// Whatever text still comes is read over, up to a close with this code; returns its reason. The server ends the stream then.
    pub(crate) async fn expect_close(&mut self, code: u16) -> String {
        let reason = loop {
            match self.next_frame().await {
                Some(frame) if frame.opcode == Frame::CLOSE => {
                    let (found, reason) = frame.close();
                    if found != code {
                        self.fail(&format!("a close with {code} was expected"));
                    }
                    break reason;
                }
                Some(Frame { opcode: Frame::TEXT | Frame::PING, .. }) => {}
                _ => self.fail(&format!("a close with {code} was expected")),
            }
        };
        assert!(reason.len() <= 123, "{reason:?}");
        self.send_frame(&Frame::new(Frame::CLOSE, code.to_be_bytes())).await;
        if self.next_frame().await.is_some() {
            self.fail("nothing comes after a close");
        }
        reason
    }

    /// A refusal in both forms: the event for old clients, the close for new ones, both saying the same.
    pub(crate) async fn expect_refusal(&mut self, code: u16) -> String {
        let error = self.expect_error(u64::from(code)).await;
        let reason = self.expect_close(code).await;
        assert_eq!(reason, error.error().1);
        assert!(!reason.is_empty());
        reason
    }

    pub(crate) async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.send_frame(&Frame::new(Frame::TEXT, text)).await;
    }

    pub(crate) async fn send_frame(&mut self, frame: &Frame) {
        self.send_bytes(&frame.masked()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        if let Err(error) = self.wire.write(bytes).await {
            self.fail(&format!("cannot send: {error}"));
        }
    }

    /// The text that asks for a subscription, authorized where the kind of channel needs it.
    pub(crate) fn subscription(&self, channel: &str, channel_data: Option<&str>) -> Value {
        let mut data = json!({ "channel": channel });
        if channel.starts_with("private-") || channel.starts_with("presence-") {
            data["auth"] = self.app.authorize(self.socket_id(), channel, channel_data).into();
        }
        if let Some(channel_data) = channel_data {
            data["channel_data"] = channel_data.into();
        }
        json!({ "event": "pusher:subscribe", "data": data })
    }

    /// Subscribes, and returns the answer.
    pub(crate) async fn subscribe(&mut self, channel: &str) -> Event {
        self.send(self.subscription(channel, None)).await;
        self.expect_succeeded(channel).await
    }

    /// Joins a presence channel as a user without info, and returns the answer.
    pub(crate) async fn join(&mut self, channel: &str, user: &str) -> Event {
        self.join_with(channel, &json!({ "user_id": user })).await
    }

    /// Joins a presence channel with this `channel_data`, and returns the answer.
    pub(crate) async fn join_with(&mut self, channel: &str, channel_data: &Value) -> Event {
        self.send(self.subscription(channel, Some(&channel_data.to_string()))).await;
        self.expect_succeeded(channel).await
    }

    pub(crate) async fn expect_succeeded(&mut self, channel: &str) -> Event {
        let answer = self.expect("pusher_internal:subscription_succeeded").await;
        assert_eq!(answer.channel.as_deref(), Some(channel), "{}", answer.text);
        answer
    }

    /// These subscriptions succeed; there is no order between those of different channels.
    pub(crate) async fn expect_all_succeeded(&mut self, channels: impl IntoIterator<Item = String>) {
        let mut asked: HashSet<String> = channels.into_iter().collect();
        while !asked.is_empty() {
            let answer = self.expect("pusher_internal:subscription_succeeded").await;
            assert!(answer.channel.as_ref().is_some_and(|channel| asked.remove(channel)), "{}", answer.text);
        }
    }

    /// Unsubscribes, which has no answer.
    pub(crate) async fn unsubscribe(&mut self, channel: &str) {
        self.send(json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } })).await;
    }

    /// Asks to sign in.
    pub(crate) async fn ask_to_sign_in(&mut self, user_data: &Value) {
        let user_data = user_data.to_string();
        let auth = self.app.authenticate(self.socket_id(), &user_data);
        self.send(json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } })).await;
    }

    /// Signs in, and returns the answer.
    pub(crate) async fn sign_in(&mut self, user: &str) -> Event {
        self.ask_to_sign_in(&json!({ "id": user })).await;
        self.expect("pusher:signin_success").await
    }

    /// Returns when the server has acted on all that was sent, and nothing came meanwhile: the answer to a ping is the next event.
    pub(crate) async fn settle(&mut self) {
        self.send_text(r#"{"event":"pusher:ping"}"#).await;
        self.expect("pusher:pong").await;
    }

    /// Closes; returns when the server answered, that is, after the client left its channels. Events on the way are read over.
    pub(crate) async fn close(mut self) {
        self.send_frame(&Frame::new(Frame::CLOSE, 1000_u16.to_be_bytes())).await;
        loop {
            match self.next_frame().await {
                Some(Frame { opcode: Frame::CLOSE, .. }) => return,
                Some(_) => {}
                None => self.fail("the close was not answered"),
            }
        }
    }

    /// Vanishes without a word: the kernel resets the connection.
    pub(crate) fn cut(self) {
        socket2::SockRef::from(&self.wire.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    fn parse(&self, payload: Vec<u8>) -> Event {
        let text = String::from_utf8(payload).expect("text frames are UTF-8");
        let Ok(Value::Object(mut members)) = serde_json::from_str(&text) else {
            self.fail("a message is a JSON object")
        };
        let Some(Value::String(event)) = members.remove("event") else { self.fail("`event` is a string") };
        let channel =
            members.remove("channel").map(|channel| channel.as_str().expect("`channel` is a string").to_owned());
        Event { event, channel, data: members.remove("data").unwrap_or_default(), text }
    }

    fn fail(&self, problem: &str) -> ! {
        panic!("{problem}; received so far:\n  {}", self.received.join("\n  "))
    }
}

fn describe(frame: &Frame) -> String {
    match frame.opcode {
        Frame::TEXT => String::from_utf8_lossy(&frame.payload).into_owned(),
        Frame::CLOSE => format!("close {:?}", frame.close()),
        opcode => format!("frame of type {opcode}: {:?}", frame.payload),
    }
}

async fn connect(address: SocketAddr, path: &str, options: Options<'_>) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(size) = options.receive_buffer {
        socket.set_recv_buffer_size(size).unwrap();
    }
    let mut stream = socket.connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: {}\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n",
        options.connection.unwrap_or("Upgrade"),
        options.headers
    );
    stream.write_all(&[head.as_bytes(), options.behind].concat()).await.unwrap();
    (stream, head)
}

/// What only some tests ask for.
#[allow(dead_code, reason = "each of the tests that share this asks for some of it")]
impl Client {
    /// Connects, and waits for as long as it takes to be upgraded.
    pub(crate) async fn open_when_served(address: SocketAddr, app: App) -> Self {
        let (mut stream, _) = connect(address, &format!("/app/{}?protocol=7", app.key), Options::default()).await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{:?}", String::from_utf8_lossy(&answer));
        let wire = Wire::new(stream, &[]);
        Self { app, answers_pings: true, socket_id: None, wire, received: Vec::new() }
    }

    /// Asks to join a presence channel with this `channel_data`; the answer is not waited for.
    pub(crate) async fn ask_to_join(&mut self, channel: &str, channel_data: &Value) {
        self.send(self.subscription(channel, Some(&channel_data.to_string()))).await;
    }

    /// The frames alone, for a test that sends and reads more than it looks at.
    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }

    /// Answers a ping if the next frame is one; waits for as long as it takes.
    pub(crate) async fn next_frame_answered(&mut self) {
        let frame = match self.wire.read().await {
            Ok(Some(frame)) => frame,
            _ => std::future::pending().await,
        };
        if frame.opcode == Frame::PING {
            self.send_frame(&Frame::new(Frame::PONG, frame.payload)).await;
        }
    }

    /// From now on no packet reaches the client: its kernel drops them before it looks at them, and acknowledges nothing.
    pub(crate) fn drop_packets(&self) {
        const ACCEPT_NO_BYTE: [socket2::SockFilter; 1] = [socket2::SockFilter::new(0x06, 0, 0, 0)]; // BPF_RET | BPF_K
        socket2::SockRef::from(&self.wire.stream).attach_filter(&ACCEPT_NO_BYTE).unwrap();
    }
}
