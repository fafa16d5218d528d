//! `GET /app/{key}`: the address that clients connect to (section 2).
//!
//! A browser cannot see an HTTP status, so whoever is refused is upgraded first, then told and closed.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use herald_protocol::{CloseReason, SocketId};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use rand::RngExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

use crate::apps::{App, Permit};
use crate::connection::session::Session;
use crate::connection::socket::Socket;
use crate::connection::{self, Connection};
use crate::http::error::Refusal;
use crate::http::limits::{self, Caller, Policy};
use crate::http::peer::Peer;
use crate::hub::Client;
use crate::hub::queue::{Bounds, Queue};
use crate::integrations::sentry;
use crate::metrics;
use crate::parts::Parts;
use crate::transport::{Rewound, Transport};

/// What a client's message may have besides its event's data.
const MESSAGE_OVERHEAD: usize = 16 * 1024;

/// Client libraries that are counted by name.
const KNOWN_CLIENTS: [&str; 7] =
    ["js", "pusher-websocket-swift", "java-client", "pusher-dotnet-client", "pusher-ruby-client", "Pysher", "herald"];

/// One who wants to connect.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The app's key, from the address.
    pub key: &'a str,
    /// What stands behind the `?` there.
    pub query: &'a str,
    /// The client itself, behind whatever proxies are trusted.
    pub peer: Peer,
    /// The request's.
    pub headers: &'a HeaderMap,
}

/// A place for a client, or why there is none.
pub type Admitted = Result<(Arc<App>, Permit), CloseReason>;

/// Upgrades, and hands the client to a task of its own.
pub async fn upgrade(State(parts): State<Arc<Parts>>, Path(key): Path<String>, mut request: Request) -> Response {
    let Some(accept) = handshake(request.headers()) else {
        let text = "This is where Pusher clients connect: a WebSocket upgrade is required.\n";
        let refusal = Extension(Refusal(text.trim_end().to_owned()));
        let wanted = [(header::UPGRADE, "websocket"), (header::SEC_WEBSOCKET_VERSION, "13")];
        return (StatusCode::UPGRADE_REQUIRED, refusal, wanted, text).into_response();
    };
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer::LOCAL);
    let peer = peer.behind_proxies(request.headers(), &parts.config.server.trusted_proxies);
    let query = request.uri().query().unwrap_or_default();
    let admitted = admit(&parts, Wish { key: &key, query, peer, headers: request.headers() }).await;
    let on_upgrade = hyper::upgrade::on(&mut request);
    let serving = Arc::clone(&parts);
    let app = admitted.as_ref().ok().filter(|_| sentry::is_on()).map(|(app, _)| Arc::clone(app));
    let served = async move {
        let Ok(upgraded) = on_upgrade.await else { return };
        let Some((transport, read_ahead)) = open(upgraded) else { return };
        serve(serving, transport, read_ahead, admitted, Bytes::new()).await;
    };
    match app {
        Some(app) => parts.connections.spawn(sentry::connection(app.id(), peer.address, served)),
        None => parts.connections.spawn(served),
    };
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Lets a client in or not, counts it, and tells the log.
pub async fn admit(parts: &Parts, wish: Wish<'_>) -> Admitted {
    let parameters = Parameters::of(wish.query);
    let caller = Caller::Address(wish.peer.address);
    let mut admitted = match limits::count(parts, &Extensions::new(), Policy::Connections, caller).await {
        Ok(()) => place(parts, wish, parameters.protocol.as_deref()),
        Err(_) => Err(CloseReason::TooManyAttempts),
    };
    if let Ok((app, _)) = &admitted
        && !parts.hub.cluster.has_place(app).await
    {
        admitted = Err(CloseReason::AppConnections(app.options().max_connections.unwrap_or_default()));
    }
    let (address, client, version) = (wish.peer.address, parameters.client(), parameters.version());
    match &admitted {
        Ok(_) => {
            let known = KNOWN_CLIENTS.into_iter().find(|known| *known == client);
            metrics::connection_accepted(known.unwrap_or("other"));
            tracing::debug!(%address, client, version, "connection accepted");
        }
        Err(reason) => {
            metrics::connection_refused(reason.label());
            let (reason, code) = (reason.label(), reason.code());
            tracing::info!(reason, code, %address, client, version, "connection refused");
        }
    }
    admitted
}

/// What clients say of themselves; of each the first.
#[derive(Debug, Default)]
struct Parameters<'a> {
    protocol: Option<Cow<'a, str>>,
    client: Option<Cow<'a, str>>,
    version: Option<Cow<'a, str>>,
}

impl<'a> Parameters<'a> {
    fn of(query: &'a str) -> Self {
        let mut found = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let parameter = match &*name {
                "protocol" => &mut found.protocol,
                "client" => &mut found.client,
                "version" => &mut found.version,
                _ => continue,
            };
            parameter.get_or_insert(value);
        }
        found
    }

    fn client(&self) -> &str {
        shortened(self.client.as_deref())
    }

    fn version(&self) -> &str {
        shortened(self.version.as_deref())
    }
}

/// So much of what anybody may have written goes into a line of the log.
fn shortened(text: Option<&str>) -> &str {
    let text = text.unwrap_or_default();
    let end = text.char_indices().nth(40).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or_default()
}

