//! A third party, and one kind of what is asked of it: every call has a time-out, a bound on the answer, and the breaker before it; those
//! that may be repeated are tried again after a random pause (section 6). Work that can wait, such as a webhook, waits for the breaker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use rand::RngExt as _;
use reqwest::{Client, Request, RequestBuilder};
use tokio::sync::{Notify, Semaphore};

use super::address::{self, NamedBy};
use super::breaker::{Breaker, Permit, Rejected, State, Thresholds};
use crate::metrics;

/// Attempts of a call that may be repeated.
const ATTEMPTS: u32 = 3;
/// The pause before the next is random, up to this, doubled with each attempt up to the longest.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a service may keep us away by asking for it.
const LONGEST_WISH: Duration = Duration::from_secs(5 * 60);

/// See the module.
#[derive(Debug)]
pub struct Service {
    /// Its name in metrics, such as `clerk.jwks`.
    pub name: &'static str,
    client: Client,
    named_by: NamedBy,
    breaker: Breaker,
    /// Something has changed for whoever waits for the breaker.
    changed: Notify,
    /// Whoever waits does so in order: a place for the first.
    turn: Semaphore,
    /// Calls that were not made.
    rejected: AtomicU64,
}

/// What a call may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long an attempt may take, answer and all.
    pub within: Duration,
    /// Bytes of the answer; 0 if only its status counts, then the rest of it is not waited for.
    pub bytes: usize,
}

/// Whether a call may be repeated.
#[derive(Clone, Copy, Debug)]
pub enum Retry {
    /// It may not.
    Never,
    /// It may, until so much time has passed.
    Within(Duration),
}

/// What a service has answered, whatever that means.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Bytes,
}

/// Why there is no answer. No address and nothing of the request stands in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It was not even asked: it has failed too often lately, or wants to be left alone.
    #[error("it is not asked for another {} s: it has failed too often, or has asked for that", .0.as_secs())]
    Rejected(Duration),
    /// It did not answer in time.
    #[error("it did not answer within {0:?}")]
    TimedOut(Duration),
    /// It could not be reached, or ended the connection.
    #[error("it cannot be reached: {0}")]
    Unreachable(Unreached),
    /// The answer is longer than any that makes sense.
    #[error("its answer has more than {0} bytes")]
    TooLarge(usize),
}

/// Where the way to a service ends. The text is the innermost of what went wrong: it says most, and no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    /// Its name leads nowhere.
    #[error("{0}")]
    Name(String),
    /// It is not who it should be, or speaks no TLS.
    #[error("{0}")]
    Tls(String),
    /// There is no connection, or it ended.
    #[error("{0}")]
    Other(String),
}

impl Service {
    pub(super) const fn new(name: &'static str, client: Client, named_by: NamedBy, thresholds: Thresholds) -> Self {
        let breaker = Breaker::new(name, thresholds);
        let (changed, turn, rejected) = (Notify::const_new(), Semaphore::const_new(1), AtomicU64::new(0));
        Self { name, client, named_by, breaker, changed, turn, rejected }
    }

    /// Whether it is asked at the moment.
    #[must_use]
    pub fn state(&self) -> State {
        self.breaker.state()
    }

    /// How many calls were not made, since the start.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// What a call would meet now: `Open` if it would be rejected, `HalfOpen` if it would be a trial. For work that need not be begun then.
    #[must_use]
    pub fn readiness(&self) -> State {
        self.breaker.readiness(Instant::now())
    }

