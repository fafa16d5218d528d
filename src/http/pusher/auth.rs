//! Who signed a request (section 4.1): checked in the order of the specification, the first failure answers.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts as _, RawPathParams, Request};
use axum::http::{Method, request};
use herald_protocol::signature::{is_body_md5, request_string};
use memchr::{memchr, memchr2};

use super::body;
use super::parameters::Parameters;
use crate::apps::{App, Metered};
use crate::http::error::ApiError;
use crate::http::limits::{count_failure, within};
use crate::metrics;
use crate::parts::Parts;

/// How far a request's timestamp may be from the server's clock.
const WINDOW_SECONDS: u64 = 600;

/// A request whose signature is right: whose it is, and what it says.
#[derive(Debug)]
pub struct Signed {
    /// The app that the request is for.
    pub app: Arc<App>,
    /// Method, address and headers.
    pub head: request::Parts,
    /// What stands in the query.
    pub parameters: Parameters,
    /// The body, whose MD5 was signed.
    pub body: Bytes,
    /// Where the path has some beside the app's id.
    values: Option<RawPathParams>,
}

/// Why a request is nobody's; the text says what is wrong, and no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A parameter is missing.
    #[error("`{0}` is missing in the query")]
    MissingParameter(&'static str),
    /// A parameter is not what it must be.
    #[error("`{name}` must be {expected}")]
    MalformedParameter {
        /// The parameter.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The key is none of the app's.
    #[error("`auth_key` is none of this app's keys")]
    UnknownKey,
    /// The clocks are too far apart, or the request is old.
    #[error(
        "`auth_timestamp` is {difference} s away from the server's time {now}; {WINDOW_SECONDS} s are allowed: is the clock right?"
    )]
    Expired {
        /// How far it is from the server's time, in seconds.
        difference: u64,
        /// The server's time.
        now: u64,
    },
    /// The signature is not the one of this request.
    #[error("wrong signature: it must be the lower-case hex HMAC-SHA256, with the secret of that key, of {signed:?}")]
    WrongSignature {
        /// What had to be signed.
        signed: String,
    },
    /// The body is not the one that was signed.
    #[error("`body_md5` is not the lower-case hex MD5 of the body")]
    WrongBodyMd5,
}

impl AuthError {
    /// Its name in metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::MissingParameter(_) => "missing_parameter",
            Self::MalformedParameter { .. } => "malformed_parameter",
            Self::UnknownKey => "unknown_key",
            Self::Expired { .. } => "expired",
            Self::WrongSignature { .. } => "wrong_signature",
            Self::WrongBodyMd5 => "wrong_body_md5",
        }
    }
}

impl Signed {
    /// A value of the path, percent-decoded.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        self.values.iter().flatten().find(|(known, _)| *known == name).map(|(_, value)| value).unwrap_or_default()
    }

    /// All values of the path.
    #[must_use]
    pub fn values(&self) -> Vec<(String, String)> {
        self.values.iter().flatten().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The body as text; an empty one counts as an empty object.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn json(&self) -> Result<&str, ApiError> {
        match str::from_utf8(&self.body) {
            Ok("") => Ok("{}"),
            Ok(text) => Ok(text),
            Err(_) => Err(ApiError::Parameter("the body is not UTF-8".to_owned())),
        }
    }
}

impl FromRequest<Arc<Parts>> for Signed {
    type Rejection = ApiError;

    async fn from_request(request: Request, parts: &Arc<Parts>) -> Result<Self, ApiError> {
        let (mut head, body) = request.into_parts();
        let (app, values) = match RawPathParams::from_request_parts(&mut head, parts).await {
            Ok(values) => {
                let id = values.iter().find(|(name, _)| *name == "app_id").map(|(_, id)| id);
                (app(parts, id, head.uri.query().unwrap_or_default()), Some(values))
            }
            Err(_) => (Err(ApiError::Parameter("the path is not UTF-8".to_owned())), None),
        };
        Self::check(parts, app, head, body, values).await
    }
}

