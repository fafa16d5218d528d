//! How much each caller may ask, and what the answers say of it (section 5).
//!
//! A [`Policy`] is a limit by its name in the configuration; [`count`] counts a request against one once it is known who asks: the user, else
//! the app, else the address. Over the cluster where there is one, on this node alone while Redis does not answer: then each node lets its
//! share through. [`tell`] puts where the limit stands into the answer's headers, whether the request was let in or not.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::error::ApiError;
use super::fault::Fault;
use super::peer::Peer;
use crate::apps::{App, Metered};
use crate::config::{LimitOptions, ResetForm};
use crate::limits::{Counted, Quota, Refused};
use crate::metrics;
use crate::parts::Parts;
use crate::store::time::Timestamp;

/// A node that counts ahead for an app takes this part of the app's limit.
const AHEAD: usize = 50;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Authorizations and sign-ins, by user.
    Auth,
    /// Requests with a wrong token, key or signature, by address.
    FailedAuth,
    /// What is read of inboxes, preferences, topics and whatever else pages show, by user.
    InboxReads,
    /// What is changed of inboxes, preferences and topics, by user.
    InboxWrites,
    /// Signatures for uploads, by user.
    FileSignatures,
    /// What else users ask, by user.
    Default,
    /// Backends' requests that are not Pusher's, by app.
    Servers,
    /// Third parties' webhooks, by address, before their signatures are checked.
    Webhooks,
    /// Reports of how fast pages were, by address.
    Vitals,
    /// Attempts to connect, by address.
    Connections,
}

impl Policy {
    /// Its name, in the configuration as in headers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::FailedAuth => "failed_auth",
            Self::InboxReads => "inbox_reads",
            Self::InboxWrites => "inbox_writes",
            Self::FileSignatures => "file_signatures",
            Self::Default => "default",
            Self::Servers => "servers",
            Self::Webhooks => "webhooks",
            Self::Vitals => "vitals",
            Self::Connections => "connections",
        }
    }

    const fn quota(self, options: &LimitOptions) -> Option<Quota> {
        match self {
            Self::Auth => options.auth,
            Self::FailedAuth => options.failed_auth,
            Self::InboxReads => options.inbox_reads,
            Self::InboxWrites => options.inbox_writes,
            Self::FileSignatures => options.file_signatures,
            Self::Default => options.default,
            Self::Servers => options.servers,
            Self::Webhooks => options.webhooks,
            Self::Vitals => options.vitals,
            Self::Connections => options.connections,
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// A user, by id.
    User(&'a str),
    /// An app's backend, by the app's id.
    App(&'a str),
    /// Whoever is there.
    Address(IpAddr),
}

impl fmt::Display for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "u:{id}"),
            Self::App(id) => write!(f, "k:{id}"),
            Self::Address(IpAddr::V4(address)) => write!(f, "ip:{address}"),
            // A household has a network of so many addresses.
            Self::Address(IpAddr::V6(address)) => {
                write!(f, "ip:{}/64", Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
            }
        }
    }
}

/// Too many requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests: {quota} are allowed by the limit `{}`; try again in {} s", .policy.as_str(), self.retry_after_seconds())]
pub struct Exceeded {
    /// Of which limit.
    pub policy: Policy,
    /// What it allows.
    pub quota: Quota,
    /// How much later there may be another.
    pub retry_after: Duration,
}

impl Exceeded {
    /// How much later there may be another, in whole seconds, at least one.
    #[must_use]
    pub fn retry_after_seconds(&self) -> u64 {
        seconds_up(self.retry_after).max(1)
    }
}

/// Where a request's limit stands; [`tell`] puts it into the request's extensions, [`count`] fills it.
#[derive(Clone, Debug, Default)]
struct Standing(Arc<OnceLock<(Policy, Quota, Counted)>>);

/// The address of whoever asks, behind proxies that are trusted.
#[must_use]
pub fn address(parts: &Parts, extensions: &Extensions, headers: &HeaderMap) -> IpAddr {
    let peer = extensions.get::<Peer>().copied().unwrap_or(Peer::LOCAL);
    peer.behind_proxies(headers, &parts.config.server.trusted_proxies).address
}