    /// Sends what `request` makes, more than once if that is allowed.
    ///
    /// # Errors
    /// See [`CallError`]; an answer is none, whatever its status.
    pub async fn send(
        &self,
        request: impl Fn(&Client) -> RequestBuilder,
        limits: Limits,
        retry: Retry,
    ) -> Result<Answer, CallError> {
        let begun = Instant::now();
        let mut attempt = 1;
        loop {
            let left = match retry {
                Retry::Never => limits.within,
                Retry::Within(budget) => limits.within.min(budget.saturating_sub(begun.elapsed())),
            };
            let done = self.attempt(request(&self.client), Limits { within: left, ..limits }).await;
            let Retry::Within(budget) = retry else { return done };
            let wish = match &done {
                Ok(answer) if is_passing(answer.status) => retry_after(&answer.headers),
                Err(CallError::TimedOut(_) | CallError::Unreachable(_)) => None,
                _ => return done,
            };
            let pause = pause(attempt).max(wish.unwrap_or_default());
            if attempt >= ATTEMPTS || begun.elapsed() + pause >= budget || self.state() == State::Open {
                return done;
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, request: RequestBuilder, limits: Limits) -> Result<Answer, CallError> {
        let request = build(request, self.named_by)?;
        let permit = self.breaker.acquire(Instant::now()).map_err(|Rejected(left)| {
            metrics::outgoing_call(self.name, "rejected");
            self.rejected.fetch_add(1, Ordering::Relaxed);
            CallError::Rejected(left)
        })?;
        self.exchange(permit, request, limits).await
    }

    /// Sends one request, once the service may be asked: for work that waits, which a breaker postpones and does not fail.
    ///
    /// # Errors
    /// See [`CallError`], but it is never `Rejected`.
    pub async fn send_when_admitted(
        &self,
        request: impl Fn(&Client) -> RequestBuilder,
        limits: Limits,
    ) -> Result<Answer, CallError> {
        let request = build(request(&self.client), self.named_by)?;
        let permit = self.admitted().await;
        self.exchange(permit, request, limits).await
    }

    async fn admitted(&self) -> Permit<'_> {
        // It is never closed, and whoever gets no turn may ask all the same.
        let _turn = self.turn.acquire().await;
        loop {
            let changed = self.changed.notified();
            match self.breaker.acquire(Instant::now()) {
                Ok(permit) => return permit,
                // Whatever has changed: the breaker knows.
                Err(Rejected(left)) => _ = tokio::time::timeout(left, changed).await,
            }
        }
    }

    /// Is not asked for so long: it wants that itself.
    pub fn postpone(&self, wish: Duration) {
        self.breaker.postpone(Instant::now() + wish.min(LONGEST_WISH));
    }

    /// From now on waits at most so long for a service that fails, but as long as ever if that asks for it: there is not much time left.
    pub fn hurry(&self, at_most: Duration) {
        self.breaker.hurry(at_most);
        self.changed.notify_waiters();
    }

    async fn exchange(&self, permit: Permit<'_>, mut request: Request, limits: Limits) -> Result<Answer, CallError> {
        let begun = Instant::now();
        // In place of the client's own, which may be shorter.
        *request.timeout_mut() = Some(2 * limits.within);
        let answered = tokio::time::timeout(limits.within, receive(&self.client, request, limits.bytes)).await;
        let answered = answered.unwrap_or(Err(CallError::TimedOut(limits.within)));
        let is_failure = match &answered {
            Ok(answer) => is_passing(answer.status),
            Err(error) => !matches!(error, CallError::TooLarge(_)),
        };
        if let Ok(answer) = &answered
            && is_failure
            && let Some(wish) = retry_after(&answer.headers)
        {
            self.postpone(wish);
        }
        if is_failure {
            permit.failed(Instant::now());
        } else {
            permit.succeeded();
        }
        self.changed.notify_waiters();
        let outcome = if is_failure { "failed" } else { "answered" };
        metrics::outgoing_call(self.name, outcome);
        metrics::outgoing_took(self.name, begun.elapsed());
        answered
    }
}

/// What cannot be built, or may not be sent, is our fault and not the service's.
fn build(request: RequestBuilder, named_by: NamedBy) -> Result<Request, CallError> {
    let request = request.build().map_err(|error| CallError::Unreachable(unreached(&error)))?;
    address::check_url(request.url(), named_by)
        .map_err(|error| CallError::Unreachable(Unreached::Other(error.to_string())))?;
    Ok(request)
}

async fn receive(client: &Client, request: Request, most: usize) -> Result<Answer, CallError> {
    let unreachable = |error: reqwest::Error| CallError::Unreachable(unreached(&error));
    let mut response = client.execute(request).await.map_err(unreachable)?;
    let mut body = Vec::new();
    while most > 0
        && let Some(chunk) = response.chunk().await.map_err(unreachable)?
    {
        if body.len() + chunk.len() > most {
            return Err(CallError::TooLarge(most));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: response.status(), headers: std::mem::take(response.headers_mut()), body: body.into() })
}

/// Whether a later attempt may go otherwise.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 420 | 429)
}

