//! A backend's `POST /events` that comes whole and alone, as most do that are kept alive: it is checked and published by the code that the
//! router would lead it to, and answered.

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, Method, Request, Uri, header, response};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use futures_util::poll;
use http_body_util::{BodyExt as _, Collected};
use httpdate::HttpDate;
use tokio::io::AsyncWriteExt as _;

use super::{Head, is_plain};
use crate::http::error::ApiError;
use crate::http::idempotency::Answered;
use crate::http::peer::Peer;
use crate::http::pusher::auth::{Signed, app};
use crate::http::pusher::{self, events};
use crate::http::{limits, watch};
use crate::metrics;
use crate::parts::Parts;
use crate::transport::Transport;

/// How long an answer may take to be written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);

/// An event that was read, and not published yet.
#[derive(Debug)]
pub struct Trigger {
    parts: Arc<Parts>,
    post: Post,
}

#[derive(Debug)]
pub(super) struct Post {
    request: Request<Body>,
    /// Where the app's id stands in the path.
    app_id: Range<usize>,
}

/// Headers that change how a request is read or answered.
const SPECIAL: [HeaderName; 3] = [header::TRANSFER_ENCODING, header::EXPECT, header::UPGRADE];

impl Post {
    pub(super) fn parse(read: &Bytes, prefix: &str) -> Option<Self> {
        let Head { target, headers, rest } = Head::parse(read, "POST", [prefix, "/apps/"])?;
        let (path, _) = str::from_utf8(&target).ok()?.split_once('?')?;
        let start = prefix.len() + "/apps/".len();
        let app_id = path.get(start..)?.strip_suffix("/events")?;
        let is_ours = !app_id.is_empty() && is_plain(app_id);
        let is_usual = is_kept_alive(&headers) && !SPECIAL.iter().any(|name| headers.contains_key(name));
        if !is_ours || !is_usual || length(&headers)? != rest.len() {
            return None;
        }
        let app_id = start..start + app_id.len();
        let mut request = Request::new(Body::from(rest));
        *request.method_mut() = Method::POST;
        *request.headers_mut() = headers;
        *request.uri_mut() = Uri::from_maybe_shared(target).ok()?;
        Some(Self { request, app_id })
    }
}

impl Trigger {
    pub(super) const fn new(parts: Arc<Parts>, post: Post) -> Self {
        Self { parts, post }
    }

    /// Does what it says, to its end although the backend may have gone, and answers. Behind an answer that is the last the connection ends,
    /// and the backend is told so.
    ///
    /// # Errors
    /// When the answer cannot be written.
    pub async fn serve(
        self: Box<Self>,
        transport: &mut Transport,
        peer: Peer,
        is_last: impl Fn() -> bool,
    ) -> io::Result<()> {
        let Self { parts, post: Post { mut request, app_id } } = *self;
        request.extensions_mut().insert(peer);
        let address = limits::address(&parts, request.extensions(), request.headers());
        let answer = match act(parts, request, app_id).await {
            Ok(Answered { json, is_repeat: false }) => {
                metrics::http_request("events", "200");
                encode(OK, &json, is_last())
            }
            other => {
                let response = other.into_response();
                watch::tell("events", address, &response);
                let (head, body) = response.into_parts();
                // What is in memory already cannot fail to be read.
                let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
                encode(&encode_head(&head), &body, is_last())
            }
        };
        let mut written = pin!(async {
            transport.write_all(&answer).await?;
            transport.flush().await
        });
        // Most answers fit into the socket at once; a timer is for those that do not.
        match poll!(written.as_mut()) {
            Poll::Ready(written) => written,
            Poll::Pending => tokio::time::timeout(WRITTEN_WITHIN, written).await?,
        }
    }
}

async fn act(parts: Arc<Parts>, request: Request<Body>, app_id: Range<usize>) -> Result<Answered, ApiError> {
    let (head, body) = request.into_parts();
    let app = app(&parts, head.uri.path().get(app_id), "");
    let signed = Signed::check(&parts, app, head, body, None).await?;
    pusher::act(parts, signed, events::trigger).await
}

/// How nearly every answer begins.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

fn encode_head(head: &response::Parts) -> Vec<u8> {
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut encoded = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_u16()).into_bytes();
    for (name, value) in &head.headers {
        encoded.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    encoded
}