/// Counts a request.
///
/// # Errors
/// [`Exceeded`]: it is one too many.
pub async fn count(parts: &Parts, extensions: &Extensions, policy: Policy, caller: Caller<'_>) -> Result<(), Exceeded> {
    let options = &parts.config.limits;
    let Some(quota) = policy.quota(options) else { return Ok(()) };
    let (cluster, rate) = (&parts.hub.cluster, quota.rate());
    let name = format!("{}:{caller}", policy.as_str());
    let counted = match cluster.count(&name, rate, 1, options.redis_timeout).await {
        Some(counted) => counted,
        None => parts.callers.count(&name, rate.shared_by(cluster.nodes()), 1),
    };
    if let Some(standing) = extensions.get::<Standing>() {
        // Of what a request is counted against the first is told.
        _ = standing.0.set((policy, quota, counted));
    }
    match counted.refused {
        None => Ok(()),
        Some(refused) => {
            metrics::rate_limited(policy.as_str());
            let retry_after = if let Refused::For(wait) = refused { wait } else { quota.window };
            Err(Exceeded { policy, quota, retry_after })
        }
    }
}

/// Counts a request whose token, key or signature is wrong.
///
/// # Errors
/// [`Exceeded`]: there were too many of them from there. Whoever comes from the same address with the right ones is served all the same.
pub async fn count_failure(parts: &Parts, extensions: &Extensions, headers: &HeaderMap) -> Result<(), Exceeded> {
    let caller = Caller::Address(address(parts, extensions, headers));
    count(parts, extensions, Policy::FailedAuth, caller).await
}

/// Lets `cost` of `metered` pass if the app's rate allows it. The cluster is not asked each time: a node counts a little ahead.
///
/// # Errors
/// When there are too many of them.
pub async fn within(parts: &Parts, app: &App, metered: Metered, cost: usize) -> Result<(), ApiError> {
    let Some(limiter) = app.limiter(metered) else { return Ok(()) };
    let (limit, rate) = (limiter.limit, limiter.rate());
    let what = match metered {
        Metered::Events => "events",
        Metered::Reads => "reading requests",
    };
    let (cluster, patience) = (&parts.hub.cluster, parts.config.limits.redis_timeout);
    let admit = async {
        if limiter.ahead.take(cost) {
            return Ok(());
        }
        let name = format!("app:{}:{what}", app.id());
        let turn = limiter.ahead.turn.try_acquire().ok();
        let more = turn.as_ref().map_or(0, |_| limit / AHEAD);
        let mut counted = cluster.count(&name, rate, cost + more, patience).await;
        match counted {
            Some(Counted { refused: None, .. }) if more > 0 => limiter.ahead.put(more),
            Some(Counted { refused: Some(_), .. }) if more > 0 => {
                counted = cluster.count(&name, rate, cost, patience).await;
            }
            _ => {}
        }
        match counted {
            Some(Counted { refused, .. }) => refused.map_or(Ok(()), Err),
            None => limiter.admit_share(cost, cluster.nodes()),
        }
    };
    admit.await.map_err(|refused| match refused {
        Refused::For(wait) => ApiError::TooMany { what, limit, wait },
        Refused::Always => ApiError::Parameter(format!("{cost} {what} at once, {limit} a second are allowed")),
    })
}

/// Lets requests pass as often as `policy` allows it to each address.
pub async fn by_address(policy: Policy, parts: Arc<Parts>, request: Request, next: Next) -> Response {
    let caller = Caller::Address(address(&parts, request.extensions(), request.headers()));
    match count(&parts, request.extensions(), policy, caller).await {
        Ok(()) => next.run(request).await,
        Err(exceeded) => Fault::RateLimited(exceeded).into_response(),
    }
}

/// Says in the answer's headers where the limit stands that the request was counted against.
pub async fn tell(State(parts): State<Arc<Parts>>, mut request: Request, next: Next) -> Response {
    let standing = Standing::default();
    request.extensions_mut().insert(standing.clone());
    let mut response = next.run(request).await;
    if let Some((policy, quota, counted)) = standing.0.get() {
        response.headers_mut().extend(headers(*policy, *quota, *counted, &parts.config.limits));
    }
    response
}

