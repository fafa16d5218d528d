//! Clerk's session cookies (section 1.5): where Herald is served from the app's own origin, browsers send the session along by themselves.
//!
//! Only pages of that origin, or of one that is allowed, may use them: any other page could make a browser send them too. Values are decoded
//! after the header was split, or an encoded `;` would forge a cookie.

use axum::http::{HeaderMap, header};
use percent_encoding::percent_decode_str;

use super::Origins;
use crate::config::Config;

/// What a browser has said of its session.
#[derive(Debug, PartialEq, Eq)]
pub struct Session {
    /// Tokens, one or two: which is right has still to be found out.
    pub tokens: Vec<String>,
    /// When the client last changed its sign-in, in Unix seconds; 0: nobody is signed in.
    pub changed_at: Option<u64>,
}

/// A page that may not use cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignOrigin;

/// The session in a request's cookies; `None` if there is none.
///
/// # Errors
/// [`ForeignOrigin`].
pub fn session(config: &Config, headers: &HeaderMap) -> Result<Option<Session>, ForeignOrigin> {
    if !config.auth.cookies || config.auth.oidc.issuer.is_some() {
        return Ok(None);
    }
    let suffix = config.auth.publishable_key.as_ref().map(|key| format!("_{}", key.cookie_suffix()));
    let names =
        |name: &str| suffix.iter().map(|suffix| format!("{name}{suffix}")).chain([name.to_owned()]).collect::<Vec<_>>();
    let all = cookies(headers);
    let value = |name: &String| all.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let tokens: Vec<String> = names("__session").iter().filter_map(value).filter(|token| !token.is_empty()).collect();
    if tokens.is_empty() {
        return Ok(None);
    }
    let is_allowed = headers.get(header::ORIGIN).is_none_or(|origin| Origins::of(config).allow(origin));
    if !is_allowed {
        return Err(ForeignOrigin);
    }
    let changed_at = names("__client_uat").iter().find_map(value).and_then(|text| text.parse().ok());
    Ok(Some(Session { tokens, changed_at }))
}

fn cookies(headers: &HeaderMap) -> Vec<(String, String)> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), percent_decode_str(value).decode_utf8_lossy().into_owned())).collect()
}
