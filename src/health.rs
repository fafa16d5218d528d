//! Whether what Herald works with is well (section 7), for `http::ops`: asked at once, remembered for a while, told in words of a fixed list.
//!
//! [`reports`] is where to start; `check` is one question a service. Always: nobody waits longer than `WITHIN`; whoever asks while the last
//! answer is old gets that one, and a new one is fetched once, however many ask; no error's text, address or key stands in an answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::config::Listen;
use crate::integrations::sentry;
use crate::outgoing::breaker::State;
use crate::outgoing::problem::CallProblem;
use crate::parts::Parts;
use crate::rotation;
use crate::store::StoreError;
use crate::store::time::Timestamp;

/// How long a check may take, and how long whoever asks waits.
const CHECK: Duration = Duration::from_secs(2);
const WITHIN: Duration = Duration::from_secs(3);
/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(30);
/// The same, of those who count how often they are asked.
const FRESH_OF_OTHERS: Duration = Duration::from_secs(60);

/// What is looked at, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Herald's own listener, and its way to the other nodes.
    Pusher,
    /// The identity provider's keys.
    Clerk,
    /// Where users' files are.
    Cloudinary,
    /// Where users are helped.
    Crisp,
    /// Where faults are reported.
    Sentry,
    /// Users and notifications.
    Database,
    /// What joins the nodes.
    Redis,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Pusher, Self::Clerk, Self::Cloudinary, Self::Crisp, Self::Sentry, Self::Database, Self::Redis];

    /// Its name in answers and in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pusher => "pusher",
            Self::Clerk => "clerk",
            Self::Cloudinary => "cloudinary",
            Self::Crisp => "crisp",
            Self::Sentry => "sentry",
            Self::Database => "database",
            Self::Redis => "redis",
        }
    }

    const fn fresh_for(self) -> Duration {
        match self {
            Self::Cloudinary | Self::Crisp => FRESH_OF_OTHERS,
            Self::Pusher | Self::Clerk | Self::Sentry | Self::Database | Self::Redis => FRESH,
        }
    }
}

/// How a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Well.
    Ok,
    /// It serves, not as it should.
    Degraded,
    /// It does not serve.
    Down,
    /// It is not there, and nobody wants it to be.
    NotConfigured,
}

/// What a check has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    status: Status,
    /// What is wrong, in a word of section 7's list.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// How the identity provider's keys are had: `pem` or `jwks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    /// Open connections of this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<usize>,
    /// Stored tokens whose key is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable_tokens: Option<u64>,
}

impl Outcome {
    const OK: Self = Self { status: Status::Ok, code: None, mode: None, connections: None, unreadable_tokens: None };
    const NOT_CONFIGURED: Self = Self { status: Status::NotConfigured, ..Self::OK };

    const fn down(code: &'static str) -> Self {
        Self { status: Status::Down, code: Some(code), ..Self::OK }
    }

    const fn degraded(code: &'static str) -> Self {
        Self { status: Status::Degraded, code: Some(code), ..Self::OK }
    }
}

/// What is told of a service.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Which.
    pub service: &'static str,
    /// Whether it serves, or need not.
    pub healthy: bool,
    /// For whoever may know more.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

#[derive(Debug, Serialize)]
struct Details {
    #[serde(flatten)]
    outcome: Outcome,
    latency_ms: u64,
    checked_at: Timestamp,
    /// Whether it is asked for anything at the moment, and how often it was not since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    breaker: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<u64>,
}

/// The last answers, and who is being asked.
#[derive(Debug, Default)]
pub struct Health {
    cells: [Arc<Cell>; Service::ALL.len()],
}

