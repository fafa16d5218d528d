//! A backend: it signs its requests, and sees status, headers and body of the answers.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use herald_protocol::signature::{body_md5, request_string};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{App, DEADLINE};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    address: SocketAddr,
    app: App,
    /// What stands in front of `/apps`.
    pub(crate) prefix: &'static str,
}

/// What a request was answered with.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("the body is JSON ({error}): {self:?}"))
    }

    /// The JSON of a request that succeeded.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }
}

impl Api {
    pub(crate) fn new(address: SocketAddr, app: App) -> Self {
        Self { address, app, prefix: "" }
    }

    /// Triggers an event, which must succeed.
    pub(crate) async fn trigger(&self, channel: &str, event: &str, data: impl Into<Value>) {
        self.events(&json!({ "name": event, "channel": channel, "data": data.into() })).await.ok();
    }

    /// `POST /events`.
    pub(crate) async fn events(&self, body: &Value) -> Answer {
        self.post("/events", &body.to_string()).await
    }

    /// `POST /events` to a server that may be gone.
    pub(crate) async fn try_events(&self, body: &Value) -> io::Result<Answer> {
        let request = self.signed("POST", "/events", &[], &body.to_string());
        timeout(DEADLINE, self.exchange(&request)).await.expect("an answer in time")
    }

    /// A signed `POST` below the app's path.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.raw(&self.signed("POST", path, &[], body)).await
    }

    /// A signed `GET` below the app's path.
    pub(crate) async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Answer {
        self.raw(&self.signed("GET", path, parameters, "")).await
    }

    fn signed(&self, method: &str, path: &str, parameters: &[(&str, &str)], body: &str) -> String {
        let path = format!("{}/apps/{}{path}", self.prefix, self.app.id);
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
        let md5 = body_md5(body.as_bytes());
        let mut all = parameters.to_vec();
        all.extend([("auth_key", &*self.app.key), ("auth_timestamp", &timestamp), ("auth_version", "1.0")]);
        if !body.is_empty() {
            all.push(("body_md5", &md5));
        }
        let signature = self.app.secret.sign(request_string(method, &path, all.iter().copied()).as_bytes());
        all.push(("auth_signature", &signature));
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(all).finish();
        let head = format!(
            "{method} {path}?{query} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        head + body
    }

    /// Sends these bytes, and reads the answer up to the end of the stream.
    pub(crate) async fn raw(&self, request: &str) -> Answer {
        self.raw_within(DEADLINE, request).await
    }

    async fn raw_within(&self, deadline: Duration, request: &str) -> Answer {
        timeout(deadline, self.exchange(request)).await.expect("an answer in time").unwrap()
    }

    async fn exchange(&self, request: &str) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, text) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let header =
            |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        Ok(Answer { status: status.unwrap(), headers: lines.filter_map(header).collect(), text: text.to_owned() })
    }
}

/// What only some tests ask for.
#[allow(dead_code, reason = "each of the tests that share this asks for some of it")]
impl Api {
    /// A signed `POST /events`, for a test that sends it in a way of its own.
    pub(crate) fn events_request(&self, body: &Value) -> String {
        self.signed("POST", "/events", &[], &body.to_string())
    }

    /// `POST /events` under an idempotency key, which waits for another request under it.
    pub(crate) async fn events_once(&self, key: &str, body: &Value) -> Answer {
        let header = format!("Idempotency-Key: {key}\r\nConnection");
        self.raw_within(2 * DEADLINE, &self.events_request(body).replacen("Connection", &header, 1)).await
    }
}

/// A backend that keeps its connection open between two requests.
#[derive(Debug)]
#[allow(dead_code, reason = "some of the tests that share this ask for it")]
pub(crate) struct KeptOpen {
    api: Api,
    stream: BufReader<TcpStream>,
}

#[allow(dead_code, reason = "some of the tests that share this ask for it")]
impl KeptOpen {
    pub(crate) async fn connect(api: Api) -> Self {
        let stream = TcpStream::connect(api.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { api, stream: BufReader::new(stream) }
    }

    /// Triggers an event, which must succeed.
    pub(crate) async fn trigger(&mut self, channels: &[&str], event: &str, data: impl Into<Value>) {
        let body = json!({ "name": event, "channels": channels, "data": data.into() }).to_string();
        let request = self.api.signed("POST", "/events", &[], &body).replacen("Connection: close\r\n", "", 1);
        let (status, text) =
            timeout(DEADLINE, self.exchange(request.as_bytes())).await.expect("an answer in time").unwrap();
        assert_eq!(status, 200, "{text}");
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, String)> {
        self.stream.write_all(request).await?;
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            } else if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest.split(' ').next().unwrap().parse().unwrap();
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok((status, String::from_utf8(body).unwrap()))
    }
}