/// Names that pages of other origins may read.
pub const HEADERS: [HeaderName; 5] = [LIMIT, REMAINING, RESET, CURRENT, QUOTAS];
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const CURRENT: HeaderName = HeaderName::from_static("ratelimit");
const QUOTAS: HeaderName = HeaderName::from_static("ratelimit-policy");

fn headers(
    policy: Policy,
    quota: Quota,
    counted: Counted,
    options: &LimitOptions,
) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let (limit, remaining) = (quota.limit, counted.remaining);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let reset = seconds_up(now + counted.reset_after);
    let reset = match options.reset {
        ResetForm::Unix => reset.to_string(),
        ResetForm::Iso => Timestamp::from_micros(i64::try_from(reset).unwrap_or_default() * 1_000_000).to_string(),
    };
    let common = [(LIMIT, limit.to_string()), (REMAINING, remaining.to_string()), (RESET, reset)];
    let name = policy.as_str();
    let more_in = match counted.refused {
        Some(Refused::For(wait)) => seconds_up(wait).max(1),
        Some(Refused::Always) => quota.window.as_secs(),
        None => seconds_up(until_more(quota, counted.reset_after)),
    };
    let draft = [
        (QUOTAS, format!("\"{name}\";q={limit};w={}", quota.window.as_secs())),
        (CURRENT, format!("\"{name}\";r={remaining};t={more_in}")),
    ];
    let draft = options.draft_headers.then_some(draft).into_iter().flatten();
    common.into_iter().chain(draft).filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)))
}

/// How much later there is one more than now; no time if there are all.
fn until_more(quota: Quota, reset_after: Duration) -> Duration {
    let interval = quota.rate().interval().as_micros().max(1);
    let left = reset_after.as_micros() % interval;
    let until = if left == 0 && !reset_after.is_zero() { interval } else { left };
    Duration::from_micros(u64::try_from(until).unwrap_or(u64::MAX))
}

fn seconds_up(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_for_whoever_shares_it() {
        for (address, name) in [
            ("192.0.2.7", "ip:192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "ip:2001:db8:1:2::/64"),
            ("2001:db8:1:2:ffff::1", "ip:2001:db8:1:2::/64"),
        ] {
            assert_eq!(Caller::Address(address.parse().unwrap()).to_string(), name);
        }
    }

    #[test]
    fn headers_agree_with_each_other() {
        let quota = Quota::parse("100/h").unwrap();
        let text = |counted, options: &LimitOptions| {
            let all = headers(Policy::Default, quota, counted, options);
            all.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect::<Vec<_>>()
        };
        let some_left = Counted { refused: None, remaining: 42, reset_after: Duration::from_secs(58 * 36 - 10) };
        let all = text(some_left, &LimitOptions::default());
        let value = |name: &str| all.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).unwrap();
        assert_eq!((value("x-ratelimit-limit"), value("x-ratelimit-remaining")), ("100", "42"));
        assert_eq!(value("ratelimit-policy"), r#""default";q=100;w=3600"#);
        assert_eq!(value("ratelimit"), r#""default";r=42;t=26"#);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let reset: u64 = value("x-ratelimit-reset").parse().unwrap();
        assert!((now + 2_070..=now + 2_080).contains(&reset), "{reset} is not soon after {now}");

        let none_left =
            Counted { refused: Some(Refused::For(Duration::from_millis(11_001))), remaining: 0, ..some_left };
        let plain = LimitOptions { reset: ResetForm::Iso, draft_headers: false, ..LimitOptions::default() };
        let all = text(none_left, &plain);
        assert_eq!(all.len(), 3, "{all:?}");
        assert!(all[2].1.ends_with('Z') && all[2].1.contains('T'), "{all:?}");
        assert!(text(none_left, &LimitOptions::default())[4].1.ends_with("r=0;t=12"));
        let exceeded = Exceeded { policy: Policy::Default, quota, retry_after: Duration::from_millis(11_001) };
        assert_eq!(exceeded.retry_after_seconds(), 12);
    }

    #[test]
    fn one_more_comes_after_an_interval_at_most() {
        let quota = Quota::parse("60/min").unwrap();
        for (reset_ms, until_ms) in [(0, 0), (300, 300), (1_000, 1_000), (1_300, 300), (60_000, 1_000)] {
            assert_eq!(until_more(quota, Duration::from_millis(reset_ms)), Duration::from_millis(until_ms));
        }
    }
}
