//! Which backend asks: by the signature of a Pusher server library, or by an API key, which reaches every app.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts as _, RawPathParams, Request};
use axum::http::request;
use serde::de::DeserializeOwned;

use crate::apps::{App, Metered};
use crate::http::fault::{Fault, read_body};
use crate::http::limits::{self, Caller, Policy, within};
use crate::http::pusher::auth::Signed;
use crate::http::pusher::body;
use crate::http::user::caller::{app, bearer};
use crate::metrics;
use crate::parts::Parts;

/// The largest body of a request.
const MAX_BYTES: usize = 256 * 1024;

/// A backend's request.
#[derive(Debug)]
pub struct Backend {
    /// The app that it is for.
    pub app: Arc<App>,
    /// Method, address and headers.
    pub head: request::Parts,
    /// The body.
    pub body: Bytes,
    values: Vec<(String, String)>,
}

impl Backend {
    /// A value of the path, percent-decoded.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// The body, as JSON.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.body).map_err(|error| Fault::Invalid(format!("the body: {error}")))
    }
}

impl FromRequest<Arc<Parts>> for Backend {
    type Rejection = Fault;

    async fn from_request(request: Request, parts: &Arc<Parts>) -> Result<Self, Fault> {
        let Some(key) = bearer(request.headers()) else {
            let signed = Signed::from_request(request, parts).await?;
            limits::count(parts, &signed.head.extensions, Policy::Servers, Caller::App(signed.app.id())).await?;
            let values = signed.values();
            return Ok(Self { app: signed.app, head: signed.head, body: signed.body, values });
        };
        // Every key is compared, so the time says nothing about which of them was nearly right.
        let is_known = parts.config.server.api_keys.iter().filter(|known| known.is(key)).count() > 0;
        let (mut head, body) = request.into_parts();
        if !is_known {
            metrics::auth_failed("api_key", "unknown_key");
            body::swallow(&head, body).await;
            limits::count_failure(parts, &head.extensions, &head.headers).await?;
            return Err(Fault::Unauthenticated { given: true, reason: "no such API key".to_owned() });
        }
        let values = RawPathParams::from_request_parts(&mut head, parts).await;
        let values = values.map_err(|_| Fault::Invalid("the path is not UTF-8".to_owned()))?;
        let values: Vec<(String, String)> =
            values.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let in_path = values.iter().find(|(name, _)| name == "app_id").map(|(_, id)| id.as_str());
        let app = app(parts, &head, in_path)?;
        let body = read_body(parts, &head, body, MAX_BYTES).await?;
        limits::count(parts, &head.extensions, Policy::Servers, Caller::App(app.id())).await?;
        if head.method == axum::http::Method::GET {
            within(parts, &app, Metered::Reads, 1).await?;
        }
        Ok(Self { app, head, body, values })
    }
}