impl Signed {
    /// Checks a request to this app, as far as there is one.
    ///
    /// # Errors
    /// What is wrong with it first.
    pub(in crate::http) async fn check(
        parts: &Parts,
        app: Result<Arc<App>, ApiError>,
        head: request::Parts,
        body: Body,
        values: Option<RawPathParams>,
    ) -> Result<Self, ApiError> {
        let app = match app {
            Ok(app) => app,
            Err(error) => {
                body::swallow(&head, body).await;
                return Err(error);
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let query = head.uri.query().unwrap_or_default();
        let has_body = body.size_hint().lower() > 0;
        let failed = |error: &AuthError| metrics::auth_failed("request", error.label());
        // The signature says which body belongs to it, so nothing is kept of the body of somebody who is nobody.
        let authorized = match check(&app, head.method.as_str(), head.uri.path(), query, has_body, now) {
            Ok(authorized) => authorized,
            Err(error) => {
                failed(&error);
                body::swallow(&head, body).await;
                count_failure(parts, &head.extensions, &head.headers).await?;
                return Err(error.into());
            }
        };
        let limit = 10 * app.limits().event_data + 64 * 1024;
        let body = body::read(&head, body, limit, parts.config.server.request_timeout).await?;
        let parameters = authorized.with(&body).inspect_err(failed)?;
        if matches!(head.method, Method::GET | Method::HEAD) {
            within(parts, &app, Metered::Reads, 1).await?;
        }
        Ok(Self { app, head, parameters, body, values })
    }
}

/// The app of the path, or where the path names none, of the key.
///
/// # Errors
/// When there is none, or it is disabled.
pub(in crate::http) fn app(parts: &Parts, id: Option<&str>, query: &str) -> Result<Arc<App>, ApiError> {
    let app = match id {
        Some(id) => parts.apps.by_id(id).ok_or_else(|| ApiError::UnknownApp(id.chars().take(64).collect()))?,
        None => {
            let key = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name.eq_ignore_ascii_case("auth_key"));
            let (_, key) = key.ok_or(AuthError::MissingParameter("auth_key"))?;
            parts.apps.by_key(&key).ok_or(AuthError::UnknownKey)?
        }
    };
    if app.options().enabled { Ok(app) } else { Err(ApiError::AppDisabled(app.id().to_owned())) }
}

/// A query whose signature is right; whether the body is the one that was signed remains to be seen.
#[derive(Debug)]
pub struct Authorized<'a> {
    parameters: Parameters,
    body_md5: Option<Cow<'a, str>>,
}

impl Authorized<'_> {
    /// What else stands in the query, if `body` is the one that was signed.
    ///
    /// # Errors
    /// When it is another one, or none was signed.
    pub fn with(self, body: &[u8]) -> Result<Parameters, AuthError> {
        match &self.body_md5 {
            None if !body.is_empty() => Err(AuthError::MissingParameter("body_md5")),
            Some(md5) if !is_body_md5(md5, body) => Err(AuthError::WrongBodyMd5),
            _ => Ok(self.parameters),
        }
    }
}

/// Checks a request's signature at the time `now` (Unix seconds); `has_body` says whether a body was announced.
///
/// # Errors
/// In the order of section 4.1.
pub fn check<'a>(
    app: &App,
    method: &str,
    path: &str,
    query: &'a str,
    has_body: bool,
    now: u64,
) -> Result<Authorized<'a>, AuthError> {
    let parameters = decoded(query);
    let find =
        |name: &str| parameters.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let need = |name| find(name).ok_or(AuthError::MissingParameter(name));
    let malformed = |name, expected| AuthError::MalformedParameter { name, expected };
    let (key, timestamp, version) = (need("auth_key")?, need("auth_timestamp")?, need("auth_version")?);
    let signature = need("auth_signature")?;
    let body_md5 = find("body_md5").cloned();
    if body_md5.is_none() && has_body {
        return Err(AuthError::MissingParameter("body_md5"));
    }
    let digits = timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let timestamp: u64 =
        timestamp.parse().ok().filter(|_| digits).ok_or(malformed("auth_timestamp", "Unix seconds"))?;
    if version != "1.0" {
        return Err(malformed("auth_version", "1.0"));
    }
    if !app.has_key(key) {
        return Err(AuthError::UnknownKey);
    }
    let difference = now.abs_diff(timestamp);
    if difference > WINDOW_SECONDS {
        return Err(AuthError::Expired { difference, now });
    }
    let signed = request_string(method, path, parameters.iter().map(|(key, value)| (&**key, &**value)));
    if app.verifies(key, signed.as_bytes(), signature) != Some(true) {
        return Err(AuthError::WrongSignature { signed });
    }
    Ok(Authorized { parameters: Parameters::new(&parameters), body_md5 })
}

/// The parameters of a query. Most queries hold nothing that is encoded, and are taken as they stand.
fn decoded(query: &str) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let mut parameters = Vec::with_capacity(8);
    if memchr2(b'%', b'+', query.as_bytes()).is_some() {
        parameters.extend(form_urlencoded::parse(query.as_bytes()));
        return parameters;
    }
    let mut rest = query;
    while !rest.is_empty() {
        let (pair, others) = cut(rest, b'&');
        if !pair.is_empty() {
            let (name, value) = cut(pair, b'=');
            parameters.push((Cow::Borrowed(name), Cow::Borrowed(value)));
        }
        rest = others;
    }
    parameters
}

