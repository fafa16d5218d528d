//! Accepting: TCP, TLS or a unix socket. What comes first on a stream is looked at by [`straight`]: a client is served from there to its end, a
//! backend as long as it triggers events; any other stream is served HTTP/1.1 or 2 until it ends or becomes a WebSocket.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::config::{Config, Listen};
use crate::http::peer::Peer;
use crate::http::straight::trigger::Trigger;
use crate::http::straight::{self, Come};
use crate::reload::{Current, Routes};
use crate::tls::Tls;
use crate::transport::{Rewound, Transport};

/// How long a backend may keep a connection open between two requests.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Bytes of a request's head that are kept while it is incomplete: twice what an address may have.
const HEAD: usize = 128 * 1024;
/// How often a silent HTTP/2 peer is asked whether it is still there, and how long it may take to answer.
const HTTP2_PING: Duration = Duration::from_secs(30);
/// Requests of one HTTP/2 connection at once.
const HTTP2_STREAMS: u32 = 100;
/// Pause after a failure to accept, and for how long failures are told as one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const FAILURES_TOLD_AS_ONE: Duration = Duration::from_secs(10);

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    tls: Option<Arc<Tls>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// How the streams of a listener are served.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Who answers.
    pub router: Routes,
    /// What those are served by who need no HTTP; `None` where there are none of them.
    pub straight: Option<Current>,
    /// How long a peer may take until its first request is there.
    pub handshake_timeout: Duration,
    /// Cancelled when no more are accepted; requests under way are finished.
    pub stop: CancellationToken,
    /// The streams' tasks.
    pub tasks: TaskTracker,
}

impl Listener {
    /// Binds the main listener.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn bind(config: &Config, tls: Option<Arc<Tls>>) -> anyhow::Result<Self> {
        let socket = match &config.server.listen {
            Listen::Tcp(address) => Socket::Tcp(bind_tcp(*address, "server.listen", config)?),
            Listen::Unix(path) => Socket::Unix(bind_unix(path).await?, path.clone()),
        };
        Ok(Self { socket, tls })
    }

    /// Binds a plain listener for `option`.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn bind_plain(address: SocketAddr, option: &str, config: &Config) -> anyhow::Result<Self> {
        Ok(Self { socket: Socket::Tcp(bind_tcp(address, option, config)?), tls: None })
    }

    /// Where it listens, with the port that it has got.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn local(&self) -> io::Result<Listen> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => Listen::Tcp(listener.local_addr()?),
            Socket::Unix(_, path) => Listen::Unix(path.clone()),
        })
    }

    /// What it listens on, as a client would write it.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn url(&self) -> io::Result<String> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => {
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                format!("{scheme}://{}", listener.local_addr()?)
            }
            Socket::Unix(_, path) => format!("unix:{}", path.display()),
        })
    }

    /// Accepts and serves until it is stopped.
    pub async fn serve(self, serving: Serving) {
        let serving = Arc::new(serving);
        let mut told: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = serving.stop.cancelled() => break,
            };
            match accepted {
                Ok((transport, peer)) => {
                    let (tls, one) = (self.tls.clone(), Arc::clone(&serving));
                    serving.tasks.spawn(async move {
                        match serve(transport, peer, tls, one).await {
                            Err(reason) if reason.is_refusal() => {
                                tracing::info!(%reason, address = %peer.address, "connection refused");
                            }
                            Err(reason) => tracing::debug!(%reason, address = %peer.address, "connection ended"),
                            Ok(()) => {}
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: those who are here are served on, new ones wait at the door. Each that leaves
                    // lets one in and makes the next fail, so it is time that decides when to tell it again.
                    if told.is_none_or(|told| told.elapsed() >= FAILURES_TOLD_AS_ONE) {
                        tracing::error!(%error, "cannot accept connections");
                        told = Some(Instant::now());
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        if let Socket::Unix(_, path) = &self.socket {
            // A file that somebody has removed already needs no removal.
            _ = std::fs::remove_file(path);
        }
    }

    async fn accept(&self) -> io::Result<(Transport, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((
                    Transport::Tcp(stream),
                    Peer { address: address.ip().to_canonical(), encrypted: self.tls.is_some() },
                ))
            }
            Socket::Unix(listener, _) => Ok((Transport::Unix(listener.accept().await?.0), Peer::LOCAL)),
        }
    }
}

/// What is set of the listening socket holds for each that is accepted, and need not be said to the kernel again.
fn bind_tcp(address: SocketAddr, option: &str, config: &Config) -> anyhow::Result<TcpListener> {
    let problem = || format!("{option}: cannot listen on {address}");
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)
        .with_context(problem)?;
    let bind = || {
        socket.set_reuse_address(true)?; // a restart need not wait for the connections of before to be forgotten
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // A vanished peer is noticed by the kernel too, with data in flight or without.
        let timeout = config.connection.gone_after();
        socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(timeout))?;
        socket.set_tcp_user_timeout(Some(timeout))?;
        socket.bind(&address.into())?;
        socket.listen(4096)
    };
    bind().with_context(problem)?;
    TcpListener::from_std(socket.into()).with_context(problem)
}

async fn bind_unix(path: &Path) -> anyhow::Result<UnixListener> {
    // A server that died has left its socket behind; any other file is not ours to remove.
    let is_socket = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let is_left_over = is_socket
        && UnixStream::connect(path).await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_left_over {
        std::fs::remove_file(path).with_context(|| format!("server.listen: {} is in the way", path.display()))?;
    }
    UnixListener::bind(path).with_context(|| format!("server.listen: cannot listen on unix:{}", path.display()))
}