/// An answer as it goes over the wire.
fn encode(head: &[u8], body: &[u8], is_last: bool) -> Vec<u8> {
    let mut answer = Vec::with_capacity(256 + head.len() + body.len());
    answer.extend_from_slice(head);
    if is_last {
        answer.extend_from_slice(b"connection: close\r\n");
    }
    add_date(&mut answer);
    // Writing to memory does not fail.
    _ = write!(answer, "content-length: {}\r\n\r\n", body.len());
    answer.extend_from_slice(body);
    answer
}

/// Adds the header with the time, which is made once a second.
fn add_date(answer: &mut Vec<u8>) {
    thread_local! { static DATE: RefCell<(u64, String)> = RefCell::default() }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(made_at, date)| {
        if *made_at != second || date.is_empty() {
            (*made_at, *date) = (second, format!("date: {}\r\n", HttpDate::from(now)));
        }
        answer.extend_from_slice(date.as_bytes());
    });
}

/// The announced length of the body, if there is one that everybody understands the same.
fn length(headers: &HeaderMap) -> Option<usize> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else { return None };
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}

fn is_kept_alive(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn parse(line: &str, headers: &str, body: &str) -> Option<Post> {
        Post::parse(&Bytes::from(format!("{line}\r\nHost: x\r\n{headers}\r\n{body}")), "/p")
    }

    #[test]
    fn a_whole_event_is_taken() {
        let post =
            parse("POST /p/apps/app-1/events?auth_key=a%2Fb HTTP/1.1", "Content-Length: 2\r\nX-Any: 1\r\n", "{}");
        let Post { request, app_id } = post.unwrap();
        assert_eq!(request.uri().path().get(app_id), Some("app-1"));
        assert_eq!(request.uri().query(), Some("auth_key=a%2Fb"));
        assert_eq!((request.method(), &request.headers()["x-any"]), (&Method::POST, &HeaderValue::from_static("1")));
    }

    #[test]
    fn whatever_is_not_plainly_one_is_left_to_http() {
        const LINE: &str = "POST /p/apps/1/events?a=b HTTP/1.1";
        const LENGTH: &str = "Content-Length: 2\r\n";
        let is_taken = |line: &str, headers: &str, body: &str| parse(line, headers, body).is_some();
        for line in [
            "POST /apps/1/events?a=b HTTP/1.1",
            "POST /p/apps//events?a=b HTTP/1.1",
            "POST /p/apps/1/2/events?a=b HTTP/1.1",
            "POST /p/apps/%31/events?a=b HTTP/1.1",
            "POST /p/apps/1/batch_events?a=b HTTP/1.1",
            "POST /p/apps/1/events HTTP/1.1",
            "POST /p/apps/1/events?a=\"b\" HTTP/1.1",
            "POST /p/apps/1/events?a=b HTTP/1.0",
            "PUT /p/apps/1/events?a=b HTTP/1.1",
            "POST http://x/p/apps/1/events?a=b HTTP/1.1",
        ] {
            assert!(!is_taken(line, LENGTH, "{}"), "{line}");
        }
        for headers in [
            "",
            "Content-Length: 1\r\n",
            "Content-Length: 3\r\n",
            "Content-Length: +2\r\n",
            "Content-Length: 2\r\nContent-Length: 2\r\n",
            "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 2\r\nExpect: 100-continue\r\n",
            "Content-Length: 2\r\nUpgrade: h2c\r\n",
            "Content-Length: 2\r\nConnection: close\r\n",
            "Content-Length: 2\r\nConnection: keep-alive\r\nConnection: close\r\n",
            "Content-Length: 2\r\nBroken header: 1\r\n",
        ] {
            assert!(!is_taken(LINE, headers, "{}"), "{headers:?}");
        }
        let many = format!("{LENGTH}{}", "X: y\r\n".repeat(super::super::HEADERS));
        assert!(!is_taken(LINE, &many, "{}"), "many headers");
        assert!(!is_taken(LINE, LENGTH, "{}POST"), "more behind it");
        assert!(is_taken(LINE, &format!("{LENGTH}Connection: Keep-Alive\r\n"), "{}"));

        let whole = format!("{LINE}\r\nHost: x\r\n{LENGTH}\r\n{{}}");
        for end in 0..whole.len() {
            assert!(Post::parse(&Bytes::copy_from_slice(&whole.as_bytes()[..end]), "/p").is_none(), "cut at {end}");
        }
    }
}
