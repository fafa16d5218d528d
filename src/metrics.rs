//! Every metric of Herald: its name, unit and help text, in one place. What the kernel knows of the process stands in [`process`].
//!
//! Counters are counted where something happens. Gauges are never counted up and down: they are read from the registry of live things
//! when somebody asks (`http::ops`). docs/metrics.md is written from the declarations of both, and a test
//! holds docs/operations.md, the dashboard and the alerts against it.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::FixedState;
use metrics::{Counter, Histogram, SharedString};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::process;

/// Counters that were found by their labels before: the recorder would make a key of them and look for it at every request. The labels
/// are ours, so nobody can choose some that are hashed alike.
type Labelled<const LABELS: usize> = LazyLock<DashMap<[&'static str; LABELS], Counter, FixedState>>;

/// Declares metrics; a counter with labels becomes a function of their values.
macro_rules! metrics {
    (
        tallies: $($(#[doc = $t_doc:literal])+ $tally:ident = $t_name:literal;)+
        counters: $($(#[doc = $doc:literal])+ $counter:ident = $name:literal;)+
        labelled: $($(#[doc = $l_doc:literal])+ $function:ident($($label:ident),+) = $l_name:literal;)+
        histograms: $($(#[doc = $h_doc:literal])+ $histogram:ident = $h_name:literal;)+
        labelled histograms: $($(#[doc = $s_doc:literal])+ $span:ident($s_label:ident) = $s_name:literal;)+
        gauges: $($(#[doc = $g_doc:literal])+ $gauge:ident($($g_label:ident),*) = $g_name:literal;)+
    ) => {
        $($(#[doc = $t_doc])+ pub static $tally: Tally = Tally::new();)+
        $($(#[doc = $doc])+ pub static $counter: LazyLock<Counter> = LazyLock::new(|| ::metrics::counter!($name));)+
        $($(#[doc = $l_doc])+ pub fn $function($($label: &'static str),+) {
            static KNOWN: Labelled<{ [$(stringify!($label)),+].len() }> = LazyLock::new(DashMap::default);
            let labels = [$($label),+];
            if let Some(counter) = KNOWN.get(&labels) {
                return counter.increment(1);
            }
            let counter = ::metrics::counter!($l_name, $(stringify!($label) => $label),+);
            counter.increment(1);
            KNOWN.insert(labels, counter);
        })+
        $($(#[doc = $h_doc])+ pub static $histogram: LazyLock<Histogram> = LazyLock::new(|| ::metrics::histogram!($h_name));)+
        $($(#[doc = $s_doc])+ pub fn $span($s_label: &'static str, took: Duration) {
            ::metrics::histogram!($s_name, stringify!($s_label) => $s_label).record(took);
        })+
        $($(#[doc = $g_doc])+ pub fn $gauge($($g_label: impl Into<SharedString>,)* value: usize) {
            ::metrics::gauge!($g_name, $(stringify!($g_label) => $g_label.into()),*).set(value as f64);
        })+

        /// Name, kind, labels and help text of every metric.
        const ALL: &[(&str, &str, &str, &[&str])] = &[
            $(($t_name, "counter", "", &[$($t_doc),+]),)+
            $(($name, "counter", "", &[$($doc),+]),)+
            $(($l_name, "counter", concat!($(stringify!($label), " "),+), &[$($l_doc),+]),)+
            $(($h_name, "histogram", "", &[$($h_doc),+]),)+
            $(($s_name, "histogram", stringify!($s_label), &[$($s_doc),+]),)+
            $(($g_name, "gauge", concat!($(stringify!($g_label), " "),*), &[$($g_doc),+]),)+
        ];

        /// Counters without labels and histograms are on the page from the start: what is built on a rate needs the zero.
        fn register() {
            $(LazyLock::force(&$counter);)+
            $(LazyLock::force(&$histogram);)+
        }

        /// Every tally with its name.
        const TALLIES: &[(&str, &Tally)] = &[$(($t_name, &$tally),)+];
    };
}

metrics! {
    tallies:
    /// Messages written to clients' sockets.
    MESSAGES_SENT = "herald_messages_sent_total";
    /// Bytes written to clients' sockets.
    BYTES_SENT = "herald_sent_bytes_total";
    counters:
    /// Messages that clients sent.
    MESSAGES_RECEIVED = "herald_messages_received_total";
    /// Bytes that clients sent over their WebSockets.
    BYTES_RECEIVED = "herald_received_bytes_total";
    /// Events handed to a subscriber's queue: one event to a hundred subscribers counts a hundred.
    DELIVERIES = "herald_deliveries_total";
    /// Messages thrown away unwritten because their reader was too slow or gone.
    QUEUE_DROPPED = "herald_queue_dropped_messages_total";
    /// Messages of clients that were no valid ones.
    INVALID_MESSAGES = "herald_invalid_messages_total";
    /// Times that the connection to Redis was made anew; on a Redis Cluster for each of its 16 buckets.
    REDIS_RECONNECTS = "herald_redis_reconnects_total";
    /// Scripts and commands that Redis refused or did not answer in time.
    REDIS_ERRORS = "herald_redis_errors_total";
    /// Requests that this node counted alone against a limit of the cluster, since Redis did not answer in time.
    RATE_LIMIT_REDIS_ERRORS = "herald_rate_limit_redis_errors_total";
    /// Dead nodes that this node has cleaned up after; on a Redis Cluster in each of its 16 buckets.
    REAPED_NODES = "herald_cluster_reaped_nodes_total";
    /// Messages of other nodes thrown away because this node could not keep up.
    REMOTE_DROPPED = "herald_cluster_dropped_messages_total";
    /// Notifications that were created, one for each user.
    NOTIFICATIONS_CREATED = "herald_notifications_created_total";
    /// Events of inboxes that were published.
    INBOX_EVENTS = "herald_inbox_events_total";
    /// Events for webhooks thrown away because their receiver's queue was full, their time was over, or nobody is configured to get them.
    WEBHOOK_EVENTS_DROPPED = "herald_webhook_events_dropped_total";
    labelled:
    /// Connections accepted, by the client library that they say they are.
    connection_accepted(client) = "herald_connections_accepted_total";
    /// Connections refused, by reason.
    connection_refused(reason) = "herald_connections_refused_total";
    /// Connections ended, by reason.
    connection_closed(reason) = "herald_connections_closed_total";
    /// Events published, by where they came from: http or client.
    event_published(source) = "herald_events_published_total";
    /// Failed authentications, by what they were for (request, channel, user) and reason.
    auth_failed(what, reason) = "herald_auth_failures_total";
    /// Requests to webhook receivers, by result: delivered, retried, given_up.
    webhook_sent(result) = "herald_webhooks_total";
    /// Requests that tell the app's backend what to send by other ways than the inbox, by result: delivered, retried, given_up.
    dispatched(result) = "herald_dispatches_total";
    /// Attempts of work that one node does for all, such as deleting a file at its service, by kind and result: done, retried, given_up.
    task_tried(kind, result) = "herald_tasks_total";
    /// Refreshes of users' tokens at other services, by result: done, failed (it is tried again), ended (the user has to connect it again).
    token_refreshed(result) = "herald_token_refreshes_total";
    /// Calls to third parties, by service and outcome: answered, failed, or rejected because it has failed too often lately.
    outgoing_call(service, outcome) = "herald_outgoing_calls_total";
    /// Changes of the breaker before a third party, by service and what it is from then on: open (it is not asked), half_open (it is tried), closed.
    outgoing_state(service, state) = "herald_outgoing_breaker_changes_total";
    /// Requests refused because their caller made too many, by the limit's name.
    rate_limited(policy) = "herald_rate_limited_total";
    /// Events and traces for Sentry, by result: sent, limited (more than ten of a kind in a minute), dropped (the queue is full, or Sentry did not take it).
    reported(result) = "herald_sentry_reports_total";
    /// HTTP requests, by route and status.
    http_request(route, status) = "herald_http_requests_total";
    histograms:
    /// Seconds from the publisher's request to the write to the subscriber's socket; one subscriber in sixteen is measured.
    PUBLISH_TO_SOCKET = "herald_publish_to_socket_seconds";
    /// Seconds that a script or command in Redis took, way there and back included.
    REDIS_ROUND_TRIP = "herald_redis_round_trip_seconds";
    /// Seconds from publishing in Redis to the arrival at a subscribed node; measured with this node's own signs of life.
    CLUSTER_LAG = "herald_cluster_lag_seconds";
    /// Seconds until the largest part of a page was painted (LCP), as browsers report it; up to 2.5 is good, more than 4 poor.
    WEB_VITALS_LCP = "herald_web_vitals_lcp_seconds";
    /// Seconds from what a user did to the next paint (INP), as browsers report it; up to 0.2 is good, more than 0.5 poor.
    WEB_VITALS_INP = "herald_web_vitals_inp_seconds";
    /// Seconds until anything of a page was painted (FCP), as browsers report it; up to 1.8 is good, more than 3 poor.
    WEB_VITALS_FCP = "herald_web_vitals_fcp_seconds";
    /// Seconds until the first byte of a page was there (TTFB), as browsers report it; up to 0.8 is good, more than 1.8 poor.
    WEB_VITALS_TTFB = "herald_web_vitals_ttfb_seconds";
    /// How much of a page has moved unasked (CLS), a score, as browsers report it; up to 0.1 is good, more than 0.25 poor.
    WEB_VITALS_CLS = "herald_web_vitals_cls";
    labelled histograms:
    /// Seconds that a call to a third party took, until the answer was there or given up, by service.
    outgoing_took(service) = "herald_outgoing_seconds";
    gauges:
    /// Open connections.
    connections() = "herald_connections";
    /// Open connections, by app.
    app_connections(app) = "herald_app_connections";
    /// Subscriptions, by app.
    subscriptions(app) = "herald_subscriptions";
    /// Occupied channels, by app and kind.
    channels(app, kind) = "herald_channels";
    /// Signed-in users, by app.
    users(app) = "herald_users";
    /// Tasks of the runtime: one for each connection, and some more.
    runtime_tasks() = "herald_runtime_tasks";
    /// Messages that wait to be written, of all connections.
    queued_messages() = "herald_queued_messages";
    /// Bytes that wait to be written, of all connections.
    queued_bytes() = "herald_queued_bytes";
    /// Messages that wait in the longest queue of one connection.
    longest_queue() = "herald_longest_queue_messages";
    /// Events for webhooks that wait to be delivered.
    webhook_queue() = "herald_webhook_queue_events";
    /// Third parties that are not asked at the moment because they have failed too often, or are only being tried, by service.
    outgoing_not_asked(service) = "herald_outgoing_not_asked";
    /// 1 while the database answers (or there is none), 0 while it is away.
    database_reached() = "herald_database_reached";
    /// Seconds that the oldest event of an inbox which this node holds has waited to be published; 0 if none waits.
    outbox_age() = "herald_outbox_age_seconds";
    /// 1 while the cluster is reached (or there is none), 0 while Redis is away.
    cluster_reached() = "herald_cluster_reached";
    /// Nodes in the cluster, as this one has heard last.
    cluster_nodes() = "herald_cluster_nodes";
    /// Parts of the cluster (one on a single Redis, 16 on a Redis Cluster) whose webhooks, dead nodes and due departures this node looks after.
    owned_buckets() = "herald_cluster_owned_buckets";
    /// 1 when ready, 0 while starting and while shutting down.
    ready() = "herald_ready";
}

/// A counter of what happens at every delivery: each thread counts in a cell of its own, or the cores would spend more time on passing
/// the counter to and fro than on the delivery's own bookkeeping. It is summed when somebody asks.
#[derive(Debug)]
pub struct Tally([Cell; CELLS]);

/// Cells of a tally; more threads than that share them.
const CELLS: usize = 16;

/// Alone on its cache line, and on the one that processors fetch beside it.
#[derive(Debug)]
#[repr(align(128))]
struct Cell(AtomicU64);

impl Tally {
    const fn new() -> Self {
        Self([const { Cell(AtomicU64::new(0)) }; CELLS])
    }

    /// Counts `more`.
    pub fn increment(&self, more: u64) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static MINE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % CELLS);
        if let Some(cell) = self.0.get(MINE.with(|mine| *mine)) {
            cell.0.fetch_add(more, Ordering::Relaxed);
        }
    }

    fn sum(&self) -> u64 {
        self.0.iter().map(|cell| cell.0.load(Ordering::Relaxed)).sum()
    }
}

/// From 50 µs, a loopback write, to 10 s, after which a reader is cut.
const LATENCY_BUCKETS: &[f64] =
    &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Of pages: from 50 ms to half a minute, with each limit of good and poor.
const PAGE_BUCKETS: &[f64] = &[0.05, 0.1, 0.2, 0.35, 0.5, 0.8, 1.2, 1.8, 2.5, 3.0, 4.0, 6.0, 10.0, 30.0];
const SHIFT_BUCKETS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5];

/// Puts what the tallies counted to the rest, before the page is made.
pub fn sum_up() {
    for (name, tally) in TALLIES {
        metrics::counter!(*name).absolute(tally.sum());
    }
}

/// Makes this process count. Until then, and in tests of single parts, nothing is counted.
///
/// # Errors
/// When another recorder was installed before.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    let recorder = build()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| anyhow::anyhow!("metrics: {error}"))?;
    for (name, kind, _, help) in ALL {
        let help = sentence(help);
        match *kind {
            "counter" => metrics::describe_counter!(*name, help),
            "histogram" => metrics::describe_histogram!(*name, help),
            _ => metrics::describe_gauge!(*name, help),
        }
    }
    register();
    process::begin();
    Ok(handle)
}

fn build() -> Result<metrics_exporter_prometheus::PrometheusRecorder, BuildError> {
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), LATENCY_BUCKETS)?
        // Where several fit, the whole name counts, then its beginning, then its end.
        .set_buckets_for_metric(Matcher::Prefix("herald_web_vitals_".to_owned()), PAGE_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full("herald_web_vitals_cls".to_owned()), SHIFT_BUCKETS)?
        .build_recorder())
}

fn sentence(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_every_metric() {
        let mut text = "# What can be watched?\n\nPrometheus scrapes `/metrics` on the listener of `metrics.listen` (127.0.0.1:9601). \
                        Gauges are read from what is alive when\nsomebody asks; nothing is counted up and down.\n\n\
                        | metric | kind | labels | meaning |\n|---|---|---|---|\n"
            .to_owned();
        let own = ALL.iter().map(|(name, kind, labels, help)| (*name, *kind, *labels, sentence(help)));
        let process = process::ALL.iter().map(|(name, kind, help, _)| (*name, *kind, "", (*help).to_owned()));
        for (name, kind, labels, help) in own.chain(process) {
            text.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", labels.trim()));
        }
        crate::config::document::is_up_to_date("docs/metrics.md", &text);
    }
}