/// Why a stream was not served to its end.
#[derive(Debug, thiserror::Error)]
enum Unserved {
    #[error("the TLS handshake took too long")]
    SlowHandshake,
    #[error("TLS: {0}")]
    Handshake(io::Error),
    #[error("no request came in time")]
    NoRequest,
    #[error("HTTP: {0}")]
    Http(Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Broken(#[from] io::Error),
}

impl Unserved {
    /// Whether it was for us to end it. Peers that just leave, as the checks of balancers do, are not worth a line.
    fn is_refusal(&self) -> bool {
        match self {
            Self::SlowHandshake | Self::NoRequest => true,
            Self::Handshake(error) => error.kind() == io::ErrorKind::InvalidData,
            Self::Http(error) => error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse),
            Self::Broken(_) => false,
        }
    }
}

async fn serve(transport: Transport, peer: Peer, tls: Option<Arc<Tls>>, serving: Arc<Serving>) -> Result<(), Unserved> {
    let mut transport = match (transport, tls) {
        (Transport::Tcp(stream), Some(tls)) => {
            let handshake = Box::pin(tls.acceptor().accept(stream));
            let stream = tokio::time::timeout(serving.handshake_timeout, handshake).await;
            let stream = stream.map_err(|_| Unserved::SlowHandshake)?.map_err(Unserved::Handshake)?;
            Transport::Tls(Box::new(stream))
        }
        (other, _) => other,
    };
    let until = Instant::now() + serving.handshake_timeout;
    let Some(parts) = serving.straight.clone().filter(|_| straight::is_open()) else {
        return Box::pin(serve_http(Rewound::new(Bytes::new(), transport), peer, until, serving)).await;
    };
    let first = tokio::select! {
        biased;
        first = straight::next(&mut transport, &parts) => first?,
        () = serving.stop.cancelled() => return Ok(()),
        () = tokio::time::sleep_until(until) => return Err(Unserved::NoRequest),
    };
    // Boxed: clients, who stay, need not have room for the others.
    match first {
        Come::Client(client) => {
            drop(serving);
            client.serve(transport, peer).await;
            Ok(())
        }
        Come::Trigger(trigger) => Box::pin(serve_triggers(trigger, transport, peer, parts, serving)).await,
        Come::Other(read) => Box::pin(serve_http(Rewound::new(read, transport), peer, until, serving)).await,
    }
}

/// Serves a backend until it has left, sent nothing for long, or sent something else: that and all that follows is for HTTP.
async fn serve_triggers(
    mut trigger: Box<Trigger>,
    mut transport: Transport,
    peer: Peer,
    parts: Current,
    serving: Arc<Serving>,
) -> Result<(), Unserved> {
    let stop = serving.stop.clone();
    let mut stopped = pin!(stop.cancelled());
    let mut patience = pin!(tokio::time::sleep(KEEP_ALIVE));
    loop {
        trigger.serve(&mut transport, peer, || stop.is_cancelled()).await?;
        let until = Instant::now() + KEEP_ALIVE;
        let next = loop {
            tokio::select! {
                biased;
                next = straight::next(&mut transport, &parts) => break next?,
                () = stopped.as_mut() => return Ok(()),
                () = patience.as_mut() => {
                    if Instant::now() >= until {
                        return Ok(());
                    }
                    patience.as_mut().reset(until);
                }
            }
        };
        trigger = match next {
            Come::Trigger(trigger) => trigger,
            Come::Client(client) => {
                client.serve(transport, peer).await;
                return Ok(());
            }
            Come::Other(read) => {
                return serve_http(Rewound::new(read, transport), peer, until, serving).await;
            }
        }
    }
}

/// Serves until the peer has left, stopped sending requests, or taken its stream for a WebSocket.
async fn serve_http(
    transport: Rewound,
    peer: Peer,
    first_until: Instant,
    serving: Arc<Serving>,
) -> Result<(), Unserved> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(KEEP_ALIVE).max_buf_size(HEAD);
    // Answers are short: copying one behind its head costs less than what the kernel takes for gathering both.
    builder.http1().writev(false);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(HTTP2_STREAMS).keep_alive_interval(HTTP2_PING);
    let requests = Arc::new(AtomicU64::new(0));
    let (router, counted) = (Arc::clone(&serving.router), Arc::clone(&requests));
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        counted.fetch_add(1, Ordering::Relaxed);
        request.extensions_mut().insert(peer);
        Router::clone(&router.load()).call(request)
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(transport), service);
    tokio::pin!(connection);
    let patience = tokio::time::sleep_until(first_until);
    tokio::pin!(patience);
    let (mut seen, mut stopping) = (0, false);
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(Unserved::Http),
            // Over HTTP/1 a silent peer is cut by the time its next head may take, over HTTP/2 by nothing but this.
            () = patience.as_mut(), if !stopping => match requests.load(Ordering::Relaxed) {
                0 => return Err(Unserved::NoRequest),
                same if same == seen => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                more => {
                    seen = more;
                    patience.as_mut().reset(Instant::now() + KEEP_ALIVE);
                }
            },
            () = serving.stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_accepted_has_what_was_set_of_the_listener() {
        let config = Config::default();
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap(), "server.listen", &config).unwrap();
        let _client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = socket2::SockRef::from(&accepted);
        let timeout = config.connection.gone_after();
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), timeout);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(timeout));
    }
}
