//! Clients who are taken straight from their stream, past the HTTP machinery.
//!
//! Almost everything that connects to stay is a client whose handshake comes whole, in the first piece that is read. For it hyper, the router
//! and the layers are a detour: of the instructions of a connect with a subscription they were more than half, and buffers that lived
//! between what stays left holes in the heap. So the first bytes are looked at here. Start at [`first`].
//!
//! Always: who may connect is decided by [`upgrade::admit`], as for those who come over HTTP; whatever is not quite plainly a client's whole
//! handshake, be it cut in two, encoded, wrong or for another address, is HTTP's business, which reads those bytes again. Where reports are
//! made ([`sentry`]) all of it is: its layers stand there.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use bytes::Bytes;
use tokio::io::{AsyncRead as _, ReadBuf};

use super::peer::Peer;
use super::upgrade::{self, Admitted, Wish};
use crate::integrations::sentry;
use crate::metrics;
use crate::parts::Parts;
use crate::reload::Current;
use crate::transport::Transport;

/// Bytes and headers of a handshake that is taken here; browsers need a quarter of that, and a long cookie is no reason to hurry.
const HEAD: usize = 4 * 1024;
const HEADERS: usize = 48;

/// What has come first on a stream.
#[derive(Debug)]
pub enum First {
    /// A client's handshake.
    Client(Box<Client>),
    /// Anything else, as far as it was read.
    Other(Bytes),
}

/// A client whose handshake was read, and not answered yet.
#[derive(Debug)]
pub struct Client {
    parts: Arc<Parts>,
    handshake: Handshake,
}

#[derive(Debug)]
struct Handshake {
    /// The app's key, and the query behind it.
    target: String,
    headers: HeaderMap,
    answer: Bytes,
    /// What came behind it.
    read_ahead: Bytes,
}

/// Whether anybody is taken here.
#[must_use]
pub fn is_open() -> bool {
    !sentry::is_on()
}

/// Reads once.
///
/// # Errors
/// When the stream broke.
pub async fn first(transport: &mut Transport, clients: &Current) -> io::Result<First> {
    poll_fn(|cx| {
        let mut space = [const { MaybeUninit::uninit() }; HEAD];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *transport).poll_read(cx, &mut buffer))?;
        let read = Bytes::copy_from_slice(buffer.filled());
        let parts = clients.load();
        Poll::Ready(Ok(match Handshake::parse(&read, &parts.config.server.path_prefix) {
            Some(handshake) => First::Client(Box::new(Client { parts: Arc::clone(&parts), handshake })),
            None => First::Other(read),
        }))
    })
    .await
}

impl Handshake {
    fn parse(read: &Bytes, prefix: &str) -> Option<Self> {
        read.strip_prefix(b"GET ")?.strip_prefix(prefix.as_bytes())?.strip_prefix(b"/app/")?;
        let mut space = [const { MaybeUninit::uninit() }; HEADERS];
        let mut request = httparse::Request::new(&mut []);
        let httparse::Status::Complete(end) = request.parse_with_uninit_headers(read, &mut space).ok()? else {
            return None;
        };
        let target = request.path?.strip_prefix(prefix)?.strip_prefix("/app/")?;
        if request.version != Some(1) || !is_plain(target) {
            return None;
        }
        let mut headers = HeaderMap::with_capacity(request.headers.len());
        for header in &*request.headers {
            let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
            // A body, or a wish to be told that it may come.
            if matches!(name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::EXPECT) {
                return None;
            }
            headers.append(name, HeaderValue::from_maybe_shared(read.slice_ref(header.value)).ok()?);
        }
        let accept = upgrade::handshake(&headers)?;
        let answer = [
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: ",
            accept.as_bytes(),
            b"\r\n\r\n",
        ]
        .concat();
        Some(Self { target: target.to_owned(), headers, answer: answer.into(), read_ahead: read.slice(end..) })
    }
}

