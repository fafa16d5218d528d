//! A backend that webhooks are posted to: it records every request, checks its signature, and answers as the test wants.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::support::{App, DEADLINE};

/// See the module. Dropped, it is down.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    heard: Arc<Heard>,
    /// Requests that the test has seen, and what it has not seen yet of the events in them.
    seen: usize,
    events: VecDeque<Value>,
    serving: Option<JoinHandle<()>>,
    /// While down: keeps the port from being taken by another test.
    reserved: Option<TcpSocket>,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// When it had been read.
    pub(crate) at: Instant,
    /// What it was or will be answered with.
    pub(crate) reply: Reply,
    is_signed: bool,
}

/// How a request is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Status(u16),
    With(u16, &'static str, String),
    /// With 200, once the test lets it go.
    Held,
    Never,
}

#[derive(Debug)]
struct Heard {
    app: App,
    state: Mutex<State>,
    more: Notify,
    release: Notify,
}

#[derive(Debug)]
struct State {
    requests: Vec<Request>,
    connections: usize,
    under_way: usize,
    most_under_way: usize,
    /// The next replies; when there are none left, `reply`.
    next: VecDeque<Reply>,
    reply: Reply,
}

impl Receiver {
    /// A receiver of this app's webhooks, on a free port.
    pub(crate) async fn start(app: &App) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State {
            requests: Vec::new(),
            connections: 0,
            under_way: 0,
            most_under_way: 0,
            next: VecDeque::new(),
            reply: Reply::Status(200),
        };
        let heard =
            Arc::new(Heard { app: app.clone(), state: Mutex::new(state), more: Notify::new(), release: Notify::new() });
        let address = listener.local_addr().unwrap();
        let serving = Some(tokio::spawn(serve(listener, Arc::clone(&heard))));
        Self { address, heard, seen: 0, events: VecDeque::new(), serving, reserved: None }
    }

    /// A receiver of the default app's webhooks.
    pub(crate) async fn of_default_app() -> Self {
        Self::start(&App::new("app-id", "app-key", "app-secret")).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/webhooks?token=hidden", self.address)
    }

    /// The section of an app's configuration that makes it a receiver, with further options.
    pub(crate) fn section(&self, options: &str) -> String {
        format!("\n[[apps.webhooks]]\nurl = \"{}\"\n{options}\n", self.url())
    }

    /// From now on every request is answered so.
    pub(crate) fn reply(&self, reply: Reply) {
        self.heard.state.lock().unwrap().reply = reply;
    }

    /// The next requests are answered so, further ones with 200.
    pub(crate) fn reply_first(&self, replies: impl IntoIterator<Item = Reply>) {
        self.heard.state.lock().unwrap().next = replies.into_iter().collect();
    }

    /// Lets a request go that is held.
    pub(crate) fn release(&self) {
        self.heard.release.notify_one();
    }

    /// Requests until now, seen by the test or not.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.heard.state.lock().unwrap().requests.clone()
    }

    /// Closes its port and every connection.
    pub(crate) async fn down(&mut self) {
        let serving = self.serving.take().expect("it is up");
        serving.abort();
        _ = serving.await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.reserved = Some(socket);
    }

    /// Opens the same port again.
    pub(crate) fn up(&mut self) {
        let listener = self.reserved.take().expect("it is down").listen(128).unwrap();
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.heard))));
    }

    /// Connections that were made to it, and the most requests that were under way at once.
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = self.heard.state.lock().unwrap();
        (state.connections, state.most_under_way)
    }

    /// The next request, whatever its answer.
    pub(crate) async fn request(&mut self) -> Request {
        self.request_within(DEADLINE).await
    }

    /// The next request, which may take longer than usual.
    pub(crate) async fn request_within(&mut self, deadline: Duration) -> Request {
        let next = async {
            loop {
                let more = self.heard.more.notified();
                if let Some(request) = self.heard.state.lock().unwrap().requests.get(self.seen) {
                    return request.clone();
                }
                more.await;
            }
        };
        let Ok(request) = timeout(deadline, next).await else {
            let requests = self.requests();
            let bodies: Vec<_> =
                requests.iter().map(|request| format!("{:?} {}", request.reply, request.body)).collect();
            panic!("no webhook came in time; until now:\n  {}", bodies.join("\n  "));
        };
        self.seen += 1;
        assert!(request.is_signed, "{request:?}");
        request
    }

    /// The next event that was accepted.
    pub(crate) async fn event(&mut self) -> Value {
        self.event_within(DEADLINE).await
    }

    /// The next event that was accepted, which may take longer than usual.
    pub(crate) async fn event_within(&mut self, deadline: Duration) -> Value {
        let until = Instant::now() + deadline;
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let request = self.request_within(until.saturating_duration_since(Instant::now())).await;
            if matches!(request.reply, Reply::Status(200..300) | Reply::Held) {
                self.events.extend(request.events());
            }
        }
    }

    /// The next event, which must be this.
    pub(crate) async fn expect(&mut self, event: Value) {
        assert_eq!(self.event().await, event);
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().unwrap_or_else(|| panic!("no {name}: {:?}", self.headers));
        assert!(values.next().is_none(), "{name} more than once: {:?}", self.headers);
        value.to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.json()["events"].as_array().unwrap().clone()
    }

    pub(crate) fn delivery(&self) -> String {
        self.header("x-herald-delivery").to_owned()
    }

    /// Each event's own id.
    pub(crate) fn event_ids(&self) -> Vec<String> {
        self.header("x-herald-event-ids").split(',').map(str::to_owned).collect()
    }
}

async fn serve(listener: TcpListener, heard: Arc<Heard>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        heard.state.lock().unwrap().connections += 1;
        let heard = Arc::clone(&heard);
        let service = service_fn(move |request| answer(request, Arc::clone(&heard)));
        // A client that goes away is none of the receiver's business.
        connections
            .spawn(async move { _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await });
    }
}

async fn answer(request: hyper::Request<Incoming>, heard: Arc<Heard>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(status(400)) };
    let body = body.to_bytes();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_signed = head.method == "POST"
        && header("x-pusher-key") == heard.app.key
        && header("content-type") == "application/json"
        && header("x-pusher-signature") == heard.app.secret.sign(&body);
    let _busy = Busy::new(&heard);
    let reply = {
        let mut state = heard.state.lock().unwrap();
        let reply = state.next.pop_front().unwrap_or_else(|| state.reply.clone());
        let body = String::from_utf8(body.to_vec()).unwrap();
        state.requests.push(Request {
            headers: head.headers,
            body,
            at: Instant::now(),
            reply: reply.clone(),
            is_signed,
        });
        reply
    };
    heard.more.notify_waiters();
    Ok(match reply {
        Reply::Status(code) => status(code),
        Reply::With(code, name, value) => {
            let mut response = status(code);
            response.headers_mut().insert(name, value.parse().unwrap());
            response
        }
        Reply::Held => {
            heard.release.notified().await;
            status(200)
        }
        Reply::Never => pending().await,
    })
}

fn status(code: u16) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = code.try_into().unwrap();
    response
}

/// Counts the requests under way.
struct Busy<'a>(&'a Heard);

impl<'a> Busy<'a> {
    fn new(heard: &'a Heard) -> Self {
        let mut state = heard.state.lock().unwrap();
        state.under_way += 1;
        state.most_under_way = state.most_under_way.max(state.under_way);
        Self(heard)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().under_way -= 1;
    }
}
