//! A stand-in for a third party, over HTTP: it notes what it is asked, and answers in the mood that a test gives it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Method, Request, Response};
use futures_util::stream;
use hyper::body::Incoming;
use hyper::service::service_fn;
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
    /// As it should.
    Well,
    /// As it should, after so long.
    Slow(Duration),
    /// With this status, and nothing else.
    Failing(u16),
    /// Not at all.
    Hanging,
    /// With 200 and a page that is no answer.
    Lying,
    /// With 200 and more, for as long as somebody listens.
    Endless,
}

/// What it was asked, and in which mood it was then.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) mood: Mood,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// It ends with the test.
pub(crate) struct ThirdParty {
    pub(crate) url: String,
    mood: Arc<Mutex<Mood>>,
    asked: mpsc::Receiver<Asked>,
}

impl ThirdParty {
    /// One that is well, and answers so.
    pub(crate) async fn start(answers: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, asked) = mpsc::channel(1_000);
        let mood = Arc::new(Mutex::new(Mood::Well));
        let (now, answers) = (Arc::clone(&mood), Arc::new(answers));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tell, now, answers) = (tell.clone(), Arc::clone(&now), Arc::clone(&answers));
                let service = service_fn(move |request| {
                    let (tell, mood, answers) = (tell.clone(), *now.lock(), Arc::clone(&answers));
                    async move { Ok::<_, Infallible>(serve(request, mood, &tell, &*answers).await) }
                });
                let serving =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { drop(serving.await) }); // whoever has heard enough is gone
            }
        });
        Self { url, mood, asked }
    }

    pub(crate) fn be(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    /// The next thing that it is asked.
    pub(crate) async fn next(&mut self) -> Asked {
        timeout(DEADLINE, self.asked.recv()).await.expect("it is asked, in time").unwrap()
    }

    /// What it was asked beside that.
    pub(crate) fn so_far(&mut self) -> Vec<Asked> {
        std::iter::from_fn(|| self.asked.try_recv().ok()).collect()
    }
}

async fn serve(
    request: Request<Incoming>,
    mood: Mood,
    tell: &mpsc::Sender<Asked>,
    answers: &(dyn Fn(&Asked) -> (u16, Value) + Send + Sync),
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = to_bytes(Body::new(body), 1024 * 1024).await.unwrap();
    let asked = Asked {
        mood,
        method: head.method,
        path: head.uri.to_string(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    tell.send(asked.clone()).await.ok();
    let with = |status: u16, body: Body| Response::builder().status(status).body(body).unwrap();
    match mood {
        Mood::Failing(status) => return with(status, Body::empty()),
        Mood::Hanging => std::future::pending().await,
        Mood::Lying => return with(200, Body::from("<html>[1,2")),
        Mood::Endless => {
            let more = Bytes::from(vec![b' '; 64 * 1024]);
            return with(200, Body::from_stream(stream::repeat_with(move || Ok::<_, Infallible>(more.clone()))));
        }
        Mood::Slow(pause) => tokio::time::sleep(pause).await,
        Mood::Well => {}
    }
    let (status, answer) = answers(&asked);
    with(status, Body::from(if answer.is_null() { String::new() } else { answer.to_string() }))
}