/// How long a service wants to be left alone, where it says so in seconds: one that sends a date is tried at the usual pace.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn pause(attempt: u32) -> Duration {
    let most = PAUSE.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    most.mul_f64(rand::rng().random_range(0.0..1.0))
}

fn unreached(error: &reqwest::Error) -> Unreached {
    let mut cause: &dyn std::error::Error = error;
    let (mut is_name, mut is_tls) = (false, false);
    while let Some(inner) = cause.source() {
        cause = inner;
        is_name |= cause.to_string() == "dns error"; // its type is nobody's but the client's
        is_tls |= is_of_tls(cause);
    }
    let is_told = !std::ptr::addr_eq(cause, error);
    let text = if is_told { cause.to_string() } else { "the request is not right".to_owned() };
    match (is_name, is_tls) {
        (true, _) => Unreached::Name(text),
        (false, true) => Unreached::Tls(text),
        (false, false) => Unreached::Other(text),
    }
}

/// An error of TLS, as such or within those of the connection, which say nothing of what is in them.
fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || inner.is_some_and(|inner| is_of_tls(inner))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A service whose answers to one request after the other are these; without one it hangs.
    async fn service(answers: Vec<String>) -> (Service, String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut hanging = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = answers.get(counted.fetch_add(1, Ordering::SeqCst));
                let mut request = [0; 1024];
                let _read = stream.read(&mut request).await.unwrap();
                match answer {
                    Some(answer) => _ = stream.write_all(answer.as_bytes()).await,
                    None => hanging.push(stream),
                }
            }
        });
        let thresholds = Thresholds { failures: 3, open: Duration::from_millis(300), ..Thresholds::default() };
        (
            Service::new("test", crate::outgoing::client(NamedBy::Operator).unwrap(), NamedBy::Operator, thresholds),
            url,
            asked,
        )
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
    }

    const LIMITS: Limits = Limits { within: Duration::from_millis(500), bytes: 1_000 };

    #[tokio::test]
    async fn what_may_be_repeated_is_and_nothing_else() {
        let twice = vec![answer("500 Oops", "", ""), answer("200 OK", "", "hello")];
        let (service, url, asked) = service(twice.clone()).await;
        let repeated = service.send(|client| client.get(&url), LIMITS, Retry::Within(Duration::from_secs(10))).await;
        assert_eq!((&*repeated.unwrap().body, asked.load(Ordering::SeqCst)), (&b"hello"[..], 2));
        let (service, url, asked) = self::service(twice).await;
        let once = service.send(|client| client.get(&url), LIMITS, Retry::Never).await;
        assert_eq!((once.unwrap().status.as_u16(), asked.load(Ordering::SeqCst)), (500, 1));
        let (service, url, asked) = self::service(vec![answer("404 Not Found", "", ""); 3]).await;
        let gone = service.send(|client| client.get(&url), LIMITS, Retry::Within(Duration::from_secs(10))).await;
        assert_eq!((gone.unwrap().status.as_u16(), asked.load(Ordering::SeqCst)), (404, 1), "that would not change");
    }

    #[tokio::test]
    async fn a_service_that_hangs_or_floods_is_given_up() {
        let (service, url, _) = service(vec![answer("200 OK", "", &"x".repeat(1_001))]).await;
        let call = || service.send(|client| client.get(&url), LIMITS, Retry::Never);
        assert_eq!(call().await.unwrap_err(), CallError::TooLarge(1_000));
        for _ in 0..3 {
            assert_eq!(call().await.unwrap_err(), CallError::TimedOut(LIMITS.within));
        }
        let refused = call().await.unwrap_err();
        assert!(matches!(refused, CallError::Rejected(_)), "{refused}");
        assert_eq!(service.state(), State::Open);
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_a_wish_for_a_pause_is_respected() {
        let (service, url, asked) = service(vec![
            answer("302 Found", "Location: http://169.254.169.254/\r\n", ""),
            answer("429 Too Many", "Retry-After: 60\r\n", ""),
        ])
        .await;
        let call = || service.send(|client| client.get(&url), LIMITS, Retry::Within(Duration::from_secs(5)));
        assert_eq!(call().await.unwrap().status.as_u16(), 302, "nobody follows it");
        assert_eq!(call().await.unwrap().status.as_u16(), 429, "a minute is longer than there is time");
        let CallError::Rejected(left) = call().await.unwrap_err() else { panic!() };
        assert!(left > Duration::from_secs(50), "{left:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_cloud_is_not_asked_for_the_machines_credentials() {
        let service = Service::new(
            "test",
            crate::outgoing::client(NamedBy::Operator).unwrap(),
            NamedBy::Operator,
            Thresholds::default(),
        );
        for url in ["http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/"] {
            let error = service.send(|client| client.get(url), LIMITS, Retry::Never).await.unwrap_err();
            assert!(error.to_string().contains("credentials"), "{error}");
        }
        assert_eq!(service.state(), State::Closed, "that says nothing of the service");
    }

    #[tokio::test]
    async fn what_cannot_be_reached_is_told_without_its_address() {
        let client = crate::outgoing::client(NamedBy::Operator).unwrap();
        let service = Service::new("test", client, NamedBy::Operator, Thresholds::default());
        let secret = "http://user:hunter2@127.0.0.1:1/token-hunter2";
        let error = service.send(|client| client.get(secret), LIMITS, Retry::Never).await.unwrap_err().to_string();
        assert!(error.contains("refused") && !error.contains("hunter2") && !error.contains("127.0.0.1"), "{error}");
    }

    #[tokio::test]
    async fn work_that_waits_is_postponed_and_goes_on_in_its_order() {
        let mut answers = vec![answer("500 Oops", "", ""); 4];
        answers.extend(vec![answer("200 OK", "", ""); 3]);
        let (service, url, asked) = service(answers).await;
        let order = parking_lot::Mutex::new(Vec::new());
        let call = async |name: usize| {
            let told = service.send_when_admitted(|client| client.post(&url), Limits { bytes: 0, ..LIMITS }).await;
            order.lock().push((name, told.unwrap().status.as_u16()));
        };
        for name in 0..3 {
            call(name).await;
        }
        assert_eq!(service.state(), State::Open);
        tokio::join!(call(3), call(4), call(5), call(6));
        let found: Vec<_> = order.lock().iter().copied().skip(3).collect();
        assert_eq!(found[..2], [(3, 500), (4, 200)], "one is tried after the other");
        assert_eq!((found.len(), asked.load(Ordering::SeqCst)), (4, 7));
    }

    #[tokio::test]
    async fn whoever_waits_hurries_at_the_end_unless_the_service_wants_to_be_left_alone() {
        let ok = answer("200 OK", "", "");
        let (service, url, _) = service(vec![answer("500 Oops", "", ""), ok.clone(), ok]).await;
        let breaker = Thresholds { failures: 1, open: Duration::from_secs(600), ..Thresholds::default() };
        let service = Service { breaker: Breaker::new("test", breaker), ..service };
        let call = || service.send_when_admitted(|client| client.post(&url), LIMITS);
        call().await.unwrap();
        let (told, ()) = tokio::join!(call(), async {
            tokio::task::yield_now().await;
            service.hurry(Duration::from_millis(10));
        });
        assert_eq!(told.unwrap().status.as_u16(), 200);
        service.postpone(Duration::from_millis(300));
        let begun = Instant::now();
        call().await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds() {
        for (value, expected) in [
            ("3", Some(Duration::from_secs(3))),
            (" 0 ", Some(Duration::ZERO)),
            ("-1", None),
            ("1.5", None),
            ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ] {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, header::HeaderValue::from_static(value))]);
            assert_eq!(retry_after(&headers), expected, "{value:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn pauses_are_random_below_a_bound_that_doubles() {
        for attempt in 1..20 {
            let most = Duration::from_millis(200).saturating_mul(1 << (attempt - 1)).min(LONGEST_PAUSE);
            assert!((0..100).all(|_| pause(attempt) <= most));
        }
    }
}
