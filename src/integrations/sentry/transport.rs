//! How reports get to Sentry: a queue with a bound, and one thread that sends what is in it, one after the other.
//!
//! The thread is this transport's own, since reports are made before the runtime starts and after it has ended, and a busy runtime should not
//! wait for them to be packed. Whoever reports never waits: what finds the queue full is lost, and traces leave half of it to events. What Sentry
//! does not take is not tried again; the breaker before it, and its own wishes (`Retry-After`, `X-Sentry-Rate-Limits`), say when it is asked.

use std::sync::mpsc as threads;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ::sentry::client_report::{Reason, Recorder};
use ::sentry::protocol::EnvelopeItem;
use ::sentry::types::Dsn;
use ::sentry::{Envelope, TransportFactory, TransportOptions};
use anyhow::Context as _;
use axum::http::{HeaderMap, header};
use backtrace::Backtrace;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use super::panics;
use super::scrub::Scrub;
use crate::metrics;
use crate::outgoing::service::{CallError, Limits, Retry, Service, retry_after};

/// Envelopes that may wait.
const QUEUE: usize = 32;
/// How long Sentry may take, and bytes of its answer.
const LIMITS: Limits = Limits { within: Duration::from_secs(5), bytes: 16 * 1024 };
/// How long Sentry wants to be left alone where it does not say so, and at most.
const PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
const CLIENT: &str = concat!("herald/", env!("CARGO_PKG_VERSION"));

/// See the module.
#[derive(Debug)]
pub struct Transport {
    queue: mpsc::Sender<Waiting>,
    stop: CancellationToken,
    ended: Mutex<threads::Receiver<()>>,
    lost: Arc<OnceLock<Recorder>>,
}

/// What waits to be sent, and for a panic the stack that goes with it.
#[derive(Debug)]
struct Waiting {
    envelope: Envelope,
    stack: Option<Backtrace>,
}

/// Hands the SDK its transport.
#[derive(Debug)]
pub(super) struct Factory(pub(super) Arc<Transport>);

impl TransportFactory for Factory {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn ::sentry::Transport> {
        // It is asked once; a second client would count what is lost with the first one's.
        _ = self.0.lost.set(options.client_report_recorder);
        Arc::clone(&self.0) as Arc<dyn ::sentry::Transport>
    }
}

impl Transport {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(dsn: Dsn, scrub: Scrub, service: Arc<Service>) -> anyhow::Result<Self> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (end, ended) = threads::sync_channel(1);
        let stop = CancellationToken::new();
        let lost = Arc::new(OnceLock::new());
        let sender = Sender {
            url: dsn.envelope_api_url().to_string(),
            auth: dsn.to_auth(Some(CLIENT)).to_string(),
            scrub,
            service,
            lost: Arc::clone(&lost),
            not_before: NotBefore::default(),
            is_told: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stopped = stop.clone();
        let work = move || {
            runtime.block_on(sender.run(waiting, stopped));
            // Nobody may wait for it any more.
            _ = end.try_send(());
        };
        thread::Builder::new().name("sentry".to_owned()).spawn(work).context("cannot start the thread for reports")?;
        Ok(Self { queue, stop, ended: Mutex::new(ended), lost })
    }
}

impl ::sentry::Transport for Transport {
    fn send_envelope(&self, envelope: Envelope) {
        let is_event = envelope.event().is_some();
        if !is_event && self.queue.capacity() <= QUEUE / 2 {
            return lose(&self.lost, &envelope, Some(Reason::QueueOverflow));
        }
        let stack = if is_event { panics::stack() } else { None };
        if let Err(TrySendError::Full(left) | TrySendError::Closed(left)) =
            self.queue.try_send(Waiting { envelope, stack })
        {
            lose(&self.lost, &left.envelope, Some(Reason::QueueOverflow));
        }
    }

    /// Waits for nothing: whoever asks for it is on a thread that serves clients. The end of all waits (`shutdown`).
    fn flush(&self, _timeout: Duration) -> bool {
        true
    }

    fn shutdown(&self, timeout: Duration) -> bool {
        self.stop.cancel();
        self.ended.lock().recv_timeout(timeout).is_ok()
    }
}

/// Counts what is lost, here and, with the next report that gets through, at Sentry.
fn lose(lost: &OnceLock<Recorder>, envelope: &Envelope, reason: Option<Reason>) {
    metrics::reported("dropped");
    if let (Some(lost), Some(reason)) = (lost.get(), reason) {
        lost.record_lost_data(envelope, reason);
    }
}

/// The thread's side.
#[derive(Debug)]
struct Sender {
    url: String,
    auth: String,
    scrub: Scrub,
    service: Arc<Service>,
    lost: Arc<OnceLock<Recorder>>,
    not_before: NotBefore,
    /// Whether the log has it already that Sentry takes nothing.
    is_told: bool,
}

