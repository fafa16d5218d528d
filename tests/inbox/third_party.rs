//! A stand-in for a third party over HTTP: it remembers what it is asked, answers as its handler says, and can be slow, broken, lying, mad or silent.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, header::HeaderMap};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A first attempt of a task may take its whole time, and the second comes some seconds later.
const DEADLINE: Duration = Duration::from_secs(40);

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As its handler says.
    Well,
    /// As its handler says, after so long.
    Slow(Duration),
    /// With this status and no more.
    Failing(u16),
    /// Not at all.
    Hanging,
    /// With this and 200.
    Lying(&'static str),
    /// With 200 and a body without an end.
    Flooding,
}

/// What it was asked, and in which mood it was then.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) mood: Mood,
    pub(crate) method: Method,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// A member of a form.
    pub(crate) fn form(&self, name: &str) -> Option<String> {
        let mut form = form_urlencoded::parse(self.body.as_bytes());
        form.find(|(member, _)| member == name).map(|(_, value)| value.into_owned())
    }
}

type Handler = dyn Fn(&Asked) -> (u16, Value) + Send + Sync;

/// See the module.
pub(crate) struct ThirdParty {
    pub(crate) url: String,
    mood: Arc<Mutex<Mood>>,
    count: Arc<AtomicUsize>,
    asked: mpsc::Receiver<Asked>,
}

impl ThirdParty {
    pub(crate) async fn start(handler: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, asked) = mpsc::channel(1_000);
        let (mood, count) = (Arc::new(Mutex::new(Mood::Well)), Arc::new(AtomicUsize::new(0)));
        let handler: Arc<Handler> = Arc::new(handler);
        let party = Self { url, mood: Arc::clone(&mood), count: Arc::clone(&count), asked };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (handler, mood, tell, count) =
                    (Arc::clone(&handler), Arc::clone(&mood), tell.clone(), Arc::clone(&count));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (handler, mood, tell, count) =
                        (Arc::clone(&handler), Arc::clone(&mood), tell.clone(), Arc::clone(&count));
                    async move {
                        let mood = *mood.lock();
                        let asked = read(mood, request).await;
                        count.fetch_add(1, Ordering::SeqCst);
                        tell.try_send(asked.clone()).ok(); // who does not look need not hear of more
                        Ok::<_, Infallible>(answer(&asked, &*handler).await)
                    }
                });
                tokio::spawn(async move {
                    // Whoever has heard enough is gone.
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
            }
        });
        party
    }

    pub(crate) fn be(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    /// The next request that nobody has looked at.
    pub(crate) async fn next(&mut self) -> Asked {
        timeout(DEADLINE, self.asked.recv()).await.expect("it is asked, in time").unwrap()
    }

    /// What nobody has looked at so far.
    pub(crate) fn so_far(&mut self) -> Vec<Asked> {
        std::iter::from_fn(|| self.asked.try_recv().ok()).collect()
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

async fn read(mood: Mood, request: Request<Incoming>) -> Asked {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Asked {
        mood,
        method: head.method,
        path: head.uri.to_string(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(asked: &Asked, handler: &Handler) -> Response<Body> {
    let with = |status: u16, body: Body| {
        let mut response = Response::new(body);
        *response.status_mut() = status.try_into().unwrap();
        response
    };
    let text = |text: String| Full::new(Bytes::from(text)).boxed_unsync();
    match asked.mood {
        Mood::Well | Mood::Slow(_) => {
            if let Mood::Slow(span) = asked.mood {
                tokio::time::sleep(span).await;
            }
            let (status, body) = handler(asked);
            with(status, text(if body.is_null() { String::new() } else { body.to_string() }))
        }
        Mood::Failing(status) => with(status, text(String::new())),
        Mood::Hanging => std::future::pending().await,
        Mood::Lying(body) => with(200, text(body.to_owned())),
        Mood::Flooding => {
            let chunk = Bytes::from(vec![b' '; 64 * 1024]);
            let chunks = stream::repeat(chunk).map(|chunk| Ok(Frame::data(chunk)));
            with(200, StreamBody::new(chunks).boxed_unsync())
        }
    }
}