/// What stands before and behind the first of this ASCII character; all of it stands before one that there is not.
fn cut(text: &str, at: u8) -> (&str, &str) {
    let found = memchr(at, text.as_bytes()).and_then(|place| text.split_at_checked(place));
    found.map_or((text, ""), |(before, from_there)| (before, from_there.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use herald_protocol::Secret;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::apps::Apps;
    use crate::config::AppOptions;

    const EXAMPLE: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f&auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
    const BODY: &[u8] = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    const NOW: u64 = 1_353_088_179;

    fn app() -> Arc<App> {
        let (key, secret) = ("278d425bdf160c739803".to_owned(), Secret::new("7ad3773142a6692b25b8"));
        Apps::new(vec![AppOptions { id: "3".into(), key, secret, ..AppOptions::default() }]).by_id("3").unwrap()
    }

    fn example(query: &str, body: &[u8], now: u64) -> Result<(), AuthError> {
        check(&app(), "POST", "/apps/3/events", query, !body.is_empty(), now)?.with(body).map(drop)
    }

    #[test]
    fn the_worked_example_is_valid_for_ten_minutes() {
        for distance in [0, 599, 600] {
            assert_eq!(example(EXAMPLE, BODY, NOW + distance), Ok(()), "{distance}");
            assert_eq!(example(EXAMPLE, BODY, NOW - distance), Ok(()), "-{distance}");
        }
        for now in [NOW + 601, NOW - 601] {
            assert_eq!(example(EXAMPLE, BODY, now), Err(AuthError::Expired { difference: 601, now }));
        }
    }

    #[test]
    fn names_in_any_order_and_case_are_the_same_request() {
        let mut parameters: Vec<&str> = EXAMPLE.split('&').collect();
        for _ in 0..parameters.len() {
            parameters.rotate_left(1);
            assert_eq!(example(&parameters.join("&"), BODY, NOW), Ok(()));
        }
        assert_eq!(example(&EXAMPLE.replace("auth_k", "Auth_%4B"), BODY, NOW), Ok(()));
    }

    #[test]
    fn every_failure_has_a_name() {
        for (query, body, label) in [
            ("", BODY, "missing_parameter"),
            (&*EXAMPLE.replace("body_md5", "x"), BODY, "missing_parameter"),
            (&EXAMPLE.replace("1.0", "1"), BODY, "malformed_parameter"),
            (&EXAMPLE.replace("=135", "=%2B135"), BODY, "malformed_parameter"),
            (&EXAMPLE.replace("278", "279"), BODY, "unknown_key"),
            (&EXAMPLE.replace("=135", "=136"), BODY, "expired"),
            (&EXAMPLE.replace("=da45", "=DA45"), BODY, "wrong_signature"),
            (&EXAMPLE.replace("7e6c", ""), BODY, "wrong_signature"),
            (&format!("{EXAMPLE}&info="), BODY, "wrong_signature"),
            (EXAMPLE, b"{}", "wrong_body_md5"),
            (EXAMPLE, b"", "wrong_body_md5"),
        ] {
            assert_eq!(example(query, body, NOW).map_err(|error| error.label()), Err(label), "{query}");
        }
        let elsewhere = check(&app(), "GET", "/apps/3/events", EXAMPLE, true, NOW).map(drop);
        let signed = EXAMPLE.split("&auth_signature").next().unwrap();
        assert_eq!(elsewhere, Err(AuthError::WrongSignature { signed: format!("GET\n/apps/3/events\n{signed}") }));
    }

    #[test]
    fn what_needs_no_decoding_is_read_like_the_rest() {
        for query in ["", "&", "a", "a=", "=", "=a", "a=b=c", "a=1&&b=%31&c+d=e+f", "g=%c3%a9&h=%ff", "&a=1&&b&", "é=é"]
        {
            assert_eq!(decoded(query), form_urlencoded::parse(query.as_bytes()).collect::<Vec<_>>(), "{query}");
        }
    }

    /// What a query says, however it is written: of several with one name the last counts.
    fn said(query: &str) -> BTreeMap<String, String> {
        let parameters = form_urlencoded::parse(query.as_bytes());
        parameters.map(|(name, value)| (name.to_ascii_lowercase(), value.into_owned())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_but_what_was_signed_is_let_in(
            at in any::<Index>(), removed in 0_usize..20, inserted in "[a-z0-9=&%+_.A-F\\PC]{0,6}", body in vec(any::<u8>(), 0..80),
        ) {
            let mut query: Vec<char> = EXAMPLE.chars().collect();
            let at = at.index(query.len() + 1);
            query.splice(at..(at + removed).min(query.len()), inserted.chars());
            let query = String::from_iter(query);
            if example(&query, BODY, NOW).is_ok() {
                prop_assert_eq!(said(&query), said(EXAMPLE));
            }
            prop_assert!(example(EXAMPLE, &body, NOW).is_err());
            prop_assert!(check(&app(), &inserted, &query, &query, !body.is_empty(), NOW).is_err());
        }
    }
}