/// Until when Sentry wants none of a kind.
#[derive(Debug, Default)]
struct NotBefore {
    events: Option<Instant>,
    traces: Option<Instant>,
}

impl Sender {
    async fn run(mut self, mut waiting: mpsc::Receiver<Waiting>, stop: CancellationToken) {
        loop {
            let next = tokio::select! {
                next = waiting.recv() => next,
                () = stop.cancelled() => break,
            };
            match next {
                Some(next) => self.deliver(next).await,
                None => return,
            }
        }
        waiting.close(); // what is in it is sent still, as long as somebody waits for that
        while let Some(next) = waiting.recv().await {
            self.deliver(next).await;
        }
    }

    async fn deliver(&mut self, next: Waiting) {
        let envelope = &next.envelope;
        if self.not_before.of(envelope).is_some_and(|until| Instant::now() < until) {
            return lose(&self.lost, envelope, Some(Reason::RatelimitBackoff));
        }
        let Some(body) = write(envelope, next.stack, &self.scrub) else { return };
        let request = |client: &reqwest::Client| {
            let request = client.post(&self.url).header("X-Sentry-Auth", &self.auth);
            request.header(header::CONTENT_TYPE, "application/x-sentry-envelope").body(body.clone())
        };
        let answered = self.service.send(request, LIMITS, Retry::Never).await;
        let failed = match answered {
            Ok(answer) => {
                self.not_before.note(answer.status.as_u16(), &answer.headers, Instant::now());
                if answer.status.is_success() {
                    metrics::reported("sent");
                    self.is_told = false;
                    return;
                }
                // With a 429 Sentry has counted the loss itself.
                let reason = (answer.status.as_u16() != 429).then_some(Reason::SendError);
                lose(&self.lost, envelope, reason);
                format!("it answered {}", answer.status)
            }
            // Sentry has got what its answer is too long for.
            Err(CallError::TooLarge(_)) => return metrics::reported("sent"),
            Err(error) => {
                lose(&self.lost, envelope, Some(Reason::NetworkError));
                error.to_string()
            }
        };
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(reason = failed, "Sentry does not take reports");
        }
    }
}

impl NotBefore {
    fn of(&self, envelope: &Envelope) -> Option<Instant> {
        if envelope.event().is_some() { self.events } else { self.traces }
    }

    /// `X-Sentry-Rate-Limits: SECONDS:CATEGORY;CATEGORY:…, …`, where no category means all; else `Retry-After` with a 429.
    fn note(&mut self, status: u16, headers: &HeaderMap, now: Instant) {
        let limits = headers.get("x-sentry-rate-limits").and_then(|value| value.to_str().ok());
        let limits = match limits {
            Some(limits) => limits,
            None if status == 429 => &retry_after(headers).unwrap_or(PAUSE).as_secs().to_string(),
            None => return,
        };
        for limit in limits.split(',') {
            let mut parts = limit.trim().split(':');
            let seconds = parts.next().and_then(|seconds| seconds.trim().parse::<f64>().ok());
            let pause = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(PAUSE);
            let until = now + pause.min(LONGEST_PAUSE);
            let categories: Vec<&str> = parts.next().unwrap_or_default().split(';').collect();
            let is_for = |names: &[&str]| categories.iter().any(|category| names.contains(category));
            if is_for(&["", "error", "default"]) {
                self.events = self.events.max(Some(until));
            }
            if is_for(&["", "transaction", "span"]) {
                self.traces = self.traces.max(Some(until));
            }
        }
    }
}

/// An envelope as it is sent: a line of headers, then for each item a line with its type and length and a line with itself. Only what Herald
/// makes is written, and only after it was scrubbed.
fn write(envelope: &Envelope, stack: Option<Backtrace>, scrub: &Scrub) -> Option<Vec<u8>> {
    let headers = envelope.headers().clone().with_sent_at(SystemTime::now());
    let mut text = serde_json::to_string(&headers).ok()?;
    let before = text.len();
    let trace = stack.and_then(panics::named).and_then(|trace| serde_json::to_value(trace).ok());
    for item in envelope.items() {
        let (kind, mut payload) = match item {
            EnvelopeItem::Event(event) => ("event", serde_json::to_value(event).ok()?),
            EnvelopeItem::Transaction(transaction) => ("transaction", serde_json::to_value(transaction).ok()?),
            EnvelopeItem::ClientReport(report) => ("client_report", serde_json::to_value(report).ok()?),
            _ => continue,
        };
        if let (Some(trace), Some(exception)) = (&trace, payload.pointer_mut("/exception/values/0")) {
            exception["stacktrace"] = trace.clone();
        }
        scrub.clean(&mut payload);
        let payload = payload.to_string();
        text.push_str(&format!("\n{}\n{payload}", json!({ "type": kind, "length": payload.len() })));
    }
    (text.len() > before).then(|| {
        text.push('\n');
        text.into_bytes()
    })
}