/// Serves a client whose handshake is done but for `answer`, which goes out with the first frame; what it sent behind its own part was
/// `read_ahead`.
pub async fn serve(parts: Arc<Parts>, transport: Transport, read_ahead: Bytes, admitted: Admitted, answer: Bytes) {
    let connection = match admitted {
        Ok(admitted) => welcome(&parts, transport, &read_ahead, admitted, &answer),
        // Boxed: those who are let in, who are the most and stay, need not have room for it.
        Err(reason) => return Box::pin(refuse(parts, transport, reason, answer)).await,
    };
    drop((parts, read_ahead, answer)); // a connection lives longer than a configuration
    let socket_id = connection.socket_id();
    let reason = connection::run(connection).await;
    metrics::connection_closed(reason.label());
    tracing::debug!(%socket_id, reason = reason.label(), "connection ended");
}

fn welcome(
    parts: &Parts,
    transport: Transport,
    read_ahead: &[u8],
    (app, permit): (Arc<App>, Permit),
    answer: &[u8],
) -> Box<Connection> {
    let options = &parts.config.connection;
    let socket = Socket::new(read_ahead, app.limits().event_data + MESSAGE_OVERHEAD);
    let queue = Queue::new(bounds(parts), Some(transport));
    let socket_id = SocketId::from_random(rand::rng().random());
    let client = Arc::new(Client::new(socket_id, app, queue));
    let session = Session::new(Arc::clone(&parts.hub), Arc::clone(&client), permit);
    if parts.draining.is_cancelled() {
        client.close(CloseReason::ServerGoingAway);
    }
    // The app may have been taken out since the client was admitted: whoever takes it out looks for its clients once.
    if let Some(reason) = client.app.refusal() {
        client.close(reason);
    }
    Box::new(Connection::new(client, socket, session, options, answer))
}

async fn refuse(parts: Arc<Parts>, mut transport: Transport, reason: CloseReason, answer: Bytes) {
    if !answer.is_empty() && transport.write_all(&answer).await.is_err() {
        return;
    }
    // Clients come back after exactly a second, for ever: this spreads them.
    if reason.code() == Some(4100)
        && let Ok(_place) = parts.held_back.try_acquire()
    {
        let hold_back = Duration::from_millis(rand::rng().random_range(1_000..5_000));
        // The end does not wait for that: they come back elsewhere.
        _ = tokio::time::timeout(hold_back, parts.draining.cancelled()).await;
    }
    connection::refuse(&Queue::new(bounds(&parts), Some(transport)), &reason).await;
}

fn bounds(parts: &Parts) -> Bounds {
    let options = &parts.config.connection.queue;
    Bounds { max_frames: options.max_frames, max_bytes: options.max_bytes }
}

/// Who may connect: the app, the protocol's version, the way, the origin, the limits.
fn place(parts: &Parts, wish: Wish<'_>, protocol: Option<&str>) -> Admitted {
    let app = parts.apps.by_key(wish.key).ok_or(CloseReason::UnknownApp)?;
    if protocol.is_some_and(|version| !matches!(version, "5" | "6" | "7")) {
        return Err(CloseReason::UnsupportedProtocol);
    }
    if !app.options().enabled {
        return Err(CloseReason::AppDisabled);
    }
    if app.options().require_tls && !wish.peer.encrypted {
        return Err(CloseReason::TlsRequired);
    }
    if !origin_allowed(&app, wish.headers) {
        return Err(CloseReason::OriginNotAllowed);
    }
    // Taken now, not once the client is there: of a thousand who come at once each would still find a place free.
    let node_is_full = || CloseReason::NodeConnections(parts.config.server.max_connections.unwrap_or_default());
    let on_node = parts.places.clone().map(Semaphore::try_acquire_owned).transpose().map_err(|_| node_is_full())?;
    let permit =
        app.admit(on_node).ok_or(CloseReason::AppConnections(app.options().max_connections.unwrap_or_default()))?;
    Ok((app, permit))
}

fn origin_allowed(app: &App, headers: &HeaderMap) -> bool {
    let options = app.options();
    let Some(origin) = headers.get(header::ORIGIN) else { return !options.require_origin };
    let Ok(origin) = origin.to_str() else { return false };
    options.allowed_origins.is_empty() || super::origin_matches(&options.allowed_origins, origin)
}

/// The answer to a valid WebSocket request; `None` for any other.
pub fn handshake(headers: &HeaderMap) -> Option<HeaderValue> {
    let has = |name, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    let is_upgrade = has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    is_upgrade.then(|| tungstenite::handshake::derive_accept_key(key.as_bytes()).try_into().ok()).flatten()
}

/// Takes the stream back from the HTTP machinery, which is freed with that, and what it has read of it already.
fn open(upgraded: Upgraded) -> Option<(Transport, Bytes)> {
    let parts = auto::upgrade::downcast::<TokioIo<Rewound>>(upgraded).ok()?;
    let (transport, unread) = parts.io.into_inner().into_parts();
    Some((transport, if unread.is_empty() { parts.read_buf } else { [parts.read_buf, unread].concat().into() }))
}
