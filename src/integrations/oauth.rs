//! A service's token endpoint (RFC 6749, section 6): a refresh token is given for a new access token.
//!
//! Always: one request at a time may consume the refresh token, so nothing is sent twice but where the service has said that it does not know the
//! client; what it answers is bounded and has to have the form that it should; no token and no secret is in an error.
//!
//! How a client shows who it is, services do not agree on: by HTTP Basic as the standard wants it, or in the form. What was taken once is tried first
//! from then on; so is the second secret, while one replaces the other.
//!
//! Not here: where tokens are kept, and when they are refreshed (`accounts`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use form_urlencoded::byte_serialize;
use herald_protocol::Secret;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use crate::config::OauthOptions;
use crate::outgoing::Outgoing;
use crate::outgoing::problem::CallProblem;
use crate::outgoing::service::{Answer, CallError, Limits, Retry, Service};
use crate::seal::PlainToken;

/// What an answer may take. The largest tokens there are have a few KiB.
const LIMITS: Limits = Limits { within: Duration::from_secs(4), bytes: 64 * 1024 };
/// The longest token.
pub const MAX_TOKEN: usize = 16 * 1024;
/// The longest time that a token is believed to live.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// The service does not know the client.
const NO_CLIENT: &str = "invalid_client";
/// The most scopes, and the longest.
const MAX_SCOPES: usize = 200;
const MAX_SCOPE: usize = 255;

/// See the module.
#[derive(Debug)]
pub struct Endpoint {
    /// Whom it is asked of.
    pub service: Arc<Service>,
    url: Url,
    client_id: String,
    /// Each way to say who asks, with each of the secrets.
    ways: Vec<(Way, Secret)>,
    /// The one that was taken last.
    way: AtomicUsize,
}

/// How the client shows who it is.
#[derive(Clone, Copy, Debug)]
enum Way {
    Basic,
    Form,
}

/// New tokens.
#[derive(Debug)]
pub struct Granted {
    /// What opens the service.
    pub access: PlainToken,
    /// What is given for the next one, if it is another one now.
    pub refresh: Option<PlainToken>,
    /// How long the access token lives, if that is said.
    pub lives: Option<Duration>,
    /// What it is good for, if that is said.
    pub scopes: Option<Vec<String>>,
}

/// Why there are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// The refresh token counts no more: the user has taken it back, or it is too old.
    #[error("the refresh token does not count any more")]
    Revoked,
    /// The service refuses, for a reason that the standard knows.
    #[error("the service refuses: {0}")]
    Refused(&'static str),
    /// There is no answer, or none that makes sense.
    #[error(transparent)]
    Call(#[from] CallProblem),
}

impl NotGranted {
    /// Whether the service may only not have seen who asks; then the refresh token was not looked at.
    fn may_be_the_way(&self) -> bool {
        match self {
            Self::Refused(code) => matches!(*code, NO_CLIENT | "invalid_request"),
            Self::Call(CallProblem::Status(status)) => status.is_client_error() && status.as_u16() != 429,
            Self::Revoked | Self::Call(_) => false,
        }
    }

    /// One word of a fixed list.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Revoked => "invalid_grant",
            Self::Refused(code) => code,
            Self::Call(problem) => problem.code(),
        }
    }
}

/// What a service answers, whichever of the two it is. GitHub sends errors with 200.
#[derive(Deserialize)]
struct Written {
    access_token: Option<PlainToken>,
    refresh_token: Option<PlainToken>,
    expires_in: Option<Value>,
    scope: Option<Value>,
    error: Option<String>,
}

impl Endpoint {
    /// The configured one; `None` unless all of it is.
    #[must_use]
    pub fn new(options: &OauthOptions, outgoing: &Outgoing) -> Option<Self> {
        let (url, client_id) = (options.token_url.clone()?, options.client_id.clone()?);
        let secrets = [Some(options.client_secret.clone()?), options.other_client_secret.clone()];
        let with = |secret: Secret| [(Way::Basic, secret.clone()), (Way::Form, secret)];
        let ways = secrets.into_iter().flatten().flat_map(with).collect();
        Some(Self { service: outgoing.service("oauth"), url, client_id, ways, way: AtomicUsize::new(0) })
    }