/// Looks at all of them. `with_details` if whoever asks may know more than whether each is well.
pub async fn reports(parts: &Arc<Parts>, with_details: bool) -> Vec<Report> {
    let asked = Service::ALL.into_iter().zip(&parts.health.cells).map(async |(service, cell)| {
        let fresh = |parts: &Arc<Parts>| Box::pin(check(service, Arc::clone(parts)));
        let known = cell.known(service.fresh_for(), &parts.connections, || fresh(parts)).await;
        let calls = parts.outgoing.calls(service.as_str());
        let is_left_alone = calls.is_some_and(|calls| calls.breaker == State::Open);
        let outcome = match known.outcome {
            Outcome { status: Status::Ok, .. } if is_left_alone => {
                Outcome { status: Status::Degraded, code: Some("breaker_open"), ..known.outcome }
            }
            other => other,
        };
        let details = Details {
            outcome,
            latency_ms: known.latency_ms,
            checked_at: known.checked_at,
            breaker: calls.map(|calls| calls.breaker.as_str()),
            rejected: calls.map(|calls| calls.rejected),
        };
        Report {
            service: service.as_str(),
            healthy: known.outcome.status != Status::Down,
            details: with_details.then_some(details),
        }
    });
    join_all(asked).await
}

/// Asks a service.
async fn check(service: Service, parts: Arc<Parts>) -> Outcome {
    match service {
        Service::Pusher => {
            let connections = Some(parts.hub.total_connections());
            match (answers(&parts.listening, parts.config.tls.cert.is_some()).await, parts.hub.cluster.ping().await) {
                (Err(_), _) => Outcome { connections, ..Outcome::down("connect") },
                (Ok(()), Some(Err(_))) => Outcome { connections, ..Outcome::degraded("connect") },
                (Ok(()), _) => Outcome { connections, ..Outcome::OK },
            }
        }
        Service::Clerk => match &parts.identity {
            None => Outcome::NOT_CONFIGURED,
            Some(provider) => match provider.check().await {
                Ok(mode) => Outcome { mode: Some(mode), ..Outcome::OK },
                Err((problem, true)) => Outcome::degraded(problem.code()),
                Err((problem, false)) => Outcome::down(problem.code()),
            },
        },
        Service::Cloudinary => match &parts.cloudinary {
            None => Outcome::NOT_CONFIGURED,
            Some(cloudinary) => of_call(cloudinary.ping().await),
        },
        Service::Crisp => match &parts.crisp {
            None => Outcome::NOT_CONFIGURED,
            Some(crisp) => match &crisp.rest {
                None => Outcome::OK, // nothing is asked of it
                Some(rest) => of_call(rest.ping().await),
            },
        },
        Service::Sentry => match &parts.config.sentry.dsn {
            None => Outcome::NOT_CONFIGURED,
            Some(dsn) => match sentry::health::check(dsn).await {
                Ok(()) => Outcome::OK,
                Err(unreachable) => Outcome::down(unreachable.code()),
            },
        },
        Service::Database => database(&parts).await,
        Service::Redis => match parts.hub.cluster.ping().await {
            None => Outcome::NOT_CONFIGURED,
            Some(Ok(())) => Outcome::OK,
            Some(Err(_)) => Outcome::down("connect"),
        },
    }
}

async fn database(parts: &Parts) -> Outcome {
    let Some(notifications) = &parts.notifications else { return Outcome::down("internal") };
    let store = &*notifications.store;
    let asked = async {
        store.ping().await?;
        rotation::missing_keys(store, parts.config.tokens.keys.as_ref()).await
    };
    match asked.await {
        Ok(missing) if missing.is_empty() => Outcome::OK,
        Ok(missing) => {
            let tokens = missing.iter().map(|(_, tokens)| tokens).sum();
            Outcome { status: Status::Degraded, unreadable_tokens: Some(tokens), ..Outcome::OK }
        }
        Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)) => Outcome::down("timeout"),
        Err(StoreError::Unavailable(_)) => Outcome::down("connect"),
        Err(_) => Outcome::down("internal"),
    }
}

/// What a third party's answer to a harmless question means: one that wants to be left alone serves.
fn of_call(asked: Result<(), CallProblem>) -> Outcome {
    match asked.map_err(|problem| problem.code()) {
        Ok(()) => Outcome::OK,
        Err("rate_limited") => Outcome::degraded("rate_limited"),
        Err(code) => Outcome::down(code),
    }
}

