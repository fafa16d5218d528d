//! A client whose handshake comes whole: it is let in by [`upgrade::admit`], as those who come over HTTP, and served to its end. Buffers of
//! the HTTP machinery, which lived between what stays, would leave holes in the heap.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use bytes::Bytes;

use super::{Head, is_plain};
use crate::http::peer::Peer;
use crate::http::upgrade::{self, Admitted, Wish};
use crate::metrics;
use crate::parts::Parts;
use crate::transport::Transport;

/// A client whose handshake was read, and not answered yet.
#[derive(Debug)]
pub struct Client {
    parts: Arc<Parts>,
    handshake: Handshake,
}

#[derive(Debug)]
pub(super) struct Handshake {
    /// The app's key, and the query behind it.
    target: String,
    headers: HeaderMap,
    answer: Bytes,
    /// What came behind it.
    read_ahead: Bytes,
}

impl Handshake {
    pub(super) fn parse(read: &Bytes, prefix: &str) -> Option<Self> {
        let Head { target, headers, rest } = Head::parse(read, "GET", [prefix, "/app/"])?;
        let target = str::from_utf8(&target).ok()?.strip_prefix(prefix)?.strip_prefix("/app/")?.to_owned();
        let (key, query) = target.split_once('?').unwrap_or((&target, ""));
        // Of the latter: a body, or a wish to be told that it may come.
        let others = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::EXPECT];
        if key.is_empty()
            || !is_plain(key)
            || !is_plain_query(query)
            || others.iter().any(|name| headers.contains_key(name))
        {
            return None;
        }
        let accept = upgrade::handshake(&headers)?;
        let answer = [
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: ",
            accept.as_bytes(),
            b"\r\n\r\n",
        ]
        .concat();
        Some(Self { target, headers, answer: answer.into(), read_ahead: rest })
    }
}

/// Whether a query has none but usual characters.
fn is_plain_query(query: &str) -> bool {
    query.split(['=', '&', '%', '+', ':', ',', '/']).all(is_plain)
}

impl Client {
    pub(super) const fn new(parts: Arc<Parts>, handshake: Handshake) -> Self {
        Self { parts, handshake }
    }

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
        let many = "X: y\r\n".repeat(super::super::HEADERS);
        assert!(parse(&format!("GET /p/app/key HTTP/1.1\r\n{REST}{many}\r\n"), "/p").is_none(), "many headers");
    }
}