    /// Asks for new tokens.
    ///
    /// # Errors
    /// See [`NotGranted`].
    pub async fn refresh(&self, token: &PlainToken) -> Result<Granted, NotGranted> {
        let first = self.way.load(Ordering::Relaxed);
        let mut refused = NotGranted::Refused(NO_CLIENT);
        for number in (0..self.ways.len()).map(|number| (first + number) % self.ways.len()) {
            let Some((way, secret)) = self.ways.get(number) else { continue };
            match read(self.ask(*way, secret, token).await) {
                Err(error) if error.may_be_the_way() => refused = error,
                answered => {
                    if answered.is_ok() {
                        self.way.store(number, Ordering::Relaxed);
                    }
                    return answered;
                }
            }
        }
        Err(refused)
    }

    async fn ask(&self, way: Way, secret: &Secret, token: &PlainToken) -> Result<Answer, CallError> {
        let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", token.expose())];
        if matches!(way, Way::Form) {
            form.extend([("client_id", self.client_id.as_str()), ("client_secret", secret.expose())]);
        }
        let body = Zeroizing::new(form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish());
        let request = |client: &reqwest::Client| {
            let request = client
                .post(self.url.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(ACCEPT, "application/json")
                .body(String::clone(&body));
            match way {
                // The standard has both encoded as in a form.
                Way::Basic => request.basic_auth(encoded(&self.client_id), Some(encoded(secret.expose()))),
                Way::Form => request,
            }
        };
        self.service.send(request, LIMITS, Retry::Never).await
    }
}

fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

fn read(answered: Result<Answer, CallError>) -> Result<Granted, NotGranted> {
    let answer = answered.map_err(CallProblem::Call)?;
    let (status, nonsense) = (answer.status, NotGranted::Call(CallProblem::Answer));
    if !status.is_success() && !status.is_client_error() || matches!(status.as_u16(), 408 | 420 | 429) {
        return Err(CallProblem::Status(status).into());
    }
    let written: Option<Written> = serde_json::from_slice(&answer.body).ok();
    if let Some(error) = written.as_ref().and_then(|written| written.error.as_deref()) {
        return Err(refusal(error).unwrap_or(CallProblem::Status(status).into()));
    }
    match status.as_u16() {
        401 => return Err(NotGranted::Refused(NO_CLIENT)),
        400.. => return Err(CallProblem::Status(status).into()),
        _ => {}
    }
    let written = written.ok_or_else(|| nonsense.clone())?;
    let access = written.access_token.filter(is_token).ok_or_else(|| nonsense.clone())?;
    let refresh = written.refresh_token.filter(|token| !token.expose().is_empty());
    if refresh.as_ref().is_some_and(|token| !is_token(token)) {
        return Err(nonsense);
    }
    let lives = written.expires_in.filter(|value| !value.is_null());
    let lives = lives.map(|value| span(&value).ok_or(nonsense)).transpose()?;
    let scopes = written.scope.as_ref().and_then(Value::as_str).map(scopes);
    Ok(Granted { access, refresh, lives, scopes })
}

/// What an error of the standard means; GitHub has names of its own.
fn refusal(error: &str) -> Option<NotGranted> {
    const KNOWN: [&str; 5] =
        ["invalid_request", NO_CLIENT, "unauthorized_client", "unsupported_grant_type", "invalid_scope"];
    match error {
        "invalid_grant" | "bad_refresh_token" => Some(NotGranted::Revoked),
        "incorrect_client_credentials" => Some(NotGranted::Refused(NO_CLIENT)),
        other => KNOWN.into_iter().find(|known| *known == other).map(NotGranted::Refused),
    }
}

/// Whether a text can be a token at all: it goes into headers.
#[must_use]
pub fn is_token(token: &PlainToken) -> bool {
    let text = token.expose();
    (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// Seconds, which some services write as text.
fn span(value: &Value) -> Option<Duration> {
    let seconds = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    (seconds.is_finite() && seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())))
}

fn scopes(text: &str) -> Vec<String> {
    // Some put commas between.
    let all = text.split([' ', ',']).filter(|scope| (1..=MAX_SCOPE).contains(&scope.len()) && !scope.contains('\0'));
    all.take(MAX_SCOPES).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::http::{HeaderMap, StatusCode};

    use super::*;

    fn answer(status: u16, body: &str) -> Result<Granted, NotGranted> {
        let status = StatusCode::from_u16(status).unwrap();
        read(Ok(Answer { status, headers: HeaderMap::new(), body: Bytes::copy_from_slice(body.as_bytes()) }))
    }

    #[test]
    fn an_answer_is_taken_as_it_is_meant() {
        let granted = answer(
            200,
            r#"{"access_token":"a","refresh_token":"r","expires_in":3600,"scope":"mail files","token_type":"Bearer","more":1}"#,
        );
        let granted = granted.unwrap();
        assert_eq!((granted.access.expose(), granted.refresh.unwrap().expose()), ("a", "r"));
        assert_eq!(granted.lives, Some(Duration::from_secs(3_600)));
        assert_eq!(granted.scopes.unwrap(), ["mail", "files"]);
        for (body, lives) in [
            (r#"{"access_token":"a"}"#, None),
            (r#"{"access_token":"a","expires_in":null,"refresh_token":null,"scope":null}"#, None),
            (r#"{"access_token":"a","expires_in":"60","refresh_token":""}"#, Some(Duration::from_secs(60))),
            (r#"{"access_token":"a","expires_in":1e300}"#, Some(LONGEST)),
        ] {
            let granted = answer(200, body).unwrap();
            assert_eq!((granted.lives, granted.refresh, granted.scopes), (lives, None, None), "{body}");
        }
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_none() {
        let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(MAX_TOKEN + 1));
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            "null",
            r#"{"access_token":1}"#,
            r#"{"access_token":""}"#,
            r#"{"access_token":"a\nSet-Cookie: x"}"#,
            r#"{"access_token":"a","refresh_token":{}}"#,
            r#"{"access_token":"a","refresh_token":"ü"}"#,
            r#"{"access_token":"a","expires_in":-1}"#,
            r#"{"access_token":"a","expires_in":0}"#,
            r#"{"access_token":"a","expires_in":"soon"}"#,
            &long,
        ] {
            assert_eq!(answer(200, body).unwrap_err(), NotGranted::Call(CallProblem::Answer), "{body}");
        }
    }

    #[test]
    fn a_refusal_has_a_word_and_nothing_of_the_answer() {
        for (status, body, code) in [
            (400, r#"{"error":"invalid_grant","error_description":"hush"}"#, "invalid_grant"),
            (200, r#"{"error":"bad_refresh_token"}"#, "invalid_grant"),
            (200, r#"{"error":"incorrect_client_credentials"}"#, "invalid_client"),
            (401, r#"{"error":"invalid_client"}"#, "invalid_client"),
            (401, "", "invalid_client"),
            (400, r#"{"error":"unauthorized_client"}"#, "unauthorized_client"),
            (400, r#"{"error":"hush"}"#, "http_4xx"),
            (400, "hush", "http_4xx"),
            (403, "", "http_4xx"),
            (429, r#"{"error":"invalid_grant"}"#, "rate_limited"),
            (503, r#"{"error":"invalid_grant"}"#, "http_5xx"),
            (302, "", "bad_response"),
        ] {
            let error = answer(status, body).unwrap_err();
            assert_eq!(error.code(), code, "{status} {body}");
            assert!(!format!("{error:?} {error}").contains("hush"));
        }
    }
}
