//! Whether an event is worth a report (section 4.3): what is expected to go wrong is not, nor is the eleventh of the same kind in a minute. And
//! which part of Herald it came from, where the request or connection does not say so.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::time::{Duration, Instant};

use ::sentry::protocol::{Context, Event, Map, Value};
use parking_lot::Mutex;

use crate::metrics;

/// Events of one kind in a minute.
const MOST: usize = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Kinds that are counted by themselves; whatever else comes within the minute counts as one more.
const KINDS: usize = 256;
/// Where the SDK puts a log line's fields.
const FIELDS: &str = "Rust Tracing Fields";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    kinds: Mutex<HashMap<u64, Seen>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    since: Instant,
    /// Within the minute that began then.
    count: usize,
    /// Of all minutes, since the last that was reported.
    withheld: usize,
}

impl Verdicts {
    /// The event as it is reported, or nothing.
    pub(super) fn pass(&self, mut event: Event<'static>) -> Option<Event<'static>> {
        if is_expected(&event) {
            return None;
        }
        let Ok(withheld) = self.admit(kind(&event), Instant::now()) else {
            metrics::reported("limited");
            return None;
        };
        if withheld > 0 {
            event.extra.insert("withheld".to_owned(), Value::from(withheld));
        }
        say_where(&mut event);
        Some(event)
    }

    /// Whether one more of this kind may be reported: how many were not since the last.
    fn admit(&self, kind: u64, now: Instant) -> Result<usize, ()> {
        let is_over = |seen: &Seen| now.duration_since(seen.since) >= WINDOW;
        let mut kinds = self.kinds.lock();
        if kinds.len() >= KINDS && !kinds.contains_key(&kind) {
            kinds.retain(|_, seen| !is_over(seen));
        }
        let kind = if kinds.len() >= KINDS && !kinds.contains_key(&kind) { 0 } else { kind };
        let seen = kinds.entry(kind).or_insert(Seen { since: now, count: 0, withheld: 0 });
        if is_over(seen) {
            (seen.since, seen.count) = (now, 0);
        }
        if seen.count >= MOST {
            seen.withheld += 1;
            return Err(());
        }
        seen.count += 1;
        Ok(std::mem::take(&mut seen.withheld))
    }
}

/// What Sentry would take for the same issue: who says it, and the text without its numbers.
fn kind(event: &Event<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.logger.hash(&mut hasher);
    event.culprit.hash(&mut hasher); // of a panic, where it was
    let mut add = |text: &str| {
        for character in text.chars().filter(|character| !character.is_ascii_digit()) {
            character.hash(&mut hasher);
        }
    };
    add(event.message.as_deref().unwrap_or_default());
    add(route(event).unwrap_or_default());
    for exception in &event.exception {
        add(&exception.ty);
        add(exception.value.as_deref().unwrap_or_default());
    }
    hasher.finish().max(1)
}

fn fields<'e>(event: &'e Event<'_>) -> Option<&'e Map<String, Value>> {
    match event.contexts.get(FIELDS) {
        Some(Context::Other(fields)) => Some(fields),
        _ => None,
    }
}

/// Which request has failed: the text is the same for all of them.
fn route<'e>(event: &'e Event<'_>) -> Option<&'e str> {
    fields(event)?.get("route")?.as_str()
}

/// What happens wherever there are networks: a peer that went away, a service that is left alone for a while, and whatever says so of itself.
fn is_expected(event: &Event<'_>) -> bool {
    if event.tags.get("expected").is_some_and(|expected| expected == "true") {
        return true;
    }
    let gone = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    let gone = gone.map(|kind| kind.to_string());
    let is_about = |text: &str| {
        let text = text.to_lowercase();
        gone.iter().any(|kind| text.contains(kind.as_str()))
            || text.contains("connection reset by peer")
            || text.contains("it is not asked for another")
    };
    let error = fields(event).and_then(|fields| fields.get("error")?.as_str());
    let exceptions = event.exception.iter().filter_map(|exception| exception.value.as_deref());
    error.into_iter().chain(exceptions).any(is_about)
}

/// Tags for those who look for one thing among many.
fn say_where(event: &mut Event<'_>) {
    let target = event.logger.as_deref().and_then(|target| target.strip_prefix("herald::")).unwrap_or_default();
    let modules: Vec<&str> = target.split("::").collect();
    let component = match modules.as_slice() {
        ["connection" | "hub", ..] => "ws",
        ["webhooks", ..] | ["http", "inbound", ..] => "webhook",
        ["notifications", "relay" | "dispatch" | "fanout" | "schedule", ..] | ["work" | "due", ..] => "outbox",
        ["notifications" | "store", ..] => "inbox",
        ["http" | "listener" | "tls", ..] => "http",
        _ => "",
    };
    let integration = match modules.as_slice() {
        ["integrations" | "http", name, ..] if modules[0] == "integrations" => *name,
        ["http", "inbound", name, ..] => *name,
        _ => "",
    };
    let kind = fields(event).and_then(|fields| ["kind", "event"].iter().find_map(|name| fields.get(*name)?.as_str()));
    let (kind, route) = (kind.unwrap_or_default(), route(event).unwrap_or_default());
    let tags = [("component", component), ("integration", integration), ("event_type", kind), ("route", route)];
    let tags = tags.map(|(name, value)| (name, value.to_owned()));
    if !route.is_empty() {
        event.fingerprint = vec!["{{ default }}".into(), route.to_owned().into()].into();
    }
    for (name, value) in tags.into_iter().filter(|(_, value)| !value.is_empty()) {
        event.tags.entry(name.to_owned()).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(target: &str, message: &str, given: &[(&str, &str)]) -> Event<'static> {
        let fields = given.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
        Event {
            logger: Some(target.to_owned()),
            message: Some(message.to_owned()),
            contexts: Map::from_iter([(FIELDS.to_owned(), Context::Other(fields))]),
            ..Event::default()
        }
    }

    #[test]
    fn ten_of_a_kind_pass_in_a_minute_and_the_next_says_how_many_did_not() {
        let (verdicts, start) = (Verdicts::default(), Instant::now());
        let passed = (0..100).filter(|_| verdicts.admit(1, start).is_ok()).count();
        assert_eq!(passed, 10);
        assert_eq!(verdicts.admit(2, start), Ok(0), "another kind has its own ten");
        assert_eq!(verdicts.admit(1, start + Duration::from_secs(59)), Err(()));
        assert_eq!(verdicts.admit(1, start + WINDOW), Ok(91));
        assert_eq!(verdicts.admit(1, start + WINDOW), Ok(0));
    }

    #[test]
    fn however_many_kinds_there_are_they_take_no_more_room() {
        let (verdicts, start) = (Verdicts::default(), Instant::now());
        let passed = (1..=10_000).filter(|kind| verdicts.admit(*kind, start).is_ok()).count();
        assert_eq!((passed, verdicts.kinds.lock().len()), (KINDS + MOST, KINDS + 1));
        verdicts.admit(200_000, start + WINDOW).unwrap();
        assert_eq!(verdicts.kinds.lock().len(), 1, "what is over is forgotten");
    }

    #[test]
    fn numbers_make_no_kind() {
        let [one, other, third] =
            ["3 tokens", "17 tokens", "3 rows"].map(|text| kind(&line("herald::server", text, &[])));
        assert!(one == other && one != third);
        assert_ne!(kind(&line("herald::work", "3 tokens", &[])), one);
    }

    #[test]
    fn what_is_expected_is_not_reported() {
        for (field, value, expected) in [
            ("error", "Broken pipe (os error 32)", true),
            ("error", "cannot read: Connection reset by peer (os error 104)", true),
            ("error", "it is not asked for another 12 s: it has failed too often, or has asked for that", true),
            ("error", "connection refused", false),
            ("reason", "it cannot be reached: connection reset", false),
        ] {
            assert_eq!(is_expected(&line("herald::x", "m", &[(field, value)])), expected, "{value}");
        }
        let mut event = line("herald::x", "m", &[]);
        event.tags.insert("expected".to_owned(), "true".to_owned());
        assert!(Verdicts::default().pass(event).is_none());
    }

    #[test]
    fn an_event_says_where_it_came_from() {
        for (target, component, integration) in [
            ("herald::webhooks::receiver", Some("webhook"), None),
            ("herald::http::inbound::clerk", Some("webhook"), Some("clerk")),
            ("herald::notifications::dispatch", Some("outbox"), None),
            ("herald::notifications::one_store", Some("inbox"), None),
            ("herald::listener", Some("http"), None),
            ("herald::integrations::clerk::sessions", None, Some("clerk")),
            ("herald::server", None, None),
            ("sqlx::query", None, None),
        ] {
            let event = Verdicts::default().pass(line(target, "m", &[("kind", "push")])).unwrap();
            let tag = |name: &str| event.tags.get(name).map(String::as_str);
            assert_eq!(
                (tag("component"), tag("integration"), tag("event_type")),
                (component, integration, Some("push"))
            );
        }
        let mut event = line("herald::http", "m", &[]);
        event.tags.insert("component".to_owned(), "inbox".to_owned());
        assert_eq!(Verdicts::default().pass(event).unwrap().tags["component"], "inbox", "the request knows better");
    }
}