/// Asks the main listener whether it lives, as a client would; behind TLS it has to do that it takes the connection.
async fn answers(listening: &Listen, is_encrypted: bool) -> std::io::Result<()> {
    match listening {
        Listen::Tcp(address) => {
            let mut address = *address;
            match address.ip() {
                IpAddr::V4(any) if any.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(any) if any.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
                _ => {}
            }
            lives(TcpStream::connect(address).await?, is_encrypted).await
        }
        Listen::Unix(path) => lives(UnixStream::connect(path).await?, is_encrypted).await,
    }
}

async fn lives(mut stream: impl AsyncRead + AsyncWrite + Unpin, is_encrypted: bool) -> std::io::Result<()> {
    const EXPECTED: &[u8] = b"HTTP/1.1 200";
    if is_encrypted {
        return Ok(());
    }
    stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut begin = [0; EXPECTED.len()];
    stream.read_exact(&mut begin).await?;
    if begin == EXPECTED { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

/// The last answer of one service.
#[derive(Debug)]
struct Cell {
    known: watch::Sender<Option<Known>>,
    is_asking: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    outcome: Outcome,
    latency_ms: u64,
    checked_at: Timestamp,
    at: Instant,
}

impl Known {
    fn new(outcome: Outcome, took: Duration) -> Self {
        let latency_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Self { outcome, latency_ms, checked_at: Timestamp::now(), at: Instant::now() }
    }
}

impl Default for Cell {
    fn default() -> Self {
        Self { known: watch::Sender::new(None), is_asking: AtomicBool::new(false) }
    }
}

impl Cell {
    /// The last answer; if it is old, another one is fetched by a task of `tasks`, once. Only the first is waited for.
    async fn known<F>(self: &Arc<Self>, fresh_for: Duration, tasks: &TaskTracker, ask: impl FnOnce() -> F) -> Known
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut told = self.known.subscribe();
        let known = *told.borrow_and_update();
        let is_fresh = known.is_some_and(|known| known.at.elapsed() < fresh_for);
        if !is_fresh && !self.is_asking.swap(true, Ordering::AcqRel) {
            let (cell, asking) = (Arc::clone(self), ask());
            tasks.spawn(async move { cell.fetch(asking).await });
        }
        if let Some(known) = known {
            return known;
        }
        let first = timeout(WITHIN, told.wait_for(Option::is_some)).await;
        let first = first.ok().and_then(|told| *told.ok()?);
        first.unwrap_or_else(|| Known::new(Outcome::down("timeout"), WITHIN))
    }

    async fn fetch(&self, asking: impl Future<Output = Outcome>) {
        let begun = Instant::now();
        let outcome = match timeout(CHECK, AssertUnwindSafe(asking).catch_unwind()).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::down("internal"), // the panic has told of itself
            Err(_) => Outcome::down("timeout"),
        };
        self.known.send_replace(Some(Known::new(outcome, begun.elapsed())));
        self.is_asking.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn a_hundred_who_ask_at_once_are_one_question_and_a_panic_is_an_answer() {
        let (cell, tasks, asked) = (Arc::new(Cell::default()), TaskTracker::new(), Arc::new(AtomicUsize::new(0)));
        let ask = || {
            let asked = Arc::clone(&asked);
            async move {
                assert!(asked.fetch_add(1, Ordering::SeqCst) > 0, "the first one panics");
                Outcome::OK
            }
        };
        let known = join_all((0..100).map(|_| cell.known(FRESH, &tasks, ask))).await;
        assert!(known.iter().all(|known| known.outcome == Outcome::down("internal")));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let old = cell.known(Duration::ZERO, &tasks, ask).await;
        assert_eq!(old.outcome, Outcome::down("internal"), "what is known is told while it is asked anew");
        tasks.close();
        tasks.wait().await;
        assert_eq!(cell.known(FRESH, &tasks, ask).await.outcome, Outcome::OK);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn whoever_does_not_answer_in_time_is_down() {
        let (cell, tasks) = (Arc::new(Cell::default()), TaskTracker::new());
        let known = cell.known(FRESH, &tasks, std::future::pending).await;
        assert_eq!(known.outcome, Outcome::down("timeout"));
    }
}
