//! Builds the parts, binds the listeners, runs them, and shuts them down in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use herald_protocol::CloseReason;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::apps::Apps;
use crate::config::{Config, Listen};
use crate::connection::transport::Transport;
use crate::http;
use crate::hub::Hub;

/// How often kept events are looked through for those whose time is over.
const SWEEP: Duration = Duration::from_secs(30);

/// What every request and connection may use.
#[derive(Debug)]
pub struct Parts {
    /// What was configured.
    pub config: Config,
    /// The applications.
    pub apps: Arc<Apps>,
    /// Who is here.
    pub hub: Arc<Hub>,
    /// The clients' tasks.
    pub connections: TaskTracker,
    /// Cancelled once clients are being sent away.
    pub draining: CancellationToken,
}

/// Serves until a signal asks for the end, and then until everybody has left.
///
/// # Errors
/// When a listener cannot be bound.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let apps = Arc::new(Apps::new(config.apps.clone()));
    let hub = Arc::new(Hub::new(&apps));
    let parts =
        Arc::new(Parts { config, apps, hub, connections: TaskTracker::new(), draining: CancellationToken::new() });
    let Listen::Tcp(address) = &parts.config.server.listen else { anyhow::bail!("unix sockets are not served yet") };
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    announce(&format!("listening on http://{}", listener.local_addr()?));

    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(accept(listener, Arc::clone(&parts), stop.clone(), tasks.clone()));
    tasks.spawn(sweep(Arc::clone(&parts), stop.clone()));

    signal().await?;
    let shutdown = &parts.config.shutdown;
    tokio::time::sleep(shutdown.delay).await;
    stop.cancel();
    drain(&parts, shutdown.drain).await;
    Ok(())
}

/// The line that says where Herald listens: on stdout, whatever the log level.
#[allow(clippy::print_stdout, reason = "this line is for whoever started the process, not for the log")]
fn announce(line: &str) {
    println!("{line}");
}

async fn accept(listener: TcpListener, parts: Arc<Parts>, stop: CancellationToken, tasks: TaskTracker) {
    let router = http::routes(Arc::clone(&parts));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                tasks.spawn(serve(stream, router.clone(), Arc::clone(&parts), stop.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: those who are here are served on, new ones wait.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, router: Router, parts: Arc<Parts>, stop: CancellationToken) {
    if let Err(error) = prepare(&stream, &parts) {
        tracing::debug!(%error, "the connection was gone before it was served");
        return;
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(parts.config.server.handshake_timeout);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(100);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(Transport::Tcp(stream)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended");
    }
}

/// A vanished peer is noticed by the kernel too, with data in flight or without.
fn prepare(stream: &TcpStream, parts: &Parts) -> io::Result<()> {
    let options = &parts.config.connection;
    let timeout = options.activity_timeout + options.activity_grace + options.pong_timeout;
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(timeout))?;
    socket.set_tcp_user_timeout(Some(timeout))
}

async fn sweep(parts: Arc<Parts>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        parts.hub.sweep();
    }
}

async fn signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Sends the clients away, spread evenly over `period`, and waits for their goodbyes.
async fn drain(parts: &Parts, period: Duration) {
    parts.draining.cancel();
    parts.connections.close();
    let clients = parts.hub.clients();
    let start = Instant::now();
    for (position, client) in (1_u32..).zip(&clients) {
        client.close(CloseReason::ServerGoingAway);
        let share = f64::from(position) / clients.len() as f64;
        let next = tokio::time::sleep_until(start + period.mul_f64(share));
        tokio::select! {
            () = next => {}
            () = parts.connections.wait() => break,
        }
    }
    const GOODBYES: Duration = Duration::from_secs(8);
    if tokio::time::timeout(GOODBYES, parts.connections.wait()).await.is_err() {
        tracing::warn!(left = parts.connections.len(), "some clients did not take their goodbye in time");
    }
}
