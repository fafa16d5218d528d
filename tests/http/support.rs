//! A server of one's own, requests to it, and subscribers that see what a request does.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt as _, StreamExt as _};
use herald_protocol::Secret;
use herald_protocol::signature::{body_md5, request_string};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// The app that every server here has.
const APP: &str = "id = \"app-id\"\nkey = \"app-key\"\nsecret = \"app-secret\"\n";

/// The server on a free port, until it is dropped.
pub(crate) struct Herald {
    pub(crate) child: Child,
    pub(crate) directory: TempDir,
    pub(crate) port: u16,
}

impl Herald {
    /// A server with the app of [`APP`] and nothing else configured.
    pub(crate) fn start() -> Self {
        Self::with("", "")
    }

    /// A server with further lines in `[server]`, and further ones behind the app's first.
    pub(crate) fn with(server: &str, app: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("herald.toml");
        let mut config = format!("[server]\nlisten = \"127.0.0.1:0\"\n{server}\n[[apps]]\n{APP}\n{app}\n");
        // The same tests are run over Redis, each in a part of its own.
        if let Ok(url) = std::env::var("HERALD_TEST_REDIS_URL") {
            let prefix = directory.path().file_name().unwrap().to_string_lossy().replace('.', "");
            config.insert_str(0, &format!("[cluster.redis]\nurl = \"{url}\"\nprefix = \"{prefix}\"\n"));
        }
        std::fs::write(&file, config).unwrap();
        let herald = Self::run(Command::new(env!("CARGO_BIN_EXE_herald")), directory, DEADLINE);
        while std::env::var_os("HERALD_TEST_REDIS_URL").is_some() && !herald.is_ready() {
            std::thread::sleep(Duration::from_millis(10));
        }
        herald
    }

    /// The server that `command` starts, with the `herald.toml` of this directory; it listens within that time.
    pub(crate) fn run(mut command: Command, directory: TempDir, within: Duration) -> Self {
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let program = command.get_program().to_owned();
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HERALD_")) {
            command.env_remove(name);
        }
        let mut child = command
            .env("HERALD_CONFIG", directory.path().join("herald.toml"))
            .env("HERALD_METRICS_LISTEN", "off")
            .env("HERALD_DATA_DIR", directory.path())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program:?}, which `make test` installs if it is missing: {error}"));
        let stdout = child.stdout.take().unwrap();
        let mut herald = Self { child, directory, port: 0 };
        let (sender, port) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let address = line.strip_prefix("listening on http://127.0.0.1:");
                if let Some(port) = address.and_then(|port| port.parse().ok()) {
                    sender.send(port).ok();
                }
            }
        });
        herald.port = port.recv_timeout(within).expect("herald did not say where it listens");
        herald
    }

    /// Whether it has reached its Redis.
    fn is_ready(&self) -> bool {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.contains("\"ready\"")
    }

    /// A connection of one's own.
    pub(crate) async fn wire(&self) -> Wire {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        Wire { stream, received: Vec::new() }
    }

    /// Sends a request on a connection of its own.
    pub(crate) async fn send(&self, request: &Request) -> Response {
        let mut wire = self.wire().await;
        wire.write(&request.bytes()).await;
        wire.response().await
    }

    /// `GET` below the app's path.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, &str)]) -> Response {
        self.send(&query.iter().fold(Request::get(path), |request, (name, value)| request.param(name, value))).await
    }

    /// `POST` below the app's path.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.send(&Request::post(path, body)).await
    }

    /// Triggers an event that is accepted.
    pub(crate) async fn trigger(&self, channel: &str, name: &str, data: &str) {
        let response = self.post("/events", &json!({ "name": name, "channel": channel, "data": data })).await;
        assert_eq!((response.status, response.body.as_str()), (200, "{}"));
    }

    /// A client that is connected.
    pub(crate) async fn client(&self) -> Client {
        let address = format!("ws://127.0.0.1:{}/app/app-key?protocol=7", self.port);
        let (socket, _) = timeout(DEADLINE, connect_async(address)).await.unwrap().unwrap();
        let mut client = Client { socket, id: String::new() };
        let hello = client.expect("pusher:connection_established").await;
        let data: Value = serde_json::from_str(hello["data"].as_str().unwrap()).unwrap();
        client.id = data["socket_id"].as_str().unwrap().to_owned();
        client
    }

    /// A client that is subscribed.
    pub(crate) async fn subscriber(&self, channels: &[&str]) -> Client {
        let mut client = self.client().await;
        for channel in channels {
            client.subscribe(channel, None).await;
        }
        client
    }

    /// A client that is a member of a presence channel.
    pub(crate) async fn member(&self, channel: &str, user: &str) -> Client {
        let mut client = self.client().await;
        client.subscribe(channel, Some(user)).await;
        client
    }
}

impl Drop for Herald {
    fn drop(&mut self) {
        // It may have ended already; there is nothing else to do about it.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default());
        }
    }
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A request as it is signed; whatever is wrong with it is asked for.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// The whole path.
    pub(crate) path: String,
    /// The query without the signature, decoded.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) secret: String,
    /// What stands there in place of the right signature.
    pub(crate) signature: Option<String>,
}

