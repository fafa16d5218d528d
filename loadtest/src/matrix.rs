//! What a report measures, and what Herald has to keep to: the load of each bar as its definition says.

use crate::report::{Bar, Entry};
use crate::scenario::Scenario;
use crate::scenario::auth::Auth;
use crate::scenario::broadcast::Broadcast;
use crate::scenario::client_events::ClientEvents;
use crate::scenario::cluster::Cluster;
use crate::scenario::connect::Connect;
use crate::scenario::inbox::Inbox;
use crate::scenario::presence::Presence;
use crate::scenario::publish::Publish;
use crate::scenario::slow::Slow;
use crate::scenario::storm::Storm;

/// Connections of the large measurements, and what of the limit of open files is left for everything else.
const CONNECTIONS: u32 = 20_000;
const OTHER_FILES: u64 = 500;

/// All of it, or less of everything.
pub(crate) fn entries(short: bool) -> anyhow::Result<Vec<Entry>> {
    let connections = if short { 2_000 } else { connections()? };
    let seconds = if short { 3 } else { 10 };
    let requests = if short { 5_000 } else { 25_000 };
    let steady = Broadcast { seconds, ..Broadcast::default() };
    let asked = Broadcast { rate: 400, seconds, ..Broadcast::default() };
    let full_speed = Publish { rate: 0, requests, ..Publish::default() };
    let paced = Publish { requests: requests / 5, ..Publish::default() };
    let idle_seconds = if short { 10 } else { 120 };
    let connect = Connect { connections, idle_seconds, ..Connect::default() };
    let cluster = Cluster { seconds, ..Cluster::default() };
    let beside = Broadcast { subscribers: cluster.subscribers, rate: cluster.rate, seconds, ..Broadcast::default() };
    let mut entries = vec![
        entry(
            format!("{} subscribers × {} events/s × {} B", steady.subscribers, steady.rate, steady.bytes),
            Scenario::Broadcast(steady),
            vec![("CPU per delivery", Bar::TimesFloor(1.15)), ("latency, p99", Bar::TimesFloor(1.5))],
        ),
        entry(
            format!("{} subscribers, {} events/s asked for", asked.subscribers, asked.rate),
            Scenario::Broadcast(asked),
            vec![("deliveries a second", Bar::AtLeastTimesFloor(2.0))],
        ),
        entry(
            format!("triggers with nobody subscribed, {} backends at full speed", full_speed.backends),
            Scenario::Publish(full_speed),
            vec![("CPU per request", Bar::TimesFloor(2.0))],
        ),
        entry(
            format!("triggers with nobody subscribed, {} backends × {}/s", paced.backends, paced.rate),
            Scenario::Publish(paced),
            vec![("CPU per request", Bar::TimesFloor(2.0))],
        ),
        entry(
            format!("{connections} connections, subscribed, idle for {idle_seconds} s"),
            Scenario::Connect(connect),
            vec![
                ("CPU per connection", Bar::TimesFloor(1.8)),
                ("memory per connection", Bar::AtMost(4.0)),
                ("CPU while idle", Bar::AtMost(1.0)),
            ],
        ),
        entry(
            format!("{connections} connections cut at once"),
            Scenario::Storm(Storm { clients: connections, ..Storm::default() }),
            vec![
                ("all are counted right after", Bar::AtMost(15.0)),
                ("bystanders meanwhile, longest", Bar::AtMost(100.0)),
            ],
        ),
        entry(
            "one stalled reader among 1,000".to_owned(),
            Scenario::Slow(Slow::default()),
            vec![("latency, p99 ÷ with nobody stalled", Bar::AtMost(1.2))],
        ),
        Entry {
            what: format!(
                "two nodes and Redis, {} subscribers × {}/s, published on the other",
                cluster.subscribers, cluster.rate
            ),
            scenario: Scenario::Cluster(cluster),
            beside: Some(Scenario::Broadcast(beside)),
            bars: vec![("CPU per delivery", Bar::TimesFloor(1.6)), ("added latency, median", Bar::AtMost(1.0))],
        },
    ];
    if !short {
        entries.extend([
            entry(
                "pairs of clients that send each other events".to_owned(),
                Scenario::ClientEvents(ClientEvents::default()),
                Vec::new(),
            ),
            entry(
                "members of a presence channel who come and go".to_owned(),
                Scenario::Presence(Presence::default()),
                Vec::new(),
            ),
            entry("the auth endpoint".to_owned(), Scenario::Auth(Auth::default()), Vec::new()),
            entry("notifications, on SQLite".to_owned(), Scenario::Inbox(Inbox::default()), Vec::new()),
        ]);
    }
    Ok(entries)
}

fn entry(what: String, scenario: Scenario, bars: Vec<(&'static str, Bar)>) -> Entry {
    Entry { what, scenario, beside: None, bars }
}

/// As many as wanted, or as this machine lets a process open.
fn connections() -> anyhow::Result<u32> {
    let (soft, _) = rlimit::Resource::NOFILE.get()?;
    Ok(u32::try_from(soft.saturating_sub(OTHER_FILES)).unwrap_or(u32::MAX).min(CONNECTIONS))
}
