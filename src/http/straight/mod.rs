//! What is served straight from its stream, past the HTTP machinery: clients ([`client`]) and backends' triggers ([`trigger`]).
//!
//! Almost everything that connects to stay is a client whose handshake comes whole, in one piece; almost everything that backends ask is one
//! event to be triggered, and comes so too. For both hyper, the router and the layers are a detour that costs more than all there is to do.
//! So what comes is looked at here first. Start at [`next`].
//!
//! Always: who may do what is decided by the same code as for those who come over HTTP; whatever is not quite plainly one of the two, be it cut
//! in two, encoded, wrong or for another address, is HTTP's business, which reads those bytes again and whatever follows. Where
//! reports are made ([`sentry`]) all of it is: its layers stand there.

pub mod client;
pub mod trigger;

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use tokio::io::{AsyncRead as _, ReadBuf};

use crate::integrations::sentry;
use crate::parts::Parts;
use crate::reload::Current;
use crate::transport::Transport;
use client::{Client, Handshake};
use trigger::{Post, Trigger};

/// Bytes and headers of what is taken here; browsers need a quarter of that, most events too, and a long cookie is no reason to hurry.
const REQUEST: usize = 4 * 1024;
const HEADERS: usize = 48;

/// What has come on a stream.
#[derive(Debug)]
pub enum Come {
    /// A client's handshake.
    Client(Box<Client>),
    /// A backend's event.
    Trigger(Box<Trigger>),
    /// Anything else, as far as it was read; nothing if the stream has ended.
    Other(Bytes),
}

/// Whether anybody is served here.
#[must_use]
pub fn is_open() -> bool {
    !sentry::is_on()
}

/// Reads once. Nothing is lost if it is given up before it is ready.
///
/// # Errors
/// When the stream broke.
pub async fn next(transport: &mut Transport, parts: &Current) -> io::Result<Come> {
    poll_fn(|cx| {
        let mut space = [const { MaybeUninit::uninit() }; REQUEST];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *transport).poll_read(cx, &mut buffer))?;
        let read = Bytes::copy_from_slice(buffer.filled());
        Poll::Ready(Ok(Come::of(read, &parts.load())))
    })
    .await
}

impl Come {
    fn of(read: Bytes, parts: &Arc<Parts>) -> Self {
        let prefix = &parts.config.server.path_prefix;
        if let Some(handshake) = Handshake::parse(&read, prefix) {
            return Self::Client(Box::new(Client::new(Arc::clone(parts), handshake)));
        }
        match Post::parse(&read, prefix) {
            Some(post) => Self::Trigger(Box::new(Trigger::new(Arc::clone(parts), post))),
            None => Self::Other(read),
        }
    }
}

/// The whole head of a request over HTTP/1.1.
struct Head {
    /// Path and query.
    target: Bytes,
    headers: HeaderMap,
    /// What comes behind it.
    rest: Bytes,
}

impl Head {
    /// Reads it if all of it is there, the method is this one, and the target begins with these two.
    fn parse(read: &Bytes, method: &str, start: [&str; 2]) -> Option<Self> {
        let [prefix, folder] = start.map(str::as_bytes);
        read.strip_prefix(method.as_bytes())?.strip_prefix(b" ")?.strip_prefix(prefix)?.strip_prefix(folder)?;
        let mut space = [const { MaybeUninit::uninit() }; HEADERS];
        let mut request = httparse::Request::new(&mut []);
        let httparse::Status::Complete(end) = request.parse_with_uninit_headers(read, &mut space).ok()? else {
            return None;
        };
        if request.version != Some(1) {
            return None;
        }
        let mut headers = HeaderMap::with_capacity(request.headers.len());
        for header in &*request.headers {
            let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
            headers.append(name, HeaderValue::from_maybe_shared(read.slice_ref(header.value)).ok()?);
        }
        Some(Self { target: read.slice_ref(request.path?.as_bytes()), headers, rest: read.slice(end..) })
    }
}

/// Whether it stands for itself in an address, without being decoded.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
}