impl Request {
    fn new(method: &'static str, path: &str, body: Vec<u8>) -> Self {
        let mut query = vec![
            ("auth_key".to_owned(), "app-key".to_owned()),
            ("auth_timestamp".to_owned(), now().to_string()),
            ("auth_version".to_owned(), "1.0".to_owned()),
        ];
        if !body.is_empty() {
            query.push(("body_md5".to_owned(), body_md5(&body)));
        }
        let path = format!("/apps/app-id{path}");
        Self { method, path, query, headers: Vec::new(), body, secret: "app-secret".to_owned(), signature: None }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path, Vec::new())
    }

    pub(crate) fn post(path: &str, body: &Value) -> Self {
        Self::new("POST", path, body.to_string().into_bytes())
    }

    /// A body that is what it is.
    pub(crate) fn raw(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", path, body.into())
    }

    /// A trigger that is accepted.
    pub(crate) fn event() -> Self {
        Self::post("/events", &json!({ "name": "e", "channel": "c", "data": "d" }))
    }

    /// Sets a parameter of the query; arrays (`name[]`) grow.
    pub(crate) fn param(mut self, name: &str, value: &str) -> Self {
        if !name.ends_with("[]") {
            self = self.without(name);
        }
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.query.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Changes anything else.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The request's head, with these headers in place of those about the body.
    pub(crate) fn head(&self, headers: &str) -> String {
        let parameters = self.query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let signed = request_string(self.method, &self.path, parameters);
        let right = || Secret::new(self.secret.clone()).sign(signed.as_bytes());
        let signature = self.signature.clone().unwrap_or_else(right);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.query);
        if !self.query.iter().any(|(name, _)| name == "auth_signature") && signature != "none" {
            query.append_pair("auth_signature", &signature);
        }
        let mut head =
            format!("{} {}?{} HTTP/1.1\r\nHost: herald\r\n{headers}", self.method, self.path, query.finish());
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head + "\r\n"
    }

    /// All of it, as it goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = if self.body.is_empty() && self.method != "POST" {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", self.body.len())
        };
        let mut bytes = self.head(&length).into_bytes();
        bytes.extend(&self.body);
        bytes
    }
}

/// What the server answered.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Status line and headers, as they came.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    /// The body of an answer that is a success.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The text of an answer that is this error, in the shape of errors.
    #[track_caller]
    pub(crate) fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(body["code"], status);
        assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
        body["error"].as_str().unwrap().to_owned()
    }

    /// As [`Response::error`], and its text holds `part`.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, part: &str) {
        let text = self.error(status);
        assert!(text.contains(part), "{text:?} does not hold {part:?}");
    }
}

/// A connection on which anything can be said.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Wire {
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        timeout(DEADLINE, self.stream.write_all(bytes)).await.expect("the server does not read").unwrap();
    }

    /// The next answer, with its body.
    pub(crate) async fn response(&mut self) -> Response {
        let head = self.head().await;
        let length = |head: &Response| head.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut response = head;
        let length: usize = length(&response);
        while self.received.len() < length {
            assert!(self.more().await, "the answer ends early: {response:?}");
        }
        let rest = self.received.split_off(length);
        response.body = String::from_utf8(std::mem::replace(&mut self.received, rest)).unwrap();
        response
    }

    /// The next answer's head.
    pub(crate) async fn head(&mut self) -> Response {
        let end = loop {
            if let Some(end) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.more().await, "no answer but {:?}", String::from_utf8_lossy(&self.received));
        };
        let rest = self.received.split_off(end);
        let head = String::from_utf8(std::mem::replace(&mut self.received, rest)).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Response { status, head, body: String::new() }
    }

    /// Whether the server closes the connection without a further byte.
    pub(crate) async fn closes(&mut self) -> bool {
        self.received.is_empty() && !self.more().await
    }

    /// Whatever comes until the server closes the connection.
    pub(crate) async fn until_closed(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&self.received).into_owned()
    }

    async fn more(&mut self) -> bool {
        let read = timeout(DEADLINE, self.stream.read_buf(&mut self.received)).await.expect("no answer in time");
        read.unwrap() > 0
    }
}

/// A client of the server.
pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) id: String,
}

impl Client {
    pub(crate) async fn say(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message, as text.
    pub(crate) async fn text(&mut self) -> String {
        loop {
            match timeout(DEADLINE, self.socket.next()).await.expect("no message in time") {
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(Message::Ping(_))) => {}
                other => panic!("no message but {other:?}"),
            }
        }
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// The next message, which is this event.
    pub(crate) async fn expect(&mut self, event: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["event"], event, "{message}");
        message
    }

    /// The code with which the server closes.
    pub(crate) async fn close_code(&mut self) -> u16 {
        loop {
            match timeout(DEADLINE, self.socket.next()).await.expect("the connection stays") {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(Message::Text(_) | Message::Ping(_))) => {}
                other => panic!("no close frame but {other:?}"),
            }
        }
    }

    /// Subscribes, on private and presence channels with a signature.
    pub(crate) async fn subscribe(&mut self, channel: &str, user: Option<&str>) {
        let mut data = json!({ "channel": channel });
        let mut signed = format!("{}:{channel}", self.id);
        if let Some(user) = user {
            let channel_data = json!({ "user_id": user }).to_string();
            signed = format!("{signed}:{channel_data}");
            data["channel_data"] = channel_data.into();
        }
        data["auth"] = format!("app-key:{}", Secret::new("app-secret").sign(signed.as_bytes())).into();
        self.say(&json!({ "event": "pusher:subscribe", "data": data })).await;
        while self.next().await["event"] != "pusher_internal:subscription_succeeded" {}
    }

    /// Signs in.
    pub(crate) async fn sign_in(&mut self, user: &str) {
        let user_data = json!({ "id": user }).to_string();
        let signed = format!("{}::user::{user_data}", self.id);
        let auth = format!("app-key:{}", Secret::new("app-secret").sign(signed.as_bytes()));
        self.say(&json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } })).await;
        self.expect("pusher:signin_success").await;
    }

    /// Leaves a channel; it has left when the pong is there.
    pub(crate) async fn leave(&mut self, channel: &str) {
        self.say(&json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } })).await;
        self.say(&json!({ "event": "pusher:ping" })).await;
        self.expect("pusher:pong").await;
    }
}
