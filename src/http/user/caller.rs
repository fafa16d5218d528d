//! Who asks, and for which app (sections 1.5 and 8.6). The token stands in `Authorization: Bearer` or in Clerk's cookie, never in an address.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header, request};

use super::cookies;
use crate::apps::App;
use crate::http::fault::Fault;
use crate::http::limits::{self, Caller, Policy};
use crate::identity::Identity;
use crate::integrations::provider::NotIdentified;
use crate::integrations::sentry;
use crate::metrics;
use crate::parts::Parts;

/// The header that names an app.
const APP: &str = "x-herald-app";

/// Checks the request's token, and counts it under `policy`.
///
/// # Errors
/// [`Fault::Unauthenticated`]; what it says of the token is for the log only. [`Fault::RateLimited`].
pub async fn identity(parts: &Parts, head: &request::Parts, policy: Policy) -> Result<Identity, Fault> {
    match identify(parts, &head.headers).await {
        Ok(identity) => {
            sentry::is_user(&identity.user, None);
            limits::count(parts, &head.extensions, policy, Caller::User(&identity.user)).await?;
            Ok(identity)
        }
        Err(fault @ Fault::Unauthenticated { given: true, .. }) => {
            sentry::user_action("token", "", "refused");
            limits::count_failure(parts, &head.extensions, &head.headers).await?;
            Err(fault)
        }
        Err(fault) => Err(fault),
    }
}

async fn identify(parts: &Parts, headers: &HeaderMap) -> Result<Identity, Fault> {
    let refuse = |given, reason: String| {
        metrics::auth_failed("token", if given { "invalid" } else { "missing" });
        Fault::Unauthenticated { given, reason }
    };
    let provider = parts.identity.as_ref().ok_or(Fault::NotFound)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let identify = async |token: &str| {
        provider.identify(token, now).await.map_err(|error| match error {
            NotIdentified::NoKeys(_) => Fault::AuthUnavailable,
            NotIdentified::Token(error) => refuse(true, error.to_string()),
        })
    };
    if let Some(token) = bearer(headers) {
        return identify(token).await;
    }
    let session = cookies::session(&parts.config, headers)
        .map_err(|_| Fault::Forbidden("cookies count for pages of the app's own origins only".to_owned()))?;
    let session = session.ok_or_else(|| refuse(false, "neither a bearer token nor a cookie".to_owned()))?;
    let (mut newest, mut refused): (Option<Identity>, Option<Fault>) = (None, None);
    for token in &session.tokens {
        match identify(token).await {
            Ok(identity) if newest.as_ref().is_none_or(|known| known.issued_at < identity.issued_at) => {
                newest = Some(identity);
            }
            Ok(_) => {}
            Err(fault) => refused = Some(fault),
        }
    }
    let nobody = || refused.unwrap_or_else(|| refuse(true, "no cookie with a token".to_owned()));
    let identity = newest.ok_or_else(nobody)?;
    // A page signs out, or in anew, before the cookie with the token is another one.
    let issued_at = identity.issued_at.unwrap_or_default();
    match session.changed_at {
        Some(changed) if changed == 0 || changed as f64 > issued_at => {
            Err(refuse(true, "the client has signed out, or in anew, since the cookie's token was made".to_owned()))
        }
        _ => Ok(identity),
    }
}

/// Checks the request's token, and that its user and session are still served. Its route says under which policy it counts; of an inbox and
/// what belongs to it that is one for reading and one for changing.
///
/// # Errors
/// As [`identity`], and those of the store.
pub async fn served(parts: &Parts, head: &request::Parts) -> Result<Identity, Fault> {
    let of_inbox = if head.method.is_safe() { Policy::InboxReads } else { Policy::InboxWrites };
    let policy = head.extensions.get().copied().unwrap_or(of_inbox);
    let identity = identity(parts, head, policy).await?;
    let store = &parts.notifications()?.store;
    let standing = store.standing(&identity.user, identity.session.as_deref(), None).await?;
    if standing.is_refused() { Err(ended()) } else { Ok(identity) }
}

/// What somebody is told whose token outlives the session.
#[must_use]
pub fn ended() -> Fault {
    Fault::Unauthenticated {
        given: true,
        reason: "the session has ended, or the user is not served any more".to_owned(),
    }
}

/// The app that a request is for: named by `app` in the query or the body, or by the header, as its id or one of its keys; else the only
/// one there is.
///
/// # Errors
/// [`Fault::AppRequired`], [`Fault::UnknownApp`], and [`Fault::Forbidden`] for one that is disabled.
pub fn app(parts: &Parts, head: &request::Parts, in_body: Option<&str>) -> Result<Arc<App>, Fault> {
    let query = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    let in_query = query.into_iter().find(|(name, _)| name == "app").map(|(_, value)| value.into_owned());
    let in_header = || head.headers.get(APP).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let named = in_body.map(str::to_owned).or(in_query).or_else(in_header);
    let app = match named {
        Some(name) => parts.apps.by_id(&name).or_else(|| parts.apps.by_key(&name)).ok_or(Fault::UnknownApp)?,
        None => parts.apps.only().ok_or(Fault::AppRequired)?,
    };
    if app.options().enabled { Ok(app) } else { Err(Fault::Forbidden("the app is disabled".to_owned())) }
}

/// The token of a request.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
