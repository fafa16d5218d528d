//! Who signed a request (section 4.1): checked in the order of the specification, the first failure answers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::RequestExt as _;
use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Request};
use herald_protocol::signature::{body_md5, request_string};
use http_body_util::{BodyExt as _, Limited};
use subtle::ConstantTimeEq as _;

use crate::apps::App;
use crate::http::error::ApiError;
use crate::server::Parts;

/// How far a request's timestamp may be from the server's clock.
const WINDOW_SECONDS: u64 = 600;

/// A request whose signature is right: whose it is, and what it says.
#[derive(Debug)]
pub struct Signed {
    /// The app that the request is for.
    pub app: Arc<App>,
    /// The body, whose MD5 was signed.
    pub body: Bytes,
}

impl FromRequest<Arc<Parts>> for Signed {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, parts: &Arc<Parts>) -> Result<Self, ApiError> {
        let path: Path<HashMap<String, String>> = request.extract_parts().await.map_err(|_| ApiError::NotFound)?;
        let id = path.get("app_id").map(String::as_str).unwrap_or_default();
        let app = parts.apps.by_id(id).ok_or_else(|| ApiError::UnknownApp(id.chars().take(64).collect()))?;
        if !app.options.enabled {
            return Err(ApiError::AppDisabled(app.id().to_owned()));
        }
        let limit = 10 * app.limits().event_data + 64 * 1024;
        let within = parts.config.server.request_timeout;
        let (head, body) = request.into_parts();
        let body = tokio::time::timeout(within, Limited::new(body, limit).collect()).await;
        let body =
            body.map_err(|_| ApiError::BodyTooSlow(within))?.map_err(|_| ApiError::BodyTooLarge(limit))?.to_bytes();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let query = head.uri.query().unwrap_or_default();
        check(&app, head.method.as_str(), head.uri.path(), query, &body, now).map_err(ApiError::Unauthorized)?;
        Ok(Self { app, body })
    }
}

/// Checks a request's signature at the time `now` (Unix seconds); the error says what is wrong, and no secret.
///
/// # Errors
/// In the order of section 4.1.
pub fn check(app: &App, method: &str, path: &str, query: &str, body: &[u8], now: u64) -> Result<(), String> {
    let parameters: Vec<(Cow<'_, str>, Cow<'_, str>)> = form_urlencoded::parse(query.as_bytes()).collect();
    let find =
        |name: &str| parameters.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &**value);
    let need = |name: &str| find(name).ok_or_else(|| format!("`{name}` is missing in the query"));
    let (key, timestamp, signature) = (need("auth_key")?, need("auth_timestamp")?, need("auth_signature")?);
    let timestamp: u64 = timestamp.parse().map_err(|_| "`auth_timestamp` must be Unix seconds".to_owned())?;
    if need("auth_version")? != "1.0" {
        return Err("`auth_version` must be 1.0".to_owned());
    }
    let md5 = if body.is_empty() { None } else { Some(need("body_md5")?) };
    let secret = app.secret_of(key).ok_or("`auth_key` is none of this app's keys")?;
    if now.abs_diff(timestamp) > WINDOW_SECONDS {
        let difference = now.abs_diff(timestamp);
        return Err(format!(
            "`auth_timestamp` is {difference} s away from the server's time {now}; {WINDOW_SECONDS} s are allowed"
        ));
    }
    let signed = request_string(method, path, parameters.iter().map(|(key, value)| (&**key, &**value)));
    if !secret.verifies(signed.as_bytes(), signature) {
        return Err(format!(
            "wrong signature: it must be the lower-case hex HMAC-SHA256, with the secret of that key, of {signed:?}"
        ));
    }
    match md5 {
        Some(md5) if !bool::from(body_md5(body).as_bytes().ct_eq(md5.as_bytes())) => {
            Err("`body_md5` is not the lower-case hex MD5 of the body".to_owned())
        }
        _ => Ok(()),
    }
}