/// Whether it is a key that stands for itself, and a query of none but usual characters.
fn is_plain(target: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let (key, query) = target.split_once('?').unwrap_or((target, ""));
    !key.is_empty()
        && key.bytes().all(is_usual)
        && query.bytes().all(|byte| is_usual(byte) || b"=&%+:,/".contains(&byte))
}

impl Client {
    /// Lets it in or not, answers, and serves it to its end.
    pub async fn serve(self: Box<Self>, transport: Transport, peer: Peer) {
        let _here = self.parts.connections.token();
        let admitted = Box::pin(self.admit(peer)).await;
        metrics::http_request("app", "101");
        let Self { parts, handshake: Handshake { read_ahead, answer, .. } } = *self;
        upgrade::serve(parts, transport, read_ahead, admitted, answer).await;
    }

    async fn admit(&self, peer: Peer) -> Admitted {
        let Handshake { target, headers, .. } = &self.handshake;
        let peer = peer.behind_proxies(headers, &self.parts.config.server.trusted_proxies);
        let (key, query) = target.split_once('?').unwrap_or((target, ""));
        upgrade::admit(&self.parts, Wish { key, query, peer, headers }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = "Host: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn parse(head: &str, prefix: &str) -> Option<Handshake> {
        Handshake::parse(&Bytes::copy_from_slice(head.as_bytes()), prefix)
    }

    #[test]
    fn a_whole_handshake_is_taken_with_what_stands_behind_it() {
        let head = format!(
            "GET /p/app/key-1?protocol=7&version=8.6%2B1 HTTP/1.1\r\n{REST}Origin: https://a.b\r\n\r\n\u{1}frame"
        );
        let taken = parse(&head, "/p").unwrap();
        assert_eq!(taken.target, "key-1?protocol=7&version=8.6%2B1");
        assert_eq!(taken.headers["origin"], "https://a.b");
        assert_eq!(&*taken.read_ahead, b"\x01frame");
        let answer = String::from_utf8(taken.answer.to_vec()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains("\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    }

    #[test]
    fn whatever_is_not_plainly_a_handshake_is_left_to_http() {
        for (start, more, rule) in [
            ("GET /app/key HTTP/1.1", "", "another prefix"),
            ("GET /p/app/ HTTP/1.1", "", "no key"),
            ("GET /p/app/key/more HTTP/1.1", "", "another address"),
            ("GET /p/app/k%65y HTTP/1.1", "", "a key that has to be decoded"),
            ("GET /p/app/key?a=\"b\" HTTP/1.1", "", "characters that have to be looked at"),
            ("GET /p/app/key HTTP/1.0", "", "a version without upgrades"),
            ("POST /p/app/key HTTP/1.1", "", "another method"),
            ("GET /p/app/key HTTP/1.1", "Content-Length: 2\r\n", "a body"),
            ("GET /p/app/key HTTP/1.1", "Transfer-Encoding: chunked\r\n", "a body"),
            ("GET /p/app/key HTTP/1.1", "Expect: 100-continue\r\n", "a wish"),
            ("GET /p/app/key HTTP/1.1", "Broken header: 1\r\n", "garbage"),
        ] {
            assert!(parse(&format!("{start}\r\n{REST}{more}\r\n"), "/p").is_none(), "{rule}");
        }
        let whole = format!("GET /p/app/key HTTP/1.1\r\n{REST}\r\n");
        assert!(parse(&whole, "/p").is_some());
        for end in 0..whole.len() {
            assert!(parse(whole.get(..end).unwrap(), "/p").is_none(), "cut at {end}");
        }
        for missing in REST.lines().skip(1) {
            let without = whole.replace(&format!("{missing}\r\n"), "");
            assert!(parse(&without, "/p").is_none(), "without {missing}");
        }
        let many = "X: y\r\n".repeat(HEADERS);
        assert!(parse(&format!("GET /p/app/key HTTP/1.1\r\n{REST}{many}\r\n"), "/p").is_none(), "many headers");
    }
}
